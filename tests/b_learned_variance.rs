//! B3. The learned variance: what the network says of it, the loss that teaches it, and the sampler that uses it.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_mean_and_variance, tensor};
use imagen::array::DType;
use imagen::autograd::{Tensor, check_gradients};
use imagen::diffusion::gaussian::{
    discretised_log_probability, discretised_log_probability_slope, kl, level_of, level_value,
};
use imagen::diffusion::{
    Bound, ByClassifier, ClassifierFree, Denoiser, DiscreteSchedule, Exact, Given, Guided, Images, Levels, Mixture,
    NoisyClassifier, Posterior, ReverseVariance, SampleError, Sampler, SamplerKind, Sampling, Schedule, ScheduleConfig,
    Target, Threshold, Weighting, bound, bound_terms, hybrid, loss, q_sample, v_of_output,
};
use imagen::random::{Purpose, normal};
use std::f64::consts::LN_2;
use std::ops::ControlFlow;

const TARGETS: [Target; 3] = [Target::Eps, Target::X0, Target::V];

/// Numbers from N(0, 1) in a shape.
fn noise<const N: usize>(index: u64, shape: [usize; N]) -> Tensor {
    tensor(shape, &normal(21, Purpose::Test, 0, index, shape.iter().product()))
}

/// 8-bit images [B, C, H, W] in which black and white are common.
fn images<const N: usize>(index: u64, shape: [usize; N]) -> Tensor {
    let level = |z: f64| level_value(level_of(0.9 * z));
    let values: Vec<f64> = noise(index, shape).to_f64().into_iter().map(level).collect();
    tensor(shape, &values)
}

// ANCHOR: b3_v_goes_from_one_variance_to_the_other
// B3  Sigma = exp(v log beta_i + (1 - v) log beta_tilde_i), number by number: v = 0 is beta_tilde_i, v = 1 is beta_i. The
//     network's -1, 0 and 1 are v = 0, 1/2 and 1.
#[test]
fn b3_v_goes_from_one_variance_to_the_other() {
    let v = v_of_output(&tensor([1, 1, 1, 3], &[-1.0, 0.0, 1.0]));
    assert_eq!(v.to_f64(), [0.0, 0.5, 1.0]);
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        for i in [2, 3, 10, 500, 1000] {
            let q = Posterior::of_step(&schedule, i);
            let variances: Vec<f64> = q.std_between(&v).square().to_f64().iter().map(|s| s / q.variance).collect();
            assert_all_close(
                &variances,
                &[1.0, (q.forward_variance / q.variance).sqrt(), q.forward_variance / q.variance],
                1e-14,
            );
        }
    }
}
// ANCHOR_END: b3_v_goes_from_one_variance_to_the_other

// B3  numbers of the linear chain of 1000 steps, computed with 50 digits; nothing keeps v between 0 and 1
#[test]
fn b3_golden_variances() {
    let schedule = ScheduleConfig::Linear.build();
    for (i, v, variance) in [
        (2, 0.25, 6.640_651_130_555_198e-5),
        (2, -0.5, 3.677_307_945_768_471e-5),
        (10, 0.5, 2.579_133_673_673_694e-4),
        (500, 0.9, 0.010_039_171_239_263_409),
        (1000, 1.3, 0.020_000_004_942_034_463),
    ] {
        let q = Posterior::of_step(&schedule, i);
        let std = q.std_between(&tensor([1, 1, 1, 1], &[v])).item();
        assert_close(std * std / variance, 1.0, 1e-11);
        assert_close(q.variance_between(v) / variance, 1.0, 1e-11);
    }
    // and a term of the bound: x_0 = 0.2 to the nearest level, x_hat_0 0.03 more, i = 10, v = 1/2
    let x0 = tensor([1, 1, 1, 1], &[0.2]);
    let term = bound_terms(&schedule, &[10], &x0, &(&x0 + 0.03), &tensor([1, 1, 1, 1], &[0.5]));
    assert_close(term.item() / 0.056_821_566_908_279_775, 1.0, 1e-10);
}

// ANCHOR: b3_a_term_is_the_divergence_of_the_two_steps
// B3, C2, C6  a term is the mean over the numbers of KL(q(x_{i-1} | x_i, x_0) || N(mu_tilde(x_i, x_hat_0), Sigma)), which is put
//             together here from means and variances; the first is the price of the decoder. In bits.
#[test]
fn b3_a_term_is_the_divergence_of_the_two_steps() {
    let schedule = DiscreteSchedule::cosine(50);
    let shape = [5, 2, 3, 3];
    let (x0, v, x_i) = (images(1, shape), noise(2, shape), noise(3, shape));
    let x0_hat = &x0 + &(&noise(4, shape) * 0.05);
    let steps = [1, 2, 17, 1, 50];
    let terms = bound_terms(&schedule, &steps, &x0, &x0_hat, &v).to_f64();
    let [x0, x0_hat, v, x_i] = [x0, x0_hat, v, x_i].map(|x| x.to_f64());
    for (b, &i) in steps.iter().enumerate() {
        let q = Posterior::of_step(&schedule, i);
        let second = Posterior::of_step(&schedule, i.max(2)).variance;
        let nats = (18 * b..18 * (b + 1)).map(|k| {
            let variance = q.forward_variance.powf(v[k]) * second.powf(1.0 - v[k]);
            match i {
                1 => -discretised_log_probability(level_of(x0[k]), x0_hat[k], variance.sqrt()),
                _ => kl(q.mean_of(x0[k], x_i[k]), q.variance.ln(), q.mean_of(x0_hat[k], x_i[k]), variance.ln()),
            }
        });
        assert_close(terms[b], nats.sum::<f64>() / 18.0 / LN_2, 1e-9);
    }
}
// ANCHOR_END: b3_a_term_is_the_divergence_of_the_two_steps

// B3  in f32, as networks compute, the terms are those of f64 but for rounding: e^r - r - 1 of a small r has an error of the size of
//     that of 1
#[test]
fn b3_terms_in_f32() {
    let schedule = DiscreteSchedule::cosine(50);
    let shape = [5, 2, 3, 3];
    let (x0, v) = (images(1, shape), noise(2, shape));
    let x0_hat = &x0 + &(&noise(4, shape) * 0.05);
    let terms = |dtype: DType| {
        let [x0, x0_hat, v] = [&x0, &x0_hat, &v].map(|x| Tensor::from_f64(shape, &x.to_f64(), dtype));
        bound_terms(&schedule, &[1, 2, 17, 1, 50], &x0, &x0_hat, &v).to_f64()
    };
    for (single, double) in terms(DType::F32).iter().zip(terms(DType::F64)) {
        assert_close(*single, double, 1e-6 * (1.0 + double));
    }
}

// B3  a variance that is NaN, 0 or infinite is a term that is no number, whatever the step: a loss that says so, and no panic. Where v
//     is not asked, in the divergence of the first step, it has no part.
#[test]
fn b3_no_variance_is_no_number() {
    let schedule = DiscreteSchedule::cosine(50);
    let x0 = images(1, [1, 1, 1, 2]);
    let term = |step: usize, v: f64| {
        let v = Tensor::from_f64([1, 1, 1, 2], &[0.5, v], DType::F64);
        bound_terms(&schedule, &[step], &x0, &x0, &v).item()
    };
    for step in [1, 2, 25] {
        assert!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].iter().all(|&v| !term(step, v).is_finite()), "{step}");
        // so far outside of [0, 1] that the variance, or what is raised to it, is beyond all numbers
        assert!(
            [1e5, -1e5].iter().any(|&v| !term(step, v).is_finite()),
            "{step}: {} {}",
            term(step, 1e5),
            term(step, -1e5)
        );
    }
    let wrong = std::panic::catch_unwind(|| {
        bound_terms(&schedule, &[1], &images(1, [2, 1, 1, 2]), &images(1, [2, 1, 1, 2]), &images(1, [2, 1, 1, 2]))
    });
    assert!(wrong.is_err(), "one step for two images");
}

/// A model that knows the images and the v of every number, but for an error of 0.05 or so.
struct Known {
    x0_hat: Tensor,
    v: Tensor,
}

impl Denoiser for Known {
    type Condition = ();

    fn predict(&self, _: &Tensor, _: &[f64], _: &()) -> Tensor {
        self.x0_hat.clone()
    }

    fn predict_with_variance(&self, _: &Tensor, _: &[f64], _: &()) -> (Tensor, Option<Tensor>) {
        (self.x0_hat.clone(), Some(self.v.clone()))
    }
}

// ANCHOR: b3_the_loss_adds_up_the_bound
// B3, C1  the terms of the loss, step by step, are those that the bound in bits per dimension is measured with; and T times their mean
//         is all of it but L_T
#[test]
fn b3_the_loss_adds_up_the_bound() {
    let (schedule, shape) = (DiscreteSchedule::linear(20), [3, 1, 4, 4]);
    let (x0, v) = (images(1, shape), noise(2, shape));
    let x0_hat = (&x0 + &(&noise(3, shape) * 0.05)).clamp(-1.0, 1.0);
    let pixels: Vec<u8> = x0.to_f64().into_iter().map(|x| level_of(x) as u8).collect();
    let seeds = [(1, 0), (1, 1), (1, 2)];
    let keys = Images { size: [1, 4, 4], dtype: DType::F64, seeds: &seeds };
    let model = Known { x0_hat: x0_hat.clone(), v: v.clone() };
    let mut go_on = |_| ControlFlow::Continue(());
    let asked = ReverseVariance::Learned;
    let bounds = bound((&model, Target::X0), &(), &schedule, asked, (&pixels, &keys), &mut go_on).unwrap();
    let terms: Vec<Tensor> = (1..=20).map(|i| bound_terms(&schedule, &[i; 3], &x0, &x0_hat, &v)).collect();
    for (i, terms) in terms.iter().enumerate() {
        let measured: Vec<f64> = bounds.iter().map(|bound| bound.terms[i]).collect();
        assert_all_close(&terms.to_f64(), &measured, 1e-9);
    }
    let zero = Tensor::scalar(0.0, DType::F64);
    let whole: f64 = terms.iter().map(|terms| hybrid(&zero, terms, &schedule, 1.0).item()).sum::<f64>() / 20.0;
    let measured = bounds.iter().map(|bound| bound.total() - bound.prior).sum::<f64>() / 3.0;
    assert_close(whole, measured, 1e-9);
    // v = 0 and v = 1 everywhere are the variances that are not learned
    for (v, fixed) in [(0.0, ReverseVariance::Small), (1.0, ReverseVariance::Large)] {
        let model = Known { x0_hat: x0_hat.clone(), v: model.v.affine(0.0, v) };
        let measure = |variance| {
            let mut go_on = |_| ControlFlow::Continue(());
            let bounds = bound((&model, Target::X0), &(), &schedule, variance, (&pixels, &keys), &mut go_on).unwrap();
            bounds.iter().map(Bound::total).collect::<Vec<f64>>()
        };
        assert_eq!(measure(ReverseVariance::Learned), measure(fixed));
    }
}
// ANCHOR_END: b3_the_loss_adds_up_the_bound

// C6  the slope of the decoder's logarithm in log(std^2), against central differences: inside, at both ends, and far from the mean
#[test]
fn c6_slope_of_the_decoder() {
    for level in [0, 1, 90, 127, 254, 255] {
        for mean in [-1.3, -0.99, -0.29, 0.0, 0.4, 1.0] {
            for log_variance in [-11.0_f64, -8.0, -5.0, -1.0, 2.0] {
                let at = |l: f64| discretised_log_probability(level, mean, (0.5 * l).exp());
                let slope = discretised_log_probability_slope(level, mean, (0.5 * log_variance).exp());
                if at(log_variance) > -700.0 {
                    let d = 1e-5;
                    assert_close(slope, (at(log_variance + d) - at(log_variance - d)) / (2.0 * d), 1e-6);
                } else {
                    assert!(slope.abs() < 1e9, "{slope}");
                }
            }
        }
    }
    // where the mass is no number any more, nothing is learned
    assert_eq!(discretised_log_probability_slope(255, -1.0, 1e-3), 0.0);
    assert_eq!([-2.0, -1.0, 1.0, 2.0, f64::NAN].map(level_of), [0, 0, 255, 255, 0]);
    assert!((0..256).all(|level| level_of(level_value(level)) == level));
}

/// L_hybrid of a batch, from what a network said: the prediction, and what it said of the variance.
fn hybrid_loss(prediction: &Tensor, output: &Tensor, target: Target, steps: &[usize], weight: f64) -> Tensor {
    let chain = DiscreteSchedule::cosine(40);
    let shape = [prediction.shape()[0], 1, 2, 3];
    let (x0, eps) = (images(5, shape), noise(6, shape));
    let t: Vec<f64> = steps.iter().map(|&i| chain.time(i)).collect();
    let levels = Levels::at(&chain, &t, DType::F64);
    let x_t = q_sample(&x0, &eps, &levels);
    let simple = loss(prediction, &x0, &eps, &t, &chain, target, Weighting::Simple).mean;
    let x0_hat = target.to_x0(&prediction.detach(), &x_t, &levels);
    hybrid(&simple, &bound_terms(&chain, steps, &x0, &x0_hat, &v_of_output(output)), &chain, weight)
}

// ANCHOR: b3_gradients_of_the_hybrid_loss
// B3  L_hybrid = L_simple + 0.001 L_vlb (Improved DDPM eq. 16): its gradient to the half that says the variance is that of finite
//     differences, the decoder's step included
#[test]
fn b3_gradients_of_the_hybrid_loss() {
    let steps = [1, 2, 23, 40];
    let output = noise(7, [4, 1, 2, 3]);
    for target in TARGETS {
        // near what is right, so that no term drowns the others
        let prediction = &noise(8, [4, 1, 2, 3]) * 0.3;
        let of_output = |x: &[Tensor]| hybrid_loss(&prediction, &x[0], target, &steps, 0.001);
        check_gradients(of_output, &[output.array().clone()], 1, 1e-6).unwrap();
    }
}
// ANCHOR_END: b3_gradients_of_the_hybrid_loss

// ANCHOR: b3_the_mean_learns_nothing_from_the_bound
// B3  the gradient to the prediction is that of L_simple alone, to the bit, however much of the bound there is; and without
//     L_simple's half the variance still learns
#[test]
fn b3_the_mean_learns_nothing_from_the_bound() {
    let steps = [1, 2, 23, 40];
    for target in TARGETS {
        let gradients = |weight: f64| {
            let prediction = Tensor::leaf((&noise(8, [4, 1, 2, 3]) * 0.3).into_array());
            let output = Tensor::leaf(noise(7, [4, 1, 2, 3]).into_array());
            let gradients = hybrid_loss(&prediction, &output, target, &steps, weight).backward();
            [&prediction, &output].map(|leaf| gradients.get(leaf).map_or(Vec::new(), |gradient| gradient.to_f64()))
        };
        let ([alone, _], [with, of_variance]) = (gradients(0.0), gradients(1000.0));
        assert_eq!(alone, with);
        assert!(of_variance.iter().all(|g| g.is_finite() && *g != 0.0), "{of_variance:?}");
    }
}
// ANCHOR_END: b3_the_mean_learns_nothing_from_the_bound

// ANCHOR: b3_the_bound_teaches_the_exact_variance
// B3  for data N(m, s^2) and the exact mean, the v of least L_vlb is that of the exact reverse-conditional variance,
//     beta_i v_{i-1} / v_i with v_i = alpha_bar_i s^2 + 1 - alpha_bar_i. What the images are given x_i is E[x_0 | x_i] and a deviation
//     to either side, which has their variance; Newton's method, with the gradients of the loss.
#[test]
fn b3_the_bound_teaches_the_exact_variance() {
    let schedule = DiscreteSchedule::linear(100);
    for s in [0.1, 0.5, 0.9] {
        let v_at = |i: usize| schedule.alpha_bars()[i] * s * s + 1.0 - schedule.alpha_bars()[i];
        for i in [2, 3, 10, 60, 100] {
            let deviation = (s * s * (1.0 - schedule.alpha_bars()[i]) / v_at(i)).sqrt();
            let x0_hat = tensor([2, 1, 1, 1], &[0.2, 0.2]);
            let x0 = &x0_hat + &tensor([2, 1, 1, 1], &[deviation, -deviation]);
            let slope = |v: f64| {
                let v = Tensor::leaf(tensor([1, 1, 1, 1], &[v]).into_array());
                let both = v.broadcast_to([2, 1, 1, 1]);
                let loss = bound_terms(&schedule, &[i, i], &x0, &x0_hat, &both).mean_all();
                loss.backward().get(&v).unwrap().to_f64()[0]
            };
            let (mut v, d) = (0.5, 1e-5);
            for _ in 0..60 {
                v -= slope(v) / ((slope(v + d) - slope(v - d)) / (2.0 * d));
            }
            let exact = schedule.betas()[i - 1] * v_at(i - 1) / v_at(i);
            assert_close(Posterior::of_step(&schedule, i).variance_between(v) / exact, 1.0, 1e-9);
            assert!(v > 0.0 && v < 1.0);
        }
    }
}
// ANCHOR_END: b3_the_bound_teaches_the_exact_variance

/// The exact model of N(MEAN, STD^2), which also knows the exact variance of a step of length 1/steps.
struct Sure<'a> {
    schedule: &'a dyn Schedule,
    steps: usize,
}

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;

impl Denoiser for Sure<'_> {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, t: &[f64], _: &()) -> Tensor {
        Exact { data: Mixture::gaussian(&[MEAN], STD), schedule: self.schedule }.predict(x_t, t, &None)
    }

    fn predict_with_variance(&self, x_t: &Tensor, t: &[f64], c: &()) -> (Tensor, Option<Tensor>) {
        let (t, s) = (t[0], t[0] - 1.0 / self.steps as f64);
        let variance = |t: f64| (self.schedule.alpha(t) * STD).powi(2) + self.schedule.sigma(t).powi(2);
        let v = if s > 1e-9 {
            let q = Posterior::between(self.schedule, s, t);
            let exact = q.forward_variance * variance(s) / variance(t);
            (exact / q.variance).ln() / (q.forward_variance / q.variance).ln()
        } else {
            0.0
        };
        (self.predict(x_t, &vec![t; x_t.shape()[0]], c), Some(x_t.affine(0.0, v)))
    }
}

/// Images with the model that knows, by `sampler` in `steps` steps.
fn draw(sampler: SamplerKind, steps: usize, n: u64) -> Vec<f64> {
    let schedule = ScheduleConfig::Cosine.build();
    let seeds: Vec<(u64, u64)> = (0..n).map(|index| (31, index)).collect();
    let images = Images { size: [1, 8, 8], dtype: DType::F64, seeds: &seeds };
    let settings = Sampling { steps, sampler, threshold: Threshold::None };
    let model = Sure { schedule: &schedule, steps };
    Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition: &(), settings }
        .sample(&images, &mut |_| ControlFlow::Continue(()))
        .unwrap()
        .to_f64()
}

// ANCHOR: b3_with_the_right_variance_few_steps_are_enough
// B3, D1  with the exact variance every step back of N(m, s^2) is exact, however long: after 5 steps of 6 the numbers are those of
//         the noised data, and the last gives their x_hat_0, of variance s^2 (alpha s)^2 / v at t = 1/6. The variances that are
//         not learned are far from that. 12 800 numbers, within 5 standard errors.
#[test]
fn b3_with_the_right_variance_few_steps_are_enough() {
    let schedule = ScheduleConfig::Cosine.build();
    let (alpha, sigma) = (schedule.alpha(1.0 / 6.0), schedule.sigma(1.0 / 6.0));
    let signal = (alpha * STD).powi(2);
    let expected = STD * STD * signal / (signal + sigma * sigma);
    assert_mean_and_variance(&draw(SamplerKind::AncestralLearned {}, 6, 200), MEAN, expected);
    for gamma in [0.0, 1.0] {
        let x = draw(SamplerKind::Ancestral { gamma }, 6, 200);
        let variance = x.iter().map(|x| (x - MEAN).powi(2)).sum::<f64>() / x.len() as f64;
        assert!((variance / expected - 1.0).abs() > 0.1, "gamma = {gamma}: {variance}, {expected}");
    }
}
// ANCHOR_END: b3_with_the_right_variance_few_steps_are_enough

/// A model of x_0 = 0.1 whose v is the same everywhere, and that has nothing to say of it if there is none.
struct Even(Option<f64>);

impl Denoiser for Even {
    type Condition = f64;

    fn predict(&self, x_t: &Tensor, _: &[f64], condition: &f64) -> Tensor {
        x_t.affine(0.0, *condition)
    }

    fn predict_with_variance(&self, x_t: &Tensor, t: &[f64], condition: &f64) -> (Tensor, Option<Tensor>) {
        // what is said of the variance follows the condition, too
        let v = self.0.map(|v| x_t.affine(0.0, v + condition - 0.1));
        (self.predict(x_t, t, condition), v)
    }
}

fn run(model: &Even, sampler: SamplerKind, given: Option<&Given>) -> Result<Vec<f64>, SampleError> {
    let schedule = ScheduleConfig::Linear.build();
    let images = Images { size: [1, 2, 2], dtype: DType::F64, seeds: &[(4, 0), (4, 1)] };
    let settings = Sampling { steps: 5, sampler, threshold: Threshold::Static };
    let sampler = Sampler { schedule: &schedule, denoiser: model, target: Target::X0, condition: &0.1, settings };
    let mut seen = Vec::new();
    // what is seen on the way holds the noise, which the last step takes out
    let mut see = |step: imagen::diffusion::Step<'_>| {
        seen.extend(step.x_t.to_f64());
        ControlFlow::Continue(())
    };
    match given {
        None => sampler.sample(&images, &mut see)?,
        Some(given) => sampler.inpaint(given, &images, &mut see)?,
    };
    Ok(seen)
}

// B3, E3  a v that is no number is named with its step, and only where v is asked
#[test]
fn b3_nan_of_v_is_an_error_that_names_the_step() {
    let error = run(&Even(Some(f64::NAN)), SamplerKind::AncestralLearned {}, None).unwrap_err().to_string();
    assert!(error.contains("the model's variance is not finite at step 1 of 5 (t = 1.0000)"), "{error}");
    assert!(run(&Even(Some(f64::NAN)), SamplerKind::Ancestral { gamma: 0.5 }, None).is_ok());
}

// D1, B3  where v is gamma everywhere, the learned sampler draws what the fixed one draws, in editing, too; the deterministic samplers do
//         not ask for v; and a model that has not learned it is an error
#[test]
fn d1_a_learned_gamma_is_gamma() {
    let part = Given {
        images: tensor([2, 1, 2, 2], &[0.5; 8]),
        mask: tensor([2, 1, 2, 2], &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]),
        rounds: 2,
    };
    for given in [None, Some(&part)] {
        for gamma in [0.0, 0.3, 1.0] {
            let fixed = run(&Even(None), SamplerKind::Ancestral { gamma }, given).unwrap();
            let learned = run(&Even(Some(gamma)), SamplerKind::AncestralLearned {}, given).unwrap();
            assert_all_close(&learned, &fixed, 1e-13);
        }
        let error = run(&Even(None), SamplerKind::AncestralLearned {}, given).unwrap_err();
        assert_eq!(error, SampleError::NoVariance);
        assert!(error.to_string().contains("has not learned its variance") && !error.to_string().contains('\n'));
        for sampler in
            [SamplerKind::Ddim { eta: 0.5 }, SamplerKind::DpmSolver {}, SamplerKind::Ancestral { gamma: 0.5 }]
        {
            assert_eq!(run(&Even(None), sampler, given), run(&Even(Some(7.0)), sampler, given));
        }
    }
    let mut go_on = |_| ControlFlow::Continue(());
    let keys = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &[(1, 0)] };
    let chain = DiscreteSchedule::linear(3);
    let measured = bound((&Even(None), Target::X0), &0.1, &chain, ReverseVariance::Learned, (&[7], &keys), &mut go_on);
    assert_eq!(measured.unwrap_err(), SampleError::NoVariance);
}

/// A classifier with the same gradient everywhere.
struct Slope;

impl NoisyClassifier for Slope {
    fn classes(&self) -> usize {
        1
    }

    fn log_p(&self, x_t: &Tensor, _: &[f64], _: &[usize]) -> Tensor {
        x_t.sum(&[1, 2, 3], false)
    }
}

// B3, E1, E2  guidance acts on the prediction; v is that of the model with its condition, and without one if w = 0
#[test]
fn e2_guidance_leaves_the_variance() {
    let x = noise(9, [2, 1, 2, 2]);
    let condition = Guided { condition: 0.4, null: 0.2 };
    let schedule = ScheduleConfig::Cosine.build();
    for (weight, prediction, v) in [(1.0, 0.4, 0.8), (0.0, 0.2, 0.6), (3.0, 0.8, 0.8), (0.5, 0.3, 0.8)] {
        let free = ClassifierFree { denoiser: &Even(Some(0.5)), weight };
        let (guided, said) = free.predict_with_variance(&x, &[0.5, 0.5], &condition);
        assert_all_close(&guided.to_f64(), &[prediction; 8], 1e-14);
        assert_eq!(guided.to_f64(), free.predict(&x, &[0.5, 0.5], &condition).to_f64());
        assert_all_close(&said.unwrap().to_f64(), &[v; 8], 1e-14);
        for scale in [0.0, 2.0] {
            let classes = [0, 0];
            let led = ByClassifier {
                denoiser: &free,
                classifier: Slope,
                classes: &classes,
                scale,
                schedule: &schedule,
                target: Target::Eps,
            };
            let (moved, said) = led.predict_with_variance(&x, &[0.5, 0.5], &condition);
            assert_all_close(&moved.to_f64(), &[prediction - scale * schedule.sigma(0.5); 8], 1e-13);
            assert_all_close(&said.unwrap().to_f64(), &[v; 8], 1e-14);
        }
    }
    let silent = ClassifierFree { denoiser: &Even(None), weight: 3.0 };
    assert!(silent.predict_with_variance(&x, &[0.5, 0.5], &condition).1.is_none());
}

// B3  in the first step the divergence, which is not asked for, has no say: of a v with exp(-log variance) beyond f32 the decoder's
//     price is a number, and so is its slope
#[test]
fn b3_the_first_step_does_not_ask_the_divergence() {
    let (schedule, shape) = (DiscreteSchedule::linear(1000), [1, 1, 1, 2]);
    let x0 = Tensor::from_f64(shape, &[0.2, -0.4], DType::F32);
    // log variance about -9.8 - 0.6 * 150
    let v = Tensor::leaf(Tensor::from_f64(shape, &[0.5, -150.0], DType::F32).into_array());
    let term = bound_terms(&schedule, &[1], &x0, &x0, &v);
    let gradient = term.sum_all().backward().get(&v).unwrap().to_f64();
    assert!(term.item().is_finite() && gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
}

// B3, C1  the bound of such a model is an error that says what is wrong; a variance that is fixed does not ask v
#[test]
fn b3_the_bound_of_a_v_that_went_wrong_is_an_error() {
    let (schedule, keys) =
        (DiscreteSchedule::linear(100), Images { size: [1, 1, 1], dtype: DType::F64, seeds: &[(1, 0)] });
    let measure = |v: f64, variance| {
        let mut go_on = |_| ControlFlow::Continue(());
        bound((&Even(Some(v)), Target::X0), &0.1, &schedule, variance, (&[7], &keys), &mut go_on)
    };
    for (v, what) in [(f64::NAN, "variance"), (f64::INFINITY, "variance"), (-1e6, "bound"), (1e6, "bound")] {
        let error = measure(v, ReverseVariance::Learned).unwrap_err();
        assert_eq!(error, SampleError::NotFinite { what, index: 0, of: 100, t: 0.01 });
        assert!(error.to_string().contains(&format!("the model's {what} is not finite at step 1 of 100")), "{error}");
        for fixed in [ReverseVariance::Small, ReverseVariance::Large] {
            assert_eq!(measure(v, fixed).unwrap(), measure(0.5, fixed).unwrap());
        }
    }
}

// B3  a step that is not one of the chain has no variance, whichever is asked for; of a chain of one step the smaller is next to none
#[test]
fn a_step_that_is_not_one_of_the_chain_has_no_variance() {
    let chain = DiscreteSchedule::linear(10);
    for variance in [ReverseVariance::Small, ReverseVariance::Large] {
        for i in [0, 11, 15] {
            assert!(std::panic::catch_unwind(|| variance.of_step(&chain, i)).is_err(), "{variance:?} of step {i}");
        }
    }
    assert_eq!(ReverseVariance::Small.of_step(&DiscreteSchedule::linear(1), 1), f64::MIN_POSITIVE);
}
