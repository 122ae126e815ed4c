//! Models as the Hugging Face hub stores them: a folder with `config.json`, weights and a tokenizer.

use super::{T5, T5Config, T5Error};
use crate::array::{DType, Ledger, Shape};
use crate::files;
use crate::nn::{Init, MappedWeights, Weights, WeightsError};
use std::collections::BTreeMap;
use std::path::Path;

/// The embedding table, and the names under which v1.0 repeats it.
const TABLE: &str = "shared.weight";
const TABLE_AGAIN: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// The table for the logits, which is [`TABLE`] again if the two are tied.
const HEAD: &str = "lm_head.weight";

/// A table that the first checkpoints of v1.0 carry and no version of the model has ever used.
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

/// Whether a parameter of this name is one that the encoder needs.
pub(super) fn is_of_encoder(name: &str) -> bool {
    name == TABLE || name.starts_with("encoder.")
}

/// Reads `config.json`.
pub(super) fn read_config(folder: &Path) -> Result<T5Config, T5Error> {
    let path = folder.join("config.json");
    let text = files::read_small_text(&path)?;
    T5Config::parse(&text).map_err(|problem| T5Error::Config { path, problem })
}

/// The config in the metadata of weights that were trained here.
pub(super) fn trained_config(weights: &Weights) -> Result<T5Config, T5Error> {
    let problem =
        |e: String| T5Error::Setup(format!("the metadata entry \"t5\" of the weights cannot be understood: {e}"));
    T5Config::parse(metadata(weights, "t5")?).map_err(problem)
}

/// An entry in the metadata of weights that were trained here.
pub(super) fn metadata<'a>(weights: &'a Weights, key: &str) -> Result<&'a str, T5Error> {
    let missing = || T5Error::Setup(format!("these weights are not of a T5: they lack the metadata entry {key:?}"));
    weights.metadata.get(key).map(String::as_str).ok_or_else(missing)
}

/// Opens the weights of a folder and accounts for every tensor: all that `needed` says are there, and nothing has a name or a
/// shape that a T5 of this config does not have.
pub(super) fn open(folder: &Path, config: &T5Config, needed: impl Fn(&str) -> bool) -> Result<MappedWeights, T5Error> {
    let weights = MappedWeights::open(folder)?;
    let wanted = shapes(config)?;
    let mut problems = Vec::new();
    for (name, shape) in &wanted {
        match weights.shape(name) {
            None if needed(name) => match table(&weights).filter(|_| name == TABLE) {
                Some(table) if weights.shape(table) == Some(shape) => {}
                Some(table) => problems.push(format!("{table} should be {shape}")),
                None => problems.push(format!("{name} {shape} is missing")),
            },
            Some(found) if found != shape => problems.push(format!("{name} is {found}, expected {shape}")),
            _ => {}
        }
    }
    let again = |name: &str| TABLE_AGAIN.contains(&name) || (name == HEAD && config.tie_word_embeddings);
    for (name, shape) in weights.shapes().filter(|(name, _)| !wanted.contains_key(*name)) {
        let the_table = table(&weights).filter(|table| again(name) && weights.shape(table) == Some(shape));
        match the_table {
            Some(table) if weights.same(table, name) => {}
            Some(table) => problems.push(format!("{name} differs from {table}, which it should repeat")),
            None if name == UNUSED => {}
            None => problems.push(format!("{name} {shape} is surplus")),
        }
    }
    match WeightsError::mismatch(problems) {
        None => Ok(weights),
        Some(error) => Err(error.into()),
    }
}

/// The name under which the weights have the embedding table.
pub(super) fn table(weights: &MappedWeights) -> Option<&'static str> {
    [TABLE].into_iter().chain(TABLE_AGAIN).find(|name| weights.shape(name).is_some())
}

/// Names and shapes of all parameters of a model: found by making it of arrays without numbers.
fn shapes(config: &T5Config) -> Result<BTreeMap<String, Shape>, T5Error> {
    let init = Init::blank(DType::F32);
    let model = Ledger::default().plan(|| T5::new(config.clone(), &init)).map_err(T5Error::Setup)?;
    Ok(model.parameters().iter().map(|p| (p.name().to_string(), p.shape())).collect())
}

/// An error unless weights that were trained here have all parameters of this config and no others. Asked before room is made for
/// them: the config may be anything.
pub(super) fn check(weights: &Weights, config: &T5Config) -> Result<(), T5Error> {
    let shapes = shapes(config)?;
    Ok(weights.check_names(shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())))?)
}

impl T5 {
    /// The whole model of weights as `imagen train` writes them: their metadata has the config as "t5".
    pub fn from_weights(weights: &Weights) -> Result<T5, T5Error> {
        let config = trained_config(weights)?;
        check(weights, &config)?;
        let model = T5::new(config, &Init::blank(DType::F32)).map_err(T5Error::Setup)?;
        model.parameters().load(weights)?;
        Ok(model)
    }

    /// The whole model of a folder, in memory, its numbers of type `dtype`.
    pub fn load(folder: &Path, dtype: DType) -> Result<T5, T5Error> {
        let config = read_config(folder)?;
        let weights = open(folder, &config, |_| true)?;
        let model = T5::new(config, &Init::blank(dtype)).map_err(T5Error::Setup)?;
        for param in model.parameters().iter() {
            let stored = if param.name() == TABLE { table(&weights).unwrap_or(TABLE) } else { param.name() };
            param.update(|value| *value = weights.tensor(stored).cast(dtype));
        }
        Ok(model)
    }
}
