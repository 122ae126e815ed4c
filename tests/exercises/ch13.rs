//! Chapter 13, conditioning and guidance.
//!
//! 13.1 How strong is a classifier on top of a model that knows the condition already?
//! 13.2 Two conditions at once, which the model has never seen together.
//! 13.3 Guide for a part of the time only.
//! 13.4 Draw from the tilted density itself.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::{
    ClassifierFree, Denoiser, Exact, Guided, Levels, Mixture, Schedule, ScheduleConfig, classifier_guided,
};
use imagen::random::{Purpose, normal, stream};
use rand::RngExt;
use std::cell::RefCell;

fn column(values: &[f64]) -> Tensor {
    Tensor::from_f64([values.len(), 1, 1, 1], values, DType::F64)
}

// ANCHOR: weight_on_top
/// w of (E2) for a classifier of scale `s` that leads a model which is given the condition.
fn weight_on_top(s: f64) -> f64 {
    1.0 + s
}
// ANCHOR_END: weight_on_top

#[test]
fn a_classifier_on_top_adds_one() {
    let schedule = ScheduleConfig::Cosine.build();
    let (t, points) = (0.4, [-1.0, 0.1, 0.7]);
    let x_t = column(&points);
    let levels = Levels::at(&schedule, &[t; 3], DType::F64);
    let model = Exact { data: Mixture::around(&[vec![0.6], vec![-0.6]], 0.25), schedule: &schedule };
    // the slope of the logarithm of the logistic function p(c | x_t)
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    let steep = 2.0 * 0.6 * alpha / ((0.25 * alpha).powi(2) + sigma * sigma);
    let gradient = column(&points.map(|x| steep / (1.0 + (steep * x).exp())));
    for s in [0.0, 0.5, 6.5] {
        let on_top = classifier_guided(&model.predict(&x_t, &[t; 3], &Some(0)), &gradient, &levels, s);
        let free = ClassifierFree { denoiser: &model, weight: weight_on_top(s) };
        let free = free.predict(&x_t, &[t; 3], &Guided { condition: Some(0), null: None });
        for (a, b) in on_top.to_f64().iter().zip(free.to_f64()) {
            assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        }
    }
}

// ANCHOR: both
/// Two conditions at once: eps without any, with one and with the other, and how strongly each leads.
fn both(none: &Tensor, first: &Tensor, second: &Tensor, [w_1, w_2]: [f64; 2]) -> Tensor {
    let towards = |with: &Tensor, w: f64| &(with - none) * w;
    &(none + &towards(first, w_1)) + &towards(second, w_2)
}
// ANCHOR_END: both

#[test]
fn independent_conditions_are_added() {
    let schedule = ScheduleConfig::Cosine.build();
    let eps = |means: &[[f64; 2]], x: &Tensor, t: f64| {
        let means: Vec<Vec<f64>> = means.iter().map(|mean| mean.to_vec()).collect();
        Exact { data: Mixture::around(&means, 0.2), schedule: &schedule }.predict(x, &[t], &None)
    };
    // left or right, above or below: four lumps of the plane
    let all = [[-0.5, 0.5], [0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]];
    for (i, t) in [0.1, 0.4, 0.8].into_iter().enumerate() {
        let x = Tensor::from_f64([1, 1, 1, 2], &normal(1, Purpose::Test, 0, i as u64, 2), DType::F64);
        let (right, above) = (eps(&[all[1], all[3]], &x, t), eps(&[all[0], all[1]], &x, t));
        let composed = both(&eps(&all, &x, t), &right, &above, [1.0, 1.0]).to_f64();
        for (a, b) in composed.iter().zip(eps(&[all[1]], &x, t).to_f64()) {
            assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        }
    }
    // if right and above exclude each other in the data, there is nothing that both could mean
    let x = Tensor::from_f64([1, 1, 1, 2], &[0.3, 0.3], DType::F64);
    let three = [all[0], all[2], all[3]];
    let composed = both(&eps(&three, &x, 0.3), &eps(&[all[3]], &x, 0.3), &eps(&[all[0]], &x, 0.3), [1.0, 1.0]);
    let wanted = eps(&[all[1]], &x, 0.3).to_f64();
    assert!(composed.to_f64().iter().zip(wanted).any(|(a, b)| (a - b).abs() > 0.1));
}

// ANCHOR: part_of_the_time
/// Guidance at times above `from` and up to `to`, and none at others. All samples are at the same time.
struct PartOfTheTime<D> {
    guided: ClassifierFree<D>,
    from: f64,
    to: f64,
}

impl<D: Denoiser<Condition: Sized>> Denoiser for PartOfTheTime<D> {
    type Condition = Guided<D::Condition>;

    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &Self::Condition) -> Tensor {
        if t[0] > self.from && t[0] <= self.to {
            return self.guided.predict(x_t, t, condition);
        }
        self.guided.denoiser.predict(x_t, t, &condition.condition)
    }
}
// ANCHOR_END: part_of_the_time

/// Gives the condition back, and counts how often it was asked.
struct Counting(RefCell<usize>);

impl Denoiser for Counting {
    type Condition = f64;

    fn predict(&self, x_t: &Tensor, _: &[f64], condition: &f64) -> Tensor {
        *self.0.borrow_mut() += 1;
        x_t * *condition
    }
}

#[test]
fn without_guidance_there_is_one_question() {
    let part = PartOfTheTime {
        guided: ClassifierFree { denoiser: Counting(RefCell::default()), weight: 3.0 },
        from: 0.4,
        to: 0.8,
    };
    let condition = Guided { condition: 2.0, null: 1.0 };
    let said: Vec<f64> =
        (1..=10).rev().map(|i| part.predict(&column(&[1.0]), &[f64::from(i) / 10.0], &condition).item()).collect();
    assert_eq!(said, [2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]);
    assert_eq!(*part.guided.denoiser.0.borrow(), 14);
}

// ANCHOR: keep_some
/// `count` points of the tilted density: drawn from p(x | c), and each kept with probability p(c | x)^(w - 1). `p_c` may be
/// any multiple of p(c | x) that is at most 1.
fn keep_some(draw: impl Fn(u64) -> f64, p_c: impl Fn(f64) -> f64, w: f64, count: usize) -> Vec<f64> {
    let kept = |&(i, x): &(u64, f64)| stream(0, Purpose::Test, 1, i).random::<f64>() < p_c(x).powf(w - 1.0);
    (0..).map(|i| (i, draw(i))).filter(kept).take(count).map(|(_, x)| x).collect()
}
// ANCHOR_END: keep_some

// x ~ N(0, 1), c = x with an error of variance 1/3, and c = 1: measured w times over, N(3w / (1 + 3w), 1 / (1 + 3w)).
#[test]
fn keeping_some_tilts_the_density() {
    let draw = |i: u64| 0.75 + 0.5 * normal(4, Purpose::Test, 0, i, 1)[0];
    let n = 4000;
    for w in [1.0, 3.0, 7.5] {
        let x = keep_some(draw, |x| (-1.5 * (x - 1.0).powi(2)).exp(), w, n);
        let mean = x.iter().sum::<f64>() / n as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let expected = 1.0 / (1.0 + 3.0 * w);
        // five standard errors
        assert!((mean - 3.0 * w * expected).abs() < 5.0 * (expected / n as f64).sqrt(), "{mean}");
        assert!((variance / expected - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt(), "{variance}");
    }
}
