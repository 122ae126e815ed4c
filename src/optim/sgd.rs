//! Stochastic gradient descent with momentum.

use super::slots::{self, Slots};
use super::{Optimizer, OptimizerError, reached};
use crate::array::Array;
use crate::autograd::Gradients;
use crate::nn::Parameters;
use std::collections::BTreeMap;

/// (H1) Gradient descent with momentum mu (Sutskever et al. 2013, eq. 1 and 2, with the learning rate outside of v, as
/// PyTorch has it): v = mu v + g, p = p - lr v. State: "sgd.velocity.NAME", none if mu is 0.
pub struct Sgd {
    momentum: f64,
    steps: u64,
    velocity: Slots,
}

impl Sgd {
    /// No step made yet. `momentum` in [0, 1); 0 is plain gradient descent.
    pub fn new(momentum: f64) -> Sgd {
        Sgd { momentum, steps: 0, velocity: Slots::new("sgd.velocity") }
    }
}

impl Optimizer for Sgd {
    // ANCHOR: sgd_step
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64) {
        self.steps += 1;
        for (param, grad) in reached(parameters, gradients) {
            let kernels = grad.kernels();
            if self.momentum == 0.0 {
                param.update(|p| kernels.add_assign(p, grad, -lr));
                continue;
            }
            let velocity = self.velocity.of(param.name(), grad.shape(), grad);
            *velocity = velocity.affine(self.momentum, 0.0);
            kernels.add_assign(velocity, grad, 1.0);
            param.update(|p| kernels.add_assign(p, velocity, -lr));
        }
    }
    // ANCHOR_END: sgd_step

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> BTreeMap<String, Array> {
        slots::save(&[&self.velocity])
    }

    fn load_state(&mut self, state: &BTreeMap<String, Array>, steps: u64) -> Result<(), OptimizerError> {
        slots::load(&mut [&mut self.velocity], state)?;
        self.steps = steps;
        Ok(())
    }
}
