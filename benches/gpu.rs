//! `cargo bench --bench gpu`: the GPU kernels one by one, by the clock of the GPU, against what the same GPU does at its best.
//!
//! Two peaks are measured first: bytes a second of a large copy, and operations a second of a kernel that only multiplies and
//! adds in registers. Every primitive of the trait `Kernels` follows, but for `receive`, which is no kernel. The time is the
//! median of the repetitions, each the sum of the primitive's kernels; operations are counted as the definition has them, two
//! for each multiply-add, and only for products; bytes are those of operands and results, each once. The share is that of the
//! peak which holds the primitive back, whichever it reaches more of. What fits into the caches of the GPU may exceed it.
//!
//! `cargo bench --bench gpu -- conv2d "28x28"` runs what has either word in its name or size; `--device gpu:1` takes another
//! GPU; `--json` prints one object; `--test` runs each once, small.

use clap::Parser;
use imagen::array::{Array, DType, Shape};
use imagen::kernels::gpu::{self, Adapter, Gpu};
use imagen::kernels::{AdamStep, Binary, ConvShape, DeviceError, Kernels, Reduce, Unary};
use imagen::random::{Purpose, normal};
use serde::Serialize;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "cargo bench --bench gpu --")]
struct Options {
    /// Only what has one of these words in its name or size
    words: Vec<String>,
    /// gpu, or gpu: and a number of `imagen info` [default: the first that is real, else the first]
    #[arg(long)]
    device: Option<String>,
    /// Run each once, small
    #[arg(long)]
    test: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// What cargo bench adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(adapter) = choose(&options) else {
        return ExitCode::SUCCESS;
    };
    match run(&options, adapter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The GPU to use; none, and a line that says so, if there is none.
fn choose(options: &Options) -> Option<Adapter> {
    let adapters = gpu::adapters();
    if adapters.is_empty() {
        println!("no GPU was found: nothing to measure");
        return None;
    }
    let wanted = match options.device.as_deref() {
        None | Some("gpu") => gpu::real().map_or(0, |adapter| adapter.number),
        Some(text) => match text.strip_prefix("gpu:").and_then(|number| number.parse().ok()) {
            Some(number) => number,
            None => usage(format!("--device {text}: it must be gpu, or gpu: and a number")),
        },
    };
    let count = adapters.len();
    let found = adapters.into_iter().find(|adapter| adapter.number == wanted);
    found.or_else(|| usage(format!("there is no gpu:{wanted}; there are {count}, from gpu:0 on")))
}

fn usage(problem: String) -> ! {
    eprintln!("error: {problem}");
    std::process::exit(2)
}

fn run(options: &Options, adapter: Adapter) -> Result<(), DeviceError> {
    let gpu = gpu::gpu(gpu::open(adapter.number)?);
    let software = adapter.kind == "software";
    // Without --bench it is cargo test that runs this.
    let once = options.test || !options.bench;
    let clock = gpu.start_timing();
    gpu.stop_timing();
    let notes = [
        (software, "this GPU is made of software: its figures say nothing about a real one, and sizes are tiny"),
        (!clock, "this GPU has no clock to read: times are of handing the work over and waiting for it"),
    ];
    let notes: Vec<&str> = notes.into_iter().filter_map(|(so, note)| so.then_some(note)).collect();
    let mut bench = Bench {
        gpu,
        words: options.words.clone(),
        clock,
        once,
        tiny: once || software,
        quiet: options.json,
        rows: Vec::new(),
        peaks: Peaks { gflops: f64::NAN, gb_per_s: f64::NAN },
    };
    bench.say(format!(
        "gpu:{} {} ({}, {}, {})",
        adapter.number, adapter.name, adapter.kind, adapter.backend, adapter.driver
    ));
    notes.iter().for_each(|note| bench.say(note));
    bench.peaks = bench.peaks()?;
    bench.say(format!("peaks as measured: {:.1} GFLOP/s, {:.1} GB/s\n", bench.peaks.gflops, bench.peaks.gb_per_s));
    bench.say(HEADS);
    ladder(&mut bench)?;
    products(&mut bench)?;
    convolutions(&mut bench)?;
    attention(&mut bench)?;
    groups(&mut bench)?;
    rows(&mut bench)?;
    reductions(&mut bench)?;
    elementwise(&mut bench)?;
    moves(&mut bench)?;
    optimiser(&mut bench)?;
    if options.json {
        let Bench { tiny, peaks, rows, .. } = bench;
        let clock = if clock { "gpu" } else { "wall" };
        let report = Report { adapter, notes, clock, tiny, peaks, rows };
        println!("{}", serde_json::to_string(&report).expect("numbers and strings"));
    }
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    adapter: Adapter,
    notes: Vec<&'a str>,
    /// "gpu", or "wall" where it has none.
    clock: &'static str,
    /// Whether sizes were those of a test.
    tiny: bool,
    peaks: Peaks,
    rows: Vec<Row>,
}

/// What the GPU did at its best.
#[derive(Clone, Copy, Serialize)]
struct Peaks {
    gflops: f64,
    gb_per_s: f64,
}

#[derive(Serialize)]
struct Row {
    primitive: String,
    size: String,
    repetitions: usize,
    ms_median: f64,
    ms_min: f64,
    /// Of products only.
    gflops: Option<f64>,
    gb_per_s: f64,
    /// Of the peak that is reached more of.
    share: f64,
    /// That peak: "arithmetic" or "memory".
    bound: &'static str,
}

const HEADS: &str = "primitive             size                                            \
                     ms   GFLOP/s      GB/s  of peak";

impl Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { primitive, size, ms_median, gb_per_s, bound, .. } = self;
        let gflops = self.gflops.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
        let share = 100.0 * self.share;
        write!(f, "{primitive:21} {size:40} {ms_median:9.4} {gflops:>9} {gb_per_s:9.1} {share:5.1}% {bound}")
    }
}

type Done = Result<(), DeviceError>;

/// Numbers of an array that no cache holds.
const LARGE: usize = 1 << 25;

/// Seconds of repetitions.
const LONG_ENOUGH: f64 = 0.2;

/// Seconds that no kernel should take: drivers take a GPU for hung after two or more.
const TOO_LONG: f64 = 1.0;

/// Shares of the peak that are feared: of kernels made to be fast, and of those that are the definition.
const FAST: f64 = 0.1;
const DEFINITION: f64 = 0.01;

struct Bench {
    gpu: &'static Gpu,
    words: Vec<String>,
    /// Whether the GPU has one.
    clock: bool,
    once: bool,
    tiny: bool,
    quiet: bool,
    rows: Vec<Row>,
    peaks: Peaks,
}

impl Bench {
    fn say(&self, line: impl Display) {
        if !self.quiet {
            println!("{line}");
        }
    }

    /// One of two sizes.
    fn size<T>(&self, full: T, tiny: T) -> T {
        if self.tiny { tiny } else { full }
    }

    fn wants(&self, primitive: &str, size: &str) -> bool {
        let name = format!("{primitive} {size}");
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    fn wants_any(&self, primitives: &[&str], size: &str) -> bool {
        primitives.iter().any(|primitive| self.wants(primitive, size))
    }

    /// An array of the GPU. Draws are slow, and no kernel's time depends on them: a few are repeated.
    fn random(&self, index: u64, shape: impl Into<Shape>) -> Array {
        const DRAWS: usize = 65_537;
        let shape = shape.into();
        let draws: Vec<f32> =
            normal(0, Purpose::Test, 0, index, shape.numel().min(DRAWS)).into_iter().map(|v| v as f32).collect();
        let values = draws.iter().copied().cycle().take(shape.numel()).collect();
        self.gpu.receive(&Array::from_vec(shape, values))
    }

    /// Waits for all that was asked for: reading a number does.
    fn wait(&self) {
        self.gpu.fill(&[1].into(), DType::F32, 0.0).to_f32();
    }

    /// Seconds of each of `repetitions` of `f`.
    fn seconds<R>(&self, repetitions: usize, mut f: impl FnMut() -> R) -> Vec<f64> {
        self.wait();
        if !self.clock {
            let one = |_| {
                let start = Instant::now();
                f();
                self.wait();
                start.elapsed().as_secs_f64()
            };
            return (0..repetitions).map(one).collect();
        }
        self.gpu.start_timing();
        for i in 0..repetitions {
            self.gpu.label(i.to_string());
            f();
            // Many slow kernels in one batch would look hung to the driver.
            self.gpu.flush();
        }
        self.gpu.stop_timing().into_values().map(|nanoseconds| nanoseconds * 1e-9).collect()
    }

    /// Sorted seconds of `f`, as often as makes sense.
    fn times<R>(&self, mut f: impl FnMut() -> R) -> Result<Vec<f64>, DeviceError> {
        let mut times = self.seconds(1, &mut f);
        if !self.once {
            let first = times.first().copied().unwrap_or(0.0);
            let repetitions = ((self.size(LONG_ENOUGH, LONG_ENOUGH / 10.0) / first) as usize).clamp(5, 50);
            // A GPU that has had nothing to do takes some time to run at full speed.
            self.seconds(1 + repetitions / 4, &mut f);
            times = self.seconds(repetitions, &mut f);
        }
        self.gpu.check()?;
        if times.is_empty() {
            return Err(DeviceError::Driver("it did not hand over what its clock said".into()));
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    /// The peaks of this GPU.
    fn peaks(&self) -> Result<Peaks, DeviceError> {
        let n = self.size(LARGE, 1 << 16);
        let x = self.random(0, [n]);
        let copy = self.times(|| self.gpu.affine(&x, 1.0, 0.0))?[0];
        let threads = self.size(1 << 20, 1 << 10);
        // Long enough that to begin and to end do not matter, on whatever GPU this is.
        let mut rounds = self.size(16, 2);
        let first = self.times(|| self.gpu.peak(threads, rounds))?[0];
        if !self.tiny {
            rounds = (rounds as f64 * (5e-3 / first).clamp(1.0, 1000.0)) as usize;
        }
        let operations = self.gpu.peak(threads, rounds).1;
        let arithmetic = self.times(|| self.gpu.peak(threads, rounds))?[0];
        Ok(Peaks { gflops: operations / arithmetic / 1e9, gb_per_s: 8.0 * n as f64 / copy / 1e9 })
    }

    /// Times `f` as `primitive` at `size`, which does `operations` of products and moves `numbers` numbers.
    fn time<R>(
        &mut self,
        primitive: impl Display,
        size: impl Display,
        [operations, numbers]: [usize; 2],
        f: impl FnMut() -> R,
    ) -> Done {
        let (primitive, size) = (primitive.to_string(), size.to_string());
        if !self.wants(&primitive, &size) || self.leaves_out(&primitive, &size, operations, FAST) {
            return Ok(());
        }
        let times = self.times(f)?;
        let median = times[times.len() / 2];
        let gflops = (operations > 0).then(|| operations as f64 / median / 1e9);
        let gb_per_s = 4.0 * numbers as f64 / median / 1e9;
        let shares = [gflops.unwrap_or(0.0) / self.peaks.gflops, gb_per_s / self.peaks.gb_per_s];
        let (share, bound) = if shares[0] > shares[1] { (shares[0], "arithmetic") } else { (shares[1], "memory") };
        let (ms_median, ms_min) = (1e3 * median, 1e3 * times[0]);
        let repetitions = times.len();
        let row = Row { primitive, size, repetitions, ms_median, ms_min, gflops, gb_per_s, share, bound };
        self.say(&row);
        self.rows.push(row);
        Ok(())
    }

    /// Whether a kernel that reaches only `share` of the peak would take too long; then it says so.
    fn leaves_out(&self, primitive: &str, size: &str, operations: usize, share: f64) -> bool {
        let too_long = operations as f64 / (1e9 * self.peaks.gflops * share) > TOO_LONG;
        if too_long && self.wants(primitive, size) {
            self.say(format!("{primitive} {size}: left out, it could take this GPU more than a second"));
        }
        too_long
    }
}

/// Square products: by definition, by tiles, and as they are used.
fn ladder(b: &mut Bench) -> Done {
    for n in b.size(vec![512, 1024, 2048, 4096], vec![64, 96]) {
        let (operations, size) = (2 * n * n * n, format!("{n}x{n}x{n}"));
        let ladder = b.gpu.matmuls();
        if !b.wants_any(&ladder.map(|(name, _)| format!("matmul {name}")).each_ref().map(String::as_str), &size) {
            continue;
        }
        let (x, y) = (b.random(0, [n, n]), b.random(1, [n, n]));
        for (name, product) in ladder {
            let (gpu, name) = (b.gpu, format!("matmul {name}"));
            if !name.ends_with("blocked") && b.leaves_out(&name, &size, operations, DEFINITION) {
                continue;
            }
            b.time(name, &size, [operations, 3 * n * n], || product(gpu, &x, &y))?;
        }
    }
    Ok(())
}

/// Factors stored as their transposes; those of attention as two products, over 7x7 and 16x16 pixels; a linear layer.
fn products(b: &mut Bench) -> Done {
    let n = b.size(2048, 64);
    let mut cases =
        vec![(vec![], [n, n, n], [true, false]), (vec![], [n, n, n], [false, true]), (vec![], [n, n, n], [true, true])];
    if b.tiny {
        cases.extend([(vec![2, 2], [9, 8, 9], [false, true]), (vec![], [8, 32, 16], [false, true])]);
    } else {
        cases.extend([
            (vec![64, 4], [49, 16, 49], [false, true]),
            (vec![64, 4], [49, 49, 16], [false, false]),
            (vec![16, 4], [256, 32, 256], [false, true]),
            (vec![16, 4], [256, 256, 32], [false, false]),
            (vec![], [64, 128, 64], [false, true]),
        ]);
    }
    for (lead, [n, inner, m], [transpose_a, transpose_b]) in cases {
        let batch: usize = lead.iter().product();
        let marks = [(transpose_a, " a'"), (transpose_b, " b'")];
        let marks: String = marks.into_iter().filter_map(|(so, mark)| so.then_some(mark)).collect();
        let size = format!("{batch} of {n}x{inner}x{m}{marks}");
        if !b.wants("matmul", &size) {
            continue;
        }
        let x = b.random(0, [&lead[..], &if transpose_a { [inner, n] } else { [n, inner] }].concat());
        let y = b.random(1, [&lead[..], &if transpose_b { [m, inner] } else { [inner, m] }].concat());
        let work = [2 * batch * n * inner * m, batch * (n * inner + inner * m + n * m)];
        let gpu = b.gpu;
        b.time("matmul", size, work, || gpu.matmul(&x, &y, transpose_a, transpose_b))?;
    }
    Ok(())
}

/// A large one; then batch 64 of mnist28 and batch 16 of cifar32: kernels of 3x3 that keep the size, from the largest image to
/// the smallest; the first layer and the last; those that halve the image; those of 1x1.
fn convolutions(b: &mut Bench) -> Done {
    let full = vec![
        (64, 256, 256, 32, 3, 1),
        (64, 32, 32, 28, 3, 1),
        (64, 64, 64, 14, 3, 1),
        (64, 64, 64, 7, 3, 1),
        (64, 128, 64, 7, 3, 1),
        (64, 1, 32, 28, 3, 1),
        (64, 32, 1, 28, 3, 1),
        (64, 32, 32, 28, 3, 2),
        (64, 64, 32, 28, 1, 1),
        (64, 64, 192, 7, 1, 1),
        (16, 64, 64, 32, 3, 1),
        (16, 128, 128, 16, 3, 1),
        (16, 256, 128, 16, 3, 1),
        (16, 128, 128, 8, 3, 1),
        (16, 128, 128, 4, 3, 1),
        (16, 3, 64, 32, 3, 1),
        (16, 64, 3, 32, 3, 1),
        (16, 64, 64, 32, 3, 2),
        (16, 128, 384, 16, 1, 1),
    ];
    let tiny = vec![(2, 8, 16, 8, 3, 1), (2, 1, 8, 8, 3, 1), (2, 8, 8, 8, 3, 2), (2, 16, 8, 8, 1, 1)];
    for (batch, inputs, outputs, side, kernel, stride) in b.size(full, tiny) {
        let step = if stride == 1 { String::new() } else { format!("/{stride}") };
        let size = format!("{kernel}x{kernel}{step} {batch}x{inputs}x{side}x{side} to {outputs}");
        if !b.wants_any(&["conv2d", "conv2d_direct", "conv2d_grad_input", "conv2d_grad_weight"], &size) {
            continue;
        }
        let (gpu, shape) = (b.gpu, ConvShape { stride, padding: kernel / 2 });
        let x = b.random(0, [batch, inputs, side, side]);
        let weight = b.random(1, [outputs, inputs, kernel, kernel]);
        let bias = b.random(2, [outputs]);
        let to = shape.output(side, kernel).expect("the kernel fits");
        let g = b.random(3, [batch, outputs, to, to]);
        let operations = 2 * g.numel() * inputs * kernel * kernel;
        let work = [operations, x.numel() + weight.numel() + g.numel()];
        b.time("conv2d", &size, work, || gpu.conv2d(&x, &weight, Some(&bias), shape))?;
        b.time("conv2d_grad_input", &size, work, || gpu.conv2d_grad_input(&g, &weight, x.shape(), shape))?;
        b.time("conv2d_grad_weight", &size, work, || gpu.conv2d_grad_weight(&g, &x, weight.shape(), shape))?;
        if !b.leaves_out("conv2d_direct", &size, operations, DEFINITION) {
            b.time("conv2d_direct", &size, work, || gpu.conv2d_direct(&x, &weight, Some(&bias), shape))?;
        }
    }
    Ok(())
}

/// Of mnist28 over 7x7 pixels, of cifar32 over 16x16, of 32x32 pixels; and with a bias, as that of a text's padding.
fn attention(b: &mut Bench) -> Done {
    let full = vec![(64, 4, 49, 16, false), (16, 4, 256, 32, false), (16, 8, 1024, 32, false), (16, 4, 256, 32, true)];
    for (batch, heads, n, d, biased) in b.size(full, vec![(2, 2, 9, 8, false), (2, 2, 9, 8, true)]) {
        let size = format!("{batch}x{heads}x{n}x{d}{}", if biased { " and a bias" } else { "" });
        if !b.wants_any(&["attention", "attention_grad"], &size) {
            continue;
        }
        let gpu = b.gpu;
        let [q, k, v, g] = [0, 1, 2, 3].map(|i| b.random(i, [batch, heads, n, d]));
        let bias = biased.then(|| b.random(4, [batch, 1, 1, n]));
        let scale = 1.0 / (d as f64).sqrt();
        let (_, saved) = gpu.attention(&q, &k, &v, bias.as_ref(), scale);
        let product = 2 * batch * heads * n * n * d;
        b.time("attention", &size, [2 * product, 4 * q.numel()], || gpu.attention(&q, &k, &v, bias.as_ref(), scale))?;
        b.time("attention_grad", &size, [4 * product, 8 * q.numel()], || {
            gpu.attention_grad(&g, [&q, &k, &v], bias.as_ref(), &saved, scale)
        })?;
    }
    Ok(())
}

fn groups(b: &mut Bench) -> Done {
    let names = ["group_norm", "group_norm_grad", "group_norm_silu", "group_norm_silu_grad"];
    let full = vec![(64, 32, 28), (64, 64, 7), (16, 64, 32), (16, 128, 16), (64, 256, 32)];
    for (batch, c, side) in b.size(full, vec![(2, 16, 8), (2, 16, 3)]) {
        let size = format!("{batch}x{c}x{side}x{side}, 8 groups");
        if !b.wants_any(&names, &size) {
            continue;
        }
        let gpu = b.gpu;
        let [x, g] = [0, 1].map(|i| b.random(i, [batch, c, side, side]));
        let [weight, bias] = [2, 3].map(|i| b.random(i, [c]));
        let (_, mean, inv_std) = gpu.group_norm(&x, &weight, &bias, 8, 1e-5);
        let (forward, backward) = ([0, 2 * x.numel()], [0, 3 * x.numel()]);
        b.time(names[0], &size, forward, || gpu.group_norm(&x, &weight, &bias, 8, 1e-5))?;
        b.time(names[1], &size, backward, || gpu.group_norm_grad(&g, &x, &weight, &mean, &inv_std))?;
        b.time(names[2], &size, forward, || gpu.group_norm_silu(&x, &weight, &bias, 8, 1e-5))?;
        b.time(names[3], &size, backward, || gpu.group_norm_silu_grad(&g, &x, &weight, &bias, &mean, &inv_std))?;
    }
    Ok(())
}

fn rows(b: &mut Bench) -> Done {
    let names = ["softmax", "softmax_grad", "log_softmax", "log_softmax_grad"];
    let full = vec![(64 * 4 * 49, 49), (16 * 4 * 256, 256), (1 << 15, 1024)];
    for (rows, n) in b.size(full, vec![(36, 9), (16, 80)]) {
        let size = format!("{rows} rows of {n}");
        if !b.wants_any(&names, &size) {
            continue;
        }
        let gpu = b.gpu;
        let [x, g] = [0, 1].map(|i| b.random(i, [rows, n]));
        let (y, log_y) = (gpu.softmax(&x), gpu.log_softmax(&x));
        b.time(names[0], &size, [0, 2 * x.numel()], || gpu.softmax(&x))?;
        b.time(names[1], &size, [0, 3 * x.numel()], || gpu.softmax_grad(&y, &g))?;
        b.time(names[2], &size, [0, 2 * x.numel()], || gpu.log_softmax(&x))?;
        b.time(names[3], &size, [0, 3 * x.numel()], || gpu.log_softmax_grad(&log_y, &g))?;
    }
    Ok(())
}

/// Along rows, along columns, over everything; the gradient of a bias of mnist28; norms of all gradients.
fn reductions(b: &mut Bench) -> Done {
    let gpu = b.gpu;
    let (side, parameters) = b.size((1 << 12, 8_952_067), (1 << 7, 1000));
    let x = b.random(0, [side, side]);
    for (op, name) in [(Reduce::Sum, "sum"), (Reduce::Max, "max")] {
        let n = x.numel();
        b.time(name, format!("along {side} rows of {side}"), [0, n + side], || gpu.reduce(op, &x, 1..2))?;
        b.time(name, format!("along {side} columns of {side}"), [0, n + side], || gpu.reduce(op, &x, 0..1))?;
        b.time(name, format!("of {side}x{side}"), [0, n + 1], || gpu.reduce(op, &x, 0..2))?;
    }
    let [images, channels, pixels] = b.size([64, 32, 784], [2, 8, 64]);
    let g = b.random(1, [images, channels, pixels]);
    b.time("sum", format!("of {pixels} pixels of {images}x{channels}"), [0, g.numel()], || {
        gpu.reduce(Reduce::Sum, &g, 2..3)
    })?;
    let mut gradient = b.random(2, [parameters]);
    b.time("norm", format!("of {parameters}"), [0, parameters], || gpu.norm(&[&gradient]))?;
    // So little too long that many repetitions do not make nothing of it.
    let norm = gpu.fill(&Shape::from([]), DType::F32, 1.0001);
    b.time("shorten", parameters, [0, 2 * parameters], || gpu.shorten(&mut gradient, &norm, 1.0, 0.0))
}

fn elementwise(b: &mut Bench) -> Done {
    let gpu = b.gpu;
    let n = b.size(LARGE, 1 << 12);
    let [x, g] = [0, 1].map(|i| b.random(i, [n]));
    for op in
        [Unary::Neg, Unary::Square, Unary::Exp, Unary::Sin, Unary::Tanh, Unary::Silu, Unary::GeluTanh, Unary::GeluErf]
    {
        b.time(op.name(), n, [0, 2 * n], || gpu.unary(op, &x))?;
        b.time(format!("{}_grad", op.name()), n, [0, 3 * n], || gpu.unary_grad(op, &x, &g))?;
    }
    b.time("affine", n, [0, 2 * n], || gpu.affine(&x, 2.0, 1.0))?;
    b.time("fill", n, [0, n], || gpu.fill(x.shape(), DType::F32, 1.0))?;
    let [rows, channels, pixels] = b.size([64, 512, 1024], [4, 16, 64]);
    let image = x.reshape([rows, channels, pixels]);
    let (channel, row) = (b.random(2, [channels, 1]), b.random(3, [pixels]));
    for op in [Binary::Add, Binary::Mul, Binary::Maximum] {
        b.time(op.name(), n, [0, 3 * n], || gpu.binary(op, &x, &g))?;
        b.time(op.name(), format!("{n} and one a channel"), [0, 2 * n], || gpu.binary(op, &image, &channel))?;
        b.time(op.name(), format!("{n} and one a column"), [0, 2 * n], || gpu.binary(op, &image, &row))?;
    }
    drop((image, x));
    let mut sum = b.random(4, [n]);
    b.time("add_assign", n, [0, 3 * n], || gpu.add_assign(&mut sum, &g, 1.0))?;
    b.time("lerp_assign", n, [0, 3 * n], || gpu.lerp_assign(&mut sum, &g, 0.5))
}

/// Primitives that only move numbers.
fn moves(b: &mut Bench) -> Done {
    let gpu = b.gpu;
    let side = b.size(1 << 12, 1 << 6);
    let x = b.random(0, [side, side]);
    let n = x.numel();
    b.time("permute", format!("{side}x{side} transposed"), [0, 2 * n], || gpu.permute(&x, &[1, 0]))?;
    let heads = b.random(1, b.size([16, 4, 32, 256], [2, 2, 8, 16]));
    let work = [0, 2 * heads.numel()];
    b.time("permute", format!("{} transposed", heads.shape()), work, || gpu.permute(&heads, &[0, 1, 3, 2]))?;
    let image = b.random(2, b.size([64, 256, 32, 32], [2, 8, 8, 8]));
    let [images, channels, height, width] = image.shape()[..] else { unreachable!("four axes") };
    let (n, size) = (image.numel(), image.shape().to_string());
    b.time("permute", format!("{size} channels last"), [0, 2 * n], || gpu.permute(&image, &[0, 2, 3, 1]))?;
    let per_channel = b.random(3, [channels, 1, 1]);
    b.time("broadcast_to", format!("one a channel to {size}"), [0, n], || {
        gpu.broadcast_to(&per_channel, image.shape())
    })?;
    b.time("concat", format!("two of {size}"), [0, 4 * n], || gpu.concat(&[&image, &image], 1))?;
    let half = gpu.slice(&image, 1, 0..channels / 2);
    b.time("slice", format!("half the channels of {size}"), [0, n], || gpu.slice(&image, 1, 0..channels / 2))?;
    b.time("unslice", format!("half the channels of {size}"), [0, n + n / 2], || gpu.unslice(&half, 1, 0, channels))?;
    let small = b.random(4, [images, channels, height / 2, width / 2]);
    b.time("upsample_nearest", format!("to {size}"), [0, n + n / 4], || gpu.upsample_nearest(&small, 2))?;
    b.time("sum_pool", format!("of {size}"), [0, n + n / 4], || gpu.sum_pool(&image, 2))?;
    let [table_rows, picked, d] = b.size([30_000, 8192, 512], [50, 20, 16]);
    let table = b.random(5, [table_rows, d]);
    let chosen: Vec<u32> = (0..picked).map(|i| (i * 7919 % table_rows) as u32).collect();
    let g = gpu.gather_rows(&table, &chosen);
    let (n, size) = (g.numel(), format!("{picked} rows of {d}"));
    b.time("gather_rows", &size, [0, 2 * n], || gpu.gather_rows(&table, &chosen))?;
    let all = format!("{size} into {table_rows}");
    b.time("scatter_add_rows", all, [0, n + table.numel()], || gpu.scatter_add_rows(&g, &chosen, table_rows))
}

/// All parameters of mnist28, and of cifar32.
fn optimiser(b: &mut Bench) -> Done {
    let gpu = b.gpu;
    for n in b.size(vec![1_623_169, 8_952_067], vec![1001]) {
        if !b.wants_any(&["adam", "adam averaged"], &n.to_string()) {
            continue;
        }
        let grad = b.random(0, [n]);
        let [mut p, mut average] = [1, 2].map(|i| b.random(i, [n]));
        let [mut first, mut second] = [0.0, 1.0].map(|value| gpu.fill(grad.shape(), DType::F32, value));
        let step = AdamStep { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 10 };
        b.time("adam", n, [0, 7 * n], || gpu.adam(&mut p, &grad, [&mut first, &mut second], None, step))?;
        b.time("adam averaged", n, [0, 9 * n], || {
            gpu.adam(&mut p, &grad, [&mut first, &mut second], Some((&mut average, 0.001)), step);
        })?;
    }
    Ok(())
}
