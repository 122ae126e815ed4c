//! Group normalisation and its gradients, with or without SiLU behind it.

use super::context::Context;
use super::map::fill;
use super::numbers::words;
use super::reduce::reduce;
use super::shader::Shader;
use super::{lane_groups, lanes};
use crate::array::Array;
use crate::kernels::Reduce;
use std::sync::Arc;

/// (B, C, numbers a channel) of [B, C, ..].
fn sizes(x: &Array) -> [usize; 3] {
    let (b, c, pixels) = x.shape().around(1);
    [b, c, pixels]
}

/// y, mean [B, groups], inverse deviation [B, groups].
pub(super) fn group_norm(
    gpu: &Arc<Context>,
    x: &Array,
    weight: &Array,
    bias: &Array,
    groups: usize,
    eps: f64,
    silu: bool,
) -> (Array, Array, Array) {
    let [b, c, pixels] = sizes(x);
    let (rows, channels) = (b * groups, c / groups);
    let y = gpu.array(x.shape(), "group_norm");
    let [mean, inv_std] = [(); 2].map(|()| gpu.array([b, groups], "group_norm"));
    if x.numel() == 0 {
        return (y, fill(gpu, mean.shape(), 0.0), fill(gpu, inv_std.shape(), 1.0 / eps.sqrt()));
    }
    let n = channels * pixels;
    let lanes = lanes(n);
    let shader = Shader::new("group_norm", "group_norm").with("LANES", lanes).with("SILU", silu);
    let parameters = words![rows, n, groups, channels, pixels, eps];
    gpu.run(shader, parameters, &[x, weight, bias, &y, &mean, &inv_std], lane_groups(rows, lanes));
    (y, mean, inv_std)
}

/// Gradients with respect to x, weight and bias. With `bias`, of the norm with SiLU behind it.
pub(super) fn group_norm_grad(
    gpu: &Arc<Context>,
    g: &Array,
    x: &Array,
    weight: &Array,
    bias: Option<&Array>,
    mean: &Array,
    inv_std: &Array,
) -> (Array, Array, Array) {
    let [b, c, pixels] = sizes(x);
    if x.numel() == 0 {
        return (
            gpu.array(x.shape(), "group_norm_grad"),
            fill(gpu, weight.shape(), 0.0),
            fill(gpu, weight.shape(), 0.0),
        );
    }
    let groups = mean.shape()[1];
    let channels = c / groups;
    let shader =
        |entry, lanes: usize| Shader::new("group_norm_grad", entry).with("LANES", lanes).with("SILU", bias.is_some());
    let [sums, sums_xhat] = [(); 2].map(|()| gpu.array([b, c], "group_norm_grad"));
    // Without SiLU nobody looks at it, but what a shader names must be there.
    let bias = bias.unwrap_or(weight);

    let per_channel = lanes(pixels);
    let parameters = words![b * c, pixels, c, groups, channels, pixels];
    let arrays = [g, x, weight, bias, mean, inv_std, &sums, &sums_xhat];
    gpu.run(shader("channel_sums", per_channel), parameters, &arrays, lane_groups(b * c, per_channel));

    let dx = gpu.array(x.shape(), "group_norm_grad");
    let (rows, n) = (b * groups, channels * pixels);
    let per_group = lanes(n);
    let parameters = words![rows, n, c, groups, channels, pixels];
    let arrays = [g, x, weight, bias, mean, inv_std, &sums, &sums_xhat, &dx];
    gpu.run(shader("grad_input", per_group), parameters, &arrays, lane_groups(rows, per_group));
    let over_images = |sums: &Array| reduce(gpu, Reduce::Sum, sums, 0..1).reshape([c]);
    (dx, over_images(&sums_xhat), over_images(&sums))
}
