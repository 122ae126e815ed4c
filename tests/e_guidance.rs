//! E. Guidance and thresholding.

mod closed_form;

use closed_form::{assert_all_close, assert_close, mixture, tensor};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{
    ClassifierFree, Component, Denoiser, Exact, Guided, Levels, Mixture, Schedule, ScheduleConfig, Threshold,
    classifier_guided,
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

/// grad_{x_t} log p(y | x_t) at POINTS, by Bayes' rule p(y | x_t) = p(y) p(x_t | y) / sum_k p(k) p(x_t | k), written
/// with tensors and differentiated by the engine: the exact classifier.
fn classifier_gradient(schedule: &dyn Schedule, t: f64, y: usize) -> Tensor {
    let x = Tensor::leaf(tensor([7, 1, 1, 1], &POINTS).into_array());
    let joint: Vec<Tensor> = classes()
        .noised(schedule.alpha(t), schedule.sigma(t))
        .components
        .iter()
        .map(|Component { weight, mean, std }| {
            &(&(&x + (-mean[0])).square() * (-0.5 / (std * std))).exp() * (weight / std)
        })
        .collect();
    let evidence = &(&joint[0] + &joint[1]) + &joint[2];
    let log_p = (&joint[y] / &evidence).log().sum_all();
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

// E2  w = 1 is no guidance: the model is asked once, with c; w = 0 is no condition: once, without; else both
#[test]
fn e2_asks_only_for_what_it_needs() {
    assert_eq!(echo(1.0, 3.0, 5.0), (3.0, vec![3.0]));
    assert_eq!(echo(0.0, 3.0, 5.0), (5.0, vec![5.0]));
    assert_eq!(echo(2.0, 3.0, 5.0), (1.0, vec![3.0, 5.0]));
}

proptest! {
    // ANCHOR: e2_is_linear_in_the_weight
    // E2  linear in w: eps_tilde(w) = eps(null) + w (eps(c) - eps(null)); and nothing happens if c says nothing
    #[test]
    fn e2_is_linear_in_the_weight(w in -2.0..20.0, c in -2.0..2.0, null in -2.0..2.0) {
        assert_close(echo(w, c, null).0, null + w * (c - null), 1e-12);
        assert_close(echo(w, c, c).0, c, 1e-13);
    }
    // ANCHOR_END: e2_is_linear_in_the_weight

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
        let threshold = Threshold::Dynamic { percentile };
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
        let (result, s) = Threshold::Dynamic { percentile }.apply(&tensor([1, 3, 2, 2], &x));
        prop_assert_eq!(result.to_f64(), x);
        prop_assert_eq!(s, vec![1.0]);
    }
    // ANCHOR_END: e3_dynamic_is_the_identity_within_range

    // E3  p = 100 %: s is the largest |x_hat_0|, nothing is clipped, only rescaled
    #[test]
    fn e3_the_largest_as_percentile_rescales(x in vec(-5.0..5.0, 12)) {
        let (result, _) = Threshold::Dynamic { percentile: 100.0 }.apply(&tensor([1, 3, 2, 2], &x));
        let largest = x.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
        let rescaled: Vec<f64> = x.iter().map(|x| x / largest).collect();
        assert_all_close(&result.to_f64(), &rescaled, 1e-15);
    }

    // E3  the percentile does not know where the pixels are: permuting them permutes the result
    #[test]
    fn e3_dynamic_is_invariant_to_permuting_pixels(x in vec(-5.0..5.0, 12).prop_shuffle(), shift in 1..12usize) {
        let threshold = Threshold::Dynamic { percentile: 90.0 };
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
}

// E3  none: x_hat_0 stays as it is
#[test]
fn e3_none_does_nothing() {
    let x = normal(1, Purpose::Test, 0, 0, 12);
    let (same, s) = Threshold::None.apply(&tensor([2, 3, 1, 2], &x));
    assert_eq!((same.to_f64(), s), (x, vec![1.0; 2]));
}
