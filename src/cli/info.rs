//! `imagen info`

use super::{Common, Result, model, print};
use clap::Args;
use imagen::cascade::bundled;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show devices and models.
///
/// Without an argument: this program, its devices and its bundled models. With one: what is known about that model.
#[derive(Args)]
pub struct InfoArgs {
    /// A bundled model, a .safetensors file or the folder of a run
    model: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &InfoArgs) -> Result {
    args.common.prepare()?;
    let report = match &args.model {
        None => overview()?,
        Some(name) => describe(name)?,
    };
    match args.common.json {
        true => print(report),
        false => print(lines(&report, 0).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

fn overview() -> Result<Value> {
    let mut models = serde_json::Map::new();
    for bundled in bundled::ALL {
        let weights = bundled.weights()?;
        models.insert(
            bundled.name.to_string(),
            json!({
                "about": bundled.about,
                "parameters": weights.tensors.values().map(|t| t.numel()).sum::<usize>(),
                "bytes": bundled.bytes.len(),
                "sha256": bundled.digest(),
            }),
        );
    }
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "devices": { "cpu": format!("{} threads on {}", rayon::current_num_threads(), std::env::consts::ARCH) },
        "bundled models": models,
    }))
}

fn describe(name: &str) -> Result<Value> {
    let found = model::find(name)?;
    let mut metadata = serde_json::Map::new();
    for (key, value) in &found.weights.metadata {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
        metadata.insert(key.clone(), value);
    }
    Ok(json!({
        "model": found.origin,
        "sha256": found.digest,
        "tensors": found.weights.tensors.len(),
        "parameters": found.weights.tensors.values().map(|t| t.numel()).sum::<usize>(),
        "metadata": metadata,
    }))
}

/// JSON as indented lines that a person reads.
fn lines(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let Value::Object(entries) = value else { return format!("{value}\n") };
    entries
        .iter()
        .map(|(key, value)| match value {
            Value::Object(inner) if !inner.is_empty() => format!("{indent}{key}\n{}", lines(value, depth + 1)),
            Value::String(text) => format!("{indent}{key}: {text}\n"),
            _ => format!("{indent}{key}: {value}\n"),
        })
        .collect()
}
