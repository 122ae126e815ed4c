//! `imagen sweep`

use super::cascade::Named;
use super::eval::check_data;
use super::output::{Results, progress_bar};
use super::request::ThresholdName;
use super::{Common, Failure, Result, fail, model, note, print};
use clap::Args;
use imagen::cascade::{Cascade, TextToImage};
use imagen::data::Captions;
use imagen::eval::{Judge, Sweep, SweepProgress, SweepSettings, sweep};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Draw with many settings, and measure each.
///
/// For every guidance weight, way of thresholding and amount of noise on smaller images, the same captions are drawn from the
/// same noise; a classifier says how many show what was asked for, and how far they are from real images (Fréchet distance).
#[derive(Args)]
pub struct SweepArgs {
    /// The folder of a run, a .safetensors file or a bundled model
    #[arg(default_value = "mnist")]
    model: String,
    /// A cascade instead: a TOML file, or mnist-cascade, the bundled one
    #[arg(long, value_name = "TOML", conflicts_with = "model")]
    cascade: Option<PathBuf>,
    /// Guidance weights to try, with commas between [default: as the model says]
    #[arg(long, value_name = "W,..", value_delimiter = ',', allow_negative_numbers = true)]
    guidance: Vec<f64>,
    /// Ways of thresholding to try, with commas between [default: as the model says]
    #[arg(long, value_name = "T,..", value_delimiter = ',', value_enum)]
    threshold: Vec<ThresholdName>,
    /// Amounts of noise on smaller images to try, with commas between [default: as the model says]
    #[arg(long, value_name = "A,..", value_delimiter = ',', requires = "cascade")]
    aug: Vec<f64>,
    /// Vary this stage of the cascade only, counted from 1 as in its file [default: all of them]
    #[arg(long, value_name = "N", requires = "cascade", value_parser = clap::value_parser!(u32).range(1..=100))]
    stage: Option<u32>,
    /// Leave the base out, and make real test images larger: is a fault in the stages above it?
    #[arg(long, requires = "cascade")]
    from_real: bool,
    /// Images for each setting
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    samples: u32,
    /// Chooses the noise
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for sweep.json and sweep.svg
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Replace the results in that folder
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

pub fn run(args: &SweepArgs) -> Result {
    let device = args.common.prepare()?;
    let mut settings = settings(args)?;
    let (cascade, requests, config) = match &args.cascade {
        Some(file) => {
            let named = Named::read(file, args.from_real, device)?;
            settings.stage = args.stage.map(|number| named.stage(number as usize)).transpose()?;
            let requests = named.requests(&[], 1, 0);
            (named.cascade, requests, named.data)
        }
        None => {
            let found = model::find(&args.model)?;
            let cascade = Cascade::new(vec![found.text_to_image()?.on(device)])?;
            let requests = cascade.requests(&[], 1, 0);
            (cascade, requests, found.data())
        }
    };
    if !args.from_real && cascade.stages()[0].config().super_resolution.is_some() {
        return fail("this model makes images larger: give a --cascade with --from-real");
    }
    check_heeded(&settings, &cascade)?;
    let judge = model::Judge::find(&args.classifier)?;
    let (name, data) = judge.real_images(config.as_ref(), args.data.as_deref())?;
    let model::Judge { classifier, origin, .. } = judge;
    let classifier = classifier.on(device);
    check_data(&data, &classifier, &origin)?;
    let size = [data.train.channels, data.train.height, data.train.width];
    let drawn = cascade.stages().last().map_or(size, |stage| stage.image_size());
    let pad = config.and_then(|config| config.pad);
    if drawn != pad.map_or(size, |side| [size[0], side, side]) {
        return fail(format!("the model draws images of {drawn:?}, which {origin} does not take"));
    }
    let out = args.out.clone();
    let mut results = out.map(|out| Results::new(out, ["sweep.json", "sweep.svg"], args.force)).transpose()?;
    let real = args.from_real.then(|| data.test.clone().resized(pad, None)).transpose().map_err(Failure)?;
    let captions = Captions::of(name);
    let judge = Judge::new(&classifier, &data, &captions);
    let bar = progress_bar(args.common.quiet, settings.images(), "images");
    // With the stage as the flag numbers it, the base counted even if it is left out.
    let numbered = |found: &Sweep| Sweep { stage: args.stage.map(|number| number as usize - 1), ..found.clone() };
    let files = |found: &Sweep| -> Result<[String; 2]> { Ok([serde_json::to_string_pretty(found)?, found.svg()]) };
    let found = sweep(&cascade, &requests, &judge, real.as_ref(), &settings, &mut |progress| {
        match (progress, &mut results) {
            (SweepProgress::Images(done), _) => bar.set_position(done as u64),
            // A sweep takes hours: what is found so far is kept, whatever comes.
            (SweepProgress::Point(found), Some(results)) => {
                let saved = files(&numbered(found)).and_then(|files| results.save(&files));
                if let Err(Failure(message)) = saved {
                    bar.suspend(|| note(format!("error: {message}")));
                }
            }
            (SweepProgress::Point(_), None) => {}
        }
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let found = numbered(&found);
    let files = files(&found)?;
    let code = results.map_or(ExitCode::SUCCESS, |mut results| results.finish(&files));
    match args.common.json {
        true => print(serde_json::to_string(&found)?),
        false => show(&found),
    }
    Ok(code)
}

/// An error if something is varied that no stage heeds which it is varied for: all points would be the same.
fn check_heeded(settings: &SweepSettings, cascade: &Cascade) -> Result<()> {
    let varied = |&(i, _): &(usize, &TextToImage)| settings.stage.is_none_or(|stage| stage == i);
    let stages: Vec<&TextToImage> =
        cascade.stages().iter().enumerate().filter(varied).map(|(_, stage)| stage).collect();
    if !settings.aug.is_empty() && stages.iter().all(|stage| stage.config().super_resolution.is_none()) {
        return fail("--aug has no meaning here: no stage that is varied makes images larger");
    }
    if !settings.guidance.is_empty() && stages.iter().all(|stage| stage.encoder().is_none()) {
        return fail("--guidance has no meaning here: no stage that is varied takes text");
    }
    Ok(())
}

/// What the flags say, checked, but for the stage.
fn settings(args: &SweepArgs) -> Result<SweepSettings> {
    if let Some(w) = args.guidance.iter().find(|w| !w.is_finite()) {
        return fail(format!("--guidance must be numbers, not {w}"));
    }
    if let Some(aug) = args.aug.iter().find(|aug| !(0.0..=1.0).contains(*aug)) {
        return fail(format!("--aug must be between 0 and 1, not {aug}"));
    }
    Ok(SweepSettings {
        samples: args.samples as usize,
        seed: args.seed,
        stage: None,
        guidance: args.guidance.clone(),
        thresholds: args.threshold.iter().map(|name| name.threshold()).collect(),
        aug: args.aug.clone(),
    })
}

fn show(found: &Sweep) {
    print(format!("{:9} {:>5} {:>8}  agreement  95 % interval   Fréchet", "threshold", "aug", "guidance"));
    let number = |value: Option<f64>| value.map_or("-".to_string(), |value| value.to_string());
    for point in &found.points {
        let [threshold, aug, guidance] =
            [point.threshold_name().to_string(), number(point.aug), number(point.guidance)];
        print(format!("{threshold:9} {aug:>5} {guidance:>8}    {}  {:8.2}", point.agreement, point.frechet));
    }
    print(format!("{:24}    {}  {:8.2}", "real test images", found.real, found.frechet_real));
}
