//! Training a classifier of images.

use super::{ClassifierRun, RunConfig, Task, TrainError};
use crate::array::{Array, DType, Device};
use crate::autograd::Tensor;
use crate::data::{Batches, Dataset, Images};
use crate::diffusion::{Levels, q_sample};
use crate::eval::Classifier;
use crate::nn::{Init, Parameters};
use crate::random::{Purpose, normal, stream};
use rand::RngExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A [`Classifier`] being trained on a data set.
pub struct ClassifierTask {
    config: ClassifierRun,
    data: Arc<Dataset>,
    digest: String,
    model: Classifier,
    parameters: Parameters,
    batches: Batches,
}

impl ClassifierTask {
    /// Makes the model and checks that the data fits it.
    pub fn new(config: ClassifierRun, data: impl Into<Arc<Dataset>>) -> Result<ClassifierTask, TrainError> {
        let data = data.into();
        // Before the model is made: for images of a wrong size it might be gigantic.
        let (images, c) = (&data.train, &config.classifier);
        let fits = images.channels == c.image_channels && images.height == c.image_size && images.width == c.image_size;
        if !fits || images.class_names.len() != c.classes {
            return Err(TrainError::Setup(format!(
                "the classifier is for {}x{}x{} images of {} classes, the data set has {}x{}x{} of {}",
                c.image_channels,
                c.image_size,
                c.image_size,
                c.classes,
                images.channels,
                images.height,
                images.width,
                images.class_names.len(),
            )));
        }
        let init = Init::new(config.seed, DType::F32);
        let model = Classifier::new(config.classifier.clone(), &init).map_err(|e| TrainError::Setup(e.to_string()))?;
        let batches = Batches::new(data.train.len(), config.train.batch, config.seed);
        Ok(ClassifierTask { digest: data.digest(), parameters: init.parameters(), model, batches, config, data })
    }

    /// The same task, computing on `device`. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn on(self, device: Device) -> ClassifierTask {
        self.parameters.move_to(device);
        self
    }

    /// Share of `images` whose class is recognised, once they are noised up to time `t`, if the classifier takes noise.
    pub fn accuracy(&self, images: &Images, t: f64) -> f64 {
        let all: Vec<usize> = (0..images.len()).collect();
        let right: usize = all
            .chunks(250)
            .map(|chunk| {
                let times = vec![t; chunk.len()];
                let x = self.noised(batch(images, chunk), &times, |i| (Purpose::Evaluation, 0, chunk[i] as u64));
                let (_, classes) = self.model.classify_at(&x, &times);
                classes.iter().zip(chunk).filter(|&(&class, &i)| class == usize::from(images.labels[i])).count()
            })
            .sum();
        right as f64 / images.len() as f64
    }

    /// x_t of images at their times, with the noise of image i keyed by `key(i)`; the images themselves if the classifier takes
    /// no noise.
    fn noised(&self, x0: Tensor, t: &[f64], key: impl Fn(usize) -> (Purpose, u64, u64)) -> Tensor {
        let Some(schedule) = self.config.classifier.noise else { return x0 };
        let [b, c, h, w] = x0.shape().dims("images");
        let noise = |i: usize| {
            let (purpose, step, index) = key(i);
            normal(self.config.seed, purpose, step, index, c * h * w)
        };
        let eps: Vec<f64> = (0..b).flat_map(noise).collect();
        q_sample(&x0, &Tensor::from_f64([b, c, h, w], &eps, DType::F32), &Levels::at(&schedule.build(), t, DType::F32))
    }
}

/// Images as a constant [B, C, H, W] in [-1, 1].
fn batch(images: &Images, indices: &[usize]) -> Tensor {
    let shape = [indices.len(), images.channels, images.height, images.width];
    Array::from_vec(shape, images.batch_f32(indices)).into()
}

impl Task for ClassifierTask {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Cross-entropy of the shifted images of the step, each noised up to a time of its own if the classifier takes noise.
    fn loss(&self, step: u64) -> Result<Tensor, TrainError> {
        let indices = self.batches.indices(step);
        let images = &self.data.train;
        let mut values = images.batch_f32(&indices);
        let size = images.image_numel();
        for (i, image) in values.chunks_exact_mut(size).enumerate() {
            let mut random = stream(self.config.seed, Purpose::Augment, step, i as u64);
            let most = self.config.shift as i32;
            let (down, right) = (random.random_range(-most..=most), random.random_range(-most..=most));
            for channel in image.chunks_exact_mut(images.height * images.width) {
                shift(channel, images.width, down as isize, right as isize);
            }
        }
        let shape = [indices.len(), images.channels, images.height, images.width];
        let time = |i: usize| stream(self.config.seed, Purpose::Time, step, i as u64).random_range(0.0..1.0);
        let t: Vec<f64> = (0..indices.len()).map(time).collect();
        let x_t = self.noised(Array::from_vec(shape, values).into(), &t, |i| (Purpose::Noise, step, i as u64));
        let (_, logits) = self.model.forward_at(&x_t, &t);
        let classes: Vec<u32> = indices.iter().map(|&i| u32::from(images.labels[i])).collect();
        Ok(logits.cross_entropy(&classes))
    }

    fn examples(&self, step: u64) -> Vec<usize> {
        self.batches.indices(step)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (
                "classifier".to_string(),
                serde_json::to_string(self.model.config()).expect("a config can always be written"),
            ),
            ("config".to_string(), RunConfig::Classifier(self.config.clone()).to_json()),
            ("version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
            ("data_digest".to_string(), self.digest.clone()),
        ])
    }

    fn score(&self) -> Result<Option<(&'static str, f64)>, TrainError> {
        Ok(Some(match self.config.classifier.noise {
            None => ("test accuracy", self.accuracy(&self.data.test, 0.0)),
            Some(_) => ("test accuracy at t = 0.5", self.accuracy(&self.data.test, 0.5)),
        }))
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
