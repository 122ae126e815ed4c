//! Encoder and decoder: blocks on top of each other.

use super::T5Config;
use super::layers::{Attention, FeedForward, norm};
use super::position::RelativeBias;
use crate::autograd::Tensor;
use crate::nn::{Init, RmsNorm};

/// Whether a stack reads a text or writes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Encoder,
    Decoder,
}

impl Role {
    /// What the names of its weights begin with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Encoder => "encoder",
            Role::Decoder => "decoder",
        }
    }
}

/// x + attention(norm(x)), in a decoder also x + attention(norm(x), what was read), then x + feed_forward(norm(x)). (G1)
#[derive(Clone, Debug)]
pub(super) struct Block {
    self_norm: RmsNorm,
    self_attention: Attention,
    cross: Option<(RmsNorm, Attention)>,
    feed_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    /// Its parameters have the names of the hub: "layer.0.SelfAttention.q.weight".
    pub(super) fn new(init: &Init, config: &T5Config, role: Role) -> Block {
        let layer = |i: usize| init.scope(format!("layer.{i}"));
        let cross = (role == Role::Decoder).then(|| {
            let init = layer(1);
            (norm(&init.scope("layer_norm"), config), Attention::new(&init.scope("EncDecAttention"), config))
        });
        let last = layer(1 + usize::from(cross.is_some()));
        Block {
            self_norm: norm(&layer(0).scope("layer_norm"), config),
            self_attention: Attention::new(&layer(0).scope("SelfAttention"), config),
            cross,
            feed_norm: norm(&last.scope("layer_norm"), config),
            feed_forward: FeedForward::new(&last.scope("DenseReluDense"), config),
        }
    }

    // ANCHOR: block
    /// x [B, n, d], shape kept. `bias` broadcasts to [B, heads, n, n]; `read` is what the encoder made of its text, [B, m, d],
    /// and its bias [B, 1, 1, m].
    pub(super) fn forward(&self, x: &Tensor, bias: &Tensor, read: Option<(&Tensor, &Tensor)>) -> Tensor {
        let normed = self.self_norm.forward(x);
        let x = x + &self.self_attention.forward(&normed, &normed, Some(bias));
        self.after_self_attention(&x, read)
    }

    fn after_self_attention(&self, x: &Tensor, read: Option<(&Tensor, &Tensor)>) -> Tensor {
        let mut x = x.clone();
        if let (Some((norm, attention)), Some((seen, hidden))) = (&self.cross, read) {
            x = &x + &attention.forward(&norm.forward(&x), seen, Some(hidden));
        }
        &x + &self.feed_forward.forward(&self.feed_norm.forward(&x))
    }
    // ANCHOR_END: block

    /// As [`Block::forward`] of an encoder, and the weights of its attention: [B, heads, n, n].
    pub(super) fn forward_with_weights(&self, x: &Tensor, bias: &Tensor) -> (Tensor, Tensor) {
        let (seen, weights) = self.self_attention.forward_with_weights(&self.self_norm.forward(x), bias);
        (self.after_self_attention(&(x + &seen), None), weights)
    }
}

/// Blocks, the bias they share, and a last normalisation.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    blocks: Vec<Block>,
    bias: RelativeBias,
    norm: RmsNorm,
    role: Role,
}

impl Stack {
    pub(super) fn new(init: &Init, config: &T5Config, role: Role) -> Stack {
        let layers = match role {
            Role::Encoder => config.num_layers,
            Role::Decoder => config.decoder_layers(),
        };
        let block = |i: usize| init.scope("block").scope(i);
        Stack {
            blocks: (0..layers).map(|i| Block::new(&block(i), config, role)).collect(),
            bias: relative_bias(&block(0), config, role),
            norm: norm(&init.scope("final_layer_norm"), config),
            role,
        }
    }

    /// x [B, n, d], shape kept. `hidden` [B, 1, 1, n] hides padding; `read` as in [`Block::forward`].
    pub(super) fn forward(&self, x: &Tensor, hidden: Option<&Tensor>, read: Option<(&Tensor, &Tensor)>) -> Tensor {
        let bias = self.bias(x, hidden);
        let x = self.blocks.iter().fold(x.clone(), |x, block| block.forward(&x, &bias, read));
        self.norm.forward(&x)
    }

    /// As [`Stack::forward`] of an encoder, and the weights of attention of every block: [B, heads, n, n] each.
    pub(super) fn forward_with_weights(&self, x: &Tensor, hidden: Option<&Tensor>) -> (Tensor, Vec<Tensor>) {
        let bias = self.bias(x, hidden);
        let (mut x, mut weights) = (x.clone(), Vec::new());
        for block in &self.blocks {
            let (next, seen) = block.forward_with_weights(&x, &bias);
            x = next;
            weights.push(seen);
        }
        (self.norm.forward(&x), weights)
    }

    /// What is added to the scores of attention: the distances, and negative infinity where nothing is to be seen.
    fn bias(&self, x: &Tensor, hidden: Option<&Tensor>) -> Tensor {
        whole_bias(&self.bias, self.role, x.shape()[1], hidden)
    }

    /// The bias alone, for a text of n tokens: [1, heads, n, n].
    pub(super) fn distances(&self, n: usize) -> Tensor {
        self.bias.forward(n)
    }
}

/// The table of distances of a stack, under the name it has on the hub: within its first block, which `init` is for.
pub(super) fn relative_bias(init: &Init, config: &T5Config, role: Role) -> RelativeBias {
    let attention = init.scope("layer.0.SelfAttention.relative_attention_bias");
    RelativeBias::new(&attention, config, role == Role::Encoder)
}

/// Distances [1, heads, n, n], with padding and, for a decoder, the future hidden.
pub(super) fn whole_bias(bias: &RelativeBias, role: Role, n: usize, hidden: Option<&Tensor>) -> Tensor {
    let mut bias = bias.forward(n);
    if role == Role::Decoder {
        let future = |i: usize| if i % n > i / n { f64::NEG_INFINITY } else { 0.0 };
        let future: Vec<f64> = (0..n * n).map(future).collect();
        bias = &bias + &bias.constant_like([n, n], &future);
    }
    match hidden {
        Some(hidden) => &bias + hidden,
        None => bias,
    }
}
