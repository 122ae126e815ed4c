//! 2-D convolution.

use super::Tensor;
use super::graph::op;
use crate::kernels::ConvShape;

impl Tensor {
    /// x [B, C, H, W] convolved (cross-correlated) with weight [O, C, kh, kw], plus bias `[O]`:
    ///
    /// `y[b, o, i, j] = bias[o] + sum over c, u, v of weight[o, c, u, v] x[b, c, stride i + u - padding, stride j + v - padding]`,
    /// with zeros outside the image. H' = floor((H + 2 padding - kh) / stride) + 1. Panics if the shapes do not fit.
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Tensor {
        let conv = ConvShape { stride, padding };
        let (xs, ws) = (self.shape().clone(), weight.shape().clone());
        let [_, c, h, w] = xs.dims("conv2d input");
        let [o, wc, kh, kw] = ws.dims("conv2d weight");
        assert!(c == wc, "conv2d: input {xs} has {c} channels, weight {ws} wants {wc}");
        assert!(stride > 0 && kh > 0 && kw > 0, "conv2d: stride and kernel of {ws} must be at least 1");
        let fits = conv.output(h, kh).and(conv.output(w, kw)).is_some();
        assert!(fits, "conv2d: kernel {ws} is larger than input {xs} with padding {padding}");
        if let Some(bias) = bias {
            assert_eq!(**bias.shape(), [o], "conv2d: bias for weight {ws} must be [{o}]");
        }
        let dtypes = [weight.dtype(), bias.map_or(weight.dtype(), Tensor::dtype)];
        assert!(dtypes == [self.dtype(); 2], "conv2d: dtypes of input {xs} and weight {ws} or its bias differ");
        // ANCHOR: conv2d_gradients
        let k = self.kernels();
        let (x, weight_value) = (self.value.clone(), weight.value.clone());
        let y = k.conv2d(&x, &weight_value, bias.map(Tensor::array), conv);
        let y = op("conv2d", y)
            .grad(self, move |g| k.conv2d_grad_input(g, &weight_value, &xs, conv))
            .grad(weight, move |g| k.conv2d_grad_weight(g, &x, &ws, conv));
        match bias {
            Some(bias) => y.grad(bias, move |g| g.sum_to(&[o, 1, 1].into()).reshape([o])).done(),
            None => y.done(),
        }
        // ANCHOR_END: conv2d_gradients
    }
}
