//! Every op of the table, forward and backward.

use crate::samples::{Sample, samples};
use crate::{device, error_in_roundings};
use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::random::{Purpose, normal};

/// Result and gradients, on a device in a dtype, of inputs that f32 holds exactly.
fn evaluate(sample: &Sample, device: Device, dtype: DType) -> Vec<(String, Array)> {
    let rounded = |x: &Array| x.cast(DType::F32).cast(dtype).to(device);
    let leaves: Vec<Tensor> = sample.inputs.iter().map(|x| Tensor::leaf(rounded(x))).collect();
    let y = (sample.f)(&leaves);
    let cotangent = Array::from_f64(y.shape(), &normal(11, Purpose::Test, 0, 0, y.numel()), DType::F64);
    let mut results = vec![("result".to_string(), y.array().clone())];
    let gradients = y.backward_with(rounded(&cotangent));
    for (i, leaf) in leaves.iter().enumerate() {
        results.push((format!("gradient {i}"), gradients.get(leaf).expect("every input has a gradient").clone()));
    }
    results
}

fn longest_sum(sample: &Sample, results: &[(String, Array)]) -> usize {
    sample.inputs.iter().chain(results.iter().map(|(_, array)| array)).map(Array::numel).max().unwrap_or(0)
}

// ANCHOR: every_op_computes_on_the_gpu_what_it_computes_on_the_cpu
#[test]
fn every_op_computes_on_the_gpu_what_it_computes_on_the_cpu() {
    let Some(gpu) = device() else { return };
    let mut failures = Vec::new();
    for sample in samples() {
        let (found, exact) = (evaluate(&sample, gpu, DType::F32), evaluate(&sample, Device::Cpu, DType::F64));
        for ((what, a), (_, b)) in found.iter().zip(&exact) {
            let error = error_in_roundings(a, b, longest_sum(&sample, &exact));
            if a.device() != gpu || error > 1.0 {
                failures.push(format!("{sample}: {what} on {} is off by {error} times the bound", a.device()));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
// ANCHOR_END: every_op_computes_on_the_gpu_what_it_computes_on_the_cpu

#[test]
fn two_runs_give_the_same_bits() {
    let Some(gpu) = device() else { return };
    for sample in samples() {
        let [first, second] = [(); 2].map(|()| evaluate(&sample, gpu, DType::F32));
        for ((what, a), (_, b)) in first.iter().zip(&second) {
            assert!(a.bit_eq(b), "{sample}: {what} differs from run to run");
        }
    }
}
