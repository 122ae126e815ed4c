//! Gradients of the whole network: against differences, in both precisions, on any number of threads, and recomputed.

use super::{awake, captions, images, kinds, largest_difference, random, times, tiny};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, check_gradients, checkpoint, no_grad};
use imagen::diffusion::LowRes;
use imagen::nn::Parameters;
use imagen::unet::{Condition, Norm, UNet, UNetConfig};
use std::sync::Arc;

/// Two images, the text of one of them dropped: so every parameter has a part in the result.
fn condition() -> Condition {
    captions(&[3, 2], 4).with_dropped(vec![true, false])
}

/// The same beside two smaller images, one of them noisy, for a network that makes them larger.
fn condition_of(config: &UNetConfig) -> Condition {
    if !config.low_res {
        return condition();
    }
    let low = LowRes { images: Tensor::constant(random(9, [2, 1, 8, 8], DType::F64)), aug: vec![0.0, 0.6] };
    Condition::with_low_res(Some(condition()), low)
}

#[test]
fn the_gradient_with_respect_to_the_image() {
    for scale_shift in [false, true] {
        let (net, _) = awake(UNetConfig { scale_shift, ..tiny() }, DType::F64);
        let x = random(3, [2, 1, 4, 4], DType::F64);
        check_gradients(|x| net.forward(&x[0], &times(2), Some(&condition())), &[x], 5, 1e-6).unwrap();
    }
}

/// Along one random direction for each parameter of the network.
#[test]
fn the_gradient_with_respect_to_every_parameter() {
    // Ten thousand tiny kernels: on one thread none of them is handed from one to another.
    on(1, || {
        for (scale_shift, low_res) in [(false, false), (true, false), (true, true)] {
            check_every_parameter(UNetConfig { scale_shift, low_res, ..tiny() });
        }
        for config in kinds() {
            check_every_parameter(config);
        }
        for norm in [Norm::Layer, Norm::Rms] {
            check_every_parameter(UNetConfig { norm, scale_shift: true, ..tiny() });
        }
    });
}

fn check_every_parameter(config: UNetConfig) {
    const STEP: f64 = 1e-5;
    let condition = condition_of(&config);
    let (net, parameters) = awake(config, DType::F64);
    let (x, target) = (images(2, DType::F64), Tensor::constant(random(4, [2, 1, 8, 8], DType::F64)));
    let loss = || net.forward(&x, &times(2), Some(&condition)).mse(&target);
    let gradients = loss().backward();
    assert_eq!(gradients.len(), parameters.len(), "every parameter has a part in the result");
    for (i, param) in parameters.iter().enumerate() {
        let direction = random(1000 + i as u64, param.shape(), DType::F64);
        let gradient = gradients.get(&param.tensor()).unwrap_or_else(|| panic!("{param:?} has no gradient"));
        let backward: f64 = gradient.to_f64().iter().zip(direction.to_f64()).map(|(g, d)| g * d).sum();
        let value = param.tensor().into_array();
        let shifted = |step: f64| {
            param.update(|p| *p = &value + &direction.affine(step, 0.0));
            no_grad(loss).item()
        };
        // Where few pixels are normalised the third derivative is large: this difference is free of it.
        let [near, far] = [STEP, 2.0 * STEP].map(|step| shifted(step) - shifted(-step));
        let difference = (8.0 * near - far) / (12.0 * STEP);
        param.update(|p| *p = value.clone());
        let error = (backward - difference).abs() / backward.abs().max(1e-3);
        assert!(error < 1e-6, "{param:?}: backward {backward:e}, difference {difference:e}, relative {error:e}");
    }
}

/// The prediction, and every gradient of its mean square.
fn all_of(net: &UNet, parameters: &Parameters, dtype: DType) -> Vec<Array> {
    let x = Tensor::leaf(images(2, dtype).into_array());
    let y = net.forward(&x, &times(2), Some(&condition()));
    gather(&y, &x, parameters)
}

fn gather(y: &Tensor, x: &Tensor, parameters: &Parameters) -> Vec<Array> {
    let gradients = y.square().mean_all().backward();
    let leaves = parameters.iter().map(|p| p.tensor()).chain([x.clone()]);
    let gradients = leaves.map(|leaf| gradients.get(&leaf).expect("a gradient").clone());
    [y.array().clone()].into_iter().chain(gradients).collect()
}

#[test]
fn single_precision_agrees_with_double() {
    let all = [DType::F32, DType::F64].map(|dtype| {
        let (net, parameters) = awake(UNetConfig { scale_shift: true, ..tiny() }, dtype);
        all_of(&net, &parameters, dtype)
    });
    for (i, (single, double)) in all[0].iter().zip(&all[1]).enumerate() {
        let scale = double.to_f64().iter().fold(1e-2_f64, |m, v| m.max(v.abs()));
        let error = largest_difference(single, double) / scale;
        assert!(error < 1e-5, "result {i} (0: prediction, then gradients): {error:e} of {scale:e}");
    }
}

/// Runs `f` on so many threads.
fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[track_caller]
fn assert_all_same(a: &[Array], b: &[Array]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        super::assert_same_bits(a, b, &format!("result {i} (0: prediction, then gradients)"));
    }
}

#[test]
fn the_number_of_threads_changes_not_a_bit() {
    let (net, parameters) = awake(UNetConfig { text: None, ..UNetConfig::mnist28() }, DType::F32);
    let run = || {
        let x = Tensor::leaf(random(1, [3, 1, 28, 28], DType::F32));
        gather(&net.forward(&x, &times(3), None), &x, &parameters)
    };
    let one = on(1, run);
    assert_all_same(&one, &on(2, run));
    assert_all_same(&one, &on(3, run));
}

#[test]
fn a_recomputed_network_has_the_same_gradients() {
    let (net, parameters) = awake(tiny(), DType::F32);
    let remembered = all_of(&net, &parameters, DType::F32);
    let net = Arc::new(net);
    let x = Tensor::leaf(images(2, DType::F32).into_array());
    let y = checkpoint(&[&x], move |x| net.forward(&x[0], &times(2), Some(&condition())));
    assert_all_same(&remembered, &gather(&y, &x, &parameters));
}

/// Of the prediction, of the gradients with respect to the image and to every parameter: with text, without, and with
/// blocks of both kinds.
#[test]
fn recomputing_blocks_changes_not_a_bit() {
    let simple = [(false, true), (true, true), (true, false)].map(|(scale_shift, text)| {
        let config = UNetConfig { scale_shift, ..tiny() };
        if text { config } else { UNetConfig { text: None, ..config } }
    });
    for config in simple.into_iter().chain(kinds()) {
        let text = config.text.is_some();
        let (net, parameters) = awake(config, DType::F32);
        let run = |net: &UNet| {
            let x = Tensor::leaf(images(2, DType::F32).into_array());
            let y = net.forward(&x, &times(2), text.then(condition).as_ref());
            (gather(&y, &x, &parameters), net.forward(&x, &times(2), None).history().len())
        };
        let (remembered, nodes) = run(&net);
        let (recomputed, fewer) = run(&net.recomputing(true));
        assert_all_same(&remembered, &recomputed);
        assert!(3 * fewer < 2 * nodes, "{fewer} nodes instead of {nodes}");
    }
}
