//! Layers with parameters: thin, the mathematics is in `autograd`.

use super::{Fill, Init, Param};
use crate::array::Device;
use crate::autograd::Tensor;

/// x W' + b.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
}

impl Linear {
    // ANCHOR: linear_new
    /// From `inputs` to `outputs` features; first values uniform within 1 / sqrt(inputs), as in PyTorch.
    pub fn new(init: &Init, inputs: usize, outputs: usize) -> Linear {
        let fill = Fill::Uniform(1.0 / (inputs as f64).sqrt());
        Linear {
            weight: init.param("weight", [outputs, inputs], fill),
            bias: Some(init.param("bias", [outputs], fill)),
        }
    }
    // ANCHOR_END: linear_new

    /// As [`Linear::new`], with weight and bias 0: what follows starts as if this layer were not there.
    pub fn zeroed(init: &Init, inputs: usize, outputs: usize) -> Linear {
        let weight = init.param("weight", [outputs, inputs], Fill::Zeros);
        Linear { weight, bias: Some(init.param("bias", [outputs], Fill::Zeros)) }
    }

    /// Without a bias.
    pub fn without_bias(init: &Init, inputs: usize, outputs: usize) -> Linear {
        let fill = Fill::Uniform(1.0 / (inputs as f64).sqrt());
        Linear { weight: init.param("weight", [outputs, inputs], fill), bias: None }
    }

    /// Without a bias; first values N(0, `std`^2).
    pub fn normal(init: &Init, inputs: usize, outputs: usize, std: f64) -> Linear {
        Linear { weight: init.param("weight", [outputs, inputs], Fill::Normal(std)), bias: None }
    }

    // ANCHOR: linear_forward
    /// [.., inputs] to [.., outputs]. Panics if the last axis does not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight.tensor(), self.bias.as_ref().map(Param::tensor).as_ref())
    }
    // ANCHOR_END: linear_forward
}

// ANCHOR: conv2d
/// 2-D convolution with a square kernel.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Param,
    bias: Param,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// From `inputs` to `outputs` channels; first values uniform within 1 / sqrt(inputs kernel^2), as
    /// in PyTorch.
    pub fn new(init: &Init, inputs: usize, outputs: usize, kernel: usize, stride: usize, padding: usize) -> Conv2d {
        let fill = Fill::Uniform(1.0 / ((inputs * kernel * kernel) as f64).sqrt());
        Conv2d::filled(init, [outputs, inputs, kernel, kernel], stride, padding, fill)
    }
    // ANCHOR_END: conv2d

    /// A 3x3 convolution that keeps the size.
    pub fn same3x3(init: &Init, inputs: usize, outputs: usize) -> Conv2d {
        Conv2d::new(init, inputs, outputs, 3, 1, 1)
    }

    /// As [`Conv2d::same3x3`], with weight and bias 0: a residual block ending in it starts as the identity.
    pub fn zeroed3x3(init: &Init, inputs: usize, outputs: usize) -> Conv2d {
        Conv2d::filled(init, [outputs, inputs, 3, 3], 1, 1, Fill::Zeros)
    }

    /// A 1x1 convolution: a linear layer applied at every pixel.
    pub fn pointwise(init: &Init, inputs: usize, outputs: usize) -> Conv2d {
        Conv2d::new(init, inputs, outputs, 1, 1, 0)
    }

    /// As [`Conv2d::pointwise`], with weight and bias 0.
    pub fn zeroed_pointwise(init: &Init, inputs: usize, outputs: usize) -> Conv2d {
        Conv2d::filled(init, [outputs, inputs, 1, 1], 1, 0, Fill::Zeros)
    }

    fn filled(init: &Init, shape: [usize; 4], stride: usize, padding: usize, fill: Fill) -> Conv2d {
        Conv2d {
            weight: init.param("weight", shape, fill),
            bias: init.param("bias", [shape[0]], fill),
            stride,
            padding,
        }
    }

    /// Where its parameters are.
    pub fn device(&self) -> Device {
        self.weight.tensor().device()
    }

    /// [B, inputs, H, W] to [B, outputs, H', W']. Panics if the channels do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight.tensor(), Some(&self.bias.tensor()), self.stride, self.padding)
    }
}

/// Group normalisation with a weight and a bias a channel.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Param,
    bias: Param,
    groups: usize,
}

impl GroupNorm {
    /// Over `groups` groups of `channels` channels; starts with weight 1 and bias 0, eps 1e-5.
    pub fn new(init: &Init, groups: usize, channels: usize) -> GroupNorm {
        let (weight, bias) =
            (init.param("weight", [channels], Fill::Ones), init.param("bias", [channels], Fill::Zeros));
        GroupNorm { weight, bias, groups }
    }

    /// [B, C, ..], shape kept. Panics if the channels do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.group_norm(&self.weight.tensor(), &self.bias.tensor(), self.groups, 1e-5)
    }

    /// silu of [`GroupNorm::forward`], in one pass.
    #[track_caller]
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        x.group_norm_silu(&self.weight.tensor(), &self.bias.tensor(), self.groups, 1e-5)
    }
}

/// What is normalised together in features [B, C, H, W].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// All pixels of each of so many groups of channels: mean 0 and variance 1.
    Group(usize),
    /// The channels of each pixel: mean 0 and variance 1.
    Layer,
    /// The channels of each pixel: mean square 1. No mean is taken off, and there is no bias.
    Rms,
}

/// A normalisation of features [B, C, H, W], with a weight a channel.
#[derive(Clone, Debug)]
pub enum FeatureNorm {
    /// [`NormKind::Group`]
    Group(GroupNorm),
    /// [`NormKind::Layer`]
    Layer(LayerNorm),
    /// [`NormKind::Rms`]
    Rms(RmsNorm),
}

impl FeatureNorm {
    /// Of `channels` channels.
    pub fn new(init: &Init, kind: NormKind, channels: usize) -> FeatureNorm {
        match kind {
            NormKind::Group(groups) => FeatureNorm::Group(GroupNorm::new(init, groups, channels)),
            NormKind::Layer => FeatureNorm::Layer(LayerNorm::new(init, channels)),
            NormKind::Rms => FeatureNorm::Rms(RmsNorm::new(init, channels)),
        }
    }

    // ANCHOR: feature_norm
    /// [B, C, H, W], shape kept. Panics if the channels do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let pixels = || x.permute(&[0, 2, 3, 1]);
        let normalised = match self {
            FeatureNorm::Group(norm) => return norm.forward(x),
            FeatureNorm::Layer(norm) => norm.forward(&pixels()),
            FeatureNorm::Rms(norm) => norm.forward(&pixels()),
        };
        normalised.permute(&[0, 3, 1, 2])
    }
    // ANCHOR_END: feature_norm

    /// silu of [`FeatureNorm::forward`].
    #[track_caller]
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        match self {
            FeatureNorm::Group(norm) => norm.forward_silu(x),
            FeatureNorm::Layer(_) | FeatureNorm::Rms(_) => self.forward(x).silu(),
        }
    }
}

/// Layer normalisation over the last axis.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Param,
    bias: Param,
}

impl LayerNorm {
    /// Over `features` numbers; starts with weight 1 and bias 0, eps 1e-5.
    pub fn new(init: &Init, features: usize) -> LayerNorm {
        LayerNorm {
            weight: init.param("weight", [features], Fill::Ones),
            bias: init.param("bias", [features], Fill::Zeros),
        }
    }

    /// [.., features], shape kept. Panics if the last axis does not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(&self.weight.tensor(), &self.bias.tensor(), 1e-5)
    }
}

/// Root-mean-square normalisation over the last axis.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Param,
    eps: f64,
}

impl RmsNorm {
    /// Over `features` numbers; starts with weight 1, eps 1e-6.
    pub fn new(init: &Init, features: usize) -> RmsNorm {
        RmsNorm::with_eps(init, features, 1e-6)
    }

    /// As [`RmsNorm::new`], with another eps.
    pub fn with_eps(init: &Init, features: usize, eps: f64) -> RmsNorm {
        RmsNorm { weight: init.param("weight", [features], Fill::Ones), eps }
    }

    /// Where its parameter is.
    pub fn device(&self) -> Device {
        self.weight.tensor().device()
    }

    /// [.., features], shape kept. Panics if the last axis does not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(&self.weight.tensor(), self.eps)
    }
}

/// A table of vectors, looked up by number.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Param,
}

impl Embedding {
    /// `count` vectors of `features` numbers; first values N(0, 1).
    pub fn new(init: &Init, count: usize, features: usize) -> Embedding {
        Embedding { table: init.param("weight", [count, features], Fill::Normal(1.0)) }
    }

    /// The whole table, [count, features].
    pub fn table(&self) -> Tensor {
        self.table.tensor()
    }

    /// The vectors of `rows`: [rows.len(), features]. Panics if a row does not exist.
    #[track_caller]
    pub fn forward(&self, rows: &[u32]) -> Tensor {
        self.table.tensor().embedding(rows)
    }
}
