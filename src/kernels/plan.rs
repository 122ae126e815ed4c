//! A device that computes nothing: every primitive gives an array of the right shape without numbers, whose memory a
//! [`Ledger`](crate::array::Ledger) counts. Arrays are changed in place where the CPU would, and copied where it would.
//!
//! What a CPU kernel needs only while it runs is not counted.

use super::{AdamStep, Binary, ConvShape, Kernels, Reduce, Unary};
use crate::array::{Array, DType, Shape};
use std::ops::Range;

/// The device.
pub(super) struct Plan;

fn like(x: &Array) -> Array {
    Array::planned(x.shape(), x.dtype())
}

/// y of the shape of x, mean and inverse deviation [B, groups].
fn normalised(x: &Array, groups: usize) -> (Array, Array, Array) {
    let small = || Array::planned([x.shape()[0], groups], x.dtype());
    (like(x), small(), small())
}

/// (leading axes, rows, columns) of an operand of a product.
#[track_caller]
fn matrix(x: &Shape, transposed: bool) -> (Shape, usize, usize) {
    let Some((lead, &[rows, columns])) = x.split_last_chunk() else { panic!("matmul: {x} is no matrix") };
    if transposed { (lead.into(), columns, rows) } else { (lead.into(), rows, columns) }
}

impl Kernels for Plan {
    fn receive(&self, x: &Array) -> Array {
        x.clone()
    }

    fn fill(&self, shape: &Shape, dtype: DType, _: f64) -> Array {
        Array::planned(shape, dtype)
    }

    fn unary(&self, _: Unary, x: &Array) -> Array {
        like(x)
    }

    fn unary_grad(&self, _: Unary, x: &Array, _: &Array) -> Array {
        like(x)
    }

    fn affine(&self, x: &Array, _: f64, _: f64) -> Array {
        like(x)
    }

    fn binary(&self, op: Binary, a: &Array, b: &Array) -> Array {
        let Some(shape) = a.shape().broadcast(b.shape()) else {
            panic!("{}: shapes {} and {} do not broadcast", op.name(), a.shape(), b.shape())
        };
        Array::planned(shape, a.dtype())
    }

    fn add_assign(&self, acc: &mut Array, _: &Array, _: f64) {
        acc.plan_mut();
    }

    fn lerp_assign(&self, acc: &mut Array, _: &Array, _: f64) {
        acc.plan_mut();
    }

    fn reduce(&self, _: Reduce, x: &Array, axes: Range<usize>) -> Array {
        let kept = x.shape().iter().enumerate().map(|(i, &size)| if axes.contains(&i) { 1 } else { size });
        Array::planned(kept.collect::<Vec<_>>(), x.dtype())
    }

    fn broadcast_to(&self, x: &Array, shape: &Shape) -> Array {
        Array::planned(shape, x.dtype())
    }

    fn permute(&self, x: &Array, order: &[usize]) -> Array {
        Array::planned(order.iter().map(|&axis| x.shape()[axis]).collect::<Vec<_>>(), x.dtype())
    }

    fn slice(&self, x: &Array, axis: usize, range: Range<usize>) -> Array {
        Array::planned(x.shape().with(axis, range.len()), x.dtype())
    }

    fn unslice(&self, x: &Array, axis: usize, _: usize, size: usize) -> Array {
        Array::planned(x.shape().with(axis, size), x.dtype())
    }

    fn concat(&self, parts: &[&Array], axis: usize) -> Array {
        let size = parts.iter().map(|part| part.shape()[axis]).sum();
        Array::planned(parts[0].shape().with(axis, size), parts[0].dtype())
    }

    fn matmul(&self, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
        let ((a_lead, n, k), (b_lead, other_k, m)) = (matrix(a.shape(), transpose_a), matrix(b.shape(), transpose_b));
        let lead = a_lead.broadcast(&b_lead).filter(|_| k == other_k);
        let Some(lead) = lead else { panic!("matmul: {} and {} do not fit", a.shape(), b.shape()) };
        Array::planned([&lead[..], &[n, m]].concat(), a.dtype())
    }

    fn conv2d(&self, x: &Array, weight: &Array, _: Option<&Array>, conv: ConvShape) -> Array {
        let [batch, _, h, w] = x.shape().dims("conv2d input");
        let [channels, _, kh, kw] = weight.shape().dims("conv2d weight");
        let (Some(height), Some(width)) = (conv.output(h, kh), conv.output(w, kw)) else {
            panic!("conv2d: input {} and weight {} do not fit with {conv:?}", x.shape(), weight.shape())
        };
        Array::planned([batch, channels, height, width], x.dtype())
    }

    fn conv2d_grad_input(&self, g: &Array, _: &Array, x_shape: &Shape, _: ConvShape) -> Array {
        Array::planned(x_shape, g.dtype())
    }

    fn conv2d_grad_weight(&self, g: &Array, _: &Array, weight_shape: &Shape, _: ConvShape) -> Array {
        Array::planned(weight_shape, g.dtype())
    }

    fn group_norm(&self, x: &Array, _: &Array, _: &Array, groups: usize, _: f64) -> (Array, Array, Array) {
        normalised(x, groups)
    }

    fn group_norm_grad(&self, _: &Array, x: &Array, weight: &Array, _: &Array, _: &Array) -> (Array, Array, Array) {
        (like(x), like(weight), like(weight))
    }

    fn group_norm_silu(&self, x: &Array, _: &Array, _: &Array, groups: usize, _: f64) -> (Array, Array, Array) {
        normalised(x, groups)
    }

    fn group_norm_silu_grad(
        &self,
        _: &Array,
        x: &Array,
        weight: &Array,
        bias: &Array,
        _: &Array,
        _: &Array,
    ) -> (Array, Array, Array) {
        (like(x), like(weight), like(bias))
    }

    fn softmax(&self, x: &Array) -> Array {
        like(x)
    }

    fn softmax_grad(&self, y: &Array, _: &Array) -> Array {
        like(y)
    }

    fn log_softmax(&self, x: &Array) -> Array {
        like(x)
    }

    fn log_softmax_grad(&self, y: &Array, _: &Array) -> Array {
        like(y)
    }

    fn gather_rows(&self, table: &Array, rows: &[u32]) -> Array {
        Array::planned(table.shape().with(0, rows.len()), table.dtype())
    }

    fn scatter_add_rows(&self, g: &Array, _: &[u32], n: usize) -> Array {
        Array::planned(g.shape().with(0, n), g.dtype())
    }

    fn upsample_nearest(&self, x: &Array, factor: usize) -> Array {
        let [b, c, h, w] = x.shape().dims("upsample_nearest");
        Array::planned([b, c, h * factor, w * factor], x.dtype())
    }

    fn sum_pool(&self, x: &Array, factor: usize) -> Array {
        let [b, c, h, w] = x.shape().dims("sum_pool");
        Array::planned([b, c, h / factor, w / factor], x.dtype())
    }

    fn norm(&self, _: &[&Array]) -> Array {
        Array::planned([], DType::F64)
    }

    fn shorten(&self, x: &mut Array, _: &Array, _: f64, _: f64) {
        // as if they were too long: that takes memory, and may happen at any step
        *x = like(x);
    }

    fn adam(
        &self,
        parameter: &mut Array,
        _: &Array,
        [first, second]: [&mut Array; 2],
        average: Option<(&mut Array, f64)>,
        _: AdamStep,
    ) {
        for array in [parameter, first, second].into_iter().chain(average.map(|average| average.0)) {
            array.plan_mut();
        }
    }
}
