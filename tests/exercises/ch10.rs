//! Chapter 10, the U-Net: softmax of two scores, how far a stack of convolutions sees, when attention is the dearer one,
//! and attention that never holds a row of scores.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::random::{Purpose, normal};

// ANCHOR: receptive_field
/// How many pixels a side one result sees after each of the layers (kernel, stride).
fn receptive_field(layers: &[(usize, usize)]) -> Vec<usize> {
    let (mut field, mut jump) = (1, 1);
    let after = |&(kernel, stride): &(usize, usize)| {
        field += (kernel - 1) * jump;
        jump *= stride;
        field
    };
    layers.iter().map(after).collect()
}
// ANCHOR_END: receptive_field

// ANCHOR: dearer
/// Multiplications over n pixels of c channels: (two 3x3 convolutions, scores and weighted means of self-attention).
fn multiplications(n: usize, c: usize) -> (usize, usize) {
    (2 * 9 * c * c * n, 2 * n * n * c)
}
// ANCHOR_END: dearer

// ANCHOR: streaming
/// softmax(q k_j) weighted mean of v_j, one key after the other, with a fixed number of variables.
fn streaming_attention(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
    let (mut max, mut total) = (f64::NEG_INFINITY, 0.0);
    let mut sum = vec![0.0; values[0].len()];
    for (key, value) in keys.iter().zip(values) {
        let score: f64 = q.iter().zip(key).map(|(q, k)| q * k).sum();
        let new_max = score.max(max);
        // What was gathered so far was measured from the old maximum.
        let (rescale, weight) = ((max - new_max).exp(), (score - new_max).exp());
        total = rescale * total + weight;
        sum.iter_mut().zip(value).for_each(|(sum, v)| *sum = rescale * *sum + weight * v);
        max = new_max;
    }
    sum.iter().map(|sum| sum / total).collect()
}
// ANCHOR_END: streaming

// ANCHOR: two_scores
#[test]
fn softmax_of_two_scores_is_a_sigmoid_of_their_difference() {
    for (a, b) in [(0.0, 0.0), (2.0, 1.0), (-3.0, 4.5), (800.0, 797.0)] {
        let scores = Tensor::leaf(imagen::array::Array::from_f64([2], &[a, b], DType::F64));
        let y = scores.softmax(-1);
        let sigmoid = Tensor::scalar(a - b, DType::F64).sigmoid().item();
        assert!((y.to_f64()[0] - sigmoid).abs() < 1e-15);
        // Its derivative is sigmoid' = y (1 - y).
        let gradient = y.slice(0, 0..1).sum_all().backward().take(&scores).unwrap().to_f64();
        assert!((gradient[0] - sigmoid * (1.0 - sigmoid)).abs() < 1e-15 && (gradient[0] + gradient[1]).abs() < 1e-15);
    }
}
// ANCHOR_END: two_scores

#[test]
fn the_field_of_the_bundled_network_outgrows_the_image() {
    // conv_in; a block (two convolutions of 3x3); halving; a block; halving; a block; the two blocks of the middle.
    let (conv, halve) = ((3, 1), (3, 2));
    let with = receptive_field(&[conv, conv, conv, halve, conv, conv, halve, conv, conv, conv, conv, conv, conv]);
    assert_eq!(with, [3, 5, 7, 9, 13, 17, 21, 29, 37, 45, 53, 61, 69]);
    // The first layer above 28: the first convolution of down.2.0, after conv_in, two blocks and two halvings.
    assert_eq!(with.iter().position(|&field| field > 28), Some(7));
    // As many layers without halving see less than the image is wide; one more is enough.
    assert_eq!(receptive_field(&[conv; 14])[12..], [27, 29]);
}

#[test]
fn attention_is_dearer_from_nine_pixels_a_channel() {
    for c in [8, 72, 320] {
        let (conv, attention) = multiplications(9 * c, c);
        assert_eq!(conv, attention);
        let (conv, attention) = multiplications(9 * c + 1, c);
        assert!(attention > conv);
    }
    let (conv, attention) = multiplications(7 * 7, 72);
    assert_eq!((conv, attention), (4_572_288, 345_744));
}

#[test]
fn attention_one_key_at_a_time_is_attention() {
    const D: usize = 4;
    const N: usize = 50;
    let draw = |i: u64, size: f64| normal(10, Purpose::Test, 0, i, D).iter().map(|v| size * v).collect::<Vec<f64>>();
    for size in [0.1, 1.0, 30.0] {
        let q = draw(0, size);
        let keys: Vec<Vec<f64>> = (0..N).map(|i| draw(1 + i as u64, size)).collect();
        let values: Vec<Vec<f64>> = (0..N).map(|i| draw(1000 + i as u64, 1.0)).collect();
        let tensor = |rows: &[Vec<f64>]| Tensor::from_f64([rows.len(), D], &rows.concat(), DType::F64);
        let whole = tensor(std::slice::from_ref(&q)).attention(&tensor(&keys), &tensor(&values), None, 1.0);
        for (a, b) in streaming_attention(&q, &keys, &values).iter().zip(whole.to_f64()) {
            assert!((a - b).abs() < 1e-12, "size {size}: {a} is not {b}");
        }
    }
}
