//! The subcommands. Data goes to stdout, progress and messages to stderr.
//!
//! Exit codes: 0 done; 1 failure; 2 wrong usage; 130 interrupted: after a checkpoint was written, or at once by a second
//! Ctrl-C.

mod bench;
mod cascade;
mod doctor;
mod edit;
mod eval;
mod info;
mod input;
#[cfg(test)]
mod listed;
mod model;
mod output;
mod request;
mod sample;
mod sweep;
mod text;
mod train;

use clap::{Args, Parser, Subcommand};
use imagen::array::Device;
use imagen::kernels::gpu;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Text-to-image diffusion in the manner of Imagen, from scratch.
#[derive(Parser)]
#[command(name = "imagen", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draw images from sentences.
    Sample(sample::SampleArgs),
    /// Make an image larger.
    Upscale(cascade::UpscaleArgs),
    /// Change an image.
    Edit(edit::EditArgs),
    /// Train a model from a config.
    Train(train::TrainArgs),
    /// Check up a training before it is run for hours, and a model after it.
    Doctor(doctor::DoctorArgs),
    /// Measure how well a model draws what it is asked for.
    Eval(eval::EvalArgs),
    /// Draw with many settings, and measure each.
    Sweep(sweep::SweepArgs),
    /// Show what the text encoder makes of sentences.
    Text(text::TextArgs),
    /// Time a training step and a forward pass of a reference workload.
    Bench(bench::BenchArgs),
    /// Show devices and models.
    Info(info::InfoArgs),
}

/// Flags that every command has.
#[derive(Args, Clone)]
struct Common {
    /// Where to compute: cpu, gpu, gpu:1 (by its number in `imagen info`), or auto (a GPU if there is one that is not made
    /// of software, else the CPU)
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = parse_device)]
    device: DeviceChoice,
    /// CPU threads to use [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Print no progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DeviceChoice {
    Auto,
    Cpu,
    /// Any, or the one of this number.
    Gpu(Option<u32>),
}

fn parse_device(text: &str) -> std::result::Result<DeviceChoice, String> {
    match (text, text.strip_prefix("gpu:").map(str::parse)) {
        ("auto", _) => Ok(DeviceChoice::Auto),
        ("cpu", _) => Ok(DeviceChoice::Cpu),
        ("gpu", _) => Ok(DeviceChoice::Gpu(None)),
        (_, Some(Ok(number))) => Ok(DeviceChoice::Gpu(Some(number))),
        _ => Err("it must be cpu, gpu, auto, or gpu: and a number, such as gpu:1".to_string()),
    }
}

/// What a command ends with, or the message it fails with.
type Result<T = ExitCode> = std::result::Result<T, Failure>;

/// A message for the user.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

fn fail<T>(message: impl Display) -> Result<T> {
    Err(Failure(message.to_string()))
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Sample(args) => sample::run(&args),
        Command::Upscale(args) => cascade::upscale(&args),
        Command::Edit(args) => edit::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Text(args) => text::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Info(args) => info::run(&args),
    };
    result.unwrap_or_else(|Failure(message)| {
        note(format!("error: {message}"));
        ExitCode::FAILURE
    })
}

impl Common {
    /// Sets the number of threads and says which device to use.
    fn prepare(&self) -> Result<Device> {
        // The calling thread computes too: handing every kernel over to another thread would cost two switches each.
        let threads = self.threads.map_or(0, usize::from);
        rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
        Ok(match self.device {
            DeviceChoice::Cpu => Device::Cpu,
            DeviceChoice::Auto => match gpu::real() {
                // Nobody asked for this one: if it does not work, the CPU does.
                Some(adapter) => gpu::open(adapter.number).unwrap_or_else(|error| {
                    note(format!("{error}; computing on the CPU"));
                    Device::Cpu
                }),
                None => Device::Cpu,
            },
            DeviceChoice::Gpu(number) => self.open(number)?,
        })
    }

    /// The GPU of this number, or the best there is. One made of software is better than none, if a GPU was asked for.
    fn open(&self, number: Option<u32>) -> Result<Device> {
        let usable = || gpu::adapters().into_iter().find(|adapter| adapter.lacks.is_none());
        let best = || gpu::real().or_else(usable).map_or(0, |adapter| adapter.number);
        let number = number.unwrap_or_else(best);
        let device = gpu::open(number)?;
        let software = gpu::adapters().iter().any(|adapter| adapter.number == number && adapter.kind == "software");
        if software && !self.quiet {
            note(format!("{device} is made of software, and much slower than --device cpu"));
        }
        Ok(device)
    }
}

/// A line to stdout. A reader that has gone away ends the program quietly, as it does for other command-line tools; a full
/// disk is an error.
fn print(line: impl Display) {
    match writeln!(std::io::stdout(), "{line}").map_err(|e| e.kind()) {
        Err(ErrorKind::BrokenPipe) => std::process::exit(0),
        Err(ErrorKind::StorageFull) => {
            note("error: cannot write the result to stdout: the disk is full");
            std::process::exit(1);
        }
        // Nobody listens: a program started without a stdout does its work all the same.
        Ok(()) | Err(_) => {}
    }
}

/// A line to stderr; if nobody reads it, so be it.
fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
