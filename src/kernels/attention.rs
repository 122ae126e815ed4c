//! Attention and its gradients out of other primitives: what a device without kernels of its own for it does.

use super::{Binary, Kernels};
use crate::array::Array;

/// y, and the weights [.., n, m]; see [`Kernels::attention`].
pub(super) fn attention<K: Kernels + ?Sized>(
    kernels: &K,
    q: &Array,
    k: &Array,
    v: &Array,
    bias: Option<&Array>,
    scale: f64,
) -> (Array, Vec<Array>) {
    let scores = kernels.matmul(&kernels.affine(q, scale, 0.0), k, false, true);
    let scores = if let Some(bias) = bias { kernels.binary(Binary::Add, &scores, bias) } else { scores };
    let weights = kernels.softmax(&scores);
    (kernels.matmul(&weights, v, false, false), vec![weights])
}

/// Gradients of q, k and v; see [`Kernels::attention_grad`].
///
/// With P the weights: dv = P' g, dS = softmax_grad(P, g v'), dq = scale dS k, dk = dS' (scale q).
pub(super) fn attention_grad<K: Kernels + ?Sized>(
    kernels: &K,
    g: &Array,
    [q, k, v]: [&Array; 3],
    saved: &[Array],
    scale: f64,
) -> [Array; 3] {
    let [weights] = saved else { panic!("attention_grad: needs the weights, found {} arrays", saved.len()) };
    let scores_grad = kernels.softmax_grad(weights, &kernels.matmul(g, v, false, true));
    let dq = kernels.affine(&kernels.matmul(&scores_grad, k, false, false), scale, 0.0);
    let dk = kernels.matmul(&scores_grad, &kernels.affine(q, scale, 0.0), true, false);
    let dv = kernels.matmul(weights, g, true, false);
    [dq, dk, dv]
}
