//! `cargo run --release --example ch16_cascade`: chapter 16, the whole cascade.
//!
//! Every stage of the bundled cascade side by side; who wins if the stages are told different things; how much of an image each
//! stage decides; how a stage that is at fault is found; a check-up; images changed as a whole and in part; the bound; and every
//! part taken out, one after the other.

mod chapter;
#[path = "chapter/components.rs"]
mod components;

use chapter::Chapter;
use components::components;
use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::bundled::{self, Bundled};
use imagen::cascade::{Cascade, Edit, Request, TextToImage};
use imagen::data::{Captions, Dataset, DatasetName, Images, Split};
use imagen::diffusion::{self, ReverseVariance, SamplerKind, Sampling, Step, Threshold, bound};
use imagen::eval::{Classifier, Lows};
use imagen::picture::{Chart, Curve, Layout, Picture, grid};
use imagen::train::{Doctor, RunConfig, TrainingData};
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch16");
    let studio = Studio::open()?;
    stages(&chapter, &studio)?;
    exchange(&chapter, &studio)?;
    augmentation(&chapter, &studio)?;
    shares(&chapter, &studio)?;
    faults(&chapter, &studio)?;
    check_up(&chapter)?;
    let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
    strengths(&chapter, &studio, &model)?;
    halves(&chapter, &studio, &model)?;
    code_length(&chapter, &studio)?;
    switches(&chapter, &studio)
}

/// The bundled cascade, and what its images are compared with.
struct Studio {
    cascade: Cascade,
    judge: Classifier,
    captions: Captions,
    /// Real test images of 28 x 28 pixels, and the same in a black frame.
    digits: Images,
    real: Images,
}

/// Steps of each stage where many images are counted: fewer than the models' own 50, 25 and 25.
const STEPS: [usize; 3] = [20, 10, 10];

fn go_on(_: Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl Studio {
    fn open() -> Result<Studio, Box<dyn Error>> {
        let stages = [bundled::MNIST_BASE8, bundled::MNIST_SR16, bundled::MNIST_SR32];
        let digits = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.test;
        let model = |stage: Bundled| Ok::<_, Box<dyn Error>>(TextToImage::from_weights(&stage.weights()?)?);
        Ok(Studio {
            cascade: Cascade::new(stages.into_iter().map(model).collect::<Result<_, _>>()?)?,
            judge: Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights()?)?,
            captions: Captions::of(DatasetName::Mnist),
            real: digits.clone().resized(Some(32), None)?,
            digits,
        })
    }

    /// A caption of every class in turn.
    fn prompts(&self, classes: impl IntoIterator<Item = usize>) -> Vec<String> {
        classes.into_iter().map(|class| self.captions.caption(Split::Training, class, 0)).collect()
    }

    /// What stage `i` is asked for, one image a prompt from noise of its own, in the few steps of [`STEPS`].
    fn ask(&self, i: usize, prompts: &[String]) -> Request {
        let mut request = self.cascade.requests(prompts, 1, 1).swap_remove(i);
        request.sampling.steps = STEPS[i];
        Request { one_noise_each: true, ..request }
    }

    /// Images of stage `i`, from those of the stage before.
    fn enlarge(&self, i: usize, request: &Request, low: &Tensor) -> Result<Tensor, Box<dyn Error>> {
        Ok(self.cascade.stages()[i].enlarge(request, &low.clamp(-1.0, 1.0), &mut go_on)?)
    }

    /// What the classifier recognises in images of 28 x 28 pixels, or in the middle of larger ones.
    fn recognised(&self, images: &Tensor) -> Vec<usize> {
        let edge = (images.shape()[2] - 28) / 2;
        let middle = |x: &Tensor, axis| x.split(axis, &[edge, 28, edge]).swap_remove(1);
        match edge {
            0 => self.judge.classify(images).1,
            _ => self.judge.classify(&middle(&middle(images, 2), 3)).1,
        }
    }

    /// How many images show the class that `asked` has for them.
    fn right(&self, images: &Tensor, asked: &[usize]) -> usize {
        self.recognised(images).iter().zip(asked).filter(|(seen, asked)| seen == asked).count()
    }
}

/// Some of the images, in any order, any of them several times.
fn pick(images: &Tensor, chosen: impl IntoIterator<Item = usize>) -> Tensor {
    let [_, c, h, w] = images.shape().dims("pick");
    let values = images.array().to_f32();
    let parts: Vec<&[f32]> = chosen.into_iter().map(|i| &values[i * c * h * w..][..c * h * w]).collect();
    Tensor::constant(Array::from_vec([parts.len(), c, h, w], parts.concat()))
}

/// The pictures, all of 32 x 32 pixels: smaller ones have larger pixels.
fn pictures(images: &Tensor) -> Vec<Picture> {
    Picture::from_array(images.array()).into_iter().map(|picture| picture.enlarged(32 / picture.width)).collect()
}

/// Rows of pictures.
fn rows(rows: &[Vec<Picture>], enlarge: usize) -> Picture {
    grid(&rows.concat(), Layout { enlarge, ..Layout::new(rows[0].len()) })
}

/// The root of the mean squared difference.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64(), b.to_f64());
    (a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// From sentences to images: a row a prompt, two images of each, the stages from left to right.
fn stages(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let prompts = ["a handwritten seven", "the digit 3", "a picture of the number eight", "four"].map(String::from);
    let mut requests = studio.cascade.requests(&prompts, 2, 0);
    if chapter.size(false, true) {
        requests.iter_mut().for_each(|request| request.sampling.steps = 1);
    }
    println!("The bundled cascade\n  stage  side  parameters  steps  guidance    aug");
    for (i, (stage, request)) in studio.cascade.stages().iter().zip(&requests).enumerate() {
        let parameters: usize = stage.parameters().iter().map(|p| p.shape().numel()).sum();
        let aug = stage.config().super_resolution.map_or("-".into(), |larger| larger.aug.to_string());
        let (side, steps) = (stage.image_size()[1], request.sampling.steps);
        println!("  {:5}  {side:4}  {parameters:10}  {steps:5}  {:8}  {aug:>5}", i + 1, request.guidance);
    }
    println!();
    let drawn = studio.cascade.sample(&requests, None, &mut |_, _| ControlFlow::Continue(()))?;
    let drawn: Vec<Vec<Picture>> = drawn.iter().map(pictures).collect();
    let column = |number: usize| {
        let row = |prompt: usize| drawn.iter().map(move |stage| stage[2 * prompt + number].clone());
        grid(&(0..4).flat_map(row).collect::<Vec<_>>(), Layout { enlarge: 3, ..Layout::new(3) })
    };
    chapter.png("stages.png", &grid(&[column(0), column(1)], Layout { gap: 12, enlarge: 1, ..Layout::new(2) }))
}

/// The digits whose words are told to the other stages: d + 5, modulo 10.
fn other(class: usize) -> usize {
    (class + 5) % 10
}

/// The same base images, and other words told to the stages above.
fn exchange(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let count = chapter.size(20, 10);
    let own: Vec<usize> = (0..count).map(|i| i % 10).collect();
    let others: Vec<usize> = own.iter().copied().map(other).collect();
    let words = [studio.prompts(own.iter().copied()), studio.prompts(others.iter().copied())];
    let base = studio.cascade.stages()[0].sample(&studio.ask(0, &words[0]), &mut go_on)?;
    let mut shown = vec![pictures(&base)[..10].to_vec()];
    println!("The base is told one digit, the stages above perhaps another: what {count} images show");
    println!("  words of sr16  words of sr32  the base's digit  the other");
    let names = ["the base's", "others"];
    for (second, third) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let middle = studio.enlarge(1, &studio.ask(1, &words[second]), &base)?;
        let large = studio.enlarge(2, &studio.ask(2, &words[third]), &middle)?;
        let seen = [&own, &others].map(|asked| studio.right(&large, asked));
        println!("  {:13}  {:13}  {:16}  {:9}", names[second], names[third], seen[0], seen[1]);
        shown.push(pictures(&large)[..10].to_vec());
    }
    println!();
    chapter.png("exchange.png", &rows(&shown, 2))
}

/// More and more noise on the base's images, with their own words and with others.
fn augmentation(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let own: Vec<usize> = (0..10).collect();
    let others: Vec<usize> = own.iter().copied().map(other).collect();
    let base = studio.cascade.stages()[0].sample(&studio.ask(0, &studio.prompts(own.iter().copied())), &mut go_on)?;
    let words = studio.prompts(others.iter().copied());
    let (mut shown, mut curves) = (vec![pictures(&base)], [Vec::new(), Vec::new()]);
    println!("Noise on the base's images, and other words above: what ten images show\n   aug  the base's  the other");
    for &aug in chapter.size(&[0.0, 0.2, 0.4, 0.6, 0.8, 1.0][..], &[0.0, 1.0]) {
        let middle = studio.enlarge(1, &Request { aug: Some(aug), ..studio.ask(1, &words) }, &base)?;
        let large = studio.enlarge(2, &studio.ask(2, &words), &middle)?;
        let seen = [&own, &others].map(|asked| studio.right(&large, asked));
        println!("  {aug:4.1}  {:10}  {:9}", seen[0], seen[1]);
        curves.iter_mut().zip(seen).for_each(|(curve, seen)| curve.push((aug, seen as f64)));
        shown.push(pictures(&large));
    }
    println!();
    let chart = Chart::new("Who decides which digit it is").x("aug of sr16").y("images of ten").y_range(0.0, 10.0);
    let [of_base, of_words] = curves;
    let chart = chart.curve(Curve::new("the digit of the base", of_base));
    chapter.svg("who-wins.svg", &chart.curve(Curve::new("the digit of sr16's words", of_words)).svg())?;
    chapter.png("augmentation.png", &rows(&shown, 2))
}

/// Words, in each base images, in each middle images, in each large images: which of them decides how much of the pixels.
fn shares(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let counts = chapter.size([5, 4, 3, 2], [2, 2, 2, 2]);
    let [words, bases, middles, larges] = counts;
    let prompts = studio.prompts((0..words * bases).map(|i| 2 * (i / bases)));
    let base = studio.cascade.stages()[0].sample(&studio.ask(0, &prompts), &mut go_on)?;
    let repeat = |n: usize, of: usize| (0..n * of).map(move |i| i / n);
    let again = |prompts: &[String], n: usize| -> Vec<String> {
        repeat(n, prompts.len()).map(|i| prompts[i].clone()).collect()
    };
    let prompts = again(&prompts, middles);
    let low = pick(&base, repeat(middles, words * bases));
    let middle = studio.enlarge(1, &studio.ask(1, &prompts), &low)?;
    let prompts = again(&prompts, larges);
    let low = pick(&middle, repeat(larges, words * bases * middles));
    let large = studio.enlarge(2, &studio.ask(2, &prompts), &low)?;
    println!("Shares of the variance of {} images of 32 x 32 pixels, and of the same shrunk", prompts.len());
    println!("   side   words    base    sr16    sr32");
    for side in [32, 16, 8] {
        let shrunk = large.avg_pool2d(32 / side).to_f64();
        let images: Vec<Vec<f64>> = shrunk.chunks(side * side).map(<[f64]>::to_vec).collect();
        let found = components(&images, &counts);
        let all: f64 = found.iter().sum();
        print!("   {side:4}");
        found.iter().for_each(|part| print!("  {:4.1} %", 100.0 * part / all));
        println!();
    }
    println!();
    // One base image of every word; beside it all that became of it.
    let (each, lines) = (middles * larges, (0..words).map(|word| word * bases));
    let line = |i: usize| {
        let grown = (0..each).map(|k| i * each + k);
        [pictures(&pick(&base, [i])), pictures(&pick(&large, grown))].concat()
    };
    chapter.png("grown.png", &rows(&lines.map(line).collect::<Vec<_>>(), 2))
}

/// How a stage is asked otherwise.
type Switch<'a> = &'a dyn Fn(usize, Request) -> Request;

/// A healthy cascade and two ill ones, each begun at the words, at real images of 8 x 8 pixels and at real ones of 16 x 16.
fn faults(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let count = chapter.size(20, 10);
    let classes: Vec<usize> = (0..count).map(|i| i % 10).collect();
    let prompts = studio.prompts(classes.iter().copied());
    let shrunk_for = |i: usize| -> Result<Lows, Box<dyn Error>> {
        let model = [bundled::MNIST_BASE8, bundled::MNIST_SR16, bundled::MNIST_SR32][i];
        let alone = Cascade::new(vec![TextToImage::from_weights(&model.weights()?)?])?;
        Ok(Lows::of(&alone, &studio.real, count)?)
    };
    let (small, half) = (shrunk_for(1)?, shrunk_for(2)?);
    // The base without words; sr16 without words and with nothing but noise for an image.
    let cases: [(&str, Switch<'_>); 3] = [
        ("healthy", &|_, request| request),
        ("base without words", &|i, request| if i == 0 { Request { guidance: 0.0, ..request } } else { request }),
        ("sr16 blind", &|i, request| match i {
            1 => Request { guidance: 0.0, aug: Some(1.0), ..request },
            _ => request,
        }),
    ];
    println!("Of {count} images, those that show the right digit; begun with");
    println!("  cascade             words  real 8 x 8  real 16 x 16");
    let mut healthy = Vec::new();
    for (name, ill) in cases {
        let ask = |i: usize| ill(i, studio.ask(i, &prompts));
        let base = studio.cascade.stages()[0].sample(&ask(0), &mut go_on)?;
        let upper = |low: &Tensor| -> Result<[Tensor; 2], Box<dyn Error>> {
            let middle = studio.enlarge(1, &ask(1), low)?;
            Ok([studio.enlarge(2, &ask(2), &middle)?, middle])
        };
        let ([from_words, _], [from_small, middle]) = (upper(&base)?, upper(&small.images)?);
        let from_half = studio.enlarge(2, &ask(2), &half.images)?;
        let seen = [&from_words, &from_small, &from_half].map(|images| studio.right(images, &classes));
        println!("  {name:18}  {:5}  {:10}  {:12}", seen[0], seen[1], seen[2]);
        if healthy.is_empty() {
            let whole = studio.real.batch_f32(&small.chosen);
            let whole = Tensor::constant(Array::from_vec([count, 1, 32, 32], whole));
            healthy =
                [&small.images, &middle, &from_small, &whole].map(|images| pictures(images)[..10].to_vec()).to_vec();
        }
    }
    println!();
    chapter.png("from-real.png", &rows(&healthy, 2))
}

/// The check-up of sr16: of its training, and of the trained model.
fn check_up(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let config = RunConfig::read(Path::new("configs/mnist-cascade/sr16.toml"), &[])?;
    let data = TrainingData::load(&config)?;
    let (RunConfig::Diffusion(run), TrainingData::Images(data)) = (config, data) else { return Ok(()) };
    let doctor = Doctor::new(run, data, Device::Cpu, chapter.size(40, 1));
    println!("A check-up of sr16");
    for found in doctor.examine(Some(&bundled::MNIST_SR16.weights()?), &mut |_| ())? {
        let verdict = found.passed.map_or("-", |passed| if passed { "good" } else { "BAD" });
        println!("  {:23} {verdict:5} {}", found.name, found.seen);
    }
    println!();
    Ok(())
}

/// A real seven noised up to one time after another, and drawn anew as a nine.
fn strengths(chapter: &Chapter, studio: &Studio, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let count = chapter.size(8, 2);
    let seven = Tensor::constant(Array::from_vec([1, 1, 28, 28], studio.digits.batch_f32(&[0])));
    let copies = pick(&seven, vec![0; count]);
    let defaults = model.request(vec!["a handwritten nine".into()]);
    let sampling = Sampling { steps: chapter.size(25, 2), ..defaults.sampling };
    let request = Request { count, sampling, seed: 3, ..defaults };
    let mut columns = vec![vec![Picture::from_array(seven.array()).remove(0); chapter.size(4, 2)]];
    println!("A seven, noised up to t and drawn anew as a nine: {count} images\n    t  sevens  nines  others  away");
    for &start in chapter.size(&[0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0][..], &[0.5, 1.0]) {
        let drawn = model.edit(&request, &copies, &Edit::Renoise { start }, &mut go_on)?;
        let seen = studio.recognised(&drawn);
        let [sevens, nines] = [7, 9].map(|class| seen.iter().filter(|&&seen| seen == class).count());
        let away = distance(&drawn, &copies);
        println!("  {start:.1}  {sevens:6}  {nines:5}  {:6}  {away:.2}", count - sevens - nines);
        columns.push(Picture::from_array(drawn.array()).into_iter().take(columns[0].len()).collect());
    }
    println!();
    let lines: Vec<Vec<Picture>> =
        (0..columns[0].len()).map(|i| columns.iter().map(|column| column[i].clone()).collect()).collect();
    chapter.png("strengths.png", &rows(&lines, 2))
}

/// The upper half of a real eight is kept, and the lower half drawn as that of a nine.
fn halves(chapter: &Chapter, studio: &Studio, model: &TextToImage) -> Result<(), Box<dyn Error>> {
    let count = chapter.size(6, 2);
    let eight = studio.digits.labels.iter().position(|&label| label == 8).ok_or("there is no eight")?;
    let eight = Tensor::constant(Array::from_vec([1, 1, 28, 28], studio.digits.batch_f32(&[eight])));
    let stays: Vec<f64> = (0..28 * 28).map(|i| f64::from(u8::from(i < 14 * 28))).collect();
    let mask = Tensor::from_f64([1, 1, 28, 28], &stays, DType::F32);
    let defaults = model.request(vec!["a handwritten nine".into()]);
    let sampling = Sampling { steps: chapter.size(20, 2), ..defaults.sampling };
    let request = Request { count, sampling, ..defaults };
    let kept = Picture::from_array((&eight.affine(1.0, 1.0) * &mask).affine(1.0, -1.0).array()).remove(0);
    let mut shown = vec![];
    println!("The upper half of an eight, and below it that of a nine: {count} images");
    println!("  rounds  nines  eights");
    for rounds in [1, chapter.size(10, 2)] {
        let edit = Edit::Inpaint { mask: mask.clone(), rounds };
        let drawn = model.edit(&request, &pick(&eight, vec![0; count]), &edit, &mut go_on)?;
        let seen = studio.recognised(&drawn);
        let [nines, eights] = [9, 8].map(|class| seen.iter().filter(|&&seen| seen == class).count());
        println!("  {rounds:6}  {nines:5}  {eights:6}");
        let line = [Picture::from_array(eight.array()).remove(0), kept.clone()];
        shown.push([&line[..], &Picture::from_array(drawn.array())].concat());
    }
    println!();
    chapter.png("halves.png", &rows(&shown, 3))
}

/// The variational bound of the base, in bits for each of its 64 numbers.
fn code_length(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let (model, count) = (&studio.cascade.stages()[0], chapter.size(4, 1));
    let small = studio.real.clone().resized(None, Some(8))?;
    let chosen: Vec<usize> = (0..count).collect();
    let words = studio.prompts(small.batch_labels(&chosen));
    let seeds: Vec<(u64, u64)> = chosen.iter().map(|&i| (1, i as u64)).collect();
    let pixels: Vec<u8> = chosen.iter().flat_map(|&i| small.image(i).iter().copied()).collect();
    let images = diffusion::Images { size: [1, 8, 8], dtype: DType::F32, seeds: &seeds };
    let asked = (model.unet(), model.config().diffusion.target);
    let schedule = model.config().diffusion.schedule.build();
    let condition = model.encode(&words)?;
    let found = bound(asked, &condition, &schedule, ReverseVariance::Small, (&pixels, &images), &mut |_| {
        ControlFlow::Continue(())
    })?;
    let mean = |of: &dyn Fn(&diffusion::Bound) -> f64| found.iter().map(of).sum::<f64>() / count as f64;
    let (all, prior, decoder) = (mean(&diffusion::Bound::total), mean(&|b| b.prior), mean(&|b| b.terms[0]));
    println!("The bound of the base on {count} test images of 8 x 8 pixels, bits a number: {all:.2}");
    println!("  L_T {prior:.4}, L_1 and on {:.2}, L_0 {decoder:.2}\n", all - prior - decoder);
    Ok(())
}

/// Every part taken out, or another put in its place: the same noise, the same words.
fn switches(chapter: &Chapter, studio: &Studio) -> Result<(), Box<dyn Error>> {
    let sampler = |request: Request, sampler| {
        let sampling = Sampling { sampler, ..request.sampling };
        Request { sampling, ..request }
    };
    let threshold = |request: Request, threshold| {
        let sampling = Sampling { threshold, ..request.sampling };
        Request { sampling, ..request }
    };
    let upper = |i: usize, request: Request, guidance| if i > 0 { Request { guidance, ..request } } else { request };
    let table: [(&str, Switch<'_>); 11] = [
        ("as it is", &|_, request| request),
        ("guidance 1", &|_, request| Request { guidance: 1.0, ..request }),
        ("guidance 0", &|_, request| Request { guidance: 0.0, ..request }),
        ("guidance 5", &|_, request| Request { guidance: 5.0, ..request }),
        ("no text above the base", &|i, request| upper(i, request, 0.0)),
        ("threshold none", &|_, request| threshold(request, Threshold::None)),
        ("threshold dynamic", &|_, request| threshold(request, Threshold::dynamic(99.5))),
        ("aug 0", &|_, request| Request { aug: Some(0.0), ..request }),
        ("aug 0.5", &|_, request| Request { aug: Some(0.5), ..request }),
        ("ancestral", &|_, request| sampler(request, SamplerKind::Ancestral { gamma: 0.0 })),
        ("DPM-Solver++", &|_, request| sampler(request, SamplerKind::DpmSolver {})),
    ];
    let classes: Vec<usize> = (0..10).collect();
    let prompts = studio.prompts(0..10);
    let mut shown: Vec<Vec<Picture>> = Vec::new();
    let mut first: Option<[Tensor; 3]> = None;
    println!("Every part taken out: ten images from the same noise\n  {:23} right  away", "");
    let mut tell = |name: &str, images: &Tensor, reference: &Tensor| {
        println!("  {name:23} {:5}  {:.2}", studio.right(images, &classes), distance(images, reference));
        shown.push(pictures(images));
    };
    for (name, switch) in &table[..chapter.size(11, 2)] {
        let ask = |i: usize| switch(i, studio.ask(i, &prompts));
        let base = studio.cascade.stages()[0].sample(&ask(0), &mut go_on)?;
        let middle = studio.enlarge(1, &ask(1), &base)?;
        let large = studio.enlarge(2, &ask(2), &middle)?;
        let reference = first.get_or_insert_with(|| [base, middle, large.clone()]);
        tell(name, &large, &reference[2]);
    }
    // One stage less: what it would have drawn is put there by interpolation.
    if let Some([base, middle, large]) = &first {
        let without = studio.enlarge(2, &studio.ask(2, &prompts), &base.resize_bilinear(16, 16))?;
        tell("without sr16", &without, large);
        tell("without sr32", &middle.resize_bilinear(32, 32), large);
        tell("without both", &base.resize_bilinear(32, 32), large);
    }
    println!();
    chapter.png("switches.png", &rows(&shown, 2))
}
