//! The encoder of a T5 as a [`TextEncoder`]: frozen, and whole in memory or read from its file layer by layer.

use super::stack::{Block, Role, Stack, relative_bias, whole_bias};
use super::{T5Config, T5Error, TokenBatch, hub, layers};
use crate::array::{Array, DType, Device, is_planning};
use crate::autograd::{Tensor, no_grad};
use crate::bundled;
use crate::nn::{Embedding as Table, Init, MappedWeights, Parameters, RmsNorm, Weights, WeightsError};
use crate::text::{Embedding, TextEncoder, TextError, Tokenizer, Tokens};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A T5 that reads prompts. Imagen's finding is that such a model, trained on text alone and never on images, is what makes
/// a picture follow its sentence (arXiv 2205.11487, section 2.1).
pub struct T5Encoder {
    config: T5Config,
    tokenizer: Tokenizer,
    limit: usize,
    layers: Layers,
    source: Source,
    digest: OnceLock<String>,
}

/// What the digest of the weights is taken of.
enum Source {
    /// Weights from memory: it has been taken of them.
    Hashed(Sha256),
    /// The files that were loaded, when it is asked for: for a large model it takes seconds.
    Mapped(Arc<MappedWeights>),
}

/// Where the weights are.
enum Layers {
    /// Converted, in memory.
    Whole { table: Table, stack: Stack, parameters: Parameters },
    /// On the disk, in the type they are stored in.
    Streamed(Box<Streamed>),
}

/// One block in memory, into which each block of the file is read when its turn has come.
struct Streamed {
    weights: Arc<MappedWeights>,
    /// How many blocks are in the file.
    blocks: usize,
    block: Mutex<(Block, Parameters)>,
    bias: super::position::RelativeBias,
    norm: RmsNorm,
    /// Of `bias` and `norm`.
    small: Parameters,
}

/// How an encoder's weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// Streamed if they would take more than [`T5Encoder::MOST_RESIDENT`] bytes.
    Automatic,
    /// In memory as f32: four bytes a number.
    Whole,
    /// On the disk; a block of layers is converted when it is used, for all texts of a batch.
    Streamed,
}

/// The most that may be read of a prompt: attention takes memory by its square, and T5 was trained on 512.
const MOST_TOKENS: usize = 2048;

/// The most tokens, padding included, that go through the layers together: larger batches take more memory and no less time.
const TOGETHER: usize = 4096;

impl T5Encoder {
    /// Tokens that are read of a prompt where nothing else is said, as in the open implementations of Imagen.
    pub const USUAL_TOKENS: usize = 256;

    /// The most bytes of f32 numbers that are kept in memory without being told to: 2 GiB.
    pub const MOST_RESIDENT: u64 = 2 << 30;

    /// The encoder of a folder in the hub's format: `config.json`, `model.safetensors` or its shards, `tokenizer.json` or
    /// `spiece.model`. Prompts are read up to `limit` tokens: see [`T5Encoder::check_limit`].
    pub fn open(folder: &Path, limit: usize, residency: Residency) -> Result<T5Encoder, T5Error> {
        T5Encoder::check_limit(limit)?;
        let config = hub::read_config(folder)?;
        // First the weights, which say whether there are as many rows as the config says: as many pieces are taken in.
        let weights = Arc::new(hub::open(folder, &config, hub::is_of_encoder)?);
        let tokenizer = Tokenizer::from_folder(folder, config.eos_token_id, config.vocab_size)?;
        let source = Source::Mapped(weights.clone());
        let streamed = match residency {
            Residency::Automatic => 4 * config.encoder_parameters() > T5Encoder::MOST_RESIDENT,
            Residency::Whole => false,
            Residency::Streamed => true,
        };
        let layers = if streamed { Layers::streamed(&config, weights) } else { Layers::mapped(&config, &weights) };
        T5Encoder::new(config, tokenizer, limit, layers, source)
    }

    /// The encoder of a bundled model, a .safetensors file of `imagen train`, the folder of such a run, or a folder in the hub's
    /// format.
    pub fn find(model: &str, limit: usize) -> Result<T5Encoder, TextError> {
        T5Encoder::check_limit(limit)?;
        let failed = |e: T5Error| TextError::Model(e.to_string());
        let trained = |weights: Result<Weights, WeightsError>| match weights {
            Ok(weights) => T5Encoder::from_weights(&weights, limit).map_err(failed),
            Err(error) => Err(failed(error.into())),
        };
        let path = Path::new(model);
        if let Some(bundled) = bundled::find(model) {
            trained(bundled.weights())
        } else if path.join("config.json").exists() {
            T5Encoder::open(path, limit, Residency::Automatic).map_err(failed)
        } else if path.join("model.safetensors").exists() {
            trained(Weights::read(&path.join("model.safetensors")))
        } else if path.is_file() {
            trained(Weights::read(path))
        } else {
            Err(TextError::Model(format!(
                "there is no T5 {model:?}: give a bundled one (t5-mini), a .safetensors file or the folder of a finished run of \
                 `imagen train`, or a folder with config.json, model.safetensors and a tokenizer"
            )))
        }
    }

    /// An error unless so many tokens may be read of a prompt: 2 to 2048.
    pub fn check_limit(limit: usize) -> Result<(), TextError> {
        match (2..=MOST_TOKENS).contains(&limit) {
            true => Ok(()),
            false => Err(TextError::Setting { setting: "max_tokens", value: limit, least: 2, most: MOST_TOKENS }),
        }
    }

    /// The encoder of weights as `imagen train` writes them: their metadata has the config as "t5" and `tokenizer.json` as
    /// "tokenizer". A decoder among them is left aside. Prompts are read up to `limit` tokens: see [`T5Encoder::check_limit`].
    pub fn from_weights(weights: &Weights, limit: usize) -> Result<T5Encoder, T5Error> {
        T5Encoder::check_limit(limit)?;
        let config = hub::trained_config(weights)?;
        hub::check(weights, &config)?;
        let json = hub::metadata(weights, "tokenizer")?;
        let (json, name) = (json.as_bytes(), "the metadata entry \"tokenizer\"");
        let tokenizer = Tokenizer::from_json(json, name, config.eos_token_id, config.vocab_size)?;
        let mine = weights.tensors.iter().filter(|(name, _)| hub::is_of_encoder(name));
        let tensors = mine.map(|(name, array)| (name.clone(), array.clone())).collect();
        let mine = Weights { tensors, metadata: Default::default() };
        let (layers, parameters) = Layers::blank(&config);
        parameters.load(&mine)?;
        let mut hasher = Sha256::new();
        // An array that was made to plan memory has no numbers, and nobody compares its digest.
        if !is_planning() {
            hasher.update(mine.to_bytes(false));
        }
        T5Encoder::new(config, tokenizer, limit, layers, Source::Hashed(hasher))
    }

    fn new(
        config: T5Config,
        tokenizer: Tokenizer,
        limit: usize,
        layers: Layers,
        source: Source,
    ) -> Result<T5Encoder, T5Error> {
        if tokenizer.text_pieces() > config.vocab_size {
            return Err(T5Error::Setup(format!(
                "the tokenizer has {} pieces, the model only {} rows for them (vocab_size): they do not belong together",
                tokenizer.text_pieces(),
                config.vocab_size
            )));
        }
        Ok(T5Encoder { config, tokenizer, limit, layers, source, digest: OnceLock::new() })
    }

    /// Computes on `device` from now on. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn move_to(&self, device: Device) {
        match &self.layers {
            Layers::Whole { parameters, .. } => parameters.move_to(device),
            Layers::Streamed(streamed) => {
                // First the block: whoever reads meanwhile holds it.
                let block = streamed.block();
                streamed.small.move_to(device);
                block.1.move_to(device);
            }
        }
    }

    /// The sizes of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// What cuts prompts into pieces.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether the layers are read from the disk each time.
    pub fn is_streamed(&self) -> bool {
        matches!(self.layers, Layers::Streamed(_))
    }

    /// A prompt as tokens, cut at the limit.
    pub fn tokens(&self, prompt: &str) -> Result<Tokens, TextError> {
        self.tokenizer.encode(prompt, self.limit).map_err(|e| TextError::Model(e.to_string()))
    }

    /// The last hidden states [B, n, d_model] of texts given as tokens. Panics on an id that is not below vocab_size.
    #[track_caller]
    pub fn forward(&self, texts: &TokenBatch) -> Tensor {
        no_grad(|| match &self.layers {
            Layers::Whole { table, stack, .. } => {
                let x = self.by_text(table.forward(&texts.ids), texts);
                stack.forward(&x, texts.hidden(&x).as_ref(), None)
            }
            Layers::Streamed(streamed) => streamed.forward(&|x| self.by_text(x, texts), texts),
        })
    }

    /// As [`T5Encoder::forward`], and how much every token takes of every other in every block: [B, heads, n, n] each. `None` if
    /// the layers are streamed.
    #[track_caller]
    pub fn forward_with_weights(&self, texts: &TokenBatch) -> Option<(Tensor, Vec<Tensor>)> {
        let Layers::Whole { table, stack, .. } = &self.layers else { return None };
        no_grad(|| {
            let x = self.by_text(table.forward(&texts.ids), texts);
            Some(stack.forward_with_weights(&x, texts.hidden(&x).as_ref()))
        })
    }

    /// What the first block adds to the scores for a text of n tokens, shared by all blocks: [1, heads, n, n].
    pub fn distances(&self, n: usize) -> Tensor {
        no_grad(|| match &self.layers {
            Layers::Whole { stack, .. } => stack.distances(n),
            Layers::Streamed(streamed) => streamed.bias.forward(n),
        })
    }

    /// [B n, d] to [B, n, d].
    fn by_text(&self, x: Tensor, texts: &TokenBatch) -> Tensor {
        x.reshape([texts.texts, texts.length, self.config.d_model])
    }

    /// What the encoder makes of texts given as tokens, one embedding each. Texts of similar length go through the layers
    /// together; what comes out does not depend on that.
    pub fn embed_all(&self, tokens: &[Tokens]) -> Result<Vec<Embedding>, TextError> {
        if let Some(id) = tokens.iter().flat_map(|t| &t.ids).find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(TextError::Model(format!("the tokenizer gives the id {id}, which the model has no row for")));
        }
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| tokens[i].ids.len());
        let mut embeddings: Vec<Option<Embedding>> = vec![None; tokens.len()];
        let mut rest = &order[..];
        while !rest.is_empty() {
            // The last of a batch is its longest.
            let fits = |count: &usize| count * tokens[rest[count - 1]].ids.len() <= TOGETHER;
            let count = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
            let (batch, after) = rest.split_at(count);
            for (&i, embedding) in batch.iter().zip(self.embed(tokens, batch)?) {
                embeddings[i] = Some(embedding);
            }
            rest = after;
        }
        Ok(embeddings.into_iter().flatten().collect())
    }

    /// The texts `chosen` of `tokens` through all layers, one embedding each.
    fn embed(&self, tokens: &[Tokens], chosen: &[usize]) -> Result<Vec<Embedding>, TextError> {
        let ids: Vec<Vec<u32>> = chosen.iter().map(|&i| tokens[i].ids.clone()).collect();
        let batch = TokenBatch::pad(&ids, self.config.pad_token_id);
        let d = self.config.d_model;
        let states = match is_planning() {
            true => vec![0.0; batch.ids.len() * d],
            false => {
                let states = self.forward(&batch);
                let numbers = states.to(Device::Cpu).array().to_f32();
                // A device that has failed reads as NaN.
                states.array().kernels().check().map_err(|e| TextError::Model(e.to_string()))?;
                numbers
            }
        };
        let rows = states.chunks_exact(batch.length * d);
        let embedding = |(row, &i): (&[f32], &usize)| {
            let n = tokens[i].ids.len();
            let Tokens { pieces, left_out, .. } = tokens[i].clone();
            Embedding { tokens: row[..n * d].to_vec(), n, d, words: pieces, left_out }
        };
        Ok(rows.zip(chosen).map(embedding).collect())
    }
}

impl TextEncoder for T5Encoder {
    fn dim(&self) -> usize {
        self.config.d_model
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        Ok(self.encode_all(&[caption])?.remove(0))
    }

    fn encode_all(&self, captions: &[&str]) -> Result<Vec<Embedding>, TextError> {
        let mut tokens = Vec::new();
        for caption in captions {
            tokens.push(self.tokens(caption)?);
            if tokens.last().is_some_and(|tokens| tokens.ids.len() == 1) {
                return Err(TextError::Empty { caption: caption.to_string() });
            }
        }
        self.embed_all(&tokens)
    }

    fn on(self: Arc<Self>, device: Device) -> Arc<dyn TextEncoder> {
        self.move_to(device);
        self
    }

    fn is_costly(&self) -> bool {
        true
    }

    fn digest(&self) -> String {
        let digest = || {
            let mut hasher = self.source.hashed();
            hasher.update(self.config.to_json());
            hasher.update(self.tokenizer.digest());
            let digest = bundled::hex(&hasher.finalize());
            format!("t5-1:{digest},max_tokens={}", self.limit)
        };
        self.digest.get_or_init(digest).clone()
    }
}

impl Source {
    fn hashed(&self) -> Sha256 {
        match self {
            Source::Hashed(hasher) => hasher.clone(),
            Source::Mapped(weights) => {
                let mut hasher = Sha256::new();
                weights.each_part(&mut |bytes| hasher.update(bytes));
                hasher
            }
        }
    }
}

impl Layers {
    /// All layers in memory, without their numbers, and their parameters.
    fn blank(config: &T5Config) -> (Layers, Parameters) {
        let init = Init::blank(DType::F32);
        let table = Table::new(&init.scope("shared"), config.vocab_size, config.d_model);
        let stack = Stack::new(&init.scope(Role::Encoder.name()), config, Role::Encoder);
        let parameters = init.parameters();
        (Layers::Whole { table, stack, parameters: parameters.clone() }, parameters)
    }

    /// All layers in memory.
    fn mapped(config: &T5Config, weights: &MappedWeights) -> Layers {
        let (layers, parameters) = Layers::blank(config);
        for param in parameters.iter() {
            let stored = if param.name() == "shared.weight" { hub::table(weights) } else { None };
            param.update(|value| *value = weights.tensor(stored.unwrap_or(param.name())));
        }
        layers
    }

    /// One block in memory, the others on the disk.
    fn streamed(config: &T5Config, weights: Arc<MappedWeights>) -> Layers {
        let init = Init::blank(DType::F32);
        let encoder = init.scope(Role::Encoder.name());
        let bias = relative_bias(&encoder.scope("block").scope(0), config, Role::Encoder);
        let norm = layers::norm(&encoder.scope("final_layer_norm"), config);
        let small = init.parameters();
        for param in small.iter() {
            param.update(|value| *value = weights.tensor(param.name()));
        }
        let init = Init::blank(DType::F32);
        let block = Block::new(&init, config, Role::Encoder);
        let block = Mutex::new((block, init.parameters()));
        Layers::Streamed(Box::new(Streamed { weights, blocks: config.num_layers, block, bias, norm, small }))
    }
}

impl Streamed {
    fn block(&self) -> std::sync::MutexGuard<'_, (Block, Parameters)> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ANCHOR: streamed
    /// As [`Stack::forward`], with one block of the file in memory at a time.
    fn forward(&self, by_text: &dyn Fn(Tensor) -> Tensor, texts: &TokenBatch) -> Tensor {
        let guard = self.block();
        let (block, parameters) = &*guard;
        let mut x = by_text(self.embedded(&texts.ids));
        let bias = whole_bias(&self.bias, Role::Encoder, texts.length, texts.hidden(&x).as_ref());
        for i in 0..self.blocks {
            for param in parameters.iter() {
                let stored = self.weights.tensor(&format!("encoder.block.{i}.{}", param.name()));
                param.update(|value| *value = stored.to(value.device()));
            }
            x = block.forward(&x, &bias, None);
        }
        self.norm.forward(&x)
    }
    // ANCHOR_END: streamed

    /// Rows of the table, each read once: [ids.len(), d].
    fn embedded(&self, ids: &[u32]) -> Tensor {
        let mut different: Vec<u32> = ids.to_vec();
        different.sort_unstable();
        different.dedup();
        let name = hub::table(&self.weights).expect("it was there when the weights were opened");
        let rows: Array = self.weights.rows(name, &different);
        let places: Vec<u32> =
            ids.iter().filter_map(|id| different.binary_search(id).ok()).map(|place| place as u32).collect();
        Tensor::constant(rows).embedding(&places).to(self.norm.device())
    }
}
