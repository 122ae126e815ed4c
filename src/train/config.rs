//! Run configs: TOML files in which every key is known and every size is checked before anything is done.

use crate::cascade::{DiffusionConfig, MOST_PARAMETERS, SamplingConfig, StageConfig, SuperResolutionConfig};
use crate::data::{CorpusConfig, DatasetName};
use crate::eval::ClassifierConfig;
use crate::files::{self, FileError, toml_mistake};
use crate::optim::{LearningRate, OptimizerConfig};
use crate::text::TextEncoderConfig;
use crate::text::t5::{Corruption, T5Config};
use crate::unet::UNetConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not TOML, or has a key that is unknown, missing or of the wrong type.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// An override is not of the form key=value, or does not fit into the config.
    #[error("--set {argument}: {problem}")]
    Override {
        /// What was given.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What is trained, in full.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "a program has one of them")]
pub enum RunConfig {
    /// A text-to-image diffusion model.
    Diffusion(DiffusionRun),
    /// A classifier of images.
    Classifier(ClassifierRun),
    /// A T5, on text alone.
    SpanCorruption(SpanCorruptionRun),
}

/// `task = "diffusion"`: a diffusion model, on text if `text` is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionRun {
    /// Keys every random number of the run.
    pub seed: u64,
    /// The images.
    pub data: DataConfig,
    /// The text encoder.
    pub text: Option<TextEncoderConfig>,
    /// Where the embeddings of the captions are kept, if the encoder is costly. Runs with the same encoder and captions can
    /// share a file; in the run's folder if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<PathBuf>,
    /// If it is there, the model makes smaller images larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_resolution: Option<SuperResolutionConfig>,
    /// The network.
    pub unet: UNetConfig,
    /// Schedule, target and weighting of the loss.
    pub diffusion: DiffusionConfig,
    /// How the model is sampled unless told otherwise.
    pub sampling: SamplingConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate by step.
    pub learning_rate: LearningRate,
    /// Length and intervals.
    pub train: TrainConfig,
}

/// `task = "classifier"`: an image classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierRun {
    /// Keys every random number of the run.
    pub seed: u64,
    /// The images.
    pub data: DataConfig,
    /// The network.
    pub classifier: ClassifierConfig,
    /// Training images are shifted at random by up to this many pixels in each direction.
    pub shift: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate by step.
    pub learning_rate: LearningRate,
    /// Length and intervals.
    pub train: TrainConfig,
}

/// `task = "span-corruption"`: a T5 that learns to fill gaps in texts (G2). It never sees an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanCorruptionRun {
    /// Keys every random number of the run.
    pub seed: u64,
    /// The texts.
    pub corpus: CorpusConfig,
    /// How the texts are cut into pieces.
    pub tokenizer: VocabularyConfig,
    /// The gaps.
    #[serde(default)]
    pub corruption: Corruption,
    /// The network; `vocab_size` is also the most pieces that the tokenizer may have.
    pub t5: T5Config,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning rate by step.
    pub learning_rate: LearningRate,
    /// Length and intervals.
    pub train: TrainConfig,
}

/// The vocabulary of a T5 that is trained here: made from the first texts of the corpus, the same every time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyConfig {
    /// How many texts it is made from.
    pub texts: u64,
    /// The most gaps a text may have, and one more.
    pub sentinels: usize,
}

/// The images of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Which data set.
    pub name: DatasetName,
    /// Where its files are; the folder that comes with the project if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Images are framed with black to this height and width.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<usize>,
    /// Then they are shrunk to this height and width, a divisor of the former.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<usize>,
}

/// Length and intervals of a run, in steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// How many steps the run has.
    pub steps: u64,
    /// Images or texts a step.
    pub batch: usize,
    /// Decay of the moving average of the weights that is sampled from and kept.
    pub ema: f64,
    /// Gradients longer than this are shortened to it.
    pub clip: f64,
    /// Whether the blocks of the U-Net are computed a second time in the backward pass instead of kept: less memory, more
    /// time, the same weights bit for bit. No if it is not given; only for a diffusion model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recompute: Option<bool>,
    /// A line in metrics.jsonl every so many steps.
    #[serde(default = "default_log_every")]
    pub log_every: u64,
    /// A sample grid, or a test score, every so many steps.
    pub sample_every: u64,
    /// A checkpoint every so many steps.
    pub checkpoint_every: u64,
    /// How many checkpoints are kept.
    #[serde(default = "default_keep")]
    pub keep: usize,
}

/// What `task` may be, for messages.
const TASKS: &str = "\"diffusion\", \"classifier\" or \"span-corruption\"";

fn default_log_every() -> u64 {
    10
}

fn default_keep() -> usize {
    2
}

impl RunConfig {
    /// Reads a config file and applies `overrides` of the form `train.steps=100`.
    pub fn read(path: &Path, overrides: &[String]) -> Result<RunConfig, ConfigFileError> {
        let text = files::read_text(path)?;
        let invalid = |problem: String| ConfigFileError::Invalid { path: path.to_path_buf(), problem };
        // Parsed once for the task alone, then as a whole: the second pass reports errors with line and column.
        let mut table: toml::Table = text.parse().map_err(|e| invalid(toml_mistake(&e)))?;
        let config = RunConfig::parse(&table, Some(&text)).map_err(invalid)?;
        if overrides.is_empty() {
            return Ok(config);
        }
        for argument in overrides {
            let wrong = |problem: String| ConfigFileError::Override { argument: argument.clone(), problem };
            apply(&mut table, argument).map_err(wrong)?;
        }
        // Judged together: one alone may make no sense without the next.
        let argument = overrides.join(" --set ");
        RunConfig::parse(&table, None).map_err(|problem| ConfigFileError::Override { argument, problem })
    }

    /// From a parsed table; from `text` instead, for better messages, if it says the same.
    fn parse(table: &toml::Table, text: Option<&str>) -> Result<RunConfig, String> {
        let task = match table.get("task") {
            Some(toml::Value::String(task)) => task.as_str(),
            _ => return Err(format!("the first key must be task = one of {TASKS}")),
        };
        let config = RunConfig::of_task(task, table, text)?;
        config.validate()?;
        let read = toml::Table::try_from(&config).expect("a config can always be written");
        // A key that says what is meant without it is not written either, but it is read: anything will not do for it.
        let ignored = |path: &Vec<String>| RunConfig::of_task(task, &nonsense_at(table, path), None).is_ok();
        match unwritten(table, &read).into_iter().find(ignored) {
            None => Ok(config),
            Some(path) => Err(format!("`{}` has no meaning beside the keys around it; take it out", path.join("."))),
        }
    }

    fn of_task(task: &str, table: &toml::Table, text: Option<&str>) -> Result<RunConfig, String> {
        Ok(match task {
            "diffusion" => RunConfig::Diffusion(section(table, text)?),
            "classifier" => RunConfig::Classifier(section(table, text)?),
            "span-corruption" => RunConfig::SpanCorruption(section(table, text)?),
            "blueprint" => {
                return Err(
                    "this is the plan of a network, whose text encoder and images are not here: it can be counted \
                            (imagen info), not trained"
                        .into(),
                );
            }
            other => return Err(format!("task {other:?} is unknown; it must be one of {TASKS}")),
        })
    }

    /// The config in full, as a TOML file.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a config can always be written")
    }

    /// The config as JSON, for the metadata of weights.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a config can always be written")
    }

    /// Length and intervals.
    pub fn train(&self) -> &TrainConfig {
        self.course().train
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &OptimizerConfig {
        self.course().optimizer
    }

    /// The learning rate by step.
    pub fn learning_rate(&self) -> &LearningRate {
        self.course().learning_rate
    }

    /// Keys every random number of the run.
    pub fn seed(&self) -> u64 {
        self.course().seed
    }

    /// What every run has.
    fn course(&self) -> Course<'_> {
        macro_rules! of {
            ($run:ident) => {
                Course {
                    seed: $run.seed,
                    optimizer: &$run.optimizer,
                    learning_rate: &$run.learning_rate,
                    train: &$run.train,
                }
            };
        }
        match self {
            RunConfig::Diffusion(run) => of!(run),
            RunConfig::Classifier(run) => of!(run),
            RunConfig::SpanCorruption(run) => of!(run),
        }
    }

    /// The first entry that differs from `other` and that the course of training depends on. Intervals, the number of
    /// steps, the places of data, encoder and embeddings, recomputing, and how the model is sampled may change when a run is
    /// resumed: its config.toml and its weights then say the new ones.
    pub fn difference(&self, other: &RunConfig) -> Option<String> {
        let (mine, others) = (self.decisive(), other.decisive());
        first_difference("", &mine, &others)
    }

    /// The entries that the course of training depends on.
    fn decisive(&self) -> toml::Value {
        let mut value = toml::Value::try_from(self).expect("a config can always be written");
        if let Some(run) = value.as_table_mut() {
            run.remove("embeddings");
            // Previews are drawn by it, and nothing is learnt from them.
            run.remove("sampling");
        }
        // The noise on smaller images when one is drawn; train_aug is that of training.
        if let Some(larger) = value.get_mut("super_resolution").and_then(toml::Value::as_table_mut) {
            larger.remove("aug");
        }
        // The digest of the encoder is compared, wherever it lies.
        if let Some(text) = value.get_mut("text").and_then(toml::Value::as_table_mut) {
            text.remove("model");
        }
        if let Some(train) = value.get_mut("train").and_then(toml::Value::as_table_mut) {
            for key in ["steps", "log_every", "sample_every", "checkpoint_every", "keep", "recompute"] {
                train.remove(key);
            }
        }
        for section in ["data", "corpus"] {
            if let Some(data) = value.get_mut(section).and_then(toml::Value::as_table_mut) {
                data.remove("folder");
            }
        }
        value
    }

    fn validate(&self) -> Result<(), String> {
        let t = self.train();
        for (key, value, most) in [
            ("steps", t.steps, 1_000_000_000),
            ("batch", t.batch as u64, 65_536),
            ("log_every", t.log_every, u64::MAX),
            ("sample_every", t.sample_every, u64::MAX),
            ("checkpoint_every", t.checkpoint_every, u64::MAX),
            ("keep", t.keep as u64, u64::MAX),
        ] {
            if value == 0 || value > most {
                return Err(format!("train.{key} must be between 1 and {most}, not {value}"));
            }
        }
        if !(0.0..1.0).contains(&t.ema) {
            return Err(format!("train.ema must be at least 0 and below 1, not {}", t.ema));
        }
        if t.clip.is_nan() || t.clip <= 0.0 {
            return Err(format!("train.clip must be above 0, not {}", t.clip));
        }
        self.optimizer().check().map_err(|e| format!("optimizer: {e}"))?;
        self.learning_rate().check().map_err(|e| format!("learning_rate: {e}"))?;
        match self {
            RunConfig::Diffusion(run) => run.validate(),
            RunConfig::Classifier(run) => run.validate(),
            RunConfig::SpanCorruption(run) => run.validate(),
        }
    }
}

/// What every run has.
struct Course<'a> {
    seed: u64,
    optimizer: &'a OptimizerConfig,
    learning_rate: &'a LearningRate,
    train: &'a TrainConfig,
}

impl DiffusionRun {
    /// The model this run trains, for images of size [C, H, W].
    pub fn stage(&self, image: [usize; 3]) -> StageConfig {
        StageConfig {
            image,
            text: self.text.clone(),
            super_resolution: self.super_resolution,
            unet: self.unet.clone(),
            diffusion: self.diffusion,
            sampling: self.sampling,
        }
    }

    fn validate(&self) -> Result<(), String> {
        // The size of the images is known once the data is loaded, and is judged then.
        self.stage([self.unet.image_channels, 0, 0]).validate_but_for_image()
    }
}

impl ClassifierRun {
    fn validate(&self) -> Result<(), String> {
        if self.train.recompute.is_some() {
            return Err("train.recompute has no meaning for a classifier, which keeps everything; take it out".into());
        }
        if self.shift >= self.classifier.image_size {
            return Err(format!("shift must be smaller than the image, not {}", self.shift));
        }
        self.classifier.validate().map_err(|e| e.to_string())?;
        // Two 3x3 convolutions a level, and the layer from the last level's image to the features.
        let c = &self.classifier;
        let squares: u64 = c.channels.iter().map(|&c| (c * c) as u64).sum();
        let side = c.image_size.div_ceil(1 << (c.channels.len() - 1));
        let last = (c.channels[c.channels.len() - 1] * side * side) as u64;
        let size = 18 * squares + last * c.features as u64;
        if size > MOST_PARAMETERS {
            return Err(format!(
                "classifier: channels, image_size and features make a network of some {size} parameters; at most \
                 {MOST_PARAMETERS} are taken to be meant"
            ));
        }
        Ok(())
    }
}

impl SpanCorruptionRun {
    fn validate(&self) -> Result<(), String> {
        if self.train.recompute.is_some() {
            return Err("train.recompute has no meaning for a T5, which keeps everything; take it out".into());
        }
        self.corruption.validate().map_err(|e| format!("corruption.{e}"))?;
        self.t5.validate().map_err(|e| format!("t5.{e}"))?;
        let T5Config { pad_token_id, eos_token_id, .. } = self.t5;
        if (pad_token_id, eos_token_id) != (0, 1) {
            return Err("t5.pad_token_id and t5.eos_token_id are 0 and 1 in the vocabulary that is trained here".into());
        }
        let size = self.t5.parameters();
        if size > MOST_PARAMETERS {
            return Err(format!(
                "t5: the sizes make a network of some {size} parameters; at most {MOST_PARAMETERS} are taken to be meant"
            ));
        }
        let VocabularyConfig { texts, sentinels } = self.tokenizer;
        if !(1..=10_000_000).contains(&texts) {
            return Err(format!("tokenizer.texts must be between 1 and 10000000, not {texts}"));
        }
        if !(2..self.t5.vocab_size).contains(&sentinels) {
            return Err(format!("tokenizer.sentinels must be between 2 and t5.vocab_size, not {sentinels}"));
        }
        Ok(())
    }
}

/// A config of type `T`, without the key `task`.
fn section<T: DeserializeOwned>(table: &toml::Table, text: Option<&str>) -> Result<T, String> {
    match text {
        // An empty line in its place keeps every other line where it is.
        Some(text) => {
            let mut top = true;
            let mut keep = |line: &str| {
                top &= !line.trim_start().starts_with('[');
                if top && is_task(line) { "\n".to_string() } else { format!("{line}\n") }
            };
            let without_task: String = text.lines().map(&mut keep).collect();
            toml::from_str(&without_task).map_err(|e| toml_mistake(&e))
        }
        None => {
            let mut table = table.clone();
            table.remove("task");
            toml::Value::Table(table).try_into().map_err(|e| toml_mistake(&e))
        }
    }
}

fn is_task(line: &str) -> bool {
    line.trim_start().strip_prefix("task").is_some_and(|rest| rest.trim_start().starts_with('='))
}

/// The keys of `given` that are not in the config as it is written, each as a path. Some say what is meant without them; others
/// are not read at all, for serde lets keys pass beside a `kind` that has none, such as `gamma` beside kind = "simple".
fn unwritten(given: &toml::Table, written: &toml::Table) -> Vec<Vec<String>> {
    let below = |(key, value): (&String, &toml::Value)| match (value, written.get(key)) {
        (_, None) => vec![vec![key.clone()]],
        (toml::Value::Table(given), Some(toml::Value::Table(written))) => {
            unwritten(given, written).into_iter().map(|path| [vec![key.clone()], path].concat()).collect()
        }
        _ => Vec::new(),
    };
    given.iter().flat_map(below).collect()
}

/// The same table with a value at `path` that no key can have.
fn nonsense_at(table: &toml::Table, path: &[String]) -> toml::Table {
    let mut table = table.clone();
    let (last, above) = path.split_last().expect("a key has a name");
    let parent = above.iter().try_fold(&mut table, |table, key| table.get_mut(key)?.as_table_mut());
    let nonsense = toml::Value::Array(vec![toml::Value::Array(vec![toml::Value::Table(toml::Table::new())])]);
    parent.expect("the path is one of the table").insert(last.clone(), nonsense);
    table
}

/// Sets one value of a table from "a.b.c=value"; the value is TOML, or a bare word.
pub(super) fn apply(table: &mut toml::Table, argument: &str) -> Result<(), String> {
    let (key, value) = argument.split_once('=').ok_or("write it as key=value, for example train.steps=100")?;
    let value = value.trim();
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut table = table;
    for part in path {
        table = table
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{part} is a value, not a section"))?;
    }
    table.insert(last.to_string(), value);
    Ok(())
}

fn first_difference(path: &str, a: &toml::Value, b: &toml::Value) -> Option<String> {
    match (a, b) {
        (toml::Value::Table(a), toml::Value::Table(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => first_difference(&path, a, b),
                    (Some(a), None) => Some(format!("{path} is {a} in one and missing in the other")),
                    (None, Some(b)) => Some(format!("{path} is missing in one and {b} in the other")),
                    (None, None) => None,
                }
            })
        }
        _ if a == b => None,
        _ => Some(format!("{path} is {a} in one and {b} in the other")),
    }
}
