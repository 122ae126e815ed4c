//! F. What enlarging can know: means and draws, mistakes that arrive damped; where a U-Net has its costs, and its variance.

mod closed_form;
#[path = "../examples/chapter/cost.rs"]
mod cost;

use closed_form::{assert_close, assert_expectation, assert_mean_and_variance};
use cost::Costs;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::{LowRes, Schedule, ScheduleConfig};
use imagen::nn::Init;
use imagen::random::{Purpose, hash, normal};
use imagen::unet::{Blocks, ResamplingOrder, SkipScale, TextConfig, UNet, UNetConfig};
use std::collections::BTreeMap;

/// So many draws from N(0, std^2).
fn draws(index: u64, n: usize, std: f64) -> Vec<f64> {
    normal(15, Purpose::Test, 0, index, n).into_iter().map(|z| std * z).collect()
}

// ANCHOR: enlarged
/// Draws of a perfect model of data N(0, s^2): its mean given z, and x' from p(x | z), of z = alpha y + sigma eps for every small
/// image y. With it the share w of (15.4).
fn enlarged(y: &[f64], s: f64, aug: f64) -> (Vec<f64>, Vec<f64>, f64) {
    let (n, schedule) = (y.len(), ScheduleConfig::Cosine.build());
    let of = |values: &[f64]| Tensor::from_f64([n, 1, 1, 1], values, DType::F64);
    let z = LowRes::augmented(&of(y), &of(&draws(8, n, 1.0)), &vec![aug; n], &schedule, [1, 1]).images.to_f64();
    let ratio = (-schedule.log_snr(aug)).exp();
    let w = s * s / (s * s + ratio);
    // The product of two Gaussians (chapter 8).
    let mean: Vec<f64> = z.iter().map(|z| w * z / schedule.alpha(aug)).collect();
    let drawn = mean.iter().zip(draws(9, n, (w * ratio).sqrt())).map(|(m, noise)| m + noise).collect();
    (mean, drawn, w)
}
// ANCHOR_END: enlarged

// ANCHOR: f2_a_mistake_of_the_small_image_arrives_damped
/// The small image is x + e, of which the model knows nothing. Both x and e arrive with the share w, and the variance of what is
/// drawn is s^2 + w^2 tau^2.
#[test]
fn f2_a_mistake_of_the_small_image_arrives_damped() {
    let n = 200_000;
    for (s, tau, aug) in [(1.0, 0.5, 0.0), (1.0, 0.5, 0.3), (0.3, 0.5, 0.1), (0.3, 0.5, 0.3), (0.1, 0.5, 0.1)] {
        let (x, e) = (draws(1, n, s), draws(2, n, tau));
        let small: Vec<f64> = x.iter().zip(&e).map(|(x, e)| x + e).collect();
        let (_, drawn, w) = enlarged(&small, s, aug);
        let with = |other: &[f64], variance: f64| -> Vec<f64> {
            drawn.iter().zip(other).map(|(drawn, other)| drawn * other / variance).collect()
        };
        assert_expectation(&with(&x, s * s), w);
        assert_expectation(&with(&e, tau * tau), w);
        assert_mean_and_variance(&drawn, 0.0, s * s + w * w * tau * tau);
    }
}
// ANCHOR_END: f2_a_mistake_of_the_small_image_arrives_damped

// ANCHOR: f1_a_draw_has_twice_the_error_of_the_mean
/// And the mean of k draws 1 + 1/k times. The mean has the least error, and lacks variance: just as much as its error.
#[test]
fn f1_a_draw_has_twice_the_error_of_the_mean() {
    let (n, s, aug) = (200_000, 0.7, 0.4);
    let x = draws(1, n, s);
    let (mean, drawn, w) = enlarged(&x, s, aug);
    let least = s * s * (1.0 - w);
    let error = |of: &[f64]| -> Vec<f64> { of.iter().zip(&x).map(|(a, x)| (a - x).powi(2)).collect() };
    assert_expectation(&error(&mean), least);
    assert_expectation(&error(&drawn), 2.0 * least);
    for k in [2, 4] {
        let rest = draws(20, k * n, least.sqrt());
        let of_k: Vec<f64> =
            mean.iter().zip(rest.chunks(k)).map(|(m, rest)| m + rest.iter().sum::<f64>() / k as f64).collect();
        assert_expectation(&error(&of_k), (1.0 + 1.0 / k as f64) * least);
    }
    assert_mean_and_variance(&mean, 0.0, s * s - least);
    assert_mean_and_variance(&drawn, 0.0, s * s);
}
// ANCHOR_END: f1_a_draw_has_twice_the_error_of_the_mean

// ANCHOR: f1_the_mean_is_blurred
/// Two neighbours of correlation rho become one pixel, their mean. The best guess of both is that one pixel: no edge at all is left
/// between them. A draw has the edges of the data, and both have the mean that they were made from.
#[test]
fn f1_the_mean_is_blurred() {
    let (n, rho) = (200_000, 0.8_f64);
    let (common, own) = (draws(1, n, rho.sqrt()), draws(2, 2 * n, (1.0 - rho).sqrt()));
    let pairs: Vec<[f64; 2]> = common.iter().zip(own.chunks(2)).map(|(c, own)| [c + own[0], c + own[1]]).collect();
    let small: Vec<f64> = pairs.iter().map(|[a, b]| (a + b) / 2.0).collect();
    // The difference of two jointly Gaussian numbers of one variance is independent of their sum.
    let edge = draws(3, n, (2.0 * (1.0 - rho)).sqrt());
    let drawn: Vec<[f64; 2]> = small.iter().zip(&edge).map(|(m, d)| [m + d / 2.0, m - d / 2.0]).collect();
    let edges = |of: &[[f64; 2]]| -> Vec<f64> { of.iter().map(|[a, b]| (a - b).powi(2)).collect() };
    assert_expectation(&edges(&pairs), 2.0 * (1.0 - rho));
    assert_expectation(&edges(&drawn), 2.0 * (1.0 - rho));
    let product = |of: &[[f64; 2]]| -> Vec<f64> { of.iter().map(|[a, b]| a * b).collect() };
    assert_expectation(&product(&drawn), rho);
    // E|D x|^2 = E|D mean|^2 + E|D (x - mean)|^2, where the mean has no edge.
    let open: Vec<[f64; 2]> = pairs.iter().zip(&small).map(|([a, b], m)| [a - m, b - m]).collect();
    assert_expectation(&edges(&open), 2.0 * (1.0 - rho));
}
// ANCHOR_END: f1_the_mean_is_blurred

/// Three levels whose channels double.
fn levels(blocks: [usize; 3], resampling_order: ResamplingOrder) -> UNetConfig {
    UNetConfig {
        base_channels: 16,
        channel_multipliers: vec![1, 2, 4],
        blocks: Blocks::Each(blocks.to_vec()),
        attention: vec![false; 3],
        scale_shift: true,
        text: Some(TextConfig { dim: 8 }),
        resampling_order,
        ..UNetConfig::mnist28().efficient()
    }
}

// ANCHOR: f3_a_block_one_level_down_costs_as_much_and_holds_more
/// One block more at each level in turn, on the way down and on the way up: as many operations at every level, 18 c^2 parameters
/// in their convolutions, half the memory from level to level. Where halving comes last, all of it is at images four times as
/// large: four times the operations and the memory, the same parameters.
#[test]
fn f3_a_block_one_level_down_costs_as_much_and_holds_more() {
    let side = 64;
    let cost = |blocks, order| Costs::of(&levels(blocks, order), side, 3).unwrap().total();
    let mut before: Option<[f64; 3]> = None;
    for (level, blocks) in [[2, 1, 1], [1, 2, 1], [1, 1, 2]].into_iter().enumerate() {
        let of = |order| {
            let (more, less) = (cost(blocks, order), cost([1, 1, 1], order));
            [more.parameters - less.parameters, more.flop - less.flop, more.kept - less.kept]
        };
        let (first, last) = (of(ResamplingOrder::Before), of(ResamplingOrder::After));
        let c = (16 << level) as f64;
        let pixels = (side * side) as f64 / 4_f64.powi(level as i32 + 1);
        // Two convolutions of c to c channels with biases, two norms; down and up.
        assert_eq!(first[0], 2.0 * (18.0 * c * c + 6.0 * c));
        assert_eq!(first[1], 2.0 * 2.0 * 18.0 * c * c * pixels);
        assert_eq!(last[..2], [first[0], 4.0 * first[1]]);
        assert_close(last[2], 4.0 * first[2], 0.01);
        if let Some([_, flop, kept]) = before {
            assert_eq!(first[1], flop);
            assert_close(first[2], kept / 2.0, 0.01);
        }
        before = Some(first);
    }
}
// ANCHOR_END: f3_a_block_one_level_down_costs_as_much_and_holds_more

/// The counts by size are all there is.
#[test]
fn costs_by_size_add_up() {
    let config = UNetConfig { low_res: true, ..levels([1, 2, 3], ResamplingOrder::Before) };
    let init = Init::new(0, DType::F32);
    UNet::new(config.clone(), &init).unwrap();
    let costs = Costs::of(&config, 64, 3).unwrap();
    assert_eq!(costs.total().parameters, init.parameters().count() as f64);
    assert_eq!(costs.0.keys().copied().collect::<Vec<_>>(), [0, 8, 16, 32, 64]);
    // The first and the last convolution, and the one behind the last doubling, are all that sees the images at full size.
    let full = costs.0[&64];
    assert_eq!(full.flop, 2.0 * 9.0 * 4096.0 * (2.0 * 16.0 + 16.0 + 16.0 * 16.0));
}

// ANCHOR: f3_each_reading_keeps_the_variance_in_its_way
/// Eight blocks whose last convolutions give numbers of variance 1: v becomes v + 1, (v + 1) / 2, or v / 2 + 1 in every block, within
/// what zeros beyond the border and the correlation of x and h do to it. As training finds them, with last convolutions of 0, v
/// stays or is halved.
#[test]
fn f3_each_reading_keeps_the_variance_in_its_way() {
    type Rule = fn(f64, f64) -> f64;
    let readings: [(SkipScale, Rule); 3] = [
        (SkipScale::None, |v, h| v + h),
        (SkipScale::Sum, |v, h| (v + h) / 2.0),
        (SkipScale::Shortcut, |v, h| v / 2.0 + h),
    ];
    for (skip_scale, rule) in readings {
        for (size, tolerance) in [(0.0, 1e-5), (1.0, 0.15)] {
            let variances = variances(skip_scale, size);
            let mut v = variances[0];
            for found in &variances[1..] {
                v = rule(v, size);
                assert_close(*found, v, tolerance);
            }
        }
    }
}
// ANCHOR_END: f3_each_reading_keeps_the_variance_in_its_way

// ANCHOR: variances
/// The mean squares before eight blocks in a row and behind each, whose last convolutions give numbers of variance `size`.
fn variances(skip_scale: SkipScale, size: f64) -> Vec<f64> {
    let config = UNetConfig {
        channel_multipliers: vec![1],
        blocks: 8.into(),
        attention: vec![false],
        scale_shift: true,
        ..UNetConfig::mnist28()
    };
    let init = Init::new(1, DType::F32);
    let net = UNet::new(UNetConfig { skip_scale, ..config.efficient() }, &init).unwrap();
    // They are given silu(z) for z ~ N(0, 1), of mean square 0.3558, from 9 x 32 places.
    let std = (size / (0.3558 * 9.0 * 32.0)).sqrt();
    for p in init.parameters().iter().filter(|p| p.name().ends_with("conv2.weight")) {
        let noise = normal(2, Purpose::Test, 0, hash(p.name()), p.shape().numel());
        p.update(|value| *value = Array::from_f64(value.shape(), &noise, DType::F32).affine(std, 0.0));
    }
    let x = Tensor::from_f64([2, 1, 32, 32], &draws(5, 2048, 1.0), DType::F32);
    let mut squares = BTreeMap::new();
    no_grad(|| {
        net.forward_watched(&x, &[0.5; 2], None, &mut |name, value| {
            squares.insert(name.to_string(), value.square().mean_all().item());
        })
    });
    let names = (0..8).map(|i| format!("down.0.{i}"));
    ["down.0.combine".to_string()].into_iter().chain(names).map(|name| squares[&name]).collect()
}
// ANCHOR_END: variances
