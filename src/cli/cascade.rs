//! `imagen sample --cascade` and `imagen upscale`: models one after the other.

use super::output::{NewPicture, Target, progress_bar, report, texts};
use super::request::{self, Drawing, MOST_IMAGES};
use super::sample::{self, SampleArgs};
use super::{Common, Failure, Result, fail, input, model, note};
use clap::Args;
use imagen::array::Device;
use imagen::autograd::Tensor;
use imagen::bundled;
use imagen::cascade::{Cascade, CascadeConfig, Request, StageEntry, TextToImage};
use imagen::data::{Captions, Dataset, Split};
use imagen::eval::Lows;
use imagen::files;
use imagen::picture::{self, Layout, Picture, Text, grid};
use imagen::train::DataConfig;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Make an image larger.
///
/// A super-resolution model, or the upper stages of a cascade, draws what a small image leaves open. The words say what the
/// image shows.
#[derive(Args)]
pub struct UpscaleArgs {
    /// The image: a PNG file. It is stretched to the small size that the model wants
    image: PathBuf,
    /// What it shows; a model that takes text draws without words if it is not given
    #[arg(long)]
    prompt: Option<String>,
    /// A super-resolution model: a .safetensors file or the folder of a run
    #[arg(long, required_unless_present = "cascade", conflicts_with = "cascade")]
    model: Option<String>,
    /// A cascade, whose base model is left out: a TOML file, or mnist-cascade, the bundled one
    #[arg(long, value_name = "TOML")]
    cascade: Option<PathBuf>,
    /// How much noise is put on the image first, from 0 (it is followed closely) to 1 (it has no say) [default: as the model
    /// says]
    #[arg(long)]
    aug: Option<f64>,
    #[command(flatten)]
    drawing: Drawing,
    /// Images to draw, each with noise of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST_IMAGES))]
    count: u32,
    /// Show what the image was made into on the way
    #[arg(long)]
    stages: bool,
    #[command(flatten)]
    picture: NewPicture,
    #[command(flatten)]
    common: Common,
}

/// A cascade as a file describes it.
pub(super) struct Named {
    pub(super) cascade: Cascade,
    /// The images that its last stage was trained on, if it says so.
    pub(super) data: Option<DataConfig>,
    entries: Vec<StageEntry>,
    digests: Vec<String>,
    /// The place of each stage in the file, from 1.
    numbers: Vec<usize>,
}

impl Named {
    /// Reads `[[stage]]` by `[[stage]]`; only those that make images larger if `upper` is set.
    pub(super) fn read(file: &Path, upper: bool, device: Device) -> Result<Named> {
        let text = match file.to_str() == Some(bundled::CASCADE) {
            true => bundled::CASCADE_TOML.to_string(),
            false => files::read_small_text(file)?,
        };
        let config: CascadeConfig =
            toml::from_str(&text).map_err(|e| Failure(format!("{}: {}", file.display(), files::toml_mistake(&e))))?;
        let named = |e: Failure| Failure(format!("{}: {}", file.display(), e.0));
        Named::of(config.stage, upper, device).map_err(named)
    }

    fn of(entries: Vec<StageEntry>, upper: bool, device: Device) -> Result<Named> {
        let (mut stages, mut digests, mut kept, mut data) = (Vec::new(), Vec::new(), Vec::new(), None);
        let mut numbers = Vec::new();
        for (number, entry) in (1..).zip(entries) {
            entry.check().map_err(Failure)?;
            let found = model::find(&entry.model.to_string_lossy())?;
            let stage = found.text_to_image()?;
            let larger = stage.config().super_resolution.is_some();
            if entry.aug.is_some() && !larger {
                return fail(format!(
                    "aug has no meaning for {}, which does not make images larger",
                    entry.model.display()
                ));
            }
            if !upper || larger {
                stages.push(stage);
                data = found.data();
                digests.push(found.digest);
                kept.push(entry);
                numbers.push(number);
            }
        }
        if upper && kept.is_empty() {
            return fail("it does not make images larger");
        }
        Ok(Named { cascade: Cascade::new(stages)?.on(device), data, entries: kept, digests, numbers })
    }

    /// Where the stage of this number in the file stands among those that were read.
    pub(super) fn stage(&self, number: usize) -> Result<usize> {
        let last = self.numbers.last().copied().unwrap_or(0);
        self.numbers.iter().position(|&n| n == number).ok_or_else(|| {
            Failure(match number > last {
                true => format!("there is no stage {number}: the cascade has {last}"),
                false => format!("stage {number} is left out: real images stand in its place"),
            })
        })
    }

    /// What every stage is asked for: as its model says, then as the file says.
    pub(super) fn requests(&self, prompts: &[String], count: usize, seed: u64) -> Vec<Request> {
        let mut requests = self.cascade.requests(prompts, count, seed);
        for (request, entry) in requests.iter_mut().zip(&self.entries) {
            request.guidance = entry.guidance.unwrap_or(request.guidance);
            request.sampling = entry.sampling.unwrap_or(request.sampling);
            request.aug = entry.aug;
        }
        requests
    }

    /// Draws, with a bar over all stages.
    fn draw(&self, requests: &[Request], low: Option<&Tensor>, quiet: bool) -> Result<Vec<Vec<Picture>>> {
        let steps = |(request, stage): (&Request, &TextToImage)| {
            request.sampling.steps * (request.prompts.len() * request.count).div_ceil(stage.batch())
        };
        let all = requests.iter().zip(self.cascade.stages()).map(steps).sum();
        let bar = progress_bar(quiet, all, "steps");
        let drawn = self.cascade.sample(requests, low, &mut |_, _| {
            bar.inc(1);
            ControlFlow::Continue(())
        })?;
        bar.finish_and_clear();
        Ok(drawn.iter().map(|images| Picture::from_array(images.array())).collect())
    }

    /// What a picture remembers of how it was drawn.
    fn texts(&self, requests: &[Request]) -> Result<Text> {
        let models: Vec<String> = self.entries.iter().map(|entry| entry.model.display().to_string()).collect();
        let others = [
            ("models", models.join("; ")),
            ("models sha256", self.digests.join("; ")),
            ("requests", serde_json::to_string(requests)?),
        ];
        Ok(texts(&requests[0], others))
    }

    /// What there is to say of images that were drawn.
    fn json(&self, requests: &[Request], seconds: f64, device: Device) -> Value {
        let models: Vec<&Path> = self.entries.iter().map(|entry| &*entry.model).collect();
        let (sha256, device) = (&self.digests, device.to_string());
        json!({ "seconds": seconds, "requests": requests, "models": models, "sha256": sha256, "device": device })
    }
}

/// Real images, for the upper stages of a cascade in place of what its base draws.
struct Real {
    /// As small as the first of these stages wants them.
    low: Tensor,
    /// The same, and as large as the images of the last stage.
    pictures: [Vec<Picture>; 2],
    /// A caption of each one's class.
    captions: Vec<String>,
}

impl Real {
    /// `count` test images of the data that the last stage was trained on, the classes in turn.
    fn of(named: &Named, count: usize) -> Result<Real> {
        let Some(config) = &named.data else {
            return fail("--from-real: the last stage does not say which images it was trained on");
        };
        let folder = config.folder.clone().unwrap_or_else(|| config.name.default_folder());
        let data = Dataset::load(config.name, &folder)?.resized(config.pad, config.resolution).map_err(Failure)?;
        let Lows { chosen, images: low } = Lows::of(&named.cascade, &data.test, count)?;
        let (captions, classes) = (Captions::of(config.name), data.test.class_names.len());
        let caption =
            |(i, class): (usize, usize)| captions.caption(Split::Training, class, i / classes % captions.training());
        let captions = data.test.batch_labels(&chosen).into_iter().enumerate().map(caption).collect();
        let size = [data.test.channels, data.test.height, data.test.width];
        let whole = |&i: &usize| Picture::from_values(&data.test.batch_f32(&[i]), size);
        let pictures = [Picture::from_array(low.array()), chosen.iter().map(whole).collect()];
        Ok(Real { low, pictures, captions })
    }
}

/// `imagen sample --cascade FILE`
pub fn sample(file: &Path, args: &SampleArgs, device: Device) -> Result {
    let named = Named::read(file, args.from_real, device)?;
    let real = match args.from_real {
        true => Some(Real::of(&named, args.count.unwrap_or(16) as usize)?),
        false => None,
    };
    let mut requests = match (&args.from, &real) {
        (Some(path), _) => remembered(path, &named)?,
        (None, Some(real)) => named.requests(&real.captions, 1, 0),
        (None, None) => named.requests(&args.prompts, if args.prompts.len() == 1 { 16 } else { 8 }, 0),
    };
    if real.is_some() {
        // With the same noise for all, a fault that one noise makes would be in all of them.
        requests.iter_mut().for_each(|request| request.one_noise_each = true);
    }
    set(&mut requests, &args.drawing, |request| args.apply(request))?;
    let asked = pairs(&requests, &named);
    asked.iter().try_for_each(|(request, stage)| request::check(request, stage))?;
    if real.is_none() {
        request::notes(&asked);
    }
    let one = args.stages.then_some("the stages side by side are");
    // The seed of the first stage is the one that was asked for.
    let target = Target::of(args.out.as_deref(), args.force, one, &requests[0])?;
    let start = Instant::now();
    let drawn = named.draw(&requests, real.as_ref().map(|real| &real.low), args.common.quiet)?;
    let seconds = start.elapsed().as_secs_f64();

    let texts = |requests: &[Request]| {
        let mut text = named.texts(requests)?;
        if real.is_some() {
            text.insert("from real".to_string(), "test images".to_string());
        }
        Ok::<Text, Failure>(text)
    };
    let pictures = drawn.last().map_or(&[][..], Vec::as_slice);
    let sheet = || {
        let sheet = match &real {
            Some(Real { pictures: [low, whole], .. }) if args.stages => {
                side_by_side(&[std::slice::from_ref(low), &drawn, std::slice::from_ref(whole)].concat(), None)
            }
            None if args.stages => side_by_side(&drawn, None),
            Some(_) => grid(pictures, Layout::square(pictures.len())),
            None => sample::sheet(pictures, &requests[0]),
        };
        Ok((sheet, texts(&requests)?))
    };
    let single = |i: usize| {
        let own: Vec<Request> = requests.iter().map(|request| request::single(request, i)).collect();
        Ok((pictures[i].clone(), texts(&own)?))
    };
    let files = target.write(&args.common, sheet, single)?;
    report(&args.common, &files, named.json(&requests, seconds, device));
    Ok(ExitCode::SUCCESS)
}

/// Every request with the stage that it is for.
fn pairs<'a>(requests: &'a [Request], named: &'a Named) -> Vec<(&'a Request, &'a TextToImage)> {
    requests.iter().zip(named.cascade.stages()).collect()
}

/// The flags, on top of the requests of all stages. Their seeds stay as far apart as they are.
fn set(requests: &mut [Request], drawing: &Drawing, flags: impl Fn(&mut Request) -> Result<()>) -> Result<()> {
    let first = requests.first().map_or(0, |request| request.seed);
    for request in requests {
        let apart = request.seed.wrapping_sub(first);
        flags(request)?;
        if drawing.seed.is_some() {
            request.seed = request.seed.wrapping_add(apart);
        }
    }
    Ok(())
}

/// The settings in a picture that a cascade drew.
fn remembered(path: &Path, named: &Named) -> Result<Vec<Request>> {
    let (_, text) = picture::read(path)?;
    request::check_from_noise(path, &text)?;
    if text.contains_key("from real") {
        return fail(format!("{} began with real images; draw such a one anew with --from-real", path.display()));
    }
    let json = text.get("requests").ok_or_else(|| {
        Failure(format!("{} was not drawn by a cascade: it has no settings of one in it", path.display()))
    })?;
    let requests: Vec<Request> = serde_json::from_str(json)
        .map_err(|e| Failure(format!("{}: its settings cannot be understood: {e}", path.display())))?;
    if requests.len() != named.entries.len() {
        return fail(format!("{} was drawn by a cascade of {} stages", path.display(), requests.len()));
    }
    if text.get("models sha256").is_some_and(|digests| *digests != named.digests.join("; ")) {
        note("note: that image was drawn by other models; the same settings will draw something else");
    }
    Ok(requests)
}

/// Every image of every stage, a row an image: from the first stage to the last, all as large as the last; in front what they
/// were made from, if it is given.
fn side_by_side(drawn: &[Vec<Picture>], from: Option<&Picture>) -> Picture {
    let largest = drawn.last().and_then(|last| last.first()).map_or(1, |picture| picture.width);
    let large = |picture: &Picture| picture.enlarged((largest / picture.width).max(1));
    let count = drawn.last().map_or(0, Vec::len);
    let row = |i: usize| from.into_iter().chain(drawn.iter().map(move |stage| &stage[i])).map(large);
    let cells: Vec<Picture> = (0..count).flat_map(row).collect();
    grid(&cells, Layout::new(drawn.len() + usize::from(from.is_some())))
}

/// `imagen upscale`
pub fn upscale(args: &UpscaleArgs) -> Result {
    let device = args.common.prepare()?;
    args.picture.check()?;
    let named = match (&args.cascade, &args.model) {
        (Some(file), _) => Named::read(file, true, device)?,
        (None, Some(name)) => {
            let entry = StageEntry { model: name.into(), guidance: None, sampling: None, aug: None };
            Named::of(vec![entry], true, device).map_err(|e| Failure(format!("{name}: {}", e.0)))?
        }
        (None, None) => return fail("name a --model or a --cascade"),
    };
    let first = &named.cascade.stages()[0];
    let factor = first.config().super_resolution.map_or(1, |stage| stage.factor);
    let [channels, height, width] = first.image_size();
    let small = input::image(&args.image, [channels, height / factor, width / factor])?;

    let prompts = [args.prompt.clone().unwrap_or_default()];
    let mut requests = named.requests(&prompts, args.count as usize, 0);
    set(&mut requests, &args.drawing, |request| {
        args.drawing.apply(request)?;
        request.aug = args.aug.or(request.aug);
        if args.prompt.is_none() {
            // Without words there is nothing to be guided by.
            request.guidance = 0.0;
        }
        Ok(())
    })?;
    match (&args.prompt, &args.drawing) {
        (Some(_), _) => {
            let asked = pairs(&requests, &named);
            asked.iter().try_for_each(|(request, stage)| request::check(request, stage))?;
            request::notes(&asked);
        }
        (None, Drawing { negative: Some(_), .. }) => {
            return fail("--negative needs a --prompt: guidance leads from the one to the other");
        }
        (None, Drawing { method, .. }) if method.guidance.is_some() => {
            return fail("--guidance needs a --prompt: without words there is nothing to be guided by");
        }
        (None, _) => {}
    }
    let copies = small.broadcast_to([args.count as usize, channels, height / factor, width / factor]);
    let start = Instant::now();
    let drawn = named.draw(&requests, Some(&copies), args.common.quiet)?;
    let seconds = start.elapsed().as_secs_f64();

    let from = Picture::from_array(small.array()).remove(0);
    let last = drawn.last().map_or(&[][..], Vec::as_slice);
    let sheet = match (args.stages, last) {
        (false, [one]) => one.clone(),
        (false, _) => grid(last, Layout::square(last.len())),
        (true, _) => side_by_side(&drawn, Some(&from)),
    };
    let mut text = named.texts(&requests)?;
    text.insert("image".to_string(), args.image.display().to_string());
    let files = args.picture.save(&sheet, &text)?;
    report(&args.common, &files, named.json(&requests, seconds, device));
    Ok(ExitCode::SUCCESS)
}
