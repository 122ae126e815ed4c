//! `imagen bench`

use super::{Common, Result, note, print};
use clap::{Args, ValueEnum};
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::kernels::profile::{self, Profile};
use imagen::nn::Init;
use imagen::optim::{Adam, Optimizer};
use imagen::random::{Purpose, normal};
use imagen::unet::{UNet, UNetConfig};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Instant;

/// Time a training step and a forward pass of a reference workload.
///
/// The networks are those of the reference workloads, not the bundled model: mnist28 has 32 base channels and no text.
#[derive(Args)]
pub struct BenchArgs {
    /// Which workloads [default: both]
    workloads: Vec<Workload>,
    /// Timed repetitions of each
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    steps: u16,
    /// Images a step [default: 64 for mnist28, 16 for cifar32]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: Option<u16>,
    /// Say how the time of a training step divides among the primitives
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Workload {
    /// 1x28x28, 1.62 M parameters
    Mnist28,
    /// 3x32x32, 8.95 M parameters
    Cifar32,
}

#[derive(Serialize)]
struct Report {
    workload: &'static str,
    framework: String,
    device: String,
    threads: usize,
    batch: usize,
    parameters: usize,
    train_ms_median: f64,
    train_ms_min: f64,
    forward_ms_median: f64,
    forward_ms_min: f64,
    /// Peak resident memory of the process, in MB; null where the system does not tell.
    peak_mb: Option<f64>,
}

pub fn run(args: &BenchArgs) -> Result {
    let device = args.common.prepare()?;
    let all = [Workload::Mnist28, Workload::Cifar32];
    let workloads = if args.workloads.is_empty() { &all[..] } else { &args.workloads };
    for workload in workloads {
        let (report, profile) = measure(*workload, args, device.to_string())?;
        if args.common.json {
            print(serde_json::to_string(&report)?);
        } else {
            print(format!(
                "{}: {} parameters, batch {}, {} threads on {}: training step {:.1} ms (fastest {:.1}), forward {:.1} ms (fastest {:.1}){}",
                report.workload,
                report.parameters,
                report.batch,
                report.threads,
                report.device,
                report.train_ms_median,
                report.train_ms_min,
                report.forward_ms_median,
                report.forward_ms_min,
                report.peak_mb.map_or_else(String::new, |mb| format!(", peak {mb:.0} MB")),
            ));
        }
        if let Some(profile) = profile {
            note(format!("{} training steps of {}, by primitive:\n{profile}", args.steps, report.workload));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(workload: Workload, args: &BenchArgs, device: String) -> Result<(Report, Option<Profile>)> {
    let (name, config, side, batch) = match workload {
        Workload::Mnist28 => ("mnist28", UNetConfig::mnist28(), 28, 64),
        Workload::Cifar32 => ("cifar32", UNetConfig::cifar32(), 32, 16),
    };
    let batch = args.batch.map_or(batch, usize::from);
    let shape = [batch, config.image_channels, side, side];
    let init = Init::new(0, DType::F32);
    let net = UNet::new(config, &init)?;
    let parameters = init.parameters();
    let mut optimizer = Adam::new([0.9, 0.999], 1e-8, 0.0);
    let draw = |index| Tensor::from_f64(shape, &normal(0, Purpose::Test, 0, index, shape.iter().product()), DType::F32);
    let (x, noise) = (draw(0), draw(1));
    let t: Vec<f64> = (0..batch).map(|i| (i as f64 + 0.5) / batch as f64).collect();

    let mut step = || {
        let gradients = net.forward(&x, &t, None).mse(&noise).backward();
        optimizer.step(&parameters, &gradients, 1e-4);
    };
    let train = timed(args.steps, &mut step);
    // steps of their own: to time every call takes a little time too
    let profile = args.profile.then(|| {
        profile::start();
        (0..args.steps).for_each(|_| step());
        profile::stop()
    });
    let forward = timed(args.steps, || {
        no_grad(|| net.forward(&x, &t, None));
    });
    let report = Report {
        workload: name,
        framework: format!("imagen {}", env!("CARGO_PKG_VERSION")),
        device,
        threads: rayon::current_num_threads(),
        batch,
        parameters: parameters.count(),
        train_ms_median: train[train.len() / 2],
        train_ms_min: train[0],
        forward_ms_median: forward[forward.len() / 2],
        forward_ms_min: forward[0],
        peak_mb: peak_mb(),
    };
    Ok((report, profile))
}

/// Milliseconds of each repetition, sorted, after three that do not count.
fn timed(steps: u16, mut f: impl FnMut()) -> Vec<f64> {
    (0..3).for_each(|_| f());
    let mut times: Vec<f64> = (0..steps)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The largest resident memory so far, where /proc tells.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1e3)
}
