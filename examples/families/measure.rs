//! How good are the points that a model draws? Asked of data whose density is known.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::Mixture;
use std::f64::consts::TAU;

/// Eight Gaussians on a circle of radius 1.
pub fn ring() -> Mixture {
    let at = |i: usize| TAU * i as f64 / 8.0;
    Mixture::around(&(0..8).map(|i| vec![at(i).cos(), at(i).sin()]).collect::<Vec<_>>(), 0.06)
}

/// Points `first..first + count` of the data, `[count, D]`.
pub fn points(data: &Mixture, seed: u64, first: u64, count: usize) -> Tensor {
    let values: Vec<f64> = (first..).take(count).flat_map(|i| data.sample(seed, i)).collect();
    Tensor::from_f64([count, data.dimension()], &values, DType::F32)
}

// ANCHOR: coverage
/// What was found of a model's points.
pub struct Coverage {
    /// The share of points that are good: where they lie, the density is above that of the lowest 1 % of real points.
    pub good: f64,
    /// The share of good points nearest to each of the data's Gaussians, of all points.
    pub shares: Vec<f64>,
}

impl Coverage {
    /// Of `drawn` `[N, D]`, row-major.
    pub fn of(data: &Mixture, drawn: &[f64]) -> Coverage {
        let d = data.dimension();
        let mut real: Vec<f64> = (0..5000).map(|i| data.log_density(&data.sample(71, i))).collect();
        real.sort_by(f64::total_cmp);
        let (level, n) = (real[real.len() / 100], (drawn.len() / d) as f64);
        let mut shares = vec![0.0; data.components.len()];
        for x in drawn.chunks(d).filter(|x| data.log_density(x) > level) {
            let joint = data.log_joint(x);
            let nearest = (0..joint.len()).max_by(|&a, &b| joint[a].total_cmp(&joint[b])).unwrap_or(0);
            shares[nearest] += 1.0 / n;
        }
        Coverage { good: shares.iter().sum(), shares }
    }

    /// How many of the Gaussians have at least a quarter of the points that they should.
    pub fn hit(&self) -> usize {
        let fair = 0.25 / self.shares.len() as f64;
        self.shares.iter().filter(|&&share| share >= fair).count()
    }
}
// ANCHOR_END: coverage

/// Mean and its standard error.
pub fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

// ANCHOR: kernel_density
/// log of the density that puts N(., width^2 I) on each of `drawn` `[N, D]`, at every point of `x`.
pub fn kernel_log_density(drawn: &[f64], width: f64, x: &[f64], d: usize) -> Vec<f64> {
    let means: Vec<Vec<f64>> = drawn.chunks(d).map(<[f64]>::to_vec).collect();
    let kernels = Mixture::around(&means, width);
    x.chunks(d).map(|x| kernels.log_density(x)).collect()
}
// ANCHOR_END: kernel_density

// ANCHOR: bits
/// Bits a pixel that a model with log p(y) in nats needs for an 8-bit image of `pixels` pixels, of which it was shown
/// y = (level + u) / 128 - 1 with u even in [0, 1): a level is 1/128 wide.
pub fn bits_per_pixel(log_p: f64, pixels: usize) -> f64 {
    7.0 - log_p / (pixels as f64 * 2f64.ln())
}
// ANCHOR_END: bits
