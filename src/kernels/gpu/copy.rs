//! Kernels that move numbers without changing them.

use super::axes::{Axes, eight};
use super::context::Context;
use super::groups;
use super::map::fill;
use super::numbers::{Word, words};
use super::shader::Shader;
use crate::array::{Array, Shape};
use crate::kernels::axes::repeated;
use std::ops::Range;
use std::sync::Arc;

/// A tile of the transposing kernel.
const TILE: usize = 32;

pub(super) fn permute(gpu: &Arc<Context>, x: &Array, order: &[usize]) -> Array {
    let strides = x.shape().strides();
    let shape = Shape::from(order.iter().map(|&axis| x.shape()[axis]).collect::<Vec<_>>());
    let axes = Axes::new(&shape, [order.iter().map(|&axis| strides[axis]).collect()]);
    match (axes.sizes[..].as_ref(), axes.strides[0][..].as_ref()) {
        // Two axes exchanged, one or a whole batch of matrices.
        (&[m, n], &[1, _]) => transpose(gpu, x, shape, [1, n, m]),
        (&[batch, m, n], &[apart, 1, _]) if apart == n * m => transpose(gpu, x, shape, [batch, n, m]),
        _ => gather(gpu, x, shape, 0, &axes, "permute"),
    }
}

/// [batch, n, m] to [batch, m, n], as an array of shape `shape`.
fn transpose(gpu: &Arc<Context>, x: &Array, shape: Shape, [batch, n, m]: [usize; 3]) -> Array {
    let y = gpu.array(shape, "permute");
    let (tiles_n, tiles_m) = (n.div_ceil(TILE), m.div_ceil(TILE));
    let parameters = words![n, m, tiles_n, tiles_m, batch];
    gpu.run(Shader::new("transpose", "transpose_tiles"), parameters, &[x, &y], batch * tiles_n * tiles_m);
    y
}

/// y of shape `shape`, number by number from x, which is walked by strides from `start` on.
fn gather(gpu: &Arc<Context>, x: &Array, shape: Shape, start: usize, axes: &Axes<1>, what: &str) -> Array {
    let y = gpu.array(shape, what);
    let mut parameters = words![y.numel(), start, 0_u32, 0_u32].to_vec();
    parameters.extend(eight(&axes.sizes, 1).map(Word::from));
    parameters.extend(eight(&axes.strides[0], 0).map(Word::from));
    gpu.run(Shader::new("copy", "gather").with("RANK", axes.rank()), &parameters, &[x, &y], groups(y.numel()));
    y
}

/// The same numbers once more.
pub(super) fn duplicate(gpu: &Arc<Context>, x: &Array) -> Array {
    gather(gpu, x, x.shape().clone(), 0, &Axes::new(&[x.numel()], [vec![1]]), "a copy")
}

pub(super) fn broadcast_to(gpu: &Arc<Context>, x: &Array, shape: &Shape) -> Array {
    let axes = Axes::new(shape, [repeated(x.shape(), shape)]);
    gather(gpu, x, shape.clone(), 0, &axes, "broadcast_to")
}

pub(super) fn slice(gpu: &Arc<Context>, x: &Array, axis: usize, range: Range<usize>) -> Array {
    let (_, _, inner) = x.shape().around(axis);
    let shape = x.shape().with(axis, range.len());
    let axes = Axes::new(&shape, [x.shape().strides()]);
    gather(gpu, x, shape, range.start * inner, &axes, "slice")
}

pub(super) fn unslice(gpu: &Arc<Context>, x: &Array, axis: usize, start: usize, size: usize) -> Array {
    let (_, part, inner) = x.shape().around(axis);
    let shape = x.shape().with(axis, size);
    if x.numel() == 0 {
        return fill(gpu, &shape, 0.0);
    }
    let y = gpu.array(shape, "unslice");
    let parameters = words![y.numel(), start * inner, part * inner, size * inner];
    gpu.run(Shader::new("copy", "unslice").with("RANK", 0_u32), parameters, &[x, &y], groups(y.numel()));
    y
}

pub(super) fn concat(gpu: &Arc<Context>, parts: &[&Array], axis: usize) -> Array {
    let shape = parts[0].shape().with(axis, parts.iter().map(|part| part.shape()[axis]).sum());
    let (_, size, inner) = shape.around(axis);
    let y = gpu.array(&shape, "concat");
    let mut start = 0;
    for part in parts {
        let len = part.shape()[axis] * inner;
        let parameters = words![part.numel(), start, len, size * inner];
        gpu.run(Shader::new("copy", "place").with("RANK", 0_u32), parameters, &[part, &y], groups(part.numel()));
        start += len;
    }
    y
}
