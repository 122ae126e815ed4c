//! H. Optimisation: optimizers, clipping, learning-rate schedules and averaged weights.

use imagen::array::{Array, DType};
use imagen::autograd::Gradients;
use imagen::nn::{Fill, Init, Parameters, Weights};
use imagen::optim::{Adam, Ema, LearningRate, Optimizer, OptimizerConfig, OptimizerError, Sgd, clip, global_norm};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;

/// Ten steps of PyTorch 2.15 and optax 0.2.8 on given gradients.
static GOLDEN: LazyLock<Weights> = LazyLock::new(|| {
    Weights::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/optim.safetensors")).unwrap()
});

const NAMES: [&str; 3] = ["conv", "matrix", "vector"];

/// The parameters of the golden numbers: conv [4, 3, 3, 3], matrix [6, 5], vector [7].
fn start(dtype: DType) -> Parameters {
    let init = Init::new(1, dtype);
    for name in NAMES {
        let value = &GOLDEN.tensors[&format!("start.{name}")];
        init.param(name, value.shape(), Fill::Zeros).update(|p| *p = value.cast(dtype));
    }
    init.parameters()
}

/// One parameter "p" of these values.
fn parameter(values: &[f64]) -> Parameters {
    let init = Init::new(1, DType::F64);
    init.param("p", [values.len()], Fill::Zeros).update(|p| *p = Array::from_vec([values.len()], values.to_vec()));
    init.parameters()
}

/// The golden gradients of step `i`, from 0.
fn golden_gradients(parameters: &Parameters, i: usize) -> Gradients {
    gradients(parameters, |name| GOLDEN.tensors[&format!("grads.{name}")].to_f64(), i)
}

/// Gradients of all parameters: part `i` of what `values` gives by name.
fn gradients(parameters: &Parameters, values: impl Fn(&str) -> Vec<f64>, i: usize) -> Gradients {
    let mut gradients = Gradients::default();
    for param in parameters.iter() {
        let (leaf, n) = (param.tensor(), param.tensor().numel());
        let part = &values(param.name())[i * n..(i + 1) * n];
        gradients.insert(&leaf, Array::from_f64(leaf.shape(), part, leaf.dtype()));
    }
    gradients
}

fn value(parameters: &Parameters, name: &str) -> Vec<f64> {
    parameters.values()[name].to_f64()
}

#[track_caller]
fn assert_all_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{i}: found {found}, expected {expected}");
    }
}

fn assert_bit_equal(found: &BTreeMap<String, Array>, expected: &BTreeMap<String, Array>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, array) in found {
        assert!(array.bit_eq(&expected[name]), "{name}: {array:?} is not {:?}", expected[name]);
    }
}

fn config(toml: &str) -> OptimizerConfig {
    toml::from_str(toml).unwrap()
}

fn optimizer(toml: &str) -> Box<dyn Optimizer> {
    config(toml).build().unwrap()
}

const SGD: &str = "kind = 'sgd'\nmomentum = 0.9";
const ADAM: &str = "kind = 'adam'";
const ADAMW: &str = "kind = 'adamw'\nbetas = [0.9, 0.99]\nweight_decay = 0.1";
const ADAFACTOR: &str = "kind = 'adafactor'\nmin_dim_size_to_factor = 4";
const ALL: [&str; 4] = [SGD, ADAM, ADAMW, ADAFACTOR];

/// The golden parameters after ten steps with learning rate 0.01.
fn ten_steps(toml: &str) -> Parameters {
    let (parameters, mut optimizer) = (start(DType::F64), optimizer(toml));
    for i in 0..10 {
        optimizer.step(&parameters, &golden_gradients(&parameters, i), 0.01);
    }
    assert_eq!(optimizer.steps(), 10);
    parameters
}

fn assert_golden(toml: &str, golden: &str, tolerance: f64) {
    let parameters = ten_steps(toml);
    for name in NAMES {
        assert_all_close(&value(&parameters, name), &GOLDEN.tensors[&format!("{golden}.{name}")].to_f64(), tolerance);
    }
}

// ANCHOR: h1_sgd_with_momentum_is_pytorchs
// H1  v = mu v + g,   p = p - lr v
#[test]
fn h1_sgd_with_momentum_is_pytorchs() {
    assert_golden(SGD, "sgd_momentum", 1e-9);
}
// ANCHOR_END: h1_sgd_with_momentum_is_pytorchs

// ANCHOR: h1_adam_is_pytorchs
// H1  p = p - lr m_hat / (sqrt(v_hat) + eps)
#[test]
fn h1_adam_is_pytorchs() {
    assert_golden(ADAM, "adam", 1e-9);
}
// ANCHOR_END: h1_adam_is_pytorchs

// ANCHOR: h1_adamw_is_pytorchs
// H1  p = (1 - lr lambda) p - lr m_hat / (sqrt(v_hat) + eps)
#[test]
fn h1_adamw_is_pytorchs() {
    assert_golden(ADAMW, "adamw", 1e-9);
}
// ANCHOR_END: h1_adamw_is_pytorchs

// ANCHOR: h1_adafactor_is_optaxs
// H1  u = g / sqrt(R C / mean(R)),   p = p - lr max(rms(p), 0.001) u / max(1, rms(u))
// optax computes beta2 = 1 - t^-0.8 in f32 also for f64 parameters, which moves its results by up to 2e-9.
#[test]
fn h1_adafactor_is_optaxs() {
    assert_golden(ADAFACTOR, "adafactor_optax_lr1e-2_mindim4", 4e-9);
}
// ANCHOR_END: h1_adafactor_is_optaxs

// The same, with numbers of optax whose decay_rate_fn was replaced by one in f64. With 3 as the least size, the
// convolution [4, 3, 3, 3] is factored too, over its first and last axis.
#[test]
fn h1_adafactor_is_optaxs_with_its_decay_in_f64() {
    let parameters = ten_steps(ADAFACTOR);
    let matrix = [0.21721301912461502, -1.6790921532244831, -0.8811610823231777];
    let vector = [1.0392101488317784, 1.487854592732673, -2.4058242983751748];
    assert_all_close(&value(&parameters, "matrix")[..3], &matrix, 1e-12);
    assert_all_close(&value(&parameters, "vector")[..3], &vector, 1e-12);
    let parameters = ten_steps("kind = 'adafactor'\nmin_dim_size_to_factor = 3");
    let conv = [-0.5316505072061666, -1.1905669913821044, 0.8249317515188759, -0.10600761783065943];
    assert_all_close(&value(&parameters, "conv")[..4], &conv, 1e-12);
}

proptest! {
    // ANCHOR: h1_adafactor_loses_nothing_of_a_second_moment_of_rank_one
    // H1  If g^2 = r c^T has rank one, R C / mean(R) is g^2 itself: the first update is the sign of g, whose root mean square
    // is 1 and is not clipped. So p moves by lr rms(p), in whichever order the large axes come.
    #[test]
    fn h1_adafactor_loses_nothing_of_a_second_moment_of_rank_one(
        r in prop::collection::vec(0.1..2.0f64, 5),
        c in prop::collection::vec(-2.0..-0.1f64, 4),
        flip in any::<bool>(),
    ) {
        let shape = if flip { [4, 2, 5] } else { [5, 2, 4] };
        let entry = |i: usize, k: usize| if flip { r[k] * c[i] } else { r[i] * c[k] };
        let g = |_: &str| -> Vec<f64> {
            let indices = (0..shape[0]).flat_map(|i| (0..2).map(move |j| (i, j)));
            indices.flat_map(|(i, j)| (0..shape[2]).map(move |k| (i, j, k))).map(|(i, j, k)| entry(i, k) * (3.0 * j as f64 - 1.0)).collect()
        };
        let init = Init::new(1, DType::F64);
        init.param("p", shape, Fill::Normal(1.0));
        let parameters = init.parameters();
        let before = value(&parameters, "p");
        let mut adafactor = optimizer(ADAFACTOR);
        adafactor.step(&parameters, &gradients(&parameters, g, 0), 0.1);
        let rms = (before.iter().map(|p| p * p).sum::<f64>() / 40.0).sqrt();
        let expected: Vec<f64> = before.iter().zip(g("p")).map(|(p, g)| p - 0.1 * rms * g.signum()).collect();
        assert_all_close(&value(&parameters, "p"), &expected, 1e-12);
        prop_assert_eq!(adafactor.state()["adafactor.row.p"].numel(), 8);
        prop_assert_eq!(adafactor.state()["adafactor.column.p"].numel(), 10);
    }
    // ANCHOR_END: h1_adafactor_loses_nothing_of_a_second_moment_of_rank_one

    // ANCHOR: h1_the_first_step_of_adam_is_the_sign_of_the_gradient
    // H1  At t = 1, m_hat = g and v_hat = g^2: p - lr g / (|g| + eps).
    #[test]
    fn h1_the_first_step_of_adam_is_the_sign_of_the_gradient(g in prop::collection::vec(-1e3..1e3f64, 1..20)) {
        let parameters = parameter(&vec![0.0; g.len()]);
        optimizer(ADAM).step(&parameters, &gradients(&parameters, |_| g.clone(), 0), 0.01);
        let expected: Vec<f64> = g.iter().map(|g| -0.01 * g / (g.abs() + 1e-8)).collect();
        assert_all_close(&value(&parameters, "p"), &expected, 1e-13);
        for (p, g) in value(&parameters, "p").iter().zip(&g).filter(|(_, g)| g.abs() > 1e-2) {
            prop_assert!((p + 0.01 * g.signum()).abs() <= 0.01 * 1.01e-6);
        }
    }
    // ANCHOR_END: h1_the_first_step_of_adam_is_the_sign_of_the_gradient
}

// ANCHOR: h1_a_lone_gradient_moves_adam_by_three_rates
// H1  After gradients of 0, m = (1 - beta1) g and v = (1 - beta2) g^2: a step of 0.1 / sqrt(0.001) rates, whatever g.
#[test]
fn h1_a_lone_gradient_moves_adam_by_three_rates() {
    for g in [-40.0, 0.5] {
        let (parameters, mut adam) = (parameter(&[0.0]), Adam::new([0.9, 0.999], 1e-8, 0.0));
        for i in 0..=20_000 {
            let g = if i < 20_000 { 0.0 } else { g };
            adam.step(&parameters, &gradients(&parameters, |_| vec![g], 0), 0.01);
        }
        // 0.999^20001 is left of the correction of v: 2e-9
        let expected = -0.01 * 0.1 / 0.001_f64.sqrt() * g.signum();
        assert_all_close(&value(&parameters, "p"), &[expected], 1e-7);
    }
}
// ANCHOR_END: h1_a_lone_gradient_moves_adam_by_three_rates

// ANCHOR: h1_adamw_decays_weights_and_adam_with_an_l2_gradient_does_not
// H1  AdamW takes lr lambda p off every parameter. As a gradient lambda p of |p|^2 / 2 the decay would be divided by sqrt(v_hat):
// where the gradient outweighs it, the first step of Adam does not see it at all.
#[test]
fn h1_adamw_decays_weights_and_adam_with_an_l2_gradient_does_not() {
    let (p, g, lambda, lr) = ([1.0, -2.0, 3.0], [5.0, 7.0, -11.0], 0.1, 0.01);
    let after = |toml: &str, l2: f64| {
        let parameters = parameter(&p);
        let total = |_: &str| p.iter().zip(g).map(|(p, g)| g + l2 * p).collect();
        optimizer(toml).step(&parameters, &gradients(&parameters, total, 0), lr);
        value(&parameters, "p")
    };
    let adam = after(ADAM, 0.0);
    let adamw = after("kind = 'adamw'\nweight_decay = 0.1", 0.0);
    let decay: Vec<f64> = adamw.iter().zip(&adam).map(|(w, a)| w - a).collect();
    assert_all_close(&decay, &p.map(|p| -lr * lambda * p), 1e-15);
    assert_all_close(&after(ADAM, lambda), &adam, 1e-10);
}
// ANCHOR_END: h1_adamw_decays_weights_and_adam_with_an_l2_gradient_does_not

// ANCHOR: h1_adam_does_not_depend_on_the_scale_of_the_gradient_and_sgd_does
// The gradient's scale cancels in Adam, and only there: what distinguishes it from gradient descent.
#[test]
fn h1_adam_does_not_depend_on_the_scale_of_the_gradient_and_sgd_does() {
    let after = |toml: &str, scale: f64| {
        let parameters = parameter(&[0.0, 0.0]);
        let mut optimizer = optimizer(toml);
        for g in [[1.0, -3.0], [2.0, 0.5]] {
            optimizer.step(&parameters, &gradients(&parameters, |_| g.map(|g| scale * g).to_vec(), 0), 0.01);
        }
        value(&parameters, "p")
    };
    assert_all_close(&after(ADAM, 100.0), &after(ADAM, 1.0), 1e-9);
    let expected: Vec<f64> = after(SGD, 1.0).iter().map(|p| 100.0 * p).collect();
    assert_all_close(&after(SGD, 100.0), &expected, 1e-12);
}
// ANCHOR_END: h1_adam_does_not_depend_on_the_scale_of_the_gradient_and_sgd_does

#[test]
fn a_parameter_without_a_gradient_is_left_alone() {
    for toml in ALL {
        let parameters = start(DType::F32);
        let before = parameters.values();
        let mut reached = golden_gradients(&parameters, 0);
        let matrix = parameters.iter().find(|p| p.name() == "matrix").unwrap();
        reached.take(&matrix.tensor()).unwrap();
        let mut optimizer = optimizer(toml);
        optimizer.step(&parameters, &reached, 0.01);
        let after = parameters.values();
        assert!(after["matrix"].bit_eq(&before["matrix"]), "{toml}");
        assert!(!after["vector"].bit_eq(&before["vector"]), "{toml}");
        assert!(optimizer.state().keys().all(|name| !name.ends_with("matrix")), "{toml}");
    }
}

#[test]
fn a_step_of_sgd_or_adam_changes_parameters_in_place() {
    for toml in [SGD, ADAM, ADAMW] {
        let parameters = start(DType::F32);
        let address = || parameters.iter().map(|p| p.tensor().array().slice::<f32>().as_ptr()).collect::<Vec<_>>();
        let before = address();
        optimizer(toml).step(&parameters, &golden_gradients(&parameters, 0), 0.01);
        assert_eq!(address(), before, "{toml}");
    }
}

fn through_a_file(tensors: BTreeMap<String, Array>) -> Weights {
    let bytes = Weights { tensors, metadata: BTreeMap::new() }.to_bytes(false);
    Weights::parse(&bytes, Path::new("memory")).unwrap()
}

#[test]
fn five_steps_and_five_after_saving_and_loading_are_ten_bit_for_bit() {
    for dtype in [DType::F32, DType::F64] {
        for toml in ALL {
            let (whole, resumed) = (start(dtype), start(dtype));
            let (mut one, mut first) = (optimizer(toml), optimizer(toml));
            for i in 0..5 {
                one.step(&whole, &golden_gradients(&whole, i), 0.01);
                first.step(&resumed, &golden_gradients(&resumed, i), 0.01);
            }
            let (weights, state) = (through_a_file(resumed.values()), through_a_file(first.state()));
            let (resumed, mut second) = (start(dtype), optimizer(toml));
            resumed.load(&weights).unwrap();
            second.load_state(&state.tensors, first.steps()).unwrap();
            for i in 5..10 {
                one.step(&whole, &golden_gradients(&whole, i), 0.01);
                second.step(&resumed, &golden_gradients(&resumed, i), 0.01);
            }
            assert_bit_equal(&resumed.values(), &whole.values());
            assert_bit_equal(&second.state(), &one.state());
            assert_eq!(second.steps(), 10);
        }
    }
}

#[test]
fn a_state_of_another_optimizer_or_half_a_state_is_refused_and_changes_nothing() {
    let parameters = start(DType::F64);
    let mut adam = optimizer(ADAM);
    adam.step(&parameters, &golden_gradients(&parameters, 0), 0.01);
    let state = adam.state();
    let message = optimizer(SGD).load_state(&state, 1).unwrap_err().to_string();
    assert!(message.contains("adam.first.conv") && message.contains("sgd.velocity"), "{message}");
    let mut half = state.clone();
    half.remove("adam.second.matrix");
    let mut other = optimizer(ADAM);
    let message = other.load_state(&half, 1).unwrap_err().to_string();
    assert!(message.contains("adam.second.matrix is missing"), "{message}");
    assert!(other.state().is_empty() && other.steps() == 0);
}

#[test]
fn settings_left_out_are_those_of_the_papers() {
    assert_eq!(config(ADAM), OptimizerConfig::Adam { betas: [0.9, 0.999], eps: 1e-8 });
    let adamw = OptimizerConfig::AdamW { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
    assert_eq!(config("kind = 'adamw'"), adamw);
    assert_eq!(config("kind = 'sgd'"), OptimizerConfig::Sgd { momentum: 0.9 });
    let adafactor = OptimizerConfig::Adafactor {
        min_dim_size_to_factor: 128,
        decay_rate: 0.8,
        clipping_threshold: 1.0,
        multiply_by_parameter_scale: true,
        eps: 1e-30,
    };
    assert_eq!(config("kind = 'adafactor'"), adafactor);
    for toml in ALL {
        assert_eq!(config(&toml::to_string(&config(toml)).unwrap()), config(toml));
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let unknown = toml::from_str::<OptimizerConfig>("kind = 'adam'\nbeta = 0.9").unwrap_err().to_string();
    assert!(unknown.contains("unknown field `beta`"), "{unknown}");
    let wrong = [
        ("kind = 'sgd'\nmomentum = 1.0", "momentum"),
        ("kind = 'adam'\nbetas = [0.9, 1.5]", "betas"),
        ("kind = 'adam'\neps = 0.0", "eps"),
        ("kind = 'adamw'\nweight_decay = -0.1", "weight_decay"),
        ("kind = 'adafactor'\nclipping_threshold = nan", "clipping_threshold"),
    ];
    for (toml, name) in wrong {
        let error = config(toml).build().err().unwrap();
        assert!(matches!(error, OptimizerError::Setting { setting, .. } if setting == name), "{toml}: {error}");
    }
    let late = LearningRate::WarmupCosine { peak: 1e-3, warmup: 11, total: 10, end: 0.0 };
    assert!(late.check().unwrap_err().to_string().starts_with("warmup is 11"));
}

// ANCHOR: h1_clipping_is_pytorchs
// H1  |g| = sqrt(sum of all squares),   g = g min(1, max / (|g| + 1e-6))
#[test]
fn h1_clipping_is_pytorchs() {
    let parameters = start(DType::F64);
    let mut gradients = golden_gradients(&parameters, 0);
    let norm = clip(&mut gradients, &parameters, 1.0).item();
    assert_all_close(&[norm], &[GOLDEN.tensors["clip_norm_total"].item()], 1e-9);
    for param in parameters.iter() {
        let clipped = gradients.get(&param.tensor()).unwrap().to_f64();
        assert_all_close(&clipped, &GOLDEN.tensors[&format!("clip_to_1.{}", param.name())].to_f64(), 1e-9);
    }
}
// ANCHOR_END: h1_clipping_is_pytorchs

// ANCHOR: h1_clipping_caps_the_norm_and_leaves_the_direction
#[test]
fn h1_clipping_caps_the_norm_and_leaves_the_direction() {
    let parameters = start(DType::F64);
    let (before, mut after) = (golden_gradients(&parameters, 3), golden_gradients(&parameters, 3));
    let norm = clip(&mut after, &parameters, 0.5).item();
    let capped = global_norm(&parameters, &after).item();
    assert!(norm > 5.0 && capped <= 0.5 && capped > 0.5 * (1.0 - 1e-6), "{norm} {capped}");
    for param in parameters.iter() {
        let leaf = param.tensor();
        let direction = |g: &Gradients, norm: f64| g.get(&leaf).unwrap().affine(1.0 / norm, 0.0).to_f64();
        assert_all_close(&direction(&after, capped), &direction(&before, norm), 1e-14);
    }
}
// ANCHOR_END: h1_clipping_caps_the_norm_and_leaves_the_direction

#[test]
fn h1_clipping_below_the_limit_changes_no_bit() {
    let parameters = start(DType::F32);
    let (before, mut after) = (golden_gradients(&parameters, 0), golden_gradients(&parameters, 0));
    clip(&mut after, &parameters, 100.0);
    for leaf in parameters.iter().map(|p| p.tensor()) {
        assert!(after.get(&leaf).unwrap().bit_eq(before.get(&leaf).unwrap()));
    }
    let none = clip(&mut Gradients::default(), &parameters, 1.0).item();
    assert_eq!(none, 0.0);
}

#[test]
fn a_gradient_that_is_no_number_is_reported_and_not_spread() {
    for bad in [f64::NAN, f64::INFINITY] {
        let parameters = start(DType::F64);
        let mut gradients = golden_gradients(&parameters, 0);
        let vector = parameters.iter().last().unwrap().tensor();
        gradients.get_mut(&vector).unwrap().make_mut::<f64>()[2] = bad;
        assert!(!clip(&mut gradients, &parameters, 1.0).item().is_finite());
        let conv = parameters.iter().next().unwrap().tensor();
        assert!(gradients.get(&conv).unwrap().is_finite());
    }
}

// ANCHOR: h1_warmup_and_cosine_are_optaxs
// H1  lr = peak step / warmup, then end + (peak - end) (1 + cos(pi (step - warmup) / (total - warmup))) / 2
#[test]
fn h1_warmup_and_cosine_are_optaxs() {
    let rate = LearningRate::WarmupCosine { peak: 1e-3, warmup: 10, total: 100, end: 1e-5 };
    let golden = GOLDEN.tensors["warmup_cosine_0_1e-3_10_100_1e-5"].to_f64();
    assert_eq!(golden.len(), 120);
    for (step, golden) in golden.into_iter().enumerate() {
        let found = rate.at(step as u64);
        assert!((found - golden).abs() <= 1e-9 * golden, "step {step}: {found}, expected {golden}");
    }
}
// ANCHOR_END: h1_warmup_and_cosine_are_optaxs

#[test]
fn h1_a_schedule_without_warmup_or_without_decay_is_defined_everywhere() {
    let cosine = LearningRate::WarmupCosine { peak: 2.0, warmup: 0, total: 4, end: 0.0 };
    assert_all_close(
        &[0, 1, 2, 4, 9].map(|step| cosine.at(step)),
        &[2.0, 1.0 + (PI / 4.0).cos(), 1.0, 0.0, 0.0],
        1e-15,
    );
    let line = LearningRate::WarmupCosine { peak: 2.0, warmup: 4, total: 4, end: 0.5 };
    assert_eq!([0, 2, 3, 4, 5].map(|step| line.at(step)), [0.0, 1.0, 1.5, 0.5, 0.5]);
    let constant: LearningRate = toml::from_str("kind = 'constant'\nrate = 0.1").unwrap();
    assert_eq!([0, 1000].map(|step| constant.at(step)), [0.1, 0.1]);
}

/// Weights x_1, x_2, … of a model with one parameter, from x_0 = 10, and the average after them.
fn average(ema: impl Fn(&Parameters) -> Ema, xs: &[f64]) -> f64 {
    let parameters = parameter(&[10.0]);
    let mut ema = ema(&parameters);
    for &x in xs {
        parameters.iter().for_each(|p| p.update(|p| *p = Array::from_vec([1], vec![x])));
        ema.update(&parameters);
    }
    assert_eq!(ema.updates(), xs.len() as u64);
    ema.values()["p"].item()
}

proptest! {
    // ANCHOR: h1_the_average_has_the_closed_form
    // H1  average_n = d^n x_0 + (1 - d) sum_k d^(n - k) x_k
    #[test]
    fn h1_the_average_has_the_closed_form(xs in prop::collection::vec(-5.0..5.0f64, 0..40), d in 0.0..0.9999f64) {
        let n = xs.len() as i32;
        let terms = xs.iter().enumerate().map(|(i, x)| d.powi(n - 1 - i as i32) * x);
        let expected = d.powi(n) * 10.0 + (1.0 - d) * terms.sum::<f64>();
        assert_all_close(&[average(|p| Ema::new(p, d, false).unwrap(), &xs)], &[expected], 1e-12);
    }
    // ANCHOR_END: h1_the_average_has_the_closed_form

    // ANCHOR: h1_warmup_forgets_the_first_weights
    // H1  With warm-up d_k = (1 + k) / (10 + k) while that is below d. The weight of x_0 is then
    // prod_{k <= n} (1 + k) / (10 + k) = 10! (n + 1)! / (n + 10)!, and not d^n: it falls as n^-9.
    #[test]
    fn h1_warmup_forgets_the_first_weights(n in 1..200usize) {
        let found = average(|p| Ema::new(p, 0.9999, true).unwrap(), &vec![0.0; n]);
        let expected = 10.0 * (2..=10).map(|i| i as f64 / (n + i) as f64).product::<f64>();
        prop_assert!((found - expected).abs() <= 1e-12 * expected, "{found} {expected}");
        prop_assert!(n < 20 || found < 0.001 * 10.0 * 0.9999f64.powi(n as i32));
    }
    // ANCHOR_END: h1_warmup_forgets_the_first_weights
}

#[test]
fn h1_warmup_ends_at_the_decay() {
    let ema = Ema::new(&parameter(&[1.0]), 0.9, true).unwrap();
    assert_eq!([1, 10, 79, 80, 81, 1000].map(|k| ema.decay_at(k)), [2.0 / 11.0, 0.55, 80.0 / 89.0, 0.9, 0.9, 0.9]);
    assert!(Ema::new(&parameter(&[1.0]), 1.0, true).is_err());
}

#[test]
fn the_averages_are_in_the_model_while_a_function_runs_and_no_longer() {
    let parameters = start(DType::F32);
    let mut ema = Ema::new(&parameters, 0.5, false).unwrap();
    optimizer(ADAM).step(&parameters, &golden_gradients(&parameters, 0), 0.01);
    ema.update(&parameters);
    let (trained, averaged) = (parameters.values(), ema.values().clone());
    assert!(!trained["conv"].bit_eq(&averaged["conv"]));
    let during = ema.swapped(&parameters, || parameters.values());
    assert_bit_equal(&during, &averaged);
    assert_bit_equal(&parameters.values(), &trained);
    let panicked = catch_unwind(AssertUnwindSafe(|| ema.swapped(&parameters, || panic!("while sampling"))));
    assert!(panicked.is_err());
    assert_bit_equal(&parameters.values(), &trained);
    assert_bit_equal(ema.values(), &averaged);
}

#[test]
fn averages_saved_and_loaded_go_on_bit_for_bit_and_those_of_another_model_are_refused() {
    let parameters = start(DType::F32);
    let mut one = Ema::new(&parameters, 0.9, true).unwrap();
    let mut adam = optimizer(ADAM);
    let mut train = |i| adam.step(&parameters, &golden_gradients(&parameters, i), 0.01);
    train(0);
    one.update(&parameters);
    let mut two = Ema::new(&start(DType::F32), 0.9, true).unwrap();
    two.load(&through_a_file(one.values().clone()), one.updates()).unwrap();
    train(1);
    one.update(&parameters);
    two.update(&parameters);
    assert_bit_equal(two.values(), one.values());
    let other = through_a_file(parameter(&[1.0]).values());
    let message = two.load(&other, 1).unwrap_err().to_string();
    assert!(message.contains("conv [4, 3, 3, 3] is missing") && message.contains("p is surplus"), "{message}");
    assert_bit_equal(two.values(), one.values());
}

/// Steps of a freshly made optimizer on f(p) = p' A p / 2, whose gradient is A p. Returns all p, the first included.
fn way(mut optimizer: impl Optimizer, a: [[f64; 2]; 2], start: [f64; 2], lr: f64, steps: usize) -> Vec<[f64; 2]> {
    let parameters = parameter(&start);
    let mut way = vec![start];
    for k in 0..steps {
        let g = a.map(|row| row[0] * way[k][0] + row[1] * way[k][1]);
        optimizer.step(&parameters, &gradients(&parameters, |_| g.to_vec(), 0), lr);
        way.push(value(&parameters, "p").try_into().unwrap());
    }
    way
}

/// The symmetric matrix with these two curvatures, the first along (cos angle, sin angle), and the two directions.
fn curved([first, second]: [f64; 2], angle: f64) -> ([[f64; 2]; 2], [[f64; 2]; 2]) {
    let (s, c) = angle.sin_cos();
    let mixed = (first - second) * s * c;
    ([[first * c * c + second * s * s, mixed], [mixed, first * s * s + second * c * c]], [[c, s], [-s, c]])
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

proptest! {
    // ANCHOR: h1_gradient_descent_multiplies_each_direction_by_one_minus_rate_times_curvature
    // H1  Along a direction of curvature c, k steps of gradient descent multiply p by (1 - lr c)^k. So p goes to 0 if and
    // only if lr < 2 / L, L the largest curvature.
    #[test]
    fn h1_gradient_descent_multiplies_each_direction_by_one_minus_rate_times_curvature(
        small in 0.1..1.0f64,
        large in 1.0..10.0f64,
        angle in 0.0..PI,
        share in 0.05..1.5f64,
    ) {
        let (a, directions) = curved([small, large], angle);
        let (lr, start) = (share * 2.0 / large, [0.7, -1.3]);
        let way = way(Sgd::new(0.0), a, start, lr, 60);
        for (direction, curvature) in directions.into_iter().zip([small, large]) {
            for (k, p) in way.iter().enumerate() {
                let expected = (1.0 - lr * curvature).powi(k as i32) * dot(start, direction);
                // rounding of the fastest direction reaches the other
                let largest = (1.0 - lr * large).abs().max(1.0).powi(k as i32);
                prop_assert!((dot(*p, direction) - expected).abs() < 1e-12 * largest);
            }
        }
        let along_large = |k: usize| dot(way[k], directions[1]).abs();
        prop_assert_eq!(along_large(60) < along_large(0), share < 1.0);
    }
    // ANCHOR_END: h1_gradient_descent_multiplies_each_direction_by_one_minus_rate_times_curvature

    // ANCHOR: h1_the_best_rate_is_two_over_the_sum_of_the_curvatures
    // H1  max(|1 - lr mu|, |1 - lr L|) is least at lr = 2 / (mu + L), where it is (kappa - 1) / (kappa + 1).
    #[test]
    fn h1_the_best_rate_is_two_over_the_sum_of_the_curvatures(
        mu in 0.1..1.0f64,
        l in 1.1..50.0f64,
        off in -0.9..0.9f64,
    ) {
        let best = 2.0 / (mu + l);
        let worst_factor = |lr: f64| {
            let way = way(Sgd::new(0.0), [[mu, 0.0], [0.0, l]], [1.0, 1.0], lr, 1);
            way[1][0].abs().max(way[1][1].abs())
        };
        let kappa = l / mu;
        prop_assert!((worst_factor(best) - (kappa - 1.0) / (kappa + 1.0)).abs() < 1e-14);
        prop_assert!(worst_factor(best * (1.0 + off)) >= worst_factor(best) - 1e-14);
    }
    // ANCHOR_END: h1_the_best_rate_is_two_over_the_sum_of_the_curvatures

    // ANCHOR: h1_the_velocity_is_a_sum_of_all_gradients
    // H1  v_k = sum_i mu^(k - i) g_i: a constant gradient adds up to g (1 - mu^k) / (1 - mu).
    #[test]
    fn h1_the_velocity_is_a_sum_of_all_gradients(g in prop::collection::vec(-5.0..5.0f64, 1..40), mu in 0.05..0.99f64) {
        let velocity = |g: &[f64]| {
            let (parameters, mut sgd) = (parameter(&[0.0]), Sgd::new(mu));
            g.iter().for_each(|&g| sgd.step(&parameters, &gradients(&parameters, |_| vec![g], 0), 0.01));
            sgd.state()["sgd.velocity.p"].item()
        };
        let sum: f64 = g.iter().rev().enumerate().map(|(age, g)| mu.powi(age as i32) * g).sum();
        prop_assert!((velocity(&g) - sum).abs() < 1e-10);
        let constant = 3.0 * (1.0 - mu.powi(g.len() as i32)) / (1.0 - mu);
        prop_assert!((velocity(&vec![3.0; g.len()]) - constant).abs() < 3e-10);
    }
    // ANCHOR_END: h1_the_velocity_is_a_sum_of_all_gradients

    // ANCHOR: h1_momentum_shrinks_an_oscillation_by_its_root
    // H1  Along a curvature c momentum is p_(k+1) = b p_k - mu p_(k-1) with b = 1 + mu - lr c. Where b^2 < 4 mu, the positive
    // form p_(k+1)^2 - b p_(k+1) p_k + mu p_k^2 is multiplied by mu at each step, whatever c: p shrinks as sqrt(mu)^k.
    #[test]
    fn h1_momentum_shrinks_an_oscillation_by_its_root(mu in 0.05..0.95f64, turn in 0.05..0.95f64, c in 0.1..10.0f64) {
        let b = 2.0 * mu.sqrt() * (PI * turn).cos();
        let lr = (1.0 + mu - b) / c;
        let way: Vec<f64> = way(Sgd::new(mu), [[c, 0.0], [0.0, c]], [1.0, 0.0], lr, 30).iter().map(|p| p[0]).collect();
        let form = |k: usize| way[k + 1].powi(2) - b * way[k + 1] * way[k] + mu * way[k].powi(2);
        for k in 1..29 {
            prop_assert!((way[k + 1] - (b * way[k] - mu * way[k - 1])).abs() < 1e-12);
            prop_assert!((form(k) - mu * form(k - 1)).abs() < 1e-12, "{} {}", form(k), form(k - 1));
        }
        prop_assert!(form(0) > 0.0);
    }
    // ANCHOR_END: h1_momentum_shrinks_an_oscillation_by_its_root

    // ANCHOR: h1_the_best_momentum_has_both_ends_of_the_valley_at_the_border
    // H1  With sqrt(mu) = (r - 1) / (r + 1), r = sqrt(kappa), and lr = 4 / (sqrt(L) + sqrt(m))^2, b^2 = 4 mu at both curvatures
    // m and L and less between. At both, p_k = (1 + k (1 - q)) q^k, q = sqrt(mu) and -sqrt(mu).
    #[test]
    fn h1_the_best_momentum_has_both_ends_of_the_valley_at_the_border(m in 0.1..1.0f64, l in 1.1..50.0f64) {
        let r = (l / m).sqrt();
        let mu = ((r - 1.0) / (r + 1.0)).powi(2);
        let lr = 4.0 / (l.sqrt() + m.sqrt()).powi(2);
        let excess = |c: f64| (1.0 + mu - lr * c).powi(2) - 4.0 * mu;
        prop_assert!(excess(m).abs() < 1e-12 && excess(l).abs() < 1e-12 && excess((m + l) / 2.0) < 0.0);
        let q = mu.sqrt();
        for (k, p) in way(Sgd::new(mu), [[m, 0.0], [0.0, l]], [1.0, 1.0], lr, 50).iter().enumerate() {
            for (p, q) in p.iter().zip([q, -q]) {
                let expected = (1.0 + k as f64 * (1.0 - q)) * q.powi(k as i32);
                prop_assert!((p - expected).abs() < 1e-11, "step {k}: {p}, expected {expected}");
            }
        }
    }
    // ANCHOR_END: h1_the_best_momentum_has_both_ends_of_the_valley_at_the_border

    // ANCHOR: h1_the_moments_are_geometric_sums
    // H1  m_t = (1 - beta1) sum_i beta1^(t - i) g_i and v_t the same of squares; the factors sum to 1 - beta^t.
    #[test]
    fn h1_the_moments_are_geometric_sums(
        g in prop::collection::vec(-5.0..5.0f64, 1..40),
        beta1 in 0.0..0.99f64,
        beta2 in 0.0..0.999f64,
    ) {
        let (parameters, mut adam) = (parameter(&[0.0]), Adam::new([beta1, beta2], 1e-8, 0.0));
        g.iter().for_each(|&g| adam.step(&parameters, &gradients(&parameters, |_| vec![g], 0), 0.01));
        let t = g.len() as i32;
        let factors = |beta: f64| (1..=t).map(move |i| (1.0 - beta) * beta.powi(t - i));
        let m: f64 = factors(beta1).zip(&g).map(|(f, g)| f * g).sum();
        let v: f64 = factors(beta2).zip(&g).map(|(f, g)| f * g * g).sum();
        assert_all_close(&[adam.state()["adam.first.p"].item(), adam.state()["adam.second.p"].item()], &[m, v], 1e-12);
        for beta in [beta1, beta2] {
            prop_assert!((factors(beta).sum::<f64>() - (1.0 - beta.powi(t))).abs() < 1e-13);
        }
    }
    // ANCHOR_END: h1_the_moments_are_geometric_sums

    // ANCHOR: h1_adam_on_a_constant_gradient_steps_by_the_rate
    // H1  If every gradient is g, m_hat = g and v_hat = g^2 at every step: p moves by lr g / (|g| + eps) each time.
    #[test]
    fn h1_adam_on_a_constant_gradient_steps_by_the_rate(g in -100.0..100.0f64, steps in 1..200usize) {
        let (parameters, mut adam) = (parameter(&[0.0]), Adam::new([0.9, 0.999], 1e-8, 0.0));
        (0..steps).for_each(|_| adam.step(&parameters, &gradients(&parameters, |_| vec![g], 0), 0.01));
        let expected = -0.01 * steps as f64 * g / (g.abs() + 1e-8);
        // 1 - 0.999^t loses three digits at t = 1: 0.001 of numbers near 1
        assert_all_close(&value(&parameters, "p"), &[expected], 1e-11);
    }
    // ANCHOR_END: h1_adam_on_a_constant_gradient_steps_by_the_rate
}
