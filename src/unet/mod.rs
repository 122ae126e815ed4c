//! The network that predicts the noise (or x_0, or v: `diffusion::Target`): a U-Net over images [B, C, H, W] that knows the time and, if asked, a text.
//!
//! Going down it halves the image and widens the channels; going up it does the reverse, and is given at every size what
//! was there on the way down. (DDPM, appendix B; guided diffusion 2105.05233; Imagen, appendix F.1)

mod blocks;
mod conditioning;
mod config;

pub use conditioning::Condition;
pub use config::{ConfigError, TextConfig, UNetConfig};

use crate::array::Device;
use crate::autograd::{Tensor, checkpoint, concat};
use crate::diffusion::{Denoiser, LowRes, v_of_output};
use crate::nn::{Attention, Conv2d, GroupNorm, Init, TimeEmbedding};
use blocks::{ResBlock, Upsample};
use conditioning::TextInput;

/// The DDPM U-Net, with the residual blocks of guided diffusion if `scale_shift` is set, and text as in Imagen's base model.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    time: TimeEmbedding,
    text: Option<TextInput>,
    /// How noisy the smaller image is, if the network is shown one.
    aug: Option<TimeEmbedding>,
    conv_in: Conv2d,
    down: Vec<(String, Step)>,
    middle: (ResBlock, Attention, ResBlock),
    up: Vec<(String, Step)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    recompute: bool,
}

/// What every block is told besides the image.
struct Told<'a> {
    /// [B, time_dim], activated.
    embedding: &'a Tensor,
    /// Tokens [B, N, D] and a bias for attention [B, 1, 1, N].
    text: Option<(&'a Tensor, &'a Tensor)>,
    /// Whether blocks are forgotten and computed again in backward.
    recompute: bool,
    /// Whether anybody looks at what is in between, such as the weights of attention.
    watched: bool,
}

/// Is shown results on the way through the network, with the names of the layers they come from.
type Watch<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// One step on the way down or up.
#[derive(Debug)]
enum Step {
    /// A residual block, and attention at the levels that have it. Going up it first takes its skip connection.
    Block(Box<ResBlock>, Option<Attention>),
    /// Half the height and width.
    Down(Conv2d),
    /// Twice the height and width.
    Up(Upsample),
}

impl UNet {
    /// Makes the network and its parameters, or says what is wrong with `config`.
    pub fn new(config: UNetConfig, init: &Init) -> Result<UNet, ConfigError> {
        config.validate()?;
        let text_dim = config.text.as_ref().map(|t| t.dim);
        let attention = |name: &str, channels: usize| {
            Attention::new(&init.scope(name), channels, config.heads, config.groups, text_dim)
        };
        let block =
            |name: &str, inputs: usize, outputs: usize| ResBlock::new(&init.scope(name), &config, inputs, outputs);

        // ANCHOR: way_down
        // `skips` holds the channels of every result on the way down; the way up takes them from the end.
        let mut channels = config.base_channels;
        let mut skips = vec![channels];
        let mut down = Vec::new();
        for (level, &multiplier) in config.channel_multipliers.iter().enumerate() {
            let width = config.base_channels * multiplier;
            for i in 0..config.blocks {
                let name = format!("down.{level}.{i}");
                let attends = config.attention[level].then(|| attention(&format!("{name}.attention"), width));
                let step = Step::Block(Box::new(block(&name, channels, width)), attends);
                down.push((name, step));
                channels = width;
                skips.push(channels);
            }
            if level + 1 < config.channel_multipliers.len() {
                let name = format!("down.{level}.halve");
                let halve = Conv2d::new(&init.scope(&name), channels, channels, 3, 2, 1);
                down.push((name, Step::Down(halve)));
                skips.push(channels);
            }
        }
        // ANCHOR_END: way_down
        let middle = (
            block("middle.0", channels, channels),
            attention("middle.attention", channels),
            block("middle.1", channels, channels),
        );
        // ANCHOR: way_up
        let mut up = Vec::new();
        for (level, &multiplier) in config.channel_multipliers.iter().enumerate().rev() {
            let width = config.base_channels * multiplier;
            for (i, skip) in skips.split_off(skips.len() - config.blocks - 1).into_iter().rev().enumerate() {
                let name = format!("up.{level}.{i}");
                let attends = config.attention[level].then(|| attention(&format!("{name}.attention"), width));
                let step = Step::Block(Box::new(block(&name, channels + skip, width)), attends);
                up.push((name, step));
                channels = width;
            }
            if level > 0 {
                let name = format!("up.{level}.double");
                let double = Upsample::new(&init.scope(&name), channels);
                up.push((name, Step::Up(double)));
            }
        }
        // ANCHOR_END: way_up
        Ok(UNet {
            time: TimeEmbedding::new(&init.scope("time"), config.base_channels, config.time_dim()),
            text: config.text.as_ref().map(|t| TextInput::new(&init.scope("text"), t, config.time_dim())),
            aug: config
                .low_res
                .then(|| TimeEmbedding::new(&init.scope("aug"), config.base_channels, config.time_dim())),
            conv_in: Conv2d::same3x3(&init.scope("conv_in"), config.input_channels(), config.base_channels),
            down,
            middle,
            up,
            norm_out: GroupNorm::new(&init.scope("norm_out"), config.groups, channels),
            conv_out: Conv2d::same3x3(&init.scope("conv_out"), channels, config.output_channels()),
            recompute: false,
            config,
        })
    }

    /// The same network, whose residual blocks and attention run under [`checkpoint`] from now on if `recompute` is set:
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
    /// going up is given, its skip connection included; "middle.attention.weights" [B, heads, H W, H W + N]. Nothing is
    /// recomputed: what is shown is what backward goes through.
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
        let told = Told { embedding: &embedding, text, recompute, watched };

        // ANCHOR: unet_forward
        let mut h = self.conv_in.forward(&x);
        watch("conv_in", &h);
        let mut skips = vec![h.clone()];
        for (name, step) in &self.down {
            h = step.forward(name, &h, None, &told, watch);
            skips.push(h.clone());
        }
        h = told.block(&self.middle.0, &[&h]);
        watch("middle.0", &h);
        h = told.attend("middle", &self.middle.1, &h, watch);
        h = told.block(&self.middle.2, &[&h]);
        watch("middle.1", &h);
        for (name, step) in &self.up {
            let skip = if let Step::Block(..) = step { skips.pop() } else { None };
            h = step.forward(name, &h, skip.as_ref(), &told, watch);
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&h))
        // ANCHOR_END: unet_forward
    }
}

impl UNet {
    /// x [B, C, H, W] with the smaller images as further channels, and what the blocks are told of the noise on them. (F1)
    #[track_caller]
    fn beside_low_res(&self, x: &Tensor, low_res: Option<&LowRes>) -> (Tensor, Option<Tensor>) {
        match (&self.aug, low_res) {
            (None, None) => (x.clone(), None),
            (Some(aug), Some(low_res)) => {
                let images = low_res.images.to(x.device());
                assert_eq!(images.shape(), x.shape(), "unet: the smaller images must have been resized");
                (concat(&[x, &images], 1), Some(aug.forward(&low_res.aug, x)))
            }
            (None, Some(_)) => panic!("unet: this network was not made to make images larger"),
            (Some(_), None) => panic!("unet: this network makes an image larger, and was given none"),
        }
    }
}

impl Step {
    /// `skip` is joined to h, as further channels.
    fn forward(
        &self,
        name: &str,
        h: &Tensor,
        skip: Option<&Tensor>,
        told: &Told<'_>,
        watch: &mut dyn FnMut(&str, &Tensor),
    ) -> Tensor {
        let h = match (self, skip) {
            (Step::Block(block, _), None) => told.block(block, &[h]),
            // Joined within the block: what is joined is then not kept either.
            (Step::Block(block, _), Some(skip)) if told.recompute => told.block(block, &[h, skip]),
            (Step::Block(block, _), Some(skip)) => {
                let joined = concat(&[h, skip], 1);
                watch(&format!("{name}.joined"), &joined);
                told.block(block, &[&joined])
            }
            (Step::Down(halve), _) => halve.forward(h),
            (Step::Up(double), _) => double.forward(h),
        };
        watch(name, &h);
        match self {
            Step::Block(_, Some(attention)) => told.attend(name, attention, &h, watch),
            _ => h,
        }
    }
}

impl Told<'_> {
    /// `block` on `parts`, joined as channels.
    fn block(&self, block: &ResBlock, parts: &[&Tensor]) -> Tensor {
        if !self.recompute {
            return block.forward(&joined(parts), self.embedding);
        }
        let block = block.clone();
        let inputs = [&[self.embedding], parts].concat();
        checkpoint(&inputs, move |inputs| {
            let parts: Vec<&Tensor> = inputs[1..].iter().collect();
            block.forward(&joined(&parts), &inputs[0])
        })
    }

    /// The attention of the step `name`.
    fn attend(&self, name: &str, attention: &Attention, h: &Tensor, watch: &mut dyn FnMut(&str, &Tensor)) -> Tensor {
        if !self.recompute && !self.watched {
            return attention.forward(h, self.text);
        }
        if !self.recompute {
            let (h, weights) = attention.forward_with_weights(h, self.text);
            watch(&format!("{name}.attention"), &h);
            watch(&format!("{name}.attention.weights"), &weights);
            return h;
        }
        let attention = attention.clone();
        let mut inputs = vec![h];
        inputs.extend(self.text.iter().flat_map(|&(tokens, bias)| [tokens, bias]));
        checkpoint(&inputs, move |inputs| {
            let text = (inputs.len() > 1).then(|| (&inputs[1], &inputs[2]));
            attention.forward(&inputs[0], text)
        })
    }
}

/// Several tensors [B, .., H, W] as channels of one.
fn joined(parts: &[&Tensor]) -> Tensor {
    match parts {
        [one] => (*one).clone(),
        _ => concat(parts, 1),
    }
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
