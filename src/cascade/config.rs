//! What the loss of a diffusion model is made of.

use crate::diffusion::{ScheduleConfig, Target, Weighting};
use serde::{Deserialize, Serialize};

/// Schedule, target and weighting of a diffusion model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionConfig {
    /// The noise schedule (A4).
    pub schedule: ScheduleConfig,
    /// What the network predicts (C5).
    pub target: Target,
    /// How the loss is weighted over noise levels (C5).
    #[serde(default)]
    pub weighting: Weighting,
    /// Share of training examples whose text is dropped, so that the model can be guided without a classifier (E2).
    #[serde(default = "default_drop_text")]
    pub drop_text: f64,
}

/// What Imagen uses.
fn default_drop_text() -> f64 {
    0.1
}

impl DiffusionConfig {
    /// An error naming the first entry that is wrong.
    pub fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.drop_text) {
            return Err(format!("diffusion.drop_text must be between 0 and 1, not {}", self.drop_text));
        }
        match self.weighting {
            Weighting::MinSnr { gamma } if !(gamma > 0.0 && gamma.is_finite()) => {
                Err(format!("diffusion.weighting.gamma must be above 0, not {gamma}"))
            }
            _ => Ok(()),
        }
    }
}
