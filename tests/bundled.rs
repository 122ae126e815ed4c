//! The models that come with the program: they are what the configs say, and they do what the README says.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::cascade::{Cascade, Lead, Request, TextToImage, bundled};
use imagen::data::{Captions, Dataset, DatasetName, Split};
use imagen::diffusion::{Images, Levels, Sampling, ScheduleConfig, q_sample};
use imagen::eval::{Agreement, Classifier};
use imagen::text::TextEncoder;
use imagen::text::t5::T5Encoder;
use imagen::train::RunConfig;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

fn config(name: &str) -> RunConfig {
    RunConfig::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name), &[]).unwrap()
}

#[test]
fn the_models_were_trained_by_the_configs_of_their_names() {
    for model in bundled::ALL {
        let file = &format!("{}.toml", model.name);
        let metadata = model.weights().unwrap().metadata;
        assert_eq!(metadata["config"], config(file).to_json(), "{}", model.name);
        assert_eq!(metadata["step"], config(file).train().steps.to_string(), "{}", model.name);
    }
}

#[test]
fn together_they_are_under_12_mb() {
    let bytes: usize = bundled::ALL.iter().map(|m| m.bytes.len()).sum();
    assert!(bytes < 12_000_000, "{bytes} bytes");
}

/// From a sentence to a digit: the classifier sees in the images what the prompts asked for.
///
/// The agreement over 1000 samples is at least 97 %. Of 40 samples with fewer steps, a model that good gets fewer than 34
/// right with a probability below 1e-3; one that ignores the words gets about 4.
#[test]
fn the_words_decide_which_digit_is_drawn() {
    let model = TextToImage::from_weights(&bundled::MNIST.weights().unwrap()).unwrap();
    let classifier = Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights().unwrap()).unwrap();
    let captions = Captions::of(DatasetName::Mnist);
    let prompts: Vec<String> = (0..10).map(|digit| captions.caption(Split::Training, digit, digit)).collect();
    let defaults = model.request(prompts);
    let request = Request { count: 4, sampling: Sampling { steps: 20, ..defaults.sampling }, seed: 7, ..defaults };
    let images = model.sample(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(**images.shape(), [40, 1, 28, 28]);
    let mut agreement = Agreement::new((0..10).map(|digit| digit.to_string()));
    let (_, recognised) = classifier.classify(&images);
    recognised.iter().enumerate().for_each(|(i, &class)| agreement.count(i / 4, class));
    assert!(agreement.total().agreed >= 34, "{agreement}");
}

// ANCHOR: the_words_decide_which_digit_the_cascade_draws
/// From a sentence to a digit of 32 x 32 pixels, through all three stages, with fewer steps: the classifier sees the middle.
///
/// Of 20 images, a cascade that draws what is asked for 95 times of 100 gets fewer than 15 right with a probability below 1e-3; one
/// that ignores the words gets about 2.
#[test]
fn the_words_decide_which_digit_the_cascade_draws() {
    let model = |stage: bundled::Bundled| TextToImage::from_weights(&stage.weights().unwrap()).unwrap();
    let stages = [bundled::MNIST_BASE8, bundled::MNIST_SR16, bundled::MNIST_SR32];
    let cascade = Cascade::new(stages.map(model).into()).unwrap();
    let classifier = Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights().unwrap()).unwrap();
    let captions = Captions::of(DatasetName::Mnist);
    let prompts: Vec<String> = (0..10).map(|digit| captions.caption(Split::Training, digit, digit)).collect();
    let mut requests = cascade.requests(&prompts, 2, 7);
    requests.iter_mut().zip([20, 10, 10]).for_each(|(request, steps)| request.sampling.steps = steps);
    let drawn = cascade.sample(&requests, None, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(**drawn[2].shape(), [20, 1, 32, 32]);
    let middle = drawn[2].slice(2, 2..30).slice(3, 2..30);
    let (_, recognised) = classifier.classify(&middle);
    let right = recognised.iter().enumerate().filter(|&(i, &class)| class == i / 2).count();
    assert!(right >= 15, "{right} of 20: {recognised:?}");
}
// ANCHOR_END: the_words_decide_which_digit_the_cascade_draws

/// Of 200 test images at every t, a classifier that guesses recognises 36 or more with a probability below 1e-3; and the more noise
/// there is, the fewer can be recognised.
#[test]
fn the_noisy_classifier_recognises_digits_under_noise() {
    let classifier = Classifier::from_weights(&bundled::MNIST_NOISY_CLASSIFIER.weights().unwrap()).unwrap();
    let data = Dataset::load(DatasetName::Mnist, &DatasetName::Mnist.default_folder()).unwrap().test;
    let chosen: Vec<usize> = (0..200).collect();
    let pixels: Vec<f64> = data.batch_f32(&chosen).into_iter().map(f64::from).collect();
    let x0 = Tensor::from_f64([200, 1, 28, 28], &pixels, DType::F32);
    let seeds: Vec<(u64, u64)> = (0..200).map(|i| (1, i)).collect();
    let eps = Images { size: [1, 28, 28], dtype: DType::F32, seeds: &seeds }.start();
    let schedule = ScheduleConfig::Cosine.build();
    let right = [0.2, 0.5, 0.7, 0.8].map(|t| {
        let times = [t; 200];
        let x_t = q_sample(&x0, &eps, &Levels::at(&schedule, &times, DType::F32));
        let (_, seen) = classifier.classify_at(&x_t, &times);
        seen.iter().zip(data.batch_labels(&chosen)).filter(|(seen, label)| *seen == label).count()
    });
    assert!(right.iter().all(|&right| right >= 36), "{right:?}");
    assert!(right.is_sorted_by(|less, more| less >= more) && right[3] < right[0], "{right:?}");
}

/// E1  A model that is told no words draws a three one time in ten: of 20 images, 8 or more with a probability below 1e-3. Led by
/// the classifier from the same noise, it draws more.
#[test]
fn the_noisy_classifier_leads_a_model_without_words() {
    let noisy = Classifier::from_weights(&bundled::MNIST_NOISY_CLASSIFIER.weights().unwrap()).unwrap();
    let model = TextToImage::from_weights(&bundled::MNIST.weights().unwrap()).unwrap().led_by(Arc::new(noisy));
    let judge = Classifier::from_weights(&bundled::MNIST_CLASSIFIER.weights().unwrap()).unwrap();
    let threes = |lead: Option<Lead>| {
        let defaults = model.request(vec![String::new()]);
        let sampling = Sampling { steps: 20, ..defaults.sampling };
        let request = Request { count: 20, guidance: 0.0, sampling, lead, seed: 7, ..defaults };
        let images = model.sample(&request, &mut |_| ControlFlow::Continue(())).unwrap();
        judge.classify(&images).1.iter().filter(|&&class| class == 3).count()
    };
    let (without, led) = (threes(None), threes(Some(Lead { class: 3, scale: 1.0 })));
    assert!(without < 8 && led >= 8, "{without} without, {led} led");
}

/// The encoder, which a model that draws keeps in f16, is small; and what it says of words it was trained on makes sense.
#[test]
fn the_bundled_text_encoder_is_under_3_mb_and_knows_seven_from_eight() {
    let weights = bundled::T5_MINI.weights().unwrap();
    let encoder = T5Encoder::from_weights(&weights, 64).unwrap();
    assert!(2 * encoder.config().encoder_parameters() < 3_000_000);
    let mean = |text: &str| encoder.encode(text).unwrap().mean();
    let distance = |a: &str, b: &str| mean(a).iter().zip(mean(b)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    for (a, same, other) in
        [("seven", "7", "8"), ("VII", "seven", "three"), ("a handwritten 4", "a handwritten four", "a handwritten 9")]
    {
        assert!(distance(a, same) < distance(a, other), "{a}: {same} {other}");
    }
}
