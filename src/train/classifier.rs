//! Training a classifier of images.

use super::{ClassifierRun, RunConfig, Task, TrainError};
use crate::array::{Array, DType};
use crate::autograd::{Tensor, no_grad};
use crate::data::{Batches, Dataset, Images};
use crate::eval::Classifier;
use crate::nn::{Init, Parameters, Weights};
use crate::random::{Purpose, stream};
use rand::RngExt;
use std::collections::BTreeMap;

/// A [`Classifier`] being trained on a data set.
pub struct ClassifierTask {
    config: ClassifierRun,
    data: Dataset,
    digest: String,
    model: Classifier,
    parameters: Parameters,
    batches: Batches,
}

impl ClassifierTask {
    /// Makes the model and checks that the data fits it.
    pub fn new(config: ClassifierRun, data: Dataset) -> Result<ClassifierTask, TrainError> {
        let init = Init::new(config.seed, DType::F32);
        let model = Classifier::new(config.classifier.clone(), &init).map_err(TrainError::Setup)?;
        let (images, c) = (&data.train, &config.classifier);
        let fits = images.channels == c.image_channels && images.height == c.image_size && images.width == c.image_size;
        if !fits || images.class_names.len() != c.classes {
            return Err(TrainError::Setup(format!(
                "the classifier is for {}x{}x{} images of {} classes, the data set has {}x{}x{} of {}",
                c.image_channels, c.image_size, c.image_size, c.classes,
                images.channels, images.height, images.width, images.class_names.len(),
            )));
        }
        let batches = Batches::new(data.train.len(), config.train.batch, config.seed);
        Ok(ClassifierTask { digest: data.digest(), parameters: init.parameters(), model, batches, config, data })
    }

    /// Share of `images` whose class is recognised.
    pub fn accuracy(&self, images: &Images) -> f64 {
        let all: Vec<usize> = (0..images.len()).collect();
        let right: usize = all
            .chunks(250)
            .map(|chunk| {
                let classes = classify(&self.model, &batch(images, chunk)).1;
                classes.iter().zip(chunk).filter(|&(&class, &i)| class == usize::from(images.labels[i])).count()
            })
            .sum();
        right as f64 / images.len() as f64
    }
}

/// Images as a constant [B, C, H, W] in [-1, 1].
fn batch(images: &Images, indices: &[usize]) -> Tensor {
    let shape = [indices.len(), images.channels, images.height, images.width];
    Array::from_vec(shape, images.batch_f32(indices)).into()
}

/// (features [B, features], class of each image), without gradients.
pub(crate) fn classify(model: &Classifier, images: &Tensor) -> (Array, Vec<usize>) {
    let (features, logits) = no_grad(|| model.forward(images));
    let classes = model.config().classes;
    let values = logits.array().to_f32();
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
    (features.into_array(), values.chunks(classes).map(best).collect())
}

/// The classifier of finished weights.
pub fn load_classifier(weights: &Weights) -> Result<Classifier, TrainError> {
    let config = weights.metadata.get("config").ok_or_else(|| TrainError::Setup("the weights lack their config".into()))?;
    match RunConfig::from_json(config).map_err(TrainError::Setup)? {
        RunConfig::Classifier(run) => {
            let init = Init::new(0, DType::F32);
            let model = Classifier::new(run.classifier, &init).map_err(TrainError::Setup)?;
            init.parameters().load(weights)?;
            Ok(model)
        }
        RunConfig::Diffusion(_) => Err(TrainError::Setup("the weights are a diffusion model's, not a classifier's".into())),
    }
}

impl Task for ClassifierTask {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Cross-entropy of the shifted images of the step.
    fn loss(&self, step: u64) -> Result<Tensor, TrainError> {
        let indices = self.batches.indices(step);
        let images = &self.data.train;
        let mut values = images.batch_f32(&indices);
        let size = images.image_numel();
        for (i, image) in values.chunks_exact_mut(size).enumerate() {
            let mut random = stream(self.config.seed, Purpose::Augment, step, i as u64);
            let most = self.config.shift as isize;
            let (down, right) = (random.random_range(-most..=most), random.random_range(-most..=most));
            for channel in image.chunks_exact_mut(images.height * images.width) {
                shift(channel, images.width, down, right);
            }
        }
        let shape = [indices.len(), images.channels, images.height, images.width];
        let (_, logits) = self.model.forward(&Array::from_vec(shape, values).into());
        let classes: Vec<u32> = indices.iter().map(|&i| u32::from(images.labels[i])).collect();
        Ok(logits.cross_entropy(&classes))
    }

    fn examples(&self, step: u64) -> Vec<usize> {
        self.batches.indices(step)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("config".to_string(), RunConfig::Classifier(self.config.clone()).to_json()),
            ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
            ("data_digest".to_string(), self.digest.clone()),
        ])
    }

    fn score(&self) -> Result<Option<(&'static str, f64)>, TrainError> {
        Ok(Some(("test accuracy", self.accuracy(&self.data.test))))
    }
}

/// Moves an image [H, width] by whole pixels; what comes in is black.
fn shift(image: &mut [f32], width: usize, down: isize, right: isize) {
    let old = image.to_vec();
    let height = (image.len() / width) as isize;
    for (at, pixel) in image.iter_mut().enumerate() {
        let (y, x) = ((at / width) as isize - down, (at % width) as isize - right);
        let inside = (0..height).contains(&y) && (0..width as isize).contains(&x);
        *pixel = if inside { old[y as usize * width + x as usize] } else { -1.0 };
    }
}
