//! `imagen bench`

use super::{Common, Result, fail, note, print};
use clap::{Args, ValueEnum};
use imagen::array::{DType, Device, Ledger};
use imagen::autograd::{Tensor, no_grad};
use imagen::kernels::profile::{self, Profile};
use imagen::kernels::{gpu, of};
use imagen::nn::{Init, Parameters};
use imagen::optim::{Adam, Optimizer};
use imagen::random::{Purpose, normal};
use imagen::train::{self, MemoryPlan, TrainError, Training as _};
use imagen::unet::{UNet, UNetConfig};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Instant;

/// Time a training step and a forward pass of a reference workload.
///
/// The networks are those of the reference workloads, not the bundled model: mnist28 has 32 base channels and no text.
/// On a GPU every repetition ends with reading a number back, so that all of its work is counted; the pipelined time is that
/// of many steps, with one wait at their end.
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
    /// Compute the blocks of the network a second time in the backward pass instead of keeping them
    #[arg(long)]
    recompute: bool,
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
    /// The name of the GPU; null on the CPU.
    gpu: Option<String>,
    threads: usize,
    batch: usize,
    recompute: bool,
    parameters: usize,
    train_ms_median: f64,
    train_ms_min: f64,
    /// Time of a step when none is waited for but the last; null on the CPU, where a step is over when it returns.
    train_ms_pipelined: Option<f64>,
    forward_ms_median: f64,
    forward_ms_min: f64,
    /// Peak resident memory of the process, in MB; null where the system does not tell.
    peak_mb: Option<f64>,
    /// What it was expected to be; null on a GPU, where other memory is used.
    planned_mb: Option<f64>,
    /// The most memory of the GPU that the process has held so far, in MB: arrays, and what is kept to be used again.
    gpu_peak_mb: Option<f64>,
}

/// A network being trained on noise.
struct Training {
    net: UNet,
    parameters: Parameters,
    optimizer: Adam,
    x: Tensor,
    noise: Tensor,
    t: Vec<f64>,
}

impl Training {
    fn new(config: UNetConfig, shape: [usize; 4], recompute: bool, device: Device) -> Result<Training> {
        let init = Init::new(0, DType::F32);
        let net = UNet::new(config, &init)?.recomputing(recompute);
        let parameters = init.parameters();
        parameters.move_to(device);
        let draw = |index| {
            let values = normal(0, Purpose::Test, 0, index, shape.iter().product());
            Tensor::from_f64(shape, &values, DType::F32).to(device)
        };
        Ok(Training {
            net,
            parameters,
            optimizer: Adam::new([0.9, 0.999], 1e-8, 0.0),
            x: draw(0),
            noise: draw(1),
            t: (0..shape[0]).map(|i| (i as f64 + 0.5) / shape[0] as f64).collect(),
        })
    }

    fn forward(&self) -> Tensor {
        self.net.forward(&self.x, &self.t, None)
    }
}

impl train::Training for Training {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn loss(&self) -> std::result::Result<Tensor, TrainError> {
        Ok(self.forward().mse(&self.noise))
    }

    fn step(&mut self) -> std::result::Result<(), TrainError> {
        let gradients = self.loss()?.backward();
        self.optimizer.step(&self.parameters, &gradients, 1e-4);
        Ok(())
    }

    fn optimizer(&self) -> &dyn Optimizer {
        &self.optimizer
    }
}

pub fn run(args: &BenchArgs) -> Result {
    let device = args.common.prepare()?;
    let all = [Workload::Mnist28, Workload::Cifar32];
    let workloads = if args.workloads.is_empty() { &all[..] } else { &args.workloads };
    for workload in workloads {
        let (report, profile) = measure(*workload, args, device)?;
        if args.common.json {
            print(serde_json::to_string(&report)?);
        } else {
            print(report.line());
        }
        if let Some(profile) = profile {
            note(format!("{} training steps of {}, by primitive:\n{profile}", args.steps, report.workload));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    /// For a person.
    fn line(&self) -> String {
        let part = |value: Option<f64>, text: &dyn Fn(f64) -> String| value.map_or_else(String::new, text);
        let planned = part(self.planned_mb, &|mb| format!(" (planned {mb:.0})"));
        format!(
            "{}: {} parameters, batch {}, {} threads on {}{}: training step {:.1} ms (fastest {:.1}{}), forward {:.1} ms (fastest \
             {:.1}){}{}",
            self.workload,
            self.parameters,
            self.batch,
            self.threads,
            self.device,
            self.gpu.as_ref().map_or_else(String::new, |name| format!(" ({name})")),
            self.train_ms_median,
            self.train_ms_min,
            part(self.train_ms_pipelined, &|ms| format!(", pipelined {ms:.1}")),
            self.forward_ms_median,
            self.forward_ms_min,
            part(self.peak_mb, &|mb| format!(", peak {mb:.0} MB{planned}")),
            part(self.gpu_peak_mb, &|mb| format!(", of the GPU {mb:.0} MB")),
        )
    }
}

fn measure(workload: Workload, args: &BenchArgs, device: Device) -> Result<(Report, Option<Profile>)> {
    let (name, config, side, batch) = match workload {
        Workload::Mnist28 => ("mnist28", UNetConfig::mnist28(), 28, 64),
        Workload::Cifar32 => ("cifar32", UNetConfig::cifar32(), 32, 16),
    };
    let batch = args.batch.map_or(batch, usize::from);
    let shape = [batch, config.image_channels, side, side];
    let ledger = Ledger::default();
    let plan = ledger.plan(|| -> Result<MemoryPlan> {
        Ok(MemoryPlan::watch(&ledger, &mut Training::new(config.clone(), shape, args.recompute, Device::Cpu)?)?)
    })?;
    let mut training = Training::new(config, shape, args.recompute, device)?;
    let train = timed(args.steps, device, || training.step())?;
    let train_ms_pipelined =
        device.is_asynchronous().then(|| pipelined(args.steps, device, || training.step())).transpose()?;
    // steps of their own: to time every call takes a little time too
    let adapter = adapter(device);
    let profile = if args.profile {
        if adapter.as_ref().is_some_and(|adapter| !adapter.features.contains(&"timestamps in passes")) {
            note("this GPU has no clock to read: the times are those of handing the work over");
        }
        profile::start();
        let steps = (0..args.steps).try_for_each(|_| training.step());
        let profile = profile::stop();
        steps?;
        Some(profile)
    } else {
        None
    };
    let forward = timed(args.steps, device, || {
        no_grad(|| training.forward());
        Ok(())
    })?;
    let loss = no_grad(|| training.loss())?;
    let finite = loss.item().is_finite();
    // In this order: of a GPU that has failed every number is NaN.
    of(device).check()?;
    if !finite {
        return fail("the loss is no longer finite");
    }
    let report = Report {
        workload: name,
        framework: format!("imagen {}", env!("CARGO_PKG_VERSION")),
        device: device.to_string(),
        gpu: adapter.map(|adapter| adapter.name),
        threads: rayon::current_num_threads(),
        batch,
        recompute: args.recompute,
        parameters: plan.parameters,
        train_ms_median: train[train.len() / 2],
        train_ms_min: train[0],
        train_ms_pipelined,
        forward_ms_median: forward[forward.len() / 2],
        forward_ms_min: forward[0],
        peak_mb: peak_mb(),
        // as the system tells the other: in thousands of its kB, which are 1024 bytes
        planned_mb: (device == Device::Cpu).then_some(plan.peak_bytes as f64 / 1.024e6),
        gpu_peak_mb: device.is_asynchronous().then(|| gpu::gpu(device).stats().pool.peak as f64 / 1e6),
    };
    Ok((report, profile))
}

/// Milliseconds of each repetition, sorted, after three that do not count.
fn timed(steps: u16, device: Device, mut f: impl FnMut() -> std::result::Result<(), TrainError>) -> Result<Vec<f64>> {
    (0..3).try_for_each(|_| f())?;
    wait(device);
    let mut times = Vec::new();
    for _ in 0..steps {
        let start = Instant::now();
        f()?;
        wait(device);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The most steps that are recorded without a wait: what was sent and is not yet done takes memory of its own.
const MOST_AHEAD: u16 = 64;

/// Milliseconds of a repetition among many that nobody waits for, after [`timed`].
fn pipelined(steps: u16, device: Device, mut f: impl FnMut() -> std::result::Result<(), TrainError>) -> Result<f64> {
    let steps = steps.min(MOST_AHEAD);
    let start = Instant::now();
    (0..steps).try_for_each(|_| f())?;
    wait(device);
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(steps))
}

/// Waits until a GPU has done all that was asked of it: reading a number does.
fn wait(device: Device) {
    if device.is_asynchronous() {
        of(device).fill(&[1].into(), DType::F32, 0.0).to_f32();
    }
}

/// The GPU, if it is one.
fn adapter(device: Device) -> Option<gpu::Adapter> {
    let Device::Gpu(id) = device else { return None };
    gpu::adapters().into_iter().find(|adapter| adapter.number == id.adapter)
}

/// The largest resident memory so far, where /proc tells.
pub(super) fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1e3)
}
