//! What chapter 12 of the book derives: the variance of the first scores, and how many ways there are to place gaps.

use super::tiny;
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::nn::Init;
use imagen::random::{Purpose, normal};
use imagen::text::t5::{FeedForwardKind, T5, T5Config};
use std::collections::HashMap;

// ANCHOR: g1_first_scores_have_unit_variance
/// G1: scores are not divided by sqrt(d); with their first values they have the variance 1 all the same, for heads of any size.
///
/// Tokens and weights scatter: for the smallest heads the mean square has a standard deviation of about 0.03. Five of them.
#[test]
fn g1_first_scores_have_unit_variance() {
    let (d, heads, n) = (512, 8, 256);
    for d_kv in [4, 16, 64] {
        let config = T5Config { d_model: d, d_kv, num_heads: heads, ..tiny(FeedForwardKind::GatedGelu, false) };
        let model = T5::new(config, &Init::new(5, DType::F64)).unwrap();
        let weight = |name: &str| {
            let name = format!("encoder.block.0.layer.0.SelfAttention.{name}.weight");
            model.parameters().iter().find(|p| p.name() == name).unwrap().tensor()
        };
        let ones = Tensor::from_f64([d], &vec![1.0; d], DType::F64);
        let x = Tensor::from_f64([n, d], &normal(5, Purpose::Test, 12, 0, n * d), DType::F64).rms_norm(&ones, 0.0);
        let [q, k] = ["q", "k"].map(|name| x.linear(&weight(name), None).reshape([n, heads, d_kv]).permute(&[1, 0, 2]));
        let scores = q.matmul_t(&k, false, true).to_f64();
        let square = scores.iter().map(|s| s * s).sum::<f64>() / scores.len() as f64;
        assert!((square - 1.0).abs() < 0.15, "heads of {d_kv}: {square}");
    }
}
// ANCHOR_END: g1_first_scores_have_unit_variance

// ANCHOR: g2_the_ways_to_place_gaps_are_counted
/// G2: `lost` of n tokens in `gaps` gaps: C(kept + 1, gaps) C(lost - 1, gaps - 1) ways, counted among all subsets of n tokens.
#[test]
fn g2_the_ways_to_place_gaps_are_counted() {
    let choose = |n: u32, k: u32| (0..u64::from(k)).fold(1, |c, i| c * u64::from(n).saturating_sub(i) / (i + 1));
    for n in 2..=14 {
        let mut ways: HashMap<(u32, u32), u64> = HashMap::new();
        // bit i: whether token i is lost; a gap begins where the token before is not
        for subset in 1..1u32 << n {
            let gaps = (subset & !(subset << 1)).count_ones();
            *ways.entry((subset.count_ones(), gaps)).or_default() += 1;
        }
        for (lost, gaps) in (1..=n).flat_map(|lost| (1..=lost).map(move |gaps| (lost, gaps))) {
            let found = ways.get(&(lost, gaps)).copied().unwrap_or(0);
            assert_eq!(found, choose(n - lost + 1, gaps) * choose(lost - 1, gaps - 1), "{lost} of {n} in {gaps} gaps");
        }
    }
}
// ANCHOR_END: g2_the_ways_to_place_gaps_are_counted
