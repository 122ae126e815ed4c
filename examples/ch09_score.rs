//! `cargo run --release --example ch09_score`: the simple loss (C3, C4), and the score that it teaches.
//!
//! Three small networks learn to tell noise from points of two half moons: one predicts eps, one x_0, one v. What a
//! perfect model would say of these data is known in closed form, so everything learned is compared with it: the score
//! field, the loss and the error at every t. Then points are drawn with what was learned.

mod chapter;

use chapter::Chapter;
use imagen::array::DType;
use imagen::autograd::{Tensor, concat, no_grad};
use imagen::diffusion::gaussian::{bits_per_dimension, discretised_log_probability, level_value};
use imagen::diffusion::weighting::bound_weight;
use imagen::diffusion::{
    Denoiser, DiscreteSchedule, Exact, Images, Levels, Mixture, Posterior, Sampler, SamplerKind, Sampling, Target,
    Threshold, Weighting, loss, q_sample,
};
use imagen::nn::{Init, Linear, Parameters, sinusoidal};
use imagen::optim::{Adam, LearningRate, Optimizer};
use imagen::picture::{Chart, Curve, charts};
use imagen::random::{Purpose, normal, stream};
use rand::RngExt;
use std::error::Error;
use std::ops::ControlFlow;

/// Features of t, of each coordinate, and of a hidden layer.
const TIME: usize = 32;
const WAVES: usize = 16;
const HIDDEN: usize = 128;
/// Points a training step.
const BATCH: u64 = 128;

// ANCHOR: network
/// (x_t, t) -> eps, x_0 or v, for points in the plane.
struct Network {
    layers: [Linear; 4],
    parameters: Parameters,
}

impl Network {
    fn new(seed: u64) -> Network {
        let init = Init::new(seed, DType::F32);
        let widths = [2 + 2 * WAVES + TIME, HIDDEN, HIDDEN, HIDDEN, 2];
        let layers = std::array::from_fn(|i| Linear::new(&init.scope(i), widths[i], widths[i + 1]));
        Network { layers, parameters: init.parameters() }
    }
}

impl Denoiser for Network {
    type Condition = Option<usize>;

    fn predict(&self, x_t: &Tensor, t: &[f64], _: &Option<usize>) -> Tensor {
        let scaled = |values: &[f64], by: f64| values.iter().map(|v| by * v).collect::<Vec<_>>();
        let time = sinusoidal(&scaled(t, 1000.0), TIME, DType::F32);
        let waves = sinusoidal(&scaled(&x_t.to_f64(), 10.0), WAVES, DType::F32).reshape([t.len(), 2 * WAVES]);
        let input = concat(&[&x_t.reshape([t.len(), 2]), &waves, &time], 1);
        let [hidden @ .., last] = &self.layers;
        last.forward(&hidden.iter().fold(input, |h, layer| layer.forward(&h).silu())).reshape(x_t.shape())
    }
}
// ANCHOR_END: network

/// Points of the data with noise added, [B, 1, 1, 2], each at a time of its own.
struct Batch {
    x0: Tensor,
    eps: Tensor,
    t: Vec<f64>,
    x_t: Tensor,
}

/// Points `first` .. of the data, noised at the times `t`.
fn noised(world: &Exact, seed: u64, first: u64, t: Vec<f64>) -> Batch {
    let shape = [t.len(), 1, 1, 2];
    let x0: Vec<f64> = (first..).take(t.len()).flat_map(|i| world.data.sample(seed, i)).collect();
    let x0 = Tensor::from_f64(shape, &x0, DType::F32);
    let eps = Tensor::from_f64(shape, &normal(seed, Purpose::Noise, 0, first, 2 * t.len()), DType::F32);
    let x_t = q_sample(&x0, &eps, &Levels::at(world.schedule, &t, DType::F32));
    Batch { x0, eps, t, x_t }
}

// ANCHOR: train
/// Trains a network to predict `target`, with the weight 1; returns it with its loss at every step.
fn train(world: &Exact, target: Target, steps: u64) -> (Network, Vec<f64>) {
    let network = Network::new(1);
    let mut optimizer = Adam::new([0.9, 0.999], 1e-8, 0.0);
    let rate = LearningRate::WarmupCosine { peak: 0.01, warmup: steps / 20, total: steps, end: 0.0 };
    let mut losses = Vec::new();
    for step in 0..steps {
        let times = (0..BATCH).map(|i| 1.0 - stream(2, Purpose::Time, step, i).random::<f64>());
        let Batch { x0, eps, t, x_t } = noised(world, 2, step * BATCH, times.collect());
        let prediction = network.predict(&x_t, &t, &None);
        let loss = loss(&prediction, &x0, &eps, &t, world.schedule, target, Weighting::Simple).mean;
        losses.push(loss.item());
        optimizer.step(&network.parameters, &loss.backward(), rate.at(step));
    }
    (network, losses)
}
// ANCHOR_END: train

/// What is found at one time, from points that no network was trained on. All are mean squares.
struct Report {
    t: f64,
    /// The loss of the network that predicts eps, and of the exact model.
    learned: f64,
    exact: f64,
    /// The difference of the two predictions.
    apart: f64,
    /// By how much x_hat_0 of each network, trained on eps, x_0 and v, is off from the exact one.
    x0_off: [f64; 3],
}

fn report(world: &Exact, networks: &[(Target, Network); 3], t: f64, points: usize) -> Report {
    let Batch { eps, t: times, x_t, .. } = noised(world, 3, (1e6 * t) as u64 * 10_000, vec![t; points]);
    let levels = Levels::at(world.schedule, &times, DType::F32);
    let mean_square = |difference: Tensor| difference.square().mean_all().item();
    let exact = world.predict(&x_t, &times, &None);
    let learned = networks[0].1.predict(&x_t, &times, &None);
    let x0 = Target::Eps.to_x0(&exact, &x_t, &levels);
    let x0_off = networks.each_ref().map(|(target, network)| {
        mean_square(&target.to_x0(&network.predict(&x_t, &times, &None), &x_t, &levels) - &x0)
    });
    let [of_learned, of_exact] = [&eps - &learned, &eps - &exact].map(mean_square);
    Report { t, learned: of_learned, exact: of_exact, apart: mean_square(&exact - &learned), x0_off }
}

/// sigma_t times the score, that is -eps, as arrows where points x_t occur; `apart` is the distance between arrows.
fn field(world: &Exact, model: &dyn Denoiser<Condition = Option<usize>>, name: &str, t: f64, apart: f64) -> Chart {
    let p = world.data.noised(world.schedule.alpha(t), world.schedule.sigma(t));
    let at = |i: i32| f64::from(i) * apart;
    let grid = (-12..=12).flat_map(|i| (-12..=12).map(move |j| [at(i), at(j)]));
    let places: Vec<[f64; 2]> = grid.filter(|x| p.density(x) > 0.015).collect();
    let x_t = Tensor::from_f64([places.len(), 1, 1, 2], &places.concat(), DType::F32);
    let eps = model.predict(&x_t, &vec![t; places.len()], &None).to_f64();
    let arrow = |([x, y], e): (&[f64; 2], &[f64])| [(*x, *y), (x - 0.45 * apart * e[0], y - 0.45 * apart * e[1])];
    let arrows = places.iter().zip(eps.chunks(2)).map(arrow).collect();
    let points = (0..250).map(|i| p.sample(4, i)).map(|x| (x[0], x[1])).collect();
    let side = 1.85 + 1.4 * t;
    let plane = Chart::new(format!("{name}, t = {t}")).square().x_range(-side, side).y_range(-side, side);
    plane.dots("", points).arrows("", arrows)
}

/// Points drawn with a model of eps, from noise.
fn draw(world: &Exact, network: &Network, count: u64) -> Result<Vec<(f64, f64)>, Box<dyn Error>> {
    let seeds: Vec<(u64, u64)> = (0..count).map(|i| (5, i)).collect();
    let sampler = Sampler {
        schedule: world.schedule,
        denoiser: network,
        target: Target::Eps,
        condition: &None,
        settings: Sampling { steps: 250, sampler: SamplerKind::Ancestral { gamma: 0.0 }, threshold: Threshold::None },
    };
    let images = Images { size: [1, 1, 2], dtype: DType::F32, seeds: &seeds };
    let points = sampler.sample(&images, &mut |_| ControlFlow::Continue(()))?.to_f64();
    Ok(points.chunks(2).map(|x| (x[0], x[1])).collect())
}

/// The weight of C3 by t, and the weightings by signal-to-noise ratio.
fn weights(schedule: &DiscreteSchedule) -> String {
    println!("The weight of ||eps - eps_theta||^2 in the bound (C3), linear schedule of 1000 steps:");
    println!("     t   sigma^2 = beta   sigma^2 = beta_tilde   constant for beta");
    let of_step = |i, gamma| bound_weight(schedule, i, Posterior::of_step(schedule, i).variance_between(gamma));
    for i in [2, 3, 10, 100, 340, 1000] {
        let q = Posterior::of_step(schedule, i);
        let ratio = q.variance / q.forward_variance;
        let constant = 0.5 * (-ratio.ln() + ratio - 1.0);
        println!("  {i:>4}   {:>14.4}   {:>20.4}   {constant:>17.6}", of_step(i, 1.0), of_step(i, 0.0));
    }
    let curve = |gamma| (2..=schedule.steps()).map(|i| (schedule.time(i), of_step(i, gamma))).collect();
    let by_t = Chart::new("Weight in the bound").x("t").y("factor of the error of eps").log_y();
    let by_t = by_t.curve(Curve::new("σ² = β, as the forward step", curve(1.0)));
    let by_t = by_t.curve(Curve::new("σ² = β̃, as the posterior", curve(0.0)));

    // the factor of the error of the target, as a factor of the error of eps
    let of_eps = |weighting: Weighting, target: Target| {
        let at = |snr: f64| (snr, weighting.weight(target, snr) * target.error_scale(snr) / snr);
        (-40..=60).map(|k| at(10f64.powf(f64::from(k) / 20.0))).collect()
    };
    let mut by_snr =
        Chart::new("Weightings").x("signal-to-noise ratio").y("factor of the error of eps").log_x().log_y();
    for (name, weighting, target) in [
        ("simple, of eps", Weighting::Simple, Target::Eps),
        ("simple, of v", Weighting::Simple, Target::V),
        ("truncated SNR", Weighting::TruncatedSnr, Target::Eps),
        ("min-SNR, γ = 5", Weighting::MinSnr { gamma: 5.0 }, Target::Eps),
    ] {
        by_snr = by_snr.curve(Curve::new(name, of_eps(weighting, target)));
    }
    charts(&[by_t, by_snr], 2)
}

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch09");
    let schedule = DiscreteSchedule::linear(1000);
    let world = Exact { data: Mixture::two_moons(), schedule: &schedule };
    chapter.svg("weights.svg", &weights(&schedule))?;

    let std = schedule.betas()[0].sqrt();
    println!("\nThe decoder (C6), sigma_1 = {std:.2}. A pixel of level 200 costs, in bits, if the mean is");
    for off in [0, 1, 2, 5] {
        let nats = -discretised_log_probability(200, level_value(200 + off), std);
        println!("  {off} levels off: {:.3}", bits_per_dimension(nats, 1));
    }

    let steps = chapter.size(4000, 20);
    println!("\nThree networks learn from points of two half moons, {steps} batches of {BATCH} each.");
    let trained = [Target::Eps, Target::X0, Target::V].map(|target| (target, train(&world, target, steps)));
    let losses = trained[0].1.1.clone();
    let networks = trained.map(|(target, (network, _))| (target, network));
    no_grad(|| compare(&chapter, &world, &networks, &losses))
}

fn compare(
    chapter: &Chapter,
    world: &Exact,
    networks: &[(Target, Network); 3],
    losses: &[f64],
) -> Result<(), Box<dyn Error>> {
    let times = (0..40).map(|i| (f64::from(i) + 0.5) / 40.0);
    let reports: Vec<Report> = times.map(|t| report(world, networks, t, chapter.size(4000, 50))).collect();
    println!("Mean squares: loss of the network of eps, of the exact model, difference of the two;");
    println!("then how far x_hat_0 is off from the exact one, for the networks of eps, x_0 and v");
    for r in reports.iter().step_by(4).chain(reports.last()) {
        let [eps, x0, v] = r.x0_off;
        let snr = world.schedule.log_snr(r.t).exp();
        print!("  t = {:.4}, SNR {snr:>9.5}   {:.4} {:.4} {:.5}", r.t, r.learned, r.exact, r.apart);
        println!("   {eps:>8.5} {x0:.5} {v:.5}");
    }
    let mean = |of: fn(&Report) -> f64| reports.iter().map(of).sum::<f64>() / reports.len() as f64;
    let least = mean(|r| r.exact);
    println!("  all t                       {:.4} {least:.4} {:.5}", mean(|r| r.learned), mean(|r| r.apart));

    let curve =
        |name: &str, of: &dyn Fn(&Report) -> f64| Curve::new(name, reports.iter().map(|r| (r.t, of(r))).collect());
    let by_step: Vec<(f64, f64)> = losses.iter().enumerate().map(|(i, &l)| (i as f64, l)).collect();
    let floor = vec![(0.0, least), (losses.len() as f64, least)];
    let chart = |title: &str, x: &str| Chart::new(title).x(x).y("mean squared error of eps").y_range(0.0, 1.1);
    let training = chart("Loss while training", "step").curve(Curve::new("network", by_step).smoothed(0.98));
    let training = training.curve(Curve::new("exact model", floor));
    let by_t = chart("Loss by noise level", "t").curve(curve("network", &|r| r.learned));
    chapter.svg("loss.svg", &charts(&[training, by_t.curve(curve("exact model", &|r| r.exact))], 2))?;

    let fields = [(0.05, 0.16), (0.15, 0.25), (0.4, 0.4)].iter().flat_map(|&(t, apart)| {
        [field(world, &networks[0].1, "learned", t, apart), field(world, world, "exact", t, apart)]
    });
    chapter.svg("score-field.svg", &charts(&fields.collect::<Vec<_>>(), 2))?;

    let count = chapter.size(1500, 20);
    let data = (0..count).map(|i| world.data.sample(6, i)).map(|x| (x[0], x[1])).collect();
    let plane = |name| Chart::new(name).square().x_range(-2.0, 2.0).y_range(-2.0, 2.0);
    let drawn = plane("drawn by the network").dots("", draw(world, &networks[0].1, count)?);
    chapter.svg("samples.svg", &charts(&[plane("data").dots("", data), drawn], 2))?;

    let mut least = Chart::new("Least loss of each target").x("t").y("mean squared error").log_y();
    let mut off = Chart::new("Error of x̂₀, after training on").x("t").y("mean squared error").log_y();
    for (k, (target, _)) in networks.iter().enumerate() {
        let name = ["eps", "x₀", "v"][k];
        let snr = |t: f64| world.schedule.log_snr(t).exp();
        least = least.curve(curve(name, &|r| r.exact * target.error_scale(snr(r.t)) / snr(r.t)));
        off = off.curve(curve(name, &|r| r.x0_off[k]));
    }
    chapter.svg("targets.svg", &charts(&[least, off], 2))
}
