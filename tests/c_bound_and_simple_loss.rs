//! C. The variational bound, and the simple loss that is left of it.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_expectation, mean_and_error, tensor};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::gaussian::{
    LEVELS, bits_per_dimension, discretised_log_probability, kl, level_value, log_density, normal_cdf,
};
use imagen::diffusion::posterior::mean_from_eps;
use imagen::diffusion::weighting::bound_weight;
use imagen::diffusion::{
    Bound, Denoiser, DiscreteSchedule, Exact, Images, Levels, Mixture, Posterior, ReverseVariance, Schedule,
    ScheduleConfig, Target, Weighting, bound, loss, q_sample,
};
use imagen::random::{Purpose, normal, stream};
use proptest::prelude::*;
use rand::RngExt;
use std::f64::consts::{LN_2, PI};
use std::ops::ControlFlow;

/// Data N(m, s^2) and a chain short enough to write every term of its bound down.
struct GaussianChain {
    m: f64,
    s: f64,
    schedule: DiscreteSchedule,
}

/// A model of the reverse chain: every step's mean is off by `mean_error`, its variance by the factor `variance_factor`.
#[derive(Clone, Copy)]
struct Model {
    mean_error: f64,
    variance_factor: f64,
}

const EXACT: Model = Model { mean_error: 0.0, variance_factor: 1.0 };

impl GaussianChain {
    fn new() -> GaussianChain {
        GaussianChain { m: 0.3, s: 0.5, schedule: DiscreteSchedule::linear(25) }
    }

    /// (mean, variance) of q(x_i).
    fn marginal(&self, i: usize) -> (f64, f64) {
        let alpha_bar = self.schedule.alpha_bars()[i];
        (alpha_bar.sqrt() * self.m, alpha_bar * self.s * self.s + 1.0 - alpha_bar)
    }

    /// (gain, variance) of x_0 given x_i: E[x_0 | x_i] = m + gain (x_i - E x_i).
    fn image_given(&self, i: usize) -> (f64, f64) {
        let root = self.schedule.alpha_bars()[i].sqrt();
        let gain = root * self.s * self.s / self.marginal(i).1;
        (gain, self.s * self.s * (1.0 - gain * root))
    }

    /// (mean, variance) of the model's p(x_{i-1} | x_i).
    fn reverse(&self, model: Model, i: usize, x_i: f64) -> (f64, f64) {
        let q = Posterior::of_step(&self.schedule, i);
        let (gain, variance) = self.image_given(i);
        let x0_hat = self.m + gain * (x_i - self.marginal(i).0);
        let exact = q.variance + q.coef_x0.powi(2) * variance;
        (q.mean_of(x0_hat, x_i) + model.mean_error, exact * model.variance_factor)
    }

    /// -log N(x_0; m, s^2) in expectation over the data: what the bound bounds.
    fn entropy(&self) -> f64 {
        -log_density(self.m, self.m, self.s * self.s) + 0.5
    }

    /// L_0, L_1, .., L_T of the bound, each in closed form and averaged over the data and the trajectories.
    fn terms(&self, model: Model) -> Vec<f64> {
        let steps = self.schedule.steps();
        let (_, variance) = self.reverse(model, 1, 0.0);
        let l_0 =
            -log_density(0.0, 0.0, variance) + (self.image_given(1).1 + model.mean_error.powi(2)) / (2.0 * variance);

        let l_step = |i: usize| {
            let q = Posterior::of_step(&self.schedule, i);
            let (_, variance) = self.reverse(model, i, 0.0);
            // mu_tilde - mu_theta = coef_x0 (x_0 - E[x_0 | x_i]) - mean_error, and the first part has mean 0
            let squared_error = q.coef_x0.powi(2) * self.image_given(i).1 + model.mean_error.powi(2);
            kl(0.0, q.variance.ln(), 0.0, variance.ln()) + squared_error / (2.0 * variance)
        };

        // E over x_0 of (sqrt(alpha_bar) x_0 - prior mean)^2 is alpha_bar s^2
        let alpha_bar = self.schedule.alpha_bars()[steps];
        let (_, prior) = self.marginal(steps);
        let l_prior = kl(0.0, (1.0 - alpha_bar).ln(), 0.0, prior.ln()) + alpha_bar * self.s * self.s / (2.0 * prior);

        [l_0].into_iter().chain((2..=steps).map(l_step)).chain([l_prior]).collect()
    }

    /// E_q[L_T + sum L_{i-1} + L_0].
    fn bound(&self, model: Model) -> f64 {
        self.terms(model).iter().sum()
    }

    /// x_0, x_1, .., x_T of q, where step i adds the noise z_i.
    fn trajectory(&self, x0: f64, z: &[f64]) -> Vec<f64> {
        let mut x = vec![x0];
        for (i, (beta, z)) in self.schedule.betas().iter().zip(z).enumerate() {
            x.push((1.0 - beta).sqrt() * x[i] + beta.sqrt() * z);
        }
        x
    }

    /// A trajectory whose x_0 is drawn from the data.
    fn any_trajectory(&self, index: u64) -> Vec<f64> {
        let z = normal(3, Purpose::Test, 0, index, self.schedule.steps() + 1);
        self.trajectory(self.m + self.s * z[0], &z[1..])
    }

    // ANCHOR: untelescoped
    /// -log p(x_{0:T}) / q(x_{1:T} | x_0) of a trajectory: the bound before it is telescoped.
    fn untelescoped(&self, model: Model, x: &[f64]) -> f64 {
        let steps = self.schedule.steps();
        let (mean, variance) = self.marginal(steps);
        let mut nats = -log_density(x[steps], mean, variance);
        for i in 1..=steps {
            let beta = self.schedule.betas()[i - 1];
            let (mean, variance) = self.reverse(model, i, x[i]);
            nats += log_density(x[i], (1.0 - beta).sqrt() * x[i - 1], beta) - log_density(x[i - 1], mean, variance);
        }
        nats
    }
    // ANCHOR_END: untelescoped

    // ANCHOR: telescoped
    /// The same, telescoped: every q(x_i | x_{i-1}) with i >= 2 is turned round by Bayes' rule, given x_0.
    fn telescoped(&self, model: Model, x: &[f64]) -> f64 {
        let steps = self.schedule.steps();
        let (x0, alpha_bar) = (x[0], self.schedule.alpha_bars()[steps]);
        let (mean, variance) = self.marginal(steps);
        let prior = log_density(x[steps], mean, variance);
        let mut nats = log_density(x[steps], alpha_bar.sqrt() * x0, 1.0 - alpha_bar) - prior;
        for i in 2..=steps {
            let q = Posterior::of_step(&self.schedule, i);
            let (mean, variance) = self.reverse(model, i, x[i]);
            nats += log_density(x[i - 1], q.mean_of(x0, x[i]), q.variance) - log_density(x[i - 1], mean, variance);
        }
        let (mean, variance) = self.reverse(model, 1, x[1]);
        nats - log_density(x0, mean, variance)
    }
    // ANCHOR_END: telescoped
}

// ANCHOR: c1_the_bound_is_tight_for_the_exact_model
// C1  E[-log p(x_0)] <= E_q[KL(q(x_T|x_0) || p(x_T)) + sum_{t>=2} KL(q(x_{t-1}|x_t,x_0) || p(x_{t-1}|x_t)) - log p(x_0|x_1)]
// With the exact reverse conditionals of Gaussian data the bound is tight: its terms sum to the entropy of the data.
#[test]
fn c1_the_bound_is_tight_for_the_exact_model() {
    let chain = GaussianChain::new();
    assert_close(chain.bound(EXACT), chain.entropy(), 1e-12);
}
// ANCHOR_END: c1_the_bound_is_tight_for_the_exact_model

// ANCHOR: c1_any_other_model_has_a_larger_bound
// C1  Any other model has a larger bound (Jensen), by what its means and variances are off.
#[test]
fn c1_any_other_model_has_a_larger_bound() {
    let chain = GaussianChain::new();
    for (mean_error, variance_factor) in [(0.01, 1.0), (-0.01, 1.0), (0.0, 1.05), (0.0, 0.95), (0.1, 0.5), (0.3, 2.0)] {
        let excess = chain.bound(Model { mean_error, variance_factor }) - chain.entropy();
        assert!(excess > 1e-4, "mean off by {mean_error}, variance by {variance_factor}: {excess}");
    }
}
// ANCHOR_END: c1_any_other_model_has_a_larger_bound

// ANCHOR: c1_telescoping_changes_nothing
// C1  -log p(x_{0:T}) / q(x_{1:T} | x_0), not telescoped: for the exact model it is -log p(x_0) on every single
//     trajectory, and for any model its mean over trajectories is the sum of the telescoped terms.
#[test]
fn c1_telescoping_changes_nothing() {
    let chain = GaussianChain::new();
    for index in 0..200 {
        let x = chain.any_trajectory(index);
        assert_close(chain.untelescoped(EXACT, &x), -log_density(x[0], chain.m, chain.s * chain.s), 1e-10);
    }
    let model = Model { mean_error: 0.05, variance_factor: 1.3 };
    let nats: Vec<f64> = (0..20_000).map(|index| chain.untelescoped(model, &chain.any_trajectory(index))).collect();
    assert_expectation(&nats, chain.bound(model));
}
// ANCHOR_END: c1_telescoping_changes_nothing

// ANCHOR: c1_telescoping_holds_on_every_trajectory
// C1  log q(x_T | x_0) - log p(x_T) + sum_{t>=2} [log q(x_{t-1} | x_t, x_0) - log p(x_{t-1} | x_t)] - log p(x_0 | x_1)
//     is the untelescoped sum on every single trajectory, whatever the model: Bayes' rule knows no average.
#[test]
fn c1_telescoping_holds_on_every_trajectory() {
    let chain = GaussianChain::new();
    for model in [EXACT, Model { mean_error: 0.05, variance_factor: 1.3 }] {
        for index in 0..200 {
            let x = chain.any_trajectory(index);
            assert_close(chain.telescoped(model, &x), chain.untelescoped(model, &x), 1e-10);
        }
    }
}
// ANCHOR_END: c1_telescoping_holds_on_every_trajectory

// ANCHOR: c1_the_likelihood_is_a_mean_over_trajectories
// C1  p(x_0) = E[p(x_{0:T}) / q(x_{1:T} | x_0)] over trajectories of q from x_0; and by Jensen's inequality the mean of
//     -log of that ratio, the bound, lies above -log p(x_0).
#[test]
fn c1_the_likelihood_is_a_mean_over_trajectories() {
    let (chain, model) = (GaussianChain::new(), Model { mean_error: 0.02, variance_factor: 1.1 });
    let steps = chain.schedule.steps();
    // p(x_0) of the model: every step back is a straight line plus Gaussian noise, so all that it leads to is Gaussian
    let (mut mean, mut variance) = chain.marginal(steps);
    for i in (1..=steps).rev() {
        let (offset, added) = chain.reverse(model, i, 0.0);
        let slope = chain.reverse(model, i, 1.0).0 - offset;
        (mean, variance) = (offset + slope * mean, slope * slope * variance + added);
    }
    for x0 in [-0.5, 0.3, 1.0] {
        let log_p = log_density(x0, mean, variance);
        let nats = |index| chain.untelescoped(model, &chain.trajectory(x0, &normal(9, Purpose::Test, 0, index, steps)));
        let nats: Vec<f64> = (0..20_000).map(nats).collect();
        let ratios: Vec<f64> = nats.iter().map(|nats| (-nats).exp()).collect();
        assert_expectation(&ratios, log_p.exp());
        let (bound, error) = mean_and_error(&nats);
        assert!(bound - 5.0 * error > -log_p, "x_0 = {x0}: {bound} +- {error} is no bound for {}", -log_p);
    }
}
// ANCHOR_END: c1_the_likelihood_is_a_mean_over_trajectories

// ANCHOR: c1_the_excess_is_the_divergence_of_every_step_back
// C1  bound - entropy of the data = KL(q(x_T) || p(x_T)) + sum_{t>=1} E KL(q(x_{t-1} | x_t) || p(x_{t-1} | x_t)):
//     what a model pays, step by step, for not being the exact one (here the first part is 0)
#[test]
fn c1_the_excess_is_the_divergence_of_every_step_back() {
    let chain = GaussianChain::new();
    for (mean_error, variance_factor) in [(0.0, 1.0), (0.01, 1.0), (0.0, 0.95), (0.1, 0.5), (0.3, 2.0)] {
        let model = Model { mean_error, variance_factor };
        let divergence = |i: usize| {
            // the same for every x_i: both means have the same slope
            let ((m1, v1), (m2, v2)) = (chain.reverse(EXACT, i, 0.7), chain.reverse(model, i, 0.7));
            kl(m1, v1.ln(), m2, v2.ln())
        };
        let excess: f64 = (1..=chain.schedule.steps()).map(divergence).sum();
        assert_close(chain.bound(model) - chain.entropy(), excess, 1e-11);
    }
}
// ANCHOR_END: c1_the_excess_is_the_divergence_of_every_step_back

// ANCHOR: c1_two_steps_by_hand
// C1  numbers to check by hand: data N(0, 1), beta_1 = 0.36, beta_2 = 0.75; the exact steps back are N(sqrt(1 - beta) x, beta)
#[test]
fn c1_two_steps_by_hand() {
    let chain = GaussianChain { m: 0.0, s: 1.0, schedule: DiscreteSchedule::from_betas(vec![0.36, 0.75]) };
    for (i, beta) in [(1, 0.36_f64), (2, 0.75)] {
        let (mean, variance) = chain.reverse(EXACT, i, 1.0);
        assert_close(mean, (1.0 - beta).sqrt(), 1e-14);
        assert_close(variance, beta, 1e-14);
    }
    let log_2_pi_e = (2.0 * PI).ln() + 1.0;
    let by_hand = [0.5 * (log_2_pi_e + 0.36_f64.ln()), 0.5 * (7.0_f64 / 3.0).ln(), -0.5 * 0.84_f64.ln()];
    assert_all_close(&chain.terms(EXACT), &by_hand, 1e-14);
    assert_all_close(&by_hand, &[0.9081, 0.4236, 0.0872], 5e-5);
    assert_close(chain.bound(EXACT), 0.5 * log_2_pi_e, 1e-14);
}
// ANCHOR_END: c1_two_steps_by_hand

proptest! {
    // ANCHOR: c1_the_mean_of_logs_is_at_most_the_log_of_the_mean
    // C1  Jensen's inequality for the logarithm: E log X <= log E X, for any positive X
    #[test]
    fn c1_the_mean_of_logs_is_at_most_the_log_of_the_mean(
        outcomes in proptest::collection::vec((0.01..1.0, 1e-3..1e3), 1..20),
    ) {
        let total: f64 = outcomes.iter().map(|(weight, _)| weight).sum();
        let mean = |f: fn(f64) -> f64| outcomes.iter().map(|&(weight, x)| weight / total * f(x)).sum::<f64>();
        prop_assert!(mean(f64::ln) <= mean(|x| x).ln() + 1e-12);
    }
    // ANCHOR_END: c1_the_mean_of_logs_is_at_most_the_log_of_the_mean

    // ANCHOR: c1_the_gap_is_the_divergence_of_trajectories
    // C1  bound = -log p(x_0) + KL(q(x_{1:T} | x_0) || p(x_{1:T} | x_0)), for any model. Here T = 1 with p(x_1) = N(0, 1) and
    //     p(x_0 | x_1) = N(slope x_1 + offset, w), whose p(x_0) and p(x_1 | x_0) are Gaussians again
    #[test]
    fn c1_the_gap_is_the_divergence_of_trajectories(
        beta in 0.01..0.99, x0 in -2.0..2.0, slope in -1.0..1.0, offset in -1.0..1.0, w in 0.05..2.0,
    ) {
        let (m, v): (f64, f64) = (f64::sqrt(1.0 - beta) * x0, beta); // q(x_1 | x_0)
        let off = x0 - offset - slope * m;
        let l_0 = -log_density(0.0, 0.0, w) + (off * off + slope * slope * v) / (2.0 * w);
        let bound = kl(m, v.ln(), 0.0, 0.0) + l_0;

        let minus_log_p = -log_density(x0, offset, slope * slope + w);
        let precision: f64 = 1.0 + slope * slope / w;
        let gap = kl(m, v.ln(), slope * (x0 - offset) / w / precision, -precision.ln());
        assert_close(bound, minus_log_p + gap, 1e-11);
    }
    // ANCHOR_END: c1_the_gap_is_the_divergence_of_trajectories

    // ANCHOR: c2_divergence_of_any_distributions_is_not_negative
    // C2  KL(p || q) = sum_x p(x) log p(x) / q(x) >= 0 for any two distributions, 0 for equal ones, and for no others: it is at
    //     least half the square of sum_x |p(x) - q(x)| (Pinsker's inequality)
    #[test]
    fn c2_divergence_of_any_distributions_is_not_negative(
        shares in proptest::collection::vec((1e-6..1.0, 1e-6..1.0), 1..20),
    ) {
        let normalised = |shares: Vec<f64>| {
            let total: f64 = shares.iter().sum();
            shares.into_iter().map(|share| share / total).collect::<Vec<f64>>()
        };
        let (p, q): (Vec<f64>, Vec<f64>) = shares.into_iter().unzip();
        let (p, q) = (normalised(p), normalised(q));
        let divergence = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        prop_assert!(divergence(&p, &q) >= -1e-14 && divergence(&q, &p) >= -1e-14);
        let apart: f64 = p.iter().zip(&q).map(|(p, q)| f64::abs(p - q)).sum();
        prop_assert!(divergence(&p, &q) >= 0.5 * apart * apart - 1e-14);
        prop_assert_eq!(divergence(&p, &p), 0.0);
    }
    // ANCHOR_END: c2_divergence_of_any_distributions_is_not_negative

    // ANCHOR: c2_divergence_is_zero_only_between_equals
    // C2  KL(N(m1, v1) || N(m2, v2)) = 1/2 (log v2/v1 + v1/v2 - 1 + (m1 - m2)^2 / v2) >= 0, and 0 only if they are equal
    #[test]
    fn c2_divergence_is_zero_only_between_equals(m1 in -3.0..3.0, v1 in -5.0..5.0, m2 in -3.0..3.0, v2 in -5.0..5.0) {
        prop_assert_eq!(kl(m1, v1, m1, v1), 0.0);
        prop_assert!(kl(m1, v1, m2, v2) >= 0.0);
        prop_assert!(kl(m1, v1, m1 + 1e-3, v1) > 0.0);
        prop_assert!(kl(m1, v1, m1, v1 + 1e-3) > 0.0);
        let by_definition = 0.5 * (v2 - v1 + f64::exp(v1 - v2) - 1.0 + f64::powi(m1 - m2, 2) / f64::exp(v2));
        assert_close(kl(m1, v1, m2, v2), by_definition, 1e-12);
    }
    // ANCHOR_END: c2_divergence_is_zero_only_between_equals

    // ANCHOR: c5_targets_convert_into_one_another
    // C5  eps -> x_0 -> v -> eps: each target says the same as the others
    #[test]
    fn c5_targets_convert_into_one_another(x0 in -1.0..1.0, eps in -4.0..4.0, t in 1e-3..0.999) {
        let levels = Levels::at(&ScheduleConfig::Cosine.build(), &[t], DType::F64);
        let (x0, eps) = (tensor([1, 1, 1, 1], &[x0]), tensor([1, 1, 1, 1], &[eps]));
        let x_t = q_sample(&x0, &eps, &levels);
        let v = Target::V.of(&x0, &eps, &levels);
        for target in [Target::Eps, Target::X0, Target::V] {
            let said = target.of(&x0, &eps, &levels);
            assert_all_close(&target.to_x0(&said, &x_t, &levels).to_f64(), &x0.to_f64(), 1e-9);
            assert_all_close(&target.to_eps(&said, &x_t, &levels).to_f64(), &eps.to_f64(), 1e-9);
            assert_all_close(&target.to_v(&said, &x_t, &levels).to_f64(), &v.to_f64(), 1e-9);
        }
    }
    // ANCHOR_END: c5_targets_convert_into_one_another

    // ANCHOR: c5_errors_of_the_targets_differ_by_powers_of_snr
    // C5  ||eps - eps_hat||^2 = SNR ||x_0 - x_hat_0||^2    and    ||v - v_hat||^2 = (SNR + 1) ||x_0 - x_hat_0||^2
    #[test]
    fn c5_errors_of_the_targets_differ_by_powers_of_snr(x0 in -1.0..1.0, eps in -4.0..4.0, x0_hat in -1.0..1.0, t in 0.01..0.99) {
        let schedule = ScheduleConfig::Cosine.build();
        let snr = schedule.log_snr(t).exp();
        let simple = |target| loss_of_estimate(&schedule, t, x0, eps, x0_hat, target, Weighting::Simple);
        let of_x0 = simple(Target::X0);
        assert_close(of_x0, f64::powi(x0 - x0_hat, 2), 1e-12);
        assert_close(simple(Target::Eps) / snr, of_x0, 1e-9);
        assert_close(simple(Target::V) / (snr + 1.0), of_x0, 1e-9);
    }
    // ANCHOR_END: c5_errors_of_the_targets_differ_by_powers_of_snr

    // ANCHOR: c5_a_weighting_means_the_same_for_every_target
    // C5  written for x_0 the weights are SNR, max(SNR, 1), min(SNR, gamma): the same loss whatever is predicted
    #[test]
    fn c5_a_weighting_means_the_same_for_every_target(x0 in -1.0..1.0, eps in -4.0..4.0, x0_hat in -1.0..1.0, t in 0.01..0.99) {
        let schedule = ScheduleConfig::Linear.build();
        let snr = schedule.log_snr(t).exp();
        let squared = f64::powi(x0 - x0_hat, 2);
        for (weighting, weight) in [
            (Weighting::Snr, snr),
            (Weighting::TruncatedSnr, snr.max(1.0)),
            (Weighting::MinSnr { gamma: 5.0 }, snr.min(5.0)),
        ] {
            for target in [Target::Eps, Target::X0, Target::V] {
                let loss = loss_of_estimate(&schedule, t, x0, eps, x0_hat, target, weighting);
                assert_close(loss, weight * squared, 1e-8);
            }
        }
        let simple = loss_of_estimate(&schedule, t, x0, eps, x0_hat, Target::Eps, Weighting::Simple);
        assert_close(simple, snr * squared, 1e-8);
    }
    // ANCHOR_END: c5_a_weighting_means_the_same_for_every_target

    // ANCHOR: c5_v_is_the_velocity_along_the_angle
    // C5  with alpha = cos(phi) and sigma = sin(phi), v is the derivative of x_t with respect to phi, and (x_t, v) is
    //     (x_0, eps) turned by phi
    #[test]
    fn c5_v_is_the_velocity_along_the_angle(x0 in -1.0..1.0, eps in -4.0..4.0, phi in 0.0..1.57) {
        let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
        let levels = |phi: f64| Levels { alpha: one(phi.cos()), sigma: one(phi.sin()) };
        let x_t = |phi: f64| q_sample(&one(x0), &one(eps), &levels(phi)).item();
        let v = Target::V.of(&one(x0), &one(eps), &levels(phi)).item();
        let h = 1e-5;
        assert_close(v, (x_t(phi + h) - x_t(phi - h)) / (2.0 * h), 1e-8);
        assert_close(v * v + x_t(phi) * x_t(phi), x0 * x0 + eps * eps, 1e-12);
    }
    // ANCHOR_END: c5_v_is_the_velocity_along_the_angle

    // ANCHOR: c5_an_error_of_v_is_never_magnified
    // C5  an error d of v_hat is an error -sigma d of x_hat_0 and alpha d of eps_hat: never magnified. An error d of
    //     eps_hat is an error -(sigma / alpha) d of x_hat_0; one of x_hat_0 is an error -(alpha / sigma) d of eps_hat
    #[test]
    fn c5_an_error_of_v_is_never_magnified(x0 in -1.0..1.0, eps in -4.0..4.0, d in -1.0..1.0, t in 0.01..0.99) {
        let schedule = ScheduleConfig::Cosine.build();
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
        let levels = Levels::at(&schedule, &[t], DType::F64);
        let x_t = q_sample(&one(x0), &one(eps), &levels);
        for (target, of_x0, of_eps) in [
            (Target::Eps, -sigma / alpha, 1.0),
            (Target::X0, 1.0, -alpha / sigma),
            (Target::V, -sigma, alpha),
        ] {
            let said = &target.of(&one(x0), &one(eps), &levels) + &one(d);
            assert_close(target.to_x0(&said, &x_t, &levels).item() - x0, of_x0 * d, 1e-9);
            assert_close(target.to_eps(&said, &x_t, &levels).item() - eps, of_eps * d, 1e-9);
        }
    }
    // ANCHOR_END: c5_an_error_of_v_is_never_magnified

    // ANCHOR: c4_a_squared_error_splits
    // C4  E (y - f(x))^2 = E (y - E[y|x])^2 + E (E[y|x] - f(x))^2 for every f: here of three values of x and four of y,
    //     which occur together with any probabilities
    #[test]
    fn c4_a_squared_error_splits(
        joint in prop::array::uniform12(0.01..1.0),
        y in prop::array::uniform4(-3.0..3.0),
        f in prop::array::uniform3(-3.0..3.0),
    ) {
        let total: f64 = joint.iter().sum();
        let expectation = |of: &dyn Fn(usize, usize) -> f64| -> f64 {
            joint.iter().enumerate().map(|(k, p)| p / total * of(k / 4, k % 4)).sum()
        };
        let given: Vec<f64> = joint
            .chunks(4)
            .map(|p| p.iter().zip(y).map(|(p, y)| p * y).sum::<f64>() / p.iter().sum::<f64>())
            .collect();
        let whole = expectation(&|i, j| f64::powi(y[j] - f[i], 2));
        let unknowable = expectation(&|i, j| f64::powi(y[j] - given[i], 2));
        let missed = expectation(&|i, _| f64::powi(given[i] - f[i], 2));
        assert_close(whole, unknowable + missed, 1e-12);
    }
    // ANCHOR_END: c4_a_squared_error_splits

    // ANCHOR: c4_the_score_says_what_to_expect
    // C4  Tweedie: E[eps|x_t] = -sigma d/dx log p(x_t), and E[x_0|x_t] = (x_t + sigma^2 d/dx log p(x_t)) / alpha, for
    //     any data: here five points with any weights, the left sides by Bayes' rule, the right sides by a difference
    //     quotient of log p
    #[test]
    fn c4_the_score_says_what_to_expect(
        points in prop::array::uniform5(-1.0..1.0),
        weights in prop::array::uniform5(0.1..1.0),
        t in 0.2..0.95,
        x in -2.0..2.0,
    ) {
        let schedule = ScheduleConfig::Cosine.build();
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let joint = |x: f64, k: usize| weights[k] * log_density(x, alpha * points[k], sigma * sigma).exp();
        let p = |x: f64| (0..5).map(|k| joint(x, k)).sum::<f64>();
        let expected = |of: &dyn Fn(usize) -> f64| (0..5).map(|k| joint(x, k) / p(x) * of(k)).sum::<f64>();
        let slope = |log: &dyn Fn(f64) -> f64| (log(x + 1e-5) - log(x - 1e-5)) / 2e-5;
        let score = slope(&|x| p(x).ln());
        // the score of a part is -eps / sigma, and that of the whole is the average of those of the parts
        let of_part = |k: usize| slope(&|x| log_density(x, alpha * points[k], sigma * sigma));
        for (k, point) in points.iter().enumerate() {
            assert_close(of_part(k), (alpha * point - x) / (sigma * sigma), 1e-6);
        }
        assert_close(expected(&of_part), score, 1e-5);
        assert_close(expected(&|k| (x - alpha * points[k]) / sigma), -sigma * score, 1e-6);
        assert_close(expected(&|k| points[k]), (x + sigma * sigma * score) / alpha, 1e-5);
    }
    // ANCHOR_END: c4_the_score_says_what_to_expect
}

// ANCHOR: c5_v_by_hand
// C5  the numbers of the book: alpha = 0.8, sigma = 0.6, x_0 = 1, eps = -0.5
#[test]
fn c5_v_by_hand() {
    let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
    let levels = Levels { alpha: one(0.8), sigma: one(0.6) };
    let x_t = q_sample(&one(1.0), &one(-0.5), &levels);
    let v = Target::V.of(&one(1.0), &one(-0.5), &levels);
    assert_close(x_t.item(), 0.5, 1e-12);
    assert_close(v.item(), -1.0, 1e-12);
    assert_close(Target::V.to_x0(&v, &x_t, &levels).item(), 1.0, 1e-12);
    assert_close(Target::V.to_eps(&v, &x_t, &levels).item(), -0.5, 1e-12);
    // the image taken for 0.8045: its squared error, and that of the noise and of v
    let x0_hat = one(0.8045);
    let eps_hat = Target::X0.to_eps(&x0_hat, &x_t, &levels);
    for (target, squared) in [(Target::X0, 0.0382), (Target::Eps, 0.0679), (Target::V, 0.1062)] {
        let off = target.of(&x0_hat, &eps_hat, &levels).item() - target.of(&one(1.0), &one(-0.5), &levels).item();
        assert!((off * off - squared).abs() < 5e-5);
    }
}
// ANCHOR_END: c5_v_by_hand

// ANCHOR: loss_of_estimate
/// The loss of one number whose image is estimated as `x0_hat`, by a model that says so in terms of `target`.
fn loss_of_estimate(
    schedule: &DiscreteSchedule,
    t: f64,
    x0: f64,
    eps: f64,
    x0_hat: f64,
    target: Target,
    weighting: Weighting,
) -> f64 {
    let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
    let levels = Levels::at(schedule, &[t], DType::F64);
    let x_t = q_sample(&one(x0), &one(eps), &levels);
    let eps_hat = Target::X0.to_eps(&one(x0_hat), &x_t, &levels);
    let prediction = target.of(&one(x0_hat), &eps_hat, &levels);
    loss(&prediction, &one(x0), &one(eps), &[t], schedule, target, weighting).mean.item()
}
// ANCHOR_END: loss_of_estimate

// ANCHOR: c2_two_divergences_by_hand
// C2  numbers to check by hand: KL(N(0, 1) || N(1, 4)) and, not the same, KL(N(1, 4) || N(0, 1))
#[test]
fn c2_two_divergences_by_hand() {
    let two_ln_2 = 4.0_f64.ln();
    assert_close(kl(0.0, 0.0, 1.0, two_ln_2), 0.5 * (two_ln_2 - 0.5), 1e-15);
    assert_close(kl(1.0, two_ln_2, 0.0, 0.0), 0.5 * (4.0 - two_ln_2), 1e-15);
    assert_close(kl(0.0, 0.0, 1.0, two_ln_2), 0.4431, 5e-5);
    assert_close(kl(1.0, two_ln_2, 0.0, 0.0), 1.3069, 5e-5);
}
// ANCHOR_END: c2_two_divergences_by_hand

// ANCHOR: c2_divergence_is_an_expected_log_ratio
// C2, by drawing: KL(p || q) = E_p[log p - log q]
#[test]
fn c2_divergence_is_an_expected_log_ratio() {
    for (k, (m1, v1, m2, v2)) in
        [(0.0, 0.0, 1.0, 0.5), (0.5, -1.0, 0.2, 0.3), (-1.0, 1.0, -1.0, 2.0)].into_iter().enumerate()
    {
        let draw = |z: &f64| m1 + f64::exp(0.5 * v1) * z;
        let log_ratio = |x: f64| log_density(x, m1, f64::exp(v1)) - log_density(x, m2, f64::exp(v2));
        let samples: Vec<f64> =
            normal(4, Purpose::Test, k as u64, 0, 50_000).iter().map(|z| log_ratio(draw(z))).collect();
        assert_expectation(&samples, kl(m1, v1, m2, v2));
    }
}
// ANCHOR_END: c2_divergence_is_an_expected_log_ratio

// ANCHOR: c3_the_term_of_the_bound_is_a_weighted_error_of_the_noise
// C3  for Sigma = sigma_t^2 I:  KL(N(mu_tilde, sigma_t^2) || N(mu_theta, sigma_t^2)) = ||mu_tilde - mu_theta||^2 / (2 sigma_t^2)
//                                          = beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) ||eps - eps_theta||^2
#[test]
fn c3_the_term_of_the_bound_is_a_weighted_error_of_the_noise() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        for i in 1..=schedule.steps() {
            let [x0, eps, eps_theta] = normal(5, Purpose::Test, i as u64, 0, 3).try_into().unwrap();
            let alpha_bar = schedule.alpha_bars()[i];
            let x_t = alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * eps;
            let variance = schedule.betas()[i - 1];
            let mu_tilde = Posterior::of_step(&schedule, i).mean_of(x0, x_t);
            let mu_theta = mean_from_eps(&schedule, i, x_t, eps_theta);

            let divergence = kl(mu_tilde, variance.ln(), mu_theta, variance.ln());
            let of_the_means = (mu_tilde - mu_theta).powi(2) / (2.0 * variance);
            let of_the_noise = bound_weight(&schedule, i, variance) * (eps - eps_theta).powi(2);
            assert_close(divergence, of_the_means, 1e-9);
            assert_close(of_the_noise, of_the_means, 1e-9);
        }
    }
}
// ANCHOR_END: c3_the_term_of_the_bound_is_a_weighted_error_of_the_noise

// ANCHOR: c3_two_steps_by_hand
// C3  the numbers of the book: beta_1 = 0.36, beta_2 = 0.75, x_0 = 1, x_2 = 1.1; the network takes the noise for 0.5
#[test]
fn c3_two_steps_by_hand() {
    let schedule = DiscreteSchedule::from_betas(vec![0.36, 0.75]);
    let (x_t, eps, eps_theta) = (1.1, 0.7 / f64::sqrt(0.84), 0.5);
    let mu_tilde = mean_from_eps(&schedule, 2, x_t, eps);
    let mu_theta = mean_from_eps(&schedule, 2, x_t, eps_theta);
    assert_close(mu_tilde, 0.95, 1e-12);
    assert!((eps - 0.7638).abs() < 5e-5 && (mu_theta - 1.3817).abs() < 5e-5);
    assert_close(bound_weight(&schedule, 2, 0.75), 25.0 / 14.0, 1e-12);
    assert_close(bound_weight(&schedule, 2, 9.0 / 28.0), 25.0 / 6.0, 1e-12);
    assert!(((mu_tilde - mu_theta).powi(2) / 1.5 - 0.1242).abs() < 5e-5);
    assert!((25.0 / 14.0 * (eps - eps_theta).powi(2) - 0.1242).abs() < 5e-5);
}
// ANCHOR_END: c3_two_steps_by_hand

// ANCHOR: c3_the_constant_is_what_the_variances_cost
// C3  with another variance than the posterior's a constant is added, 1/2 (log(sigma_t^2 / beta_tilde_t) +
//     beta_tilde_t / sigma_t^2 - 1): it holds no parameter of the mean, and is 0 only for sigma_t^2 = beta_tilde_t
#[test]
fn c3_the_constant_is_what_the_variances_cost() {
    let schedule = DiscreteSchedule::linear(1000);
    for i in 2..=schedule.steps() {
        let q = Posterior::of_step(&schedule, i);
        let [mu_tilde, z] = normal(9, Purpose::Test, i as u64, 0, 2).try_into().unwrap();
        for gamma in [0.0, 0.3, 1.0] {
            let variance = q.variance_between(gamma);
            let mu_theta = mu_tilde + variance.sqrt() * z;
            let of_the_means = (mu_tilde - mu_theta).powi(2) / (2.0 * variance);
            let constant = kl(mu_tilde, q.variance.ln(), mu_theta, variance.ln()) - of_the_means;
            let ratio = q.variance / variance;
            assert_close(constant, 0.5 * (-ratio.ln() + ratio - 1.0), 1e-10);
            // towards the end of the chain the two variances are all but equal
            assert!(i > 100 || (constant > 1e-6) == (gamma > 0.0), "step {i}, gamma {gamma}: {constant}");
        }
    }
}
// ANCHOR_END: c3_the_constant_is_what_the_variances_cost

// ANCHOR: c3_the_weight_is_a_fall_of_the_signal_to_noise_ratio
// C3  for sigma_t^2 = beta_tilde_t the weight is (SNR_{t-1} / SNR_t - 1) / 2, and the term of the bound, written for
//     x_0, is (SNR_{t-1} - SNR_t) / 2 ||x_0 - x_hat_0||^2: half of what the step takes from the signal-to-noise ratio
#[test]
fn c3_the_weight_is_a_fall_of_the_signal_to_noise_ratio() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        let snr = |i: usize| schedule.alpha_bars()[i] / (1.0 - schedule.alpha_bars()[i]);
        for i in 2..=schedule.steps() {
            let [x0, x_t, x0_hat] = normal(10, Purpose::Test, i as u64, 0, 3).try_into().unwrap();
            let q = Posterior::of_step(&schedule, i);
            let weight = bound_weight(&schedule, i, q.variance);
            assert_close(weight, 0.5 * (snr(i - 1) / snr(i) - 1.0), 1e-9);
            let of_the_means = (q.mean_of(x0, x_t) - q.mean_of(x0_hat, x_t)).powi(2) / (2.0 * q.variance);
            assert_close(of_the_means, 0.5 * (snr(i - 1) - snr(i)) * (x0 - x0_hat).powi(2), 1e-9);
        }
    }
}
// ANCHOR_END: c3_the_weight_is_a_fall_of_the_signal_to_noise_ratio

// ANCHOR: c4_gradient_is_that_of_the_bound_without_its_weight
// C4  L_simple = E ||eps - eps_theta||^2 is C3 with its weight dropped: at every t the gradients differ by that weight
#[test]
fn c4_gradient_is_that_of_the_bound_without_its_weight() {
    let schedule = DiscreteSchedule::linear(100);
    for i in [1, 2, 10, 50, 99, 100] {
        let (x0, eps) = (normal(6, Purpose::Test, i, 0, 12), normal(6, Purpose::Test, i, 1, 12));
        let eps_theta = Tensor::leaf(tensor([1, 3, 2, 2], &normal(6, Purpose::Test, i, 2, 12)).into_array());
        let (x0, eps, i) = (tensor([1, 3, 2, 2], &x0), tensor([1, 3, 2, 2], &eps), i as usize);
        let (t, variance, q) = (schedule.time(i), schedule.betas()[i - 1], Posterior::of_step(&schedule, i));
        let levels = Levels::at(&schedule, &[t], DType::F64);
        let x_t = q_sample(&x0, &eps, &levels);

        let simple = loss(&eps_theta, &x0, &eps, &[t], &schedule, Target::Eps, Weighting::Simple).mean;
        let mu_theta = q.mean(&Target::Eps.to_x0(&eps_theta, &x_t, &levels), &x_t);
        let bound = &(&q.mean(&x0, &x_t) - &mu_theta).square().mean_all() * (1.0 / (2.0 * variance));

        let gradient = |loss: &Tensor| loss.backward().get(&eps_theta).unwrap().to_f64();
        let weight = bound_weight(&schedule, i, variance);
        let unweighted: Vec<f64> = gradient(&bound).iter().map(|g| g / weight).collect();
        assert_all_close(&gradient(&simple), &unweighted, 1e-9);
    }
}
// ANCHOR_END: c4_gradient_is_that_of_the_bound_without_its_weight

// ANCHOR: c4_the_minimiser_is_the_score
// C4  the minimiser of L_simple is eps*(x_t) = E[eps | x_t] = -sigma_t grad log p(x_t), the score up to its factor.
// For a mixture of two Gaussians in the plane, whose p(x_t) is known: the error eps - eps*(x_t) is uncorrelated with every
// function f of x_t, so that eps* + f has the larger loss, by exactly E f^2.
#[test]
fn c4_the_minimiser_is_the_score() {
    let schedule = ScheduleConfig::Cosine.build();
    let (n, t, spread) = (40_000_usize, 0.4, 0.3);
    let centres = [[0.8, 0.5], [-0.6, -0.2]];
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    let variance = alpha * alpha * spread * spread + sigma * sigma;
    let log_p = |x: [f64; 2]| {
        let density = |c: [f64; 2]| (0..2).map(|k| log_density(x[k], alpha * c[k], variance)).sum::<f64>().exp();
        (0.3 * density(centres[0]) + 0.7 * density(centres[1])).ln()
    };
    // grad log p by central differences: nothing of the closed form of the score is assumed
    let score = |x: [f64; 2]| {
        let h = 1e-5;
        [log_p([x[0] + h, x[1]]) - log_p([x[0] - h, x[1]]), log_p([x[0], x[1] + h]) - log_p([x[0], x[1] - h])]
            .map(|difference| difference / (2.0 * h))
    };

    let mut random = stream(7, Purpose::Test, 0, 0);
    let (z, eps) = (normal(7, Purpose::Test, 1, 0, 2 * n), normal(7, Purpose::Test, 2, 0, 2 * n));
    let x0: Vec<f64> = (0..n)
        .flat_map(|i| {
            let c = centres[usize::from(random.random::<f64>() >= 0.3)];
            [c[0] + spread * z[2 * i], c[1] + spread * z[2 * i + 1]]
        })
        .collect();
    let shape = [n, 2, 1, 1];
    let (x0, eps) = (tensor(shape, &x0), tensor(shape, &eps));
    let times = vec![t; n];
    let x_t = q_sample(&x0, &eps, &Levels::at(&schedule, &times, DType::F64)).to_f64();

    let best: Vec<f64> = x_t.chunks(2).flat_map(|x| score([x[0], x[1]]).map(|s| -sigma * s)).collect();
    let losses = |eps_theta: &[f64]| {
        loss(&tensor(shape, eps_theta), &x0, &eps, &times, &schedule, Target::Eps, Weighting::Simple)
            .per_sample
            .to_f64()
    };
    let at_best = losses(&best);
    type Change = fn(&[f64]) -> [f64; 2];
    let changes: [Change; 5] = [
        |_| [0.2, -0.1],
        |x| [0.2 * x[0], 0.2 * x[1]],
        |x| [-0.3 * x[1], 0.3 * x[0]],
        |x| [0.2 * (3.0 * x[0]).sin(), 0.2 * x[0] * x[1]],
        |x| [-0.2 * x[0].tanh(), 0.0],
    ];
    for f in changes {
        let f: Vec<f64> = x_t.chunks(2).flat_map(f).collect();
        let changed: Vec<f64> = best.iter().zip(&f).map(|(e, f)| e + f).collect();
        let squared: Vec<f64> = f.chunks(2).map(|f| (f[0] * f[0] + f[1] * f[1]) / 2.0).collect();
        let excess: Vec<f64> =
            losses(&changed).iter().zip(&at_best).zip(&squared).map(|((c, b), f)| c - b - f).collect();
        assert_expectation(&excess, 0.0);
        assert!(squared.iter().sum::<f64>() / n as f64 > 1e-3);
    }
}
// ANCHOR_END: c4_the_minimiser_is_the_score

// ANCHOR: c4_denoising_score_matching_differs_by_a_constant
// C4  denoising score matching: E (s(x_t) - d/dx log q(x_t|x_0))^2 - E (s(x_t) - d/dx log p(x_t))^2 is the same number
//     for every s. The data are -1 and 1, each half of the time; the expectations are sums over a grid.
#[test]
fn c4_denoising_score_matching_differs_by_a_constant() {
    let (alpha, variance, h) = (0.8, 0.36, 0.01);
    let difference = |s: fn(f64) -> f64| -> f64 {
        let at = |x: f64| {
            let joint = [-1.0, 1.0].map(|x0| 0.5 * log_density(x, alpha * x0, variance).exp());
            let slopes = [-1.0, 1.0].map(|x0| (alpha * x0 - x) / variance);
            let p = joint[0] + joint[1];
            let score = (joint[0] * slopes[0] + joint[1] * slopes[1]) / p;
            let of_the_slopes = joint[0] * (s(x) - slopes[0]).powi(2) + joint[1] * (s(x) - slopes[1]).powi(2);
            of_the_slopes - p * (s(x) - score).powi(2)
        };
        (-600..=600).map(|k| h * at(h * f64::from(k))).sum()
    };
    let constant = difference(|_| 0.0);
    for s in [|_| 3.0, |x: f64| -x, |x: f64| (2.0 * x).sin(), |x: f64| x.powi(3) - 1.0] {
        assert_close(difference(s), constant, 1e-12);
    }
    // the least denoising loss, in units of eps: what is left even when s is the score
    assert!((0.1..0.9).contains(&(variance * constant)));
}
// ANCHOR_END: c4_denoising_score_matching_differs_by_a_constant

// ANCHOR: c4_two_points_are_told_apart_by_a_hyperbolic_tangent
// C4  data that are -1 or 1, each half of the time: E[x_0|x_t] = tanh(alpha x_t / sigma^2)
#[test]
fn c4_two_points_are_told_apart_by_a_hyperbolic_tangent() {
    let (alpha, sigma) = (0.8, 0.6);
    let p = Mixture::around(&[vec![-1.0], vec![1.0]], 0.0).noised(alpha, sigma);
    let x0_hat = |x: f64| (x + sigma * sigma * p.score(&[x])[0]) / alpha;
    for x in [-3.0, -0.5, 0.0, 0.01, 0.5, 1.0, 4.0] {
        assert_close(x0_hat(x), f64::tanh(alpha * x / (sigma * sigma)), 1e-12);
    }
    // the numbers of the book
    assert!((x0_hat(0.5) - 0.8045).abs() < 5e-5);
    assert!((p.score(&[0.5])[0] - 0.3988).abs() < 5e-5);
    assert!((-sigma * p.score(&[0.5])[0] + 0.2393).abs() < 5e-5);
}
// ANCHOR_END: c4_two_points_are_told_apart_by_a_hyperbolic_tangent

// ANCHOR: c4_the_least_loss_is_not_zero
// C4  the least L_simple at time t is not 0: it is 1 - sigma_t^2 E ||grad log p(x_t)||^2 / D, the mean square of the
//     noise less that of what can be known of it. For N(m, s^2 I) it is alpha^2 s^2 / (alpha^2 s^2 + sigma^2).
#[test]
fn c4_the_least_loss_is_not_zero() {
    let (schedule, n, s) = (ScheduleConfig::Linear.build(), 5000, 0.5);
    for (data, closed_form) in [(Mixture::gaussian(&[0.3, -0.4], s), true), (Mixture::two_moons(), false)] {
        for t in [0.02, 0.2, 0.5] {
            let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
            let x0: Vec<f64> = (0..n).flat_map(|i| data.sample(11, i)).collect();
            let shape = [n as usize, 1, 1, 2];
            let (x0, eps) = (tensor(shape, &x0), tensor(shape, &normal(11, Purpose::Test, 3, 0, 2 * n as usize)));
            let times = vec![t; n as usize];
            let x_t = q_sample(&x0, &eps, &Levels::at(&schedule, &times, DType::F64));
            let best = Exact { data: data.clone(), schedule: &schedule }.predict(&x_t, &times, &None);
            let least = loss(&best, &x0, &eps, &times, &schedule, Target::Eps, Weighting::Simple).per_sample.to_f64();

            let noised = data.noised(alpha, sigma);
            let points = x_t.to_f64();
            let known =
                points.chunks(2).map(|x| noised.score(x).iter().map(|g| sigma * sigma * g * g / 2.0).sum::<f64>());
            let off: Vec<f64> = least.iter().zip(known).map(|(loss, known)| loss - (1.0 - known)).collect();
            assert_expectation(&off, 0.0);
            if closed_form {
                let signal = alpha * alpha * s * s;
                assert_expectation(&least, signal / (signal + sigma * sigma));
            }
        }
    }
}
// ANCHOR_END: c4_the_least_loss_is_not_zero

// ANCHOR: c4_each_sample_has_its_own_time_and_loss
// C4  one time, one image, one loss per sample: the mean is over the batch, and each sample's loss is its own
#[test]
fn c4_each_sample_has_its_own_time_and_loss() {
    let schedule = ScheduleConfig::Cosine.build();
    let t = [0.1, 0.5, 0.9];
    let draw = |k| normal(8, Purpose::Test, 0, k, 12);
    let (x0, eps, said) = (draw(0), draw(1), draw(2));
    let batch = |v: &[f64]| tensor([3, 1, 2, 2], v);
    let weighting = Weighting::MinSnr { gamma: 5.0 };
    let all = loss(&batch(&said), &batch(&x0), &batch(&eps), &t, &schedule, Target::V, weighting);
    for b in 0..3 {
        let one = |v: &[f64]| tensor([1, 1, 2, 2], &v[4 * b..4 * b + 4]);
        let alone = loss(&one(&said), &one(&x0), &one(&eps), &t[b..=b], &schedule, Target::V, weighting);
        assert_close(all.per_sample.to_f64()[b], alone.mean.item(), 1e-14);
    }
    assert_close(all.mean.item(), all.per_sample.to_f64().iter().sum::<f64>() / 3.0, 1e-14);
}
// ANCHOR_END: c4_each_sample_has_its_own_time_and_loss

// ANCHOR: c6_probabilities_of_all_levels_sum_to_one
// C6  the 256 probabilities of a pixel under the discretised Gaussian sum to 1, whatever its mean and deviation
#[test]
fn c6_probabilities_of_all_levels_sum_to_one() {
    for mean in [-1.7, -1.0, -0.3, 0.001, 0.5, 1.0, 2.5] {
        for std in [1e-3, 0.01, 0.1, 1.0, 10.0] {
            let total: f64 = (0..LEVELS).map(|level| discretised_log_probability(level, mean, std).exp()).sum();
            assert_close(total, 1.0, 1e-13);
        }
    }
}
// ANCHOR_END: c6_probabilities_of_all_levels_sum_to_one

// ANCHOR: c6_probability_is_the_mass_of_the_bin
// C6  p(level) = int from x - 1/255 to x + 1/255 of N(x_0; mean, std^2) (DDPM eq. 13), integrated numerically
#[test]
fn c6_probability_is_the_mass_of_the_bin() {
    let (mean, std, cuts) = (0.2, 0.05, 200);
    for level in [1, 100, 140, 153, 160, 200, 254] {
        let width = 2.0 / 255.0 / f64::from(cuts);
        let left = level_value(level) - 1.0 / 255.0;
        let mass: f64 =
            (0..cuts).map(|k| log_density(left + (f64::from(k) + 0.5) * width, mean, std * std).exp() * width).sum();
        assert!((discretised_log_probability(level, mean, std) - mass.ln()).abs() < 1e-4, "level {level}");
    }
    // the outermost bins take the tails
    assert_close(discretised_log_probability(255, 3.0, 0.1), 0.0, 1e-12);
    assert_close(discretised_log_probability(0, -3.0, 0.1), 0.0, 1e-12);
}
// ANCHOR_END: c6_probability_is_the_mass_of_the_bin

// C1, C6  the bound of 8-bit images is, term by term and in expectation, that of the closed form: with the exact model of Gaussian
//         data the means of a step are coef_x0 (x_0 - E[x_0 | x_i]) apart, and the decoder spreads x_0 over bins of 2 / 255.
//         L_simple, from the same images, is Var(eps | x_i). Within 5 standard errors of 4000 images.
#[test]
fn c1_the_bound_of_images_has_the_terms_of_the_closed_form() {
    let chain = GaussianChain { m: 0.05, s: 0.2, schedule: DiscreteSchedule::linear(25) };
    let model = Exact { data: Mixture::gaussian(&[chain.m], chain.s), schedule: &chain.schedule };
    let x0 = normal(5, Purpose::Test, 0, 0, 4000).into_iter().map(|z| chain.m + chain.s * z);
    let pixels: Vec<u8> = x0.map(|x| ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8).collect();
    let seeds: Vec<(u64, u64)> = (0..4000).map(|i| (5, i)).collect();
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &seeds };
    for variance in [ReverseVariance::Small, ReverseVariance::Large] {
        let mut go_on = |_| ControlFlow::Continue(());
        let bounds =
            bound((&model, Target::Eps), &None, &chain.schedule, variance, (&pixels, &images), &mut go_on).unwrap();
        let all = |of: &dyn Fn(&Bound) -> f64| bounds.iter().map(of).collect::<Vec<f64>>();
        for i in 1..=25 {
            let (q, (_, hidden)) = (Posterior::of_step(&chain.schedule, i), chain.image_given(i));
            let v = variance.of_step(&chain.schedule, i);
            let nats = match i {
                1 => -log_density(0.0, 0.0, v) + hidden / (2.0 * v) - (2.0_f64 / 255.0).ln(),
                _ => kl(0.0, q.variance.ln(), 0.0, v.ln()) + q.coef_x0.powi(2) * hidden / (2.0 * v),
            };
            assert_expectation(&all(&|bound| bound.terms[i - 1] * LN_2), nats);
            let alpha_bar = chain.schedule.alpha_bars()[i];
            assert_expectation(&all(&|bound| bound.simple[i - 1]), alpha_bar / (1.0 - alpha_bar) * hidden);
        }
        let alpha_bar = chain.schedule.alpha_bars()[25];
        let squares = chain.m * chain.m + chain.s * chain.s;
        assert_expectation(
            &all(&|bound| bound.prior * LN_2),
            0.5 * (-alpha_bar - (-alpha_bar).ln_1p() + alpha_bar * squares),
        );
        // The bound bounds: a pixel costs more than the entropy of the data, in bins of that width.
        let (mean, _) = mean_and_error(&all(&Bound::total));
        assert!(mean > (chain.entropy() - (2.0_f64 / 255.0).ln()) / LN_2, "{variance:?}: {mean}");
        assert!(bounds.iter().all(|b| (b.total() - b.prior - b.terms.iter().sum::<f64>()).abs() < 1e-12));
    }
}

// ANCHOR: c6_normal_distribution_function
// C6  the distribution function behind it, against tables: Phi(1), Phi(-3), Phi(-10)
#[test]
fn c6_normal_distribution_function() {
    for (z, phi) in [
        (0.0, 0.5),
        (1.0, 0.841_344_746_068_542_9),
        (-3.0, 1.349_898_031_630_094_5e-3),
        (-10.0, 7.619_853_024_160_526e-24),
    ] {
        assert!((normal_cdf(z) / phi - 1.0).abs() < 1e-12, "z = {z}: {}", normal_cdf(z));
    }
    assert_close(normal_cdf(4.2) + normal_cdf(-4.2), 1.0, 1e-15);
}
// ANCHOR_END: c6_normal_distribution_function

// ANCHOR: c6_bits_per_dimension_of_a_known_image
// C6  the whole bound in bits per dimension: for an image that is always the same, known exactly, all of L_1 .. L_{T-1}
//     is 0, L_T is next to nothing (DDPM section 4.1), and L_0 is the decoder's price for one level.
#[test]
fn c6_bits_per_dimension_of_a_known_image() {
    let schedule = ScheduleConfig::Linear.build();
    let (level, dimensions) = (200, 28 * 28);
    let (x0, alpha_bar) = (level_value(level), schedule.alpha_bar(1.0));
    let l_prior = kl(alpha_bar.sqrt() * x0, (1.0 - alpha_bar).ln(), 0.0, 0.0);
    let l_0 = -discretised_log_probability(level, x0, schedule.betas()[0].sqrt());
    let bits = bits_per_dimension(dimensions as f64 * (l_prior + l_0), dimensions);
    assert!(bits_per_dimension(l_prior, 1) < 1e-4);
    // sqrt(beta_1) = 0.01 spans 2.55 half bins: -log2 of the mass within 1/2.55 deviations
    assert_close(bits, -(2.0 * normal_cdf(1.0 / 2.55) - 1.0).log2(), 1e-4);
}
// ANCHOR_END: c6_bits_per_dimension_of_a_known_image
