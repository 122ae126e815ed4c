//! B. The reverse process: one step back.

mod closed_form;

use closed_form::{assert_all_close, assert_close, tensor};
use imagen::diffusion::gaussian::log_density;
use imagen::diffusion::posterior::mean_from_eps;
use imagen::diffusion::{DiscreteSchedule, Posterior, Schedule, ScheduleConfig};
use proptest::collection::vec;
use proptest::prelude::*;

const BOTH: [ScheduleConfig; 2] = [ScheduleConfig::Linear, ScheduleConfig::Cosine];

/// The exact reverse step of data N(m, s^2): p(x_{i-1} | x_i) = int q(x_{i-1} | x_i, x_0) p(x_0 | x_i) dx_0 as
/// (slope, offset, variance) of a Gaussian N(slope x_i + offset, variance).
fn exact_reverse_step(schedule: &DiscreteSchedule, i: usize, m: f64, s: f64) -> (f64, f64, f64) {
    let alpha_bar = schedule.alpha_bars()[i];
    let gain = alpha_bar.sqrt() * s * s / (alpha_bar * s * s + 1.0 - alpha_bar);
    // x_0 given x_i: mean m + gain (x_i - sqrt(alpha_bar) m), variance s^2 (1 - gain sqrt(alpha_bar))
    let q = Posterior::of_step(schedule, i);
    let slope = q.coef_xt + q.coef_x0 * gain;
    let offset = q.coef_x0 * m * (1.0 - gain * alpha_bar.sqrt());
    (slope, offset, q.variance + q.coef_x0.powi(2) * s * s * (1.0 - gain * alpha_bar.sqrt()))
}

// B1  p(x_{0:T}) = p(x_T) prod_t p(x_{t-1} | x_t)
// With the exact reverse steps of Gaussian data, the chain that starts from q(x_T) ends in the data.
#[test]
fn b1_exact_reverse_steps_lead_back_to_the_data() {
    let (m, s) = (0.4, 0.3);
    for config in BOTH {
        let schedule = config.discrete(200);
        let alpha_bar = schedule.alpha_bars()[200];
        let (mut mean, mut variance) = (alpha_bar.sqrt() * m, alpha_bar * s * s + 1.0 - alpha_bar);
        for i in (1..=200).rev() {
            let (slope, offset, added) = exact_reverse_step(&schedule, i, m, s);
            (mean, variance) = (slope * mean + offset, slope * slope * variance + added);
        }
        assert_close(mean, m, 1e-11);
        assert_close(variance, s * s, 1e-11);
    }
}

proptest! {
    // B2  q(x_{t-1} | x_t, x_0) = q(x_t | x_{t-1}) q(x_{t-1} | x_0) / q(x_t | x_0) = N(mu_tilde, beta_tilde I)
    // The product of the two Gaussians, normalised by summing over a fine grid of x_{t-1}, has B2's density.
    #[test]
    fn b2_bayes_rule_on_a_grid_gives_the_posterior(
        betas in vec(0.01..0.6, 2..20), x0 in -1.0..1.0, x_t in -2.0..2.0,
    ) {
        let schedule = DiscreteSchedule::from_betas(betas);
        let i = schedule.steps();
        let (beta, before) = (schedule.betas()[i - 1], schedule.alpha_bars()[i - 1]);
        let q = Posterior::of_step(&schedule, i);
        let (mean, std) = (q.mean_of(x0, x_t), q.variance.sqrt());

        let product = |x: f64| {
            log_density(x_t, (1.0 - beta).sqrt() * x, beta) + log_density(x, before.sqrt() * x0, 1.0 - before)
        };
        // the trapezoidal rule is exact to machine precision for a Gaussian that the grid covers to 12 deviations
        let step = 0.02 * std;
        let grid: Vec<f64> = (-600..=600).map(|k| mean + f64::from(k) * step).collect();
        let top = product(mean);
        let evidence = step * grid.iter().map(|&x| (product(x) - top).exp()).sum::<f64>();
        for &x in grid.iter().skip(300).step_by(50).take(13) {
            let normalised = (product(x) - top).exp() / evidence;
            assert_close(normalised, log_density(x, mean, q.variance).exp(), 1e-9);
        }
    }

    // B2  mu_tilde = [sqrt(alpha_bar_{t-1}) beta_t x_0 + sqrt(alpha_t)(1 - alpha_bar_{t-1}) x_t] / (1 - alpha_bar_t)
    //              = (x_t - (1 - alpha_t) / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t)
    #[test]
    fn b2_both_forms_of_mu_tilde_agree(betas in vec(1e-4..0.999, 1..50), x0 in -1.0..1.0, eps in -4.0..4.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        for i in 1..=schedule.steps() {
            let alpha_bar = schedule.alpha_bars()[i];
            let x_t = alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * eps;
            let by_image = Posterior::of_step(&schedule, i).mean_of(x0, x_t);
            assert_close(by_image, mean_from_eps(&schedule, i, x_t, eps), 1e-10);
        }
    }

    // B2  continuous (Imagen eq. 6): mu = e^{lambda_t - lambda_s} (alpha_s / alpha_t) z_t + (1 - e^{lambda_t - lambda_s}) alpha_s x,
    //     var = (1 - e^{lambda_t - lambda_s}) sigma_s^2; on the grid it is DDPM's
    #[test]
    fn b2_continuous_form_on_the_grid_is_the_discrete_one(betas in vec(1e-4..0.999, 1..50)) {
        let schedule = DiscreteSchedule::from_betas(betas);
        for i in 1..=schedule.steps() {
            let discrete = Posterior::of_step(&schedule, i);
            let continuous = Posterior::between(&schedule, schedule.time(i - 1), schedule.time(i));
            assert_close(continuous.coef_x0, discrete.coef_x0, 1e-10);
            assert_close(continuous.coef_xt, discrete.coef_xt, 1e-10);
            assert_close(continuous.variance, discrete.variance, 1e-10);
            assert_close(continuous.forward_variance, discrete.forward_variance, 1e-10);
        }
    }

    // B2  averaged over x_t ~ q(x_t | x_0), the posterior is q(x_s | x_0): it undoes what A3 did, for any s < t
    #[test]
    fn b2_undoes_the_transition(a in 0.0..1.0, b in 0.0..1.0, x0 in -1.0..1.0) {
        prop_assume!((a - b as f64).abs() > 1e-6);
        let (s, t) = (f64::min(a, b), f64::max(a, b));
        let schedule = ScheduleConfig::Cosine.build();
        let q = Posterior::between(&schedule, s, t);
        assert_close(q.mean_of(x0, schedule.alpha(t) * x0), schedule.alpha(s) * x0, 1e-12);
        let variance = q.coef_xt.powi(2) * schedule.sigma(t).powi(2) + q.variance;
        assert_close(variance, schedule.sigma(s).powi(2), 1e-12);
    }

    // B3  beta_tilde_t <= beta_t, and exp(v log beta_t + (1 - v) log beta_tilde_t) goes from one to the other
    #[test]
    fn b3_variance_lies_between_the_extremes(betas in vec(1e-4..0.999, 2..50), v in 0.0..1.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        for i in 2..=schedule.steps() {
            let q = Posterior::of_step(&schedule, i);
            prop_assert!(q.variance <= q.forward_variance * (1.0 + 1e-12));
            assert_close(q.variance_between(0.0), q.variance, 1e-14);
            assert_close(q.variance_between(1.0), q.forward_variance, 1e-14);
            let log = v * q.forward_variance.ln() + (1.0 - v) * q.variance.ln();
            assert_close(q.variance_between(v), log.exp(), 1e-12);
        }
    }
}

// B2  at the last step, s = 0, nothing is left to chance: mu_tilde = x_0 and beta_tilde = 0
#[test]
fn b2_last_step_is_the_image() {
    for config in BOTH {
        let schedule = config.build();
        for t in [1e-3, 0.02, 1.0] {
            let q = Posterior::between(&schedule, 0.0, t);
            assert_eq!((q.coef_x0, q.coef_xt, q.variance), (1.0, 0.0, 0.0));
            assert_eq!(q.variance_between(0.5), 0.0);
        }
    }
}

// B2  the same on tensors: every pixel alike
#[test]
fn b2_mean_of_a_batch_is_the_mean_of_each_number() {
    let (x0, x_t) = ([0.1, -0.7, 0.9, 0.0], [1.2, -0.3, 0.4, -2.0]);
    let q = Posterior::between(&ScheduleConfig::Linear.build(), 0.3, 0.4);
    let expected: Vec<f64> = x0.iter().zip(&x_t).map(|(&x0, &x_t)| q.mean_of(x0, x_t)).collect();
    let mean = q.mean(&tensor([2, 1, 1, 2], &x0), &tensor([2, 1, 1, 2], &x_t));
    assert_all_close(&mean.to_f64(), &expected, 1e-15);
}

// B3  why these two: the exact reverse variance is beta_tilde_t if the data is one point, and beta_t if it is N(0, I)
//     (DDPM section 3.2)
#[test]
fn b3_the_extremes_are_exact_for_a_point_and_for_noise() {
    for config in BOTH {
        let schedule = config.discrete(100);
        for i in 1..=100 {
            let q = Posterior::of_step(&schedule, i);
            let (_, _, of_a_point) = exact_reverse_step(&schedule, i, 0.4, 0.0);
            let (_, _, of_noise) = exact_reverse_step(&schedule, i, 0.0, 1.0);
            assert_close(of_a_point, q.variance, 1e-12);
            assert_close(of_noise, q.forward_variance, 1e-12);
        }
    }
}
