//! Chapter 8: the reverse process and the bound.
//!
//! Walks back from noise to data with steps whose mean is known exactly, looks at what one step back is, and adds up the bound
//! on -log p(x_0), term by term, for data whose true -log p(x_0) is known.

mod chapter;

use chapter::Chapter;
use imagen::diffusion::gaussian::{kl, log_density};
use imagen::diffusion::mixture::Mixture;
use imagen::diffusion::posterior::mean_from_eps;
use imagen::diffusion::{DiscreteSchedule, Posterior};
use imagen::picture::{Chart, Curve, charts};
use imagen::random::{Purpose, normal};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch08");
    walk_back(&chapter)?;
    posterior(&chapter)?;
    gaussian_limit(&chapter)?;
    bound(&chapter)?;
    variances(&chapter)
}

type Point = (f64, f64);

/// The forward chain (A1) of each point of `x0`: a path for each.
fn forward_paths(x0: &[Point], schedule: &DiscreteSchedule) -> Vec<Vec<Point>> {
    let mut paths: Vec<Vec<Point>> = x0.iter().map(|&x| vec![x]).collect();
    for (step, &beta) in schedule.betas().iter().enumerate() {
        let z = normal(1, Purpose::Test, step as u64, 0, 2 * paths.len());
        for (path, z) in paths.iter_mut().zip(z.chunks(2)) {
            let (x, y) = path[path.len() - 1];
            path.push(((1.0 - beta).sqrt() * x + beta.sqrt() * z[0], (1.0 - beta).sqrt() * y + beta.sqrt() * z[1]));
        }
    }
    paths
}

// ANCHOR: reverse_paths
/// The reverse chain (B1) of a model that knows the mean of the noise in x_t: `count` paths from x_T ~ N(0, I) to x_0.
fn reverse_paths(data: &Mixture, schedule: &DiscreteSchedule, count: usize) -> Vec<Vec<Point>> {
    let start = normal(2, Purpose::Test, 0, 0, 2 * count);
    let mut paths: Vec<Vec<Point>> = start.chunks(2).map(|x| vec![(x[0], x[1])]).collect();
    for i in (1..=schedule.steps()).rev() {
        let alpha_bar = schedule.alpha_bars()[i];
        let sigma = (1.0 - alpha_bar).sqrt();
        let noised = data.noised(alpha_bar.sqrt(), sigma);
        let std = Posterior::of_step(schedule, i).variance.sqrt();
        let z = normal(3, Purpose::Test, i as u64, 0, 2 * count);
        for (path, z) in paths.iter_mut().zip(z.chunks(2)) {
            let (x, y) = path[path.len() - 1];
            let score = noised.score(&[x, y]);
            let step = |x, score: f64, z: f64| mean_from_eps(schedule, i, x, -sigma * score) + std * z;
            path.push((step(x, score[0], z[0]), step(y, score[1], z[1])));
        }
    }
    paths
}
// ANCHOR_END: reverse_paths

/// Forward and reverse paths in the plane, and whether the ends of the latter are the data.
fn walk_back(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let data = Mixture::two_moons();
    let (schedule, count) = (DiscreteSchedule::linear(chapter.size(250, 50)), chapter.size(600, 60));
    let x0: Vec<Point> = (0..count as u64).map(|index| data.sample(0, index)).map(|x| (x[0], x[1])).collect();
    let (there, back) = (forward_paths(&x0, &schedule), reverse_paths(&data, &schedule, count));
    let ends: Vec<Point> = back.iter().map(|path| path[path.len() - 1]).collect();

    // the paths whose x_0 lies furthest left and right, over the data
    let two = |title: &str, paths: &[Vec<Point>], image: fn(&[Point]) -> Point| {
        let by_x0 = |a: &&Vec<Point>, b: &&Vec<Point>| image(a).0.total_cmp(&image(b).0);
        let chosen = [paths.iter().min_by(by_x0), paths.iter().max_by(by_x0)].map(|path| &path.unwrap()[..]);
        let thin = |path: &[Point]| path.iter().copied().step_by(5).chain(path.last().copied()).collect();
        let chart = Chart::new(title).square().x_range(-3.5, 3.5).y_range(-3.5, 3.5).dots("data", x0.clone());
        let chart = chosen.iter().fold(chart, |chart, path| chart.curve(Curve::new("", thin(path))));
        chart.dots("x_0", chosen.map(image).to_vec())
    };
    let cloud = |title: &str, points: &[Point]| {
        Chart::new(title).square().x_range(-2.0, 2.0).y_range(-2.0, 2.0).dots("", points.to_vec())
    };
    let panels = [
        two("Forward: from data to noise", &there, |path| path[0]),
        two("Back: from noise to data", &back, |path| path[path.len() - 1]),
        cloud("The data", &x0),
        cloud("Where the steps back end", &ends),
    ];
    println!("\nTwo moons: {count} points walked forward, and {count} from noise back, in {} steps.", schedule.steps());
    chapter.svg("paths.svg", &charts(&panels, 2))
}

/// `f` at points from `from` to `to`.
fn graph(from: f64, to: f64, f: impl Fn(f64) -> f64) -> Vec<Point> {
    (0..=160).map(|k| from + (to - from) * f64::from(k) / 160.0).map(|x| (x, f(x))).collect()
}

/// Bayes' rule in one dimension: what x_0 says of x_{t-1}, what x_t says, and both.
fn posterior(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (schedule, x0, eps) = (DiscreteSchedule::cosine(10), 1.0, 1.0);
    println!("\nOne step back in a chain of 10 steps, x_0 = {x0}, eps = {eps}:");
    let panels = [2, 4, 6, 8].map(|t| {
        let (beta, before, alpha_bar) =
            (schedule.betas()[t - 1], schedule.alpha_bars()[t - 1], schedule.alpha_bars()[t]);
        let x_t = alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * eps;
        let q = Posterior::of_step(&schedule, t);
        let (mean, std) = (q.mean_of(x0, x_t), q.variance.sqrt());
        println!("  t = {t}: x_t = {x_t:.3}, x_(t-1) is N({mean:.3}, {std:.3}^2)");
        let curve = |name: &str, mean: f64, variance: f64| {
            Curve::new(name, graph(-1.0, 3.5, |x| log_density(x, mean, variance).exp()))
        };
        Chart::new(format!("t = {t}, x_t = {x_t:.2}"))
            .x("x_(t-1)")
            .curve(curve("by x_0", before.sqrt() * x0, 1.0 - before))
            .curve(curve("by x_t", x_t / (1.0 - beta).sqrt(), beta / (1.0 - beta)))
            .curve(curve("by both", mean, q.variance))
    });
    chapter.svg("posterior.svg", &charts(&panels, 2))
}

/// The true q(x_{t-1} | x_t) by Bayes' rule on a grid, where `before` is q(x_{t-1}); and its mean and variance.
fn true_step(before: &Mixture, beta: f64, x_t: f64) -> (Vec<Point>, Gaussian) {
    let (centre, reach) = (x_t / (1.0 - beta).sqrt(), 8.0 * (beta / (1.0 - beta)).sqrt());
    let (from, to) = ((centre - reach).max(-6.0), (centre + reach).min(6.0));
    let step = (to - from) / 300.0;
    let joint = |x: f64| (log_density(x_t, (1.0 - beta).sqrt() * x, beta) + before.log_density(&[x])).exp();
    let joint: Vec<Point> = (0..=300).map(|k| from + step * f64::from(k)).map(|x| (x, joint(x))).collect();
    let evidence = step * joint.iter().map(|j| j.1).sum::<f64>();
    let density: Vec<Point> = joint.into_iter().map(|(x, j)| (x, j / evidence)).collect();
    let mean = expected(&density, |x, _| x);
    let variance = expected(&density, |x, _| (x - mean).powi(2));
    (density, (mean, variance))
}

/// The mean and the variance of a Gaussian.
type Gaussian = (f64, f64);

/// E[f(x, p(x))] for a density on a grid.
fn expected(density: &[Point], f: impl Fn(f64, f64) -> f64) -> f64 {
    (density[1].0 - density[0].0) * density.iter().map(|&(x, p)| p * f(x, p)).sum::<f64>()
}

/// KL(density || Gaussian).
fn divergence(density: &[Point], (mean, variance): Gaussian) -> f64 {
    // a density that is too small for an f64 counts nothing
    expected(density, |x, p| if p > 0.0 { p.ln() - log_density(x, mean, variance) } else { 0.0 })
}

/// The Gaussian (8.2), and the divergence that (8.12) foretells.
fn small_step(before: &Mixture, beta: f64, x_t: f64) -> (Gaussian, f64) {
    let (u, d) = (x_t / (1.0 - beta).sqrt(), 1e-3);
    let [a, b, at_u, y, z] = [-2.0, -1.0, 0.0, 1.0, 2.0].map(|k| before.log_density(&[u + k * d]));
    let (slope, curvature) = ((y - b) / (2.0 * d), (y - 2.0 * at_u + b) / (d * d));
    let third = (z - 2.0 * y + 2.0 * b - a) / (2.0 * d.powi(3));
    let k = (1.0 - beta) / beta - curvature;
    ((u + slope / k, 1.0 / k), 5.0 / 24.0 * third * third * beta.powi(3))
}

/// What Gaussian steps cost, in nats, over a chain of `steps` steps, each with the best mean and variance for its x_t.
fn price_of_gaussian_steps(data: &Mixture, steps: usize) -> f64 {
    let schedule = DiscreteSchedule::cosine(steps);
    let noised = |i: usize| data.noised(schedule.alpha_bars()[i].sqrt(), (1.0 - schedule.alpha_bars()[i]).sqrt());
    let price = |i: usize| {
        let (before, after, beta) = (noised(i - 1), noised(i), schedule.betas()[i - 1]);
        // E over x_t, on a grid of steps of 0.05
        let at = |x_t: f64| {
            let (density, best) = true_step(&before, beta, x_t);
            0.05 * after.density(&[x_t]) * divergence(&density, best)
        };
        (-80..=80).map(|k| at(0.05 * f64::from(k))).sum::<f64>()
    };
    (1..=steps).map(price).sum()
}

/// How far a step back is from a Gaussian; and what that means for the number of steps.
fn gaussian_limit(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let data = Mixture::around(&[vec![-1.0], vec![1.0]], 0.25);
    let (before, x_t) = (data.noised(0.9_f64.sqrt(), 0.1_f64.sqrt()), 0.2);
    println!("\nOne step back from x_t = {x_t}, two lumps, nats of divergence:");
    println!("    beta   best Gaussian   (8.2)      (8.12)");
    let mut panels = Vec::from([0.1, 0.01].map(|beta| {
        let (density, best) = true_step(&before, beta, x_t);
        let (by_taylor, _) = small_step(&before, beta, x_t);
        let reach = 5.0 * best.1.sqrt();
        let (from, to) = (best.0 - reach, best.0 + reach);
        let bell = |(mean, variance): Gaussian| graph(from, to, |x| log_density(x, mean, variance).exp());
        let inside = density.into_iter().filter(|&(x, _)| from <= x && x <= to).collect();
        Chart::new(format!("beta = {beta}"))
            .x("x_(t-1)")
            .x_range(from, to)
            .curve(Curve::new("true step", inside))
            .curve(Curve::new("best Gaussian", bell(best)))
            .curve(Curve::new("(8.2)", bell(by_taylor)))
    }));
    let mut curves = [Vec::new(), Vec::new(), Vec::new()];
    for beta in [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003] {
        let (density, best) = true_step(&before, beta, x_t);
        let (by_taylor, foretold) = small_step(&before, beta, x_t);
        let nats = [divergence(&density, best), divergence(&density, by_taylor), foretold];
        println!("  {beta:>6}     {:.2e}      {:.2e}   {:.2e}", nats[0], nats[1], nats[2]);
        curves.iter_mut().zip(nats).for_each(|(curve, nats)| curve.push((beta, nats)));
    }
    let [best, by_taylor, foretold] = curves;
    let one = Chart::new("How far one step is off").x("beta").y("nats").log_x().log_y();
    let one = one.curve(Curve::new("best Gaussian", best)).curve(Curve::new("(8.2)", by_taylor.clone()));
    panels.push(one.curve(Curve::new("(8.12)", foretold)).dots("", by_taylor));
    let mut prices = Vec::new();
    for steps in [1, 2, 4, 8, 16, 32, 64, 128].into_iter().take(chapter.size(8, 4)) {
        let price = price_of_gaussian_steps(&data, steps);
        println!("  {steps:>3} steps: Gaussian steps cost {price:.2e} nats");
        prices.push((steps as f64, price));
    }
    let price = Chart::new("What Gaussian steps cost").x("steps T").y("nats").log_x().log_y();
    panels.push(price.curve(Curve::new("", prices.clone())).dots("", prices));
    chapter.svg("gaussian-limit.svg", &charts(&panels, 2))
}

/// A model of one step back: how far its mean is off the exact one, and its variance.
type Model<'a> = dyn Fn(usize) -> (f64, f64) + 'a;

/// Data N(m, s^2), whose every step back is known.
struct Chain {
    m: f64,
    s: f64,
    schedule: DiscreteSchedule,
}

impl Chain {
    /// The variance of x_i.
    fn variance(&self, i: usize) -> f64 {
        let alpha_bar = self.schedule.alpha_bars()[i];
        alpha_bar * self.s * self.s + 1.0 - alpha_bar
    }

    /// The exact model. Its variance is beta_i v_{i-1} / v_i.
    fn exact(&self) -> impl Fn(usize) -> (f64, f64) {
        |i| (0.0, self.schedule.betas()[i - 1] * self.variance(i - 1) / self.variance(i))
    }

    // ANCHOR: terms
    /// L_0, L_1, .., L_T of the bound for the image `x0`, averaged over its trajectories; p(x_T) = N(0, 1).
    fn terms(&self, x0: f64, model: &Model) -> Vec<f64> {
        let step = |i: usize| {
            let (q, (error, variance)) = (Posterior::of_step(&self.schedule, i), model(i));
            let alpha_bar = self.schedule.alpha_bars()[i];
            // the model's guess of x_0 is m + gain (x_i - sqrt(alpha_bar) m): how far off on average, and its square
            let gain = alpha_bar.sqrt() * self.s * self.s / self.variance(i);
            let off = (x0 - self.m) * (1.0 - gain * alpha_bar.sqrt());
            let off_squared = off * off + gain * gain * (1.0 - alpha_bar);
            let squared = q.coef_x0.powi(2) * off_squared - 2.0 * q.coef_x0 * off * error + error * error;
            match i {
                1 => -log_density(0.0, 0.0, variance) + squared / (2.0 * variance),
                _ => kl(0.0, q.variance.ln(), 0.0, variance.ln()) + squared / (2.0 * variance),
            }
        };
        let steps = self.schedule.steps();
        let alpha_bar = self.schedule.alpha_bars()[steps];
        let prior = kl(alpha_bar.sqrt() * x0, (1.0 - alpha_bar).ln(), 0.0, 0.0);
        (1..=steps).map(step).chain([prior]).collect()
    }
    // ANCHOR_END: terms

    /// The terms averaged over the data: they are quadratic in x_0, so that two points average like all of them.
    fn average(&self, model: &Model) -> Vec<f64> {
        let (low, high) = (self.terms(self.m - self.s, model), self.terms(self.m + self.s, model));
        low.iter().zip(high).map(|(a, b)| (a + b) / 2.0).collect()
    }

    /// log p(x_0) of the model itself. Every step back is a straight line plus Gaussian noise, and so p(x_0) is a Gaussian.
    fn log_likelihood(&self, x0: f64, model: &Model) -> f64 {
        let steps = self.schedule.steps();
        // of the model's x_i: its mean less that of the data's x_i, and its variance
        let (mut off, mut spread) = (-self.schedule.alpha_bars()[steps].sqrt() * self.m, 1.0);
        for i in (1..=steps).rev() {
            let slope = (1.0 - self.schedule.betas()[i - 1]).sqrt() * self.variance(i - 1) / self.variance(i);
            let (error, variance) = model(i);
            (off, spread) = (slope * off + error, slope * slope * spread + variance);
        }
        log_density(x0, self.m + off, spread)
    }

    /// E[-log p(x_0)] of the data.
    fn entropy(&self) -> f64 {
        -log_density(0.0, 0.0, self.s * self.s) + 0.5
    }
}

/// The bound against the likelihood, and which step has how many of its nats.
fn bound(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let chain = Chain { m: 0.3, s: 0.5, schedule: DiscreteSchedule::linear(chapter.size(1000, 50)) };
    let steps = chain.schedule.steps();
    let exact = chain.exact();
    // a model whose eps is 0.1 too large: mu_theta is off by beta / sqrt(alpha (1 - alpha_bar)) as much
    let off = |i: usize| {
        let (beta, alpha_bar) = (chain.schedule.betas()[i - 1], chain.schedule.alpha_bars()[i]);
        (-0.1 * beta / ((1.0 - beta) * (1.0 - alpha_bar)).sqrt(), exact(i).1)
    };
    println!("\nData N(0.3, 0.5^2), {steps} steps.  exact model                 eps off by 0.1");
    println!("   x_0        -log p(x_0)      bound       -log p(x_0)      bound");
    for x0 in [-0.5, 0.3, 1.0] {
        let [(p, bound), (p_off, bound_off)] = [&exact as &Model, &off]
            .map(|model| (-chain.log_likelihood(x0, model), chain.terms(x0, model).iter().sum::<f64>()));
        println!("  {x0:>4.1}        {p:>11.6}   {bound:>8.6}       {p_off:>11.6}   {bound_off:>8.6}");
    }
    let (terms, worse) = (chain.average(&exact), chain.average(&off));
    let middle: f64 = terms[1..steps].iter().sum();
    println!("Averaged over the data, exact model (entropy of the data {:.6}):", chain.entropy());
    println!("  L_0 = {:.4}, L_1 + .. + L_(T-1) = {middle:.4}, L_T = {:.6}", terms[0], terms[steps]);
    println!("  their sum is {:.6}", terms.iter().sum::<f64>());
    let first = |t: usize| 100.0 * terms[1..t.min(steps)].iter().sum::<f64>() / middle;
    println!("  of the middle sum, t <= 10 has {:.0} %, t <= 100 has {:.0} %", first(10), first(100));
    let excess: Vec<f64> = worse.iter().zip(&terms).map(|(w, t)| w - t).collect();
    let (total, early) = (excess.iter().sum::<f64>(), excess[..10].iter().sum::<f64>());
    println!("  eps off by 0.1 costs {total:.4} nats more, {early:.4} of them in t <= 10;");
    println!("  {:.6} at t = 2, {:.6} at t = T", excess[1], excess[steps - 1]);

    let curve = |name: &str, nats: &[f64]| Curve::new(name, (2..=steps).map(|t| (t as f64, nats[t - 1])).collect());
    let chart = Chart::new("The terms L_(t-1) of the bound, t = 2 .. T").x("t").y("nats").log_x().log_y();
    let chart = chart.curve(curve("exact model", &terms)).curve(curve("eps off by 0.1", &worse));
    chapter.svg("terms.svg", &chart.curve(curve("what the error costs", &excess)).svg())
}

/// beta against beta_tilde, and what the choice between them costs.
fn variances(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let chain = |steps, s| Chain { m: 0.0, s, schedule: DiscreteSchedule::linear(steps) };
    let q = |chain: &Chain, i: usize| Posterior::of_step(&chain.schedule, i);
    let longest = chapter.size(1000, 200);
    println!(
        "\nWhat a fixed variance costs, in nats, t >= 2, data N(0, s^2):\n     s       T   beta_tilde   halfway      beta"
    );
    for (s, steps) in [(0.5, 25), (0.5, 100), (0.5, longest), (0.02, longest)] {
        let chain = chain(steps, s);
        let middle = |model: &Model| chain.average(model)[1..steps].iter().sum::<f64>();
        let best = middle(&chain.exact());
        let fixed = |i: usize, v: f64| if i == 1 { 1.0 } else { q(&chain, i).variance_between(v) };
        let [low, half, high] = [0.0, 0.5, 1.0].map(|v| middle(&|i| (0.0, fixed(i, v))) - best);
        println!("  {s:>4}   {steps:>5}   {low:>10.4}   {half:>7.4}   {high:>7.4}");
    }

    let graph = |name: &str, chain: &Chain, f: &dyn Fn(usize) -> (f64, f64)| {
        Curve::new(name, (2..=chain.schedule.steps()).map(f).collect())
    };
    let narrow = chain(longest, 0.02);
    let exact = narrow.exact();
    let left = Chart::new("Variances of a step back").x("t").log_x().log_y();
    let left = left
        .curve(graph("beta", &narrow, &|i| (i as f64, q(&narrow, i).forward_variance)))
        .curve(graph("beta_tilde", &narrow, &|i| (i as f64, q(&narrow, i).variance)))
        .curve(graph("exact", &narrow, &|i| (i as f64, exact(i).1)));
    let mut right = Chart::new("beta_tilde / beta").x("t / T").log_x().y_range(0.0, 1.02);
    for steps in [25, 100, longest] {
        let chain = chain(steps, 0.02);
        let ratio = |i: usize| (i as f64 / steps as f64, q(&chain, i).variance / q(&chain, i).forward_variance);
        right = right.curve(graph(&format!("T = {steps}"), &chain, &ratio));
    }
    chapter.svg("variances.svg", &charts(&[left, right], 2))
}
