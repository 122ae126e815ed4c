//! Chapter 1.

use imagen::array::{DType, Shape};
use imagen::autograd::Tensor;
use imagen::random::{Purpose, normal};
use proptest::prelude::*;

// ANCHOR: exercise_1_1
/// 1.1: where the number at `index` lies in memory.
fn position(shape: &[usize], index: &[usize]) -> usize {
    // Horner's scheme: the strides are never written down
    shape.iter().zip(index).fold(0, |position, (&size, &i)| position * size + i)
}
// ANCHOR_END: exercise_1_1

proptest! {
    #[test]
    fn exercise_1_1_agrees_with_the_strides(sizes in prop::collection::vec((1_usize..6, 0_usize..6), 0..5)) {
        let (shape, index): (Vec<usize>, Vec<usize>) = sizes.into_iter().map(|(n, i)| (n, i % n)).unzip();
        let by_strides: usize = Shape::from(shape.clone()).strides().iter().zip(&index).map(|(s, i)| s * i).sum();
        prop_assert_eq!(position(&shape, &index), by_strides);
    }
}

// ANCHOR: exercise_1_2
/// 1.2: |x_i - y_j|^2 for all pairs of the points x [n, d] and y [m, d], without a loop: [n, m].
fn squared_distances(x: &Tensor, y: &Tensor) -> Tensor {
    let (n, d, m) = (x.shape()[0], x.shape()[1], y.shape()[0]);
    // [n, 1, d] - [1, m, d] is [n, m, d]
    let differences = &x.reshape([n, 1, d]) - &y.reshape([1, m, d]);
    differences.square().sum(&[-1], false)
}
// ANCHOR_END: exercise_1_2

#[test]
fn exercise_1_2_measures_every_pair() {
    let x = Tensor::from_f64([2, 2], &[0.0, 0.0, 1.0, 1.0], DType::F64);
    let y = Tensor::from_f64([3, 2], &[3.0, 4.0, 1.0, 1.0, 0.0, -2.0], DType::F64);
    let distances = squared_distances(&x, &y);
    assert_eq!((&**distances.shape(), distances.to_f64()), (&[2, 3][..], vec![25.0, 2.0, 4.0, 13.0, 0.0, 10.0]));
}

// ANCHOR: exercise_1_3
/// 1.3: a sum that carries along what each addition got wrong (Kahan 1965).
fn kahan(x: &[f32]) -> f32 {
    let (mut sum, mut excess) = (0.0_f32, 0.0_f32);
    for &x in x {
        let x = x - excess;
        let next = sum + x;
        // what arrived beyond x, negative if x lost digits: 0 if nothing were rounded
        excess = (next - sum) - x;
        sum = next;
    }
    sum
}
// ANCHOR_END: exercise_1_3

// The error bound of the compensated sum is 2 u sum |x| and terms like n u^2 sum |x|, here 3 % of it (Higham, section 4.3);
// a running sum of these numbers is off by more than ten times as much.
#[test]
fn exercise_1_3_errs_by_two_units_at_most() {
    let u = 1.0 / f64::from(1 << 24);
    let x: Vec<f32> = normal(2, Purpose::Test, 0, 0, 1_000_000).into_iter().map(|z| 0.1 + 0.05 * z as f32).collect();
    let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
    let size: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
    let error = |sum: f32| (f64::from(sum) - exact).abs();
    assert!(error(kahan(&x)) <= 2.1 * u * size);
    assert!(error(x.iter().sum()) > 10.0 * error(kahan(&x)).max(u * size));
}

// ANCHOR: exercise_1_4
/// 1.4: C = A B for matrices [n, n] in blocks of b x b, which must divide n; and how many numbers of A and B were fetched
/// into a memory that holds one block of each.
fn product_in_blocks(a: &[f64], b: &[f64], n: usize, side: usize) -> (Vec<f64>, usize) {
    let (mut c, mut fetched) = (vec![0.0; n * n], 0);
    let blocks = || (0..n).step_by(side);
    for (i0, j0) in blocks().flat_map(|i| blocks().map(move |j| (i, j))) {
        for k0 in blocks() {
            fetched += 2 * side * side;
            for (i, k) in (i0..i0 + side).flat_map(|i| (k0..k0 + side).map(move |k| (i, k))) {
                for j in j0..j0 + side {
                    c[i * n + j] += a[i * n + k] * b[k * n + j];
                }
            }
        }
    }
    (c, fetched)
}
// ANCHOR_END: exercise_1_4

// ANCHOR: exercise_1_4_is_the_product_and_fetches_as_derived
// 2 n^3 / b numbers, as equation (1.10) says
#[test]
fn exercise_1_4_is_the_product_and_fetches_as_derived() {
    let n = 24;
    let (a, b) = (normal(1, Purpose::Test, 0, 0, n * n), normal(2, Purpose::Test, 0, 0, n * n));
    let of = |values: &[f64]| Tensor::from_f64([n, n], values, DType::F64);
    let expected = of(&a).matmul(&of(&b)).to_f64();
    for side in [1, 2, 3, 8, 24] {
        let (c, fetched) = product_in_blocks(&a, &b, n, side);
        assert_eq!(fetched, 2 * n.pow(3) / side);
        assert!(c.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
// ANCHOR_END: exercise_1_4_is_the_product_and_fetches_as_derived
