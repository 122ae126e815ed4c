//! Chapter 8, the reverse process and the bound.

use imagen::diffusion::gaussian::{kl, log_density};
use imagen::diffusion::{DiscreteSchedule, Posterior, Schedule, ScheduleConfig};

// Exercise 8.1: from which step on do the two variances differ by less than one per cent?
// ANCHOR: settled
/// The first step at which beta_tilde is at least `share` of beta.
fn settled(schedule: &DiscreteSchedule, share: f64) -> Option<usize> {
    (1..=schedule.steps()).find(|&i| {
        let q = Posterior::of_step(schedule, i);
        q.variance >= share * q.forward_variance
    })
}
// ANCHOR_END: settled

#[test]
fn ex_8_1_the_two_variances_soon_agree() {
    let schedule = DiscreteSchedule::linear(1000);
    let at = settled(&schedule, 0.99).unwrap();
    assert_eq!(at, 168);
    let ratio = |i: usize| {
        let q = Posterior::of_step(&schedule, i);
        q.variance / q.forward_variance
    };
    assert!((2..at).all(|i| ratio(i) < 0.99) && (at..=1000).all(|i| ratio(i) >= 0.99));
    assert_eq!(settled(&DiscreteSchedule::from_betas(vec![0.5]), 0.1), None);
}

// Exercise 8.2: a product of any number of Gaussians.
// ANCHOR: product
/// Mean and variance of the normalised product of Gaussians, each given by its mean and variance.
fn product(factors: &[(f64, f64)]) -> (f64, f64) {
    let precision: f64 = factors.iter().map(|(_, variance)| 1.0 / variance).sum();
    let weighted: f64 = factors.iter().map(|(mean, variance)| mean / variance).sum();
    (weighted / precision, 1.0 / precision)
}
// ANCHOR_END: product

#[test]
fn ex_8_2_precisions_add() {
    let schedule = DiscreteSchedule::linear(40);
    let (x0, x_t) = (0.7, -0.2);
    for i in 2..=40 {
        let (beta, before) = (schedule.betas()[i - 1], schedule.alpha_bars()[i - 1]);
        let said_by_x0 = (before.sqrt() * x0, 1.0 - before);
        let said_by_x_t = (x_t / (1.0 - beta).sqrt(), beta / (1.0 - beta));
        let (mean, variance) = product(&[said_by_x0, said_by_x_t]);
        let q = Posterior::of_step(&schedule, i);
        assert!((mean - q.mean_of(x0, x_t)).abs() < 1e-12 && (variance - q.variance).abs() < 1e-12);
    }
    // three at once, or two and then the third
    let (a, b, c) = ((0.3, 2.0), (-1.0, 0.5), (4.0, 1.0));
    let (at_once, in_turn) = (product(&[a, b, c]), product(&[product(&[a, b]), c]));
    assert!((at_once.0 - in_turn.0).abs() < 1e-14 && (at_once.1 - in_turn.1).abs() < 1e-14);
    // by hand: precisions 1/2, 2 and 1
    assert!((at_once.0 - 2.15 / 3.5).abs() < 1e-14 && (at_once.1 - 1.0 / 3.5).abs() < 1e-14);
}

// Exercise 8.3: of all Gaussians, the one with the mean and variance of p has the smallest KL(p || N).
// ANCHOR: best_gaussian
/// Sums over a grid of points (x, p(x)) that are `step` apart.
fn expected(grid: &[(f64, f64)], step: f64, f: impl Fn(f64, f64) -> f64) -> f64 {
    step * grid.iter().map(|&(x, p)| p * f(x, p)).sum::<f64>()
}

/// (mean, variance) of the Gaussian nearest to p.
fn best_gaussian(grid: &[(f64, f64)], step: f64) -> (f64, f64) {
    let mean = expected(grid, step, |x, _| x);
    (mean, expected(grid, step, |x, _| (x - mean).powi(2)))
}

/// KL(p || N(mean, variance)).
fn divergence(grid: &[(f64, f64)], step: f64, (mean, variance): (f64, f64)) -> f64 {
    expected(grid, step, |x, p| p.ln() - log_density(x, mean, variance))
}
// ANCHOR_END: best_gaussian

#[test]
fn ex_8_3_the_best_gaussian_has_the_mean_and_the_variance() {
    let p = |x: f64| 0.3 * log_density(x, -1.0, 0.1).exp() + 0.7 * log_density(x, 0.5, 0.3).exp();
    let step = 0.01;
    let grid: Vec<(f64, f64)> = (-500..=500).map(|k| step * f64::from(k)).map(|x| (x, p(x))).collect();
    let best = best_gaussian(&grid, step);
    // 0.3 (-1) + 0.7 0.5, and 0.3 (0.1 + 1) + 0.7 (0.3 + 0.25) less the square of the mean
    assert!((best.0 - 0.05).abs() < 1e-9 && (best.1 - (0.715 - 0.0025)).abs() < 1e-9);
    let least = divergence(&grid, step, best);
    for (mean_off, factor) in [(0.05, 1.0), (-0.05, 1.0), (0.0, 1.1), (0.0, 0.9), (0.02, 1.05)] {
        let other = (best.0 + mean_off, best.1 * factor);
        // by exactly the divergence between the two Gaussians
        let more = kl(best.0, best.1.ln(), other.0, other.1.ln());
        assert!(more > 1e-4);
        assert!((divergence(&grid, step, other) - least - more).abs() < 1e-9);
    }
}

// Exercise 8.4: the v of (B3) that is right for data N(m, s^2).
// ANCHOR: right_v
/// The v for which beta^v beta_tilde^(1 - v) is the variance of q(x_{i-1} | x_i), for i >= 2.
fn right_v(schedule: &DiscreteSchedule, i: usize, s: f64) -> f64 {
    let variance = |i: usize| schedule.alpha_bars()[i] * s * s + 1.0 - schedule.alpha_bars()[i];
    let q = Posterior::of_step(schedule, i);
    let exact = q.forward_variance * variance(i - 1) / variance(i);
    (exact / q.variance).ln() / (q.forward_variance / q.variance).ln()
}
// ANCHOR_END: right_v

#[test]
fn ex_8_4_the_right_v_goes_from_0_to_1_with_the_spread_of_the_data() {
    let schedule = DiscreteSchedule::linear(1000);
    for i in [2, 10, 100, 1000] {
        let [point, narrow, wide, noise] = [0.0, 0.02, 0.5, 1.0].map(|s| right_v(&schedule, i, s));
        assert!(point.abs() < 1e-9 && (noise - 1.0).abs() < 1e-9);
        assert!(point < narrow && narrow < wide && wide < noise);
    }
    // data N(0, 0.5^2), t = 2: nearly beta, and every other v makes the step dearer
    let (s, q, v) = (0.5_f64, Posterior::of_step(&schedule, 2), right_v(&schedule, 2, 0.5));
    assert!(v > 0.999);
    let variance = |i: usize| schedule.alpha_bars()[i] * s * s + 1.0 - schedule.alpha_bars()[i];
    let exact = q.forward_variance * variance(1) / variance(2);
    let price = |v: f64| kl(0.0, exact.ln(), 0.0, q.variance_between(v).ln());
    assert!(price(v) < 1e-20 && price(v - 0.1) > 1e-4 && price(v + 0.1) > 1e-4);
}

// Exercise 8.5: the bound over any times 0 = t_0 < t_1 < .. < t_N; with exact steps it is tight on all of them.
// ANCHOR: bound_over
/// The bound for data N(m, s^2), averaged over the data, with the exact steps back between neighbours of `times`.
fn bound_over(schedule: &impl Schedule, times: &[f64], s: f64) -> f64 {
    let variance = |t: f64| schedule.alpha_bar(t) * s * s + schedule.sigma(t).powi(2);
    let term = |earlier: f64, t: f64| {
        let q = Posterior::between(schedule, earlier, t);
        // the variance of x_0 given x_t, and of the exact step back
        let left = s * s * schedule.sigma(t).powi(2) / variance(t);
        let exact = q.variance + q.coef_x0.powi(2) * left;
        let squared_error = q.coef_x0.powi(2) * left / (2.0 * exact);
        match earlier {
            0.0 => -log_density(0.0, 0.0, exact) + squared_error,
            _ => kl(0.0, q.variance.ln(), 0.0, exact.ln()) + squared_error,
        }
    };
    let last = times[times.len() - 1];
    let prior = kl(0.0, schedule.sigma(last).powi(2).ln(), 0.0, variance(last).ln())
        + schedule.alpha_bar(last) * s * s / (2.0 * variance(last));
    times.windows(2).map(|pair| term(pair[0], pair[1])).sum::<f64>() + prior
}
// ANCHOR_END: bound_over

#[test]
fn ex_8_5_exact_steps_of_any_size_are_tight() {
    let schedule = ScheduleConfig::Cosine.build();
    for s in [0.1_f64, 0.5, 2.0] {
        let entropy = -log_density(0.0, 0.0, s * s) + 0.5;
        let even: Vec<f64> = (0..=50).map(|i| f64::from(i) / 50.0).collect();
        for times in [&[0.0, 1.0][..], &[0.0, 0.3, 1.0], &[0.0, 0.1, 0.15, 0.8], &even] {
            let bound = bound_over(&schedule, times, s);
            assert!((bound - entropy).abs() < 1e-9, "{times:?}: {bound} is not {entropy}");
        }
    }
}
