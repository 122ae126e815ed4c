//! Chapter 4: a blur by rows and columns; a convolution from ops of earlier chapters; the transposed convolution; and
//! a convolution after doubling as one before it.

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, concat};
use imagen::random::{Purpose, normal};

// ANCHOR: blur
/// Images [B, 1, H, W], blurred along their rows, then along their columns.
fn blur(x: &Tensor) -> Tensor {
    let line = |shape: [usize; 4]| Tensor::from_f64(shape, &[0.25, 0.5, 0.25], x.dtype());
    let across = x.pad(3, 1, 1).conv2d(&line([1, 1, 1, 3]), None, 1, 0);
    across.pad(2, 1, 1).conv2d(&line([1, 1, 3, 1]), None, 1, 0)
}
// ANCHOR_END: blur

// ANCHOR: conv3x3
/// x [B, C, H, W] and weight [O, C, 3, 3], stride 1, padding 1: nine moved images, stacked, and one
/// product.
fn conv3x3(x: &Tensor, weight: &Tensor) -> Tensor {
    let ([b, c, h, w], o) = (x.shape().dims("images"), weight.shape()[0]);
    let padded = x.pad(2, 1, 1).pad(3, 1, 1);
    let moved = |tap: usize| padded.slice(2, tap / 3..tap / 3 + h).slice(3, tap % 3..tap % 3 + w);
    let taps: Vec<Tensor> = (0..9).map(|tap| moved(tap).reshape([b, c, 1, h * w])).collect();
    let col = concat(&taps.iter().collect::<Vec<_>>(), 2).reshape([b, c * 9, h * w]);
    weight.reshape([o, c * 9]).matmul(&col).reshape([b, o, h, w])
}
// ANCHOR_END: conv3x3

// ANCHOR: transposed
/// What `conv2d` with this weight [O, C, k, k] sends back for g [B, O, H', W']: zeros between its
/// pixels, then an ordinary convolution with the turned kernel. For p < k, and inputs whose last
/// pixels the kernel reaches.
fn transposed(g: &Tensor, weight: &Tensor, s: usize, p: usize) -> Tensor {
    let ([b, o, h, w], [_, c, k, _]) = (g.shape().dims("images"), weight.shape().dims("weight"));
    let apart = g.reshape([b, o, h, 1, w, 1]).pad(3, 0, s - 1).pad(5, 0, s - 1);
    let apart = apart.reshape([b, o, h * s, w * s]);
    let apart = apart.slice(2, 0..(h - 1) * s + 1).slice(3, 0..(w - 1) * s + 1);
    let values = weight.to_f64();
    let turned: Vec<f64> = (0..c * o * k * k)
        .map(|at| (at / k / k / o, at / k / k % o, k * k - 1 - at % (k * k)))
        .map(|(to, from, tap)| values[(from * c + to) * k * k + tap])
        .collect();
    apart.conv2d(&Tensor::from_f64([c, o, k, k], &turned, g.dtype()), None, 1, k - 1 - p)
}
// ANCHOR_END: transposed

// ANCHOR: doubled
/// `x.upsample_nearest(2).conv2d(weight, None, 1, 1)` without the large image: four kernels on the
/// small one.
fn doubled(x: &Tensor, weight: &Tensor) -> Tensor {
    let [o, c, _, _] = weight.shape().dims("weight");
    // Which of the three taps meet the small pixel before, at and after: for even and for odd outputs.
    let even = Tensor::from_f64([3, 3], &[1., 0., 0., 0., 1., 1., 0., 0., 0.], x.dtype());
    let odd = Tensor::from_f64([3, 3], &[0., 0., 0., 1., 1., 0., 0., 0., 1.], x.dtype());
    let kernel =
        |rows: &Tensor, columns: &Tensor| rows.matmul(weight).matmul_t(columns, false, true).reshape([o, 1, c, 3, 3]);
    let four = [kernel(&even, &even), kernel(&even, &odd), kernel(&odd, &even), kernel(&odd, &odd)];
    let all = concat(&four.each_ref(), 1).reshape([4 * o, c, 3, 3]);
    x.conv2d(&all, None, 1, 1).pixel_shuffle(2)
}
// ANCHOR_END: doubled

fn random(index: u64, shape: [usize; 4]) -> Array {
    Array::from_f64(shape, &normal(4, Purpose::Test, 0, index, shape.iter().product()), DType::F64)
}

#[track_caller]
fn close(a: &Array, b: &Array) {
    assert_eq!(a.shape(), b.shape());
    // Sums of some hundred products of numbers near 1, in another order.
    assert!(a.to_f64().iter().zip(b.to_f64()).all(|(x, y)| (x - y).abs() < 1e-12));
}

/// A function of x and a weight.
type Way<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Tensor;

/// Result and gradients of two ways to compute the same from x and a weight.
#[track_caller]
fn same(x: Array, weight: Array, ways: [Way; 2]) {
    let (x, weight) = (Tensor::leaf(x), Tensor::leaf(weight));
    let [one, other] = ways.map(|way| {
        let y = way(&x, &weight);
        let result = y.array().clone();
        let mut gradients = y.backward_with(random(9, result.shape().dims("images")));
        [result, gradients.take(&x).unwrap(), gradients.take(&weight).unwrap()]
    });
    one.iter().zip(&other).for_each(|(a, b)| close(a, b));
}

#[test]
fn a_blur_by_rows_and_columns_is_the_blur() {
    let kernel = [1., 2., 1., 2., 4., 2., 1., 2., 1.].map(|v| v / 16.0);
    let x = Tensor::constant(random(0, [2, 1, 7, 9]));
    let at_once = x.conv2d(&Tensor::from_f64([1, 1, 3, 3], &kernel, DType::F64), None, 1, 1);
    close(blur(&x).array(), at_once.array());
}

#[test]
fn nine_moved_images_are_a_convolution() {
    same(random(0, [2, 3, 5, 6]), random(1, [4, 3, 3, 3]), [&conv3x3, &|x, w| x.conv2d(w, None, 1, 1)]);
}

#[test]
fn zeros_between_the_pixels_give_the_input_gradient_at_any_stride() {
    for (k, s, p, size) in [(3, 1, 1, 6), (3, 2, 1, 7), (2, 2, 0, 6), (4, 2, 1, 8), (5, 3, 2, 7)] {
        let (x, weight) = (Tensor::leaf(random(0, [2, 3, size, size])), Tensor::constant(random(1, [4, 3, k, k])));
        let y = x.conv2d(&weight, None, s, p);
        let g = random(2, [2, 4, y.shape()[2], y.shape()[3]]);
        let dx = y.backward_with(g.clone()).take(&x).unwrap();
        close(transposed(&Tensor::constant(g), &weight, s, p).array(), &dx);
    }
}

#[test]
fn four_small_convolutions_are_one_after_doubling() {
    let large = |x: &Tensor, w: &Tensor| x.upsample_nearest(2).conv2d(w, None, 1, 1);
    same(random(0, [2, 3, 4, 5]), random(1, [2, 3, 3, 3]), [&doubled, &large]);
}
