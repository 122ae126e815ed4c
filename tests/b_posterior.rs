//! B. The reverse process: one step back.

mod closed_form;

use closed_form::{assert_all_close, assert_close, tensor};
use imagen::diffusion::gaussian::log_density;
use imagen::diffusion::posterior::mean_from_eps;
use imagen::diffusion::{DiscreteSchedule, Posterior, Schedule, ScheduleConfig};
use proptest::collection::vec;
use proptest::prelude::*;

const BOTH: [ScheduleConfig; 2] = [ScheduleConfig::Linear, ScheduleConfig::Cosine];

// ANCHOR: exact_reverse_step
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
// ANCHOR_END: exact_reverse_step

// ANCHOR: b1_exact_reverse_steps_lead_back_to_the_data
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
// ANCHOR_END: b1_exact_reverse_steps_lead_back_to_the_data

// ANCHOR: b1_small_steps_back_are_nearly_gaussian
// B1  q(x_{t-1} | x_t) is not Gaussian, but for a small beta nearly so. With u = x_t / sqrt(1 - beta), and with slope g,
//     curvature c and third derivative c_3 of log q(x_{t-1}) at u, Taylor's formula makes it N(u + g / k, 1 / k),
//     k = (1 - beta) / beta - c. What is left out, c_3 h^3 / 6, makes a divergence of 5/24 c_3^2 beta^3 to leading order.
#[test]
fn b1_small_steps_back_are_nearly_gaussian() {
    let log_q = |x: f64| (0.4 * log_density(x, -1.0, 0.25).exp() + 0.6 * log_density(x, 0.8, 0.25).exp()).ln();
    let x_t = 0.3;
    for beta in [1e-2_f64, 3e-3, 1e-3, 3e-4] {
        let u = x_t / (1.0 - beta).sqrt();
        let d = 1e-3;
        let [a, b, at_u, y, z] = [-2.0, -1.0, 0.0, 1.0, 2.0].map(|k| log_q(u + k * d));
        let (slope, curvature) = ((y - b) / (2.0 * d), (y - 2.0 * at_u + b) / (d * d));
        let third = (z - 2.0 * y + 2.0 * b - a) / (2.0 * d.powi(3));
        let k = (1.0 - beta) / beta - curvature;
        let (mean, std) = (u + slope / k, k.powf(-0.5));

        // the true density on a grid of ten deviations to each side, normalised there
        let grid: Vec<f64> = (-1000..=1000).map(|j| mean + 0.01 * std * f64::from(j)).collect();
        let log_p: Vec<f64> =
            grid.iter().map(|&x| log_density(x_t, (1.0 - beta).sqrt() * x, beta) + log_q(x)).collect();
        let log_evidence = (0.01 * std * log_p.iter().map(|l| l.exp()).sum::<f64>()).ln();
        let divergence: f64 = grid
            .iter()
            .zip(&log_p)
            .map(|(&x, l)| (l - log_evidence, x))
            .map(|(l, x)| 0.01 * std * l.exp() * (l - log_density(x, mean, std * std)))
            .sum();
        let leading = 5.0 / 24.0 * third * third * beta.powi(3);
        assert!((divergence / leading - 1.0).abs() < 20.0 * beta, "beta {beta}: {divergence} is not {leading}");
    }
}
// ANCHOR_END: b1_small_steps_back_are_nearly_gaussian

proptest! {
    // ANCHOR: b2_a_product_of_gaussians_is_a_gaussian
    // B2  completing the square: N(x; a, u) N(x; b, v) = N(a; b, u + v) N(x; (a v + b u) / (u + v), u v / (u + v))
    #[test]
    fn b2_a_product_of_gaussians_is_a_gaussian(
        x in -3.0..3.0, a in -3.0..3.0, b in -3.0..3.0, u in 0.01..4.0, v in 0.01..4.0,
    ) {
        let product = log_density(x, a, u) + log_density(x, b, v);
        let completed = log_density(a, b, u + v) + log_density(x, (a * v + b * u) / (u + v), u * v / (u + v));
        assert_close(product, completed, 1e-11);
    }
    // ANCHOR_END: b2_a_product_of_gaussians_is_a_gaussian

    // ANCHOR: b2_bayes_rule_on_a_grid_gives_the_posterior
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
    // ANCHOR_END: b2_bayes_rule_on_a_grid_gives_the_posterior

    // ANCHOR: b2_both_forms_of_mu_tilde_agree
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
    // ANCHOR_END: b2_both_forms_of_mu_tilde_agree

    // ANCHOR: b2_continuous_form_on_the_grid_is_the_discrete_one
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
    // ANCHOR_END: b2_continuous_form_on_the_grid_is_the_discrete_one

    // ANCHOR: b2_undoes_the_transition
    // B2  averaged over x_t ~ q(x_t | x_0), the posterior is q(x_s | x_0): it undoes what A3 did, for any s < t
    #[test]
    fn b2_undoes_the_transition(a in 0.0..1.0, b in 0.0..1.0, x0 in -1.0..1.0) {
        prop_assume!(f64::abs(a - b) > 1e-6);
        let (s, t) = (f64::min(a, b), f64::max(a, b));
        let schedule = ScheduleConfig::Cosine.build();
        let q = Posterior::between(&schedule, s, t);
        assert_close(q.mean_of(x0, schedule.alpha(t) * x0), schedule.alpha(s) * x0, 1e-12);
        let variance = q.coef_xt.powi(2) * schedule.sigma(t).powi(2) + q.variance;
        assert_close(variance, schedule.sigma(s).powi(2), 1e-12);
    }
    // ANCHOR_END: b2_undoes_the_transition

    // ANCHOR: b1_hidden_step_is_the_average_over_images
    // B1  for data N(m, s^2), Bayes' rule with q(x_{t-1}) = N(sqrt(alpha_bar_{t-1}) m, v_{t-1}) gives the same step back as
    //     q(x_{t-1} | x_t, x_0) averaged over x_0 ~ q(x_0 | x_t)
    #[test]
    fn b1_hidden_step_is_the_average_over_images(betas in vec(1e-4..0.999, 1..50), s in 0.01..2.0, x_t in -3.0..3.0) {
        let (schedule, m) = (DiscreteSchedule::from_betas(betas), 0.4);
        for i in 1..=schedule.steps() {
            let (beta, before) = (schedule.betas()[i - 1], schedule.alpha_bars()[i - 1]);
            let (a, u) = (x_t / (1.0 - beta).sqrt(), beta / (1.0 - beta));
            let (b, v) = (before.sqrt() * m, before * s * s + 1.0 - before);
            let (slope, offset, variance) = exact_reverse_step(&schedule, i, m, s);
            assert_close(slope * x_t + offset, (a * v + b * u) / (u + v), 1e-10);
            assert_close(variance, u * v / (u + v), 1e-10);
        }
    }
    // ANCHOR_END: b1_hidden_step_is_the_average_over_images

    // ANCHOR: b1_mean_and_variance_of_the_hidden_step
    // B1  for data that are one of two points, Bayes' rule summed over a grid of x_{t-1} has the mean mu_tilde(x_t, E[x_0 | x_t])
    //     and the variance beta_tilde + coef_x0^2 Var[x_0 | x_t]: true of any data, not only of Gaussian ones
    #[test]
    fn b1_mean_and_variance_of_the_hidden_step(betas in vec(0.01..0.6, 2..20), first in 0.05..0.95, x_t in -2.0..2.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        let i = schedule.steps();
        let (beta, before, now) = (schedule.betas()[i - 1], schedule.alpha_bars()[i - 1], schedule.alpha_bars()[i]);
        let points: [(f64, f64); 2] = [(first, -1.0), (1.0 - first, 0.7)];
        let q_t = points.map(|(p, x0)| p * log_density(x_t, now.sqrt() * x0, 1.0 - now).exp());
        let share = q_t[0] / (q_t[0] + q_t[1]); // q(x_0 = -1 | x_t)
        let (mean, variance) = (-share + 0.7 * (1.0 - share), 1.7 * 1.7 * share * (1.0 - share));

        let joint = |x: f64| -> f64 {
            let q_before = points.map(|(p, x0)| p * log_density(x, before.sqrt() * x0, 1.0 - before).exp());
            log_density(x_t, (1.0 - beta).sqrt() * x, beta).exp() * (q_before[0] + q_before[1])
        };
        let q = Posterior::of_step(&schedule, i);
        let (from, step) = (q.mean_of(mean, x_t), 0.02 * q.variance.sqrt());
        let reach = 600 + (1.7 * q.coef_x0 / step) as i32; // to 12 deviations beyond either point
        let grid: Vec<f64> = (-reach..=reach).map(|k| from + f64::from(k) * step).collect();
        let sum = |f: &dyn Fn(f64) -> f64| grid.iter().map(|&x| joint(x) * f(x)).sum::<f64>();
        let centre = sum(&|x| x) / sum(&|_| 1.0);
        let spread = sum(&|x| (x - centre).powi(2)) / sum(&|_| 1.0);
        assert_close(centre, from, 1e-9);
        assert_close(spread, q.variance + q.coef_x0.powi(2) * variance, 1e-9);
    }
    // ANCHOR_END: b1_mean_and_variance_of_the_hidden_step

    // ANCHOR: b3_exact_variance_of_gaussian_data
    // B3  the variance of q(x_{t-1} | x_t) is beta_tilde_t + coef_x0^2 Var(x_0 | x_t). For data N(m, s^2) that is
    //     beta_t v_{t-1} / v_t with v_t = alpha_bar_t s^2 + 1 - alpha_bar_t: what conditioning the pair (x_{t-1}, x_t)
    //     gives, and between the extremes if s <= 1.
    #[test]
    fn b3_exact_variance_of_gaussian_data(betas in vec(1e-4..0.999, 1..50), s in 0.0..1.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        let v = |i: usize| schedule.alpha_bars()[i] * s * s + 1.0 - schedule.alpha_bars()[i];
        for i in 1..=schedule.steps() {
            let q = Posterior::of_step(&schedule, i);
            let (_, _, exact) = exact_reverse_step(&schedule, i, 0.4, s);
            assert_close(exact, schedule.betas()[i - 1] * v(i - 1) / v(i), 1e-11);
            prop_assert!(q.variance - 1e-12 <= exact && exact <= q.forward_variance + 1e-12);
        }
    }
    // ANCHOR_END: b3_exact_variance_of_gaussian_data

    // ANCHOR: b3_variance_lies_between_the_extremes
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
    // ANCHOR_END: b3_variance_lies_between_the_extremes
}

// ANCHOR: b2_last_step_is_the_image
// B2  at the last step, s = 0, nothing is left to chance: mu_tilde = x_0 and beta_tilde = 0
#[test]
fn b2_last_step_is_the_image() {
    for config in BOTH {
        let first = Posterior::of_step(&config.discrete(1000), 1);
        assert_eq!((first.coef_xt, first.variance), (0.0, 0.0));
        assert_close(first.coef_x0, 1.0, 1e-11);
        let schedule = config.build();
        for t in [1e-3, 0.02, 1.0] {
            let q = Posterior::between(&schedule, 0.0, t);
            assert_eq!((q.coef_x0, q.coef_xt, q.variance), (1.0, 0.0, 0.0));
            assert_eq!(q.variance_between(0.5), 0.0);
        }
    }
}
// ANCHOR_END: b2_last_step_is_the_image

// ANCHOR: b2_two_steps_by_hand
// B2  numbers to check by hand: beta_1 = 0.36, beta_2 = 0.75, x_0 = 1, x_2 = 1.1
#[test]
fn b2_two_steps_by_hand() {
    let schedule = DiscreteSchedule::from_betas(vec![0.36, 0.75]);
    let q = Posterior::of_step(&schedule, 2);
    assert_close(q.coef_x0, 5.0 / 7.0, 1e-14);
    assert_close(q.coef_xt, 3.0 / 14.0, 1e-14);
    assert_close(q.variance, 9.0 / 28.0, 1e-14);
    let eps = (1.1 - 0.4) / 0.84_f64.sqrt();
    assert_close(q.mean_of(1.0, 1.1), 0.95, 1e-14);
    assert_close(mean_from_eps(&schedule, 2, 1.1, eps), 0.95, 1e-14);
    assert_close(q.variance_between(0.5), 0.75 * (3.0_f64 / 7.0).sqrt(), 1e-14);
}
// ANCHOR_END: b2_two_steps_by_hand

// ANCHOR: b2_mean_of_a_batch_is_the_mean_of_each_number
// B2  the same on tensors: every pixel alike
#[test]
fn b2_mean_of_a_batch_is_the_mean_of_each_number() {
    let (x0, x_t) = ([0.1, -0.7, 0.9, 0.0], [1.2, -0.3, 0.4, -2.0]);
    let q = Posterior::between(&ScheduleConfig::Linear.build(), 0.3, 0.4);
    let expected: Vec<f64> = x0.iter().zip(&x_t).map(|(&x0, &x_t)| q.mean_of(x0, x_t)).collect();
    let mean = q.mean(&tensor([2, 1, 1, 2], &x0), &tensor([2, 1, 1, 2], &x_t));
    assert_all_close(&mean.to_f64(), &expected, 1e-15);
}
// ANCHOR_END: b2_mean_of_a_batch_is_the_mean_of_each_number

// ANCHOR: b3_the_extremes_are_exact_for_a_point_and_for_noise
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
// ANCHOR_END: b3_the_extremes_are_exact_for_a_point_and_for_noise
