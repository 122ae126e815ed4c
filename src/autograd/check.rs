//! Gradient checking: backward against finite differences.

use super::{Tensor, no_grad};
use crate::array::{Array, DType};
use crate::random::{Purpose, normal};
use std::fmt;

/// Step of the central difference: in f64 its error is about 1e-12 from curvature and 1e-10 from rounding.
const STEP: f64 = 1e-6;

/// Up to this many entries a Jacobian is checked whole; larger ones along random directions.
const WHOLE_JACOBIAN: usize = 4096;

/// Where backward and finite differences disagree most.
#[derive(Clone, Debug)]
pub struct GradientError {
    /// Which of the inputs.
    pub input: usize,
    /// What backward says.
    pub backward: f64,
    /// What the central difference says.
    pub difference: f64,
    /// |backward - difference| / max(1, |backward|, |difference|).
    pub relative: f64,
    /// In which entry of the Jacobian or along which direction.
    pub place: String,
}

impl fmt::Display for GradientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GradientError { input, backward, difference, relative, place } = self;
        write!(f, "input {input}, {place}: backward {backward:e}, difference {difference:e}, relative {relative:e}")
    }
}

impl std::error::Error for GradientError {}

/// Checks the gradients of `f` with respect to each of `inputs` (f64) against central differences.
///
/// `f` runs in mid-graph: its inputs are results of an op, its result goes into another, and what comes back is
/// weighted by a random cotangent, so a gradient that ignores the one coming in is found. Small Jacobians are checked
/// entry by entry, larger ones along 8 random directions. Returns the largest relative error, or an error naming the
/// place if that is above `tolerance` (1e-6 is right for smooth functions of numbers near 1). Panics unless all inputs are f64.
#[track_caller]
pub fn check_gradients(
    f: impl Fn(&[Tensor]) -> Tensor,
    inputs: &[Array],
    seed: u64,
    tolerance: f64,
) -> Result<f64, GradientError> {
    assert!(inputs.iter().all(|x| x.dtype() == DType::F64), "check_gradients: inputs must be f64");
    let value =
        |xs: &[Array]| no_grad(|| f(&xs.iter().map(|x| Tensor::constant(x.clone())).collect::<Vec<_>>())).to_f64();
    let outputs = value(inputs).len();
    let mut worst: Option<GradientError> = None;
    let mut compare = |input: usize, backward: f64, difference: f64, place: String| {
        let relative = (backward - difference).abs() / 1.0_f64.max(backward.abs()).max(difference.abs());
        // A NaN compares as neither smaller nor larger; it is the worst error there is.
        let relative = if relative.is_nan() { f64::INFINITY } else { relative };
        if worst.as_ref().is_none_or(|w| relative > w.relative) {
            worst = Some(GradientError { input, backward, difference, relative, place });
        }
    };
    for (i, x) in inputs.iter().enumerate() {
        let whole = x.numel() * outputs <= WHOLE_JACOBIAN;
        let cotangents: Vec<Vec<f64>> = if whole {
            (0..outputs).map(|o| unit(outputs, o)).collect()
        } else {
            vec![random(seed, i as u64, outputs)]
        };
        let directions: Vec<Vec<f64>> = if whole {
            (0..x.numel()).map(|e| unit(x.numel(), e)).collect()
        } else {
            (0..8).map(|d| random(seed, 1000 + d, x.numel())).collect()
        };
        let gradients: Vec<Vec<f64>> = cotangents.iter().map(|c| backward(&f, inputs, i, c)).collect();
        for (d, direction) in directions.iter().enumerate() {
            // ANCHOR: central_difference
            let shifted = |step: f64| {
                let mut moved = inputs.to_vec();
                let values: Vec<f64> = x.slice::<f64>().iter().zip(direction).map(|(v, u)| v + step * u).collect();
                moved[i] = Array::from_vec(x.shape(), values);
                value(&moved)
            };
            let (plus, minus) = (shifted(STEP), shifted(-STEP));
            for (c, (cotangent, gradient)) in cotangents.iter().zip(&gradients).enumerate() {
                let difference: f64 =
                    plus.iter().zip(&minus).zip(cotangent).map(|((p, m), w)| (p - m) * w).sum::<f64>() / (2.0 * STEP);
                let place = if whole { format!("d output {c} / d element {d}") } else { format!("direction {d}") };
                compare(i, dot(gradient, direction), difference, place);
            }
            // ANCHOR_END: central_difference
        }
    }
    match worst {
        Some(worst) if worst.relative > tolerance => Err(worst),
        Some(worst) => Ok(worst.relative),
        None => Ok(0.0),
    }
}

// ANCHOR: mid_graph
/// The gradient with respect to input `i` for one cotangent, `f` being in mid-graph.
fn backward(f: &impl Fn(&[Tensor]) -> Tensor, inputs: &[Array], i: usize, cotangent: &[f64]) -> Vec<f64> {
    let leaves: Vec<Tensor> = inputs.iter().map(|x| Tensor::leaf(x.clone())).collect();
    // Twice and half again: exact in floating point, and a graph node on either side of f.
    let before: Vec<Tensor> = leaves.iter().map(|x| (x * 2.0).affine(0.5, 0.0)).collect();
    let y = f(&before);
    let weights = Tensor::from_f64(y.shape(), cotangent, DType::F64);
    let loss = (&y * &weights).sum_all();
    if !loss.requires_grad() {
        return vec![0.0; inputs[i].numel()];
    }
    loss.backward().get(&leaves[i]).map_or_else(|| vec![0.0; inputs[i].numel()], Array::to_f64)
}
// ANCHOR_END: mid_graph

fn unit(n: usize, i: usize) -> Vec<f64> {
    (0..n).map(|j| f64::from(u8::from(i == j))).collect()
}

fn random(seed: u64, index: u64, n: usize) -> Vec<f64> {
    normal(seed, Purpose::Test, 0, index, n)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
