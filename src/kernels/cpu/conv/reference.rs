//! The three convolutions by their definition, a few lines each: what the fast ones are tested against.
//!
//! With i = y stride + ky - padding and j = x stride + kx - padding, and x zero outside of the image,
//! out[b, o, y, x] = bias[o] + sum over c, ky, kx of weight[o, c, ky, kx] x[b, c, i, j].

use crate::array::{Array, Shape};
use crate::kernels::ConvShape;

/// Calls `visit(out, weight, x)` with the three positions of every product in the sum above.
fn each_product(x: &Shape, weight: &Shape, conv: ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let [batch, c, h, w] = x.dims("x");
    let [o, _, kh, kw] = weight.dims("weight");
    let [ho, wo] = [conv.output(h, kh), conv.output(w, kw)].map(|size| size.expect("the kernel fits"));
    for out in 0..batch * o * ho * wo {
        let (b, k, y, z) = (out / wo / ho / o, out / wo / ho % o, out / wo % ho, out % wo);
        for tap in 0..c * kh * kw {
            let (channel, ky, kx) = (tap / kw / kh, tap / kw % kh, tap % kw);
            let (i, j) = (y * conv.stride + ky, z * conv.stride + kx);
            if (conv.padding..h + conv.padding).contains(&i) && (conv.padding..w + conv.padding).contains(&j) {
                let position = ((b * c + channel) * h + i - conv.padding) * w + j - conv.padding;
                visit(out, k * c * kh * kw + tap, position);
            }
        }
    }
}

/// The convolution; f64 inside, result f64. x [B, C, H, W], weight [O, C, kh, kw], bias [O], result [B, O, H', W'].
pub(super) fn conv2d(x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
    let [batch, _, h, w] = x.shape().dims("x");
    let [o, _, kh, kw] = weight.shape().dims("weight");
    let shape = Shape::from([batch, o, conv.output(h, kh).unwrap(), conv.output(w, kw).unwrap()]);
    let mut out = vec![0.0; shape.numel()];
    if let Some(bias) = bias {
        let plane = shape[2] * shape[3];
        out.iter_mut().enumerate().for_each(|(i, v)| *v = bias.to_f64()[i / plane % o]);
    }
    let (xs, ws) = (x.to_f64(), weight.to_f64());
    each_product(x.shape(), weight.shape(), conv, |i, j, k| out[i] += ws[j] * xs[k]);
    Array::from_vec(shape, out)
}

/// The gradient with respect to the input, by the product rule: each product hands g weight back to its x.
pub(super) fn conv2d_grad_input(g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
    let (gs, ws, mut dx) = (g.to_f64(), weight.to_f64(), vec![0.0; x_shape.numel()]);
    each_product(x_shape, weight.shape(), conv, |i, j, k| dx[k] += ws[j] * gs[i]);
    Array::from_vec(x_shape, dx)
}

/// The gradient with respect to the weight, by the product rule: each product hands g x back to its weight.
pub(super) fn conv2d_grad_weight(g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
    let (gs, xs, mut dw) = (g.to_f64(), x.to_f64(), vec![0.0; weight_shape.numel()]);
    each_product(x.shape(), weight_shape, conv, |i, j, k| dw[j] += gs[i] * xs[k]);
    Array::from_vec(weight_shape, dw)
}
