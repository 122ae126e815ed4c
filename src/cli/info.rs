//! `imagen info`

use super::{Common, Result, fail, model, print};
use clap::Args;
use imagen::cascade::bundled;
use imagen::kernels::gpu;
use imagen::train::{MemoryPlan, RunConfig, TrainingData};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Show devices and models.
///
/// Without an argument: this program, its devices and its bundled models. With a model: what is known about it. With a
/// config: what training by it would take of memory.
#[derive(Args)]
pub struct InfoArgs {
    /// A bundled model, a .safetensors file, the folder of a run, or a config such as configs/mnist.toml
    model: Option<String>,
    /// Change an entry of the config: --set train.batch=128
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &InfoArgs) -> Result {
    args.common.prepare()?;
    let config = args.model.as_ref().map(Path::new).filter(|path| path.extension().is_some_and(|e| e == "toml"));
    if let Some(config) = config {
        return plan(config, args);
    }
    if !args.overrides.is_empty() {
        return fail("--set changes an entry of a config: name one, such as configs/mnist.toml");
    }
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

/// What training takes of memory.
fn plan(path: &Path, args: &InfoArgs) -> Result {
    let config = RunConfig::read(path, &args.overrides)?;
    let data = TrainingData::load(&config)?;
    let plan = MemoryPlan::of(&config, &data)?;
    let batch = config.train().batch;
    if args.common.json {
        let mut report = serde_json::to_value(plan)?;
        report["config"] = json!(path);
        report["batch"] = json!(batch);
        report["recompute"] = json!(config.train().recompute.unwrap_or(false));
        print(report);
        return Ok(ExitCode::SUCCESS);
    }
    print(format!("memory of training {} on the CPU, {batch} examples a step:", path.display()));
    for (what, bytes) in [
        (format!("{} parameters", plan.parameters), plan.parameter_bytes),
        ("gradients".into(), plan.gradient_bytes),
        ("optimizer".into(), plan.optimizer_bytes),
        ("moving average".into(), plan.average_bytes),
        ("kept for the backward pass".into(), plan.activation_bytes),
        ("data set".into(), plan.data_bytes),
        ("estimated peak".into(), plan.peak_bytes),
    ] {
        print(format!("  {what:28} {:>10.1} MB", bytes as f64 / 1e6));
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
    Ok(json!({ "version": env!("CARGO_PKG_VERSION"), "devices": devices(), "bundled models": models }))
}

/// The CPU, and every GPU by the name that --device takes.
fn devices() -> Value {
    let mut devices = serde_json::Map::new();
    let cpu = format!("{} threads on {}", rayon::current_num_threads(), std::env::consts::ARCH);
    devices.insert("cpu".into(), cpu.into());
    for adapter in gpu::adapters() {
        let megabytes = |bytes: u64| format!("{} MB", bytes / 1_000_000);
        let mut entry = json!({
            "name": adapter.name,
            "kind": adapter.kind,
            "backend": adapter.backend,
            "driver": adapter.driver,
            "memory": adapter.memory_bytes.map_or_else(|| "unknown".into(), megabytes),
            "largest array": megabytes(adapter.largest_array_bytes),
            "shared memory of a workgroup": format!("{} bytes", adapter.shared_memory_bytes),
            "threads of a workgroup": adapter.workgroup_threads,
            "threads in step": format!("{} to {}", adapter.subgroup_threads.0, adapter.subgroup_threads.1),
            "features": adapter.features.join(", "),
        });
        if let Some(lacks) = adapter.lacks {
            entry["cannot be used"] = lacks.into();
        }
        devices.insert(format!("gpu:{}", adapter.number), entry);
    }
    devices.into()
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
