//! Captions as numbers: what a text encoder is, and how the captions of a batch are put together.

mod hashed;

pub use hashed::HashedWords;

use crate::array::Array;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// A frozen encoder of captions (Imagen, arXiv 2205.11487, section 2.1: text encoders are not trained with the images).
pub trait TextEncoder: Send + Sync {
    /// d, the size of a token's vector.
    fn dim(&self) -> usize;

    /// One vector per token of the caption, [n, d] with n at least 1. Errors: a caption without a word, or one too long.
    fn encode(&self, caption: &str) -> Result<Embedding, TextError>;

    /// Names exactly what `encode` computes: two encoders with the same digest give the same embeddings.
    fn digest(&self) -> String;
}

/// Why a caption could not be encoded, or an encoder not built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// Nothing is left of the caption without its punctuation.
    #[error("the prompt {caption:?} has no words; write what the picture should show")]
    Empty {
        /// The caption.
        caption: String,
    },
    /// The caption has more words than the encoder takes. It is not cut: what was asked for would be lost silently.
    #[error("the prompt has {words} words, but the text encoder takes at most {limit}; shorten it")]
    TooLong {
        /// How many words it has.
        words: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A setting of the encoder is out of range.
    #[error("text encoder: {setting} = {value} is out of range; it must be from 1 to {most}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: usize,
        /// The largest value allowed.
        most: usize,
    },
}

/// One caption as an encoder sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// One vector per token, [n, d], row-major.
    pub tokens: Vec<f32>,
    /// How many tokens there are.
    pub n: usize,
    /// The size of a token's vector.
    pub d: usize,
    /// The tokens as text: n of them.
    pub words: Vec<String>,
}

impl Embedding {
    /// No caption at all: [0, d]. In a batch it is all padding.
    pub fn null(d: usize) -> Embedding {
        Embedding { tokens: Vec::new(), n: 0, d, words: Vec::new() }
    }
}

/// The captions of a batch, padded to the longest.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// [B, N, D], f32; 0 where there is padding.
    pub tokens: Array,
    /// [B, N], f32: 1 for a token, 0 for padding.
    pub mask: Array,
}

impl TextBatch {
    /// Pads captions to the longest, and to one column at least. Panics if there are none, or if their vectors differ in
    /// size.
    #[track_caller]
    pub fn pad(captions: &[Embedding]) -> TextBatch {
        let d = captions.first().expect("TextBatch::pad: no captions").d;
        let n = captions.iter().map(|caption| caption.n).max().unwrap_or(0).max(1);
        let mut tokens = vec![0f32; captions.len() * n * d];
        let mut mask = vec![0f32; captions.len() * n];
        for (row, caption) in captions.iter().enumerate() {
            assert_eq!(caption.d, d, "TextBatch::pad: caption {row} has vectors of {}, caption 0 of {d}", caption.d);
            tokens[row * n * d..][..caption.n * d].copy_from_slice(&caption.tokens);
            mask[row * n..][..caption.n].fill(1.0);
        }
        TextBatch {
            tokens: Array::from_vec([captions.len(), n, d], tokens),
            mask: Array::from_vec([captions.len(), n], mask),
        }
    }
}

/// A text encoder, as a config names it: in TOML, `encoder = "hashed-words"` and its settings beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "encoder", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TextEncoderConfig {
    /// [`HashedWords`].
    HashedWords {
        /// d, the size of a word's vector: 1 to 65536.
        dim: usize,
        /// Chooses the vectors.
        #[serde(default)]
        seed: u64,
        /// The longest caption: 1 to 4096 words.
        #[serde(default = "default_max_words")]
        max_words: usize,
    },
}

fn default_max_words() -> usize {
    HashedWords::DEFAULT_MAX_WORDS
}

impl TextEncoderConfig {
    /// The encoder. Errors: [`TextError::Setting`].
    pub fn build(&self) -> Result<Arc<dyn TextEncoder>, TextError> {
        match *self {
            TextEncoderConfig::HashedWords { dim, seed, max_words } => {
                Ok(Arc::new(HashedWords::new(dim, seed, max_words)?))
            }
        }
    }
}
