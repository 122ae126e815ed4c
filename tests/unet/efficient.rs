//! (F3) The Efficient U-Net: written a second time, what its levels leave for each other, how it starts, and what each choice
//! changes.

use super::inside::watched;
use super::reference::Reference;
use super::{
    TEXT_DIM, assert_same_bits, awake, captions, fresh, images, kinds, largest_difference, predict, random, row, times,
    tiny,
};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, concat};
use imagen::unet::{Blocks, Condition, Norm, Per, Resampling, ResamplingOrder, SkipScale, TextPooling, UNetConfig};

/// An Efficient U-Net with text.
fn efficient() -> UNetConfig {
    let [_, efficient, _] = kinds();
    efficient
}

/// The figures A.27 to A.29, line by line; what the words "skip connections scaled by 1/sqrt 2" mean is `scaled`.
struct Figures {
    of: Reference,
    scaled: SkipScale,
}

impl Figures {
    fn root(&self, scaled: SkipScale) -> f64 {
        if self.scaled == scaled { 0.5_f64.sqrt() } else { 1.0 }
    }

    /// A.27: twice GroupNorm, swish, 3x3 convolution; beside it x, or a 1x1 convolution of it.
    fn res_net_block(&self, name: &str, x: &Tensor) -> Tensor {
        let part = |part: &str| format!("{name}.{part}");
        let h = self.of.conv(&part("conv1"), &self.of.norm(&part("norm1"), x).silu(), 1);
        let h = self.of.conv(&part("conv2"), &self.of.norm(&part("norm2"), &h).silu(), 1);
        let changes = h.shape()[1] != x.shape()[1];
        let x = if changes { self.of.conv(&part("shortcut"), x, 1) } else { x.clone() };
        &(&(&x * self.root(SkipScale::Shortcut)) + &h) * self.root(SkipScale::Sum)
    }

    /// Scale and shift, from the embedding.
    fn combine(&self, name: &str, x: &Tensor, embedding: &Tensor) -> Tensor {
        let e = self.of.linear(&format!("{name}.combine.embedding"), embedding);
        let (b, c) = (x.shape()[0], x.shape()[1]);
        let channels = |from: usize| e.slice(1, from..from + c).reshape([b, c, 1, 1]);
        &(x * &(&channels(0) + 1.0)) + &channels(c)
    }

    /// What DBlock and UBlock have in common: combine, blocks, attention.
    fn level(&self, name: &str, x: &Tensor, level: usize, told: &super::reference::Told) -> Tensor {
        let mut h = self.combine(name, x, &told.embedding);
        for i in 0..self.of.config.blocks.at(level) {
            h = self.res_net_block(&format!("{name}.{i}"), &h);
        }
        let attention = format!("{name}.attention");
        match (self.of.config.attention[level], self.of.config.cross_attention.get(level)) {
            (true, _) => self.of.attention(&attention, &h, told),
            (false, Some(true)) => self.of.cross_attention(&attention, &h, told),
            (false, _) => h,
        }
    }

    fn forward(&self, x: &Tensor, t: &[f64], tokens: &Tensor) -> Tensor {
        let told = self.of.told(t, Some(tokens), None);
        let levels = self.of.config.attention.len();
        let mut h = self.of.conv("conv_in", x, 1);
        let mut skips = Vec::new();
        for level in 0..levels {
            h = self.of.conv(&format!("down.{level}.halve"), &h, 2);
            h = self.level(&format!("down.{level}"), &h, level, &told);
            skips.push(h.clone());
        }
        for level in (0..levels).rev() {
            let skip = &skips[level] * self.root(SkipScale::Skip);
            h = self.level(&format!("up.{level}"), &concat(&[&h, &skip], 1), level, &told);
            h = self.of.conv(&format!("up.{level}.double"), &h.upsample_nearest(2), 1);
        }
        self.of.conv("conv_out", &self.of.norm("norm_out", &h).silu(), 1)
    }
}

// ANCHOR: beside_the_figures
/// What the network says with a text of three tokens, and how far the figures are from it.
fn beside_the_figures(config: UNetConfig) -> (Array, f64) {
    let (net, parameters) = awake(config.clone(), DType::F64);
    let scaled = config.skip_scale;
    let of = Reference { config, values: parameters.values() };
    let x = Tensor::constant(random(1, [2, 1, 8, 12], DType::F64));
    let tokens = Tensor::constant(random(2, [2, 3, TEXT_DIM], DType::F64));
    let text = Condition::new(tokens.array().clone(), Array::from_f64([2, 3], &[1.0; 6], DType::F64));
    let found = predict(&net, &x, &times(2), Some(&text));
    let expected = Figures { of, scaled }.forward(&x, &times(2), &tokens).into_array();
    let error = largest_difference(&found, &expected);
    (found, error)
}
// ANCHOR_END: beside_the_figures

// ANCHOR: f3_the_efficient_network_is_the_one_of_the_figures
/// With each reading of the scaled skip connections.
#[test]
fn f3_the_efficient_network_is_the_one_of_the_figures() {
    let mut found_by_reading: Vec<Array> = Vec::new();
    for scaled in [SkipScale::None, SkipScale::Skip, SkipScale::Sum, SkipScale::Shortcut] {
        let (found, error) = beside_the_figures(UNetConfig { skip_scale: scaled, ..efficient() });
        assert!(error < 1e-12, "{scaled:?}: {error:e}");
        for other in &found_by_reading {
            assert!(largest_difference(&found, other) > 1e-4, "{scaled:?} is another reading");
        }
        found_by_reading.push(found);
    }
}
// ANCHOR_END: f3_the_efficient_network_is_the_one_of_the_figures

/// F3, F4  And the last one, whose pixels look at the text alone, and whose text is pooled by attention.
#[test]
fn f4_the_network_with_cross_attention_is_the_one_of_the_figures() {
    let [.., crossing] = kinds();
    let (_, error) = beside_the_figures(UNetConfig { scale_shift: true, ..crossing });
    assert!(error < 1e-12, "{error:e}");
}

// ANCHOR: f3_every_level_has_one_skip_connection_of_its_size
/// Level l works on images of 1 / 2^(l + 1) of the side. What its DBlock ends with is, times 1/sqrt 2, the last half of the channels
/// that its UBlock is given.
#[test]
fn f3_every_level_has_one_skip_connection_of_its_size() {
    let config = efficient();
    let seen = watched(&awake(config.clone(), DType::F32).0, &images(2, DType::F32), &times(2), None);
    for (level, end) in [(0, "down.0.0"), (1, "down.1.attention")] {
        let (width, side) = (config.width(level), 8 >> (level + 1));
        let joined = &seen[&format!("up.{level}.combine.joined")];
        assert_eq!(joined.shape()[..], [2, 2 * width, side, side]);
        let skip = Tensor::constant(joined.clone()).slice(1, width..2 * width).into_array();
        assert_same_bits(&skip, &seen[end].affine(0.5_f64.sqrt(), 0.0), end);
    }
    assert_eq!(seen.keys().filter(|name| name.ends_with(".joined")).count(), 2);
    // The way up ends each level with the size and the channels of the one above.
    assert_eq!(seen["up.1.double"].shape()[..], [2, 8, 4, 4]);
    assert_eq!(seen["up.0.double"].shape()[..], [2, 8, 8, 8]);
}
// ANCHOR_END: f3_every_level_has_one_skip_connection_of_its_size

// ANCHOR: f3_fresh_blocks_are_identities
/// Combining, blocks and attention pass on what they are given, or x / sqrt 2 where the sum or the shortcut is scaled; a block that
/// resizes passes on means of pixels, or pixels repeated. Once awake, none of them does.
#[test]
fn f3_fresh_blocks_are_identities() {
    let root = 0.5_f64.sqrt();
    let text = captions(&[3, 2], 4);
    for (skip_scale, scale) in
        [(SkipScale::None, 1.0), (SkipScale::Skip, 1.0), (SkipScale::Sum, root), (SkipScale::Shortcut, root)]
    {
        let config = UNetConfig { skip_scale, ..efficient() };
        let see = |net| watched(&net, &images(2, DType::F64), &times(2), Some(&text));
        let (seen, woken) = (see(fresh(config.clone(), DType::F64).0), see(awake(config, DType::F64).0));
        for (before, after, scale) in [
            ("down.0.halve", "down.0.combine", 1.0),
            ("down.0.combine", "down.0.0", scale),
            ("down.1.0", "down.1.1", scale),
            ("down.1.1", "down.1.attention", 1.0),
            ("up.1.combine.joined", "up.1.combine", 1.0),
        ] {
            let error = largest_difference(&seen[after], &seen[before].affine(scale, 0.0));
            assert!(error < 1e-15, "{after} with {skip_scale:?}: {error:e}");
            assert!(largest_difference(&woken[after], &woken[before].affine(scale, 0.0)) > 1e-3, "{after}");
        }
    }
    let [guided, ..] = kinds();
    let seen = watched(&fresh(guided, DType::F64).0, &images(2, DType::F64), &times(2), Some(&text));
    let of = |name: &str| Tensor::constant(seen[name].clone());
    assert_same_bits(&seen["down.0.halve"], of("down.0.0").avg_pool2d(2).array(), "halved");
    assert_same_bits(&seen["up.1.double"], of("up.1.1.attention").upsample_nearest(2).array(), "doubled");
}
// ANCHOR_END: f3_fresh_blocks_are_identities

// ANCHOR: f3_the_norm_decides_how_far_a_pixel_is_heard
/// Without attention and at one size, a pixel is heard as far as the convolutions reach: here eight of them, one pixel each. Group
/// normalisation carries it further, for it takes mean and variance over the whole image; a norm of the channels of each pixel
/// does not, to the last bit.
#[test]
fn f3_the_norm_decides_how_far_a_pixel_is_heard() {
    const SIDE: usize = 12;
    for (norm, far) in [(Norm::Group, true), (Norm::Layer, false), (Norm::Rms, false)] {
        let config = UNetConfig {
            channel_multipliers: vec![1],
            attention: vec![false],
            middle: false,
            text: None,
            norm,
            ..tiny()
        };
        let (net, _) = awake(config, DType::F64);
        let x = super::random(1, [1, 1, SIDE, SIDE], DType::F64);
        let mut values = x.to_f64();
        values[0] += 1.0;
        let changed = Array::from_f64(x.shape(), &values, DType::F64);
        let [before, after] = [x, changed].map(|x| predict(&net, &x.into(), &times(1), None).to_f64());
        let heard = |y: usize, x: usize| before[y * SIDE + x] != after[y * SIDE + x];
        // conv_in, two of the block going down, four of the two going up, conv_out.
        assert!(heard(0, 0) && heard(8, 8), "{norm:?}");
        assert_eq!(heard(9, 0) || heard(0, 9) || heard(11, 11), far, "{norm:?}");
    }
}
// ANCHOR_END: f3_the_norm_decides_how_far_a_pixel_is_heard

/// Neither time nor text: what is pooled by attention and what cross-attention sees starts without influence as well.
#[test]
fn at_the_start_no_kind_is_told_anything() {
    for config in kinds() {
        let (net, _) = fresh(config, DType::F32);
        let says =
            |t: f64, lengths: &[usize]| predict(&net, &images(2, DType::F32), &[t; 2], Some(&captions(lengths, 3)));
        assert_same_bits(&says(0.2, &[1, 2]), &says(0.9, &[3, 3]), "a fresh network");
    }
}

/// Names of parameters, without those of both.
fn changed(a: UNetConfig, b: UNetConfig) -> [Vec<String>; 2] {
    let names = [a, b].map(|config| {
        let (_, parameters) = fresh(config, DType::F32);
        parameters.iter().map(|p| p.name().to_string()).collect::<Vec<_>>()
    });
    let without = |i: usize| names[i].iter().filter(|name| !names[1 - i].contains(name)).cloned().collect();
    [without(0), without(1)]
}

/// By the parameters that come and go.
#[test]
fn a_choice_changes_what_it_says_and_nothing_else() {
    let all = |names: &[String], part: &str| !names.is_empty() && names.iter().all(|name| name.contains(part));
    let [lost, won] = changed(tiny(), UNetConfig { middle: false, ..tiny() });
    assert!(all(&lost, "middle.") && won.is_empty());
    let [lost, won] = changed(tiny(), UNetConfig { norm: Norm::Rms, ..tiny() });
    assert!(lost.iter().all(|name| name.contains("norm") && name.ends_with(".bias")) && won.is_empty(), "{lost:?}");
    let [lost, won] = changed(tiny(), UNetConfig { norm: Norm::Layer, ..tiny() });
    assert!(lost.is_empty() && won.is_empty());
    let [lost, won] = changed(tiny(), UNetConfig { embedding_per: Per::Level, ..tiny() });
    assert!(all(&lost, ".embedding.") && all(&won, ".combine.embedding.") && lost.len() == 2 * 8 && won.len() == 2 * 4);
    let [lost, won] = changed(tiny(), UNetConfig { attention_per: Per::Level, ..tiny() });
    assert!(all(&lost, ".attention.") && all(&won, "1.attention."), "{lost:?} {won:?}");
    let [lost, won] = changed(tiny(), UNetConfig { resampling: Resampling::Residual, ..tiny() });
    // Two convolutions.
    assert_eq!(lost.len(), 4);
    assert!(won.iter().all(|name| name.contains("halve.") || name.contains("double.")));
    // One skip connection a level: the second block going up is gone, with the first one's wider input.
    let [lost, won] = changed(tiny(), UNetConfig { skip_per: Per::Level, ..tiny() });
    assert!(lost.iter().all(|name| name.starts_with("up.0.1.") || name.starts_with("up.1.1.")) && won.is_empty());
    let [lost, won] = changed(tiny(), UNetConfig { text_pooling: TextPooling::Attention, ..tiny() });
    assert!(lost.is_empty() && won == ["text.pool.query", "text.pool.kv.weight", "text.pool.kv.bias"]);
    let crossing = UNetConfig { attention: vec![false; 2], cross_attention: vec![false, true], ..tiny() };
    let [lost, won] = changed(tiny(), crossing);
    assert!(all(&lost, ".attention.qkv.") && all(&won, ".attention.q.") && lost.len() == won.len());
    // Halving first: the lowest level halves, too, and the highest doubles; both change the channels as well.
    let [lost, won] = changed(tiny(), UNetConfig { resampling_order: ResamplingOrder::Before, ..tiny() });
    assert!(won.iter().all(|name| name.starts_with("down.1.halve.") || name.starts_with("up.0.double.")));
    let gone = ["up.0.1.", "up.1.1.", "down.1.0.shortcut."];
    assert!(lost.iter().all(|name| gone.iter().any(|part| name.starts_with(part))), "{lost:?}");
}

/// Two ways of saying the same give the same network, bit for bit.
#[test]
fn what_is_said_in_two_ways_is_the_same() {
    let says = |config| predict(&awake(config, DType::F32).0, &images(2, DType::F32), &times(2), None);
    let plain = says(tiny());
    assert_same_bits(&says(UNetConfig { blocks: Blocks::Each(vec![1, 1]), ..tiny() }), &plain, "blocks");
    // 16 channels, the only width with attention, in two heads.
    assert_same_bits(&says(UNetConfig { heads: 0, head_channels: Some(8), ..tiny() }), &plain, "heads");
    let cross = vec![false; 2];
    assert_same_bits(&says(UNetConfig { cross_attention: cross, ..tiny() }), &plain, "no cross-attention");
}

/// Attention over one token can see nothing but that one: the query has no say. With two it has.
#[test]
fn the_query_of_pooled_text_chooses_among_tokens() {
    for (lengths, chooses) in [([1, 1], false), ([2, 3], true)] {
        // Text comes in through the pooled vector alone.
        let config =
            UNetConfig { text_pooling: TextPooling::Attention, attention: vec![false; 2], middle: false, ..tiny() };
        let (net, parameters) = awake(config, DType::F64);
        let says = || predict(&net, &images(2, DType::F64), &times(2), Some(&captions(&lengths, 3)));
        let before = says();
        super::wake(&parameters, |name| name == "text.pool.query");
        let moved = largest_difference(&says(), &before);
        assert_eq!(moved > 1e-9, chooses, "{moved:e}");
    }
}

/// Cross-attention has a weight for every token and none for a pixel; they add up to 1, and padding has none.
#[test]
fn f4_cross_attention_looks_at_the_text_alone() {
    let [.., crossing] = kinds();
    let (net, _) = awake(crossing, DType::F32);
    let seen = watched(&net, &images(2, DType::F32), &times(2), Some(&captions(&[1, 3], 4)));
    let weights = &seen["down.1.attention.weights"];
    assert_eq!(weights.shape()[..], [2, 2, 4, 4]);
    for (image, tokens) in [(0, 1), (1, 3)] {
        for pixel in row(weights, image).to_f64().chunks(4) {
            assert!((pixel.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            assert!(pixel[tokens..].iter().all(|&w| w == 0.0) && pixel[..tokens].iter().all(|&w| w > 0.0));
        }
    }
}
