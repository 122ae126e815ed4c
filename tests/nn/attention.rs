//! What attention is, one fact at a time: softmax and its Jacobian, the variance of a score, a lookup made soft.

use super::{assert_close, random, stir};
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::nn::{Attention, Init, NormKind};
use imagen::random::{Purpose, normal};

// ANCHOR: the_jacobian_of_softmax
/// Row i of the Jacobian is what backward makes of the i-th unit vector: y_i (1 if i = j, else 0) - y_i y_j.
#[test]
fn the_jacobian_of_softmax() {
    const N: usize = 5;
    let scores = Tensor::leaf(random(20, [N]));
    for i in 0..N {
        let y = scores.softmax(-1);
        let values = y.to_f64();
        let unit: Vec<f64> = (0..N).map(|j| f64::from(u8::from(i == j))).collect();
        let row = y.backward_with(Array::from_f64([N], &unit, DType::F64)).take(&scores).unwrap().to_f64();
        for j in 0..N {
            let expected = values[i] * (unit[j] - values[j]);
            assert!((row[j] - expected).abs() < 1e-15, "dy_{i} / ds_{j}: {} is not {expected}", row[j]);
        }
        assert!(row.iter().sum::<f64>().abs() < 1e-15, "adding to all scores changes nothing");
    }
}
// ANCHOR_END: the_jacobian_of_softmax

// ANCHOR: the_variance_of_a_score_is_the_number_of_features
/// q k of independent N(0, 1) entries has mean 0 and variance d; divided by sqrt(d), variance 1.
///
/// Of M draws, the mean of (q k)^2 has the variance (E (q k)^4 - d^2) / M. Given q, q k is N(0, |q|^2), so
/// E (q k)^4 = 3 E |q|^4 = 3 (d^2 + 2 d). Five standard deviations are allowed.
#[test]
fn the_variance_of_a_score_is_the_number_of_features() {
    const M: usize = 4000;
    for d in [1, 4, 16, 64, 256] {
        let draws = |index| normal(5, Purpose::Test, d as u64, index, M * d);
        let (q, k) = (draws(0), draws(1));
        let score = |(q, k): (&[f64], &[f64])| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
        let scores: Vec<f64> = q.chunks(d).zip(k.chunks(d)).map(score).collect();
        let (mean, square) =
            (scores.iter().sum::<f64>() / M as f64, scores.iter().map(|s| s * s).sum::<f64>() / M as f64);
        let n = d as f64;
        assert!(mean.abs() < 5.0 * (n / M as f64).sqrt(), "d = {d}: mean {mean}");
        let allowed = 5.0 * ((2.0 * n * n + 6.0 * n) / M as f64).sqrt();
        assert!((square - n).abs() < allowed, "d = {d}: variance {square}, allowed {allowed}");
    }
}
// ANCHOR_END: the_variance_of_a_score_is_the_number_of_features

// ANCHOR: attention_is_a_lookup_made_soft
/// Keys at right angles to each other, and the second of them as the query: the harder the softmax, the more of the
/// second value; with scale 0 the mean of all values.
#[test]
fn attention_is_a_lookup_made_soft() {
    let tensor = |shape: [usize; 2], values: &[f64]| Tensor::from_f64(shape, values, DType::F64);
    let keys = tensor([3, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    let (query, values) = (tensor([1, 3], &[0.0, 1.0, 0.0]), tensor([3, 1], &[10.0, 20.0, 60.0]));
    for scale in [0.0, 1.0, 3.0, 1e3] {
        let found = query.attention(&keys, &values, None, scale).item();
        let other = 1.0 / (2.0 + f64::exp(scale));
        let expected = (1.0 - 2.0 * other) * 20.0 + other * 70.0;
        assert!((found - expected).abs() < 1e-12, "scale {scale}: {found} is not {expected}");
    }
    assert_eq!(query.attention(&keys, &values, None, 0.0).item(), 30.0);
    assert_eq!(query.attention(&keys, &values, None, 1e3).item(), 20.0);
}
// ANCHOR_END: attention_is_a_lookup_made_soft

// ANCHOR: attention_does_not_know_where_a_pixel_is
/// Pixels in another order come out as the same pixels in that order.
#[test]
fn attention_does_not_know_where_a_pixel_is() {
    const ORDER: [usize; 6] = [4, 0, 5, 1, 3, 2];
    let init = Init::new(3, DType::F64);
    let attention = Attention::new(&init, 4, 2, NormKind::Group(2), None);
    stir(&init);
    let x = random(1, [1, 4, 2, 3]).to_f64();
    let shuffled = |x: &[f64]| -> Vec<f64> { x.chunks(6).flat_map(|c| ORDER.map(|n| c[n])).collect() };
    let forward = |x: &[f64]| attention.forward(&Tensor::from_f64([1, 4, 2, 3], x, DType::F64), None);
    assert_close(forward(&shuffled(&x)).array(), &shuffled(&forward(&x).to_f64()), 1e-12);
    assert!(forward(&x).to_f64()[..6].iter().zip(&x).any(|(y, x)| (y - x).abs() > 0.1), "it does something");
}
// ANCHOR_END: attention_does_not_know_where_a_pixel_is

// ANCHOR: the_weights_of_attention_are_shares
/// Those of a pixel sum to 1, padding has exactly none, and looking at them changes nothing.
#[test]
fn the_weights_of_attention_are_shares() {
    let init = Init::new(3, DType::F64);
    let attention = Attention::new(&init, 4, 2, NormKind::Group(2), Some(5));
    stir(&init);
    let (x, words) = (Tensor::constant(random(1, [2, 4, 2, 3])), Tensor::constant(random(2, [2, 3, 5])));
    let mask = Tensor::from_f64([2, 1, 1, 3], &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0], DType::F64).mask_to_bias();
    let (y, weights) = attention.forward_with_weights(&x, Some((&words, &mask)));
    assert!(y.array().bit_eq(attention.forward(&x, Some((&words, &mask))).array()));
    assert_eq!(**weights.shape(), [2, 2, 6, 9]);
    for (i, row) in weights.to_f64().chunks(9).enumerate() {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14 && row.iter().all(|&w| w >= 0.0));
        assert_eq!(row[7..] == [0.0; 2], i >= 12, "the second text has one word");
    }
}
// ANCHOR_END: the_weights_of_attention_are_shares
