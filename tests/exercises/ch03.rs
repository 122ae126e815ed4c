//! Chapter 3, layers and Adam.
//!
//! 3.1 Start all weights of a layer at the same number: its outputs never come to differ.
//! 3.2 Find the gain of first weights for any activation.
//! 3.3 Which decay lets an average forget half of its past in h steps?
//! 3.4 Leave out Adam's bias correction: how much too long is step t?
//! 3.5 Cross-entropy for targets that are probabilities, with its gradient.

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, check_gradients, no_grad};
use imagen::nn::{Fill, Init};
use imagen::optim::{Adam, Ema, Optimizer};
use imagen::random::{Purpose, normal};

/// N(0, 1) numbers of the given shape.
fn random(index: u64, shape: [usize; 2]) -> Array {
    Array::from_f64(shape, &normal(3, Purpose::Test, 0, index, shape[0] * shape[1]), DType::F64)
}

// ANCHOR: symmetric
/// The largest difference between two hidden units' weights after 50 steps of training 2 -> 4 -> 1 on some function.
fn difference_of_units(fill: Fill) -> f64 {
    let init = Init::new(0, DType::F64);
    let (hidden, last) = (init.param("hidden", [4, 2], fill), init.param("last", [1, 4], fill));
    let x = Tensor::constant(random(0, [32, 2]));
    let target = x.slice(-1, 0..1).sin();
    let mut adam = Adam::new([0.9, 0.999], 1e-8, 0.0);
    for _ in 0..50 {
        let y = x.linear(&hidden.tensor(), None).silu().linear(&last.tensor(), None);
        adam.step(&init.parameters(), &y.mse(&target).backward(), 0.01);
    }
    let rows = hidden.tensor().to_f64();
    (0..8).map(|i| (rows[i] - rows[i % 2]).abs()).fold(0.0, f64::max)
}
// ANCHOR_END: symmetric

#[test]
fn ex_3_1_equal_units_stay_equal() {
    assert_eq!(difference_of_units(Fill::Ones), 0.0);
    assert!(difference_of_units(Fill::Uniform(0.7)) > 0.1);
}

// ANCHOR: gain
/// What `bend` wants: 1 / E bend(z)^2 for z from N(0, 1), by the midpoint rule on [-12, 12].
fn gain(bend: fn(&Tensor) -> Tensor) -> f64 {
    const N: usize = 24_000;
    let width = 24.0 / N as f64;
    let z: Vec<f64> = (0..N).map(|i| (i as f64 + 0.5) * width - 12.0).collect();
    let squares = no_grad(|| bend(&Tensor::from_f64([N], &z, DType::F64)).square()).to_f64();
    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    1.0 / z.iter().zip(squares).map(|(&z, y)| density(z) * y * width).sum::<f64>()
}
// ANCHOR_END: gain

#[test]
fn ex_3_2_gains() {
    assert!((gain(|x| x.clone()) - 1.0).abs() < 1e-9);
    assert!((gain(Tensor::relu) - 2.0).abs() < 1e-6);
    assert!((gain(Tensor::silu) - 2.8108).abs() < 1e-4);
    assert!((gain(Tensor::gelu_erf) - 2.3517).abs() < 1e-4);
    assert!((gain(Tensor::tanh) - 2.5362).abs() < 1e-4);
}

// ANCHOR: half_life
/// The decay of an average that keeps half of what it held `steps` steps ago.
fn decay_of_half_life(steps: f64) -> f64 {
    0.5_f64.powf(1.0 / steps)
}
// ANCHOR_END: half_life

#[test]
fn ex_3_3_half_of_the_first_weights_is_left_after_the_half_life() {
    let init = Init::new(0, DType::F64);
    let p = init.param("p", [1], Fill::Ones);
    for half_life in [1, 7, 500] {
        let mut ema = Ema::new(&init.parameters(), decay_of_half_life(half_life as f64), false).unwrap();
        p.update(|p| *p = Array::from_vec([1], vec![0.0]));
        (0..half_life).for_each(|_| ema.update(&init.parameters()));
        assert!((ema.values()["p"].item() - 0.5).abs() < 1e-12);
        p.update(|p| *p = Array::from_vec([1], vec![1.0]));
    }
    // About 0.693 of 1 / (1 - d), as -ln d is nearly 1 - d.
    let d = decay_of_half_life(500.0);
    assert!((500.0 * (1.0 - d) - 2f64.ln()).abs() < 1e-3);
}

// ANCHOR: uncorrected
/// How many times longer step `t` is without bias correction, if all gradients are equal and eps is 0.
fn too_long(betas: [f64; 2], t: i32) -> f64 {
    (1.0 - betas[0].powi(t)) / (1.0 - betas[1].powi(t)).sqrt()
}

/// Adam as in the paper but with the moments as they are.
fn uncorrected_steps(betas: [f64; 2], g: f64, lr: f64, steps: usize) -> Vec<f64> {
    let (mut m, mut v) = (0.0, 0.0);
    let mut step = || {
        m = betas[0] * m + (1.0 - betas[0]) * g;
        v = betas[1] * v + (1.0 - betas[1]) * g * g;
        lr * m / f64::sqrt(v)
    };
    (0..steps).map(|_| step()).collect()
}
// ANCHOR_END: uncorrected

#[test]
fn ex_3_4_without_correction_the_first_steps_are_too_long() {
    let betas = [0.9, 0.999];
    let steps = uncorrected_steps(betas, -4.2, 0.01, 3000);
    for (i, step) in steps.iter().enumerate() {
        let expected = -0.01 * too_long(betas, i as i32 + 1);
        assert!((step - expected).abs() < 1e-12, "step {}: {step}, expected {expected}", i + 1);
    }
    assert!((too_long(betas, 1) - 0.1 / 0.001_f64.sqrt()).abs() < 1e-9);
    let worst = (1..3000).map(|t| too_long(betas, t)).fold(0.0, f64::max);
    assert!((worst - 6.57).abs() < 0.005 && (too_long(betas, 12) - worst).abs() < 1e-9, "{worst}");
}

// ANCHOR: soft_targets
/// Mean over rows of -sum_k y_k log softmax(z)_k; z and the probabilities y are [N, K].
fn soft_cross_entropy(z: &Tensor, y: &Tensor) -> Tensor {
    (&z.log_softmax(-1) * y).sum_all().affine(-1.0 / z.shape()[0] as f64, 0.0)
}
// ANCHOR_END: soft_targets

#[test]
fn ex_3_5_soft_targets() {
    let z = Tensor::leaf(random(1, [3, 4]));
    let y = Tensor::constant(random(2, [3, 4])).softmax(-1);
    let f = |x: &[Tensor]| soft_cross_entropy(&x[0], &y);
    check_gradients(f, &[z.array().clone()], 5, 1e-6).unwrap();
    let found = soft_cross_entropy(&z, &y).backward().get(&z).unwrap().to_f64();
    let expected = (&z.softmax(-1) - &y).affine(1.0 / 3.0, 0.0).to_f64();
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14));
    // With all of y on one class it is the usual cross-entropy.
    let hard = Tensor::from_f64([3, 4], &[0., 0., 1., 0., 1., 0., 0., 0., 0., 0., 0., 1.], DType::F64);
    let (soft, usual) = (soft_cross_entropy(&z, &hard), z.cross_entropy(&[2, 0, 3]));
    assert!((soft.item() - usual.item()).abs() < 1e-14);
}
