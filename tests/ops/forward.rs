//! Results of ops that have no golden numbers, against their definition written out.

use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::random::{Purpose, normal};

fn random<const N: usize>(shape: [usize; N]) -> Tensor {
    Tensor::from_f64(shape, &normal(3, Purpose::Test, 0, 0, shape.iter().product()), DType::F64)
}

#[track_caller]
fn assert_close(actual: &Tensor, shape: &[usize], expected: impl IntoIterator<Item = f64>) {
    assert_eq!(**actual.shape(), *shape);
    let expected: Vec<f64> = expected.into_iter().collect();
    assert_eq!(actual.numel(), expected.len());
    for (i, (a, e)) in actual.to_f64().iter().zip(&expected).enumerate() {
        assert!((a - e).abs() <= 1e-13 * e.abs().max(1.0), "element {i}: {a}, expected {e}");
    }
}

#[test]
fn simple_functions() {
    let x = random([3, 5]);
    let values = x.to_f64();
    let map = |f: fn(f64) -> f64| values.clone().into_iter().map(f);
    assert_close(&x.neg(), &[3, 5], map(|v| -v));
    assert_close(&x.abs(), &[3, 5], map(f64::abs));
    assert_close(&x.square(), &[3, 5], map(|v| v * v));
    assert_close(&x.clamp(-0.5, 0.7), &[3, 5], map(|v| v.clamp(-0.5, 0.7)));
    assert_close(&x.affine(2.0, 3.0), &[3, 5], map(|v| 2.0 * v + 3.0));
    assert_close(&x.minimum(&x.neg()), &[3, 5], map(|v| -v.abs()));
    assert_close(&(&(&(&(&x + 1.0) - 3.0) * 6.0) / 2.0), &[3, 5], map(|v| (v - 2.0) * 3.0));
    assert_close(&-&x, &[3, 5], map(|v| -v));
    assert_close(&x.sum_all(), &[], [values.iter().sum()]);
    assert_close(&random([]).sum_all(), &[], [values[0]]);
}

#[test]
fn far_values_neither_overflow_nor_lose_their_limit() {
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::from_f64([4], &[-1000.0, -50.0, 50.0, 1000.0], dtype);
        let check = |name: &str, y: Tensor, expected: [f64; 4]| {
            for (actual, expected) in y.to_f64().iter().zip(expected) {
                assert!((actual - expected).abs() <= 1e-6, "{name} {dtype}: {actual}, expected {expected}");
            }
        };
        check("sigmoid", x.sigmoid(), [0.0, 0.0, 1.0, 1.0]);
        check("softplus", x.softplus(), [0.0, 0.0, 50.0, 1000.0]);
        check("silu", x.silu(), [0.0, 0.0, 50.0, 1000.0]);
        check("tanh", x.tanh(), [-1.0, -1.0, 1.0, 1.0]);
        check("gelu_tanh", x.gelu_tanh(), [0.0, 0.0, 50.0, 1000.0]);
        check("gelu_erf", x.gelu_erf(), [0.0, 0.0, 50.0, 1000.0]);
        check("softmax", x.softmax(-1), [0.0, 0.0, 0.0, 1.0]);
        check("log_softmax", x.log_softmax(-1), [-2000.0, -1050.0, -950.0, 0.0]);
    }
}

#[test]
fn moved_numbers() {
    let x = Tensor::from_f64([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], DType::F64);
    assert_close(&x.transpose(), &[3, 2], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_close(&x.pad(1, 1, 0), &[2, 4], [0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 5.0]);
    assert_close(&x.pad(0, 0, 1), &[3, 3], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
    assert_close(&x.slice(-1, 1..2).broadcast_to([2, 2, 2]), &[2, 2, 2], [1.0, 1.0, 4.0, 4.0, 1.0, 1.0, 4.0, 4.0]);
    let parts = x.split(1, &[1, 2]);
    assert_close(&parts[0], &[2, 1], [0.0, 3.0]);
    assert_close(&parts[1], &[2, 2], [1.0, 2.0, 4.0, 5.0]);
}

/// op(A) op(B) with flags is the product of matrices transposed by hand.
#[test]
fn transposing_products() {
    let (a, b) = (random([2, 3, 5]), random([2, 5, 4]));
    let mut sums = Vec::new();
    for batch in 0..2 {
        for i in 0..3 {
            for j in 0..4 {
                let term = |k: usize| a.to_f64()[(batch * 3 + i) * 5 + k] * b.to_f64()[(batch * 5 + k) * 4 + j];
                sums.push((0..5).map(term).sum::<f64>());
            }
        }
    }
    assert_close(&a.matmul(&b), &[2, 3, 4], sums.iter().copied());
    assert_close(&a.matmul_t(&b.transpose(), false, true), &[2, 3, 4], sums.iter().copied());
    assert_close(&a.transpose().matmul_t(&b, true, false), &[2, 3, 4], sums.iter().copied());
    assert_close(&a.transpose().matmul_t(&b.transpose(), true, true), &[2, 3, 4], sums);
}

/// Output i takes input floor(i H / height), also where sizes are no multiples of each other.
#[test]
fn nearest_resize() {
    let x = random([2, 3, 5, 7]);
    for [h, w] in [[5, 7], [10, 14], [3, 4], [8, 9], [1, 20]] {
        let mut expected = Vec::new();
        for plane in x.to_f64().chunks(35) {
            for i in 0..h {
                expected.extend((0..w).map(|j| plane[(i * 5 / h) * 7 + j * 7 / w]));
            }
        }
        assert_close(&x.resize_nearest(h, w), &[2, 3, h, w], expected);
    }
    assert_close(&x.upsample_nearest(3), &[2, 3, 15, 21], x.resize_nearest(15, 21).to_f64());
}

#[test]
fn losses_and_hidden_rows() {
    let x = random([2, 3, 2]);
    let values = x.to_f64();
    let minus_log_softmax = |n: usize, class: usize, position: usize| {
        let logit = |k: usize| values[(n * 3 + k) * 2 + position];
        (0..3).map(|k| logit(k).exp()).sum::<f64>().ln() - logit(class)
    };
    let terms = minus_log_softmax(0, 2, 0)
        + minus_log_softmax(0, 0, 1)
        + minus_log_softmax(1, 1, 0)
        + minus_log_softmax(1, 2, 1);
    assert_close(&x.cross_entropy(&[2, 0, 1, 2]), &[], [terms / 4.0]);

    // A query that sees no key gets zeros, and sends no gradient and no NaN anywhere.
    let [q, k, v] = [1, 2, 3].map(|i| Tensor::leaf(random([3, 4]).affine(f64::from(i), 0.1).into_array()));
    let bias = Tensor::from_f64([1, 3], &[0.0; 3], DType::F64).mask_to_bias();
    let y = q.attention(&k, &v, Some(&bias), 0.5);
    assert_close(&y, &[3, 4], [0.0; 12]);
    let gradients = y.sum_all().backward();
    for leaf in [q, k, v] {
        assert_close(&Tensor::constant(gradients.get(&leaf).unwrap().clone()), &[3, 4], [0.0; 12]);
    }
}

#[test]
fn gradients_at_kinks_are_what_the_documentation_says() {
    let zero = || Tensor::leaf(Array::from_f64([1], &[0.0], DType::F64));
    let gradient = |f: fn(&Tensor) -> Tensor| {
        let x = zero();
        f(&x).sum_all().backward().get(&x).unwrap().item()
    };
    assert_eq!(gradient(Tensor::abs), 0.0);
    assert_eq!(gradient(Tensor::relu), 0.0);
    for f in [Tensor::maximum, Tensor::minimum] {
        let (a, b) = (zero(), zero());
        let gradients = f(&a, &b).sum_all().backward();
        assert_eq!([gradients.get(&a).unwrap().item(), gradients.get(&b).unwrap().item()], [0.5, 0.5]);
    }
    let x = Tensor::leaf(Array::from_f64([4], &[1.0, 3.0, 3.0, 2.0], DType::F64));
    let gradients = x.max(&[0], false).backward();
    assert_eq!(gradients.get(&x).unwrap().to_f64(), [0.0, 0.5, 0.5, 0.0]);
}
