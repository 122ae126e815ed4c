//! T5, the text encoder of Imagen: a Transformer that reads a text and one that writes, trained on text alone. (G1, G2;
//! Raffel et al. 2020, arXiv 1910.10683; v1.1: Shazeer 2020, arXiv 2002.05202)
//!
//! The parameters have the names and shapes of the Hugging Face hub, so that its checkpoints load as they are.

mod config;
mod encoder;
mod hub;
mod layers;
mod position;
mod span_corruption;
mod stack;

pub use config::{FeedForwardKind, T5Config};
pub use encoder::{Residency, T5Encoder};
pub use position::bucket;
pub use span_corruption::{Corruption, Gapped};

use super::{TextError, TokenizerError};
use crate::autograd::{Tensor, no_grad};
use crate::files::FileError;
use crate::nn::{Embedding, Init, Linear, Parameters, WeightsError};
use stack::{Role, Stack};
use std::path::PathBuf;

/// A T5 that cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum T5Error {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The config cannot be used.
    #[error("{} is not the config of a T5: {problem}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A setting of the encoder is out of range.
    #[error(transparent)]
    Setting(#[from] TextError),
    /// The parts do not belong together.
    #[error("{0}")]
    Setup(String),
}

/// The tokens of some texts, padded to the longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// How many texts there are: B.
    pub texts: usize,
    /// Tokens of the longest: n, at least 1.
    pub length: usize,
    /// The ids [B, n], row by row.
    pub ids: Vec<u32>,
    /// Whether there is a token, [B, n]; otherwise it is padding.
    pub mask: Vec<bool>,
}

impl TokenBatch {
    /// Texts of different lengths, filled up with `pad`.
    pub fn pad(texts: &[Vec<u32>], pad: u32) -> TokenBatch {
        let length = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for text in texts {
            ids.extend(text.iter().copied().chain(std::iter::repeat_n(pad, length - text.len())));
            mask.extend((0..length).map(|i| i < text.len()));
        }
        TokenBatch { texts: texts.len(), length, ids, mask }
    }

    /// The bias that hides padding, [B, 1, 1, n]; none if there is no padding.
    fn hidden(&self, like: &Tensor) -> Option<Tensor> {
        let bias = |&seen: &bool| if seen { 0.0 } else { f64::NEG_INFINITY };
        let values: Vec<f64> = self.mask.iter().map(bias).collect();
        self.mask.contains(&false).then(|| like.constant_like([self.texts, 1, 1, self.length], &values))
    }
}

/// A whole T5: it reads one text and writes another.
#[derive(Clone, Debug)]
pub struct T5 {
    shared: Embedding,
    encoder: Stack,
    decoder: Stack,
    /// What the logits are made with, if not with the table of the input.
    head: Option<Linear>,
    config: T5Config,
    parameters: Parameters,
}

impl T5 {
    /// A model whose parameters `init` makes; with its first values a loss near log(vocab_size). An error tells what is wrong
    /// with the config.
    pub fn new(config: T5Config, init: &Init) -> Result<T5, String> {
        config.validate()?;
        let head = || Linear::normal(&init.scope("lm_head"), config.d_model, config.vocab_size, head_std(&config));
        Ok(T5 {
            shared: Embedding::new(&init.scope("shared"), config.vocab_size, config.d_model),
            encoder: Stack::new(&init.scope(Role::Encoder.name()), &config, Role::Encoder),
            decoder: Stack::new(&init.scope(Role::Decoder.name()), &config, Role::Decoder),
            head: (!config.tie_word_embeddings).then(head),
            parameters: init.parameters(),
            config,
        })
    }

    /// What it was made from.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What the encoder makes of texts: [B, n, d_model]. Panics on an id that is not below vocab_size.
    #[track_caller]
    pub fn encode(&self, texts: &TokenBatch) -> Tensor {
        let x = self.embed(texts);
        self.encoder.forward(&x, texts.hidden(&x).as_ref(), None)
    }

    /// The scores of every next token, [B, n, vocab_size]: of `written` after what the encoder has made of `texts`.
    #[track_caller]
    pub fn decode(&self, written: &TokenBatch, texts: &TokenBatch, read: &Tensor) -> Tensor {
        self.logits(&self.decoder_states(written, texts, read))
    }

    // ANCHOR: t5_loss
    /// Mean of -log p(label | labels before it, text) over all labels [B, m], padding left out.
    #[track_caller]
    pub fn loss(&self, texts: &TokenBatch, labels: &TokenBatch) -> Tensor {
        let states = self.decoder_states(&self.shifted(labels), texts, &self.encode(texts));
        let counted: Vec<usize> = (0..labels.ids.len()).filter(|&i| labels.mask[i]).collect();
        let rows: Vec<u32> = counted.iter().map(|&i| i as u32).collect();
        let states = states.reshape([labels.ids.len(), self.config.d_model]).embedding(&rows);
        let classes: Vec<u32> = counted.iter().map(|&i| labels.ids[i]).collect();
        self.logits(&states).cross_entropy(&classes)
    }
    // ANCHOR_END: t5_loss

    /// What the decoder is shown while it learns to write `labels`: the same, one place later.
    pub fn shifted(&self, labels: &TokenBatch) -> TokenBatch {
        let mut ids = labels.ids.clone();
        for row in ids.chunks_mut(labels.length) {
            row.rotate_right(1);
            row[0] = self.config.decoder_start_token_id;
        }
        // Nothing that counts looks at what comes later, so padding need not be hidden.
        TokenBatch { ids, mask: vec![true; labels.mask.len()], ..*labels }
    }

    /// What the model writes of one text: at each place the likeliest token, until the end token, which is the last then, or
    /// until there are `most`.
    #[track_caller]
    pub fn write(&self, text: &[u32], most: usize) -> Vec<u32> {
        let texts = TokenBatch::pad(&[text.to_vec()], self.config.pad_token_id);
        let mut written = vec![self.config.decoder_start_token_id];
        no_grad(|| {
            let read = self.encode(&texts);
            while written.len() <= most && (written.len() == 1 || written.last() != Some(&self.config.eos_token_id)) {
                let so_far = TokenBatch::pad(std::slice::from_ref(&written), self.config.pad_token_id);
                let scores = self.decode(&so_far, &texts, &read).to_f64();
                let last = &scores[scores.len() - self.config.vocab_size..];
                let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap_or(0);
                written.push(best as u32);
            }
        });
        written.split_off(1)
    }

    fn embed(&self, texts: &TokenBatch) -> Tensor {
        self.shared.forward(&texts.ids).reshape([texts.texts, texts.length, self.config.d_model])
    }

    fn decoder_states(&self, written: &TokenBatch, texts: &TokenBatch, read: &Tensor) -> Tensor {
        let hidden = texts.hidden(read).unwrap_or_else(|| read.constant_like([1, 1, 1, 1], &[0.0]));
        self.decoder.forward(&self.embed(written), None, Some((read, &hidden)))
    }

    /// [.., d_model] to [.., vocab_size].
    fn logits(&self, states: &Tensor) -> Tensor {
        match &self.head {
            Some(head) => head.forward(states),
            // v1.0: the table has vectors of unit variance, which would make the scores too large by this.
            None => (states * (1.0 / (self.config.d_model as f64).sqrt())).linear(&self.shared.table(), None),
        }
    }
}

/// So that the first scores have unit variance.
fn head_std(config: &T5Config) -> f64 {
    1.0 / (config.d_model as f64).sqrt()
}
