//! `cargo run --release --example ch05_gpu`: products and sums on a GPU, how much they read and how far they are off.
//!
//! The tree of a sum; reads from memory for every product, tile by tile; rounding errors of sums beside their bound. And, if
//! there is a GPU, the errors of a matrix product made by it in three ways and by the CPU; without one that picture is left
//! out.

mod chapter;

use chapter::Chapter;
use imagen::array::{Array, DType, Device};
use imagen::kernels::{gpu, of};
use imagen::picture::{Chart, Curve, Diagram, Layout, Picture, Tint, grid};
use imagen::random::{Purpose, normal};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch05");
    chapter.svg("tree.svg", &tree())?;
    chapter.svg("tiles.svg", &tiles())?;
    chapter.svg("reads.svg", &reads())?;
    rounding(&chapter)?;
    match gpu::real().or_else(|| gpu::adapters().into_iter().next()) {
        Some(adapter) => errors(&chapter, &adapter)?,
        None => println!("no GPU: errors-gpu.png is left out"),
    }
    Ok(())
}

/// Eight numbers in four lanes, and the lanes as a tree.
fn tree() -> String {
    let mut drawing = Diagram::new(760.0, 330.0);
    let numbers = [3, 1, 4, 1, 5, 9, 2, 6];
    let (wide, high) = (64.0, 36.0);
    let x = |lane: usize| 130.0 + 150.0 * lane as f64;
    for y in [176.0, 256.0] {
        drawing.block(90.0, y, 530.0, 4.0, &[], Tint::Pink);
        drawing.text(660.0, y + 6.0, "barrier");
    }
    let mut row: Vec<(usize, i32)> = (0..4)
        .map(|lane| {
            for half in 0..2 {
                let words = numbers[lane + 4 * half].to_string();
                let tint = [Tint::Grey, Tint::Green][half];
                drawing.block(x(lane) - 32.0 + 32.0 * half as f64, 40.0, 32.0, high, &[&words], tint);
            }
            let sum = numbers[lane] + numbers[lane + 4];
            let block = drawing.block(x(lane) - wide / 2.0, 120.0, wide, high, &[&sum.to_string()], Tint::Blue);
            drawing.line(&[(x(lane), 40.0 + high), (x(lane), 118.0)], "");
            drawing.text(x(lane), 28.0, &format!("thread {lane}"));
            (block, sum)
        })
        .collect();
    for (level, y) in [(2, 200.0), (1, 280.0)] {
        row = (0..level)
            .map(|lane| {
                let sum = row[lane].1 + row[lane + level].1;
                let tint = if level == 1 { Tint::Orange } else { Tint::Blue };
                let block = drawing.block(x(lane) - wide / 2.0, y, wide, high, &[&sum.to_string()], tint);
                drawing.arrow(row[lane].0, block, "");
                drawing.arrow(row[lane + level].0, block, "");
                (block, sum)
            })
            .collect();
    }
    drawing.svg()
}

/// A tile of C, the slices it needs of A and B, and the block of one thread.
fn tiles() -> String {
    let mut drawing = Diagram::new(760.0, 430.0);
    drawing.block(40.0, 200.0, 180.0, 200.0, &[], Tint::Grey);
    drawing.block(280.0, 20.0, 260.0, 150.0, &[], Tint::Grey);
    drawing.block(280.0, 200.0, 260.0, 200.0, &[], Tint::Grey);
    drawing.block(40.0, 240.0, 180.0, 80.0, &[], Tint::Grey);
    drawing.block(380.0, 20.0, 80.0, 150.0, &[], Tint::Grey);
    let a = drawing.block(100.0, 240.0, 30.0, 80.0, &[], Tint::Blue);
    let b = drawing.block(380.0, 70.0, 80.0, 30.0, &[], Tint::Green);
    let c = drawing.block(380.0, 240.0, 80.0, 80.0, &[], Tint::Orange);
    drawing.block(400.0, 260.0, 20.0, 20.0, &[], Tint::Pink);
    drawing.arrow(a, c, "");
    drawing.arrow(b, c, "");
    for (x, y, words) in [
        (130.0, 416.0, "A: m rows, k columns"),
        (640.0, 40.0, "B: k rows, n columns"),
        (410.0, 416.0, "C: m rows, n columns"),
        (115.0, 232.0, "a slice"),
        (500.0, 88.0, "a slice"),
        (640.0, 276.0, "a tile: one workgroup"),
        (640.0, 296.0, "pink: a thread's block"),
    ] {
        drawing.text(x, y, words);
    }
    drawing.svg()
}

/// Reads for a product, by the side of a square tile or block.
fn reads() -> String {
    let sides = (0..=7).map(|e| f64::from(1 << e));
    let share = |side: f64| 2.0 / side;
    let rungs = [(1.0, "plain"), (16.0, "tiled: 16 x 16"), (128.0, "blocked: 128 x 128")];
    let mut chart = Chart::new("Numbers read from memory for one product")
        .x("side of a square tile")
        .y("reads")
        .log_x()
        .log_y()
        .curve(Curve::new("2 / side", sides.map(|side| (side, share(side))).collect()));
    for (side, name) in rungs {
        chart = chart.dots(name, vec![(side, share(side))]);
    }
    chart.svg()
}

/// How far an f32 may be from the number that was rounded to it, relative to that number.
const U: f64 = 1.0 / (1 << 24) as f64;

/// The bound of n roundings in a row.
fn gamma(n: usize) -> f64 {
    n as f64 * U / (1.0 - n as f64 * U)
}

/// Errors of scalar products in f32, one after the other, beside the bound; loops of plain Rust, the same everywhere.
fn rounding(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (most, tries) = chapter.size((14, 100), (6, 3));
    let [mut bound, mut short, mut row, mut tree] = [const { Vec::new() }; 4];
    println!("Largest error of {tries} scalar products of n numbers, as a share of the bound for any order:");
    for n in (1..=most).map(|e| 1_usize << e) {
        let mut worst = [0.0_f64; 2];
        for t in 0..tries {
            let draws = normal(5, Purpose::Test, n as u64, t, 2 * n);
            let products: Vec<[f32; 2]> = draws.chunks_exact(2).map(|p| [p[0] as f32, p[1] as f32]).collect();
            let exact: f64 = products.iter().map(|[a, b]| f64::from(*a) * f64::from(*b)).sum();
            let size: f64 = products.iter().map(|[a, b]| (f64::from(*a) * f64::from(*b)).abs()).sum();
            let one_by_one = products.iter().fold(0f32, |sum, [a, b]| sum + a * b);
            let rounded: Vec<f32> = products.iter().map(|[a, b]| a * b).collect();
            for (worst, found) in worst.iter_mut().zip([one_by_one, halves(&rounded)]) {
                *worst = worst.max((f64::from(found) - exact).abs() / size);
            }
        }
        let at = n as f64;
        bound.push((at, gamma(n)));
        // One rounding of the product, and one for each level of the tree.
        short.push((at, gamma(1 + n.ilog2() as usize)));
        row.push((at, worst[0]));
        tree.push((at, worst[1]));
        println!("  n = {n:>5}: one by one {:.5}, as a tree {:.5}", worst[0] / gamma(n), worst[1] / gamma(n));
    }
    let chart = Chart::new("Rounding errors of scalar products in f32")
        .x("numbers n")
        .y("error over the sum of |a b|")
        .log_x()
        .log_y()
        .curve(Curve::new("bound, any order", bound))
        .curve(Curve::new("largest, one by one", row))
        .curve(Curve::new("bound of a tree", short))
        .curve(Curve::new("largest, as a tree", tree));
    chapter.svg("rounding.svg", &chart.svg())
}

/// The sum of one half plus the sum of the other.
fn halves(x: &[f32]) -> f32 {
    match x {
        [] => 0.0,
        [one] => *one,
        _ => halves(&x[..x.len() / 2]) + halves(&x[x.len() / 2..]),
    }
}

/// Matrix products of which row i of A is 10^(i / rows * 3) times as large as the first: four ways, and their errors, above
/// as they are, below as shares of the bound.
fn errors(chapter: &Chapter, adapter: &gpu::Adapter) -> Result<(), Box<dyn Error>> {
    println!("GPU: {}, {}", adapter.name, adapter.kind);
    let (side, length) = chapter.size((64, 2048), (16, 64));
    let device = gpu::open(adapter.number)?;
    let draws = |index, count| normal(5, Purpose::Test, 1, index, count);
    let rounded = |x: f64| f64::from(x as f32);
    let grown = |(i, z): (usize, f64)| rounded(z * 10f64.powf(3.0 * (i / length) as f64 / side as f64));
    let a: Vec<f64> = draws(0, side * length).into_iter().enumerate().map(grown).collect();
    let b: Vec<f64> = draws(1, side * length).into_iter().map(rounded).collect();
    let matrix = |shape, values: &[f64]| Array::from_f64(shape, values, DType::F64);
    let (a, b) = (matrix([side, length], &a), matrix([length, side], &b));
    let absolute = |x: &Array| {
        let values: Vec<f64> = x.to_f64().iter().map(|v| v.abs()).collect();
        Array::from_f64(x.shape(), &values, DType::F64)
    };
    let cpu = of(Device::Cpu);
    let exact = cpu.matmul(&a, &b, false, false).to_f64();
    let bound: Vec<f64> = cpu.matmul(&absolute(&a), &absolute(&b), false, false).to_f64();
    let bound: Vec<f64> = bound.into_iter().map(|size| gamma(length) * size).collect();
    let (a, b) = (a.cast(DType::F32), b.cast(DType::F32));
    let mut ways = vec![("CPU", cpu.matmul(&a, &b, false, false).to_f64())];
    let (a, b) = (a.to(device), b.to(device));
    ways.extend(gpu::gpu(device).matmuls().map(|(name, way)| (name, way(gpu::gpu(device), &a, &b).to_f64())));
    // A GPU that has failed would leave NaN.
    of(device).check()?;

    println!("Errors of {side}x{side} entries, each a sum of {length} products:");
    let mut tiles = [Vec::new(), Vec::new()];
    for (name, found) in &ways {
        let errors: Vec<f64> = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).collect();
        let shares: Vec<f64> = errors.iter().zip(&bound).map(|(error, bound)| error / bound).collect();
        let (largest, mean) =
            (shares.iter().fold(0.0, |m: f64, v| m.max(*v)), shares.iter().sum::<f64>() / bound.len() as f64);
        println!("  {name:<8} at most {largest:.5} of the bound, {mean:.6} in the mean");
        tiles[0].push(errors);
        tiles[1].push(shares);
    }
    let mut pictures = Vec::new();
    for row in &tiles {
        // One scale for a row of pictures.
        let most = row.iter().flatten().fold(0.0, |m: f64, v| m.max(*v));
        pictures.extend(row.iter().map(|values| map(values, side, most)));
    }
    chapter.png("errors-gpu.png", &grid(&pictures, Layout { gap: 4, background: 225, enlarge: 3, columns: 4 }))
}

/// White for 0, blue for `most`; by the root, so that small ones show.
fn map(values: &[f64], side: usize, most: f64) -> Picture {
    let mut picture = Picture::blank(side, side, 3, 255);
    for (pixel, value) in picture.pixels.chunks_exact_mut(3).zip(values) {
        let shade = (value / most).sqrt();
        pixel
            .iter_mut()
            .zip([0.0, 70.0, 140.0])
            .for_each(|(p, dark)| *p = (255.0 + shade * (dark - 255.0)).round() as u8);
    }
    picture
}
