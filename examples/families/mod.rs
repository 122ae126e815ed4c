//! Four families of generative models on one engine: a GAN, a VAE, a flow and diffusion. One file each; all are made of
//! the same dense layers, learn from points `[B, D]`, and draw points `[count, D]`. D is 2 for points of the plane, and 784
//! for digits.

#![allow(dead_code)] // the programs and tests that include this module use different parts of it

pub mod diffusion;
pub mod flow;
pub mod gan;
pub mod measure;
pub mod vae;

use imagen::array::DType;
use imagen::autograd::{Tensor, concat};
use imagen::nn::{Init, Linear, Parameters};
use imagen::optim::{Adam, LearningRate, Optimizer, clip};
use imagen::random::{Purpose, normal};

// ANCHOR: family
/// What all families can do.
pub trait Family {
    /// One step of training on the points `x` `[B, D]`; returns the loss. `step` counts from 0.
    fn train_step(&mut self, x: &Tensor, step: u64) -> f64;

    /// New points `[count, D]`; the same for the same `seed`.
    fn sample(&self, seed: u64, count: usize) -> Tensor;

    /// log p(x) of every point in nats: exact, or a lower bound, or an estimate of one. `None` if the family has none.
    fn log_likelihood(&self, x: &Tensor, seed: u64) -> Option<Vec<f64>>;

    /// How many numbers it has learned.
    fn parameters(&self) -> usize;
}
// ANCHOR_END: family

// ANCHOR: mlp
/// Dense layers with SiLU between them. Those for points of the plane are shown the points as waves too.
pub struct Mlp {
    layers: Vec<Linear>,
    waves: bool,
}

impl Mlp {
    /// Layers from `widths[0]` numbers over `widths[1]`, .. to the last.
    pub fn new(init: &Init, widths: &[usize], waves: bool) -> Mlp {
        let mut widths = widths.to_vec();
        widths[0] *= if waves { 1 + 2 * WAVES } else { 1 };
        let layer = |(i, pair): (usize, &[usize])| Linear::new(&init.scope(i), pair[0], pair[1]);
        Mlp { layers: widths.windows(2).enumerate().map(layer).collect(), waves }
    }

    /// The same, with a last layer of zeros: it says 0 until it has learned.
    pub fn zeroed(init: &Init, widths: &[usize], waves: bool) -> Mlp {
        let last = widths.len() - 2;
        let mut mlp = Mlp::new(init, &widths[..=last], waves);
        mlp.layers.push(Linear::zeroed(&init.scope(last), widths[last], widths[last + 1]));
        mlp
    }

    /// `[B, widths[0]]` to `[B, last width]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = if self.waves { as_waves(x) } else { x.clone() };
        let (last, hidden) = self.layers.split_last().expect("an Mlp has layers");
        last.forward(&hidden.iter().fold(x, |h, layer| layer.forward(&h).silu()))
    }
}

/// How many waves there are of each number.
const WAVES: usize = 4;

/// `[B, n]` to `[B, n (1 + 2 WAVES)]`: the numbers, and sines and cosines of 10, 5, 2.5 and 1.25 times them. The details of
/// the data in the plane are small, and a network of plain numbers is slow to see such (Tancik et al., arXiv 2006.10739).
pub fn as_waves(x: &Tensor) -> Tensor {
    let mut features = vec![x.clone()];
    for i in 0..WAVES {
        let scaled = x * (10.0 / f64::from(1 << i));
        features.extend([scaled.sin(), scaled.cos()]);
    }
    concat(&features.iter().collect::<Vec<_>>(), 1)
}

// ANCHOR_END: mlp

/// How all but the GAN learn: Adam, a rate that rises and falls, gradients that cannot be huge.
pub struct Learner {
    pub parameters: Parameters,
    adam: Adam,
    rate: LearningRate,
}

impl Learner {
    /// For `steps` steps with rates up to `peak`.
    pub fn new(init: &Init, peak: f64, steps: u64) -> Learner {
        let rate = LearningRate::WarmupCosine { peak, warmup: steps / 20, total: steps, end: 0.0 };
        Learner { parameters: init.parameters(), adam: Adam::new([0.9, 0.999], 1e-8, 0.0), rate }
    }

    /// One step down the gradient of `loss`; returns its value.
    pub fn step(&mut self, loss: &Tensor, step: u64) -> f64 {
        let mut gradients = loss.backward();
        clip(&mut gradients, &self.parameters, 1.0);
        self.adam.step(&self.parameters, &gradients, self.rate.at(step));
        loss.item()
    }
}

/// Draws from N(0, 1) as a tensor `shape`, keyed by (`seed`, `purpose`, `step`).
pub fn noise(seed: u64, purpose: Purpose, step: u64, shape: [usize; 2], dtype: DType) -> Tensor {
    Tensor::from_f64(shape, &normal(seed, purpose, step, 0, shape[0] * shape[1]), dtype)
}

/// sum over D of log N(x; mean, e^log_variance), `[B]`; `mean` and `log_variance` are `[B, D]` or broadcast to it.
pub fn log_normal(x: &Tensor, mean: &Tensor, log_variance: &Tensor) -> Tensor {
    let scaled = &(x - mean).square() * &(-log_variance).exp();
    (&(&scaled + log_variance) + std::f64::consts::TAU.ln()).sum(&[1], false).affine(-0.5, 0.0)
}
