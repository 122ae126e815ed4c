//! The fast convolutions against their definition, against each other, and on one thread against two.

use super::*;
use crate::random::{Purpose, normal};
use proptest::prelude::*;

fn random(shape: impl Into<Shape>, index: u64) -> Array {
    let shape = shape.into();
    let values = normal(1, Purpose::Test, 0, index, shape.numel());
    Array::from_vec(shape, values)
}

fn conv(stride: usize, padding: usize) -> ConvShape {
    ConvShape { stride, padding }
}

/// Random x, weight, bias and gradient of the outputs.
fn operands(x: [usize; 4], weight: [usize; 4], conv: ConvShape) -> [Array; 4] {
    let [batch, _, h, w] = x;
    let [o, _, kh, kw] = weight;
    let out = [batch, o, conv.output(h, kh).unwrap(), conv.output(w, kw).unwrap()];
    [random(x, 1), random(weight, 2), random([o], 3), random(out, 4)]
}

fn three(operands: &[Array; 4], conv: ConvShape) -> [Array; 3] {
    let [x, weight, bias, g] = operands;
    [
        conv2d(x, weight, Some(bias), conv),
        conv2d_grad_input(g, weight, x.shape(), conv),
        conv2d_grad_weight(g, x, weight.shape(), conv),
    ]
}

#[track_caller]
fn close(a: &Array, b: &Array, tolerance: f64) {
    assert_eq!(a.shape(), b.shape());
    for (x, y) in a.to_f64().into_iter().zip(b.to_f64()) {
        assert!((x - y).abs() <= tolerance, "{x} {y}");
    }
}

/// Rounding grows like the root of the number of terms, which have size 1.
fn rounding(eps: f64, terms: usize) -> f64 {
    8.0 * eps * (1.0 + terms as f64)
}

// ANCHOR: agree_check
fn check(x: [usize; 4], weight: [usize; 4], conv: ConvShape) {
    let exact = operands(x, weight, conv);
    let [xs, ws, bias, g] = &exact;
    let expected = [
        reference::conv2d(xs, ws, Some(bias), conv),
        reference::conv2d_grad_input(g, ws, xs.shape(), conv),
        reference::conv2d_grad_weight(g, xs, ws.shape(), conv),
    ];
    let [outputs, channels, kh, kw] = weight;
    let plane = g.shape()[2] * g.shape()[3];
    let terms = [channels * kh * kw, outputs * kh * kw, x[0] * plane];
    let single = exact.each_ref().map(|v| v.cast(DType::F32));
    for i in 0..3 {
        close(&three(&exact, conv)[i], &expected[i], rounding(f64::EPSILON, terms[i]));
        close(&three(&single, conv)[i], &expected[i], rounding(f64::from(f32::EPSILON), terms[i]));
    }
}
// ANCHOR_END: agree_check

// ANCHOR: agree_with_the_definition
proptest! {
    #[test]
    fn agree_with_the_definition(
        b in 0usize..4, c in 1usize..4, o in 1usize..4, h in 1usize..9, w in 1usize..9,
        kh in 1usize..6, kw in 1usize..6, stride in 1usize..4, padding in 0usize..4,
    ) {
        let conv = conv(stride, padding);
        prop_assume!(conv.output(h, kh).is_some() && conv.output(w, kw).is_some());
        check([b, c, h, w], [o, c, kh, kw], conv);
    }
}
// ANCHOR_END: agree_with_the_definition

#[test]
fn agree_with_the_definition_where_tiles_matter() {
    // One image a tile; several; an image in several tiles, of rows that do not divide evenly.
    check([2, 3, 21, 23], [5, 3, 3, 3], conv(1, 1));
    check([11, 3, 7, 7], [17, 3, 3, 3], conv(1, 1));
    check([35, 2, 7, 5], [3, 2, 3, 3], conv(2, 1));
    check([2, 2, 47, 49], [3, 2, 3, 3], conv(1, 1));
    check([2, 2, 53, 47], [3, 2, 5, 5], conv(1, 1));
    check([1, 2, 95, 93], [3, 2, 3, 3], conv(2, 1));
    check([5, 3, 9, 7], [13, 3, 5, 5], conv(1, 2));
    // No patches to copy: for one image a tile, several, and several tiles an image.
    check([2, 3, 21, 23], [5, 3, 1, 1], conv(1, 0));
    check([11, 3, 7, 7], [17, 3, 1, 1], conv(1, 0));
    check([2, 3, 47, 49], [5, 3, 1, 1], conv(1, 0));
}

/// Enough channels for Winograd's way, and images of every size up to two tiles, whole blocks of channels and not.
#[test]
fn agree_with_the_definition_tile_by_tile() {
    for height in 1..10 {
        for width in 1..10 {
            check([2, 9, height, width], [11, 9, 3, 3], conv(1, 1));
        }
    }
    for (channels, outputs) in [(8, 8), (16, 40), (33, 16), (64, 31), (32, 65)] {
        check([3, channels, 7, 6], [outputs, channels, 3, 3], conv(1, 1));
    }
    // Images and parts of the sums in several pieces; one image in several.
    check([70, 9, 7, 9], [8, 9, 3, 3], conv(1, 1));
    check([2, 10, 37, 66], [9, 10, 3, 3], conv(1, 1));
    check([1, 40, 29, 28], [70, 40, 3, 3], conv(1, 1));
}

// Some taps of such a kernel meet nothing but padding.
#[test]
fn agree_with_the_definition_where_the_kernel_reaches_beyond_the_image() {
    for (h, w) in [(1, 1), (1, 2), (2, 1), (2, 3), (1, 7)] {
        for (kh, kw) in [(1, 5), (5, 1), (3, 3), (5, 5), (4, 2)] {
            for (stride, padding) in [(1, 0), (1, 1), (1, 2), (1, 4), (2, 2), (3, 3)] {
                let conv = conv(stride, padding);
                if conv.output(h, kh).is_some() && conv.output(w, kw).is_some() {
                    check([2, 2, h, w], [3, 2, kh, kw], conv);
                }
            }
        }
    }
}

/// Most machines only ever take one of these ways.
#[test]
fn every_vector_width_agrees_with_the_definition() {
    let mut widths = vec![pulp::Arch::Scalar, pulp::Arch::new()];
    #[cfg(target_arch = "x86_64")]
    widths.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
    let conv = conv(1, 1);
    let [x, w, bias, g] = operands([4, 12, 11, 13], [13, 12, 3, 3], conv);
    let expected = reference::conv2d(&x, &w, Some(&bias), conv);
    let expected_dw = reference::conv2d_grad_weight(&g, &x, w.shape(), conv);
    let geometry = Geometry::new(x.shape(), w.shape(), conv);
    let w_shape = w.shape().clone();
    let [x, w, bias, g] = [x, w, bias, g].map(|v| v.to_f32());
    for arch in widths {
        let out = direct::forward_on(arch, &x, &turned(&w, &geometry), Some(&bias), &geometry);
        close(&Array::from_buffer(expected.shape(), out), &expected, rounding(f64::from(f32::EPSILON), 108));
        let dw = direct::grad_weight_on(arch, &g, &x, &geometry);
        close(&Array::from_buffer(w_shape.clone(), dw), &expected_dw, rounding(f64::from(f32::EPSILON), 4 * 11 * 13));
        let out = winograd::forward_on(arch, &x, Weight::Plain(&w), Some(&bias), &geometry);
        close(&Array::from_buffer(expected.shape(), out), &expected, rounding(f64::from(f32::EPSILON), 108));
        let dw = winograd::grad_weight_on(arch, &g, &x, &geometry);
        close(&Array::from_buffer(w_shape.clone(), dw), &expected_dw, rounding(f64::from(f32::EPSILON), 4 * 11 * 13));
    }
}

#[test]
fn no_images_give_no_outputs_and_a_gradient_of_zero() {
    for stride in [1, 2] {
        let conv = conv(stride, 1);
        let [out, dx, dw] = three(&operands([0, 3, 8, 8], [5, 3, 3, 3], conv), conv);
        assert_eq!((out.numel(), dx.numel()), (0, 0));
        assert_eq!(dw.to_f64(), vec![0.0; 5 * 3 * 9]);
    }
}

fn dot(a: &Array, b: &Array) -> f64 {
    a.to_f64().iter().zip(b.to_f64()).map(|(x, y)| x * y).sum()
}

// ANCHOR: gradients_are_the_adjoints
/// <conv(x, w), g> = <x, grad_input(g)> = <w, grad_weight(g)>: the convolution is linear in x and in w.
#[test]
fn gradients_are_the_adjoints() {
    for (stride, padding, k, size) in
        [(1, 1, 3, 13), (2, 1, 3, 13), (1, 0, 1, 13), (2, 0, 1, 14), (1, 3, 2, 9), (3, 2, 5, 31)]
    {
        let conv = conv(stride, padding);
        let [x, w, _, g] = operands([5, 3, size, size + 2], [7, 3, k, k], conv);
        let expected = dot(&conv2d(&x, &w, None, conv), &g);
        let from_x = dot(&x, &conv2d_grad_input(&g, &w, x.shape(), conv));
        let from_w = dot(&w, &conv2d_grad_weight(&g, &x, w.shape(), conv));
        let tolerance = 1e-12 * (1.0 + (dot(&x, &x) * dot(&w, &w)).sqrt());
        assert!((expected - from_x).abs() < tolerance, "{expected} {from_x}");
        assert!((expected - from_w).abs() < tolerance, "{expected} {from_w}");
    }
}
// ANCHOR_END: gradients_are_the_adjoints

fn single(operands: &[Array; 4]) -> [Array; 4] {
    operands.each_ref().map(|v| v.cast(DType::F32))
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (size, stride, channels) in [(7, 1, 5), (14, 2, 5), (28, 1, 5), (45, 2, 5), (6, 1, 40), (29, 1, 40)] {
        let conv = conv(stride, 1);
        let operands = single(&operands([19, channels, size, size], [2 * channels, channels, 3, 3], conv));
        let with = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| three(&operands, conv))
        };
        for (one, many) in with(1).iter().zip(with(2)) {
            assert!(one.bit_eq(&many));
        }
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    for (size, stride, channels) in [(7, 1, 5), (14, 2, 5), (28, 1, 5), (45, 2, 5), (6, 1, 40), (29, 1, 40)] {
        let conv = conv(stride, 1);
        let [x, w, bias, g] = single(&operands([19, channels, size, size], [2 * channels, channels, 3, 3], conv));
        let alone = |all: &Array| {
            let shape = all.shape().with(0, 1);
            Array::from_vec(shape.clone(), all.slice::<f32>()[3 * shape.numel()..4 * shape.numel()].to_vec())
        };
        let [x1, g1] = [&x, &g].map(alone);
        let out = conv2d(&x, &w, Some(&bias), conv);
        assert!(alone(&out).bit_eq(&conv2d(&x1, &w, Some(&bias), conv)));
        let dx = conv2d_grad_input(&g, &w, x.shape(), conv);
        assert!(alone(&dx).bit_eq(&conv2d_grad_input(&g1, &w, x1.shape(), conv)));
    }
}

#[test]
#[should_panic(expected = "conv2d: input [1, 2, 4, 4] and weight [3, 3, 3, 3] do not fit")]
fn channels_that_differ_are_refused() {
    conv2d(&random([1, 2, 4, 4], 1), &random([3, 3, 3, 3], 2), None, conv(1, 1));
}
