//! An exponential moving average of the weights: what samples are drawn from.

use super::{OptimizerError, check};
use crate::array::Array;
use crate::nn::{Parameters, Weights, WeightsError};
use std::collections::BTreeMap;

/// (H1) Averaged weights: after update k, from 1, average = d_k average + (1 - d_k) weights.
///
/// d_k is `decay`, or with warm-up min(decay, (1 + k) / (10 + k)): as the average starts at the first weights, a constant decay near 1
/// would keep these random numbers in it for thousands of steps.
pub struct Ema {
    decay: f64,
    warmup: bool,
    updates: u64,
    values: BTreeMap<String, Array>,
}

impl Ema {
    /// Starts at the present weights. An error unless `decay` is in [0, 1).
    pub fn new(parameters: &Parameters, decay: f64, warmup: bool) -> Result<Ema, OptimizerError> {
        check((0.0..1.0).contains(&decay), "ema decay", decay, "at least 0 and below 1")?;
        Ok(Ema { decay, warmup, updates: 0, values: parameters.values() })
    }

    // ANCHOR: ema_decay_at
    /// d_k, the decay of update `k`, counted from 1.
    pub fn decay_at(&self, k: u64) -> f64 {
        if self.warmup { self.decay.min((1 + k) as f64 / (10 + k) as f64) } else { self.decay }
    }
    // ANCHOR_END: ema_decay_at

    // ANCHOR: ema_update
    /// Moves the average towards the present weights, in place. Panics if they are of another model.
    #[track_caller]
    pub fn update(&mut self, parameters: &Parameters) {
        let weight = self.begin_update(parameters);
        for param in parameters.iter() {
            let average = self.average_of(param.name());
            average.kernels().lerp_assign(average, param.tensor().array(), weight);
        }
    }
    // ANCHOR_END: ema_update

    /// Counts an update, and says how far it moves the averages towards the weights. Panics if they are of another model.
    #[track_caller]
    pub(super) fn begin_update(&mut self, parameters: &Parameters) -> f64 {
        self.assert_fits(parameters);
        self.updates += 1;
        1.0 - self.decay_at(self.updates)
    }

    /// The average of one parameter.
    pub(super) fn average_of(&mut self, name: &str) -> &mut Array {
        self.values.get_mut(name).expect("names have been checked")
    }

    /// How many updates have been made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averages by parameter name.
    pub fn values(&self) -> &BTreeMap<String, Array> {
        &self.values
    }

    /// Continues from saved [`Ema::values`] and [`Ema::updates`]. Missing, surplus and wrong-shaped tensors are an error that names
    /// them, and then nothing has been changed.
    pub fn load(&mut self, weights: &Weights, updates: u64) -> Result<(), WeightsError> {
        weights.check_names(self.values.iter().map(|(name, value)| (name.as_str(), value.shape().clone())))?;
        for (name, value) in &mut self.values {
            *value = weights.tensors[name].cast(value.dtype()).to(value.device());
        }
        self.updates = updates;
        Ok(())
    }

    /// Runs `f` with the averages in the model. The trained weights are put back after it, also when it panics. Panics if
    /// `parameters` are of another model. `f` must not change the parameters: it would change the averages.
    #[track_caller]
    pub fn swapped<R>(&mut self, parameters: &Parameters, f: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a Parameters, &'a mut BTreeMap<String, Array>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.swap(self.1);
            }
        }
        self.assert_fits(parameters);
        parameters.swap(&mut self.values);
        let _restore = Restore(parameters, &mut self.values);
        f()
    }

    /// Before anything is changed: half a model of averages would be worse than none.
    #[track_caller]
    fn assert_fits(&self, parameters: &Parameters) {
        for param in parameters.iter() {
            let (name, shape) = (param.name(), param.shape());
            let average = self.values.get(name).unwrap_or_else(|| panic!("ema: no average of {name}"));
            assert_eq!(*average.shape(), shape, "ema: {name} and its average differ in shape");
            assert_eq!(average.dtype(), param.tensor().dtype(), "ema: {name} and its average differ in dtype");
        }
    }
}
