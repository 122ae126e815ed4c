//! A small convolutional classifier: the judge that says which class an image shows, and whose features Fréchet
//! distances are measured on. Trained on noised images, it can lead a diffusion model (E1).

use crate::array::{Array, DType, Device};
use crate::autograd::{Tensor, no_grad};
use crate::diffusion::{NoisyClassifier, ScheduleConfig};
use crate::nn::{Conv2d, GroupNorm, Init, Linear, Parameters, TimeEmbedding, Weights, WeightsError};
use serde::{Deserialize, Serialize};

/// The sizes of a [`Classifier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Channels of the image.
    pub image_channels: usize,
    /// Height and width of the image.
    pub image_size: usize,
    /// Channels of each level; each level after the first has half the height and width (rounded up).
    pub channels: Vec<usize>,
    /// Numbers in the feature vector.
    pub features: usize,
    /// Classes to tell apart.
    pub classes: usize,
    /// If it is there, the images are noised by this schedule, and the network is told at which time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<ScheduleConfig>,
}

/// A classifier that cannot be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ClassifierError {
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The config cannot be used, or there is none.
    #[error("{0}")]
    Config(String),
}

impl ClassifierConfig {
    /// An error naming the first entry that is wrong.
    pub fn validate(&self) -> Result<(), ClassifierError> {
        let sizes = [
            ("image_channels", self.image_channels, 64),
            ("image_size", self.image_size, 1024),
            ("features", self.features, 4096),
            ("classes", self.classes, 10_000),
            ("channels (their number)", self.channels.len(), 8),
        ];
        let all = sizes.into_iter().chain(self.channels.iter().map(|&c| ("channels", c, 4096)));
        for (key, size, most) in all {
            if !(1..=most).contains(&size) {
                return Err(ClassifierError::Config(format!(
                    "classifier.{key} must be between 1 and {most}, not {size}"
                )));
            }
        }
        match self.channels.iter().find(|&c| c % GROUPS != 0) {
            Some(c) => {
                Err(ClassifierError::Config(format!("classifier.channels must be divisible by {GROUPS}; {c} is not")))
            }
            None => Ok(()),
        }
    }
}

/// Groups of every group normalisation.
const GROUPS: usize = 8;

/// Sines and cosines of the time, and numbers that are made of them.
const TIME: [usize; 2] = [32, 64];

/// Levels of two 3x3 convolutions with group normalisation and SiLU, then one linear layer to the features and one to
/// the classes. One of noised images adds to every normalisation what a linear layer makes of the time.
#[derive(Debug)]
pub struct Classifier {
    config: ClassifierConfig,
    time: Option<TimeEmbedding>,
    layers: Vec<Layer>,
    features: Linear,
    logits: Linear,
    parameters: Parameters,
}

#[derive(Debug)]
struct Layer {
    conv: Conv2d,
    norm: GroupNorm,
    time: Option<Linear>,
}

impl Layer {
    /// [B, inputs, H, W] to [B, outputs, H', W']; `time` [B, 64] is activated.
    fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        let h = self.conv.forward(x);
        let (Some(layer), Some(time)) = (&self.time, time) else {
            return self.norm.forward(&h).silu();
        };
        let [b, channels, _, _] = h.shape().dims("classifier");
        (&self.norm.forward(&h) + &layer.forward(time).reshape([b, channels, 1, 1])).silu()
    }
}

impl Classifier {
    /// Makes the network and its parameters, or says what is wrong with `config`.
    pub fn new(config: ClassifierConfig, init: &Init) -> Result<Classifier, ClassifierError> {
        config.validate()?;
        let mut layers = Vec::new();
        let (mut inputs, mut size) = (config.image_channels, config.image_size);
        for (level, &outputs) in config.channels.iter().enumerate() {
            let halve = level > 0;
            for i in 0..2 {
                let init = init.scope(format!("level.{level}.{i}"));
                let stride = if halve && i == 0 { 2 } else { 1 };
                let conv = Conv2d::new(&init.scope("conv"), inputs, outputs, 3, stride, 1);
                let norm = GroupNorm::new(&init.scope("norm"), GROUPS, outputs);
                let time = config.noise.map(|_| Linear::zeroed(&init.scope("time"), TIME[1], outputs));
                layers.push(Layer { conv, norm, time });
                inputs = outputs;
            }
            size = if halve { size.div_ceil(2) } else { size };
        }
        let features = Linear::new(&init.scope("features"), inputs * size * size, config.features);
        let logits = Linear::new(&init.scope("logits"), config.features, config.classes);
        let time = config.noise.map(|_| TimeEmbedding::new(&init.scope("time"), TIME[0], TIME[1]));
        Ok(Classifier { config, time, layers, features, logits, parameters: init.parameters() })
    }

    /// The classifier of weights that carry their config as the metadata entry "classifier".
    pub fn from_weights(weights: &Weights) -> Result<Classifier, ClassifierError> {
        let missing = "these weights are not of a classifier: they lack the metadata entry \"classifier\"";
        let json = weights.metadata.get("classifier").ok_or_else(|| ClassifierError::Config(missing.into()))?;
        let config = serde_json::from_str(json).map_err(|e| {
            ClassifierError::Config(format!(
                "the metadata entry \"classifier\" of the weights cannot be understood: {e}"
            ))
        })?;
        let init = Init::new(0, DType::F32);
        let model = Classifier::new(config, &init)?;
        init.parameters().load(weights)?;
        Ok(model)
    }

    /// The same network, computing on `device`. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn on(self, device: Device) -> Classifier {
        self.parameters.move_to(device);
        self
    }

    /// Images [B, C, H, W] in [-1, 1] to (features [B, features], the likeliest class of each image), without history.
    #[track_caller]
    pub fn classify(&self, images: &Tensor) -> (Array, Vec<usize>) {
        let clean = vec![0.0; images.shape()[0]];
        self.classify_at(images, &clean)
    }

    /// As [`Classifier::classify`] for noised images, at times t in [0, 1].
    #[track_caller]
    pub fn classify_at(&self, images: &Tensor, t: &[f64]) -> (Array, Vec<usize>) {
        let (features, logits) = no_grad(|| self.forward_at(images, t));
        let likeliest = |row: &[f64]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
        let classes = logits.to_f64().chunks(self.config.classes).map(likeliest).collect();
        (features.into_array(), classes)
    }

    /// What the network was made from.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Images [B, C, H, W] in [-1, 1], on any device, to (features [B, features], logits [B, classes]) on the network's. To a
    /// classifier of noised images they are at time 0. Panics if the images have another size than the network was made for.
    #[track_caller]
    pub fn forward(&self, images: &Tensor) -> (Tensor, Tensor) {
        let clean = vec![0.0; images.shape()[0]];
        self.forward_at(images, &clean)
    }

    /// As [`Classifier::forward`] for images that are noised: x_t at time t in [0, 1] of each. A classifier that was made
    /// without noise does not see the time.
    #[track_caller]
    pub fn forward_at(&self, images: &Tensor, t: &[f64]) -> (Tensor, Tensor) {
        let mut h = images.to(self.layers[0].conv.device());
        let time = self.time.as_ref().map(|time| time.forward(t, &h).silu());
        for layer in &self.layers {
            h = layer.forward(&h, time.as_ref());
        }
        let b = images.shape()[0];
        let flat = h.reshape([b, h.numel() / b.max(1)]);
        let features = self.features.forward(&flat).silu();
        let logits = self.logits.forward(&features);
        (features, logits)
    }
}

impl NoisyClassifier for Classifier {
    fn classes(&self) -> usize {
        self.config.classes
    }

    fn log_p(&self, x_t: &Tensor, t: &[f64], y: &[usize]) -> Tensor {
        let (_, logits) = self.forward_at(x_t, t);
        let [b, classes] = logits.shape().dims("log_p");
        assert!(y.len() == b && y.iter().all(|&y| y < classes), "log_p: classes {y:?} of {classes}, for {b} images");
        let chosen: Vec<f64> = (0..b * classes).map(|i| f64::from(u8::from(y[i / classes] == i % classes))).collect();
        (&logits.log_softmax(1) * &logits.constant_like([b, classes], &chosen)).sum(&[1], false)
    }
}
