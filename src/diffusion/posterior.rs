//! One step back: q(x_s | x_t, x_0), and the variance that a model's step p(x_s | x_t) may have (B1, B2, B3).

use super::{DiscreteSchedule, Schedule};
use crate::autograd::Tensor;

// ANCHOR: posterior
/// q(x_s | x_t, x_0) = N(coef_x0 x_0 + coef_xt x_t, variance I), for s < t. (B2) DDPM eq. 6, 7; Imagen eq. 6.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Factor of x_0 in the mean mu_tilde.
    pub coef_x0: f64,
    /// Factor of x_t in the mean mu_tilde.
    pub coef_xt: f64,
    /// beta_tilde_t: the variance of x_s when x_0 is known. 0 if s = 0.
    pub variance: f64,
    /// beta_t, that is sigma_{t|s}^2: the variance the forward step added. Never below `variance`.
    pub forward_variance: f64,
}
// ANCHOR_END: posterior

impl Posterior {
    /// The step from x_i to x_{i-1} of the chain, as DDPM writes it:
    ///
    /// ```text
    /// mu_tilde   = [sqrt(alpha_bar_{i-1}) beta_i x_0 + sqrt(alpha_i) (1 - alpha_bar_{i-1}) x_i] / (1 - alpha_bar_i)
    /// beta_tilde = (1 - alpha_bar_{i-1}) / (1 - alpha_bar_i) beta_i
    /// ```
    ///
    /// # Panics
    /// Unless 1 <= i <= T.
    #[track_caller]
    pub fn of_step(schedule: &DiscreteSchedule, i: usize) -> Posterior {
        assert!((1..=schedule.steps()).contains(&i), "step {i} of a chain of {}", schedule.steps());
        // ANCHOR: posterior_of_step
        let beta = schedule.betas()[i - 1];
        let (alpha_bar, before) = (schedule.alpha_bars()[i], schedule.alpha_bars()[i - 1]);
        Posterior {
            coef_x0: before.sqrt() * beta / (1.0 - alpha_bar),
            coef_xt: (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - alpha_bar),
            variance: (1.0 - before) / (1.0 - alpha_bar) * beta,
            forward_variance: beta,
        }
        // ANCHOR_END: posterior_of_step
    }

    /// The step from time t to any earlier time s, as Imagen writes it:
    ///
    /// ```text
    /// mu_tilde   = e^{lambda_t - lambda_s} (alpha_s / alpha_t) x_t + (1 - e^{lambda_t - lambda_s}) alpha_s x_0
    /// beta_tilde = (1 - e^{lambda_t - lambda_s}) sigma_s^2
    /// ```
    ///
    /// # Panics
    /// Unless 0 <= s < t <= 1.
    #[track_caller]
    pub fn between(schedule: &(impl Schedule + ?Sized), s: f64, t: f64) -> Posterior {
        assert!(0.0 <= s && s < t && t <= 1.0, "a step back needs 0 <= s < t <= 1, got s = {s}, t = {t}");
        // ANCHOR: posterior_between
        let log_ratio = schedule.log_snr(t) - schedule.log_snr(s);
        let (kept, replaced) = (log_ratio.exp(), -log_ratio.exp_m1());
        Posterior {
            coef_x0: replaced * schedule.alpha(s),
            coef_xt: kept * schedule.alpha(s) / schedule.alpha(t),
            variance: replaced * schedule.sigma(s).powi(2),
            forward_variance: replaced * schedule.sigma(t).powi(2),
        }
        // ANCHOR_END: posterior_between
    }

    // ANCHOR: mean_of
    /// mu_tilde(x_t, x_0) for one number.
    pub fn mean_of(&self, x0: f64, x_t: f64) -> f64 {
        self.coef_x0 * x0 + self.coef_xt * x_t
    }
    // ANCHOR_END: mean_of

    /// mu_tilde(x_t, x_0) for a batch whose samples share t and s. Equal shapes.
    #[track_caller]
    pub fn mean(&self, x0: &Tensor, x_t: &Tensor) -> Tensor {
        &(x0 * self.coef_x0) + &(x_t * self.coef_xt)
    }

    // ANCHOR: variance_between
    /// The variance between the two extremes: exp(v log beta + (1 - v) log beta_tilde) for v in [0, 1]. (B3)
    ///
    /// v is a network's output in Improved DDPM eq. 15, and the constant gamma in Imagen's ancestral sampler. At the
    /// last step (s = 0) beta_tilde is 0, and so is this for v < 1.
    pub fn variance_between(&self, v: f64) -> f64 {
        self.forward_variance.powf(v) * self.variance.powf(1.0 - v)
    }
    // ANCHOR_END: variance_between

    // ANCHOR: std_between
    /// The standard deviation where every number has a v of its own, as a model that has learned its variance says it: the root of
    /// [`Posterior::variance_between`]. (B3) `v` is [B, C, H, W], of any value; so is the result. Needs s > 0.
    pub fn std_between(&self, v: &Tensor) -> Tensor {
        let [small, large] = [self.variance, self.forward_variance].map(|variance| 0.5 * variance.ln());
        (&v.affine(-small, small) + &(v * large)).exp()
    }
    // ANCHOR_END: std_between
}

// ANCHOR: mean_from_eps
/// mu_tilde from the noise instead of the image: (x_t - beta_i / sqrt(1 - alpha_bar_i) eps) / sqrt(alpha_i), for one
/// number. (B2) DDPM eq. 11.
///
/// # Panics
/// Unless 1 <= i <= T.
#[track_caller]
pub fn mean_from_eps(schedule: &DiscreteSchedule, i: usize, x_t: f64, eps: f64) -> f64 {
    assert!((1..=schedule.steps()).contains(&i), "step {i} of a chain of {}", schedule.steps());
    let beta = schedule.betas()[i - 1];
    (x_t - beta / (1.0 - schedule.alpha_bars()[i]).sqrt() * eps) / (1.0 - beta).sqrt()
}
// ANCHOR_END: mean_from_eps
