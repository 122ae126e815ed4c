//! How much each noise level counts in the loss (C3, C5).

use super::{DiscreteSchedule, Target};
use serde::{Deserialize, Serialize};

/// How the squared error is weighted over noise levels. All but `Simple` are written for the squared error of x_hat_0
/// and mean the same loss whichever target the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighting {
    /// 1 for the network's own target: DDPM's L_simple when that is eps. (C4) DDPM eq. 14.
    #[default]
    Simple,
    /// SNR for x_0: L_simple of eps, whatever the network predicts.
    Snr,
    /// max(SNR, 1) for x_0: the noisiest levels keep a say. Progressive distillation, section 4.
    #[serde(alias = "truncated-snr")]
    TruncatedSnr,
    /// min(SNR, gamma) for x_0: the cleanest levels are held back. Min-SNR (2303.09556), eq. 8, where gamma = 5.
    #[serde(alias = "min-snr")]
    MinSnr {
        /// The largest weight; above 0.
        gamma: f64,
    },
}

impl Weighting {
    // ANCHOR: weight
    /// The factor of the squared error of `target` at signal-to-noise ratio `snr`, finite and above 0.
    pub fn weight(self, target: Target, snr: f64) -> f64 {
        let for_x0 = match self {
            Weighting::Simple => return 1.0,
            Weighting::Snr => snr,
            Weighting::TruncatedSnr => snr.max(1.0),
            Weighting::MinSnr { gamma } => snr.min(gamma),
        };
        for_x0 / target.error_scale(snr)
    }
    // ANCHOR_END: weight
}

/// The factor of ||eps - eps_theta||^2 in the bound's term L_{i-1}, when the model's variance is `variance` I:
/// beta_i^2 / (2 variance alpha_i (1 - alpha_bar_i)). (C3) DDPM eq. 12.
///
/// # Panics
/// Unless 1 <= i <= T.
#[track_caller]
// ANCHOR: bound_weight
pub fn bound_weight(schedule: &DiscreteSchedule, i: usize, variance: f64) -> f64 {
    assert!((1..=schedule.steps()).contains(&i), "step {i} of a chain of {}", schedule.steps());
    let beta = schedule.betas()[i - 1];
    beta * beta / (2.0 * variance * (1.0 - beta) * (1.0 - schedule.alpha_bars()[i]))
}
// ANCHOR_END: bound_weight
