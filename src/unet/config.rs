//! What a U-Net is made from.

use serde::{Deserialize, Serialize};

/// The sizes and choices of a U-Net.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of the image: 1 for grey, 3 for colour.
    pub image_channels: usize,
    /// Channels at the first level.
    pub base_channels: usize,
    /// Channels of each level as a multiple of `base_channels`; each level after the first has half the height and width.
    pub channel_multipliers: Vec<usize>,
    /// Residual blocks a level going down; going up there is one more.
    pub blocks: usize,
    /// Which levels have attention after each block. The middle always has.
    pub attention: Vec<bool>,
    /// Heads of every attention layer.
    pub heads: usize,
    /// Groups of every group normalisation.
    pub groups: usize,
    /// Whether time and text scale and shift the normalised features (guided diffusion) or are only added (DDPM).
    #[serde(default)]
    pub scale_shift: bool,
    /// The text the images are conditioned on, if any.
    #[serde(default)]
    pub text: Option<TextConfig>,
    /// Whether the network is shown a smaller image, resized to the size of its own, which it makes larger. (F1)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub low_res: bool,
    /// Whether it says the variance of its step beside its prediction, with as many channels again. (B3)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learned_variance: bool,
}

/// How a U-Net takes a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Features of a token, as the text encoder gives them.
    pub dim: usize,
}

impl TextConfig {
    /// An error unless a text encoder gives so many features a token.
    pub fn check(&self, dim: usize) -> Result<(), String> {
        match dim == self.dim {
            true => Ok(()),
            false => Err(format!("unet.text.dim is {}, but the text encoder gives {dim} features a token", self.dim)),
        }
    }
}

/// A U-Net that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("unet.{key} {problem}")]
pub struct ConfigError {
    /// Which entry of the config.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// More channels than this at any level is taken for a slip of the hand.
const MOST_CHANNELS: usize = 16384;

impl UNetConfig {
    /// The reference workload `mnist28`: 1x28x28, 1.62 M parameters.
    pub fn mnist28() -> UNetConfig {
        UNetConfig {
            image_channels: 1,
            base_channels: 32,
            channel_multipliers: vec![1, 2, 2],
            blocks: 2,
            attention: vec![false, false, true],
            heads: 4,
            groups: 8,
            scale_shift: false,
            text: None,
            low_res: false,
            learned_variance: false,
        }
    }

    /// The reference workload `cifar32`: 3x32x32, 8.95 M parameters.
    pub fn cifar32() -> UNetConfig {
        UNetConfig {
            image_channels: 3,
            base_channels: 64,
            channel_multipliers: vec![1, 2, 2, 2],
            attention: vec![false, true, false, false],
            ..UNetConfig::mnist28()
        }
    }

    /// Channels of what goes in: the noised image, and beside it the smaller one if there is one.
    pub fn input_channels(&self) -> usize {
        if self.low_res { 2 * self.image_channels } else { self.image_channels }
    }

    /// Channels of what comes out: the prediction, and the variance if it is learned.
    pub fn output_channels(&self) -> usize {
        if self.learned_variance { 2 * self.image_channels } else { self.image_channels }
    }

    /// Features of the time embedding: four times the base channels.
    pub fn time_dim(&self) -> usize {
        4 * self.base_channels
    }

    /// By what number height and width of an image must be divisible.
    pub fn size_divisor(&self) -> usize {
        1 << (self.channel_multipliers.len().max(1) - 1)
    }

    /// An error naming the first entry that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &'static str, problem: String| Err(ConfigError { key, problem });
        let levels = self.channel_multipliers.len();
        for (key, size, most) in [
            ("image_channels", self.image_channels, 64),
            ("base_channels", self.base_channels, MOST_CHANNELS),
            ("blocks", self.blocks, 64),
            ("heads", self.heads, 1024),
            ("groups", self.groups, 1024),
            ("text.dim", self.text.as_ref().map_or(1, |t| t.dim), MOST_CHANNELS),
        ] {
            if !(1..=most).contains(&size) {
                return wrong(key, format!("must be between 1 and {most}, not {size}"));
            }
        }
        if !(1..=8).contains(&levels) {
            return wrong("channel_multipliers", format!("must have 1 to 8 levels, not {levels}"));
        }
        if self.attention.len() != levels {
            return wrong("attention", format!("must have one entry a level: {levels}, not {}", self.attention.len()));
        }
        if !self.base_channels.is_multiple_of(2) {
            return wrong(
                "base_channels",
                format!("must be even (sines and cosines of the time), not {}", self.base_channels),
            );
        }
        for &multiplier in &self.channel_multipliers {
            let width = self.base_channels.saturating_mul(multiplier);
            if !(1..=MOST_CHANNELS).contains(&width) {
                return wrong(
                    "channel_multipliers",
                    format!("must give between 1 and {MOST_CHANNELS} channels; {multiplier} does not"),
                );
            }
            if width % self.groups != 0 {
                return wrong(
                    "groups",
                    format!("must divide the channels of every level; {} does not divide {width}", self.groups),
                );
            }
            if width % self.heads != 0 {
                return wrong(
                    "heads",
                    format!("must divide the channels of every level; {} does not divide {width}", self.heads),
                );
            }
        }
        if !self.base_channels.is_multiple_of(self.groups) {
            return wrong(
                "groups",
                format!("must divide base_channels; {} does not divide {}", self.groups, self.base_channels),
            );
        }
        Ok(())
    }
}
