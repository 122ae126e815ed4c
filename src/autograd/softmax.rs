//! Softmax and its logarithm.

use super::Tensor;
use super::graph::op;

impl Tensor {
    /// e^x / sum(e^x) along `axis` (-1 is the last): dx = y (g - sum(g y)). Where everything is negative infinity, zeros.
    #[track_caller]
    pub fn softmax(&self, axis: isize) -> Tensor {
        self.along_last(axis, |x| {
            let k = x.kernels();
            let y = k.softmax(&x.value);
            let saved = y.clone();
            op("softmax", y).grad(x, move |g| k.softmax_grad(&saved, g)).done()
        })
    }

    /// log(softmax(x)) along `axis`, without overflow: dx = g - e^y sum(g).
    #[track_caller]
    pub fn log_softmax(&self, axis: isize) -> Tensor {
        self.along_last(axis, |x| {
            let k = x.kernels();
            let y = k.log_softmax(&x.value);
            let saved = y.clone();
            op("log_softmax", y).grad(x, move |g| k.log_softmax_grad(&saved, g)).done()
        })
    }

    /// `f`, which works along the last axis, along another one.
    #[track_caller]
    fn along_last(&self, axis: isize, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let axis = self.shape().axis(axis);
        let last = self.shape().len() - 1;
        if axis == last {
            return f(self);
        }
        let mut order: Vec<usize> = (0..=last).collect();
        order.swap(axis, last);
        f(&self.permute(&order)).permute(&order)
    }
}
