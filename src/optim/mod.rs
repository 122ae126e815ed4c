//! Optimisation (H1): [`Optimizer`]s, learning-rate schedules, clipping of gradients and averaged weights.
//!
//! A training step is: backward, [`clip`], [`Optimizer::step`] with [`LearningRate::at`], [`Ema::update`].

mod adafactor;
mod adam;
mod clip;
mod config;
mod ema;
mod schedule;
mod sgd;
mod slots;

pub use adafactor::Adafactor;
pub use adam::Adam;
pub use clip::{clip, global_norm};
pub use config::OptimizerConfig;
pub use ema::Ema;
pub use schedule::LearningRate;
pub use sgd::Sgd;

use crate::array::Array;
use crate::autograd::Gradients;
use crate::nn::{Param, Parameters};
use std::collections::BTreeMap;

/// Changes parameters along their gradients.
pub trait Optimizer: Send {
    /// One step with learning rate `lr`, in place. A parameter without a gradient is left alone: neither its value nor
    /// its state changes, and weight decay does not reach it. Its bias correction goes by the optimizer's steps, not
    /// by its own. Panics if a loaded state does not fit a parameter.
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64);

    /// [`Optimizer::step`] and then [`Ema::update`]: the same numbers, to the bit, in fewer passes over memory if the optimizer can.
    fn step_averaged(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64, ema: &mut Ema) {
        self.step(parameters, gradients, lr);
        ema.update(parameters);
    }

    /// How many steps have been made.
    fn steps(&self) -> u64;

    /// All that a later step depends on besides [`Optimizer::steps`], by name: "adam.first.NAME" for a parameter NAME.
    /// Nothing is copied now, but the next step copies what is still shared then.
    fn state(&self) -> BTreeMap<String, Array>;

    /// Continues from what [`Optimizer::state`] and [`Optimizer::steps`] gave: the steps that follow are bit-identical to those of
    /// an optimizer that was never interrupted. Entries of another optimizer and halves of a pair are an error, and
    /// then nothing has been changed.
    fn load_state(&mut self, state: &BTreeMap<String, Array>, steps: u64) -> Result<(), OptimizerError>;
}

/// Settings or a saved state that an optimizer cannot use.
#[derive(Debug, thiserror::Error)]
pub enum OptimizerError {
    /// A setting is out of its range.
    #[error("{setting} is {value}, but must be {range}; correct it in the config")]
    Setting {
        /// Its name in the config.
        setting: &'static str,
        /// Its value there.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
    /// The state was saved by another optimizer, or not all of it is there.
    #[error("the optimizer's saved state does not fit: {0}; resume with the config the run was started with")]
    State(String),
}

/// An error unless `allowed`, naming the setting.
fn check(allowed: bool, setting: &'static str, value: f64, range: &'static str) -> Result<(), OptimizerError> {
    if allowed { Ok(()) } else { Err(OptimizerError::Setting { setting, value, range }) }
}

/// The parameters that have a gradient, with it, in the order of the parameters.
fn reached<'a>(parameters: &'a Parameters, gradients: &'a Gradients) -> impl Iterator<Item = (&'a Param, &'a Array)> {
    // No tensor may be held while the parameter is updated: the update would copy instead of working in place.
    parameters.iter().filter_map(|param| gradients.get(&param.tensor()).map(|grad| (param, grad)))
}
