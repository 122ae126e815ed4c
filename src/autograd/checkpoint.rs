//! Recomputation: memory for time.

use super::Tensor;
use super::graph::{no_grad, op, recording};

// ANCHOR: checkpoint
/// Runs `block` on `inputs` without saving anything inside it; backward runs it a second time to get what it needs.
///
/// The result and every gradient are the same, bit for bit, as without it, also for parameters that `block` uses
/// (`block` must compute the same thing both times). Activations inside the block live only while backward is in it, at
/// the price of one more forward pass. (Chen et al. 2016)
#[track_caller]
pub fn checkpoint(inputs: &[&Tensor], block: impl Fn(&[Tensor]) -> Tensor + Send + 'static) -> Tensor {
    let inputs: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    let value = no_grad(|| block(&inputs)).into_array();
    let parents = inputs.clone();
    op("checkpoint", value)
        .edge(&parents, move |g, pending| {
            // The nodes of this second run have the largest ids of all, so the walk goes through them next, and meets
            // everything older in the order it would have met it without the checkpoint. Hence the same bits.
            if let Some(node) = recording(true, || block(&inputs)).node {
                pending.add(&node, g.clone());
            }
        })
        .done()
}
// ANCHOR_END: checkpoint
