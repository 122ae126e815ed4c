//! A. The forward process: an image turns into noise, step by step or at once.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_mean_and_variance, tensor};
use imagen::array::DType;
use imagen::diffusion::schedule::cosine_alpha_bar;
use imagen::diffusion::{DiscreteSchedule, Levels, Schedule, ScheduleConfig, Transition, q_sample};
use imagen::random::{Purpose, normal};
use proptest::collection::vec;
use proptest::prelude::*;

const BOTH: [ScheduleConfig; 2] = [ScheduleConfig::Linear, ScheduleConfig::Cosine];

/// q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
fn a1(beta: f64) -> Transition {
    Transition { scale: (1.0 - beta).sqrt(), variance: beta }
}

proptest! {
    // A1  q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    // If x_{t-1} has variance 1, x_t has (1 - beta_t) 1 + beta_t = 1: the chain neither grows nor shrinks the data.
    #[test]
    fn a1_a_step_preserves_unit_variance(betas in vec(1e-6..0.999, 1..50)) {
        let unit = Transition { scale: 0.0, variance: 1.0 };
        let x_t = betas.iter().fold(unit, |x, &beta| x.then(a1(beta)));
        assert_close(x_t.variance, 1.0, 1e-12);
    }

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

    // A3  alpha(t)^2 + sigma(t)^2 = 1,   lambda(t) = log(alpha(t)^2 / sigma(t)^2)
    #[test]
    fn a3_signal_and_noise_share_the_variance(betas in vec(1e-6..0.999, 1..50), t in 1e-6..1.0) {
        let schedule = DiscreteSchedule::from_betas(betas);
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        assert_close(alpha * alpha + sigma * sigma, 1.0, 1e-14);
        assert_close(schedule.log_snr(t), (alpha * alpha / (sigma * sigma)).ln(), 1e-12);
        assert_close(schedule.alpha_bar(t), alpha * alpha, 1e-14);
    }

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
}

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
}

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

// A4  at the end next to nothing is left of the image: alpha_bar_T = 4.0e-5 (linear), 2.4e-9 (cosine)
#[test]
fn a4_almost_nothing_of_the_image_is_left() {
    let last = |config: ScheduleConfig| config.build().alpha_bar(1.0);
    assert!((last(ScheduleConfig::Linear) - 4.036e-5).abs() < 1e-8);
    assert!((last(ScheduleConfig::Cosine) - 2.428e-9).abs() < 1e-12);
}

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
