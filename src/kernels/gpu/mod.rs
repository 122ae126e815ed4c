//! The GPU kernels: WGSL compute shaders through wgpu, on Vulkan, Metal and DirectX 12.
//!
//! ```no_run
//! use imagen::array::Array;
//! use imagen::kernels::gpu;
//!
//! for adapter in gpu::adapters() {
//!     println!("gpu:{} {}", adapter.number, adapter.name);
//! }
//! // The first that is no software; gpu::open(0) takes whatever stands first in the list.
//! let Some(adapter) = gpu::real() else { return Ok(()) };
//! let device = gpu::open(adapter.number)?;
//! let x = Array::from_vec([3], vec![1.0_f32, 2.0, 3.0]).to(device);
//! let numbers = x.affine(2.0, 0.0).to_f64();
//! x.kernels().check()?;
//! assert_eq!(numbers, [2.0, 4.0, 6.0]);
//! # Ok::<(), imagen::kernels::DeviceError>(())
//! ```
//!
//! [`open`] gives a [`Device`] to move arrays to, which must be f32. Kernels only record what is to be done and return at once; reading an array
//! waits. If the GPU fails (memory, a lost device) nothing panics: what was to be computed reads as NaN, and
//! [`Kernels::check`] says why. So whoever hands numbers on must ask it after reading them. Memory of dropped arrays is kept
//! for later ones, and goes back to the driver only when it is short.

mod adam;
mod adapter;
mod attention;
mod axes;
mod context;
mod conv;
mod copy;
mod gemm;
mod map;
mod matmul;
mod norm;
mod numbers;
mod peak;
mod pipeline;
mod pool;
mod reduce;
mod resize;
mod rows;
mod shader;
mod softmax;
#[cfg(test)]
mod testing;
mod timing;

pub use adapter::{Adapter, adapters, open, real};
pub use context::Stats;
pub use pool::PoolStats;

use super::{AdamStep, Binary, ConvShape, DeviceError, Kernels, Reduce, Unary};
use crate::array::{Array, DType, Device, Shape};
use attention::Fused;
use context::Context;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A product of matrices on a GPU, A [.., m, k] and B [.., k, n] to [.., m, n].
pub type Product = fn(&Gpu, &Array, &Array) -> Array;

/// Threads of most workgroups.
const THREADS: usize = 256;

/// Workgroups for `n` threads.
fn groups(n: usize) -> usize {
    n.div_ceil(THREADS)
}

/// How many fours of numbers an array has; the last may be incomplete, and its buffer goes on behind it.
fn quads(x: &Array) -> usize {
    x.numel().div_ceil(4)
}

/// Threads that share a row of `n` numbers. Few different ones: each is a shader of its own to be compiled.
fn lanes(n: usize) -> usize {
    match n {
        0..=4 => 1,
        5..=64 => 8,
        65..=2048 => 64,
        _ => THREADS,
    }
}

/// Workgroups for `rows` rows of `lanes` threads each.
fn lane_groups(rows: usize, lanes: usize) -> usize {
    rows.div_ceil(THREADS / lanes)
}

/// A GPU in use, as a device.
pub struct Gpu {
    context: Arc<Context>,
}

/// The GPU behind a device that [`open`] gave. Panics if it is the CPU, or was never opened.
#[track_caller]
pub fn gpu(device: Device) -> &'static Gpu {
    let Device::Gpu(id) = device else { panic!("{device} is no GPU") };
    adapter::opened(id).unwrap_or_else(|| panic!("{device} has not been opened"))
}

impl Gpu {
    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.context.stats()
    }

    /// Lets it hold at most `bytes` bytes from now on; more is an error as if its memory were used up.
    pub fn limit_memory(&self, bytes: u64) {
        self.context.limit_memory(bytes);
    }

    /// Sends all that has been recorded to the GPU, without waiting for it.
    pub fn flush(&self) {
        self.context.flush();
    }

    /// Takes the GPU away from this process, as a driver does that crashes: for tests of what happens then. Every later use of
    /// its arrays is a [`DeviceError::Lost`]; [`open`] opens it again, for new arrays.
    pub fn destroy(&self) {
        self.context.flush();
        self.context.device.destroy();
        let _ = self.context.device.poll(wgpu::PollType::Poll);
    }

    /// Begins to time every kernel by the GPU's clock. False if it has none.
    pub fn start_timing(&self) -> bool {
        self.context.start_timing()
    }

    /// What the kernels from now on are timed under, if they are timed.
    pub fn label(&self, label: impl Into<String>) {
        self.context.label(label.into());
    }

    /// Ends it: nanoseconds by label.
    pub fn stop_timing(&self) -> HashMap<String, f64> {
        self.context.stop_timing()
    }

    /// Matrix products on their ladder, slowest first, for comparisons: by definition, by tiles in shared memory, and the one
    /// that [`Kernels::matmul`] is.
    pub fn matmuls(&self) -> [(&'static str, Product); 3] {
        [
            ("plain", |gpu, a, b| matmul::plain(&gpu.context, a, b, false, false)),
            ("tiled", |gpu, a, b| matmul::tiled(&gpu.context, a, b, false, false)),
            ("blocked", |gpu, a, b| matmul::matmul(&gpu.context, a, b, false, false)),
        ]
    }

    /// The convolution by its definition, as [`Gpu::matmuls`] has the product.
    pub fn conv2d_direct(&self, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
        conv::direct::forward(&self.context, x, weight, bias, conv)
    }

    /// The gradients of the convolution to its input and to its weight, by their definitions.
    pub fn conv2d_grads_direct(&self, g: &Array, x: &Array, weight: &Array, conv: ConvShape) -> [Array; 2] {
        let dx = conv::direct::grad_input(&self.context, g, weight, x.shape(), conv);
        [dx, conv::direct::grad_weight(&self.context, g, x, weight.shape(), conv)]
    }

    /// Arithmetic without memory, for benchmarks to compare kernels with: each of `threads` threads does multiply-adds in
    /// registers, in `rounds` rounds. A number for each thread, and how many operations it all was, two for each multiply-add.
    pub fn peak(&self, threads: usize, rounds: usize) -> (Array, f64) {
        peak::multiply_add(&self.context, threads, rounds)
    }
}

impl Kernels for Gpu {
    fn check(&self) -> Result<(), DeviceError> {
        self.context.check()
    }

    #[track_caller]
    fn receive(&self, x: &Array) -> Array {
        assert_eq!(x.dtype(), DType::F32, "a GPU computes in f32; cast array {} first", x.shape());
        self.context.upload(x.shape(), x.slice())
    }

    fn halve(&self, x: &Array) -> Array {
        if !self.context.device.features().contains(wgpu::Features::SHADER_F16) {
            return x.clone();
        }
        let values = x.to_f32();
        let halves: Vec<half::f16> = values.iter().map(|&value| half::f16::from_f32(value)).collect();
        let overflows = values.iter().zip(&halves).any(|(value, half)| value.is_finite() && !half.is_finite());
        if overflows { x.clone() } else { self.context.upload_half(x.shape(), &halves) }
    }

    #[track_caller]
    fn fill(&self, shape: &Shape, dtype: DType, value: f64) -> Array {
        assert_eq!(dtype, DType::F32, "a GPU computes in f32");
        map::fill(&self.context, shape, value)
    }

    fn unary(&self, op: Unary, x: &Array) -> Array {
        map::unary(&self.context, op, x)
    }

    fn unary_grad(&self, op: Unary, x: &Array, g: &Array) -> Array {
        map::unary_grad(&self.context, op, x, g)
    }

    fn affine(&self, x: &Array, scale: f64, shift: f64) -> Array {
        map::affine(&self.context, x, scale, shift)
    }

    fn binary(&self, op: Binary, a: &Array, b: &Array) -> Array {
        map::binary(&self.context, op, a, b)
    }

    fn add_assign(&self, acc: &mut Array, x: &Array, scale: f64) {
        map::add_assign(&self.context, acc, x, scale, false)
    }

    fn lerp_assign(&self, acc: &mut Array, x: &Array, weight: f64) {
        map::add_assign(&self.context, acc, x, weight, true)
    }

    fn reduce(&self, op: Reduce, x: &Array, axes: Range<usize>) -> Array {
        reduce::reduce(&self.context, op, x, axes)
    }

    fn broadcast_to(&self, x: &Array, shape: &Shape) -> Array {
        copy::broadcast_to(&self.context, x, shape)
    }

    fn permute(&self, x: &Array, order: &[usize]) -> Array {
        copy::permute(&self.context, x, order)
    }

    fn slice(&self, x: &Array, axis: usize, range: Range<usize>) -> Array {
        copy::slice(&self.context, x, axis, range)
    }

    fn unslice(&self, x: &Array, axis: usize, start: usize, size: usize) -> Array {
        copy::unslice(&self.context, x, axis, start, size)
    }

    fn concat(&self, parts: &[&Array], axis: usize) -> Array {
        copy::concat(&self.context, parts, axis)
    }

    fn matmul(&self, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
        matmul::matmul(&self.context, a, b, transpose_a, transpose_b)
    }

    fn conv2d(&self, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
        conv::conv2d(&self.context, x, weight, bias, conv)
    }

    fn conv2d_grad_input(&self, g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
        conv::conv2d_grad_input(&self.context, g, weight, x_shape, conv)
    }

    fn conv2d_grad_weight(&self, g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
        conv::conv2d_grad_weight(&self.context, g, x, weight_shape, conv)
    }

    fn group_norm(&self, x: &Array, weight: &Array, bias: &Array, groups: usize, eps: f64) -> (Array, Array, Array) {
        norm::group_norm(&self.context, x, weight, bias, groups, eps, false)
    }

    fn group_norm_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array) {
        norm::group_norm_grad(&self.context, g, x, weight, None, mean, inv_std)
    }

    fn group_norm_silu(
        &self,
        x: &Array,
        weight: &Array,
        bias: &Array,
        groups: usize,
        eps: f64,
    ) -> (Array, Array, Array) {
        norm::group_norm(&self.context, x, weight, bias, groups, eps, true)
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
        norm::group_norm_grad(&self.context, g, x, weight, Some(bias), mean, inv_std)
    }

    fn softmax(&self, x: &Array) -> Array {
        softmax::along_rows(&self.context, "softmax", &[x])
    }

    fn softmax_grad(&self, y: &Array, g: &Array) -> Array {
        softmax::along_rows(&self.context, "softmax_grad", &[y, g])
    }

    fn log_softmax(&self, x: &Array) -> Array {
        softmax::along_rows(&self.context, "log_softmax", &[x])
    }

    fn log_softmax_grad(&self, y: &Array, g: &Array) -> Array {
        softmax::along_rows(&self.context, "log_softmax_grad", &[y, g])
    }

    fn attention(&self, q: &Array, k: &Array, v: &Array, bias: Option<&Array>, scale: f64) -> (Array, Vec<Array>) {
        match Fused::of(q, k, v, bias) {
            Some(fused) => fused.forward(&self.context, [q, k, v], bias, scale),
            None => super::attention::attention(self, q, k, v, bias, scale),
        }
    }

    fn attention_grad(
        &self,
        g: &Array,
        [q, k, v]: [&Array; 3],
        bias: Option<&Array>,
        saved: &[Array],
        scale: f64,
    ) -> [Array; 3] {
        match Fused::of(q, k, v, bias) {
            Some(fused) => fused.backward(&self.context, g, [q, k, v], bias, saved, scale),
            None => super::attention::attention_grad(self, g, [q, k, v], saved, scale),
        }
    }

    fn gather_rows(&self, table: &Array, rows: &[u32]) -> Array {
        rows::gather_rows(&self.context, table, rows)
    }

    fn scatter_add_rows(&self, g: &Array, rows: &[u32], n: usize) -> Array {
        rows::scatter_add_rows(&self.context, g, rows, n)
    }

    fn upsample_nearest(&self, x: &Array, factor: usize) -> Array {
        resize::upsample_nearest(&self.context, x, factor)
    }

    fn sum_pool(&self, x: &Array, factor: usize) -> Array {
        resize::sum_pool(&self.context, x, factor)
    }

    fn norm(&self, arrays: &[&Array]) -> Array {
        reduce::norm(&self.context, arrays)
    }

    fn shorten(&self, x: &mut Array, norm: &Array, max_norm: f64, eps: f64) {
        reduce::shorten(&self.context, x, norm, max_norm, eps)
    }

    fn adam(
        &self,
        parameter: &mut Array,
        grad: &Array,
        moments: [&mut Array; 2],
        average: Option<(&mut Array, f64)>,
        step: AdamStep,
    ) {
        adam::adam(&self.context, parameter, grad, moments, average, step)
    }
}
