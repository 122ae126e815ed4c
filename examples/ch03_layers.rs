//! Chapter 3, layers and Adam: three ways down a valley, what depth does to the size of numbers, and a small network that
//! learns to tell two moons apart, beside the best any network could do.

mod chapter;

use chapter::Chapter;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::mixture::Mixture;
use imagen::nn::{Fill, Init, LayerNorm, Linear};
use imagen::optim::{Adam, Ema, LearningRate, Optimizer, Sgd, clip};
use imagen::picture::{Chart, Curve, Layout, Picture, charts, grid};
use imagen::random::{Purpose, normal};
use std::f64::consts::TAU;

/// A function of each number alone, such as SiLU.
type Bend = fn(&Tensor) -> Tensor;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let chapter = Chapter::open("ch03");
    valley(&chapter)?;
    depth(&chapter)?;
    schedules(&chapter)?;
    moons(&chapter)
}

/// The valley: curvature 1 along x, 25 along y.
const CURVATURES: [f64; 2] = [1.0, 25.0];

/// The way of an optimizer down f(x, y) = (x^2 + 25 y^2) / 2 from (-10, 1).
fn descend(mut optimizer: impl Optimizer, lr: f64, steps: usize) -> Vec<(f64, f64)> {
    let init = Init::new(0, DType::F64);
    let p = init.param("p", [2], Fill::Zeros);
    p.update(|p| *p = Array::from_vec([2], vec![-10.0, 1.0]));
    let half = Tensor::from_f64([2], &CURVATURES.map(|c| c / 2.0), DType::F64);
    let mut way = vec![(-10.0, 1.0)];
    for _ in 0..steps {
        let f = (&p.tensor().square() * &half).sum_all();
        optimizer.step(&init.parameters(), &f.backward(), lr);
        let at = p.tensor().to_f64();
        way.push((at[0], at[1]));
    }
    way
}

fn valley(chapter: &Chapter) -> Outcome {
    let steps = chapter.size(400, 20);
    let [low, high] = CURVATURES;
    println!("A valley of curvatures {low} and {high}: gradient descent is stable below 2/{high} = {}.", 2.0 / high);
    let best = 2.0 / (low + high);
    let sgd = |lr| descend(Sgd::new(0.0), lr, steps);
    let ways = [
        ("rate 0.02", sgd(0.02)),
        ("rate 2/26", sgd(best)),
        ("rate 0.0805", sgd(0.0805)),
        ("momentum 4/9, rate 1/9", descend(Sgd::new(4.0 / 9.0), 1.0 / 9.0, steps)),
        ("Adam, rate 0.5", descend(Adam::new([0.9, 0.999], 1e-8, 0.0), 0.5, steps)),
    ];
    for (name, way) in &ways {
        let near = way.iter().rposition(|&(x, y)| x.hypot(y) > 0.01).map_or(0, |last| last + 1);
        let near = if near < way.len() { format!("{near} steps") } else { "never".into() };
        println!("  {name}: within 0.01 of the bottom for good after: {near}");
    }
    let panel = |title: &str, shown: [usize; 3]| {
        let chart = Chart::new(title).x("x").y("y").x_range(-12.0, 5.0).y_range(-2.0, 2.0);
        let chart = shown.into_iter().fold(chart, |chart, i| {
            let (name, way) = &ways[i];
            chart.curve(Curve::new(*name, way[..=40.min(steps)].to_vec()))
        });
        chart.curve(Curve::new("f constant", level_lines()))
    };
    let both = [panel("Gradient descent, three rates", [0, 1, 2]), panel("Three optimizers", [1, 3, 4])];
    chapter.svg("valley.svg", &charts(&both, 2))
}

/// Where the valley is 2, 10, 25 and 50 high: ellipses, dashed by gaps.
fn level_lines() -> Vec<(f64, f64)> {
    let ellipse = |level: f64| {
        let [a, b] = CURVATURES.map(|c| (2.0 * level / c).sqrt());
        let at = move |i: i32| TAU * f64::from(i) / 160.0;
        (0..=160).map(move |i| (a * at(i).cos(), if i % 4 == 0 { f64::NAN } else { b * at(i).sin() }))
    };
    [2.0, 10.0, 25.0, 50.0].into_iter().flat_map(ellipse).collect()
}

// ANCHOR: spread
/// Root mean square of the numbers after each of `depth` layers of `width` numbers, from inputs N(0, 1). The weights are
/// N(0, gain / width).
fn spread(gain: f64, width: usize, depth: usize, seed: u64, bend: &dyn Fn(&Tensor) -> Tensor) -> Vec<(f64, f64)> {
    let init = Init::new(seed, DType::F32);
    let fill = Fill::Normal((gain / width as f64).sqrt());
    let mut x = Tensor::from_f64([64, width], &normal(seed, Purpose::Test, 0, 0, 64 * width), DType::F32);
    let mut sizes = vec![(0.0, 1.0)];
    for layer in 0..depth {
        let weight = init.param(&format!("{layer}.weight"), [width, width], fill);
        let y = bend(&x).linear(&weight.tensor(), None);
        x = y.detach();
        sizes.push(((layer + 1) as f64, x.square().mean_all().item().sqrt()));
    }
    sizes
}
// ANCHOR_END: spread

/// A name, the gain of the weights, and what bends between the layers.
type Stack<'a> = (&'a str, f64, &'a dyn Fn(&Tensor) -> Tensor);

fn depth(chapter: &Chapter) -> Outcome {
    let (width, depth) = (chapter.size(256, 16), chapter.size(50, 5));
    println!("Size of the numbers after {depth} layers of {width}, weights of variance gain / {width}:");
    let panel = |title: &str, runs: &[Stack]| {
        let chart = Chart::new(title).x("layer").y("root mean square").log_y();
        runs.iter().fold(chart, |chart, (name, gain, bend)| {
            let sizes = spread(*gain, width, depth, 3, bend);
            println!("  {title}, {name}: {:.2e}", sizes[depth].1);
            chart.curve(Curve::new(*name, sizes))
        })
    };
    let (relu, silu) = (Tensor::relu, Tensor::silu);
    let left = [("gain 1", 1.0), ("gain 2", 2.0), ("gain 4", 4.0), ("gain 1/3", 1.0 / 3.0)];
    let left = panel("ReLU", &left.map(|(name, gain)| (name, gain, &relu as _)));
    let norm = LayerNorm::new(&Init::new(0, DType::F32), width);
    let normed = |x: &Tensor| norm.forward(x).silu();
    let [a, b, c] =
        [("gain 2.5", 2.5), ("gain 2.81", 2.81), ("gain 3.1", 3.1)].map(|(name, gain)| (name, gain, &silu as _));
    let right = panel("SiLU", &[a, b, c, ("gain 1/3, with layer norm", 1.0 / 3.0, &normed)]);
    chapter.svg("depth.svg", &charts(&[left, right], 2))
}

fn schedules(chapter: &Chapter) -> Outcome {
    let rate = LearningRate::WarmupCosine { peak: 0.01, warmup: 100, total: 2000, end: 1e-4 };
    let rates = (0..=2000).step_by(10).map(|k| (f64::from(k), rate.at(k as u64))).collect();
    let left = Chart::new("Learning rate").x("step").y("rate").curve(Curve::new("warm-up and cosine", rates));
    let init = Init::new(0, DType::F64);
    init.param("p", [1], Fill::Zeros);
    let mut right = Chart::new("What the average remembers").x("weights of step k").y("share in the average after 200");
    for (name, warmup) in [("decay 0.99", false), ("with warm-up", true)] {
        let ema = Ema::new(&init.parameters(), 0.99, warmup)?;
        let mut kept = 1.0;
        let mut shares: Vec<(f64, f64)> = Vec::new();
        for k in (1..=200).rev() {
            shares.push((k as f64, kept * (1.0 - ema.decay_at(k))));
            kept *= ema.decay_at(k);
        }
        shares.push((0.0, kept));
        println!("After 200 updates, {name}: the first weights still make up {kept:.2e} of the average.");
        right = right.curve(Curve::new(name, shares));
    }
    chapter.svg("schedules.svg", &charts(&[left, right], 2))
}

/// Colours of the upper and the lower moon: blue and orange.
const MOONS: [[u8; 3]; 2] = [[0, 114, 178], [213, 94, 0]];

/// The moons, blurred so that they overlap: the upper and the lower one.
fn classes() -> [Mixture; 2] {
    let all = Mixture::two_moons().noised(1.0, 0.3);
    let means: Vec<Vec<f64>> = all.components.iter().map(|c| c.mean.clone()).collect();
    [&means[..24], &means[24..]].map(|means| Mixture::around(means, all.components[0].std))
}

/// Points `first..first + count` as a tensor [count, 2], and which moon each is from: even ones are from the upper.
fn points(classes: &[Mixture; 2], first: u64, count: u64) -> (Tensor, Vec<u32>) {
    let labels: Vec<u32> = (first..first + count).map(|i| (i % 2) as u32).collect();
    let xs: Vec<f64> = (first..first + count).flat_map(|i| classes[(i % 2) as usize].sample(3, i)).collect();
    (Tensor::from_f64([count as usize, 2], &xs, DType::F32), labels)
}

// ANCHOR: network
/// Two numbers in, a logit a class out; `bend` after the first two layers.
struct Network {
    layers: [Linear; 3],
    bend: Bend,
}

impl Network {
    fn new(init: &Init, bend: Bend) -> Network {
        let layer = |name, inputs, outputs| Linear::new(&init.scope(name), inputs, outputs);
        Network { layers: [layer("first", 2, 32), layer("second", 32, 32), layer("last", 32, 2)], bend }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, last] = &self.layers;
        let bend = self.bend;
        last.forward(&bend(&second.forward(&bend(&first.forward(x)))))
    }
}
// ANCHOR_END: network

/// What is kept of a run: the held-out loss of weights and average at every tenth step, and pictures.
struct Run {
    raw: Vec<(f64, f64)>,
    averaged: Vec<(f64, f64)>,
    pictures: Vec<Picture>,
}

// ANCHOR: train
fn train(bend: Bend, mut optimizer: impl Optimizer, rate: &LearningRate, steps: usize, seen: &[usize]) -> Run {
    let (classes, init) = (classes(), Init::new(1, DType::F32));
    let (network, parameters) = (Network::new(&init, bend), init.parameters());
    let mut ema = Ema::new(&parameters, 0.99, true).expect("0.99 is in [0, 1)");
    let (held_out, labels) = points(&classes, 1 << 40, 4000);
    let test = || no_grad(|| network.forward(&held_out).cross_entropy(&labels).item());
    let mut run = Run { raw: vec![], averaged: vec![], pictures: vec![] };
    for step in 0..=steps {
        if step % 10 == 0 {
            run.raw.push((step as f64, test()));
            run.averaged.push((step as f64, ema.swapped(&parameters, test)));
        }
        if seen.contains(&step) {
            run.pictures.push(ema.swapped(&parameters, || picture(|x| upper(&network, x))));
        }
        let (x, classes) = points(&classes, 64 * step as u64, 64);
        let loss = network.forward(&x).cross_entropy(&classes);
        let mut gradients = loss.backward();
        clip(&mut gradients, &parameters, 1.0);
        optimizer.step(&parameters, &gradients, rate.at(step as u64));
        ema.update(&parameters);
    }
    run
}
// ANCHOR_END: train

/// The probability of the upper moon at each of `xs`, as the network has it.
fn upper(network: &Network, xs: &[f64]) -> Vec<f64> {
    let x = Tensor::from_f64([xs.len() / 2, 2], xs, DType::F32);
    no_grad(|| network.forward(&x).softmax(-1)).to_f64().chunks(2).map(|p| p[0]).collect()
}

/// The same, exactly (Bayes' rule): what a perfect network would say.
fn exactly(classes: &[Mixture; 2], xs: &[f64]) -> Vec<f64> {
    let of = |x: &[f64]| 1.0 / (1.0 + (classes[1].log_density(x) - classes[0].log_density(x)).exp());
    xs.chunks(2).map(of).collect()
}

/// The plane from (-2, -1.5) to (2, 1.5) coloured by a probability in steps of a tenth, with 150 points of either moon on it.
fn picture(probability: impl Fn(&[f64]) -> Vec<f64>) -> Picture {
    const PIXELS: usize = 120;
    let (width, height) = (4 * PIXELS, 3 * PIXELS);
    let place = |i: usize| (i as f64 + 0.5) / PIXELS as f64;
    let plane: Vec<f64> = (0..width * height).flat_map(|i| [place(i % width) - 2.0, 1.5 - place(i / width)]).collect();
    let mut picture = Picture::blank(width, height, 3, 255);
    for (pixel, p) in picture.pixels.chunks_mut(3).zip(probability(&plane)) {
        let level = (p * 10.0).floor().min(9.0) - 4.5;
        let colour = MOONS[usize::from(level < 0.0)];
        let paler = |c: u8| (255.0 - (255.0 - f64::from(c)) * level.abs() / 6.0) as u8;
        pixel.copy_from_slice(&colour.map(paler));
    }
    let (x, labels) = points(&classes(), 1 << 41, 300);
    for (at, label) in x.to_f64().chunks(2).zip(labels) {
        let mut dot = Picture::blank(9, 9, 3, 255);
        dot.paste(&Picture { width: 7, height: 7, channels: 3, pixels: MOONS[label as usize].repeat(49) }, 1, 1);
        let (column, row) = ((at[0] + 2.0) * PIXELS as f64, (1.5 - at[1]) * PIXELS as f64);
        if (0.0..width as f64 - 9.0).contains(&column) && (0.0..height as f64 - 9.0).contains(&row) {
            picture.paste(&dot, column as usize, row as usize);
        }
    }
    picture
}

fn moons(chapter: &Chapter) -> Outcome {
    let steps = chapter.size(2000, 10);
    let seen = [steps / 80, steps / 10, steps];
    let constant = |rate| LearningRate::Constant { rate };
    let adam = || Adam::new([0.9, 0.999], 1e-8, 0.0);
    let runs = [
        ("SGD, rate 0.1", train(Tensor::silu, Sgd::new(0.0), &constant(0.1), steps, &[])),
        ("momentum 0.9, rate 0.1", train(Tensor::silu, Sgd::new(0.9), &constant(0.1), steps, &[])),
        ("Adam, rate 0.01", train(Tensor::silu, adam(), &constant(0.01), steps, &seen)),
        ("Adam, no bends", train(Tensor::clone, adam(), &constant(0.01), steps, &[])),
    ];
    let warmup = steps as u64 / 20;
    let cosine = LearningRate::WarmupCosine { peak: 0.01, warmup, total: steps as u64, end: 1e-4 };
    let decayed = train(Tensor::silu, adam(), &cosine, steps, &[]);

    let classes = classes();
    let (held_out, labels) = points(&classes, 1 << 40, 4000);
    let truth = exactly(&classes, &held_out.to_f64());
    let best = truth.iter().zip(&labels).map(|(p, &label)| -(if label == 0 { *p } else { 1.0 - p }).ln()).sum::<f64>()
        / 4000.0;
    println!("Two moons. Held-out loss in nats, knowing nothing: {:.4}; the best possible: {best:.4}", 2f64.ln());
    for (name, run) in &runs {
        let end = |curve: &[(f64, f64)]| curve[curve.len() - 1].1;
        println!("  {name}: {:.4}, averaged weights {:.4}", end(&run.raw), end(&run.averaged));
    }
    println!("  Adam, warm-up and cosine: {:.4}", decayed.raw[decayed.raw.len() - 1].1);

    let line = |value: f64| Curve::new("best possible", vec![(0.0, value), (steps as f64, value)]);
    let mut left = Chart::new("Held-out loss").x("step").y("loss").y_range(0.15, 0.75);
    for (name, run) in &runs {
        left = left.curve(Curve::new(*name, run.raw.clone()));
    }
    let right = Chart::new("Adam, closer")
        .x("step")
        .y("loss")
        .y_range(best - 0.01, best + 0.09)
        .curve(Curve::new("weights", runs[2].1.raw.clone()))
        .curve(Curve::new("averaged weights", runs[2].1.averaged.clone()))
        .curve(Curve::new("warm-up and cosine", decayed.raw));
    chapter.svg("losses.svg", &charts(&[left.curve(line(best)), right.curve(line(best))], 2))?;

    let mut pictures = runs[2].1.pictures.clone();
    pictures.push(picture(|xs| exactly(&classes, xs)));
    chapter.png("moons.png", &grid(&pictures, Layout { columns: 2, gap: 8, background: 255, enlarge: 1 }))
}
