//! Numbers at the edge of what f32 holds, and mistakes.

use crate::{device, kernels};
use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::kernels::{Binary, Reduce, Unary, of};
use std::panic::catch_unwind;

/// Zeros, ones, infinities, NaN, and the largest numbers.
fn edges() -> Vec<f32> {
    let one_sided = [0.0, 1.0, 1e-30, 1e30, 89.0, 104.0, f32::MAX, f32::INFINITY];
    one_sided.iter().flat_map(|&x| [x, -x]).chain([f32::NAN]).collect()
}

/// What a number is, where exactness is out of the question.
#[derive(Debug, PartialEq)]
enum Kind {
    Nan,
    Infinite(bool),
    Zero,
    /// About this large: its logarithm, rounded.
    Finite(i32),
}

impl Kind {
    fn of(x: f32) -> Kind {
        match x {
            _ if x.is_nan() => Kind::Nan,
            _ if x.is_infinite() => Kind::Infinite(x > 0.0),
            // A GPU may take numbers below the normal range for 0.
            _ if x.abs() < 1e-37 => Kind::Zero,
            _ => Kind::Finite((x.abs().log10() * 4.0).round() as i32),
        }
    }
}

#[track_caller]
fn assert_same_kinds(what: &str, operands: &[&Array], found: &Array, expected: &Array) {
    for (i, (a, b)) in found.to_f32().into_iter().zip(expected.to_f32()).enumerate() {
        let at: Vec<f64> = operands.iter().map(|x| x.to_f64()[i % x.numel()]).collect();
        assert_eq!(Kind::of(a), Kind::of(b), "{what} of {at:?}: {a}, on the CPU {b}");
    }
}

#[test]
fn functions_of_infinity_and_nan_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let (gpu, cpu) = (kernels(device), of(Device::Cpu));
    let x = Array::from_vec([edges().len()], edges());
    let ones = Array::from_vec([edges().len()], vec![1.0_f32; edges().len()]);
    for op in Unary::ALL {
        // Taken modulo pi / 2, large numbers lose all digits; so they do elsewhere, in another way.
        if matches!(op, Unary::Sin | Unary::Cos) {
            continue;
        }
        assert_same_kinds(op.name(), &[&x], &gpu.unary(op, &x.to(device)), &cpu.unary(op, &x));
        // Far out a slope may come as 0 times infinity or as 0; near the edges both are taken.
        if !matches!(op, Unary::Silu | Unary::GeluTanh | Unary::GeluErf | Unary::Rsqrt) {
            let found = gpu.unary_grad(op, &x.to(device), &ones.to(device));
            assert_same_kinds(&format!("{} grad", op.name()), &[&x], &found, &cpu.unary_grad(op, &x, &ones));
        }
    }
    let (a, b) = (x.reshape([edges().len(), 1]), x.reshape([1, edges().len()]));
    for op in Binary::ALL {
        let found = gpu.binary(op, &a.to(device), &b.to(device));
        assert_same_kinds(op.name(), &[], &found, &cpu.binary(op, &a, &b));
    }
}

#[test]
fn a_nan_anywhere_reaches_sums_maxima_norms_softmax_and_products() {
    let Some(device) = device() else { return };
    let gpu = kernels(device);
    for at in [0, 1, 99, 298, 299] {
        let mut values = vec![1.0_f32; 300];
        values[at] = f32::NAN;
        let x = Array::from_vec([3, 100], values).to(device);
        let nans = |y: &Array| y.to_f64().iter().filter(|v| v.is_nan()).count();
        for op in [Reduce::Sum, Reduce::Max] {
            assert_eq!([0..1, 1..2, 0..2].map(|axes| nans(&gpu.reduce(op, &x, axes))), [1, 1, 1], "{op:?} {at}");
        }
        assert_eq!([nans(&gpu.softmax(&x)), nans(&gpu.log_softmax(&x))], [100, 100]);
        assert_eq!(nans(&gpu.matmul(&x, &x, false, true)), 5);
        assert!(gpu.norm(&[&x]).item().is_nan());
        let mut same = x.clone();
        gpu.shorten(&mut same, &gpu.norm(&[&x]), 1e-3, 1e-6);
        assert!(same.bit_eq(&x), "what has no finite norm stays as it is");
        let scalars = [gpu.fill(&[100].into(), DType::F32, 1.0), gpu.fill(&[100].into(), DType::F32, 0.0)];
        let (y, ..) = gpu.group_norm(&x, &scalars[0], &scalars[1], 1, 1e-5);
        assert_eq!(nans(&y), 100);
    }
    assert_eq!(
        gpu.reduce(Reduce::Max, &Array::from_vec([0, 2], Vec::<f32>::new()).to(device), 0..1).to_f64(),
        [f64::NEG_INFINITY; 2]
    );
}

#[test]
fn hidden_and_huge_scores() {
    let Some(device) = device() else { return };
    let gpu = kernels(device);
    let inf = f32::INFINITY;
    let x = Array::from_vec([3, 2], vec![-inf, -inf, 1e4, -1e4, -inf, 3.0]).to(device);
    assert_eq!(gpu.softmax(&x).to_f64(), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(gpu.log_softmax(&x).to_f32(), [-inf, -inf, 0.0, -2e4, -inf, 0.0]);
    // A query that sees no key gets zeros, and sends no gradient and no NaN anywhere; with and without the fused kernels.
    for features in [3, 4] {
        let [q, k, v] = [1.0, 2.0, 3.0].map(|s| {
            let values: Vec<f64> = (0..5 * features).map(|i| s * f64::from(i % 7) - 3.0).collect();
            Tensor::leaf(Tensor::from_f64([5, features as usize], &values, DType::F32).array().to(device))
        });
        let hidden = q.constant_like([1, 5], &[0.0; 5]).mask_to_bias();
        let y = q.attention(&k, &v, Some(&hidden), 0.5);
        assert!(y.to_f64().iter().all(|&v| v == 0.0), "{features} features");
        let gradients = y.sum_all().backward();
        for leaf in [q, k, v] {
            assert!(gradients.get(&leaf).unwrap().to_f64().iter().all(|&v| v == 0.0), "{features} features");
        }
    }
}

#[test]
fn mixed_devices_and_dtypes_are_refused_by_name() {
    let Some(device) = device() else { return };
    let message = |work: &(dyn Fn() + std::panic::RefUnwindSafe)| {
        let panic = catch_unwind(work).unwrap_err();
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap()
    };
    let here = Array::from_vec([2, 3], vec![1.0_f32; 6]);
    let there = here.to(device);
    let text = message(&|| drop(&there + &here));
    assert!(text.contains("devices of [2, 3] and [2, 3] differ"), "{text}");
    let text = message(&|| drop(Array::from_vec([1], vec![1.0_f64]).to(device)));
    assert!(text.contains("a GPU computes in f32"), "{text}");
    let text = message(&|| assert!(there.slice::<f32>().is_empty()));
    assert!(text.contains("move it with to(Device::Cpu) first"), "{text}");
}

#[test]
fn arrays_come_back_as_they_went() {
    let Some(device) = device() else { return };
    for shape in [vec![], vec![0, 3], vec![1], vec![5], vec![257], vec![3, 1001]] {
        let n: usize = shape.iter().product();
        let x = Array::from_vec(
            shape,
            (0..n).map(|i| f32::from_bits((i as u32).wrapping_mul(2_654_435_761))).collect::<Vec<f32>>(),
        );
        let there = x.to(device);
        assert_eq!((there.device(), there.dtype(), there.shape()), (device, DType::F32, x.shape()));
        assert!(there.bit_eq(&x) && there.to(Device::Cpu).bit_eq(&x));
    }
}
