//! Chapter 15, super-resolution and the Efficient U-Net.
//!
//! 15.1 Which aug leaves a given share of a mistake?
//! 15.2 What if the noise were put on the image after it is resized?
//! 15.3 Find the weights of a network that does not scale its skip connections and computes the same.
//! 15.4 With scaled sums, how much of each block is left at the end of a row of them?

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::{DiscreteSchedule, Schedule};
use imagen::nn::{Init, Parameters};
use imagen::random::{Purpose, hash, normal};
use imagen::unet::{SkipScale, UNet, UNetConfig};

// ANCHOR: aug_for
/// The aug at which a mistake along a direction of variance `variance` arrives with this share, in (0, 1).
fn aug_for(share: f64, variance: f64, schedule: &DiscreteSchedule) -> f64 {
    let wanted = -(variance * (1.0 - share) / share).ln();
    // log_snr falls with time.
    let halve = |[low, high]: [f64; 2]| {
        let middle = 0.5 * (low + high);
        if schedule.log_snr(middle) > wanted { [middle, high] } else { [low, middle] }
    };
    (0..60).fold([0.0, 1.0], |ends, _| halve(ends))[0]
}
// ANCHOR_END: aug_for

#[test]
fn the_aug_for_a_share_leaves_that_share() {
    let schedule = DiscreteSchedule::cosine(1000);
    for variance in [1.0, 0.1, 0.01] {
        for share in [0.1, 0.5, 0.9] {
            let aug = aug_for(share, variance, &schedule);
            let ratio = (schedule.sigma(aug) / schedule.alpha(aug)).powi(2);
            assert!((variance / (variance + ratio) - share).abs() < 1e-6);
        }
    }
    let halves = [1.0, 0.1, 0.01].map(|variance| aug_for(0.5, variance, &schedule));
    for (found, expected) in halves.iter().zip([0.496, 0.189, 0.056]) {
        assert!((found - expected).abs() < 5e-4, "{halves:?}");
    }
}

// ANCHOR: noise_after
/// The variance of noise of variance 1 on an image `factor` times as large, after the mean of each square of pixels.
fn noise_after(factor: usize) -> f64 {
    let side = 32 * factor;
    let noise = Tensor::from_f64([1, 1, side, side], &normal(4, Purpose::Test, 0, 0, side * side), DType::F64);
    noise.avg_pool2d(factor).square().mean_all().item()
}
// ANCHOR_END: noise_after

#[test]
fn noise_finer_than_the_pixels_can_be_averaged_away() {
    for factor in [1, 2, 4] {
        let expected = 1.0 / (factor * factor) as f64;
        assert!((noise_after(factor) / expected - 1.0).abs() < 0.2);
        // The image itself stays: each pixel became a square of its kind.
        let small = Tensor::from_f64([1, 1, 2, 2], &[0.1, -0.4, 0.9, 0.3], DType::F64);
        let back = small.resize_nearest(2 * factor, 2 * factor).avg_pool2d(factor);
        assert!(back.to_f64().iter().zip(small.to_f64()).all(|(a, b)| (a - b).abs() < 1e-15));
    }
}

// ANCHOR: absorb
/// Turns the weights of a network that scales its skip connections into those of one that does not.
fn absorb(parameters: &Parameters, config: &UNetConfig) {
    let root = 2.0_f64.sqrt();
    for p in parameters.iter().filter(|p| p.name().starts_with("up.")) {
        let level: usize = p.name()[3..4].parse().expect("a level");
        let (c, name) = (config.width(level), &p.name()[5..]);
        let inputs = p.shape().numel() / p.shape()[0];
        let factor = |i: usize| match name {
            // Rows: scales of h, scales of the skip, shifts of h, shifts of the skip.
            "combine.embedding.weight" | "combine.embedding.bias" if i / inputs >= 3 * c => root,
            // Columns: h, then the skip.
            "0.shortcut.weight" if i % inputs >= c => 1.0 / root,
            _ => 1.0,
        };
        p.update(|value| {
            let scaled: Vec<f64> = value.to_f64().iter().enumerate().map(|(i, v)| v * factor(i)).collect();
            *value = Array::from_f64(value.shape().clone(), &scaled, DType::F64);
        });
    }
}
// ANCHOR_END: absorb

#[test]
fn scaled_skip_connections_are_a_matter_of_weights() {
    let config = UNetConfig {
        base_channels: 8,
        channel_multipliers: vec![1, 2],
        blocks: 1.into(),
        attention: vec![false; 2],
        groups: 4,
        scale_shift: true,
        ..UNetConfig::mnist28().efficient()
    };
    let make = |skip_scale| {
        let init = Init::new(7, DType::F64);
        let net = UNet::new(UNetConfig { skip_scale, ..config.clone() }, &init).unwrap();
        for p in init.parameters().iter() {
            let noise = normal(1, Purpose::Test, 0, hash(p.name()), p.shape().numel());
            let noise = Array::from_f64(p.shape(), &noise, DType::F64).affine(0.1, 0.0);
            p.update(|value| *value = &*value + &noise);
        }
        (net, init.parameters())
    };
    let x = Tensor::from_f64([2, 1, 16, 16], &normal(2, Purpose::Test, 0, 0, 512), DType::F64);
    let says = |net: &UNet| no_grad(|| net.forward(&x, &[0.3, 0.8], None)).to_f64();
    let (scaled, (plain, parameters)) = (says(&make(SkipScale::Skip).0), make(SkipScale::None));
    let apart = |a: &[f64]| a.iter().zip(&scaled).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart(&says(&plain)) > 1e-2);
    absorb(&parameters, &config);
    // All that is left is the 1e-5 which a norm adds to the variance.
    assert!(apart(&says(&plain)) < 1e-4, "{}", apart(&says(&plain)));
}

// ANCHOR: shares
/// The factors of x_0, h_1, .., h_n in x_n, where x_i = (x_{i-1} + h_i) / sqrt 2.
fn shares(n: i32) -> Vec<f64> {
    (0..=n).map(|i| 0.5_f64.sqrt().powi(if i == 0 { n } else { n - i + 1 })).collect()
}
// ANCHOR_END: shares

#[test]
fn scaled_sums_forget_their_first_blocks() {
    let h: Vec<f64> = normal(3, Purpose::Test, 0, 0, 9);
    let last = h[1..].iter().fold(h[0], |x, h| (x + h) * 0.5_f64.sqrt());
    let summed: f64 = shares(8).iter().zip(&h).map(|(share, h)| share * h).sum();
    assert!((last - summed).abs() < 1e-14);
    // The squares are shares of the variance.
    let squares: Vec<f64> = shares(8).iter().map(|share| share * share).collect();
    assert!((squares.iter().sum::<f64>() - 1.0).abs() < 1e-14);
    assert!((squares[0] - 1.0 / 256.0).abs() < 1e-14 && (squares[8] - 0.5).abs() < 1e-14);
}
