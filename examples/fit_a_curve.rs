//! `cargo run --release --example fit_a_curve`: training, at its smallest.
//!
//! A network of three layers learns sin(x) from 200 noisy points: predict, measure the error, follow the gradient down,
//! a thousand times. The U-Net of this crate is trained by the same four lines. Draws data and fit into
//! out/fit_a_curve.svg.

use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::files;
use imagen::nn::{Init, Linear};
use imagen::optim::{Adam, Optimizer};
use imagen::picture::{Chart, Curve};
use imagen::random::{Purpose, normal};
use std::error::Error;
use std::path::Path;

/// One number in, one number out, through two hidden layers.
struct Network([Linear; 3]);

impl Network {
    fn new(init: &Init) -> Network {
        let layer = |name, inputs, outputs| Linear::new(&init.scope(name), inputs, outputs);
        Network([layer("first", 1, 32), layer("second", 32, 32), layer("last", 32, 1)])
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, last] = &self.0;
        last.forward(&second.forward(&first.forward(x).silu()).silu())
    }
}

const POINTS: usize = 200;
const NOISE: f64 = 0.2;

fn main() -> Result<(), Box<dyn Error>> {
    let xs: Vec<f64> = (0..POINTS).map(|i| 8.0 * i as f64 / POINTS as f64 - 4.0).collect();
    let noise = normal(0, Purpose::Test, 0, 0, POINTS);
    let ys: Vec<f64> = xs.iter().zip(&noise).map(|(x, z)| x.sin() + NOISE * z).collect();
    let (x, y) = (Tensor::from_f64([POINTS, 1], &xs, DType::F32), Tensor::from_f64([POINTS, 1], &ys, DType::F32));

    let init = Init::new(1, DType::F32);
    let network = Network::new(&init);
    let parameters = init.parameters();
    println!("A network of {} numbers learns sin(x) from {POINTS} noisy points.", parameters.count());

    let mut optimizer = Adam::new([0.9, 0.999], 1e-8, 0.0);
    for step in 0..=1000 {
        let loss = network.forward(&x).mse(&y);
        if step % 200 == 0 {
            println!("step {step:>4}: mean squared error {:.4}", loss.item());
        }
        let gradients = loss.backward();
        optimizer.step(&parameters, &gradients, 1e-2);
    }

    let fit = no_grad(|| network.forward(&x)).to_f64();
    let off = (fit.iter().zip(&xs).map(|(f, x)| (f - x.sin()).powi(2)).sum::<f64>() / POINTS as f64).sqrt();
    println!("The error cannot fall much below the noise's {:.4} by learning. From sin(x) itself,", NOISE * NOISE);
    println!("which it never saw, the network is {off:.3} away; each single point was {NOISE}.");

    let line = |values: &dyn Fn(usize) -> f64| (0..POINTS).map(|i| (xs[i], values(i))).collect::<Vec<_>>();
    let chart = Chart::new("A curve found among noisy points")
        .x("x")
        .y("y")
        .dots("what it was shown", line(&|i| ys[i]))
        .curve(Curve::new("what it learned", line(&|i| fit[i])))
        .curve(Curve::new("sin(x)", line(&|i| xs[i].sin())));
    let out = Path::new("out");
    files::create_folder(out)?;
    files::write(&out.join("fit_a_curve.svg"), chart.svg().as_bytes())?;
    println!("out/fit_a_curve.svg shows all three.");
    Ok(())
}
