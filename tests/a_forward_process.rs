//! A. The forward process: an image turns into noise, step by step or at once.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_mean_and_variance, tensor};
use imagen::array::DType;
use imagen::diffusion::gaussian::log_density;
use imagen::diffusion::schedule::cosine_alpha_bar;
use imagen::diffusion::{Component, DiscreteSchedule, Levels, Mixture, Schedule, ScheduleConfig, Transition, q_sample};
use imagen::random::{Purpose, normal};
use proptest::collection::vec;
use proptest::prelude::*;
use std::f64::consts::FRAC_PI_2;

const BOTH: [ScheduleConfig; 2] = [ScheduleConfig::Linear, ScheduleConfig::Cosine];

/// q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
fn a1(beta: f64) -> Transition {
    Transition { scale: (1.0 - beta).sqrt(), variance: beta }
}

/// 0.3 N(-1.2, 0.25^2) + 0.7 N(0.8, 0.25^2)
fn two_lumps() -> Mixture {
    let lump = |weight, mean, std| Component { weight, mean: vec![mean], std };
    Mixture { components: vec![lump(0.3, -1.2, 0.25), lump(0.7, 0.8, 0.25)] }
}

/// The integral of f over [low, high], by the trapezoid rule; f must be next to 0 at both ends.
fn integral([low, high]: [f64; 2], f: impl Fn(f64) -> f64) -> f64 {
    let n = 4000;
    let dx = (high - low) / f64::from(n);
    (0..=n).map(|i| f(low + f64::from(i) * dx)).sum::<f64>() * dx
}

proptest! {
    // ANCHOR: a1_a_step_preserves_unit_variance
    // A1  q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    // If x_{t-1} has variance 1, x_t has (1 - beta_t) 1 + beta_t = 1: the chain neither grows nor shrinks the data.
    #[test]
    fn a1_a_step_preserves_unit_variance(betas in vec(1e-6..0.999, 1..50)) {
        let unit = Transition { scale: 0.0, variance: 1.0 };
        let x_t = betas.iter().fold(unit, |x, &beta| x.then(a1(beta)));
        assert_close(x_t.variance, 1.0, 1e-12);
    }
    // ANCHOR_END: a1_a_step_preserves_unit_variance

    // ANCHOR: a2_sums_of_gaussians_are_gaussian
    // A2  a X + Y is N(a m1 + m2, a^2 v1 + v2) if X is N(m1, v1) and Y is N(m2, v2), independent: the density of the
    //     sum is the integral over all ways to split it, and a X has the density p(x / a) / a.
    #[test]
    fn a2_sums_of_gaussians_are_gaussian(
        a in 0.1..2.0, m1 in -1.0..1.0, v1 in 0.1..2.0, m2 in -1.0..1.0, v2 in 0.1..2.0, sum in -3.0..3.0,
    ) {
        let scaled = |x: f64| log_density(x / a, m1, v1).exp() / a;
        let density = integral([-40.0, 40.0], |x| scaled(x) * log_density(sum - x, m2, v2).exp());
        assert_close(density, log_density(sum, a * m1 + m2, a * a * v1 + v2).exp(), 1e-10);
        let step = Transition { scale: a, variance: v2 };
        assert_close(Transition { scale: 0.0, variance: v1 }.then(step).variance, a * a * v1 + v2, 1e-14);
    }
    // ANCHOR_END: a2_sums_of_gaussians_are_gaussian

    // ANCHOR: a2_composition_of_steps_is_the_marginal
    // A2  q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I),   alpha_bar_t = prod_{s <= t} (1 - beta_s)
    #[test]
    fn a2_composition_of_steps_is_the_marginal(betas in vec(1e-6..0.999, 1..50)) {
        let schedule = DiscreteSchedule::from_betas(betas.clone());
        let mut q = Transition { scale: 1.0, variance: 0.0 };
        for (beta, alpha_bar) in betas.iter().zip(&schedule.alpha_bars()[1..]) {
            q = q.then(a1(*beta));
            assert_close(q.scale, alpha_bar.sqrt(), 1e-12);
            assert_close(q.variance, 1.0 - alpha_bar, 1e-12);
        }
    }
    // ANCHOR_END: a2_composition_of_steps_is_the_marginal

    // ANCHOR: a3_signal_and_noise_share_the_variance
    // A3  alpha(t)^2 + sigma(t)^2 = 1,   lambda(t) = log(alpha(t)^2 / sigma(t)^2)
    #[test]
    fn a3_signal_and_noise_share_the_variance(betas in vec(1e-6..0.999, 1..50), t in 1e-6..1.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        assert_close(alpha * alpha + sigma * sigma, 1.0, 1e-14);
        assert_close(schedule.log_snr(t), (alpha * alpha / (sigma * sigma)).ln(), 1e-12);
        assert_close(schedule.alpha_bar(t), alpha * alpha, 1e-14);
    }
    // ANCHOR_END: a3_signal_and_noise_share_the_variance

    // ANCHOR: a3_transitions_compose_to_the_marginal
    // A3  q(z_t | z_s) = N((alpha_t / alpha_s) z_s, (1 - e^{lambda_t - lambda_s}) sigma_t^2 I)
    // q(z_s | x) followed by q(z_t | z_s) is q(z_t | x), for all s < t, on the grid or off it.
    #[test]
    fn a3_transitions_compose_to_the_marginal(betas in vec(1e-6..0.999, 1..50), a in 0.0..1.0, b in 0.0..1.0) {
        prop_assume!(a != b);
        let (s, t) = (f64::min(a, b), f64::max(a, b));
        let schedule = DiscreteSchedule::from_betas(betas);
        let q = Transition { scale: schedule.alpha(s), variance: schedule.sigma(s).powi(2) };
        let q = q.then(Transition::between(&schedule, s, t));
        assert_close(q.scale, schedule.alpha(t), 1e-12);
        assert_close(q.variance, schedule.sigma(t).powi(2), 1e-12);
    }
    // ANCHOR_END: a3_transitions_compose_to_the_marginal

    // ANCHOR: a3_transitions_compose
    // A3  from s to u and on to t is from s to t
    #[test]
    fn a3_transitions_compose(betas in vec(1e-6..0.999, 1..50), times in [0.0..1.0, 0.0..1.0, 0.0..1.0]) {
        let [mut s, mut u, mut t] = times;
        if s > u { (s, u) = (u, s) }
        if u > t { (u, t) = (t, u) }
        if s > u { (s, u) = (u, s) }
        prop_assume!(s < u && u < t);
        let schedule = DiscreteSchedule::from_betas(betas);
        let two = Transition::between(&schedule, s, u).then(Transition::between(&schedule, u, t));
        let one = Transition::between(&schedule, s, t);
        assert_close(two.scale, one.scale, 1e-12);
        assert_close(two.variance, one.variance, 1e-12);
    }
    // ANCHOR_END: a3_transitions_compose

    // ANCHOR: a3_the_variance_is_what_alpha_bar_loses
    // A3  (1 - e^{lambda_t - lambda_s}) sigma_t^2 = 1 - alpha_bar(t) / alpha_bar(s)
    #[test]
    fn a3_the_variance_is_what_alpha_bar_loses(betas in vec(1e-6..0.999, 1..50), a in 0.0..1.0, b in 0.0..1.0) {
        prop_assume!(a != b);
        let (s, t) = (f64::min(a, b), f64::max(a, b));
        let schedule = DiscreteSchedule::from_betas(betas);
        let q = Transition::between(&schedule, s, t);
        assert_close(q.variance, 1.0 - schedule.alpha_bar(t) / schedule.alpha_bar(s), 1e-12);
        assert_close(q.variance, 1.0 - q.scale * q.scale, 1e-12);
    }
    // ANCHOR_END: a3_the_variance_is_what_alpha_bar_loses

    // ANCHOR: a3_alpha_and_sigma_follow_from_lambda
    // A3  alpha^2 = 1 / (1 + e^{-lambda}),   sigma^2 = 1 / (1 + e^{lambda})
    #[test]
    fn a3_alpha_and_sigma_follow_from_lambda(betas in vec(1e-6..0.999, 1..50), t in 1e-6..1.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        let lambda = schedule.log_snr(t);
        assert_close(schedule.alpha(t).powi(2), 1.0 / (1.0 + (-lambda).exp()), 1e-12);
        assert_close(schedule.sigma(t).powi(2), 1.0 / (1.0 + lambda.exp()), 1e-12);
    }
    // ANCHOR_END: a3_alpha_and_sigma_follow_from_lambda

    // ANCHOR: a3_on_the_grid_is_a1
    // A3  on the grid t = i / T, q(z_t | z_s) between neighbours is A1
    #[test]
    fn a3_on_the_grid_is_a1(betas in vec(1e-6..0.999, 1..50)) {
        let schedule = DiscreteSchedule::from_betas(betas.clone());
        for (i, &beta) in betas.iter().enumerate() {
            let q = Transition::between(&schedule, schedule.time(i), schedule.time(i + 1));
            assert_close(q.scale, (1.0 - beta).sqrt(), 1e-12);
            assert_close(q.variance, beta, 1e-12);
        }
    }
    // ANCHOR_END: a3_on_the_grid_is_a1
}

// ANCHOR: a1_small_steps_are_undone_by_a_gaussian
// A1  q(x_{t-1} | x_t) is proportional to q(x_t | x_{t-1}) p(x_{t-1}). Over the width sqrt(beta) of the first factor a
//     smooth p is nearly the exponential of a parabola, so the product is nearly a Gaussian: the divergence from the
//     Gaussian of the same mean and variance falls as beta^3, that is, halving beta divides it by about 8.
#[test]
fn a1_small_steps_are_undone_by_a_gaussian() {
    let (p, x_t) = (two_lumps().noised(0.9, 0.19_f64.sqrt()), 0.1);
    let divergence = |beta: f64| {
        let q = a1(beta);
        let range = [x_t - 12.0 * beta.sqrt(), x_t + 12.0 * beta.sqrt()];
        let joint = |x: f64| (p.log_density(&[x]) + log_density(x_t, q.scale * x, q.variance)).exp();
        let total = integral(range, joint);
        let mean = integral(range, |x| x * joint(x)) / total;
        let variance = integral(range, |x| (x - mean).powi(2) * joint(x)) / total;
        let log_ratio = |x: f64| (joint(x) / total).ln() - log_density(x, mean, variance);
        integral(range, |x| joint(x) / total * log_ratio(x))
    };
    assert!(divergence(0.9) > 0.1, "one large step leaves two humps");
    for beta in [0.02, 0.01, 0.005] {
        let ratio = divergence(beta) / divergence(0.5 * beta);
        assert!((7.5..8.5).contains(&ratio), "beta = {beta}: {ratio}");
    }
}
// ANCHOR_END: a1_small_steps_are_undone_by_a_gaussian

// ANCHOR: a2_two_steps_by_hand
// A2  with numbers for paper: beta = 0.1, then 0.2. alpha_bar_2 = 0.9 * 0.8 = 0.72; the noise of the first step is
//     scaled by 0.8 and 0.2 is added: 0.28 = 1 - 0.72. From x_0 = 0.5 the mean is sqrt(0.72) 0.5 = 0.424.
#[test]
fn a2_two_steps_by_hand() {
    let two = a1(0.1).then(a1(0.2));
    assert_close(two.variance, 0.8 * 0.1 + 0.2, 1e-15);
    assert_close(two.variance, 0.28, 1e-15);
    assert_close(0.5 * two.scale, 0.4243, 1e-4);
    assert_close(DiscreteSchedule::from_betas(vec![0.1, 0.2]).alpha_bars()[2], 0.72, 1e-15);
}
// ANCHOR_END: a2_two_steps_by_hand

// ANCHOR: a2_a_mixture_stays_a_mixture
// A2  p_t(x_t) = int q(x_t | x_0) p(x_0) dx_0, and for the data sum_k w_k N(m_k, s_k^2) that is
//     sum_k w_k N(alpha m_k, alpha^2 s_k^2 + sigma^2)
#[test]
fn a2_a_mixture_stays_a_mixture() {
    let (schedule, data) = (ScheduleConfig::Cosine.build(), two_lumps());
    for t in [0.1, 0.4, 0.9] {
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let noised = data.noised(alpha, sigma);
        for x_t in [-1.5, -0.2, 0.9] {
            let q = |x0: f64| log_density(x_t, alpha * x0, sigma * sigma).exp();
            let density = integral([-6.0, 6.0], |x0| q(x0) * data.density(&[x0]));
            assert_close(noised.density(&[x_t]), density, 1e-10);
        }
    }
}
// ANCHOR_END: a2_a_mixture_stays_a_mixture

// A3  the image itself has no noise: sigma(0) is 0 and not -0, which prints as a negative number
#[test]
fn a3_there_is_no_noise_at_time_zero() {
    for config in BOTH {
        assert_eq!(config.build().sigma(0.0).to_bits(), 0.0_f64.to_bits());
    }
}

// ANCHOR: a2_walking_the_chain_has_the_mean_and_variance_of_the_marginal
// A2, by drawing: 20 000 copies of one number go through 40 steps of A1; their mean and variance are those of
// q(x_40 | x_0), each within 5 standard errors.
#[test]
fn a2_walking_the_chain_has_the_mean_and_variance_of_the_marginal() {
    let schedule = DiscreteSchedule::linear(100);
    let (n, x0, steps) = (20_000, 0.7, 40);
    let mut x = vec![x0; n];
    for (i, &beta) in schedule.betas()[..steps].iter().enumerate() {
        let z = normal(1, Purpose::Test, i as u64, 0, n);
        x.iter_mut().zip(z).for_each(|(x, z)| *x = (1.0 - beta).sqrt() * *x + beta.sqrt() * z);
    }
    let alpha_bar = schedule.alpha_bars()[steps];
    assert_mean_and_variance(&x, alpha_bar.sqrt() * x0, 1.0 - alpha_bar);
}
// ANCHOR_END: a2_walking_the_chain_has_the_mean_and_variance_of_the_marginal

// ANCHOR: a2_q_sample_draws_from_the_marginal
// A2  x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps is a draw from q(x_t | x_0), with a time for each sample
#[test]
fn a2_q_sample_draws_from_the_marginal() {
    let schedule = ScheduleConfig::Cosine.build();
    let (t, x0, pixels) = ([0.1, 0.5, 0.9], [0.7, -0.2, 1.0], 10_000);
    let images: Vec<f64> = x0.iter().flat_map(|&x| vec![x; pixels]).collect();
    let eps = normal(2, Purpose::Test, 0, 0, 3 * pixels);
    let shape = [3, 1, 100, 100];
    let x_t = q_sample(&tensor(shape, &images), &tensor(shape, &eps), &Levels::at(&schedule, &t, DType::F64)).to_f64();
    for ((x_t, &t), &x0) in x_t.chunks(pixels).zip(&t).zip(&x0) {
        assert_mean_and_variance(x_t, schedule.alpha_bar(t).sqrt() * x0, 1.0 - schedule.alpha_bar(t));
    }
}
// ANCHOR_END: a2_q_sample_draws_from_the_marginal

// ANCHOR: a3_log_snr_falls_strictly
// A3  lambda(t) falls strictly, so t and the noise level say the same
#[test]
fn a3_log_snr_falls_strictly() {
    for config in BOTH {
        let schedule = config.build();
        let lambda: Vec<f64> = (0..=9_999).map(|i| schedule.log_snr(f64::from(i) / 9_999.0)).collect();
        assert!(lambda.is_sorted_by(|a, b| a > b), "{config:?}");
        assert_eq!(lambda[0], f64::INFINITY);
        assert!(lambda[9_999].is_finite());
    }
}
// ANCHOR_END: a3_log_snr_falls_strictly

// ANCHOR: a4_linear_betas_scale_with_the_number_of_steps
// A4  linear: beta from 1e-4 to 0.02 for T = 1000, both ends times 1000 / T otherwise
#[test]
fn a4_linear_betas_scale_with_the_number_of_steps() {
    for steps in [100, 250, 1000, 4000] {
        let schedule = DiscreteSchedule::linear(steps);
        let scale = 1000.0 / steps as f64;
        let betas = schedule.betas();
        assert_eq!(betas.len(), steps);
        assert_close(betas[0], 1e-4 * scale, 1e-15);
        assert_close(betas[steps - 1], 0.02 * scale, 1e-15);
        assert!(betas.windows(3).all(|b| (b[2] - 2.0 * b[1] + b[0]).abs() < 1e-15), "the betas are evenly spaced");
    }
    assert_eq!(DiscreteSchedule::linear(20).betas()[19], 0.999, "0.02 * 1000 / 20 = 1 is no beta");
}
// ANCHOR_END: a4_linear_betas_scale_with_the_number_of_steps

// ANCHOR: a4_linear_has_a_continuous_limit
// A4  the linear chains of all lengths are cuts through one process: with beta(t) = 0.1 + 19.9 t per unit of time,
//     log alpha_bar(t) -> -int_0^t beta = -0.1 t - 9.95 t^2 as T -> infinity, with an error that halves when T doubles.
#[test]
fn a4_linear_has_a_continuous_limit() {
    let error =
        |steps: usize, t: f64| (DiscreteSchedule::linear(steps).log_alpha_bar(t) - (-0.1 * t - 9.95 * t * t)).abs();
    for t in [0.25, 0.5, 1.0] {
        assert!(error(1000, t) < 0.1);
        for steps in [1000, 2000, 4000] {
            let ratio = error(2 * steps, t) / error(steps, t);
            assert!((0.48..0.52).contains(&ratio), "t = {t}: {ratio}");
        }
    }
}
// ANCHOR_END: a4_linear_has_a_continuous_limit

// ANCHOR: a4_cosine_chain_meets_the_closed_form
// A4  cosine: alpha_bar(t) = cos^2((t + s)/(1 + s) pi/2) / cos^2(s/(1 + s) pi/2), s = 0.008; beta clipped at 0.999.
//     The discrete chain meets it at i / T, except for x_T, where alpha_bar would be 0 and the clip acts.
#[test]
fn a4_cosine_chain_meets_the_closed_form() {
    for steps in [10, 1000] {
        let schedule = DiscreteSchedule::cosine(steps);
        let clipped = schedule.betas().iter().filter(|&&beta| beta == 0.999).count();
        assert_eq!(clipped, 1);
        for i in 0..steps {
            assert_close(schedule.alpha_bars()[i], cosine_alpha_bar(schedule.time(i)), 1e-12);
        }
        assert_close(schedule.alpha_bars()[steps], 0.001 * cosine_alpha_bar(schedule.time(steps - 1)), 1e-15);
    }
    // and between the grid points of the chain of 1000 steps
    let schedule = ScheduleConfig::Cosine.build();
    for i in 0..=7_777 {
        let t = f64::from(i) / 7_777.0;
        assert!((schedule.alpha_bar(t) - cosine_alpha_bar(t)).abs() < 1e-6);
    }
}
// ANCHOR_END: a4_cosine_chain_meets_the_closed_form

// ANCHOR: a4_continuous_and_discrete_agree_on_the_grid
// A4  discrete and continuous are two views of one schedule: alpha_bar(i / T) = alpha_bar_i
#[test]
fn a4_continuous_and_discrete_agree_on_the_grid() {
    for config in BOTH {
        for steps in [1, 7, 100, 1000] {
            let schedule = config.discrete(steps);
            let on_grid: Vec<f64> = (0..=steps).map(|i| schedule.alpha_bar(schedule.time(i))).collect();
            assert_all_close(&on_grid, schedule.alpha_bars(), 1e-12);
            let logs: Vec<f64> = (0..=steps).map(|i| schedule.log_alpha_bar(schedule.time(i))).collect();
            let expected: Vec<f64> = schedule.alpha_bars().iter().map(|a| a.ln()).collect();
            assert_all_close(&logs, &expected, 1e-12);
        }
    }
}
// ANCHOR_END: a4_continuous_and_discrete_agree_on_the_grid

// ANCHOR: a4_almost_nothing_of_the_image_is_left
// A4  at the end next to nothing is left of the image: alpha_bar_T = 4.0e-5 (linear), 2.4e-9 (cosine)
#[test]
fn a4_almost_nothing_of_the_image_is_left() {
    let last = |config: ScheduleConfig| config.build().alpha_bar(1.0);
    assert!((last(ScheduleConfig::Linear) - 4.036e-5).abs() < 1e-8);
    assert!((last(ScheduleConfig::Cosine) - 2.428e-9).abs() < 1e-12);
}
// ANCHOR_END: a4_almost_nothing_of_the_image_is_left

// ANCHOR: a4_the_offset_makes_the_first_step_visible
// A4  s = 0.008 makes the first of 1000 steps about as large as the distance 1/127.5 of two neighbouring pixel values;
//     with s = 0 its standard deviation would be pi/2 / 1000, a fifth of that distance.
#[test]
fn a4_the_offset_makes_the_first_step_visible() {
    let first = DiscreteSchedule::cosine(1000).betas()[0].sqrt();
    assert!((0.8..1.0).contains(&(first * 127.5)), "{first}");
    let without = (1.0 - (FRAC_PI_2 / 1000.0).cos().powi(2)).sqrt();
    assert!((without - FRAC_PI_2 / 1000.0).abs() < 1e-8);
    assert!((0.19..0.21).contains(&(without * 127.5)), "{without}");
}
// ANCHOR_END: a4_the_offset_makes_the_first_step_visible

// ANCHOR: a4_the_mean_of_many_pixels_has_a_higher_snr
// A4  the mean of D pixels that are all x has signal alpha x and noise of variance sigma^2 / D: its SNR is D times
//     theirs, so that alpha_bar_T of the linear schedule hides one pixel but not the brightness of 1024 x 1024.
//     Measured at t = 0.5, where alpha x is 65 times the standard error of the mean of all images.
#[test]
fn a4_the_mean_of_many_pixels_has_a_higher_snr() {
    let (schedule, t, x0, images, side) = (ScheduleConfig::Linear.build(), 0.5, 0.7, 400, 16);
    let (shape, pixels) = ([images, 1, side, side], side * side);
    let eps = tensor(shape, &normal(3, Purpose::Test, 0, 0, images * pixels));
    let levels = Levels::at(&schedule, &vec![t; images], DType::F64);
    let x_t = q_sample(&tensor(shape, &vec![x0; images * pixels]), &eps, &levels).to_f64();
    let means: Vec<f64> = x_t.chunks(pixels).map(|image| image.iter().sum::<f64>() / pixels as f64).collect();
    assert_mean_and_variance(&means, schedule.alpha(t) * x0, schedule.sigma(t).powi(2) / pixels as f64);
    let snr = |pixels: f64| pixels * schedule.log_snr(1.0).exp();
    assert!(snr(28.0 * 28.0) < 0.04);
    assert!(snr(1024.0 * 1024.0) > 40.0);
    assert!(1024.0 * 1024.0 * ScheduleConfig::Cosine.build().log_snr(1.0).exp() < 0.003);
}
// ANCHOR_END: a4_the_mean_of_many_pixels_has_a_higher_snr

#[test]
#[should_panic(expected = "beta_2 = 1 is not strictly between 0 and 1")]
fn a1_rejects_a_step_that_leaves_nothing() {
    DiscreteSchedule::from_betas(vec![0.1, 1.0]);
}

#[test]
#[should_panic(expected = "outside [0, 1]")]
fn a3_rejects_a_time_outside_the_process() {
    ScheduleConfig::Linear.build().alpha(1.5);
}
