//! Chapter 10: inside the U-Net. The bundled model of handwritten digits, opened: the shapes on the way down and up, what
//! the channels see, what is predicted at every noise level, which pixels look at which word, and how time is told.

mod chapter;

use chapter::Chapter;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{TextToImage, bundled};
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::{Levels, q_sample};
use imagen::nn::sinusoidal;
use imagen::picture::{Chart, Curve, Diagram, Layout, Picture, Tint, charts, grid};
use imagen::random::{Purpose, normal};
use imagen::text::t5::T5Encoder;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

/// The model, and one handwritten digit with its noise.
struct Bench {
    model: TextToImage,
    x0: Tensor,
    eps: Tensor,
}

/// What the network computed on the way, by the name of the layer.
type Seen = BTreeMap<String, Array>;

impl Bench {
    fn new() -> Result<Bench, Box<dyn Error>> {
        let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
        let digits = Dataset::load(DatasetName::Mnist, Path::new("assets/mnist"))?.test;
        let pixels: Vec<f64> = digits.batch_f32(&[0]).into_iter().map(f64::from).collect();
        let x0 = Tensor::from_f64([1, 1, 28, 28], &pixels, DType::F32);
        let eps = Tensor::from_f64([1, 1, 28, 28], &normal(0, Purpose::Test, 0, 0, 28 * 28), DType::F32);
        println!("The digit is the first of the test images, a {}.", digits.class_names[usize::from(digits.labels[0])]);
        Ok(Bench { model, x0, eps })
    }

    /// The digit at time t, and what the network makes of it with this caption: x_hat_0, and all results on the way.
    fn look(&self, t: f64, caption: Option<&str>) -> Result<(Tensor, Tensor, Seen), Box<dyn Error>> {
        let levels = Levels::at(self.model.schedule(), &[t], DType::F32);
        let x_t = q_sample(&self.x0, &self.eps, &levels);
        let condition = caption.map(|caption| self.model.encode(&[caption.into()])).transpose()?.flatten();
        let mut seen = Seen::new();
        let said = no_grad(|| {
            self.model.unet().forward_watched(&x_t, &[t], condition.as_ref(), &mut |name, value| {
                seen.insert(name.into(), value.array().clone());
            })
        });
        let x_hat_0 = self.model.config().diffusion.target.to_x0(&said, &x_t, &levels);
        Ok((x_t, x_hat_0, seen))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch10");
    by_hand();
    let bench = Bench::new()?;
    count(&bench.model);
    let (_, _, seen) = bench.look(0.5, Some("a handwritten seven"))?;
    chapter.svg("unet.svg", &diagram(&seen))?;
    chapter.png("feature-maps.png", &feature_maps(&seen))?;
    chapter.png("predictions.png", &predictions(&bench, &chapter)?)?;
    chapter.png("attention.png", &attention(&bench, &chapter)?)?;
    chapter.png("time.png", &time_picture(&bench.model, &chapter))?;
    chapter.svg("likeness.svg", &likeness(&bench.model, &chapter))
}

/// Numbers small enough for paper: softmax, and the mean of values with its shares.
fn by_hand() {
    let values = Tensor::from_f64([3, 1], &[10.0, 20.0, 60.0], DType::F64);
    for scale in [1.0, 8.0] {
        let shares = Tensor::from_f64([1, 3], &[2.0 * scale, scale, 0.0], DType::F64).softmax(-1);
        let (y, found) = (shares.to_f64(), shares.matmul(&values).item());
        println!("Scores {}, {scale}, 0: shares {:.4}, {:.4}, {:.4}", 2.0 * scale, y[0], y[1], y[2]);
        println!("  of the values 10, 20, 60 that is {found:.2}; d y_1 / d s_1 = {:.4}", y[0] * (1.0 - y[0]));
    }
}

/// Where the parameters are.
fn count(model: &TextToImage) {
    let of = |parts: &[&str]| -> usize {
        let parameters = model.parameters().iter().filter(|p| parts.iter().any(|part| p.name().contains(part)));
        parameters.map(|p| p.shape().numel()).sum()
    };
    let all = model.parameters().count();
    println!("\nThe network has {all} parameters, of them");
    for (what, parts) in [
        ("in the first convolution of a block", &["conv1"][..]),
        ("in the second convolution of a block", &["conv2"]),
        ("in the 1x1 shortcuts of blocks", &["shortcut"]),
        ("in telling the blocks about time and text", &[".embedding.", "time.", "text.p", "text.n"]),
        ("in attention", &["attention"]),
        ("in halving and doubling", &["halve", "double"]),
        ("in the first and last convolution", &["conv_in", "conv_out"]),
    ] {
        println!("  {:>8} {:>5.1} %  {what}", of(parts), 100.0 * of(parts) as f64 / all as f64);
    }
    println!("  {:>8}          in the block down.1.0\n", of(&["down.1.0."]));
}

/// C × H × W of a result.
fn shape(value: &Array) -> String {
    value.shape()[1..].iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" × ")
}

/// The network as a U: every result of the way down is drawn beside the block going up that is given it.
fn diagram(seen: &Seen) -> String {
    let mut d = Diagram::new(760.0, 800.0);
    let down = ["conv_in", "down.0.0", "down.0.halve", "down.1.0", "down.1.halve", "down.2.0"];
    let up = ["up.0.1", "up.0.0", "up.1.1", "up.1.0", "up.2.1", "up.2.0"];
    let with_attention = |name: &str| {
        let extra = if seen.contains_key(&format!("{name}.attention")) { " + attention" } else { "" };
        format!("{name}{extra}")
    };
    let input = d.block(20.0, 20.0, 200.0, 44.0, &["x_t", "1 × 28 × 28"], Tint::Grey);
    let output = d.block(540.0, 20.0, 200.0, 44.0, &["conv_out: v", "1 × 28 × 28"], Tint::Orange);
    let (mut before, mut after) = (input, output);
    for (i, (left, right)) in down.iter().zip(up).enumerate() {
        let y = 96.0 + 70.0 * i as f64 + 40.0 * (i / 2) as f64;
        let tint = if left.ends_with("halve") { Tint::Green } else { Tint::Blue };
        let a = d.block(20.0, y, 200.0, 44.0, &[&with_attention(left), &shape(&seen[*left])], tint);
        let joined = &seen[&format!("{right}.joined")];
        let lines = [with_attention(right), format!("{} in, {} out", joined.shape()[1], shape(&seen[right]))];
        let b = d.block(540.0, y, 200.0, 44.0, &lines.each_ref().map(String::as_str), Tint::Blue);
        d.arrow(before, a, "");
        d.arrow(a, b, &format!("{} channels", seen[*left].shape()[1]));
        if i > 0 && i % 2 == 0 {
            let double = format!("up.{}.double", i / 2);
            let c = d.block(540.0, y - 51.0, 200.0, 36.0, &[&double, &shape(&seen[&double])], Tint::Green);
            d.arrow(c, after, "");
            d.arrow(b, c, "");
        } else {
            d.arrow(b, after, "");
        }
        (before, after) = (a, b);
    }
    let y = 640.0;
    let names = ["middle.0", "middle.attention", "middle.1"];
    let middle: Vec<usize> = (0..3)
        .map(|i| d.block(105.0 + 190.0 * i as f64, y, 170.0, 44.0, &[names[i], &shape(&seen[names[i]])], Tint::Blue))
        .collect();
    for pair in [before, middle[0], middle[1], middle[2], after].windows(2) {
        d.arrow(pair[0], pair[1], "");
    }
    let words = seen["middle.attention.weights"].shape()[3] - 49;
    let time = format!("{} numbers, to every block", seen["time"].shape()[1]);
    d.block(105.0, y + 90.0, 265.0, 44.0, &["time, and the mean of the words", &time], Tint::Pink);
    let text = format!("{words} keys and values, to every attention");
    d.block(390.0, y + 90.0, 265.0, 44.0, &["the words", &text], Tint::Pink);
    d.svg()
}

/// Numbers as colours: blue below 0, white at 0, orange above, full at -`most` and `most`.
fn signed(values: &[f32], [height, width]: [usize; 2], most: f32) -> Picture {
    let ends = [[0.0, 114.0, 178.0], [213.0, 94.0, 0.0]];
    let mut picture = Picture::blank(width, height, 3, 255);
    for (pixel, value) in picture.pixels.chunks_mut(3).zip(values) {
        let share = (value.abs() / most).min(1.0);
        let end = ends[usize::from(*value > 0.0)];
        pixel.iter_mut().zip(end).for_each(|(byte, end)| *byte = (255.0 + share * (end - 255.0)).round() as u8);
    }
    picture
}

/// Eight channels of each level, every map scaled by its own largest value and shown at one size.
fn feature_maps(seen: &Seen) -> Picture {
    let rows =
        ["conv_in", "down.0.0", "down.1.0", "down.2.0.attention", "middle.1", "up.2.1.attention", "up.1.1", "up.0.1"];
    let mut maps = Vec::new();
    for name in rows {
        let [_, _, h, w] = seen[name].shape().dims("feature maps");
        for map in seen[name].to_f32().chunks(h * w).take(8) {
            let most = map.iter().fold(0f32, |m, v| m.max(v.abs()));
            maps.push(signed(map, [h, w], most).enlarged(28 / h));
        }
    }
    grid(&maps, Layout { enlarge: 3, ..Layout::new(8) })
}

/// Above the noised digit, below x_hat_0 for the right words, for wrong ones, and without words.
fn predictions(bench: &Bench, chapter: &Chapter) -> Result<Picture, Box<dyn Error>> {
    let times = chapter.size(vec![0.1, 0.3, 0.5, 0.7, 0.85, 1.0], vec![0.1, 1.0]);
    let mut rows = vec![Vec::new(); 4];
    println!("Root of the mean squared error of x_hat_0, for three prompts:");
    println!("    t   alpha  sigma  seven  three  none");
    for &t in &times {
        let mut errors = Vec::new();
        for (row, caption) in [Some("a handwritten seven"), Some("a handwritten three"), None].into_iter().enumerate() {
            let (x_t, x_hat_0, _) = bench.look(t, caption)?;
            if row == 0 {
                rows[0].extend(Picture::from_array(x_t.array()));
            }
            rows[row + 1].extend(Picture::from_array(x_hat_0.array()));
            errors.push(format!("{:.3}", (&x_hat_0 - &bench.x0).square().mean_all().item().sqrt()));
        }
        let schedule = bench.model.schedule();
        println!("  {t:.2}   {:.3}  {:.3}  {}", schedule.alpha(t), schedule.sigma(t), errors.join("  "));
    }
    Ok(grid(&rows.concat(), Layout { enlarge: 3, ..Layout::new(times.len()) }))
}

/// How much every pixel of the layer up.2.0 takes of the word "seven": a row a time, a column a head.
fn attention(bench: &Bench, chapter: &Chapter) -> Result<Picture, Box<dyn Error>> {
    let caption = "a picture of the number seven";
    let tokens = T5Encoder::from_weights(&bundled::T5_MINI.weights()?, 64)?.tokens(caption)?.pieces;
    let words: Vec<&str> = tokens.iter().map(|piece| piece.trim_start_matches('▁')).collect();
    let seven = words.iter().position(|&word| word == "seven").ok_or("seven is more than one token")?;
    let mut cells = Vec::new();
    let equal = 1.0 / (49 + words.len()) as f64;
    println!("\nWhat the words get of the attention of up.2.0, head by head; equal shares would be {equal:.3}:");
    for t in chapter.size(vec![0.05, 0.3, 0.7, 1.0], vec![0.3]) {
        let (x_t, _, seen) = bench.look(t, Some(caption))?;
        cells.push(in_colour(&Picture::from_array(x_t.array())[0]));
        let weights = &seen["up.2.0.attention.weights"];
        let [_, heads, n, m] = weights.shape().dims("weights");
        let values = weights.to_f32();
        let map = |head: usize, word: usize| -> Vec<f32> {
            (0..n).map(|pixel| values[(head * n + pixel) * m + n + word]).collect()
        };
        for (i, word) in words.iter().enumerate() {
            let shares: Vec<String> =
                (0..heads).map(|head| format!("{:.2}", map(head, i).iter().sum::<f32>() / n as f32)).collect();
            println!("  t = {t:.2} {word:>8}  {}", shares.join("  "));
        }
        cells.extend((0..heads).map(|head| signed(&map(head, seven), [7, 7], 1.0).enlarged(4)));
    }
    Ok(grid(&cells, Layout { background: 225, ..Layout::new(5) }))
}

/// A grey picture with three equal channels.
fn in_colour(grey: &Picture) -> Picture {
    let pixels = grey.pixels.iter().flat_map(|&shade| [shade; 3]).collect();
    Picture { channels: 3, pixels, ..*grey }
}

/// Times as columns: above the 24 waves, below the 96 numbers that the network makes of them.
fn time_picture(model: &TextToImage, chapter: &Chapter) -> Picture {
    let columns = chapter.size(360, 90);
    let times: Vec<f64> = (0..columns).map(|i| i as f64 / columns as f64).collect();
    let steps: Vec<f64> = times.iter().map(|t| 1000.0 * t).collect();
    let waves = sinusoidal(&steps, model.unet().config().base_channels, DType::F32);
    let panels = [(waves.transpose(), 5), (embedded(model, &times).transpose(), 2)].map(|(rows, thick)| {
        let [features, _] = rows.shape().dims("time");
        let mut tall = Vec::new();
        for row in rows.array().to_f32().chunks(columns) {
            let most = row.iter().fold(0f32, |m, v| m.max(v.abs()));
            (0..thick).for_each(|_| tall.extend(row.iter().map(|v| v / most)));
        }
        signed(&tall, [features * thick, columns], 1.0)
    });
    let mut sheet = Picture::blank(columns, panels[0].height + panels[1].height + 8, 3, 255);
    sheet.paste(&panels[0], 0, 0);
    sheet.paste(&panels[1], 0, panels[0].height + 8);
    sheet.enlarged(2)
}

/// What the network makes of times [B]: [B, time_dim], before the text is added.
fn embedded(model: &TextToImage, times: &[f64]) -> Tensor {
    let blank = Tensor::from_f64([1, 1, 4, 4], &[0.0; 16], DType::F32).broadcast_to([times.len(), 1, 4, 4]);
    let mut embedding = None;
    no_grad(|| {
        model.unet().forward_watched(&blank, times, None, &mut |name, value| {
            if name == "time" {
                embedding = Some(value.clone());
            }
        })
    });
    embedding.expect("the network embeds the time")
}

/// Scalar product over the lengths.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// How alike the vectors of two times are: before the two layers by their distance, after them by where they are.
fn likeness(model: &TextToImage, chapter: &Chapter) -> String {
    let count = chapter.size(200, 20);
    let mut before = Chart::new("Sinusoids").x("distance in steps").y("cosine").y_range(0.0, 1.0);
    for features in [24, 256] {
        let waves = |step: f64| sinusoidal(&[step], features, DType::F32).array().to_f32();
        let points = (0..=count).map(|d| (d as f64, cosine(&waves(0.0), &waves(d as f64)))).collect();
        before = before.curve(Curve::new(format!("{} pairs", features / 2), points));
    }
    let times: Vec<f64> = (0..=count).map(|i| i as f64 / count as f64).collect();
    let vectors = embedded(model, &times);
    let [_, features] = vectors.shape().dims("time");
    let values = vectors.array().to_f32();
    let vector = |i: usize| &values[i * features..][..features];
    let mut after = Chart::new("After the two layers").x("t").y("cosine").y_range(-1.0, 1.0);
    for at in [0.1, 0.5, 0.9] {
        let fixed = (at * count as f64).round() as usize;
        let points = times.iter().enumerate().map(|(i, &t)| (t, cosine(vector(i), vector(fixed)))).collect();
        after = after.curve(Curve::new(format!("t = {at}"), points));
    }
    charts(&[before, after], 2)
}
