//! What `forward_watched` shows of the network while it computes: blocks that start as identities, skip connections, where
//! parameters and multiplications are.

use super::{assert_same_bits, awake, captions, fresh, images, times, tiny};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{TextToImage, bundled};
use imagen::nn::Parameters;
use imagen::random::{Purpose, normal};
use imagen::unet::{Condition, UNet, UNetConfig};
use std::collections::BTreeMap;

/// Every result on the way, by name.
pub(super) fn watched(net: &UNet, x: &Tensor, t: &[f64], condition: Option<&Condition>) -> BTreeMap<String, Array> {
    let mut seen = BTreeMap::new();
    no_grad(|| {
        net.forward_watched(x, t, condition, &mut |name, value| {
            assert!(seen.insert(name.to_string(), value.array().clone()).is_none(), "{name} comes twice");
        })
    });
    seen
}

/// Channels `from..from + count` of [B, C, H, W].
fn channels(x: &Array, from: usize, count: usize) -> Array {
    Tensor::constant(x.clone()).slice(1, from..from + count).into_array()
}

// ANCHOR: a_fresh_block_is_the_identity
/// Where the channels stay the same; and so is attention. Once awake, neither is.
#[test]
fn a_fresh_block_is_the_identity() {
    for scale_shift in [false, true] {
        let config = UNetConfig { scale_shift, ..tiny() };
        let texts = captions(&[3, 2], 4);
        let pairs = [
            ("conv_in", "down.0.0"),
            ("down.1.0", "down.1.0.attention"),
            ("down.1.0.attention", "middle.0"),
            ("middle.attention", "middle.1"),
        ];
        let seen = watched(&fresh(config.clone(), DType::F32).0, &images(2, DType::F32), &times(2), Some(&texts));
        let awake = watched(&awake(config, DType::F32).0, &images(2, DType::F32), &times(2), Some(&texts));
        for (before, after) in pairs {
            assert_same_bits(&seen[after], &seen[before], after);
            assert!(super::largest_difference(&awake[after], &awake[before]) > 1e-3, "{after}");
        }
    }
}
// ANCHOR_END: a_fresh_block_is_the_identity

// ANCHOR: a_fresh_block_learns_from_its_end
/// At the first step only the convolution of zeros has a gradient; once it is not zero, the one before it has one too.
#[test]
fn a_fresh_block_learns_from_its_end() {
    let (net, parameters) = fresh(tiny(), DType::F32);
    let learns = |name: &str| {
        let target = images(2, DType::F32).affine(-1.0, 0.3);
        let gradients = net.forward(&images(2, DType::F32), &times(2), None).mse(&target).backward();
        let param = parameters.iter().find(|p| p.name() == name).unwrap();
        gradients.get(&param.tensor()).unwrap().to_f64().iter().any(|&g| g != 0.0)
    };
    assert!(learns("down.0.0.conv2.weight") && !learns("down.0.0.conv1.weight") && learns("conv_in.weight"));
    super::wake(&parameters, |name| name.ends_with("conv2.weight"));
    assert!(learns("down.0.0.conv1.weight"));
}
// ANCHOR_END: a_fresh_block_learns_from_its_end

// ANCHOR: what_goes_down_comes_up_again
/// The last channels that a block going up is given are a result of the way down, of the same size, bit for bit.
#[test]
fn what_goes_down_comes_up_again() {
    let (net, _) = awake(tiny(), DType::F32);
    let seen = watched(&net, &images(2, DType::F32), &times(2), None);
    for (skip, up) in [
        ("down.1.0.attention", "up.1.0.joined"),
        ("down.0.halve", "up.1.1.joined"),
        ("down.0.0", "up.0.0.joined"),
        ("conv_in", "up.0.1.joined"),
    ] {
        let (skip, joined) = (&seen[skip], &seen[up]);
        let (mine, all) = (skip.shape()[1], joined.shape()[1]);
        assert_same_bits(&channels(joined, all - mine, mine), skip, up);
    }
}
// ANCHOR_END: what_goes_down_comes_up_again

/// Parameters whose names begin so.
fn count(parameters: &Parameters, prefix: &str) -> usize {
    parameters.iter().filter(|p| p.name().starts_with(prefix)).map(|p| p.shape().numel()).sum()
}

// ANCHOR: the_parameters_can_be_counted_by_hand
/// Weights and biases of a residual block and of an attention layer, written out; the rest of the network adds up.
#[test]
fn the_parameters_can_be_counted_by_hand() {
    let model = TextToImage::from_weights(&bundled::MNIST.weights().unwrap()).unwrap();
    let bundled = model.parameters();
    // From 24 to 48 channels, scale and shift: norm1, conv1, embedding, norm2, conv2, shortcut.
    let block = 2 * 24 + (9 * 24 * 48 + 48) + (96 * 96 + 96) + 2 * 48 + (9 * 48 * 48 + 48) + (24 * 48 + 48);
    assert_eq!(count(bundled, "down.1.0."), block);
    assert_eq!(block, 41_856);
    // Over 72 channels, with a text of 128 features: norm, queries keys and values, those of the text, output.
    let attention = 2 * 72 + (72 * 216 + 216) + (128 * 144 + 144) + (72 * 72 + 72);
    assert_eq!(count(bundled, "middle.attention."), attention);
    assert_eq!(attention, 39_744);
    for (config, parameters) in [
        (model.config().unet.clone(), bundled.clone()),
        (UNetConfig::mnist28(), fresh(UNetConfig::mnist28(), DType::F32).1),
        (UNetConfig::cifar32(), fresh(UNetConfig::cifar32(), DType::F32).1),
    ] {
        assert_eq!(parameters.count(), by_hand(&config));
    }
    assert_eq!((by_hand(&model.config().unet), by_hand(&UNetConfig::mnist28())), (1_169_521, 1_623_169));
}
// ANCHOR_END: the_parameters_can_be_counted_by_hand

// ANCHOR: by_hand
/// Parameters of a network, from its config alone.
fn by_hand(config: &UNetConfig) -> usize {
    let (base, blocks) = (config.base_channels, config.blocks.at(0));
    let time = 4 * base;
    let linear = |inputs: usize, outputs: usize| (inputs + 1) * outputs;
    let conv3x3 = |inputs: usize, outputs: usize| (9 * inputs + 1) * outputs;
    let block = |inputs: usize, outputs: usize| {
        let told = linear(time, if config.scale_shift { 2 * outputs } else { outputs });
        let shortcut = if inputs == outputs { 0 } else { linear(inputs, outputs) };
        2 * inputs + conv3x3(inputs, outputs) + told + 2 * outputs + conv3x3(outputs, outputs) + shortcut
    };
    let attention = |c: usize| {
        2 * c + linear(c, 3 * c) + linear(c, c) + config.text.as_ref().map_or(0, |text| linear(text.dim, 2 * c))
    };
    let widths: Vec<usize> = config.channel_multipliers.iter().map(|m| m * base).collect();
    let (first, last) = (widths[0], widths[widths.len() - 1]);
    let mut total = linear(base, time) + linear(time, time) + conv3x3(config.input_channels(), base);
    total += if config.low_res { linear(base, time) + linear(time, time) } else { 0 };
    total += config.text.as_ref().map_or(0, |text| 3 * text.dim + linear(text.dim, time) + linear(time, time));
    let (mut c, mut skips) = (base, vec![base]);
    for (level, &width) in widths.iter().enumerate() {
        for _ in 0..blocks {
            total += block(c, width) + if config.attention[level] { attention(width) } else { 0 };
            c = width;
            skips.push(c);
        }
        if level + 1 < widths.len() {
            total += conv3x3(c, c);
            skips.push(c);
        }
    }
    total += 2 * block(last, last) + attention(last);
    for (level, &width) in widths.iter().enumerate().rev() {
        for _ in 0..=blocks {
            let skip = skips.pop().unwrap();
            total += block(c + skip, width) + if config.attention[level] { attention(width) } else { 0 };
            c = width;
        }
        total += if level > 0 { conv3x3(c, c) } else { 0 };
    }
    total + 2 * first + conv3x3(first, config.image_channels)
}
// ANCHOR_END: by_hand

// ANCHOR: the_gradient_through_residual_blocks
/// y = x + size tanh(W x), four times: the chain rule written out is a product of I + J, and backward finds the same.
#[test]
fn the_gradient_through_residual_blocks() {
    const N: usize = 3;
    let matrices: Vec<Vec<f64>> = (0..4).map(|i| normal(9, Purpose::Test, 0, i, N * N)).collect();
    for size in [0.0, 0.5] {
        for row in 0..N {
            let x = Tensor::leaf(super::random(30, [N, 1], DType::F64));
            let mut y = x.clone();
            let mut jacobian: Vec<f64> = (0..N * N).map(|at| f64::from(u8::from(at / N == at % N))).collect();
            for matrix in &matrices {
                let tanh = Tensor::from_f64([N, N], matrix, DType::F64).matmul(&y).tanh();
                y = &y + &(&tanh * size);
                // J = size diag(1 - tanh^2) W; I + J comes from the left.
                let slopes: Vec<f64> = tanh.to_f64().iter().map(|h| size * (1.0 - h * h)).collect();
                let step = |i: usize, j: usize| f64::from(u8::from(i == j)) + slopes[i] * matrix[i * N + j];
                let product = |at: usize| (0..N).map(|k| step(at / N, k) * jacobian[k * N + at % N]).sum::<f64>();
                jacobian = (0..N * N).map(product).collect();
            }
            let gradient = y.slice(0, row..row + 1).sum_all().backward().take(&x).unwrap().to_f64();
            for (g, expected) in gradient.iter().zip(&jacobian[row * N..]) {
                assert!((g - expected).abs() < 1e-13, "{g} is not {expected}");
            }
        }
    }
}
// ANCHOR_END: the_gradient_through_residual_blocks

// ANCHOR: the_cost_of_a_prediction
/// Multiplications and additions of one prediction of the bundled model and of `mnist28`: two for every weight at every
/// pixel it is used at, and two matrix products in each attention layer.
#[test]
fn the_cost_of_a_prediction() {
    let model = TextToImage::from_weights(&bundled::MNIST.weights().unwrap()).unwrap();
    let condition = model.encode(&["a handwritten seven".into()]).unwrap();
    let cost = |prefix| cost(model.unet(), model.parameters(), condition.as_ref(), prefix);
    // 14x14 pixels: a convolution 24 to 48, one 48 to 48, the shortcut; and the embedding, once.
    assert_eq!(cost("down.1.0."), 2 * (14 * 14 * (9 * 24 * 48 + 9 * 48 * 48 + 24 * 48) + 96 * 96));
    // 7x7 pixels of 72 channels: queries, keys, values and output; keys and values of three words and the end; 49 x 53 scores.
    assert_eq!(cost("middle.attention."), 2 * (49 * 72 * (216 + 72) + 4 * 128 * 144 + 2 * 49 * 53 * 72));
    let (net, parameters) = fresh(UNetConfig::mnist28(), DType::F32);
    let millions = [cost(""), self::cost(&net, &parameters, None, "")].map(|flop| (flop as f64 / 1e6).round());
    assert_eq!(millions, [264.0, 554.0]);
}

/// Of the layers whose names begin with `prefix`; norms, activations and sums left out.
fn cost(net: &UNet, parameters: &Parameters, condition: Option<&Condition>, prefix: &str) -> usize {
    let seen = watched(net, &Tensor::constant(super::random(1, [1, 1, 28, 28], DType::F32)), &[0.5], condition);
    let tokens = if condition.is_some() { 4 } else { 0 };
    let pixels = |name: &str| match seen.iter().find(|(layer, _)| name.starts_with(layer.as_str())) {
        Some((_, h)) => h.shape()[2] * h.shape()[3],
        None => 28 * 28, // conv_out
    };
    let mut multiplications = 0;
    for p in parameters.iter().filter(|p| p.name().starts_with(prefix) && p.shape().len() > 1) {
        let uses = match (p.shape().len(), p.name().contains("text_kv")) {
            (4, _) => pixels(p.name()),
            (_, true) => tokens,
            _ => 1,
        };
        multiplications += p.shape().numel() * uses;
    }
    for (name, weights) in seen.iter().filter(|(name, _)| name.starts_with(prefix) && name.ends_with(".weights")) {
        let [_, _, n, m] = weights.shape().dims("weights");
        multiplications += 2 * n * m * seen[name.trim_end_matches(".weights")].shape()[1];
    }
    2 * multiplications
}
// ANCHOR_END: the_cost_of_a_prediction
