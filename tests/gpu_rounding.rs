//! What chapter 5 of the book derives about products and sums in f32: how many numbers they read, and how far rounding may
//! take them, whatever the order. On the CPU, and on any GPU, one made of software included.
//!
//! Without a GPU its part is skipped. With IMAGEN_REQUIRE_GPU=1 it fails instead.

use imagen::array::{Array, DType, Device};
use imagen::kernels::{ConvShape, Reduce, gpu, of};
use imagen::random::{Purpose, normal};
use std::cell::Cell;

/// How far an f32 may be from the number that was rounded to it, relative to that number.
const U: f64 = 1.0 / (1 << 24) as f64;

/// The first GPU that is no software, or the first of all.
fn device() -> Option<Device> {
    let first = gpu::real().or_else(|| gpu::adapters().into_iter().next());
    if first.is_none() {
        let must = std::env::var("IMAGEN_REQUIRE_GPU").as_deref() == Ok("1");
        assert!(!must, "there is no GPU, and IMAGEN_REQUIRE_GPU is 1");
        eprintln!("skipped: there is no GPU");
    }
    first.map(|adapter| gpu::open(adapter.number).expect("a GPU can be opened"))
}

// ANCHOR: gamma
/// The bound of n roundings in a row.
fn gamma(n: usize, u: f64) -> f64 {
    n as f64 * u / (1.0 - n as f64 * u)
}

/// The largest |found - exact| as a share of the bound; exact = sum of n products, sizes = sum of
/// their absolute values, both in f64, which rounds as well.
fn share_of_bound(found: &Array, [exact, sizes]: &[Array; 2], n: usize) -> f64 {
    let bound = gamma(n, U) + gamma(n, 2f64.powi(-53));
    let rows = found.to_f64().into_iter().zip(exact.to_f64()).zip(sizes.to_f64());
    rows.map(|((found, exact), size)| if size == 0.0 { 0.0 } else { (found - exact).abs() / (bound * size) })
        .fold(0.0, f64::max)
}
// ANCHOR_END: gamma

/// `count` numbers that f32 holds exactly, of either sign, of one sign, or of very different sizes.
fn numbers(kind: &str, index: u64, count: usize) -> Vec<f64> {
    let draws = normal(5, Purpose::Test, 0, index, count);
    let sized = |(i, z): (usize, f64)| match kind {
        "either sign" => z,
        "one sign" => z.abs(),
        _ => z * 2f64.powi((i * 7 % 21) as i32 - 10),
    };
    draws.into_iter().enumerate().map(sized).map(|x| f64::from(x as f32)).collect()
}

fn absolute(x: &Array) -> Array {
    Array::from_f64(x.shape(), &x.to_f64().iter().map(|v| v.abs()).collect::<Vec<_>>(), DType::F64)
}

type Product<'a> = (&'a str, Box<dyn Fn(&Array, &Array) -> Array>);

/// Every way to a product of two matrices in f32.
fn products() -> Vec<Product<'static>> {
    let mut ways: Vec<Product> = vec![("CPU", Box::new(|a, b| of(Device::Cpu).matmul(a, b, false, false)))];
    let Some(device) = device() else { return ways };
    for (name, way) in gpu::gpu(device).matmuls() {
        ways.push((name, Box::new(move |a, b| way(gpu::gpu(device), &a.to(device), &b.to(device)))));
    }
    ways
}

// ANCHOR: every_entry_of_a_product_is_within_the_bound
#[test]
fn every_entry_of_a_product_is_within_the_bound() {
    let (ways, cpu) = (products(), of(Device::Cpu));
    for n in [1, 2, 3, 7, 16, 33, 100, 257, 1000, 4096] {
        for kind in ["either sign", "one sign", "many sizes"] {
            // Sizes that fill no tile.
            let a = Array::from_f64([19, n], &numbers(kind, 1, 19 * n), DType::F64);
            let b = Array::from_f64([n, 37], &numbers(kind, 2, 37 * n), DType::F64);
            let truth = [(a.clone(), b.clone()), (absolute(&a), absolute(&b))];
            let truth = truth.map(|(a, b)| cpu.matmul(&a, &b, false, false));
            for (name, way) in &ways {
                let found = way(&a.cast(DType::F32), &b.cast(DType::F32));
                let share = share_of_bound(&found, &truth, n);
                println!("{n:>5} products of {kind:<11} on {name:<8}: {share:.5} of the bound");
                assert!(share <= 1.0, "{n} products of {kind} on {name}: {share} times the bound");
            }
        }
    }
}
// ANCHOR_END: every_entry_of_a_product_is_within_the_bound

// ANCHOR: every_pixel_of_a_convolution_is_within_the_bound
#[test]
fn every_pixel_of_a_convolution_is_within_the_bound() {
    let Some(device) = device() else { return };
    let (cpu, card) = (of(Device::Cpu), of(device));
    for (channels, k, stride) in [(1, 3, 1), (5, 3, 2), (70, 3, 1), (9, 5, 1)] {
        let conv = ConvShape { stride, padding: k / 2 };
        let x = Array::from_f64([2, channels, 9, 7], &numbers("either sign", 3, 126 * channels), DType::F64);
        let weight = numbers("either sign", 4, 6 * channels * k * k);
        let weight = Array::from_f64([6, channels, k, k], &weight, DType::F64);
        let bias = Array::from_f64([6], &numbers("either sign", 5, 6), DType::F64);
        let exact = cpu.conv2d(&x, &weight, Some(&bias), conv);
        let sizes = cpu.conv2d(&absolute(&x), &absolute(&weight), Some(&absolute(&bias)), conv);
        let there = [&x, &weight, &bias].map(|array| array.cast(DType::F32).to(device));
        let found = [
            card.conv2d(&there[0], &there[1], Some(&there[2]), conv),
            gpu::gpu(device).conv2d_direct(&there[0], &there[1], Some(&there[2]), conv),
        ];
        for found in found {
            // The bias is a term more.
            let share = share_of_bound(&found, &[exact.clone(), sizes.clone()], channels * k * k + 1);
            assert!(share <= 1.0, "{channels} channels, kernel {k}: {share} times the bound");
        }
    }
}
// ANCHOR_END: every_pixel_of_a_convolution_is_within_the_bound

// ANCHOR: roundings_that_know_nothing_of_each_other_grow_like_the_root
#[test]
fn roundings_that_know_nothing_of_each_other_grow_like_the_root() {
    const SUMS: usize = 1000;
    let mut before = None;
    for n in [64, 1024, 16_384] {
        // Mean squares of the error and of the largest sum on the way.
        let (mut error, mut largest) = (0.0, 0.0);
        for sum in 0..SUMS {
            let terms = numbers("either sign", 100 + sum as u64, n);
            let (mut s, mut exact, mut most) = (0f32, 0.0, 0f32);
            for x in terms {
                s += x as f32;
                exact += x;
                most = most.max(s.abs());
            }
            error += (f64::from(s) - exact).powi(2) / SUMS as f64;
            largest += f64::from(most).powi(2) / SUMS as f64;
        }
        let (error, largest) = (error.sqrt(), largest.sqrt());
        let share = error / ((n as f64).sqrt() * U * largest);
        println!(
            "{n:>6} terms: {share:.3} sqrt(n) u times the largest sum, {:.2e} n u",
            error / largest / U / n as f64
        );
        assert!(share <= 1.0, "{n} terms: {share}");
        // Sixteen times the terms, four times the error; its share of the largest sum, that is.
        let grown = before.map_or(4.0, |before| error / largest / before);
        assert!((3.2..5.0).contains(&grown), "{n} terms: {grown} times the error of a sixteenth");
        before = Some(error / largest);
    }
}
// ANCHOR_END: roundings_that_know_nothing_of_each_other_grow_like_the_root

// ANCHOR: a_tree_of_lanes_has_short_paths
/// As lanes.wgsl adds: every lane its own numbers one after the other, then halves onto halves.
fn by_lanes(x: &[f32], lanes: usize) -> f32 {
    let mut of_lanes: Vec<f32> = (0..lanes).map(|lane| x.iter().skip(lane).step_by(lanes).sum()).collect();
    let mut half = lanes / 2;
    while half > 0 {
        (0..half).for_each(|lane| of_lanes[lane] += of_lanes[lane + half]);
        half /= 2;
    }
    of_lanes[0]
}

#[test]
fn a_tree_of_lanes_has_short_paths() {
    let device = device();
    for (n, lanes) in [(3_usize, 1_usize), (50, 8), (500, 64), (513, 256), (5000, 256), (8192, 256)] {
        let additions = n.div_ceil(lanes) - 1 + lanes.ilog2() as usize;
        for kind in ["either sign", "one sign", "many sizes"] {
            let x = Array::from_f64([n], &numbers(kind, 6, n), DType::F64);
            let truth = [x.clone(), absolute(&x)].map(|x| of(Device::Cpu).reduce(Reduce::Sum, &x, 0..1));
            let short = x.cast(DType::F32);
            let mut found = vec![Array::from_vec([1], vec![by_lanes(short.slice(), lanes)])];
            if let Some(device) = device {
                found.push(of(device).reduce(Reduce::Sum, &short.to(device), 0..1));
                let again = of(device).reduce(Reduce::Sum, &short.to(device), 0..1);
                assert!(found[1].bit_eq(&again), "{n} numbers: two sums in the same order differ");
            }
            for found in found {
                let share = share_of_bound(&found, &truth, additions);
                assert!(share <= 1.0, "{n} numbers of {kind}: {share} times the bound of {additions} additions");
            }
        }
    }
}
// ANCHOR_END: a_tree_of_lanes_has_short_paths

// ANCHOR: counted
/// A matrix that counts how often it is read.
struct Counted<'a> {
    numbers: Vec<f64>,
    columns: usize,
    reads: &'a Cell<usize>,
}

impl Counted<'_> {
    fn read(&self, row: usize, column: usize) -> f64 {
        self.reads.set(self.reads.get() + 1);
        self.numbers[row * self.columns + column]
    }
}

/// C [m, n] as the rungs make it: tiles [t_m, t_n], slices of t_k, blocks [r_m, r_n] in registers,
/// all of which divide the sizes. Also: reads from memory, reads from shared memory, and products.
fn rung([m, n, k]: [usize; 3], [t_m, t_n, t_k]: [usize; 3], [r_m, r_n]: [usize; 2]) -> (Vec<f64>, [usize; 3]) {
    let (memory, shared, mut products) = (Cell::new(0), Cell::new(0), 0);
    let matrix = |rows: usize, columns: usize, reads| {
        let numbers = (0..rows * columns).map(|i| (i % 7) as f64 - 3.0).collect();
        Counted { numbers, columns, reads }
    };
    let (a, b, mut c) = (matrix(m, k, &memory), matrix(k, n, &memory), vec![0.0; m * n]);
    let steps = |of: usize, by: usize| (0..of).step_by(by);
    for (top, left) in steps(m, t_m).flat_map(|i| steps(n, t_n).map(move |j| (i, j))) {
        for first in steps(k, t_k) {
            let [mut slice_a, mut slice_b] = [matrix(t_m, t_k, &shared), matrix(t_k, t_n, &shared)];
            for i in 0..t_m * t_k {
                slice_a.numbers[i] = a.read(top + i / t_k, first + i % t_k);
            }
            for i in 0..t_k * t_n {
                slice_b.numbers[i] = b.read(first + i / t_n, left + i % t_n);
            }
            // A thread a block.
            for (row, column) in steps(t_m, r_m).flat_map(|i| steps(t_n, r_n).map(move |j| (i, j))) {
                for l in 0..t_k {
                    let x: Vec<f64> = (0..r_m).map(|i| slice_a.read(row + i, l)).collect();
                    let y: Vec<f64> = (0..r_n).map(|j| slice_b.read(l, column + j)).collect();
                    for (i, j) in (0..r_m).flat_map(|i| (0..r_n).map(move |j| (i, j))) {
                        c[(top + row + i) * n + left + column + j] += x[i] * y[j];
                        products += 1;
                    }
                }
            }
        }
    }
    (c, [memory.get(), shared.get(), products])
}
// ANCHOR_END: counted

// ANCHOR: reads_are_counted_rung_by_rung
#[test]
fn reads_are_counted_rung_by_rung() {
    let size = [128, 256, 32];
    let (plain, [memory, _, products]) = rung(size, [1, 1, 1], [1, 1]);
    assert_eq!((memory, products), (2 * products, 128 * 256 * 32));
    // tiled, then the tiles of gemm.rs with their blocks
    for (tile, block) in [
        ([16, 16, 16], [1, 1]),
        ([128, 128, 8], [8, 8]),
        ([64, 128, 16], [4, 8]),
        ([64, 64, 16], [4, 4]),
        ([32, 128, 16], [4, 8]),
        ([32, 32, 16], [4, 4]),
    ] {
        let (c, [memory, shared, products]) = rung(size, tile, block);
        assert_eq!((c, products), (plain.clone(), 128 * 256 * 32));
        let share = |[m, n]: [usize; 2]| 1.0 / m as f64 + 1.0 / n as f64;
        assert_eq!(memory as f64 / products as f64, share([tile[0], tile[1]]));
        assert_eq!(shared as f64 / products as f64, share(block));
    }
}
// ANCHOR_END: reads_are_counted_rung_by_rung
