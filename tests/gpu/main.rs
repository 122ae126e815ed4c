//! The GPU against the CPU: every op of the table forward and backward, every primitive at many shapes, a network, training and
//! sampling; and what happens when things go wrong. On any GPU, one made of software included.
//!
//! Without a GPU the tests say that they are skipped. With IMAGEN_REQUIRE_GPU=1 they fail instead.

mod edges;
mod half;
mod memory;
mod network;
mod ops;
mod primitives;
#[path = "../ops/samples/mod.rs"]
mod samples;
mod text;
#[path = "../tiny/mod.rs"]
mod tiny;

use imagen::array::{Array, Device};
use imagen::kernels::{Kernels, gpu, of};

/// The first GPU that is no software, or the first of all.
fn device() -> Option<Device> {
    let first = gpu::real().or_else(|| gpu::adapters().into_iter().next());
    if first.is_none() {
        assert!(
            std::env::var("IMAGEN_REQUIRE_GPU").as_deref() != Ok("1"),
            "there is no GPU, and IMAGEN_REQUIRE_GPU is 1"
        );
        eprintln!("skipped: there is no GPU");
    }
    first.map(|adapter| gpu::open(adapter.number).expect("a GPU can be opened"))
}

/// Its kernels.
fn kernels(device: Device) -> &'static dyn Kernels {
    of(device)
}

/// What rounding can explain: a result made of n terms carries about sqrt(n) roundings of 2^-24 of the largest number (each
/// rounding as likely up as down), and a few steps of its own, 8 here. The bound of `tests/ops` for f32 against f64.
fn bound(terms: usize, largest: f64) -> f64 {
    8.0 * 2.0_f64.powi(-24) * (1.0 + (terms as f64).sqrt()) * largest.max(1.0)
}

/// The largest difference of two arrays in units of [`bound`]. The same infinity or NaN on both sides is no difference.
fn error_in_roundings(found: &Array, expected: &Array, terms: usize) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (found.to_f64(), expected.to_f64());
    let largest = expected.iter().filter(|v| v.is_finite()).fold(1.0_f64, |m, v| m.max(v.abs()));
    let difference = |(&a, &b): (&f64, &f64)| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
    let errors = found.iter().zip(&expected).map(difference).map(|d| if d.is_nan() { f64::INFINITY } else { d });
    errors.fold(0.0, f64::max) / bound(terms, largest)
}
