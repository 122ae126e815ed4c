//! D. Samplers, on models that are known exactly.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_expectation, assert_mean_and_variance, mixture, tensor};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::sampler::ddim_step;
use imagen::diffusion::{
    Denoiser, Exact, Images, Levels, Mixture, Posterior, SampleError, Sampler, SamplerKind, Sampling, Schedule,
    ScheduleConfig, Target, Threshold, TimeConfig,
};
use proptest::prelude::*;
use std::ops::ControlFlow;

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;

/// A chain whose schedule is interpolated, and a formula.
const TIMES: [TimeConfig; 2] = [TimeConfig::Interpolated, TimeConfig::Continuous];

fn settings(steps: usize, sampler: SamplerKind) -> Sampling {
    Sampling { steps, sampler, threshold: Threshold::None }
}

/// `n` images of 8 x 8 independent numbers, sampled with the exact model of `data`.
fn sample(data: &Mixture, schedule: &dyn Schedule, n: u64, settings: Sampling) -> Vec<f64> {
    let seeds: Vec<(u64, u64)> = (0..n).map(|index| (11, index)).collect();
    let images = Images { size: [1, 8, 8], dtype: DType::F64, seeds: &seeds };
    let model = Exact { data: data.clone(), schedule };
    let sampler = Sampler { schedule, denoiser: &model, target: Target::Eps, condition: &None, settings };
    sampler.sample(&images, &mut |_| ControlFlow::Continue(())).unwrap().to_f64()
}

/// The exact model of N(MEAN, STD^2), run from x [B, 1, 1, 1] at t = 1.
fn run_gaussian(schedule: &dyn Schedule, x: &[f64], settings: Sampling) -> Vec<f64> {
    run_gaussian_with(12, schedule, x, settings)
}

/// The same, where the noise of the steps has another seed.
fn run_gaussian_with(seed: u64, schedule: &dyn Schedule, x: &[f64], settings: Sampling) -> Vec<f64> {
    let seeds: Vec<(u64, u64)> = (0..x.len() as u64).map(|index| (seed, index)).collect();
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &seeds };
    let model = Exact { data: Mixture::gaussian(&[MEAN], STD), schedule };
    let sampler = Sampler { schedule, denoiser: &model, target: Target::Eps, condition: &None, settings };
    let x = tensor([x.len(), 1, 1, 1], x);
    sampler.sample_from(x, &settings.times(), &images, &mut |_| ControlFlow::Continue(())).unwrap().to_f64()
}

/// Mean and variance of what the ancestral sampler draws for data N(MEAN, STD^2) with the exact x_hat_0: every step is
/// affine, so they are propagated in closed form.
fn ancestral_moments(schedule: &dyn Schedule, steps: usize, gamma: f64) -> (f64, f64) {
    let times = settings(steps, SamplerKind::Ancestral { gamma }).times();
    let (mut mean, mut variance) = (0.0, 1.0);
    for pair in times.windows(2) {
        let (t, s) = (pair[0], pair[1]);
        let alpha = schedule.alpha(t);
        let gain = alpha * STD * STD / (alpha * alpha * STD * STD + schedule.sigma(t).powi(2));
        let q = Posterior::between(schedule, s, t);
        let slope = q.coef_xt + q.coef_x0 * gain;
        let added = if s > 0.0 { q.variance_between(gamma) } else { 0.0 };
        mean = q.mean_of(MEAN + gain * (mean - alpha * MEAN), mean);
        variance = slope * slope * variance + added;
    }
    (mean, variance)
}

// ANCHOR: d1_ancestral_draws_what_its_steps_say
// D1  x_s = mu_tilde(x_t, x_hat_0) + sqrt(beta_tilde^(1-gamma) beta^gamma) z
// Drawn with the exact model of Gaussian data: 19 200 numbers have the mean and variance that the steps' closed form
// has, within 5 standard errors.
#[test]
fn d1_ancestral_draws_what_its_steps_say() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        for gamma in [0.0, 0.3, 1.0] {
            let x = sample(
                &Mixture::gaussian(&[MEAN], STD),
                &schedule,
                300,
                settings(40, SamplerKind::Ancestral { gamma }),
            );
            let (mean, variance) = ancestral_moments(&schedule, 40, gamma);
            assert_mean_and_variance(&x, mean, variance);
        }
    }
}
// ANCHOR_END: d1_ancestral_draws_what_its_steps_say

// ANCHOR: d1_ancestral_approaches_the_data_with_first_order
// D1  and those are the data's mean and variance, up to an error that halves when the steps double
#[test]
fn d1_ancestral_approaches_the_data_with_first_order() {
    let schedule = ScheduleConfig::Cosine.build();
    for gamma in [0.0, 1.0] {
        let error = |steps| (ancestral_moments(&schedule, steps, gamma).1 - STD * STD).abs();
        for steps in [125, 250, 500] {
            let ratio = error(2 * steps) / error(steps);
            assert!((0.4..0.6).contains(&ratio), "gamma = {gamma}, {steps} steps: {ratio}");
        }
        let (mean, variance) = ancestral_moments(&schedule, 1000, gamma);
        assert_close(mean, MEAN, 2e-3);
        assert_close(variance, STD * STD, 5e-3);
    }
}
// ANCHOR_END: d1_ancestral_approaches_the_data_with_first_order

// ANCHOR: d1_the_variance_lacks_the_scatter_of_the_image
// D1  for data N(m, s^2) the true step back has mu_tilde with x_hat_0 = E[x_0 | x_t] as mean, and as variance beta_tilde plus
//     the square of the factor of x_hat_0 in mu_tilde times Var(x_0 | x_t); it lies between beta_tilde and beta.
// The true step: x_t = a x_s + noise, a = alpha_t / alpha_s, both normal; so the slope of E[x_s | x_t] is a v_s / v_t and
// Var(x_s | x_t) = v_s - (a v_s)^2 / v_t, with v = alpha^2 s^2 + sigma^2.
#[test]
fn d1_the_variance_lacks_the_scatter_of_the_image() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        let v = |t: f64| (schedule.alpha(t) * STD).powi(2) + schedule.sigma(t).powi(2);
        for (t, s) in [(0.9, 0.2), (0.7, 0.5), (0.31, 0.3), (0.1, 0.02)] {
            let q = Posterior::between(&schedule, s, t);
            let a = schedule.alpha(t) / schedule.alpha(s);
            let gain = schedule.alpha(t) * STD * STD / v(t);
            assert_close(q.coef_xt + q.coef_x0 * gain, a * v(s) / v(t), 1e-12);
            let scatter = STD * STD * schedule.sigma(t).powi(2) / v(t);
            let variance = v(s) - (a * v(s)).powi(2) / v(t);
            assert_close(q.variance + q.coef_x0 * q.coef_x0 * scatter, variance, 1e-12);
            assert!(q.variance < variance && variance < q.forward_variance);
        }
    }
}
// ANCHOR_END: d1_the_variance_lacks_the_scatter_of_the_image

/// Two lumps, of which the narrow one has 30 %.
fn two_lumps() -> Mixture {
    mixture(&[(0.3, -0.7, 0.1), (0.7, 0.5, 0.2)])
}

// ANCHOR: d1_d2_d3_reproduce_a_mixture
// D1, D2, D3  on a mixture of two Gaussians the samplers reproduce how the data is shared out, and its mean and variance:
//             within 5 standard errors of 12 800 numbers, plus what 200 steps are off (0.01)
#[test]
fn d1_d2_d3_reproduce_a_mixture() {
    let (data, schedule) = (two_lumps(), ScheduleConfig::Cosine.build());
    for sampler in [
        SamplerKind::Ancestral { gamma: 0.0 },
        SamplerKind::Ddim { eta: 0.0 },
        SamplerKind::Ddim { eta: 0.5 },
        SamplerKind::DpmSolver {},
    ] {
        let x = sample(&data, &schedule, 200, settings(200, sampler));
        let within = |samples: Vec<f64>, expected: f64| {
            let (mean, error) = closed_form::mean_and_error(&samples);
            assert!((mean - expected).abs() < 5.0 * error + 0.01, "{sampler:?}: {mean} +- {error}, not {expected}");
        };
        // the lumps do not overlap around -0.2: 5 deviations from one, 3.5 from the other
        within(x.iter().map(|&x| f64::from(u8::from(x < -0.2))).collect(), 0.3);
        within(x.clone(), data.mean()[0]);
        within(x.iter().map(|x| (x - data.mean()[0]).powi(2)).collect(), data.variance()[0]);
    }
}
// ANCHOR_END: d1_d2_d3_reproduce_a_mixture

// ANCHOR: d2_ddim_with_eta_one_is_ancestral
// D2  DDIM with eta = 1 on the full grid is the ancestral sampler with variance beta_tilde: same noise, same images
#[test]
fn d2_ddim_with_eta_one_is_ancestral() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        for steps in [1000, 30] {
            let draw = |sampler| sample(&two_lumps(), &schedule, 2, settings(steps, sampler));
            let (ddim, ancestral) = (draw(SamplerKind::Ddim { eta: 1.0 }), draw(SamplerKind::Ancestral { gamma: 0.0 }));
            assert_all_close(&ddim, &ancestral, 1e-8);
        }
    }
}
// ANCHOR_END: d2_ddim_with_eta_one_is_ancestral

// ANCHOR: d2_every_eta_has_the_same_marginals
// D2  x_s = sqrt(alpha_bar_s) x_hat_0 + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma z,  sigma = eta sqrt(beta_tilde)
// Whatever eta, for one known image x_s has the marginal q(x_s | x_0): variance (1 - alpha_bar_s - sigma^2) + sigma^2.
#[test]
fn d2_every_eta_has_the_same_marginals() {
    let schedule = ScheduleConfig::Linear.build();
    let (x0, s, t) = (0.6, 0.5, 0.7);
    let (zero, one) = (tensor([1, 1, 1, 1], &[0.0]), tensor([1, 1, 1, 1], &[1.0]));
    for eta in [0.0, 0.5, 1.0] {
        let sigma = eta * Posterior::between(&schedule, s, t).variance.sqrt();
        let mean = ddim_step(&(&one * x0), &zero, &schedule, s, sigma).item();
        let slope = ddim_step(&zero, &one, &schedule, s, sigma).item();
        assert_close(mean, schedule.alpha(s) * x0, 1e-14);
        assert_close(slope * slope + sigma * sigma, schedule.sigma(s).powi(2), 1e-14);
    }
}
// ANCHOR_END: d2_every_eta_has_the_same_marginals

// ANCHOR: d2_eta_zero_solves_the_probability_flow_with_first_order
// D2  eta = 0 is deterministic: the same start gives the same image, whatever the seed of the noise, and the map from
//     start to image approaches that of the probability-flow ODE, here m + s (x_T - alpha_T m) / sqrt(alpha_T^2 s^2 + sigma_T^2),
//     with an error that halves when the steps double
#[test]
fn d2_eta_zero_solves_the_probability_flow_with_first_order() {
    let start = [-2.0, -0.5, 0.0, 1.0, 3.0];
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        let (alpha, sigma) = (schedule.alpha(1.0), schedule.sigma(1.0));
        let exact = start.map(|x| MEAN + STD * (x - alpha * MEAN) / (alpha * STD).hypot(sigma));
        let error = |steps| {
            let x = run_gaussian(&schedule, &start, settings(steps, SamplerKind::Ddim { eta: 0.0 }));
            x.iter().zip(&exact).map(|(x, e)| (x - e).abs()).fold(0.0, f64::max)
        };
        let errors = [50, 100, 200, 400].map(error);
        for pair in errors.windows(2) {
            let ratio = pair[1] / pair[0];
            assert!((0.4..0.6).contains(&ratio), "{config:?}: {errors:?}");
        }
        assert!(errors[3] < 0.02, "{config:?}: {errors:?}");
        let [zero, half] = [0.0, 0.5].map(|eta| {
            [1, 2].map(|seed| run_gaussian_with(seed, &schedule, &start, settings(10, SamplerKind::Ddim { eta })))
        });
        assert_eq!(zero[0], zero[1]);
        assert_ne!(half[0], half[1]);
    }
}
// ANCHOR_END: d2_eta_zero_solves_the_probability_flow_with_first_order

// ANCHOR: d2_eta_zero_inverts
// D2  eta = 0 can be run backwards: from the image to its noise and back to the image, closer the more steps there are
#[test]
fn d2_eta_zero_inverts() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: two_lumps(), schedule: &schedule };
    let step = |x: &Tensor, from: f64, to: f64| {
        let times = vec![from; x.shape()[0]];
        let levels = Levels::at(&schedule, &times, DType::F64);
        let eps = model.predict(x, &times, &None);
        ddim_step(&Target::Eps.to_x0(&eps, x, &levels), &eps, &schedule, to, 0.0)
    };
    let image = tensor([4, 1, 1, 1], &[-0.8, -0.6, 0.3, 0.9]);
    let round_trip_error = |steps: usize| {
        // from t = 0.02, since at t = 0 there is no noise to estimate; up to 0.9, where the lumps have long merged
        let time = |i: usize| 0.02 + 0.88 * i as f64 / steps as f64;
        let noise = (0..steps).fold(image.clone(), |x, i| step(&x, time(i), time(i + 1)));
        let back = (0..steps).rev().fold(noise, |x, i| step(&x, time(i + 1), time(i)));
        (&back - &image).to_f64().iter().map(|d| d.abs()).fold(0.0, f64::max)
    };
    let errors = [200, 400, 800].map(round_trip_error);
    assert!(errors.is_sorted_by(|a, b| *b < 0.65 * *a), "{errors:?}");
    assert!(errors[2] < 0.03, "{errors:?}");
}
// ANCHOR_END: d2_eta_zero_inverts

/// A model that always sees the same image, and what it was asked.
struct Stubborn {
    image: f64,
}

impl Denoiser for Stubborn {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, _: &[f64], _: &()) -> Tensor {
        x_t.affine(0.0, self.image)
    }
}

/// Says 0, and below t = 1/2 NaN.
struct Tiring;

impl Denoiser for Tiring {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, t: &[f64], _: &()) -> Tensor {
        x_t.affine(0.0, if t[0] < 0.5 { f64::NAN } else { 0.0 })
    }
}

/// (x_t, x_hat_0, s) of a step's first number.
type Seen = (f64, f64, f64);

/// The images of [`Stubborn`] that says so as x_0, and what was seen at every step.
fn sample_stubborn(image: f64, settings: Sampling) -> (Result<Tensor, SampleError>, Vec<Seen>) {
    let schedule = ScheduleConfig::Cosine.build();
    let images = Images { size: [1, 1, 2], dtype: DType::F64, seeds: &[(1, 0)] };
    let model = Stubborn { image };
    let sampler = Sampler { schedule: &schedule, denoiser: &model, target: Target::X0, condition: &(), settings };
    let mut seen = Vec::new();
    let result = sampler.sample(&images, &mut |step| {
        assert_eq!((step.index, step.of), (seen.len(), settings.steps));
        assert_close(step.t, 1.0 - seen.len() as f64 / settings.steps as f64, 1e-15);
        seen.push((step.x_t.to_f64()[0], step.x0_hat.to_f64()[0], step.threshold[0]));
        ControlFlow::Continue(())
    });
    (result, seen)
}

// ANCHOR: d4_threshold_acts_on_the_image_and_eps_follows
// D4  x_hat_0 is thresholded, and eps_hat is what then makes up x_t: eps_hat = (x_t - alpha_t x_hat_0) / sigma_t.
// The model says 3; clipped to 1, DDIM goes from x_t to alpha_s 1 + sigma_s (x_t - alpha_t 1) / sigma_t.
#[test]
fn d4_threshold_acts_on_the_image_and_eps_follows() {
    let schedule = ScheduleConfig::Cosine.build();
    for (threshold, s) in [(Threshold::Static, 1.0), (Threshold::dynamic(99.5), 3.0)] {
        let ddim = Sampling { steps: 4, sampler: SamplerKind::Ddim { eta: 0.0 }, threshold };
        let (result, seen) = sample_stubborn(3.0, ddim);
        assert_all_close(&result.unwrap().to_f64(), &[1.0, 1.0], 1e-14);
        for (k, pair) in seen.windows(2).enumerate() {
            let (t, next) = (1.0 - k as f64 / 4.0, 1.0 - (k + 1) as f64 / 4.0);
            let (x_t, x0_hat, divided) = pair[0];
            assert_eq!((x0_hat, divided), (1.0, s));
            let eps = (x_t - schedule.alpha(t)) / schedule.sigma(t);
            assert_close(pair[1].0, schedule.alpha(next) + schedule.sigma(next) * eps, 1e-12);
        }
    }
}
// ANCHOR_END: d4_threshold_acts_on_the_image_and_eps_follows

// A config may name samplers and thresholds as the command line does, and leave out the usual numbers.
#[test]
fn a_config_names_samplers_as_the_command_line_does() {
    for (text, kind) in [
        ("{\"kind\": \"dpm-solver\"}", SamplerKind::DpmSolver {}),
        ("{\"kind\": \"ancestral-learned\"}", SamplerKind::AncestralLearned {}),
        ("{\"kind\": \"ancestral\"}", SamplerKind::Ancestral { gamma: 0.0 }),
        ("{\"kind\": \"ddim\"}", SamplerKind::Ddim { eta: 0.0 }),
    ] {
        assert_eq!(serde_json::from_str::<SamplerKind>(text).unwrap(), kind);
    }
    let dynamic: Threshold = serde_json::from_str("{\"kind\": \"dynamic\"}").unwrap();
    assert_eq!(dynamic, Threshold::dynamic(99.5));
}

// ANCHOR: d4_last_step_returns_the_estimate
// D4  at s = 0 every sampler returns x_hat_0 itself, without noise
#[test]
fn d4_last_step_returns_the_estimate() {
    for sampler in [
        SamplerKind::Ancestral { gamma: 0.0 },
        SamplerKind::Ancestral { gamma: 1.0 },
        SamplerKind::Ddim { eta: 0.0 },
        SamplerKind::Ddim { eta: 1.0 },
        SamplerKind::DpmSolver {},
    ] {
        for steps in [1, 3] {
            let (result, _) = sample_stubborn(0.25, settings(steps, sampler));
            assert_all_close(&result.unwrap().to_f64(), &[0.25, 0.25], 1e-14);
        }
    }
}
// ANCHOR_END: d4_last_step_returns_the_estimate

// ANCHOR: d4_nan_is_an_error_that_names_the_step
// E3  NaN in gives an error naming the step
#[test]
fn d4_nan_is_an_error_that_names_the_step() {
    let (result, seen) = sample_stubborn(f64::NAN, settings(5, SamplerKind::Ddim { eta: 0.0 }));
    let error = result.err().unwrap();
    assert_eq!(error, SampleError::NotFinite { what: "image estimate", index: 0, of: 5, t: 1.0 });
    assert!(error.to_string().contains("step 1 of 5 (t = 1.0000)"), "{error}");
    assert!(seen.is_empty());
    // and where the first steps were good
    let schedule = ScheduleConfig::Cosine.build();
    let images = Images { size: [1, 1, 2], dtype: DType::F64, seeds: &[(1, 0)] };
    let settings = settings(5, SamplerKind::DpmSolver {});
    let sampler = Sampler { schedule: &schedule, denoiser: &Tiring, target: Target::X0, condition: &(), settings };
    let error = sampler.sample(&images, &mut |_| ControlFlow::Continue(())).err().unwrap();
    assert!(error.to_string().contains("image estimate is not finite at step 4 of 5 (t = 0.4000)"), "{error}");
}
// ANCHOR_END: d4_nan_is_an_error_that_names_the_step

// ANCHOR: an_image_does_not_depend_on_its_batch
// An image depends on its own seed and index alone: in any batch, in any order, it is the same to the last bit.
#[test]
fn an_image_does_not_depend_on_its_batch() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: two_lumps(), schedule: &schedule };
    for sampler in [SamplerKind::Ancestral { gamma: 0.5 }, SamplerKind::Ddim { eta: 0.7 }, SamplerKind::DpmSolver {}] {
        let draw = |seeds: &[(u64, u64)]| {
            let images = Images { size: [2, 3, 3], dtype: DType::F32, seeds };
            let settings = Sampling { steps: 7, sampler, threshold: Threshold::dynamic(95.0) };
            Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition: &None, settings }
                .sample(&images, &mut |_| ControlFlow::Continue(()))
                .unwrap()
                .to_f64()
        };
        let together = draw(&[(1, 0), (1, 1), (2, 0)]);
        assert_eq!(together[18..36], draw(&[(1, 1)]));
        assert_eq!(together[36..], draw(&[(2, 0), (1, 0)])[..18]);
        assert_ne!(together[..18], together[18..36]);
    }
}
// ANCHOR_END: an_image_does_not_depend_on_its_batch

// The progress callback can stop a run, and numbers out of range are errors before anything is computed.
#[test]
fn a_run_can_be_stopped_and_settings_are_checked() {
    let schedule = ScheduleConfig::Linear.build();
    let images = Images { size: [1, 1, 1], dtype: DType::F32, seeds: &[(1, 0)] };
    let run = |settings| {
        let model = Stubborn { image: 0.0 };
        Sampler { schedule: &schedule, denoiser: &model, target: Target::X0, condition: &(), settings }
            .sample(&images, &mut |step| {
                if step.index == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .err()
    };
    let good = Sampling::default();
    assert_eq!(run(good), Some(SampleError::Cancelled { index: 2, of: good.steps }));
    for (bad, named) in [
        (Sampling { steps: 0, ..good }, "steps = 0"),
        (Sampling { steps: usize::MAX, ..good }, "it must be from 1 to 100000"),
        (Sampling { sampler: SamplerKind::Ddim { eta: 1.5 }, ..good }, "eta = 1.5"),
        (Sampling { sampler: SamplerKind::Ancestral { gamma: f64::NAN }, ..good }, "gamma = NaN"),
        (Sampling { threshold: Threshold::dynamic(0.0), ..good }, "percentile = 0"),
        (Sampling { threshold: Threshold::Dynamic { percentile: 99.5, cap: Some(0.5) }, ..good }, "cap = 0.5"),
    ] {
        let message = run(bad).unwrap().to_string();
        assert!(message.contains(named), "{message}");
    }
}

// Settings are written in configs as they are named here, and unknown keys are refused.
#[test]
fn settings_read_from_a_config() {
    let text = "steps = 20\nsampler = { kind = \"ancestral\", gamma = 0.3 }\nthreshold = { kind = \"dynamic\", percentile = 99.5 }";
    let read: Sampling = toml::from_str(text).unwrap();
    let expected =
        Sampling { steps: 20, sampler: SamplerKind::Ancestral { gamma: 0.3 }, threshold: Threshold::dynamic(99.5) };
    assert_eq!(read, expected);
    assert_eq!(toml::from_str::<Sampling>(&toml::to_string(&read).unwrap()).unwrap(), expected);
    assert_eq!(toml::from_str::<Sampling>("").unwrap(), Sampling::default());
    assert!(toml::from_str::<Sampling>("step = 20").is_err());
    assert!(toml::from_str::<Sampling>("sampler = { kind = \"ddim\", eta = 0.0, gamma = 1.0 }").is_err());
    let solver = toml::from_str::<Sampling>("sampler = { kind = \"dpm_solver\" }").unwrap();
    assert_eq!(solver, Sampling { sampler: SamplerKind::DpmSolver {}, ..Sampling::default() });
    assert!(toml::from_str::<Sampling>("sampler = { kind = \"dpm_solver\", eta = 0.0 }").is_err());
}

/// alpha_bar(t) = 1 - t: sigma^2 is the time itself, so the time of any l = log(alpha / sigma) is known.
struct Straight;

impl Straight {
    fn time_of(l: f64) -> f64 {
        1.0 / (1.0 + (2.0 * l).exp())
    }
}

impl Schedule for Straight {
    fn log_alpha_bar(&self, t: f64) -> f64 {
        (-t).ln_1p()
    }
}

// ANCHOR: d2_probability_flow_keeps_the_marginals
// D2  With y = x / alpha and rho = sigma / alpha, points that move as dy/d rho = eps(y, rho), the exact prediction, have at
//     every rho the density p of the noised data: dp/d rho + d(p eps)/dy = 0, by central differences on a mixture.
#[test]
fn d2_probability_flow_keeps_the_marginals() {
    let model = Exact { data: two_lumps(), schedule: &Straight };
    let time = |rho: f64| rho * rho / (1.0 + rho * rho);
    // p(y) = alpha p(x), as an interval of y is alpha times as long in x
    let density = |y: f64, rho: f64| {
        let alpha = Straight.alpha(time(rho));
        alpha * model.data.noised(Straight.alpha(time(rho)), Straight.sigma(time(rho))).density(&[alpha * y])
    };
    let velocity = |y: f64, rho: f64| {
        let x = tensor([1, 1, 1, 1], &[Straight.alpha(time(rho)) * y]);
        model.predict(&x, &[time(rho)], &None).item()
    };
    let d = 1e-4;
    for rho in [0.2, 0.5, 1.0, 3.0] {
        for y in [-1.5, -0.6, 0.0, 0.4, 2.0] {
            let change = (density(y, rho + d) - density(y, rho - d)) / (2.0 * d);
            let flow = |y: f64| density(y, rho) * velocity(y, rho);
            let outflow = (flow(y + d) - flow(y - d)) / (2.0 * d);
            assert!(change.abs() > 1e-6, "a test of nothing: {change}");
            assert_close(change, -outflow, 2e-6);
        }
    }
}
// ANCHOR_END: d2_probability_flow_keeps_the_marginals

// ANCHOR: d2_one_step_draws_the_mean
// D2  One step from noise to image gives x_hat_0 at t = 1, the mean of the data given x_1: of data N(m, s^2) it has the
//     variance s^2 (alpha s)^2 / ((alpha s)^2 + sigma^2), almost nothing of s^2. All samplers agree on that step.
#[test]
fn d2_one_step_draws_the_mean() {
    let schedule = ScheduleConfig::Linear.build();
    let signal = (schedule.alpha(1.0) * STD).powi(2);
    let variance = STD * STD * signal / (signal + schedule.sigma(1.0).powi(2));
    assert!(variance < 1e-4 * STD * STD);
    let draw = |sampler| sample(&Mixture::gaussian(&[MEAN], STD), &schedule, 300, settings(1, sampler));
    let x = draw(SamplerKind::Ddim { eta: 0.0 });
    // the start is N(0, 1), not N(alpha m, ..): the mean is off by alpha m gain, below the standard error
    assert_mean_and_variance(&x, MEAN, variance);
    assert_all_close(&draw(SamplerKind::Ancestral { gamma: 1.0 }), &x, 1e-12);
    assert_all_close(&draw(SamplerKind::DpmSolver {}), &x, 1e-12);
}
// ANCHOR_END: d2_one_step_draws_the_mean

// ANCHOR: d3_solution_by_variation_of_constants
// D3  x_s / sigma_s = x_t / sigma_t + integral of e^l x_hat_0 dl from l_t to l_s, along the exact solution for N(m, s^2):
//     Simpson's rule with 400 intervals
#[test]
fn d3_solution_by_variation_of_constants() {
    let levels = |l: f64| (Straight.alpha(Straight::time_of(l)), Straight.sigma(Straight::time_of(l)));
    // the flow keeps (x - alpha m) / std of x
    let x = |l: f64| {
        let (alpha, sigma) = levels(l);
        alpha * MEAN + 1.7 * (alpha * STD).hypot(sigma)
    };
    let estimate = |l: f64| {
        let (alpha, sigma) = levels(l);
        MEAN + alpha * STD * STD / ((alpha * STD).powi(2) + sigma * sigma) * (x(l) - alpha * MEAN)
    };
    let (from, to, n) = (-3.0, 2.0, 400);
    let h = (to - from) / n as f64;
    let weight = |i: usize| if i == 0 || i == n { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
    let at = |i: usize| from + h * i as f64;
    let integral = (0..=n).map(|i| weight(i) * at(i).exp() * estimate(at(i))).sum::<f64>() * h / 3.0;
    assert_close(x(to) / levels(to).1, x(from) / levels(from).1 + integral, 1e-8);
}
// ANCHOR_END: d3_solution_by_variation_of_constants

/// A model whose x_hat_0 is l = log(alpha / sigma), whatever it sees: then every integral over e^l x_hat_0 is known.
struct Clock;

impl Denoiser for Clock {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, t: &[f64], _: &()) -> Tensor {
        x_t.affine(0.0, 0.5 * Straight.log_snr(t[0]))
    }
}

/// x at every one of the times that have these l, from x = 0 at the first, with [`Clock`].
fn run_clock(l: &[f64], sampler: SamplerKind) -> Vec<f64> {
    let times: Vec<f64> = l.iter().map(|&l| Straight::time_of(l)).chain([0.0]).collect();
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &[(1, 0)] };
    let settings = settings(l.len(), sampler);
    let sampler = Sampler { schedule: &Straight, denoiser: &Clock, target: Target::X0, condition: &(), settings };
    let mut seen = Vec::new();
    let mut see = |step: imagen::diffusion::Step| {
        seen.push(step.x_t.item());
        ControlFlow::Continue(())
    };
    sampler.sample_from(tensor([1, 1, 1, 1], &[0.0]), &times, &images, &mut see).unwrap();
    seen
}

// ANCHOR: d3_local_errors
// D3  What one step misses when x_hat_0 changes as l does: alpha_s h^2 / 2 with one estimate, alpha_s h^3 / 12 with two,
//     both up to a factor 1 + O(h)
#[test]
fn d3_local_errors() {
    for h in [0.1, 0.05, 0.025] {
        let l = [0.4 - h, 0.4, 0.4 + h];
        let x = run_clock(&l, SamplerKind::DpmSolver {});
        // sigma_s (x_t / sigma_t + [e^l (l - 1)] from l_t to l_s)
        let error = |k: usize| {
            let sigma = |k: usize| Straight.sigma(Straight::time_of(l[k]));
            let primitive = |k: usize| l[k].exp() * (l[k] - 1.0);
            sigma(k) * (x[k - 1] / sigma(k - 1) + primitive(k) - primitive(k - 1)) - x[k]
        };
        let alpha = |k: usize| Straight.alpha(Straight::time_of(l[k]));
        assert_close(error(1) / (alpha(1) * h * h / 2.0), 1.0, 0.2 * h);
        assert_close(error(2) / (alpha(2) * h.powi(3) / 12.0), 1.0, 0.3 * h);
    }
}
// ANCHOR_END: d3_local_errors

// ANCHOR: d3_is_ddim_with_an_extrapolated_image
// D3  a step is that of DDIM with D = (1 + 1/(2r)) x_hat_0 - 1/(2r) x_hat_0' in place of x_hat_0; the first step, with D =
//     x_hat_0, is that of DDIM
#[test]
fn d3_is_ddim_with_an_extrapolated_image() {
    let l = [-0.7, -0.2, 0.6];
    let x = run_clock(&l, SamplerKind::DpmSolver {});
    let ddim = |x: f64, image: f64, k: usize| {
        let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
        let levels = Levels::at(&Straight, &[Straight::time_of(l[k])], DType::F64);
        let eps = Target::X0.to_eps(&one(image), &one(x), &levels);
        ddim_step(&one(image), &eps, &Straight, Straight::time_of(l[k + 1]), 0.0).item()
    };
    assert_close(x[1], ddim(x[0], -0.7, 0), 1e-13);
    let r: f64 = 0.5 / 0.8;
    let image = (1.0 + 0.5 / r) * -0.2 - 0.5 / r * -0.7;
    assert_close(x[2], ddim(x[1], image, 1), 1e-13);
    assert_close(run_clock(&l, SamplerKind::Ddim { eta: 0.0 })[1], x[1], 1e-13);
}
// ANCHOR_END: d3_is_ddim_with_an_extrapolated_image

/// `n` times with equal steps of log_snr from t = 1 to `last`, then 0.
fn even_in_log_snr(schedule: &dyn Schedule, n: usize, last: f64) -> Vec<f64> {
    let (from, to) = (schedule.log_snr(1.0), schedule.log_snr(last));
    let time = |i: usize| {
        let wanted = from + (to - from) * i as f64 / (n - 1) as f64;
        let (mut low, mut high) = (last, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if schedule.log_snr(middle) > wanted { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    };
    let inner = (1..n - 1).map(time);
    [1.0].into_iter().chain(inner).chain([last, 0.0]).collect()
}

/// The largest distance between what `sampler` makes of five starts, with the exact model of N(MEAN, STD^2) and steps even in
/// log_snr, and the exact solution up to t = 0.01, followed by the same last step.
fn error_even_in_log_snr(schedule: &dyn Schedule, steps: usize, sampler: SamplerKind) -> f64 {
    let start = [-2.0, -0.5, 0.0, 1.0, 3.0];
    let seeds: Vec<(u64, u64)> = (0..5).map(|index| (12, index)).collect();
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &seeds };
    let model = Exact { data: Mixture::gaussian(&[MEAN], STD), schedule };
    let times = even_in_log_snr(schedule, steps, 0.01);
    let settings = settings(steps, sampler);
    let x = Sampler { schedule, denoiser: &model, target: Target::Eps, condition: &None, settings }
        .sample_from(tensor([5, 1, 1, 1], &start), &times, &images, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let spread = |t: f64| (schedule.alpha(t) * STD).hypot(schedule.sigma(t));
    let exact = start.map(|x| {
        let deviations = (x - schedule.alpha(1.0) * MEAN) / spread(1.0);
        MEAN + schedule.alpha(0.01) * STD * STD / spread(0.01) * deviations
    });
    x.to_f64().iter().zip(&exact).map(|(x, e)| (x - e).abs()).fold(0.0, f64::max)
}

// ANCHOR: d3_second_order
// D3  With steps even in lambda the error of DPM-Solver++(2M) falls fourfold when the steps double, that of DDIM twofold.
//     The data are N(m, s^2); the last step, from t = 0.01 to 0, is the same for all and for the exact solution.
#[test]
fn d3_second_order() {
    let samplers = [(SamplerKind::Ddim { eta: 0.0 }, 2.0), (SamplerKind::DpmSolver {}, 4.0)];
    for (config, time) in
        [ScheduleConfig::Linear, ScheduleConfig::Cosine].into_iter().flat_map(|c| TIMES.map(|t| (c, t)))
    {
        let schedule = config.in_time(time);
        for (sampler, factor) in samplers {
            let errors = [40, 80, 160, 320].map(|steps| error_even_in_log_snr(&*schedule, steps, sampler));
            for pair in errors.windows(2) {
                assert_close(pair[0] / pair[1], factor, 0.05);
            }
        }
    }
}
// ANCHOR_END: d3_second_order

// ANCHOR: d2_last_step_misses_a_little
// D2, D3  The last step returns x_hat_0 at its time t. Even on the exact solution m + c sqrt(s^2 + rho^2) for N(m, s^2) that
//         is not yet the image m + c s: it misses by c s (1 - s / sqrt(s^2 + rho_t^2)), with rho = sigma / alpha
#[test]
fn d2_last_step_misses_a_little() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: Mixture::gaussian(&[MEAN], STD), schedule: &schedule };
    let rho = |t: f64| (-0.5 * schedule.log_snr(t)).exp();
    let settings = settings(1000, SamplerKind::DpmSolver {});
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &[(1, 0)] };
    for last in [0.05, 0.02] {
        let times = even_in_log_snr(&schedule, 1000, last);
        let start = 1.3;
        let x = Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition: &None, settings }
            .sample_from(tensor([1, 1, 1, 1], &[start]), &times, &images, &mut |_| ControlFlow::Continue(()))
            .unwrap()
            .item();
        let c = (start / schedule.alpha(1.0) - MEAN) / STD.hypot(rho(1.0));
        let missed = c * STD * (1.0 - STD / STD.hypot(rho(last)));
        assert!(missed > 1e-3);
        assert_close(x, MEAN + c * STD - missed, 1e-5);
    }
}
// ANCHOR_END: d2_last_step_misses_a_little

// ANCHOR: d1_d2_d3_worked_example
// D1, D2, D3, D4  the numbers of the book's example: x_t = 0.5, alpha_t = 0.8, sigma_t = 0.6 and eps_hat = -0.3, on the way to
//                 alpha_s = 0.96 and sigma_s = 0.28
#[test]
fn d1_d2_d3_worked_example() {
    let (t, s) = (0.6 * 0.6, 0.28 * 0.28);
    let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
    let levels = Levels::at(&Straight, &[t], DType::F64);
    let (x_t, eps) = (one(0.5), one(-0.3));
    let x0 = Target::Eps.to_x0(&eps, &x_t, &levels);
    assert_close(x0.item(), 0.85, 1e-14);
    assert_close(Target::V.to_x0(&one(-0.75), &x_t, &levels).item(), 0.85, 1e-14);
    let posterior = Posterior::between(&Straight, s, t);
    assert_close(posterior.mean(&x0, &x_t).item(), 0.78333, 5e-6);
    assert_close(posterior.variance_between(0.0).sqrt(), 0.25796, 5e-6);
    assert_close(posterior.variance_between(1.0).sqrt(), 0.55277, 5e-6);
    assert_close(ddim_step(&x0, &eps, &Straight, s, 0.0).item(), 0.732, 1e-14);
    let image = one(1.5 * 0.85 - 0.5 * 0.65);
    let image_eps = Target::X0.to_eps(&image, &x_t, &levels);
    assert_close(ddim_step(&image, &image_eps, &Straight, s, 0.0).item(), 0.79067, 5e-6);
    // D4: clipped from 1.4 to 1, x_hat_0 asks for another eps_hat
    for (x0, eps) in [(1.4, -1.0333), (1.0, -0.5)] {
        assert_close(Target::X0.to_eps(&one(x0), &x_t, &levels).item(), eps, 5e-5);
    }
}
// ANCHOR_END: d1_d2_d3_worked_example

proptest! {
    // ANCHOR: d2_a_step_is_eulers_method
    // D2  a step with eta = 0, in y = x / alpha and rho = sigma / alpha, is y_s = y_t + (rho_s - rho_t) eps_hat: Euler's
    //     method for dy/d rho = eps, for any estimate
    #[test]
    fn d2_a_step_is_eulers_method(x_t in -3.0..3.0, eps in -3.0..3.0, t in 0.01..0.95, s in 0.0..0.95) {
        let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
        let x0 = Target::Eps.to_x0(&one(eps), &one(x_t), &Levels::at(&Straight, &[t], DType::F64));
        let x_s = ddim_step(&x0, &one(eps), &Straight, s, 0.0).item();
        let rho = |t: f64| Straight.sigma(t) / Straight.alpha(t);
        let euler = x_t / Straight.alpha(t) + (rho(s) - rho(t)) * eps;
        assert_close(x_s / Straight.alpha(s), euler, 1e-12);
    }
    // ANCHOR_END: d2_a_step_is_eulers_method

    // ANCHOR: d2_a_step_with_the_right_estimate_is_exact
    // D2  with an estimate that is right, x_hat_0 = x_0 and eps_hat = eps, a DDIM step lands on the same line:
    //     alpha_s x_0 + sigma_s eps, for any two times, forwards or backwards
    #[test]
    fn d2_a_step_with_the_right_estimate_is_exact(x0 in -1.0..1.0, eps in -3.0..3.0, s in 0.0..1.0) {
        let schedule = ScheduleConfig::Cosine.build();
        let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
        let x_s = ddim_step(&one(x0), &one(eps), &schedule, s, 0.0).item();
        assert_close(x_s, schedule.alpha(s) * x0 + schedule.sigma(s) * eps, 1e-14);
    }
    // ANCHOR_END: d2_a_step_with_the_right_estimate_is_exact
}

// ANCHOR: d1_start_is_standard_normal
// D1  x_T ~ N(0, I): the start of an image is standard normal
#[test]
fn d1_start_is_standard_normal() {
    let seeds: Vec<(u64, u64)> = (0..100).map(|index| (5, index)).collect();
    let images = Images { size: [1, 10, 10], dtype: DType::F64, seeds: &seeds };
    assert_mean_and_variance(&images.start().to_f64(), 0.0, 1.0);
    let product: Vec<f64> = (&images.start() * &images.noise(0)).to_f64();
    assert_expectation(&product, 0.0);
}
// ANCHOR_END: d1_start_is_standard_normal
