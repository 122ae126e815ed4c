//! Clipping of gradients by their global norm.

use super::reached;
use crate::array::{Array, DType, Element};
use crate::autograd::Gradients;
use crate::nn::Parameters;

/// Added to the norm before dividing by it, as PyTorch has it: the clipped norm is never above the limit by rounding.
const EPS: f64 = 1e-6;

/// (H1) The Euclidean norm of all gradients of `parameters` as one vector, added up in f64 in the order of the parameters.
pub fn global_norm(parameters: &Parameters, gradients: &Gradients) -> f64 {
    reached(parameters, gradients).map(|(_, grad)| sum_of_squares(grad)).sum::<f64>().sqrt()
}

// ANCHOR: clip
/// (H1) Scales the gradients of `parameters` together so that their [`global_norm`] is at most `max_norm` (Pascanu et al., arXiv
/// 1211.5063, algorithm 1): the direction stays. Returns the norm before. Gradients within the limit stay bit for bit.
///
/// If the norm is NaN or infinite nothing is changed: the caller must look at it before taking a step.
pub fn clip(gradients: &mut Gradients, parameters: &Parameters, max_norm: f64) -> f64 {
    let norm = global_norm(parameters, gradients);
    let scale = max_norm / (norm + EPS);
    if norm.is_finite() && scale < 1.0 {
        for param in parameters.iter() {
            if let Some(grad) = gradients.get_mut(&param.tensor()) {
                *grad = grad.affine(scale, 0.0);
            }
        }
    }
    norm
}
// ANCHOR_END: clip

/// What a planned gradient counts for: so long that it is shortened, which takes memory and may happen at any step.
const PLANNED: f64 = 1e200;

fn sum_of_squares(array: &Array) -> f64 {
    if array.is_planned() {
        return PLANNED;
    }
    match array.dtype() {
        DType::F32 => sum_in_lanes(array.slice::<f32>()),
        DType::F64 => sum_in_lanes(array.slice::<f64>()),
    }
}

/// Eight sums side by side: one alone would wait for every addition before the next.
fn sum_in_lanes<T: Element>(values: &[T]) -> f64 {
    let (blocks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value.f64() * value.f64();
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|v| v.f64() * v.f64()).sum::<f64>()
}
