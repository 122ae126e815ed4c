//! Layers against their plain formulas, first values of parameters, and weights as files.

mod attention;
mod init;
mod layers;
mod weights;

use imagen::array::{Array, DType, Shape};
use imagen::random::{Purpose, normal};

/// Draws from N(0, 1) in f64.
fn random(index: u64, shape: impl Into<Shape>) -> Array {
    let shape = shape.into();
    let values = normal(2, Purpose::Test, 0, index, shape.numel());
    Array::from_f64(shape, &values, DType::F64)
}

/// Gives every parameter values that no layer starts with, so that a weight of 1 or a bias of 0 hides nothing.
fn stir(init: &imagen::nn::Init) -> std::collections::BTreeMap<String, Vec<f64>> {
    let parameters = init.parameters();
    for (i, param) in parameters.iter().enumerate() {
        param.update(|value| *value = random(500 + i as u64, value.shape()).cast(value.dtype()));
    }
    parameters.values().into_iter().map(|(name, value)| (name, value.to_f64())).collect()
}

#[track_caller]
fn assert_close(found: &Array, expected: &[f64], tolerance: f64) {
    let found = found.to_f64();
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "number {i}: {a} is not {b}");
    }
}
