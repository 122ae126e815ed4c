//! Where the time goes: every primitive timed, with the arithmetic it does and the memory it moves.
//!
//! [`start`] puts a [`Kernels`] between its users and the device that times each call and passes it on; [`stop`] takes it
//! away and tells what it saw. Without [`start`] nothing is in between.

use super::gpu::{Gpu, gpu};
use super::{AdamStep, Binary, ConvShape, DeviceError, Kernels, Reduce, Unary, cpu};
use crate::array::{Array, DType, Device, GpuId, Shape};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static ON: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<BTreeMap<(&'static str, String), Cost>> = Mutex::new(BTreeMap::new());

/// What the calls of one primitive came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// How many calls.
    pub calls: u64,
    /// Their time.
    pub time: Duration,
    /// Floating-point operations: two for each multiply-add of products and convolutions, one a number elsewhere.
    pub flops: f64,
    /// Bytes of operands and results, each counted once.
    pub bytes: f64,
}

/// A profile: primitive and details such as the sizes of a convolution, with their [`Cost`]s. Displays as a table, the
/// longest time first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The rows, longest time first.
    pub rows: Vec<(String, Cost)>,
}

/// Begins to time every primitive of the process, from nothing.
pub fn start() {
    seen().clear();
    ON.store(true, Ordering::Relaxed);
}

/// Ends it, and tells what was seen.
pub fn stop() -> Profile {
    ON.store(false, Ordering::Relaxed);
    let mut rows: Vec<(String, Cost)> =
        std::mem::take(&mut *seen()).into_iter().map(|((name, detail), cost)| (label(name, &detail), cost)).collect();
    for timed in std::mem::take(&mut *gpus()).into_values() {
        let nanoseconds = timed.gpu.map(Gpu::stop_timing).unwrap_or_default();
        for (label, cost) in &mut rows {
            cost.time += Duration::from_nanos(nanoseconds.get(label).map_or(0, |&ns| ns as u64));
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.1.time));
    Profile { rows }
}

/// What a row is called.
fn label(name: &str, detail: &str) -> String {
    if detail.is_empty() { name.into() } else { format!("{name} {detail}") }
}

/// Whether primitives are timed.
pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

fn seen() -> MutexGuard<'static, BTreeMap<(&'static str, String), Cost>> {
    // a panic elsewhere leaves whole numbers behind
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Profile {
    /// All rows together.
    pub fn total(&self) -> Cost {
        self.rows.iter().fold(Cost::default(), |sum, (_, cost)| Cost {
            calls: sum.calls + cost.calls,
            time: sum.time + cost.time,
            flops: sum.flops + cost.flops,
            bytes: sum.bytes + cost.bytes,
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let width = self.rows.iter().map(|row| row.0.chars().count()).fold(9, usize::max);
        writeln!(
            f,
            "{:width$}  {:>8}  {:>10}  {:>6}  {:>8}  {:>7}",
            "primitive", "calls", "ms", "share", "GFLOP/s", "GB/s"
        )?;
        for (name, cost) in self.rows.iter().chain([&("all".to_string(), total)]) {
            let seconds = cost.time.as_secs_f64();
            let rate = |amount: f64| if seconds > 0.0 { amount / seconds / 1e9 } else { 0.0 };
            let share = if total.time.is_zero() { 0.0 } else { 100.0 * seconds / total.time.as_secs_f64() };
            writeln!(
                f,
                "{name:width$}  {:>8}  {:>10.2}  {share:>5.1}%  {:>8.1}  {:>7.1}",
                cost.calls,
                1e3 * seconds,
                rate(cost.flops),
                rate(cost.bytes)
            )?;
        }
        Ok(())
    }
}

/// The device in between.
struct Timed {
    inner: &'static dyn Kernels,
    /// The GPU whose own clock is read: its kernels are not done when a call returns.
    gpu: Option<&'static Gpu>,
}

/// The kernels of `device`, each timed.
pub(super) fn timed(device: Device) -> &'static dyn Kernels {
    static CPU: Timed = Timed { inner: &cpu::Cpu, gpu: None };
    let Device::Gpu(id) = device else { return &CPU };
    let mut gpus = gpus();
    if !is_on() {
        // It has just been stopped, by another thread.
        return gpu(device);
    }
    *gpus.entry(id).or_insert_with(|| {
        let gpu = gpu(device);
        // Asked for by device from anywhere, like the GPU itself: it stays for as long as the program runs.
        Box::leak(Box::new(Timed { inner: gpu, gpu: gpu.start_timing().then_some(gpu) }))
    })
}

/// The GPUs that are timed.
fn gpus() -> MutexGuard<'static, BTreeMap<GpuId, &'static Timed>> {
    static GPUS: Mutex<BTreeMap<GpuId, &'static Timed>> = Mutex::new(BTreeMap::new());
    GPUS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(x: &Array) -> f64 {
    (x.numel() * x.dtype().size()) as f64
}

/// Times `work` on `operands`. `cost` tells of its result the operations that it took, and the bytes that were written.
impl Timed {
    fn timed<R>(
        &self,
        name: &'static str,
        detail: String,
        operands: &[&Array],
        work: impl FnOnce() -> R,
        cost: impl FnOnce(&R) -> (f64, f64),
    ) -> R {
        if let Some(gpu) = self.gpu {
            gpu.label(label(name, &detail));
        }
        let start = Instant::now();
        let result = work();
        let time = if self.gpu.is_some() { Duration::ZERO } else { start.elapsed() };
        let (flops, written) = cost(&result);
        let read: f64 = operands.iter().map(|x| bytes(x)).sum();
        let mut seen = seen();
        let sum = seen.entry((name, detail)).or_default();
        sum.calls += 1;
        sum.time += time;
        sum.flops += flops;
        sum.bytes += read + written;
        result
    }

    /// A primitive with one result and one operation for each of its numbers.
    fn simple(&self, name: &'static str, operands: &[&Array], work: impl FnOnce() -> Array) -> Array {
        self.timed(name, String::new(), operands, work, |y| (y.numel() as f64, bytes(y)))
    }

    /// A primitive with one operation for each number of its operand, of which the result has fewer.
    fn summing(&self, name: &'static str, x: &Array, work: impl FnOnce() -> Array) -> Array {
        self.timed(name, String::new(), &[x], work, |y| (x.numel() as f64, bytes(y)))
    }

    /// A primitive that copies as much as its result holds.
    fn copying(&self, name: &'static str, work: impl FnOnce() -> Array) -> Array {
        self.timed(name, String::new(), &[], work, |y| (0.0, 2.0 * bytes(y)))
    }

    /// A primitive that reads and writes `size` bytes in place, and reads x.
    fn in_place(&self, name: &'static str, size: f64, x: &Array, work: impl FnOnce()) {
        self.timed(name, String::new(), &[x], work, |()| (x.numel() as f64, 2.0 * size));
    }
}

/// (flops, detail) of a convolution from x [B, C, H, W] by a weight [O, C, kh, kw].
fn convolution(x: &[usize], weight: &[usize], conv: ConvShape) -> (f64, String) {
    let side = |size, kernel| conv.output(size, kernel).unwrap_or(0);
    let (height, width) = (side(x[2], weight[2]), side(x[3], weight[3]));
    let flops = 2.0 * (x[0] * height * width) as f64 * weight.iter().product::<usize>() as f64;
    let stride = if conv.stride == 1 { String::new() } else { format!(" stride {}", conv.stride) };
    (flops, format!("{}x{}: {} to {} at {}x{}{stride}", weight[2], weight[3], x[1], weight[0], x[2], x[3]))
}

impl Kernels for Timed {
    fn check(&self) -> Result<(), DeviceError> {
        self.inner.check()
    }

    fn receive(&self, x: &Array) -> Array {
        self.copying("receive", || self.inner.receive(x))
    }

    fn halve(&self, x: &Array) -> Array {
        self.inner.halve(x)
    }

    fn fill(&self, shape: &Shape, dtype: DType, value: f64) -> Array {
        self.simple("fill", &[], || self.inner.fill(shape, dtype, value))
    }

    fn unary(&self, op: Unary, x: &Array) -> Array {
        self.simple(op.name(), &[x], || self.inner.unary(op, x))
    }

    fn unary_grad(&self, op: Unary, x: &Array, g: &Array) -> Array {
        self.simple("unary_grad", &[x, g], || self.inner.unary_grad(op, x, g))
    }

    fn affine(&self, x: &Array, scale: f64, shift: f64) -> Array {
        self.simple("affine", &[x], || self.inner.affine(x, scale, shift))
    }

    fn binary(&self, op: Binary, a: &Array, b: &Array) -> Array {
        self.simple(op.name(), &[a, b], || self.inner.binary(op, a, b))
    }

    fn add_assign(&self, acc: &mut Array, x: &Array, scale: f64) {
        self.in_place("add_assign", bytes(acc), x, || self.inner.add_assign(acc, x, scale));
    }

    fn lerp_assign(&self, acc: &mut Array, x: &Array, weight: f64) {
        self.in_place("lerp_assign", bytes(acc), x, || self.inner.lerp_assign(acc, x, weight));
    }

    fn reduce(&self, op: Reduce, x: &Array, axes: Range<usize>) -> Array {
        let name = match op {
            Reduce::Sum => "sum",
            Reduce::Max => "max",
        };
        self.summing(name, x, || self.inner.reduce(op, x, axes))
    }

    fn broadcast_to(&self, x: &Array, shape: &Shape) -> Array {
        self.copying("broadcast_to", || self.inner.broadcast_to(x, shape))
    }

    fn permute(&self, x: &Array, order: &[usize]) -> Array {
        self.copying("permute", || self.inner.permute(x, order))
    }

    fn slice(&self, x: &Array, axis: usize, range: Range<usize>) -> Array {
        self.copying("slice", || self.inner.slice(x, axis, range))
    }

    fn unslice(&self, x: &Array, axis: usize, start: usize, size: usize) -> Array {
        self.copying("unslice", || self.inner.unslice(x, axis, start, size))
    }

    fn concat(&self, parts: &[&Array], axis: usize) -> Array {
        self.copying("concat", || self.inner.concat(parts, axis))
    }

    fn matmul(&self, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
        let (a_rank, b_rank) = (a.shape().len(), b.shape().len());
        let k = a.shape()[if transpose_a { a_rank - 2 } else { a_rank - 1 }];
        let m = b.shape()[if transpose_b { b_rank - 2 } else { b_rank - 1 }];
        let n = a.shape()[if transpose_a { a_rank - 1 } else { a_rank - 2 }];
        let work = || self.inner.matmul(a, b, transpose_a, transpose_b);
        self.timed("matmul", format!("[{n}, {k}] [{k}, {m}]"), &[a, b], work, |y| {
            (2.0 * (y.numel() * k) as f64, bytes(y))
        })
    }

    fn conv2d(&self, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
        let (flops, detail) = convolution(x.shape(), weight.shape(), conv);
        self.timed("conv2d", detail, &[x, weight], || self.inner.conv2d(x, weight, bias, conv), |y| (flops, bytes(y)))
    }

    fn conv2d_grad_input(&self, g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
        let (flops, detail) = convolution(x_shape, weight.shape(), conv);
        let work = || self.inner.conv2d_grad_input(g, weight, x_shape, conv);
        self.timed("conv2d_grad_input", detail, &[g, weight], work, |y| (flops, bytes(y)))
    }

    fn conv2d_grad_weight(&self, g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
        let (flops, detail) = convolution(x.shape(), weight_shape, conv);
        let work = || self.inner.conv2d_grad_weight(g, x, weight_shape, conv);
        self.timed("conv2d_grad_weight", detail, &[g, x], work, |y| (flops, bytes(y)))
    }

    fn group_norm(&self, x: &Array, weight: &Array, bias: &Array, groups: usize, eps: f64) -> (Array, Array, Array) {
        let work = || self.inner.group_norm(x, weight, bias, groups, eps);
        self.timed("group_norm", String::new(), &[x], work, |y| (x.numel() as f64, bytes(&y.0)))
    }

    fn group_norm_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array) {
        let work = || self.inner.group_norm_grad(g, x, weight, mean, inv_std);
        self.timed("group_norm_grad", String::new(), &[g, x], work, |y| (x.numel() as f64, bytes(&y.0)))
    }

    fn group_norm_silu(
        &self,
        x: &Array,
        weight: &Array,
        bias: &Array,
        groups: usize,
        eps: f64,
    ) -> (Array, Array, Array) {
        let work = || self.inner.group_norm_silu(x, weight, bias, groups, eps);
        self.timed("group_norm_silu", String::new(), &[x], work, |y| (x.numel() as f64, bytes(&y.0)))
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
        let work = || self.inner.group_norm_silu_grad(g, x, weight, bias, mean, inv_std);
        self.timed("group_norm_silu_grad", String::new(), &[g, x], work, |y| (x.numel() as f64, bytes(&y.0)))
    }

    fn softmax(&self, x: &Array) -> Array {
        self.simple("softmax", &[x], || self.inner.softmax(x))
    }

    fn softmax_grad(&self, y: &Array, g: &Array) -> Array {
        self.simple("softmax_grad", &[y, g], || self.inner.softmax_grad(y, g))
    }

    fn log_softmax(&self, x: &Array) -> Array {
        self.simple("log_softmax", &[x], || self.inner.log_softmax(x))
    }

    fn log_softmax_grad(&self, y: &Array, g: &Array) -> Array {
        self.simple("log_softmax_grad", &[y, g], || self.inner.log_softmax_grad(y, g))
    }

    fn gather_rows(&self, table: &Array, rows: &[u32]) -> Array {
        self.copying("gather_rows", || self.inner.gather_rows(table, rows))
    }

    fn scatter_add_rows(&self, g: &Array, rows: &[u32], n: usize) -> Array {
        self.simple("scatter_add_rows", &[g], || self.inner.scatter_add_rows(g, rows, n))
    }

    fn upsample_nearest(&self, x: &Array, factor: usize) -> Array {
        self.copying("upsample_nearest", || self.inner.upsample_nearest(x, factor))
    }

    fn sum_pool(&self, x: &Array, factor: usize) -> Array {
        self.summing("sum_pool", x, || self.inner.sum_pool(x, factor))
    }

    fn attention(&self, q: &Array, k: &Array, v: &Array, bias: Option<&Array>, scale: f64) -> (Array, Vec<Array>) {
        if self.gpu.is_none() {
            // Made of other primitives, which are timed one by one.
            return super::attention::attention(self, q, k, v, bias, scale);
        }
        let work = || self.inner.attention(q, k, v, bias, scale);
        self.timed("attention", String::new(), &[q, k, v], work, |y| (attention_flops(q, k, v), bytes(&y.0)))
    }

    fn attention_grad(
        &self,
        g: &Array,
        [q, k, v]: [&Array; 3],
        bias: Option<&Array>,
        saved: &[Array],
        scale: f64,
    ) -> [Array; 3] {
        if self.gpu.is_none() {
            return super::attention::attention_grad(self, g, [q, k, v], saved, scale);
        }
        let work = || self.inner.attention_grad(g, [q, k, v], bias, saved, scale);
        let cost = |d: &[Array; 3]| (2.0 * attention_flops(q, k, v), d.iter().map(bytes).sum());
        self.timed("attention_grad", String::new(), &[g, q, k, v, v], work, cost)
    }

    fn norm(&self, arrays: &[&Array]) -> Array {
        let numbers: f64 = arrays.iter().map(|x| x.numel() as f64).sum();
        self.timed("norm", String::new(), arrays, || self.inner.norm(arrays), |_| (2.0 * numbers, 0.0))
    }

    fn shorten(&self, x: &mut Array, norm: &Array, max_norm: f64, eps: f64) {
        let n = x.numel() as f64;
        let cost = |_: &()| (n, 8.0 * n);
        self.timed("shorten", String::new(), &[], || self.inner.shorten(x, norm, max_norm, eps), cost)
    }

    fn adam(
        &self,
        parameter: &mut Array,
        grad: &Array,
        moments: [&mut Array; 2],
        average: Option<(&mut Array, f64)>,
        step: AdamStep,
    ) {
        let arrays = if average.is_some() { 4.0 } else { 3.0 };
        let size = arrays * bytes(parameter);
        self.in_place("adam", size, grad, || self.inner.adam(parameter, grad, moments, average, step));
    }
}

/// Of the two products of attention.
fn attention_flops(q: &Array, k: &Array, v: &Array) -> f64 {
    let m = k.shape()[k.shape().len() - 2];
    let e = v.shape()[v.shape().len() - 1];
    2.0 * (q.numel() * m + q.numel() / q.shape().last().map_or(1, |&d| d.max(1)) * m * e) as f64
}
