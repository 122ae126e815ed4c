//! From prompts to images.

use crate::array::DType;
use crate::autograd::Tensor;
use crate::diffusion::{ClassifierFree, DiscreteSchedule, Guided, Images, SampleError, Sampler, Sampling, Schedule, Step};
use crate::nn::{Init, Parameters, Weights, WeightsError};
use crate::text::{TextBatch, TextEncoder, TextError};
use crate::train::{DiffusionRun, RunConfig};
use crate::unet::{Condition, UNet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A text-to-image model of one stage.
pub struct TextToImage {
    encoder: Option<Arc<dyn TextEncoder>>,
    unet: UNet,
    parameters: Parameters,
    schedule: DiscreteSchedule,
    config: DiffusionRun,
    image_size: [usize; 3],
}

/// What is to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the images should show. Without a text encoder they only say how many rows there are.
    pub prompts: Vec<String>,
    /// Images a prompt.
    pub count: usize,
    /// Guidance weight w (E2): 1 is none.
    pub guidance: f64,
    /// Sampler, steps and thresholding.
    pub sampling: Sampling,
    /// Image i of prompt p is drawn from the noise keyed by (seed, i), so every prompt gets the same noises.
    pub seed: u64,
}

/// A model that cannot be made, loaded or sampled.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The config in the weights cannot be used, or there is none.
    #[error("{0}")]
    Config(String),
    /// A prompt cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Sampling failed or was stopped.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// Images sampled at once: enough to fill the cores, few enough for any memory.
const BATCH: usize = 16;

impl TextToImage {
    /// A model with first values, for images of size [C, H, W].
    pub fn new(config: &DiffusionRun, image_size: [usize; 3]) -> Result<TextToImage, ModelError> {
        let init = Init::new(config.seed, DType::F32);
        let unet = UNet::new(config.unet.clone(), &init).map_err(|e| ModelError::Config(e.to_string()))?;
        let [channels, height, width] = image_size;
        let divisor = config.unet.size_divisor();
        if channels != config.unet.image_channels || height % divisor != 0 || width % divisor != 0 {
            return Err(ModelError::Config(format!(
                "images of {channels}x{height}x{width} do not fit the network: it takes {} channels and sides divisible by {divisor}",
                config.unet.image_channels
            )));
        }
        Ok(TextToImage {
            encoder: config.text.as_ref().map(|t| t.build()).transpose()?,
            unet,
            parameters: init.parameters(),
            schedule: config.diffusion.schedule.build(),
            config: config.clone(),
            image_size,
        })
    }

    /// The model of a weights file, as training writes it.
    pub fn load(path: &Path) -> Result<TextToImage, ModelError> {
        TextToImage::from_weights(&Weights::read(path)?)
    }

    /// The model of weights with their config in the metadata.
    pub fn from_weights(weights: &Weights) -> Result<TextToImage, ModelError> {
        let entry = |key: &str| {
            let missing = || ModelError::Config(format!("the weights lack the metadata entry {key:?}: they are no model of this program"));
            weights.metadata.get(key).ok_or_else(missing)
        };
        let config = match RunConfig::from_json(entry("config")?) {
            Ok(RunConfig::Diffusion(config)) => config,
            Ok(RunConfig::Classifier(_)) => return Err(ModelError::Config("the weights are a classifier's: it recognises images and draws none".into())),
            Err(problem) => return Err(ModelError::Config(format!("the config in the weights cannot be used: {problem}"))),
        };
        let size: Vec<usize> = entry("image")?.split('x').filter_map(|n| n.parse().ok()).collect();
        let size = size.try_into().map_err(|_| ModelError::Config("the image size in the weights is not CxHxW".into()))?;
        let model = TextToImage::new(&config, size)?;
        model.parameters.load(weights)?;
        Ok(model)
    }

    /// The config it was trained with.
    pub fn config(&self) -> &DiffusionRun {
        &self.config
    }

    /// The network.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// The parameters of the network.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The noise schedule.
    pub fn schedule(&self) -> &dyn Schedule {
        &self.schedule
    }

    /// [C, H, W] of its images.
    pub fn image_size(&self) -> [usize; 3] {
        self.image_size
    }

    /// A request for one image a prompt, as the model is sampled by default.
    pub fn request(&self, prompts: Vec<String>) -> Request {
        let SamplingConfig { guidance, sampling } = self.config.sampling;
        Request { prompts, count: 1, guidance, sampling, seed: 0 }
    }

    /// The condition of a batch of captions, one an image; `None` if the model takes no text.
    pub fn encode(&self, captions: &[String]) -> Result<Option<Condition>, TextError> {
        let Some(encoder) = &self.encoder else { return Ok(None) };
        let embeddings = captions.iter().map(|c| encoder.encode(c)).collect::<Result<Vec<_>, _>>()?;
        let batch = TextBatch::pad(&embeddings);
        Ok(Some(Condition::new(batch.tokens, batch.mask)))
    }

    /// Draws `count` images for every prompt: [prompts * count, C, H, W] in [-1, 1], prompt by prompt. `progress` is
    /// called at every step of every batch of images.
    pub fn sample(&self, request: &Request, progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>) -> Result<Tensor, ModelError> {
        let jobs: Vec<(&String, u64)> =
            request.prompts.iter().flat_map(|p| (0..request.count as u64).map(move |i| (p, i))).collect();
        let mut batches = Vec::new();
        for jobs in jobs.chunks(BATCH) {
            let captions: Vec<String> = jobs.iter().map(|(p, _)| (*p).clone()).collect();
            let seeds: Vec<(u64, u64)> = jobs.iter().map(|&(_, i)| (request.seed, i)).collect();
            let condition = Guided { condition: self.encode(&captions)?, null: None };
            // Without text both are the same network asked the same: once is enough.
            let weight = if condition.condition.is_some() { request.guidance } else { 1.0 };
            let sampler = Sampler {
                schedule: &self.schedule,
                denoiser: &ClassifierFree { denoiser: &self.unet, weight },
                target: self.config.diffusion.target,
                condition: &condition,
                settings: request.sampling,
            };
            let images = Images { size: self.image_size, dtype: DType::F32, seeds: &seeds };
            batches.push(sampler.sample(&images, progress)?);
        }
        Ok(match batches.len() {
            0 => Tensor::from_f64([0, self.image_size[0], self.image_size[1], self.image_size[2]], &[], DType::F32),
            _ => crate::autograd::concat(&batches.iter().collect::<Vec<_>>(), 0),
        })
    }
}
