//! The model itself: distances, padding, the order of writing, gradients.

use super::{tiny, tiny_model};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::nn::Init;
use imagen::text::t5::{FeedForwardKind, T5, T5Config, TokenBatch, bucket};
use proptest::prelude::*;

// ANCHOR: defined
/// G1, the definition in whole numbers: on each side, with e = half of the side's buckets, distances below e have buckets of
/// their own, and distance d is in bucket e + k for the largest k with d >= e (max / e)^(k / e), that is, d^e e^k >= e^e max^k.
fn defined(relative: i64, bidirectional: bool, buckets: u32, max: u32) -> u32 {
    let side = if bidirectional { buckets / 2 } else { buckets };
    let (first, d) = match (bidirectional, relative > 0) {
        (true, true) => (side, relative as u32),
        (true, false) => (0, -relative as u32),
        (false, true) => (0, 0),
        (false, false) => (0, -relative as u32),
    };
    let e = side / 2;
    if d < e {
        return first + d;
    }
    let big = |base: u32, power: u32| (0..power).fold(vec![1u32], |number, _| times(&number, base));
    let at_least = |k: u32| {
        let left = (0..k).fold(big(d, e), |n, _| times(&n, e));
        let right = (0..k).fold(big(e, e), |n, _| times(&n, max));
        compare(&left, &right) != std::cmp::Ordering::Less
    };
    first + (0..side - e).take_while(|&k| at_least(k)).last().map_or(0, |k| e + k)
}
// ANCHOR_END: defined

/// A number of any size, least digits first, times a small one.
fn times(number: &[u32], by: u32) -> Vec<u32> {
    let mut carry = 0u64;
    let mut product: Vec<u32> = number
        .iter()
        .map(|&digit| {
            carry += u64::from(digit) * u64::from(by);
            let low = carry as u32;
            carry >>= 32;
            low
        })
        .collect();
    if carry > 0 {
        product.push(carry as u32);
    }
    product
}

fn compare(a: &[u32], b: &[u32]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.iter().rev().cmp(b.iter().rev()))
}

// ANCHOR: g1_buckets_are_as_defined
#[test]
fn g1_buckets_are_as_defined() {
    for bidirectional in [true, false] {
        for relative in -600..=600 {
            let found = bucket(relative, bidirectional, 32, 128);
            assert_eq!(found as u32, defined(relative as i64, bidirectional, 32, 128), "{relative} {bidirectional}");
        }
    }
    // Eight distances of their own each way, then octaves in two parts up to 128.
    assert_eq!(
        [0, 1, 7, 8, 11, 12, 15, 16, 23, 64, 91, 127, 5000].map(|d| bucket(-d, true, 32, 128)),
        [0, 1, 7, 8, 8, 9, 9, 10, 11, 14, 15, 15, 15]
    );
    assert_eq!(bucket(3, true, 32, 128), 19);
    assert_eq!(bucket(3, false, 32, 128), 0);
}
// ANCHOR_END: g1_buckets_are_as_defined

/// Texts of different lengths, some of them padded with ids that mean something.
fn ragged(seed: u32) -> Vec<Vec<u32>> {
    [5, 1, 9, 3].iter().map(|&n| (0..n).map(|i| 2 + (7 * i + n + seed) % 18).collect()).collect()
}

/// Rows [i * length .. i * length + n) of [B, length, d].
fn rows(states: &Array, i: usize, n: usize) -> Vec<u32> {
    let [_, length, d] = states.shape().dims("states");
    states.slice::<f32>()[i * length * d..][..n * d].iter().map(|v| v.to_bits()).collect()
}

// ANCHOR: g1_padding_has_no_influence
/// G1: what stands behind a text, and how much of it, changes no bit; nor do the other texts of the batch.
#[test]
fn g1_padding_has_no_influence() {
    let config = T5Config { d_model: 48, d_kv: 16, d_ff: 40, num_heads: 3, ..tiny(FeedForwardKind::GatedGelu, false) };
    for kind in [FeedForwardKind::Relu, FeedForwardKind::GatedGelu] {
        let config = T5Config { feed_forward_proj: kind, ..config.clone() };
        let model = T5::new(config, &Init::new(1, DType::F32)).unwrap();
        for texts in [ragged(0), ragged(5)] {
            let batch = TokenBatch::pad(&texts, 0);
            let together = no_grad(|| model.encode(&batch)).into_array();
            let mut garbage = batch.clone();
            garbage.ids.iter_mut().zip(&batch.mask).filter(|(_, seen)| !**seen).for_each(|(id, _)| *id = 7);
            let with_garbage = no_grad(|| model.encode(&garbage)).into_array();
            for (i, text) in texts.iter().enumerate() {
                let alone = no_grad(|| model.encode(&TokenBatch::pad(std::slice::from_ref(text), 0))).into_array();
                let bits = rows(&alone, 0, text.len());
                assert_eq!(bits, rows(&together, i, text.len()), "text {i}");
                assert_eq!(bits, rows(&with_garbage, i, text.len()), "text {i}");
                for longer in [40, 41, 100] {
                    let mut padded = TokenBatch::pad(&[text.clone(), vec![3; longer]], 0);
                    padded.texts = 1;
                    padded.ids.truncate(longer);
                    padded.mask.truncate(longer);
                    let padded = no_grad(|| model.encode(&padded)).into_array();
                    assert_eq!(bits, rows(&padded, 0, text.len()), "text {i} padded to {longer}");
                }
            }
        }
    }
}
// ANCHOR_END: g1_padding_has_no_influence

// ANCHOR: g1_the_decoder_sees_no_later_token
/// G1: the decoder writes from left to right: what comes later changes no bit of the scores.
#[test]
fn g1_the_decoder_sees_no_later_token() {
    let model = tiny_model(DType::F32);
    let texts = TokenBatch::pad(&ragged(0)[..1], 0);
    let scores = |written: Vec<u32>| {
        no_grad(|| model.decode(&TokenBatch::pad(&[written], 0), &texts, &model.encode(&texts))).into_array()
    };
    let (one, other) = (scores(vec![0, 5, 6, 7, 8]), scores(vec![0, 5, 6, 9, 3]));
    assert_eq!(rows(&one, 0, 3), rows(&other, 0, 3));
    assert_ne!(rows(&one, 0, 4), rows(&other, 0, 4));
}
// ANCHOR_END: g1_the_decoder_sees_no_later_token

// ANCHOR: g1_the_loss_is_the_mean_over_all_labels
/// G1: padding among the labels does not count.
#[test]
fn g1_the_loss_is_the_mean_over_all_labels() {
    let model = tiny_model(DType::F64);
    let texts = ragged(0);
    let labels = [vec![4, 1], vec![9, 8, 7, 1], vec![1], vec![3, 3, 1]];
    let together = model.loss(&TokenBatch::pad(&texts, 0), &TokenBatch::pad(&labels, 0)).item();
    let alone = |i: usize| {
        let one = |x: &Vec<u32>| TokenBatch::pad(std::slice::from_ref(x), 0);
        model.loss(&one(&texts[i]), &one(&labels[i])).item() * labels[i].len() as f64
    };
    let mean = (0..4).map(alone).sum::<f64>() / labels.iter().map(Vec::len).sum::<usize>() as f64;
    assert!((together - mean).abs() < 1e-12, "{together} {mean}");
}
// ANCHOR_END: g1_the_loss_is_the_mean_over_all_labels

// ANCHOR: first_values_give_the_loss_of_guessing
/// The first loss is about that of guessing.
#[test]
fn first_values_give_the_loss_of_guessing() {
    for tied in [true, false] {
        let config = T5Config {
            vocab_size: 300,
            d_model: 64,
            d_kv: 16,
            num_heads: 4,
            d_ff: 128,
            ..tiny(FeedForwardKind::Relu, tied)
        };
        let model = T5::new(config, &Init::new(0, DType::F32)).unwrap();
        let labels = TokenBatch::pad(&[(0..200).map(|i| (i * 37) % 300).collect()], 0);
        let loss = model.loss(&TokenBatch::pad(&ragged(0)[..1], 0), &labels).item();
        // Scores of unit variance add half of it to log(300) = 5.70.
        assert!((loss - 6.2).abs() < 0.5, "tied {tied}: {loss}");
    }
}
// ANCHOR_END: first_values_give_the_loss_of_guessing

/// G1: gradients of every parameter are those of finite differences, for both kinds of feed-forward layers and of logits.
#[test]
fn g1_gradients_are_those_of_finite_differences() {
    for (kind, tied) in [(FeedForwardKind::Relu, true), (FeedForwardKind::GatedGelu, false)] {
        let model = T5::new(tiny(kind, tied), &Init::new(2, DType::F64)).unwrap();
        let (texts, labels) = (TokenBatch::pad(&ragged(0)[..2], 0), TokenBatch::pad(&[vec![4, 1], vec![9, 8, 1]], 0));
        let leaves: Vec<Tensor> = model.parameters().iter().map(|p| p.tensor()).collect();
        let values: Vec<Array> = leaves.iter().map(|leaf| leaf.array().clone()).collect();
        // The model reads its own parameters, so they are set to what is asked for.
        let loss = |inputs: &[Tensor]| {
            for (param, input) in model.parameters().iter().zip(inputs) {
                param.update(|value| *value = input.array().clone());
            }
            model.loss(&texts, &labels)
        };
        let gradients = loss(&leaves).backward();
        let h = 1e-6;
        for (i, param) in model.parameters().iter().enumerate() {
            let gradient = gradients.get(&param.tensor()).unwrap_or_else(|| panic!("{} gets none", param.name()));
            let direction: Vec<f64> = (0..param.tensor().numel()).map(|k| ((k * 7 + i) as f64).sin()).collect();
            let along = |t: f64| {
                let moved: Vec<Tensor> = values
                    .iter()
                    .enumerate()
                    .map(|(j, value)| {
                        let mut numbers = value.to_f64();
                        if j == i {
                            numbers.iter_mut().zip(&direction).for_each(|(v, d)| *v += t * d);
                        }
                        Tensor::from_f64(value.shape(), &numbers, DType::F64)
                    })
                    .collect();
                no_grad(|| loss(&moved)).item()
            };
            let slope = (along(h) - along(-h)) / (2.0 * h);
            let dot: f64 = gradient.to_f64().iter().zip(&direction).map(|(g, d)| g * d).sum();
            assert!((slope - dot).abs() < 1e-7 * (1.0 + slope.abs()), "{}: {slope} {dot}", param.name());
        }
    }
}

proptest! {
    #[test]
    fn token_batches_keep_every_token_and_mark_the_rest(
        texts in prop::collection::vec(prop::collection::vec(1u32..50, 0..7), 1..5)
    ) {
        let batch = TokenBatch::pad(&texts, 0);
        prop_assert_eq!(batch.texts, texts.len());
        for (i, text) in texts.iter().enumerate() {
            let row = i * batch.length..(i + 1) * batch.length;
            prop_assert_eq!(&batch.ids[row.clone()][..text.len()], &text[..]);
            prop_assert!(batch.ids[row.clone()][text.len()..].iter().all(|&id| id == 0));
            prop_assert!(batch.mask[row].iter().enumerate().all(|(j, &seen)| seen == (j < text.len())));
        }
    }
}
