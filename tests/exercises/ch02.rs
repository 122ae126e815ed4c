//! Chapter 2, autodiff.
//!
//! 2.1 A walk by hand: y = (a + b) (b + 1) at a = 2, b = 3.
//! 2.2 A new op out of old ones: a^b, and its two gradients.
//! 2.3 Forward mode: numbers that carry their slope along, and what they cost when there are many inputs.
//! 2.4 A difference of fourth order, and its best step.
//! 2.5 How the slope itself changes: the Hessian times a vector, by two walks back.

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, check_gradients};
use imagen::random::{Purpose, normal};
use std::ops::{Add, Mul};

fn leaf<const N: usize>(values: [f64; N]) -> Tensor {
    Tensor::leaf(Array::from_f64([N], &values, DType::F64))
}

// ANCHOR: by_hand
/// The gradients of every node of y = (a + b) (b + 1), in the order in which the walk takes them: y, q, p, b, a.
fn by_hand(a: f64, b: f64) -> [f64; 5] {
    let (p, q) = (a + b, b + 1.0);
    let y_bar = 1.0;
    let q_bar = y_bar * p; // y = p q
    let p_bar = y_bar * q;
    let b_bar = q_bar + p_bar; // q = b + 1 and p = a + b: two paths
    let a_bar = p_bar;
    [y_bar, q_bar, p_bar, b_bar, a_bar]
}
// ANCHOR_END: by_hand

#[test]
fn the_walk_by_hand_is_that_of_the_engine() {
    assert_eq!(by_hand(2.0, 3.0), [1.0, 5.0, 4.0, 9.0, 4.0]);
    let (a, b) = (leaf([2.0]), leaf([3.0]));
    let y = &(&a + &b) * &(&b + 1.0);
    let ops: Vec<&str> = y.history().iter().map(|(_, op, _)| *op).collect();
    assert_eq!(ops, ["mul", "affine", "add", "leaf", "leaf"]);
    let gradients = y.backward();
    assert_eq!(gradients.get(&b).unwrap().to_f64(), [9.0]);
    assert_eq!(gradients.get(&a).unwrap().to_f64(), [4.0]);
}

// ANCHOR: power
/// a^b for a > 0, as e^(b log a): its gradients b a^(b - 1) and a^b log a come with those of its parts.
fn power(a: &Tensor, b: &Tensor) -> Tensor {
    (&a.log() * b).exp()
}
// ANCHOR_END: power

#[test]
fn a_power_has_the_gradients_of_calculus() {
    let (a, b) = (leaf([2.0, 0.5, 3.0]), leaf([3.0, -1.0, 0.0]));
    let gradients = power(&a, &b).sum_all().backward();
    for i in 0..3 {
        let (x, e) = (a.to_f64()[i], b.to_f64()[i]);
        let expected = [e * x.powf(e - 1.0), x.powf(e) * x.ln()];
        let found = [&a, &b].map(|leaf| gradients.get(leaf).unwrap().to_f64()[i]);
        assert!((0..2).all(|k| (found[k] - expected[k]).abs() < 1e-14 * (1.0 + expected[k].abs())), "{found:?}");
    }
    let inputs = [a.array().clone(), b.array().clone()];
    assert!(check_gradients(|x| power(&x[0], &x[1]), &inputs, 1, 1e-6).is_ok());
}

// ANCHOR: dual
/// A number and its slope with respect to one input.
#[derive(Clone, Copy)]
struct Dual {
    value: f64,
    slope: f64,
}

impl Add for Dual {
    type Output = Dual;

    fn add(self, other: Dual) -> Dual {
        Dual { value: self.value + other.value, slope: self.slope + other.slope }
    }
}

impl Mul for Dual {
    type Output = Dual;

    fn mul(self, other: Dual) -> Dual {
        Dual { value: self.value * other.value, slope: self.slope * other.value + self.value * other.slope }
    }
}

impl Dual {
    fn sin(self) -> Dual {
        Dual { value: self.value.sin(), slope: self.slope * self.value.cos() }
    }
}

/// The gradient of `f` at `x` by as many runs as there are inputs, each with a slope of 1 in one place.
fn gradient_forward(f: impl Fn(&[Dual]) -> Dual, x: &[f64]) -> Vec<f64> {
    let with_slope_at = |i: usize| -> Vec<Dual> {
        x.iter().enumerate().map(|(j, &value)| Dual { value, slope: f64::from(u8::from(i == j)) }).collect()
    };
    (0..x.len()).map(|i| f(&with_slope_at(i)).slope).collect()
}
// ANCHOR_END: dual

#[test]
fn forward_mode_finds_the_same_gradient_in_many_runs() {
    // f = sum over i of sin(x_i) x_(i + 1)
    let x = normal(4, Purpose::Test, 0, 0, 20);
    let runs = std::cell::Cell::new(0);
    let forward = gradient_forward(
        |x| {
            runs.set(runs.get() + 1);
            let zero = Dual { value: 0.0, slope: 0.0 };
            x.windows(2).map(|pair| pair[0].sin() * pair[1]).fold(zero, Dual::add)
        },
        &x,
    );
    let leaf = Tensor::leaf(Array::from_f64([20], &x, DType::F64));
    let gradients = (&leaf.slice(0, 0..19).sin() * &leaf.slice(0, 1..20)).sum_all().backward();
    let backward = gradients.get(&leaf).unwrap().to_f64();
    assert!(forward.iter().zip(&backward).all(|(f, b)| (f - b).abs() < 1e-14));
    assert_eq!(runs.get(), 20, "backward needed one");
}

// ANCHOR: five_points
/// The slope of `f` at `x` from four values; its error is h^4 / 30 |f'''''| and about 3 eps / (2 h) of rounding.
fn five_points(f: impl Fn(f64) -> f64, x: f64, h: f64) -> f64 {
    (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h)
}
// ANCHOR_END: five_points

#[test]
fn five_points_are_of_fourth_order() {
    let error = |h: f64| (five_points(f64::sin, 1.0, h) - 1.0_f64.cos()).abs();
    for k in 2..6 {
        let h = 0.5_f64.powi(k);
        let law = h.powi(4) / 30.0 * 1.0_f64.cos();
        assert!((error(h) / law - 1.0).abs() < h * h, "h = {h}");
    }
    // Below the sum of both errors at every step, and at its best much better than the central difference at its own.
    let bound = |h: f64| h.powi(4) / 30.0 + 1.5 * f64::EPSILON / h;
    assert!((1..45).map(|k| 0.5_f64.powi(k)).all(|h| error(h) <= bound(h)));
    let best = (30.0 * 1.5 / 4.0 * f64::EPSILON).powf(0.2);
    assert!([0.5, 0.9, 1.1, 2.0].iter().all(|factor| bound(best * factor) > bound(best)));
    assert!(best > 1e-3 && best < 2e-3 && bound(best) < 1e-12);
}

// ANCHOR: hessian
/// The Hessian of `f` at `x` times `v`: how the gradient changes along v.
fn hessian_times(f: impl Fn(&Tensor) -> Tensor, x: &Array, v: &Array) -> Vec<f64> {
    let h = 1e-5;
    let gradient = |step: f64| {
        let leaf = Tensor::leaf(x + &v.affine(step, 0.0));
        f(&leaf).backward().get(&leaf).expect("f depends on x").to_f64()
    };
    gradient(h).iter().zip(gradient(-h)).map(|(plus, minus)| (plus - minus) / (2.0 * h)).collect()
}
// ANCHOR_END: hessian

#[test]
fn the_hessian_of_a_small_function() {
    // f = x0^2 x1 + sin(x1) has the Hessian [[2 x1, 2 x0], [2 x0, -sin(x1)]].
    let f = |x: &Tensor| {
        let (a, b) = (x.slice(0, 0..1), x.slice(0, 1..2));
        (&(&a.square() * &b) + &b.sin()).sum_all()
    };
    let array = |values: [f64; 2]| Array::from_f64([2], &values, DType::F64);
    let x = array([1.5, 0.7]);
    for v in [[1.0, 0.0], [0.0, 1.0], [2.0, -3.0]] {
        let found = hessian_times(f, &x, &array(v));
        let expected = [1.4 * v[0] + 3.0 * v[1], 3.0 * v[0] - 0.7_f64.sin() * v[1]];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?} {expected:?}");
    }
}
