//! (F4) Text: padding has no influence whatever, the order of captions has none, and a dropped text is no text.

use super::{
    TEXT_DIM, assert_same_bits, awake, captions, images, kinds, largest_difference, padded, predict, random, row,
    times, tiny,
};
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::unet::{Condition, TextConfig, UNet, UNetConfig};

const LENGTHS: [usize; 3] = [2, 4, 1];

fn nets() -> impl Iterator<Item = UNet> {
    let simple = [false, true].map(|scale_shift| UNetConfig { scale_shift, ..tiny() });
    simple.into_iter().chain(kinds()).map(|config| {
        let dtype = if config.scale_shift { DType::F64 } else { DType::F32 };
        awake(config, dtype).0
    })
}

fn says(net: &UNet, condition: Option<&Condition>) -> Array {
    let dtype = if net.config().scale_shift { DType::F64 } else { DType::F32 };
    predict(net, &images(3, dtype), &times(3), condition)
}

// ANCHOR: a_caption_has_an_influence_on_its_own_image_alone
#[test]
fn a_caption_has_an_influence_on_its_own_image_alone() {
    for net in nets() {
        let (a, b) = (says(&net, Some(&captions(&LENGTHS, 4))), says(&net, Some(&captions(&[2, 3, 1], 4))));
        for i in [0, 2] {
            assert_same_bits(&row(&a, i), &row(&b, i), "an image whose caption is the same");
        }
        assert!(largest_difference(&row(&a, 1), &row(&b, 1)) > 1e-3);
    }
}
// ANCHOR_END: a_caption_has_an_influence_on_its_own_image_alone

// ANCHOR: what_stands_in_the_padding_has_no_influence_whatever
/// Not even a NaN there comes through.
#[test]
fn what_stands_in_the_padding_has_no_influence_whatever() {
    for net in nets() {
        let zeros = says(&net, Some(&captions(&LENGTHS, 4)));
        for padding in [1.0, -3e4, f32::MAX, f32::NEG_INFINITY, f32::NAN] {
            let (tokens, mask) = padded(&LENGTHS, 4, padding);
            assert_same_bits(&says(&net, Some(&Condition::new(tokens, mask))), &zeros, &format!("padding {padding}"));
        }
    }
}
// ANCHOR_END: what_stands_in_the_padding_has_no_influence_whatever

// ANCHOR: more_padding_changes_not_a_bit
/// So an image does not depend on how long the captions beside it are.
#[test]
fn more_padding_changes_not_a_bit() {
    for net in nets() {
        let tight = says(&net, Some(&captions(&LENGTHS, 4)));
        for columns in [5, 8, 33, 300] {
            assert_same_bits(&says(&net, Some(&captions(&LENGTHS, columns))), &tight, &format!("{columns} columns"));
        }
    }
}
// ANCHOR_END: more_padding_changes_not_a_bit

/// At a size that people train, where attention sees more keys than one block of a matrix product holds.
#[test]
fn more_padding_changes_not_a_bit_of_a_large_image() {
    let text = Some(TextConfig { dim: TEXT_DIM });
    let (net, _) = awake(UNetConfig { attention: vec![false, true, true], text, ..UNetConfig::mnist28() }, DType::F32);
    let x = Tensor::constant(random(1, [3, 1, 28, 28], DType::F32));
    let says = |columns| predict(&net, &x, &times(3), Some(&captions(&LENGTHS, columns)));
    let tight = says(4);
    for columns in [7, 61, 100] {
        assert_same_bits(&says(columns), &tight, &format!("{columns} columns"));
    }
}

// ANCHOR: the_order_of_the_captions_is_the_order_of_the_images
#[test]
fn the_order_of_the_captions_is_the_order_of_the_images() {
    for net in nets() {
        let dtype = if net.config().scale_shift { DType::F64 } else { DType::F32 };
        // The same image and time three times, so that only the captions tell them apart.
        let x = Tensor::constant(row(images(1, dtype).array(), 0)).broadcast_to([3, 1, 8, 8]);
        let (tokens, mask) = padded(&LENGTHS, 4, 0.0);
        let all = predict(&net, &x, &[0.4; 3], Some(&Condition::new(tokens.clone(), mask.clone())));
        for order in [[1, 2, 0], [2, 1, 0], [0, 2, 1]] {
            let pick = |a: &Array| {
                let rows = order.map(|i| Tensor::constant(row(a, i)));
                imagen::autograd::concat(&rows.each_ref(), 0).into_array()
            };
            let permuted = predict(&net, &x, &[0.4; 3], Some(&Condition::new(pick(&tokens), pick(&mask))));
            assert_same_bits(&permuted, &pick(&all), &format!("order {order:?}"));
        }
    }
}
// ANCHOR_END: the_order_of_the_captions_is_the_order_of_the_images

// ANCHOR: a_dropped_text_is_no_text
#[test]
fn a_dropped_text_is_no_text() {
    for net in nets() {
        let (none, all) = (says(&net, None), says(&net, Some(&captions(&LENGTHS, 4))));
        assert!(largest_difference(&none, &all) > 1e-3);
        let keeping = |keep: [bool; 3]| says(&net, Some(&captions(&LENGTHS, 4).with_dropped(keep.to_vec())));
        assert_same_bits(&keeping([false; 3]), &none, "all dropped");
        assert_same_bits(&keeping([true; 3]), &all, "none dropped");
        for keep in [[true, false, false], [false, true, false], [true, false, true]] {
            let mixed = keeping(keep);
            for (i, kept) in keep.into_iter().enumerate() {
                assert_same_bits(
                    &row(&mixed, i),
                    &row(if kept { &all } else { &none }, i),
                    &format!("{i} of {keep:?}"),
                );
            }
        }
    }
}
// ANCHOR_END: a_dropped_text_is_no_text

/// The null token learns from dropped texts, and from them alone; the norm of the text from the others.
#[test]
fn the_null_token_learns_from_dropped_texts_alone() {
    let (net, parameters) = awake(tiny(), DType::F32);
    let learned = |keep: [bool; 3], name: &str| {
        let condition = captions(&LENGTHS, 4).with_dropped(keep.to_vec());
        let gradients = net.forward(&images(3, DType::F32), &times(3), Some(&condition)).square().mean_all().backward();
        let param = parameters.iter().find(|p| p.name() == name).expect(name);
        gradients.get(&param.tensor()).is_some_and(|g| g.to_f64().iter().any(|&v| v != 0.0))
    };
    assert!(!learned([true; 3], "text.null") && learned([true; 3], "text.norm.weight"));
    assert!(learned([true, false, true], "text.null") && learned([true, false, true], "text.norm.weight"));
    assert!(learned([false; 3], "text.null") && !learned([false; 3], "text.norm.weight"));
}
