//! The learned variance, and the loss that teaches it (B3, C2, C6). Improved DDPM (2102.09672), section 3.1.
//!
//! Beside its prediction the network says v for every number of the image, and the variance of its step is
//!
//! ```text
//! Sigma = exp(v log beta_i + (1 - v) log beta_tilde_i)
//! ```
//!
//! L_simple does not contain it. So a little of the bound is added, from which the mean learns nothing: its gradient reaches v alone.

use super::gaussian::{discretised_log_probability, discretised_log_probability_slope, level_of};
use super::{DiscreteSchedule, Posterior, ReverseVariance};
use crate::autograd::Tensor;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

/// Where the variance of a model's step comes from, as configs write it: `"fixed"` or `"learned"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceConfig {
    /// The sampler chooses it between beta_tilde and beta.
    #[default]
    Fixed,
    /// The network says it, number by number.
    Learned,
}

/// The weight of L_vlb in L_hybrid. Improved DDPM, section 3.1.
pub const VLB_WEIGHT: f64 = 0.001;

/// v of (B3) from what the network says of it, any shape: (output + 1) / 2. An output of 0 is half-way between the two variances.
///
/// Nothing keeps v between 0 and 1, as in the paper.
pub fn v_of_output(output: &Tensor) -> Tensor {
    output.affine(0.5, 0.5)
}

// ANCHOR: bound_terms
/// One term of the bound (C1) for each sample, `[B]`, in bits per dimension: what the step from x_i to x_{i-1} costs a model whose
/// variance is that of `v`. Its gradient reaches `v` and nothing else.
///
/// ```text
/// i > 1:  KL(q(x_{i-1} | x_i, x_0) || N(mu_tilde(x_i, x_hat_0), Sigma))        (C2)
/// i = 1:  -log p(x_0 | x_1), the discretised decoder                          (C6)
/// ```
///
/// `x0` are 8-bit images in [-1, 1], `x0_hat` the model's estimates of them, all [B, C, H, W]; `steps` has the i of each sample.
///
/// # Panics
/// If the shapes differ, there is not one step for each sample, or a step is not one of the chain.
#[track_caller]
pub fn bound_terms(chain: &DiscreteSchedule, steps: &[usize], x0: &Tensor, x0_hat: &Tensor, v: &Tensor) -> Tensor {
    let shapes = || format!("x_0 {}, x_hat_0 {}, v {}", x0.shape(), x0_hat.shape(), v.shape());
    assert!(x0.shape() == x0_hat.shape() && x0.shape() == v.shape(), "bound_terms: {} differ in shape", shapes());
    assert_eq!(x0.shape()[0], steps.len(), "bound_terms: one step for each of the images of {}", x0.shape());
    let (b, x0, x0_hat) = (steps.len(), x0.detach(), x0_hat.detach());
    let of_each = |f: &dyn Fn(usize) -> f64| {
        let values: Vec<f64> = steps.iter().map(|&i| f(i)).collect();
        v.constant_like([b, 1, 1, 1], &values)
    };
    let small = of_each(&|i| ReverseVariance::logarithms(chain, i)[0]);
    let large = of_each(&|i| ReverseVariance::logarithms(chain, i)[1]);
    let log_variance = |v: &Tensor, small: &Tensor, large: &Tensor| &(&v.affine(-1.0, 1.0) * small) + &(v * large);

    // For i > 1 `small` is log beta_tilde_i, the posterior's; x_i is in both means alike. At i = 1 v and the means are left out
    // before anything is squared or raised, which makes the divergence 0: an infinite one times 0 would be NaN.
    let later = of_each(&|i| f64::from(u8::from(i > 1)));
    let of_kl = log_variance(&(v * &later), &small, &large);
    let ratio = &small - &of_kl;
    let apart = &(&of_each(&|i| Posterior::of_step(chain, i).coef_x0) * &later) * &(&x0 - &x0_hat);
    let of_variances = &(&ratio.exp() - &ratio) - 1.0;
    let kl = &(&of_variances + &(&apart.square() * &(-&of_kl).exp())) * 0.5;
    let mut nats = kl.mean(&[1, 2, 3], false);
    for k in (0..b).filter(|&k| steps[k] == 1) {
        let [x0, x0_hat, v, small, large] = [&x0, &x0_hat, v, &small, &large].map(|x| x.slice(0, k..k + 1));
        nats = &nats + &decoder(&x0, &x0_hat, &log_variance(&v, &small, &large)).pad(0, k, b - k - 1);
    }
    &nats / LN_2
}
// ANCHOR_END: bound_terms

/// -log p(x_0 | x_1) of one sample, the mean over its numbers, `[1]`, as a function of `log_variance`.
///
/// Value and slope are computed in f64 on the CPU, whatever the network computes in: far from the mean a probability has digits there
/// that it would not have in f32, and only one step of the chain needs it. What is returned is the tangent at the present value; NaN
/// if a variance is NaN, 0 or infinite, as of a network whose training has gone wrong: the loss then says so.
fn decoder(x0: &Tensor, mean: &Tensor, log_variance: &Tensor) -> Tensor {
    let (mut values, mut slopes) = (Vec::new(), Vec::new());
    for ((x0, mean), log_variance) in x0.to_f64().into_iter().zip(mean.to_f64()).zip(log_variance.to_f64()) {
        let (level, std) = (level_of(x0), (0.5 * log_variance).exp());
        if std > 0.0 && std.is_finite() {
            values.push(-discretised_log_probability(level, mean, std));
            slopes.push(-discretised_log_probability_slope(level, mean, std));
        } else {
            values.push(f64::NAN);
            slopes.push(f64::NAN);
        }
    }
    let [values, slopes] =
        [values, slopes].map(|numbers| log_variance.constant_like(log_variance.shape().clone(), &numbers));
    let tangent = &values + &(&slopes * &(log_variance - &log_variance.detach()));
    tangent.mean(&[1, 2, 3], false)
}

// ANCHOR: hybrid
/// L_hybrid = L_simple + weight L_vlb. (B3) Improved DDPM eq. 16.
///
/// `simple` is a scalar; `terms` are those of [`bound_terms`], one at a step of each sample that was drawn evenly from all T. Then
/// L_vlb, T times their mean, is the whole bound in expectation, but for L_T, in which there is nothing to learn.
pub fn hybrid(simple: &Tensor, terms: &Tensor, chain: &DiscreteSchedule, weight: f64) -> Tensor {
    simple + &(&terms.mean_all() * (weight * chain.steps() as f64))
}
// ANCHOR_END: hybrid
