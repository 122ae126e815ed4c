//! Memory is planned by running the training step on arrays without numbers: against hand-counted sizes, against the
//! shapes of real arrays, and against the memory that the program really takes.

mod tiny;

use imagen::array::{Array, DType, Device, Ledger, Shape};
use imagen::autograd::{Gradients, Tensor};
use imagen::kernels::{AdamStep, Binary, ConvShape, Kernels, Reduce, Unary, of};
use imagen::nn::{Init, Parameters};
use imagen::optim::OptimizerConfig;
use imagen::train::{MemoryPlan, RunConfig, TrainingData};
use imagen::unet::{Condition, TextConfig, UNet, UNetConfig};
use proptest::prelude::*;
use tiny::Lab;

fn plan(lab: &Lab, config: &str, set: &[&str]) -> MemoryPlan {
    let folder = (config != "words.toml").then(|| format!("data.folder={:?}", lab.path("data")));
    let set: Vec<String> = set.iter().map(|s| s.to_string()).chain(folder).collect();
    let config = RunConfig::read(&lab.path(config), &set).unwrap();
    MemoryPlan::of(&config, &TrainingData::load(&config).unwrap()).unwrap()
}

/// Two 3x3 convolutions and two normalisations, then 8 x 8 images of 8 channels to 6 features to 10 classes.
#[test]
fn the_parts_of_a_small_plan_are_those_counted_by_hand() {
    let lab = Lab::new();
    let numbers = (9 * 8 + 8) + (9 * 8 * 8 + 8) + 4 * 8 + (8 * 64 * 6 + 6) + (6 * 10 + 10);
    let judge = plan(&lab, "judge.toml", &[]);
    assert_eq!(judge.parameters, numbers);
    let bytes = 4 * numbers as u64;
    assert_eq!((judge.parameter_bytes, judge.gradient_bytes, judge.average_bytes), (bytes, bytes, bytes));
    assert_eq!(judge.optimizer_bytes, 2 * bytes);
    assert_eq!(judge.data_bytes, 60 * 65);

    // Per image: 1 channel of pixels, and 8 channels each of two convolutions, normalised, and after SiLU. The rest is small.
    let images = 4 * 64 * (1 + 6 * 8) * 4;
    assert!((images..images + 20_000).contains(&judge.activation_bytes), "{judge:?}");
    let twice = plan(&lab, "judge.toml", &["train.batch=8"]);
    let more = twice.activation_bytes - judge.activation_bytes;
    assert!((images..images + 2_000).contains(&more), "{more} instead of {images}");
    assert_eq!(
        MemoryPlan { activation_bytes: 0, peak_bytes: 0, ..twice },
        MemoryPlan { activation_bytes: 0, peak_bytes: 0, ..judge }
    );

    let sgd = plan(&lab, "judge.toml", &["optimizer={ kind = \"sgd\" }"]);
    assert_eq!(sgd.optimizer_bytes, bytes);
    let plain = plan(&lab, "judge.toml", &["optimizer={ kind = \"sgd\", momentum = 0.0 }"]);
    assert_eq!(plain.optimizer_bytes, 0);
}

/// The encoder of the captions is in memory too; what it makes of them passes through.
#[test]
fn a_plan_on_t5_counts_the_encoder() {
    let lab = Lab::new();
    let t5 = ["text={ encoder = \"t5\", model = \"t5-mini\" }", "unet.text.dim=128"];
    let (on_t5, on_words) =
        (plan(&lab, "tiny.toml", &t5), plan(&lab, "tiny.toml", &["text.dim=128", "unet.text.dim=128"]));
    assert_eq!((on_t5.parameters, on_t5.optimizer_bytes), (on_words.parameters, on_words.optimizer_bytes));
    // 1.1 million numbers of four bytes.
    assert!(on_t5.peak_bytes > on_words.peak_bytes + 4_400_000, "{on_t5:?} {on_words:?}");
    let words = plan(&lab, "words.toml", &[]);
    assert!(words.parameters > 8 * 400 && words.optimizer_bytes == 8 * words.parameters as u64, "{words:?}");
}

#[test]
fn a_plan_grows_with_the_batch_and_recomputing_makes_it_smaller() {
    let lab = Lab::new();
    let plans: Vec<MemoryPlan> =
        ["train.batch=64", "train.batch=128"].map(|batch| plan(&lab, "tiny.toml", &[batch])).into();
    assert!(
        plans[1].activation_bytes > 19 * plans[0].activation_bytes / 10 && plans[1].peak_bytes > plans[0].peak_bytes
    );
    let recomputed = plan(&lab, "tiny.toml", &["train.batch=128", "train.recompute=true"]);
    assert!(2 * recomputed.activation_bytes < plans[1].activation_bytes, "{recomputed:?} {:?}", plans[1]);
    assert!(recomputed.peak_bytes < plans[1].peak_bytes);
    assert_eq!(recomputed.parameter_bytes, plans[1].parameter_bytes);
}

/// A thousand million parameters: 32 GB with gradients, moments and average, of which a small computer has none.
#[test]
fn a_network_larger_than_memory_is_planned() {
    let lab = Lab::new();
    let large =
        plan(&lab, "tiny.toml", &["unet.base_channels=1536", "unet.channel_multipliers=[1, 2]", "unet.blocks=2"]);
    assert!(large.parameters > 900_000_000, "{large:?}");
    assert!(large.peak_bytes > 20 * large.parameters as u64);
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 600_000, "planning took {peak} kB");
    }
}

/// Every result of every primitive has the shape and the dtype on both devices.
#[test]
fn every_primitive_has_the_shape_it_has_on_the_cpu() {
    let shapes = proptest::array::uniform4(1_usize..5);
    proptest!(ProptestConfig::with_cases(40), |(sizes in shapes, stride in 1_usize..3, padding in 0_usize..2, double: bool)| {
        let dtype = if double { DType::F64 } else { DType::F32 };
        let real = primitives(sizes, stride, padding, dtype);
        let ledger = Ledger::default();
        let planned = ledger.plan(|| primitives(sizes, stride, padding, dtype));
        prop_assert_eq!(real.len(), planned.len());
        for (i, (real, planned)) in real.iter().zip(&planned).enumerate() {
            prop_assert!(planned.is_planned() && !real.is_planned());
            prop_assert_eq!((i, real.shape(), real.dtype()), (i, planned.shape(), planned.dtype()));
        }
        drop(planned);
        prop_assert_eq!(ledger.live(), 0);
    });
}

/// One result of each primitive, or all where there are several.
fn primitives([b, c, h, w]: [usize; 4], stride: usize, padding: usize, dtype: DType) -> Vec<Array> {
    let k: &dyn Kernels = of(Device::Cpu);
    let full = |shape: &[usize]| k.fill(&Shape::from(shape), dtype, 0.5);
    let (x, channel, groups) = (full(&[b, 2 * c, h, w]), full(&[2 * c]), 2);
    let mut all = vec![k.unary(Unary::Exp, &x), k.unary_grad(Unary::Exp, &x, &x), k.affine(&x, 2.0, 1.0)];
    all.push(k.binary(Binary::Add, &x, &full(&[h, 1])));
    all.push(k.binary(Binary::Mul, &full(&[b, 1, 1, 1]), &full(&[2, w])));
    let mut changed = [x.clone(), x.clone(), x.clone(), x.clone(), x.clone()];
    let [sum, average, p, first, second] = &mut changed;
    k.add_assign(sum, &x, 2.0);
    k.lerp_assign(average, &x, 0.5);
    let step = AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step: 1 };
    k.adam(p, &x, [first, second], None, step);
    all.extend(changed);
    for op in [Reduce::Sum, Reduce::Max] {
        all.extend([0..0, 0..1, 1..3, 0..4].map(|axes| k.reduce(op, &x, axes)));
    }
    all.push(k.broadcast_to(&full(&[h, 1]), &Shape::from([b, h, w])));
    all.push(k.permute(&x, &[2, 0, 3, 1]));
    all.push(k.slice(&x, 1, 1..c + 1));
    all.push(k.unslice(&x, 2, 1, h + 3));
    all.push(k.concat(&[&x, &full(&[b, c, h, w]), &x], 1));
    all.push(k.matmul(&full(&[b, 1, h, w]), &full(&[c, w, h]), false, false));
    all.push(k.matmul(&full(&[b, w, h]), &full(&[c, w]), true, true));
    let (conv, weight) = (ConvShape { stride, padding: padding + 1 }, full(&[3, 2 * c, 3, 3]));
    let y = k.conv2d(&x, &weight, Some(&full(&[3])), conv);
    all.push(k.conv2d_grad_input(&y, &weight, x.shape(), conv));
    all.push(k.conv2d_grad_weight(&y, &x, weight.shape(), conv));
    all.push(y);
    let (y, mean, inv_std) = k.group_norm(&x, &channel, &channel, groups, 1e-5);
    all.extend(<[Array; 3]>::from(k.group_norm_grad(&y, &x, &channel, &mean, &inv_std)));
    all.extend([y, mean, inv_std]);
    let (y, mean, inv_std) = k.group_norm_silu(&x, &channel, &channel, groups, 1e-5);
    all.extend(<[Array; 3]>::from(k.group_norm_silu_grad(&y, &x, &channel, &channel, &mean, &inv_std)));
    all.extend([y, mean, inv_std]);
    all.extend([k.softmax(&x), k.softmax_grad(&x, &x), k.log_softmax(&x), k.log_softmax_grad(&x, &x)]);
    let rows: Vec<u32> = (0..2 * b as u32).map(|i| i % h as u32).collect();
    let taken = k.gather_rows(&full(&[h, w]), &rows);
    all.push(k.scatter_add_rows(&taken, &rows, h + 1));
    all.push(taken);
    let large = k.upsample_nearest(&x, stride + 1);
    all.push(k.sum_pool(&large, stride + 1));
    all.push(large);
    all
}

/// The network, its loss, backward, clipping, optimizer: prediction, gradients, parameters and state, with text.
fn step(recompute: bool, optimizer: &OptimizerConfig) -> Vec<Array> {
    let config = UNetConfig {
        base_channels: 8,
        channel_multipliers: vec![1, 2],
        attention: vec![false, true],
        blocks: 1.into(),
        heads: 2,
        groups: 4,
        scale_shift: true,
        text: Some(TextConfig { dim: 6 }),
        low_res: false,
        ..UNetConfig::mnist28()
    };
    let init = Init::new(0, DType::F32);
    let net = UNet::new(config, &init).unwrap().recomputing(recompute);
    let parameters: Parameters = init.parameters();
    let mask = Array::from_vec([2, 3], vec![1.0_f32, 1.0, 0.0, 1.0, 0.0, 0.0]);
    let condition = Condition::new(Array::from_vec([2, 3, 6], vec![0.5_f32; 36]), mask).with_dropped(vec![true, false]);
    let x = Tensor::from_f64([2, 1, 8, 8], &[0.25; 128], DType::F32);
    let y = net.forward(&x, &[0.2, 0.7], Some(&condition));
    let mut all = vec![y.array().clone()];
    let mut gradients: Gradients = y.mse(&x).backward();
    imagen::optim::clip(&mut gradients, &parameters, 1e-3);
    let mut optimizer = optimizer.build().unwrap();
    optimizer.step(&parameters, &gradients, 1e-3);
    all.extend(parameters.iter().map(|p| gradients.get(&p.tensor()).unwrap().clone()));
    all.extend(parameters.values().into_values());
    all.extend(optimizer.state().into_values());
    all
}

#[test]
fn a_training_step_has_the_shapes_it_has_with_numbers() {
    for kind in ["adam", "adafactor", "sgd"] {
        let optimizer: OptimizerConfig = toml::from_str(&format!("kind = \"{kind}\"")).unwrap();
        for recompute in [false, true] {
            let real = step(recompute, &optimizer);
            let planned = Ledger::default().plan(|| step(recompute, &optimizer));
            assert_eq!(real.len(), planned.len());
            for (real, planned) in real.iter().zip(&planned) {
                assert!(planned.is_planned() && real.is_finite());
                assert_eq!((real.shape(), real.dtype()), (planned.shape(), planned.dtype()));
            }
        }
    }
}

#[test]
fn a_dropped_buffer_is_counted_as_kept_for_the_next_of_its_length() {
    let ledger = Ledger::default();
    let make = |n: usize| of(Device::Cpu).fill(&Shape::from([n]), DType::F32, 0.0);
    ledger.plan(|| {
        drop(make(5000));
        assert_eq!((ledger.live(), ledger.taken()), (0, 20_000));
        let again = make(5000);
        assert_eq!((ledger.live(), ledger.taken()), (20_000, 20_000));
        // Another length needs memory of its own; a small one and one from elsewhere go back to the system.
        drop((make(6000), make(10), Array::from_vec([7000], vec![1.0_f32; 7000])));
        assert_eq!((ledger.taken(), ledger.peak()), (44_000, 44_000 + 40 + 28_000));
        // Changing what is shared copies it.
        let (mut mine, kept) = (again.clone(), again);
        of(Device::Cpu).add_assign(&mut mine, &kept, 1.0);
        assert_eq!(ledger.live(), 40_000);
    });
    assert_eq!((ledger.live(), ledger.taken()), (0, 64_000));
}

#[test]
#[should_panic(expected = "array [3] has no numbers: it was made to plan memory")]
fn an_array_without_numbers_cannot_be_computed_with_afterwards() {
    let planned = Ledger::default().plan(|| Tensor::from_f64([3], &[1.0; 3], DType::F32));
    let _ = planned.exp();
}

#[test]
fn given_numbers_are_remembered_and_computed_ones_are_zeros() {
    Ledger::default().plan(|| {
        let given = Tensor::from_f64([2], &[1.0, 2.0], DType::F32);
        assert_eq!((given.to_f64(), given.exp().to_f64()), (vec![1.0, 2.0], vec![0.0, 0.0]));
        assert!(given.sum_all().item() == 0.0 && given.array().is_finite());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn the_planned_peak_is_within_15_percent_of_the_measured_one() {
    let lab = Lab::new();
    for (workload, batch) in [("mnist28", "16"), ("cifar32", "3")] {
        let mut peaks = Vec::new();
        for recompute in [false, true] {
            let mut args = vec!["bench", workload, "--batch", batch, "--steps", "1", "--threads", "2", "--json"];
            args.extend(recompute.then_some("--recompute"));
            let report = lab.good(&args).json();
            assert_eq!(report["recompute"], recompute);
            let [measured, planned] = ["peak_mb", "planned_mb"].map(|key| report[key].as_f64().unwrap());
            println!(
                "{workload}, batch {batch}, recompute {recompute}: measured {measured:.0}, planned {planned:.0} MB"
            );
            assert!(
                (planned / measured - 1.0).abs() < 0.15,
                "{workload} {recompute}: {planned} planned, {measured} measured"
            );
            peaks.push(measured);
        }
        assert!(peaks[1] < 0.95 * peaks[0], "recomputing saves nothing: {peaks:?}");
    }
}

#[test]
fn info_prints_the_plan_of_a_config() {
    let lab = Lab::new();
    let info = |set: &[&str]| lab.good(&[&["info", "tiny.toml", "--json"], set].concat()).json();
    let (small, large) = (info(&[]), info(&["--set", "train.batch=64", "--set", "train.recompute=true"]));
    assert_eq!((&small["batch"], &small["recompute"]), (&4.into(), &false.into()));
    assert_eq!((&large["batch"], &large["recompute"]), (&64.into(), &true.into()));
    let bytes = |report: &serde_json::Value, key: &str| report[key].as_u64().unwrap();
    assert_eq!(bytes(&small, "optimizer_bytes"), 8 * bytes(&small, "parameters"));
    assert!(bytes(&large, "peak_bytes") > bytes(&small, "peak_bytes"));
    let text = lab.good(&["info", "tiny.toml"]).out;
    assert!(text.contains("kept for the backward pass") && text.contains("estimated peak"), "{text}");
    lab.bad(1, "--set changes an entry of a config", &["info", "mnist", "--set", "train.batch=3"]);
    for given in ["train.recompute=true", "train.recompute=false"] {
        lab.bad(1, "train.recompute has no meaning for a classifier", &["info", "judge.toml", "--set", given]);
    }
}

#[test]
fn training_says_the_estimated_peak_unless_it_is_to_be_quiet() {
    let lab = Lab::new();
    let said = |out: &str, quiet: bool| {
        let mut args = vec!["train", "tiny.toml", "--out", out, "--set", "train.steps=1"];
        args.extend(quiet.then_some("--quiet"));
        lab.good(&args).err.contains("estimated peak of memory: ")
    };
    assert!(said("a", false) && !said("b", true));
}

/// A run whose blocks are recomputed from its middle on ends with the bits of one that keeps everything.
#[test]
fn recomputing_changes_not_a_bit_of_a_run_also_of_one_resumed() {
    let lab = Lab::new();
    let train = |out: &str, steps: &str, recompute: &str| {
        let set = [format!("train.steps={steps}"), format!("train.recompute={recompute}")];
        lab.good(&["train", "tiny.toml", "--resume", "--quiet", "--out", out, "--set", &set[0], "--set", &set[1]]);
    };
    train("kept", "6", "false");
    train("recomputed", "6", "true");
    train("both", "3", "false");
    train("both", "6", "true");
    let parts = |out: &str| {
        ["model", "ema", "optimizer"].map(|part| {
            let file = format!("{out}/checkpoints/step-00000006/{part}.safetensors");
            imagen::nn::Weights::read(&lab.path(&file)).unwrap().tensors
        })
    };
    let kept = parts("kept");
    for other in ["recomputed", "both"] {
        for (kept, other) in kept.iter().zip(parts(other)) {
            assert!(kept.len() == other.len() && kept.iter().all(|(name, array)| array.bit_eq(&other[name])));
        }
        let config = std::fs::read_to_string(lab.path(other).join("config.toml")).unwrap();
        assert!(config.contains("recompute = true"), "{config}");
    }
}
