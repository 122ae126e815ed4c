//! Adafactor: Adam's scaling with a second moment that takes the memory of one row and one column.

use super::slots::{self, Slots};
use super::{Optimizer, OptimizerError, reached};
use crate::array::{Array, Shape};
use crate::autograd::Gradients;
use crate::nn::Parameters;
use std::collections::BTreeMap;

const ROW: &str = "adafactor.row";
const COLUMN: &str = "adafactor.column";
const FULL: &str = "adafactor.full";

/// The least root mean square of a parameter that the learning rate is multiplied by, so that zeros can move (eps_2).
const MIN_PARAMETER_SCALE: f64 = 1e-3;

/// (H1) Adafactor (arXiv 1804.04235, algorithms 4 and 5) with optax's conventions and without momentum. At step t, from 1:
///
/// ```text
/// beta2 = 1 - t^-decay_rate
/// v     = beta2 v + (1 - beta2) (g^2 + eps)
/// u     = g / sqrt(v)
/// u     = u / max(1, rms(u) / clipping_threshold)
/// p     = p - lr max(rms(p), 0.001) u
/// ```
///
/// Where the two largest axes both have at least `min_dim_size_to_factor` sizes, v is not kept: its means over each of these two
/// axes are, R without the largest and C without the second largest, and v is taken as R C / mean(R). Further axes (the kernel of a
/// convolution [O, C, kh, kw]) are a batch of such matrices. State: "adafactor.row.NAME" (R) and "adafactor.column.NAME" (C), or
/// "adafactor.full.NAME" (v). A step is computed in f64 on the CPU, its state is kept in the parameter's dtype.
pub struct Adafactor {
    /// A second moment is factored if its second largest axis has at least this size.
    pub min_dim_size_to_factor: usize,
    /// c in the decay 1 - t^-c of the second moment; above 0.
    pub decay_rate: f64,
    /// The largest root mean square of an update, before the learning rate; above 0.
    pub clipping_threshold: f64,
    /// Whether the learning rate is relative to the root mean square of the parameter.
    pub multiply_by_parameter_scale: bool,
    /// Added to squared gradients, so that a zero gradient divides by no zero; above 0.
    pub eps: f64,
    pub(super) steps: u64,
    pub(super) row: Slots,
    pub(super) column: Slots,
    pub(super) full: Slots,
}

impl Default for Adafactor {
    /// No step made yet, with the settings of the paper and optax.
    fn default() -> Adafactor {
        Adafactor {
            min_dim_size_to_factor: 128,
            decay_rate: 0.8,
            clipping_threshold: 1.0,
            multiply_by_parameter_scale: true,
            eps: 1e-30,
            steps: 0,
            row: Slots::new(ROW),
            column: Slots::new(COLUMN),
            full: Slots::new(FULL),
        }
    }
}

impl Optimizer for Adafactor {
    fn step(&mut self, parameters: &Parameters, gradients: &Gradients, lr: f64) {
        self.steps += 1;
        for (param, grad) in reached(parameters, gradients) {
            // Where memory is planned there are no numbers, but what would be remembered takes its place.
            if grad.is_planned() {
                self.remember(param.name(), grad);
                continue;
            }
            let mut u = match self.factored_axes(grad.shape()) {
                Some(axes) => self.factored(param.name(), grad, axes),
                None => self.unfactored(param.name(), grad),
            };
            let shrink = (rms(&u) / self.clipping_threshold).max(1.0);
            u.iter_mut().for_each(|u| *u /= shrink);
            param.update(|p| {
                let mut values = p.to_f64();
                let scale = if self.multiply_by_parameter_scale { rms(&values).max(MIN_PARAMETER_SCALE) } else { 1.0 };
                values.iter_mut().zip(&u).for_each(|(p, u)| *p -= lr * scale * u);
                *p = Array::from_f64(p.shape(), &values, p.dtype()).to(p.device());
            });
        }
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> BTreeMap<String, Array> {
        slots::save(&[&self.row, &self.column, &self.full])
    }

    fn load_state(&mut self, state: &BTreeMap<String, Array>, steps: u64) -> Result<(), OptimizerError> {
        slots::check_pairs(state, ROW, COLUMN)?;
        slots::load(&mut [&mut self.row, &mut self.column, &mut self.full], state)?;
        self.steps = steps;
        Ok(())
    }
}

impl Adafactor {
    // ANCHOR: adafactor_decay
    /// beta2 of this step. It is 0 at the first one: the zeros the state starts from leave no bias to correct.
    fn decay(&self) -> f64 {
        1.0 - (self.steps as f64).powf(-self.decay_rate)
    }
    // ANCHOR_END: adafactor_decay

    /// (second largest axis, largest axis) if both are large enough. Of equal sizes, the later axis counts as larger.
    fn factored_axes(&self, shape: &Shape) -> Option<(usize, usize)> {
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.sort_by_key(|&axis| shape[axis]);
        let [.., second, largest] = axes[..] else { return None };
        (shape[second] >= self.min_dim_size_to_factor).then_some((second, largest))
    }

    /// Makes room for the averages of a parameter.
    fn remember(&mut self, name: &str, grad: &Array) {
        let shape = grad.shape();
        match self.factored_axes(shape) {
            Some((second, largest)) => {
                self.row.of(name, &shape.without(largest), grad);
                self.column.of(name, &shape.without(second), grad);
            }
            None => {
                self.full.of(name, shape, grad);
            }
        }
    }

    /// g / sqrt(v), with v kept whole.
    fn unfactored(&mut self, name: &str, grad: &Array) -> Vec<f64> {
        let (beta2, g) = (self.decay(), grad.to_f64());
        let v = moved(self.full.of(name, grad.shape(), grad), beta2, &squares(&g, self.eps));
        g.iter().zip(v).map(|(g, v)| g / v.sqrt()).collect()
    }

    /// g / sqrt(R C / mean(R)).
    fn factored(&mut self, name: &str, grad: &Array, (second, largest): (usize, usize)) -> Vec<f64> {
        let (beta2, g, shape) = (self.decay(), grad.to_f64(), grad.shape());
        let squares = squares(&g, self.eps);
        let (over_largest, over_second) = (shape.around(largest), shape.around(second));
        let row_shape = shape.without(largest);
        let row = moved(self.row.of(name, &row_shape, grad), beta2, &mean(&squares, over_largest));
        let column = moved(self.column.of(name, &shape.without(second), grad), beta2, &mean(&squares, over_second));
        // The axes behind the one that the row lacks have moved up by one.
        let over_row = row_shape.around(if second > largest { second - 1 } else { second });
        let row_mean = mean(&row, over_row);
        let update = |(i, g): (usize, &f64)| {
            let r = without(i, over_largest);
            let row_factor = (row[r] / row_mean[without(r, over_row)]).sqrt();
            g / row_factor / column[without(i, over_second)].sqrt()
        };
        g.iter().enumerate().map(update).collect()
    }
}

/// g^2 + eps
fn squares(g: &[f64], eps: f64) -> Vec<f64> {
    g.iter().map(|g| g * g + eps).collect()
}

/// Moves `average` towards `values`: average = beta2 average + (1 - beta2) values. Returns it.
fn moved(average: &mut Array, beta2: f64, values: &[f64]) -> Vec<f64> {
    let next: Vec<f64> = average.to_f64().iter().zip(values).map(|(a, v)| beta2 * a + (1.0 - beta2) * v).collect();
    *average = Array::from_f64(average.shape(), &next, average.dtype()).to(average.device());
    // As stored, not as computed: a resumed run sees only what was stored.
    average.to_f64()
}

/// Root mean square.
fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// Mean over one axis, given as [`Shape::around`] describes it.
fn mean(values: &[f64], around: (usize, usize, usize)) -> Vec<f64> {
    let (outer, size, inner) = around;
    let mut means = vec![0.0; outer * inner];
    for (i, value) in values.iter().enumerate() {
        means[without(i, around)] += value / size as f64;
    }
    means
}

/// Where element `i` lies once one axis is taken out.
fn without(i: usize, (_, size, inner): (usize, usize, usize)) -> usize {
    i / (size * inner) * inner + i % inner
}
