//! E. Guidance and thresholding.

mod closed_form;

use closed_form::{assert_all_close, assert_close, mixture, tensor};
use imagen::array::DType;
use imagen::autograd::{Tensor, concat, no_grad};
use imagen::diffusion::sampler::ddim_step;
use imagen::diffusion::{
    ByClassifier, ClassifierFree, Component, Denoiser, Exact, Guided, Levels, Mixture, NoisyClassifier, Posterior,
    Sampling, Schedule, ScheduleConfig, Target, Threshold, classifier_guided,
};
use imagen::random::{Purpose, normal};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::RefCell;

/// Three classes, each a Gaussian.
fn classes() -> Mixture {
    mixture(&[(0.2, -0.8, 0.3), (0.5, 0.1, 0.2), (0.3, 0.7, 0.4)])
}

const POINTS: [f64; 7] = [-2.0, -0.9, -0.3, 0.0, 0.4, 1.1, 2.5];

/// The exact classifier, by Bayes' rule p(y | x_t) = p(y) p(x_t | y) / sum_k p(k) p(x_t | k), written with tensors.
struct Bayes<'a> {
    schedule: &'a dyn Schedule,
}

impl NoisyClassifier for Bayes<'_> {
    fn classes(&self) -> usize {
        classes().components.len()
    }

    fn log_p(&self, x_t: &Tensor, t: &[f64], y: &[usize]) -> Tensor {
        let of_each = (0..t.len()).map(|i| {
            let x = x_t.slice(0, i..i + 1);
            let joint: Vec<Tensor> = classes()
                .noised(self.schedule.alpha(t[i]), self.schedule.sigma(t[i]))
                .components
                .iter()
                .map(|Component { weight, mean, std }| {
                    &(&(&x + (-mean[0])).square() * (-0.5 / (std * std))).exp() * (weight / std)
                })
                .collect();
            let evidence = &(&joint[0] + &joint[1]) + &joint[2];
            (&joint[y[i]] / &evidence).log().reshape([1])
        });
        concat(&of_each.collect::<Vec<_>>().iter().collect::<Vec<_>>(), 0)
    }
}

/// grad_{x_t} log p(y | x_t) at POINTS, by the engine.
fn classifier_gradient(schedule: &dyn Schedule, t: f64, y: usize) -> Tensor {
    let x = Tensor::leaf(tensor([7, 1, 1, 1], &POINTS).into_array());
    let log_p = Bayes { schedule }.log_p(&x, &[t; 7], &[y; 7]).sum_all();
    Tensor::constant(log_p.backward().get(&x).unwrap().clone())
}

// ANCHOR: e1_exact_classifier_gives_the_conditional_score
// E1  eps_hat = eps_theta - s sigma_t grad_{x_t} log p(y | x_t)
// On a mixture with the exact classifier of noised images, s = 1 gives exactly the conditional score:
// grad log p(x_t) + grad log p(y | x_t) = grad log p(x_t | y).
#[test]
fn e1_exact_classifier_gives_the_conditional_score() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: classes(), schedule: &schedule };
    let x_t = tensor([7, 1, 1, 1], &POINTS);
    for t in [0.1, 0.4, 0.8] {
        let times = [t; 7];
        let levels = Levels::at(&schedule, &times, DType::F64);
        let eps = model.predict(&x_t, &times, &None);
        for y in 0..3 {
            let gradient = classifier_gradient(&schedule, t, y);
            let guided = classifier_guided(&eps, &gradient, &levels, 1.0);
            assert_all_close(&guided.to_f64(), &model.predict(&x_t, &times, &Some(y)).to_f64(), 1e-9);
            assert_eq!(classifier_guided(&eps, &gradient, &levels, 0.0).to_f64(), eps.to_f64());
        }
    }
}
// ANCHOR_END: e1_exact_classifier_gives_the_conditional_score

/// A model that says the same as the exact one, in other words: its image, or v.
struct Translated<'a>(Exact<'a>, Target);

impl Denoiser for Translated<'_> {
    type Condition = Option<usize>;

    fn predict(&self, x_t: &Tensor, t: &[f64], y: &Option<usize>) -> Tensor {
        let eps = self.0.predict(x_t, t, y);
        let levels = Levels::at(self.0.schedule, t, DType::F64);
        self.1.of(&Target::Eps.to_x0(&eps, x_t, &levels), &eps, &levels)
    }
}

// ANCHOR: e1_a_model_led_by_the_exact_classifier_is_the_conditional_model
// E1  The same through the seam of the samplers, for every target, a time and a class of its own for each sample, and also where
//     nothing else is recorded. s = 0 leaves the model as it is. Guided twice is guided by the sum.
#[test]
fn e1_a_model_led_by_the_exact_classifier_is_the_conditional_model() {
    let schedule = ScheduleConfig::Cosine.build();
    let x_t = tensor([7, 1, 1, 1], &POINTS);
    let (times, classes_) = ([0.1, 0.2, 0.35, 0.5, 0.6, 0.75, 0.9], [0, 1, 2, 0, 1, 2, 0]);
    for target in [Target::Eps, Target::X0, Target::V] {
        let model = Translated(Exact { data: classes(), schedule: &schedule }, target);
        let led = |scale: f64| ByClassifier {
            denoiser: &model,
            classifier: Bayes { schedule: &schedule },
            classes: &classes_,
            scale,
            schedule: &schedule,
            target,
        };
        let found = no_grad(|| led(1.0).predict(&x_t, &times, &None)).to_f64();
        for (i, y) in classes_.into_iter().enumerate() {
            let expected = model.predict(&x_t, &times, &Some(y)).to_f64()[i];
            assert_close(found[i], expected, 1e-8 * (1.0 + expected.abs()));
        }
        assert_eq!(led(0.0).predict(&x_t, &times, &None).to_f64(), model.predict(&x_t, &times, &None).to_f64());
        let ByClassifier { classifier, .. } = led(0.5);
        let twice = ByClassifier {
            denoiser: led(0.5),
            classifier,
            classes: &classes_,
            scale: 0.5,
            schedule: &schedule,
            target,
        };
        for (a, b) in twice.predict(&x_t, &times, &None).to_f64().into_iter().zip(&found) {
            assert_close(a, *b, 1e-9 * (1.0 + b.abs()));
        }
    }
}
// ANCHOR_END: e1_a_model_led_by_the_exact_classifier_is_the_conditional_model

// ANCHOR: e2_is_guidance_by_the_implicit_classifier
// E2  eps_tilde = w eps(x_t, c) + (1 - w) eps(x_t): classifier guidance of strength w with the implicit classifier
//     p(c | x_t), Bayes' rule applied to the two densities. On a mixture both are exact, so they are equal.
#[test]
fn e2_is_guidance_by_the_implicit_classifier() {
    let schedule = ScheduleConfig::Linear.build();
    let x_t = tensor([7, 1, 1, 1], &POINTS);
    for (t, w) in [(0.05, 1.5), (0.3, 3.0), (0.7, 7.5), (0.3, 0.4), (0.5, -1.0)] {
        let times = [t; 7];
        let levels = Levels::at(&schedule, &times, DType::F64);
        let model = Exact { data: classes(), schedule: &schedule };
        let eps = model.predict(&x_t, &times, &None);
        let guided = ClassifierFree { denoiser: &model, weight: w };
        for c in 0..3 {
            let free = guided.predict(&x_t, &times, &Guided { condition: Some(c), null: None });
            let classifier = classifier_guided(&eps, &classifier_gradient(&schedule, t, c), &levels, w);
            assert_all_close(&free.to_f64(), &classifier.to_f64(), 1e-9);
        }
    }
}
// ANCHOR_END: e2_is_guidance_by_the_implicit_classifier

// ANCHOR: e1_and_e2_worked_example
// E1, E2  Classes N(0.6, 0.25^2) and N(-0.6, 0.25^2) at alpha_t = 0.8, sigma_t = 0.6: the point x_t = 0.1 of the book.
#[test]
fn e1_and_e2_worked_example() {
    let schedule = Straight;
    let (t, x_t) = ([0.36], tensor([1, 1, 1, 1], &[0.1]));
    let model = Exact { data: mixture(&[(0.5, 0.6, 0.25), (0.5, -0.6, 0.25)]), schedule: &schedule };
    let levels = Levels::at(&schedule, &t, DType::F64);
    // the noised classes are N(+-0.48, 0.4): log p(c | x) / p(not c | x) = 2.4 x
    let p = 1.0 / (1.0 + (-0.24_f64).exp());
    assert_close(p, 0.5597, 1e-4);
    let (without, with) = (model.predict(&x_t, &t, &None), model.predict(&x_t, &t, &Some(0)));
    assert_close(without.item(), 0.064, 1e-4);
    assert_close(with.item(), -0.57, 1e-12);
    for (w, eps, x0) in [(1.0, -0.57, 0.5525), (2.0, -1.204, 1.028), (3.0, -1.838, 1.5035)] {
        let by_classifier = classifier_guided(&without, &tensor([1, 1, 1, 1], &[2.4 * (1.0 - p)]), &levels, w);
        let condition = Guided { condition: Some(0), null: None };
        let free = ClassifierFree { denoiser: &model, weight: w }.predict(&x_t, &t, &condition);
        assert_close(by_classifier.item(), free.item(), 1e-12);
        assert_close(free.item(), eps, 1e-4);
        assert_close(Target::Eps.to_x0(&free, &x_t, &levels).item(), x0, 1e-4);
    }
}
// ANCHOR_END: e1_and_e2_worked_example

/// alpha_bar(t) = 1 - t, for round numbers.
struct Straight;

impl Schedule for Straight {
    fn log_alpha_bar(&self, t: f64) -> f64 {
        (-t).ln_1p()
    }
}

// ANCHOR: e2_without_condition_is_the_mean_of_all_conditions
// E2  eps(x_t) = sum_k p(k | x_t) eps(x_t, k): where the class is certain, asking without it is asking with it.
#[test]
fn e2_without_condition_is_the_mean_of_all_conditions() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: classes(), schedule: &schedule };
    let x_t = tensor([7, 1, 1, 1], &POINTS);
    for t in [0.01, 0.2, 0.6, 1.0] {
        let mut mean = vec![0.0; 7];
        for k in 0..3 {
            let p = Bayes { schedule: &schedule }.log_p(&x_t, &[t; 7], &[k; 7]).exp().to_f64();
            let eps = model.predict(&x_t, &[t; 7], &Some(k)).to_f64();
            mean.iter_mut().zip(p.iter().zip(eps)).for_each(|(mean, (p, eps))| *mean += p * eps);
        }
        assert_all_close(&model.predict(&x_t, &[t; 7], &None).to_f64(), &mean, 1e-9);
    }
}
// ANCHOR_END: e2_without_condition_is_the_mean_of_all_conditions

// ANCHOR: measured
/// x_0 ~ N(0, 1), and the condition is a measurement c of it such that p(x_0 | c) = N(c (1 - v), v).
struct Measured<'a> {
    v: f64,
    schedule: &'a dyn Schedule,
}

impl Denoiser for Measured<'_> {
    type Condition = Option<f64>;

    fn predict(&self, x_t: &Tensor, t: &[f64], c: &Option<f64>) -> Tensor {
        let data = c.map_or(mixture(&[(1.0, 0.0, 1.0)]), |c| mixture(&[(1.0, c * (1.0 - self.v), self.v.sqrt())]));
        Exact { data, schedule: self.schedule }.predict(x_t, t, &None)
    }
}

/// Mean and variance of what a sampler draws for c = 1 with guidance w: every step is a straight line in x_t, and noise.
fn drawn(v: f64, w: f64, steps: usize, ancestral: bool) -> (f64, f64) {
    let schedule = ScheduleConfig::Cosine.build();
    let model = ClassifierFree { denoiser: Measured { v, schedule: &schedule }, weight: w };
    let (x_t, condition) = (tensor([2, 1, 1, 1], &[0.0, 1.0]), Guided { condition: Some(1.0), null: None });
    let times = Sampling { steps, ..Sampling::default() }.times();
    times.windows(2).fold((0.0, 1.0), |(mean, variance), pair| {
        let [t, s] = [pair[0], pair[1]];
        let eps = model.predict(&x_t, &[t; 2], &condition);
        let x0 = Target::Eps.to_x0(&eps, &x_t, &Levels::at(&schedule, &[t; 2], DType::F64));
        let posterior = Posterior::between(&schedule, s, t);
        let (x_s, noise) = match ancestral {
            true => (posterior.mean(&x0, &x_t), posterior.variance),
            false => (ddim_step(&x0, &eps, &schedule, s, 0.0), 0.0),
        };
        let (at_0, at_1) = (x_s.to_f64()[0], x_s.to_f64()[1]);
        (at_0 + (at_1 - at_0) * mean, (at_1 - at_0).powi(2) * variance + noise)
    })
}
// ANCHOR_END: measured

// ANCHOR: e2_what_is_drawn_depends_on_the_sampler
// E2  Many steps of DDIM draw with the variance v^w, many ancestral ones with (v - v^2w) / (2w - 1) (1 - v) around c (1 - v^w).
//     The tilted density p(x) p(c | x)^w has v / (v + w (1 - v)): all agree at w = 1, and none at another.
#[test]
fn e2_what_is_drawn_depends_on_the_sampler() {
    for (v, w) in [(0.25, 1.0), (0.25, 2.0), (0.25, 4.0), (0.6, 3.0)] {
        let tilted = v / (v + w * (1.0 - v));
        let (_, ddim) = drawn(v, w, 2000, false);
        assert_close(ddim / v.powf(w), 1.0, 1e-2);
        let (mean, ancestral) = drawn(v, w, 2000, true);
        assert_close(mean, 1.0 - v.powf(w), 1e-2);
        let expected = (v - v.powf(2.0 * w)) / ((2.0 * w - 1.0) * (1.0 - v));
        assert_close(ancestral / expected, 1.0, 1e-2);
        if w == 1.0 {
            assert_close(expected, tilted, 1e-14);
        } else {
            assert!(v.powf(w) < 0.9 * expected && expected < 0.9 * tilted);
        }
    }
}
// ANCHOR_END: e2_what_is_drawn_depends_on_the_sampler

// ANCHOR: e2_tilting_is_measuring_again
// E2  p(x) p(c | x)^w for x ~ N(0, 1) and c = x + noise of variance v / (1 - v) is a Gaussian, up to a factor.
#[test]
fn e2_tilting_is_measuring_again() {
    for (v, w, c) in [(0.25_f64, 2.0, 1.0), (0.6, 7.5, -0.4)] {
        let tilted = |x: f64| -0.5 * x * x - w * 0.5 * (c - x).powi(2) * (1.0 - v) / v;
        let (mean, variance) = (c * w * (1.0 - v) / (v + w * (1.0 - v)), v / (v + w * (1.0 - v)));
        let gaussian = |x: f64| -0.5 * (x - mean).powi(2) / variance;
        for x in POINTS {
            assert_close(tilted(x) - tilted(0.0), gaussian(x) - gaussian(0.0), 1e-12);
        }
    }
}
// ANCHOR_END: e2_tilting_is_measuring_again

// ANCHOR: e2_away_from_another_gaussian_is_a_gaussian_further_on
// E2  N(m, s^2) against N(n, s^2): the guided model is the exact one of N(n + w (m - n), s^2).
#[test]
fn e2_away_from_another_gaussian_is_a_gaussian_further_on() {
    let schedule = ScheduleConfig::Cosine.build();
    let (m, n, s) = (0.7, -0.2, 0.3);
    let model = Exact { data: mixture(&[(0.5, m, s), (0.5, n, s)]), schedule: &schedule };
    let x_t = tensor([7, 1, 1, 1], &POINTS);
    for (t, w) in [(0.1, 1.5), (0.5, 4.0), (1.0, 7.5)] {
        let negative = Guided { condition: Some(0), null: Some(1) };
        let guided = ClassifierFree { denoiser: &model, weight: w }.predict(&x_t, &[t; 7], &negative);
        let further = Exact { data: mixture(&[(1.0, n + w * (m - n), s)]), schedule: &schedule };
        assert_all_close(&guided.to_f64(), &further.predict(&x_t, &[t; 7], &None).to_f64(), 1e-12);
    }
}
// ANCHOR_END: e2_away_from_another_gaussian_is_a_gaussian_further_on

/// A model that gives its condition back, and notes what it was asked.
struct Echo {
    asked: RefCell<Vec<f64>>,
}

impl Denoiser for Echo {
    type Condition = f64;

    fn predict(&self, x_t: &Tensor, _: &[f64], condition: &f64) -> Tensor {
        self.asked.borrow_mut().push(*condition);
        x_t * *condition
    }
}

fn echo(w: f64, condition: f64, null: f64) -> (f64, Vec<f64>) {
    let guided = ClassifierFree { denoiser: Echo { asked: RefCell::default() }, weight: w };
    let said = guided.predict(&tensor([1, 1, 1, 1], &[1.0]), &[0.5], &Guided { condition, null });
    (said.item(), guided.denoiser.asked.into_inner())
}

// ANCHOR: e2_asks_only_for_what_it_needs
// E2  w = 1 is no guidance: the model is asked once, with c; w = 0 is no condition: once, without; else both
#[test]
fn e2_asks_only_for_what_it_needs() {
    assert_eq!(echo(1.0, 3.0, 5.0), (3.0, vec![3.0]));
    assert_eq!(echo(0.0, 3.0, 5.0), (5.0, vec![5.0]));
    assert_eq!(echo(2.0, 3.0, 5.0), (1.0, vec![3.0, 5.0]));
}
// ANCHOR_END: e2_asks_only_for_what_it_needs

proptest! {
    // ANCHOR: e2_is_linear_in_the_weight
    // E2  linear in w: eps_tilde(w) = eps(null) + w (eps(c) - eps(null)); and nothing happens if c says nothing
    #[test]
    fn e2_is_linear_in_the_weight(w in -2.0..20.0, c in -2.0..2.0, null in -2.0..2.0) {
        assert_close(echo(w, c, null).0, null + w * (c - null), 1e-12);
        assert_close(echo(w, c, c).0, c, 1e-13);
    }
    // ANCHOR_END: e2_is_linear_in_the_weight

    // ANCHOR: e2_a_guided_guess_leaves_the_range_where_the_class_is_in_doubt
    // E2  x_hat_0 is guided as eps is. Without c it is the mean of the guess with c, of the share p = p(c | x_t), and of the
    //     mean r of all others. All of these are in [-1, 1]; the guided guess is within 1 + 2 (w - 1) (1 - p).
    #[test]
    fn e2_a_guided_guess_leaves_the_range_where_the_class_is_in_doubt(
        with in -1.0..=1.0, r in -1.0..=1.0, p in 0.0..=1.0, w in 1.0..20.0, x in -2.0..2.0, t in 0.1..0.9
    ) {
        let most = |p: f64| 1.0 + 2.0 * (w - 1.0) * (1.0 - p);
        let guess = |with: f64, r: f64| -> f64 {
            let without = p * with + (1.0 - p) * r;
            without + w * (with - without)
        };
        prop_assert!(guess(with, r).abs() <= most(p) + 1e-12);
        assert_close(guess(1.0, -1.0), most(p), 1e-12);
        let schedule = ScheduleConfig::Cosine.build();
        let (x_t, levels) = (tensor([1, 1, 1, 1], &[x]), Levels::at(&schedule, &[t], DType::F64));
        let eps = |x0: f64| Target::X0.to_eps(&tensor([1, 1, 1, 1], &[x0]), &x_t, &levels);
        let guided = &(&eps(with) * w) + &(&eps(p * with + (1.0 - p) * r) * (1.0 - w));
        assert_close(Target::Eps.to_x0(&guided, &x_t, &levels).item(), guess(with, r), 1e-9);
    }
    // ANCHOR_END: e2_a_guided_guess_leaves_the_range_where_the_class_is_in_doubt

    // ANCHOR: e3_static_clips
    // E3  static: clip x_hat_0 to [-1, 1]
    #[test]
    fn e3_static_clips(x in vec(-5.0..5.0, 12)) {
        let (clipped, s) = Threshold::Static.apply(&tensor([2, 3, 1, 2], &x));
        let expected: Vec<f64> = x.iter().map(|x| x.clamp(-1.0, 1.0)).collect();
        prop_assert_eq!(clipped.to_f64(), expected);
        prop_assert_eq!(s, vec![1.0; 2]);
    }
    // ANCHOR_END: e3_static_clips

    // ANCHOR: e3_dynamic_is_within_range
    // E3  dynamic: per sample s = percentile p of |x_hat_0|; if s > 1 clip to [-s, s], divide by s.
    //     The result is in [-1, 1], signs stay, and the samples of a batch do not see each other.
    #[test]
    fn e3_dynamic_is_within_range(x in vec(-5.0..5.0, 24), percentile in 0.1..100.0) {
        let threshold = Threshold::dynamic(percentile);
        let (result, s) = threshold.apply(&tensor([2, 3, 2, 2], &x));
        let result = result.to_f64();
        for (k, (y, x)) in result.iter().zip(&x).enumerate() {
            prop_assert!(y.abs() <= 1.0);
            let s = s[k / 12];
            prop_assert!(s >= 1.0);
            assert_close(*y, x.clamp(-s, s) / s, 1e-15);
        }
        let (alone, _) = threshold.apply(&tensor([1, 3, 2, 2], &x[12..]));
        prop_assert_eq!(&result[12..], &alone.to_f64()[..]);
    }
    // ANCHOR_END: e3_dynamic_is_within_range

    // ANCHOR: e3_dynamic_is_the_identity_within_range
    // E3  s <= 1: a sample within range is left as it is
    #[test]
    fn e3_dynamic_is_the_identity_within_range(x in vec(-1.0..=1.0, 12), percentile in 0.1..100.0) {
        let (result, s) = Threshold::dynamic(percentile).apply(&tensor([1, 3, 2, 2], &x));
        prop_assert_eq!(result.to_f64(), x);
        prop_assert_eq!(s, vec![1.0]);
    }
    // ANCHOR_END: e3_dynamic_is_the_identity_within_range

    // ANCHOR: e3_the_largest_as_percentile_rescales
    // E3  p = 100 %: s is the largest |x_hat_0|, nothing is clipped, only rescaled
    #[test]
    fn e3_the_largest_as_percentile_rescales(x in vec(-5.0..5.0, 12)) {
        let (result, _) = Threshold::dynamic(100.0).apply(&tensor([1, 3, 2, 2], &x));
        let largest = x.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
        let rescaled: Vec<f64> = x.iter().map(|x| x / largest).collect();
        assert_all_close(&result.to_f64(), &rescaled, 1e-15);
    }
    // ANCHOR_END: e3_the_largest_as_percentile_rescales

    // ANCHOR: e3_a_cap_bounds_what_is_divided_by
    // E3  with a cap, s is at most that, and what is beyond is clipped; a cap of 1 is static thresholding
    #[test]
    fn e3_a_cap_bounds_what_is_divided_by(x in vec(-5.0..5.0, 12), percentile in 0.1..100.0, cap in 1.0..4.0) {
        let apply = |threshold: Threshold| {
            let (y, s) = threshold.apply(&tensor([1, 3, 2, 2], &x));
            (y.to_f64(), s[0])
        };
        let dynamic = |cap| Threshold::Dynamic { percentile, cap: Some(cap) };
        let ((_, s), (y, capped)) = (apply(Threshold::dynamic(percentile)), apply(dynamic(cap)));
        prop_assert_eq!(capped, s.min(cap));
        let expected: Vec<f64> = x.iter().map(|x| x.clamp(-capped, capped) / capped).collect();
        assert_all_close(&y, &expected, 1e-15);
        prop_assert_eq!(apply(dynamic(1.0)), apply(Threshold::Static));
    }
    // ANCHOR_END: e3_a_cap_bounds_what_is_divided_by

    // ANCHOR: e3_dynamic_is_invariant_to_permuting_pixels
    // E3  the percentile does not know where the pixels are: permuting them permutes the result
    #[test]
    fn e3_dynamic_is_invariant_to_permuting_pixels(x in vec(-5.0..5.0, 12).prop_shuffle(), shift in 1..12usize) {
        let threshold = Threshold::dynamic(90.0);
        let (mut result, s) = { let (y, s) = threshold.apply(&tensor([1, 3, 2, 2], &x)); (y.to_f64(), s) };
        let mut permuted = x;
        permuted.rotate_left(shift);
        permuted.swap(0, 11);
        result.rotate_left(shift);
        result.swap(0, 11);
        let (of_permuted, s_of_permuted) = threshold.apply(&tensor([1, 3, 2, 2], &permuted));
        prop_assert_eq!(of_permuted.to_f64(), result);
        prop_assert_eq!(s_of_permuted, s);
    }
    // ANCHOR_END: e3_dynamic_is_invariant_to_permuting_pixels
}

// ANCHOR: e3_worked_example
// E3  ten pixels of the book: of ten sizes the 80th percentile lies at 0.8 * 9 = 7.2, a fifth of the way from 2.6 to 2.8
#[test]
fn e3_worked_example() {
    let x = [-3.0, -2.6, -1.0, -0.5, 0.1, 0.4, 0.9, 1.6, 2.0, 2.8];
    let (y, s) = Threshold::dynamic(80.0).apply(&tensor([1, 1, 1, 10], &x));
    assert_close(s[0], 2.64, 1e-12);
    let rounded: Vec<f64> = y.to_f64().iter().map(|y| (100.0 * y).round() / 100.0).collect();
    assert_eq!(rounded, [-1.0, -0.98, -0.38, -0.19, 0.04, 0.15, 0.34, 0.61, 0.76, 1.0]);
}
// ANCHOR_END: e3_worked_example

// E3  of no samples nothing is made, and nothing fails
#[test]
fn e3_no_samples_have_no_s() {
    for threshold in [Threshold::None, Threshold::Static, Threshold::dynamic(99.5)] {
        let (none, s) = threshold.apply(&tensor([0, 3, 2, 2], &[]));
        assert_eq!((&none.shape()[..], s), (&[0, 3, 2, 2][..], Vec::new()));
    }
}

// E3  none: x_hat_0 stays as it is
#[test]
fn e3_none_does_nothing() {
    let x = normal(1, Purpose::Test, 0, 0, 12);
    let (same, s) = Threshold::None.apply(&tensor([2, 3, 1, 2], &x));
    assert_eq!((same.to_f64(), s), (x, vec![1.0; 2]));
}
