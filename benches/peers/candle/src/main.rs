//! The reference networks of `imagen bench` in candle: the time of a training step and of a forward pass.
//!
//! Layer by layer this is `torch_unet.py`, names of parameters included, and so is the JSON line it prints.

use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::{Activation, AdamW, Conv2d, Conv2dConfig, Linear, Optimizer, ParamsAdamW, Sequential};
use candle_nn::{VarBuilder, VarMap, conv2d, group_norm, linear, loss, ops, seq};
use clap::Parser;
use std::{num::NonZero, time::Instant};

const BLOCKS: usize = 2;
const GROUPS: usize = 8;
const HEADS: usize = 4;

/// Time a training step and a forward pass of a reference workload in candle.
#[derive(Parser)]
struct Options {
    #[arg(value_parser = ["mnist28", "cifar32"])]
    workload: String,
    /// Timed repetitions of each
    #[arg(long, default_value = "8")]
    steps: NonZero<usize>,
    /// Images a step [default: 64 for mnist28, 16 for cifar32]
    #[arg(long)]
    batch: Option<usize>,
    /// CPU threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, vb: VarBuilder) -> Result<Conv2d> {
    conv2d(inputs, outputs, kernel, Conv2dConfig { padding: kernel / 2, stride, ..Default::default() }, vb)
}

fn arange(n: usize) -> Result<Tensor> {
    Tensor::arange(0, n as u32, &Device::Cpu)?.to_dtype(DType::F32)
}

/// conv(silu(norm(x)))
fn norm_conv(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Sequential> {
    let norm = group_norm(GROUPS, inputs, 1e-5, vb.pp(0))?;
    Ok(seq().add(norm).add(Activation::Silu).add(conv(inputs, outputs, 3, 1, vb.pp(2))?))
}

/// x + conv(silu(norm(conv(silu(norm(x))) + embedding)))
struct Residual {
    first: Sequential,
    embedding: Linear,
    second: Sequential,
    shortcut: Option<Conv2d>,
}

impl Residual {
    fn new(inputs: usize, outputs: usize, embedding: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: norm_conv(inputs, outputs, vb.pp("first"))?,
            embedding: linear(embedding, outputs, vb.pp("embedding"))?,
            second: norm_conv(outputs, outputs, vb.pp("second"))?,
            shortcut: (inputs != outputs).then(|| conv(inputs, outputs, 1, 1, vb.pp("shortcut"))).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let embedding = self.embedding.forward(embedding)?.unsqueeze(2)?.unsqueeze(3)?;
        let h = self.first.forward(x)?.broadcast_add(&embedding)?;
        self.second.forward(&h)? + self.shortcut.as_ref().forward(x)?
    }
}

struct SelfAttention {
    qkv: Sequential,
    out: Conv2d,
}

impl SelfAttention {
    fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let norm = group_norm(GROUPS, channels, 1e-5, vb.pp("norm"))?;
        let qkv = seq().add(norm).add(conv(channels, 3 * channels, 1, 1, vb.pp("qkv"))?);
        Ok(Self { qkv, out: conv(channels, channels, 1, 1, vb.pp("out"))? })
    }
}

impl Module for SelfAttention {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let qkv = self.qkv.forward(x)?.reshape((batch, 3, HEADS, channels / HEADS, height * width))?;
        // candle multiplies only batches that lie evenly in memory
        let part = |i: usize| qkv.i((.., i))?.contiguous();
        let scores = (part(0)?.t()?.matmul(&part(1)?)? / ((channels / HEADS) as f64).sqrt())?;
        // the faster softmax_last_dim has no backward pass
        let values = part(2)?.matmul(&ops::softmax(&scores, D::Minus1)?.t()?)?;
        x + self.out.forward(&values.reshape(x.shape())?)?
    }
}

/// A step on the way down or up.
enum Layer {
    Block(Residual, Option<SelfAttention>),
    Resize(Sequential),
}

impl Layer {
    fn block(inputs: usize, outputs: usize, embedding: usize, attends: bool, vb: VarBuilder) -> Result<Self> {
        let attention = attends.then(|| SelfAttention::new(outputs, vb.pp("attention"))).transpose()?;
        Ok(Self::Block(Residual::new(inputs, outputs, embedding, vb.pp("residual"))?, attention))
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        match self {
            Self::Block(residual, attention) => attention.as_ref().forward(&residual.forward(x, embedding)?),
            Self::Resize(layers) => layers.forward(x),
        }
    }
}

struct UNet {
    base: usize,
    time: Sequential,
    conv_in: Conv2d,
    down: Vec<Layer>,
    middle: [Layer; 2],
    up: Vec<Layer>,
    out: Sequential,
}

impl UNet {
    /// `attention` is the level whose blocks attend.
    fn new(image: usize, base: usize, multipliers: &[usize], attention: usize, vb: VarBuilder) -> Result<Self> {
        let embedding = 4 * base;
        let time = seq().add(linear(base, embedding, vb.pp("time.0"))?).add(Activation::Silu);
        let time = time.add(linear(embedding, embedding, vb.pp("time.2"))?).add(Activation::Silu);
        let (mut channels, mut skips) = (base, vec![base]);
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for (level, multiplier) in multipliers.iter().enumerate() {
            for _ in 0..BLOCKS {
                let (outputs, vb) = (base * multiplier, vb.pp("down").pp(down.len()));
                down.push(Layer::block(channels, outputs, embedding, level == attention, vb)?);
                channels = outputs;
                skips.push(channels);
            }
            if level + 1 < multipliers.len() {
                let conv = conv(channels, channels, 3, 2, vb.pp("down").pp(down.len()))?;
                down.push(Layer::Resize(seq().add(conv)));
                skips.push(channels);
            }
        }
        let middle = [
            Layer::block(channels, channels, embedding, true, vb.pp("middle.0"))?,
            Layer::block(channels, channels, embedding, false, vb.pp("middle.1"))?,
        ];
        for level in (0..multipliers.len()).rev() {
            for skip in skips.split_off(skips.len() - BLOCKS - 1).into_iter().rev() {
                let (outputs, vb) = (base * multipliers[level], vb.pp("up").pp(up.len()));
                up.push(Layer::block(channels + skip, outputs, embedding, level == attention, vb)?);
                channels = outputs;
            }
            if level > 0 {
                let conv = conv(channels, channels, 3, 1, vb.pp("up").pp(up.len()).pp(1))?;
                let double = |x: &Tensor| x.upsample_nearest2d(2 * x.dim(2)?, 2 * x.dim(3)?);
                up.push(Layer::Resize(seq().add_fn(double).add(conv)));
            }
        }
        let conv_in = conv(image, base, 3, 1, vb.pp("conv_in"))?;
        Ok(Self { base, time, conv_in, down, middle, up, out: norm_conv(channels, image, vb.pp("out"))? })
    }

    fn forward(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let half = self.base / 2;
        let exponents = (arange(half)? * (-10_000f64.ln() / half as f64))?;
        let angles = (t.unsqueeze(1)? * 1000.)?.broadcast_mul(&exponents.exp()?)?;
        let embedding = self.time.forward(&Tensor::cat(&[angles.sin()?, angles.cos()?], 1)?)?;
        let mut h = self.conv_in.forward(x)?;
        let mut skips = vec![h.clone()];
        for layer in &self.down {
            h = layer.forward(&h, &embedding)?;
            skips.push(h.clone());
        }
        for layer in &self.middle {
            h = layer.forward(&h, &embedding)?;
        }
        for layer in &self.up {
            if let Layer::Block(..) = layer {
                h = Tensor::cat(&[h, skips.pop().expect("every block on the way up has its skip")], 1)?;
            }
            h = layer.forward(&h, &embedding)?;
        }
        self.out.forward(&h)
    }
}

/// Milliseconds of each repetition, sorted, after one that does not count. Elsewhere it is three; here each takes long.
fn timed(steps: NonZero<usize>, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    work()?;
    let mut once = |_| {
        let start = Instant::now();
        work().map(|()| start.elapsed().as_secs_f64() * 1e3)
    };
    let mut times = (0..steps.get()).map(&mut once).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The largest resident memory so far in MB, where /proc tells.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1e3)
}

fn main() -> Result<()> {
    let options = Options::parse();
    // SAFETY: no other thread runs yet. candle takes the sizes of its pools from here and has no call to set them.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", options.threads.to_string()) };
    let ((channels, side), batch, base, multipliers, attention) = match options.workload.as_str() {
        "mnist28" => ((1, 28), 64, 32, &[1, 2, 2][..], 2),
        _ => ((3, 32), 16, 64, &[1, 2, 2, 2][..], 1),
    };
    let batch = options.batch.unwrap_or(batch);
    let weights = VarMap::new();
    let build = |vb| UNet::new(channels, base, multipliers, attention, vb);
    let net = build(VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu))?;
    // The same weights as constants: without this the forward pass would keep all it needs for a backward pass.
    let constants = weights.data().lock().expect("one thread").iter().map(|(k, v)| (k.clone(), v.detach())).collect();
    let frozen = build(VarBuilder::from_tensors(constants, DType::F32, &Device::Cpu))?;
    // AdamW without decay is Adam.
    let adam = ParamsAdamW { lr: 1e-4, weight_decay: 0., ..Default::default() };
    let mut optimizer = AdamW::new(weights.all_vars(), adam)?;
    let x = Tensor::randn(0f32, 1., (batch, channels, side, side), &Device::Cpu)?;
    let noise = x.randn_like(0., 1.)?;
    let t = ((arange(batch)? + 0.5)? / batch as f64)?;

    let train = timed(options.steps, || optimizer.backward_step(&loss::mse(&net.forward(&x, &t)?, &noise)?))?;
    let forward = timed(options.steps, || frozen.forward(&x, &t).map(drop))?;
    let report = serde_json::json!({
        "workload": options.workload,
        "framework": "candle 0.11",
        "device": "cpu",
        "threads": options.threads,
        "batch": batch,
        "parameters": weights.all_vars().iter().map(|v| v.elem_count()).sum::<usize>(),
        "train_ms_median": train[train.len() / 2],
        "train_ms_min": train[0],
        "forward_ms_median": forward[forward.len() / 2],
        "forward_ms_min": forward[0],
        "peak_mb": peak_mb(),
    });
    println!("{report}");
    Ok(())
}
