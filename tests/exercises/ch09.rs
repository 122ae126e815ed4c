//! Chapter 9, the simple loss and the score.
//!
//! 9.1 The weight of the bound's first noise error, in one symbol.
//! 9.2 The best prediction for Gaussian data, and its loss.
//! 9.3 What a network says of the image when it says 0.
//! 9.4 The perfect model of a training set knows the set by heart.
//! 9.5 The bound does not care for the schedule, only for its ends.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::gaussian::log_density;
use imagen::diffusion::weighting::bound_weight;
use imagen::diffusion::{
    Denoiser, DiscreteSchedule, Images, Levels, Mixture, Sampler, SamplerKind, Sampling, Schedule, Target, Threshold,
};
use std::ops::ControlFlow;

// ANCHOR: first_weight
/// beta_1^2 / (2 beta_1 alpha_1 (1 - alpha_bar_1)), where alpha_bar_1 = alpha_1 = 1 - beta_1.
fn first_weight(beta_1: f64) -> f64 {
    1.0 / (2.0 * (1.0 - beta_1))
}
// ANCHOR_END: first_weight

#[test]
fn the_first_weight_is_about_a_half() {
    for schedule in [DiscreteSchedule::linear(1000), DiscreteSchedule::cosine(1000), DiscreteSchedule::linear(50)] {
        let beta = schedule.betas()[0];
        assert!((bound_weight(&schedule, 1, beta) - first_weight(beta)).abs() < 1e-12);
    }
    assert!((first_weight(1e-4) - 0.50005).abs() < 1e-8);
}

// ANCHOR: gaussian_eps
/// E[eps | x_t] if x_0 is N(m, s^2), and the mean square of what it misses: (eps*, least loss).
fn gaussian_eps(x_t: f64, [alpha, sigma]: [f64; 2], [m, s]: [f64; 2]) -> (f64, f64) {
    let variance = alpha * alpha * s * s + sigma * sigma;
    (sigma * (x_t - alpha * m) / variance, alpha * alpha * s * s / variance)
}
// ANCHOR_END: gaussian_eps

#[test]
fn the_best_prediction_for_gaussian_data_is_a_straight_line() {
    let (levels, [m, s]) = ([0.8, 0.6], [0.5, 0.25]);
    let p = Mixture::gaussian(&[m], s).noised(levels[0], levels[1]);
    for x in [-2.0, 0.0, 0.4, 1.0, 3.0] {
        let (eps, _) = gaussian_eps(x, levels, [m, s]);
        assert!((eps + levels[1] * p.score(&[x])[0]).abs() < 1e-12);
    }
    assert!((gaussian_eps(1.0, levels, [m, s]).0 - 0.9).abs() < 1e-12);
    assert!((gaussian_eps(1.0, levels, [m, s]).1 - 0.1).abs() < 1e-12);
    // the loss, by a sum over a grid of x_0 and eps
    let h = 0.05;
    let grid = || (-160..=160).map(|k| h * f64::from(k));
    let loss: f64 = grid()
        .flat_map(|z| grid().map(move |eps| (z, eps)))
        .map(|(z, eps)| {
            let x_t = levels[0] * (m + s * z) + levels[1] * eps;
            let weight = h * h * (log_density(z, 0.0, 1.0) + log_density(eps, 0.0, 1.0)).exp();
            weight * (eps - gaussian_eps(x_t, levels, [m, s]).0).powi(2)
        })
        .sum();
    assert!((loss - gaussian_eps(0.0, levels, [m, s]).1).abs() < 1e-9);
}

// ANCHOR: image_of_nothing
/// x_hat_0 of a network that says 0, for the targets eps, x_0 and v.
fn image_of_nothing(x_t: f64, alpha: f64) -> [f64; 3] {
    [x_t / alpha, 0.0, alpha * x_t]
}
// ANCHOR_END: image_of_nothing

#[test]
fn an_untrained_network_says_little_only_with_v_or_x0() {
    let schedule = DiscreteSchedule::cosine(1000);
    let one = |x: f64| Tensor::from_f64([1, 1, 1, 1], &[x], DType::F64);
    for t in [0.1, 0.5, 0.9, 0.999] {
        let levels = Levels::at(&schedule, &[t], DType::F64);
        let said =
            [Target::Eps, Target::X0, Target::V].map(|target| target.to_x0(&one(0.0), &one(1.3), &levels).item());
        for (said, expected) in said.into_iter().zip(image_of_nothing(1.3, schedule.alpha(t))) {
            assert!((said - expected).abs() <= 1e-9 * (1.0 + expected.abs()));
        }
    }
    assert!(image_of_nothing(1.3, schedule.alpha(0.999))[0] > 500.0);
}

// ANCHOR: by_heart
/// The minimiser of L_simple over a training set of `images`, all equally frequent: E[x_0 | x_t], said as x_0.
struct ByHeart<'a> {
    images: Vec<Vec<f64>>,
    schedule: &'a dyn Schedule,
}

impl ByHeart<'_> {
    /// Every image, weighted with its share of p(x_t): the softmax of -||x_t - alpha image||^2 / (2 sigma^2).
    fn expected(&self, x_t: &[f64], t: f64) -> Vec<f64> {
        let (alpha, sigma) = (self.schedule.alpha(t), self.schedule.sigma(t));
        let distance = |image: &Vec<f64>| x_t.iter().zip(image).map(|(x, i)| (x - alpha * i).powi(2)).sum::<f64>();
        let logits: Vec<f64> = self.images.iter().map(|i| -distance(i) / (2.0 * sigma * sigma)).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
        let total: f64 = shares.iter().sum();
        let pixel = |k: usize| self.images.iter().zip(&shares).map(|(i, share)| share / total * i[k]).sum();
        (0..x_t.len()).map(pixel).collect()
    }
}

impl Denoiser for ByHeart<'_> {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, t: &[f64], (): &()) -> Tensor {
        let x = x_t.to_f64();
        let said: Vec<f64> = x.chunks(x.len() / t.len()).zip(t).flat_map(|(x, &t)| self.expected(x, t)).collect();
        Tensor::from_f64(x_t.shape(), &said, x_t.dtype())
    }
}
// ANCHOR_END: by_heart

#[test]
fn the_perfect_model_of_a_training_set_draws_the_set() {
    let schedule = DiscreteSchedule::linear(1000);
    let images: Vec<Vec<f64>> = Mixture::two_moons().components.iter().step_by(4).map(|c| c.mean.clone()).collect();
    // it is E[x_0|x_t], as Tweedie's formula has it from the score
    let points = Mixture::around(&images, 0.0);
    let model = ByHeart { images: images.clone(), schedule: &schedule };
    let (t, x) = (0.2, [0.3, -0.1]);
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    let score = points.noised(alpha, sigma).score(&x);
    for (k, expected) in model.expected(&x, t).into_iter().enumerate() {
        assert!((expected - (x[k] + sigma * sigma * score[k]) / alpha).abs() < 1e-12);
    }

    let seeds: Vec<(u64, u64)> = (0..60).map(|i| (2, i)).collect();
    let sampler = Sampler {
        schedule: &schedule,
        denoiser: &model,
        target: Target::X0,
        condition: &(),
        settings: Sampling { steps: 200, sampler: SamplerKind::Ddim { eta: 1.0 }, threshold: Threshold::None },
    };
    let size = Images { size: [1, 1, 2], dtype: DType::F64, seeds: &seeds };
    let drawn = sampler.sample(&size, &mut |_| ControlFlow::Continue(())).unwrap().to_f64();
    let mut seen = vec![0; images.len()];
    for point in drawn.chunks(2) {
        let distance = |image: &Vec<f64>| (point[0] - image[0]).hypot(point[1] - image[1]);
        let nearest = (0..images.len()).min_by(|&a, &b| distance(&images[a]).total_cmp(&distance(&images[b]))).unwrap();
        assert!(distance(&images[nearest]) < 1e-6, "{point:?} is {} away", distance(&images[nearest]));
        seen[nearest] += 1;
    }
    assert!(seen.iter().filter(|&&count| count > 0).count() >= 9, "{seen:?}");
}

// ANCHOR: bound_between
/// The bound's terms of `steps` even steps from time `from` to `to`, summed, for the perfect model of N(m, s^2) data
/// with the variance beta_tilde: (SNR before - SNR after) / 2 times E (x_0 - E[x_0|x_t])^2 = s^2 / (1 + s^2 SNR after).
fn bound_between(schedule: &dyn Schedule, [from, to]: [f64; 2], steps: usize, s: f64) -> f64 {
    let snr = |i: usize| schedule.log_snr(from + (to - from) * i as f64 / steps as f64).exp();
    (1..=steps).map(|i| 0.5 * (snr(i - 1) - snr(i)) * s * s / (1.0 + s * s * snr(i))).sum()
}

/// What it tends to with ever more steps: the integral of s^2 / (1 + s^2 SNR) / 2 over the SNR.
fn bound_in_the_limit([snr_from, snr_to]: [f64; 2], s: f64) -> f64 {
    0.5 * ((1.0 + s * s * snr_from) / (1.0 + s * s * snr_to)).ln()
}
// ANCHOR_END: bound_between

#[test]
fn the_bound_asks_only_for_the_ends_of_the_schedule() {
    let (linear, cosine) = (DiscreteSchedule::linear(1000), DiscreteSchedule::cosine(1000));
    let (s, snrs) = (0.5, [20.0, 0.05]);
    let limit = bound_in_the_limit(snrs, s);
    // the time at which a schedule has a signal-to-noise ratio, by halving
    let time = |schedule: &DiscreteSchedule, snr: f64| {
        let (mut low, mut high) = (1e-6, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if schedule.log_snr(middle).exp() > snr { low = middle } else { high = middle }
        }
        low
    };
    let mut coarse = Vec::new();
    for schedule in [&linear, &cosine] {
        let ends = snrs.map(|snr| time(schedule, snr));
        let excess = |steps| bound_between(schedule, ends, steps, s) - limit;
        // more steps, a tighter bound; and the excess falls as 1 / steps
        assert!(excess(40) > excess(400) && excess(400) > 0.0);
        assert!((excess(400) / excess(4000) - 10.0).abs() < 0.5, "{} {}", excess(400), excess(4000));
        assert!(excess(100_000) < 1e-4);
        coarse.push(excess(10));
    }
    // with few steps the schedule does matter
    assert!((coarse[0] - coarse[1]).abs() > 1e-3, "{coarse:?}");
}
