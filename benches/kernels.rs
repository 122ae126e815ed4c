//! `cargo bench --bench kernels`: the CPU kernels one by one, at the sizes that the two reference workloads spend their
//! time on. Rates are floating-point operations a second for products and convolutions, numbers a second for the rest.

use criterion::{Criterion, Throughput};
use imagen::array::{Array, DType, Device, Shape};
use imagen::kernels::{AdamStep, ConvShape, Kernels, Unary, of};
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

/// 3x3 convolutions: batch 64 of mnist28, batch 16 of cifar32; and one that halves the image.
fn convolutions(criterion: &mut Criterion, k: &dyn Kernels) {
    for (b, inputs, outputs, side, stride) in [
        (64, 32, 32, 28, 1),
        (64, 64, 64, 14, 1),
        (64, 128, 64, 7, 1),
        (16, 64, 64, 32, 1),
        (16, 256, 128, 16, 1),
        (64, 32, 32, 28, 2),
    ] {
        let shape = ConvShape { stride, padding: 1 };
        let (x, weight) = (random(0, [b, inputs, side, side]), random(1, [outputs, inputs, 3, 3]));
        let bias = random(2, [outputs]);
        let g = random(3, k.conv2d(&x, &weight, None, shape).shape());
        let size = format!("{b}x{inputs}x{side}x{side} to {outputs} channels, stride {stride}");
        let flop = 2 * g.numel() * inputs * 9;
        time(criterion, "conv2d", &size, flop, || k.conv2d(&x, &weight, Some(&bias), shape));
        time(criterion, "conv2d_grad_input", &size, flop, || k.conv2d_grad_input(&g, &weight, x.shape(), shape));
        time(criterion, "conv2d_grad_weight", &size, flop, || k.conv2d_grad_weight(&g, &x, weight.shape(), shape));
    }
}

/// One large product, and the many small ones of attention over 7x7 pixels: scores, then the mean of the values.
fn products(criterion: &mut Criterion, k: &dyn Kernels) {
    for (lead, [n, inner, m], transpose_b) in
        [(vec![], [512, 512, 512], false), (vec![64, 4], [49, 16, 49], true), (vec![64, 4], [49, 49, 16], false)]
    {
        let batch: usize = lead.iter().product();
        let a = random(0, [&lead[..], &[n, inner]].concat());
        let b = random(1, [&lead[..], &if transpose_b { [m, inner] } else { [inner, m] }].concat());
        let size = format!("{batch} of {n}x{inner}x{m}{}", if transpose_b { " transposed" } else { "" });
        time(criterion, "matmul", size, 2 * batch * n * inner * m, || k.matmul(&a, &b, false, transpose_b));
    }
}

fn rows_and_groups(criterion: &mut Criterion, k: &dyn Kernels) {
    for (b, c, side) in [(64, 32, 28), (64, 64, 7), (16, 128, 16)] {
        let (x, g) = (random(0, [b, c, side, side]), random(1, [b, c, side, side]));
        let (weight, bias) = (random(2, [c]), random(3, [c]));
        let (_, mean, inv_std) = k.group_norm(&x, &weight, &bias, 8, 1e-5);
        let size = format!("{b}x{c}x{side}x{side}, 8 groups");
        time(criterion, "group_norm", &size, x.numel(), || k.group_norm(&x, &weight, &bias, 8, 1e-5));
        time(criterion, "group_norm_grad", &size, x.numel(), || k.group_norm_grad(&g, &x, &weight, &mean, &inv_std));
    }
    let (x, g) = (random(0, [64, 4, 49, 49]), random(1, [64, 4, 49, 49]));
    let y = k.softmax(&x);
    time(criterion, "softmax", "64x4x49 rows of 49", x.numel(), || k.softmax(&x));
    time(criterion, "softmax_grad", "64x4x49 rows of 49", x.numel(), || k.softmax_grad(&y, &g));
}

fn elementwise(criterion: &mut Criterion, k: &dyn Kernels) {
    let shape = [64, 32, 28, 28];
    let (x, g) = (random(0, shape), random(1, shape));
    let n = x.numel();
    time(criterion, "silu", n, n, || k.unary(Unary::Silu, &x));
    time(criterion, "silu_grad", n, n, || k.unary_grad(Unary::Silu, &x, &g));
    time(criterion, "add", n, n, || &x + &g);

    // All parameters of mnist28.
    let n = 1_623_169;
    let (mut p, grad) = (random(2, [n]), random(3, [n]));
    let (mut first, mut second) = (grad.affine(0.0, 0.0), grad.affine(0.0, 1.0));
    let step = AdamStep { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 10 };
    time(criterion, "adam", n, n, || k.adam(&mut p, &grad, &mut first, &mut second, step));
}
