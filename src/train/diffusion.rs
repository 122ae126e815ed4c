//! Training a text-to-image diffusion model.

use super::remembered::Remembered;
use super::{DiffusionRun, RunConfig, RunFolder, Task, TrainError};
use crate::array::{Array, Device};
use crate::autograd::Tensor;
use crate::cascade::{ModelError, Request, StageConfig, SuperResolutionConfig, TextToImage, condition};
use crate::data::{Batches, Captions, Dataset, Split};
use crate::diffusion::{
    Denoiser, DiscreteSchedule, Levels, LowRes, SampleError, Step, bound_terms, hybrid, loss, q_sample,
};
use crate::nn::Parameters;
use crate::picture::{Layout, Picture, Text, grid};
use crate::random::{Purpose, normal, stream};
use crate::text::{EmbeddingCache, TextEncoder};
use crate::unet::Condition;
use rand::RngExt;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A [`TextToImage`] model being trained on a data set and its captions.
pub struct DiffusionTask {
    config: DiffusionRun,
    data: Arc<Dataset>,
    digest: String,
    captions: Captions,
    model: TextToImage,
    /// The steps that a learned variance is that of.
    chain: DiscreteSchedule,
    batches: Batches,
    /// What reads the captions instead of the model's encoder, each once.
    reader: OnceLock<Arc<dyn TextEncoder>>,
}

/// Images in a preview: one row a class.
const PREVIEW_COLUMNS: usize = 4;

impl DiffusionTask {
    /// Makes the model and checks that the data fits it.
    pub fn new(config: DiffusionRun, data: impl Into<Arc<Dataset>>) -> Result<DiffusionTask, TrainError> {
        let data = data.into();
        let images = &data.train;
        let model = TextToImage::new(config.stage([images.channels, images.height, images.width]), config.seed)
            .map_err(|e| TrainError::Setup(e.to_string()))?
            .recomputing(config.train.recompute.unwrap_or(false));
        let batches = Batches::new(images.len(), config.train.batch, config.seed);
        let captions = Captions::of(config.data.name);
        // Captions are data, too, and what they are to the model is the encoder's.
        let encoder = costly(&model).map(|encoder| encoder.digest());
        let digest = [Some(data.digest()), encoder].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let chain = config.diffusion.chain();
        Ok(DiffusionTask { digest, captions, model, chain, batches, config, data, reader: OnceLock::new() })
    }
}

/// The encoder of a model, if it takes long enough to read a caption that each should be read once.
fn costly(model: &TextToImage) -> Option<&Arc<dyn TextEncoder>> {
    model.encoder().filter(|encoder| encoder.is_costly())
}

impl DiffusionTask {
    /// The same task, computing on `device`. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn on(self, device: Device) -> DiffusionTask {
        DiffusionTask { model: self.model.on(device), ..self }
    }
}

impl DiffusionTask {
    /// What the model is made from.
    pub(super) fn stage(&self) -> &StageConfig {
        self.model.config()
    }

    /// What reads each caption once, whoever asks: the file of the config if it is there, else the encoder, whose embeddings stay
    /// in memory. None if encoding costs next to nothing.
    pub(super) fn reader(&self) -> Result<Option<Arc<dyn TextEncoder>>, TrainError> {
        let Some(encoder) = costly(&self.model) else { return Ok(None) };
        Ok(Some(match &self.config.embeddings {
            Some(file) if file.exists() => Arc::new(self.cache(file, encoder)?),
            _ => Arc::new(Remembered::new(encoder.clone())),
        }))
    }

    /// The same task, whose captions are read by `reader` if there is one. It must be of the same encoder.
    pub(super) fn read_by(self, reader: Option<Arc<dyn TextEncoder>>) -> DiffusionTask {
        DiffusionTask { reader: reader.map_or_else(OnceLock::new, OnceLock::from), ..self }
    }

    /// The embeddings of all captions of training in `file`, which is made if it is not there.
    fn cache(&self, file: &Path, encoder: &Arc<dyn TextEncoder>) -> Result<EmbeddingCache, TrainError> {
        let captions = (0..self.captions.classes()).flat_map(|label| self.captions.all(Split::Training, label));
        EmbeddingCache::open_or_make(file, encoder.clone(), captions).map_err(|e| TrainError::Setup(e.to_string()))
    }

    /// The first `count` test images of every class, [classes * count, C, H, W], class by class; again from the first if there are
    /// fewer.
    fn real(&self, count: usize) -> Result<Tensor, TrainError> {
        let images = &self.data.test;
        let mut chosen = Vec::new();
        for (class, name) in images.class_names.iter().enumerate() {
            let of_class = (0..images.len()).filter(|&i| usize::from(images.labels[i]) == class);
            chosen.extend(of_class.cycle().take(count));
            if chosen.len() != (class + 1) * count {
                return Err(TrainError::Setup(format!("there is no test image of {name:?}")));
            }
        }
        let shape = [chosen.len(), images.channels, images.height, images.width];
        Ok(Tensor::constant(Array::from_vec(shape, images.batch_f32(&chosen))))
    }

    /// The training images `indices`, [B, C, H, W] in [-1, 1] on the CPU; of each a square from anywhere, if the config says so.
    fn parts(&self, indices: &[usize], step: u64) -> Tensor {
        let images = &self.data.train;
        let whole = images.batch_f32(indices);
        let [b, c, h, w] = [indices.len(), images.channels, images.height, images.width];
        let Some((side, factor)) = self.config.super_resolution.and_then(|s| Some((s.crop?, s.factor))) else {
            return Tensor::constant(Array::from_vec([b, c, h, w], whole));
        };
        let mut parts = Vec::with_capacity(b * c * side * side);
        for (i, image) in whole.chunks_exact(c * h * w).enumerate() {
            let mut place = stream(self.config.seed, Purpose::Crop, step, i as u64);
            // Of whole pixels of the smaller image, as sampling has them.
            let [top, left] = [h, w].map(|length| factor * place.random_range(0..=(length - side) / factor));
            for row in image.chunks_exact(w).enumerate().filter(|(y, _)| (top..top + side).contains(&(y % h))) {
                parts.extend_from_slice(&row.1[left..left + side]);
            }
        }
        Tensor::constant(Array::from_vec([b, c, side, side], parts))
    }

    // ANCHOR: smaller
    /// What a super-resolution model is shown of x_0 [B, C, H, W] in training: the same images, smaller, with any amount of
    /// noise up to the most. (F2)
    fn smaller(&self, x0: &Tensor, config: SuperResolutionConfig, step: u64) -> LowRes {
        let SuperResolutionConfig { factor, train_aug, .. } = config;
        let seed = self.config.seed;
        let low = x0.avg_pool2d(factor);
        let [b, c, h, w] = low.shape().dims("smaller images");
        let of_each = (0..b as u64).flat_map(|i| normal(seed, Purpose::Augmentation, step, i, c * h * w));
        let eps = low.constant_like([b, c, h, w], &of_each.collect::<Vec<_>>());
        let aug = |i: u64| train_aug * stream(seed, Purpose::AugmentationTime, step, i).random::<f64>();
        let aug: Vec<f64> = (0..b as u64).map(aug).collect();
        LowRes::augmented(&low, &eps, &aug, self.model.schedule(), [factor * h, factor * w])
    }
    // ANCHOR_END: smaller
}

impl DiffusionTask {
    // ANCHOR: training_loss
    /// The loss of a step, a scalar with history, with its own captions or with others: L_simple (C4, C5), and some of the bound
    /// if the variance is learned (B3).
    pub(super) fn loss_with(&self, step: u64, words: Words) -> Result<Tensor, TrainError> {
        let (seed, images) = (self.config.seed, &self.data.train);
        let indices = self.batches.indices(step);
        let device = self.model.unet().device();
        let x0 = self.parts(&indices, step);
        let shape: [usize; 4] = x0.shape().dims("training images");
        let x0 = x0.to(device);
        let schedule = self.model.schedule();
        let (mut t, mut eps, mut keep, mut captions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (i, &example) in indices.iter().enumerate() {
            let i = i as u64;
            // 1 - [0, 1) is (0, 1]: there is nothing to learn at t = 0.
            t.push(schedule.on_grid(1.0 - stream(seed, Purpose::Time, step, i).random::<f64>()));
            eps.extend(normal(seed, Purpose::Noise, step, i, shape[1..].iter().product()));
            let drawn = stream(seed, Purpose::Drop, step, i).random::<f64>();
            keep.push(words.keep(drawn >= self.config.diffusion.drop_text));
            let label = words.label(images.labels[example], self.captions.classes());
            captions.push(self.captions.pick(seed, step, i, label));
        }
        let eps = x0.constant_like(shape, &eps);
        let levels = Levels::at(schedule, &t, x0.dtype()).to(device);
        let x_t = q_sample(&x0, &eps, &levels);
        let condition = match self.reader.get() {
            Some(reader) => condition(&**reader, &captions).map(Some),
            None => self.model.encode(&captions),
        };
        let condition = condition.map_err(|e| TrainError::Setup(e.to_string()))?.map(|c| c.with_dropped(keep));
        let condition = match self.config.super_resolution {
            Some(config) => Some(Condition::with_low_res(condition, self.smaller(&x0, config, step))),
            None => condition,
        };
        let (prediction, v) = self.model.unet().predict_with_variance(&x_t, &t, &condition);
        let settings = &self.config.diffusion;
        let simple = loss(&prediction, &x0, &eps, &t, schedule, settings.target, settings.weighting).mean;
        let Some(v) = v else { return Ok(simple) };
        let steps: Vec<usize> = t.iter().map(|t| (t * self.chain.steps() as f64).round() as usize).collect();
        let x0_hat = settings.target.to_x0(&prediction.detach(), &x_t, &levels);
        let terms = bound_terms(&self.chain, &steps, &x0, &x0_hat, &v);
        Ok(hybrid(&simple, &terms, &self.chain, settings.vlb_weight()))
    }
    // ANCHOR_END: training_loss

    /// Means of the channels of test images that were made larger, and of the real ones: (drawn, real) for each channel. An error
    /// unless the model makes images larger.
    pub(super) fn channel_means(&self) -> Result<Vec<[f64; 2]>, TrainError> {
        let Some(SuperResolutionConfig { factor, .. }) = self.config.super_resolution else {
            return Err(TrainError::Setup("this model does not make images larger".into()));
        };
        let real = self.real(2)?;
        let classes = self.data.train.class_names.len();
        let prompts = (0..classes).map(|class| self.captions.caption(Split::Training, class, 0)).collect();
        let request = Request { count: 2, seed: self.config.seed, ..self.model.request(prompts) };
        let drawn = self.model.enlarge(&request, &real.avg_pool2d(factor), &mut |_| ControlFlow::Continue(()));
        let drawn = drawn.map_err(|e| TrainError::Setup(e.to_string()))?;
        let [drawn, real] = [drawn, real].map(|images| images.mean(&[0, 2, 3], false).to_f64());
        Ok(drawn.into_iter().zip(real).map(|(drawn, real)| [drawn, real]).collect())
    }
}

/// Which captions a loss is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Those of the images, some of them dropped.
    Training,
    /// Those of the images.
    Right,
    /// Those of the next class.
    Wrong,
    /// None.
    None,
}

impl Words {
    fn keep(self, drawn: bool) -> bool {
        match self {
            Words::Training => drawn,
            Words::Right | Words::Wrong => true,
            Words::None => false,
        }
    }

    fn label(self, label: u8, classes: usize) -> usize {
        (usize::from(label) + usize::from(self == Words::Wrong)) % classes
    }
}

impl Task for DiffusionTask {
    /// Lets the text encoder read all captions, if that takes long enough to be worth keeping.
    fn prepare(&self, folder: &RunFolder) -> Result<Option<String>, TrainError> {
        let Some(encoder) = costly(&self.model) else { return Ok(None) };
        let file = match &self.config.embeddings {
            Some(file) => file.clone(),
            None => folder.embeddings(),
        };
        let cache = self.cache(&file, encoder)?;
        let cut: Vec<&str> = cache.cut().collect();
        let note = cut.first().map(|first| {
            let count = cut.len();
            format!("{count} captions, such as {first:?}, are longer than text.max_tokens; what is beyond is left out")
        });
        let _ = self.reader.set(Arc::new(cache));
        Ok(note)
    }

    fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    /// L_simple with the config's target and weighting (C4, C5), at one random time an image. Time, noise, caption and
    /// dropping of an image are keyed by the step and its place in the batch.
    fn loss(&self, step: u64) -> Result<Tensor, TrainError> {
        self.loss_with(step, Words::Training)
    }

    fn examples(&self, step: u64) -> Vec<usize> {
        self.batches.indices(step)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("config".to_string(), RunConfig::Diffusion(self.config.clone()).to_json()),
            ("stage".to_string(), serde_json::to_string(self.model.config()).expect("a config can always be written")),
            ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
            ("data_digest".to_string(), self.digest.clone()),
        ])
    }

    /// A grid of the model's samples, one row a class, from the same noise every time. A super-resolution model is shown the
    /// first test images of each class, smaller, and every sample stands between what it was made from and what it should be.
    fn preview(&self, stop: &AtomicBool) -> Result<Option<(Picture, Text)>, TrainError> {
        let classes = self.data.train.class_names.len();
        let prompts: Vec<String> = (0..classes).map(|class| self.captions.caption(Split::Training, class, 0)).collect();
        let request = Request { count: PREVIEW_COLUMNS, seed: self.config.seed, ..self.model.request(prompts.clone()) };
        let mut go_on =
            |_: Step<'_>| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let real = self.config.super_resolution.map(|s| self.real(PREVIEW_COLUMNS).map(|real| (real, s.factor)));
        let real = real.transpose()?;
        let drawn = match &real {
            None => self.model.sample(&request, &mut go_on),
            Some((real, factor)) => self.model.enlarge(&request, &real.avg_pool2d(*factor), &mut go_on),
        };
        let images = match drawn {
            Ok(images) => images,
            Err(ModelError::Sample(SampleError::Cancelled { .. })) => return Ok(None),
            Err(ModelError::Sample(SampleError::Device(error))) => return Err(error.into()),
            Err(error) => return Err(TrainError::Setup(error.to_string())),
        };
        let mut pictures = Picture::from_array(images.array());
        let mut columns = PREVIEW_COLUMNS;
        if let Some((real, factor)) = &real {
            let small = Picture::from_array(real.avg_pool2d(*factor).array());
            let triples = small.into_iter().zip(pictures).zip(Picture::from_array(real.array()));
            pictures =
                triples.flat_map(|((small, drawn), real)| [small.enlarged(*factor), drawn, real]).collect::<Vec<_>>();
            columns *= 3;
        }
        let picture = grid(&pictures, Layout { enlarge: 2, ..Layout::new(columns) });
        Ok(Some((picture, Text::from([("prompts".to_string(), prompts.join("; "))]))))
    }
}
