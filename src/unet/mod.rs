//! The network that predicts the noise (or x_0, or v: `diffusion::Target`): a U-Net over images [B, C, H, W] that knows the time and, if asked, a text.
//!
//! Going down it halves the image and widens the channels; going up it does the reverse, and is given at every size what
//! was there on the way down. (DDPM, appendix B; guided diffusion 2105.05233; Imagen, appendix F.1)

mod blocks;
mod choices;
mod conditioning;
mod config;
mod levels;
mod steps;

pub use choices::{Blocks, Norm, Per, Resampling, ResamplingOrder, SkipScale, TextPooling};
pub use conditioning::Condition;
pub use config::{ConfigError, TextConfig, UNetConfig};

use crate::array::Device;
use crate::autograd::{Tensor, concat};
use crate::diffusion::{Denoiser, LowRes, v_of_output};
use crate::nn::{Conv2d, FeatureNorm, Init, TimeEmbedding};
use conditioning::TextInput;
use levels::Levels;
use steps::{Part, Told, Watch};

/// A U-Net of DDPM, of guided diffusion, or the Efficient U-Net of Imagen, as its config says; with or without text.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    time: TimeEmbedding,
    text: Option<TextInput>,
    /// How noisy the smaller image is, if the network is shown one.
    aug: Option<TimeEmbedding>,
    conv_in: Conv2d,
    /// The way down, the middle and the way up.
    parts: Vec<Part>,
    norm_out: FeatureNorm,
    conv_out: Conv2d,
    recompute: bool,
}

impl UNet {
    /// Makes the network and its parameters, or says what is wrong with `config`.
    pub fn new(config: UNetConfig, init: &Init) -> Result<UNet, ConfigError> {
        config.validate()?;
        let (parts, channels) = Levels::parts(init, &config);
        Ok(UNet {
            time: TimeEmbedding::new(&init.scope("time"), config.base_channels, config.time_dim()),
            text: config.text.as_ref().map(|t| TextInput::new(&init.scope("text"), &config, t.dim)),
            aug: config
                .low_res
                .then(|| TimeEmbedding::new(&init.scope("aug"), config.base_channels, config.time_dim())),
            conv_in: Conv2d::same3x3(&init.scope("conv_in"), config.input_channels(), config.base_channels),
            parts,
            norm_out: FeatureNorm::new(&init.scope("norm_out"), config.norm_kind(), channels),
            conv_out: Conv2d::same3x3(&init.scope("conv_out"), channels, config.output_channels()),
            recompute: false,
            config,
        })
    }

    /// The same network, whose residual blocks and attention run under [`checkpoint`](crate::autograd::checkpoint) from now on if `recompute` is set:
    /// backward then computes each of them a second time instead of keeping what is inside it. Predictions and gradients
    /// are the same, bit for bit.
    pub fn recomputing(self, recompute: bool) -> UNet {
        UNet { recompute, ..self }
    }

    /// What the network was made from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The prediction [B, C, H, W] for noised images x [B, C, H, W] at times t (one an image, in [0, 1]). If the variance is learned
    /// it is [B, 2 C, H, W], and what is said of the variance is the second half: see [`v_of_output`].
    ///
    /// `condition` is what the images show; without a text the prediction is unconditional. Panics if the shapes do not
    /// fit, if H or W cannot be halved often enough, if there is a text and the network was made without, or if there is a
    /// smaller image and the network makes none larger, or there is none and it does.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, t: &[f64], condition: Option<&Condition>) -> Tensor {
        self.run(x, t, condition, self.recompute, None)
    }

    /// As [`UNet::forward`], for those who want to look inside: `watch` is shown every result on the way and the name of
    /// the layer it comes from.
    ///
    /// "time" [B, time_dim]; "conv_in", "down.0.0", "down.0.halve" and so on [B, C, H, W]; "up.0.0.joined" what a block
    /// going up is given, its skip connection included; "middle.attention.weights" [B, heads, H W, H W + N], or [B, heads, H W, N] of
    /// cross-attention. Nothing is recomputed: what is shown is what backward goes through.
    #[track_caller]
    pub fn forward_watched(
        &self,
        x: &Tensor,
        t: &[f64],
        condition: Option<&Condition>,
        watch: &mut dyn FnMut(&str, &Tensor),
    ) -> Tensor {
        self.run(x, t, condition, false, Some(watch))
    }

    #[track_caller]
    fn run(
        &self,
        x: &Tensor,
        t: &[f64],
        condition: Option<&Condition>,
        recompute: bool,
        watch: Option<&mut Watch<'_>>,
    ) -> Tensor {
        let watched = watch.is_some();
        let mut nobody = |_: &str, _: &Tensor| {};
        let watch = watch.unwrap_or(&mut nobody);
        let [b, _, height, width] = x.shape().dims("unet");
        let fold = self.config.size_divisor();
        assert!(height % fold == 0 && width % fold == 0, "unet: {} must have sides divisible by {fold}", x.shape());
        assert_eq!(t.len(), b, "unet: {} images need as many times", b);
        let has_text = condition.is_some_and(Condition::has_texts);
        assert!(!has_text || self.text.is_some(), "unet: this network was made without text");

        // ANCHOR: unet_told
        let mut embedding = self.time.forward(t, x);
        watch("time", &embedding);
        let mut tokens = None;
        if let Some(text) = &self.text {
            let (sequence, bias, pooled) = text.forward(condition, b);
            embedding = &embedding + &pooled;
            tokens = Some((sequence, bias));
        }
        let text = tokens.as_ref().map(|(tokens, bias)| (tokens, bias));
        let (x, aug) = self.beside_low_res(x, condition.and_then(Condition::smaller));
        let embedding = aug.map_or(embedding.clone(), |aug| &embedding + &aug).silu();
        // ANCHOR_END: unet_told
        let skip_scale = self.config.skip_scale;
        let told = Told { embedding: &embedding, text, skip_scale, recompute, watched };

        // ANCHOR: unet_forward
        let mut h = self.conv_in.forward(&x);
        watch("conv_in", &h);
        let mut skips = if self.config.leaves_sizes() { vec![h.clone()] } else { Vec::new() };
        for part in &self.parts {
            h = part.forward(&h, &mut skips, &told, watch);
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&h))
        // ANCHOR_END: unet_forward
    }
}

impl UNet {
    // ANCHOR: beside_low_res
    /// x [B, C, H, W] with the smaller images as further channels, and what the blocks are told of the noise on them. (F1)
    #[track_caller]
    fn beside_low_res(&self, x: &Tensor, low_res: Option<&LowRes>) -> (Tensor, Option<Tensor>) {
        match (&self.aug, low_res) {
            (None, None) => (x.clone(), None),
            (Some(aug), Some(low_res)) => {
                let images = low_res.images.to(x.device());
                assert_eq!(images.shape(), x.shape(), "unet: the smaller images must have been resized");
                assert_eq!(low_res.aug.len(), x.shape()[0], "unet: each smaller image needs to say how noisy it is");
                (concat(&[x, &images], 1), Some(aug.forward(&low_res.aug, x)))
            }
            (None, Some(_)) => panic!("unet: this network was not made to make images larger"),
            (Some(_), None) => panic!("unet: this network makes an image larger, and was given none"),
        }
    }
    // ANCHOR_END: beside_low_res
}

impl Denoiser for UNet {
    type Condition = Option<Condition>;

    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &Option<Condition>) -> Tensor {
        self.predict_with_variance(x_t, t, condition).0
    }

    fn predict_with_variance(
        &self,
        x_t: &Tensor,
        t: &[f64],
        condition: &Option<Condition>,
    ) -> (Tensor, Option<Tensor>) {
        let output = self.forward(x_t, t, condition.as_ref());
        if !self.config.learned_variance {
            return (output, None);
        }
        let half = self.config.image_channels;
        (output.slice(1, 0..half), Some(v_of_output(&output.slice(1, half..2 * half))))
    }

    fn device(&self) -> Device {
        self.conv_in.device()
    }
}
