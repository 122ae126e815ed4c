//! Training a T5 on text alone, by span corruption. (G2)

use super::{RunConfig, RunFolder, SpanCorruptionRun, Task, TrainError};
use crate::array::{DType, Device, is_planning};
use crate::autograd::{Tensor, no_grad};
use crate::data::Corpus;
use crate::nn::{Init, Parameters};
use crate::random::{Purpose, stream};
use crate::text::t5::{Gapped, T5, TokenBatch};
use crate::text::tokenizer::{self, Tokenizer, Tokens};
use rand::Rng;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A [`T5`] that learns to fill gaps in the texts of a corpus.
pub struct SpanCorruptionTask {
    config: SpanCorruptionRun,
    corpus: Arc<Corpus>,
    tokenizer: Tokenizer,
    /// `tokenizer.json`
    vocabulary: String,
    sentinels: Vec<u32>,
    model: T5,
    /// The window used last: only saves time.
    latest: Mutex<Option<(u64, Arc<Window>)>>,
    /// Once that was asked.
    lengths: OnceLock<Lengths>,
}

/// The texts of some steps, sorted so that those of one step are about equally long: little of a batch is padding.
struct Window {
    /// The numbers of the texts and what became of them, step by step.
    batches: Vec<Vec<(u64, Gapped)>>,
}

/// How long the texts of the folder are, and those of the grammar.
struct Lengths {
    folder: Length,
    grammar: Length,
}

/// How long some texts are.
#[derive(Clone, Copy, Default)]
struct Length {
    /// How many there are.
    texts: usize,
    /// How many of them are longer than what is read of one.
    cut: usize,
    /// The tokens that are read of the longest.
    longest: usize,
}

/// Steps of a window.
const WINDOW: u64 = 16;

/// Texts that the score is measured on.
const HELD_OUT: u64 = 512;

/// Tokens. Longer texts are cut, which is told: lines of a folder that are full of rare words.
const LONGEST: usize = 128;

impl SpanCorruptionTask {
    /// Makes the vocabulary from the corpus, and the model.
    pub fn new(config: SpanCorruptionRun, corpus: Arc<Corpus>) -> Result<SpanCorruptionTask, TrainError> {
        let setup = |e: &dyn std::fmt::Display| TrainError::Setup(e.to_string());
        let texts = (0..config.tokenizer.texts).map(|i| corpus.text(i));
        let bytes = tokenizer::train(texts, config.t5.vocab_size, config.tokenizer.sentinels).map_err(|e| setup(&e))?;
        let (end, rows) = (config.t5.eos_token_id, config.t5.vocab_size);
        let tokenizer = Tokenizer::from_json(&bytes, "the vocabulary", end, rows).map_err(|e| setup(&e))?;
        let model = T5::new(config.t5.clone(), &Init::new(config.seed, DType::F32)).map_err(|e| setup(&e))?;
        let vocabulary = String::from_utf8(bytes).map_err(|e| setup(&e))?;
        let (sentinels, latest) = (tokenizer.sentinels(), Mutex::new(None));
        let lengths = OnceLock::new();
        Ok(SpanCorruptionTask { sentinels, config, corpus, tokenizer, vocabulary, model, latest, lengths })
    }

    /// The same task, computing on `device`. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn on(self, device: Device) -> SpanCorruptionTask {
        self.model.parameters().move_to(device);
        self
    }

    /// The window that step `step` is in.
    fn window(&self, step: u64) -> Result<Arc<Window>, TrainError> {
        let number = step / WINDOW;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, window)) = &*latest
            && *known == number
        {
            return Ok(window.clone());
        }
        let batch = self.config.train.batch as u64;
        let numbers = number * WINDOW * batch..(number + 1) * WINDOW * batch;
        let mut texts = Vec::new();
        for number in numbers {
            texts.push((number, self.gapped(&self.corpus.text(number), number)?));
        }
        texts.sort_by_key(|(_, gapped)| (gapped.input.len(), gapped.target.len()));
        let mut batches: Vec<Vec<(u64, Gapped)>> = texts.chunks(batch as usize).map(<[_]>::to_vec).collect();
        // Not from short to long: the steps of a window in an order of their own.
        let mut random = stream(self.config.seed, Purpose::Shuffle, number, 0);
        for last in (1..batches.len()).rev() {
            let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
            batches.swap(last, other as usize);
        }
        let window = Arc::new(Window { batches });
        *latest = Some((number, window.clone()));
        Ok(window)
    }

    /// A text as tokens, as far as it is read, with the end token.
    fn tokens(&self, text: &str) -> Result<Tokens, TrainError> {
        self.tokenizer.encode(text, LONGEST).map_err(|e| TrainError::Setup(e.to_string()))
    }

    /// A text with gaps, which are drawn for its number.
    fn gapped(&self, text: &str, number: u64) -> Result<Gapped, TrainError> {
        Ok(self.with_gaps(&self.tokens(text)?.ids, number))
    }

    /// Tokens, the last of which is the end, with gaps.
    fn with_gaps(&self, tokens: &[u32], number: u64) -> Gapped {
        let (&end, tokens) = tokens.split_last().expect("there is always an end token");
        let mut random = stream(self.config.seed, Purpose::Gaps, 0, number);
        self.config.corruption.corrupt(tokens, &self.sentinels, end, &mut random)
    }

    /// How long the texts are: all of the folder, and as many of the grammar as the vocabulary is made from, for those have no end.
    fn lengths(&self) -> Result<&Lengths, TrainError> {
        if let Some(known) = self.lengths.get() {
            return Ok(known);
        }
        let grammar: Vec<String> = self.corpus.grammar_texts(self.config.tokenizer.texts).collect();
        let lengths = Lengths {
            folder: self.measure(&self.corpus.folder_texts().collect::<Vec<_>>())?,
            grammar: self.measure(&grammar)?,
        };
        Ok(self.lengths.get_or_init(|| lengths))
    }

    fn measure(&self, texts: &[impl AsRef<str> + Sync]) -> Result<Length, TrainError> {
        let one = |text: &_| -> Result<Length, TrainError> {
            let tokens = self.tokens(AsRef::<str>::as_ref(text))?;
            Ok(Length { texts: 1, cut: usize::from(tokens.left_out > 0), longest: tokens.ids.len() })
        };
        let both = |a: Length, b: Length| {
            Ok(Length { texts: a.texts + b.texts, cut: a.cut + b.cut, longest: a.longest.max(b.longest) })
        };
        texts.par_iter().map(one).try_reduce(Length::default, both)
    }

    /// The mean loss over `examples`.
    fn mean_loss(&self, examples: Vec<Gapped>) -> Tensor {
        let pad = self.config.t5.pad_token_id;
        let (inputs, targets): (Vec<_>, Vec<_>) = examples.into_iter().map(|g| (g.input, g.target)).unzip();
        self.model.loss(&TokenBatch::pad(&inputs, pad), &TokenBatch::pad(&targets, pad))
    }
}

impl Task for SpanCorruptionTask {
    /// Says what of the texts is not read.
    fn prepare(&self, _folder: &RunFolder) -> Result<Option<String>, TrainError> {
        let Lengths { folder, grammar } = self.lengths()?;
        let beyond = format!("longer than {LONGEST} tokens; what is beyond is left out");
        let notes = [
            (self.corpus.passed_over(), "files of corpus.folder are not text in UTF-8 and are passed over".to_string()),
            (
                self.corpus.single_words(),
                "pieces of lines of corpus.folder are a single word, or have no spaces, and are left out".to_string(),
            ),
            (folder.cut, format!("of the {} texts of corpus.folder are {beyond}", folder.texts)),
            (grammar.cut, format!("of the grammar's first {} texts are {beyond}", grammar.texts)),
        ];
        let notes = notes.iter().filter(|(count, _)| *count > 0).map(|(count, note)| format!("{count} {note}"));
        let notes: Vec<String> = notes.collect();
        Ok((!notes.is_empty()).then(|| notes.join("\n")))
    }

    fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    /// Cross-entropy of what is missing, over the next texts of the corpus. (G2)
    fn loss(&self, step: u64) -> Result<Tensor, TrainError> {
        // What a run needs is what a batch of its longest texts needs. Which tokens these are makes no difference.
        if is_planning() {
            let Lengths { folder, grammar } = self.lengths()?;
            let longest = folder.longest.max(grammar.longest).max(1);
            let gapped = self.with_gaps(&vec![self.config.t5.eos_token_id; longest], 0);
            return Ok(self.mean_loss(vec![gapped; self.config.train.batch]));
        }
        let window = self.window(step)?;
        let batch = &window.batches[(step % WINDOW) as usize];
        Ok(self.mean_loss(batch.iter().map(|(_, gapped)| gapped.clone()).collect()))
    }

    fn examples(&self, step: u64) -> Vec<usize> {
        let window = self.window(step);
        let batch = window.map(|window| window.batches[(step % WINDOW) as usize].clone()).unwrap_or_default();
        batch.iter().map(|&(number, _)| number as usize).collect()
    }

    fn unit(&self) -> &'static str {
        "texts"
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("config".to_string(), RunConfig::SpanCorruption(self.config.clone()).to_json()),
            ("t5".to_string(), self.model.config().to_json()),
            ("tokenizer".to_string(), self.vocabulary.clone()),
            ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
            ("data_digest".to_string(), format!("{} {}", self.corpus.digest(), self.tokenizer.digest())),
        ])
    }

    /// The loss on texts that were drawn for this alone, always with the same gaps. The grammar says short things more than once:
    /// about four in ten of its texts here are somewhere among the million that a long run reads.
    fn score(&self) -> Result<Option<(&'static str, f64)>, TrainError> {
        let (mut sum, mut batches) = (0.0, 0);
        let all: Vec<u64> = (0..HELD_OUT).collect();
        for chunk in all.chunks(64) {
            let examples = chunk.iter().map(|&i| self.gapped(&self.corpus.held_out(i), i));
            let examples = examples.collect::<Result<_, _>>()?;
            sum += no_grad(|| self.mean_loss(examples)).item();
            batches += 1;
        }
        Ok(Some(("loss on other texts", sum / f64::from(batches))))
    }
}
