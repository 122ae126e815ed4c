//! What a stage is made from.

use crate::diffusion::{
    DiscreteSchedule, SampleError, SamplerKind, Sampling, Schedule, ScheduleConfig, Target, TimeConfig, VLB_WEIGHT,
    VarianceConfig, Weighting,
};
use crate::text::TextEncoderConfig;
use crate::unet::UNetConfig;
use serde::{Deserialize, Serialize};

/// A diffusion model as its weights carry it: all that sampling needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageConfig {
    /// [C, H, W] of its images.
    pub image: [usize; 3],
    /// The text encoder, if it takes text.
    pub text: Option<TextEncoderConfig>,
    /// If it is there, the stage makes smaller images larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_resolution: Option<SuperResolutionConfig>,
    /// The network.
    pub unet: UNetConfig,
    /// Schedule, target and weighting of the loss.
    pub diffusion: DiffusionConfig,
    /// How it is sampled unless told otherwise.
    pub sampling: SamplingConfig,
}

/// A stage that makes images larger. (F1, F2)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperResolutionConfig {
    /// By how much: the smaller images have 1/factor of the height and width.
    pub factor: usize,
    /// How much noise is put on the smaller image when it is sampled, unless told otherwise: a time in [0, 1].
    #[serde(default = "default_aug")]
    pub aug: f64,
    /// The most of it in training, where every image gets another amount from 0 to this: 1 as in Imagen, 0 for training without
    /// conditioning augmentation.
    #[serde(default = "default_train_aug", skip_serializing_if = "is_default_train_aug")]
    pub train_aug: f64,
    /// If it is there, training is on squares of the images with sides of so many pixels, cut out anywhere: what is learnt of a
    /// part holds for the whole, and costs less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
}

/// Of 0.1 to 0.3, which looked best to the authors of Imagen.
fn default_aug() -> f64 {
    0.1
}

fn default_train_aug() -> f64 {
    1.0
}

fn is_default_train_aug(aug: &f64) -> bool {
    *aug == default_train_aug()
}

/// Schedule, target and weighting of a diffusion model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionConfig {
    /// The noise schedule (A4).
    pub schedule: ScheduleConfig,
    /// Which times there are: any (`"interpolated"`, or `"continuous"` without a chain behind), or the chain's (`"discrete"`).
    /// Interpolated if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeConfig>,
    /// What the network predicts (C5).
    pub target: Target,
    /// How the loss is weighted over noise levels (C5).
    #[serde(default)]
    pub weighting: Weighting,
    /// Share of training examples whose text is dropped, so that the model can be guided without a classifier (E2).
    #[serde(default = "default_drop_text")]
    pub drop_text: f64,
    /// Whether the network learns the variance of its steps (B3), which needs `unet.learned_variance = true` and `time = "discrete"`.
    /// Fixed if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<VarianceConfig>,
    /// How much of the bound is in the loss that teaches the variance; 0.001 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlb_weight: Option<f64>,
}

/// What Imagen uses.
fn default_drop_text() -> f64 {
    0.1
}

/// How a model is sampled unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Guidance weight w of (E2): 1 is none.
    pub guidance: f64,
    /// Sampler, steps and thresholding.
    pub method: Sampling,
}

impl StageConfig {
    /// An error naming the first entry that is wrong.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_but_for_image()?;
        self.check_image()
    }

    /// As [`StageConfig::validate`], whatever `image` is: a run knows the size of its images only once its data is loaded.
    pub(crate) fn validate_but_for_image(&self) -> Result<(), String> {
        self.unet.validate().map_err(|e| e.to_string())?;
        let size = rough_size(&self.unet);
        if size > MOST_PARAMETERS {
            return Err(format!(
                "unet: base_channels, channel_multipliers and blocks make a network of some {size} parameters; at most \
                 {MOST_PARAMETERS} are taken to be meant"
            ));
        }
        self.diffusion.validate()?;
        let learned = self.diffusion.learns_variance();
        match self.unet.learned_variance {
            true if !learned => {
                return Err(
                    "unet.learned_variance is true, but nothing teaches it: add diffusion.variance = \"learned\""
                        .into(),
                );
            }
            false if learned => {
                return Err(
                    "diffusion.variance is learned, but the network does not say it: add unet.learned_variance = true"
                        .into(),
                );
            }
            _ => {}
        }
        self.check_sampling(&self.sampling.method)?;
        if !self.sampling.guidance.is_finite() {
            return Err(format!("sampling.guidance must be a number, not {}", self.sampling.guidance));
        }
        match (&self.text, &self.unet.text) {
            (None, None) => {}
            (None, Some(_)) => return Err("unet.text is there, but no [text] encoder for it".into()),
            (Some(_), None) => {
                return Err("there is a [text] encoder, but the network takes no text: add [unet.text]".into());
            }
            (Some(encoder), Some(text)) => {
                if let Some(dim) = encoder.dim().map_err(|e| e.to_string())? {
                    text.check(dim)?;
                }
            }
        }
        match self.super_resolution {
            Some(_) if !self.unet.low_res => Err(
                "there is a [super_resolution], but the network is not shown smaller images: add unet.low_res = true"
                    .into(),
            ),
            None if self.unet.low_res => Err("unet.low_res is true, but there is no [super_resolution]".into()),
            Some(config) => config.validate(self.unet.size_divisor()),
            None => Ok(()),
        }
    }

    /// An error if the images are not what the network takes, or too small for what is cut out of them.
    fn check_image(&self) -> Result<(), String> {
        let ([channels, height, width], divisor) = (self.image, self.unet.size_divisor());
        if channels != 1 && channels != 3 {
            return Err(format!(
                "images of {channels}x{height}x{width} cannot be shown: they must have 1 channel (grey) or 3 (red, green, blue)"
            ));
        }
        let sides = [height, width].iter().all(|&side| (1..=MOST_PIXELS).contains(&side) && side % divisor == 0);
        if channels != self.unet.image_channels || !sides {
            return Err(format!(
                "images of {channels}x{height}x{width} do not fit the network: it takes {} channels and sides of at most \
                 {MOST_PIXELS} that are divisible by {divisor}",
                self.unet.image_channels
            ));
        }
        let Some(SuperResolutionConfig { factor, crop, .. }) = self.super_resolution else { return Ok(()) };
        if height % factor != 0 || width % factor != 0 {
            return Err(format!(
                "super_resolution.factor must divide the sides of the images, {height}x{width}; {factor} does not"
            ));
        }
        match crop.filter(|&crop| crop > height.min(width)) {
            Some(crop) => Err(format!(
                "super_resolution.crop must be at most {}, for the images have {height}x{width} pixels; {crop} is more",
                height.min(width)
            )),
            None => Ok(()),
        }
    }
}

impl SuperResolutionConfig {
    /// An error naming the first entry that is wrong for a network whose images have sides divisible by `divisor`.
    fn validate(&self, divisor: usize) -> Result<(), String> {
        let SuperResolutionConfig { factor, aug, train_aug, crop } = *self;
        if !(2..=MOST_PIXELS).contains(&factor) {
            return Err(format!(
                "super_resolution.factor must be at least 2 and divide the sides of the images; {factor} does not"
            ));
        }
        check_aug(aug).map_err(|e| format!("super_resolution.{e}"))?;
        check_aug(train_aug).map_err(|e| format!("super_resolution.train_{e}"))?;
        match crop.filter(|&c| c == 0 || !c.is_multiple_of(factor) || !c.is_multiple_of(divisor)) {
            Some(crop) => Err(format!(
                "super_resolution.crop must be above 0 and divisible by {factor} and {divisor}; {crop} is not"
            )),
            None => Ok(()),
        }
    }
}

/// Images with longer sides are taken for a slip of the hand: no memory would hold what a network makes of them.
pub(crate) const MOST_PIXELS: usize = 4096;

impl StageConfig {
    /// An error if this model cannot be sampled so.
    pub(super) fn check_sampling(&self, method: &Sampling) -> Result<(), String> {
        method.check().map_err(|e| e.to_string())?;
        let (steps, fixed) = (method.steps, !self.diffusion.learns_variance());
        match self.diffusion.build().grid() {
            Some(most) if steps > most => {
                return Err(format!("sampling: {steps} steps are more than the {most} of the model's chain"));
            }
            _ => {}
        }
        match method.sampler {
            SamplerKind::AncestralLearned {} if fixed => Err(SampleError::NoVariance.to_string()),
            _ => Ok(()),
        }
    }
}

/// An error unless `aug` is a time.
pub(super) fn check_aug(aug: f64) -> Result<(), String> {
    match (0.0..=1.0).contains(&aug) {
        true => Ok(()),
        false => Err(format!("aug must be between 0 and 1, not {aug}")),
    }
}

/// More parameters than this are taken for a slip of the hand: no memory would hold them together with their training.
pub(crate) const MOST_PARAMETERS: u64 = 2_000_000_000;

/// About how many parameters the convolutions of a U-Net have, which is most of it: two of 3x3 in every residual block.
fn rough_size(unet: &UNetConfig) -> u64 {
    let of_level = |level| {
        let (width, blocks) = (unet.width(level) as u64, unet.blocks.at(level) as u64);
        18 * width * width * (2 * blocks + 1)
    };
    (0..unet.levels()).map(of_level).sum()
}

impl DiffusionConfig {
    /// Which times there are.
    pub fn time(&self) -> TimeConfig {
        self.time.unwrap_or_default()
    }

    /// Whether the network learns the variance of its steps.
    pub fn learns_variance(&self) -> bool {
        self.variance == Some(VarianceConfig::Learned)
    }

    /// The noise schedule.
    pub fn build(&self) -> Box<dyn Schedule> {
        self.schedule.in_time(self.time())
    }

    /// The chain whose bound is measured, and whose steps a learned variance is learned for.
    pub fn chain(&self) -> DiscreteSchedule {
        self.schedule.chain(self.time())
    }

    /// How much of the bound is in the loss.
    pub fn vlb_weight(&self) -> f64 {
        self.vlb_weight.unwrap_or(VLB_WEIGHT)
    }

    fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.drop_text) {
            return Err(format!("diffusion.drop_text must be between 0 and 1, not {}", self.drop_text));
        }
        match (self.learns_variance(), self.time(), self.vlb_weight) {
            (false, _, Some(_)) => {
                return Err("diffusion.vlb_weight has no meaning beside a fixed variance; take it out, or add variance = \"learned\"".into());
            }
            (true, TimeConfig::Interpolated | TimeConfig::Continuous, _) => {
                return Err("diffusion.variance = \"learned\" is that of the steps of a chain: add diffusion.time = \"discrete\"".into());
            }
            (_, _, Some(weight)) if !(weight >= 0.0 && weight.is_finite()) => {
                return Err(format!("diffusion.vlb_weight must be at least 0, not {weight}"));
            }
            _ => {}
        }
        match self.weighting {
            Weighting::MinSnr { gamma } if !(gamma > 0.0 && gamma.is_finite()) => {
                Err(format!("diffusion.weighting.gamma must be above 0, not {gamma}"))
            }
            _ => Ok(()),
        }
    }
}
