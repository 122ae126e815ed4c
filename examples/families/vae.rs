//! A variational autoencoder (Kingma and Welling, arXiv 1312.6114).
//!
//! ```text
//! p(z) = N(0, I)    p(x|z) = N(decoder(z), s^2 I)    p(x) = integral of p(x|z) p(z)
//!
//! log p(x) = ELBO(x) + KL(q(z|x) || p(z|x))      for any q, so ELBO <= log p(x)
//! ELBO(x)  = E_q log p(x|z) - KL(q(z|x) || p(z))
//! ```
//!
//! The encoder says q(z|x) = N(m(x), diag e^l(x)). One z of it is m + e^{l/2} eps with eps from N(0, I): the randomness
//! comes from outside, and the gradient reaches m and l. The width s of the pixels is learned too.

use super::{Family, Learner, Mlp, log_normal, noise};
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::nn::{Fill, Init, Param};
use imagen::random::Purpose;

/// log s^2 of the untrained model. From s = 1 a cloud that says nothing of z would be a good start, and the end: "posterior
/// collapse".
const START: f64 = -4.0;

/// Encoder, decoder, and the width of what is decoded.
pub struct Vae {
    encoder: Mlp,
    decoder: Mlp,
    /// log s^2 less [`START`], `[1]`.
    log_variance: Param,
    learner: Learner,
    latent: usize,
    dtype: DType,
    /// How many draws of z an estimate of the likelihood takes.
    pub draws: usize,
}

impl Vae {
    /// Points of `size` numbers, `latent` numbers of z, and hidden layers `hidden` in either network: without any, both are
    /// linear.
    pub fn new(init: &Init, [size, latent]: [usize; 2], hidden: &[usize], peak: f64, steps: u64) -> Vae {
        let widths = |from: usize, to: usize| [&[from], hidden, &[to]].concat();
        let waves = size == 2 && !hidden.is_empty();
        let encoder = Mlp::new(&init.scope("encoder"), &widths(size, 2 * latent), waves);
        let decoder = Mlp::new(&init.scope("decoder"), &widths(latent, size), waves);
        let log_variance = init.param("log_variance", [1], Fill::Zeros);
        let dtype = log_variance.tensor().dtype();
        Vae { encoder, decoder, log_variance, learner: Learner::new(init, peak, steps), latent, dtype, draws: 500 }
    }

    /// m and l of q(z|x), each `[B, latent]`.
    pub fn encode(&self, x: &Tensor) -> [Tensor; 2] {
        let both = self.encoder.forward(x);
        [both.slice(1, 0..self.latent), both.slice(1, self.latent..2 * self.latent)]
    }

    /// The mean of p(x|z), `[B, D]`.
    pub fn decode(&self, z: &Tensor) -> Tensor {
        self.decoder.forward(z)
    }

    /// log s^2, `[1]`.
    fn log_variance(&self) -> Tensor {
        &self.log_variance.tensor() + START
    }

    /// s.
    pub fn width(&self) -> f64 {
        (0.5 * self.log_variance().item()).exp()
    }

    // ANCHOR: elbo
    /// An estimate of the ELBO, `[B]`, from one draw `eps` `[B, latent]`: the reconstruction by that draw, the divergence in
    /// closed form.
    pub fn elbo(&self, x: &Tensor, eps: &Tensor) -> Tensor {
        let [m, l] = self.encode(x);
        let z = reparameterised(&m, &l, eps);
        let reconstruction = log_normal(x, &self.decode(&z), &self.log_variance());
        &reconstruction - &kl_from_standard_normal(&m, &l)
    }
    // ANCHOR_END: elbo

    // ANCHOR: weights
    /// log p(x, z) / q(z|x), `[B]`, at the z of one draw `eps`.
    pub fn log_weight(&self, x: &Tensor, eps: &Tensor) -> Tensor {
        let [m, l] = self.encode(x);
        let z = reparameterised(&m, &l, eps);
        let zero = x.constant_like([], &[0.0]);
        let joint = &log_normal(x, &self.decode(&z), &self.log_variance()) + &log_normal(&z, &zero, &zero);
        &joint - &log_normal(&z, &m, &l)
    }

    /// log of the mean of k weights, for every point (Burda et al., arXiv 1509.00519): the ELBO in expectation for k = 1,
    /// never smaller for a larger k, and never above log p(x).
    pub fn importance_bound(&self, x: &Tensor, k: usize, seed: u64) -> Vec<f64> {
        let draw = |i: usize| {
            let eps = noise(seed, Purpose::Test, i as u64, [x.shape()[0], self.latent], self.dtype);
            no_grad(|| self.log_weight(x, &eps)).to_f64()
        };
        let weights: Vec<Vec<f64>> = (0..k).map(draw).collect();
        (0..x.shape()[0]).map(|b| log_mean_exp(weights.iter().map(|w| w[b]))).collect()
    }
    // ANCHOR_END: weights
}

// ANCHOR: reparameterised
/// m + e^{l/2} eps: a draw from N(m, diag e^l) that m and l have a gradient of.
pub fn reparameterised(m: &Tensor, l: &Tensor, eps: &Tensor) -> Tensor {
    m + &(&l.affine(0.5, 0.0).exp() * eps)
}

/// KL(N(m, diag e^l) || N(0, I)) = 1/2 sum (m^2 + e^l - l - 1), `[B]`.
pub fn kl_from_standard_normal(m: &Tensor, l: &Tensor) -> Tensor {
    (&(&(&m.square() + &l.exp()) - l) - 1.0).sum(&[1], false).affine(0.5, 0.0)
}
// ANCHOR_END: reparameterised

/// log of the mean of e^value.
pub fn log_mean_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), v| (sum + (v - largest).exp(), count + 1.0));
    largest + (sum / count).ln()
}

// ANCHOR: family
impl Family for Vae {
    fn train_step(&mut self, x: &Tensor, step: u64) -> f64 {
        let [b, d] = x.shape().dims("vae");
        let eps = noise(0, Purpose::Noise, step, [b, self.latent], self.dtype);
        let loss = self.elbo(x, &eps).mean_all().affine(-1.0 / d as f64, 0.0);
        self.learner.step(&loss, step) * d as f64
    }

    /// z from N(0, I), then x from p(x|z); of an image (many numbers) only the mean, for the noise of the pixels is noise.
    fn sample(&self, seed: u64, count: usize) -> Tensor {
        let z = noise(seed, Purpose::Start, 0, [count, self.latent], self.dtype);
        let mean = no_grad(|| self.decode(&z));
        let [_, d] = mean.shape().dims("vae");
        let width = if d > 2 { 0.0 } else { self.width() };
        &mean + &noise(seed, Purpose::Sampler, 0, [count, d], self.dtype).affine(width, 0.0)
    }

    fn log_likelihood(&self, x: &Tensor, seed: u64) -> Option<Vec<f64>> {
        Some(self.importance_bound(x, self.draws, seed))
    }

    fn parameters(&self) -> usize {
        self.learner.parameters.count()
    }
}
// ANCHOR_END: family
