//! The three convolutions by their definition, a few lines each: what the fast ones are tested against.
//!
//! y[b, o, i, j] = bias[o] + sum over c, u, v of weight[o, c, u, v] x[b, c, m, n] with m = stride i + u - padding and
//! n = stride j + v - padding, and x zero outside of the image.

use crate::array::{Array, Shape};
use crate::kernels::ConvShape;

// ANCHOR: each_product
/// Calls `visit([y, w, x])` with the places of the three numbers of every product in the sum above.
fn each_product(x: &Shape, weight: &Shape, conv: ConvShape, mut visit: impl FnMut([usize; 3])) {
    let [batch, channels, height, width] = x.dims("x");
    let [outputs, _, kh, kw] = weight.dims("weight");
    let out = |size, kernel| conv.output(size, kernel).expect("the kernel fits");
    let (ho, wo) = (out(height, kh), out(width, kw));
    for y in 0..batch * outputs * ho * wo {
        let (b, o, i, j) = (y / wo / ho / outputs, y / wo / ho % outputs, y / wo % ho, y % wo);
        for tap in 0..channels * kh * kw {
            let (c, u, v) = (tap / kw / kh, tap / kw % kh, tap % kw);
            // Above the image or left of it the difference wraps around and is too large.
            let m = (conv.stride * i + u).wrapping_sub(conv.padding);
            let n = (conv.stride * j + v).wrapping_sub(conv.padding);
            if m < height && n < width {
                let pixel = ((b * channels + c) * height + m) * width + n;
                visit([y, o * channels * kh * kw + tap, pixel]);
            }
        }
    }
}
// ANCHOR_END: each_product

/// The convolution; f64 inside, result f64. x [B, C, H, W], weight [O, C, kh, kw], bias [O], result [B, O, H', W'].
pub(super) fn conv2d(x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
    let [batch, _, height, width] = x.shape().dims("x");
    let [outputs, _, kh, kw] = weight.shape().dims("weight");
    let shape = Shape::from([batch, outputs, conv.output(height, kh).unwrap(), conv.output(width, kw).unwrap()]);
    let mut ys = vec![0.0; shape.numel()];
    if let Some(bias) = bias {
        let plane = shape[2] * shape[3];
        ys.iter_mut().enumerate().for_each(|(y, value)| *value = bias.to_f64()[y / plane % outputs]);
    }
    let (xs, ws) = (x.to_f64(), weight.to_f64());
    // ANCHOR: forward
    each_product(x.shape(), weight.shape(), conv, |[y, w, x]| ys[y] += ws[w] * xs[x]);
    // ANCHOR_END: forward
    Array::from_vec(shape, ys)
}

// ANCHOR: gradients
/// The gradient with respect to the input, by the product rule: each product hands g weight back
/// to its x.
pub(super) fn conv2d_grad_input(g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
    let (gs, ws, mut dx) = (g.to_f64(), weight.to_f64(), vec![0.0; x_shape.numel()]);
    each_product(x_shape, weight.shape(), conv, |[y, w, x]| dx[x] += ws[w] * gs[y]);
    Array::from_vec(x_shape, dx)
}

/// The gradient with respect to the weight, by the product rule: each product hands g x back to its
/// weight.
pub(super) fn conv2d_grad_weight(g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
    let (gs, xs, mut dw) = (g.to_f64(), x.to_f64(), vec![0.0; weight_shape.numel()]);
    each_product(x.shape(), weight_shape, conv, |[y, w, x]| dw[w] += xs[x] * gs[y]);
    Array::from_vec(weight_shape, dw)
}
// ANCHOR_END: gradients
