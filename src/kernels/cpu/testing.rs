//! What the tests of the kernels share.

use crate::array::{Array, DType, Shape};
use crate::random::{Purpose, normal};

/// An f64 array of draws from N(0, 1).
pub fn gaussian(shape: impl Into<Shape>, index: u64) -> Array {
    let shape = shape.into();
    let values = normal(0, Purpose::Test, 0, index, shape.numel());
    Array::from_f64(shape, &values, DType::F64)
}

/// Panics unless the shapes are equal and the numbers differ by at most `tolerance` (1 + |expected|).
#[track_caller]
pub fn assert_close(found: &Array, expected: &Array, tolerance: f64) {
    assert_eq!(found.shape(), expected.shape());
    for (i, (a, b)) in found.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (1.0 + b.abs());
        assert!(same, "number {i} of {}: {a}, expected {b}", found.shape());
    }
}

/// Panics unless `work` gives the same bits with one thread and with several.
#[track_caller]
pub fn assert_same_on_any_threads(work: impl Fn() -> Vec<Array> + Sync) {
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&work);
    let alone = on(1);
    for threads in [2, 3] {
        for (a, b) in alone.iter().zip(on(threads)) {
            assert!(a.bit_eq(&b), "{threads} threads change the result of shape {}", a.shape());
        }
    }
}
