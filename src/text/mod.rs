//! Captions as numbers: what a text encoder is, and how the captions of a batch are put together.

mod cache;
mod hashed;
pub mod t5;
pub mod tokenizer;

pub use cache::{CacheError, EmbeddingCache};
pub use hashed::HashedWords;
pub use tokenizer::{Tokenizer, TokenizerError, Tokens};

use crate::array::{Array, Device, is_planning};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// A frozen encoder of captions (Imagen, arXiv 2205.11487, section 2.1: text encoders are not trained with the images).
pub trait TextEncoder: Send + Sync {
    /// d, the size of a token's vector.
    fn dim(&self) -> usize;

    /// One vector per token of the caption, [n, d] with n at least 1. Errors: a caption without a word, or one too long. An
    /// encoder that cuts long ones instead says how much of a caption it has not read ([`Embedding::left_out`]).
    fn encode(&self, caption: &str) -> Result<Embedding, TextError>;

    /// [`TextEncoder::encode`] of each caption; an encoder that is faster with many at once does them so.
    fn encode_all(&self, captions: &[&str]) -> Result<Vec<Embedding>, TextError> {
        captions.iter().map(|caption| self.encode(caption)).collect()
    }

    /// The same encoder, computing on `device` where it can. Panics if it is a GPU that was not opened.
    fn on(self: Arc<Self>, device: Device) -> Arc<dyn TextEncoder>;

    /// Whether a caption takes long enough to be worth keeping on the disk (see [`EmbeddingCache`]).
    fn is_costly(&self) -> bool {
        false
    }

    /// Names exactly what `encode` computes: two encoders with the same digest give the same embeddings.
    fn digest(&self) -> String;
}

impl std::fmt::Debug for dyn TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.digest())
    }
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
    /// The model of the encoder cannot be loaded, or does not fit its tokenizer.
    #[error("text encoder: {0}")]
    Model(String),
    /// The encoder is not the one that a model was trained with.
    #[error(
        "the model was trained with another text encoder (digest {wanted}) than the one found now ({found}); put the right \
         one in its place"
    )]
    Other {
        /// The digest that was expected.
        wanted: String,
        /// The digest of what is there.
        found: String,
    },
    /// A setting of the encoder is out of range.
    #[error("text encoder: {setting} = {value} is out of range; it must be from {least} to {most}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: usize,
        /// The smallest value allowed.
        least: usize,
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
    /// Tokens at the end of the caption that the encoder has not read, because it was too long.
    pub left_out: usize,
}

impl Embedding {
    /// The mean of its vectors: d numbers. Zeros for no caption at all.
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.d];
        for token in self.tokens.chunks_exact(self.d.max(1)) {
            mean.iter_mut().zip(token).for_each(|(sum, &v)| *sum += f64::from(v) / self.n as f64);
        }
        mean
    }

    /// No caption at all: [0, d]. In a batch it is all padding.
    pub fn null(d: usize) -> Embedding {
        Embedding { tokens: Vec::new(), n: 0, d, words: Vec::new(), left_out: 0 }
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
    /// [`T5Encoder`](t5::T5Encoder).
    T5 {
        /// A bundled model, a .safetensors file of `imagen train`, the folder of such a run, or a folder in the format of the
        /// Hugging Face hub.
        model: String,
        /// Tokens that are read of a caption: 2 to 2048.
        #[serde(default = "default_max_tokens")]
        max_tokens: usize,
        /// What the encoder's digest must be. A model that is trained with an encoder remembers it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
}

fn default_max_tokens() -> usize {
    t5::T5Encoder::USUAL_TOKENS
}

fn default_max_words() -> usize {
    HashedWords::DEFAULT_MAX_WORDS
}

impl TextEncoderConfig {
    /// The encoder. Errors: [`TextError::Setting`]; for a T5 also [`TextError::Model`] and [`TextError::Other`].
    pub fn build(&self) -> Result<Arc<dyn TextEncoder>, TextError> {
        let encoder: Arc<dyn TextEncoder> = match self {
            TextEncoderConfig::HashedWords { dim, seed, max_words } => {
                return Ok(Arc::new(HashedWords::new(*dim, *seed, *max_words)?));
            }
            TextEncoderConfig::T5 { model, max_tokens, .. } => Arc::new(t5::T5Encoder::find(model, *max_tokens)?),
        };
        match self.digest() {
            Some(wanted) if !is_planning() && wanted != encoder.digest() => {
                Err(TextError::Other { wanted, found: encoder.digest() })
            }
            _ => Ok(encoder),
        }
    }

    /// The digest that the encoder must have, if that was settled.
    fn digest(&self) -> Option<String> {
        match self {
            TextEncoderConfig::HashedWords { .. } => None,
            TextEncoderConfig::T5 { digest, .. } => digest.clone(),
        }
    }

    /// The same config, bound to this very encoder.
    pub fn bound(mut self, encoder: &dyn TextEncoder) -> TextEncoderConfig {
        if let TextEncoderConfig::T5 { digest, .. } = &mut self {
            *digest = Some(encoder.digest());
        }
        self
    }

    /// d, if it can be told without looking at files. Errors: [`TextError::Setting`].
    pub fn dim(&self) -> Result<Option<usize>, TextError> {
        match self {
            TextEncoderConfig::HashedWords { dim, seed, max_words } => {
                Ok(Some(HashedWords::new(*dim, *seed, *max_words)?.dim()))
            }
            TextEncoderConfig::T5 { max_tokens, .. } => t5::T5Encoder::check_limit(*max_tokens).map(|()| None),
        }
    }
}
