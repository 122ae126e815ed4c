//! Sampling with the network: an image depends on its own noise and its own words, not on the batch it is drawn in.

use super::{assert_same_bits, awake, captions, largest_difference, row, tiny, wake};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{DiffusionConfig, Edit, Lead, Request, SamplingConfig, StageConfig, TextToImage};
use imagen::diffusion::{
    ClassifierFree, DiscreteSchedule, Guided, Images, NoisyClassifier, Sampler, SamplerKind, Sampling, ScheduleConfig,
    Target, Threshold, Weighting,
};
use imagen::eval::{Classifier, ClassifierConfig};
use imagen::nn::{Init, Weights};
use imagen::random::{Purpose, normal};
use imagen::text::TextEncoderConfig;
use imagen::unet::UNetConfig;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const KINDS: [SamplerKind; 2] = [SamplerKind::Ddim { eta: 0.5 }, SamplerKind::Ancestral { gamma: 0.3 }];

fn settings(sampler: SamplerKind) -> Sampling {
    Sampling { steps: 4, sampler, threshold: Threshold::dynamic(95.0) }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let (net, _) = awake(UNetConfig { text: None, ..tiny() }, DType::F32);
    let schedule = DiscreteSchedule::cosine(1000);
    for kind in KINDS {
        let draw = |seeds: &[(u64, u64)]| -> Array {
            let (schedule, settings) = (&schedule, settings(kind));
            let sampler = Sampler { schedule, denoiser: &net, target: Target::V, condition: &None, settings };
            let images = Images { size: [1, 8, 8], dtype: DType::F32, seeds };
            sampler.sample(&images, &mut |_| ControlFlow::Continue(())).unwrap().into_array()
        };
        let seeds: Vec<(u64, u64)> = (0..5).map(|i| (3, i)).collect();
        let together = draw(&seeds);
        for (i, &seed) in seeds.iter().enumerate() {
            assert_same_bits(&draw(&[seed]), &row(&together, i), &format!("{kind:?}, image {i}"));
        }
        assert!(largest_difference(&row(&together, 0), &row(&together, 1)) > 0.1, "noises differ, so do images");
    }
}

#[test]
fn guidance_with_dropped_text_as_null_is_guidance_without_text() {
    let (net, _) = awake(tiny(), DType::F32);
    let schedule = DiscreteSchedule::cosine(1000);
    let words = captions(&[3, 1], 3);
    let draw = |null| {
        let condition = Guided { condition: Some(words.clone()), null };
        let denoiser = &ClassifierFree { denoiser: &net, weight: 3.0 };
        let (schedule, settings) = (&schedule, settings(KINDS[0]));
        let sampler = Sampler { schedule, denoiser, target: Target::V, condition: &condition, settings };
        let images = Images { size: [1, 8, 8], dtype: DType::F32, seeds: &[(1, 0), (1, 1)] };
        sampler.sample(&images, &mut |_| ControlFlow::Continue(())).unwrap().into_array()
    };
    assert_same_bits(&draw(None), &draw(Some(words.clone().with_dropped(vec![false; 2]))), "null");
}

fn model() -> TextToImage {
    let config = StageConfig {
        image: [1, 8, 8],
        text: Some(TextEncoderConfig::HashedWords { dim: super::TEXT_DIM, seed: 0, max_words: 32 }),
        super_resolution: None,
        unet: tiny(),
        diffusion: DiffusionConfig {
            schedule: ScheduleConfig::Cosine,
            target: Target::V,
            weighting: Weighting::Simple,
            drop_text: 0.1,
            time: None,
            variance: None,
            vlb_weight: None,
        },
        sampling: SamplingConfig { guidance: 2.0, method: settings(KINDS[0]) },
    };
    let model = TextToImage::new(config, 0).unwrap();
    wake(model.parameters(), |_| true);
    model
}

fn draw(model: &TextToImage, request: &Request) -> Array {
    model.sample(request, &mut |_| ControlFlow::Continue(())).unwrap().into_array()
}

/// Seventeen images a prompt are more than are sampled at once, so batches of several prompts and counts come up.
#[test]
fn a_picture_does_not_depend_on_the_pictures_it_is_asked_for_with() {
    let model = model();
    let prompts = ["seven", "a rather large and very carefully written two", "the digit 4"].map(String::from);
    let all = Request { count: model.batch() + 1, ..model.request(prompts.to_vec()) };
    let together = draw(&model, &all);
    assert_eq!(together.shape()[0], 3 * all.count);
    for (p, prompt) in prompts.iter().enumerate() {
        for number in [0, 5, all.count - 1] {
            let one = Request { prompts: vec![prompt.clone()], count: 1, first: number as u64, ..all.clone() };
            let what = format!("{prompt:?}, image {number}");
            assert_same_bits(&draw(&model, &one), &row(&together, p * all.count + number), &what);
        }
    }
    let words_alone = largest_difference(&row(&together, 0), &row(&together, all.count));
    assert!(words_alone > 1e-3, "the same noise with other words is another picture");
}

/// w eps(p) + (1 - w) eps(n): with the prompt itself for n the weight has no say, and another n leads elsewhere than none.
#[test]
fn guidance_leads_away_from_the_negative_prompt() {
    let model = model();
    let drawn = |guidance: f64, negative: Option<&str>| {
        let negative = negative.map(String::from);
        draw(&model, &Request { guidance, negative, ..model.request(vec!["a seven".into(), "a two".into()]) })
    };
    let plain = drawn(1.0, None);
    assert_same_bits(&plain, &drawn(1.0, Some("a nine")), "a weight of 1 asks with the prompt alone");
    let away = drawn(3.0, Some("a seven"));
    let [seven, two] = [0, 1].map(|i| largest_difference(&row(&plain, i), &row(&away, i)));
    assert!(seven < 1e-4 && two > 1e-3, "{seven} {two}");
    assert!(largest_difference(&away, &drawn(3.0, None)) > 1e-3);
}

fn judge() -> Classifier {
    let noise = Some(ScheduleConfig::Cosine);
    let config =
        ClassifierConfig { image_channels: 1, image_size: 8, channels: vec![8, 8], features: 6, classes: 3, noise };
    let init = Init::new(5, DType::F32);
    let judge = Classifier::new(config, &init).unwrap();
    wake(&init.parameters(), |_| true);
    judge
}

/// The classifier has learnt nothing, but it says something of every image, and the samples go where it says it more.
#[test]
fn a_classifier_leads_towards_its_class() {
    let judge = Arc::new(judge());
    let model = model().led_by(judge.clone());
    let request = Request { count: 3, ..model.request(vec!["a seven".into()]) };
    let led = |class, scale| draw(&model, &Request { lead: Some(Lead { class, scale }), ..request.clone() });
    assert_same_bits(&led(0, 0.0), &draw(&model, &request), "a scale of 0 is no guidance");
    let says = |images: Array, class| {
        let log_p = no_grad(|| judge.log_p(&Tensor::constant(images), &[0.0; 3], &[class; 3]));
        log_p.mean_all().item()
    };
    for class in 0..3 {
        let [from, to] = [0.0, 20.0].map(|scale| says(led(class, scale), class));
        assert!(to > from + 0.01, "class {class}: {from} {to}");
    }
}

/// Images do not see each other, and the classifier is told the time.
#[test]
fn log_p_is_that_of_each_image_at_its_time() {
    let judge = judge();
    let x = Tensor::from_f64([2, 1, 8, 8], &normal(1, Purpose::Test, 0, 0, 128), DType::F32);
    let log_p = |x: &Tensor, t: &[f64], y: &[usize]| judge.log_p(x, t, y).to_f64();
    let both = log_p(&x, &[0.2, 0.9], &[2, 0]);
    for (i, (t, y)) in [(0.2, 2), (0.9, 0)].into_iter().enumerate() {
        assert_eq!(log_p(&x.slice(0, i..i + 1), &[t], &[y]), both[i..=i]);
    }
    assert!((log_p(&x, &[0.9, 0.9], &[2, 0])[0] - both[0]).abs() > 1e-3, "the time matters");
    let sum: f64 = (0..3).map(|y| log_p(&x, &[0.5; 2], &[y; 2])[1].exp()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
}

#[test]
fn what_cannot_lead_is_an_error() {
    let lead = |class, scale| Some(Lead { class, scale });
    let model = model();
    let error = |model: &TextToImage, lead| {
        let request = Request { lead, ..model.request(vec!["seven".into()]) };
        model.sample(&request, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    assert!(error(&model, lead(0, 1.0)).contains("it was given none"));
    let model = model.led_by(Arc::new(judge()));
    assert!(error(&model, lead(3, 1.0)).contains("class 3 is not one of the 3"));
    assert!(error(&model, lead(0, f64::NAN)).contains("must be a number"));
}

/// [3, 1, 8, 8]: the images that a request draws, to be changed by others.
fn drawn_first(model: &TextToImage) -> (Request, Tensor) {
    let request = Request { count: 3, ..model.request(vec!["a two".into()]) };
    let images = Tensor::constant(draw(model, &Request { seed: 9, ..request.clone() }));
    (request, images)
}

#[test]
fn what_the_mask_covers_stays_and_the_rest_follows_words_and_noise() {
    let model = model();
    let (request, images) = drawn_first(&model);
    let stays: Vec<f64> = (0..64).map(|i| f64::from(u8::from(i % 8 < 4))).collect();
    let mask = Tensor::from_f64([1, 1, 8, 8], &stays, DType::F32);
    let edited = |request: &Request, rounds| {
        let edit = Edit::Inpaint { mask: mask.clone(), rounds };
        model.edit(request, &images, &edit, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let halves = |images: &Tensor| {
        let parts = images.split(3, &[4, 4]);
        (parts[0].to_f64(), parts[1].to_f64())
    };
    let ((left, right), (given, before)) = (halves(&edited(&request, 2)), halves(&images));
    assert!(left == given && right != before);
    for other in [edited(&Request { seed: 5, ..request.clone() }, 2), edited(&request, 3)] {
        let (still, otherwise) = halves(&other);
        assert!(still == given && otherwise != right);
    }
    let words = Request { prompts: vec!["a nine".into()], ..request.clone() };
    assert_ne!(halves(&edited(&words, 2)).1, right);
}

#[test]
fn an_image_drawn_anew_from_more_noise_is_more_another() {
    let model = model();
    let (request, images) = drawn_first(&model);
    let change = |start| {
        let edited = model.edit(&request, &images, &Edit::Renoise { start }, &mut |_| ControlFlow::Continue(()));
        (&edited.unwrap() - &images).square().mean_all().item()
    };
    let [little, much] = [0.02, 0.9].map(change);
    assert!(little > 0.0 && little < much, "{little} {much}");
}

#[test]
fn changes_that_do_not_fit_are_errors_that_say_why() {
    let model = model();
    let (request, images) = drawn_first(&model);
    let says = |images: &Tensor, edit: Edit| {
        model.edit(&request, images, &edit, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    let mask = |side: usize| Tensor::from_f64([1, 1, side, side], &vec![1.0; side * side], DType::F32);
    assert!(
        says(&images.slice(0, 0..2), Edit::Renoise { start: 0.5 })
            .contains("images of [3, 1, 8, 8], not of [2, 1, 8, 8]")
    );
    for start in [0.0, 1.5, f64::NAN] {
        assert!(says(&images, Edit::Renoise { start }).contains("a time above 0, at most 1"));
    }
    assert!(says(&images, Edit::Inpaint { mask: mask(8), rounds: 0 }).contains("at least once"));
    assert!(says(&images, Edit::Inpaint { mask: mask(4), rounds: 1 }).contains("must be of [1, 1, 8, 8]"));
}

#[test]
fn a_model_read_back_draws_the_same() {
    let model = model();
    let metadata = [("stage".to_string(), serde_json::to_string(model.config()).unwrap())].into();
    let bytes = Weights { tensors: model.parameters().values(), metadata }.to_bytes(false);
    let read = TextToImage::from_weights(&Weights::parse(&bytes, Path::new("model")).unwrap()).unwrap();
    assert_eq!(read.config(), model.config());
    let request = model.request(vec!["a two".into()]);
    assert_same_bits(&draw(&model, &request), &draw(&read, &request), "read back");
}
