//! `cargo run --release --example ch11_samplers`: chapter 11, samplers.
//!
//! One step by hand; the paths of three samplers through the plane, where a perfect model is known; how their errors fall
//! with more steps; and the digits that they draw with the bundled model from the same noise.

mod chapter;

use chapter::Chapter;
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{Request, TextToImage, bundled};
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::mixture::{Exact, Mixture};
use imagen::diffusion::sampler::ddim_step;
use imagen::diffusion::{
    Denoiser, Images, Levels, Posterior, Sampler, SamplerKind, Sampling, Schedule, ScheduleConfig, Target, Threshold,
};
use imagen::picture::{Chart, Curve, Layout, Picture, charts, frames, grid, strip};
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

const DDIM: SamplerKind = SamplerKind::Ddim { eta: 0.0 };
const SAMPLERS: [(&str, SamplerKind); 3] = [
    ("ancestral", SamplerKind::Ancestral { gamma: 0.0 }),
    ("DDIM", DDIM),
    ("DPM-Solver++(2M)", SamplerKind::DpmSolver {}),
];

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch11");
    one_step();
    paths(&chapter)?;
    orders(&chapter)?;
    let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
    guesses(&chapter, &model)?;
    digits(&chapter, &model)?;
    no_grad(|| there_and_back(&chapter, &model))
}

/// alpha_bar(t) = 1 - t, for round numbers.
struct Straight;

impl Schedule for Straight {
    fn log_alpha_bar(&self, t: f64) -> f64 {
        (-t).ln_1p()
    }
}

/// The example that the chapter follows by hand: one pixel, from sigma = 0.6 to sigma = 0.28.
fn one_step() {
    let (t, s) = (0.36, 0.0784);
    let one = |x: f64| Tensor::from_f64([1, 1, 1, 1], &[x], DType::F64);
    let levels = Levels::at(&Straight, &[t], DType::F64);
    let (x_t, eps) = (one(0.5), one(-0.3));
    let x0 = Target::Eps.to_x0(&eps, &x_t, &levels);
    let posterior = Posterior::between(&Straight, s, t);
    println!(
        "One pixel, x_t = 0.5, alpha_t = 0.8, sigma_t = 0.6; the network says eps = -0.3; so x_hat_0 = {:.2}.",
        x0.item()
    );
    println!("A step to alpha_s = 0.96, sigma_s = 0.28:");
    let (low, high) = (posterior.variance_between(0.0).sqrt(), posterior.variance_between(1.0).sqrt());
    println!(
        "  ancestral         {:.5} plus noise of deviation {low:.5} to {high:.5}",
        posterior.mean(&x0, &x_t).item()
    );
    println!("  DDIM              {:.5}", ddim_step(&x0, &eps, &Straight, s, 0.0).item());
    // the step before had x_hat_0 = 0.65 and was as long
    let d = one(1.5 * x0.item() - 0.5 * 0.65);
    let x_s = ddim_step(&d, &Target::X0.to_eps(&d, &x_t, &levels), &Straight, s, 0.0);
    println!("  DPM-Solver++(2M)  {:.5}, as DDIM with {:.2} for x_hat_0\n", x_s.item(), d.item());
}

/// Every x_t of a sampling with the exact model of `data`, one [B D] of numbers a time, from noise to image.
fn walk(data: &Mixture, schedule: &dyn Schedule, points: u64, times: &[f64], sampler: SamplerKind) -> Vec<Vec<f64>> {
    let seeds: Vec<(u64, u64)> = (0..points).map(|i| (7, i)).collect();
    let images = Images { size: [1, 1, data.dimension()], dtype: DType::F64, seeds: &seeds };
    let settings = Sampling { steps: times.len() - 1, sampler, threshold: Threshold::None };
    let model = Exact { data: data.clone(), schedule };
    let mut seen = Vec::new();
    let mut see = |step: imagen::diffusion::Step| {
        seen.push(step.x_t.to_f64());
        ControlFlow::Continue(())
    };
    let x = Sampler { schedule, denoiser: &model, target: Target::Eps, condition: &None, settings }
        .sample_from(images.start(), times, &images, &mut see)
        .expect("the settings are right and the model is finite");
    seen.push(x.to_f64());
    seen
}

/// Times with equal steps from 1 to 0.
fn even(steps: usize) -> Vec<f64> {
    Sampling { steps, ..Sampling::default() }.times()
}

/// The root of the mean squared difference.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// The same five starts in the plane, led to the two moons by each sampler.
fn paths(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (data, schedule, steps) = (Mixture::two_moons(), ScheduleConfig::Cosine.build(), 10);
    let moons: Vec<(f64, f64)> = (0..400).map(|i| data.sample(1, i)).map(|x| (x[0], x[1])).collect();
    let panel = |(name, sampler): (&str, SamplerKind)| {
        let seen = walk(&data, &schedule, 5, &even(steps), sampler);
        let point = |x: &[f64], i: usize| (x[2 * i], x[2 * i + 1]);
        let gap = (f64::NAN, f64::NAN);
        let lines = (0..5).flat_map(|i| seen.iter().map(move |x| point(x, i)).chain([gap])).collect();
        let ends = |x: &[f64]| (0..5).map(|i| point(x, i)).collect();
        Chart::new(name)
            .dots("data", moons.clone())
            .curve(Curve::new("path", lines))
            .dots("noise", ends(&seen[0]))
            .dots("image", ends(&seen[steps]))
            .x_range(-2.4, 2.4)
            .y_range(-2.4, 2.4)
            .square()
    };
    chapter.svg("paths.svg", &charts(&SAMPLERS.map(panel), 3))?;

    let exact = walk(&data, &schedule, 5, &even(chapter.size(2000, 40)), DDIM).pop().unwrap_or_default();
    println!("Two moons, {steps} steps: how far the five end from where the same starts lead in 2000 steps (r.m.s.)");
    for (name, sampler) in &SAMPLERS[1..] {
        println!("  {name:16}  {:.3}", distance(&walk(&data, &schedule, 5, &even(steps), *sampler)[steps], &exact));
    }
    println!();
    Ok(())
}

/// `steps` times with equal steps of log_snr from t = 1 to `last`, then 0.
fn even_in_log_snr(schedule: &dyn Schedule, steps: usize, last: f64) -> Vec<f64> {
    let (from, to) = (schedule.log_snr(1.0), schedule.log_snr(last));
    let time = |i: usize| {
        let wanted = from + (to - from) * i as f64 / (steps - 1) as f64;
        // log_snr falls, so halving an interval finds the time
        (0..60).fold([last, 1.0], |[low, high], _| {
            let middle = 0.5 * (low + high);
            if schedule.log_snr(middle) > wanted { [middle, high] } else { [low, middle] }
        })[0]
    };
    [1.0].into_iter().chain((1..steps - 1).map(time)).chain([last, 0.0]).collect()
}

/// The times of a number of steps.
type Times<'a> = &'a dyn Fn(usize) -> Vec<f64>;

/// Error against steps: on Gaussian data with even steps of lambda, on the two moons with even steps of t.
fn orders(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let schedule = ScheduleConfig::Cosine.build();
    let counts: &[usize] = chapter.size(&[5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 226, 320], &[5, 10]);
    let (fine, points) = (chapter.size(4000, 40), chapter.size(64, 4));
    let in_lambda = |steps: usize| even_in_log_snr(&schedule, steps, 0.01);
    let panels: [(&str, Mixture, Times); 2] = [
        ("N(0.3, 0.5²), steps even in λ", Mixture::gaussian(&[0.3], 0.5), &in_lambda),
        ("Two moons, steps even in t", Mixture::two_moons(), &even),
    ];
    let mut drawn = Vec::new();
    for (name, data, times) in panels {
        let exact = walk(&data, &schedule, points, &times(fine), SamplerKind::DpmSolver {}).pop().unwrap_or_default();
        let error = |steps: usize, sampler| {
            let x = walk(&data, &schedule, points, &times(steps), sampler).pop().unwrap_or_default();
            (steps as f64, distance(&x, &exact))
        };
        println!("{name}: error (r.m.s.) with\n  steps      DDIM  DPM-Solver++(2M)");
        let curves =
            [DDIM, SamplerKind::DpmSolver {}].map(|sampler| counts.iter().map(|&n| error(n, sampler)).collect());
        let [ddim, solver]: [Vec<(f64, f64)>; 2] = curves;
        for (a, b) in ddim.iter().zip(&solver).filter(|(a, _)| a.0 % 20.0 == 0.0) {
            println!("  {:5}  {:.2e}  {:.2e}", a.0, a.1, b.1);
        }
        let slope =
            |from: f64, order| counts.iter().map(|&n| (n as f64, from * (5.0 / n as f64).powi(order))).collect();
        drawn.push(
            Chart::new(name)
                .x("steps")
                .y("error")
                .log_x()
                .log_y()
                .curve(Curve::new("DDIM", ddim))
                .curve(Curve::new("DPM-Solver++(2M)", solver))
                .curve(Curve::new("slope 1", slope(0.8, 1)))
                .curve(Curve::new("slope 2", slope(0.6, 2)))
                .y_range(2e-5, 2.0),
        );
    }
    println!();
    chapter.svg("orders.svg", &charts(&drawn, 2))
}

/// A five appears: x_t above, x_hat_0 below; and how much the guesses from different noise differ on the way.
fn guesses(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let steps = chapter.size(50, 2);
    let request = Request {
        count: chapter.size(4, 2),
        guidance: 1.0,
        sampling: Sampling { steps, ..Sampling::default() },
        ..model.request(vec!["five".into()])
    };
    let (mut noised, mut guessed) = (Vec::new(), Vec::new());
    println!("Four fives from different noise, DDIM: the difference between their x_hat_0 (r.m.s. of the pixels)");
    model.sample(&request, &mut |step| {
        if frames(steps, 12).contains(&step.index) {
            noised.push(Picture::from_array(step.x_t.array()).remove(0));
            guessed.push(Picture::from_array(step.x0_hat.array()).remove(0));
        }
        if step.index % 10 == 0 || step.index == steps - 1 {
            let x0 = step.x0_hat.to_f64();
            let images: Vec<&[f64]> = x0.chunks(28 * 28).collect();
            let pairs = (0..images.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
            let each: Vec<f64> = pairs.map(|(i, j)| distance(images[i], images[j])).collect();
            println!("  t = {:.2}  {:.3}", step.t, each.iter().sum::<f64>() / each.len() as f64);
        }
        ControlFlow::Continue(())
    })?;
    println!();
    chapter.png("guesses.png", &strip(&noised, &guessed, Layout { enlarge: 2, ..Layout::new(12) }))
}

/// The same five noises, drawn by each sampler (groups of columns) in 5, 10, 20 and 50 steps (rows).
fn digits(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let prompts: Vec<String> = ["two", "three", "five", "eight", "nine"].map(String::from).to_vec();
    let draw = |steps: usize, sampler: SamplerKind| {
        let sampling = Sampling { steps, sampler, ..Sampling::default() };
        let request = Request { sampling, one_noise_each: true, ..model.request(prompts.clone()) };
        model.sample(&request, &mut |_| ControlFlow::Continue(()))
    };
    let exact = draw(chapter.size(100, 2), SamplerKind::DpmSolver {})?.to_f64();
    println!("Five digits with the bundled model: how far they are from those of 100 steps (r.m.s. of the pixels)");
    println!("  steps   DDIM  DPM-Solver++(2M)");
    let mut groups = vec![Vec::new(); SAMPLERS.len()];
    for steps in chapter.size(&[5, 10, 20, 50][..], &[1]) {
        let mut apart = Vec::new();
        for ((_, sampler), group) in SAMPLERS.iter().zip(&mut groups) {
            let images = draw(*steps, *sampler)?;
            group.extend(Picture::from_array(images.array()));
            apart.push(distance(&images.to_f64(), &exact));
        }
        println!("  {steps:5}  {:.3}  {:.3}", apart[1], apart[2]);
    }
    println!();
    let groups: Vec<Picture> = groups.iter().map(|g| grid(g, Layout { enlarge: 2, ..Layout::new(5) })).collect();
    chapter.png("digits.png", &grid(&groups, Layout { gap: 16, enlarge: 1, ..Layout::new(3) }))
}

/// A real seven, led to its noise by DDIM run backwards, and back again: the more steps, the closer.
fn there_and_back(chapter: &Chapter, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let image = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.test.batch_f32(&[0]);
    let image: Vec<f64> = image.into_iter().map(f64::from).collect();
    let condition = model.encode(&["seven".into()])?;
    let walk = |x: Tensor, times: &[f64]| {
        times.windows(2).fold(x, |x, pair| {
            let levels = Levels::at(model.schedule(), &pair[..1], DType::F32);
            let v = model.unet().predict(&x, &pair[..1], &condition);
            let (x0, eps) = (Target::V.to_x0(&v, &x, &levels), Target::V.to_eps(&v, &x, &levels));
            ddim_step(&x0, &eps, model.schedule(), pair[1], 0.0)
        })
    };
    let mut pictures = Picture::from_array(Tensor::from_f64([1, 1, 28, 28], &image, DType::F32).array());
    println!("A seven of the test images to its noise and back, DDIM (r.m.s. of the pixels)");
    for &steps in chapter.size(&[10, 40, 160][..], &[2]) {
        // not from t = 0, where there is no noise to estimate; the image counts as one at t = 0.02
        let up: Vec<f64> = (0..=steps).map(|i| 0.02 + 0.98 * i as f64 / steps as f64).collect();
        let down: Vec<f64> = up.iter().rev().copied().chain([0.0]).collect();
        let noise = walk(Tensor::from_f64([1, 1, 28, 28], &image, DType::F32), &up);
        let back = walk(noise.clone(), &down);
        println!("  {steps:3} steps each way: off by {:.3}", distance(&back.to_f64(), &image));
        pictures.extend(Picture::from_array(noise.array()).into_iter().chain(Picture::from_array(back.array())));
    }
    chapter.png("there-and-back.png", &grid(&pictures, Layout { enlarge: 3, ..Layout::new(7) }))
}
