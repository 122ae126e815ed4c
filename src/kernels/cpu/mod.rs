//! The CPU kernels: ndarray for views, matrixmultiply for matrix products, rayon for the cores.

mod adam;
mod clip;
mod conv;
mod copy;
mod gemm;
mod lanes;
mod map;
mod matmul;
mod norm;
mod parallel;
mod product;
mod reduce;
mod resize;
mod rows;
mod scratch;
mod softmax;
mod walk;

use super::{AdamStep, Binary, ConvShape, Kernels, Reduce, Unary};
use crate::array::{Array, DType, Shape};
use std::ops::Range;

/// Compiles an expression for both dtypes and runs the one at hand: `by_dtype!(dtype, T => f::<T>(x))`.
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            crate::array::DType::F32 => {
                type $T = f32;
                $body
            }
            crate::array::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}
use by_dtype;

/// The processor as a device.
pub struct Cpu;

impl Kernels for Cpu {
    fn receive(&self, x: &Array) -> Array {
        x.clone()
    }

    fn fill(&self, shape: &Shape, dtype: DType, value: f64) -> Array {
        map::fill(shape, dtype, value)
    }

    fn unary(&self, op: Unary, x: &Array) -> Array {
        map::unary(op, x)
    }

    fn unary_grad(&self, op: Unary, x: &Array, g: &Array) -> Array {
        map::unary_grad(op, x, g)
    }

    fn affine(&self, x: &Array, scale: f64, shift: f64) -> Array {
        map::affine(x, scale, shift)
    }

    fn binary(&self, op: Binary, a: &Array, b: &Array) -> Array {
        map::binary(op, a, b)
    }

    fn add_assign(&self, acc: &mut Array, x: &Array, scale: f64) {
        map::add_assign(acc, x, scale)
    }

    fn lerp_assign(&self, acc: &mut Array, x: &Array, weight: f64) {
        map::lerp_assign(acc, x, weight)
    }

    fn reduce(&self, op: Reduce, x: &Array, axes: Range<usize>) -> Array {
        reduce::reduce(op, x, axes)
    }

    fn broadcast_to(&self, x: &Array, shape: &Shape) -> Array {
        map::broadcast_to(x, shape)
    }

    fn permute(&self, x: &Array, order: &[usize]) -> Array {
        copy::permute(x, order)
    }

    fn slice(&self, x: &Array, axis: usize, range: Range<usize>) -> Array {
        copy::slice(x, axis, range)
    }

    fn unslice(&self, x: &Array, axis: usize, start: usize, size: usize) -> Array {
        copy::unslice(x, axis, start, size)
    }

    fn concat(&self, parts: &[&Array], axis: usize) -> Array {
        copy::concat(parts, axis)
    }

    fn matmul(&self, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
        matmul::matmul(a, b, transpose_a, transpose_b)
    }

    fn conv2d(&self, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
        conv::conv2d(x, weight, bias, conv)
    }

    fn conv2d_grad_input(&self, g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
        conv::conv2d_grad_input(g, weight, x_shape, conv)
    }

    fn conv2d_grad_weight(&self, g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
        conv::conv2d_grad_weight(g, x, weight_shape, conv)
    }

    fn group_norm(&self, x: &Array, weight: &Array, bias: &Array, groups: usize, eps: f64) -> (Array, Array, Array) {
        norm::group_norm(x, weight, bias, groups, eps, false)
    }

    fn group_norm_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array) {
        norm::group_norm_grad(g, x, weight, None, mean, inv_std)
    }

    fn group_norm_silu(
        &self,
        x: &Array,
        weight: &Array,
        bias: &Array,
        groups: usize,
        eps: f64,
    ) -> (Array, Array, Array) {
        norm::group_norm(x, weight, bias, groups, eps, true)
    }

    fn group_norm_silu_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        bias: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array) {
        norm::group_norm_grad(g, x, weight, Some(bias), mean, inv_std)
    }

    fn softmax(&self, x: &Array) -> Array {
        softmax::softmax(x)
    }

    fn softmax_grad(&self, y: &Array, g: &Array) -> Array {
        softmax::softmax_grad(y, g)
    }

    fn log_softmax(&self, x: &Array) -> Array {
        softmax::log_softmax(x)
    }

    fn log_softmax_grad(&self, y: &Array, g: &Array) -> Array {
        softmax::log_softmax_grad(y, g)
    }

    fn gather_rows(&self, table: &Array, rows: &[u32]) -> Array {
        rows::gather_rows(table, rows)
    }

    fn scatter_add_rows(&self, g: &Array, rows: &[u32], n: usize) -> Array {
        rows::scatter_add_rows(g, rows, n)
    }

    fn upsample_nearest(&self, x: &Array, factor: usize) -> Array {
        resize::upsample_nearest(x, factor)
    }

    fn sum_pool(&self, x: &Array, factor: usize) -> Array {
        resize::sum_pool(x, factor)
    }

    fn norm(&self, arrays: &[&Array]) -> Array {
        clip::norm(arrays)
    }

    fn shorten(&self, x: &mut Array, norm: &Array, max_norm: f64, eps: f64) {
        clip::shorten(x, norm, max_norm, eps)
    }

    fn adam(
        &self,
        parameter: &mut Array,
        grad: &Array,
        [first, second]: [&mut Array; 2],
        average: Option<(&mut Array, f64)>,
        step: AdamStep,
    ) {
        adam::adam(parameter, grad, first, second, step);
        if let Some((average, weight)) = average {
            map::lerp_assign(average, parameter, weight);
        }
    }
}

#[cfg(test)]
mod testing;
