//! Softmax and its logarithm along the last axis, and their gradients.

use super::context::Context;
use super::numbers::words;
use super::shader::Shader;
use super::{lane_groups, lanes};
use crate::array::Array;
use std::sync::Arc;

/// `entry` of softmax.wgsl along the rows of the arrays.
pub(super) fn along_rows(gpu: &Arc<Context>, entry: &'static str, arrays: &[&Array]) -> Array {
    let x = arrays[0];
    let n = x.shape().last().copied().unwrap_or(1);
    let y = gpu.array(x.shape(), entry);
    let (rows, lanes) = (x.numel().checked_div(n).unwrap_or(0), lanes(n));
    let shader = Shader::new("softmax", entry).with("LANES", lanes);
    gpu.run(shader, words![rows, n], &[arrays, &[&y]].concat(), lane_groups(rows, lanes));
    y
}
