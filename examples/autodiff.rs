//! `cargo run --example autodiff`: how a program differentiates itself.
//!
//! Computes f(a, b) = sin(a b) + a / b, prints the graph that the computation left behind, walks it backwards for the
//! gradients, compares them with calculus and with finite differences, and draws f and its slope into out/autodiff.svg.

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, check_gradients};
use imagen::files;
use imagen::picture::{Chart, Curve};
use std::error::Error;
use std::path::Path;

/// Ordinary code; that its operators also take notes is all there is to it.
fn f(a: &Tensor, b: &Tensor) -> Tensor {
    &(a * b).sin() + &(a / b)
}

fn leaf(value: f64) -> Tensor {
    Tensor::leaf(Array::from_f64([], &[value], DType::F64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (a, b) = (leaf(2.0), leaf(0.5));
    let y = f(&a, &b);
    println!("f(a, b) = sin(a b) + a / b at a = 2, b = 0.5 is {:.6}", y.item());

    println!("\nHow it came about, newest first. Ids only grow, so this is the order in which gradients flow back:");
    for (id, op, parents) in y.history() {
        let from: Vec<String> = parents.iter().map(|p| format!("#{p}")).collect();
        println!("  #{id:<3} {op:<5} {}", from.join(" "));
    }

    let gradients = y.backward();
    let of = |leaf: &Tensor| gradients.get(leaf).map_or(0.0, Array::item);
    let cos = (2.0_f64 * 0.5).cos();
    println!("\nGradients by that walk, and by calculus:");
    println!("  df/da = {:.12}   b cos(a b) + 1 / b   = {:.12}", of(&a), 0.5 * cos + 1.0 / 0.5);
    println!("  df/db = {:.12}   a cos(a b) - a / b^2 = {:.12}", of(&b), 2.0 * cos - 2.0 / 0.25);

    let at = [Array::from_f64([], &[2.0], DType::F64), Array::from_f64([], &[0.5], DType::F64)];
    let worst = check_gradients(|x| f(&x[0], &x[1]), &at, 0, 1e-6)?;
    println!("\nAgainst finite differences they are off by {worst:.1e} at most.");

    let (mut values, mut slopes) = (Vec::new(), Vec::new());
    for i in 0..=200 {
        let (a, b) = (leaf(f64::from(i) * 0.05), Tensor::scalar(1.5, DType::F64));
        let y = f(&a, &b);
        values.push((a.item(), y.item()));
        slopes.push((a.item(), y.backward().get(&a).map_or(0.0, Array::item)));
    }
    let out = Path::new("out");
    files::create_folder(out)?;
    let chart = Chart::new("f(a, 3/2) = sin(3a/2) + 2a/3 and its slope").x("a").curve(Curve::new("f", values));
    let svg = chart.curve(Curve::new("df/da, by backward", slopes)).svg();
    files::write(&out.join("autodiff.svg"), svg.as_bytes())?;
    println!("\nout/autodiff.svg shows f and its slope for b = 1.5: the slope crosses 0 where f turns.");
    Ok(())
}
