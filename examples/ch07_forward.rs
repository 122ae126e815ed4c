//! `cargo run --release --example ch07_forward`: chapter 7, the forward process. A digit, a spiral of points and two
//! lumps of probability turn into noise; and the numbers of both schedules.
//!
//! x_t = alpha_t x_0 + sigma_t eps (A2) is all that is needed to jump to any time; the chain of small steps (A1) is
//! walked too, to see that it arrives at the same place.

mod chapter;

use chapter::Chapter;
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::gaussian::log_density;
use imagen::diffusion::schedule::cosine_alpha_bar;
use imagen::diffusion::{Component, DiscreteSchedule, Levels, Mixture, Schedule, ScheduleConfig, Transition, q_sample};
use imagen::picture::{Chart, Curve, Layout, Picture, charts, grid};
use imagen::random::{Purpose, normal};
use std::error::Error;
use std::path::Path;

const BOTH: [(&str, ScheduleConfig); 2] = [("linear", ScheduleConfig::Linear), ("cosine", ScheduleConfig::Cosine)];

/// One number's data for the pictures in one dimension: two lumps of probability.
fn two_lumps() -> Mixture {
    let lump = |weight, mean, std| Component { weight, mean: vec![mean], std };
    Mixture { components: vec![lump(0.3, -1.2, 0.25), lump(0.7, 0.8, 0.25)] }
}

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch07");
    by_hand();
    schedules(&chapter)?;
    undo(&chapter)?;
    digit(&chapter)?;
    points(&chapter)?;
    paths(&chapter)?;
    melt(&chapter)?;
    chapter.file("forward-data.js", figure_data(chapter.size(400, 20))?.as_bytes())
}

/// Two steps with numbers small enough for paper.
fn by_hand() {
    let step = |beta: f64| Transition { scale: (1.0 - beta).sqrt(), variance: beta };
    let two = step(0.1).then(step(0.2));
    println!(
        "By hand: steps of beta = 0.1 and 0.2 together scale by {:.4} and add variance {:.2}.",
        two.scale, two.variance
    );
    println!("From x_0 = 0.5 they lead to N({:.4}, {:.2}).\n", 0.5 * two.scale, two.variance);
}

/// The numbers of both schedules, and their curves.
fn schedules(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let mut panels = [
        Chart::new("What is left of the image").x("t").y("alpha_bar(t)"),
        Chart::new("Log signal-to-noise ratio").x("t").y("lambda(t)").y_range(-20.0, 10.0),
    ];
    for (name, config) in BOTH {
        let schedule = config.build();
        println!("{name} schedule, T = 1000\n    t    alpha_bar      alpha     sigma         SNR    lambda");
        for i in [1, 10, 100, 250, 500, 750, 900, 999, 1000] {
            let t = schedule.time(i);
            let (alpha_bar, lambda) = (schedule.alpha_bar(t), schedule.log_snr(t));
            let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
            println!("{t:>6.3} {alpha_bar:>11.4e} {alpha:>9.6} {sigma:>9.6} {:>11.3e} {lambda:>9.3}", lambda.exp());
        }
        println!("  beta_1 = {:.3e}, beta_T = {:.3e}", schedule.betas()[0], schedule.betas()[999]);
        for (what, pixels) in [("28x28", 28.0 * 28.0), ("64x64", 64.0 * 64.0), ("1024x1024", 1024.0 * 1024.0)] {
            println!("  SNR at t = 1 of the mean of {what} pixels: {:.2e}", pixels * schedule.log_snr(1.0).exp());
        }
        println!();
        let curve = |f: &dyn Fn(f64) -> f64| {
            Curve::new(name, (1..=500).map(|i| f64::from(i) / 500.0).map(|t| (t, f(t))).collect())
        };
        let [left, right] = panels;
        panels = [left.curve(curve(&|t| schedule.alpha_bar(t))), right.curve(curve(&|t| schedule.log_snr(t)))];
    }
    println!("The cosine curve before it is clipped: alpha_bar(0.999) = {:.3e}\n", cosine_alpha_bar(0.999));
    chapter.svg("schedules.svg", &charts(&panels, 2))
}

/// Where did x_t come from? A large step leaves several answers, a small one a bell.
fn undo(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (schedule, t, x_t) = (ScheduleConfig::Cosine.build(), 0.5, 0.1);
    println!(
        "Undoing a step that ends at t = {t}, x_t = {x_t}:\n  step from       beta   KL from the Gaussian of the same mean and variance"
    );
    let mut panels = Vec::new();
    for s in [0.0, 0.25, 0.45, 0.495] {
        let step = Transition::between(&schedule, s, t);
        let before = two_lumps().noised(schedule.alpha(s), schedule.sigma(s));
        let (low, high) =
            if s < 0.4 { (-2.5, 2.5) } else { (x_t - 6.0 * step.variance.sqrt(), x_t + 6.0 * step.variance.sqrt()) };
        let dx = (high - low) / 400.0;
        let xs: Vec<f64> = (0..=400).map(|i| low + dx * f64::from(i)).collect();
        // Bayes: p(x_s | x_t) is q(x_t | x_s) p(x_s) over its integral
        let joint = |&x: &f64| before.log_density(&[x]) + log_density(x_t, step.scale * x, step.variance);
        let joint: Vec<f64> = xs.iter().map(|x| joint(x).exp()).collect();
        let total: f64 = joint.iter().sum::<f64>() * dx;
        let exact: Vec<f64> = joint.iter().map(|p| p / total).collect();
        let moment = |f: &dyn Fn(f64) -> f64| xs.iter().zip(&exact).map(|(x, p)| f(*x) * p * dx).sum::<f64>();
        let mean = moment(&|x| x);
        let variance = moment(&|x| (x - mean).powi(2));
        let bell: Vec<f64> = xs.iter().map(|x| log_density(*x, mean, variance).exp()).collect();
        let kl: f64 = exact.iter().zip(&bell).filter(|(p, _)| **p > 0.0).map(|(p, b)| p * (p / b).ln() * dx).sum();
        println!("  s = {s:<5}  {:>8.4}   {kl:.1e}", step.variance);
        if s == 0.0 {
            let gap = |p: &[f64]| {
                xs.iter().zip(p).filter(|(x, _)| (-0.7..=0.3).contains(*x)).map(|(_, p)| 100.0 * p * dx).sum::<f64>()
            };
            println!(
                "  (between -0.7 and 0.3: {:.0} % of the Gaussian, {:.0} % of the exact density)",
                gap(&bell),
                gap(&exact)
            );
        }
        let curve = |name: &str, ys: Vec<f64>| Curve::new(name, xs.iter().copied().zip(ys).collect());
        let panel = Chart::new(format!("from t = {t} back to s = {s}")).x("x_s").y("density");
        panels.push(panel.curve(curve("exact", exact)).curve(curve("Gaussian", bell)));
    }
    println!();
    chapter.svg("undo.svg", &charts(&panels, 2))
}

/// x_t of the first test digit at `times`, the same noise at every time so that only its share changes.
fn noised_digit(schedule: &DiscreteSchedule, times: &[f64]) -> Result<Vec<Picture>, Box<dyn Error>> {
    let (pixels, eps) = digit_and_noise()?;
    let tensor = |values: &[f64]| Tensor::from_f64([times.len(), 1, 28, 28], &values.repeat(times.len()), DType::F32);
    let x_t = q_sample(&tensor(&pixels), &tensor(&eps), &Levels::at(schedule, times, DType::F32));
    Ok(Picture::from_array(x_t.array()))
}

fn digit_and_noise() -> Result<(Vec<f64>, Vec<f64>), Box<dyn Error>> {
    let digits = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.test;
    let pixels = digits.batch_f32(&[0]).into_iter().map(f64::from).collect();
    Ok((pixels, normal(0, Purpose::Test, 0, 0, 28 * 28)))
}

/// A handwritten seven at t = 0, 1/8 .. 1, above on the linear schedule, below on the cosine one.
fn digit(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let times: Vec<f64> = (0..=8).map(|i| f64::from(i) / 8.0).collect();
    let mut frames = Vec::new();
    for (_, config) in BOTH {
        frames.extend(noised_digit(&config.build(), &times)?);
    }
    chapter.png("digit.png", &grid(&frames, Layout { enlarge: 3, ..Layout::new(times.len()) }))
}

/// A thousand points of a spiral at six times, each jumped to from x_0.
fn points(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (data, schedule) = (Mixture::spiral(), ScheduleConfig::Cosine.build());
    let panel = |&t: &f64| {
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let point = |index: u64| {
            let (x0, eps) = (data.sample(7, index), normal(7, Purpose::Test, 3, index, 2));
            (alpha * x0[0] + sigma * eps[0], alpha * x0[1] + sigma * eps[1])
        };
        let points = (0..chapter.size(1000, 50)).map(point).collect();
        let title = format!("t = {t}: alpha {alpha:.2}, sigma {:.2}", sigma.abs());
        Chart::new(title).square().x_range(-3.0, 3.0).y_range(-3.0, 3.0).dots("", points)
    };
    let panels: Vec<Chart> = [0.0, 0.05, 0.15, 0.3, 0.6, 1.0].iter().map(panel).collect();
    chapter.svg("points.svg", &charts(&panels, 3))
}

/// All states of one walk along the chain from `x0`: step i is sqrt(1 - beta_i) x + sqrt(beta_i) z. (A1)
fn walk(schedule: &DiscreteSchedule, x0: Vec<f64>, index: u64) -> Vec<Vec<f64>> {
    let mut path = vec![x0];
    for (i, &beta) in schedule.betas().iter().enumerate() {
        let z = normal(8, Purpose::Test, i as u64, index, path[i].len());
        path.push(path[i].iter().zip(z).map(|(x, z)| (1.0 - beta).sqrt() * x + beta.sqrt() * z).collect());
    }
    path
}

/// Step by step on the linear schedule: two points of the spiral in the plane, and seven numbers of the two lumps over time.
fn paths(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let schedule = DiscreteSchedule::linear(chapter.size(250, 10));
    let start = |index: u64| Mixture::spiral().sample(7, index);
    let spiral = (0..chapter.size(600, 50)).map(|i| (start(i)[0], start(i)[1])).collect();
    let mut plane = Chart::new("Two walks, to t = 0.4").x_range(-3.0, 3.0).y_range(-2.5, 2.5).dots("", spiral);
    for index in [2, 5] {
        let walk = walk(&schedule, start(index), index);
        let part = walk.iter().take(1 + 2 * schedule.steps() / 5).map(|x| (x[0], x[1]));
        plane = plane.curve(Curve::new("", part.collect()));
    }
    let mut line = Chart::new("Seven walks from two lumps").x("t").y("x_t").y_range(-3.0, 3.0);
    for index in 0..7 {
        let walk = walk(&schedule, two_lumps().sample(9, index), 100 + index);
        line = line.curve(Curve::new("", walk.iter().enumerate().map(|(i, x)| (schedule.time(i), x[0])).collect()));
    }
    chapter.svg("paths.svg", &charts(&[plane, line], 2))
}

/// The density of x_t, exactly: the two lumps move to the middle, widen and become one bell.
fn melt(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let schedule = ScheduleConfig::Cosine.build();
    let mut chart = Chart::new("Two lumps melt into N(0, 1)").x("x").y("density of x_t").y_range(0.0, 1.2);
    println!(
        "Two lumps on the cosine schedule\n    t   means and standard deviation of the lumps   density in the valley, x = 0"
    );
    for t in [0.0, 0.1, 0.25, 0.4, 0.6, 1.0] {
        let noised = two_lumps().noised(schedule.alpha(t), schedule.sigma(t));
        let [left, right] = [0, 1].map(|k| noised.components[k].mean[0]);
        println!(
            "  {t:<4}  {left:>6.3}  {right:>6.3}  {:.3}   {:.4}",
            noised.components[0].std,
            noised.density(&[0.0])
        );
        let at = |x: f64| (x, noised.density(&[x]));
        chart =
            chart.curve(Curve::new(format!("t = {t}"), (0..=240).map(|i| at(-3.0 + f64::from(i) / 40.0)).collect()));
    }
    println!();
    chapter.svg("melt.svg", &chart.svg())
}

/// What the page's slider needs: the digit and `count` points at t = 0, one noise for each, and both schedules at
/// t = i / 200. The page adds them up by (A2). Images are in units of 1/1000, noise of 1/100, to keep the file small.
fn figure_data(count: u64) -> Result<String, Box<dyn Error>> {
    let whole = |values: &[f64], unit: f64| {
        values.iter().map(|v| ((v / unit).round() as i64).to_string()).collect::<Vec<_>>().join(",")
    };
    let (pixels, eps) = digit_and_noise()?;
    let x0: Vec<f64> = (0..count).flat_map(|i| Mixture::spiral().sample(7, i)).collect();
    let noise: Vec<f64> = (0..count).flat_map(|i| normal(7, Purpose::Test, 3, i, 2)).collect();
    let mut out = String::from("// Written by examples/ch07_forward.rs.\nwindow.forwardProcess = {\n");
    out += &format!("digit: [{}],\n", whole(&pixels, 0.001));
    out += &format!("digitNoise: [{}],\n", whole(&eps, 0.01));
    out += &format!("points: [{}],\npointNoise: [{}],\n", whole(&x0, 0.001), whole(&noise, 0.01));
    for (name, config) in BOTH {
        let schedule = config.build();
        let logs = (0..=200).map(|i| format!("{:.6}", schedule.log_alpha_bar(f64::from(i) / 200.0)));
        out += &format!("{name}: [{}],\n", logs.collect::<Vec<_>>().join(","));
    }
    Ok(out + "};\n")
}
