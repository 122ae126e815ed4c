//! Sums and maxima along axes, and the norm of many arrays.

use super::context::Context;
use super::map::fill;
use super::numbers::words;
use super::shader::Shader;
use super::{groups, lane_groups, lanes, quads};
use crate::array::{Array, Shape};
use crate::kernels::Reduce;
use std::ops::Range;
use std::sync::Arc;

/// What is combined, numbered as in reduce.wgsl.
#[derive(Clone, Copy)]
enum Op {
    Sum = 0,
    Max = 1,
    SumOfSquares = 2,
}

/// Numbers that a workgroup combines along a row, before rows are cut.
const ROW_LENGTH: usize = 8192;

/// Numbers that a thread combines along a column, at least, before columns are cut.
const COLUMN_LENGTH: usize = 32;

/// As many threads keep any GPU busy.
const ENOUGH_THREADS: usize = 65_536;

pub(super) fn reduce(gpu: &Arc<Context>, op: Reduce, x: &Array, axes: Range<usize>) -> Array {
    let sizes = x.shape();
    let n: usize = sizes[axes.clone()].iter().product();
    let inner: usize = sizes[axes.end..].iter().product();
    let shape: Vec<usize> = sizes.iter().enumerate().map(|(i, &n)| if axes.contains(&i) { 1 } else { n }).collect();
    let op = match op {
        Reduce::Sum => Op::Sum,
        Reduce::Max => Op::Max,
    };
    along(gpu, op, x, [n, inner], shape.into())
}

/// Combines x [outer, n, inner] along n; the result has shape `shape`.
fn along(gpu: &Arc<Context>, op: Op, x: &Array, [n, inner]: [usize; 2], shape: Shape) -> Array {
    if n == 0 {
        let empty = if matches!(op, Op::Max) { f64::NEG_INFINITY } else { 0.0 };
        return fill(gpu, &shape, empty);
    }
    let results = shape.numel();
    let segments = segments(n, inner, results);
    if segments == 1 {
        let y = gpu.array(shape, "a reduction");
        pass(gpu, op, x, &y, [n, inner, 1, 0]);
        return y;
    }
    // [outer, segments, inner]
    let parts = gpu.array([results * segments], "a reduction in parts");
    pass(gpu, op, x, &parts, [n, inner, segments, 0]);
    let then = if matches!(op, Op::Max) { Op::Max } else { Op::Sum };
    along(gpu, then, &parts, [segments, inner], shape)
}

/// Into how many parts n is cut.
fn segments(n: usize, inner: usize, results: usize) -> usize {
    if inner == 1 {
        return n.div_ceil(ROW_LENGTH);
    }
    ENOUGH_THREADS.div_ceil(results.max(1)).clamp(1, n.div_ceil(COLUMN_LENGTH))
}

/// One pass: y [outer, segments, inner], from its number `start` on.
fn pass(gpu: &Arc<Context>, op: Op, x: &Array, y: &Array, [n, inner, segments, start]: [usize; 4]) {
    let count = x.numel().checked_div(n).unwrap_or(0) * segments;
    let parameters = words![count, n, inner, segments, n.div_ceil(segments), start];
    let shader = |entry, lanes: usize| Shader::new("reduce", entry).with("OP", op as u32).with("LANES", lanes);
    if inner == 1 {
        let lanes = lanes(n.div_ceil(segments));
        gpu.run(shader("along_rows", lanes), parameters, &[x, y], lane_groups(count, lanes));
    } else {
        gpu.run(shader("along_columns", 1), parameters, &[x, y], groups(count));
    }
}

/// The length of all arrays as one vector.
pub(super) fn norm(gpu: &Arc<Context>, arrays: &[&Array]) -> Array {
    let parts = |x: &Array| if x.numel() == 0 { 0 } else { segments(x.numel(), 1, 1) };
    let squares = gpu.array([arrays.iter().map(|x| parts(x)).sum::<usize>()], "the norm");
    let mut start = 0;
    for x in arrays.iter().filter(|x| x.numel() > 0) {
        pass(gpu, Op::SumOfSquares, x, &squares, [x.numel(), 1, parts(x), start]);
        start += parts(x);
    }
    if start == 0 {
        return fill(gpu, &[].into(), 0.0);
    }
    let y = gpu.array([], "the norm");
    gpu.run(Shader::new("clip", "norm").with("LANES", 256_u32), words![start, 0.0, 0.0], &[&squares, &y], 1);
    y
}

/// x, shortened as `norm` says if that is above `max_norm`.
pub(super) fn shorten(gpu: &Arc<Context>, x: &mut Array, norm: &Array, max_norm: f64, eps: f64) {
    let y = gpu.array(x.shape(), "a clipped gradient");
    let shader = Shader::new("clip", "shorten").with("LANES", 256_u32);
    gpu.run(shader, words![quads(x), max_norm, eps], &[norm, x, &y], groups(quads(x)));
    *x = y;
}
