//! Where the article that started the project is imprecise (appendix B of the book): each printed formula fails, the one
//! in its place holds.

mod closed_form;

use closed_form::{assert_close, assert_expectation};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::gaussian::{kl, log_density};
use imagen::diffusion::posterior::mean_from_eps;
use imagen::diffusion::{DiscreteSchedule, Posterior, Threshold};
use imagen::random::{Purpose, normal};

/// Data N(m, s^2), and the mean and variance of x_i in its diffusion.
const M: f64 = 0.3;
const S: f64 = 0.5;

fn marginal(schedule: &DiscreteSchedule, i: usize) -> (f64, f64) {
    let alpha_bar = schedule.alpha_bars()[i];
    (alpha_bar.sqrt() * M, alpha_bar * S * S + 1.0 - alpha_bar)
}

// ANCHOR: without_its_expectation_the_bound_fails
// Two steps and one x_0. The three terms of the bound depend on x_1 and x_2. With the exact model their mean over q is
// -log p(x_0); at single points their sum is below it more often than not. A model whose last step has the mean wrong by
// `off` takes x_0 for x_0 - off: its mean is above by KL(q(x_1 | x_0) || q(x_1 | x_0 - off)), as the bound says.
#[test]
fn without_its_expectation_the_bound_fails() {
    let schedule = DiscreteSchedule::from_betas(vec![0.3, 0.6]);
    // E[x_0 | x_i] = M + gain (x_i - E x_i), the reverse steps follow from it
    let reverse = |i: usize, x_i: f64| {
        let (mean, variance) = marginal(&schedule, i);
        let gain = schedule.alpha_bars()[i].sqrt() * S * S / variance;
        let q = Posterior::of_step(&schedule, i);
        let spread = S * S * (1.0 - gain * schedule.alpha_bars()[i].sqrt());
        (q.mean_of(M + gain * (x_i - mean), x_i), q.variance + q.coef_x0.powi(2) * spread)
    };
    let (x0, n, alpha_bar) = (0.9, 20_000, schedule.alpha_bars());
    let terms = |index: u64, off: f64| {
        let z = normal(1, Purpose::Test, 0, index, 2);
        let x1 = 0.7_f64.sqrt() * x0 + 0.3_f64.sqrt() * z[0];
        let x2 = 0.4_f64.sqrt() * x1 + 0.6_f64.sqrt() * z[1];
        let (mean, variance) = marginal(&schedule, 2);
        let last = kl(alpha_bar[2].sqrt() * x0, (1.0 - alpha_bar[2]).ln(), mean, variance.ln());
        let (q, (mean, variance)) = (Posterior::of_step(&schedule, 2), reverse(2, x2));
        let middle = kl(q.mean_of(x0, x2), q.variance.ln(), mean, variance.ln());
        let (mean, variance) = reverse(1, x1);
        last + middle - log_density(x0, mean + off, variance)
    };
    for off in [0.0, 0.3] {
        let sums: Vec<f64> = (0..n).map(|index| terms(index, off)).collect();
        let exact = -log_density(x0, M + off, S * S);
        assert_expectation(&sums, exact + alpha_bar[1] * off * off / (2.0 * (1.0 - alpha_bar[1])));
        let below = sums.iter().filter(|&&sum| sum < exact).count();
        assert!(below > n as usize / 4, "{below} of {n} are below");
        assert!(off > 0.0 || below > n as usize / 2, "{below} of {n} are below");
    }
}
// ANCHOR_END: without_its_expectation_the_bound_fails

// ANCHOR: the_weight_has_the_variance_once
// KL of two Gaussians with the same variance is |mu_1 - mu_2|^2 / (2 sigma^2), not / (2 sigma^4), which is 10 000 times as
// much at sigma = 0.01.
#[test]
fn the_weight_has_the_variance_once() {
    for sigma in [0.01_f64, 0.3, 2.0] {
        let variance = sigma * sigma;
        let divergence = kl(0.2, variance.ln(), -0.1, variance.ln());
        assert_close(divergence, 0.09 / (2.0 * variance), 1e-12);
        assert!((divergence / (0.09 / (2.0 * variance * variance)) - variance).abs() < 1e-12);
    }
}
// ANCHOR_END: the_weight_has_the_variance_once

// ANCHOR: the_noisy_image_minus_the_noise_is_no_step
// One step back from x_i, with the exact model of Gaussian data. Each step here is a straight line in x_i, so mean and
// variance of the result follow from two points. The formula with both factors and fresh noise gives those of x_{i-1};
// with one of the three left out it does not, and x_i - eps has less than a fifth of the variance.
#[test]
fn the_noisy_image_minus_the_noise_is_no_step() {
    let schedule = DiscreteSchedule::linear(1000);
    let i = 400;
    let (mean, variance) = marginal(&schedule, i);
    let (alpha_bar, beta) = (schedule.alpha_bars()[i], schedule.betas()[i - 1]);
    let eps = |x: f64| (1.0 - alpha_bar).sqrt() * (x - mean) / variance;
    // the variance of the exact step back: that of the posterior, and what is not known of x_0
    let q = Posterior::of_step(&schedule, i);
    let fresh = q.variance + (q.coef_x0 * S).powi(2) * (1.0 - alpha_bar * S * S / variance);
    let after = |step: &dyn Fn(f64) -> f64, noise: f64| {
        let slope = step(mean + 1.0) - step(mean);
        (step(mean), slope * slope * variance + noise)
    };
    let wanted = marginal(&schedule, i - 1);
    let off = |step: &dyn Fn(f64) -> f64, noise: f64| {
        let found = after(step, noise);
        (found.0 - wanted.0).abs().max((found.1 - wanted.1).abs())
    };
    let ddpm = |x: f64| mean_from_eps(&schedule, i, x, eps(x));
    assert!(off(&ddpm, fresh) < 1e-12);
    assert!(off(&|x| (x - eps(x)) / (1.0 - beta).sqrt(), fresh) > 1e-3, "all of the noise");
    assert!(off(&|x| ddpm(x) * (1.0 - beta).sqrt(), fresh) > 1e-3, "not enlarged");
    assert!(off(&ddpm, 0.0) > 1e-3, "no fresh noise");
    assert!(after(&|x| x - eps(x), 0.0).1 < 0.2 * wanted.1);
}
// ANCHOR_END: the_noisy_image_minus_the_noise_is_no_step

// ANCHOR: a_percentile_of_the_positive_pixels_misses_the_negative_ones
// An image whose dark pixels have run away: the percentile of the absolute values brings it back into [-1, 1] and keeps its
// proportions; a percentile of the positive pixels is below 1, and nothing happens.
#[test]
fn a_percentile_of_the_positive_pixels_misses_the_negative_ones() {
    let pixels: Vec<f64> = (0..100).map(|i| if i < 50 { -3.0 } else { 0.5 }).collect();
    let x = Tensor::from_f64([1, 1, 10, 10], &pixels, DType::F64);
    let (result, s) = Threshold::dynamic(99.5).apply(&x);
    assert_eq!((s[0], result.to_f64()[0]), (3.0, -1.0));
    let mut positive: Vec<f64> = pixels.into_iter().filter(|&pixel| pixel > 0.0).collect();
    positive.sort_by(f64::total_cmp);
    assert!(positive[positive.len() * 80 / 100] < 1.0);
}
// ANCHOR_END: a_percentile_of_the_positive_pixels_misses_the_negative_ones
