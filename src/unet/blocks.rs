//! The blocks of the U-Net.

use super::UNetConfig;
use crate::autograd::Tensor;
use crate::nn::{Conv2d, GroupNorm, Init, Linear};

/// conv(silu(norm(conv(silu(norm(x))) with the embedding))) + x, or a 1x1 convolution of x where the channels change.
///
/// The last convolution starts at 0, so the block starts as the identity (or as its shortcut).
#[derive(Clone, Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    embedding: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    scale_shift: bool,
    outputs: usize,
}

impl ResBlock {
    pub(super) fn new(init: &Init, config: &UNetConfig, inputs: usize, outputs: usize) -> ResBlock {
        let features = if config.scale_shift { 2 * outputs } else { outputs };
        ResBlock {
            norm1: GroupNorm::new(&init.scope("norm1"), config.groups, inputs),
            conv1: Conv2d::same3x3(&init.scope("conv1"), inputs, outputs),
            embedding: Linear::new(&init.scope("embedding"), config.time_dim(), features),
            norm2: GroupNorm::new(&init.scope("norm2"), config.groups, outputs),
            conv2: Conv2d::zeroed3x3(&init.scope("conv2"), outputs, outputs),
            shortcut: (inputs != outputs).then(|| Conv2d::pointwise(&init.scope("shortcut"), inputs, outputs)),
            scale_shift: config.scale_shift,
            outputs,
        }
    }

    // ANCHOR: res_block
    /// x [B, inputs, H, W] to [B, outputs, H, W]; embedding [B, time_dim], already activated.
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor) -> Tensor {
        let b = x.shape()[0];
        let h = self.conv1.forward(&self.norm1.forward_silu(x));
        let embedding = self.embedding.forward(embedding);
        let h = if self.scale_shift {
            let parts = embedding.reshape([b, 2 * self.outputs, 1, 1]).split(1, &[self.outputs; 2]);
            (&(&self.norm2.forward(&h) * &(&parts[0] + 1.0)) + &parts[1]).silu()
        } else {
            self.norm2.forward_silu(&(&h + &embedding.reshape([b, self.outputs, 1, 1])))
        };
        let h = self.conv2.forward(&h);
        match &self.shortcut {
            Some(shortcut) => &h + &shortcut.forward(x),
            None => &h + x,
        }
    }
    // ANCHOR_END: res_block
}

/// Every pixel doubled in both directions, then a 3x3 convolution.
#[derive(Debug)]
pub(super) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(super) fn new(init: &Init, channels: usize) -> Upsample {
        Upsample { conv: Conv2d::same3x3(init, channels, channels) }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(&x.upsample_nearest(2))
    }
}
