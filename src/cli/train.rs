//! `imagen train`

use super::{Common, Result, note, print};
use clap::Args;
use imagen::array::Device;
use imagen::kernels::profile;
use imagen::train::{MemoryPlan, Metrics, Outcome, Progress, RunConfig, RunFolder, Trainer, TrainingData};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Train a model from a config.
///
/// Everything of the run goes into one folder: config, metrics, sample grids, checkpoints, the finished model.
/// Ctrl-C writes a checkpoint and ends; --resume continues as if nothing had happened.
#[derive(Args)]
pub struct TrainArgs {
    /// The config, such as configs/mnist.toml
    pub(super) config: PathBuf,
    /// Folder of the run [default: runs/NAME-OF-THE-CONFIG]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Continue the run in the folder from its newest checkpoint
    #[arg(long)]
    resume: bool,
    /// Change an entry of the config: --set train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// At the end, say how the time divided among the primitives
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &TrainArgs) -> Result {
    let device = args.common.prepare()?;
    let config = RunConfig::read(&args.config, &args.overrides)?;
    let name = args.config.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    let folder = RunFolder::new(args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name)));
    let data = TrainingData::load(&config)?;
    let task = data.task(&config, device)?;
    let mut trainer = Trainer::new(&*task, &config, folder.clone(), args.resume)?;
    let steps = config.train().steps;
    let mut display = Display::new(trainer.step(), steps, task.unit(), args.common.quiet);
    display.note(&format!(
        "{}: {} parameters on {device}, step {} of {steps}",
        folder.path().display(),
        task.parameters().count(),
        trainer.step()
    ));
    // The plan is one of the CPU's memory.
    if !args.common.quiet && device == Device::Cpu {
        let peak = MemoryPlan::of(&config, &data)?.peak_bytes as f64 / 1e6;
        display.note(&format!("estimated peak of memory: {peak:.0} MB"));
    }

    let stop = Arc::new(AtomicBool::new(false));
    let handler = stop.clone();
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("\nstopping after this step and writing a checkpoint; press Ctrl-C again to stop at once");
    })?;
    if args.profile {
        profile::start();
    }
    let outcome = trainer.run(&stop, &mut |progress| display.show(progress))?;
    display.finish();
    if args.profile {
        note(profile::stop());
    }
    match outcome {
        Outcome::Interrupted(step) => {
            note(format!("stopped at step {step} of {steps}; the same command with --resume continues"));
            Ok(ExitCode::from(130))
        }
        Outcome::Finished => {
            let last = Metrics::read(&folder.metrics())?.pop();
            if args.common.json {
                print(serde_json::json!({ "run": folder.path(), "model": folder.model(), "last": last }));
            } else {
                print(folder.model().display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A progress bar on a terminal, plain lines elsewhere.
struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    steps: u64,
    unit: &'static str,
    last_line: Instant,
    started: (Instant, u64),
}

const SECONDS_BETWEEN_LINES: u64 = 10;

impl Display {
    fn new(step: u64, steps: u64, unit: &'static str, quiet: bool) -> Display {
        let style =
            ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left").expect("the template is right");
        let bar = (!quiet && std::io::stderr().is_terminal())
            .then(|| ProgressBar::new(steps).with_style(style).with_position(step));
        Display { bar, quiet, steps, unit, last_line: Instant::now(), started: (Instant::now(), step) }
    }

    fn show(&mut self, progress: Progress<'_>) {
        match (progress, &self.bar) {
            (Progress::Note(text), _) => self.note(text),
            (Progress::Step(step, loss, rate), Some(bar)) => {
                bar.set_message(format!("loss {loss:.4}  {rate:.0} {}/s", self.unit));
                bar.set_position(step);
            }
            (Progress::Step(step, loss, rate), None) => {
                if !self.quiet && (self.last_line.elapsed().as_secs() >= SECONDS_BETWEEN_LINES || step == self.steps) {
                    self.last_line = Instant::now();
                    let (since, first) = self.started;
                    let left = since.elapsed().as_secs_f64() / (step - first) as f64 * (self.steps - step) as f64;
                    let left = Duration::from_secs(left as u64);
                    note(format!(
                        "step {step}/{}  loss {loss:.4}  {rate:.0} {}/s  {left:?} left",
                        self.steps, self.unit
                    ));
                }
            }
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if !self.quiet => note(text),
            None => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
