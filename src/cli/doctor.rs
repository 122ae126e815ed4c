//! `imagen doctor`

use super::{Common, Result, fail, model, note, print};
use clap::Args;
use imagen::train::{Doctor, Finding, RunConfig, TrainingData};
use std::path::PathBuf;
use std::process::ExitCode;

/// Check up a training before it is run for hours, and a model after it.
///
/// A table of what was looked at, whether all is well, and what to do if not. Some looks need a trained model. The exit code is 1
/// if something is wrong.
#[derive(Args)]
pub struct DoctorArgs {
    /// The config of the run, such as configs/mnist.toml
    pub(super) config: PathBuf,
    /// Change an entry of the config: --set train.batch=32
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// A model that was trained with this config: a bundled one, a .safetensors file or the folder of a run
    #[arg(long)]
    model: Option<String>,
    /// Steps of the trial on one image
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    steps: u64,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &DoctorArgs) -> Result {
    let device = args.common.prepare()?;
    let config = RunConfig::read(&args.config, &args.overrides)?;
    let data = TrainingData::load(&config)?;
    let (RunConfig::Diffusion(run), TrainingData::Images(data)) = (config, data) else {
        return fail(format!("{}: only diffusion models are checked up so far", args.config.display()));
    };
    let weights = args.model.as_deref().map(model::find).transpose()?;
    let doctor = Doctor::new(run, data, device, args.steps);
    let findings = doctor.examine(weights.as_ref().map(|found| &found.weights), &mut |look| {
        if !args.common.quiet {
            note(look);
        }
    })?;
    match args.common.json {
        true => print(serde_json::to_string(&findings)?),
        false => show(&findings),
    }
    let ill = findings.iter().any(|finding| finding.passed == Some(false));
    Ok(if ill { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(findings: &[Finding]) {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for Finding { name, passed, seen, advice } in findings {
        let (verdict, what) = match passed {
            Some(true) => ("good", seen.clone()),
            Some(false) => ("BAD", format!("{seen}\n{:width$}        {advice}", "")),
            None => {
                ("-", [seen.as_str(), advice].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join("; "))
            }
        };
        print(format!("{name:width$}  {verdict:4}  {what}"));
    }
}
