//! `cargo run --release --example ch04_convolution`: convolutions, made by hand and learned.
//!
//! A 3x3 filter on a 4x4 image, its three passes, and the two matrices it can be read as; filters made by hand, on
//! digits; what convolutions cost; and a small network of three convolutions that learns to read digits, with the
//! filters it found.

mod chapter;

use chapter::Chapter;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::data::{Batches, Dataset, DatasetName, Images};
use imagen::nn::{Conv2d, Init, Linear};
use imagen::optim::{Adam, Optimizer};
use imagen::picture::{Chart, Curve, Diagram, Layout, Picture, Tint, grid, heatmap};
use imagen::random::{Purpose, normal};
use imagen::unet::{UNet, UNetConfig};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch04");
    let data = Dataset::load(DatasetName::Mnist, &DatasetName::Mnist.default_folder())?;
    worked_example(&chapter)?;
    filters_by_hand(&chapter, &data.test)?;
    for (name, config, side) in [("mnist28", UNetConfig::mnist28(), 28), ("cifar32", UNetConfig::cifar32(), 32)] {
        cost(name, config, side)?;
    }
    three_ways(&chapter)?;
    learned_filters(&chapter, &data)
}

const IMAGE: [f64; 16] = [1., 2., 0., 1., 0., 1., 3., 2., 2., 1., 0., 1., 1., 0., 2., 3.];
/// Left minus right, summed over three rows of which the middle one counts twice (Sobel's filter).
const LEFT_MINUS_RIGHT: [f64; 9] = [1., 0., -1., 2., 0., -2., 1., 0., -1.];

/// The numbers of the text, and the picture of the matrix of patches.
fn worked_example(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let array = |side, values: &[f64]| Array::from_f64([1, 1, side, side], values, DType::F64);
    let (x, w) = (Tensor::leaf(array(4, &IMAGE)), Tensor::leaf(array(3, &LEFT_MINUS_RIGHT)));
    let y = x.conv2d(&w, None, 1, 0);
    println!("A 3x3 filter on a 4x4 image has 2x2 outputs: {:?}", y.to_f64());
    let gradients = y.backward_with(array(2, &[1., 0., 0., 2.]));
    println!("For the output gradient [1, 0, 0, 2], the gradient");
    println!("  of the image: {:?}", gradients.get(&x).unwrap().to_f64());
    println!("  of the weight: {:?}", gradients.get(&w).unwrap().to_f64());
    println!("The convolution as a matrix, one row an output, one column a pixel:");
    for i in 0..4 {
        // Row i is what comes back for a gradient of one at output i.
        let one: Vec<f64> = (0..4).map(|output| f64::from(u8::from(output == i))).collect();
        let row = x.conv2d(&w, None, 1, 0).backward_with(array(2, &one)).take(&x).unwrap();
        println!("{}", row.to_f64().iter().map(|v| format!("{v:>3}")).collect::<String>());
    }
    chapter.svg("im2col.svg", &matrix_of_patches(&y.to_f64()))
}

/// Four patches, the matrix whose columns they are, and the product with the weight.
fn matrix_of_patches(y: &[f64]) -> String {
    let mut drawing = Diagram::new(760.0, 490.0);
    let (cell, wide, col_x, col_y, row_y) = (24.0, 40.0, 370.0, 184.0, 430.0);
    let number = |v: f64| format!("{v}").replace('-', "\u{2212}");
    for (patch, tint) in [Tint::Blue, Tint::Orange, Tint::Green, Tint::Pink].into_iter().enumerate() {
        let (i, j) = (patch / 2, patch % 2);
        let (left, top, column) = (40.0 + 195.0 * patch as f64, 34.0, col_x + wide * patch as f64);
        drawing.text(left + 2.0 * cell, 22.0, &format!("patch of output ({i}, {j})"));
        let mut row = 0.0;
        for (pixel, value) in IMAGE.map(number).iter().enumerate() {
            let (m, n) = (pixel / 4, pixel % 4);
            let inside = (i..i + 3).contains(&m) && (j..j + 3).contains(&n);
            let (x, y) = (left + cell * n as f64, top + cell * m as f64);
            drawing.block(x, y, cell, cell, &[value], if inside { tint } else { Tint::Grey });
            if inside {
                drawing.block(column, col_y + cell * row, wide, cell, &[value], tint);
                row += 1.0;
            }
        }
        drawing.line(&[(left + 2.0 * cell, top + 4.0 * cell + 2.0), (column + wide / 2.0, col_y - 3.0)], "");
        drawing.block(column, row_y, wide, cell, &[&number(y[patch])], tint);
        drawing.block(630.0 + wide * j as f64, row_y - 12.0 + cell * i as f64, wide, cell, &[&number(y[patch])], tint);
    }
    for (i, value) in LEFT_MINUS_RIGHT.map(number).iter().enumerate() {
        let (x, y) = (162.0 + cell * (i % 3) as f64, 264.0 + cell * (i / 3) as f64);
        drawing.block(x, y, cell, cell, &[value], Tint::Grey);
        drawing.block(90.0 + cell * i as f64, row_y, cell, cell, &[value], Tint::Grey);
    }
    drawing.line(&[(198.0, 340.0), (198.0, row_y - 4.0)], "as a row");
    drawing.line(&[(col_x + 4.0 * wide + 8.0, row_y + 12.0), (622.0, row_y + 12.0)], "as an image");
    for (x, y, words) in [
        (198.0, 254.0, "weight"),
        (198.0, row_y + 44.0, "W: a row for each output channel"),
        (640.0, 290.0, "col: a row for each tap,"),
        (640.0, 306.0, "a column for each output"),
        (340.0, row_y + 16.0, "\u{d7} col ="),
        (450.0, row_y + 44.0, "W col"),
    ] {
        drawing.text(x, y, words);
    }
    drawing.svg()
}

/// Pixels of a tile: 4 for a pixel of a digit.
const TILE: usize = 112;

/// `values` [side, side] as a picture: orange above 0, blue below, the fuller the larger.
fn tile(values: &[f64], side: usize) -> Picture {
    let largest = values.iter().fold(1e-9_f64, |m, v| m.max(v.abs()));
    let mut picture = Picture::blank(side, side, 3, 255);
    for (pixel, v) in picture.pixels.chunks_exact_mut(3).zip(values) {
        let full = if *v > 0.0 { [213.0, 94.0, 0.0] } else { [0.0, 114.0, 178.0] };
        pixel.iter_mut().zip(full).for_each(|(p, f)| *p = (255.0 + v.abs() / largest * (f - 255.0)) as u8);
    }
    let mut tile = Picture::blank(TILE, TILE, 3, 225);
    tile.paste(&picture.enlarged(TILE / side), TILE % side / 2, TILE % side / 2);
    tile
}

/// Images [N, 1, 28, 28], 0 for paper and 1 for ink: so the zeros of the padding are paper.
fn ink(images: &Images, indices: &[usize]) -> Tensor {
    let values = images.batch_f32(indices).into_iter().map(|v| (v + 1.0) / 2.0).collect();
    Array::from_vec([indices.len(), 1, 28, 28], values).into()
}

/// A row of kernels [N, side, side], and below it a row for each digit: itself, then its N maps.
fn sheet(digits: &Tensor, kernels: &[f64], maps: &Tensor, side: usize) -> Picture {
    let (plane, columns) = (28 * 28, kernels.len() / (side * side));
    let mut tiles = vec![Picture::blank(TILE, TILE, 3, 225)];
    tiles.extend(kernels.chunks_exact(side * side).map(|kernel| tile(kernel, side)));
    for (digit, maps) in digits.to_f64().chunks_exact(plane).zip(maps.to_f64().chunks_exact(columns * plane)) {
        tiles.push(tile(digit, 28));
        tiles.extend(maps.chunks_exact(plane).map(|map| tile(map, 28)));
    }
    grid(&tiles, Layout { gap: 4, background: 225, enlarge: 1, columns: columns + 1 })
}

fn filters_by_hand(chapter: &Chapter, images: &Images) -> Result<(), Box<dyn Error>> {
    let blur = [1., 2., 1., 2., 4., 2., 1., 2., 1.].map(|v| v / 16.0);
    let above_minus_below = [1., 2., 1., 0., 0., 0., -1., -2., -1.];
    let middle_minus_around = [0., -1., 0., -1., 4., -1., 0., -1., 0.];
    let kernels = [blur, LEFT_MINUS_RIGHT, above_minus_below, middle_minus_around].concat();
    let weight = Tensor::from_f64([4, 1, 3, 3], &kernels, DType::F32);
    let digits = ink(images, &[0, 1, 4]);
    chapter.png("filters.png", &sheet(&digits, &kernels, &digits.conv2d(&weight, None, 1, 1), 3))
}

/// Multiply-adds of all convolutions of a U-Net for one image, from the shapes and names of its weights.
fn cost(name: &str, config: UNetConfig, side: usize) -> Result<(), Box<dyn Error>> {
    let (init, levels) = (Init::new(0, DType::F32), config.channel_multipliers.len());
    UNet::new(config, &init)?;
    let (mut count, mut all, mut same) = (0, 0, 0);
    for param in init.parameters().iter() {
        let &[o, c, kh, kw] = &param.shape()[..] else { continue };
        // Level l is 2^l times smaller; one that halves has the size of the next level, one that doubles of the one before.
        let parts: Vec<&str> = param.name().split('.').collect();
        let level = match parts[..] {
            ["middle", ..] => levels - 1,
            ["down", level, "halve", ..] => level.parse::<usize>()? + 1,
            ["up", level, "double", ..] => level.parse::<usize>()? - 1,
            ["down" | "up", level, ..] => level.parse()?,
            _ => 0,
        };
        let multiply_adds = o * c * kh * kw * (side >> level) * (side >> level);
        count += 1;
        all += multiply_adds;
        same += if kh == 3 && !parts.contains(&"halve") { multiply_adds } else { 0 };
    }
    let (million, share) = (all as f64 / 1e6, 100.0 * same as f64 / all as f64);
    println!("{name}: {count} convolutions, {million:.1} million multiply-adds an image, {share:.1} % 3x3 at stride 1");
    Ok(())
}

/// The definition as loops, for stride 1 and padding 1; x [B, C, H, W] and weight [O, C, 3, 3].
fn by_definition(x: &Tensor, weight: &Tensor) -> Array {
    let ([b, c, h, w], o) = (x.shape().dims("images"), weight.shape()[0]);
    let (xs, ws): (&[f32], &[f32]) = (x.array().slice(), weight.array().slice());
    let mut y = vec![0.0; b * o * h * w];
    for (at, y) in y.iter_mut().enumerate() {
        let (image, k, i, j) = (at / w / h / o, at / w / h % o, at / w % h, at % w);
        for channel in 0..c {
            let plane = &xs[(image * c + channel) * h * w..][..h * w];
            for (u, v) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
                let (m, n) = ((i + u).wrapping_sub(1), (j + v).wrapping_sub(1));
                if m < h && n < w {
                    *y += ws[((k * c + channel) * 3 + u) * 3 + v] * plane[m * w + n];
                }
            }
        }
    }
    Array::from_vec([b, o, h, w], y)
}

/// One convolution of the largest level of `mnist28`, three ways, on one thread.
fn three_ways(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let (images, repeat) = chapter.size((16, 20), (1, 1));
    let random = |index, shape: [usize; 4]| {
        Tensor::from_f64(shape, &normal(4, Purpose::Test, 0, index, shape.iter().product()), DType::F32)
    };
    let (x, weight) = (random(0, [images, 32, 28, 28]), random(1, [32, 32, 3, 3]));
    // With the padding made beforehand the convolution shrinks its image: then the library goes the way of im2col.
    let padded = x.pad(2, 1, 1).pad(3, 1, 1);
    type Way<'a> = &'a (dyn Fn() -> Array + Sync);
    let ways: [(&str, usize, Way); 3] = [
        ("the definition", 1, &|| by_definition(&x, &weight)),
        ("im2col", repeat, &|| padded.conv2d(&weight, None, 1, 0).into_array()),
        ("Winograd", repeat, &|| x.conv2d(&weight, None, 1, 1).into_array()),
    ];
    println!("32 channels of 28x28 to 32, 3x3, one thread (times vary from run to run):");
    let exact = by_definition(&x, &weight).to_f64();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    for (name, repeat, way) in ways {
        let y = pool.install(way).to_f64();
        let start = Instant::now();
        pool.install(|| (0..repeat).for_each(|_| drop(way())));
        let seconds = start.elapsed().as_secs_f64() / (repeat * images) as f64;
        let off = y.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("  {name:<15} {:>6.2} ms an image, off by at most {off:.0e}", 1e3 * seconds);
    }
    Ok(())
}

/// Three convolutions, the last two halving height and width, then a linear layer to ten logits.
struct Network {
    convs: [Conv2d; 3],
    logits: Linear,
}

impl Network {
    fn new(init: &Init) -> Network {
        Network {
            convs: [
                Conv2d::new(&init.scope("first"), 1, 8, 5, 1, 2),
                Conv2d::new(&init.scope("second"), 8, 16, 3, 2, 1),
                Conv2d::new(&init.scope("third"), 16, 32, 3, 2, 1),
            ],
            logits: Linear::new(&init.scope("logits"), 32 * 7 * 7, 10),
        }
    }

    /// The feature maps [B, 8, 28, 28] of the first convolution, and the logits [B, 10].
    fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let [first, second, third] = &self.convs;
        let maps = first.forward(x).relu();
        let h = third.forward(&second.forward(&maps).relu()).relu();
        (maps, self.logits.forward(&h.reshape([x.shape()[0], 32 * 7 * 7])))
    }
}

fn learned_filters(chapter: &Chapter, data: &Dataset) -> Result<(), Box<dyn Error>> {
    let (steps, batch, judged) = chapter.size((800, 64, 1000), (3, 8, 50));
    let init = Init::new(4, DType::F32);
    let network = Network::new(&init);
    let parameters = init.parameters();
    let (mut optimizer, batches) = (Adam::new([0.9, 0.999], 1e-8, 0.0), Batches::new(data.train.len(), batch, 4));
    println!("A network of {} numbers learns to read digits, {steps} steps of {batch} images:", parameters.count());
    let mut losses = Vec::new();
    for step in 0..steps {
        let indices = batches.indices(step);
        let classes: Vec<u32> = indices.iter().map(|&i| u32::from(data.train.labels[i])).collect();
        let loss = network.forward(&ink(&data.train, &indices)).1.cross_entropy(&classes);
        losses.push((step as f64 + 1.0, loss.item()));
        optimizer.step(&parameters, &loss.backward(), 2e-3);
    }
    let chart = Chart::new("A network of convolutions learns to read digits").x("step").y("cross-entropy").log_y();
    chapter.svg("loss.svg", &chart.curve(Curve::new("training batch", losses).smoothed(0.95)).svg())?;

    let test: Vec<usize> = (0..judged).collect();
    let (_, logits) = no_grad(|| network.forward(&ink(&data.test, &test)));
    let mut confusion = vec![0.0; 100];
    for (row, &image) in logits.to_f64().chunks_exact(10).zip(&test) {
        let answer = (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        confusion[usize::from(data.test.labels[image]) * 10 + answer] += 1.0;
    }
    let right: f64 = (0..10).map(|i| confusion[11 * i]).sum();
    println!("  of {judged} test images it reads {right} rightly");
    let digits: Vec<String> = (0..10).map(|d| d.to_string()).collect();
    let axes = ("what it is", "what the network reads");
    chapter.svg("confusion.svg", &heatmap(&format!("{judged} test images"), axes, &digits, &digits, &confusion))?;

    let digits = ink(&data.test, &[0, 1, 4]);
    let (maps, _) = no_grad(|| network.forward(&digits));
    let kernels = parameters.values()["first.weight"].to_f64();
    chapter.png("learned.png", &sheet(&digits, &kernels, &maps, 5))
}
