//! What chapter 1 of the book claims of tensors: where numbers lie, how shapes broadcast, how sums round, what a product
//! of matrices is.

use imagen::array::{Array, DType, Shape};
use imagen::autograd::Tensor;
use imagen::random::{Purpose, normal};
use proptest::prelude::*;

/// u: the largest relative error of one rounding to f32, half the distance of 1 to the next number.
const U: f64 = 1.0 / (1 << 24) as f64;

/// gamma_k = k u / (1 - k u): what k roundings one after another come to at most.
fn gamma(k: usize) -> f64 {
    k as f64 * U / (1.0 - k as f64 * U)
}

fn random(seed: u64, shape: &Shape) -> Tensor {
    Tensor::from_f64(shape, &normal(seed, Purpose::Test, 0, 0, shape.numel()), DType::F64)
}

/// The index of the number at `position`, along every axis.
fn index(mut position: usize, shape: &Shape) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = position % shape[axis];
        position /= shape[axis];
    }
    index
}

proptest! {
    // ANCHOR: broadcast_numbers_are_where_the_rule_says
    // c = a + b with sizes matched from the last axis: c[.., i, j] = a[.., i or 0, j or 0] + b[.., i or 0, j or 0], the 0
    // where the operand's own size is 1.
    #[test]
    fn broadcast_numbers_are_where_the_rule_says(
        sizes in prop::collection::vec((1_usize..4, any::<bool>(), any::<bool>()), 0..5), missing in 0_usize..5,
    ) {
        let of = |one: fn(&(usize, bool, bool)) -> bool| sizes.iter().map(|s| if one(s) { 1 } else { s.0 }).collect::<Vec<_>>();
        let (a, b) = (Shape::from(of(|s| s.1)), Shape::from(&of(|s| s.2)[missing.min(sizes.len())..]));
        let (x, y) = (random(1, &a), random(2, &b));
        let sum = &x + &y;
        let at = |values: &[f64], own: &Shape, index: &[usize]| {
            let matched = index[index.len() - own.len()..].iter().zip(own.iter());
            let steps = matched.zip(own.strides()).map(|((&i, &size), stride)| if size == 1 { 0 } else { i * stride });
            values[steps.sum::<usize>()]
        };
        for (position, value) in sum.to_f64().into_iter().enumerate() {
            let index = index(position, sum.shape());
            prop_assert_eq!(value, at(&x.to_f64(), &a, &index) + at(&y.to_f64(), &b, &index));
        }
    }
    // ANCHOR_END: broadcast_numbers_are_where_the_rule_says

    // ANCHOR: one_operation_errs_by_half_a_unit_at_most
    // fl(a + b) = (a + b)(1 + delta) with |delta| <= u, and so for - and *. In f64 these are exact, or all but.
    #[test]
    fn one_operation_errs_by_half_a_unit_at_most(a in -1e6_f32..1e6, b in -1e6_f32..1e6) {
        let (x, y) = (f64::from(a), f64::from(b));
        for (found, exact) in [(a + b, x + y), (a - b, x - y), (a * b, x * y)] {
            prop_assert!((f64::from(found) - exact).abs() <= U * exact.abs() * (1.0 + 1e-8));
        }
    }
    // ANCHOR_END: one_operation_errs_by_half_a_unit_at_most

    // ANCHOR: a_running_sum_errs_by_its_length_at_most
    // |s_hat - s| <= gamma_{n-1} sum |x_i|
    #[test]
    fn a_running_sum_errs_by_its_length_at_most(seed: u64, n in 1_usize..5000) {
        let x: Vec<f32> = normal(seed, Purpose::Test, 0, 0, n).into_iter().map(|v| v as f32 + 1.0).collect();
        let sum = f64::from(x.iter().fold(0.0_f32, |sum, x| sum + x));
        let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
        let size: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
        prop_assert!((sum - exact).abs() <= (gamma(n - 1) + 1e-12) * size);
    }
    // ANCHOR_END: a_running_sum_errs_by_its_length_at_most

    // ANCHOR: the_product_transposed_is_the_product_of_the_transposed
    // (A B)' = B' A'; and the flags of `matmul_t` mean the transposed operand, which is never written down.
    #[test]
    fn the_product_transposed_is_the_product_of_the_transposed(n in 1_usize..9, k in 1_usize..9, m in 1_usize..9) {
        let (a, b) = (random(1, &[n, k].into()), random(2, &[k, m].into()));
        let product = a.matmul(&b);
        let ways = [
            b.transpose().matmul(&a.transpose()).transpose(),
            b.matmul_t(&a, true, true).transpose(),
            a.transpose().matmul_t(&b, true, false),
            a.matmul_t(&b.transpose(), false, true),
        ];
        for way in ways {
            let off = (&way - &product).to_f64().into_iter().fold(0.0_f64, |most, v| most.max(v.abs()));
            prop_assert!(off < 1e-13, "{off}");
        }
    }
    // ANCHOR_END: the_product_transposed_is_the_product_of_the_transposed
}

// ANCHOR: a_running_sum_can_err_by_nearly_its_bound
// 1 and ten thousand numbers just above u: every sum lies just above the middle between two numbers, and is rounded up.
#[test]
fn a_running_sum_can_err_by_nearly_its_bound() {
    let x: Vec<f32> = std::iter::once(1.0).chain(std::iter::repeat_n((1.001 * U) as f32, 10_000)).collect();
    let sum = f64::from(x.iter().fold(0.0_f32, |sum, x| sum + x));
    let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
    assert!((sum - 1.001192).abs() < 1e-6 && (exact - 1.000597).abs() < 1e-6, "the numbers in the book: {sum} {exact}");
    let bound = gamma(10_000) * exact;
    assert!(sum - exact <= bound && sum - exact > 0.99 * bound);
}
// ANCHOR_END: a_running_sum_can_err_by_nearly_its_bound

// ANCHOR: the_sum_of_an_array_errs_by_a_bound_that_does_not_grow
// 32 lanes add up at most 64 numbers each in f32, then 5 additions join them, then blocks are added in f64, and the result
// is rounded once: 63 + 5 + 1 roundings, and one more for all those in f64. A running sum goes beyond that.
#[test]
fn the_sum_of_an_array_errs_by_a_bound_that_does_not_grow() {
    for n in [1, 31, 2048, 2049, 100_000, 3_000_001] {
        let x: Vec<f32> = normal(1, Purpose::Test, 0, 0, n).into_iter().map(|v| v as f32 + 1.0).collect();
        let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
        let size: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
        let running = f64::from(x.iter().fold(0.0_f32, |sum, x| sum + x));
        let sum = Tensor::constant(Array::from_vec([n], x)).sum_all().item();
        assert!((sum - exact).abs() <= gamma(70) * size, "{n} numbers: {sum} instead of {exact}");
        assert!(n < 3_000_000 || (running - exact).abs() > gamma(70) * size, "one after another: {running}");
    }
}
// ANCHOR_END: the_sum_of_an_array_errs_by_a_bound_that_does_not_grow

// ANCHOR: addition_in_f32_is_not_associative
#[test]
fn addition_in_f32_is_not_associative() {
    let (a, b, c) = (1e8_f32, 1.0_f32, -1e8_f32);
    assert_eq!(((a + b) + c, (a + c) + b), (0.0, 1.0));
}
// ANCHOR_END: addition_in_f32_is_not_associative
