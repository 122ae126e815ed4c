//! The variational bound of a model on images, term by term (C1, C3, C6).

use super::gaussian::{bits_per_dimension, discretised_log_probability, kl, level_value};
use super::{Denoiser, DiscreteSchedule, Images, Levels, Posterior, SampleError, Target, Threshold, q_sample};
use crate::autograd::{Tensor, no_grad};
use crate::random::{self, Purpose};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// The variance of p(x_{i-1} | x_i). (B3)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReverseVariance {
    /// beta_i: right if the data were noise.
    Large,
    /// beta_tilde_i: right if the data were one point. That of the first step would be 0; it has the second's.
    #[default]
    Small,
    /// What the network says, between the two.
    Learned,
}

impl ReverseVariance {
    /// The variance of step i. Panics unless 1 <= i <= T, and if it is learned. A chain of one step has no second one, whose
    /// variance `Small` could take: there it is the smallest positive number.
    #[track_caller]
    pub fn of_step(self, schedule: &DiscreteSchedule, i: usize) -> f64 {
        assert!((1..=schedule.steps()).contains(&i), "step {i} is not one of 1 to {}", schedule.steps());
        match self {
            ReverseVariance::Learned => panic!("a learned variance is not known from the schedule"),
            ReverseVariance::Large => Posterior::of_step(schedule, i).forward_variance,
            ReverseVariance::Small => {
                Posterior::of_step(schedule, i.max(2).min(schedule.steps())).variance.max(f64::MIN_POSITIVE)
            }
        }
    }

    /// Logarithms of the smaller and the larger variance of step i. Panics unless 1 <= i <= T.
    #[track_caller]
    pub(super) fn logarithms(schedule: &DiscreteSchedule, i: usize) -> [f64; 2] {
        [ReverseVariance::Small, ReverseVariance::Large].map(|variance| variance.of_step(schedule, i).ln())
    }

    /// The logarithm of the variance of step i for each of `n` numbers; `v` is what the network says. None if it says nothing and
    /// should.
    fn log_variances(self, schedule: &DiscreteSchedule, i: usize, v: Option<&Tensor>, n: usize) -> Option<Vec<f64>> {
        let [small, large] = ReverseVariance::logarithms(schedule, i);
        match self {
            ReverseVariance::Small => Some(vec![small; n]),
            ReverseVariance::Large => Some(vec![large; n]),
            ReverseVariance::Learned => {
                v.map(|v| v.to_f64().into_iter().map(|v| v * large + (1.0 - v) * small).collect())
            }
        }
    }
}

/// The bound of one image, in bits per dimension.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// L_T = KL(q(x_T | x_0) || N(0, I)): what it costs that x_T is not quite noise.
    pub prior: f64,
    /// L_0, L_1, .., L_{T-1}: entry i - 1 is what the step from x_i to x_{i-1} costs, the first that of the decoder.
    pub terms: Vec<f64>,
    /// Mean squared error of eps at every step, from x_1 on: what L_simple adds up in place of the terms. (C4)
    pub simple: Vec<f64>,
}

impl Bound {
    /// The whole bound: a code that is made with this model needs no more than this, in expectation.
    pub fn total(&self) -> f64 {
        self.prior + self.terms.iter().sum::<f64>()
    }
}

/// The bound of 8-bit images, each from one x_i at every step of the chain: an unbiased estimate of every term. (C1)
///
/// `pixels` are levels 0 to 255 in the order [B, C, H, W] of `images`, which also key the noise. The model's x_hat_0 is clipped to
/// [-1, 1]. `progress` is called after every step with how many of the T are done.
///
/// # Errors
/// If an x_hat_0 is not finite, a device fails, or `progress` stops it; if the variance should be learned and the model has none, or
/// one that is not finite, or so small or large that a term has no finite value.
///
/// # Panics
/// Unless there is a level for every number of the images, and the chain has at least two steps.
#[track_caller]
pub fn bound<D: Denoiser + ?Sized>(
    (denoiser, target): (&D, Target),
    condition: &D::Condition,
    schedule: &DiscreteSchedule,
    variance: ReverseVariance,
    (pixels, images): (&[u8], &Images<'_>),
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Bound>, SampleError> {
    let (b, [c, h, w], steps) = (images.seeds.len(), images.size, schedule.steps());
    let dimensions = c * h * w;
    assert!(
        pixels.len() == b * dimensions && steps >= 2,
        "bound: {} levels for {b} images of {c}x{h}x{w}",
        pixels.len()
    );
    let values: Vec<f64> = pixels.iter().map(|&level| level_value(level.into())).collect();
    let x0 = Tensor::from_f64([b, c, h, w], &values, images.dtype).to(denoiser.device());
    let bits = |nats: f64| bits_per_dimension(nats, dimensions);

    let alpha_bar = schedule.alpha_bars()[steps];
    let prior = |x: &[f64]| x.iter().map(|x| kl(alpha_bar.sqrt() * x, (1.0 - alpha_bar).ln(), 0.0, 0.0)).sum();
    let mut bounds: Vec<Bound> = values
        .chunks(dimensions)
        .map(|x| Bound { prior: bits(prior(x)), terms: Vec::new(), simple: Vec::new() })
        .collect();
    for i in 1..=steps {
        let t = vec![i as f64 / steps as f64; b];
        let levels = Levels::at(schedule, &t, images.dtype).to(x0.device());
        let noise =
            |&(seed, index): &(u64, u64)| random::normal(seed, Purpose::Evaluation, i as u64, index, dimensions);
        let eps: Vec<f64> = images.seeds.iter().flat_map(noise).collect();
        let eps = x0.constant_like([b, c, h, w], &eps);
        let x_i = q_sample(&x0, &eps, &levels);
        let (prediction, v) = no_grad(|| denoiser.predict_with_variance(&x_i, &t, condition));
        let x0_hat = no_grad(|| target.to_x0(&prediction, &x_i, &levels));
        let log_variances = variance.log_variances(schedule, i, v.as_ref(), b * dimensions);
        let log_variances = log_variances.ok_or(SampleError::NoVariance)?;
        let finite = x0_hat.array().is_finite();
        x0_hat.array().kernels().check()?;
        let not_finite = |what| SampleError::NotFinite { what, index: i - 1, of: steps, t: t[0] };
        if !finite {
            return Err(not_finite("image estimate"));
        }
        // A fixed variance does not ask v.
        if log_variances.iter().any(|log_variance| !log_variance.is_finite()) {
            return Err(not_finite("variance"));
        }
        let (x0_hat, _) = Threshold::Static.apply(&x0_hat);
        let errors = (&Target::X0.to_eps(&x0_hat, &x_i, &levels) - &eps).square().mean(&[1, 2, 3], false).to_f64();
        let x0_hat = x0_hat.to_f64();
        for (k, bound) in bounds.iter_mut().enumerate() {
            let mine = k * dimensions..(k + 1) * dimensions;
            let nats = match i {
                1 => decoder(&pixels[mine.clone()], &x0_hat[mine.clone()], &log_variances[mine]),
                _ => {
                    let posterior = Posterior::of_step(schedule, i);
                    step_back(&values[mine.clone()], &x0_hat[mine.clone()], posterior, &log_variances[mine])
                }
            };
            if !nats.is_finite() {
                return Err(not_finite("bound"));
            }
            bound.terms.push(bits(nats));
            bound.simple.push(errors[k]);
        }
        if progress(i).is_break() {
            return Err(SampleError::Cancelled { index: i - 1, of: steps });
        }
    }
    Ok(bounds)
}

/// L_0 = -log p(x_0 | x_1) in nats: the discretised decoder. (C6) At the first step mu_tilde is x_hat_0 itself. NaN if a standard
/// deviation is too small or too large for a number.
fn decoder(pixels: &[u8], x0_hat: &[f64], log_variances: &[f64]) -> f64 {
    let cost = |((&level, &mean), log_variance): ((&u8, &f64), &f64)| {
        let std = (0.5 * log_variance).exp();
        if std > 0.0 && std.is_finite() { -discretised_log_probability(level.into(), mean, std) } else { f64::NAN }
    };
    pixels.iter().zip(x0_hat).zip(log_variances).map(cost).sum()
}

/// L_{i-1} = KL(q(x_{i-1} | x_i, x_0) || p(x_{i-1} | x_i)) in nats: the means differ by coef_x0 (x_0 - x_hat_0). (C3)
fn step_back(x0: &[f64], x0_hat: &[f64], posterior: Posterior, log_variances: &[f64]) -> f64 {
    let cost = |((x0, x0_hat), &log_variance): ((&f64, &f64), &f64)| {
        kl(posterior.coef_x0 * (x0 - x0_hat), posterior.variance.ln(), 0.0, log_variance)
    };
    x0.iter().zip(x0_hat).zip(log_variances).map(cost).sum()
}
