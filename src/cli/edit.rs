//! `imagen edit`

use super::cascade::{check_new_picture, resized};
use super::sample::progress_bar;
use super::{Common, Result, fail, model, note, print};
use clap::Args;
use imagen::autograd::Tensor;
use imagen::cascade::{Edit, Request};
use imagen::picture::{self, Layout, Picture, Text, grid};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Change an image.
///
/// With --mask what is white in it is drawn anew, and the rest stays as it is. Otherwise the whole image is noised and drawn anew
/// from there: --strength says how far.
#[derive(Args)]
pub struct EditArgs {
    /// The image: a PNG file of one image. It is stretched to the size of the model's images
    image: PathBuf,
    /// What it should show
    prompt: String,
    /// How much is changed, above 0 and up to 1, where nothing is left of the image
    #[arg(long, default_value_t = 0.6, conflicts_with = "mask", value_parser = parse_strength)]
    strength: f64,
    /// A PNG file: white where the image is drawn anew
    #[arg(long, value_name = "PNG")]
    mask: Option<PathBuf>,
    /// How often each step is taken when a part is drawn anew: more, and it fits the rest better
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100), requires = "mask")]
    rounds: u16,
    /// How strongly the words guide [default: as the model says]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Steps of the sampler [default: as the model says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: Option<u32>,
    /// Images to draw, each with noise of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    count: u32,
    /// Chooses the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A bundled model, a .safetensors file or the folder of a run
    #[arg(long, default_value = "mnist")]
    model: String,
    /// The PNG file to write: the image, what is drawn anew in orange, and the results
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

fn parse_strength(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(strength) if strength > 0.0 && strength <= 1.0 => Ok(strength),
        _ => Err("it must be a number above 0, at most 1".to_string()),
    }
}

pub fn run(args: &EditArgs) -> Result {
    let device = args.common.prepare()?;
    check_new_picture(&args.out, args.force)?;
    let found = model::find(&args.model)?;
    let model = found.text_to_image()?.on(device);
    let [channels, height, width] = model.image_size();
    let image = resized(&picture::read(&args.image)?.0, [channels, height, width]);
    let edit = match &args.mask {
        None => Edit::Renoise { start: args.strength },
        Some(mask) => {
            let white = resized(&picture::read(mask)?.0, [1, height, width]);
            let stays: Vec<f64> = white.to_f64().iter().map(|&v| f64::from(u8::from(v < 0.0))).collect();
            if stays.iter().all(|&stays| stays == 1.0) {
                return fail(format!("{} has nothing white in it, so nothing would be drawn anew", mask.display()));
            }
            Edit::Inpaint { mask: white.constant_like([1, 1, height, width], &stays), rounds: args.rounds.into() }
        }
    };
    let defaults = model.request(vec![args.prompt.clone()]);
    let mut request = Request {
        count: args.count as usize,
        guidance: args.guidance.unwrap_or(defaults.guidance),
        seed: args.seed,
        ..defaults
    };
    if !request.guidance.is_finite() {
        return fail(format!("--guidance must be a number, not {}", request.guidance));
    }
    request.sampling.steps = args.steps.map_or(request.sampling.steps, |steps| steps as usize);
    if model.encoder().is_none() {
        note("note: this model takes no text; the words have no effect");
    }
    let rounds = if let Edit::Inpaint { rounds, .. } = edit { rounds } else { 1 };
    let bar = progress_bar(args.common.quiet, request.sampling.steps * rounds * request.count.div_ceil(model.batch()));
    let copies = image.broadcast_to([request.count, channels, height, width]);
    let drawn = model.edit(&request, &copies, &edit, &mut |_| {
        bar.inc(1);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();

    let mut cells = vec![Picture::from_array(image.array()).remove(0)];
    if let Edit::Inpaint { mask, .. } = &edit {
        cells.push(covered(&cells[0], mask));
    }
    cells.extend(Picture::from_array(drawn.array()));
    // A picture in colour beside grey ones: all in colour.
    let cells: Vec<Picture> = cells.iter().map(in_colour).collect();
    let sheet = grid(&cells, Layout::new(cells.len().min(10)));
    let text = Text::from([
        ("prompt".to_string(), args.prompt.clone()),
        ("seed".to_string(), args.seed.to_string()),
        ("model".to_string(), found.origin.clone()),
        ("model sha256".to_string(), found.digest.clone()),
        ("Software".to_string(), format!("imagen {}", env!("CARGO_PKG_VERSION"))),
    ]);
    picture::write(&args.out, &sheet, &text)?;
    match args.common.json {
        true => print(serde_json::json!({ "files": [&args.out], "request": request, "device": device.to_string() })),
        false => print(args.out.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The picture with orange where it is drawn anew.
fn covered(picture: &Picture, stays: &Tensor) -> Picture {
    let mut covered = in_colour(picture);
    for (pixel, stays) in covered.pixels.chunks_exact_mut(3).zip(stays.to_f64()) {
        if stays == 0.0 {
            pixel.copy_from_slice(&[213, 94, 0]);
        }
    }
    covered
}

fn in_colour(picture: &Picture) -> Picture {
    match picture.channels {
        3 => picture.clone(),
        _ => Picture { channels: 3, pixels: picture.pixels.iter().flat_map(|&v| [v; 3]).collect(), ..*picture },
    }
}
