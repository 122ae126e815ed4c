//! From prompts to images.

use super::config::check_aug;
use super::{SamplingConfig, StageConfig, SuperResolutionConfig};
use crate::array::{DType, Device};
use crate::autograd::Tensor;
use crate::diffusion::{
    ByClassifier, ClassifierFree, Denoiser, Given, Guided, Images, Levels, LowRes, NoisyClassifier, SampleError,
    Sampler, Sampling, Schedule, Step, q_sample,
};
use crate::nn::{Init, Parameters, Weights, WeightsError};
use crate::random::Purpose;
use crate::text::{TextBatch, TextEncoder, TextError};
use crate::unet::{Condition, UNet};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A text-to-image model of one stage.
pub struct TextToImage {
    encoder: Option<Arc<dyn TextEncoder>>,
    unet: UNet,
    parameters: Parameters,
    schedule: Box<dyn Schedule>,
    classifier: Option<Arc<dyn NoisyClassifier + Send + Sync>>,
    config: StageConfig,
}

/// Where a classifier leads. (E1)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lead {
    /// The class.
    pub class: usize,
    /// How strongly: s of (E1), 0 not at all.
    pub scale: f64,
}

/// A change of images.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The images are noised up to a time, and drawn anew from there.
    Renoise {
        /// In (0, 1]: the later, the less is left of the images.
        start: f64,
    },
    /// A part stays as it is, and the rest is drawn so that it fits (RePaint, 2201.09865).
    Inpaint {
        /// [1, 1, H, W]: 1 where the images stay, 0 where they are drawn.
        mask: Tensor,
        /// How often each step is taken; RePaint has 10.
        rounds: usize,
    },
}

/// What is to be drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What the images should show. Without a text encoder they only say how many rows there are.
    pub prompts: Vec<String>,
    /// Images a prompt.
    pub count: usize,
    /// What they should not show: guidance leads away from it, where it else leads away from no text at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<String>,
    /// How much noise is put on the smaller images that a super-resolution model makes larger; as the model says if it is not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aug: Option<f64>,
    /// Where the model's classifier leads, besides: see [`TextToImage::led_by`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<Lead>,
    /// Guidance weight w (E2): 1 is none.
    pub guidance: f64,
    /// Sampler, steps and thresholding.
    pub sampling: Sampling,
    /// The noise of an image is keyed by the seed and the image's number.
    pub seed: u64,
    /// Number of the first image.
    #[serde(default)]
    pub first: u64,
    /// Whether numbers run on from prompt to prompt, so that all noises differ. Otherwise every prompt begins at `first`
    /// again and gets the same noises, which shows what the words alone do.
    #[serde(default)]
    pub one_noise_each: bool,
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
    /// What should judge the images cannot.
    #[error(
        "the classifier makes NaN or infinity of {0}: its numbers overflow; let another one judge, or train it again"
    )]
    Judge(&'static str),
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// Sampling failed or was stopped.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

impl TextToImage {
    /// Images sampled at once: enough to fill the cores, or a GPU, few enough for any memory.
    pub fn batch(&self) -> usize {
        let [_, h, w] = self.config.image;
        match self.unet.device() {
            Device::Cpu => 16,
            Device::Gpu(_) => (PIXELS_AT_ONCE / (h * w).max(1)).clamp(16, 256),
        }
    }

    /// A model with first values drawn from `seed`.
    pub fn new(config: StageConfig, seed: u64) -> Result<TextToImage, ModelError> {
        config.validate().map_err(ModelError::Config)?;
        let encoder = config.text.as_ref().map(|t| t.build()).transpose()?;
        if let (Some(encoder), Some(text)) = (&encoder, &config.unet.text) {
            text.check(encoder.dim()).map_err(ModelError::Config)?;
        }
        // Whoever draws with this model later must have the same encoder.
        let text = config.text.clone().zip(encoder.as_deref()).map(|(text, encoder)| text.bound(encoder));
        let config = StageConfig { text, ..config };
        let init = Init::new(seed, DType::F32);
        let unet = UNet::new(config.unet.clone(), &init).map_err(|e| ModelError::Config(e.to_string()))?;
        Ok(TextToImage {
            encoder,
            unet,
            parameters: init.parameters(),
            schedule: config.diffusion.build(),
            classifier: None,
            config,
        })
    }

    /// The model of a weights file, as training writes it.
    pub fn load(path: &Path) -> Result<TextToImage, ModelError> {
        TextToImage::from_weights(&Weights::read(path)?)
    }

    /// The model of weights that carry their config as the metadata entry "stage".
    pub fn from_weights(weights: &Weights) -> Result<TextToImage, ModelError> {
        let missing = || {
            ModelError::Config(
                "these weights are not of a diffusion model: they lack the metadata entry \"stage\"".into(),
            )
        };
        let json = weights.metadata.get("stage").ok_or_else(missing)?;
        let config = serde_json::from_str(json).map_err(|e| {
            ModelError::Config(format!("the metadata entry \"stage\" of the weights cannot be understood: {e}"))
        })?;
        let model = TextToImage::new(config, 0)?;
        model.parameters.load(weights)?;
        Ok(model)
    }

    /// The same model, whose network computes its blocks a second time in backward instead of keeping what is inside them
    /// if `recompute` is set ([`UNet::recomputing`]).
    pub fn recomputing(self, recompute: bool) -> TextToImage {
        TextToImage { unet: self.unet.recomputing(recompute), ..self }
    }

    /// The same model, computing on `device`. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn on(mut self, device: Device) -> TextToImage {
        self.parameters.move_to(device);
        self.encoder = self.encoder.map(|encoder| encoder.on(device));
        self
    }

    /// The same model with its weights kept in 16 bits where the device can: see [`Parameters::halve`].
    pub fn halved(self) -> TextToImage {
        self.parameters.halve();
        self
    }

    /// The same model with a classifier that can lead it ([`Request::lead`]). It must be on the device of the model and have
    /// been trained on images noised by the model's schedule.
    pub fn led_by(self, classifier: Arc<dyn NoisyClassifier + Send + Sync>) -> TextToImage {
        TextToImage { classifier: Some(classifier), ..self }
    }

    /// What the model was made from.
    pub fn config(&self) -> &StageConfig {
        &self.config
    }

    /// The network.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// What reads the prompts; none if the model takes no text.
    pub fn encoder(&self) -> Option<&Arc<dyn TextEncoder>> {
        self.encoder.as_ref()
    }

    /// The parameters of the network.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The noise schedule.
    pub fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    /// [C, H, W] of its images.
    pub fn image_size(&self) -> [usize; 3] {
        self.config.image
    }

    /// A request for one image a prompt, as the model is sampled by default.
    pub fn request(&self, prompts: Vec<String>) -> Request {
        let SamplingConfig { guidance, method } = self.config.sampling;
        Request {
            prompts,
            count: 1,
            negative: None,
            aug: None,
            lead: None,
            guidance,
            sampling: method,
            seed: 0,
            first: 0,
            one_noise_each: false,
        }
    }

    /// The condition of a batch of captions, one an image; `None` if the model takes no text.
    pub fn encode(&self, captions: &[String]) -> Result<Option<Condition>, TextError> {
        self.encoder.as_deref().map(|encoder| condition(encoder, captions)).transpose()
    }

    /// Draws `count` images for every prompt: [prompts * count, C, H, W] in [-1, 1] on the CPU, prompt by prompt. `progress` is
    /// called at every step of every batch of images.
    pub fn sample(
        &self,
        request: &Request,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor, ModelError> {
        match self.config.super_resolution {
            None => self.draw(request, None, None, progress),
            Some(_) => Err(ModelError::Config("this model makes images larger, and was given none".into())),
        }
    }

    /// Makes images larger: `low` [prompts * count, C, H / factor, W / factor] in [-1, 1] to [prompts * count, C, H, W] on the
    /// CPU, in the order of [`TextToImage::sample`]. An error unless this is a super-resolution model and `low` fits. (F1, F2)
    pub fn enlarge(
        &self,
        request: &Request,
        low: &Tensor,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor, ModelError> {
        let wrong = |what: String| Err(ModelError::Config(what));
        let Some(SuperResolutionConfig { factor, aug, .. }) = self.config.super_resolution else {
            return wrong("this model does not make images larger".into());
        };
        let [c, h, w] = self.config.image;
        let wanted = [request.prompts.len() * request.count, c, h / factor, w / factor];
        if **low.shape() != wanted {
            return wrong(format!("this model makes images of {wanted:?} larger, not of {}", low.shape()));
        }
        let aug = request.aug.unwrap_or(aug);
        check_aug(aug).map_err(ModelError::Config)?;
        self.draw(request, Some((low, aug)), None, progress)
    }

    /// Changes images [prompts * count, C, H, W] in [-1, 1], in the order of [`TextToImage::sample`]. An error if this is a
    /// super-resolution model, or if images or mask do not fit.
    pub fn edit(
        &self,
        request: &Request,
        images: &Tensor,
        edit: &Edit,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor, ModelError> {
        let wrong = |what: String| Err(ModelError::Config(what));
        let [c, h, w] = self.config.image;
        let wanted = [request.prompts.len() * request.count, c, h, w];
        match edit {
            _ if self.config.super_resolution.is_some() => {
                return wrong("this model makes images larger; it does not change them".into());
            }
            _ if **images.shape() != wanted => {
                return wrong(format!("this model changes images of {wanted:?}, not of {}", images.shape()));
            }
            Edit::Renoise { start } if !(*start > 0.0 && *start <= 1.0) => {
                return wrong(format!("images are noised up to a time above 0, at most 1, not to {start}"));
            }
            Edit::Inpaint { rounds: 0, .. } => return wrong("a step is taken at least once, not in 0 rounds".into()),
            Edit::Inpaint { mask, .. } if **mask.shape() != [1, 1, h, w] => {
                return wrong(format!("the mask must be of [1, 1, {h}, {w}], not of {}", mask.shape()));
            }
            Edit::Renoise { .. } | Edit::Inpaint { .. } => {}
        }
        self.draw(request, None, Some((images, edit)), progress)
    }

    /// The images of a request: from smaller ones with that much noise if there are any, or as a change of others.
    fn draw(
        &self,
        request: &Request,
        low: Option<(&Tensor, f64)>,
        edited: Option<(&Tensor, &Edit)>,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor, ModelError> {
        self.config.check_sampling(&request.sampling).map_err(ModelError::Config)?;
        let leader = request.lead.map(|lead| self.leader(lead)).transpose()?;
        let count = request.count as u64;
        let mut jobs: Vec<(&String, u64)> = Vec::new();
        for (row, prompt) in request.prompts.iter().enumerate() {
            let first = request.first + if request.one_noise_each { row as u64 * count } else { 0 };
            jobs.extend((first..first + count).map(|number| (prompt, number)));
        }
        let mut batches = Vec::new();
        for (batch, jobs) in jobs.chunks(self.batch()).enumerate() {
            let captions: Vec<String> = jobs.iter().map(|(p, _)| (*p).clone()).collect();
            let seeds: Vec<(u64, u64)> = jobs.iter().map(|&(_, i)| (request.seed, i)).collect();
            let negative = request.negative.as_ref().map(|negative| vec![negative.clone(); captions.len()]);
            let null = negative.map_or(Ok(None), |negative| self.encode(&negative))?;
            // Nobody asks with words that have no weight.
            let text = if request.guidance == 0.0 { None } else { self.encode(&captions)? };
            // Without text both are the same network asked the same: once is enough.
            let weight = if text.is_some() || null.is_some() { request.guidance } else { 1.0 };
            let mine = batch * self.batch()..batch * self.batch() + jobs.len();
            let edited = edited.map(|(images, edit)| (images.slice(0, mine.clone()), edit.clone()));
            let condition = match low {
                None => Guided { condition: text, null },
                Some((low, aug)) => {
                    let low = self.augmented(&low.slice(0, mine), aug, &seeds);
                    let beside = |text| Some(Condition::with_low_res(text, low.clone()));
                    Guided { condition: beside(text), null: beside(null) }
                }
            };
            let free = ClassifierFree { denoiser: &self.unet, weight };
            batches.push(match leader {
                None => self.denoise(&free, &condition, request.sampling, Batch { seeds: &seeds, edited }, progress)?,
                Some((classifier, Lead { class, scale })) => {
                    let led = ByClassifier {
                        denoiser: free,
                        classifier,
                        classes: &vec![class; seeds.len()],
                        scale,
                        schedule: &*self.schedule,
                        target: self.config.diffusion.target,
                    };
                    self.denoise(&led, &condition, request.sampling, Batch { seeds: &seeds, edited }, progress)?
                }
            });
        }
        Ok(match batches.len() {
            0 => {
                let [c, h, w] = self.config.image;
                Tensor::from_f64([0, c, h, w], &[], DType::F32)
            }
            _ => {
                let images = crate::autograd::concat(&batches.iter().collect::<Vec<_>>(), 0);
                let on_cpu = images.to(Device::Cpu);
                images.array().kernels().check().map_err(SampleError::from)?;
                on_cpu
            }
        })
    }
}

/// Pixels of a batch of images on a GPU, which a small network and few images leave idle.
const PIXELS_AT_ONCE: usize = 1 << 18;

/// Images that are drawn together.
struct Batch<'a> {
    /// (seed, number) of each.
    seeds: &'a [(u64, u64)],
    /// What they are a change of, [B, C, H, W], if they are.
    edited: Option<(Tensor, Edit)>,
}

impl TextToImage {
    // ANCHOR: augmented_for_sampling
    /// Smaller images as the network is shown them: with the noise of their keys. (F2)
    fn augmented(&self, low: &Tensor, aug: f64, seeds: &[(u64, u64)]) -> LowRes {
        let [_, c, h, w] = low.shape().dims("smaller images");
        let noise = Images { size: [c, h, w], dtype: low.dtype(), seeds }.noise_for(Purpose::Augmentation);
        let [_, height, width] = self.config.image;
        LowRes::augmented(low, &noise.to(low.device()), &vec![aug; seeds.len()], &*self.schedule, [height, width])
    }
    // ANCHOR_END: augmented_for_sampling

    /// The classifier that is to lead, or why it cannot.
    fn leader(&self, lead: Lead) -> Result<(&(dyn NoisyClassifier + Send + Sync), Lead), ModelError> {
        let wrong = |what: String| Err(ModelError::Config(what));
        let Some(classifier) = self.classifier.as_deref() else {
            return wrong("a classifier is to lead the model, and it was given none".into());
        };
        match (lead.class < classifier.classes(), lead.scale.is_finite()) {
            (true, true) => Ok((classifier, lead)),
            (false, _) => {
                wrong(format!("class {} is not one of the {} of the classifier", lead.class, classifier.classes()))
            }
            (_, false) => wrong(format!("the scale of the classifier must be a number, not {}", lead.scale)),
        }
    }

    /// One batch of images, on the device of the model.
    fn denoise<D: Denoiser>(
        &self,
        denoiser: &D,
        condition: &D::Condition,
        settings: Sampling,
        Batch { seeds, edited }: Batch<'_>,
        progress: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor, SampleError> {
        let target = self.config.diffusion.target;
        let sampler = Sampler { schedule: &*self.schedule, denoiser, target, condition, settings };
        let images = Images { size: self.config.image, dtype: DType::F32, seeds };
        match edited {
            None => sampler.sample(&images, progress),
            // ANCHOR: renoise
            Some((x0, Edit::Renoise { start })) => {
                let times = sampler.times_from(start);
                let levels = Levels::at(&*self.schedule, &vec![times[0]; seeds.len()], DType::F32);
                let x_t = q_sample(&x0, &images.start(), &levels).to(denoiser.device());
                sampler.sample_from(x_t, &times, &images, progress)
            }
            // ANCHOR_END: renoise
            Some((x0, Edit::Inpaint { mask, rounds })) => {
                let mask = mask.broadcast_to(x0.shape());
                sampler.inpaint(&Given { images: x0, mask, rounds }, &images, progress)
            }
        }
    }
}

/// The condition of a batch of captions, one an image.
pub(crate) fn condition(encoder: &dyn TextEncoder, captions: &[String]) -> Result<Condition, TextError> {
    // Each different caption is read once.
    let mut different: Vec<&str> = captions.iter().map(String::as_str).collect();
    different.sort_unstable();
    different.dedup();
    let embeddings = encoder.encode_all(&different)?;
    let place = |caption: &String| different.binary_search(&caption.as_str()).expect("it is one of them");
    let batch = TextBatch::pad(&captions.iter().map(|c| embeddings[place(c)].clone()).collect::<Vec<_>>());
    Ok(Condition::new(batch.tokens, batch.mask))
}
