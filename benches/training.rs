//! `cargo bench --bench training`: whole networks. A training step, a forward pass and one step of guided sampling of a small
//! U-Net with text, as the MNIST model has it; the two reference workloads (`imagen bench` times them too, with their
//! memory), on the CPU and, if there is one that is not made of software, on a GPU; a grid of samples; and how the time of
//! sampling grows with steps, images, their size and threads.

use criterion::{Criterion, Throughput};
use imagen::array::{Array, DType, Device};
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::{ClassifierFree, Denoiser, Guided, Images, Sampler, Sampling, ScheduleConfig, Target};
use imagen::kernels::{gpu, of};
use imagen::nn::Init;
use imagen::optim::{Adam, Optimizer};
use imagen::random::{Purpose, normal};
use imagen::unet::{Condition, TextConfig, UNet, UNetConfig};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

const BATCH: usize = 16;
const TOKENS: usize = 6;
const TEXT_DIM: usize = 64;

fn random(index: u64, shape: [usize; 4]) -> Tensor {
    Tensor::from_f64(shape, &normal(0, Purpose::Test, 0, index, shape.iter().product()), DType::F32)
}

fn main() {
    // As the command line has it: the calling thread computes too.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().expect("nothing has started a pool before");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    with_text(&mut criterion);
    workloads(&mut criterion, Device::Cpu);
    if let Some(adapter) = gpu::real() {
        match gpu::open(adapter.number) {
            Ok(device) => workloads(&mut criterion, device),
            Err(error) => eprintln!("the GPU is left out: {error}"),
        }
    }
    scaling(&mut criterion);
    criterion.final_summary();
}

/// A network of the bundled model's kind, with text.
fn small() -> UNetConfig {
    UNetConfig {
        base_channels: 16,
        blocks: 1.into(),
        scale_shift: true,
        text: Some(TextConfig { dim: TEXT_DIM }),
        ..UNetConfig::mnist28()
    }
}

fn with_text(criterion: &mut Criterion) {
    let config = small();
    let init = Init::new(0, DType::F32);
    let net = UNet::new(config, &init).expect("a valid config");
    let parameters = init.parameters();
    let mut optimizer = Adam::new([0.9, 0.999], 1e-8, 0.0);
    let (x, noise) = (random(0, [BATCH, 1, 28, 28]), random(1, [BATCH, 1, 28, 28]));
    let t: Vec<f64> = (0..BATCH).map(|i| (i as f64 + 0.5) / BATCH as f64).collect();
    let words = random(2, [BATCH, TOKENS, TEXT_DIM, 1]).reshape([BATCH, TOKENS, TEXT_DIM]).into_array();
    let condition = Condition::new(words, Array::from_vec([BATCH, TOKENS], vec![1_f32; BATCH * TOKENS]));
    let guided = Guided { condition: Some(condition.clone()), null: None };

    let mut group = criterion.benchmark_group(format!("U-Net of {} parameters, batch {BATCH}", parameters.count()));
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("training step", |bencher| {
        bencher.iter(|| {
            let gradients = net.forward(&x, &t, Some(&condition)).mse(&noise).backward();
            optimizer.step(&parameters, &gradients, 1e-4);
        });
    });
    group.bench_function("forward", |bencher| {
        bencher.iter(|| black_box(no_grad(|| net.forward(&x, &t, Some(&condition)))));
    });
    group.bench_function("guided prediction", |bencher| {
        let denoiser = ClassifierFree { denoiser: &net, weight: 3.0 };
        bencher.iter(|| black_box(no_grad(|| denoiser.predict(&x, &t, &guided))));
    });
    group.finish();
}

/// The two reference workloads on `device`. On a GPU every repetition ends with reading a number back, so that all of its work
/// is counted.
fn workloads(criterion: &mut Criterion, device: Device) {
    let wait = || {
        if device.is_asynchronous() {
            of(device).fill(&[1].into(), DType::F32, 0.0).to_f32();
        }
    };
    let place = if device == Device::Cpu { String::new() } else { format!(" on {device}") };
    for (name, config, side, batch) in
        [("mnist28", UNetConfig::mnist28(), 28, 64), ("cifar32", UNetConfig::cifar32(), 32, 16)]
    {
        let shape = [batch, config.image_channels, side, side];
        let init = Init::new(0, DType::F32);
        let net = UNet::new(config, &init).expect("a valid config");
        let parameters = init.parameters();
        parameters.move_to(device);
        let mut optimizer = Adam::new([0.9, 0.999], 1e-8, 0.0);
        let (x, noise) = (random(0, shape).to(device), random(1, shape).to(device));
        let t: Vec<f64> = (0..batch).map(|i| (i as f64 + 0.5) / batch as f64).collect();
        let mut group = criterion.benchmark_group(format!("{name}, batch {batch}{place}"));
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function("training step", |bencher| {
            bencher.iter(|| {
                let gradients = net.forward(&x, &t, None).mse(&noise).backward();
                optimizer.step(&parameters, &gradients, 1e-4);
                wait();
            });
        });
        group.bench_function("forward", |bencher| {
            bencher.iter(|| {
                black_box(no_grad(|| net.forward(&x, &t, None)));
                wait();
            });
        });
        group.finish();
        of(device).check().expect("the device has not failed");
    }
}

/// Sampling without text: a grid of 16 images in 20 steps, then one of steps, images, size and threads changed at a time.
fn scaling(criterion: &mut Criterion) {
    let schedule = ScheduleConfig::Cosine.build();
    let net = UNet::new(UNetConfig { text: None, ..small() }, &Init::new(0, DType::F32)).expect("a valid config");
    let (steps, images, side, threads) = (20, 16, 28, rayon::current_num_threads());
    let mut settings = vec![(steps, images, side, threads)];
    settings.extend([5, 10, 40].map(|steps| (steps, images, side, threads)));
    settings.extend([1, 4, 64].map(|images| (steps, images, side, threads)));
    settings.extend([16, 56].map(|side| (steps, images, side, threads)));
    settings.extend((1..threads).map(|threads| (steps, images, side, threads)));
    let mut group = criterion.benchmark_group("sampling");
    for (steps, images, side, threads) in settings {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let settings = Sampling { steps, ..Sampling::default() };
        let sampler = Sampler { schedule: &schedule, denoiser: &net, target: Target::V, condition: &None, settings };
        let seeds: Vec<(u64, u64)> = (0..images).map(|index| (0, index)).collect();
        let images_wanted = Images { size: [1, side, side], dtype: DType::F32, seeds: &seeds };
        group.throughput(Throughput::Elements(images * steps as u64));
        group.bench_function(format!("{steps} steps, {images} images, {side}x{side}, {threads} threads"), |bencher| {
            bencher.iter(|| {
                pool.install(|| {
                    sampler.sample(&images_wanted, &mut |_| ControlFlow::Continue(())).expect("finite numbers")
                })
            });
        });
    }
    group.finish();
}
