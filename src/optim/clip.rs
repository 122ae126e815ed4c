//! Clipping of gradients by their global norm.

use super::reached;
use crate::array::{Array, DType};
use crate::autograd::Gradients;
use crate::kernels;
use crate::nn::Parameters;

/// Added to the norm before dividing by it, as PyTorch has it: the clipped norm is never above the limit by rounding.
const EPS: f64 = 1e-6;

/// (H1) The Euclidean norm of all gradients of `parameters` as one vector, a scalar on their device; on the CPU added up in
/// f64, in the order of the parameters.
pub fn global_norm(parameters: &Parameters, gradients: &Gradients) -> Array {
    let all: Vec<&Array> = reached(parameters, gradients).map(|(_, grad)| grad).collect();
    match all.first() {
        Some(first) => first.kernels().norm(&all),
        None => kernels::of(Default::default()).fill(&[].into(), DType::F64, 0.0),
    }
}

// ANCHOR: clip
/// (H1) Scales the gradients of `parameters` together so that their [`global_norm`] is at most `max_norm` (Pascanu et al., arXiv
/// 1211.5063, algorithm 1): the direction stays. Returns the norm before. Gradients within the limit stay bit for bit.
///
/// If the norm is NaN or infinite nothing is changed: the caller must look at it before anything is kept.
pub fn clip(gradients: &mut Gradients, parameters: &Parameters, max_norm: f64) -> Array {
    let norm = global_norm(parameters, gradients);
    for param in parameters.iter() {
        if let Some(grad) = gradients.get_mut(&param.tensor()) {
            grad.kernels().shorten(grad, &norm, max_norm, EPS);
        }
    }
    norm
}
// ANCHOR_END: clip
