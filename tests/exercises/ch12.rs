//! Chapter 12, the text encoder.
//!
//! 12.1 Add up the probabilities of all ways to cut a word, without listing them.
//! 12.2 Where does each bucket of distances begin?
//! 12.3 How likely is the first token of a text to go missing?
//! 12.4 Put the padding in front of a text instead of behind it.

use imagen::array::DType;
use imagen::autograd::no_grad;
use imagen::nn::Init;
use imagen::random::{Purpose, stream};
use imagen::text::t5::{Corruption, FeedForwardKind, T5, T5Config, TokenBatch, bucket};

// ANCHOR: all_ways
/// The probability of `word`: the sum over all ways to cut it into `pieces`, which have logarithms of probabilities.
fn all_ways(word: &str, pieces: &[(&str, f64)]) -> f64 {
    let mut sums = vec![0.0; word.len() + 1];
    sums[0] = 1.0;
    for end in 1..=word.len() {
        let last = pieces.iter().filter(|(piece, _)| word[..end].ends_with(piece));
        sums[end] = last.map(|(piece, score)| sums[end - piece.len()] * score.exp()).sum();
    }
    sums[word.len()]
}
// ANCHOR_END: all_ways

/// The probabilities of all ways to cut `word`, one by one.
fn listed(word: &str, pieces: &[(&str, f64)]) -> Vec<f64> {
    if word.is_empty() {
        return vec![1.0];
    }
    let first = pieces.iter().filter_map(|(piece, score)| Some((word.strip_prefix(piece)?, score.exp())));
    first.flat_map(|(rest, p)| listed(rest, pieces).into_iter().map(move |after| p * after)).collect()
}

#[test]
fn all_ways_are_added_up_in_one_pass() {
    let pieces = [
        ("f", -6.0),
        ("o", -5.0),
        ("r", -5.5),
        ("t", -4.5),
        ("y", -6.0),
        ("or", -5.0),
        ("ty", -5.0),
        ("for", -5.5),
        ("fort", -8.5),
    ];
    for word in ["forty", "fortyfort", "roof", "ty"] {
        let (sum, list) = (all_ways(word, &pieces), listed(word, &pieces));
        assert!((sum / list.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{word}");
    }
    assert_eq!((listed("forty", &pieces).len(), all_ways("fox", &pieces)), (7, 0.0));
    // what the book says of the best way
    let share = (-10.5f64).exp() / all_ways("forty", &pieces);
    assert!((share - 0.974).abs() < 0.0005, "{share}");
}

// ANCHOR: first_distance
/// The smallest distance in bucket `k` of one direction, which has `side` buckets.
fn first_distance(k: usize, side: usize, max_distance: usize) -> usize {
    let exact = side / 2;
    if k < exact {
        return k;
    }
    let grown = (max_distance as f64 / exact as f64).powf((k - exact) as f64 / (side - exact) as f64);
    // a little less, so that rounding does not carry a whole number over to the next
    (exact as f64 * grown - 1e-9).ceil() as usize
}
// ANCHOR_END: first_distance

#[test]
fn buckets_begin_where_the_formula_is_turned_around() {
    for (bidirectional, side) in [(true, 16), (false, 32)] {
        for distance in 0..1000usize {
            let found = bucket(-(distance as isize), bidirectional, 32, 128);
            let expected = (0..side).rev().find(|&k| first_distance(k, side, 128) <= distance).unwrap();
            assert_eq!(found, expected, "distance {distance}");
        }
    }
    let starts: Vec<usize> = (8..16).map(|k| first_distance(k, 16, 128)).collect();
    assert_eq!(starts, [8, 12, 16, 23, 32, 46, 64, 91]);
}

// ANCHOR: first_is_lost
/// The probability that the first of `n` tokens goes missing when `lost` of them do, in `gaps` gaps.
fn first_is_lost(n: usize, lost: usize, gaps: usize) -> f64 {
    gaps as f64 / (n - lost + 1) as f64
}
// ANCHOR_END: first_is_lost

#[test]
fn the_first_token_goes_missing_less_often() {
    // every subset of ten tokens that has `lost` of them in `gaps` runs; bit 0 is the first token
    let n = 10;
    for (lost, gaps) in [(1, 1), (3, 1), (4, 2), (5, 3)] {
        let fits = |mask: &u32| mask.count_ones() == lost && (mask & !(mask << 1)).count_ones() == gaps;
        let all: Vec<u32> = (0..1 << n).filter(fits).collect();
        let first = all.iter().filter(|mask| *mask & 1 == 1).count();
        let expected = first_is_lost(n, lost as usize, gaps as usize);
        assert!((first as f64 / all.len() as f64 - expected).abs() < 1e-12, "{lost} in {gaps}");
    }
    // and so it is drawn: twelve tokens, five of them lost, in two gaps
    let (corruption, draws) = (Corruption { rate: 0.4, mean_span: 3.0 }, 4000);
    let sentinels: Vec<u32> = (0..10).map(|k| 99 - k).collect();
    let tokens: Vec<u32> = (0..12).map(|i| 10 + i).collect();
    let first = |i| corruption.corrupt(&tokens, &sentinels, 1, &mut stream(3, Purpose::Test, 12, i)).input[0] == 99;
    let share = (0..draws).filter(|&i| first(i)).count() as f64 / draws as f64;
    let p = first_is_lost(12, 5, 2);
    assert!(p == 0.25 && (share - p).abs() < 5.0 * (p * (1.0 - p) / draws as f64).sqrt(), "{share}");
    assert!((first_is_lost(100, 15, 5) - 0.058).abs() < 0.0005);
}

// ANCHOR: padded_in_front
/// A text with `padding` in front of it.
fn padded_in_front(text: &[u32], padding: usize) -> TokenBatch {
    let ids: Vec<u32> = std::iter::repeat_n(0, padding).chain(text.iter().copied()).collect();
    let mask = (0..ids.len()).map(|i| i >= padding).collect();
    TokenBatch { texts: 1, length: ids.len(), ids, mask }
}
// ANCHOR_END: padded_in_front

#[test]
fn padding_may_stand_in_front() {
    let config = T5Config {
        vocab_size: 20,
        d_model: 12,
        d_kv: 4,
        d_ff: 10,
        num_layers: 2,
        num_decoder_layers: Some(1),
        num_heads: 2,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 12,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForwardKind::GatedGelu,
        tie_word_embeddings: false,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
    };
    let model = T5::new(config, &Init::new(4, DType::F64)).unwrap();
    let text = [5, 9, 2, 17, 9, 1];
    let alone = no_grad(|| model.encode(&TokenBatch::pad(&[text.to_vec()], 0))).to_f64();
    for padding in [1, 4, 30] {
        let states = no_grad(|| model.encode(&padded_in_front(&text, padding))).to_f64();
        let own = &states[padding * 12..];
        assert_eq!(own.len(), alone.len());
        assert!(own.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-12), "{padding}");
    }
    // the same token twice in a text is not the same vector: its neighbours are other ones
    assert!(alone[12..24].iter().zip(&alone[48..60]).any(|(a, b)| (a - b).abs() > 0.01));
}
