//! Weights kept in 16 bits: the same numbers as if they had been rounded and kept in 32.

use crate::device;
use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::cascade::TextToImage;
use imagen::kernels::{ConvShape, of};
use imagen::random::{Purpose, normal};
use std::ops::ControlFlow;

fn random(shape: &[usize], index: u64) -> Array {
    Array::from_f64(shape, &normal(0, Purpose::Test, 0, index, shape.iter().product()), DType::F32)
}

/// Every number as the nearest of f16.
fn rounded(x: &Array) -> Array {
    Array::from_vec(x.shape(), x.to_f32().iter().map(|&v| half::f16::from_f32(v).to_f32()).collect::<Vec<f32>>())
}

#[test]
fn products_and_convolutions_with_halved_weights_have_the_bits_of_rounded_ones() {
    let Some(device) = device() else { return };
    let k = of(device);
    for [m, n, inner] in [[3, 5, 7], [65, 33, 40], [2, 1, 600]] {
        let (x, w) = (random(&[m, inner], 1).to(device), random(&[n, inner], 2));
        let (halved, same) = (k.halve(&w.to(device)), rounded(&w).to(device));
        assert_eq!((halved.dtype(), halved.device()), (DType::F32, device));
        assert!(halved.bit_eq(&same) && halved.to(Device::Cpu).bit_eq(&rounded(&w)));
        assert!(k.matmul(&x, &halved, false, true).bit_eq(&k.matmul(&x, &same, false, true)));
        // As the first operand, as both, and where nobody reads 16 bits.
        assert!(k.matmul(&halved, &x, false, true).bit_eq(&k.matmul(&same, &x, false, true)));
        assert!(k.matmul(&halved, &halved, true, false).bit_eq(&k.matmul(&same, &same, true, false)));
        assert!((&halved + &halved).bit_eq(&(&same + &same)));
        assert!(halved.affine(2.0, 1.0).bit_eq(&same.affine(2.0, 1.0)));
        assert!(k.permute(&halved, &[1, 0]).bit_eq(&k.permute(&same, &[1, 0])));
    }
    for (x, w, conv) in [
        ([2, 3, 5, 7], [4, 3, 3, 3], ConvShape { stride: 1, padding: 1 }),
        ([1, 9, 8, 6], [5, 9, 3, 2], ConvShape { stride: 2, padding: 1 }),
        ([2, 7, 4, 4], [3, 7, 1, 1], ConvShape { stride: 1, padding: 0 }),
    ] {
        let (x, w, bias) = (random(&x, 1).to(device), random(&w, 2), random(&[w[0]], 3).to(device));
        let (halved, same) = (k.halve(&w.to(device)), rounded(&w).to(device));
        for bias in [None, Some(&bias)] {
            assert!(k.conv2d(&x, &halved, bias, conv).bit_eq(&k.conv2d(&x, &same, bias, conv)));
        }
        let g = k.conv2d(&x, &same, None, conv);
        let grad = |w: &Array| k.conv2d_grad_input(&g, w, x.shape(), conv);
        assert!(grad(&halved).bit_eq(&grad(&same)));
    }
}

#[test]
fn a_number_too_large_for_16_bits_keeps_the_array_in_32() {
    let Some(device) = device() else { return };
    let x = Array::from_vec([3], vec![1.0, 70_000.0_f32, 0.1]).to(device);
    assert!(of(device).halve(&x).bit_eq(&x));
    let infinite = Array::from_vec([3], vec![f32::INFINITY, f32::NAN, 0.5]).to(device);
    let found = of(device).halve(&infinite).to_f32();
    assert!(found[0] == f32::INFINITY && found[1].is_nan() && found[2] == 0.5);
}

/// What changes an array in place makes one of 32 bits first.
#[test]
fn a_halved_array_can_be_changed() {
    let Some(device) = device() else { return };
    let (k, x) = (of(device), random(&[33], 5));
    for mut halved in [k.halve(&x.to(device)), k.halve(&x.to(device)).clone()] {
        k.add_assign(&mut halved, &x.to(device), 0.5);
        let mut expected = rounded(&x).to(device);
        k.add_assign(&mut expected, &x.to(device), 0.5);
        assert!(halved.bit_eq(&expected));
    }
    let leaf = Tensor::leaf(k.halve(&random(&[4, 3], 6).to(device)));
    let gradient = random(&[2, 3], 7).to(device);
    let y = Tensor::from(gradient).linear(&leaf, None).sum_all();
    assert_eq!(y.backward().get(&leaf).unwrap().shape()[..], [4, 3]);
}

/// The bundled model is stored in f16: kept so on the GPU it draws the same images, bit for bit.
#[test]
fn the_bundled_model_draws_the_same_images_with_half_the_memory_for_its_weights() {
    let Some(device) = device() else { return };
    let weights = imagen::cascade::bundled::MNIST.weights().unwrap();
    let images = [false, true].map(|half| {
        let model = TextToImage::from_weights(&weights).unwrap().on(device);
        let model = if half { model.halved() } else { model };
        let mut request = model.request(vec!["four".into()]);
        request.sampling.steps = 3;
        model.sample(&request, &mut |_| ControlFlow::Continue(())).unwrap()
    });
    assert!(images[0].array().bit_eq(images[1].array()));
}
