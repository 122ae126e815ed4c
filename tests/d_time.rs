//! A3, A4, D. Time as the steps of a chain, and time that is continuous: the same schedule, the same samplers.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_mean_and_variance};
use imagen::array::DType;
use imagen::diffusion::{
    Chain, ContinuousSchedule, DiscreteSchedule, Exact, Images, Mixture, Posterior, SampleError, Sampler, SamplerKind,
    Sampling, Schedule, ScheduleConfig, Target, Threshold, TimeConfig, Transition,
};
use proptest::prelude::*;
use std::ops::ControlFlow;

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;

const BOTH: [ScheduleConfig; 2] = [ScheduleConfig::Linear, ScheduleConfig::Cosine];
const TIMES: [TimeConfig; 3] = [TimeConfig::Interpolated, TimeConfig::Discrete, TimeConfig::Continuous];

// ANCHOR: a4_the_cosine_chain_is_the_cosine
// A4  the chain of 1000 steps and the formula are the same cosine at every t = i / 1000, the last included: there the chain keeps a
//     thousandth of the variance, since the formula would keep nothing
#[test]
fn a4_the_cosine_chain_is_the_cosine() {
    let (chain, formula) = (DiscreteSchedule::cosine(1000), ContinuousSchedule::Cosine);
    for i in 0..=1000 {
        let t = chain.time(i);
        assert_close(formula.log_alpha_bar(t), chain.log_alpha_bar(t), 1e-9);
        assert_close(formula.alpha_bar(t), chain.alpha_bars()[i], 1e-12);
    }
    // 1 - alpha_bar keeps its digits near t = 0: the slope of log cos^2 at the angle of t = 0 is -2 tan
    let angle = 0.008 / 1.008 * std::f64::consts::FRAC_PI_2;
    let slope = 2.0 * angle.tan() * std::f64::consts::FRAC_PI_2 / 1.008;
    assert_close(formula.sigma(1e-9).powi(2) / (1e-9 * slope), 1.0, 1e-6);
}
// ANCHOR_END: a4_the_cosine_chain_is_the_cosine

// ANCHOR: a4_the_linear_chain_comes_to_the_formula
// A4  the linear chain has beta(t) = 0.1 + 19.9 t as its limit: the two differ, in log alpha_bar, by an error that halves when the
//     steps double
#[test]
fn a4_the_linear_chain_comes_to_the_formula() {
    let formula = ContinuousSchedule::Linear;
    let error = |steps: usize| {
        let chain = DiscreteSchedule::linear(steps);
        let apart = |i: usize| (chain.log_alpha_bar(chain.time(i)) - formula.log_alpha_bar(chain.time(i))).abs();
        (0..=steps).map(apart).fold(0.0, f64::max)
    };
    let errors = [1000, 2000, 4000].map(error);
    assert!(errors[0] < 0.08, "{errors:?}");
    for pair in errors.windows(2) {
        assert_close(pair[0] / pair[1], 2.0, 0.01);
    }
    // log alpha_bar(1) = -(0.1 + 20) / 2
    assert_close(formula.log_alpha_bar(1.0), -10.05, 1e-14);
}
// ANCHOR_END: a4_the_linear_chain_comes_to_the_formula

// ANCHOR: a3_every_schedule_has_a_chain
// A1, A3, B2  whatever the schedule, the chain that is cut from it is the schedule at t = i / T, and the transition and the posterior
//             of its steps are those of continuous time
#[test]
fn a3_every_schedule_has_a_chain() {
    for formula in [ContinuousSchedule::Linear, ContinuousSchedule::Cosine] {
        for steps in [1, 7, 100, 1000] {
            let chain = DiscreteSchedule::of(&formula, steps);
            assert_eq!(chain.steps(), steps);
            for i in 1..=steps {
                let (s, t) = (chain.time(i - 1), chain.time(i));
                assert_close(chain.alpha_bars()[i], formula.alpha_bar(t), 1e-12);
                let step = Transition::between(&formula, s, t);
                assert_close(step.variance, chain.betas()[i - 1], 1e-11);
                let (discrete, continuous) = (Posterior::of_step(&chain, i), Posterior::between(&formula, s, t));
                assert_close(continuous.coef_x0, discrete.coef_x0, 1e-10);
                assert_close(continuous.coef_xt, discrete.coef_xt, 1e-10);
                assert_close(continuous.variance, discrete.variance, 1e-11);
            }
        }
    }
}
// ANCHOR_END: a3_every_schedule_has_a_chain

proptest! {
    // A3, A4  both formulas are schedules: alpha_bar is 1 at first, falls strictly, and never reaches 0
    #[test]
    fn a4_formulas_are_schedules(a in 0.0..1.0, b in 0.0..1.0) {
        prop_assume!(f64::abs(a - b) > 1e-9);
        let (s, t) = (f64::min(a, b), f64::max(a, b));
        for formula in [ContinuousSchedule::Linear, ContinuousSchedule::Cosine] {
            prop_assert!(formula.log_alpha_bar(t) < formula.log_alpha_bar(s));
            prop_assert!(formula.log_snr(t) < formula.log_snr(s));
            prop_assert!(formula.log_alpha_bar(t).is_finite());
            assert_close(formula.alpha(t).powi(2) + formula.sigma(t).powi(2), 1.0, 1e-14);
        }
    }

    // The grid: a time is one of i / T, the next not before t; times that are on it stay, whatever rounding did to them
    #[test]
    fn times_are_rounded_up_to_the_chain(t in 0.0..1.0, steps in 1_usize..3000, part in 1_usize..50) {
        let chain = Chain(DiscreteSchedule::linear(steps));
        let on_grid = chain.on_grid(t);
        prop_assert!(on_grid <= 1.0 && t - 1e-9 <= on_grid && on_grid - t < 1.0 / steps as f64 + 1e-9);
        let i = on_grid * steps as f64;
        prop_assert!((i - i.round()).abs() < 1e-9);
        prop_assert_eq!(chain.on_grid(on_grid), on_grid);
        let exact = part.min(steps) as f64 / steps as f64;
        prop_assert_eq!(chain.on_grid(exact * (1.0 + 1e-15)), exact);
        prop_assert_eq!((chain.on_grid(0.0), chain.on_grid(1.0)), (0.0, 1.0));
        prop_assert_eq!(ContinuousSchedule::Cosine.on_grid(t), t);
    }
}

// At t = 0 the image is whole, and at t = 1 next to nothing of it is left, to say it: 4e-5 and 2e-9 of the variance.
#[test]
fn a4_formulas_begin_and_end_as_they_should() {
    for (formula, end) in [(ContinuousSchedule::Linear, (-10.05_f64).exp()), (ContinuousSchedule::Cosine, 2.4e-9)] {
        assert_eq!((formula.alpha_bar(0.0), formula.sigma(0.0), formula.log_snr(0.0)), (1.0, 0.0, f64::INFINITY));
        assert!((formula.alpha_bar(1.0) / end - 1.0).abs() < 0.02, "{}", formula.alpha_bar(1.0));
        assert!(formula.alpha_bar(1.0) < 1e-4);
    }
}

fn settings(steps: usize, sampler: SamplerKind) -> Sampling {
    Sampling { steps, sampler, threshold: Threshold::None }
}

/// `n` numbers from the exact model of N(MEAN, STD^2), in images of four, and the times that were asked for.
fn sample(schedule: &dyn Schedule, n: u64, settings: Sampling) -> (Vec<f64>, Vec<f64>) {
    let seeds: Vec<(u64, u64)> = (0..n / 4).map(|index| (41, index)).collect();
    let images = Images { size: [1, 2, 2], dtype: DType::F64, seeds: &seeds };
    let model = Exact { data: Mixture::gaussian(&[MEAN], STD), schedule };
    let mut times = Vec::new();
    let x = Sampler { schedule, denoiser: &model, target: Target::Eps, condition: &None, settings }
        .sample(&images, &mut |step| {
            times.push(step.t);
            ControlFlow::Continue(())
        })
        .unwrap();
    (x.to_f64(), times)
}

/// Mean and variance of what a sampler draws of N(MEAN, STD^2) along `times`, in closed form: every step is affine in x_t and, for
/// DPM-Solver++, in the x of the step before, so the coefficients of all noises are followed.
fn moments(schedule: &dyn Schedule, times: &[f64], sampler: SamplerKind) -> (f64, f64) {
    // x = mean + sum of parts, one for the start and one for the noise of each step
    let (mut mean, mut parts) = (0.0, vec![1.0]);
    let mut before: Option<(f64, Vec<f64>, f64)> = None;
    for pair in times.windows(2) {
        let (t, s) = (pair[0], pair[1]);
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let gain = alpha * STD * STD / ((alpha * STD).powi(2) + sigma * sigma);
        let x0_mean = MEAN + gain * (mean - alpha * MEAN);
        let x0_parts: Vec<f64> = parts.iter().map(|p| gain * p).collect();
        let q = Posterior::between(schedule, s, t);
        let affine = |a: f64, b: f64| {
            let parts = x0_parts.iter().zip(&parts).map(|(x0, x)| a * x0 + b * x).collect::<Vec<f64>>();
            (a * x0_mean + b * mean, parts)
        };
        let mut added = 0.0;
        (mean, parts) = match sampler {
            SamplerKind::Ancestral { gamma } => {
                added = q.variance_between(gamma).sqrt();
                affine(q.coef_x0, q.coef_xt)
            }
            SamplerKind::Ddim { eta } => {
                added = eta * q.variance.sqrt();
                let towards = (schedule.sigma(s).powi(2) - added * added).max(0.0).sqrt() / sigma;
                affine(schedule.alpha(s) - towards * alpha, towards)
            }
            SamplerKind::DpmSolver {} => {
                let l = |t: f64| 0.5 * schedule.log_snr(t);
                let h = l(s) - l(t);
                let factor = -schedule.alpha(s) * (-h).exp_m1();
                let ratio =
                    if s > 0.0 { before.as_ref().map_or(0.0, |(_, _, h_before)| 0.5 * h / h_before) } else { 0.0 };
                let (mut mean, mut parts) = affine(factor * (1.0 + ratio), schedule.sigma(s) / sigma);
                if let Some((x0, x0_parts, _)) = before.as_ref().filter(|_| ratio > 0.0) {
                    mean -= factor * ratio * x0;
                    parts.iter_mut().zip(x0_parts).for_each(|(p, x0)| *p -= factor * ratio * x0);
                }
                before = Some((x0_mean, x0_parts.clone(), h));
                (mean, parts)
            }
            SamplerKind::AncestralLearned {} => unreachable!("the exact model says no variance"),
        };
        if s > 0.0 && added > 0.0 {
            parts.push(added);
        }
    }
    (mean, parts.iter().map(|p| p * p).sum())
}

const SAMPLERS: [SamplerKind; 6] = [
    SamplerKind::Ancestral { gamma: 0.0 },
    SamplerKind::Ancestral { gamma: 0.4 },
    SamplerKind::Ancestral { gamma: 1.0 },
    SamplerKind::Ddim { eta: 0.0 },
    SamplerKind::Ddim { eta: 0.6 },
    SamplerKind::DpmSolver {},
];

// ANCHOR: d_samplers_on_discrete_and_continuous_schedules
// D1, D2, D3  on every schedule, in discrete and in continuous time, every sampler draws what its steps say of N(m, s^2), in closed
//             form: 3200 numbers have that mean and variance within 5 standard errors
#[test]
fn d_samplers_on_discrete_and_continuous_schedules() {
    for config in BOTH {
        for time in TIMES {
            let schedule = config.in_time(time);
            for sampler in SAMPLERS {
                let (x, mut times) = sample(&*schedule, 3200, settings(30, sampler));
                times.push(0.0);
                let (mean, variance) = moments(&*schedule, &times, sampler);
                assert_mean_and_variance(&x, mean, variance);
            }
        }
    }
}
// ANCHOR_END: d_samplers_on_discrete_and_continuous_schedules

// ANCHOR: d_they_come_to_the_data_in_their_order
// D1, D2, D3  and those are the mean and the variance of the data, up to an error that halves when the steps double. That of
//             DPM-Solver++ is below a thousandth; its order is seen with steps even in lambda (d3_second_order).
#[test]
fn d_they_come_to_the_data_in_their_order() {
    for config in BOTH {
        for time in TIMES {
            let schedule = config.in_time(time);
            for sampler in SAMPLERS {
                let error = |steps: usize| {
                    let (mean, variance) = moments(&*schedule, &settings(steps, sampler).times(), sampler);
                    [(mean - MEAN).abs(), (variance - STD * STD).abs()]
                };
                let [coarse, fine] = [250, 500].map(error);
                let said = format!("{config:?} {time:?} {sampler:?}: {coarse:?} {fine:?}");
                match sampler {
                    SamplerKind::DpmSolver {} => assert!(coarse.iter().chain(&fine).all(|&e| e < 1e-3), "{said}"),
                    _ => assert!(
                        fine[0] < 1e-3 && fine[1] < 1e-2 && (0.4..0.6).contains(&(fine[1] / coarse[1])),
                        "{said}"
                    ),
                }
            }
        }
    }
}
// ANCHOR_END: d_they_come_to_the_data_in_their_order

// ANCHOR: d_the_chain_is_continuous_time_on_its_grid
// D  the discrete chain is the grid t = i / T of continuous time: same noise, same images. The chain that is cut from the formula gives
//    what the formula gives, with every sampler and any number of steps that divides T.
#[test]
fn d_the_chain_is_continuous_time_on_its_grid() {
    for config in BOTH {
        let formula = config.in_time(TimeConfig::Continuous);
        let chain = Chain(config.chain(TimeConfig::Continuous));
        for sampler in SAMPLERS {
            for steps in [1000, 40] {
                let ((a, times), (b, same)) =
                    (sample(&*formula, 8, settings(steps, sampler)), sample(&chain, 8, settings(steps, sampler)));
                assert_all_close(&same, &times, 1e-12);
                assert_all_close(&a, &b, 1e-7);
            }
        }
    }
}
// ANCHOR_END: d_the_chain_is_continuous_time_on_its_grid

// In discrete time a sampler asks at times of the chain alone, also where the number of its steps does not divide T; more steps than
// the chain has are an error.
#[test]
fn d_a_chain_is_asked_at_its_own_times() {
    let schedule = Chain(DiscreteSchedule::cosine(100));
    for steps in [1, 7, 30, 99, 100] {
        let (_, times) = sample(&schedule, 4, settings(steps, SamplerKind::Ddim { eta: 0.0 }));
        assert_eq!(times.len(), steps);
        assert!(times.iter().all(|t| (t * 100.0 - (t * 100.0).round()).abs() < 1e-9), "{times:?}");
        assert!(times[0] == 1.0 && times.is_sorted_by(|a, b| a > b));
    }
    let images = Images { size: [1, 1, 1], dtype: DType::F64, seeds: &[(1, 0)] };
    let model = Exact { data: Mixture::gaussian(&[MEAN], STD), schedule: &schedule };
    let settings = settings(101, SamplerKind::DpmSolver {});
    let sampler = Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition: &None, settings };
    let error = sampler.sample(&images, &mut |_| ControlFlow::Continue(())).err().unwrap();
    assert!(matches!(error, SampleError::Setting { name: "steps", .. }));
    assert!(error.to_string().contains("steps = 101") && error.to_string().contains("chain"), "{error}");
    // an edit that begins in between begins at the next step of the chain
    assert_eq!(sampler.times_from(0.123)[0], 0.13);
}

// Every sampler shows x_t, x_hat_0 and s on every schedule, and stops when it is told to.
#[test]
fn d_every_sampler_shows_its_steps_and_can_be_stopped() {
    let images = Images { size: [1, 4, 4], dtype: DType::F64, seeds: &[(6, 0), (6, 1)] };
    for time in TIMES {
        let schedule = ScheduleConfig::Cosine.in_time(time);
        // data far beyond the range of images, so that the threshold has work to do
        let model = Exact { data: Mixture::gaussian(&[0.0], 3.0), schedule: &*schedule };
        for sampler in SAMPLERS {
            let settings = Sampling { steps: 8, sampler, threshold: Threshold::dynamic(90.0) };
            let sampler =
                Sampler { schedule: &*schedule, denoiser: &model, target: Target::Eps, condition: &None, settings };
            let mut most: f64 = 1.0;
            let result = sampler.sample(&images, &mut |step| {
                assert!(step.threshold.len() == 2 && step.threshold.iter().all(|&s| s >= 1.0));
                assert!(step.x0_hat.to_f64().iter().all(|x| x.abs() <= 1.0));
                assert_eq!(step.x_t.shape(), step.x0_hat.shape());
                most = step.threshold.iter().copied().fold(most, f64::max);
                if step.index == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(result.err(), Some(SampleError::Cancelled { index: 6, of: 8 }));
            assert!(most > 1.0, "{:?}: s was never above 1", settings.sampler);
        }
    }
}
