//! `imagen eval`

use super::{Common, Failure, Result, fail, model, note, print};
use clap::Args;
use imagen::cascade::bundled;
use imagen::data::{Captions, Dataset, DatasetName};
use imagen::eval::{Agreement, Classifier, Evaluation, Report, evaluate};
use imagen::files;
use imagen::picture::heatmap;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
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
    /// Guidance weight [default: as the model says]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Steps of the sampler [default: as the model says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: Option<u32>,
    /// Chooses the noise that the images grow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for eval.json and the confusion matrices [default: the run's folder, if it is one]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The classifier that judges
    #[arg(long, default_value = "mnist-classifier")]
    classifier: String,
    /// Folder of the real images [default: the one that comes with the project]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &EvalArgs) -> Result {
    let device = args.common.prepare()?;
    let found = model::find(&args.model)?;
    let model = found.text_to_image()?.on(device);
    let judge = model::find(&args.classifier)?;
    let classifier = Classifier::from_weights(&judge.weights).map_err(|e| Failure(format!("{}: {e}", judge.origin)))?;
    let name = DatasetName::Mnist;
    let data = Dataset::load(name, &args.data.clone().unwrap_or_else(|| name.default_folder()))?;
    let c = classifier.config();
    if model.image_size() != [c.image_channels, c.image_size, c.image_size] {
        return fail(format!(
            "{} draws images of {:?}, which {} does not take",
            found.origin,
            model.image_size(),
            judge.origin
        ));
    }
    check_data(&data, &classifier, &judge.origin)?;
    let in_run = Path::new(&args.model).is_dir() && !bundled::ALL.iter().any(|b| b.name == args.model);
    let out = args.out.clone().or_else(|| in_run.then(|| PathBuf::from(&args.model)));
    if let Some(out) = &out {
        files::create_folder(out)?;
        files::check_writable(out)?;
    }

    let defaults = model.config().sampling;
    let guidance = args.guidance.unwrap_or(defaults.guidance);
    if !guidance.is_finite() {
        return fail(format!("--guidance must be a number, not {guidance}"));
    }
    let mut sampling = defaults.method;
    sampling.steps = args.steps.map_or(sampling.steps, |s| s as usize);
    let samples = args.samples as usize;
    let settings = Evaluation { samples, guidance, sampling, seed: args.seed };
    let bar = bar(args.common.quiet, Evaluation::SPLITS.len() * samples);
    let report = evaluate(&model, &classifier, &data, &Captions::of(name), settings, &mut |done, _| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();

    // Saved before it is shown: a reader that has gone away ends the program.
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(out) = out {
        files::write(&out.join("eval.json"), json.as_bytes())?;
        let splits = [("training", &report.training), ("held-out", &report.held_out), ("unpaired", &report.unpaired)];
        for (split, agreement) in splits {
            files::write(&out.join(format!("confusion-{split}.svg")), confusion(split, agreement).as_bytes())?;
        }
        note(format!("saved in {}", out.display()));
    }
    match args.common.json {
        true => print(serde_json::to_string(&report)?),
        false => show(&report),
    }
    Ok(ExitCode::SUCCESS)
}

/// An error unless the classifier takes these images and tells their classes apart.
fn check_data(data: &Dataset, classifier: &Classifier, origin: &str) -> Result<()> {
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

fn bar(quiet: bool, length: usize) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} images  {eta} left").expect("the template is right");
    ProgressBar::new(length as u64).with_style(style)
}
