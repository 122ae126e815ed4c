//! Every op of `src/autograd`, over one table of samples (`samples`).

mod coverage;
mod forward;
mod samples;

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, check_gradients};
use imagen::random::{Purpose, normal};
use samples::{Sample, samples};

// ANCHOR: gradients_are_those_of_the_finite_differences
/// Backward against central differences, in f64.
#[test]
fn gradients_are_those_of_the_finite_differences() {
    each_sample(|sample| match check_gradients(&sample.f, &sample.inputs, 7, 1e-6) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    });
}
// ANCHOR_END: gradients_are_those_of_the_finite_differences

/// f32 against f64, forward and backward, on inputs that f32 holds exactly.
#[test]
fn f32_computes_what_f64_computes() {
    each_sample(|sample| {
        let (single, double) = (evaluate(sample, DType::F32), evaluate(sample, DType::F64));
        for ((what, a), (_, b)) in single.iter().zip(&double) {
            if a.dtype() != DType::F32 {
                return Err(format!("{what} is {}", a.dtype()));
            }
            let error = error_in_roundings(a, b, longest_sum(sample, &double));
            if error > 1.0 {
                return Err(format!("{what} is off by {error} times the bound"));
            }
        }
        Ok(())
    });
}

/// The largest difference, in units of what rounding can explain: a result of n terms carries about sqrt(n) roundings
/// of 2^-24 of its largest number, and each op has a few steps, 8 here. The worst sample takes half of that (a tanh
/// that is all but flat, 1 - y^2), nearly all others less than a tenth.
fn error_in_roundings(a: &Array, b: &Array, n: usize) -> f64 {
    let (a, b) = (a.to_f64(), b.to_f64());
    let largest = b.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    let bound = 8.0 * 2.0_f64.powi(-24) * (1.0 + (n as f64).sqrt()) * largest;
    let difference = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() };
    a.iter().zip(&b).map(difference).map(|d| if d.is_nan() { f64::INFINITY } else { d / bound }).fold(0.0, f64::max)
}

/// No sum in an op or its gradient is longer than the largest array in it.
fn longest_sum(sample: &Sample, results: &[(String, Array)]) -> usize {
    sample.inputs.iter().chain(results.iter().map(|(_, array)| array)).map(Array::numel).max().unwrap_or(0)
}

/// Gradients have the shape of what they are the gradient of.
#[test]
fn gradients_have_the_shapes_of_their_inputs() {
    each_sample(|sample| {
        let results = evaluate(sample, DType::F64);
        for (i, x) in sample.inputs.iter().enumerate() {
            let (what, gradient) = &results[i + 1];
            if gradient.shape() != x.shape() {
                return Err(format!("{what} has shape {}", gradient.shape()));
            }
        }
        Ok(())
    });
}

#[test]
fn two_runs_give_the_same_bits() {
    each_sample(|sample| {
        for dtype in [DType::F32, DType::F64] {
            same_bits(&evaluate(sample, dtype), &evaluate(sample, dtype)).map_err(|e| format!("{dtype}: {e}"))?;
        }
        Ok(())
    });
}

// ANCHOR: any_number_of_threads_gives_the_same_bits
/// What is summed in which order must not depend on how many threads share the work.
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let pools = [2, 3].map(|threads| (threads, pool(threads)));
    let one = pool(1);
    each_sample(|sample| {
        for dtype in [DType::F32, DType::F64] {
            let alone = one.install(|| evaluate(sample, dtype));
            for (threads, pool) in &pools {
                same_bits(&alone, &pool.install(|| evaluate(sample, dtype)))
                    .map_err(|e| format!("{dtype}, 1 and {threads} threads: {e}"))?;
            }
        }
        Ok(())
    });
}
// ANCHOR_END: any_number_of_threads_gives_the_same_bits

/// Runs `check` on the whole table and reports every sample that fails it.
#[track_caller]
fn each_sample(check: impl Fn(&Sample) -> Result<(), String>) {
    let samples = samples();
    let failures: Vec<String> =
        samples.iter().filter_map(|s| check(s).err().map(|error| format!("{s}: {error}"))).collect();
    let all = samples.len();
    assert!(failures.is_empty(), "{} of {all} samples:\n{}", failures.len(), failures.join("\n"));
}

/// The result and the gradient of every input, for a random cotangent; with names.
fn evaluate(sample: &Sample, dtype: DType) -> Vec<(String, Array)> {
    // Rounded to f32 first, so that both dtypes get the same numbers.
    let rounded = |x: &Array| x.cast(DType::F32).cast(dtype);
    let leaves: Vec<Tensor> = sample.inputs.iter().map(|x| Tensor::leaf(rounded(x))).collect();
    let y = (sample.f)(&leaves);
    let weights = normal(11, Purpose::Test, 0, 0, y.numel());
    let cotangent = rounded(&Array::from_f64(y.shape(), &weights, DType::F64));
    let mut results = vec![("result".to_string(), y.array().clone())];
    let gradients = y.backward_with(cotangent);
    for (i, leaf) in leaves.iter().enumerate() {
        let gradient = gradients.get(leaf).unwrap_or_else(|| panic!("{sample}: no gradient for input {i}"));
        results.push((format!("gradient {i}"), gradient.clone()));
    }
    results
}

fn same_bits(a: &[(String, Array)], b: &[(String, Array)]) -> Result<(), String> {
    match a.iter().zip(b).find(|((_, a), (_, b))| !a.bit_eq(b)) {
        Some(((what, _), _)) => Err(format!("{what} differs")),
        None => Ok(()),
    }
}
