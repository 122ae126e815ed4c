//! `imagen sample`

use super::model::{self, Judge};
use super::{Common, Failure, Result, cascade, fail, note, print};
use clap::{Args, ValueEnum};
use imagen::array::Device;
use imagen::autograd::Tensor;
use imagen::cascade::{Lead, Request, TextToImage};
use imagen::diffusion::{SamplerKind, Step, Threshold};
use imagen::files;
use imagen::picture::{self, Layout, Picture, Text, frames, grid, strip, terminal};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
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
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_IMAGES as i64))]
    pub(super) count: Option<u32>,
    /// Steps of the sampler [default: as the model says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS as i64))]
    steps: Option<u32>,
    /// The rule for a step [default: as the model says]
    #[arg(long, value_enum)]
    sampler: Option<SamplerName>,
    /// How strongly the words guide: 0 ignores them, 1 is plain, more exaggerates [default: as the model says]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// What not to draw: guidance leads away from these words
    #[arg(long, value_name = "PROMPT")]
    negative: Option<String>,
    /// A classifier of noised images that leads towards --class, besides the words or in place of them
    #[arg(long, value_name = "MODEL", requires = "class")]
    classifier: Option<String>,
    /// Where the classifier leads: the name or the number of a class
    #[arg(long, requires = "classifier")]
    class: Option<String>,
    /// How strongly the classifier leads: 0 not at all, 1 is plain [default: 1]
    #[arg(long, value_name = "S", requires = "classifier", allow_negative_numbers = true)]
    classifier_scale: Option<f64>,
    /// What is done to the model's guess of the image, whose pixels should be in [-1, 1] [default: as the model says]
    #[arg(long, value_enum)]
    threshold: Option<ThresholdName>,
    /// Chooses the noise that the images grow from [default: 0]
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// A PNG file, or a folder for one file an image [default: a new PNG named after the prompt]
    #[arg(long, value_name = "PATH")]
    pub(super) out: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Show the way from noise to image as a filmstrip: above x_t, below the model's guess of the image
    #[arg(long)]
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

/// The samplers, with their usual numbers.
#[derive(Clone, Copy, ValueEnum)]
enum SamplerName {
    /// Random: draws from the model's reverse process
    Ancestral,
    /// The same, with the variance that the model has learned
    AncestralLearned,
    /// Deterministic: first order
    Ddim,
    /// Deterministic: second order, for few steps
    DpmSolver,
}

impl SamplerName {
    fn kind(self) -> SamplerKind {
        match self {
            SamplerName::Ancestral => SamplerKind::Ancestral { gamma: 0.0 },
            SamplerName::AncestralLearned => SamplerKind::AncestralLearned {},
            SamplerName::Ddim => SamplerKind::Ddim { eta: 0.0 },
            SamplerName::DpmSolver => SamplerKind::DpmSolver {},
        }
    }
}

/// Thresholding, with its usual numbers.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ThresholdName {
    /// Nothing is done
    None,
    /// Pixels are clipped
    Static,
    /// Where many pixels are beyond, all are divided (99.5th percentile)
    Dynamic,
}

impl ThresholdName {
    pub(super) fn threshold(self) -> Threshold {
        match self {
            ThresholdName::None => Threshold::None,
            ThresholdName::Static => Threshold::Static,
            ThresholdName::Dynamic => Threshold::dynamic(99.5),
        }
    }
}

/// Images a prompt.
const MOST_IMAGES: usize = 4096;
/// Steps of the sampler.
const MOST_STEPS: usize = 100_000;
/// Endings that mean a picture, not a folder.
const OTHER_FORMATS: [&str; 7] = ["jpg", "jpeg", "gif", "webp", "bmp", "tif", "svg"];

/// Frames of a filmstrip.
const FRAMES: usize = 12;

/// Where the images go: whole into one file, or one by one into a folder.
pub(super) enum Target {
    File(PathBuf),
    Folder(PathBuf),
}

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
    let target = target(args, &request)?;

    let start = Instant::now();
    let batches = request.prompts.len() * request.count;
    let bar = progress_bar(args.common.quiet, request.sampling.steps * batches.div_ceil(model.batch()));
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
    let mut text = texts(&request, &found.origin, &found.digest);
    let written = match target {
        Target::File(path) => {
            let picture = if args.strip { filmstrip(&films, &request) } else { sheet(&pictures, &request) };
            text.insert("request".into(), serde_json::to_string(&request)?);
            picture::write(&path, &picture, &text)?;
            preview(&picture, args);
            vec![path]
        }
        Target::Folder(folder) => {
            let paths = file_names(&folder, &request);
            for (i, (path, picture)) in paths.iter().zip(&pictures).enumerate() {
                let single = single(&request, i);
                text.insert("request".into(), serde_json::to_string(&single)?);
                text.insert("prompt".into(), single.prompts[0].clone());
                picture::write(path, picture, &text)?;
            }
            paths
        }
    };
    if args.common.json {
        print(
            serde_json::json!({ "files": written, "seconds": seconds, "request": request, "model": found.origin, "sha256": found.digest, "device": device.to_string() }),
        );
    } else {
        written.iter().for_each(|path| print(path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The request the flags describe, on top of the model's defaults or of the image named by --from.
fn request(args: &SampleArgs, model: &TextToImage, digest: &str) -> Result<Request> {
    let mut request = match &args.from {
        None => Request { count: if args.prompts.len() == 1 { 16 } else { 8 }, ..model.request(args.prompts.clone()) },
        Some(path) => {
            let (_, text) = picture::read(path)?;
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
    apply(args, &mut request)?;
    check(&request, model)?;
    note_on_negative(&request, model);
    Ok(request)
}

/// The flags, on top of a request.
pub(super) fn apply(args: &SampleArgs, request: &mut Request) -> Result<()> {
    // Real images are told apart by their prompts: there is one of each.
    if let Some(count) = args.count.filter(|_| !args.from_real) {
        request.count = count as usize;
    }
    if let Some(steps) = args.steps {
        request.sampling.steps = steps as usize;
    }
    if let Some(sampler) = args.sampler {
        request.sampling.sampler = sampler.kind();
    }
    if let Some(guidance) = args.guidance {
        request.guidance = guidance;
    }
    if let Some(threshold) = args.threshold {
        request.sampling.threshold = threshold.threshold();
    }
    if args.negative.is_some() {
        request.negative = args.negative.clone();
    }
    if let Some(seed) = args.seed {
        request.seed = seed;
    }
    if args.strip {
        request.count = 1;
    }
    if !request.guidance.is_finite() {
        return fail(format!("--guidance must be a number, not {}", request.guidance));
    }
    Ok(())
}

/// An error if the request cannot be meant, and notes on what will have no effect.
pub(super) fn check(request: &Request, model: &TextToImage) -> Result<()> {
    // The flags are within these bounds; the settings in a picture may be anything.
    let within = |n: usize, most: usize| (1..=most).contains(&n);
    let whole = !request.prompts.is_empty() && request.first.checked_add(MOST_IMAGES as u64).is_some();
    if !whole || !within(request.count, MOST_IMAGES) || !within(request.sampling.steps, MOST_STEPS) {
        return fail("the settings in that picture are not those of this program; draw it anew");
    }
    // Before anything is drawn: a prompt without words, or with too many.
    let prompts: Vec<&str> = request.prompts.iter().chain(&request.negative).map(String::as_str).collect();
    let read = model.encoder().map_or_else(|| Ok(Vec::new()), |encoder| encoder.encode_all(&prompts))?;
    for (prompt, embedding) in prompts.iter().zip(read).filter(|(_, embedding)| embedding.left_out > 0) {
        let (read, left_out) = (embedding.n, embedding.left_out);
        note(format!("note: only the first {read} tokens of {prompt:?} are read; {left_out} are left out"));
    }
    Ok(())
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

/// Says if the negative prompt does not do what it is for.
pub(super) fn note_on_negative(request: &Request, model: &TextToImage) {
    let why = match request.guidance {
        _ if request.negative.is_none() => return,
        _ if model.encoder().is_none() => "has no effect: this model takes no text",
        1.0 => "has no effect: the guidance is 1, which is none",
        w if w < 1.0 => "is led towards, not away from: the guidance is below 1",
        _ => return,
    };
    note(format!("note: the negative prompt {why}"));
}

/// Where to write, checked before anything is drawn.
pub(super) fn target(args: &SampleArgs, request: &Request) -> Result<Target> {
    let is_png = |p: &Path| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    let exists =
        |p: &Path| Failure(format!("{} exists; choose another name, or add --force to replace it", p.display()));
    let target = match &args.out {
        None => Target::File(unused_name(request)?),
        Some(path) if is_png(path) => {
            if path.exists() && !args.force {
                return Err(exists(path));
            }
            Target::File(path.clone())
        }
        Some(path) if path.extension().is_some_and(|e| OTHER_FORMATS.iter().any(|f| e.eq_ignore_ascii_case(f))) => {
            return fail(format!(
                "cannot write {}: pictures are PNG files; let --out end in .png, or name a folder",
                path.display()
            ));
        }
        Some(_) if args.strip => return fail("a filmstrip is one picture: let --out end in .png"),
        Some(folder) => {
            files::create_folder(folder)?;
            if let Some(old) = file_names(folder, request).iter().find(|p| p.exists() && !args.force) {
                return Err(exists(old));
            }
            Target::Folder(folder.clone())
        }
    };
    // Found out now rather than after minutes of drawing.
    match &target {
        Target::File(path) => files::check_file(path)?,
        Target::Folder(folder) => files::check_writable(folder)?,
    }
    Ok(target)
}

/// A PNG in the current folder named after the first prompt; a number is added if there is one of that name.
fn unused_name(request: &Request) -> Result<PathBuf> {
    let stem = slug(&request.prompts[0]);
    let numbered = (2..10_000).map(|i| format!("{stem}-{i}.png"));
    let name = std::iter::once(format!("{stem}.png")).chain(numbered).find(|n| !Path::new(n).exists());
    name.map(PathBuf::from)
        .ok_or_else(|| Failure(format!("there are thousands of images named {stem}; name one with --out")))
}

/// A prompt as part of a file name.
fn slug(prompt: &str) -> String {
    let words: Vec<String> =
        prompt.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    let mut slug = words.join("-");
    let end = slug.char_indices().map(|(i, _)| i).take_while(|&i| i <= 60).last().unwrap_or(0);
    if slug.len() > 60 {
        slug.truncate(end);
    }
    if slug.is_empty() { "image".to_string() } else { slug }
}

/// One file an image: row, prompt, number.
pub(super) fn file_names(folder: &Path, request: &Request) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for (row, prompt) in request.prompts.iter().enumerate() {
        for i in 0..request.count {
            names.push(folder.join(format!("{:03}-{}-seed{}-{i:03}.png", row + 1, slug(prompt), request.seed)));
        }
    }
    names
}

/// The request that draws image i of `request` alone.
pub(super) fn single(request: &Request, i: usize) -> Request {
    let number = if request.one_noise_each { i } else { i % request.count };
    Request {
        prompts: vec![request.prompts[i / request.count].clone()],
        count: 1,
        first: request.first + number as u64,
        ..request.clone()
    }
}

fn texts(request: &Request, origin: &str, digest: &str) -> Text {
    Text::from([
        ("prompt".to_string(), request.prompts.join("; ")),
        ("seed".to_string(), request.seed.to_string()),
        ("model".to_string(), origin.to_string()),
        ("model sha256".to_string(), digest.to_string()),
        ("Software".to_string(), format!("imagen {}", env!("CARGO_PKG_VERSION"))),
    ])
}

/// All images: a square for one prompt, a row for each of several.
pub(super) fn sheet(pictures: &[Picture], request: &Request) -> Picture {
    let columns = match request.prompts.len() {
        1 => (request.count as f64).sqrt().ceil() as usize,
        _ => request.count,
    };
    grid(pictures, Layout::new(columns))
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

/// A small picture in the terminal, if there is one.
pub(super) fn preview(picture: &Picture, args: &SampleArgs) {
    if terminal::supported() && !args.common.json && !args.common.quiet {
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(80).min(100);
        print(terminal::preview(picture, columns, terminal::Colours::of_terminal()));
    }
}

pub(super) fn progress_bar(quiet: bool, length: usize) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {percent}%  {eta} left").expect("the template is right");
    ProgressBar::new(length as u64).with_style(style)
}
