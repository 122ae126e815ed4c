//! The forward process: an image turns into noise (A1, A2, A3).

use super::Schedule;
use crate::array::{DType, Device};
use crate::autograd::Tensor;

// ANCHOR: transition
/// q(z_t | z_s) = N(scale z_s, variance I), for s < t. (A1, A3) DDPM eq. 2, Imagen eq. 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// alpha_t / alpha_s; sqrt(1 - beta_t) for one step of the chain.
    pub scale: f64,
    /// sigma_{t|s}^2; beta_t for one step of the chain.
    pub variance: f64,
}
// ANCHOR_END: transition

impl Transition {
    // ANCHOR: between
    /// From time s to time t:
    ///
    /// ```text
    /// scale    = alpha_t / alpha_s
    /// variance = (1 - e^{lambda_t - lambda_s}) sigma_t^2
    /// ```
    ///
    /// # Panics
    /// Unless 0 <= s < t <= 1.
    #[track_caller]
    pub fn between(schedule: &(impl Schedule + ?Sized), s: f64, t: f64) -> Transition {
        assert!(0.0 <= s && s < t && t <= 1.0, "a transition needs 0 <= s < t <= 1, got s = {s}, t = {t}");
        Transition {
            scale: schedule.alpha(t) / schedule.alpha(s),
            variance: -(schedule.log_snr(t) - schedule.log_snr(s)).exp_m1() * schedule.sigma(t).powi(2),
        }
    }
    // ANCHOR_END: between

    // ANCHOR: then
    /// This transition followed by `next`: scales multiply, and `next` scales the noise that is there before adding its own.
    pub fn then(self, next: Transition) -> Transition {
        Transition { scale: next.scale * self.scale, variance: next.scale * next.scale * self.variance + next.variance }
    }
    // ANCHOR_END: then
}

/// alpha(t) and sigma(t) of every sample of a batch, shaped to multiply images [B, C, H, W].
#[derive(Clone)]
pub struct Levels {
    /// [B, 1, 1, 1]
    pub alpha: Tensor,
    /// [B, 1, 1, 1]
    pub sigma: Tensor,
}

impl Levels {
    // ANCHOR: levels_at
    /// The levels at times `t`, one per sample, computed in f64 and stored as `dtype`. Panics if a time is outside [0, 1].
    #[track_caller]
    pub fn at(schedule: &(impl Schedule + ?Sized), t: &[f64], dtype: DType) -> Levels {
        let per_sample = |f: &dyn Fn(f64) -> f64| {
            let values: Vec<f64> = t.iter().map(|&t| f(t)).collect();
            Tensor::from_f64([t.len(), 1, 1, 1], &values, dtype)
        };
        Levels { alpha: per_sample(&|t| schedule.alpha(t)), sigma: per_sample(&|t| schedule.sigma(t)) }
    }
    // ANCHOR_END: levels_at

    /// The same levels on `device`.
    pub fn to(self, device: Device) -> Levels {
        Levels { alpha: self.alpha.to(device), sigma: self.sigma.to(device) }
    }
}

// ANCHOR: q_sample
/// A sample of q(x_t | x_0): x_t = alpha_t x_0 + sigma_t eps. (A2) DDPM eq. 4.
///
/// `x0` and `eps` are [B, C, H, W]; the result too. Panics if the shapes do not fit.
#[track_caller]
pub fn q_sample(x0: &Tensor, eps: &Tensor, levels: &Levels) -> Tensor {
    &(&levels.alpha * x0) + &(&levels.sigma * eps)
}
// ANCHOR_END: q_sample
