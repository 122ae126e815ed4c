//! `cargo run --release --example ch13_guidance`: chapter 13, conditioning and guidance.
//!
//! A point between two classes by hand; what a classifier adds to the score; what a guided sampler draws, and what one might
//! think that it draws, where both are known in closed form; and what guidance does to the bundled model of digits.

mod chapter;

use chapter::Chapter;
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{Lead, Request, TextToImage, bundled};
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::{
    ClassifierFree, Denoiser, Exact, Guided, Images, Levels, Mixture, Sampler, SamplerKind, Sampling, Schedule,
    ScheduleConfig, Target, Threshold, classifier_guided,
};
use imagen::eval::Classifier;
use imagen::picture::{Chart, Curve, Layout, Picture, charts, grid};
use imagen::random::{Purpose, stream};
use rand::RngExt;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const DDIM: SamplerKind = SamplerKind::Ddim { eta: 0.0 };
const ANCESTRAL: SamplerKind = SamplerKind::Ancestral { gamma: 0.0 };

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch13");
    one_point();
    arrows(&chapter)?;
    one_number(&chapter);
    let moons = moons(&chapter)?;
    let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
    led(&chapter)?;
    digits(&chapter, &model)?;
    where_it_acts(&chapter, &model)?;
    negative(&chapter, &model)?;
    let digits = price_of_digits(&chapter, &model)?;
    chapter.svg("price.svg", &charts(&[moons, digits], 2))
}

/// The exact model of data that fall into classes: eps given a class, or of all data.
struct Classes<'a> {
    all: Mixture,
    of: Vec<Mixture>,
    schedule: &'a dyn Schedule,
}

impl Denoiser for Classes<'_> {
    type Condition = Option<usize>;

    fn predict(&self, x_t: &Tensor, t: &[f64], class: &Option<usize>) -> Tensor {
        let data = class.map_or(&self.all, |class| &self.of[class]).clone();
        Exact { data, schedule: self.schedule }.predict(x_t, t, &None)
    }
}

/// Points drawn for class 0 with guidance `w`, [points D] numbers.
fn draw(model: &Classes, w: f64, sampler: SamplerKind, points: u64, steps: usize) -> Vec<f64> {
    let seeds: Vec<(u64, u64)> = (0..points).map(|i| (3, i)).collect();
    let images = Images { size: [1, 1, model.all.dimension()], dtype: DType::F64, seeds: &seeds };
    let settings = Sampling { steps, sampler, threshold: Threshold::None };
    let condition = Guided { condition: Some(0), null: None };
    let denoiser = ClassifierFree { denoiser: model, weight: w };
    Sampler { schedule: model.schedule, denoiser: &denoiser, target: Target::Eps, condition: &condition, settings }
        .sample(&images, &mut |_| ControlFlow::Continue(()))
        .expect("the settings are right and the model is finite")
        .to_f64()
}

/// Mean and standard deviation.
fn moments(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
}

/// alpha_bar(t) = 1 - t, for round numbers.
struct Straight;

impl Schedule for Straight {
    fn log_alpha_bar(&self, t: f64) -> f64 {
        (-t).ln_1p()
    }
}

/// The example that the chapter follows by hand: two classes, N(0.6, 0.25²) and N(-0.6, 0.25²), and x_t = 0.1.
fn one_point() {
    let (t, x) = (0.36, 0.1);
    let of = [0.6, -0.6].map(|mean| Mixture::gaussian(&[mean], 0.25)).to_vec();
    let model = Classes { all: Mixture::around(&[vec![0.6], vec![-0.6]], 0.25), of, schedule: &Straight };
    let x_t = Tensor::from_f64([1, 1, 1, 1], &[x], DType::F64);
    let levels = Levels::at(&Straight, &[t], DType::F64);
    let image = |eps: &Tensor| Target::Eps.to_x0(eps, &x_t, &levels).item();
    let (without, with) = (model.predict(&x_t, &[t], &None), model.predict(&x_t, &[t], &Some(0)));
    // p(c | x_t) is a logistic function of x_t here, with this slope
    let slope = 2.0 * 0.8 * 0.6 / (0.2_f64.powi(2) + 0.36);
    let p = 1.0 / (1.0 + (-slope * x).exp());
    let gradient = Tensor::from_f64([1, 1, 1, 1], &[(1.0 - p) * slope], DType::F64);
    println!("Classes N(0.6, 0.25²) and N(-0.6, 0.25²), x_t = 0.1, alpha_t = 0.8, sigma_t = 0.6:");
    println!("  p(c | x_t) = {p:.4}, its log has the slope {:.4}", gradient.item());
    println!("  without c  eps = {:7.4}  x_hat_0 = {:.4}", without.item(), image(&without));
    println!("  with c     eps = {:7.4}  x_hat_0 = {:.4}", with.item(), image(&with));
    for w in [1.0, 2.0, 3.0] {
        let eps = classifier_guided(&without, &gradient, &levels, w);
        println!("  guided {w}   eps = {:7.4}  x_hat_0 = {:.4}", eps.item(), image(&eps));
    }
    println!();
}

/// Two moons that run into each other; class 0 is the upper one.
fn two_moons(schedule: &dyn Schedule) -> Classes<'_> {
    let means: Vec<Vec<f64>> = Mixture::two_moons().components.into_iter().map(|component| component.mean).collect();
    let of = means.chunks(24).map(|moon| Mixture::around(moon, SPREAD)).collect();
    Classes { all: Mixture::around(&means, SPREAD), of, schedule }
}

/// The standard deviation of the 48 Gaussians.
const SPREAD: f64 = 0.2;

/// sigma² times the score of all data, of the classifier and of the class, at one time.
fn arrows(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let schedule = ScheduleConfig::Cosine.build();
    let (model, t) = (two_moons(&schedule), 0.3);
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    let (all, upper) = (model.all.noised(alpha, sigma), model.of[0].noised(alpha, sigma));
    let places: Vec<[f64; 2]> =
        (0..9).flat_map(|i| (0..9).map(move |j| [-2.0 + 0.5 * f64::from(i), -2.0 + 0.5 * f64::from(j)])).collect();
    let panel = |name: &str, part: &dyn Fn(&[f64]) -> Vec<f64>| {
        let arrow = |x: &[f64; 2]| {
            let score = part(x);
            let by = 0.4 * sigma * sigma;
            [(x[0], x[1]), (x[0] + by * score[0], x[1] + by * score[1])]
        };
        let points = |moon: usize| {
            let at = |i: u64| model.of[moon].sample(1 + moon as u64, i);
            (0..120).map(at).map(|x| (alpha * x[0], alpha * x[1])).collect()
        };
        Chart::new(name)
            .dots("c", points(0))
            .dots("the other class", points(1))
            .arrows("", places.iter().map(arrow).collect())
            .x_range(-2.3, 2.3)
            .y_range(-2.3, 2.3)
            .square()
    };
    let difference = |x: &[f64]| upper.score(x).iter().zip(all.score(x)).map(|(a, b)| a - b).collect();
    let panels = [
        panel("∇ log p(x_t)", &|x| all.score(x)),
        panel("∇ log p(c | x_t)", &difference),
        panel("∇ log p(x_t | c)", &|x| upper.score(x)),
    ];
    chapter.svg("arrows.svg", &charts(&panels, 3))
}

/// x_0 ~ N(0, 1), and the condition is a measurement of it, c = 1, with an error of variance 1/3: p(x_0 | c) = N(0.75, 0.5²).
fn one_number(chapter: &Chapter) {
    let schedule = ScheduleConfig::Cosine.build();
    let normal = Mixture::gaussian(&[0.0], 1.0);
    let model = Classes { all: normal, of: vec![Mixture::gaussian(&[0.75], 0.5)], schedule: &schedule };
    println!(
        "One number, measured as c = 1: mean and deviation of the tilted density, and of drawn numbers (by formula)"
    );
    println!("    w  tilted         ancestral      (by formula)     DDIM           (deviation)");
    for w in [1.0_f64, 2.0, 3.0, 4.0, 7.5] {
        let (v, precision) = (0.25_f64, 1.0 + 3.0 * w);
        let tilted = (3.0 * w / precision, precision.recip().sqrt());
        let ancestral = (1.0 - v.powf(w), ((v - v.powf(2.0 * w)) / ((2.0 * w - 1.0) * (1.0 - v))).sqrt());
        let drawn = |sampler| moments(&draw(&model, w, sampler, chapter.size(2000, 10), chapter.size(200, 5)));
        let show = |(mean, std): (f64, f64)| format!("{mean:.3} ± {std:.3}");
        let (a, d) = (show(drawn(ANCESTRAL)), show(drawn(DDIM)));
        println!("  {w:3}  {}  {a}  ({})  {d}  ({:.3})", show(tilted), show(ancestral), 0.5_f64.powf(w));
    }
    println!();
}

/// Points of class 0 of which each is kept with probability p(c | x)^(w - 1): those of the tilted density.
fn kept(model: &Classes, w: f64, points: usize) -> Vec<f64> {
    let keep = |&i: &u64| {
        let x = model.of[0].sample(5, i);
        let log_p = share_of_class(model, &x).ln();
        stream(6, Purpose::Test, 0, i).random::<f64>() < ((w - 1.0) * log_p).exp()
    };
    (0..).filter(keep).take(points).flat_map(|i| model.of[0].sample(5, i)).collect()
}

/// p(c | x) of class 0, which has half of all data.
fn share_of_class(model: &Classes, x: &[f64]) -> f64 {
    0.5 * (model.of[0].log_density(x) - model.all.log_density(x)).exp()
}

/// A name, and the points that come of a weight.
type Way<'a> = (&'a str, &'a dyn Fn(f64) -> Vec<f64>);

/// What is kept and what is drawn of one moon, as pictures, and as numbers for the price of guidance.
fn moons(chapter: &Chapter) -> Result<Chart, Box<dyn Error>> {
    let schedule = ScheduleConfig::Cosine.build();
    let model = two_moons(&schedule);
    let points = chapter.size(1000, 10);
    let steps = chapter.size(100, 3);
    let ways: [Way; 3] = [
        ("tilted", &|w| kept(&model, w, points)),
        ("DDIM", &|w| draw(&model, w, DDIM, points as u64, steps)),
        ("ancestral", &|w| draw(&model, w, ANCESTRAL, points as u64, steps)),
    ];
    let mut panels = Vec::new();
    let mut chart = Chart::new("The upper moon").x("spread").y("p(c | x), mean");
    println!("The upper moon, {points} points: mean of p(c | x) and spread (r.m.s. distance from their mean)");
    for (name, way) in ways {
        let mut curve = Vec::new();
        for w in [1.0, 1.5, 2.0, 3.0, 5.0, 8.0] {
            let x = way(w);
            let xy: Vec<&[f64]> = x.chunks(2).collect();
            let agree = xy.iter().map(|x| share_of_class(&model, x)).sum::<f64>() / points as f64;
            let of = |i: usize| moments(&xy.iter().map(|x| x[i]).collect::<Vec<_>>()).1;
            let spread = of(0).hypot(of(1));
            println!("  {name:9}  w = {w:3}  {agree:.3}  {spread:.3}");
            curve.push((spread, agree));
            if name != "ancestral" && [1.0, 3.0, 8.0].contains(&w) {
                panels.push(moon_panel(&model, &format!("{name}, w = {w}"), &xy[..xy.len().min(250)]));
            }
        }
        chart = chart.curve(Curve::new(name, curve));
    }
    println!();
    chapter.svg("moons.svg", &charts(&panels, 3))?;
    Ok(chart)
}

fn moon_panel(model: &Classes, name: &str, points: &[&[f64]]) -> Chart {
    let other = (0..150).map(|i| model.of[1].sample(2, i)).map(|x| (x[0], x[1])).collect();
    Chart::new(name)
        .dots("drawn", points.iter().map(|x| (x[0], x[1])).collect())
        .dots("the other class", other)
        .x_range(-2.6, 2.6)
        .y_range(-2.6, 2.6)
        .square()
}

/// The names of the ten digits.
fn names() -> Vec<String> {
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"].map(String::from).to_vec()
}

/// The model without words, led to threes by a classifier of noised images: the same noises, a row a scale.
fn led(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let leader = Classifier::from_weights(&bundled::MNIST_NOISY_CLASSIFIER.weights()?)?;
    let judge = Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights()?)?;
    let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?.led_by(Arc::new(leader));
    let mut rows = Vec::new();
    println!("Of 14 digits without words, led to three by (E1): judged to be threes");
    for scale in chapter.size(&[0.0, 1.0, 4.0, 10.0][..], &[1.0]) {
        let sampling = Sampling { steps: chapter.size(25, 2), ..Sampling::default() };
        let lead = Some(Lead { class: 3, scale: *scale });
        let request = Request { count: 14, guidance: 0.0, lead, sampling, ..model.request(vec![String::new()]) };
        let images = model.sample(&request, &mut |_| ControlFlow::Continue(()))?;
        let (_, found) = judge.classify(&images);
        println!("  s = {scale:2}   {}", found.iter().filter(|&&class| class == 3).count());
        rows.extend(Picture::from_array(images.array()));
    }
    println!();
    chapter.png("led.png", &grid(&rows, Layout { enlarge: 2, ..Layout::new(14) }))
}

/// The same noises with more and more guidance (rows), for three digits (groups of columns).
fn digits(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let mut groups = vec![Vec::new(); 3];
    for w in chapter.size(&[0.0, 1.0, 2.0, 5.0, 10.0][..], &[1.0]) {
        let prompts = ["two", "five", "seven"].map(String::from).to_vec();
        let sampling = Sampling { steps: chapter.size(25, 2), ..Sampling::default() };
        let request = Request { count: 5, guidance: *w, sampling, ..model.request(prompts) };
        let images = Picture::from_array(model.sample(&request, &mut |_| ControlFlow::Continue(()))?.array());
        for (group, of_prompt) in groups.iter_mut().zip(images.chunks(5)) {
            group.extend_from_slice(of_prompt);
        }
    }
    let groups: Vec<Picture> = groups.iter().map(|g| grid(g, Layout { enlarge: 2, ..Layout::new(5) })).collect();
    chapter.png("digits.png", &grid(&groups, Layout { gap: 16, enlarge: 1, ..Layout::new(3) }))
}

/// How far the answers with and without words are apart, over time: eps, and x_hat_0.
fn where_it_acts(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let names = names();
    let request = Request {
        guidance: 1.0,
        sampling: Sampling { steps: chapter.size(25, 2), ..Sampling::default() },
        one_noise_each: true,
        ..model.request(names.clone())
    };
    let words = model.encode(&names)?;
    let mut apart = Vec::new();
    model.sample(&request, &mut |step| {
        let t = vec![step.t; names.len()];
        let levels = Levels::at(model.schedule(), &t, DType::F32);
        let guess = |condition: &_| {
            let v = no_grad(|| model.unet().predict(step.x_t, &t, condition));
            Target::V.to_x0(&v, step.x_t, &levels).clamp(-1.0, 1.0).to_f64()
        };
        apart.push((step.t, distance(&guess(&words), &guess(&None))));
        ControlFlow::Continue(())
    })?;
    println!("Ten digits without guidance: how far x_hat_0 with and without words are apart (r.m.s. of the pixels)");
    for (t, d) in apart.iter().step_by(5) {
        println!("  t = {t:.2}  {d:.3}");
    }
    println!();
    Ok(())
}

/// The root of the mean squared difference.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Ten noises with guidance 4: sevens, sevens that are not to be ones, digits, digits that are not to be ones.
fn negative(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let mut rows = Vec::new();
    for prompt in ["seven", "a handwritten digit"] {
        for negative in [None, Some("one".to_string())] {
            let sampling = Sampling { steps: chapter.size(25, 2), ..Sampling::default() };
            let request =
                Request { count: 10, guidance: 4.0, negative, sampling, ..model.request(vec![prompt.into()]) };
            rows.extend(Picture::from_array(model.sample(&request, &mut |_| ControlFlow::Continue(()))?.array()));
        }
    }
    chapter.png("negative.png", &grid(&rows, Layout { enlarge: 2, ..Layout::new(10) }))
}

/// How often a judge finds the right digit, and how much the digits of one kind differ, with more and more guidance.
fn price_of_digits(chapter: &Chapter, model: &TextToImage) -> Result<Chart, Box<dyn Error>> {
    let judge = Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights()?)?;
    let count = chapter.size(6, 2);
    let mut curve = Vec::new();
    println!("Ten digits, {count} of each, DPM-Solver++: share judged right, differences (r.m.s.), mean of the pixels");
    println!("             right  differ  mean");
    for w in chapter.size(&[0.5, 1.0, 2.0, 4.0, 8.0][..], &[1.0]) {
        let sampling =
            Sampling { steps: chapter.size(12, 2), sampler: SamplerKind::DpmSolver {}, ..Sampling::default() };
        let request = Request { count, guidance: *w, sampling, one_noise_each: true, ..model.request(names()) };
        let images = model.sample(&request, &mut |_| ControlFlow::Continue(()))?;
        let (_, found) = judge.classify(&images);
        let right = found.iter().enumerate().filter(|&(i, &class)| class == i / count).count();
        let spread = differences(&images.to_f64(), count);
        let (ink, _) = moments(&images.to_f64());
        println!("  w = {w:3}    {:.3}  {spread:.3}  {ink:.3}", right as f64 / found.len() as f64);
        curve.push((spread, right as f64 / found.len() as f64));
    }
    let test = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.test;
    let labels = &test.labels;
    let of = |digit: u8| (0..labels.len()).filter(move |&i| labels[i] == digit).take(count);
    let real = test.batch_f32(&(0..10).flat_map(of).collect::<Vec<_>>());
    let real: Vec<f64> = real.into_iter().map(f64::from).collect();
    println!("  real digits         {:.3}  {:.3}\n", differences(&real, count), moments(&real).0);
    Ok(Chart::new("Digits of the bundled model")
        .x("difference within a digit")
        .y("judged right")
        .curve(Curve::new("DPM-Solver++", curve)))
}

/// The mean distance between two of the same kind, `count` after each other.
fn differences(images: &[f64], count: usize) -> f64 {
    let images: Vec<&[f64]> = images.chunks(28 * 28).collect();
    let mut each = Vec::new();
    for kind in images.chunks(count) {
        each.extend((0..count).flat_map(|i| (0..i).map(move |j| distance(kind[i], kind[j]))));
    }
    each.iter().sum::<f64>() / each.len() as f64
}
