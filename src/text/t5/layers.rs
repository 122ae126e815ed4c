//! The layers of a block: attention and feed-forward, each behind a normalisation and beside a shortcut.

use super::{FeedForwardKind, T5Config};
use crate::autograd::Tensor;
use crate::nn::{Init, Linear, RmsNorm};

/// Multi-head attention without biases and without the usual 1 / sqrt(d): the first values of `q` are smaller by it instead.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
}

impl Attention {
    // ANCHOR: attention_new
    pub(super) fn new(init: &Init, config: &T5Config) -> Attention {
        let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
        let linear = |name, inputs, outputs, variance: usize| {
            Linear::normal(&init.scope(name), inputs, outputs, 1.0 / (variance as f64).sqrt())
        };
        Attention {
            q: linear("q", d, inner, d * config.d_kv),
            k: linear("k", d, inner, d),
            v: linear("v", d, inner, d),
            o: linear("o", inner, d, inner),
            heads: config.num_heads,
        }
    }
    // ANCHOR_END: attention_new

    // ANCHOR: attention
    /// Every token of x [B, n, d] looks at those of `seen` [B, m, d], the same ones or the encoder's; `bias` broadcasts to
    /// [B, heads, n, m].
    pub(super) fn forward(&self, x: &Tensor, seen: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let [q, k, v] = [self.q.forward(x), self.k.forward(seen), self.v.forward(seen)].map(|t| self.heads(&t));
        self.joined(&q.attention(&k, &v, bias, 1.0))
    }
    // ANCHOR_END: attention

    /// As [`Attention::forward`] of x with itself, and how much each token takes of each: [B, heads, n, n].
    pub(super) fn forward_with_weights(&self, x: &Tensor, bias: &Tensor) -> (Tensor, Tensor) {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| self.heads(&layer.forward(x)));
        let weights = q.attention_weights(&k, Some(bias), 1.0);
        (self.joined(&weights.matmul(&v)), weights)
    }

    /// [B, n, heads d_kv] to [B, heads, n, d_kv].
    fn heads(&self, x: &Tensor) -> Tensor {
        let [b, n, inner] = x.shape().dims("attention");
        x.reshape([b, n, self.heads, inner / self.heads]).permute(&[0, 2, 1, 3])
    }

    /// [B, heads, n, d_kv] to [B, n, d].
    fn joined(&self, x: &Tensor) -> Tensor {
        let [b, heads, n, d] = x.shape().dims("attention");
        self.o.forward(&x.permute(&[0, 2, 1, 3]).reshape([b, n, heads * d]))
    }
}

/// What every token computes for itself.
#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    Relu { wi: Linear, wo: Linear },
    GatedGelu { wi_0: Linear, wi_1: Linear, wo: Linear },
}

impl FeedForward {
    pub(super) fn new(init: &Init, config: &T5Config) -> FeedForward {
        let linear = |name, inputs: usize, outputs| {
            Linear::normal(&init.scope(name), inputs, outputs, 1.0 / (inputs as f64).sqrt())
        };
        let (d, inside) = (config.d_model, config.d_ff);
        match config.feed_forward_proj {
            FeedForwardKind::Relu => FeedForward::Relu { wi: linear("wi", d, inside), wo: linear("wo", inside, d) },
            FeedForwardKind::GatedGelu => FeedForward::GatedGelu {
                wi_0: linear("wi_0", d, inside),
                wi_1: linear("wi_1", d, inside),
                wo: linear("wo", inside, d),
            },
        }
    }

    // ANCHOR: feed_forward
    /// x [.., d], shape kept.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            FeedForward::Relu { wi, wo } => wo.forward(&wi.forward(x).relu()),
            FeedForward::GatedGelu { wi_0, wi_1, wo } => wo.forward(&(&wi_0.forward(x).gelu_tanh() * &wi_1.forward(x))),
        }
    }
    // ANCHOR_END: feed_forward
}

/// A normalisation with the epsilon of the config.
pub(super) fn norm(init: &Init, config: &T5Config) -> RmsNorm {
    RmsNorm::with_eps(init, config.d_model, config.layer_norm_epsilon)
}
