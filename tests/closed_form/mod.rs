//! Data whose diffusion is known in closed form, and bounds for statistics of samples.
#![allow(dead_code)] // every test file uses its own part

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{Denoiser, Schedule, gaussian};

/// Data of independent numbers, each from the mixture sum_k weight_k N(mean_k, std_k^2).
#[derive(Clone, Debug)]
pub struct Mixture {
    /// (weight, mean, standard deviation); the weights sum to 1.
    pub components: Vec<(f64, f64, f64)>,
}

impl Mixture {
    pub fn gaussian(mean: f64, std: f64) -> Mixture {
        Mixture { components: vec![(1.0, mean, std)] }
    }

    /// Only component k: the data given its class.
    pub fn given(&self, k: usize) -> Mixture {
        let (_, mean, std) = self.components[k];
        Mixture::gaussian(mean, std)
    }

    /// The distribution of x_t = alpha x_0 + sigma eps: again a mixture.
    pub fn noised(&self, schedule: &dyn Schedule, t: f64) -> Mixture {
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let noised = |&(weight, mean, std): &(f64, f64, f64)| (weight, alpha * mean, (alpha * std).hypot(sigma));
        Mixture { components: self.components.iter().map(noised).collect() }
    }

    /// weight_k N(x; mean_k, std_k^2) of every component.
    pub fn joint(&self, x: f64) -> Vec<f64> {
        self.components.iter().map(|&(weight, m, s)| weight * gaussian::log_density(x, m, s * s).exp()).collect()
    }

    pub fn density(&self, x: f64) -> f64 {
        self.joint(x).iter().sum()
    }

    /// d/dx log density(x).
    pub fn score(&self, x: f64) -> f64 {
        let slopes = self.joint(x).into_iter().zip(&self.components).map(|(p, (_, m, s))| p * (m - x) / (s * s));
        slopes.sum::<f64>() / self.density(x)
    }

    pub fn mean(&self) -> f64 {
        self.components.iter().map(|(weight, mean, _)| weight * mean).sum()
    }

    pub fn variance(&self) -> f64 {
        self.components.iter().map(|(weight, mean, std)| weight * (std * std + mean * mean)).sum::<f64>()
            - self.mean().powi(2)
    }
}

/// The model that predicts eps without error: eps(x_t, t) = -sigma_t d/dx_t log p(x_t), for all data or one component.
pub struct Exact<'a> {
    pub data: Mixture,
    pub schedule: &'a dyn Schedule,
}

impl Denoiser for Exact<'_> {
    type Condition = Option<usize>;

    fn predict(&self, x_t: &Tensor, t: &[f64], class: &Option<usize>) -> Tensor {
        let data = class.map_or(self.data.clone(), |k| self.data.given(k));
        let x = x_t.to_f64();
        let per_sample = x.len() / t.len();
        let eps: Vec<f64> = x
            .chunks(per_sample)
            .zip(t)
            .flat_map(|(x, &t)| {
                let (noised, sigma) = (data.noised(self.schedule, t), self.schedule.sigma(t));
                x.iter().map(move |&x| -sigma * noised.score(x)).collect::<Vec<f64>>()
            })
            .collect();
        Tensor::from_f64(x_t.shape(), &eps, x_t.dtype())
    }
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
