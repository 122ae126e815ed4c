//! `imagen edit`

use super::output::{NewPicture, progress_bar, report, texts};
use super::request::{Drawing, MOST_IMAGES, SamplerName, check, notes};
use super::{Common, Result, fail, input, model};
use clap::Args;
use imagen::autograd::Tensor;
use imagen::cascade::{Edit, Request};
use imagen::diffusion::SamplerKind;
use imagen::picture::{Layout, Picture, grid};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Change an image.
///
/// With --mask what is white in it is drawn anew, and the rest stays as it is. Otherwise the whole image is noised and drawn anew
/// from there: --strength says how far. The picture shows the image, with --mask also what is drawn anew, in orange, and the results.
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
    #[command(flatten)]
    drawing: Drawing,
    /// Images to draw, each with noise of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=MOST_IMAGES))]
    count: u32,
    /// A bundled model, a .safetensors file or the folder of a run
    #[arg(long, default_value = "mnist")]
    model: String,
    #[command(flatten)]
    picture: NewPicture,
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
    args.picture.check()?;
    if let (Some(_), Some(SamplerName::Ddim | SamplerName::DpmSolver)) = (&args.mask, args.drawing.method.sampler) {
        return fail("with --mask the --sampler must be an ancestral one: each step is taken again from fresh noise");
    }
    let found = model::find(&args.model)?;
    let model = found.text_to_image()?.on(device);
    let [channels, height, width] = model.image_size();
    let image = input::image(&args.image, [channels, height, width])?;
    let edit = match &args.mask {
        None => Edit::Renoise { start: args.strength },
        Some(mask) => {
            let white = input::image(mask, [1, height, width])?;
            let stays: Vec<f64> = white.to_f64().iter().map(|&v| f64::from(u8::from(v < 0.0))).collect();
            if stays.iter().all(|&stays| stays == 1.0) {
                return fail(format!("{} has nothing white in it, so nothing would be drawn anew", mask.display()));
            }
            Edit::Inpaint { mask: white.constant_like([1, 1, height, width], &stays), rounds: args.rounds.into() }
        }
    };
    let mut request = Request { count: args.count as usize, ..model.request(vec![args.prompt.clone()]) };
    if let (Edit::Inpaint { .. }, SamplerKind::Ddim { .. } | SamplerKind::DpmSolver {}) =
        (&edit, request.sampling.sampler)
    {
        // What a part is drawn by in any case: going forward again takes noise.
        request.sampling.sampler = SamplerKind::Ancestral { gamma: 0.0 };
    }
    args.drawing.apply(&mut request)?;
    check(&request, &model)?;
    notes(&[(&request, &model)]);
    let rounds = if let Edit::Inpaint { rounds, .. } = edit { rounds } else { 1 };
    let steps = request.sampling.steps * rounds * request.count.div_ceil(model.batch());
    let bar = progress_bar(args.common.quiet, steps, "steps");
    let copies = image.broadcast_to([request.count, channels, height, width]);
    let start = Instant::now();
    let drawn = model.edit(&request, &copies, &edit, &mut |_| {
        bar.inc(1);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();

    let mut cells = vec![Picture::from_array(image.array()).remove(0)];
    if let Edit::Inpaint { mask, .. } = &edit {
        cells.push(covered(&cells[0], mask));
    }
    cells.extend(Picture::from_array(drawn.array()));
    // A picture in colour beside grey ones: all in colour.
    let cells: Vec<Picture> = cells.iter().map(in_colour).collect();
    let sheet = grid(&cells, Layout::new(cells.len().min(10)));
    let how = match &args.mask {
        None => json!({ "strength": args.strength }),
        Some(mask) => json!({ "mask": mask, "rounds": args.rounds }),
    };
    let others = [
        ("model", found.origin.clone()),
        ("model sha256", found.digest.clone()),
        ("request", serde_json::to_string(&request)?),
        ("image", args.image.display().to_string()),
        ("edit", how.to_string()),
    ];
    let files = args.picture.save(&sheet, &texts(&request, others))?;
    let (model, sha256, device) = (&found.origin, &found.digest, device.to_string());
    let more = json!({ "seconds": seconds, "request": request, "edit": how, "model": model, "sha256": sha256, "device": device });
    report(&args.common, &files, more);
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
