//! Multi-head attention of an image with itself, with a text, or with both.

use super::{Conv2d, FeatureNorm, Init, Linear, NormKind};
use crate::autograd::{Tensor, concat};

/// Multi-head attention of the pixels of [B, C, H, W], residual: x + out(attention(norm(x))).
///
/// In self-attention the pixels look at each other. With a text, keys and values of its tokens are joined to those of the
/// pixels, so that one softmax chooses among both. In cross-attention they look at the tokens alone. (F4; Imagen, appendix B.1)
#[derive(Clone, Debug)]
pub struct Attention {
    norm: FeatureNorm,
    /// Queries, keys and values of the pixels; in cross-attention their queries alone.
    qkv: Conv2d,
    crosses: bool,
    text_kv: Option<Linear>,
    out: Conv2d,
    heads: usize,
}

impl Attention {
    /// Over `channels` channels in `heads` heads; `text_dim` features a text token if there is a text. The output
    /// starts at 0, so the layer starts as the identity. Panics unless `heads` divides `channels`.
    #[track_caller]
    pub fn new(init: &Init, channels: usize, heads: usize, norm: NormKind, text_dim: Option<usize>) -> Attention {
        check_heads(heads, channels);
        Attention {
            norm: FeatureNorm::new(&init.scope("norm"), norm, channels),
            qkv: Conv2d::pointwise(&init.scope("qkv"), channels, 3 * channels),
            crosses: false,
            text_kv: text_dim.map(|d| Linear::new(&init.scope("text_kv"), d, 2 * channels)),
            out: Conv2d::zeroed_pointwise(&init.scope("out"), channels, channels),
            heads,
        }
    }

    /// Cross-attention, otherwise as [`Attention::new`].
    #[track_caller]
    pub fn cross(init: &Init, channels: usize, heads: usize, norm: NormKind, text_dim: usize) -> Attention {
        check_heads(heads, channels);
        Attention {
            norm: FeatureNorm::new(&init.scope("norm"), norm, channels),
            qkv: Conv2d::pointwise(&init.scope("q"), channels, channels),
            crosses: true,
            text_kv: Some(Linear::new(&init.scope("text_kv"), text_dim, 2 * channels)),
            out: Conv2d::zeroed_pointwise(&init.scope("out"), channels, channels),
            heads,
        }
    }

    /// x [B, C, H, W], shape kept. `text`: tokens [B, N, text_dim] and a bias [B, 1, 1, N], 0 for a token and negative
    /// infinity for padding. Panics if there is a text and the layer was made without one, or if there is none and it is cross-attention.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, text: Option<(&Tensor, &Tensor)>) -> Tensor {
        let (q, keys, values, bias) = self.project(x, text);
        let seen = q.attention(&keys, &values, bias.as_ref(), self.scale(x));
        self.joined(x, &seen)
    }

    // ANCHOR: attention_forward
    /// As [`Attention::forward`], and the weights [B, heads, H W, H W + N]: how much a pixel takes of every pixel and of
    /// every token. In cross-attention [B, heads, H W, N].
    #[track_caller]
    pub fn forward_with_weights(&self, x: &Tensor, text: Option<(&Tensor, &Tensor)>) -> (Tensor, Tensor) {
        let (q, keys, values, bias) = self.project(x, text);
        let weights = q.attention_weights(&keys, bias.as_ref(), self.scale(x));
        (self.joined(x, &weights.matmul(&values)), weights)
    }

    /// Queries [B, heads, H W, d], keys and values [B, heads, H W + N, d], and the bias that hides padding.
    #[track_caller]
    fn project(&self, x: &Tensor, text: Option<(&Tensor, &Tensor)>) -> (Tensor, Tensor, Tensor, Option<Tensor>) {
        let [b, c, h, w] = x.shape().dims("attention");
        let (n, d) = (h * w, c / self.heads);
        let of_pixels = if self.crosses { 1 } else { 3 };
        let qkv = self.qkv.forward(&self.norm.forward(x)).reshape([b, of_pixels * self.heads, d, n]).transpose();
        let text = text.map(|(tokens, hidden)| (self.of_text(tokens, d), hidden));
        if self.crosses {
            let (kv, hidden) = text.unwrap_or_else(|| panic!("attention: cross-attention needs a text"));
            return (qkv, kv[0].clone(), kv[1].clone(), Some(hidden.clone()));
        }
        let parts = qkv.split(1, &[self.heads; 3]);
        let (q, mut keys, mut values) = (parts[0].clone(), parts[1].clone(), parts[2].clone());
        let mut bias = None;
        if let Some((kv, hidden)) = text {
            // Text last: then padding stands behind all that counts, and adding its zeros changes no bit of any sum. An
            // image would otherwise depend, in its last digits, on the longest caption of its batch.
            keys = concat(&[&keys, &kv[0]], 2);
            values = concat(&[&values, &kv[1]], 2);
            bias = Some(hidden.pad(-1, n, 0));
        }
        (q, keys, values, bias)
    }

    /// Keys and values [B, heads, N, d] of tokens.
    #[track_caller]
    fn of_text(&self, tokens: &Tensor, d: usize) -> Vec<Tensor> {
        let layer = self.text_kv.as_ref().unwrap_or_else(|| panic!("attention: this layer was made without text"));
        let (b, count) = (tokens.shape()[0], tokens.shape()[1]);
        let kv = layer.forward(tokens).reshape([b, count, 2 * self.heads, d]).permute(&[0, 2, 1, 3]);
        kv.split(1, &[self.heads; 2])
    }

    /// 1 / sqrt(d)
    fn scale(&self, x: &Tensor) -> f64 {
        1.0 / ((x.shape()[1] / self.heads) as f64).sqrt()
    }

    /// What the pixels of x have seen [B, heads, H W, d], added to them.
    fn joined(&self, x: &Tensor, seen: &Tensor) -> Tensor {
        x + &self.out.forward(&seen.transpose().reshape(x.shape()))
    }
    // ANCHOR_END: attention_forward
}

#[track_caller]
fn check_heads(heads: usize, channels: usize) {
    assert!(heads > 0 && channels.is_multiple_of(heads), "attention: {heads} heads do not divide {channels} channels");
}
