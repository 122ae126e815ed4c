//! Chapter 1: images as numbers, shapes that broadcast, sums that round, and products of matrices.
//!
//! Draws a piece of a digit with its numbers, how two shapes fit, the error of two ways to add, and the mean of every
//! digit, which is one matrix product. Prints how much faster a product is that thinks of the memory.

mod chapter;

use chapter::Chapter;
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::data::{Dataset, DatasetName, Images};
use imagen::picture::{Chart, Curve, Diagram, Layout, Picture, Tint, grid, heatmap};
use imagen::random::{Purpose, normal};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch01");
    let digits = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.train;
    numbers_of_a_digit(&chapter, &digits)?;
    broadcasting(&chapter)?;
    rounding(&chapter)?;
    means(&chapter, &digits)?;
    times(&chapter);
    Ok(())
}

/// A piece of the first training image, each pixel with its number from 0 to 255.
fn numbers_of_a_digit(chapter: &Chapter, digits: &Images) -> Result<(), Box<dyn Error>> {
    let (top, left, side) = (5, 12, 12);
    let image = digits.image(0);
    let names = |from: usize| (from..from + side).map(|i| i.to_string()).collect::<Vec<_>>();
    let values: Vec<f64> =
        (0..side * side).map(|i| f64::from(image[(top + i / side) * 28 + left + i % side])).collect();
    let title = "The upper part of a handwritten five, as the computer has it";
    chapter.svg("numbers.svg", &heatmap(title, ("row", "column"), &names(top), &names(left), &values))?;

    let batch = Array::from_vec([2, 1, 28, 28], digits.batch_f32(&[0, 1]));
    println!("Two images are {batch:?}");
    println!("The pixel in row 9, column 16 of the first lies at {} of {}.\n", 9 * 28 + 16, batch.numel());
    Ok(())
}

/// How [3, 1] and [4] make [3, 4], drawn cell by cell.
fn broadcasting(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let column = Tensor::from_f64([3, 1], &[10.0, 20.0, 30.0], DType::F32);
    let row = Tensor::from_f64([4], &[1.0, 2.0, 3.0, 4.0], DType::F32);
    let sum = &column + &row;
    println!("{} + {} = {}: {:?}\n", column.shape(), row.shape(), sum.shape(), sum.to_f64());

    let mut drawing = Diagram::new(700.0, 210.0);
    let (cell, top) = (44.0, 50.0);
    let mut table = |left: f64, values: &dyn Fn(usize, usize) -> f64, own: &dyn Fn(usize, usize) -> bool| {
        for (i, j) in (0..3).flat_map(|i| (0..4).map(move |j| (i, j))) {
            let tint = if own(i, j) { Tint::Blue } else { Tint::Grey };
            let (x, y) = (left + cell * j as f64, top + cell * i as f64);
            drawing.block(x, y, cell - 3.0, cell - 3.0, &[&format!("{}", values(i, j))], tint);
        }
    };
    let (a, b, c) = (column.to_f64(), row.to_f64(), sum.to_f64());
    table(20.0, &|i, _| a[i], &|_, j| j == 0);
    table(260.0, &|_, j| b[j], &|i, _| i == 0);
    table(500.0, &|i, j| c[4 * i + j], &|_, _| true);
    for (x, words) in [(106.0, "[3, 1]: the column repeated"), (346.0, "[4]: the row repeated"), (586.0, "[3, 4]")] {
        drawing.text(x, 34.0, words);
    }
    drawing.text(226.0, 120.0, "+");
    drawing.text(466.0, 120.0, "=");
    chapter.svg("broadcasting.svg", &drawing.svg())
}

/// The relative error of a sum of n numbers around 0.1, added in two ways, and its bound.
fn rounding(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let longest = chapter.size(22, 12);
    let x: Vec<f32> = normal(0, Purpose::Test, 0, 0, 1 << longest).into_iter().map(|z| 0.1 + 0.05 * z as f32).collect();
    let mut curves = [Vec::new(), Vec::new(), Vec::new()];
    let unit = 1.0 / f64::from(1 << 24);
    for n in (4..=longest).map(|power| 1 << power) {
        let x = &x[..n];
        let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
        let running = f64::from(x.iter().sum::<f32>());
        let ours = Tensor::constant(Array::from_vec([n], x.to_vec())).sum_all().item();
        let error = |sum: f64| ((sum - exact) / exact).abs().max(1e-10);
        let roundings = (n - 1) as f64 * unit;
        let bound = roundings / (1.0 - roundings);
        for (curve, value) in curves.iter_mut().zip([bound, error(running), error(ours)]) {
            curve.push((n as f64, value));
        }
    }
    let (n, running) = curves[1][curves[1].len() - 1];
    println!(
        "Adding {n} numbers one after another in f32 is off by {:.4} %, the sum of an array by {:.1e}.",
        100.0 * running,
        curves[2][curves[2].len() - 1].1
    );
    let unlucky = (0..10_000).fold(1.0_f32, |sum, _| sum + (1.001 * unit) as f32);
    println!("1 and ten thousand times 1.001 u are {unlucky:.6} in f32, and truly {:.6}.\n", 1.0 + 10_010.0 * unit);
    let [bound, running, ours] = curves;
    let chart = Chart::new("The error of a sum").x("numbers added").y("relative error").log_x().log_y();
    let chart =
        chart.curve(Curve::new("bound, equation (1.7)", bound)).curve(Curve::new("one after another, in f32", running));
    chapter.svg("rounding.svg", &chart.curve(Curve::new("in lanes and blocks (the kernel)", ours)).svg())
}

/// The mean image of each digit: a matrix of shares [10, B] times the images [B, 784].
fn means(chapter: &Chapter, digits: &Images) -> Result<(), Box<dyn Error>> {
    let count = chapter.size(10_000, 500);
    let chosen: Vec<usize> = (0..count).collect();
    let images = Tensor::constant(Array::from_vec([count, 784], digits.batch_f32(&chosen)));
    let labels = digits.batch_labels(&chosen);
    let mut shares = vec![0.0; 10 * count];
    for digit in 0..10 {
        let total = labels.iter().filter(|&&label| label == digit).count();
        for (i, _) in labels.iter().enumerate().filter(|&(_, &label)| label == digit) {
            shares[digit * count + i] = 1.0 / total as f64;
        }
    }
    let shares = Tensor::from_f64([10, count], &shares, DType::F32);
    let means = shares.matmul(&images);
    println!("{} times {} is {}: the mean image of every digit.\n", shares.shape(), images.shape(), means.shape());
    let pictures = Picture::from_array(means.reshape([10, 1, 28, 28]).array());
    chapter.png("means.png", &grid(&pictures, Layout { columns: 5, ..Layout::new(5) }))
}

/// C = A B as the definition says: for every number of the result, a row times a column.
fn by_definition(a: &[f32], b: &[f32], n: usize) -> Vec<f32> {
    let number = |i: usize, j: usize| (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
    (0..n * n).map(|at| number(at / n, at % n)).collect()
}

/// Prints the time of one product, by definition and by the kernel.
fn times(chapter: &Chapter) {
    let n = chapter.size(768, 48);
    let values =
        |seed| -> Vec<f32> { normal(seed, Purpose::Test, 0, 0, n * n).into_iter().map(|v| v as f32).collect() };
    let (a, b) = (values(1), values(2));
    let rate = |seconds: f64| 2.0 * (n as f64).powi(3) / seconds / 1e9;

    let start = Instant::now();
    let plain = by_definition(&a, &b, n);
    let slow = start.elapsed().as_secs_f64();
    let (x, y) = (Tensor::constant(Array::from_vec([n, n], a)), Tensor::constant(Array::from_vec([n, n], b)));
    let start = Instant::now();
    let fast_result = x.matmul(&y);
    let fast = start.elapsed().as_secs_f64();

    let off = fast_result.to_f64().iter().zip(&plain).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
    println!("[{n}, {n}] times [{n}, {n}]: by definition {:.1} GFLOP/s, by the kernel {:.1}.", rate(slow), rate(fast));
    println!("The two results differ by {off:.1e} at most: the sums were added in another order.");
}
