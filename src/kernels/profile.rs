//! Where the time goes: every primitive timed, with the arithmetic it does and the memory it moves.
//!
//! [`start`] puts a [`Kernels`] between its users and the device that times each call and passes it on; [`stop`] takes it
//! away and tells what it saw. Without [`start`] nothing is in between.

use super::{AdamStep, Binary, ConvShape, Kernels, Reduce, Unary, cpu};
use crate::array::{Array, DType, Shape};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
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
    let mut rows: Vec<(String, Cost)> = std::mem::take(&mut *seen())
        .into_iter()
        .map(|((name, detail), cost)| (if detail.is_empty() { name.into() } else { format!("{name} {detail}") }, cost))
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.1.time));
    Profile { rows }
}

/// Whether primitives are timed.
pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

fn seen() -> std::sync::MutexGuard<'static, BTreeMap<(&'static str, String), Cost>> {
    // a panic elsewhere leaves whole numbers behind
    SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
pub(super) struct Timed;

/// What is timed; a second device would be chosen here.
const DEVICE: cpu::Cpu = cpu::Cpu;

fn bytes(x: &Array) -> f64 {
    (x.numel() * x.dtype().size()) as f64
}

/// Times `work` on `operands`. `cost` tells of its result the operations that it took, and the bytes that were written.
fn timed<R>(
    name: &'static str,
    detail: String,
    operands: &[&Array],
    work: impl FnOnce() -> R,
    cost: impl FnOnce(&R) -> (f64, f64),
) -> R {
    let start = Instant::now();
    let result = work();
    let time = start.elapsed();
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
fn simple(name: &'static str, operands: &[&Array], work: impl FnOnce() -> Array) -> Array {
    timed(name, String::new(), operands, work, |y| (y.numel() as f64, bytes(y)))
}

/// A primitive with one operation for each number of its operand, of which the result has fewer.
fn summing(name: &'static str, x: &Array, work: impl FnOnce() -> Array) -> Array {
    timed(name, String::new(), &[x], work, |y| (x.numel() as f64, bytes(y)))
}

/// A primitive that copies as much as its result holds.
fn copying(name: &'static str, work: impl FnOnce() -> Array) -> Array {
    timed(name, String::new(), &[], work, |y| (0.0, 2.0 * bytes(y)))
}

/// A primitive that reads and writes `size` bytes in place, and reads x.
fn in_place(name: &'static str, size: f64, x: &Array, work: impl FnOnce()) {
    timed(name, String::new(), &[x], work, |()| (x.numel() as f64, 2.0 * size));
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
    fn fill(&self, shape: &Shape, dtype: DType, value: f64) -> Array {
        simple("fill", &[], || DEVICE.fill(shape, dtype, value))
    }

    fn unary(&self, op: Unary, x: &Array) -> Array {
        simple(op.name(), &[x], || DEVICE.unary(op, x))
    }

    fn unary_grad(&self, op: Unary, x: &Array, g: &Array) -> Array {
        simple("unary_grad", &[x, g], || DEVICE.unary_grad(op, x, g))
    }

    fn affine(&self, x: &Array, scale: f64, shift: f64) -> Array {
        simple("affine", &[x], || DEVICE.affine(x, scale, shift))
    }

    fn binary(&self, op: Binary, a: &Array, b: &Array) -> Array {
        simple(op.name(), &[a, b], || DEVICE.binary(op, a, b))
    }

    fn add_assign(&self, acc: &mut Array, x: &Array, scale: f64) {
        in_place("add_assign", bytes(acc), x, || DEVICE.add_assign(acc, x, scale));
    }

    fn lerp_assign(&self, acc: &mut Array, x: &Array, weight: f64) {
        in_place("lerp_assign", bytes(acc), x, || DEVICE.lerp_assign(acc, x, weight));
    }

    fn reduce(&self, op: Reduce, x: &Array, axes: Range<usize>) -> Array {
        let name = match op {
            Reduce::Sum => "sum",
            Reduce::Max => "max",
        };
        summing(name, x, || DEVICE.reduce(op, x, axes))
    }

    fn broadcast_to(&self, x: &Array, shape: &Shape) -> Array {
        copying("broadcast_to", || DEVICE.broadcast_to(x, shape))
    }

    fn permute(&self, x: &Array, order: &[usize]) -> Array {
        copying("permute", || DEVICE.permute(x, order))
    }

    fn slice(&self, x: &Array, axis: usize, range: Range<usize>) -> Array {
        copying("slice", || DEVICE.slice(x, axis, range))
    }

    fn unslice(&self, x: &Array, axis: usize, start: usize, size: usize) -> Array {
        copying("unslice", || DEVICE.unslice(x, axis, start, size))
    }

    fn concat(&self, parts: &[&Array], axis: usize) -> Array {
        copying("concat", || DEVICE.concat(parts, axis))
    }

    fn matmul(&self, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
        let (a_rank, b_rank) = (a.shape().len(), b.shape().len());
        let k = a.shape()[if transpose_a { a_rank - 2 } else { a_rank - 1 }];
        let m = b.shape()[if transpose_b { b_rank - 2 } else { b_rank - 1 }];
        let n = a.shape()[if transpose_a { a_rank - 1 } else { a_rank - 2 }];
        let work = || DEVICE.matmul(a, b, transpose_a, transpose_b);
        timed("matmul", format!("[{n}, {k}] [{k}, {m}]"), &[a, b], work, |y| (2.0 * (y.numel() * k) as f64, bytes(y)))
    }

    fn conv2d(&self, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
        let (flops, detail) = convolution(x.shape(), weight.shape(), conv);
        timed("conv2d", detail, &[x, weight], || DEVICE.conv2d(x, weight, bias, conv), |y| (flops, bytes(y)))
    }

    fn conv2d_grad_input(&self, g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
        let (flops, detail) = convolution(x_shape, weight.shape(), conv);
        let work = || DEVICE.conv2d_grad_input(g, weight, x_shape, conv);
        timed("conv2d_grad_input", detail, &[g, weight], work, |y| (flops, bytes(y)))
    }

    fn conv2d_grad_weight(&self, g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
        let (flops, detail) = convolution(x.shape(), weight_shape, conv);
        let work = || DEVICE.conv2d_grad_weight(g, x, weight_shape, conv);
        timed("conv2d_grad_weight", detail, &[g, x], work, |y| (flops, bytes(y)))
    }

    fn group_norm(&self, x: &Array, weight: &Array, bias: &Array, groups: usize, eps: f64) -> (Array, Array, Array) {
        let work = || DEVICE.group_norm(x, weight, bias, groups, eps);
        timed("group_norm", String::new(), &[x], work, |y| (x.numel() as f64, bytes(&y.0)))
    }

    fn group_norm_grad(
        &self,
        g: &Array,
        x: &Array,
        weight: &Array,
        mean: &Array,
        inv_std: &Array,
    ) -> (Array, Array, Array) {
        let work = || DEVICE.group_norm_grad(g, x, weight, mean, inv_std);
        timed("group_norm_grad", String::new(), &[g, x], work, |y| (x.numel() as f64, bytes(&y.0)))
    }

    fn group_norm_silu(
        &self,
        x: &Array,
        weight: &Array,
        bias: &Array,
        groups: usize,
        eps: f64,
    ) -> (Array, Array, Array) {
        let work = || DEVICE.group_norm_silu(x, weight, bias, groups, eps);
        timed("group_norm_silu", String::new(), &[x], work, |y| (x.numel() as f64, bytes(&y.0)))
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
        let work = || DEVICE.group_norm_silu_grad(g, x, weight, bias, mean, inv_std);
        timed("group_norm_silu_grad", String::new(), &[g, x], work, |y| (x.numel() as f64, bytes(&y.0)))
    }

    fn softmax(&self, x: &Array) -> Array {
        simple("softmax", &[x], || DEVICE.softmax(x))
    }

    fn softmax_grad(&self, y: &Array, g: &Array) -> Array {
        simple("softmax_grad", &[y, g], || DEVICE.softmax_grad(y, g))
    }

    fn log_softmax(&self, x: &Array) -> Array {
        simple("log_softmax", &[x], || DEVICE.log_softmax(x))
    }

    fn log_softmax_grad(&self, y: &Array, g: &Array) -> Array {
        simple("log_softmax_grad", &[y, g], || DEVICE.log_softmax_grad(y, g))
    }

    fn gather_rows(&self, table: &Array, rows: &[u32]) -> Array {
        copying("gather_rows", || DEVICE.gather_rows(table, rows))
    }

    fn scatter_add_rows(&self, g: &Array, rows: &[u32], n: usize) -> Array {
        simple("scatter_add_rows", &[g], || DEVICE.scatter_add_rows(g, rows, n))
    }

    fn upsample_nearest(&self, x: &Array, factor: usize) -> Array {
        copying("upsample_nearest", || DEVICE.upsample_nearest(x, factor))
    }

    fn sum_pool(&self, x: &Array, factor: usize) -> Array {
        summing("sum_pool", x, || DEVICE.sum_pool(x, factor))
    }

    fn adam(&self, parameter: &mut Array, grad: &Array, first: &mut Array, second: &mut Array, step: AdamStep) {
        let size = bytes(parameter) + bytes(first) + bytes(second);
        in_place("adam", size, grad, || DEVICE.adam(parameter, grad, first, second, step));
    }
}
