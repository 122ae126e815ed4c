//! What a network predicts: the noise, the image, or v (C5). Given x_t, each says the same as the others.

use super::Levels;
use crate::autograd::Tensor;
use serde::{Deserialize, Serialize};

/// What a network predicts from x_t = alpha x_0 + sigma eps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The noise eps. DDPM section 3.2.
    #[default]
    Eps,
    /// The clean image x_0.
    X0,
    /// v = alpha eps - sigma x_0. Progressive distillation (2202.00512), section 4.
    V,
}

impl Target {
    // ANCHOR: of
    /// What the network should have said. `x0`, `eps` and the result are [B, C, H, W].
    #[track_caller]
    pub fn of(self, x0: &Tensor, eps: &Tensor, levels: &Levels) -> Tensor {
        match self {
            Target::Eps => eps.clone(),
            Target::X0 => x0.clone(),
            Target::V => &(&levels.alpha * eps) - &(&levels.sigma * x0),
        }
    }
    // ANCHOR_END: of

    // ANCHOR: to_x0
    /// x_hat_0 from a prediction of this kind. All [B, C, H, W]. Needs alpha > 0, that is any t of a finite schedule.
    ///
    /// ```text
    /// from eps: (x_t - sigma eps) / alpha        from v: alpha x_t - sigma v
    /// ```
    #[track_caller]
    pub fn to_x0(self, prediction: &Tensor, x_t: &Tensor, levels: &Levels) -> Tensor {
        match self {
            Target::Eps => &(x_t - &(&levels.sigma * prediction)) / &levels.alpha,
            Target::X0 => prediction.clone(),
            Target::V => &(&levels.alpha * x_t) - &(&levels.sigma * prediction),
        }
    }
    // ANCHOR_END: to_x0

    // ANCHOR: to_eps
    /// eps_hat from a prediction of this kind. All [B, C, H, W]. Needs sigma > 0, that is t > 0, if this is `X0`.
    ///
    /// ```text
    /// from x_0: (x_t - alpha x_0) / sigma        from v: sigma x_t + alpha v
    /// ```
    #[track_caller]
    pub fn to_eps(self, prediction: &Tensor, x_t: &Tensor, levels: &Levels) -> Tensor {
        match self {
            Target::Eps => prediction.clone(),
            Target::X0 => &(x_t - &(&levels.alpha * prediction)) / &levels.sigma,
            Target::V => &(&levels.sigma * x_t) + &(&levels.alpha * prediction),
        }
    }
    // ANCHOR_END: to_eps

    /// v_hat from a prediction of this kind. All [B, C, H, W]. The other two targets first become x_0 and eps.
    #[track_caller]
    pub fn to_v(self, prediction: &Tensor, x_t: &Tensor, levels: &Levels) -> Tensor {
        match self {
            Target::V => prediction.clone(),
            _ => Target::V.of(&self.to_x0(prediction, x_t, levels), &self.to_eps(prediction, x_t, levels), levels),
        }
    }

    /// By how much a prediction of this kind changes when eps_hat changes by `change`, and x_t stays. All [B, C, H, W].
    ///
    /// ```text
    /// eps: change        x_0: -(sigma / alpha) change        v: change / alpha, for alpha^2 + sigma^2 = 1
    /// ```
    #[track_caller]
    pub fn change(self, change: &Tensor, levels: &Levels) -> Tensor {
        match self {
            Target::Eps => change.clone(),
            Target::X0 => &(change * &(&levels.sigma / &levels.alpha)) * -1.0,
            Target::V => change / &levels.alpha,
        }
    }

    // ANCHOR: error_scale
    /// How many times the squared error of x_hat_0 the squared error of this target is, at signal-to-noise ratio
    /// `snr` = alpha^2 / sigma^2: SNR for eps, 1 for x_0, SNR + 1 for v.
    pub fn error_scale(self, snr: f64) -> f64 {
        match self {
            Target::Eps => snr,
            Target::X0 => 1.0,
            Target::V => snr + 1.0,
        }
    }
    // ANCHOR_END: error_scale
}
