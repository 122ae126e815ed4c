//! `cargo run --release --example ch15_super_resolution`: chapter 15, super-resolution and the Efficient U-Net.
//!
//! What pixels cost; the models of the paper counted; where the Efficient U-Net has its parameters, operations and memory, and
//! what becomes of the variance in it; small digits made larger by the bundled cascade: with more and more noise on them, with
//! errors in them, against a mean, and again and again.

mod chapter;
#[path = "chapter/cost.rs"]
mod cost;

use chapter::Chapter;
use cost::{Cost, Costs};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{ModelError, Request, TextToImage, bundled};
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::{LowRes, Schedule, ScheduleConfig};
use imagen::nn::Init;
use imagen::picture::{Chart, Curve, Diagram, Layout, Picture, Tint, charts, grid};
use imagen::random::{Purpose, hash, normal};
use imagen::train::{Blueprint, RunConfig};
use imagen::unet::{Per, ResamplingOrder, SkipScale, UNet, UNetConfig};
use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch15");
    pixels()?;
    paper()?;
    levels(&chapter)?;
    chapter.svg("efficient.svg", &efficient()?)?;
    chapter.svg("variance.svg", &variance()?)?;
    let stages = Stages::new()?;
    stages.costs()?;
    shown_and_drawn(&chapter, &stages)?;
    words(&chapter, &stages)?;
    let digits = Digits::new(chapter.size(16, 2))?;
    errors(&chapter, &stages, &digits)?;
    enlarged(&chapter, &stages, &digits)
}

/// The network of a config of the paper.
fn blueprint(name: &str) -> Result<Blueprint, Box<dyn Error>> {
    let path = format!("configs/paper/{name}.toml");
    Ok(Blueprint::read(Path::new(&path), &[])?.ok_or("not a blueprint")?)
}

/// What the base model of the paper would cost if it drew larger images.
fn pixels() -> Result<(), Box<dyn Error>> {
    let base = blueprint("base64")?;
    println!("One prediction of the paper's base model, if it drew images of");
    println!("  pixels          TFLOP  of them attention");
    for side in [64, 256, 1024] {
        let Cost { flop, attention, .. } = Costs::of(&base.unet, side, base.text.tokens)?.total();
        println!("  {side:4} x {side:4}  {:9.2}  {:.1} %", flop / 1e12, 100.0 * attention / flop);
    }
    println!();
    Ok(())
}

/// The three models of the paper, counted.
fn paper() -> Result<(), Box<dyn Error>> {
    println!("The models of the paper, counted without numbers");
    println!("           parameters  the paper's      a prediction        memory to draw   kept in training");
    for name in ["base64", "sr256", "sr1024"] {
        let blueprint = blueprint(name)?;
        let (plan, [_, side, _]) = (blueprint.plan()?, blueprint.image);
        let cost = Costs::of(&blueprint.unet, side, blueprint.text.tokens)?.total();
        println!(
            "  {name:7}  {:8.0} M  {:9.0} M  {:8.2} TFLOP  {:10.1} GB  {:10.1} GB an image of {}",
            plan.training.parameters as f64 / 1e6,
            blueprint.paper.parameters as f64 / 1e6,
            cost.flop / 1e12,
            plan.sampling_peak_bytes as f64 / 1e9,
            plan.training.activation_bytes as f64 / 1e9,
            blueprint.trained_on()[1],
        );
    }
    println!();
    Ok(())
}

/// From the plain to the Efficient U-Net, step by step, at the size of the paper's first super-resolution model.
fn levels(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let of_paper = blueprint("sr256")?;
    let efficient = of_paper.unet.clone();
    let plain = UNetConfig {
        blocks: 3.into(),
        resampling_order: ResamplingOrder::After,
        embedding_per: Per::Block,
        attention_per: Per::Block,
        skip_per: Per::Block,
        skip_scale: SkipScale::None,
        middle: true,
        ..efficient.clone()
    };
    let steps = [
        ("plain", plain.clone()),
        ("+ halving first, doubling last", UNetConfig { resampling_order: ResamplingOrder::Before, ..plain }),
        ("+ once a level, no middle", UNetConfig { blocks: 3.into(), ..efficient.clone() }),
        ("+ blocks 2, 4, 8, 8: Efficient", efficient.clone()),
        ("the same, halving last", UNetConfig { resampling_order: ResamplingOrder::After, ..efficient }),
    ];
    println!("A U-Net of 128, 256, 512 and 1024 channels for 256 x 256 pixels");
    println!("                                  parameters  a prediction  kept for an image");
    let mut costs = Vec::new();
    for (name, unet) in &steps {
        let of = Costs::of(unet, 256, of_paper.text.tokens)?;
        let Cost { parameters, flop, kept, .. } = of.total();
        println!("  {name:30}  {:8.0} M  {:6.2} TFLOP  {:8.2} GB", parameters / 1e6, flop / 1e12, kept / 1e9);
        costs.push(of);
    }
    println!("\n  side   parameters (M)       GFLOP          memory kept (MB)");
    println!("          plain  Efficient  plain  Efficient  plain  Efficient");
    let (plain, efficient) = (&costs[0].0, &costs[3].0);
    for side in plain.keys().chain(efficient.keys()).collect::<std::collections::BTreeSet<_>>().into_iter().rev() {
        let of = |costs: &BTreeMap<usize, Cost>| costs.get(side).copied().unwrap_or_default();
        let (p, e) = (of(plain), of(efficient));
        println!(
            "  {side:4}  {:7.1}  {:9.1}  {:5.0}  {:9.0}  {:5.0}  {:9.0}",
            p.parameters / 1e6,
            e.parameters / 1e6,
            p.flop / 1e9,
            e.flop / 1e9,
            p.kept / 1e6,
            e.kept / 1e6
        );
    }
    println!();
    let panel = |title: &str, unit: &str, most: f64, number: fn(&Cost) -> f64| {
        let curve = |name: &str, costs: &BTreeMap<usize, Cost>| {
            let points = costs.iter().filter(|(side, _)| **side > 0);
            Curve::new(name, points.map(|(side, cost)| ((*side as f64).log2(), number(cost))).collect())
        };
        Chart::new(title)
            .x("log₂ of the side of the image")
            .y(unit)
            .curve(curve("plain", plain))
            .curve(curve("Efficient", efficient))
            .x_range(3.8, 8.2)
            .y_range(0.0, most)
    };
    let panels = [
        panel("Parameters", "millions", 400.0, |cost| cost.parameters / 1e6),
        panel("Operations of a prediction", "GFLOP", 600.0, |cost| cost.flop / 1e9),
        panel("Memory kept for an image", "MB", 2000.0, |cost| cost.kept / 1e6),
    ];
    chapter.svg("levels.svg", &charts(&panels, 3))
}

/// The Efficient U-Net for digits as a U.
fn efficient() -> Result<String, Box<dyn Error>> {
    let RunConfig::Diffusion(run) = RunConfig::read(Path::new("configs/mnist-cascade/sr32-efficient.toml"), &[])?
    else {
        return Err("not a diffusion model".into());
    };
    let config = run.unet;
    let net = UNet::new(config.clone(), &Init::new(0, DType::F32))?;
    let blank = Tensor::from_f64([1, 1, 32, 32], &[0.0; 1024], DType::F32);
    let low = LowRes { images: blank.clone(), aug: vec![0.1] };
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    no_grad(|| {
        net.forward_watched(&blank, &[0.5], Some(&imagen::unet::Condition::low_res(low)), &mut |name, value| {
            seen.insert(name.into(), value.shape()[1..].to_vec());
        })
    });
    let shape = |name: &str| seen[name].iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" × ");
    let mut d = Diagram::new(760.0, 570.0);
    let (left, right, wide) = (20.0, 500.0, 240.0);
    let input = d.block(left, 20.0, wide, 44.0, &["x_t beside U(z_a)", "2 × 32 × 32"], Tint::Grey);
    let output = d.block(right, 20.0, wide, 44.0, &["norm, SiLU, conv_out: v", "1 × 32 × 32"], Tint::Grey);
    let mut before = d.block(left, 96.0, wide, 44.0, &["conv_in", &shape("conv_in")], Tint::Green);
    d.arrow(input, before, "");
    let mut after = output;
    for level in 0..config.levels() {
        let y = 172.0 + 136.0 * level as f64;
        let blocks = config.blocks.at(level);
        let inside = match (blocks, config.attention[level]) {
            (1, false) => "combine, 1 block".to_string(),
            (n, false) => format!("combine, {n} blocks"),
            (n, true) => format!("combine, {n} blocks, attention"),
        };
        let (down, up) = (format!("down.{level}"), format!("up.{level}"));
        let (halved, doubled) = (shape(&format!("{down}.halve")), shape(&format!("{up}.double")));
        let joined = seen[&format!("{up}.combine.joined")][0];
        let a = d.block(left, y, wide, 100.0, &[&format!("DBlock {down}"), "halve", &inside, &halved], Tint::Blue);
        let lines = [format!("UBlock {up}"), format!("joined: {joined} channels"), inside, "double".into(), doubled];
        let b = d.block(right, y, wide, 100.0, &lines.each_ref().map(String::as_str), Tint::Orange);
        d.arrow(before, a, "");
        d.arrow(a, b, &format!("{} channels / √2", seen[&format!("{down}.halve")][0]));
        d.arrow(b, after, "");
        (before, after) = (a, b);
    }
    Ok(d.svg())
}

/// How large the numbers between the blocks of a level are, for each reading of the scaled skip connections: as training finds
/// the blocks, and with last convolutions that give numbers of variance 1.
fn variance() -> Result<String, Box<dyn Error>> {
    const BLOCKS: usize = 8;
    let readings =
        [("nothing scaled", SkipScale::None), ("the sum", SkipScale::Sum), ("the shortcut", SkipScale::Shortcut)];
    let x = Tensor::from_f64([4, 1, 32, 32], &normal(0, Purpose::Test, 0, 0, 4096), DType::F32);
    println!("Eight blocks in a row: the standard deviation before them, behind the first, second and eighth");
    let mut panels = Vec::new();
    for (title, fresh) in [("As training begins", true), ("With h of variance 1", false)] {
        let mut chart =
            Chart::new(title).x("block").y("standard deviation").y_range(0.0, if fresh { 0.4 } else { 3.0 });
        for (name, skip_scale) in readings {
            let config = UNetConfig {
                channel_multipliers: vec![1],
                blocks: BLOCKS.into(),
                attention: vec![false],
                scale_shift: true,
                ..UNetConfig::mnist28()
            };
            let init = Init::new(1, DType::F32);
            let net = UNet::new(UNetConfig { skip_scale, ..config.efficient() }, &init)?;
            let inputs = 9.0 * 32.0;
            for p in init.parameters().iter().filter(|p| !fresh && p.name().ends_with("conv2.weight")) {
                let noise = normal(2, Purpose::Test, 0, hash(p.name()), p.shape().numel());
                let std = (1.0 / (SILU_SQUARED * inputs)).sqrt();
                p.update(|value| *value = Array::from_f64(value.shape(), &noise, DType::F32).affine(std, 0.0));
            }
            let mut stds = BTreeMap::new();
            no_grad(|| {
                net.forward_watched(&x, &[0.5; 4], None, &mut |name, value| {
                    stds.insert(name.to_string(), value.square().mean_all().item().sqrt());
                })
            });
            let at = |i: usize| if i == 0 { stds["down.0.combine"] } else { stds[&format!("down.0.{}", i - 1)] };
            println!("  {title:20}  {name:14}  {:.2}  {:.2}  {:.2}  {:.2}", at(0), at(1), at(2), at(BLOCKS));
            let points = (0..=BLOCKS).map(|i| (i as f64, at(i))).collect();
            chart = chart.curve(Curve::new(name, points));
        }
        panels.push(chart);
    }
    println!();
    Ok(charts(&panels, 2))
}

/// The mean of silu(z)^2 for z from N(0, 1).
const SILU_SQUARED: f64 = 0.3558;

/// The bundled cascade.
struct Stages {
    base8: TextToImage,
    sr16: TextToImage,
    sr32: TextToImage,
}

/// How a stage makes images larger here.
#[derive(Clone, Copy)]
struct How {
    aug: f64,
    seed: u64,
    guidance: f64,
}

impl Stages {
    fn new() -> Result<Stages, Box<dyn Error>> {
        let open = |model: bundled::Bundled| -> Result<TextToImage, Box<dyn Error>> {
            Ok(TextToImage::from_weights(&model.weights()?)?)
        };
        Ok(Stages {
            base8: open(bundled::MNIST_BASE8)?,
            sr16: open(bundled::MNIST_SR16)?,
            sr32: open(bundled::MNIST_SR32)?,
        })
    }

    /// What an image costs, stage by stage.
    fn costs(&self) -> Result<(), Box<dyn Error>> {
        println!("The bundled cascade: operations of an image");
        for (name, model) in [("base8", &self.base8), ("sr16", &self.sr16), ("sr32", &self.sr32)] {
            let (config, [_, side, _]) = (model.config(), model.image_size());
            let cost = Costs::of(&config.unet, side, 4)?.total();
            let (steps, passes) = (config.sampling.method.steps, if config.sampling.guidance == 1.0 { 1 } else { 2 });
            println!(
                "  {name:5}  {:6.0} parameters  {:5.1} MFLOP a prediction, {steps} steps of {passes}: {:5.2} GFLOP",
                cost.parameters,
                cost.flop / 1e6,
                cost.flop * (steps * passes) as f64 / 1e9
            );
        }
        println!();
        Ok(())
    }
}

/// Images `low` made larger by `model`, each with noise of its own, and the model's first guess of them.
fn enlarge(model: &TextToImage, low: &Tensor, captions: &[String], how: How) -> Result<(Tensor, Vec<f64>), ModelError> {
    let request = Request {
        aug: Some(how.aug),
        seed: how.seed,
        guidance: how.guidance,
        one_noise_each: true,
        ..model.request(captions.to_vec())
    };
    let mut guess = Vec::new();
    let drawn = model.enlarge(&request, &low.clamp(-1.0, 1.0), &mut |step| {
        if step.index == 0 {
            guess.extend(step.x0_hat.to_f64());
        }
        ControlFlow::Continue(())
    })?;
    Ok((drawn, guess))
}

/// What a network is shown of `low` at this aug: z_aug, of the same noise as [`enlarge`] takes.
fn shown(model: &TextToImage, low: &Tensor, how: How) -> Tensor {
    let [b, c, h, w] = low.shape().dims("small images");
    let seeds: Vec<(u64, u64)> = (0..b as u64).map(|i| (how.seed, i)).collect();
    let images = imagen::diffusion::Images { size: [c, h, w], dtype: DType::F32, seeds: &seeds };
    let noise = images.noise_for(Purpose::Augmentation);
    LowRes::augmented(low, &noise, &vec![how.aug; b], model.schedule(), [2 * h, 2 * w]).images
}

const AUGS: [f64; 5] = [0.0, 0.1, 0.3, 0.6, 1.0];

/// One small digit of the base model, made larger with more and more noise on it: each column goes through both stages.
fn shown_and_drawn(chapter: &Chapter, stages: &Stages) -> Result<(), Box<dyn Error>> {
    let captions = vec!["a handwritten three".to_string()];
    let request = Request { seed: 3, ..stages.base8.request(captions.clone()) };
    let small = stages.base8.sample(&request, &mut |_| ControlFlow::Continue(()))?;
    let picture = |images: &Tensor, enlarge: usize| Picture::from_array(images.array()).remove(0).enlarged(enlarge);
    let mut rows = vec![Vec::new(); 4];
    let schedule = stages.sr16.schedule();
    println!("What noise does to the small image: aug, alpha, sigma, and (alpha / sigma)^2");
    for &aug in chapter.size(&AUGS[..], &AUGS[1..2]) {
        let (alpha, sigma) = (schedule.alpha(aug), schedule.sigma(aug));
        println!("  {aug:.1}  {alpha:.3}  {sigma:.3}  {:.3}", (alpha / sigma).powi(2));
        let how = How { aug, seed: 1, guidance: 1.5 };
        let (middle, _) = enlarge(&stages.sr16, &small, &captions, how)?;
        rows[0].push(picture(&shown(&stages.sr16, &small, how), 2));
        rows[1].push(picture(&middle, 2));
        let (how, middle) = (How { aug, seed: 2, guidance: 1.0 }, middle.clamp(-1.0, 1.0));
        rows[2].push(picture(&shown(&stages.sr32, &middle, how), 1));
        rows[3].push(picture(&enlarge(&stages.sr32, &middle, &captions, how)?.0, 1));
    }
    println!();
    let columns = rows[0].len();
    chapter.png("small.png", &grid(&[picture(&small, 4)], Layout { enlarge: 3, ..Layout::new(1) }))?;
    chapter.png("aug.png", &grid(&rows.concat(), Layout { enlarge: 3, ..Layout::new(columns) }))
}

/// The same small three, made larger by the first stage with right and with wrong words: a row a digit, a column an aug.
fn words(chapter: &Chapter, stages: &Stages) -> Result<(), Box<dyn Error>> {
    let request = Request { seed: 3, ..stages.base8.request(vec!["a handwritten three".into()]) };
    let small = stages.base8.sample(&request, &mut |_| ControlFlow::Continue(()))?;
    let (mut cells, augs) = (Vec::new(), chapter.size(&AUGS[..], &AUGS[1..2]));
    for word in chapter.size(&["three", "eight", "seven"][..], &["three"]) {
        for &aug in augs {
            let how = How { aug, seed: 1, guidance: 1.5 };
            let (drawn, _) = enlarge(&stages.sr16, &small, &[format!("a handwritten {word}")], how)?;
            cells.extend(Picture::from_array(drawn.array()));
        }
    }
    chapter.png("words.png", &grid(&cells, Layout { enlarge: 5, ..Layout::new(augs.len()) }))
}

/// Real digits of the test images.
struct Digits {
    images: Tensor,
    captions: Vec<String>,
}

impl Digits {
    fn new(count: usize) -> Result<Digits, Box<dyn Error>> {
        let data = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.resized(Some(32), None)?.test;
        let chosen: Vec<usize> = (0..count).collect();
        let pixels: Vec<f64> = data.batch_f32(&chosen).into_iter().map(f64::from).collect();
        let name = |i: &usize| format!("a handwritten {}", data.class_names[usize::from(data.labels[*i])]);
        Ok(Digits {
            images: Tensor::from_f64([count, 1, 32, 32], &pixels, DType::F32),
            captions: chosen.iter().map(name).collect(),
        })
    }
}

/// A mistake in a small image of 16 x 16 pixels, as another model might make it.
#[derive(Clone, Copy)]
enum Mistake {
    Speck,
    Hole,
    Dim,
}

impl Mistake {
    /// The image with the mistake.
    fn make(self, small: &[f64]) -> Vec<f64> {
        let mut wrong = small.to_vec();
        let around = |i: usize| {
            let (y, x) = (i / 16, i % 16);
            (y - 1..y + 2)
                .flat_map(move |y| (x - 1..x + 2).map(move |x| y * 16 + x))
                .map(|j| small[j])
                .collect::<Vec<_>>()
        };
        let inner = || (4..12).flat_map(|y| (4..12).map(move |x| y * 16 + x));
        match self {
            Mistake::Speck => {
                // the first place with nothing around it
                let place = inner().find(|&i| around(i).iter().all(|&v| v < -0.95));
                wrong[place.unwrap_or(4 * 16 + 4)] = 0.5;
            }
            Mistake::Hole => {
                let brightest = inner().max_by(|&i, &j| small[i].total_cmp(&small[j]));
                wrong[brightest.unwrap_or(8 * 16 + 8)] = -1.0;
            }
            Mistake::Dim => wrong.iter_mut().for_each(|v| *v = 0.6 * (*v + 1.0) - 1.0),
        }
        wrong
    }
}

/// How much of a mistake in the small image is left in the large one, against aug.
fn errors(chapter: &Chapter, stages: &Stages, digits: &Digits) -> Result<(), Box<dyn Error>> {
    let count = digits.captions.len().min(8);
    let (small, captions) = (digits.images.slice(0, 0..count).avg_pool2d(2), &digits.captions[..count]);
    let kinds = [("a speck", Mistake::Speck), ("a hole", Mistake::Hole), ("too dark", Mistake::Dim)];
    let augs = chapter.size(&[0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0][..], &[0.1]);
    let mut shares = vec![Vec::new(); kinds.len()];
    let mut rows = vec![Vec::new(); kinds.len()];
    let shape = [count, 1, 16, 16];
    let wrong = kinds.map(|(_, mistake)| {
        let values: Vec<f64> = small.to_f64().chunks(256).flat_map(|small| mistake.make(small)).collect();
        Tensor::from_f64(shape, &values, DType::F32)
    });
    for &aug in augs {
        let how = How { aug, seed: 5, guidance: 1.0 };
        let (right, _) = enlarge(&stages.sr32, &small, captions, how)?;
        for (k, wrong) in wrong.iter().enumerate() {
            let (drawn, _) = enlarge(&stages.sr32, wrong, captions, how)?;
            let mistake = (wrong - &small).resize_bilinear(32, 32);
            let left = (&(&drawn - &right) * &mistake).sum_all().item() / mistake.square().sum_all().item();
            shares[k].push((aug, left));
            if AUGS.contains(&aug) {
                if rows[k].is_empty() {
                    rows[k].push(Picture::from_array(wrong.array())[SHOWN].enlarged(2));
                }
                rows[k].push(Picture::from_array(drawn.array()).swap_remove(SHOWN));
            }
        }
    }
    println!("What is left of a mistake in the small image, {count} digits of 16 x 16 pixels made larger");
    println!("  aug   {}", kinds.map(|(name, _)| format!("{name:>8}")).join("  "));
    for (i, aug) in augs.iter().enumerate() {
        println!(
            "  {aug:.2}  {}",
            shares.iter().map(|share| format!("{:8.2}", share[i].1)).collect::<Vec<_>>().join("  ")
        );
    }
    println!();
    let columns = rows[0].len();
    chapter.png("errors.png", &grid(&rows.concat(), Layout { enlarge: 3, ..Layout::new(columns) }))?;
    let schedule = ScheduleConfig::Cosine.build();
    let mut theory = Chart::new("Gaussian details of variance s²").x("aug").y("share of a mistake that is left");
    for variance in [1.0, 0.1, 0.01] {
        let share = |aug: f64| variance / (variance + (-schedule.log_snr(aug)).exp());
        let points = (0..=100).map(|i| f64::from(i) / 100.0).map(|aug| (aug, share(aug))).collect();
        theory = theory.curve(Curve::new(format!("s² = {variance}"), points));
    }
    let mut network = Chart::new("The network, three mistakes").x("aug").y("share of a mistake that is left");
    for ((name, _), share) in kinds.iter().zip(shares) {
        network = network.curve(Curve::new(*name, share));
    }
    chapter.svg("share.svg", &charts(&[theory, network], 2))
}

/// The digit that pictures show.
const SHOWN: usize = 0;

/// The mean of the squared differences of all pixels.
fn squared(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).square().mean_all().item()
}

/// The mean of the squared differences of neighbours, below each other and side by side.
fn sharpness(images: &Tensor) -> f64 {
    let [_, _, h, w] = images.shape().dims("images");
    let beside = squared(&images.slice(3, 1..w), &images.slice(3, 0..w - 1));
    0.5 * (beside + squared(&images.slice(2, 1..h), &images.slice(2, 0..h - 1)))
}

/// The mean of images.
fn mean(images: &[Tensor]) -> Tensor {
    let sum = images[1..].iter().fold(images[0].clone(), |sum, image| &sum + image);
    &sum / images.len() as f64
}

/// Per pixel, the standard deviation of images.
fn deviation(images: &[Tensor]) -> Tensor {
    let mean = mean(images);
    let squares: Vec<Tensor> = images.iter().map(|image| (image - &mean).square()).collect();
    let sum = squares[1..].iter().fold(squares[0].clone(), |sum, image| &sum + image);
    (&sum / (images.len() - 1) as f64).sqrt()
}

/// Real digits made smaller and larger again, many times.
fn enlarged(chapter: &Chapter, stages: &Stages, digits: &Digits) -> Result<(), Box<dyn Error>> {
    let draws = chapter.size(8, 2);
    let [x8, x16] = [4, 2].map(|factor| digits.images.avg_pool2d(factor));
    let how = |seed: usize| How { aug: 0.0, seed: seed as u64, guidance: 1.0 };
    let (mut to16, mut to32, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let mut guesses = Vec::new();
    for i in 0..draws {
        let (larger, guess16) = enlarge(&stages.sr16, &x8, &digits.captions, how(100 + i))?;
        let (largest, _) = enlarge(&stages.sr32, &larger, &digits.captions, How { aug: 0.1, ..how(200 + i) })?;
        let (from16, guess32) = enlarge(&stages.sr32, &x16, &digits.captions, how(300 + i))?;
        if i == 0 {
            guesses = vec![Some((guess16, 16)), Some((guess32, 32)), None];
        }
        to16.push(larger);
        both.push(largest);
        to32.push(from16);
    }
    println!("Digits made smaller and larger again: squared error, and sharpness as a share of the real one's");
    let columns = ["bilinear", "one guess", "mean of draws", "a draw"];
    println!("                {}", columns.map(|name| format!("{name:>14}")).join(""));
    let cases = [
        ("8 to 16", &x8, &x16, &to16),
        ("16 to 32", &x16, &digits.images, &to32),
        ("8 to 32", &x8, &digits.images, &both),
    ];
    for ((name, small, real, drawn), guess) in cases.iter().zip(&guesses) {
        let [b, _, side, _] = real.shape().dims("digits");
        let guess = guess.as_ref().map(|(values, side)| Tensor::from_f64([b, 1, *side, *side], values, DType::F32));
        let made = [Some(small.resize_bilinear(side, side)), guess, Some(mean(drawn)), Some(drawn[0].clone())];
        let cell = |image: &Option<Tensor>| match image {
            None => format!("{:>14}", "-"),
            Some(image) => format!("{:8.4} {:4.0}%", squared(image, real), 100.0 * sharpness(image) / sharpness(real)),
        };
        println!("  {name:14}{}", made.each_ref().map(cell).join(""));
    }
    println!("Squared error of the mean of k draws, 16 to 32, and what (15.2) makes of that of one");
    let error = |k: usize| {
        let groups: Vec<f64> = to32.chunks(k).map(|some| squared(&mean(some), &digits.images)).collect();
        groups.iter().sum::<f64>() / groups.len() as f64
    };
    for k in [1, 2, 4, 8].into_iter().filter(|k| *k <= draws) {
        println!("  {k}  {:.4}  {:.4}", error(k), error(1) * (1.0 + 1.0 / k as f64) / 2.0);
    }
    println!("What is open and what is fixed, {draws} draws each");
    println!("              deviation  largest  after shrinking  off the small image");
    for (name, small, real, drawn) in &cases {
        let factor = real.shape()[2] / small.shape()[2];
        let spread = deviation(drawn);
        let most = spread.to_f64().into_iter().fold(0.0, f64::max);
        let shrunk: Vec<Tensor> = drawn.iter().map(|image| image.avg_pool2d(factor)).collect();
        let root = |x: &Tensor| x.square().mean_all().item().sqrt();
        let off = shrunk.iter().map(|image| squared(image, small)).sum::<f64>() / shrunk.len() as f64;
        println!(
            "  {name:10}  {:9.3}  {most:7.2}  {:15.3}  {:19.3}",
            root(&spread),
            root(&deviation(&shrunk)),
            off.sqrt()
        );
    }
    println!();
    compared(chapter, digits, &x8, &both)?;
    open(chapter, digits, [(&x8, &both), (&x16, &to32)])
}

/// Rows: the small image, bilinear, the mean of the draws, one of them, and the real one.
fn compared(chapter: &Chapter, digits: &Digits, small: &Tensor, drawn: &[Tensor]) -> Result<(), Box<dyn Error>> {
    let columns = digits.captions.len().min(8);
    let rows = [
        small.resize_nearest(32, 32),
        small.resize_bilinear(32, 32),
        mean(drawn),
        drawn[0].clone(),
        digits.images.clone(),
    ];
    let cells: Vec<Picture> =
        rows.iter().flat_map(|row| Picture::from_array(row.slice(0, 0..columns).array())).collect();
    chapter.png("enlarged.png", &grid(&cells, Layout { enlarge: 2, ..Layout::new(columns) }))
}

/// Rows: three digits from 8 x 8 pixels, the first of them from 16 x 16; columns: the small image, draws, and where they differ.
fn open(chapter: &Chapter, digits: &Digits, cases: [(&Tensor, &Vec<Tensor>); 2]) -> Result<(), Box<dyn Error>> {
    let [from8, from16] = cases;
    let rows = [(from8, 0), (from16, 0), (from8, 8), (from8, 3)];
    let mut cells = Vec::new();
    for ((small, drawn), digit) in rows {
        let digit = digit.min(digits.captions.len() - 1);
        let of = |images: &Tensor| Picture::from_array(images.slice(0, digit..digit + 1).array()).remove(0);
        cells.push(of(&small.resize_nearest(32, 32)));
        cells.extend(drawn.iter().take(6).map(of));
        // a deviation of 1, half the range of the pixels, is white
        cells.push(of(&deviation(drawn).affine(2.0, -1.0)));
    }
    let columns = cells.len() / rows.len();
    chapter.png("open.png", &grid(&cells, Layout { enlarge: 2, ..Layout::new(columns) }))
}
