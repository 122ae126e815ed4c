//! The U-Net: its sizes, how it starts, what text and time do to it, its gradients, and what comes of sampling from it.

mod efficient;
mod gradients;
mod init;
mod inside;
mod reference;
mod sampling;
mod sizes;
mod text;

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::nn::{Init, Parameters};
use imagen::random::{Purpose, hash, normal};
use imagen::unet::{Blocks, Condition, Resampling, TextConfig, TextPooling, UNet, UNetConfig};

/// Features of a text token in these tests.
const TEXT_DIM: usize = 6;

/// Two levels of 8 and 16 channels, attention at the lower one, with text: every kind of layer, and fast.
fn tiny() -> UNetConfig {
    UNetConfig {
        image_channels: 1,
        base_channels: 8,
        channel_multipliers: vec![1, 2],
        blocks: 1.into(),
        attention: vec![false, true],
        heads: 2,
        groups: 4,
        scale_shift: false,
        text: Some(TextConfig { dim: TEXT_DIM }),
        ..UNetConfig::mnist28()
    }
}

/// The tiny network as Imagen's three kinds: guided diffusion's U-Net with pooled text, an Efficient U-Net, and one whose pixels
/// look at the text alone.
fn kinds() -> [UNetConfig; 3] {
    let guided = UNetConfig {
        scale_shift: true,
        resampling: Resampling::Residual,
        heads: 0,
        head_channels: Some(4),
        text_pooling: TextPooling::Attention,
        ..tiny()
    };
    let efficient = UNetConfig { blocks: Blocks::Each(vec![1, 2]), scale_shift: true, ..tiny() }.efficient();
    let crossing = UNetConfig {
        attention: vec![false, false],
        cross_attention: vec![false, true],
        text_pooling: TextPooling::Attention,
        ..tiny()
    }
    .efficient();
    [guided, efficient, crossing]
}

/// A network as training would find it first.
fn fresh(config: UNetConfig, dtype: DType) -> (UNet, Parameters) {
    let init = Init::new(7, dtype);
    let net = UNet::new(config, &init).expect("a valid config");
    (net, init.parameters())
}

/// A network in which nothing is 0 any more, as if it had been trained.
fn awake(config: UNetConfig, dtype: DType) -> (UNet, Parameters) {
    let (net, parameters) = fresh(config, dtype);
    wake(&parameters, |_| true);
    (net, parameters)
}

/// Adds noise to the parameters whose name `which` accepts.
fn wake(parameters: &Parameters, which: impl Fn(&str) -> bool) {
    for param in parameters.iter().filter(|p| which(p.name())) {
        let shape = param.shape();
        let noise = normal(1, Purpose::Test, 0, hash(param.name()), shape.numel());
        param.update(|value| *value = &*value + &Array::from_f64(shape, &noise, value.dtype()).affine(0.1, 0.0));
    }
}

/// Draws from N(0, 1) of one stream of the tests.
fn random(index: u64, shape: impl Into<imagen::array::Shape>, dtype: DType) -> Array {
    let shape = shape.into();
    let values = normal(0, Purpose::Test, 0, index, shape.numel());
    Array::from_f64(shape, &values, dtype)
}

/// Images [b, 1, 8, 8] of noise.
fn images(b: usize, dtype: DType) -> Tensor {
    Tensor::constant(random(1, [b, 1, 8, 8], dtype))
}

/// b different times, none of them 0 or 1.
fn times(b: usize) -> Vec<f64> {
    (0..b).map(|i| (i as f64 + 0.7) / (b as f64 + 1.0)).collect()
}

/// Captions of the given numbers of tokens, padded with zeros to `columns`; caption i is the same whatever else there is.
fn captions(lengths: &[usize], columns: usize) -> Condition {
    let (tokens, mask) = padded(lengths, columns, 0.0);
    Condition::new(tokens, mask)
}

/// Tokens [b, columns, TEXT_DIM] and mask [b, columns] of captions, with `padding` where there is no token.
fn padded(lengths: &[usize], columns: usize, padding: f32) -> (Array, Array) {
    let (mut tokens, mut mask) = (Vec::new(), Vec::new());
    for (i, &length) in lengths.iter().enumerate() {
        tokens.extend(random(100 + i as u64, [length, TEXT_DIM], DType::F32).to_f32());
        tokens.resize((i + 1) * columns * TEXT_DIM, padding);
        mask.extend((0..columns).map(|j| f32::from(u8::from(j < length))));
    }
    let b = lengths.len();
    (Array::from_vec([b, columns, TEXT_DIM], tokens), Array::from_vec([b, columns], mask))
}

/// What the network says, without history.
fn predict(net: &UNet, x: &Tensor, t: &[f64], condition: Option<&Condition>) -> Array {
    no_grad(|| net.forward(x, t, condition)).into_array()
}

/// Image i of a batch [B, ..], as a batch of one.
fn row(batch: &Array, i: usize) -> Array {
    Tensor::constant(batch.clone()).slice(0, i..i + 1).into_array()
}

#[track_caller]
fn assert_same_bits(a: &Array, b: &Array, what: &str) {
    assert!(a.bit_eq(b), "{what}: largest difference {:e} between {a:?} and {b:?}", largest_difference(a, b));
}

#[track_caller]
fn largest_difference(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.shape(), b.shape());
    a.to_f64().iter().zip(b.to_f64()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}
