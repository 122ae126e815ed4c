//! G: T5, from the pieces of its words to its hidden states.

mod checkpoints;
mod corruption;
mod derivations;
mod golden;
mod model;
mod tokenizers;

use imagen::array::{Array, DType};
use imagen::nn::Init;
use imagen::text::t5::{FeedForwardKind, T5, T5Config};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A whole model as the hub stores it, and what it must give.
fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("t5-{version}-tiny"))
}

const BOTH: [&str; 2] = ["v1_0", "v1_1"];

/// `expected.json`
#[derive(Deserialize)]
struct Expected {
    prompts: Vec<String>,
    /// With the end token.
    ids: Vec<Vec<u32>>,
    /// Without it.
    pieces: Vec<Vec<String>>,
}

fn expected(version: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(fixture(version).join("expected.json")).unwrap()).unwrap()
}

/// Tensors of any type out of a safetensors file.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(path: &Path) -> Tensors {
        Tensors(std::fs::read(path).unwrap())
    }

    /// Shape and values of an I64 tensor.
    fn longs(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64);
        (view.shape().to_vec(), view.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect())
    }

    fn floats(&self, name: &str) -> Array {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32);
        let values = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Array::from_vec(view.shape().to_vec(), values)
    }

    fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.0).unwrap().names().into_iter().map(|name| name.to_string()).collect()
    }
}

/// The largest |a - b|.
fn distance(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.shape(), b.shape());
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A model small enough for anything.
fn tiny(feed_forward_proj: FeedForwardKind, tie_word_embeddings: bool) -> T5Config {
    T5Config {
        vocab_size: 20,
        d_model: 8,
        d_kv: 3,
        d_ff: 10,
        num_layers: 2,
        num_decoder_layers: Some(1),
        num_heads: 2,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 12,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj,
        tie_word_embeddings,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
    }
}

fn tiny_model(dtype: DType) -> T5 {
    T5::new(tiny(FeedForwardKind::GatedGelu, false), &Init::new(3, dtype)).unwrap()
}
