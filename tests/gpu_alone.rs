//! What needs a GPU to itself: counts of what it does, and its failures. One test at a time; a GPU that failed is opened anew.

#[path = "tiny/mod.rs"]
mod tiny;

use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::cascade::{ModelError, TextToImage, bundled};
use imagen::data::Dataset;
use imagen::diffusion::SampleError;
use imagen::kernels::{DeviceError, gpu, of};
use imagen::nn::Init;
use imagen::optim::{Adam, Ema, Optimizer, clip};
use imagen::random::{Purpose, normal};
use imagen::train::{
    Checkpoint, ClassifierTask, DiffusionTask, Outcome, Progress, RunConfig, RunFolder, TrainError, Trainer,
};
use imagen::unet::{UNet, UNetConfig};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tiny::{Lab, snapshot};

/// A GPU that no other test uses as long as the guard lives; none where there is none.
fn alone() -> Option<(Device, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = gpu::real().or_else(|| gpu::adapters().into_iter().next());
    if first.is_none() {
        assert!(
            std::env::var("IMAGEN_REQUIRE_GPU").as_deref() != Ok("1"),
            "there is no GPU, and IMAGEN_REQUIRE_GPU is 1"
        );
        eprintln!("skipped: there is no GPU");
    }
    let device = gpu::open(first?.number).expect("a GPU can be opened");
    gpu::gpu(device).limit_memory(u64::MAX);
    Some((device, turn))
}

/// The same GPU, opened anew: another device, so that nobody takes arrays of the lost one for its own.
fn reopened(device: Device) -> Device {
    let Device::Gpu(id) = device else { panic!("{device} is no GPU") };
    let again = gpu::open(id.adapter).unwrap();
    assert_ne!(again, device);
    assert!(of(device).check().is_err() && of(again).check().is_ok());
    again
}

fn error(device: Device) -> DeviceError {
    of(device).check().expect_err("the GPU has failed")
}

fn ones(device: Device, n: usize) -> Array {
    of(device).fill(&[n].into(), DType::F32, 1.0)
}

/// Nothing is read, and so nothing is waited for, but what is shown.
#[test]
fn a_training_step_does_not_wait_for_the_gpu() {
    let Some((device, _turn)) = alone() else { return };
    let init = Init::new(7, DType::F32);
    let config = UNetConfig {
        base_channels: 8,
        channel_multipliers: vec![1, 2],
        attention: vec![false, true],
        ..UNetConfig::mnist28()
    };
    let net = UNet::new(config, &init).unwrap();
    let parameters = init.parameters();
    parameters.move_to(device);
    let draw = |i| Tensor::from_f64([2, 1, 8, 8], &normal(0, Purpose::Test, 0, i, 128), DType::F32).to(device);
    let (x, noise) = (draw(0), draw(1));
    let mut adam = Adam::new([0.9, 0.99], 1e-6, 0.0);
    let mut ema = Ema::new(&parameters, 0.9, true).unwrap();
    let mut step = || {
        let loss = net.forward(&x, &[0.3, 0.8], None).mse(&noise);
        let mut gradients = loss.backward();
        clip(&mut gradients, &parameters, 0.5);
        adam.step_averaged(&parameters, &gradients, 1e-3, &mut ema);
        loss
    };
    // The first finds nothing to use again, and a buffer that came from the CPU is not used again before its batch is sent.
    (0..8).for_each(|_| drop(step()));
    let before = gpu::gpu(device).stats();
    let losses = [step(), step(), step()];
    let after = gpu::gpu(device).stats();
    assert_eq!(after.reads, before.reads);
    assert_eq!(after.pipelines, before.pipelines, "everything was compiled before");
    let (kernels, batches) = (after.kernels - before.kernels, after.batches - before.batches);
    assert!(batches * 100 < kernels + 200, "{kernels} kernels were sent in {batches} batches");
    let made = after.pool.made - before.pool.made;
    assert!(made * 100 < kernels, "{made} buffers were made for {kernels} kernels, the others were used again");
    assert!(losses.map(|loss| loss.item()).iter().all(|loss| loss.is_finite()));
    assert_eq!(gpu::gpu(device).stats().reads, before.reads + 3);
}

#[test]
fn used_up_memory_is_an_error_that_names_the_array_and_says_what_helps() {
    let Some((device, _turn)) = alone() else { return };
    // Of a size that no other test uses.
    let n = 7 << 18;
    let kept = ones(device, n);
    let held = gpu::gpu(device).stats().pool;
    gpu::gpu(device).limit_memory(held.live + 5 * (n as u64));
    // One more of 4 bytes a number fits, two do not.
    let second = ones(device, n);
    assert!(of(device).check().is_ok());
    let third = kept.affine(2.0, 0.0);
    let error = error(device);
    let DeviceError::OutOfMemory { what, .. } = &error else { panic!("{error}") };
    assert_eq!(what, "affine [1835008]");
    for part in ["affine [1835008]", "smaller batch", "train.recompute", "MB in use"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Nobody can take for a result what is none.
    assert!(third.to_f64().iter().chain(&kept.to_f64()).all(|v| v.is_nan()));
    drop(second);
    // Opened anew, it works again.
    let device = reopened(device);
    assert_eq!(ones(device, 3).to_f64(), [1.0; 3]);
}

/// Before memory is said to be used up, what is only kept for reuse is given back.
#[test]
fn what_lies_on_shelves_is_given_back_when_memory_is_short() {
    let Some((device, _turn)) = alone() else { return };
    drop(ones(device, 1 << 20).to_f32());
    drop(ones(device, 3 << 18).to_f32());
    let held = gpu::gpu(device).stats().pool;
    assert!(held.shelved >= 7 << 20);
    gpu::gpu(device).limit_memory(held.live + held.shelved);
    // Larger than anything on a shelf, and than what is left.
    let x = ones(device, 5 << 18);
    assert_eq!(x.to_f32(), vec![1.0; 5 << 18]);
    assert_eq!(gpu::gpu(device).stats().pool.shelved, 0);
}

#[test]
fn an_array_too_large_for_the_gpu_is_an_error_that_names_it() {
    let Some((device, _turn)) = alone() else { return };
    let Device::Gpu(id) = device else { unreachable!() };
    let limit = gpu::adapters()[id.adapter as usize].largest_array_bytes;
    let n = limit as usize / 4 + 1;
    let y = of(device).fill(&[n].into(), DType::F32, 0.0);
    let error = error(device);
    assert!(matches!(error, DeviceError::TooLarge { .. }), "{error}");
    assert!(
        error.to_string().contains(&format!("fill [{n}]")) && error.to_string().contains(&limit.to_string()),
        "{error}"
    );
    drop(y);
    // The largest that is allowed is allowed, though its size class is larger.
    let device = reopened(device);
    assert_eq!(of(device).fill(&[n - 1].into(), DType::F32, 2.0).device(), device);
    assert!(of(device).check().is_ok());
}

#[test]
fn a_lost_gpu_is_an_error_and_not_a_panic() {
    let Some((device, _turn)) = alone() else { return };
    let x = ones(device, 100);
    assert_eq!(x.to_f64(), [1.0; 100]);
    gpu::gpu(device).destroy();
    let y = &x.affine(2.0, 0.0) + &ones(device, 100);
    assert!(y.to_f64().iter().all(|v| v.is_nan()));
    let mut parameter = y.clone();
    of(device).add_assign(&mut parameter, &x, 1.0);
    let row = y.reshape([1, 100]);
    assert!(of(device).matmul(&row, &row, false, true).item().is_nan());
    assert!(matches!(error(device), DeviceError::Lost(_)), "{}", error(device));
    let again = reopened(device);
    assert_eq!(ones(again, 3).to_f64(), [1.0; 3]);
    // Arrays of the lost one stay lost, and do not mix with others.
    assert!(x.to_f64().iter().all(|v| v.is_nan()));
    assert!(std::panic::catch_unwind(|| &x + &ones(again, 100)).is_err());
    assert!(of(again).check().is_ok());
}

/// A run of the lab that loses its GPU after `lost_at` steps, if that comes before the end.
fn session(lab: &Lab, device: Device, lost_at: u64) -> Result<Outcome, TrainError> {
    let data = format!("data.folder={}", lab.path("data").display());
    let config = RunConfig::read(&lab.path("tiny.toml"), &[data, "train.steps=9".into()]).unwrap();
    let RunConfig::Diffusion(run) = config.clone() else { panic!("tiny.toml is a diffusion model") };
    let data = Dataset::load(run.data.name, &lab.path("data")).unwrap();
    let task = DiffusionTask::new(run, data).unwrap().on(device);
    let mut trainer = Trainer::new(&task, &config, RunFolder::new(lab.path("run")), true)?;
    trainer.run(&AtomicBool::new(false), &mut |progress| {
        if let Progress::Step(step, ..) = progress
            && step == lost_at
        {
            gpu::gpu(device).destroy();
        }
    })
}

#[test]
fn a_gpu_lost_in_mid_training_ends_the_run_soon_and_leaves_the_last_checkpoint_whole() {
    let Some((device, _turn)) = alone() else { return };
    let lab = Lab::new();
    let started = Instant::now();
    let error = session(&lab, device, 5).expect_err("the GPU was lost");
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    assert!(matches!(error, TrainError::Device(DeviceError::Lost(_))), "{error}");
    assert!(error.to_string().contains("--resume continues"), "{error}");
    // Checkpoints are made every two steps: that of step 4 is the last before the loss, and nothing is half written.
    let checkpoint = Checkpoint::newest(&lab.path("run/checkpoints")).unwrap();
    assert_eq!(checkpoint.step, 4);
    assert!(checkpoint.model.values().chain(checkpoint.ema.values()).all(Array::is_finite));
    assert!(snapshot(&lab.path("run")).keys().all(|path| path.extension().is_none_or(|e| e != "tmp")));
    let device = reopened(device);
    assert_eq!(session(&lab, device, u64::MAX).unwrap(), Outcome::Finished);
}

/// Between the last look at a number and the writing of a checkpoint the GPU may be lost as well.
#[test]
fn a_gpu_lost_just_before_a_checkpoint_leaves_none_full_of_nan() {
    let Some((device, _turn)) = alone() else { return };
    let lab = Lab::new();
    let data = format!("data.folder={}", lab.path("data").display());
    // A score is told after step 4, and a checkpoint follows it at once.
    let config = RunConfig::read(&lab.path("judge.toml"), &[data]).unwrap();
    let RunConfig::Classifier(run) = config.clone() else { panic!("judge.toml is a classifier") };
    let data = Dataset::load(run.data.name, &lab.path("data")).unwrap();
    let task = ClassifierTask::new(run, data).unwrap().on(device);
    let mut trainer = Trainer::new(&task, &config, RunFolder::new(lab.path("run")), false).unwrap();
    let result = trainer.run(&AtomicBool::new(false), &mut |progress| {
        if let Progress::Note(text) = progress
            && text.contains("step 4: test accuracy")
        {
            gpu::gpu(device).destroy();
        }
    });
    let error = result.expect_err("the GPU was lost");
    assert!(matches!(error, TrainError::Device(DeviceError::Lost(_))), "{error}");
    let checkpoint = Checkpoint::newest(&lab.path("run/checkpoints")).unwrap();
    assert_eq!(checkpoint.step, 2);
    assert!(checkpoint.optimizer.values().all(Array::is_finite));
}

#[test]
fn memory_used_up_in_training_is_an_error_and_leaves_the_last_checkpoint_whole() {
    let Some((device, _turn)) = alone() else { return };
    let lab = Lab::new();
    session(&lab, device, u64::MAX).unwrap();
    let before = snapshot(&lab.path("run/checkpoints"));
    gpu::gpu(device).limit_memory(1 << 16);
    let data = format!("data.folder={}", lab.path("data").display());
    let config = RunConfig::read(&lab.path("tiny.toml"), &[data, "train.steps=12".into()]).unwrap();
    let RunConfig::Diffusion(run) = config.clone() else { panic!("tiny.toml is a diffusion model") };
    let data = Dataset::load(run.data.name, &lab.path("data")).unwrap();
    let task = DiffusionTask::new(run, data).unwrap().on(device);
    let mut trainer = Trainer::new(&task, &config, RunFolder::new(lab.path("run")), true).unwrap();
    let error = trainer.run(&AtomicBool::new(false), &mut |_| ()).expect_err("there is no memory");
    assert!(matches!(error, TrainError::Device(DeviceError::OutOfMemory { .. })), "{error}");
    assert!(before == snapshot(&lab.path("run/checkpoints")), "checkpoints have changed");
}

#[test]
fn a_gpu_lost_while_sampling_is_an_error_of_the_sampling() {
    let Some((device, _turn)) = alone() else { return };
    let model = TextToImage::from_weights(&bundled::MNIST.weights().unwrap()).unwrap().on(device);
    let mut request = model.request(vec!["a handwritten seven".into()]);
    request.sampling.steps = 5;
    let result = model.sample(&request, &mut |step| {
        if step.index == 2 {
            gpu::gpu(device).destroy();
        }
        ControlFlow::Continue(())
    });
    let error = result.expect_err("the GPU was lost");
    assert!(matches!(error, ModelError::Sample(SampleError::Device(DeviceError::Lost(_)))), "{error}");
}
