//! The gradient of each family of ops against its formula, written out index by index, with the numbers of the book.

use super::random;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, concat};

fn array<const N: usize>(shape: [usize; N], values: &[f64]) -> Array {
    Array::from_f64(shape, values, DType::F64)
}

/// The gradient of sum(g y) with respect to `x`, for y = f(x).
fn pulled_back(x: Array, g: Array, f: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
    let x = Tensor::leaf(x);
    f(&x).backward_with(g).get(&x).expect("a gradient").to_f64()
}

// ANCHOR: an_elementwise_op_scales_by_its_slope
/// tanh at (0, 1) with the cotangent (10, 10): 10 and 10 (1 - tanh(1)^2). And no number reaches into another's gradient.
#[test]
fn an_elementwise_op_scales_by_its_slope() {
    let found = pulled_back(array([2], &[0.0, 1.0]), array([2], &[10.0, 10.0]), |x| x.tanh());
    assert!((found[0] - 10.0).abs() < 1e-14 && (found[1] - 4.199743).abs() < 1e-6, "{found:?}");
    let functions: [fn(&Tensor) -> Tensor; 5] =
        [Tensor::tanh, Tensor::sigmoid, Tensor::silu, Tensor::exp, Tensor::square];
    let slopes: [fn(f64) -> f64; 5] = [
        |x| 1.0 - x.tanh().powi(2),
        |x| (-x).exp() / (1.0 + (-x).exp()).powi(2),
        |x| (1.0 + (-x).exp() + x * (-x).exp()) / (1.0 + (-x).exp()).powi(2),
        f64::exp,
        |x| 2.0 * x,
    ];
    let x = random(0, [6]);
    for (f, slope) in functions.iter().zip(slopes) {
        for i in 0..6 {
            let mut unit = [0.0; 6];
            unit[i] = 1.0;
            let row = pulled_back(x.clone(), array([6], &unit), f);
            let expected = slope(x.to_f64()[i]);
            assert!(row.iter().enumerate().all(|(j, &v)| if i == j { (v - expected).abs() < 1e-14 } else { v == 0.0 }));
        }
    }
}
// ANCHOR_END: an_elementwise_op_scales_by_its_slope

// ANCHOR: copies_send_back_the_sum_of_their_gradients
/// A row of three numbers is added to both rows of a matrix: each gets the gradients of its two copies.
#[test]
fn copies_send_back_the_sum_of_their_gradients() {
    let g = array([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let matrix = Tensor::constant(random(1, [2, 3]));
    assert_eq!(pulled_back(random(0, [3]), g.clone(), |row| &matrix + row), [5.0, 7.0, 9.0]);
    assert_eq!(pulled_back(random(0, [2, 1]), g.clone(), |column| &matrix - column), [-6.0, -15.0]);
    assert_eq!(pulled_back(random(0, []), g, |number| number.broadcast_to([2, 3])), [21.0]);
}
// ANCHOR_END: copies_send_back_the_sum_of_their_gradients

// ANCHOR: terms_of_a_sum_all_get_its_gradient
/// A sum hands its gradient to every term, a mean its share, a maximum to the winner, or halves to two of them.
#[test]
fn terms_of_a_sum_all_get_its_gradient() {
    let x = || array([2, 3], &[1.0, 7.0, 3.0, 5.0, 2.0, 5.0]);
    let g = || array([2], &[10.0, 20.0]);
    assert_eq!(pulled_back(x(), g(), |x| x.sum(&[1], false)), [10.0, 10.0, 10.0, 20.0, 20.0, 20.0]);
    assert_eq!(pulled_back(x(), g(), |x| x.max(&[1], false)), [0.0, 10.0, 0.0, 10.0, 0.0, 10.0]);
    let mean = pulled_back(x(), array([], &[12.0]), |x| x.mean_all());
    assert!(mean.iter().all(|v| (v - 2.0).abs() < 1e-15), "{mean:?}");
}
// ANCHOR_END: terms_of_a_sum_all_get_its_gradient

// ANCHOR: a_matrix_product_index_by_index
/// dA[i, l] = sum over j of G[i, j] B[l, j], and dB[l, j] = sum over i of A[i, l] G[i, j].
#[test]
fn a_matrix_product_index_by_index() {
    let (n, k, m) = (3, 5, 4);
    let (a, b, g) = (random(0, [n, k]), random(1, [k, m]), random(2, [n, m]));
    let (av, bv, gv) = (a.to_f64(), b.to_f64(), g.to_f64());
    let (mut da, mut db) = (vec![0.0; n * k], vec![0.0; k * m]);
    for i in 0..n {
        for l in 0..k {
            for j in 0..m {
                da[i * k + l] += gv[i * m + j] * bv[l * m + j];
                db[l * m + j] += av[i * k + l] * gv[i * m + j];
            }
        }
    }
    let (constant_a, constant_b) = (Tensor::constant(a.clone()), Tensor::constant(b.clone()));
    let close = |x: &[f64], y: &[f64]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-14 * (1.0 + y.abs()));
    assert!(close(&pulled_back(a, g.clone(), |a| a.matmul(&constant_b)), &da));
    assert!(close(&pulled_back(b, g, |b| constant_a.matmul(b)), &db));

    // The example of the book: with G = 1 0 / 0 1 the gradients are the other factor, transposed.
    let (a, b) = (array([2, 2], &[1.0, 2.0, 3.0, 4.0]), array([2, 2], &[5.0, 6.0, 7.0, 8.0]));
    let one = array([2, 2], &[1.0, 0.0, 0.0, 1.0]);
    let right = Tensor::constant(b);
    assert_eq!(pulled_back(a, one, |a| a.matmul(&right)), [5.0, 7.0, 6.0, 8.0]);
}
// ANCHOR_END: a_matrix_product_index_by_index

// ANCHOR: moved_numbers_take_their_gradients_back
/// What was cut out gets its gradient among zeros, what was joined is cut again, and a row taken twice gets both.
#[test]
fn moved_numbers_take_their_gradients_back() {
    let cut = pulled_back(random(0, [5]), array([2], &[7.0, 8.0]), |x| x.slice(0, 1..3));
    assert_eq!(cut, [0.0, 7.0, 8.0, 0.0, 0.0]);

    let other = Tensor::constant(random(1, [3]));
    let joined = pulled_back(random(0, [2]), array([5], &[1.0, 2.0, 3.0, 4.0, 5.0]), |x| concat(&[&other, x], 0));
    assert_eq!(joined, [4.0, 5.0]);

    let turned = pulled_back(random(0, [2, 3]), array([3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), |x| x.transpose());
    assert_eq!(turned, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);

    let g = array([3, 2], &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0]);
    let looked_up = pulled_back(random(0, [4, 2]), g, |table| table.embedding(&[2, 0, 2]));
    assert_eq!(looked_up, [10.0, 20.0, 0.0, 0.0, 101.0, 202.0, 0.0, 0.0]);
}
// ANCHOR_END: moved_numbers_take_their_gradients_back
