//! `cargo run --release --example ch14_thresholding`: chapter 14, thresholding.
//!
//! Ten pixels by hand; the first guess, which is a mean that guidance exaggerates; how far the guesses of the bundled model leave
//! the range of images, step by step; and the digits that come of it without thresholding, with static and with dynamic.

mod chapter;

use chapter::Chapter;
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{TextToImage, bundled};
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::{
    ClassifierFree, Denoiser, Guided, Images, Levels, Sampler, Sampling, Schedule, Target, Threshold,
};
use imagen::eval::{Classifier, Sweep, SweepPoint};
use imagen::picture::{Chart, Curve, Layout, Picture, charts, grid};
use imagen::unet::Condition;
use std::cell::RefCell;
use std::error::Error;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

const WEIGHTS: [f64; 5] = [1.0, 2.0, 4.0, 7.0, 10.0];
const NAMES: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch14");
    ten_pixels();
    let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
    means(&chapter, &model)?;
    let kinds = [("none", Threshold::None), ("static", Threshold::Static), ("dynamic", Threshold::dynamic(99.5))];
    let mut runs = Vec::new();
    for (name, threshold) in kinds {
        for w in WEIGHTS {
            runs.push(Run::new(&chapter, &model, name, w, threshold)?);
        }
    }
    table(&runs)?;
    leaving(&chapter, &runs)?;
    sheet(&chapter, &runs)?;
    percentiles_and_caps(&chapter, &model)?;
    chapter.file("guidance-data.js", figure_data(&runs)?.as_bytes())?;
    sweeps(&chapter)
}

/// What `docs/runs/guidance-sweep` found: 500 images for each weight and each way, of the cascade from 8 to 32 pixels.
fn sweeps(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let base: Sweep = serde_json::from_str(include_str!("../docs/runs/guidance-sweep/base.json"))?;
    let all: Sweep = serde_json::from_str(include_str!("../docs/runs/guidance-sweep/all.json"))?;
    for (name, sweep) in [("the base guided", &base), ("all stages guided", &all)] {
        println!("{name}: Fréchet distance, and in brackets % judged right (real: {:.1})", sweep.frechet_real);
        println!("      w        none          static         dynamic");
        let third = sweep.points.len() / 3;
        for i in 0..third {
            let cell = |point: &SweepPoint| {
                format!("{:6.1} ({:5.1})", point.frechet, 100.0 * point.agreement.rate.unwrap_or(0.0))
            };
            let cells: Vec<String> = (0..3).map(|kind| cell(&sweep.points[kind * third + i])).collect();
            println!("   {:4}  {}", sweep.points[i].guidance.unwrap_or(0.0), cells.join("  "));
        }
    }
    chapter.svg("sweep-base.svg", &base.svg())?;
    chapter.svg("sweep-all.svg", &all.svg())
}

/// The row of pixels that the chapter follows by hand, thresholded in three ways.
fn ten_pixels() {
    let x = [-3.0, -2.6, -1.0, -0.5, 0.1, 0.4, 0.9, 1.6, 2.0, 2.8];
    println!("Ten pixels of x_hat_0, and what is made of them:");
    let kinds = [
        ("none", Threshold::None),
        ("static", Threshold::Static),
        ("dynamic, 80 %", Threshold::dynamic(80.0)),
        ("dynamic, 100 %", Threshold::dynamic(100.0)),
        ("80 %, cap 1.5", Threshold::Dynamic { percentile: 80.0, cap: Some(1.5) }),
    ];
    for (name, threshold) in kinds {
        let (y, s) = threshold.apply(&Tensor::from_f64([1, 1, 1, 10], &x, DType::F64));
        let y: Vec<String> = y.to_f64().iter().map(|y| format!("{y:5.2}")).collect();
        println!("  {name:14} s = {:.2}  {}", s[0], y.join(" "));
    }
    println!();
}

/// What a perfect model guesses at t = 1: the mean of the images; guided, it is exaggerated. And what the bundled model says.
fn means(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let train = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.train;
    let count = chapter.size(10_000, 100);
    let images = train.batch_f32(&(0..count).collect::<Vec<_>>());
    let mean = |wanted: &dyn Fn(u8) -> bool| {
        let mine: Vec<&[f32]> = images
            .chunks(784)
            .zip(&train.labels)
            .filter(|(_, label)| wanted(**label))
            .map(|(image, _)| image)
            .collect();
        let of = |i: usize| mine.iter().map(|image| f64::from(image[i])).sum::<f64>() / mine.len() as f64;
        (0..784).map(of).collect::<Vec<f64>>()
    };
    let all = mean(&|_| true);
    let start = Images { size: [1, 28, 28], dtype: DType::F32, seeds: &[(0, 0)] }.start();
    let mut pictures = Vec::new();
    println!("The first guess: the largest |x_hat_0| by the means of real digits, and by the bundled model");
    for digit in [1_u8, 3, 6] {
        let class = mean(&|label| label == digit);
        let guided = |w: f64| all.iter().zip(&class).map(|(all, class)| all + w * (class - all)).collect::<Vec<f64>>();
        let shown = [all.clone(), class.clone(), guided(2.0), guided(4.0), guided(10.0)];
        pictures.extend(shown.iter().map(|values| picture(values)));
        let condition = Guided { condition: model.encode(&[NAMES[digit as usize].into()])?, null: None };
        let said: Vec<String> = WEIGHTS
            .iter()
            .map(|&weight| {
                let free = ClassifierFree { denoiser: model.unet(), weight };
                let v = no_grad(|| free.predict(&start, &[1.0], &condition));
                let x0 = Target::V.to_x0(&v, &start, &Levels::at(model.schedule(), &[1.0], DType::F32)).to_f64();
                format!("{:6.2} {:6.2}", largest(&guided(weight)), largest(&x0))
            })
            .collect();
        println!("  {:5}  {}", NAMES[digit as usize], said.join("  "));
    }
    println!();
    chapter.png("means.png", &grid(&pictures, Layout { enlarge: 3, ..Layout::new(5) }))
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |most, x| most.max(x.abs()))
}

fn picture(values: &[f64]) -> Picture {
    Picture::from_values(&values.iter().map(|&v| v as f32).collect::<Vec<_>>(), [1, 28, 28])
}

/// A model that notes what image it said, before anything is done to it.
struct Watched<'a, D> {
    model: D,
    schedule: &'a dyn Schedule,
    said: RefCell<Vec<Vec<f64>>>,
}

impl<D: Denoiser> Denoiser for Watched<'_, D> {
    type Condition = D::Condition;

    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &D::Condition) -> Tensor {
        let v = self.model.predict(x_t, t, condition);
        let levels = Levels::at(self.schedule, t, x_t.dtype());
        self.said.borrow_mut().push(Target::V.to_x0(&v, x_t, &levels).to_f64());
        v
    }
}

/// Ten digits, drawn with one weight and one kind of thresholding.
struct Run {
    name: &'static str,
    w: f64,
    /// The time of each step.
    times: Vec<f64>,
    /// x_hat_0 of all digits at each step, before thresholding.
    said: Vec<Vec<f64>>,
    images: Vec<f64>,
    right: usize,
}

impl Run {
    fn new(
        chapter: &Chapter,
        model: &TextToImage,
        name: &'static str,
        w: f64,
        threshold: Threshold,
    ) -> Result<Run, Box<dyn Error>> {
        let settings = Sampling { steps: chapter.size(25, 2), threshold, ..Sampling::default() };
        let seeds: Vec<(u64, u64)> = (0..10).map(|i| (1, i)).collect();
        let images = Images { size: [1, 28, 28], dtype: DType::F32, seeds: &seeds };
        let words = model.encode(&NAMES.map(String::from))?;
        let condition: Guided<Option<Condition>> = Guided { condition: words, null: None };
        let free = ClassifierFree { denoiser: model.unet(), weight: w };
        let watched = Watched { model: free, schedule: model.schedule(), said: RefCell::default() };
        let sampler = Sampler {
            schedule: model.schedule(),
            denoiser: &watched,
            target: Target::V,
            condition: &condition,
            settings,
        };
        let drawn = sampler.sample(&images, &mut |_| ControlFlow::Continue(()))?;
        let (_, found) =
            Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights()?)?.classify(&drawn.clamp(-1.0, 1.0));
        let right = found.iter().enumerate().filter(|&(i, &class)| i == class).count();
        let mut times = settings.times();
        times.pop();
        Ok(Run { name, w, times, said: watched.said.into_inner(), images: drawn.to_f64(), right })
    }

    /// The mean over the digits of the percentile of |x_hat_0|: what s would be.
    fn percentile(&self, step: usize, percentile: f64) -> f64 {
        let x0 = Tensor::from_f64([10, 1, 28, 28], &self.said[step], DType::F64);
        // doubled often enough, every percentile is above 1 and s is it
        let (_, s) = Threshold::dynamic(percentile).apply(&(&x0 * 1e6));
        s.iter().sum::<f64>() / s.len() as f64 / 1e6
    }
}

/// The share of numbers for which something holds.
fn share(x: &[f64], holds: impl Fn(f64) -> bool) -> f64 {
    x.iter().filter(|&&x| holds(x)).count() as f64 / x.len() as f64
}

/// The mean of all pixels as they are shown.
fn ink(images: &[f64]) -> f64 {
    images.iter().map(|x| x.clamp(-1.0, 1.0)).sum::<f64>() / images.len() as f64
}

fn table(runs: &[Run]) -> Result<(), Box<dyn Error>> {
    println!(
        "Ten digits, DDIM: the 99.5th percentile of |x_hat_0| at five times; of the images the largest pixel, the mean, the"
    );
    println!(
        "share of greys (|x| < 0.9), how many are judged right, and the difference from the images without thresholding"
    );
    for run in runs {
        let last = run.times.len() - 1;
        let percentiles: Vec<String> = (0..5).map(|i| format!("{:5.2}", run.percentile(i * last / 4, 99.5))).collect();
        let without = runs.iter().find(|other| other.w == run.w).unwrap_or(run);
        let apart: f64 = run
            .images
            .iter()
            .zip(&without.images)
            .map(|(a, b)| (a.clamp(-1.0, 1.0) - b.clamp(-1.0, 1.0)).powi(2))
            .sum();
        println!(
            "  {:7}  w = {:2}  {}  {:5.2}  {:6.3}  {:.3}  {:2}  {:.3}",
            run.name,
            run.w,
            percentiles.join(" "),
            largest(&run.images),
            ink(&run.images),
            share(&run.images, |x| x.abs() < 0.9),
            run.right,
            (apart / run.images.len() as f64).sqrt(),
        );
    }
    println!();
    Ok(())
}

/// The percentile over time for each kind of thresholding, and how many pixels are how far out.
fn leaving(chapter: &Chapter, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    let mut panels = Vec::new();
    for kind in runs.chunks(WEIGHTS.len()) {
        let mut chart = Chart::new(kind[0].name)
            .x("t, from right to left")
            .y("99.5 % of |x_hat_0| are below")
            .log_y()
            .y_range(0.8, 12.0);
        for run in kind {
            let points = run.times.iter().enumerate().map(|(i, &t)| (t, run.percentile(i, 99.5))).collect();
            chart = chart.curve(Curve::new(format!("w = {}", run.w), points));
        }
        panels.push(chart);
    }
    chapter.svg("percentiles.svg", &charts(&panels, 3))?;
    let mut panels = Vec::new();
    let steps = runs[0].times.len();
    for step in [0, steps / 8, steps * 2 / 5] {
        let mut chart = Chart::new(format!("t = {:.2}", runs[0].times[step]))
            .x("a")
            .y("share with |x_hat_0| > a")
            .log_y()
            .x_range(0.0, 10.0)
            .y_range(1e-4, 1.0);
        for run in &runs[..WEIGHTS.len()] {
            let points =
                (0..=50).map(|i| 0.2 * f64::from(i)).map(|a| (a, share(&run.said[step], |x| x.abs() > a))).collect();
            chart = chart.curve(Curve::new(format!("w = {}", run.w), points));
        }
        panels.push(chart);
    }
    chapter.svg("beyond.svg", &charts(&panels, 3))
}

/// All digits: a row for each weight; the groups of columns are without thresholding, static and dynamic. The interactive figure
/// takes its digits from this picture, and knows the gaps.
fn sheet(chapter: &Chapter, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    let group = |kind: &[Run]| {
        let digits: Vec<Picture> = kind.iter().flat_map(|run| run.images.chunks(784).map(picture)).collect();
        grid(&digits, Layout { enlarge: 1, gap: 2, ..Layout::new(10) })
    };
    let groups: Vec<Picture> = runs.chunks(WEIGHTS.len()).map(group).collect();
    chapter.png("sheet.png", &grid(&groups, Layout { enlarge: 1, gap: 12, ..Layout::new(3) }))
}

/// Dynamic thresholding of other percentiles, and with a cap, all with w = 7: a row each.
fn percentiles_and_caps(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let kinds = [
        ("99.5 %", 99.5, None),
        ("95 %", 95.0, None),
        ("85 %", 85.0, None),
        ("99.5 %, cap 2", 99.5, Some(2.0)),
        ("99.5 %, cap 1.2", 99.5, Some(1.2)),
    ];
    let mut rows = Vec::new();
    println!("Ten digits with w = 7, dynamic: mean of the pixels, share of greys, judged right");
    for (name, percentile, cap) in kinds {
        let run = Run::new(chapter, model, name, 7.0, Threshold::Dynamic { percentile, cap })?;
        let greys = share(&run.images, |x| x.abs() < 0.9);
        println!("  {name:15}  {:6.3}  {greys:.3}  {:2}", ink(&run.images), run.right);
        rows.extend(run.images.chunks(784).map(picture));
    }
    println!();
    chapter.png("caps.png", &grid(&rows, Layout { enlarge: 2, ..Layout::new(10) }))
}

/// What the interactive figure shows besides the pictures of sheet.png: numbers, percentiles and counts of pixels.
fn figure_data(runs: &[Run]) -> Result<String, std::fmt::Error> {
    let list = |x: &[f64], digits: usize| x.iter().map(|x| format!("{x:.digits$}")).collect::<Vec<_>>().join(",");
    let mut js = String::from("// Written by examples/ch14_thresholding.rs.\nwindow.guidanceAndThreshold = {\n");
    writeln!(js, "weights: [{}],", list(&WEIGHTS, 0))?;
    writeln!(js, "times: [{}],\nruns: [", list(&runs[0].times, 2))?;
    for run in runs {
        let percentiles: Vec<f64> = (0..run.times.len()).map(|i| run.percentile(i, 99.5)).collect();
        let bins: Vec<f64> = (0..20)
            .map(|i| share(&run.images, |x| ((x.clamp(-1.0, 1.0) + 1.0) * 10.0).floor().min(19.0) == f64::from(i)))
            .collect();
        let Run { name, w, right, .. } = run;
        let (percentiles, bins) = (list(&percentiles, 3), list(&bins, 4));
        let (ink, greys) = (ink(&run.images), share(&run.images, |x| x.abs() < 0.9));
        writeln!(js, "{{threshold: \"{name}\", w: {w}, percentiles: [{percentiles}], bins: [{bins}],")?;
        writeln!(js, "ink: {ink:.3}, greys: {greys:.4}, right: {right}}},")?;
    }
    js += "],\n};\n";
    Ok(js)
}
