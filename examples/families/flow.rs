//! A normalising flow: RealNVP (Dinh et al., arXiv 1605.08803).
//!
//! An invertible f takes a point x to z = f(x), which shall be N(0, I). The density follows by change of variables:
//!
//! ```text
//! log p(x) = log N(f(x); 0, I) + log |det df/dx|
//! ```
//!
//! f is a chain of affine couplings. Each keeps the half a of the numbers, and stretches and shifts the other half b by
//! amounts that a network reads off a:
//!
//! ```text
//! a' = a    b' = b e^{s(a)} + t(a)      inverse: b = (b' - t(a')) e^{-s(a')}     log |det| = sum of s(a)
//! ```
//!
//! The matrix of derivatives is triangular, whatever s and t are: its determinant is the product of e^s. No inverse of the
//! network is ever needed.

use super::{Family, Learner, Mlp, log_normal, noise};
use imagen::array::DType;
use imagen::autograd::{Tensor, concat, no_grad};
use imagen::nn::Init;
use imagen::random::Purpose;

/// Stretching is between e^-2 and e^2 a coupling.
const LARGEST: f64 = 2.0;

// ANCHOR: coupling
/// One affine coupling. It keeps the numbers in even places, or those in odd ones.
struct Coupling {
    keeps_even: bool,
    network: Mlp,
}

impl Coupling {
    /// (kept, changed) halves of x `[B, D]`, each `[B, D/2]`.
    fn halves(&self, x: &Tensor) -> [Tensor; 2] {
        let [b, d] = x.shape().dims("coupling");
        let pairs = x.reshape([b, d / 2, 2]);
        let [even, odd] = [0, 1].map(|i| pairs.slice(2, i..i + 1).reshape([b, d / 2]));
        if self.keeps_even { [even, odd] } else { [odd, even] }
    }

    /// The reverse of [`Coupling::halves`].
    fn join(&self, kept: &Tensor, changed: &Tensor) -> Tensor {
        let [b, half] = kept.shape().dims("coupling");
        let [even, odd] = if self.keeps_even { [kept, changed] } else { [changed, kept] };
        concat(&[even, odd].map(|x| x.reshape([b, half, 1])).each_ref(), 2).reshape([b, 2 * half])
    }

    /// s and t, each `[B, D/2]`.
    fn scale_and_shift(&self, kept: &Tensor) -> [Tensor; 2] {
        let both = self.network.forward(kept);
        let half = kept.shape()[1];
        [both.slice(1, 0..half).affine(1.0 / LARGEST, 0.0).tanh().affine(LARGEST, 0.0), both.slice(1, half..2 * half)]
    }

    /// Towards the noise: the point, and log |det|, `[B]`.
    fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let [a, b] = self.halves(x);
        let [s, t] = self.scale_and_shift(&a);
        (self.join(&a, &(&(&b * &s.exp()) + &t)), s.sum(&[1], false))
    }

    /// Towards the data.
    fn inverse(&self, z: &Tensor) -> Tensor {
        let [a, b] = self.halves(z);
        let [s, t] = self.scale_and_shift(&a);
        self.join(&a, &(&(&b - &t) * &(-&s).exp()))
    }
}
// ANCHOR_END: coupling

/// The chain of couplings.
pub struct RealNvp {
    couplings: Vec<Coupling>,
    learner: Learner,
    size: usize,
    dtype: DType,
}

impl RealNvp {
    /// Points of `size` numbers, an even one; each of `couplings` has a network with two hidden layers of `hidden`.
    pub fn new(init: &Init, [size, couplings, hidden]: [usize; 3], dtype: DType, peak: f64, steps: u64) -> RealNvp {
        assert!(size.is_multiple_of(2), "RealNVP: {size} numbers have no halves");
        let widths = [size / 2, hidden, hidden, size];
        let coupling = |i: usize| Coupling {
            keeps_even: i.is_multiple_of(2),
            network: Mlp::zeroed(&init.scope(format!("coupling.{i}")), &widths, size == 2),
        };
        let couplings = (0..couplings).map(coupling).collect();
        RealNvp { couplings, learner: Learner::new(init, peak, steps), size, dtype }
    }

    // ANCHOR: likelihood
    /// z = f(x) and log |det df/dx|, `[B, D]` and `[B]`.
    pub fn to_noise(&self, x: &Tensor) -> (Tensor, Tensor) {
        let start = (x.clone(), x.constant_like([], &[0.0]));
        self.couplings.iter().fold(start, |(x, total), coupling| {
            let (x, log_det) = coupling.forward(&x);
            (x, &total + &log_det)
        })
    }

    /// x with f(x) = z.
    pub fn to_data(&self, z: &Tensor) -> Tensor {
        self.couplings.iter().rev().fold(z.clone(), |z, coupling| coupling.inverse(&z))
    }

    /// log p(x), `[B]`.
    pub fn log_density(&self, x: &Tensor) -> Tensor {
        let (z, log_det) = self.to_noise(x);
        let zero = x.constant_like([], &[0.0]);
        &log_normal(&z, &zero, &zero) + &log_det
    }
    // ANCHOR_END: likelihood

    /// Where the points z are after each coupling on their way to the data: first z, last x.
    pub fn way(&self, z: &Tensor) -> Vec<Tensor> {
        let mut way = vec![z.clone()];
        for coupling in self.couplings.iter().rev() {
            way.push(no_grad(|| coupling.inverse(&way[way.len() - 1])));
        }
        way
    }
}

// ANCHOR: family
impl Family for RealNvp {
    fn train_step(&mut self, x: &Tensor, step: u64) -> f64 {
        let loss = self.log_density(x).mean_all().affine(-1.0 / self.size as f64, 0.0);
        self.learner.step(&loss, step) * self.size as f64
    }

    fn sample(&self, seed: u64, count: usize) -> Tensor {
        no_grad(|| self.to_data(&noise(seed, Purpose::Start, 0, [count, self.size], self.dtype)))
    }

    fn log_likelihood(&self, x: &Tensor, _: u64) -> Option<Vec<f64>> {
        Some(no_grad(|| self.log_density(x)).to_f64())
    }

    fn parameters(&self) -> usize {
        self.learner.parameters.count()
    }
}
// ANCHOR_END: family
