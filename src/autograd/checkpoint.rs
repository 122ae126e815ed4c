//! Recomputation: memory for time.

use super::Tensor;
use super::graph::{Pending, next_id, no_grad, op, recording};

/// Runs `block` on `inputs` without saving anything inside it; backward runs it a second time to get what it needs.
///
/// The result and every gradient are the same, bit for bit, as without it, also for parameters that `block` uses
/// (`block` must compute the same thing both times). Activations inside the block live only while it runs, at the
/// price of one more forward pass. (Chen et al. 2016)
#[track_caller]
pub fn checkpoint(inputs: &[&Tensor], block: impl Fn(&[Tensor]) -> Tensor + Send + 'static) -> Tensor {
    let inputs: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    let value = no_grad(|| block(&inputs)).into_array();
    op("checkpoint", value)
        .edge(move |g, pending| {
            let first = next_id();
            // Copies of the inputs are new leaves, so that the walk stops there; gradients of everything older
            // (parameters, tensors that the block captured) are handed on to the graph outside.
            let copies: Vec<Tensor> = inputs
                .iter()
                .map(|t| if t.requires_grad() { Tensor::leaf(t.array().clone()) } else { t.clone() })
                .collect();
            let result = recording(true, || block(&copies));
            let Some(node) = &result.node else { return };
            let mut inner = Pending::new();
            inner.add(node, g.clone());
            inner.walk(first, |node, grad| {
                let copied = copies.iter().position(|c| c.node.as_ref().is_some_and(|n| n.id == node.id));
                match copied.map(|i| &inputs[i].node) {
                    Some(Some(original)) => pending.add(original, grad),
                    _ => pending.add(&node, grad),
                }
            });
        })
        .done()
}
