//! Optimizers as they are written in a config.

use super::{Adafactor, Adam, Optimizer, OptimizerError, Sgd, check};
use serde::{Deserialize, Serialize};

/// Which optimizer, with its settings; those left out take the value of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// [`Sgd`]
    Sgd {
        /// How much of the last step is kept, in [0, 1); 0 is plain gradient descent.
        #[serde(default = "momentum")]
        momentum: f64,
    },
    /// [`Adam`]
    Adam {
        /// Decay of the first and of the second moment, each in [0, 1).
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment; above 0.
        #[serde(default = "adam_eps")]
        eps: f64,
    },
    /// [`Adam`] with decoupled weight decay
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the first and of the second moment, each in [0, 1).
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment; above 0.
        #[serde(default = "adam_eps")]
        eps: f64,
        /// What a step takes off the parameters, as a fraction of `lr`; at least 0.
        #[serde(default = "weight_decay")]
        weight_decay: f64,
    },
    /// [`Adafactor`]
    Adafactor {
        /// A second moment is factored if its second largest axis has at least this size.
        #[serde(default = "min_dim_size_to_factor")]
        min_dim_size_to_factor: usize,
        /// c in the decay 1 - t^-c of the second moment at step t; above 0.
        #[serde(default = "decay_rate")]
        decay_rate: f64,
        /// The largest root mean square of an update; above 0.
        #[serde(default = "clipping_threshold")]
        clipping_threshold: f64,
        /// Whether the learning rate is relative to the root mean square of the parameter.
        #[serde(default = "yes")]
        multiply_by_parameter_scale: bool,
        /// Added to squared gradients; above 0.
        #[serde(default = "adafactor_eps")]
        eps: f64,
    },
}

fn momentum() -> f64 {
    0.9
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn adam_eps() -> f64 {
    1e-8
}

fn weight_decay() -> f64 {
    0.01
}

fn min_dim_size_to_factor() -> usize {
    128
}

fn decay_rate() -> f64 {
    0.8
}

fn clipping_threshold() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn adafactor_eps() -> f64 {
    1e-30
}

impl OptimizerConfig {
    /// An optimizer that has made no step. A setting out of its range is an error that names it.
    pub fn build(&self) -> Result<Box<dyn Optimizer>, OptimizerError> {
        self.check()?;
        Ok(match *self {
            OptimizerConfig::Sgd { momentum } => Box::new(Sgd::new(momentum)),
            OptimizerConfig::Adam { betas, eps } => Box::new(Adam::new(betas, eps, 0.0)),
            OptimizerConfig::AdamW { betas, eps, weight_decay } => Box::new(Adam::new(betas, eps, weight_decay)),
            OptimizerConfig::Adafactor {
                min_dim_size_to_factor,
                decay_rate,
                clipping_threshold,
                multiply_by_parameter_scale,
                eps,
            } => Box::new(Adafactor {
                min_dim_size_to_factor,
                decay_rate,
                clipping_threshold,
                multiply_by_parameter_scale,
                eps,
                ..Adafactor::default()
            }),
        })
    }

    /// An error that names the first setting out of its range.
    pub fn check(&self) -> Result<(), OptimizerError> {
        let decay = |name, value: f64| check((0.0..1.0).contains(&value), name, value, "at least 0 and below 1");
        let positive = |name, value: f64| check(value > 0.0 && value.is_finite(), name, value, "above 0");
        match *self {
            OptimizerConfig::Sgd { momentum } => decay("momentum", momentum),
            OptimizerConfig::Adam { betas, eps } => {
                betas.into_iter().try_for_each(|beta| decay("betas", beta))?;
                positive("eps", eps)
            }
            OptimizerConfig::AdamW { betas, eps, weight_decay } => {
                OptimizerConfig::Adam { betas, eps }.check()?;
                check(weight_decay >= 0.0 && weight_decay.is_finite(), "weight_decay", weight_decay, "at least 0")
            }
            OptimizerConfig::Adafactor { decay_rate, clipping_threshold, eps, .. } => {
                positive("decay_rate", decay_rate)?;
                positive("clipping_threshold", clipping_threshold)?;
                positive("eps", eps)
            }
        }
    }
}
