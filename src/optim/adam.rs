//! Adam, and AdamW.

use super::slots::{self, Slots};
use super::{Ema, Optimizer, OptimizerError};
use crate::array::Array;
use crate::autograd::Gradients;
use crate::kernels::AdamStep;
use crate::nn::Parameters;
use std::collections::BTreeMap;

const FIRST: &str = "adam.first";
const SECOND: &str = "adam.second";

/// (H1) Adam (arXiv 1412.6980, algorithm 1). At step t, from 1:
///
/// ```text
/// m = beta1 m + (1 - beta1) g          first moment
/// v = beta2 v + (1 - beta2) g^2        second moment
/// p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// With weight decay lambda it is AdamW (arXiv 1711.05101, algorithm 2, with the decay times `lr` as PyTorch has it):
/// p = (1 - lr lambda) p comes first. The decay does not pass through the moments, where the division by sqrt(v) would
/// undo it for parameters with large gradients. State: "adam.first.NAME" and "adam.second.NAME".
pub struct Adam {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    steps: u64,
    first: Slots,
    second: Slots,
}

impl Adam {
    /// No step made yet. `betas` in [0, 1), `eps` above 0, `weight_decay` at least 0; 0 is plain Adam.
    pub fn new(betas: [f64; 2], eps: f64, weight_decay: f64) -> Adam {
        Adam { betas, eps, weight_decay, steps: 0, first: Slots::new(FIRST), second: Slots::new(SECOND) }
    }
}

impl Adam {
    /// A step, and one of the averages if there are any, in one pass over memory.
    fn pass(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64, mut ema: Option<&mut Ema>) {
        self.steps += 1;
        let [beta1, beta2] = self.betas;
        let step = AdamStep { lr, beta1, beta2, eps: self.eps, weight_decay: self.weight_decay, step: self.steps };
        let weight = ema.as_deref_mut().map(|ema| ema.begin_update(parameters));
        for param in parameters.iter() {
            let average = ema.as_deref_mut().map(|ema| ema.average_of(param.name())).zip(weight);
            // No tensor may be held while the parameter is updated: the update would copy instead of working in place.
            let grad = gradients.get(&param.tensor());
            if let Some(grad) = grad {
                let first = self.first.of(param.name(), grad.shape(), grad);
                let second = self.second.of(param.name(), grad.shape(), grad);
                param.update(|p| grad.kernels().adam(p, grad, [first, second], average, step));
            } else if let Some((average, weight)) = average {
                average.kernels().lerp_assign(average, param.tensor().array(), weight);
            }
        }
    }
}

impl Optimizer for Adam {
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64) {
        self.pass(parameters, gradients, lr, None);
    }

    fn step_averaged(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64, ema: &mut Ema) {
        self.pass(parameters, gradients, lr, Some(ema));
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> BTreeMap<String, Array> {
        slots::save(&[&self.first, &self.second])
    }

    fn load_state(&mut self, state: &BTreeMap<String, Array>, steps: u64) -> Result<(), OptimizerError> {
        slots::check_pairs(state, FIRST, SECOND)?;
        slots::load(&mut [&mut self.first, &mut self.second], state)?;
        self.steps = steps;
        Ok(())
    }
}
