//! `cargo bench --bench kernels`: the CPU kernels one by one, at the sizes that the two reference workloads spend their
//! time on: every primitive of the trait `Kernels`. Rates are floating-point operations a second for products and
//! convolutions, numbers a second for the rest. One of them: `cargo bench --bench kernels -- conv2d_grad_weight`.

use criterion::{Criterion, Throughput};
use imagen::array::{Array, DType, Device, Shape};
use imagen::kernels::{AdamStep, Binary, ConvShape, Kernels, Reduce, Unary, of};
use imagen::random::{Purpose, normal};
use std::fmt::Display;
use std::time::Duration;

fn main() {
    // As the command line has it: the calling thread computes too.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().expect("nothing has started a pool before");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let k = of(Device::Cpu);
    convolutions(&mut criterion, k);
    products(&mut criterion, k);
    rows_and_groups(&mut criterion, k);
    elementwise(&mut criterion, k);
    moves(&mut criterion, k);
    optimiser(&mut criterion, k);
    criterion.final_summary();
}

fn random(index: u64, shape: impl Into<Shape>) -> Array {
    let shape = shape.into();
    let values = normal(0, Purpose::Test, 0, index, shape.numel());
    Array::from_f64(shape, &values, DType::F32)
}

/// Times `f` as `group/name` at `size`, of which one run does `work` operations or numbers.
fn time<R>(criterion: &mut Criterion, name: &str, size: impl Display, work: usize, mut f: impl FnMut() -> R) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(work as u64));
    group.bench_function(size.to_string(), |bencher| bencher.iter(&mut f));
    group.finish();
}

/// Batch 64 of mnist28, batch 16 of cifar32: kernels of 3 x 3 that keep the size, from the largest image to the smallest;
/// the first layer and the last; those that halve the image; those of 1 x 1.
fn convolutions(criterion: &mut Criterion, k: &dyn Kernels) {
    for (b, inputs, outputs, side, kernel, stride) in [
        (64, 32, 32, 28, 3, 1),
        (64, 64, 64, 14, 3, 1),
        (64, 64, 64, 7, 3, 1),
        (64, 128, 64, 7, 3, 1),
        (64, 1, 32, 28, 3, 1),
        (64, 32, 1, 28, 3, 1),
        (64, 32, 32, 28, 3, 2),
        (64, 64, 32, 28, 1, 1),
        (64, 64, 192, 7, 1, 1),
        (16, 64, 64, 32, 3, 1),
        (16, 128, 128, 16, 3, 1),
        (16, 256, 128, 16, 3, 1),
        (16, 128, 128, 8, 3, 1),
        (16, 128, 128, 4, 3, 1),
        (16, 3, 64, 32, 3, 1),
        (16, 64, 3, 32, 3, 1),
        (16, 64, 64, 32, 3, 2),
        (16, 128, 384, 16, 1, 1),
    ] {
        let shape = ConvShape { stride, padding: kernel / 2 };
        let (x, weight) = (random(0, [b, inputs, side, side]), random(1, [outputs, inputs, kernel, kernel]));
        let bias = random(2, [outputs]);
        let g = random(3, k.conv2d(&x, &weight, None, shape).shape());
        let size = format!("{kernel}x{kernel} {b}x{inputs}x{side}x{side} to {outputs} channels, stride {stride}");
        let flop = 2 * g.numel() * inputs * kernel * kernel;
        time(criterion, "conv2d", &size, flop, || k.conv2d(&x, &weight, Some(&bias), shape));
        time(criterion, "conv2d_grad_input", &size, flop, || k.conv2d_grad_input(&g, &weight, x.shape(), shape));
        time(criterion, "conv2d_grad_weight", &size, flop, || k.conv2d_grad_weight(&g, &x, weight.shape(), shape));
    }
}

/// One large product; those of attention over 7x7 and 16x16 pixels, scores and then the mean of the values; a linear
/// layer, whose weight is stored as its transpose.
fn products(criterion: &mut Criterion, k: &dyn Kernels) {
    for (lead, [n, inner, m], transpose_b) in [
        (vec![], [512, 512, 512], false),
        (vec![64, 4], [49, 16, 49], true),
        (vec![64, 4], [49, 49, 16], false),
        (vec![16, 4], [256, 32, 256], true),
        (vec![16, 4], [256, 256, 32], false),
        (vec![], [64, 128, 64], true),
    ] {
        let batch: usize = lead.iter().product();
        let a = random(0, [&lead[..], &[n, inner]].concat());
        let b = random(1, [&lead[..], &if transpose_b { [m, inner] } else { [inner, m] }].concat());
        let size = format!("{batch} of {n}x{inner}x{m}{}", if transpose_b { " transposed" } else { "" });
        time(criterion, "matmul", size, 2 * batch * n * inner * m, || k.matmul(&a, &b, false, transpose_b));
    }
}

fn rows_and_groups(criterion: &mut Criterion, k: &dyn Kernels) {
    for (b, c, side) in [(64, 32, 28), (64, 64, 7), (16, 64, 32), (16, 128, 16)] {
        let (x, g) = (random(0, [b, c, side, side]), random(1, [b, c, side, side]));
        let (weight, bias) = (random(2, [c]), random(3, [c]));
        let (_, mean, inv_std) = k.group_norm(&x, &weight, &bias, 8, 1e-5);
        let size = format!("{b}x{c}x{side}x{side}, 8 groups");
        let n = x.numel();
        time(criterion, "group_norm", &size, n, || k.group_norm(&x, &weight, &bias, 8, 1e-5));
        time(criterion, "group_norm_grad", &size, n, || k.group_norm_grad(&g, &x, &weight, &mean, &inv_std));
        time(criterion, "group_norm_silu", &size, n, || k.group_norm_silu(&x, &weight, &bias, 8, 1e-5));
        time(criterion, "group_norm_silu_grad", &size, n, || {
            k.group_norm_silu_grad(&g, &x, &weight, &bias, &mean, &inv_std)
        });
    }
    for (b, pixels) in [(64, 49), (16, 256)] {
        let (x, g) = (random(0, [b, 4, pixels, pixels]), random(1, [b, 4, pixels, pixels]));
        let size = format!("{b}x4x{pixels} rows of {pixels}");
        let (y, log_y) = (k.softmax(&x), k.log_softmax(&x));
        time(criterion, "softmax", &size, x.numel(), || k.softmax(&x));
        time(criterion, "softmax_grad", &size, x.numel(), || k.softmax_grad(&y, &g));
        time(criterion, "log_softmax", &size, x.numel(), || k.log_softmax(&x));
        time(criterion, "log_softmax_grad", &size, x.numel(), || k.log_softmax_grad(&log_y, &g));
    }
    // The gradient of a bias: first over the pixels, then over the images.
    let (x, sums) = (random(0, [64, 32, 784]), random(1, [64, 32]));
    time(criterion, "sum", "over 784 pixels of 64x32", x.numel(), || k.reduce(Reduce::Sum, &x, 2..3));
    time(criterion, "sum", "over 64 images of 32", sums.numel(), || k.reduce(Reduce::Sum, &sums, 0..1));
    time(criterion, "max", "over 784 pixels of 64x32", x.numel(), || k.reduce(Reduce::Max, &x, 2..3));
}

fn elementwise(criterion: &mut Criterion, k: &dyn Kernels) {
    let shape = [64, 32, 28, 28];
    let (x, g) = (random(0, shape), random(1, shape));
    let n = x.numel();
    for op in [Unary::Silu, Unary::Exp, Unary::Tanh, Unary::Square] {
        time(criterion, op.name(), n, n, || k.unary(op, &x));
        time(criterion, &format!("{}_grad", op.name()), n, n, || k.unary_grad(op, &x, &g));
    }
    time(criterion, "affine", n, n, || k.affine(&x, 2.0, 1.0));
    time(criterion, "fill", n, n, || k.fill(&shape.into(), DType::F32, 1.0));
    let channels = random(2, [64, 32, 1, 1]);
    for op in [Binary::Add, Binary::Mul] {
        time(criterion, op.name(), n, n, || k.binary(op, &x, &g));
        time(criterion, op.name(), format!("{n} and one a channel"), n, || k.binary(op, &x, &channels));
    }
    let mut sum = x.clone();
    time(criterion, "add_assign", n, n, || k.add_assign(&mut sum, &g, 1.0));
    time(criterion, "lerp_assign", n, n, || k.lerp_assign(&mut sum, &g, 0.5));
}

/// Primitives that only move numbers.
fn moves(criterion: &mut Criterion, k: &dyn Kernels) {
    let x = random(0, [64, 32, 28, 28]);
    let (n, shape) = (x.numel(), x.shape().clone());
    let channels = random(1, [64, 32, 1, 1]);
    time(criterion, "broadcast_to", "one a channel to 28x28", n, || k.broadcast_to(&channels, &shape));
    time(criterion, "concat", "two of 32 channels", 2 * n, || k.concat(&[&x, &x], 1));
    time(criterion, "slice", "16 of 32 channels", n / 2, || k.slice(&x, 1, 0..16));
    let half = k.slice(&x, 1, 0..16);
    time(criterion, "unslice", "16 of 32 channels", n, || k.unslice(&half, 1, 0, 32));
    let heads = random(2, [16, 4, 32, 256]);
    time(criterion, "permute", "heads of 32 x 256 transposed", heads.numel(), || k.permute(&heads, &[0, 1, 3, 2]));
    let small = random(3, [64, 64, 14, 14]);
    time(criterion, "upsample_nearest", "14x14 to 28x28", 4 * small.numel(), || k.upsample_nearest(&small, 2));
    time(criterion, "sum_pool", "28x28 to 14x14", n, || k.sum_pool(&x, 2));
    let (table, rows) = (random(4, [1000, 64]), (0..384).map(|i| i * 7 % 1000).collect::<Vec<u32>>());
    let picked = k.gather_rows(&table, &rows);
    time(criterion, "gather_rows", "384 rows of 64", picked.numel(), || k.gather_rows(&table, &rows));
    time(criterion, "scatter_add_rows", "384 rows of 64", picked.numel(), || k.scatter_add_rows(&picked, &rows, 1000));
}

/// All parameters of mnist28, and of cifar32.
fn optimiser(criterion: &mut Criterion, k: &dyn Kernels) {
    for n in [1_623_169, 8_952_067] {
        let (mut p, grad) = (random(2, [n]), random(3, [n]));
        let (mut first, mut second) = (grad.affine(0.0, 0.0), grad.affine(0.0, 1.0));
        let step = AdamStep { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 10 };
        time(criterion, "adam", n, n, || k.adam(&mut p, &grad, [&mut first, &mut second], None, step));
    }
}
