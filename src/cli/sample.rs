//! `imagen sample`

use super::model::{self, Judge};
use super::output::{Target, progress_bar, report, texts};
use super::request::{Drawing, MOST_IMAGES, check, check_from_noise, notes, single};
use super::{Common, Failure, Result, cascade, fail, note};
use clap::Args;
use imagen::array::Device;
use imagen::autograd::Tensor;
use imagen::cascade::{Lead, Request, TextToImage};
use imagen::diffusion::Step;
use imagen::picture::{self, Layout, Picture, Text, frames, grid, strip};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Draw images from sentences.
///
/// One prompt gives a square grid, several give a row each. The same command with the same seed draws the same images.
#[derive(Args)]
pub struct SampleArgs {
    /// What to draw, such as "a handwritten seven"
    #[arg(required_unless_present_any = ["from", "from_real"])]
    pub(super) prompts: Vec<String>,
    /// Images a prompt [default: 16 for one prompt, 8 for several]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_IMAGES))]
    pub(super) count: Option<u32>,
    #[command(flatten)]
    pub(super) drawing: Drawing,
    /// A classifier of noised images that leads towards --class, besides the words or in place of them
    #[arg(long, value_name = "MODEL", requires = "class")]
    classifier: Option<String>,
    /// Where the classifier leads: the name or the number of a class
    #[arg(long, requires = "classifier")]
    class: Option<String>,
    /// How strongly the classifier leads: 0 not at all, 1 is plain [default: 1]
    #[arg(long, value_name = "S", requires = "classifier", allow_negative_numbers = true)]
    classifier_scale: Option<f64>,
    /// A PNG file, or a folder for one file an image [default: a new PNG named after the prompt]
    #[arg(long, value_name = "PATH")]
    pub(super) out: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    pub(super) force: bool,
    /// Show the way from noise to image as a filmstrip, one image a prompt: above x_t, below the model's guess of the image
    #[arg(long, conflicts_with = "count")]
    strip: bool,
    /// A bundled model, a .safetensors file or the folder of a run
    #[arg(long, default_value = "mnist")]
    model: String,
    /// A cascade of models in place of --model, each of which makes the images of the one before it larger: a TOML file, or
    /// mnist-cascade, the bundled one
    #[arg(long, value_name = "TOML", conflicts_with_all = ["model", "strip", "classifier", "half"])]
    cascade: Option<PathBuf>,
    /// Show the images of every stage of the cascade side by side, a row an image
    #[arg(long, requires = "cascade")]
    pub(super) stages: bool,
    /// Leave the base of the cascade out, and make real test images larger, --count of them, each with a caption of its own class:
    /// is a fault in the stages above the base?
    #[arg(long, requires = "cascade", conflicts_with_all = ["prompts", "from"])]
    pub(super) from_real: bool,
    /// Repeat the settings an image was drawn with
    #[arg(long, value_name = "PNG", conflicts_with = "prompts")]
    pub(super) from: Option<PathBuf>,
    /// On a GPU that computes with f16, keep the weights in 16 bits a number; elsewhere it changes nothing
    #[arg(long)]
    half: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Frames of a filmstrip.
const FRAMES: usize = 12;

pub fn run(args: &SampleArgs) -> Result {
    let device = args.common.prepare()?;
    if let Some(file) = &args.cascade {
        return cascade::sample(file, args, device);
    }
    let found = model::find(&args.model)?;
    let model = found.text_to_image()?.on(device);
    let model = if args.half { model.halved() } else { model };
    let mut request = request(args, &model, &found.digest)?;
    let model = led(args, model, device, &mut request)?;
    let one = args.strip.then_some("a filmstrip is");
    let target = Target::of(args.out.as_deref(), args.force, one, &request)?;

    let start = Instant::now();
    let batches = request.prompts.len() * request.count;
    let bar = progress_bar(args.common.quiet, request.sampling.steps * batches.div_ceil(model.batch()), "steps");
    let wanted = frames(request.sampling.steps, FRAMES);
    let mut films: Vec<(Vec<Picture>, Vec<Picture>)> = Vec::new();
    let images = model.sample(&request, &mut |step| {
        bar.inc(1);
        if args.strip {
            film(&step, &wanted, &mut films);
        }
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();

    let pictures = Picture::from_array(images.array());
    let text = |request: &Request| -> Result<Text> {
        let (origin, digest) = (found.origin.clone(), found.digest.clone());
        let own = serde_json::to_string(request)?;
        Ok(texts(request, [("model", origin), ("model sha256", digest), ("request", own)]))
    };
    let whole = || {
        let picture = if args.strip { filmstrip(&films, &request) } else { sheet(&pictures, &request) };
        Ok((picture, text(&request)?))
    };
    let one = |i: usize| Ok((pictures[i].clone(), text(&single(&request, i))?));
    let files = target.write(&args.common, whole, one)?;
    let device = device.to_string();
    let (model, sha256) = (&found.origin, &found.digest);
    let more = json!({ "seconds": seconds, "request": request, "model": model, "sha256": sha256, "device": device });
    report(&args.common, &files, more);
    Ok(ExitCode::SUCCESS)
}

impl SampleArgs {
    /// The flags, on top of a request.
    pub(super) fn apply(&self, request: &mut Request) -> Result<()> {
        // Real images are told apart by their prompts: there is one of each. A filmstrip shows one as well.
        match self.count {
            _ if self.strip => request.count = 1,
            Some(count) if !self.from_real => request.count = count as usize,
            _ => {}
        }
        self.drawing.apply(request)
    }
}

/// The request the flags describe, on top of the model's defaults or of the image named by --from.
fn request(args: &SampleArgs, model: &TextToImage, digest: &str) -> Result<Request> {
    let mut request = match &args.from {
        None => Request { count: if args.prompts.len() == 1 { 16 } else { 8 }, ..model.request(args.prompts.clone()) },
        Some(path) => {
            let (_, text) = picture::read(path)?;
            check_from_noise(path, &text)?;
            let json = text.get("request").ok_or_else(|| {
                let why = match text.contains_key("requests") {
                    true => "was drawn by a cascade; name it with --cascade",
                    false => "was not drawn by `imagen sample`: it has no settings of it",
                };
                Failure(format!("{} {why}", path.display()))
            })?;
            if text.get("model sha256").is_some_and(|d| d != digest) {
                note("note: that image was drawn by another model; the same settings will draw something else");
            }
            serde_json::from_str(json)
                .map_err(|e| Failure(format!("{}: its settings cannot be understood: {e}", path.display())))?
        }
    };
    args.apply(&mut request)?;
    check(&request, model)?;
    notes(&[(&request, model)]);
    Ok(request)
}

/// The model, led by the classifier that the flags name.
fn led(args: &SampleArgs, model: TextToImage, device: Device, request: &mut Request) -> Result<TextToImage> {
    let (Some(name), Some(class)) = (&args.classifier, &args.class) else {
        return match request.lead {
            None => Ok(model),
            Some(Lead { class, scale }) => fail(format!(
                "a classifier led that image to class {class}; name it: --classifier MODEL --class {class} --classifier-scale {scale}"
            )),
        };
    };
    let judge = Judge::find(name)?;
    let scale = args.classifier_scale.or(request.lead.map(|lead| lead.scale)).unwrap_or(1.0);
    if !scale.is_finite() {
        return fail(format!("--classifier-scale must be a number, not {scale}"));
    }
    request.lead = Some(Lead { class: judge.class(class)?, scale });
    judge.leading(model, device)
}

/// All images: a square for one prompt, a row for each of several.
pub(super) fn sheet(pictures: &[Picture], request: &Request) -> Picture {
    let layout = match request.prompts.len() {
        1 => Layout::square(request.count),
        _ => Layout::new(request.count),
    };
    grid(pictures, layout)
}

/// Keeps x_t and x_hat_0 of the wanted steps, one film an image.
fn film(step: &Step<'_>, wanted: &[usize], films: &mut Vec<(Vec<Picture>, Vec<Picture>)>) {
    if !wanted.contains(&step.index) {
        return;
    }
    let pictures = |t: &Tensor| Picture::from_array(t.array());
    let pairs = pictures(step.x_t).into_iter().zip(pictures(step.x0_hat));
    // Every batch of images begins again at the first step.
    let begins = step.index == wanted[0];
    let count = step.x_t.shape()[0];
    if begins {
        films.extend((0..count).map(|_| (Vec::new(), Vec::new())));
    }
    let first = films.len() - count;
    for (film, (x_t, x0_hat)) in films[first..].iter_mut().zip(pairs) {
        film.0.push(x_t);
        film.1.push(x0_hat);
    }
}

/// The films of all prompts, one below the other.
fn filmstrip(films: &[(Vec<Picture>, Vec<Picture>)], request: &Request) -> Picture {
    let layout = Layout { enlarge: 3, ..Layout::new(request.sampling.steps.min(FRAMES)) };
    let strips: Vec<Picture> = films.iter().map(|(x_t, x0_hat)| strip(x_t, x0_hat, layout)).collect();
    grid(&strips, Layout { enlarge: 1, ..Layout::new(1) })
}
