//! `cargo run --release --example ch06_families`: chapter 6, four families of generative models.
//!
//! A GAN, a VAE, a flow and diffusion learn the same points of the plane, with as many parameters, steps and points each. What
//! they draw is compared with the data, whose density is known: by eye, by the modes that are hit, and by likelihood.

mod chapter;
mod families;

use chapter::Chapter;
use families::diffusion::{Diffusion, log_likelihood_bound};
use families::flow::RealNvp;
use families::gan::{Gan, discriminator_loss, generator_loss, saturating_loss};
use families::measure::{Coverage, kernel_log_density, mean, points, ring};
use families::vae::{Vae, log_mean_exp};
use families::{Family, noise};
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::gaussian::log_density;
use imagen::diffusion::{DiscreteSchedule, Mixture, Target};
use imagen::nn::Init;
use imagen::picture::{Chart, Curve, Layout, Picture, charts, grid};
use imagen::random::Purpose;
use std::error::Error;
use std::time::Instant;

const NAMES: [&str; 4] = ["GAN", "VAE", "flow", "diffusion"];
/// Points of a training step.
const BATCH: usize = 128;

/// How much is done.
#[derive(Clone, Copy)]
struct Work {
    steps: u64,
    /// Points drawn from every model, and points it was not trained on.
    points: usize,
    /// Draws of z behind the likelihood of the VAE.
    draws: usize,
    /// Terms of the bound of diffusion.
    terms: usize,
}

/// The four, trained on one set of data.
struct World {
    data: Mixture,
    gan: Gan,
    vae: Vae,
    flow: RealNvp,
    diffusion: Diffusion,
    losses: [Vec<f64>; 4],
    seconds: [f64; 4],
}

impl World {
    fn families(&self) -> [&dyn Family; 4] {
        [&self.gan, &self.vae, &self.flow, &self.diffusion]
    }
}

// ANCHOR: sizes
/// The four with about 22 000 parameters each.
fn untrained(seed: u64, steps: u64) -> (Gan, Vae, RealNvp, Diffusion) {
    let init = || Init::new(seed, DType::F32);
    (
        Gan::new(seed, [2, 2, 95], 1e-3),
        Vae::new(&init(), [2, 2], &[95, 95], 5e-3, steps),
        RealNvp::new(&init(), [2, 8, 46], DType::F32, 2e-3, steps),
        Diffusion::new(seed, [2, 92], Target::Eps, 1e-2, steps),
    )
}
// ANCHOR_END: sizes

/// Trains for `steps` steps, the same points for everyone; returns the losses and how long it took.
fn train(family: &mut dyn Family, data: &Mixture, steps: u64) -> (Vec<f64>, f64) {
    let started = Instant::now();
    let of = |step: u64| points(data, 2, step * BATCH as u64, BATCH);
    let losses = (0..steps).map(|step| family.train_step(&of(step), step)).collect();
    (losses, started.elapsed().as_secs_f64())
}

fn learn(data: Mixture, work: Work) -> World {
    let (mut gan, mut vae, mut flow, mut diffusion) = untrained(1, work.steps);
    vae.draws = work.draws;
    let all: [&mut dyn Family; 4] = [&mut gan, &mut vae, &mut flow, &mut diffusion];
    let [a, b, c, d] = all.map(|family| train(family, &data, work.steps));
    let (losses, seconds) = ([a.0, b.0, c.0, d.0], [a.1, b.1, c.1, d.1]);
    World { data, gan, vae, flow, diffusion, losses, seconds }
}

/// What is said of one family on one set of data.
struct Row {
    drawn: Vec<f64>,
    coverage: Coverage,
    /// Mean of log p over held-out points and its standard error, nats.
    likelihood: Option<(f64, f64)>,
    /// The same by a density laid over 2000 drawn points.
    kernels: (f64, f64),
}

/// The width of these kernels.
const KERNEL: f64 = 0.06;

fn judge(world: &World, family: &dyn Family, work: Work) -> Row {
    let drawn = family.sample(5, work.points).to_f64();
    let held_out = points(&world.data, 3, 0, work.points / 2);
    let likelihood = family.log_likelihood(&held_out, 7).map(|values| mean(&values));
    let kernels = mean(&kernel_log_density(&drawn, KERNEL, &held_out.to_f64(), 2));
    Row { coverage: Coverage::of(&world.data, &drawn), drawn, likelihood, kernels }
}

/// Mean log p of held-out points under the density they are from: what nobody can be above, but by chance.
fn truth(data: &Mixture, count: usize) -> f64 {
    let held_out = points(data, 3, 0, count).to_f64();
    mean(&held_out.chunks(2).map(|x| data.log_density(x)).collect::<Vec<_>>()).0
}

/// Prints the table of one set of data.
fn table(name: &str, world: &World, rows: &[Row], work: Work) {
    let (n, held_out) = (work.points, points(&world.data, 3, 0, work.points / 2).to_f64());
    let real = points(&world.data, 4, 0, n).to_f64();
    let coverage = Coverage::of(&world.data, &real);
    println!(
        "\n{name}: {} steps of {BATCH} points. Good points, modes hit, log p in nats, log p by kernels:",
        work.steps
    );
    let line = |name: &str, coverage: &Coverage, likelihood: String, kernels: f64, rest: String| {
        let hit = format!("{} of {}", coverage.hit(), coverage.shares.len());
        println!("  {name:<10} {:>5.1} % {hit:>9} {likelihood:>16} {kernels:>7.3}   {rest}", 100.0 * coverage.good);
    };
    let kernels = mean(&kernel_log_density(&real, KERNEL, &held_out, 2)).0;
    line("the data", &coverage, format!("{:.3}", truth(&world.data, n / 2)), kernels, String::new());
    for (i, row) in rows.iter().enumerate() {
        let likelihood = row.likelihood.map_or("none".into(), |(mean, error)| format!("{mean:.3} +- {error:.3}"));
        let rest = format!("{} parameters, {:.1} s", world.families()[i].parameters(), world.seconds[i]);
        line(NAMES[i], &row.coverage, likelihood, row.kernels.0, rest);
    }
}

fn pairs(values: &[f64]) -> Vec<(f64, f64)> {
    values.chunks(2).map(|x| (x[0], x[1])).collect()
}

/// A panel of the plane.
fn plane(title: &str, side: f64, values: &[f64]) -> Chart {
    let shown: Vec<(f64, f64)> = pairs(values).into_iter().take(700).collect();
    Chart::new(title).square().x_range(-side, side).y_range(-side, side).dots("", shown)
}

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch06");
    let work = chapter.size(
        Work { steps: 2500, points: 2000, draws: 200, terms: 1000 },
        Work { steps: 8, points: 40, draws: 3, terms: 10 },
    );
    game(&chapter)?;
    let (ring, moons, seeds) = std::thread::scope(|scope| {
        let moons = scope.spawn(|| learn(Mixture::two_moons(), work));
        let seeds = scope.spawn(|| [1, 2, 3].map(|seed| restless(seed, work)));
        (learn(ring(), work), moons.join(), seeds.join())
    });
    let died = "a training stopped";
    let (moons, seeds) = (moons.map_err(|_| died)?, seeds.map_err(|_| died)?);
    let [of_ring, of_moons] = [&ring, &moons].map(|world| world.families().map(|f| judge(world, f, work)));
    table("A ring of eight Gaussians", &ring, &of_ring, work);
    table("Two moons", &moons, &of_moons, work);
    overview(&chapter, &ring, &of_ring, &moons, &of_moons, work)?;
    training(&chapter, &ring, work)?;
    collapse(&chapter, &seeds, work)?;
    bounds(&chapter, &moons, work)?;
    way(&chapter, &moons.flow)?;
    densities(&chapter, &moons)
}

/// Data and draws of everyone on the ring, with the shares of the modes; then the same on the moons, with likelihoods.
fn overview(
    chapter: &Chapter,
    ring: &World,
    of_ring: &[Row; 4],
    moons: &World,
    of_moons: &[Row; 4],
    work: Work,
) -> Result<(), Box<dyn Error>> {
    let panels = |world: &World, rows: &[Row; 4], side: f64| {
        let mut panels = vec![plane("data", side, &points(&world.data, 4, 0, 700.min(work.points)).to_f64())];
        panels.extend(rows.iter().zip(NAMES).map(|(row, name)| plane(name, side, &row.drawn)));
        panels
    };
    let mut shown = panels(ring, of_ring, 1.5);
    let mut shares = Chart::new("good points by mode").x("mode").y("share").y_range(0.0, 0.3);
    for (row, name) in of_ring.iter().zip(NAMES) {
        let by_mode = row.coverage.shares.iter().enumerate().map(|(k, &share)| (k as f64, share)).collect();
        shares = shares.curve(Curve::new(name, by_mode));
    }
    shown.push(shares);
    chapter.svg("ring.svg", &charts(&shown, 3))?;

    let mut shown = panels(moons, of_moons, 1.9);
    let best = truth(&moons.data, work.points / 2);
    let mut missing = Chart::new("below the data's log p").x("1 VAE, 2 flow, 3 diffusion").y("nats missing");
    missing = missing.x_range(0.5, 3.5).y_range(0.0, 0.6);
    for (i, row) in of_moons.iter().enumerate() {
        let Some((mean, error)) = row.likelihood else { continue };
        let (x, gap) = (i as f64, best - mean);
        missing = missing.bars(NAMES[i], vec![(x, gap)]);
        let bar = Curve::new("", vec![(x, gap)]);
        missing = missing.curve(bar.with_intervals(vec![[gap - 2.0 * error, gap + 2.0 * error]]));
    }
    shown.push(missing);
    chapter.svg("moons.svg", &charts(&shown, 3))
}

/// The losses of everyone on the ring, and the values that a perfect model would have.
fn training(chapter: &Chapter, world: &World, work: Work) -> Result<(), Box<dyn Error>> {
    let by_step = |losses: &[f64]| losses.iter().enumerate().map(|(i, &l)| (i as f64, l)).collect::<Vec<_>>();
    let curve = |name: &str, losses: &[f64]| Curve::new(name, by_step(losses)).smoothed(0.98);
    let line = |name: &str, value: f64| Curve::new(name, vec![(0.0, value), (work.steps as f64, value)]);
    let chart = |title: &str, low, high| Chart::new(title).x("step").y("loss").y_range(low, high);
    let entropy = -truth(&world.data, work.points / 2);
    let gan = chart("GAN", 0.4, 1.8)
        .curve(curve("discriminator", &world.losses[0]))
        .curve(curve("generator", &world.gan.generator_losses))
        .curve(line("log 4", 4f64.ln()))
        .curve(line("log 2", 2f64.ln()));
    let with_floor = |title: &str, losses: &[f64]| {
        let chart = chart(title, entropy - 0.4, entropy + 3.0);
        chart.curve(curve("network", losses)).curve(line("entropy of the data", entropy))
    };
    let diffusion = chart("diffusion: L simple", 0.0, 0.6).curve(curve("network", &world.losses[3]));
    let flow = with_floor("flow: −log p", &world.losses[2]);
    chapter.svg("training.svg", &charts(&[gan, with_floor("VAE: −ELBO", &world.losses[1]), flow, diffusion], 2))
}

/// Densities p and q of one number, the best discriminator, and what pushes the generator.
fn game(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (p, q) = (|x: f64| log_density(x, -1.0, 0.49).exp(), |x: f64| log_density(x, 1.0, 1.0).exp());
    let xs = || (-80..=80).map(|i| 0.05 * f64::from(i));
    let curve = |name: &str, f: &dyn Fn(f64) -> f64| Curve::new(name, xs().map(|x| (x, f(x))).collect());
    let best = Chart::new("The best discriminator").x("x").y("density, probability");
    let best = best
        .curve(curve("p, the data", &p))
        .curve(curve("q, what is drawn", &q))
        .curve(curve("D* = p / (p + q)", &|x| p(x) / (p(x) + q(x))));

    let slope = |loss: fn(&Tensor) -> Tensor, d: f64| {
        let logit = Tensor::leaf(Tensor::scalar((d / (1.0 - d)).ln(), DType::F64).into_array());
        loss(&logit).backward().get(&logit).map_or(0.0, |g| -g.to_f64()[0])
    };
    let by_d = |loss| (1..200).map(|i| f64::from(i) / 200.0).map(|d| (d, slope(loss, d))).collect();
    let push = Chart::new("What pushes the generator").x("D(G(z))").y("slope in the logit");
    let push = push
        .curve(Curve::new("−log D(G(z))", by_d(generator_loss)))
        .curve(Curve::new("log(1 − D(G(z)))", by_d(saturating_loss)));

    let divergence = |shift: f64| {
        let two = |x: f64, m: f64| log_density(x, m, 1.0).exp();
        let step = 0.02;
        let at = |x: f64| {
            let (p, q) = (two(x, 0.0), two(x, shift));
            let logit = Tensor::scalar((p / q).ln(), DType::F64);
            let zero = Tensor::scalar(-1e3, DType::F64);
            // softplus of -1000 is 0: each half of the loss by itself
            let real = discriminator_loss(&logit, &zero).item();
            let drawn = discriminator_loss(&-&zero, &logit).item();
            step * (p * real + q * drawn)
        };
        let loss: f64 = (-400..1000).map(|i| at(step * f64::from(i))).sum();
        0.5 * (4f64.ln() - loss)
    };
    println!("JS of N(0, 1) and N(Δ, 1), from the loss of the best discriminator; it cannot be above log 2 = 0.6931:");
    for m in [0.0, 1.0, 2.0, 4.0, 8.0] {
        println!("  Δ = {m}: {:.4}", divergence(m));
    }
    chapter.svg("game.svg", &charts(&[best, push], 2))
}

/// One GAN on the ring: (step, good share, modes hit) as it learns, and what it draws at some steps.
struct Restless {
    course: Vec<(f64, f64, f64)>,
    seen: Vec<(u64, Vec<f64>)>,
}

fn restless(seed: u64, work: Work) -> Restless {
    let data = ring();
    let mut gan = untrained(seed, work.steps).0;
    let mut all = Restless { course: Vec::new(), seen: Vec::new() };
    let every = (work.steps / 50).max(1);
    for step in 0..work.steps {
        gan.train_step(&points(&data, 2, step * BATCH as u64, BATCH), step);
        if (step + 1) % every == 0 {
            let drawn = gan.sample(5, work.points).to_f64();
            let coverage = Coverage::of(&data, &drawn);
            all.course.push(((step + 1) as f64, coverage.good, coverage.hit() as f64));
            all.seen.push((step + 1, drawn));
        }
    }
    all
}

/// What three GANs hit, which differ in nothing but their first weights; and six moments of the first.
fn collapse(chapter: &Chapter, seeds: &[Restless; 3], work: Work) -> Result<(), Box<dyn Error>> {
    println!("\nThree GANs on the ring, at the end of {} steps and the least since the middle:", work.steps);
    let mut good = Chart::new("Good points").x("step").y("share").y_range(0.0, 1.0);
    let mut hit = Chart::new("Modes hit, of 8").x("step").y("modes").y_range(0.0, 8.4);
    for (i, seed) in seeds.iter().enumerate() {
        let late = &seed.course[seed.course.len() / 2..];
        let least = late.iter().map(|c| c.2).fold(8.0, f64::min);
        let last = late[late.len() - 1];
        println!("  seed {}: {:.1} % good, {} modes; least {least}", i + 1, 100.0 * last.1, last.2);
        let name = format!("seed {}", i + 1);
        good = good.curve(Curve::new(name.as_str(), seed.course.iter().map(|c| (c.0, c.1)).collect()));
        hit = hit.curve(Curve::new(name, seed.course.iter().map(|c| (c.0, c.2)).collect()));
    }
    chapter.svg("seeds.svg", &charts(&[good, hit], 2))?;
    let n = seeds[0].seen.len();
    let moments = [0, 2, 5, n / 4, n / 2, n - 1].map(|i| &seeds[0].seen[i.min(n - 1)]);
    let panels = moments.map(|(step, drawn)| plane(&format!("step {step}"), 1.5, &drawn[..drawn.len().min(800)]));
    chapter.svg("collapse.svg", &charts(&panels, 3))
}

/// How the bounds rise: that of the VAE with the draws of z, that of diffusion with the steps of the chain.
fn bounds(chapter: &Chapter, world: &World, work: Work) -> Result<(), Box<dyn Error>> {
    let count = work.points / 4;
    let (held_out, best) = (points(&world.data, 3, 0, count), truth(&world.data, count));
    let most = 5 * work.draws;
    let draw = |i: usize| {
        let eps = noise(9, Purpose::Test, i as u64, [count, 2], DType::F32);
        no_grad(|| world.vae.log_weight(&held_out, &eps)).to_f64()
    };
    let weights: Vec<Vec<f64>> = (0..most).map(draw).collect();
    // the mean over all groups of k draws
    let of = |k: usize| {
        let groups = weights.chunks_exact(k);
        let bound = |group: &[Vec<f64>]| {
            mean(&(0..count).map(|b| log_mean_exp(group.iter().map(|w| w[b]))).collect::<Vec<_>>()).0
        };
        groups.clone().map(bound).sum::<f64>() / groups.len() as f64
    };
    let ks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].into_iter().filter(|&k| k <= most);
    let by_k: Vec<(f64, f64)> = ks.map(|k| (k as f64, of(k))).collect();
    println!("\nMean log p of {count} held-out points of the moons: {best:.3}. The bound of the VAE by draws of z:");
    println!("  {}", by_k.iter().map(|(k, bound)| format!("{k}: {bound:.3}")).collect::<Vec<_>>().join(", "));

    let bound = |steps: usize| {
        let schedule = DiscreteSchedule::linear(steps);
        let model = &world.diffusion;
        mean(&log_likelihood_bound(&model.network, model.target, &schedule, &held_out, 7)).0
    };
    let steps = [25, 50, 100, 250, 500, 1000].into_iter().filter(|&t| t <= work.terms.max(50));
    let by_steps: Vec<(f64, f64)> = steps.map(|t| (t as f64, bound(t))).collect();
    println!("The bound of diffusion by steps of the chain:");
    println!("  {}", by_steps.iter().map(|(t, bound)| format!("{t}: {bound:.3}")).collect::<Vec<_>>().join(", "));
    let chart = |title: &str, x: &str, curve: Vec<(f64, f64)>| {
        let ends = [curve[0].0, curve[curve.len() - 1].0].map(|x| (x, best)).to_vec();
        let chart = Chart::new(title).x(x).y("mean log p, nats").log_x();
        chart.curve(Curve::new("bound", curve)).curve(Curve::new("log p of the data", ends))
    };
    let both = [chart("VAE", "draws of z, k", by_k), chart("diffusion", "steps of the chain, T", by_steps)];
    chapter.svg("bounds.svg", &charts(&both, 2))
}

/// Noise on its way through the couplings of the flow: two colours for its halves, and a grid that is bent with it.
fn way(chapter: &Chapter, flow: &RealNvp) -> Result<(), Box<dyn Error>> {
    let z = noise(8, Purpose::Test, 0, [700, 2], DType::F32);
    let ticks = |from: i32, to: i32, by: f64| (from..=to).map(move |i| by * f64::from(i));
    let across = ticks(-3, 3, 0.8).flat_map(|a| ticks(-40, 40, 0.06).flat_map(move |b| [a, b]));
    let along = ticks(-3, 3, 0.8).flat_map(|a| ticks(-40, 40, 0.06).flat_map(move |b| [b, a]));
    let lines: Vec<f64> = across.chain(along).collect();
    let lines = Tensor::from_f64([lines.len() / 2, 2], &lines, DType::F32);
    let start = pairs(&z.to_f64());
    let (dots, bent) = (flow.way(&z), flow.way(&lines));
    let n = dots.len() - 1;
    let panel = |i: usize| {
        let at = pairs(&dots[i].to_f64());
        let half = |left: bool| at.iter().zip(&start).filter(|(_, z)| (z.0 < 0.0) == left).map(|(x, _)| *x).collect();
        let mut net = Vec::new();
        for line in pairs(&bent[i].to_f64()).chunks(81) {
            net.extend_from_slice(line);
            net.push((f64::NAN, f64::NAN));
        }
        let title = if i == 0 { "noise".into() } else { format!("after {i} couplings") };
        let chart = Chart::new(title).square().x_range(-2.6, 2.6).y_range(-2.6, 2.6);
        chart.curve(Curve::new("", net)).dots("", half(true)).dots("", half(false))
    };
    chapter.svg("flow.svg", &charts(&[0, 2, 4, 5, 6, n].map(panel), 3))
}

/// The densities of the moons: the true one, the flow's and the VAE's, black where they are high.
fn densities(chapter: &Chapter, world: &World) -> Result<(), Box<dyn Error>> {
    let (width, height) = chapter.size((180, 130), (9, 6));
    let place = |i: usize| [(i % width) as f64, (height - 1 - i / width) as f64];
    let scale = 3.6 / width as f64;
    let centred = |i: usize| [place(i)[0] - 0.5 * width as f64, place(i)[1] - 0.5 * height as f64];
    let xs: Vec<f64> = (0..width * height).flat_map(centred).map(|v| scale * v).collect();
    let x = Tensor::from_f64([width * height, 2], &xs, DType::F32);
    let exact: Vec<f64> = xs.chunks(2).map(|x| world.data.log_density(x)).collect();
    let flow = no_grad(|| world.flow.log_density(&x)).to_f64();
    let vae = world.vae.importance_bound(&x, chapter.size(100, 2), 1);
    let pictures = [exact, flow, vae].map(|log_p| {
        let shade = |l: &f64| 1.0 - 2.0 * (l.exp() / 0.7).min(1.0).sqrt();
        Picture::from_values(&log_p.iter().map(|l| shade(l) as f32).collect::<Vec<_>>(), [1, height, width])
    });
    chapter.png("density.png", &grid(&pictures, Layout { columns: 3, gap: 6, background: 160, enlarge: 2 }))
}
