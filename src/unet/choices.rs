//! Where the papers' U-Nets differ: one enum a choice.

use crate::autograd::Tensor;
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_1_SQRT_2;

/// A number of residual blocks: the same at every level, or one number a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of blocks, or a list of one number a level")]
pub enum Blocks {
    /// The same at every level (DDPM, guided diffusion).
    Every(usize),
    /// From the largest images to the smallest (Efficient U-Net: 2, 4, 8, 8).
    Each(Vec<usize>),
}

impl Blocks {
    /// Residual blocks of a level. Panics if there is no such level.
    #[track_caller]
    pub fn at(&self, level: usize) -> usize {
        match self {
            Blocks::Every(blocks) => *blocks,
            Blocks::Each(blocks) => blocks[level],
        }
    }

    /// Every number that was given.
    pub(super) fn given(&self) -> &[usize] {
        match self {
            Blocks::Every(blocks) => std::slice::from_ref(blocks),
            Blocks::Each(blocks) => blocks,
        }
    }
}

impl From<usize> for Blocks {
    fn from(blocks: usize) -> Blocks {
        Blocks::Every(blocks)
    }
}

/// When a level changes the size of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResamplingOrder {
    /// Going down each level but the last ends with halving, going up with doubling (DDPM, guided diffusion).
    #[default]
    After,
    /// Going down every level begins with halving, so that its blocks see the smaller image, and going up every level ends
    /// with doubling (Efficient U-Net). Only the first and the last convolution see the full size.
    Before,
}

/// What halves and doubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// A 3x3 convolution with stride 2; pixels repeated, and a 3x3 convolution (DDPM, Efficient U-Net).
    #[default]
    Conv,
    /// A residual block that shrinks or enlarges both of its branches (BigGAN, guided diffusion).
    Residual,
}

/// What is normalised together in blocks and attention. (F3)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// All pixels of a group of channels (DDPM, guided diffusion, the figures of the Efficient U-Net).
    #[default]
    Group,
    /// The channels of each pixel, as layers of a transformer do: no pixel hears of another by it.
    Layer,
    /// As [`Norm::Layer`], but only divided by the root of the mean square (T5's norm).
    Rms,
}

/// What is multiplied by 1/sqrt 2. Imagen scales "skip connections", which may be read in three ways. (F3)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipScale {
    /// Nothing.
    #[default]
    None,
    /// What the way up takes from the way down, before it is joined.
    Skip,
    /// The sum that a residual block ends with: (x + h) / sqrt 2.
    Sum,
    /// The shortcut of a residual block alone: x / sqrt 2 + h.
    Shortcut,
}

// ANCHOR: skip_scale
impl SkipScale {
    /// What a residual block ends with, of its shortcut x and what it computed.
    pub(super) fn sum(self, x: &Tensor, h: &Tensor) -> Tensor {
        match self {
            SkipScale::None | SkipScale::Skip => h + x,
            SkipScale::Sum => &(h + x) * FRAC_1_SQRT_2,
            SkipScale::Shortcut => h + &(x * FRAC_1_SQRT_2),
        }
    }

    /// What is joined to the way up, of what was left on the way down.
    pub(super) fn skip(self, skip: &Tensor) -> Tensor {
        match self {
            SkipScale::Skip => skip * FRAC_1_SQRT_2,
            SkipScale::None | SkipScale::Sum | SkipScale::Shortcut => skip.clone(),
        }
    }
}
// ANCHOR_END: skip_scale

/// How often something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// At every residual block (DDPM, guided diffusion).
    #[default]
    Block,
    /// Once a level (the figures of the Efficient U-Net).
    Level,
}

/// How the tokens of a text become one vector for the time embedding. (F4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPooling {
    /// Their mean.
    #[default]
    Mean,
    /// What a learned query sees of them by attention (Imagen).
    Attention,
}

/// Whether a choice is the one that was made before there was any: such are not written to configs.
pub(super) fn is_default<T: Default + PartialEq>(choice: &T) -> bool {
    *choice == T::default()
}
