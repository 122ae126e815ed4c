//! Chapter 11, samplers.
//!
//! 11.1 Which share of the noise does a step of DDIM take away, and by how much does it enlarge the rest?
//! 11.2 How much does an image remember of the noise it started from?
//! 11.3 Take the exact weight of the second-order term instead of the paper's.
//! 11.4 In one dimension, find the image of a start without taking any steps.
//! 11.5 Write a sampler of second order that asks the model twice a step.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::gaussian::normal_cdf;
use imagen::diffusion::sampler::ddim_step;
use imagen::diffusion::{DiscreteSchedule, Posterior, Schedule};

// ANCHOR: share_to_remove
/// (b, c) such that b (x_t - c eps) is DDIM's step with eta = 0, from (alpha_t, sigma_t) to (alpha_s, sigma_s).
fn share_to_remove((alpha_t, sigma_t): (f64, f64), (alpha_s, sigma_s): (f64, f64)) -> (f64, f64) {
    let b = alpha_s / alpha_t;
    (b, sigma_t - sigma_s / b)
}
// ANCHOR_END: share_to_remove

#[test]
fn a_share_of_the_noise_taken_away_is_a_step_of_ddim() {
    let schedule = DiscreteSchedule::linear(1000);
    let (x0, eps) = (0.4, -1.3);
    let one = |x: f64| Tensor::from_f64([1, 1, 1, 1], &[x], DType::F64);
    for (t, s) in [(0.9, 0.7), (0.5, 0.49), (0.1, 0.0), (0.3, 0.6)] {
        let at = |t: f64| (schedule.alpha(t), schedule.sigma(t));
        let (b, c) = share_to_remove(at(t), at(s));
        let x_t = at(t).0 * x0 + at(t).1 * eps;
        let x_s = ddim_step(&one(x0), &one(eps), &schedule, s, 0.0).item();
        assert!((b * (x_t - c * eps) - x_s).abs() < 1e-13);
    }
    let (b, c) = share_to_remove((0.8, 0.6), (0.96, 0.28));
    assert!((b - 1.2).abs() < 1e-15 && (c - 0.36667).abs() < 5e-6 && (b * (0.5 + 0.3 * c) - 0.732).abs() < 1e-15);
}

// ANCHOR: memory
/// d x_0 / d x_T of DDIM for data N(m, s^2) and the exact model, whose x_hat_0 rises with x_t by `gain`.
fn memory(schedule: &DiscreteSchedule, steps: usize, eta: f64, std: f64) -> f64 {
    let time = |i: usize| i as f64 / steps as f64;
    let of_step = |i: usize| {
        let (t, s) = (time(i), time(i - 1));
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let gain = alpha * std * std / (alpha * alpha * std * std + sigma * sigma);
        let added = eta * eta * Posterior::between(schedule, s, t).variance;
        let kept = (schedule.sigma(s).powi(2) - added).max(0.0).sqrt();
        // x_s = alpha_s x_hat_0 + kept (x_t - alpha_t x_hat_0) / sigma_t
        schedule.alpha(s) * gain + kept * (1.0 - alpha * gain) / sigma
    };
    (1..=steps).map(of_step).product()
}
// ANCHOR_END: memory

#[test]
fn a_random_sampler_forgets_its_start() {
    let (schedule, std) = (DiscreteSchedule::linear(1000), 0.5);
    // the probability flow maps N(0, 1) onto N(m, s^2): its slope is s
    assert!((memory(&schedule, 1000, 0.0, std) - std).abs() < 0.01);
    assert!(memory(&schedule, 1000, 1.0, std) < 0.01);
    assert!(memory(&schedule, 50, 0.5, std) < memory(&schedule, 50, 0.0, std));
    assert!(memory(&schedule, 50, 1.0, std) < memory(&schedule, 50, 0.5, std));
}

// ANCHOR: exact_weight
/// x_s from x_t, with l = log(alpha / sigma), for an x_hat_0 that is `x0` at l_t and changes by `slope` per unit of l.
fn step_with_exact_weight(x_t: f64, x0: f64, slope: f64, l_t: f64, l_s: f64) -> f64 {
    let alpha = |l: f64| 1.0 / (1.0 + (-2.0 * l).exp()).sqrt();
    let sigma = |l: f64| 1.0 / (1.0 + (2.0 * l).exp()).sqrt();
    let h = l_s - l_t;
    let first = -(-h).exp_m1();
    sigma(l_s) / sigma(l_t) * x_t + alpha(l_s) * (first * x0 + (h - first) * slope)
}
// ANCHOR_END: exact_weight

#[test]
fn the_exact_weight_is_exact_for_a_straight_line() {
    let sigma = |l: f64| 1.0 / (1.0 + (2.0 * l).exp()).sqrt();
    let alpha = |l: f64| l.exp() * sigma(l);
    // x_hat_0 = 0.2 + 0.7 l; the integral of e^l (a + b l) is e^l (a - b + b l)
    let (a, b, x_t) = (0.2, 0.7, -0.4);
    let primitive = |l: f64| l.exp() * (a - b + b * l);
    for (l_t, l_s) in [(-2.0, -1.9), (-1.0, 0.5), (0.0, 2.0)] {
        let exact = sigma(l_s) * (x_t / sigma(l_t) + primitive(l_s) - primitive(l_t));
        let ours = step_with_exact_weight(x_t, a + b * l_t, b, l_t, l_s);
        assert!((ours - exact).abs() < 1e-14, "{ours} is not {exact}");
        // the paper's weight, h/2 (1 - e^-h), is smaller, by h^3 / 12 for small h
        let h: f64 = l_s - l_t;
        let papers = ours + alpha(l_s) * b * (0.5 * h * -(-h).exp_m1() - (h + (-h).exp_m1()));
        assert!(papers < exact);
        assert!((exact - papers) / (alpha(l_s) * b) < h.powi(3) / 12.0);
    }
}

/// (weight, mean, standard deviation) of the Gaussians of a mixture in one dimension.
type Mixture = [(f64, f64, f64); 2];

const LUMPS: Mixture = [(0.3, -0.7, 0.1), (0.7, 0.5, 0.2)];

/// The share of x_t = alpha x_0 + sigma eps below `x`.
fn share_below(data: &Mixture, x: f64, alpha: f64, sigma: f64) -> f64 {
    data.iter().map(|(weight, m, s)| weight * normal_cdf((x - alpha * m) / (alpha * s).hypot(sigma))).sum()
}

// ANCHOR: image_of
/// Where the probability flow leads `start`: the image with the same share of the data below it.
fn image_of(data: &Mixture, start: f64, alpha: f64, sigma: f64) -> f64 {
    let share = share_below(data, start, alpha, sigma);
    let halve = |[low, high]: [f64; 2], _| {
        let middle = 0.5 * (low + high);
        if share_below(data, middle, 1.0, 0.0) < share { [middle, high] } else { [low, middle] }
    };
    (0..60).fold([-10.0, 10.0], halve)[0]
}
// ANCHOR_END: image_of

/// eps = -rho d/dy log p of the noised mixture, at y = x / alpha and rho = sigma / alpha.
fn eps(data: &Mixture, y: f64, rho: f64) -> f64 {
    let (mut p, mut slope) = (0.0, 0.0);
    for (weight, m, s) in data {
        let variance = s * s + rho * rho;
        let joint = weight * (-0.5 * (y - m).powi(2) / variance).exp() / variance.sqrt();
        p += joint;
        slope += joint * (m - y) / variance;
    }
    -rho * slope / p
}

/// Euler's method in rho, that is DDIM.
fn euler(data: &Mixture, y: f64, rhos: &[f64]) -> f64 {
    rhos.windows(2).fold(y, |y, pair| y + (pair[1] - pair[0]) * eps(data, y, pair[0]))
}

/// Values of rho from 5 to 0, closer together towards 0.
fn grid(steps: usize) -> Vec<f64> {
    (0..=steps).rev().map(|i| 5.0 * (i as f64 / steps as f64).powi(3)).collect()
}

#[test]
fn the_flow_keeps_the_order_of_points() {
    // y = x / alpha at rho = 5
    let alpha = 1.0 / 26.0_f64.sqrt();
    for start in [-1.5, -0.4, 0.2, 1.9] {
        let exact = image_of(&LUMPS, start, alpha, 5.0 * alpha);
        let x = euler(&LUMPS, start / alpha, &grid(4000));
        assert!((x - exact).abs() < 0.01, "{start}: {x} is not {exact}");
    }
}

// ANCHOR: heun
/// Heun's method in rho: a step with the mean of the slopes at both of its ends, the far one met by a step of DDIM.
fn heun(data: &Mixture, y: f64, rhos: &[f64]) -> f64 {
    rhos.windows(2).fold(y, |y, pair| {
        let d = pair[1] - pair[0];
        let slope = eps(data, y, pair[0]);
        if pair[1] == 0.0 {
            return y + d * slope;
        }
        y + d * 0.5 * (slope + eps(data, y + d * slope, pair[1]))
    })
}
// ANCHOR_END: heun

#[test]
fn heun_is_of_second_order() {
    let alpha = 1.0 / 26.0_f64.sqrt();
    for start in [-1.5, 0.2, 1.9] {
        let exact = image_of(&LUMPS, start, alpha, 5.0 * alpha);
        let error = |method: fn(&Mixture, f64, &[f64]) -> f64, steps| {
            (method(&LUMPS, start / alpha, &grid(steps)) - exact).abs()
        };
        let ratio = |method| error(method, 400) / error(method, 800);
        assert!((1.8..2.2).contains(&ratio(euler)), "{}", ratio(euler));
        assert!((3.5..4.5).contains(&ratio(heun)), "{}", ratio(heun));
        // and better for as many questions to the model
        assert!(error(heun, 200) < 0.2 * error(euler, 400));
    }
}
