//! The norm of many arrays, and their shortening by it.

use crate::array::{Array, DType, Element};

/// f64, whatever the dtype of the arrays is: added up in f64, in the order of the arrays.
pub(super) fn norm(arrays: &[&Array]) -> Array {
    let squares = |x: &&Array| match x.dtype() {
        DType::F32 => sum_of_squares(x.slice::<f32>()),
        DType::F64 => sum_of_squares(x.slice::<f64>()),
    };
    Array::from_vec([], vec![arrays.iter().map(squares).sum::<f64>().sqrt()])
}

pub(super) fn shorten(x: &mut Array, norm: &Array, max_norm: f64, eps: f64) {
    let norm = norm.item();
    let scale = max_norm / (norm + eps);
    if norm.is_finite() && scale < 1.0 {
        *x = x.affine(scale, 0.0);
    }
}

/// Eight sums side by side: one alone would wait for every addition before the next.
fn sum_of_squares<T: Element>(values: &[T]) -> f64 {
    let (blocks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value.f64() * value.f64();
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|v| v.f64() * v.f64()).sum::<f64>()
}
