//! Data whose diffusion is known in closed form: mixtures of Gaussians stay mixtures of Gaussians when noise is added.
//! What a perfect model would predict can then be computed, and everything else compared with it.

use super::{Denoiser, Schedule};
use crate::autograd::Tensor;
use crate::random::{self, Purpose};
use rand::RngExt;
use std::f64::consts::{PI, TAU};

/// One Gaussian of a mixture, N(mean, std^2 I).
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// Its share of the data, above 0; those of a mixture sum to 1.
    pub weight: f64,
    /// Its centre, `[D]`.
    pub mean: Vec<f64>,
    /// Its standard deviation in every direction, above 0 (0 is allowed where noise is added before anything is asked).
    pub std: f64,
}

/// p(x) = sum_k weight_k N(x; mean_k, std_k^2 I) over points x of D numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// The Gaussians; at least one, all of one dimension.
    pub components: Vec<Component>,
}

impl Mixture {
    /// A single Gaussian, N(mean, std^2 I).
    pub fn gaussian(mean: &[f64], std: f64) -> Mixture {
        Mixture { components: vec![Component { weight: 1.0, mean: mean.to_vec(), std }] }
    }

    /// Gaussians with the standard deviation `std` and equal weights around `means`. Panics without any.
    #[track_caller]
    pub fn around(means: &[Vec<f64>], std: f64) -> Mixture {
        assert!(!means.is_empty(), "a mixture needs at least one Gaussian");
        let weight = 1.0 / means.len() as f64;
        Mixture { components: means.iter().map(|mean| Component { weight, mean: mean.clone(), std }).collect() }
    }

    /// Two interleaved half circles in the plane, 24 Gaussians each; about within [-1.5, 1.5]. The first 24 components are
    /// the upper moon.
    pub fn two_moons() -> Mixture {
        let half = |i: usize| PI * (i as f64 + 0.5) / 24.0;
        let upper = (0..24).map(|i| vec![half(i).cos() - 0.5, half(i).sin() - 0.25]);
        let lower = (0..24).map(|i| vec![0.5 - half(i).cos(), 0.25 - half(i).sin()]);
        Mixture::around(&upper.chain(lower).collect::<Vec<_>>(), 0.06)
    }

    /// A spiral of two turns in the plane, 64 Gaussians evenly spread along it; about within [-1.5, 1.5].
    pub fn spiral() -> Mixture {
        // equal steps in the square of the angle are about equal steps along the curve
        let at = |i: usize| {
            let angle = 2.0 * TAU * (0.03 + 0.97 * i as f64 / 63.0).sqrt();
            let radius = 1.35 * angle / (2.0 * TAU);
            vec![radius * angle.cos(), radius * angle.sin()]
        };
        Mixture::around(&(0..64).map(at).collect::<Vec<_>>(), 0.05)
    }

    /// D: how many numbers a point has.
    pub fn dimension(&self) -> usize {
        self.components[0].mean.len()
    }

    /// Only component `k`: the data given that it is of this kind.
    pub fn given(&self, k: usize) -> Mixture {
        let Component { mean, std, .. } = &self.components[k];
        Mixture::gaussian(mean, *std)
    }

    /// One point, drawn from the stream of (`seed`, `index`).
    pub fn sample(&self, seed: u64, index: u64) -> Vec<f64> {
        let mut left: f64 = random::stream(seed, Purpose::Test, 1, index).random();
        let chosen = self.components.iter().find(|component| {
            left -= component.weight;
            left < 0.0
        });
        // rounding may leave a rest beyond the last
        let Component { mean, std, .. } = chosen.unwrap_or(&self.components[self.components.len() - 1]);
        let z = random::normal(seed, Purpose::Test, 2, index, mean.len());
        mean.iter().zip(z).map(|(m, z)| m + std * z).collect()
    }

    /// The distribution of x_t = alpha x_0 + sigma eps: again a mixture, each Gaussian moved and widened.
    ///
    /// ```text
    /// N(m, s^2 I)  becomes  N(alpha m, (alpha^2 s^2 + sigma^2) I)
    /// ```
    pub fn noised(&self, alpha: f64, sigma: f64) -> Mixture {
        let noised = |Component { weight, mean, std }: &Component| Component {
            weight: *weight,
            mean: mean.iter().map(|m| alpha * m).collect(),
            std: (alpha * std).hypot(sigma),
        };
        Mixture { components: self.components.iter().map(noised).collect() }
    }

    /// log(weight_k N(x; mean_k, std_k^2 I)) of every component.
    pub fn log_joint(&self, x: &[f64]) -> Vec<f64> {
        let of = |Component { weight, mean, std }: &Component| {
            let squares: f64 = x.iter().zip(mean).map(|(x, m)| (x - m).powi(2)).sum();
            weight.ln() - 0.5 * squares / (std * std) - mean.len() as f64 * (std * TAU.sqrt()).ln()
        };
        self.components.iter().map(of).collect()
    }

    /// log p(x), in nats.
    pub fn log_density(&self, x: &[f64]) -> f64 {
        let joint = self.log_joint(x);
        let largest = joint.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + joint.iter().map(|l| (l - largest).exp()).sum::<f64>().ln()
    }

    /// p(x).
    pub fn density(&self, x: &[f64]) -> f64 {
        self.log_density(x).exp()
    }

    // ANCHOR: score
    /// The gradient of log p at x, `[D]`: the directions to all centres, weighed by how probable it is that x came from there.
    ///
    /// ```text
    /// sum_k p(k | x) (mean_k - x) / std_k^2
    /// ```
    pub fn score(&self, x: &[f64]) -> Vec<f64> {
        let joint = self.log_joint(x);
        let largest = joint.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = joint.iter().map(|l| (l - largest).exp()).sum();
        let mut score = vec![0.0; x.len()];
        for (Component { mean, std, .. }, log) in self.components.iter().zip(&joint) {
            let share = (log - largest).exp() / total / (std * std);
            for ((score, m), x) in score.iter_mut().zip(mean).zip(x) {
                *score += share * (m - x);
            }
        }
        score
    }
    // ANCHOR_END: score

    /// The mean, `[D]`.
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.dimension()];
        for component in &self.components {
            for (sum, m) in mean.iter_mut().zip(&component.mean) {
                *sum += component.weight * m;
            }
        }
        mean
    }

    /// The variance of each coordinate, `[D]`.
    pub fn variance(&self) -> Vec<f64> {
        let mut squares = vec![0.0; self.dimension()];
        for Component { weight, mean, std } in &self.components {
            for (sum, m) in squares.iter_mut().zip(mean) {
                *sum += weight * (std * std + m * m);
            }
        }
        squares.iter().zip(self.mean()).map(|(square, mean)| square - mean * mean).collect()
    }
}

/// The model that predicts eps without error: eps(x_t, t) = -sigma_t grad log p_t(x_t), for all data or for one component.
/// (C4)
///
/// Samples may hold more than D numbers: each run of D is then a point of its own.
#[derive(Clone)]
pub struct Exact<'a> {
    /// The data.
    pub data: Mixture,
    /// The noise.
    pub schedule: &'a dyn Schedule,
}

impl Denoiser for Exact<'_> {
    type Condition = Option<usize>;

    // ANCHOR: predict
    fn predict(&self, x_t: &Tensor, t: &[f64], component: &Option<usize>) -> Tensor {
        let data = component.map_or_else(|| self.data.clone(), |k| self.data.given(k));
        let x = x_t.to_f64();
        let mut eps = Vec::with_capacity(x.len());
        for (x, &t) in x.chunks(x.len() / t.len()).zip(t) {
            let sigma = self.schedule.sigma(t);
            let noised = data.noised(self.schedule.alpha(t), sigma);
            eps.extend(x.chunks(data.dimension()).flat_map(|x| noised.score(x)).map(|score| -sigma * score));
        }
        x_t.constant_like(x_t.shape(), &eps)
    }
    // ANCHOR_END: predict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::DType;
    use crate::diffusion::DiscreteSchedule;

    fn three() -> Mixture {
        let component = |weight, mean: [f64; 2], std| Component { weight, mean: mean.to_vec(), std };
        Mixture {
            components: vec![
                component(0.2, [-0.5, 0.3], 0.2),
                component(0.5, [0.4, 0.6], 0.3),
                component(0.3, [0.1, -0.7], 0.1),
            ],
        }
    }

    // Midpoints of a fine grid over [-3, 3]^2: the density is smooth there and next to nothing beyond.
    #[test]
    fn the_density_integrates_to_one_and_has_the_stated_moments() {
        let (data, cells) = (three(), 400);
        let at = |i: usize| -3.0 + 6.0 * (i as f64 + 0.5) / cells as f64;
        let (mut total, mut mean, mut square) = (0.0, 0.0, 0.0);
        for i in 0..cells * cells {
            let x = [at(i / cells), at(i % cells)];
            let mass = data.density(&x) * (6.0 / cells as f64).powi(2);
            (total, mean, square) = (total + mass, mean + mass * x[1], square + mass * x[1] * x[1]);
        }
        assert!((total - 1.0).abs() < 1e-9, "{total}");
        assert!((mean - data.mean()[1]).abs() < 1e-9 && (square - mean * mean - data.variance()[1]).abs() < 1e-9);
    }

    // Central differences, whose error with h = 1e-5 is about 1e-10 times the third derivative.
    #[test]
    fn the_score_is_the_slope_of_the_log_density() {
        let (data, h) = (three(), 1e-5);
        for index in 0..20 {
            let x = random::normal(0, Purpose::Test, 0, index, 2);
            let score = data.score(&x);
            for (i, score) in score.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut x = [x[0], x[1]];
                    x[i] += by;
                    data.log_density(&x)
                };
                let slope = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((slope - score).abs() < 1e-5 * (1.0 + slope.abs()), "{slope} and {score}");
            }
        }
    }

    // 4000 draws: each mean within 5 standard errors.
    #[test]
    fn samples_are_of_the_mixture_and_noise_makes_the_noised_one() {
        let data = Mixture::spiral();
        let (alpha, sigma) = (0.6, 0.8);
        let noised = data.noised(alpha, sigma);
        for (mixture, scale, noise) in [(&data, 1.0, 0.0), (&noised, alpha, sigma)] {
            let points: Vec<f64> = (0..4000)
                .map(|i| scale * data.sample(3, i)[0] + noise * random::normal(4, Purpose::Test, 0, i, 1)[0])
                .collect();
            let mean = points.iter().sum::<f64>() / 4000.0;
            let error = (mixture.variance()[0] / 4000.0).sqrt();
            assert!((mean - mixture.mean()[0]).abs() < 5.0 * error, "{mean} +- {error}: {}", mixture.mean()[0]);
            let squares: Vec<f64> = points.iter().map(|x| (x - mixture.mean()[0]).powi(2)).collect();
            let variance = squares.iter().sum::<f64>() / 4000.0;
            let spread = (squares.iter().map(|s| (s - variance).powi(2)).sum::<f64>() / 4000.0 / 4000.0).sqrt();
            assert!((variance - mixture.variance()[0]).abs() < 5.0 * spread, "{variance} +- {spread}");
        }
    }

    // Far from all centres every density is 0 in f64; the score still points back.
    #[test]
    fn the_score_is_finite_far_away() {
        let score = Mixture::two_moons().score(&[300.0, -200.0]);
        assert!(score[0] < -1e3 && score[1] > 1e3 && score.iter().all(|s| s.is_finite()));
    }

    #[test]
    fn a_sample_may_hold_several_points() {
        let schedule = DiscreteSchedule::cosine(100);
        let exact = Exact { data: three(), schedule: &schedule };
        let values = random::normal(0, Purpose::Test, 0, 0, 8);
        let both = exact.predict(&Tensor::from_f64([2, 1, 1, 4], &values, DType::F64), &[0.3, 0.7], &None).to_f64();
        for (i, &t) in [0.3, 0.3, 0.7, 0.7].iter().enumerate() {
            let one = Tensor::from_f64([1, 1, 1, 2], &values[2 * i..2 * i + 2], DType::F64);
            assert_eq!(exact.predict(&one, &[t], &None).to_f64(), both[2 * i..2 * i + 2]);
        }
    }
}
