//! Data of single numbers, whose diffusion is known in closed form, and bounds for statistics of samples.
#![allow(dead_code)] // every test file uses its own part

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{Component, Mixture};

/// Data of independent numbers, each from the mixture sum_k weight_k N(mean_k, std_k^2): (weight, mean, std).
pub fn mixture(components: &[(f64, f64, f64)]) -> Mixture {
    let component = |&(weight, mean, std): &(f64, f64, f64)| Component { weight, mean: vec![mean], std };
    Mixture { components: components.iter().map(component).collect() }
}

/// An f64 tensor.
pub fn tensor<const N: usize>(shape: [usize; N], values: &[f64]) -> Tensor {
    Tensor::from_f64(shape, values, DType::F64)
}

/// |a - b| <= tolerance (1 + |b|).
#[track_caller]
pub fn assert_close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b} within {tolerance}");
}

/// [`assert_close`] number by number.
#[track_caller]
pub fn assert_all_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "number {i}: {a} is not {b} within {tolerance}");
    }
}

/// The sample mean of a quantity and its standard error, std / sqrt(n).
pub fn mean_and_error(samples: &[f64]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// The expectation that `samples` have is `expected`: within 5 standard errors, which chance misses once in 1.7 million.
#[track_caller]
pub fn assert_expectation(samples: &[f64], expected: f64) {
    let (mean, error) = mean_and_error(samples);
    assert!((mean - expected).abs() <= 5.0 * error, "mean {mean} +- {error} is not {expected}");
}

/// Mean and variance of the distribution that `samples` come from, each within 5 standard errors.
#[track_caller]
pub fn assert_mean_and_variance(samples: &[f64], mean: f64, variance: f64) {
    assert_expectation(samples, mean);
    let squares: Vec<f64> = samples.iter().map(|x| (x - mean).powi(2)).collect();
    assert_expectation(&squares, variance);
}
