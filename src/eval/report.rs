//! The evaluation of a text-to-image model: caption agreement and Fréchet distance.

use super::{Agreement, Classifier, Moments, frechet_distance};
use crate::array::Array;
use crate::autograd::Tensor;
use crate::cascade::{ModelError, Request, TextToImage};
use crate::data::{Captions, Dataset, Images, Split};
use crate::diffusion::Sampling;
use serde::Serialize;
use std::ops::ControlFlow;

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
    classifier: &Classifier,
    data: &Dataset,
    captions: &Captions,
    settings: Evaluation,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Report, ModelError> {
    let splits = Evaluation::SPLITS;
    let total = splits.len() * settings.samples;
    let mut judged = Vec::new();
    for (i, split) in splits.into_iter().enumerate() {
        let mut report = |done| progress(i * settings.samples + done, total);
        judged.push(judge(model, classifier, data, captions, split, settings, &mut report)?);
    }
    let [(training, features), (held_out, _), (unpaired, _)]: [_; 3] = judged.try_into().expect("one for each split");

    let d = classifier.config().features;
    let real_train = Moments::of(&real_features(classifier, &data.train, data.train.len(), None), d);
    let mut real = Agreement::new(data.test.class_names.iter());
    let real_test = real_features(classifier, &data.test, settings.samples, Some(&mut real));
    Ok(Report {
        samples: settings.samples,
        guidance: settings.guidance,
        sampling: settings.sampling,
        seed: settings.seed,
        training,
        held_out,
        unpaired,
        real,
        frechet: frechet_distance(&Moments::of(&features, d), &real_train),
        frechet_real: frechet_distance(&Moments::of(&real_test, d), &real_train),
    })
}

/// Images sampled and judged at once.
const BATCH: usize = 50;

/// The agreement of one split's samples, and their features [samples, d].
fn judge(
    model: &TextToImage,
    classifier: &Classifier,
    data: &Dataset,
    captions: &Captions,
    split: Split,
    settings: Evaluation,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(Agreement, Vec<f64>), ModelError> {
    let classes = captions.classes();
    let all: Vec<Vec<String>> = (0..classes).map(|class| captions.all(split, class)).collect();
    let prompt = |i: usize| {
        let all = &all[i % classes];
        all[i / classes % all.len()].clone()
    };
    let mut agreement = Agreement::new(data.train.class_names.iter());
    let mut features = Vec::new();
    let numbers: Vec<usize> = (0..settings.samples).collect();
    for chunk in numbers.chunks(BATCH) {
        let prompts = chunk.iter().map(|&i| prompt(i)).collect();
        let request = Request {
            first: chunk[0] as u64,
            guidance: settings.guidance,
            sampling: settings.sampling,
            seed: settings.seed,
            one_noise_each: true,
            ..model.request(prompts)
        };
        let images = model.sample(&request, &mut |_| ControlFlow::Continue(()))?;
        let (found, recognised) = classifier.classify(&images);
        chunk.iter().zip(recognised).for_each(|(i, class)| agreement.count(i % classes, class));
        features.extend(found.to_f64());
        if progress(chunk[0] + chunk.len()).is_break() {
            return Err(ModelError::Stopped);
        }
    }
    Ok((agreement, features))
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
