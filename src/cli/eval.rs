//! `imagen eval`

use super::output::{Results, progress_bar};
use super::request::Method;
use super::{Common, Failure, Result, fail, model, print};
use clap::{Args, ValueEnum};
use imagen::array::DType;
use imagen::cascade::{SamplingConfig, TextToImage, bundled};
use imagen::data::{Captions, Dataset, Split};
use imagen::diffusion::{Bound, Images, ReverseVariance, bound};
use imagen::eval::{Agreement, Classifier, Evaluation, Judge, Report, evaluate};
use imagen::picture::{Chart, Curve, charts, heatmap};
use imagen::train::DataConfig;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measure how well a model draws what it is asked for.
///
/// A classifier looks at samples for captions seen in training, for captions never seen, and for other names of the same
/// thing ("the number after six"), and says what it sees. Its features also give the Fréchet distance to the real images. In a run's folder the result is kept as eval.json.
#[derive(Args)]
pub struct EvalArgs {
    /// The folder of a run, a .safetensors file or a bundled model
    #[arg(default_value = "mnist")]
    model: String,
    /// Images for each of the three kinds of captions
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    samples: u32,
    #[command(flatten)]
    method: Method,
    /// Measure the variational bound instead, on N real test images with their captions: how many bits a number of an image costs
    /// with this model as a code, step by step of the chain
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "16", conflicts_with_all = ["samples", "guidance", "steps", "sampler", "threshold", "classifier"], value_parser = clap::value_parser!(u32).range(2..=100_000))]
    bits_per_dim: Option<u32>,
    /// The variance of a step back, for the bound
    #[arg(long, value_enum, default_value = "small", requires = "bits_per_dim")]
    variance: VarianceName,
    /// Chooses the noise
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for eval.json and the confusion matrices, or for bound.json and its picture [default: the run's folder, if it is one]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Replace the results in that folder. In a run's folder its own are always replaced
    #[arg(long, requires = "out")]
    force: bool,
    /// The classifier that judges
    #[arg(long, default_value = "mnist-classifier")]
    classifier: String,
    /// Folder of the real images [default: the one that the model was trained on]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// The variances of a step back.
#[derive(Clone, Copy, ValueEnum)]
enum VarianceName {
    /// beta_tilde
    Small,
    /// beta
    Large,
    /// What the model has learned
    Learned,
}

pub fn run(args: &EvalArgs) -> Result {
    let device = args.common.prepare()?;
    let found = model::find(&args.model)?;
    let model = found.text_to_image()?.on(device);
    if let Some(images) = args.bits_per_dim {
        return bits_per_dim(args, &model, found.data(), images as usize);
    }
    let judge = model::Judge::find(&args.classifier)?;
    let (name, data) = judge.real_images(found.data().as_ref(), args.data.as_deref())?;
    let model::Judge { classifier, origin: judge, .. } = judge;
    let c = classifier.config();
    if model.image_size() != [c.image_channels, c.image_size, c.image_size] {
        return fail(format!(
            "{} draws images of {:?}, which {} does not take",
            found.origin,
            model.image_size(),
            judge
        ));
    }
    check_data(&data, &classifier, &judge)?;
    let SamplingConfig { mut guidance, method: mut sampling } = model.config().sampling;
    args.method.apply(&mut guidance, &mut sampling)?;
    let results =
        results(args, ["eval.json", "confusion-training.svg", "confusion-held-out.svg", "confusion-unpaired.svg"])?;

    let samples = args.samples as usize;
    let settings = Evaluation { samples, guidance, sampling, seed: args.seed };
    let bar = progress_bar(args.common.quiet, Evaluation::SPLITS.len() * samples, "images");
    let captions = Captions::of(name);
    let report = evaluate(&model, &Judge::new(&classifier, &data, &captions), settings, &mut |done, _| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();

    // Saved before it is shown: a reader that has gone away ends the program.
    let json = serde_json::to_string_pretty(&report)?;
    let splits = [("training", &report.training), ("held-out", &report.held_out), ("unpaired", &report.unpaired)];
    let [training, held_out, unpaired] = splits.map(|(split, agreement)| confusion(split, agreement));
    let code = results.map_or(ExitCode::SUCCESS, |mut results| results.finish(&[json, training, held_out, unpaired]));
    match args.common.json {
        true => print(serde_json::to_string(&report)?),
        false => show(&report),
    }
    Ok(code)
}

/// The files of the results, if they are kept anywhere.
fn results<const N: usize>(args: &EvalArgs, names: [&'static str; N]) -> Result<Option<Results<N>>> {
    let in_run = Path::new(&args.model).is_dir() && !bundled::ALL.iter().any(|b| b.name == args.model);
    let out = args.out.clone().or_else(|| in_run.then(|| PathBuf::from(&args.model)));
    out.map(|out| Results::new(out, names, args.force || args.out.is_none())).transpose()
}

/// What `--bits-per-dim` finds.
#[derive(Serialize)]
struct Bits {
    images: usize,
    variance: ReverseVariance,
    /// Mean of the whole bound over the images, and its standard error, in bits per dimension.
    bits_per_dim: f64,
    standard_error: f64,
    /// Of it: L_T, and L_0.
    prior: f64,
    decoder: f64,
    /// Means of L_0, L_1, .., L_{T-1}, and of the squared error of eps at the same steps.
    terms: Vec<f64>,
    simple: Vec<f64>,
}

/// The variational bound of the model on the first real test images.
fn bits_per_dim(args: &EvalArgs, model: &TextToImage, config: Option<DataConfig>, count: usize) -> Result {
    let Some(DataConfig { name, folder: place, pad, resolution }) = config else {
        return fail("these weights do not say which images the model was trained on");
    };
    if model.config().super_resolution.is_some() {
        return fail("the bound of a model that makes images larger is not measured yet");
    }
    let place = args.data.clone().or(place).unwrap_or_else(|| name.default_folder());
    let data = Dataset::load(name, &place)?.resized(pad, resolution).map_err(Failure)?.test;
    let size = [data.channels, data.height, data.width];
    if model.image_size() != size {
        return fail(format!("the data has images of {size:?}, and the model draws {:?}", model.image_size()));
    }
    if count > data.len() {
        return fail(format!("there are {} test images, not {count}", data.len()));
    }
    let learned = model.config().unet.learned_variance;
    let variance = match args.variance {
        VarianceName::Small => ReverseVariance::Small,
        VarianceName::Large => ReverseVariance::Large,
        VarianceName::Learned if learned => ReverseVariance::Learned,
        VarianceName::Learned => {
            return fail("this model has not learned its variance: take --variance small or large");
        }
    };
    let results = results(args, ["bound.json", "bound.svg"])?;
    let (captions, schedule) = (Captions::of(name), model.config().diffusion.chain());
    let bar = progress_bar(args.common.quiet, count.div_ceil(model.batch()) * schedule.steps(), "steps");
    let mut bounds = Vec::new();
    for chosen in (0..count).collect::<Vec<_>>().chunks(model.batch()) {
        let words: Vec<String> =
            data.batch_labels(chosen).iter().map(|&l| captions.caption(Split::Training, l, 0)).collect();
        let seeds: Vec<(u64, u64)> = chosen.iter().map(|&i| (args.seed, i as u64)).collect();
        let pixels: Vec<u8> = chosen.iter().flat_map(|&i| data.image(i).iter().copied()).collect();
        let images = Images { size, dtype: DType::F32, seeds: &seeds };
        let asked = (model.unet(), model.config().diffusion.target);
        let found = bound(asked, &model.encode(&words)?, &schedule, variance, (&pixels, &images), &mut |_| {
            bar.inc(1);
            ControlFlow::Continue(())
        });
        bounds.extend(found.map_err(|e| Failure(e.to_string().replacen("sampling", "the bound", 1)))?);
    }
    bar.finish_and_clear();

    let n = bounds.len() as f64;
    let mean = |of: &dyn Fn(&Bound) -> f64| bounds.iter().map(of).sum::<f64>() / n;
    let bits = mean(&Bound::total);
    let spread = mean(&|bound: &Bound| (bound.total() - bits).powi(2));
    let steps = 0..schedule.steps();
    let terms: Vec<f64> = steps.clone().map(|i| mean(&|bound: &Bound| bound.terms[i])).collect();
    let result = Bits {
        images: bounds.len(),
        variance,
        bits_per_dim: bits,
        standard_error: (spread / (n - 1.0)).sqrt(),
        prior: mean(&|bound: &Bound| bound.prior),
        decoder: terms[0],
        simple: steps.map(|i| mean(&|bound: &Bound| bound.simple[i])).collect(),
        terms,
    };
    let files = [serde_json::to_string_pretty(&result)?, bound_chart(&result)];
    let code = results.map_or(ExitCode::SUCCESS, |mut results| results.finish(&files));
    match args.common.json {
        true => print(serde_json::to_string(&result)?),
        false => print(format!(
            "bits per dimension, {} test images: at most {:.3} +- {:.3}\n  L_T     {:.5}\n  L_1..   {:.3}\n  L_0     {:.3}",
            result.images,
            result.bits_per_dim,
            result.standard_error,
            result.prior,
            result.bits_per_dim - result.prior - result.decoder,
            result.decoder
        )),
    }
    Ok(code)
}

/// The terms of the bound by step, and what the simple loss makes of them.
fn bound_chart(bits: &Bits) -> String {
    let by_step = |values: &[f64]| values.iter().enumerate().map(|(i, &v)| ((i + 1) as f64, v)).collect();
    let chart = |title: &str, label: &str, values: &[f64]| {
        Chart::new(title).x("step i").y(label).log_x().log_y().curve(Curve::new("", by_step(values)))
    };
    let terms = chart("The bound", "bits per dimension of the step from x_i", &bits.terms);
    let simple = chart("The simple loss", "mean squared error of eps at x_i", &bits.simple);
    charts(&[terms, simple], 2)
}

/// An error unless the classifier takes these images and tells their classes apart.
pub(super) fn check_data(data: &Dataset, classifier: &Classifier, origin: &str) -> Result<()> {
    let (c, images) = (classifier.config(), &data.train);
    let (wanted, found) =
        ([c.image_channels, c.image_size, c.image_size], [images.channels, images.height, images.width]);
    if (wanted, c.classes) != (found, images.class_names.len()) {
        let classes = images.class_names.len();
        return fail(format!(
            "{origin} judges images of {wanted:?} in {} classes; the data has {found:?} in {classes}",
            c.classes
        ));
    }
    // What a covariance needs.
    if images.len() < 2 || data.test.len() < 2 {
        return fail("the data has a single image to train on or to test on; at least two of each are needed");
    }
    Ok(())
}

fn show(report: &Report) {
    print(format!(
        "{} samples of each kind, guidance {}, {} steps\n",
        report.samples, report.guidance, report.sampling.steps
    ));
    for (title, agreement) in [
        ("captions seen in training", &report.training),
        ("captions never seen", &report.held_out),
        ("phrases that no image was ever shown with", &report.unpaired),
        ("real test images", &report.real),
    ] {
        print(format!("{title}\n{agreement}"));
    }
    print(format!(
        "Fréchet distance to the real training images: {:.3} (as many real test images: {:.3})",
        report.frechet, report.frechet_real
    ));
}

fn confusion(split: &str, agreement: &Agreement) -> String {
    let values: Vec<f64> = agreement.confusion().iter().flatten().map(|&n| f64::from(n)).collect();
    let title = format!("What was asked for ({split} captions), and what was recognised");
    heatmap(&title, ("asked for", "recognised"), agreement.classes(), agreement.classes(), &values)
}
