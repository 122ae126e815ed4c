//! How a network starts: residual blocks and attention are identities, so neither time nor text reaches the prediction.
//! Each of the weights that start at 0 lets one of them in.

use super::{assert_same_bits, captions, fresh, images, predict, tiny, wake};
use imagen::array::{Array, DType};
use imagen::nn::Parameters;
use imagen::unet::{UNet, UNetConfig};

/// Whether the prediction changes with (the time, the text).
fn influences(net: &UNet) -> (bool, bool) {
    let x = images(2, DType::F32);
    let says = |t: f64, lengths: &[usize]| predict(net, &x, &[t; 2], Some(&captions(lengths, 3)));
    let base = says(0.2, &[1, 2]);
    (!base.bit_eq(&says(0.9, &[1, 2])), !base.bit_eq(&says(0.2, &[3, 3])))
}

fn both_kinds() -> [UNetConfig; 2] {
    [tiny(), UNetConfig { scale_shift: true, ..tiny() }]
}

/// The names of what starts at 0, norms and their biases aside.
fn zeros(parameters: &Parameters) -> Vec<String> {
    let zero = |a: &Array| a.to_f64().iter().all(|&v| v == 0.0);
    let names = parameters.iter().filter(|p| zero(p.tensor().array())).map(|p| p.name().to_string());
    names.filter(|name| !name.contains("norm")).collect()
}

// ANCHOR: every_block_and_every_attention_ends_in_zeros
#[test]
fn every_block_and_every_attention_ends_in_zeros() {
    let (_, parameters) = fresh(tiny(), DType::F32);
    let ends = |p: &str| p.contains(".conv2.") || p.contains("attention.out.") || p.contains("text.pooled.1.");
    let expected: Vec<&str> = parameters.iter().map(|p| p.name()).filter(|name| ends(name)).collect();
    assert_eq!(zeros(&parameters), expected);
    // Two in the middle, two down, four up, each a weight and a bias; attention in four places; the pooled text.
    assert_eq!(expected.len(), 2 * (8 + 4 + 1));
}
// ANCHOR_END: every_block_and_every_attention_ends_in_zeros

// ANCHOR: at_the_start_neither_time_nor_text_has_any_influence
#[test]
fn at_the_start_neither_time_nor_text_has_any_influence() {
    for config in both_kinds() {
        assert_eq!(influences(&fresh(config, DType::F32).0), (false, false));
    }
}
// ANCHOR_END: at_the_start_neither_time_nor_text_has_any_influence

// ANCHOR: the_last_convolution_of_the_blocks_lets_the_time_in
#[test]
fn the_last_convolution_of_the_blocks_lets_the_time_in() {
    for config in both_kinds() {
        let (net, parameters) = fresh(config, DType::F32);
        wake(&parameters, |name| name.ends_with("conv2.weight"));
        assert_eq!(influences(&net), (true, false));
    }
}
// ANCHOR_END: the_last_convolution_of_the_blocks_lets_the_time_in

#[test]
fn the_last_layer_of_attention_lets_the_text_in() {
    for config in both_kinds() {
        let (net, parameters) = fresh(config, DType::F32);
        wake(&parameters, |name| name.ends_with("attention.out.weight"));
        assert_eq!(influences(&net), (false, true));
    }
}

#[test]
fn the_last_layer_of_the_pooled_text_lets_it_in_through_the_blocks() {
    for config in both_kinds() {
        let (net, parameters) = fresh(config, DType::F32);
        wake(&parameters, |name| name == "text.pooled.1.weight");
        assert_eq!(influences(&net), (false, false), "the blocks are still identities");
        wake(&parameters, |name| name.ends_with("conv2.weight"));
        assert_eq!(influences(&net), (true, true));
    }
}

/// Every image is at its own time.
#[test]
fn an_image_sees_its_own_time_alone() {
    let (net, _) = super::awake(tiny(), DType::F32);
    let x = images(3, DType::F32);
    let says = |t: [f64; 3]| predict(&net, &x, &t, None);
    let (a, b) = (says([0.1, 0.5, 0.9]), says([0.1, 0.6, 0.9]));
    for i in [0, 2] {
        assert_same_bits(&super::row(&a, i), &super::row(&b, i), "an image whose time is the same");
    }
    assert!(super::largest_difference(&super::row(&a, 1), &super::row(&b, 1)) > 1e-3);
}
