//! D. Samplers, on models that are known exactly.

mod closed_form;

use closed_form::{
    Exact, Mixture, assert_all_close, assert_close, assert_expectation, assert_mean_and_variance, tensor,
};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::sampler::ddim_step;
use imagen::diffusion::{
    Denoiser, Images, Levels, Posterior, SampleError, Sampler, SamplerKind, Sampling, Schedule, ScheduleConfig, Target,
    Threshold,
};
use proptest::prelude::*;
use std::ops::ControlFlow;

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;

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
    let seeds: Vec<(u64, u64)> = (0..x.len() as u64).map(|index| (12, index)).collect();
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &seeds };
    let model = Exact { data: Mixture::gaussian(MEAN, STD), schedule };
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

// D1  x_s = mu_tilde(x_t, x_hat_0) + sqrt(beta_tilde^(1-gamma) beta^gamma) z
// Drawn with the exact model of Gaussian data: 19 200 numbers have the mean and variance that the steps' closed form
// has, within 5 standard errors.
#[test]
fn d1_ancestral_draws_what_its_steps_say() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        for gamma in [0.0, 0.3, 1.0] {
            let x =
                sample(&Mixture::gaussian(MEAN, STD), &schedule, 300, settings(40, SamplerKind::Ancestral { gamma }));
            let (mean, variance) = ancestral_moments(&schedule, 40, gamma);
            assert_mean_and_variance(&x, mean, variance);
        }
    }
}

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

/// Two lumps, of which the narrow one has 30 %.
fn two_lumps() -> Mixture {
    Mixture { components: vec![(0.3, -0.7, 0.1), (0.7, 0.5, 0.2)] }
}

// D1, D2  on a mixture of two Gaussians both samplers reproduce how the data is shared out, and its mean and variance:
//         within 5 standard errors of 12 800 numbers, plus what 200 steps are off (0.01)
#[test]
fn d1_d2_reproduce_a_mixture() {
    let (data, schedule) = (two_lumps(), ScheduleConfig::Cosine.build());
    for sampler in
        [SamplerKind::Ancestral { gamma: 0.0 }, SamplerKind::Ddim { eta: 0.0 }, SamplerKind::Ddim { eta: 0.5 }]
    {
        let x = sample(&data, &schedule, 200, settings(200, sampler));
        let within = |samples: Vec<f64>, expected: f64| {
            let (mean, error) = closed_form::mean_and_error(&samples);
            assert!((mean - expected).abs() < 5.0 * error + 0.01, "{sampler:?}: {mean} +- {error}, not {expected}");
        };
        // the lumps do not overlap around -0.2: 5 deviations from one, 3.5 from the other
        within(x.iter().map(|&x| f64::from(u8::from(x < -0.2))).collect(), 0.3);
        within(x.clone(), data.mean());
        within(x.iter().map(|x| (x - data.mean()).powi(2)).collect(), data.variance());
    }
}

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
    }
}

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

// D4  x_hat_0 is thresholded, and eps_hat is what then makes up x_t: eps_hat = (x_t - alpha_t x_hat_0) / sigma_t.
// The model says 3; clipped to 1, DDIM goes from x_t to alpha_s 1 + sigma_s (x_t - alpha_t 1) / sigma_t.
#[test]
fn d4_threshold_acts_on_the_image_and_eps_follows() {
    let schedule = ScheduleConfig::Cosine.build();
    for (threshold, s) in [(Threshold::Static, 1.0), (Threshold::Dynamic { percentile: 99.5 }, 3.0)] {
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

// D4  at s = 0 every sampler returns x_hat_0 itself, without noise
#[test]
fn d4_last_step_returns_the_estimate() {
    for sampler in [
        SamplerKind::Ancestral { gamma: 0.0 },
        SamplerKind::Ancestral { gamma: 1.0 },
        SamplerKind::Ddim { eta: 0.0 },
        SamplerKind::Ddim { eta: 1.0 },
    ] {
        for steps in [1, 3] {
            let (result, _) = sample_stubborn(0.25, settings(steps, sampler));
            assert_all_close(&result.unwrap().to_f64(), &[0.25, 0.25], 1e-14);
        }
    }
}

// E3  NaN in gives an error naming the step
#[test]
fn d4_nan_is_an_error_that_names_the_step() {
    let (result, seen) = sample_stubborn(f64::NAN, settings(5, SamplerKind::Ddim { eta: 0.0 }));
    let error = result.err().unwrap();
    assert_eq!(error, SampleError::NotFinite { index: 0, of: 5, t: 1.0 });
    assert!(error.to_string().contains("step 1 of 5 (t = 1.0000)"), "{error}");
    assert!(seen.is_empty());
}

// An image depends on its own seed and index alone: in any batch, in any order, it is the same to the last bit.
#[test]
fn an_image_does_not_depend_on_its_batch() {
    let schedule = ScheduleConfig::Cosine.build();
    let model = Exact { data: two_lumps(), schedule: &schedule };
    for sampler in [SamplerKind::Ancestral { gamma: 0.5 }, SamplerKind::Ddim { eta: 0.7 }] {
        let draw = |seeds: &[(u64, u64)]| {
            let images = Images { size: [2, 3, 3], dtype: DType::F32, seeds };
            let settings = Sampling { steps: 7, sampler, threshold: Threshold::Dynamic { percentile: 95.0 } };
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
        (Sampling { sampler: SamplerKind::Ddim { eta: 1.5 }, ..good }, "eta = 1.5"),
        (Sampling { sampler: SamplerKind::Ancestral { gamma: f64::NAN }, ..good }, "gamma = NaN"),
        (Sampling { threshold: Threshold::Dynamic { percentile: 0.0 }, ..good }, "percentile = 0"),
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
    let expected = Sampling {
        steps: 20,
        sampler: SamplerKind::Ancestral { gamma: 0.3 },
        threshold: Threshold::Dynamic { percentile: 99.5 },
    };
    assert_eq!(read, expected);
    assert_eq!(toml::from_str::<Sampling>(&toml::to_string(&read).unwrap()).unwrap(), expected);
    assert_eq!(toml::from_str::<Sampling>("").unwrap(), Sampling::default());
    assert!(toml::from_str::<Sampling>("step = 20").is_err());
    assert!(toml::from_str::<Sampling>("sampler = { kind = \"ddim\", eta = 0.0, gamma = 1.0 }").is_err());
}

proptest! {
    // D2  with an estimate that is right, x_hat_0 = x_0 and eps_hat = eps, a DDIM step lands on the same line:
    //     alpha_s x_0 + sigma_s eps, for any two times, forwards or backwards
    #[test]
    fn d2_a_step_with_the_right_estimate_is_exact(x0 in -1.0..1.0, eps in -3.0..3.0, s in 0.0..1.0) {
        let schedule = ScheduleConfig::Cosine.build();
        let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
        let x_s = ddim_step(&one(x0), &one(eps), &schedule, s, 0.0).item();
        assert_close(x_s, schedule.alpha(s) * x0 + schedule.sigma(s) * eps, 1e-14);
    }
}

// D1  x_T ~ N(0, I): the start of an image is standard normal
#[test]
fn d1_start_is_standard_normal() {
    let seeds: Vec<(u64, u64)> = (0..100).map(|index| (5, index)).collect();
    let images = Images { size: [1, 10, 10], dtype: DType::F64, seeds: &seeds };
    assert_mean_and_variance(&images.start().to_f64(), 0.0, 1.0);
    let product: Vec<f64> = (&images.start() * &images.noise(0)).to_f64();
    assert_expectation(&product, 0.0);
}
