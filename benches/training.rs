//! `cargo bench --bench training`: a training step, a forward pass and one step of guided sampling of a small U-Net with
//! text, as the MNIST model has it. `imagen bench` times the two large reference workloads.

use criterion::{Criterion, Throughput};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::{ClassifierFree, Denoiser, Guided};
use imagen::nn::Init;
use imagen::optim::{Adam, Optimizer};
use imagen::random::{Purpose, normal};
use imagen::unet::{Condition, TextConfig, UNet, UNetConfig};
use std::hint::black_box;
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

    let config = UNetConfig {
        base_channels: 16,
        blocks: 1,
        scale_shift: true,
        text: Some(TextConfig { dim: TEXT_DIM }),
        ..UNetConfig::mnist28()
    };
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
    criterion.final_summary();
}
