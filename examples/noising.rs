//! `cargo run --example noising`: the forward process of diffusion, q(x_t | x_0), on one handwritten digit.
//!
//! x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps: at t = 0 the image, at t = 1 nothing but noise, and at every t
//! one formula away (A2). A network that tells eps from x_t can walk back; that is all of diffusion. Draws the way into
//! out/noising.png, above on the linear schedule, below on the cosine one.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::{DiscreteSchedule, Levels, Schedule, q_sample};
use imagen::files;
use imagen::picture::{self, Layout, Picture, Text, grid};
use imagen::random::{Purpose, normal};
use std::error::Error;
use std::path::Path;

/// Pictures a row, from t = 0 to t = 1.
const FRAMES: usize = 11;

/// A word for how much of the image is left.
fn left(snr: f64) -> &'static str {
    match snr {
        _ if snr == f64::INFINITY => "the image",
        _ if snr > 10.0 => "the image, a little grainy",
        _ if snr > 1.0 => "more image than noise",
        _ if snr > 0.1 => "more noise than image",
        _ if snr > 0.001 => "a shadow, if one knows where to look",
        _ => "noise",
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let digits = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.test;
    let pixels: Vec<f64> = digits.batch_f32(&[0]).into_iter().map(f64::from).collect();
    let x0 = Tensor::from_f64([1, 1, 28, 28], &pixels, DType::F32);
    // The same noise for every t, so that only its share changes.
    let eps = Tensor::from_f64([1, 1, 28, 28], &normal(0, Purpose::Test, 0, 0, 28 * 28), DType::F32);
    println!("A handwritten {} turns into noise.", digits.class_names[usize::from(digits.labels[0])]);

    let mut frames = Vec::new();
    for (name, schedule) in [("linear", DiscreteSchedule::linear(1000)), ("cosine", DiscreteSchedule::cosine(1000))] {
        println!("\n{name} schedule\n    t    alpha_bar  SNR = alpha_bar / (1 - alpha_bar)");
        for i in 0..FRAMES {
            let t = i as f64 / (FRAMES - 1) as f64;
            let alpha_bar = schedule.alpha_bar(t);
            let snr = schedule.log_snr(t).exp();
            println!("  {t:.2}  {alpha_bar:>10.6}  {snr:>11.4e}   {}", left(snr));
            let x_t = q_sample(&x0, &eps, &Levels::at(&schedule, &[t], DType::F32));
            frames.extend(Picture::from_array(x_t.array()));
        }
    }

    let out = Path::new("out");
    files::create_folder(out)?;
    let sheet = grid(&frames, Layout::new(FRAMES));
    picture::write(&out.join("noising.png"), &sheet, &Text::new())?;
    println!(
        "\nout/noising.png shows both. The linear schedule has lost the digit halfway and spends the rest on noise;"
    );
    println!("that is why the cosine one was made (Nichol and Dhariwal 2021).");
    Ok(())
}
