//! The mathematics of diffusion against numbers from independent implementations (diffusers, PyTorch):
//! `tests/fixtures/diffusion.safetensors`.

mod closed_form;

use closed_form::assert_all_close;
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::gaussian::kl;
use imagen::diffusion::{
    DiscreteSchedule, Exact, Images, Levels, Mixture, Posterior, Sampler, SamplerKind, Sampling, Schedule,
    ScheduleConfig, Target, Threshold, q_sample,
};
use safetensors::{Dtype, SafeTensors};
use std::ops::ControlFlow;

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn load() -> Golden {
        Golden {
            bytes: std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/diffusion.safetensors")).unwrap(),
        }
    }

    fn tensor(&self, name: &str) -> Tensor {
        let all = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = all.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let words = view.data().chunks_exact(8).map(|b| b.try_into().unwrap());
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => words.map(f64::from_le_bytes).collect(),
            Dtype::I64 => words.map(|b| i64::from_le_bytes(b) as f64).collect(),
            other => panic!("{name} has dtype {other:?}"),
        };
        Tensor::from_f64(view.shape(), &values, DType::F64)
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.tensor(name).to_f64()
    }
}

/// The schedules by their names in the fixture.
const SCHEDULES: [(&str, ScheduleConfig); 2] =
    [("linear", ScheduleConfig::Linear), ("squaredcos_cap_v2", ScheduleConfig::Cosine)];

/// f at x_1 .. x_T.
fn at_every_step(schedule: &DiscreteSchedule, f: impl Fn(usize) -> f64) -> Vec<f64> {
    (1..=schedule.steps()).map(f).collect()
}

// ANCHOR: a4_schedules
// A4  betas, alpha_bar and lambda of both schedules, 1000 steps
#[test]
fn a4_schedules() {
    let golden = Golden::load();
    for (name, config) in SCHEDULES {
        let schedule = config.build();
        assert_all_close(schedule.betas(), &golden.values(&format!("{name}.betas")), 1e-12);
        assert_all_close(&schedule.alpha_bars()[1..], &golden.values(&format!("{name}.alphas_cumprod")), 1e-12);
        let log_snr = at_every_step(&schedule, |i| schedule.log_snr(schedule.time(i)));
        assert_all_close(&log_snr, &golden.values(&format!("{name}.log_snr")), 1e-10);
    }
}
// ANCHOR_END: a4_schedules

// ANCHOR: b2_posterior
// B2  beta_tilde and the two coefficients of mu_tilde, in the discrete and in the continuous form
#[test]
fn b2_posterior() {
    let golden = Golden::load();
    for (name, config) in SCHEDULES {
        let schedule = config.build();
        let discrete = |i: usize| Posterior::of_step(&schedule, i);
        let continuous = |i: usize| Posterior::between(&schedule, schedule.time(i - 1), schedule.time(i));
        for form in [&discrete as &dyn Fn(usize) -> Posterior, &continuous] {
            let check = |what: &str, f: fn(Posterior) -> f64| {
                let ours = at_every_step(&schedule, |i| f(form(i)));
                assert_all_close(&ours, &golden.values(&format!("{name}.{what}")), 1e-11);
            };
            check("posterior_variance", |q| q.variance);
            check("posterior_mean_coef_x0", |q| q.coef_x0);
            check("posterior_mean_coef_xt", |q| q.coef_xt);
        }
    }
}
// ANCHOR_END: b2_posterior

// ANCHOR: a2_b2_c5_batches
// A2, B2, C5  x_t, mu_tilde and v of a small batch
#[test]
fn a2_b2_c5_batches() {
    let golden = Golden::load();
    let (x0, eps) = (golden.tensor("x0"), golden.tensor("eps"));
    for (name, config) in SCHEDULES {
        let schedule = config.build();
        for index in [0, 1, 10, 500, 999] {
            let i = index + 1;
            let levels = Levels::at(&schedule, &[schedule.time(i); 3], DType::F64);
            let x_t = q_sample(&x0, &eps, &levels);
            let v = Target::V.of(&x0, &eps, &levels);
            let mean = Posterior::of_step(&schedule, i).mean(&x0, &x_t);
            for (what, ours) in [("x_t", x_t), ("v_target", v), ("posterior_mean", mean)] {
                assert_all_close(&ours.to_f64(), &golden.values(&format!("{name}.t{index}.{what}")), 1e-11);
            }
        }
    }
}
// ANCHOR_END: a2_b2_c5_batches

// ANCHOR: c2_divergence
// C2  KL of Gaussians
#[test]
fn c2_divergence() {
    let golden = Golden::load();
    let [m1, v1, m2, v2] = ["mean1", "logvar1", "mean2", "logvar2"].map(|part| golden.values(&format!("kl.{part}")));
    let ours: Vec<f64> = (0..m1.len()).map(|k| kl(m1[k], v1[k], m2[k], v2[k])).collect();
    assert_all_close(&ours, &golden.values("kl.out"), 1e-12);
}
// ANCHOR_END: c2_divergence

/// Whole runs of a sampler on N(0.3, 0.5^2), against those named so in the fixture.
fn assert_golden_runs(name: &str, sampler: SamplerKind, tolerance: f64) {
    let golden = Golden::load();
    let schedule = ScheduleConfig::Linear.build();
    let model = Exact { data: Mixture::gaussian(&[0.3], 0.5), schedule: &schedule };
    for steps in [10, 50] {
        let timesteps = golden.values(&format!("sampler.{name}_{steps}.timesteps"));
        // index i of the reference's arrays is x_{i+1}; after the last step alpha_bar is 1
        let times: Vec<f64> = timesteps.iter().map(|index| (index + 1.0) / 1000.0).chain([0.0]).collect();
        let settings = Sampling { steps, sampler, threshold: Threshold::None };
        let images = Images { size: [1, 3, 3], dtype: DType::F64, seeds: &[(0, 0), (0, 1)] };
        let sampler =
            Sampler { schedule: &schedule, denoiser: &model, target: Target::Eps, condition: &None, settings };
        let start = golden.tensor("sampler.start_noise");
        let x = sampler.sample_from(start, &times, &images, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_all_close(&x.to_f64(), &golden.values(&format!("sampler.{name}_{steps}.out")), tolerance);
    }
}

// ANCHOR: d2_ddim_runs
// D2  whole DDIM runs (eta = 0) of 10 and 50 steps, against diffusers
#[test]
fn d2_ddim_runs() {
    assert_golden_runs("ddim_eta0", SamplerKind::Ddim { eta: 0.0 }, 1e-13);
}
// ANCHOR_END: d2_ddim_runs

// ANCHOR: d3_dpm_solver_runs
// D3  whole runs of DPM-Solver++(2M) of 10 and 50 steps, against diffusers (midpoint form, last step of first order), which holds
//     its schedule in f32
#[test]
fn d3_dpm_solver_runs() {
    assert_golden_runs("dpmpp_2m", SamplerKind::DpmSolver {}, 1e-6);
}
// ANCHOR_END: d3_dpm_solver_runs

// ANCHOR: e3_thresholds
// E3  static and dynamic thresholding at three percentiles, with s
#[test]
fn e3_thresholds() {
    let golden = Golden::load();
    let x = golden.tensor("threshold.in");
    let (clipped, _) = Threshold::Static.apply(&x);
    assert_eq!(clipped.to_f64(), golden.values("threshold.static"));
    for share in [0.8, 0.95, 0.995] {
        let (result, s) = Threshold::dynamic(100.0 * share).apply(&x);
        assert_all_close(&s, &golden.values(&format!("threshold.s_{share}")), 1e-12);
        assert_all_close(&result.to_f64(), &golden.values(&format!("threshold.dynamic_{share}")), 1e-12);
    }
}
// ANCHOR_END: e3_thresholds
