//! Normalisations.

use super::Tensor;
use super::graph::op;

impl Tensor {
    /// Group normalisation of x [B, C, ..]: mean 0 and variance 1 within each of `groups` groups of channels of each
    /// sample, then times weight `[C]`, plus bias `[C]`. Panics unless `groups` divides C. (Wu & He 2018)
    #[track_caller]
    pub fn group_norm(&self, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Tensor {
        self.check_group_norm(weight, bias, groups, "group_norm");
        let k = self.kernels();
        let (x, w) = (self.value.clone(), weight.value.clone());
        let (y, mean, inv_std) = k.group_norm(&x, &w, bias.array(), groups, eps);
        op("group_norm", y)
            .grads([self, weight, bias], move |g| k.group_norm_grad(g, &x, &w, &mean, &inv_std).into())
            .done()
    }

    /// silu of [`Tensor::group_norm`], the same numbers to the bit, with less memory moved and nothing kept in between.
    #[track_caller]
    pub fn group_norm_silu(&self, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Tensor {
        self.check_group_norm(weight, bias, groups, "group_norm_silu");
        let k = self.kernels();
        let (x, w, b) = (self.value.clone(), weight.value.clone(), bias.value.clone());
        let (y, mean, inv_std) = k.group_norm_silu(&x, &w, &b, groups, eps);
        op("group_norm_silu", y)
            .grads([self, weight, bias], move |g| k.group_norm_silu_grad(g, &x, &w, &b, &mean, &inv_std).into())
            .done()
    }

    #[track_caller]
    fn check_group_norm(&self, weight: &Tensor, bias: &Tensor, groups: usize, name: &str) {
        let shape = self.shape();
        assert!(shape.len() >= 2, "{name}: needs [B, C, ..], found {shape}");
        let c = shape[1];
        assert!(
            groups > 0 && c.is_multiple_of(groups),
            "{name}: {groups} groups do not divide the {c} channels of {shape}"
        );
        assert!(
            **weight.shape() == [c] && **bias.shape() == [c],
            "{name}: weight {} and bias {} must be [{c}] for {shape}",
            weight.shape(),
            bias.shape()
        );
        assert!(
            [weight.dtype(), bias.dtype()] == [self.dtype(); 2],
            "{name}: dtypes of input {shape}, weight {} and bias differ",
            weight.shape()
        );
    }

    /// Layer normalisation over the last axis: mean 0 and variance 1, times weight `[D]`, plus bias `[D]`. It is group
    /// normalisation with one group, each row a sample. (Ba et al. 2016)
    #[track_caller]
    pub fn layer_norm(&self, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
        let shape = self.shape();
        let d = *shape.last().expect("layer_norm: a scalar has no last axis");
        assert!(
            **weight.shape() == [d] && **bias.shape() == [d],
            "layer_norm: weight {} and bias {} must be [{d}] for {shape}",
            weight.shape(),
            bias.shape()
        );
        self.reshape([self.numel() / d.max(1), d]).group_norm(weight, bias, 1, eps).reshape(shape)
    }

    // ANCHOR: rms_norm
    /// x / sqrt(mean(x^2) + eps) over the last axis, times weight `[D]`: no mean is taken off. (Zhang & Sennrich 2019)
    #[track_caller]
    pub fn rms_norm(&self, weight: &Tensor, eps: f64) -> Tensor {
        assert!(
            weight.shape().len() == 1 && weight.shape().last() == self.shape().last(),
            "rms_norm: weight {} does not fit {}",
            weight.shape(),
            self.shape()
        );
        let inv_rms = (&self.square().mean(&[-1], true) + eps).rsqrt();
        &(self * &inv_rms) * weight
    }
    // ANCHOR_END: rms_norm
}
