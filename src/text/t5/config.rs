//! The sizes of a T5 model, as `config.json` on the Hugging Face hub gives them.

use serde::{Deserialize, Serialize};

/// What a T5 model is made from. Keys of `config.json` that are not here change nothing that is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct T5Config {
    /// Rows of the embedding table; at least as many as the tokenizer has pieces.
    pub vocab_size: usize,
    /// Features of a token between the layers.
    pub d_model: usize,
    /// Features of a key, query or value in one head. `num_heads` times this need not be `d_model`.
    pub d_kv: usize,
    /// Features inside the feed-forward layers.
    pub d_ff: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Blocks of the decoder; as many as the encoder has if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    /// Heads of every attention.
    pub num_heads: usize,
    /// Classes of distance between two tokens: 32 if it is not given.
    pub relative_attention_num_buckets: usize,
    /// Distances from here on are all alike: 128 if it is not given.
    pub relative_attention_max_distance: usize,
    /// Added to the mean square in the normalisation: 1e-6 if it is not given.
    pub layer_norm_epsilon: f64,
    /// What is inside the feed-forward layers: as in v1.0 if it is not given.
    pub feed_forward_proj: FeedForwardKind,
    /// Whether the table of the input also gives the logits (v1.0, and if it is not given); otherwise there is another for them (v1.1).
    pub tie_word_embeddings: bool,
    /// The token that fills up short texts: 0 if it is not given.
    pub pad_token_id: u32,
    /// The token that ends a text: 1 if it is not given.
    pub eos_token_id: u32,
    /// What the decoder sees in front of its first token: 0 if it is not given.
    pub decoder_start_token_id: u32,
}

/// A [`T5Config`] as it is written: `null` is as good as nothing, for some programs write all that they know.
#[derive(Deserialize)]
struct Stored {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    relative_attention_num_buckets: Option<usize>,
    relative_attention_max_distance: Option<usize>,
    layer_norm_epsilon: Option<f64>,
    feed_forward_proj: Option<FeedForwardKind>,
    tie_word_embeddings: Option<bool>,
    pad_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    decoder_start_token_id: Option<u32>,
}

impl From<Stored> for T5Config {
    fn from(stored: Stored) -> T5Config {
        T5Config {
            vocab_size: stored.vocab_size,
            d_model: stored.d_model,
            d_kv: stored.d_kv,
            d_ff: stored.d_ff,
            num_layers: stored.num_layers,
            num_decoder_layers: stored.num_decoder_layers,
            num_heads: stored.num_heads,
            relative_attention_num_buckets: stored.relative_attention_num_buckets.unwrap_or(32),
            relative_attention_max_distance: stored.relative_attention_max_distance.unwrap_or(128),
            layer_norm_epsilon: stored.layer_norm_epsilon.unwrap_or(1e-6),
            feed_forward_proj: stored.feed_forward_proj.unwrap_or_default(),
            tie_word_embeddings: stored.tie_word_embeddings.unwrap_or(true),
            pad_token_id: stored.pad_token_id.unwrap_or(0),
            eos_token_id: stored.eos_token_id.unwrap_or(1),
            decoder_start_token_id: stored.decoder_start_token_id.unwrap_or(0),
        }
    }
}

/// What is inside the feed-forward layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForwardKind {
    /// wo relu(wi x): T5 v1.0.
    #[default]
    Relu,
    /// wo (gelu(wi_0 x) * wi_1 x), with the tanh form of gelu: T5 v1.1. (Shazeer 2020, arXiv 2002.05202)
    GatedGelu,
}

/// More features than this are taken for a damaged file: T5 XXL has at most 10240.
const MOST: usize = 1 << 20;

/// And more blocks than this: T5 XXL has 24 in each stack.
const MOST_LAYERS: usize = 1000;

impl T5Config {
    /// Blocks of the decoder.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Reads `config.json`. An error tells what is wrong with it.
    pub fn parse(json: &str) -> Result<T5Config, String> {
        let config: T5Config = serde_json::from_str(json).map_err(|e| e.to_string())?;
        config.validate()?;
        Ok(config)
    }

    /// The config as JSON, for the metadata of weights.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a config can always be written")
    }

    /// An error naming the first entry that is out of range.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("vocab_size", self.vocab_size, MOST),
            ("d_model", self.d_model, MOST),
            ("d_kv", self.d_kv, MOST),
            ("d_ff", self.d_ff, MOST),
            ("num_layers", self.num_layers, MOST_LAYERS),
            ("num_decoder_layers", self.decoder_layers(), MOST_LAYERS),
            ("num_heads", self.num_heads, MOST),
            ("d_kv times num_heads", self.d_kv.saturating_mul(self.num_heads), MOST),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{key} must be between 1 and {most}, not {value}"));
            }
        }
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        // Half of the buckets are for each direction, and half of those for distances of their own.
        if !buckets.is_multiple_of(4) || !(4..=MOST).contains(&buckets) || !(buckets / 2 + 1..=MOST).contains(&distance)
        {
            return Err(format!(
                "relative_attention_num_buckets = {buckets} must be a multiple of 4, and \
                 relative_attention_max_distance = {distance} more than half of it"
            ));
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon.is_finite()) {
            return Err(format!("layer_norm_epsilon must be above 0, not {}", self.layer_norm_epsilon));
        }
        for (key, id) in [
            ("pad_token_id", self.pad_token_id),
            ("eos_token_id", self.eos_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ] {
            if id as usize >= self.vocab_size {
                return Err(format!("{key} = {id} is not among the {} of vocab_size", self.vocab_size));
            }
        }
        Ok(())
    }

    /// How many numbers the encoder has, its embedding table included. The config must be valid.
    pub fn encoder_parameters(&self) -> u64 {
        (self.d_model * self.vocab_size) as u64 + self.stack_parameters(self.num_layers, 1)
    }

    /// How many numbers the whole model has. The config must be valid.
    pub fn parameters(&self) -> u64 {
        let head = if self.tie_word_embeddings { 0 } else { (self.d_model * self.vocab_size) as u64 };
        self.encoder_parameters() + self.stack_parameters(self.decoder_layers(), 2) + head
    }

    /// How many numbers a stack has, with so many attentions in each block.
    fn stack_parameters(&self, layers: usize, attentions: u64) -> u64 {
        let [d, inner, ff] = [self.d_model, self.d_kv * self.num_heads, self.d_ff].map(|n| n as u64);
        let gates = match self.feed_forward_proj {
            FeedForwardKind::Relu => 2,
            FeedForwardKind::GatedGelu => 3,
        };
        let block = attentions * (4 * d * inner + d) + gates * d * ff + d;
        let bias = (self.relative_attention_num_buckets * self.num_heads) as u64;
        layers as u64 * block + bias + d
    }
}
