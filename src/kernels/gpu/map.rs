//! Functions applied element by element.

use super::axes::{Axes, eight};
use super::context::Context;
use super::numbers::{Word, numbers, words};
use super::shader::Shader;
use super::{groups, quads};
use crate::array::{Array, Shape};
use crate::kernels::axes::repeated;
use crate::kernels::{Binary, Unary};
use std::sync::Arc;

pub(super) fn fill(gpu: &Arc<Context>, shape: &Shape, value: f64) -> Array {
    let y = gpu.array(shape, "fill");
    gpu.run(Shader::new("fill", "fill"), words![quads(&y), value], &[&y], groups(quads(&y)));
    y
}

pub(super) fn unary(gpu: &Arc<Context>, op: Unary, x: &Array) -> Array {
    let y = gpu.array(x.shape(), op.name());
    gpu.run(Shader::new("unary", "unary").with("OP", op as u32), words![quads(x)], &[x, &y], groups(quads(x)));
    y
}

pub(super) fn unary_grad(gpu: &Arc<Context>, op: Unary, x: &Array, g: &Array) -> Array {
    let y = gpu.array(x.shape(), op.name());
    gpu.run(Shader::new("unary", "unary_grad").with("OP", op as u32), words![quads(x)], &[x, g, &y], groups(quads(x)));
    y
}

// ANCHOR: affine
pub(super) fn affine(gpu: &Arc<Context>, x: &Array, scale: f64, shift: f64) -> Array {
    let y = gpu.array(x.shape(), "affine");
    gpu.run(Shader::new("affine", "affine"), words![quads(x), scale, shift], &[x, &y], groups(quads(x)));
    y
}
// ANCHOR_END: affine

pub(super) fn binary(gpu: &Arc<Context>, op: Binary, a: &Array, b: &Array) -> Array {
    let shape = a.shape().broadcast(b.shape()).expect("the caller has compared the shapes");
    let y = gpu.array(&shape, op.name());
    let shader = |entry, rank: usize| Shader::new("binary", entry).with("OP", op as u32).with("RANK", rank);
    if a.shape() == b.shape() {
        gpu.run(shader("same", 0), words![quads(&y)], &[a, b, &y], groups(quads(&y)));
        return y;
    }
    let axes = Axes::new(&shape, [repeated(a.shape(), &shape), repeated(b.shape(), &shape)]);
    let mut parameters = words![y.numel(), 0_u32, 0_u32, 0_u32].to_vec();
    for (numbers, fill) in [(&axes.sizes, 1), (&axes.strides[0], 0), (&axes.strides[1], 0)] {
        parameters.extend(eight(numbers, fill).map(Word::from));
    }
    gpu.run(shader("broadcast", axes.rank()), &parameters, &[a, b, &y], groups(y.numel()));
    y
}

/// acc += weight x, or acc += weight (x - acc) if `lerp`: in place, or as a new array where others share acc.
pub(super) fn add_assign(gpu: &Arc<Context>, acc: &mut Array, x: &Array, weight: f64, lerp: bool) {
    let parameters = words![quads(x), weight];
    let shader = |entry| Shader::new("in_place", entry).with("LERP", lerp);
    if owns(acc) {
        gpu.run(shader("in_place"), parameters, &[acc, x], groups(quads(x)));
        return;
    }
    let y = gpu.array(acc.shape(), "a sum");
    gpu.run(shader("into_new"), parameters, &[&y, acc, x], groups(quads(x)));
    *acc = y;
}

/// Whether `array` may be changed in place.
fn owns(array: &mut Array) -> bool {
    array.owns_remote() && !numbers(array).half
}

/// Makes `array` one that may be changed in place.
pub(super) fn own(gpu: &Arc<Context>, array: &mut Array) {
    if !owns(array) {
        *array = super::copy::duplicate(gpu, array);
    }
}
