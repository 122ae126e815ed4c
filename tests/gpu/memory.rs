//! The memory of the GPU: kept and used again.

use crate::device;
use imagen::array::{Array, Device};
use imagen::kernels::gpu;

/// Enough steps of a chain of additions to reuse buffers.
fn chain(device: Device, n: usize) -> Array {
    let mut x = Array::from_vec([n], vec![1.0_f32; n]).to(device);
    for _ in 0..200 {
        x = &x + &x.affine(0.5, 0.0);
    }
    x
}

#[test]
fn buffers_of_dropped_arrays_are_used_again() {
    let Some(device) = device() else { return };
    // Of a size class that no other test uses.
    let n = 3_000_000;
    chain(device, n).to_f32();
    let before = gpu::gpu(device).stats();
    chain(device, n).to_f32();
    let after = gpu::gpu(device).stats();
    assert!(after.pool.reused > before.pool.reused + 300, "{before:?}\n{after:?}");
    let bytes = 4 * n as u64;
    assert!(after.pool.peak < before.pool.peak + 2 * bytes, "{before:?}\n{after:?}");
}

/// An array that is overwritten while kernels that read it wait to be sent would change what they see.
#[test]
fn numbers_from_the_cpu_never_land_in_a_buffer_that_recorded_kernels_still_read() {
    let Some(device) = device() else { return };
    for round in 0..50 {
        let x = Array::from_vec([1000], vec![1.0_f32; 1000]).to(device);
        let y = x.affine(2.0, 0.0);
        drop(x);
        // The buffer of x is free, and the kernel that reads it has not been sent.
        let z = Array::from_vec([1000], vec![5.0_f32; 1000]).to(device);
        assert!(y.to_f32().iter().all(|&v| v == 2.0), "round {round}");
        assert!(z.to_f32().iter().all(|&v| v == 5.0), "round {round}");
    }
}

#[test]
fn more_kernels_than_a_batch_holds_give_what_one_after_the_other_gives() {
    let Some(device) = device() else { return };
    let mut x = Array::from_vec([5], vec![0.0_f32; 5]).to(device);
    for i in 0..1000 {
        x = x.affine(1.0, f64::from(i % 3));
    }
    assert_eq!(x.to_f32(), [999.0; 5]);
}
