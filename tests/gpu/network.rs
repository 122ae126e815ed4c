//! A whole network: a training step, ten of them, and a sampling run, on the GPU as on the CPU.

use crate::device;
use crate::tiny::Lab;
use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::cascade::TextToImage;
use imagen::data::Dataset;
use imagen::diffusion::LowRes;
use imagen::nn::{Init, Parameters};
use imagen::optim::{Adam, Ema, Optimizer, clip};
use imagen::random::{Purpose, hash, normal};
use imagen::train::{DiffusionTask, Metrics, Outcome, Progress, RunConfig, RunFolder, Task, Trainer};
use imagen::unet::{Blocks, Condition, Resampling, UNet, UNetConfig};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

/// Three levels, attention at two of them, in colour.
fn config() -> UNetConfig {
    UNetConfig {
        image_channels: 3,
        base_channels: 16,
        channel_multipliers: vec![1, 2, 2],
        blocks: 1.into(),
        attention: vec![false, true, true],
        ..UNetConfig::mnist28()
    }
}

/// An Efficient U-Net.
fn efficient() -> UNetConfig {
    UNetConfig {
        channel_multipliers: vec![1, 2],
        blocks: Blocks::Each(vec![1, 2]),
        attention: vec![false, true],
        scale_shift: true,
        ..config()
    }
    .efficient()
}

/// Guided diffusion's: blocks that halve and double.
fn guided() -> UNetConfig {
    UNetConfig { resampling: Resampling::Residual, scale_shift: true, ..config() }
}

const SHAPE: [usize; 4] = [2, 3, 12, 12];

/// A network in which nothing is 0 any more, as if it had been trained.
fn network(config: UNetConfig, dtype: DType, device: Device) -> (UNet, Parameters) {
    let init = Init::new(7, dtype);
    let net = UNet::new(config, &init).unwrap();
    let parameters = init.parameters();
    for param in parameters.iter() {
        let noise = normal(1, Purpose::Test, 0, hash(param.name()), param.shape().numel());
        // Drawn in f32, so that the network is the same in f64.
        let noise = Array::from_f64(param.shape(), &noise, DType::F32).affine(0.02, 0.0).cast(dtype);
        param.update(|value| *value = &value.cast(DType::F32).cast(dtype) + &noise);
        param.update(|value| *value = value.cast(DType::F32).cast(dtype));
    }
    parameters.move_to(device);
    (net, parameters)
}

/// Images and noise.
fn batch(dtype: DType, device: Device) -> [Tensor; 2] {
    [0, 1].map(|i| {
        let values = normal(0, Purpose::Test, 0, i, SHAPE.iter().product());
        Tensor::from_f64(SHAPE, &values, DType::F32).array().cast(dtype).to(device).into()
    })
}

/// The loss and every gradient of one step of a network that makes images larger.
fn step(config: UNetConfig, dtype: DType, device: Device) -> (f64, Vec<(String, Array)>) {
    let (net, parameters) = network(UNetConfig { low_res: true, ..config }, dtype, device);
    let [x, noise] = batch(dtype, device);
    let shown = LowRes { images: noise.affine(0.5, 0.1), aug: vec![0.1, 0.7] };
    let loss = net.forward(&x, &[0.3, 0.8], Some(&Condition::low_res(shown))).mse(&noise);
    let gradients = loss.backward();
    let all = parameters.iter().map(|p| (p.name().to_string(), gradients.get(&p.tensor()).unwrap().clone()));
    (loss.item(), all.collect())
}

/// |a - b| / |b|, as vectors.
fn relative_distance(a: &Array, b: &Array) -> f64 {
    let (a, b) = (a.to_f64(), b.to_f64());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let distance = squares(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    if distance == 0.0 { 0.0 } else { distance / squares(&mut b.iter().copied()).max(1e-8) }
}

/// The GPU's gradients are as near to those of f64 as the CPU's in f32 are, give or take a few roundings.
#[test]
fn a_training_step_has_the_loss_and_the_gradients_of_the_cpu() {
    let Some(gpu) = device() else { return };
    for config in [config(), efficient(), guided()] {
        compare_steps(config, gpu);
    }
}

fn compare_steps(config: UNetConfig, gpu: Device) {
    let (exact_loss, exact) = step(config.clone(), DType::F64, Device::Cpu);
    let (cpu_loss, on_cpu) = step(config.clone(), DType::F32, Device::Cpu);
    let (gpu_loss, on_gpu) = step(config, DType::F32, gpu);
    assert!(
        (gpu_loss - exact_loss).abs() < 1e-5 * exact_loss,
        "loss {gpu_loss}, {exact_loss} in f64, {cpu_loss} on the CPU"
    );
    for (((name, found), (_, cpu)), (_, truth)) in on_gpu.iter().zip(&on_cpu).zip(&exact) {
        assert_eq!(found.device(), gpu);
        let (error, of_cpu) = (relative_distance(found, truth), relative_distance(cpu, truth));
        assert!(error < 1e-5_f64.max(8.0 * of_cpu), "{name}: {error:e} from the truth, the CPU {of_cpu:e}");
    }
}

/// Losses, and weights and their averages at the end, of ten steps with clipping, Adam and averaging.
fn ten_steps(device: Device) -> (Vec<f64>, Vec<Array>) {
    let (net, parameters) = network(config(), DType::F32, device);
    let mut adam = Adam::new([0.9, 0.99], 1e-6, 0.01);
    let mut ema = Ema::new(&parameters, 0.9, true).unwrap();
    let [x, noise] = batch(DType::F32, device);
    let losses: Vec<Tensor> = (0..10)
        .map(|_| {
            let loss = net.forward(&x, &[0.3, 0.8], None).mse(&noise);
            let mut gradients = loss.backward();
            clip(&mut gradients, &parameters, 0.5);
            adam.step_averaged(&parameters, &gradients, 1e-3, &mut ema);
            loss
        })
        .collect();
    let weights = parameters.values().into_values().chain(ema.values().values().cloned()).collect();
    (losses.iter().map(Tensor::item).collect(), weights)
}

/// Adam divides by the root of the second moment: where a gradient is all rounding its sign is, too, and the step is a whole
/// one. So ten steps are compared by their losses, and by how far the weights have come apart as a share of how far they can go.
#[test]
fn ten_training_steps_go_the_way_of_the_cpu() {
    let Some(gpu) = device() else { return };
    let ((losses, weights), (expected, on_cpu)) = (ten_steps(gpu), ten_steps(Device::Cpu));
    for (step, (a, b)) in losses.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() < 1e-3 * b, "step {step}: loss {a}, {b} on the CPU");
    }
    assert!(losses[9] < 0.9 * losses[0], "nothing was learnt: {losses:?}");
    let farthest = 10.0 * 1e-3;
    for (a, b) in weights.iter().zip(&on_cpu) {
        let rms =
            (a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.numel() as f64).sqrt();
        assert!(rms < 0.05 * farthest, "weights {} are {rms:e} apart", a.shape());
    }
}

#[test]
fn ten_training_steps_have_the_same_bits_every_time() {
    let Some(gpu) = device() else { return };
    let ((losses, weights), (others, again)) = (ten_steps(gpu), ten_steps(gpu));
    assert_eq!(losses, others);
    assert!(weights.iter().zip(&again).all(|(a, b)| a.bit_eq(b)));
}

/// The same noise, the same prompts: after ten steps with guidance and dynamic thresholding pixels are within 1/100 of a grey level
/// (of 256) of those of the CPU.
#[test]
fn a_sampling_run_ends_at_the_images_of_the_cpu() {
    let Some(gpu) = device() else { return };
    let weights = imagen::cascade::bundled::MNIST.weights().unwrap();
    let images = [Device::Cpu, gpu].map(|device| {
        let model = TextToImage::from_weights(&weights).unwrap().on(device);
        let mut request = model.request(vec!["a handwritten seven".into()]);
        request.sampling.steps = 10;
        let mut steps = 0;
        let images = model.sample(&request, &mut |step| {
            steps += 1;
            assert_eq!(step.x0_hat.device(), device);
            ControlFlow::Continue(())
        });
        assert_eq!(steps, 10);
        images.unwrap()
    });
    assert_eq!(images[1].device(), Device::Cpu);
    let farthest = images[0].to_f64().iter().zip(images[1].to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(farthest < 0.01 * 2.0 / 255.0, "pixels are up to {farthest} apart");
    // Not two times the same nothing.
    assert!(images[0].to_f64().iter().any(|&v| v > 0.5));
}

/// A run on `device` in a folder of the lab, stopped after `stop_at` steps if that comes before the end.
fn session(lab: &Lab, folder: &str, device: Device, stop_at: u64) -> Outcome {
    let data = format!("data.folder={}", lab.path("data").display());
    let config = RunConfig::read(&lab.path("tiny.toml"), &[data]).unwrap();
    let RunConfig::Diffusion(run) = config.clone() else { panic!("tiny.toml is a diffusion model") };
    let data = Dataset::load(run.data.name, &lab.path("data")).unwrap();
    let task = DiffusionTask::new(run, data).unwrap().on(device);
    let mut trainer = Trainer::new(&task, &config, RunFolder::new(lab.path(folder)), true).unwrap();
    assert!(
        task.parameters().iter().all(|p| p.tensor().device() == device),
        "a resumed run goes on where it was told to"
    );
    let stop = AtomicBool::new(false);
    trainer
        .run(&stop, &mut |progress| {
            if let Progress::Step(step, ..) = progress {
                stop.store(step >= stop_at, Ordering::Relaxed);
            }
        })
        .unwrap()
}

#[test]
fn a_run_on_the_gpu_goes_on_where_it_was_interrupted_and_may_change_the_device() {
    let Some(gpu) = device() else { return };
    let lab = Lab::new();
    assert_eq!(session(&lab, "whole", gpu, u64::MAX), Outcome::Finished);
    assert_eq!(session(&lab, "parts", gpu, 3), Outcome::Interrupted(3));
    assert_eq!(session(&lab, "parts", gpu, u64::MAX), Outcome::Finished);
    let model = |folder: &str| std::fs::read(lab.path(folder).join("model.safetensors")).unwrap();
    assert!(model("whole") == model("parts"), "an interrupted run ends with other weights");
    assert_eq!(session(&lab, "moved", gpu, 3), Outcome::Interrupted(3));
    assert_eq!(session(&lab, "moved", Device::Cpu, u64::MAX), Outcome::Finished);
    let metrics = |folder: &str| Metrics::read(&lab.path(folder).join("metrics.jsonl")).unwrap();
    for (a, b) in metrics("whole").iter().zip(metrics("moved")) {
        assert!((a.loss - b.loss).abs() < 1e-3 * a.loss, "step {}: {} and {}", a.step, a.loss, b.loss);
    }
}
