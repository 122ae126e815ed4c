//! Chapter 7, the forward process.
//!
//! 7.1 Find the step of a chain at which the noise becomes stronger than the image.
//! 7.2 Leave out steps of a chain without changing q(x_t | x_0) of those that stay.
//! 7.3 Let the variance grow instead of shrinking the image, and show that nothing else changes.
//! 7.4 Move a schedule so that an image of k times the size keeps as much of what one sees.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{DiscreteSchedule, Levels, Schedule, ScheduleConfig, Transition, q_sample};
use imagen::random::{Purpose, normal};

// ANCHOR: first_step_below
/// The first step of the chain after which the signal-to-noise ratio is below `snr`, if there is one.
fn first_step_below(schedule: &DiscreteSchedule, snr: f64) -> Option<usize> {
    (1..=schedule.steps()).find(|&i| {
        let alpha_bar = schedule.alpha_bars()[i];
        alpha_bar / (1.0 - alpha_bar) < snr
    })
}
// ANCHOR_END: first_step_below

#[test]
fn noise_wins_at_a_quarter_of_the_linear_chain_and_half_of_the_cosine_one() {
    let [linear, cosine] = [DiscreteSchedule::linear(1000), DiscreteSchedule::cosine(1000)];
    assert_eq!(first_step_below(&linear, 1.0), Some(260));
    assert_eq!(first_step_below(&cosine, 1.0), Some(497));
    assert_eq!(first_step_below(&linear, 0.01), Some(675));
    assert_eq!(first_step_below(&cosine, 0.01), Some(937));
    assert_eq!(first_step_below(&linear, 1e-9), None);
}

// ANCHOR: keep
/// The chain that visits only the steps `kept` (rising, from 1) of `schedule`.
fn keep(schedule: &DiscreteSchedule, kept: &[usize]) -> DiscreteSchedule {
    let mut before = 1.0;
    let beta = |&i: &usize| {
        let now = schedule.alpha_bars()[i];
        let beta = 1.0 - now / before;
        before = now;
        beta
    };
    DiscreteSchedule::from_betas(kept.iter().map(beta).collect())
}
// ANCHOR_END: keep

#[test]
fn the_steps_that_stay_keep_their_marginals() {
    let whole = DiscreteSchedule::cosine(1000);
    let kept = [3, 50, 51, 400, 999, 1000];
    let short = keep(&whole, &kept);
    assert_eq!(short.steps(), kept.len());
    for (j, &i) in kept.iter().enumerate() {
        let expected = whole.alpha_bars()[i];
        assert!((short.alpha_bars()[j + 1] - expected).abs() <= 1e-9 * expected, "step {i}");
        let from = if j == 0 { 0 } else { kept[j - 1] };
        let leap = Transition::between(&whole, whole.time(from), whole.time(i));
        assert!((short.betas()[j] - leap.variance).abs() < 1e-12, "step {i}");
    }
}

// ANCHOR: exploding
/// From time s to time t of the process y_t = x_t / alpha(t) = x_0 + (sigma(t) / alpha(t)) eps.
fn exploding(schedule: &impl Schedule, s: f64, t: f64) -> Transition {
    // (sigma / alpha)^2 = e^{-lambda}
    let variance = |t: f64| (-schedule.log_snr(t)).exp();
    Transition { scale: 1.0, variance: variance(t) - variance(s) }
}
// ANCHOR_END: exploding

#[test]
fn exploding_variance_is_the_same_process_divided_by_alpha() {
    let schedule = ScheduleConfig::Linear.build();
    for (s, t) in [(0.0, 0.2), (0.2, 0.21), (0.3, 0.9), (0.0, 1.0)] {
        let x = Transition::between(&schedule, s, t);
        let y = exploding(&schedule, s, t);
        let (alpha_s, alpha_t) = (schedule.alpha(s), schedule.alpha(t));
        // x_t = scale x_s + noise, divided by alpha_t, with x_s = alpha_s y_s
        assert!((x.scale * alpha_s / alpha_t - y.scale).abs() < 1e-12);
        let variance = x.variance / (alpha_t * alpha_t);
        assert!((variance - y.variance).abs() < 1e-9 * variance, "{variance} {}", y.variance);
    }
    // what is at the end of the linear schedule is noise of a standard deviation of about 157
    assert!((exploding(&schedule, 0.0, 1.0).variance.sqrt() - 157.4).abs() < 0.1);
}

// ANCHOR: shifted
/// A schedule whose log-SNR is lower by `fall` at every t.
struct Shifted<S> {
    inner: S,
    fall: f64,
}

impl<S: Schedule> Schedule for Shifted<S> {
    fn log_alpha_bar(&self, t: f64) -> f64 {
        let lambda = self.inner.log_snr(t) - self.fall;
        // log of 1 / (1 + e^{-lambda}); lambda is infinite at t = 0, and this is 0
        -(-lambda).exp().ln_1p()
    }
}

/// `inner`, meant for small images, for images `k` times as high and wide.
fn for_larger_images<S: Schedule>(inner: S, k: usize) -> Shifted<S> {
    Shifted { inner, fall: 2.0 * (k as f64).ln() }
}
// ANCHOR_END: shifted

#[test]
fn a_shifted_schedule_hides_large_images_as_the_inner_one_hides_small_ones() {
    let inner = ScheduleConfig::Cosine.build();
    let shifted = for_larger_images(inner.clone(), 2);
    assert_eq!(shifted.alpha_bar(0.0), 1.0);
    for t in [0.01, 0.3, 0.7, 1.0] {
        assert!((shifted.log_snr(t) - (inner.log_snr(t) - 4_f64.ln())).abs() < 1e-9);
        assert!((shifted.alpha(t).powi(2) + shifted.sigma(t).powi(2) - 1.0).abs() < 1e-12);
    }
    // A pixel of a small image is the mean of 2 x 2 of the large one: noise the large one, take means, and compare.
    let (t, x0, n) = (0.5, 0.8, 20_000);
    let shape = [n, 1, 2, 2];
    let image = Tensor::from_f64(shape, &vec![x0; 4 * n], DType::F64);
    let eps = Tensor::from_f64(shape, &normal(4, Purpose::Test, 0, 0, 4 * n), DType::F64);
    let x_t = q_sample(&image, &eps, &Levels::at(&shifted, &vec![t; n], DType::F64)).to_f64();
    let means: Vec<f64> = x_t.chunks(4).map(|block| block.iter().sum::<f64>() / 4.0).collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / n as f64;
    let snr = (mean / x0).powi(2) / variance;
    // the variance of n draws has a relative error of sqrt(2/n) = 1 %, that of the mean is smaller
    assert!((snr / inner.log_snr(t).exp() - 1.0).abs() < 0.05, "{snr}");
}
