//! G2: span corruption.

use imagen::random::{Purpose, stream};
use imagen::text::t5::{Corruption, Gapped};
use proptest::prelude::*;
use std::collections::HashMap;

const SENTINELS: [u32; 30] = {
    let mut sentinels = [0; 30];
    let mut k = 0;
    while k < 30 {
        sentinels[k] = 999 - k as u32;
        k += 1;
    }
    sentinels
};
const END: u32 = 1;

fn is_sentinel(id: u32) -> bool {
    SENTINELS.contains(&id)
}

// ANCHOR: filled
/// The text again: every sentinel of the input replaced by what follows it in the target.
fn filled(gapped: &Gapped) -> Vec<u32> {
    let gap = |sentinel: u32| {
        let at = gapped.target.iter().position(|&id| id == sentinel).expect("the target names every gap") + 1;
        gapped.target[at..].iter().copied().take_while(|&id| !is_sentinel(id) && id != END)
    };
    let (last, input) = gapped.input.split_last().unwrap();
    assert_eq!(*last, END);
    input.iter().flat_map(|&id| if is_sentinel(id) { gap(id).collect() } else { vec![id] }).collect()
}
// ANCHOR_END: filled

proptest! {
    // ANCHOR: g2_input_and_target_reconstruct_the_text
    /// Target and corrupted input reconstruct the text; sentinels come in order, in both the same; numbers are as promised.
    #[test]
    fn g2_input_and_target_reconstruct_the_text(
        n in 0usize..60, rate in 0.01f64..0.99, mean_span in 1.0f64..6.0, seed: u64
    ) {
        let tokens: Vec<u32> = (0..n as u32).map(|i| 10 + i).collect();
        let corruption = Corruption { rate, mean_span };
        let gapped = corruption.corrupt(&tokens, &SENTINELS, END, &mut stream(seed, Purpose::Test, 0, 0));
        prop_assert_eq!(filled(&gapped), tokens);
        let named = |ids: &[u32]| ids.iter().copied().filter(|&id| is_sentinel(id)).collect::<Vec<u32>>();
        let gaps = named(&gapped.input);
        prop_assert_eq!(&gaps[..], &SENTINELS[..gaps.len()]);
        // The target ends with one sentinel more.
        prop_assert_eq!(named(&gapped.target), SENTINELS[..gaps.len() + 1].to_vec());
        prop_assert!(gapped.target.ends_with(&[SENTINELS[gaps.len()], END]));
        // No two gaps touch: they would be one.
        prop_assert!(gapped.input.windows(2).all(|pair| !(is_sentinel(pair[0]) && is_sentinel(pair[1]))));
        let lost = n - (gapped.input.len() - 1 - gaps.len());
        if n < 2 {
            prop_assert_eq!((lost, gaps.len()), (0, 0));
        } else {
            prop_assert_eq!(lost, ((rate * n as f64).round() as usize).clamp(1, n - 1));
            let wanted = (lost as f64 / mean_span).round() as usize;
            prop_assert_eq!(gaps.len(), wanted.clamp(1, lost.min(n - lost + 1).min(SENTINELS.len() - 1)));
        }
    }
    // ANCHOR_END: g2_input_and_target_reconstruct_the_text
}

// ANCHOR: g2_rates_are_within_bounds
/// G2: with T5's settings, 15 % of the tokens go missing in gaps of three on average.
#[test]
fn g2_rates_are_within_bounds() {
    let (n, texts) = (100, 400);
    let (mut lost, mut gaps, mut at) = (0, 0, vec![0; n]);
    for i in 0..texts {
        let tokens: Vec<u32> = (0..n as u32).map(|i| 10 + i).collect();
        let random = &mut stream(7, Purpose::Test, 1, i);
        let gapped = Corruption::default().corrupt(&tokens, &SENTINELS, END, random);
        let kept: Vec<u32> = gapped.input.iter().copied().filter(|&id| !is_sentinel(id) && id != END).collect();
        gaps += gapped.input.len() - 1 - kept.len();
        lost += n - kept.len();
        for (place, count) in at.iter_mut().enumerate() {
            *count += usize::from(!kept.contains(&(10 + place as u32)));
        }
    }
    assert_eq!((lost, gaps), (15 * texts as usize, 5 * texts as usize));
    // Each place is lost in about 15 % of the texts: binomial, five standard deviations.
    let (mean, sd) = (0.15 * texts as f64, (0.15 * 0.85 * texts as f64).sqrt());
    for (place, &count) in at.iter().enumerate() {
        // A gap at an end has only one side that could be kept in another way: there it is somewhat rarer.
        let low = if (6..94).contains(&place) { mean - 5.0 * sd } else { 0.2 * mean };
        assert!((low..mean + 5.0 * sd).contains(&(count as f64)), "place {place}: {count} of {texts}");
    }
}
// ANCHOR_END: g2_rates_are_within_bounds

// ANCHOR: g2_every_way_to_place_the_gaps_is_equally_likely
/// G2: all ways to place the gaps are equally likely.
#[test]
fn g2_every_way_to_place_the_gaps_is_equally_likely() {
    // Seven tokens, three of them lost in two gaps. The four kept go before, between and after, at least one between: 10 ways.
    // The lost are one and two, or two and one.
    let corruption = Corruption { rate: 3.0 / 7.0, mean_span: 1.5 };
    let draws = 20_000;
    let mut counts: HashMap<Vec<u32>, u32> = HashMap::new();
    for i in 0..draws {
        let gapped =
            corruption.corrupt(&[11, 12, 13, 14, 15, 16, 17], &SENTINELS, END, &mut stream(1, Purpose::Test, 2, i));
        *counts.entry(gapped.input).or_default() += 1;
    }
    assert_eq!(counts.len(), 20);
    // Binomial(20000, 1/20): sd = 30.8. Five of them.
    assert!(counts.values().all(|&n| n.abs_diff(1000) < 154), "{counts:?}");
}
// ANCHOR_END: g2_every_way_to_place_the_gaps_is_equally_likely

#[test]
fn settings_out_of_range_are_errors() {
    for (rate, mean_span) in [(0.0, 3.0), (1.0, 3.0), (f64::NAN, 3.0), (0.15, 0.5), (0.15, f64::INFINITY)] {
        assert!(Corruption { rate, mean_span }.validate().is_err(), "{rate} {mean_span}");
    }
    assert!(Corruption::default().validate().is_ok());
}
