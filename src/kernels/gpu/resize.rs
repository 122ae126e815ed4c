//! Pixels repeated in blocks, and sums over blocks.

use super::context::Context;
use super::groups;
use super::numbers::words;
use super::shader::Shader;
use crate::array::Array;
use std::sync::Arc;

pub(super) fn upsample_nearest(gpu: &Arc<Context>, x: &Array, factor: usize) -> Array {
    let [b, c, h, w] = x.shape().dims("upsample_nearest");
    run(gpu, "upsample_nearest", x, [b, c, h * factor, w * factor], factor)
}

#[track_caller]
pub(super) fn sum_pool(gpu: &Arc<Context>, x: &Array, factor: usize) -> Array {
    let [b, c, h, w] = x.shape().dims("sum_pool");
    assert!(h % factor == 0 && w % factor == 0, "sum_pool: blocks of {factor} do not tile {}", x.shape());
    run(gpu, "sum_pool", x, [b, c, h / factor, w / factor], factor)
}

fn run(gpu: &Arc<Context>, entry: &'static str, x: &Array, shape: [usize; 4], factor: usize) -> Array {
    let y = gpu.array(shape, entry);
    let parameters = words![y.numel(), factor, shape[2], shape[3]];
    gpu.run(Shader::new("resize", entry), parameters, &[x, &y], groups(y.numel()));
    y
}
