//! D. Sampling that begins with an image: drawn anew from some noise on, or filled in where something is missing.

mod closed_form;

use closed_form::{assert_expectation, mixture};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{
    Component, Exact, Given, Images, Levels, Mixture, Sampler, SamplerKind, Sampling, ScheduleConfig, Target,
    Threshold, q_sample,
};
use std::ops::ControlFlow;

fn settings(steps: usize) -> Sampling {
    Sampling { steps, sampler: SamplerKind::Ancestral { gamma: 0.0 }, threshold: Threshold::None }
}

fn seeds(n: u64) -> Vec<(u64, u64)> {
    (0..n).map(|i| (2, i)).collect()
}

/// Images of two pixels that are alike: both dark, or both light.
fn twins() -> Mixture {
    let both = |at: f64| Component { weight: 0.5, mean: vec![at; 2], std: 0.15 };
    Mixture { components: vec![both(-0.7), both(0.7)] }
}

/// The second pixel of each of `n` images whose first is given.
fn filled_in(first: f64, n: u64, sizes: [usize; 2]) -> (Vec<f64>, Vec<f64>) {
    filled_in_over(9.0, first, n, sizes)
}

/// The same, with something else where nothing is given.
fn filled_in_over(under: f64, first: f64, n: u64, [steps, rounds]: [usize; 2]) -> (Vec<f64>, Vec<f64>) {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: twins(), schedule: &schedule };
    let (condition, settings) = (&None, settings(steps));
    let sampler = Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition, settings };
    let size = [n as usize, 1, 1, 2];
    let pairs = |a: f64, b: f64| Tensor::from_f64(size, &[a, b].repeat(n as usize), DType::F64);
    let given = Given { images: pairs(first, under), mask: pairs(1.0, 0.0), rounds };
    let images = Images { size: [1, 1, 2], dtype: DType::F64, seeds: &seeds(n) };
    let drawn = sampler.inpaint(&given, &images, &mut |_| ControlFlow::Continue(())).unwrap().to_f64();
    (drawn.iter().copied().step_by(2).collect(), drawn.iter().copied().skip(1).step_by(2).collect())
}

// ANCHOR: what_is_given_stays_as_it_is
// RePaint, algorithm 1: what is given comes out as it is, to the last bit, and what stands under the rest of the image has no
// influence.
#[test]
fn what_is_given_stays_as_it_is() {
    let (first, second) = filled_in(0.62, 50, [10, 2]);
    assert!(first.iter().all(|&x| x == 0.62));
    assert!(second.iter().all(|&x| x != 9.0 && x.is_finite()));
    for under in [0.0, f64::NAN, f64::INFINITY] {
        assert_eq!(filled_in_over(under, 0.62, 50, [10, 2]), (first.clone(), second.clone()));
    }
}
// ANCHOR_END: what_is_given_stays_as_it_is

// ANCHOR: the_rest_fits_the_better_the_more_often_it_may_adapt
// RePaint, section 4.2: the rest is drawn so that it fits. By Bayes' rule a light pixel stands beside a light one: in the other
// component its deviation from the mean would be more than 9 of its standard deviations. Without going back this is missed at times, for
// when it is decided what the rest is, what is given is mostly noise.
#[test]
fn the_rest_fits_the_better_the_more_often_it_may_adapt() {
    let light = |rounds: usize| {
        let (_, second) = filled_in(0.7, 2000, [10, rounds]);
        second.iter().filter(|&&x| x > 0.0).count() as f64 / 2000.0
    };
    let [once, thrice, often] = [1, 3, 10].map(light);
    assert!(once < 0.97 && once < thrice && thrice <= often && often > 0.99, "{once} {thrice} {often}");
    // Within its lump it has the spread of the data, but for what steps of variance beta_tilde lack (D1), which every round lacks
    // anew: the error falls with the length of the steps.
    let spread = |steps: usize| {
        let (_, second) = filled_in(0.7, 2000, [steps, 10]);
        let light = second.iter().filter(|&&x| x > 0.0);
        let squares: Vec<f64> = light.map(|x| (x - 0.7).powi(2)).collect();
        (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
    };
    let errors = [12, 50, 200].map(|steps| (spread(steps) - 0.15).abs());
    assert!(errors.is_sorted_by(|coarse, fine| *fine < 0.7 * coarse), "{errors:?}");
}
// ANCHOR_END: the_rest_fits_the_better_the_more_often_it_may_adapt

// ANCHOR: an_image_drawn_anew_from_little_noise_is_nearly_the_same
// An image that is noised up to t and drawn from there is an image again. If t is small it is nearly the same; if t = 1 nothing of
// it is left, and it is any image: of two lumps it is in the one of 30 % as often as that.
#[test]
fn an_image_drawn_anew_from_little_noise_is_nearly_the_same() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: mixture(&[(0.3, -0.7, 0.1), (0.7, 0.5, 0.2)]), schedule: &schedule };
    let (condition, settings) = (&None, settings(100));
    let sampler = Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition, settings };
    let drawn = |start: f64| {
        let (n, seeds) = (2000, seeds(2000));
        let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &seeds };
        let x0 = Tensor::from_f64([n, 1, 1, 1], &vec![-0.7; n], DType::F64);
        let x_t = q_sample(&x0, &images.start(), &Levels::at(&schedule, &vec![start; n], DType::F64));
        let times = settings.times_from(start);
        sampler.sample_from(x_t, &times, &images, &mut |_| ControlFlow::Continue(())).unwrap().to_f64()
    };
    let moved = |x: &[f64]| x.iter().map(|x| (x + 0.7).powi(2)).sum::<f64>().sqrt() / (x.len() as f64).sqrt();
    let [little, some, much] = [0.05, 0.3, 0.6].map(|start| moved(&drawn(start)));
    assert!(little < 0.1 && little < some && some < much, "{little} {some} {much}");
    let in_first: Vec<f64> = drawn(1.0).iter().map(|&x| f64::from(u8::from(x < -0.2))).collect();
    assert_expectation(&in_first, 0.3);
}
// ANCHOR_END: an_image_drawn_anew_from_little_noise_is_nearly_the_same

// ANCHOR: times_begin_where_the_image_was_noised_up_to
#[test]
fn times_begin_where_the_image_was_noised_up_to() {
    let settings = settings(4);
    assert_eq!(settings.times_from(1.0), settings.times());
    assert_eq!(settings.times_from(0.6), [0.6, 0.5, 0.25, 0.0]);
    assert_eq!(settings.times_from(0.5), [0.5, 0.25, 0.0]);
    assert_eq!(settings.times_from(0.01), [0.01, 0.0]);
    assert_eq!(settings.times_from(1e-9), [1e-9, 0.0]);
    assert!(std::panic::catch_unwind(|| settings.times_from(0.0)).is_err());
}
// ANCHOR_END: times_begin_where_the_image_was_noised_up_to
