//! T5 on the GPU: the encoder, and a training step of the whole model.

use crate::device;
use imagen::array::{Array, DType, Device};
use imagen::nn::Init;
use imagen::text::t5::{FeedForwardKind, Residency, T5, T5Config, T5Encoder, TokenBatch};
use std::path::Path;

fn texts() -> TokenBatch {
    TokenBatch::pad(&[3, 11, 6].map(|n| (0..n).map(|i| 2 + (7 * i + n) % 90).collect::<Vec<u32>>()), 0)
}

fn worst(a: &Array, b: &Array) -> f64 {
    let largest = b.to_f64().iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn the_encoder_gives_the_hidden_states_of_the_cpu() {
    let Some(gpu) = device() else { return };
    for version in ["v1_0", "v1_1"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/t5-{version}-tiny"));
        for residency in [Residency::Whole, Residency::Streamed] {
            let [here, there] = [Device::Cpu, gpu].map(|device| {
                let encoder = T5Encoder::open(&folder, 64, residency).unwrap();
                encoder.move_to(device);
                let states = encoder.forward(&texts());
                assert_eq!(states.device(), device);
                states.into_array()
            });
            assert!(worst(&there, &here) < 1e-5, "{version} {residency:?}: {:e}", worst(&there, &here));
        }
    }
}

/// Against f64, as near as the CPU in f32 or within 1e-5 of the largest.
#[test]
fn a_training_step_of_t5_has_the_loss_and_the_gradients_of_the_cpu() {
    let Some(gpu) = device() else { return };
    let config = T5Config {
        vocab_size: 96,
        d_model: 32,
        d_kv: 8,
        d_ff: 48,
        num_layers: 2,
        num_decoder_layers: Some(1),
        num_heads: 4,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForwardKind::GatedGelu,
        tie_word_embeddings: false,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
    };
    let labels = TokenBatch::pad(&[vec![5, 9, 1], vec![1], vec![7, 8, 90, 1]], 0);
    let step = |dtype, device| {
        let model = T5::new(config.clone(), &Init::new(4, DType::F32)).unwrap();
        model.parameters().iter().for_each(|p| p.update(|value| *value = value.cast(DType::F32)));
        let model = match dtype {
            DType::F64 => {
                let exact = T5::new(config.clone(), &Init::blank(DType::F64)).unwrap();
                for (to, from) in exact.parameters().iter().zip(model.parameters().iter()) {
                    to.update(|value| *value = from.tensor().array().cast(DType::F64));
                }
                exact
            }
            DType::F32 => model,
        };
        model.parameters().move_to(device);
        let loss = model.loss(&texts(), &labels);
        let gradients = loss.backward();
        let of = |p: &imagen::nn::Param| (p.name().to_string(), gradients.get(&p.tensor()).unwrap().to(Device::Cpu));
        (loss.item(), model.parameters().iter().map(of).collect::<Vec<_>>())
    };
    let (exact_loss, exact) = step(DType::F64, Device::Cpu);
    let (_, cpu) = step(DType::F32, Device::Cpu);
    let (loss, found) = step(DType::F32, gpu);
    assert!((loss - exact_loss).abs() < 1e-5 * exact_loss, "{loss} {exact_loss}");
    for (((name, found), (_, cpu)), (_, exact)) in found.iter().zip(&cpu).zip(&exact) {
        let (error, of_cpu) = (worst(found, exact), worst(cpu, exact));
        assert!(error < 1e-5_f64.max(8.0 * of_cpu), "{name}: {error:e}, the CPU {of_cpu:e}");
    }
}
