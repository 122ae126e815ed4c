//! How many parameters there are, which shapes fit, and what is said about those that do not.

use super::{TEXT_DIM, captions, fresh, images, predict, random, tiny};
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::diffusion::LowRes;
use imagen::nn::Init;
use imagen::unet::{Blocks, Condition, Norm, TextConfig, TextPooling, UNet, UNetConfig};
use std::panic::{AssertUnwindSafe, catch_unwind};

// ANCHOR: the_reference_workloads_have_the_parameters_of_their_peers
/// The same networks in PyTorch have these counts.
#[test]
fn the_reference_workloads_have_the_parameters_of_their_peers() {
    for (config, count) in [(UNetConfig::mnist28(), 1_623_169), (UNetConfig::cifar32(), 8_952_067)] {
        let (_, parameters) = fresh(config, DType::F32);
        assert_eq!(parameters.count(), count);
    }
}
// ANCHOR_END: the_reference_workloads_have_the_parameters_of_their_peers

// ANCHOR: text_and_scale_shift_add_what_their_layers_hold
/// What a layer adds is known: a token of text costs a norm, a null token, two layers for the pooled text, and keys and
/// values in every attention layer.
#[test]
fn text_and_scale_shift_add_what_their_layers_hold() {
    let count = |config: UNetConfig| fresh(config, DType::F32).1.count();
    let plain = UNetConfig { text: None, ..tiny() };
    let (d, time) = (TEXT_DIM, plain.time_dim());
    // Attention over 16 channels: after the block going down, in the middle, and after two blocks going up.
    let in_attention = 4 * (d * 2 * 16 + 2 * 16);
    let pooled = (d * time + time) + (time * time + time);
    assert_eq!(count(tiny()) - count(plain.clone()), 2 * d + d + pooled + in_attention);
    // Twice as many features of the embedding in each block: one of 8 and one of 16 down, two in the middle, two of 16 and two of 8 up.
    let outputs = 8 + 16 + 2 * 16 + 2 * 16 + 2 * 8;
    let scaled = UNetConfig { scale_shift: true, ..plain.clone() };
    assert_eq!(count(scaled) - count(plain), outputs * (time + 1));
}
// ANCHOR_END: text_and_scale_shift_add_what_their_layers_hold

// ANCHOR: a_prediction_has_the_shape_of_its_images
#[test]
fn a_prediction_has_the_shape_of_its_images() {
    for multipliers in [vec![1], vec![1, 2], vec![1, 3], vec![2, 1, 3], vec![1, 1, 1, 2]] {
        for (channels, scale_shift, text) in [(1, false, false), (3, true, true), (2, true, false), (1, false, true)] {
            let levels = multipliers.len();
            let config = UNetConfig {
                image_channels: channels,
                channel_multipliers: multipliers.clone(),
                attention: (0..levels).map(|level| level % 2 == 1).collect(),
                blocks: (1 + levels % 2).into(),
                scale_shift,
                text: text.then_some(TextConfig { dim: TEXT_DIM }),
                ..tiny()
            };
            let divisor = config.size_divisor();
            assert_eq!(divisor, 1 << (levels - 1));
            let (net, _) = fresh(config, DType::F32);
            // The smallest there can be, and one that is not square and whose halves are odd.
            for [b, h, w] in [[1, divisor, divisor], [2, 3 * divisor, divisor]] {
                let x = Tensor::constant(random(1, [b, channels, h, w], DType::F32));
                let condition = text.then(|| captions(&vec![3; b], 4));
                let y = predict(&net, &x, &vec![0.3; b], condition.as_ref());
                assert_eq!(y.shape(), x.shape(), "multipliers {multipliers:?}");
                assert!(y.is_finite(), "multipliers {multipliers:?}");
            }
        }
    }
}
// ANCHOR_END: a_prediction_has_the_shape_of_its_images

type Change = fn(&mut UNetConfig);

#[test]
fn a_wrong_config_is_an_error_that_names_the_key() {
    let wrong: [(&str, &str, Change); 28] = [
        ("image_channels", "not 0", |c| c.image_channels = 0),
        ("image_channels", "not 65", |c| c.image_channels = 65),
        ("base_channels", "not 0", |c| c.base_channels = 0),
        ("base_channels", "between 1 and 16384", |c| c.base_channels = usize::MAX),
        ("base_channels", "even", |c| (c.base_channels, c.groups, c.heads) = (9, 3, 3)),
        ("channel_multipliers", "1 to 8 levels, not 0", |c| (c.channel_multipliers, c.attention) = (vec![], vec![])),
        ("channel_multipliers", "not 9", |c| (c.channel_multipliers, c.attention) = (vec![1; 9], vec![false; 9])),
        ("channel_multipliers", "0 does not", |c| c.channel_multipliers[1] = 0),
        ("channel_multipliers", "does not", |c| c.channel_multipliers[1] = usize::MAX),
        ("blocks", "not 0", |c| c.blocks = 0.into()),
        ("blocks", "not 65", |c| c.blocks = 65.into()),
        ("attention", "one entry a level: 2, not 1", |c| c.attention = vec![true]),
        ("heads", "not 0", |c| c.heads = 0),
        ("heads", "3 does not divide 8", |c| c.heads = 3),
        ("blocks", "one a level: 2, not 3", |c| c.blocks = Blocks::Each(vec![1; 3])),
        ("blocks", "not 0", |c| c.blocks = Blocks::Each(vec![1, 0])),
        ("cross_attention", "one entry a level: 2, not 1", |c| c.cross_attention = vec![true]),
        ("cross_attention", "level 1 has unet.attention", |c| c.cross_attention = vec![false, true]),
        ("cross_attention", "add [unet.text]", |c| (c.cross_attention, c.text) = (vec![true, false], None)),
        ("text_pooling", "add [unet.text]", |c| (c.text_pooling, c.text) = (TextPooling::Attention, None)),
        ("head_channels", "take one out", |c| c.head_channels = Some(4)),
        ("head_channels", "3 does not divide 8", |c| (c.heads, c.head_channels) = (0, Some(3))),
        ("heads", "must divide the 32 features of the time", |c| {
            (c.heads, c.channel_multipliers, c.text_pooling) = (3, vec![3, 6], TextPooling::Attention)
        }),
        ("groups", "not 0", |c| c.groups = 0),
        ("groups", "3 does not divide 8", |c| c.groups = 3),
        ("groups", "divide base_channels; 16 does not divide 8", |c| {
            (c.groups, c.channel_multipliers) = (16, vec![2, 2])
        }),
        ("text.dim", "not 0", |c| c.text = Some(TextConfig { dim: 0 })),
        ("text.dim", "not 16385", |c| c.text = Some(TextConfig { dim: 16385 })),
    ];
    assert_eq!(tiny().validate(), Ok(()));
    // Only group normalisation has groups.
    assert_eq!(UNetConfig { norm: Norm::Layer, groups: 3, ..tiny() }.validate(), Ok(()));
    for (key, problem, change) in wrong {
        let mut config = tiny();
        change(&mut config);
        let error = config.validate().expect_err(problem);
        assert_eq!(error.key, key, "{problem}");
        let message = error.to_string();
        assert!(message.starts_with(&format!("unet.{key} ")) && message.contains(problem), "{message}");
        // The network checks its config itself: it never panics over one.
        assert_eq!(UNet::new(config, &Init::new(0, DType::F32)).map(|_| ()), Err(error));
    }
}

#[test]
fn a_config_survives_json_and_an_unknown_key_does_not() {
    let json = serde_json::to_string(&tiny()).unwrap();
    assert_eq!(serde_json::from_str::<UNetConfig>(&json).unwrap(), tiny());
    let slip = json.replace("\"heads\"", "\"haeds\"");
    let error = serde_json::from_str::<UNetConfig>(&slip).unwrap_err().to_string();
    assert!(error.contains("haeds"), "{error}");
}

#[test]
fn inputs_that_do_not_fit_panic_and_say_why() {
    let (net, _) = fresh(tiny(), DType::F32);
    let (textless, _) = fresh(UNetConfig { text: None, ..tiny() }, DType::F32);
    let says = |expected: &str, net: &UNet, x: &Tensor, t: &[f64], condition: Option<&Condition>| {
        let panic = catch_unwind(AssertUnwindSafe(|| predict(net, x, t, condition))).expect_err(expected);
        let message = panic.downcast_ref::<String>().expect("a message with numbers in it");
        assert!(message.contains(expected), "{message}");
    };
    let x = images(2, DType::F32);
    says("sides divisible by 2", &net, &Tensor::constant(random(1, [2, 1, 8, 7], DType::F32)), &[0.1; 2], None);
    says("expected 4 axes", &net, &x.reshape([2, 64]), &[0.1; 2], None);
    says("2 images need as many times", &net, &x, &[0.1; 3], None);
    says("2 images need as many texts", &net, &x, &[0.1; 2], Some(&captions(&[3; 3], 3)));
    let wide = Condition::new(random(1, [2, 3, 5], DType::F32), Array::from_vec([2, 3], vec![1f32; 6]));
    says("5 features a token, the network was made for 6", &net, &x, &[0.1; 2], Some(&wide));
    let coloured = Tensor::constant(random(1, [2, 3, 8, 8], DType::F32));
    says("[2, 3, 8, 8]", &net, &coloured, &[0.1; 2], None);
    let panic = catch_unwind(AssertUnwindSafe(|| predict(&textless, &x, &[0.1; 2], Some(&captions(&[3; 2], 3)))));
    assert!(panic.expect_err("text").downcast_ref::<&str>().unwrap().contains("made without text"));
}

#[test]
#[should_panic(expected = "every text needs a token")]
fn a_caption_without_a_token_is_refused() {
    captions(&[2, 0], 2);
}

#[test]
#[should_panic(expected = "mask does not fit tokens [2, 3, 6]")]
fn a_mask_of_another_size_is_refused() {
    Condition::new(random(1, [2, 3, 6], DType::F32), Array::from_vec([2, 4], vec![1f32; 8]));
}

#[test]
#[should_panic(expected = "each smaller image needs to say how noisy it is")]
fn one_amount_of_noise_for_two_smaller_images_is_refused() {
    let (net, _) = fresh(UNetConfig { low_res: true, text: None, ..tiny() }, DType::F32);
    let condition = Condition::low_res(LowRes { images: images(2, DType::F32), aug: vec![0.2] });
    predict(&net, &images(2, DType::F32), &[0.5; 2], Some(&condition));
}
