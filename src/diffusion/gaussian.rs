//! Gaussians in closed form: density, divergence and the decoder of the last step (C2, C6). All numbers are f64 scalars;
//! log-densities and divergences are in nats.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};

// ANCHOR: log_density
/// log N(x; mean, variance), in nats. `variance` > 0.
pub fn log_density(x: f64, mean: f64, variance: f64) -> f64 {
    -0.5 * ((2.0 * PI * variance).ln() + (x - mean).powi(2) / variance)
}
// ANCHOR_END: log_density

// ANCHOR: kl
/// KL(N(mean1, exp(log_variance1)) || N(mean2, exp(log_variance2))), in nats; never negative. (C2)
///
/// ```text
/// KL = 1/2 (log v2 - log v1 + v1/v2 - 1 + (m1 - m2)^2 / v2)
/// ```
pub fn kl(mean1: f64, log_variance1: f64, mean2: f64, log_variance2: f64) -> f64 {
    let d = log_variance1 - log_variance2;
    // exp_m1(d) - d is v1/v2 - 1 - log(v1/v2) without the cancellation near d = 0
    0.5 * (d.exp_m1() - d + (mean1 - mean2).powi(2) * (-log_variance2).exp())
}
// ANCHOR_END: kl

/// The distribution function of N(0, 1). Small values far in the lower tail keep their digits.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// How many values a pixel of an 8-bit image can have.
pub const LEVELS: usize = 256;

/// The value in [-1, 1] of pixel level 0 .. 255.
pub fn level_value(level: usize) -> f64 {
    level as f64 / 127.5 - 1.0
}

/// The pixel level whose value is nearest to x.
pub fn level_of(x: f64) -> usize {
    // a cast takes what is below 0, and NaN, for 0
    (((x + 1.0) * 127.5).round() as usize).min(LEVELS - 1)
}

/// log p(level | N(mean, std^2)) in nats: the mass of the Gaussian between half-way to the level below and half-way to
/// the level above; the outermost levels take the tails, so the 256 probabilities sum to 1. (C6) DDPM eq. 13.
///
/// # Panics
/// If `level` is not below 256 or `std` is not positive.
#[track_caller]
// ANCHOR: discretised_log_probability
pub fn discretised_log_probability(level: usize, mean: f64, std: f64) -> f64 {
    mass(bin(level, mean, std)).max(f64::MIN_POSITIVE).ln()
}

/// Where the bin of a level begins and ends, in standard deviations from the mean.
#[track_caller]
fn bin(level: usize, mean: f64, std: f64) -> [f64; 2] {
    assert!(level < LEVELS, "level {level} of {LEVELS}");
    assert!(std > 0.0, "standard deviation {std} is not positive");
    let half_bin = 1.0 / 255.0;
    let x = level_value(level);
    let lower = if level == 0 { f64::NEG_INFINITY } else { (x - half_bin - mean) / std };
    let upper = if level == LEVELS - 1 { f64::INFINITY } else { (x + half_bin - mean) / std };
    [lower, upper]
}

/// The mass of N(0, 1) between two ends.
fn mass([lower, upper]: [f64; 2]) -> f64 {
    // both ends in the upper tail: mirror them to where the distribution function keeps its digits
    if lower > 0.0 { normal_cdf(-lower) - normal_cdf(-upper) } else { normal_cdf(upper) - normal_cdf(lower) }
}
// ANCHOR_END: discretised_log_probability

/// The derivative of [`discretised_log_probability`] with respect to log(std^2), where the mean stays. (C6)
///
/// ```text
/// (l phi(l) - u phi(u)) / (2 mass)        l, u: the ends of the bin in standard deviations; phi: the density of N(0, 1)
/// ```
///
/// 0 where the mass is too small for a number.
#[track_caller]
pub fn discretised_log_probability_slope(level: usize, mean: f64, std: f64) -> f64 {
    let ends = bin(level, mean, std);
    let mass = mass(ends);
    if mass < f64::MIN_POSITIVE {
        return 0.0;
    }
    // z phi(z) is 0 at both infinities
    let [lower, upper] = ends.map(|z| if z.is_finite() { z * log_density(z, 0.0, 1.0).exp() } else { 0.0 });
    (lower - upper) / (2.0 * mass)
}

// ANCHOR: bits_per_dimension
/// Nats of a whole image in bits per dimension: nats / (dimensions log 2).
pub fn bits_per_dimension(nats: f64, dimensions: usize) -> f64 {
    nats / (dimensions as f64 * LN_2)
}
// ANCHOR_END: bits_per_dimension
