//! The primitives a device must provide: one trait, with every primitive's contract.
//!
//! Everything above this (autograd, layers, samplers) reaches a device only through [`Kernels`]. There are two, [`cpu`] and
//! [`mod@gpu`]; another implements the trait and is then covered by the same tests. Gradients are not here: they are written once, in
//! `autograd`, out of these primitives. The exceptions are pairs (`softmax` and `softmax_grad`, …) where the gradient
//! needs a pass of its own to be fast.
//!
//! All operands of one call have the same dtype and device; shapes have been checked by the caller.

mod arithmetic;
mod attention;
mod axes;
pub mod cpu;
mod device_error;
mod elementwise;
mod exp;
pub mod gpu;
mod plan;
pub mod profile;

pub(crate) use arithmetic::runs;
pub use device_error::DeviceError;
pub use elementwise::{Binary, Unary};

use crate::array::{Array, DType, Device, Shape, is_planning};
use std::ops::Range;

/// How [`Kernels::reduce`] combines numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum; 0 for no numbers.
    Sum,
    /// The largest; negative infinity for no numbers. NaN if any is NaN.
    Max,
}

/// Stride and zero padding of a 2-D convolution, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Step between two outputs, in input pixels; at least 1.
    pub stride: usize,
    /// Rows and columns of zeros around the input.
    pub padding: usize,
}

impl ConvShape {
    // ANCHOR: conv_output
    /// Output size along one direction: floor((size + 2 padding - kernel) / stride) + 1; `None` if
    /// the kernel does not fit.
    pub fn output(&self, size: usize, kernel: usize) -> Option<usize> {
        Some((size + 2 * self.padding).checked_sub(kernel)? / self.stride + 1)
    }
    // ANCHOR_END: conv_output
}

/// One step of Adam or AdamW (equations in `optim`).
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay (AdamW); 0 for Adam.
    pub weight_decay: f64,
    /// Number of this step, from 1: corrects the bias of the moments.
    pub step: u64,
}

// ANCHOR: some_primitives
/// What a device must be able to compute. Shapes are written [outer, .., inner].
pub trait Kernels: Send + Sync {
    /// Whether all that was asked for could be computed. A device that has failed computes nothing more, and its arrays read as
    /// NaN: ask before numbers that were read are handed on.
    fn check(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// A copy of an array of the CPU on this device. Panics if the device does not compute in its dtype.
    fn receive(&self, x: &Array) -> Array;

    /// x, rounded to f16 and kept so, where the device can and no number would become infinite; x as it is otherwise. Products
    /// and convolutions read such an array as their second operand in half the time from memory; it remains an f32 array to
    /// all that look at it, and everything else works on it as well.
    fn halve(&self, x: &Array) -> Array {
        x.clone()
    }

    /// `shape` filled with `value`.
    fn fill(&self, shape: &Shape, dtype: DType, value: f64) -> Array;

    /// y = f(x), element by element.
    fn unary(&self, op: Unary, x: &Array) -> Array;

    /// g f'(x), element by element: the gradient of [`Kernels::unary`]. x and g have the same shape.
    fn unary_grad(&self, op: Unary, x: &Array, g: &Array) -> Array;

    /// y = scale x + shift, element by element.
    fn affine(&self, x: &Array, scale: f64, shift: f64) -> Array;

    /// y = f(a, b), element by element; shapes broadcast as [`Shape::broadcast`] says.
    fn binary(&self, op: Binary, a: &Array, b: &Array) -> Array;
    // ANCHOR_END: some_primitives

    /// acc += scale x, in place; equal shapes.
    fn add_assign(&self, acc: &mut Array, x: &Array, scale: f64);

    /// acc += weight (x - acc), in place; equal shapes. The step of an exponential moving average.
    fn lerp_assign(&self, acc: &mut Array, x: &Array, weight: f64);

    /// Combines the numbers along a run of neighbouring axes, which keep size 1 in the result.
    fn reduce(&self, op: Reduce, x: &Array, axes: Range<usize>) -> Array;

    /// x repeated along its axes of size 1 (or missing in front) until it has shape `shape`.
    fn broadcast_to(&self, x: &Array, shape: &Shape) -> Array;

    /// Axes in another order: axis i of the result is axis `order[i]` of x. A GPU panics if, after axes that stay together are
    /// joined, more than 8 are left; so it does in `binary`, `broadcast_to` and `slice`.
    fn permute(&self, x: &Array, order: &[usize]) -> Array;

    /// The part of x with `range` along `axis`.
    fn slice(&self, x: &Array, axis: usize, range: Range<usize>) -> Array;

    /// Zeros of size `size` along `axis` with x placed from `start` on: the adjoint of [`Kernels::slice`].
    fn unslice(&self, x: &Array, axis: usize, start: usize, size: usize) -> Array;

    /// Arrays joined along `axis`; at least one, other axes equal.
    fn concat(&self, parts: &[&Array], axis: usize) -> Array;

    /// Batched matrix product: a is [.., n, k] ([.., k, n] if `transpose_a`), b is [.., k, m] ([.., m, k] if
    /// `transpose_b`), the result [.., n, m]. The leading axes broadcast; a GPU panics if more than 4 are left when those that
    /// broadcast alike are joined.
    fn matmul(&self, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array;

    /// Cross-correlation, as every deep-learning library means by convolution: x [B, C, H, W], weight [O, C, kh, kw],
    /// result [B, O, H', W'] with sizes by [`ConvShape::output`], plus bias `[O]` if there is one.
    fn conv2d(&self, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array;

    /// Gradient of [`Kernels::conv2d`] with respect to its input, of shape `x_shape`. g [B, O, H', W'].
    fn conv2d_grad_input(&self, g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array;

    /// Gradient of [`Kernels::conv2d`] with respect to its weight, of shape `weight_shape`. g [B, O, H', W'].
    fn conv2d_grad_weight(&self, g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array;

    /// Normalises over groups of channels: x [B, C, ..], weight and bias `[C]`, `groups` divides C. With mean m and
    /// variance v (divided by the count) over each of the B groups-of-channels blocks,
    /// y = (x - m) / sqrt(v + eps) weight + bias. Returns y, m [B, groups] and 1 / sqrt(v + eps) [B, groups].
    fn group_norm(&self, x: &Array, weight: &Array, bias: &Array, groups: usize, eps: f64) -> (Array, Array, Array);

    /// Gradients of [`Kernels::group_norm`] with respect to x, weight and bias, from the mean and inverse deviation it returned.
    fn group_norm_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array);

    /// silu(y) for the y of [`Kernels::group_norm`], and its mean and inverse deviation: one pass over memory for both.
    fn group_norm_silu(
        &self,
        x: &Array,
        weight: &Array,
        bias: &Array,
        groups: usize,
        eps: f64,
    ) -> (Array, Array, Array);

    /// Gradients of [`Kernels::group_norm_silu`] with respect to x, weight and bias. y is not kept but computed again.
    fn group_norm_silu_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        bias: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array);

    /// Softmax over the last axis. A row of nothing but negative infinity gives zeros: nothing to choose from.
    fn softmax(&self, x: &Array) -> Array;

    /// Gradient of [`Kernels::softmax`] from its result y: y (g - sum(g y)) over the last axis.
    fn softmax_grad(&self, y: &Array, g: &Array) -> Array;

    /// log(softmax(x)) over the last axis.
    fn log_softmax(&self, x: &Array) -> Array;

    /// Gradient of [`Kernels::log_softmax`] from its result y: g - exp(y) sum(g) over the last axis.
    fn log_softmax_grad(&self, y: &Array, g: &Array) -> Array;

    /// softmax(scale q k' + bias) v for q [.., n, d], k [.., m, d], v [.., m, e], bias broadcasting to [.., n, m]: y [.., n, e],
    /// and what [`Kernels::attention_grad`] needs besides the operands: here the weights [.., n, m].
    fn attention(&self, q: &Array, k: &Array, v: &Array, bias: Option<&Array>, scale: f64) -> (Array, Vec<Array>) {
        attention::attention(self, q, k, v, bias, scale)
    }

    /// Gradients of [`Kernels::attention`] with respect to q, k and v, not summed over what was broadcast, from what it said
    /// is needed.
    fn attention_grad(
        &self,
        g: &Array,
        qkv: [&Array; 3],
        _bias: Option<&Array>,
        saved: &[Array],
        scale: f64,
    ) -> [Array; 3] {
        attention::attention_grad(self, g, qkv, saved, scale)
    }

    /// Rows of a table: table [n, d], result [rows.len(), d]. Panics if a row does not exist.
    fn gather_rows(&self, table: &Array, rows: &[u32]) -> Array;

    /// Zeros [n, d] with row i of g [rows.len(), d] added to row `rows[i]`: the adjoint of [`Kernels::gather_rows`].
    fn scatter_add_rows(&self, g: &Array, rows: &[u32], n: usize) -> Array;

    /// Every pixel repeated in blocks of `factor` x `factor`: [B, C, H, W] to [B, C, factor H, factor W].
    fn upsample_nearest(&self, x: &Array, factor: usize) -> Array;

    /// Sums over blocks of `factor` x `factor`, which divides H and W: the adjoint of [`Kernels::upsample_nearest`].
    fn sum_pool(&self, x: &Array, factor: usize) -> Array;

    /// The Euclidean norm of all arrays as one vector, a scalar.
    fn norm(&self, arrays: &[&Array]) -> Array;

    /// x times max_norm / (norm + eps), if that is below 1 and the scalar `norm` is finite; x as it is otherwise, to the bit.
    fn shorten(&self, x: &mut Array, norm: &Array, max_norm: f64, eps: f64);

    /// One step of Adam, in place on the parameter and its two moments; then, if there is one, a step of the parameter's
    /// moving average with the weight beside it, as [`Kernels::lerp_assign`].
    fn adam(
        &self,
        parameter: &mut Array,
        grad: &Array,
        moments: [&mut Array; 2],
        average: Option<(&mut Array, f64)>,
        step: AdamStep,
    );
}

/// The kernels of a device; within [`Ledger::plan`](crate::array::Ledger::plan), those that compute nothing.
///
/// Panics if the device is a GPU that was not opened.
#[track_caller]
pub fn of(device: Device) -> &'static dyn Kernels {
    match device {
        _ if is_planning() => &plan::Plan,
        Device::Cpu if profile::is_on() => profile::timed(device),
        Device::Cpu => &cpu::Cpu,
        Device::Gpu(_) if profile::is_on() => profile::timed(device),
        Device::Gpu(_) => gpu::gpu(device),
    }
}
