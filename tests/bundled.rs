//! The models that come with the program: they are what the configs say, and they do what the README says.

use imagen::cascade::{Request, TextToImage, bundled};
use imagen::data::{Captions, DatasetName, Split};
use imagen::diffusion::Sampling;
use imagen::eval::{Agreement, Classifier};
use imagen::text::TextEncoder;
use imagen::text::t5::T5Encoder;
use imagen::train::RunConfig;
use std::ops::ControlFlow;
use std::path::Path;

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
