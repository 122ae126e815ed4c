//! How much arithmetic a GPU can do at most: what benchmarks compare kernels with.

use super::context::Context;
use super::groups;
use super::numbers::words;
use super::shader::Shader;
use crate::array::Array;
use std::sync::Arc;

/// Multiply-adds that follow each other in the shader before it counts a round.
const UNROLLED: usize = 8;

/// Numbers that a thread goes on with.
const NUMBERS: usize = 32;

/// What a thread starts from is multiplied by this and added to that, over and over: it tends to 2.
const FACTOR: f64 = 0.5;
const ADDEND: f64 = 1.0;

pub(super) fn multiply_add(gpu: &Arc<Context>, threads: usize, rounds: usize) -> (Array, f64) {
    let y = gpu.array([threads], "multiply_add");
    let shader = Shader::new("peak", "multiply_add").with("UNROLLED", UNROLLED);
    gpu.run(shader, words![threads, rounds, FACTOR, ADDEND], &[&y], groups(threads));
    (y, 2.0 * (threads * rounds * UNROLLED * NUMBERS) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::gpu;
    use super::*;

    #[test]
    fn every_thread_multiplies_and_adds_as_often_as_is_said() {
        let Some(gpu) = gpu() else { return };
        let threads = 300;
        for rounds in [0, 1, 3] {
            let (y, operations) = multiply_add(&gpu.context, threads, rounds);
            let each = operations as usize / 2 / threads / NUMBERS;
            for (i, found) in y.to_f64().into_iter().enumerate() {
                let after = |start: usize| (0..each).fold(start as f32, |x, _| x.mul_add(FACTOR as f32, ADDEND as f32));
                let expected: f64 =
                    (0..NUMBERS / 4).map(|c| 4.0 * f64::from(after(i % super::super::THREADS + c))).sum();
                assert!(
                    (found - expected).abs() <= 1e-5 * expected,
                    "thread {i}, {rounds} rounds: {found}, {expected}"
                );
            }
        }
    }
}
