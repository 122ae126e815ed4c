//! The evaluation of a text-to-image model: caption agreement and Fréchet distance.

use super::{Agreement, Classifier, Moments, frechet_distance};
use crate::array::Array;
use crate::autograd::Tensor;
use crate::cascade::{ModelError, Request, TextToImage};
use crate::data::{Captions, Dataset, Images, Split};
use crate::diffusion::Sampling;
use serde::Serialize;
use std::ops::{ControlFlow, Range};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Images of each split, a whole number for each class.
    pub samples: usize,
    /// Guidance weight w.
    pub guidance: f64,
    /// Sampler, steps and thresholding.
    pub sampling: Sampling,
    /// Keys the noise of the samples.
    pub seed: u64,
}

impl Evaluation {
    /// The captions that are tried.
    pub const SPLITS: [Split; 3] = [Split::Training, Split::HeldOut, Split::Unpaired];
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Images of each split.
    pub samples: usize,
    /// Guidance weight w.
    pub guidance: f64,
    /// Sampler, steps and thresholding.
    pub sampling: Sampling,
    /// Keys the noise of the samples.
    pub seed: u64,
    /// Caption agreement on templates seen in training.
    pub training: Agreement,
    /// Caption agreement on templates never seen.
    pub held_out: Agreement,
    /// Caption agreement on phrases that nothing like was seen with an image.
    pub unpaired: Agreement,
    /// How often the classifier is right on as many real test images: what agreement can reach.
    pub real: Agreement,
    /// Fréchet distance of the samples of the training templates to the real training images.
    pub frechet: f64,
    /// The same of as many real test images: what a perfect model would get.
    pub frechet_real: f64,
}

/// Samples `settings.samples` images for captions of each split, an equal number a class, with every template in turn,
/// and lets the classifier judge them. `progress` gets (images done, images in all) and may stop it.
pub fn evaluate(
    model: &TextToImage,
    judge: &Judge<'_>,
    settings: Evaluation,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Report, ModelError> {
    judge.check()?;
    let splits = Evaluation::SPLITS;
    let total = splits.len() * settings.samples;
    let mut draw = |prompts: Vec<String>, numbers: Range<usize>| {
        let request = Request {
            first: numbers.start as u64,
            guidance: settings.guidance,
            sampling: settings.sampling,
            seed: settings.seed,
            one_noise_each: true,
            ..model.request(prompts)
        };
        model.sample(&request, &mut |_| ControlFlow::Continue(()))
    };
    let mut judged = Vec::new();
    for (i, split) in splits.into_iter().enumerate() {
        let mut report = |done| progress(i * settings.samples + done, total);
        judged.push(judge.drawn(split, settings.samples, model.batch(), &mut draw, &mut report)?);
    }
    let [(training, features), (held_out, _), (unpaired, _)]: [_; 3] = judged.try_into().expect("one for each split");
    let (real, frechet_real) = judge.real(settings.samples)?;
    Ok(Report {
        samples: settings.samples,
        guidance: settings.guidance,
        sampling: settings.sampling,
        seed: settings.seed,
        training,
        held_out,
        unpaired,
        real,
        frechet: judge.frechet(&features),
        frechet_real,
    })
}

/// Images are judged so many at once, or as many as a model draws at once, if that is more.
const BATCH: usize = 50;

/// Draws one image for every prompt, [prompts, C, H, W]; they are those of these numbers, by which their noise is keyed.
pub type Draw<'a> = dyn FnMut(Vec<String>, Range<usize>) -> Result<Tensor, ModelError> + 'a;

/// What images are judged by: a classifier, and the real images with their captions.
pub struct Judge<'a> {
    classifier: &'a Classifier,
    data: &'a Dataset,
    captions: &'a Captions,
    /// Of the features of the real training images.
    real: Moments,
}

impl<'a> Judge<'a> {
    /// A judge, which looks at all real training images first. Panics if they are not of the size that the classifier takes.
    #[track_caller]
    pub fn new(classifier: &'a Classifier, data: &'a Dataset, captions: &'a Captions) -> Judge<'a> {
        let features = real_features(classifier, &data.train, data.train.len(), None);
        Judge { classifier, data, captions, real: Moments::of(&features, classifier.config().features) }
    }

    /// An error if the classifier makes no features of the real training images that anything could be compared with. To be called
    /// before images are drawn, which takes long.
    pub fn check(&self) -> Result<(), ModelError> {
        let Moments { mean, covariance, .. } = &self.real;
        match mean.iter().chain(covariance).all(|v| v.is_finite()) {
            true => Ok(()),
            false => Err(ModelError::Judge("real training images")),
        }
    }

    /// The agreement of `samples` images for captions of a split, an equal number a class, with every template in turn, and
    /// their features [samples, d]. `batch` images are asked for at once, at least.
    ///
    /// Images may be larger than those that the classifier takes: it is shown their middle.
    pub fn drawn(
        &self,
        split: Split,
        samples: usize,
        batch: usize,
        draw: &mut Draw<'_>,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(Agreement, Vec<f64>), ModelError> {
        let classes = self.captions.classes();
        let all: Vec<Vec<String>> = (0..classes).map(|class| self.captions.all(split, class)).collect();
        let prompt = |i: usize| {
            let all = &all[i % classes];
            all[i / classes % all.len()].clone()
        };
        let mut agreement = Agreement::new(self.data.train.class_names.iter());
        let mut features = Vec::new();
        let batch = batch.max(BATCH);
        for start in (0..samples).step_by(batch) {
            let numbers = start..samples.min(start + batch);
            let images = self.middle(&draw(numbers.clone().map(prompt).collect(), numbers.clone())?);
            let (found, recognised) = self.classifier.classify(&images);
            if !found.is_finite() {
                return Err(ModelError::Judge("images that were drawn"));
            }
            numbers.clone().zip(recognised).for_each(|(i, class)| agreement.count(i % classes, class));
            features.extend(found.to_f64());
            if progress(numbers.end).is_break() {
                return Err(ModelError::Stopped);
            }
        }
        Ok((agreement, features))
    }

    /// The middle of images [B, C, H, W], as large as the classifier takes it.
    fn middle(&self, images: &Tensor) -> Tensor {
        let size = self.classifier.config().image_size;
        let [_, _, h, w] = images.shape().dims("images to judge");
        assert!(h >= size && w >= size, "images of {h}x{w} are too small for a classifier of {size}x{size}");
        let rows = images.split(2, &[(h - size) / 2, size, h - size - (h - size) / 2]).swap_remove(1);
        rows.split(3, &[(w - size) / 2, size, w - size - (w - size) / 2]).swap_remove(1)
    }

    /// The agreement of the first `samples` real test images, and their Fréchet distance to the training images: what a
    /// perfect model would get.
    pub fn real(&self, samples: usize) -> Result<(Agreement, f64), ModelError> {
        let mut real = Agreement::new(self.data.test.class_names.iter());
        let features = real_features(self.classifier, &self.data.test, samples, Some(&mut real));
        self.check()?;
        match features.iter().all(|v| v.is_finite()) {
            true => Ok((real, self.frechet(&features))),
            false => Err(ModelError::Judge("real test images")),
        }
    }

    /// The Fréchet distance of features [n, d] to those of the real training images. (H2) Panics if any is NaN or infinite: see
    /// [`Judge::check`]; those of [`Judge::drawn`] are not.
    #[track_caller]
    pub fn frechet(&self, features: &[f64]) -> f64 {
        frechet_distance(&Moments::of(features, self.classifier.config().features), &self.real)
    }
}

/// Features [count, d] of the first `count` real images; their classes are counted if asked for.
fn real_features(
    classifier: &Classifier,
    images: &Images,
    count: usize,
    mut counted: Option<&mut Agreement>,
) -> Vec<f64> {
    let all: Vec<usize> = (0..count.min(images.len())).collect();
    let mut features = Vec::new();
    for chunk in all.chunks(250) {
        let shape = [chunk.len(), images.channels, images.height, images.width];
        let batch = Tensor::constant(Array::from_vec(shape, images.batch_f32(chunk)));
        let (found, recognised) = classifier.classify(&batch);
        features.extend(found.to_f64());
        if let Some(agreement) = counted.as_deref_mut() {
            chunk.iter().zip(recognised).for_each(|(&i, class)| agreement.count(images.labels[i].into(), class));
        }
    }
    features
}
