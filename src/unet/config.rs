//! What a U-Net is made from.

use super::choices::{Blocks, Norm, Per, Resampling, ResamplingOrder, SkipScale, TextPooling, is_default};
use crate::nn::NormKind;
use serde::{Deserialize, Serialize};

/// The sizes and choices of a U-Net.
///
/// Without its choices it is the U-Net of DDPM. With `scale_shift`, `resampling = "residual"` and `head_channels` it is that of
/// guided diffusion, the base model of Imagen. [`UNetConfig::efficient`] makes it the Efficient U-Net. (F3)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of the image: 1 for grey, 3 for colour.
    pub image_channels: usize,
    /// Channels at the first level.
    pub base_channels: usize,
    /// Channels of each level as a multiple of `base_channels`; each level after the first has half the height and width.
    pub channel_multipliers: Vec<usize>,
    /// Residual blocks a level going down. Going up there is one more if each takes a skip connection and halving comes last.
    pub blocks: Blocks,
    /// Which levels have attention of the pixels to each other and to the text. The middle has it, if there is one.
    pub attention: Vec<bool>,
    /// Which levels have attention of the pixels to the text alone; none if it is empty. The middle does as the last level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cross_attention: Vec<bool>,
    /// Whether attention stands behind every residual block, or behind the last one of a level.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attention_per: Per,
    /// Heads of every attention layer; 0 if `head_channels` is given instead.
    #[serde(default, skip_serializing_if = "is_default")]
    pub heads: usize,
    /// Channels of every head: then a wider layer has more heads, not wider ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_channels: Option<usize>,
    /// What is normalised together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub norm: Norm,
    /// Groups of every group normalisation; with another `norm` it has no meaning.
    pub groups: usize,
    /// Whether time and text scale and shift the normalised features (guided diffusion) or are only added (DDPM).
    #[serde(default)]
    pub scale_shift: bool,
    /// Whether time and text are told to every residual block, or to each level before its blocks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub embedding_per: Per,
    /// Whether a level halves the image before its blocks or after them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resampling_order: ResamplingOrder,
    /// What halves and doubles.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resampling: Resampling,
    /// Whether every block going up takes a skip connection, or the first one of a level.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_per: Per,
    /// What is scaled by 1/sqrt 2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_scale: SkipScale,
    /// Whether there are two blocks with attention between them at the bottom.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub middle: bool,
    /// The text the images are conditioned on, if any.
    #[serde(default)]
    pub text: Option<TextConfig>,
    /// How the text becomes one vector.
    #[serde(default, skip_serializing_if = "is_default")]
    pub text_pooling: TextPooling,
    /// Whether the network is shown a smaller image, resized to the size of its own, which it makes larger. (F1)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub low_res: bool,
    /// Whether it says the variance of its step beside its prediction, with as many channels again. (B3)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learned_variance: bool,
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
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

fn wrong(key: &'static str, problem: String) -> Result<(), ConfigError> {
    Err(ConfigError { key, problem })
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
            blocks: Blocks::Every(2),
            attention: vec![false, false, true],
            cross_attention: Vec::new(),
            attention_per: Per::Block,
            heads: 4,
            head_channels: None,
            norm: Norm::Group,
            groups: 8,
            scale_shift: false,
            embedding_per: Per::Block,
            resampling_order: ResamplingOrder::After,
            resampling: Resampling::Conv,
            skip_per: Per::Block,
            skip_scale: SkipScale::None,
            middle: true,
            text: None,
            text_pooling: TextPooling::Mean,
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

    /// The same sizes as an Efficient U-Net: levels are DBlocks and UBlocks, which halve first and double last; time and text,
    /// attention and the skip connection come once a level; the skip connection is scaled; there is no middle. (F3)
    pub fn efficient(self) -> UNetConfig {
        UNetConfig {
            attention_per: Per::Level,
            embedding_per: Per::Level,
            resampling_order: ResamplingOrder::Before,
            skip_per: Per::Level,
            skip_scale: SkipScale::Skip,
            middle: false,
            ..self
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

    /// How many levels there are.
    pub fn levels(&self) -> usize {
        self.channel_multipliers.len()
    }

    /// Channels of a level. Panics if there is no such level.
    #[track_caller]
    pub fn width(&self, level: usize) -> usize {
        self.base_channels * self.channel_multipliers[level]
    }

    /// What every normalisation of features is.
    pub(super) fn norm_kind(&self) -> NormKind {
        match self.norm {
            Norm::Group => NormKind::Group(self.groups),
            Norm::Layer => NormKind::Layer,
            Norm::Rms => NormKind::Rms,
        }
    }

    /// Heads of attention over so many channels.
    pub fn heads_of(&self, channels: usize) -> usize {
        self.head_channels.map_or(self.heads, |each| channels / each)
    }

    /// Residual blocks of a level going up. In DDPM each takes one result of the way down, and every level has one more of them
    /// than blocks: that of the halving before, or of the first convolution.
    pub(super) fn blocks_up(&self, level: usize) -> usize {
        self.blocks.at(level) + usize::from(self.leaves_sizes())
    }

    /// Whether what halving gives, and the first convolution, is taken by the way up as well.
    pub(super) fn leaves_sizes(&self) -> bool {
        (self.skip_per, self.resampling_order) == (Per::Block, ResamplingOrder::After)
    }

    /// By what number height and width of an image must be divisible.
    pub fn size_divisor(&self) -> usize {
        let halvings = match self.resampling_order {
            ResamplingOrder::After => self.levels().max(1) - 1,
            ResamplingOrder::Before => self.levels(),
        };
        1 << halvings
    }

    /// An error naming the first entry that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let heads = if self.head_channels.is_some() { 1 } else { self.heads };
        let blocks = self.blocks.given();
        let odd = blocks.iter().copied().find(|blocks| !(1..=64).contains(blocks));
        for (key, size, most) in [
            ("image_channels", self.image_channels, 64),
            ("base_channels", self.base_channels, MOST_CHANNELS),
            ("blocks", odd.unwrap_or(1), 64),
            ("heads", heads, 1024),
            ("head_channels", self.head_channels.unwrap_or(1), MOST_CHANNELS),
            ("groups", self.groups, 1024),
            ("text.dim", self.text.as_ref().map_or(1, |t| t.dim), MOST_CHANNELS),
        ] {
            if !(1..=most).contains(&size) {
                return wrong(key, format!("must be between 1 and {most}, not {size}"));
            }
        }
        let levels = self.levels();
        if !(1..=8).contains(&levels) {
            return wrong("channel_multipliers", format!("must have 1 to 8 levels, not {levels}"));
        }
        if let Blocks::Each(blocks) = &self.blocks
            && blocks.len() != levels
        {
            return wrong("blocks", format!("must be a number, or one a level: {levels}, not {}", blocks.len()));
        }
        self.validate_attention()?;
        if !self.base_channels.is_multiple_of(2) {
            return wrong(
                "base_channels",
                format!("must be even (sines and cosines of the time), not {}", self.base_channels),
            );
        }
        self.validate_widths()
    }

    fn validate_attention(&self) -> Result<(), ConfigError> {
        let levels = self.levels();
        if self.attention.len() != levels {
            return wrong("attention", format!("must have one entry a level: {levels}, not {}", self.attention.len()));
        }
        let cross = &self.cross_attention;
        if !cross.is_empty() && cross.len() != levels {
            return wrong("cross_attention", format!("must have one entry a level: {levels}, not {}", cross.len()));
        }
        if let Some(level) = cross.iter().zip(&self.attention).position(|(&cross, &both)| cross && both) {
            return wrong(
                "cross_attention",
                format!(
                    "is attention to the text alone; level {level} has unet.attention, to pixels and text: take one out"
                ),
            );
        }
        if cross.contains(&true) && self.text.is_none() {
            return wrong("cross_attention", "is attention to a text, and there is none: add [unet.text]".into());
        }
        if self.text_pooling == TextPooling::Attention && self.text.is_none() {
            return wrong("text_pooling", "is for a text, and there is none: add [unet.text]".into());
        }
        if self.head_channels.is_some() && self.heads != 0 {
            return wrong(
                "head_channels",
                "says how many heads there are, and so does unet.heads: take one out".into(),
            );
        }
        Ok(())
    }

    fn validate_widths(&self) -> Result<(), ConfigError> {
        // Without groups every number of channels will do.
        let groups = if self.norm == Norm::Group { self.groups } else { 1 };
        let (heads, each) = match self.head_channels {
            Some(each) => ("head_channels", each),
            None => ("heads", self.heads),
        };
        for &multiplier in &self.channel_multipliers {
            let width = self.base_channels.saturating_mul(multiplier);
            if !(1..=MOST_CHANNELS).contains(&width) {
                return wrong(
                    "channel_multipliers",
                    format!("must give between 1 and {MOST_CHANNELS} channels; {multiplier} does not"),
                );
            }
            for (key, divisor) in [("groups", groups), (heads, each)] {
                if width % divisor != 0 {
                    return wrong(
                        key,
                        format!("must divide the channels of every level; {divisor} does not divide {width}"),
                    );
                }
            }
        }
        if !self.base_channels.is_multiple_of(groups) {
            return wrong(
                "groups",
                format!("must divide base_channels; {groups} does not divide {}", self.base_channels),
            );
        }
        if self.text_pooling == TextPooling::Attention && !self.time_dim().is_multiple_of(each) {
            return wrong(
                heads,
                format!(
                    "must divide the {} features of the time, which the text is pooled to; {each} does not",
                    self.time_dim()
                ),
            );
        }
        Ok(())
    }
}
