//! What the tests of the kernels share.

use super::{Gpu, adapters, gpu as opened, open};
use crate::array::{Array, DType, Shape};
use crate::kernels::Kernels;
use crate::random::{Purpose, normal};

impl Gpu {
    /// An array from the CPU.
    pub fn to(&self, x: &Array) -> Array {
        self.receive(x)
    }
}

/// The first GPU, software or not; without one the test is skipped, or fails where IMAGEN_REQUIRE_GPU is 1.
pub fn gpu() -> Option<&'static Gpu> {
    if adapters().is_empty() {
        assert!(
            std::env::var("IMAGEN_REQUIRE_GPU").as_deref() != Ok("1"),
            "there is no GPU, and IMAGEN_REQUIRE_GPU is 1"
        );
        eprintln!("skipped: there is no GPU");
        return None;
    }
    Some(opened(open(0).expect("the first GPU can be opened")))
}

/// Draws from N(0, 1), f32.
pub fn random(shape: impl Into<Shape>, index: u64) -> Array {
    let shape = shape.into();
    let values = normal(0, Purpose::Test, 0, index, shape.numel());
    Array::from_f64(shape, &values, DType::F32)
}

/// Panics unless shapes are equal and every number is a sum of `terms` products of draws from N(0, 1) that differs by no more
/// than rounding explains: about sqrt(terms) roundings of 2^-24 of numbers around sqrt(terms).
#[track_caller]
pub fn assert_within(found: &Array, expected: &Array, terms: usize) {
    assert_eq!(found.shape(), expected.shape());
    let bound = 8.0 * 2.0_f64.powi(-24) * (1.0 + terms as f64);
    for (i, (a, b)) in found.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        assert!((a - b).abs() <= bound, "number {i} of {}: {a}, expected {b} within {bound:e}", found.shape());
    }
}
