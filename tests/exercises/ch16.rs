//! Chapter 16, the whole cascade.
//!
//! 16.1 What have the first noises of two stages in common, if both have the same seed?
//! 16.2 With how much augmentation is half of a pixel's variance left open?
//! 16.3 How much of an image is left if it is noised up to t and drawn anew?
//! 16.4 What would a stage that decides nothing seem to decide?

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{
    DiscreteSchedule, Exact, Images, Levels, Mixture, Sampler, SamplerKind, Sampling, Schedule, ScheduleConfig, Target,
    Threshold, q_sample,
};
use imagen::random::{Purpose, normal};
use std::ops::ControlFlow;

/// The correlation of two lists of numbers.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let product = |x: &[f64], y: &[f64], [of_x, of_y]: [f64; 2]| {
        x.iter().zip(y).map(|(x, y)| (x - of_x) * (y - of_y)).sum::<f64>()
    };
    product(a, b, [of_a, of_b]) / (product(a, a, [of_a; 2]) * product(b, b, [of_b; 2])).sqrt()
}

// ANCHOR: upper_rows
/// The first noise of image `number` of 8 x 8 pixels with one seed, and the upper rows of that of 16 x 16 with another.
fn upper_rows([small, large]: [u64; 2], number: u64) -> [Vec<f64>; 2] {
    let start = |side: usize, seed: u64| {
        Images { size: [1, side, side], dtype: DType::F64, seeds: &[(seed, number)] }.start().to_f64()
    };
    [start(8, small), start(16, large)[..64].to_vec()]
}
// ANCHOR_END: upper_rows

#[test]
fn stages_with_one_seed_begin_with_the_same_numbers() {
    let [small, large] = upper_rows([5, 5], 3);
    assert_eq!(small, large);
    // With seeds of their own they have nothing in common: over 3200 pairs the correlation has a deviation of 1 / sqrt(3200).
    let pairs: Vec<[Vec<f64>; 2]> =
        (0..50).map(|number| upper_rows([5, 5_u64.wrapping_add(u64::MAX / 3)], number)).collect();
    let of = |i: usize| pairs.iter().flat_map(|pair| pair[i].clone()).collect::<Vec<f64>>();
    assert!(correlation(&of(0), &of(1)).abs() < 4.0 / 3200_f64.sqrt());
}

// ANCHOR: half_open
/// The aug at which a pixel x ~ N(m, s^2) has half of its variance left, once z of (F2) is seen: alpha s = sigma.
fn half_open(schedule: &DiscreteSchedule, s: f64) -> f64 {
    let halve = |[low, high]: [f64; 2], _| {
        let middle = 0.5 * (low + high);
        let known = schedule.alpha(middle) * s > schedule.sigma(middle);
        if known { [middle, high] } else { [low, middle] }
    };
    (0..50).fold([0.0, 1.0], halve)[0]
}
// ANCHOR_END: half_open

#[test]
fn half_of_the_variance_is_left_where_signal_and_noise_are_equal() {
    let schedule = ScheduleConfig::Cosine.build();
    for s in [0.3, 0.5, 1.0] {
        let aug = half_open(&schedule, s);
        // What a straight line through (z, x) leaves open, over many pixels: 1 - r^2, whose deviation is below 2 / sqrt(n).
        let n = 20_000;
        let [x, eps] = [0, 1].map(|index| normal(2, Purpose::Test, 0, index, n));
        let x: Vec<f64> = x.into_iter().map(|x| 0.1 + s * x).collect();
        let z: Vec<f64> = x.iter().zip(&eps).map(|(x, e)| schedule.alpha(aug) * x + schedule.sigma(aug) * e).collect();
        let open = 1.0 - correlation(&x, &z).powi(2);
        assert!((open - 0.5).abs() < 4.0 * 2.0 / (n as f64).sqrt(), "{s}: {open}");
        // The cosine schedule is nearly alpha = cos(pi aug / 2).
        assert!((aug - s.atan() * std::f64::consts::FRAC_2_PI).abs() < 0.01, "{s}: {aug}");
    }
}

// ANCHOR: kept
/// The correlation of an image of N(m, s^2) with what is drawn anew from its noised version: by DDIM, and by ancestral steps.
fn kept(schedule: &DiscreteSchedule, start: f64, s: f64) -> [f64; 2] {
    let (signal, noise) = ((schedule.alpha(start) * s).powi(2), schedule.sigma(start).powi(2));
    let share = signal / (signal + noise);
    [share.sqrt(), share]
}
// ANCHOR_END: kept

#[test]
fn a_deterministic_sampler_keeps_more_of_the_image() {
    let (schedule, s, n) = (ScheduleConfig::Cosine.build(), 0.5, 4000_usize);
    let model = Exact { data: Mixture::gaussian(&[0.2], s), schedule: &schedule };
    let seeds: Vec<(u64, u64)> = (0..n as u64).map(|i| (4, i)).collect();
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &seeds };
    let x: Vec<f64> = normal(6, Purpose::Test, 0, 0, n).into_iter().map(|x| 0.2 + s * x).collect();
    let x0 = Tensor::from_f64([n, 1, 1, 1], &x, DType::F64);
    for start in [0.2, 0.4, 0.7] {
        let samplers = [SamplerKind::Ddim { eta: 0.0 }, SamplerKind::Ancestral { gamma: 0.0 }];
        for (sampler, expected) in samplers.into_iter().zip(kept(&schedule, start, s)) {
            let settings = Sampling { steps: 200, sampler, threshold: Threshold::None };
            let condition = &None;
            let asked = Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition, settings };
            let x_t = q_sample(&x0, &images.start(), &Levels::at(&schedule, &vec![start; n], DType::F64));
            let times = settings.times_from(start);
            let drawn = asked.sample_from(x_t, &times, &images, &mut |_| ControlFlow::Continue(())).unwrap().to_f64();
            let found = correlation(&x, &drawn);
            // Four deviations of a correlation over n pairs, and what steps of finite length miss.
            assert!((found - expected).abs() < 4.0 / (n as f64).sqrt() + 0.01, "{start}: {found}, not {expected}");
        }
    }
}

// ANCHOR: seeming_share
/// The share that a stage seems to decide if the variance of the means of `n` images is taken for its own: `own` is what it decides
/// in truth, `below` what is decided below it.
fn seeming_share(own: f64, below: f64, n: usize) -> f64 {
    (own + below / n as f64) / (own + below)
}
// ANCHOR_END: seeming_share

#[test]
fn means_of_few_images_seem_to_decide_much() {
    assert!((seeming_share(0.0, 1.0, 3) - 1.0 / 3.0).abs() < 1e-15);
    // Groups that have nothing in common, as if the base decided nothing.
    let (groups, n) = (20_000, 3);
    let x = normal(3, Purpose::Test, 0, 0, groups * n);
    let means: Vec<f64> = x.chunks(n).map(|group| group.iter().sum::<f64>() / n as f64).collect();
    let seeming = means.iter().map(|mean| mean * mean).sum::<f64>() / groups as f64;
    // The mean of 20000 squares of N(0, v) has the deviation v sqrt(2 / 20000).
    assert!((seeming - seeming_share(0.0, 1.0, n)).abs() < 4.0 / 3.0 * (2.0 / groups as f64).sqrt(), "{seeming}");
    assert!((seeming_share(0.5, 0.5, 1000) - 0.5).abs() < 1e-3);
}
