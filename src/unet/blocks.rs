//! The blocks of the U-Net.

use super::{Per, SkipScale, UNetConfig};
use crate::autograd::Tensor;
use crate::nn::{Conv2d, FeatureNorm, Init, Linear};

/// conv(silu(norm(conv(silu(norm(x))) with the embedding))) + x, or a 1x1 convolution of x where the channels change. (F3)
///
/// The last convolution starts at 0, so the block starts as the identity (or as its shortcut). If it resizes, it does so to x
/// and to what goes into its first convolution.
#[derive(Clone, Debug)]
pub(super) struct ResBlock {
    norm1: FeatureNorm,
    conv1: Conv2d,
    /// None if the embedding is told to each level, not to each block.
    embedding: Option<Linear>,
    norm2: FeatureNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    resize: Option<Resize>,
    skip_scale: SkipScale,
    scale_shift: bool,
    outputs: usize,
}

impl ResBlock {
    pub(super) fn new(
        init: &Init,
        config: &UNetConfig,
        [inputs, outputs]: [usize; 2],
        resize: Option<Resize>,
    ) -> ResBlock {
        let features = if config.scale_shift { 2 * outputs } else { outputs };
        let told = config.embedding_per == Per::Block;
        ResBlock {
            norm1: FeatureNorm::new(&init.scope("norm1"), config.norm_kind(), inputs),
            conv1: Conv2d::same3x3(&init.scope("conv1"), inputs, outputs),
            embedding: told.then(|| Linear::new(&init.scope("embedding"), config.time_dim(), features)),
            norm2: FeatureNorm::new(&init.scope("norm2"), config.norm_kind(), outputs),
            conv2: Conv2d::zeroed3x3(&init.scope("conv2"), outputs, outputs),
            shortcut: (inputs != outputs).then(|| Conv2d::pointwise(&init.scope("shortcut"), inputs, outputs)),
            resize,
            skip_scale: config.skip_scale,
            scale_shift: config.scale_shift,
            outputs,
        }
    }

    // ANCHOR: res_block
    /// x [B, inputs, H, W] to [B, outputs, H, W]; embedding [B, time_dim], already activated.
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor) -> Tensor {
        let b = x.shape()[0];
        let h = self.conv1.forward(&self.resized(&self.norm1.forward_silu(x)));
        let told = self.embedding.as_ref().map(|features| features.forward(embedding));
        let h = match told {
            None => self.norm2.forward_silu(&h),
            Some(told) if self.scale_shift => {
                let parts = told.reshape([b, 2 * self.outputs, 1, 1]).split(1, &[self.outputs; 2]);
                (&(&self.norm2.forward(&h) * &(&parts[0] + 1.0)) + &parts[1]).silu()
            }
            Some(told) => self.norm2.forward_silu(&(&h + &told.reshape([b, self.outputs, 1, 1]))),
        };
        let h = self.conv2.forward(&h);
        let x = self.resized(x);
        match &self.shortcut {
            Some(shortcut) => self.skip_scale.sum(&shortcut.forward(&x), &h),
            None => self.skip_scale.sum(&x, &h),
        }
    }
    // ANCHOR_END: res_block

    fn resized(&self, x: &Tensor) -> Tensor {
        match self.resize {
            None => x.clone(),
            Some(Resize::Halve) => x.avg_pool2d(2),
            Some(Resize::Double) => x.upsample_nearest(2),
        }
    }
}

/// What a residual block does to height and width.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resize {
    /// Means of 2x2 pixels.
    Halve,
    /// Every pixel twice in both directions.
    Double,
}

/// Tells a level the embedding, before its blocks: x (1 + scale) + shift, or x + shift. Starts as the identity. (F3)
///
/// The paper's figures name it CombineEmbs and do not say what it does; in the blocks of guided diffusion it is this, behind a
/// normalisation.
#[derive(Clone, Debug)]
pub(super) struct Combine {
    embedding: Linear,
    scale_shift: bool,
}

impl Combine {
    pub(super) fn new(init: &Init, config: &UNetConfig, channels: usize) -> Combine {
        let features = if config.scale_shift { 2 * channels } else { channels };
        Combine {
            embedding: Linear::zeroed(&init.scope("embedding"), config.time_dim(), features),
            scale_shift: config.scale_shift,
        }
    }

    // ANCHOR: combine
    /// x [B, C, H, W], shape kept; embedding [B, time_dim], already activated.
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor) -> Tensor {
        let [b, c, _, _] = x.shape().dims("combine");
        let told = self.embedding.forward(embedding);
        if !self.scale_shift {
            return x + &told.reshape([b, c, 1, 1]);
        }
        let parts = told.reshape([b, 2 * c, 1, 1]).split(1, &[c; 2]);
        &(x * &(&parts[0] + 1.0)) + &parts[1]
    }
    // ANCHOR_END: combine
}

/// Every pixel doubled in both directions, then a 3x3 convolution.
#[derive(Clone, Debug)]
pub(super) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(super) fn new(init: &Init, inputs: usize, outputs: usize) -> Upsample {
        Upsample { conv: Conv2d::same3x3(init, inputs, outputs) }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(&x.upsample_nearest(2))
    }
}
