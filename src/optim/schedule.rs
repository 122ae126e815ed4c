//! Learning-rate schedules.

use super::{OptimizerError, check};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// (H1) The learning rate as a function of the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LearningRate {
    /// Always the same.
    Constant {
        /// Above 0.
        rate: f64,
    },
    /// Up from 0 to `peak` on a straight line, then down to `end` on half a cosine (Loshchilov and Hutter, arXiv
    /// 1608.03983, eq. 5, without restarts), and `end` from then on.
    WarmupCosine {
        /// Highest rate, reached at step `warmup`; above 0.
        peak: f64,
        /// Steps of the straight line.
        warmup: u64,
        /// The step that reaches `end`, counted from the first; at least `warmup`.
        total: u64,
        /// Last rate; at least 0.
        #[serde(default)]
        end: f64,
    },
}

impl LearningRate {
    // ANCHOR: learning_rate_at
    /// The rate of a step, counted from 0: of a warm-up, step 0 has rate 0.
    pub fn at(&self, step: u64) -> f64 {
        match *self {
            LearningRate::Constant { rate } => rate,
            LearningRate::WarmupCosine { peak, warmup, .. } if step < warmup => peak * step as f64 / warmup as f64,
            LearningRate::WarmupCosine { total, end, .. } if step >= total => end,
            LearningRate::WarmupCosine { peak, warmup, total, end } => {
                let done = (step - warmup) as f64 / (total - warmup) as f64;
                end + (peak - end) * 0.5 * (1.0 + (PI * done).cos())
            }
        }
    }
    // ANCHOR_END: learning_rate_at

    /// An error that names the first setting out of its range.
    pub fn check(&self) -> Result<(), OptimizerError> {
        let positive = |name, value: f64| check(value > 0.0 && value.is_finite(), name, value, "above 0");
        match *self {
            LearningRate::Constant { rate } => positive("rate", rate),
            LearningRate::WarmupCosine { peak, warmup, total, end } => {
                positive("peak", peak)?;
                check(warmup <= total, "warmup", warmup as f64, "at most total")?;
                check(end >= 0.0 && end.is_finite(), "end", end, "at least 0")
            }
        }
    }
}
