//! `cargo run --release --example families_mnist`: the four families of chapter 6 on handwritten digits.
//!
//! The same files as for points of the plane, with wider layers. Takes some twenty minutes on two cores; writes
//! `samples.png` (two rows each: real, GAN, VAE, flow, diffusion), `loss.svg` and `numbers.json`.

mod chapter;
mod families;

use chapter::Chapter;
use families::Family;
use families::diffusion::Diffusion;
use families::flow::RealNvp;
use families::gan::Gan;
use families::measure::{bits_per_pixel, mean};
use families::vae::Vae;
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::bundled;
use imagen::data::{Batches, Dataset, DatasetName, Images};
use imagen::diffusion::{ReverseVariance, Target, bound};
use imagen::eval::{Classifier, Moments, frechet_distance};
use imagen::nn::Init;
use imagen::picture::{Chart, Curve, Layout, Picture, charts, grid};
use imagen::random::{Purpose, stream};
use rand::RngExt;
use serde_json::{Value, json};
use std::error::Error;
use std::ops::ControlFlow;
use std::time::Instant;

const PIXELS: usize = 784;
const BATCH: usize = 128;

/// Images `indices`, [B, 784] in [-1, 1). Every level is spread evenly over its 256th of the range, so that there is a
/// density to speak of (Theis et al., arXiv 1511.01844).
fn dequantised(images: &Images, indices: &[usize], seed: u64, step: u64) -> Tensor {
    let mut spread = stream(seed, Purpose::Test, 3, step);
    let mut value = |&level: &u8| (f64::from(level) + spread.random::<f64>()) / 128.0 - 1.0;
    let values: Vec<f64> = indices.iter().flat_map(|&i| images.image(i)).map(&mut value).collect();
    Tensor::from_f64([indices.len(), PIXELS], &values, DType::F32)
}

/// What the bundled classifier says of images [N, 784]: features, how often each digit was seen, and the share of images
/// that it is surer of than 0.9.
struct Judged {
    features: Vec<f64>,
    digits: [usize; 10],
    sure: f64,
}

fn judge(classifier: &Classifier, images: &Tensor) -> Judged {
    let n = images.shape()[0];
    let mut judged = Judged { features: Vec::new(), digits: [0; 10], sure: 0.0 };
    for first in (0..n).step_by(100) {
        let some = first..n.min(first + 100);
        let images = images.slice(0, some.clone()).reshape([some.len(), 1, 28, 28]);
        let (features, logits) = no_grad(|| classifier.forward(&images));
        judged.features.extend(features.to_f64());
        for p in logits.softmax(1).to_f64().chunks(10) {
            let best = (0..10).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap_or(0);
            judged.digits[best] += 1;
            judged.sure += f64::from(u8::from(p[best] > 0.9)) / n as f64;
        }
    }
    judged
}

/// e to the entropy of the shares: 10 if all digits are seen equally often, 1 if only one is.
fn digits_in_use(counts: &[usize; 10]) -> f64 {
    let n = counts.iter().sum::<usize>() as f64;
    let shares = counts.iter().map(|&count| count as f64 / n).filter(|&share| share > 0.0);
    shares.map(|share| -share * share.ln()).sum::<f64>().exp()
}

struct Study<'a> {
    data: &'a Dataset,
    classifier: &'a Classifier,
    real: Moments,
    steps: u64,
    samples: usize,
}

impl Study<'_> {
    /// Trains a family; returns its losses and seconds.
    fn train(&self, name: &str, family: &mut dyn Family) -> (Vec<(f64, f64)>, f64) {
        let (started, batches) = (Instant::now(), Batches::new(self.data.train.len(), BATCH, 1));
        let mut losses = Vec::new();
        for step in 0..self.steps {
            let x = dequantised(&self.data.train, &batches.indices(step), 1, step);
            let loss = family.train_step(&x, step);
            losses.push((step as f64, loss));
            if step % 500 == 0 {
                println!("{name}: step {step} of {}, loss {loss:.4}", self.steps);
            }
        }
        (losses, started.elapsed().as_secs_f64())
    }

    /// What is said of the images `drawn`.
    fn numbers(&self, drawn: &Tensor) -> Value {
        let judged = judge(self.classifier, &drawn.clamp(-1.0, 1.0));
        let moments = Moments::of(&judged.features, self.classifier.config().features);
        json!({
            "digits": judged.digits,
            "digits_in_use": digits_in_use(&judged.digits),
            "recognised": judged.sure,
            "frechet": frechet_distance(&moments, &self.real),
        })
    }
}

/// Bits a pixel of test images by the variational bound of the library, whose decoder knows the levels.
fn bound_of(diffusion: &Diffusion, test: &Images, count: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let seeds: Vec<(u64, u64)> = (0..count as u64).map(|i| (3, i)).collect();
    let images = imagen::diffusion::Images { size: [1, 28, 28], dtype: DType::F32, seeds: &seeds };
    let pixels = &test.pixels[..count * PIXELS];
    let model = (&diffusion.network, diffusion.target);
    let bounds = bound(model, &(), &diffusion.schedule, ReverseVariance::Large, (pixels, &images), &mut |_| {
        ControlFlow::Continue(())
    })?;
    Ok(mean(&bounds.iter().map(|b| b.total()).collect::<Vec<_>>()))
}

// ANCHOR: mnist_sizes
/// The four with about 1.36 million parameters each.
fn untrained(steps: u64) -> (Gan, Vae, RealNvp, Diffusion) {
    let init = || Init::new(1, DType::F32);
    (
        Gan::new(1, [PIXELS, 64, 512], 2e-4),
        Vae::new(&init(), [PIXELS, 32], &[512, 512], 1e-3, steps),
        RealNvp::new(&init(), [PIXELS, 8, 128], DType::F32, 1e-3, steps),
        Diffusion::new(1, [PIXELS, 512], Target::X0, 1e-3, steps),
    )
}
// ANCHOR_END: mnist_sizes

/// The first `count` images drawn.
fn pictures(drawn: &Tensor, count: usize) -> Vec<Picture> {
    let some = drawn.slice(0, 0..count);
    Picture::from_array(some.reshape([count, 1, 28, 28]).array())
}

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("families");
    let data = Dataset::load(DatasetName::Mnist, &DatasetName::Mnist.default_folder())?;
    let classifier = Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights()?)?;
    let (steps, samples) = chapter.size((6000, 2000), (2, 32));
    let everything = |images: &Images, count: usize| dequantised(images, &(0..count).collect::<Vec<_>>(), 9, 0);
    let d = classifier.config().features;
    let real = judge(&classifier, &everything(&data.test, data.test.len().min(samples * 5)));
    let study = Study { data: &data, classifier: &classifier, real: Moments::of(&real.features, d), steps, samples };

    let (mut gan, mut vae, mut flow, mut diffusion) = untrained(steps);
    diffusion.sampling.steps = 100;
    let all: [(&str, &mut dyn Family); 4] =
        [("gan", &mut gan), ("vae", &mut vae), ("flow", &mut flow), ("diffusion", &mut diffusion)];
    let training = everything(&data.train, study.samples);
    let mut shown = pictures(&training, 32);
    let mut report = json!({ "steps": steps, "batch": BATCH, "samples": samples });
    report["real"] = study.numbers(&training);
    let mut losses = Vec::new();
    for (name, family) in all {
        let (curve, seconds) = study.train(name, family);
        let started = Instant::now();
        let drawn = family.sample(5, study.samples);
        let sampling = started.elapsed().as_secs_f64();
        shown.extend(pictures(&drawn, 32));
        let mut numbers = study.numbers(&drawn);
        numbers["parameters"] = family.parameters().into();
        numbers["seconds"] = seconds.round().into();
        numbers["sampling_seconds"] = sampling.into();
        println!("{name}: {numbers}");
        report[name] = numbers;
        let chart = Chart::new(name).x("step").y("loss");
        losses.push(chart.curve(Curve::new("", curve).smoothed(0.98)));
        chapter.png("samples.png", &grid(&shown, Layout { columns: 16, gap: 2, background: 255, enlarge: 2 }))?;
    }
    let count = chapter.size(500, 2);
    let held_out = everything(&data.test, count);
    let of = |values: Option<Vec<f64>>| {
        mean(&values.unwrap_or_default().into_iter().map(|l| bits_per_pixel(l, PIXELS)).collect::<Vec<_>>())
    };
    vae.draws = chapter.size(100, 2);
    for (name, (mean, error)) in [
        ("vae", of(vae.log_likelihood(&held_out, 7))),
        ("flow", of(flow.log_likelihood(&held_out, 7))),
        ("diffusion", bound_of(&diffusion, &data.test, chapter.size(100, 2))?),
    ] {
        println!("{name}: {mean:.3} +- {error:.3} bits a pixel");
        report[name]["bits_per_pixel"] = json!({ "mean": mean, "error": error });
    }
    chapter.svg("loss.svg", &charts(&losses, 2))?;
    chapter.file("numbers.json", (serde_json::to_string_pretty(&report)? + "\n").as_bytes())
}
