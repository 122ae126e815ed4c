//! `imagen info`

use super::{Common, Result, fail, model, print};
use clap::Args;
use imagen::cascade::bundled;
use imagen::kernels::gpu;
use imagen::train::{Blueprint, MemoryPlan, RunConfig, TrainingData};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Show devices and models.
///
/// Without an argument: this program, its devices and its bundled models. With a model: what is known about it. With a
/// config: what training by it would take of memory; with a blueprint such as configs/paper/base64.toml also how many
/// parameters the network has, beside those that its paper tells.
#[derive(Args)]
pub struct InfoArgs {
    /// A bundled model, a .safetensors file, the folder of a run, or a config such as configs/mnist.toml
    pub(super) model: Option<String>,
    /// Change an entry of the config: --set train.batch=128
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &InfoArgs) -> Result {
    args.common.prepare()?;
    let config = args.model.as_ref().map(Path::new).filter(|path| path.extension().is_some_and(|e| e == "toml"));
    if let Some(config) = config {
        return match Blueprint::read(config, &args.overrides)? {
            Some(blueprint) => count(config, &blueprint, args),
            None => plan(config, args),
        };
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
    print_plan(&plan, &[("data set", plan.data_bytes)]);
    Ok(ExitCode::SUCCESS)
}

/// How many parameters a blueprint has, and what it would take of memory.
fn count(path: &Path, blueprint: &Blueprint, args: &InfoArgs) -> Result {
    let plan = blueprint.plan()?;
    if args.common.json {
        print(json!({ "config": path, "blueprint": blueprint, "plan": plan }));
        return Ok(ExitCode::SUCCESS);
    }
    let million = |count: f64| format!("{:.1} M", count / 1e6);
    let (ours, papers) = (plan.training.parameters as f64, blueprint.paper.parameters as f64);
    let more = 100.0 * (ours / papers - 1.0);
    let text = &blueprint.text;
    print(format!(
        "{}: {} parameters; {} says about {} ({more:+.1} %)",
        path.display(),
        million(ours),
        blueprint.paper.source,
        million(papers),
    ));
    print(format!(
        "to be counted, not trained: neither its text encoder, {} with {} parameters, nor its images are here",
        text.encoder,
        million(text.parameters as f64)
    ));
    let size = |[c, h, w]: [usize; 3]| format!("{c}x{h}x{w}");
    let (batch, trained_on) = (blueprint.batch, size(blueprint.trained_on()));
    print(format!("memory of training on the CPU, {batch} of {trained_on} a step, without text encoder and images:"));
    print_plan(&plan.training, &[]);
    print(format!("memory of drawing one image of {}, without text encoder:", size(blueprint.image)));
    print_bytes("parameters", plan.training.parameter_bytes);
    print_bytes("estimated peak", plan.sampling_peak_bytes);
    Ok(ExitCode::SUCCESS)
}

fn print_plan(plan: &MemoryPlan, more: &[(&str, u64)]) {
    print_bytes(&format!("{} parameters", plan.parameters), plan.parameter_bytes);
    print_bytes("gradients", plan.gradient_bytes);
    print_bytes("optimizer", plan.optimizer_bytes);
    print_bytes("moving average", plan.average_bytes);
    print_bytes("kept for the backward pass", plan.activation_bytes);
    for (what, bytes) in more {
        print_bytes(what, *bytes);
    }
    print_bytes("estimated peak", plan.peak_bytes);
}

fn print_bytes(what: &str, bytes: u64) {
    print(format!("  {what:28} {:>10.1} MB", bytes as f64 / 1e6));
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
