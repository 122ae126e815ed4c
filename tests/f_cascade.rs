//! F. The cascade: images made larger, conditioning augmentation.

mod closed_form;
#[path = "../examples/chapter/components.rs"]
mod components;
mod tiny;

use closed_form::{assert_all_close, assert_close};
use components::components;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::cascade::{
    Cascade, DiffusionConfig, ModelError, Request, SamplingConfig, StageConfig, SuperResolutionConfig, TextToImage,
};
use imagen::data::{self, Batches, Captions, Dataset, DatasetName};
use imagen::diffusion::{
    Images, Levels, LowRes, SamplerKind, Sampling, Schedule, ScheduleConfig, Target, Threshold, Weighting, loss,
    q_sample,
};
use imagen::random::{Purpose, normal, stream};
use imagen::text::TextEncoderConfig;
use imagen::train::{DiffusionRun, DiffusionTask, Task};
use imagen::unet::{Condition, TextConfig, UNetConfig};
use proptest::prelude::*;
use rand::RngExt;
use std::ops::ControlFlow;

/// Numbers from N(0, 1) as images.
fn images(index: u64, shape: [usize; 4], dtype: DType) -> Tensor {
    Tensor::from_f64(shape, &normal(3, Purpose::Test, 0, index, shape.iter().product()), dtype)
}

fn unet(low_res: bool) -> UNetConfig {
    UNetConfig {
        image_channels: 1,
        base_channels: 8,
        channel_multipliers: vec![1, 2],
        blocks: 1.into(),
        attention: vec![false, true],
        heads: 2,
        groups: 4,
        scale_shift: true,
        text: Some(TextConfig { dim: 6 }),
        low_res,
        ..UNetConfig::mnist28()
    }
}

/// A model of images with that side, which makes them from ones of half the side if `larger` is set. Its weights are not those
/// of a fresh one, which predicts nothing.
fn stage(side: usize, larger: bool, threshold: Threshold) -> TextToImage {
    let config = StageConfig {
        image: [1, side, side],
        text: Some(TextEncoderConfig::HashedWords { dim: 6, seed: 0, max_words: 32 }),
        super_resolution: larger.then_some(SuperResolutionConfig { factor: 2, aug: 0.2, train_aug: 1.0, crop: None }),
        unet: unet(larger),
        diffusion: DiffusionConfig {
            schedule: ScheduleConfig::Cosine,
            target: Target::V,
            weighting: Weighting::Simple,
            drop_text: 0.1,
            time: None,
            variance: None,
            vlb_weight: None,
        },
        sampling: SamplingConfig {
            guidance: 2.0,
            method: Sampling { steps: 3, sampler: SamplerKind::Ddim { eta: 0.5 }, threshold },
        },
    };
    let model = TextToImage::new(config, side as u64).unwrap();
    for (i, param) in model.parameters().iter().enumerate() {
        let shape = param.shape();
        let noise =
            Array::from_f64(shape.clone(), &normal(9, Purpose::Test, side as u64, i as u64, shape.numel()), DType::F32);
        param.update(|value| *value = &*value + &noise.affine(0.1, 0.0));
    }
    model
}

fn go_on(_: imagen::diffusion::Step<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

proptest! {
    // ANCHOR: f2_signal_and_noise_of_z_aug_are_those_of_the_schedule
    // F2  z_aug = alpha(aug) x_lr + sigma(aug) eps: the signal-to-noise ratio of z_aug is the schedule's, alpha^2 / sigma^2.
    //     What the image alone gives is alpha times it, what the noise alone gives sigma times it, and the two add up.
    #[test]
    fn f2_signal_and_noise_of_z_aug_are_those_of_the_schedule(aug in 0.001..1.0) {
        let schedule = ScheduleConfig::Cosine.build();
        let (low, eps) = (images(0, [1, 2, 4, 4], DType::F64), images(1, [1, 2, 4, 4], DType::F64));
        let nothing = &low * 0.0;
        let z = |low: &Tensor, eps: &Tensor| LowRes::augmented(low, eps, &[aug], &schedule, [4, 4]).images.to_f64();
        let power = |z: &[f64]| z.iter().map(|v| v * v).sum::<f64>();
        let (signal, noise) = (z(&low, &nothing), z(&nothing, &eps));
        let ratio = power(&signal) / power(&noise) * power(&eps.to_f64()) / power(&low.to_f64());
        assert_close(ratio.ln(), schedule.log_snr(aug), 1e-9);
        let sum: Vec<f64> = signal.iter().zip(&noise).map(|(a, b)| a + b).collect();
        assert_all_close(&z(&low, &eps), &sum, 1e-12);
    }
    // ANCHOR_END: f2_signal_and_noise_of_z_aug_are_those_of_the_schedule
}

// ANCHOR: f2_no_augmentation_leaves_the_image_untouched
// F2  aug = 0 leaves the image untouched, to the last bit; of a batch each image has its own aug.
#[test]
fn f2_no_augmentation_leaves_the_image_untouched() {
    let schedule = ScheduleConfig::Cosine.build();
    let (low, eps) = (images(0, [2, 1, 4, 4], DType::F32), images(1, [2, 1, 4, 4], DType::F32));
    let shown = LowRes::augmented(&low, &eps, &[0.0, 0.7], &schedule, [4, 4]);
    assert_eq!(shown.aug, [0.0, 0.7]);
    assert!(shown.images.slice(0, 0..1).array().bit_eq(low.slice(0, 0..1).array()));
    assert_ne!(shown.images.to_f64()[16..], low.to_f64()[16..]);
    // Then it is resized: an image of one shade stays one.
    let flat = LowRes::augmented(&(&low * 0.0).affine(1.0, 0.3), &eps, &[0.0; 2], &schedule, [12, 8]);
    assert_eq!(**flat.images.shape(), [2, 1, 12, 8]);
    assert_all_close(&flat.images.to_f64(), &[f64::from(0.3_f32); 192], 1e-6);
}
// ANCHOR_END: f2_no_augmentation_leaves_the_image_untouched

// ANCHOR: f1_a_prediction_depends_on_the_small_image_and_its_noise
// F1  The network is shown the small image at every pixel, as further channels: what it says depends on the image and on how
//     noisy that is, and each image of a batch on its own alone.
#[test]
fn f1_a_prediction_depends_on_the_small_image_and_its_noise() {
    let model = stage(8, true, Threshold::Static);
    let x = images(2, [2, 1, 8, 8], DType::F32);
    let schedule = ScheduleConfig::Cosine.build();
    let says = |low: &Tensor, aug: [f64; 2]| {
        let low = LowRes { aug: aug.to_vec(), ..LowRes::augmented(low, &(low * 0.0), &[0.0; 2], &schedule, [8, 8]) };
        no_grad(|| model.unet().forward(&x, &[0.5; 2], Some(&Condition::low_res(low)))).to_f64()
    };
    let low = images(3, [2, 1, 4, 4], DType::F32);
    let other = Tensor::from_f64([2, 1, 4, 4], &[low.to_f64()[..16].to_vec(), vec![0.5; 16]].concat(), DType::F32);
    let (plain, changed, noisy) = (says(&low, [0.1, 0.1]), says(&other, [0.1, 0.1]), says(&low, [0.1, 0.9]));
    for differs in [changed, noisy] {
        assert_eq!(plain[..64], differs[..64], "an image does not see the others of its batch");
        assert_ne!(plain[64..], differs[64..]);
    }
}
// ANCHOR_END: f1_a_prediction_depends_on_the_small_image_and_its_noise

// ANCHOR: f2_sampling_builds_the_input_of_training
// F2  Training and sampling show the network the very same thing: both are written out here with `LowRes::augmented`, and agree
//     to the last bit.
#[test]
fn f2_sampling_builds_the_input_of_training() {
    let model = stage(8, true, Threshold::None);
    let low = images(4, [1, 1, 4, 4], DType::F32).clamp(-1.0, 1.0);
    let one_step = Sampling { steps: 1, sampler: SamplerKind::Ddim { eta: 0.0 }, threshold: Threshold::None };
    let request =
        Request { guidance: 1.0, sampling: one_step, seed: 5, aug: Some(0.3), ..model.request(vec!["a two".into()]) };
    let found = model.enlarge(&request, &low, &mut go_on).unwrap();

    let keys = |side| Images { size: [1, side, side], dtype: DType::F32, seeds: &[(5, 0)] };
    let shown = LowRes::augmented(&low, &keys(4).noise_for(Purpose::Augmentation), &[0.3], model.schedule(), [8, 8]);
    let condition = Condition::with_low_res(model.encode(&["a two".into()]).unwrap(), shown);
    let x_t = keys(8).start();
    let v = no_grad(|| model.unet().forward(&x_t, &[1.0], Some(&condition)));
    // The step from t = 1 to 0 returns x_hat_0.
    let expected = Target::V.to_x0(&v, &x_t, &Levels::at(model.schedule(), &[1.0], DType::F32));
    assert!(found.array().bit_eq(expected.array()));
}
// ANCHOR_END: f2_sampling_builds_the_input_of_training

/// Twenty random images of 8 x 8 pixels; labels go round.
fn data() -> Dataset {
    let pixels =
        normal(8, Purpose::Test, 0, 0, 20 * 64).into_iter().map(|v| (128.0 + 60.0 * v).clamp(0.0, 255.0) as u8);
    let part = data::Images {
        pixels: pixels.collect(),
        labels: (0..20).map(|i| i % 10).collect(),
        channels: 1,
        height: 8,
        width: 8,
        class_names: DatasetName::Mnist.class_names().iter().map(|name| name.to_string()).collect(),
    };
    Dataset { train: part.clone(), test: part }
}

// ANCHOR: f2_training_builds_the_input_of_sampling
// F2  The loss of a step, written out with the same function: low-resolution images are the means of squares of pixels, each with
//     an aug ~ U(0, 1) of its own.
#[test]
fn f2_training_builds_the_input_of_sampling() {
    let augs = assert_training_builds_the_input("factor = 2", 1.0, None);
    assert!(augs.windows(2).all(|pair| pair[0] != pair[1]), "{augs:?}");
}
// ANCHOR_END: f2_training_builds_the_input_of_sampling

// ANCHOR: f2_training_with_less_noise_and_on_crops
// F2  So it is with less noise at most, with none at all (the whole part can be taken out), and on a square cut out of each image.
#[test]
fn f2_training_with_less_noise_and_on_crops() {
    let augs = assert_training_builds_the_input("factor = 2, train_aug = 0.25", 0.25, None);
    assert!(augs.iter().all(|aug| *aug < 0.25));
    assert_training_builds_the_input("factor = 2, train_aug = 0.0", 0.0, None);
    assert_training_builds_the_input("factor = 2, crop = 4", 1.0, Some(4));
}
// ANCHOR_END: f2_training_with_less_noise_and_on_crops

// ANCHOR: assert_training_builds_the_input
/// Writes out three losses of a super-resolution model with these settings; the amounts of noise in them.
fn assert_training_builds_the_input(settings: &str, most: f64, crop: Option<usize>) -> Vec<f64> {
    let settings = format!("super_resolution = {{ {settings} }}");
    let config = tiny::TINY.replacen("task = \"diffusion\"", &settings, 1).replacen(
        "image_channels = 1",
        "image_channels = 1\nlow_res = true",
        1,
    );
    let run: DiffusionRun = toml::from_str(&config).unwrap();
    let task = DiffusionTask::new(run.clone(), data()).unwrap();
    let model = TextToImage::new(run.stage([1, 8, 8]), run.seed).unwrap();
    let (seed, schedule) = (run.seed, model.schedule());
    let side = crop.unwrap_or(8);
    let half = side / 2;
    let mut augs = Vec::new();
    for step in 0..3 {
        let chosen = Batches::new(20, run.train.batch, seed).indices(step);
        let b = chosen.len();
        let whole: Vec<f64> = data().train.batch_f32(&chosen).into_iter().map(f64::from).collect();
        let mut parts = Vec::new();
        for i in 0..b {
            // Where the square begins: at an even number, as the smaller image has pixels.
            let mut place = stream(seed, Purpose::Crop, step, i as u64);
            let [top, left] = [(); 2].map(|()| 2 * place.random_range(0..=4 - half));
            let pixels = (0..side * side).map(|k| whole[i * 64 + (top + k / side) * 8 + left + k % side]);
            parts.extend(pixels);
        }
        let x0 = Tensor::from_f64([b, 1, side, side], &parts, DType::F32);
        let of_each =
            |purpose, n| -> Vec<f64> { (0..b as u64).flat_map(|i| normal(seed, purpose, step, i, n)).collect() };
        let uniform =
            |purpose| -> Vec<f64> { (0..b as u64).map(|i| stream(seed, purpose, step, i).random()).collect() };
        let t: Vec<f64> = uniform(Purpose::Time).iter().map(|u| 1.0 - u).collect();
        let eps = Tensor::from_f64([b, 1, side, side], &of_each(Purpose::Noise, side * side), DType::F32);
        let aug: Vec<f64> = uniform(Purpose::AugmentationTime).iter().map(|u| most * u).collect();
        let low = Tensor::from_f64([b, 1, half, half], &squares(&x0.to_f64(), side), DType::F32);
        let noise = Tensor::from_f64([b, 1, half, half], &of_each(Purpose::Augmentation, half * half), DType::F32);
        let shown = LowRes::augmented(&low, &noise, &aug, schedule, [side; 2]);

        let captions = Captions::of(DatasetName::Mnist);
        let label = |i: usize| usize::from(data().train.labels[chosen[i]]);
        let words: Vec<String> = (0..b).map(|i| captions.pick(seed, step, i as u64, label(i))).collect();
        let keep = uniform(Purpose::Drop).iter().map(|&u| u >= run.diffusion.drop_text).collect();
        let condition = model.encode(&words).unwrap().map(|texts| texts.with_dropped(keep));
        let condition = Condition::with_low_res(condition, shown);
        let x_t = q_sample(&x0, &eps, &Levels::at(schedule, &t, DType::F32));
        let prediction = model.unet().forward(&x_t, &t, Some(&condition));
        let expected = loss(&prediction, &x0, &eps, &t, schedule, Target::V, Weighting::Simple).mean;
        assert_close(task.loss(step).unwrap().item(), expected.item(), 1e-6);
        augs.extend(aug);
    }
    augs
}
// ANCHOR_END: assert_training_builds_the_input

/// The means of squares of 2 x 2 pixels, of images of side x side.
fn squares(x: &[f64], side: usize) -> Vec<f64> {
    let half = side / 2;
    let at = |i: usize, y: usize, x_: usize| x[i * side * side + y * side + x_];
    let mean = |i: usize, y: usize, x_: usize| {
        (at(i, 2 * y, 2 * x_) + at(i, 2 * y, 2 * x_ + 1) + at(i, 2 * y + 1, 2 * x_) + at(i, 2 * y + 1, 2 * x_ + 1))
            / 4.0
    };
    (0..x.len() / 4).map(|k| mean(k / (half * half), k / half % half, k % half)).collect()
}

// F  Images are framed with black on all sides, and shrunk by taking the mean of squares, rounded.
#[test]
fn images_are_framed_and_shrunk() {
    let part = data().train;
    let large = part.clone().resized(Some(12), None).unwrap();
    assert_eq!((large.height, large.width, large.len()), (12, 12, 20));
    for (y, x) in (0..12).flat_map(|y| (0..12).map(move |x| (y, x))) {
        let inside = (2..10).contains(&y) && (2..10).contains(&x);
        let expected = if inside { part.image(3)[(y - 2) * 8 + x - 2] } else { 0 };
        assert_eq!(large.image(3)[y * 12 + x], expected);
    }
    let small = part.clone().resized(None, Some(4)).unwrap();
    let exact = squares(&part.image(7).iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), 8);
    assert!(small.image(7).iter().zip(exact).all(|(&v, mean)| f64::from(v) == (mean + 1e-9).round()));
    assert_eq!(part.clone().resized(None, None).unwrap(), part);
    for (pad, resolution, why) in [
        (Some(7), None, "8x8 cannot be framed to 7x7"),
        (None, Some(3), "8x8 cannot be shrunk to 3x3"),
        (Some(12), Some(0), "12x12 cannot be shrunk to 0x0"),
        (Some(1 << 40), None, "cannot be framed"),
        (Some(1 << 15), None, "cannot be framed"),
    ] {
        let error = part.clone().resized(pad, resolution).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

// ANCHOR: a_cascade_is_its_stages_one_after_the_other
// F  Every stage is shown what the one before it drew, and a cascade is nothing but its stages.
#[test]
fn a_cascade_is_its_stages_one_after_the_other() {
    let stages =
        || vec![stage(4, false, Threshold::Static), stage(8, true, Threshold::None), stage(16, true, Threshold::None)];
    let cascade = Cascade::new(stages()).unwrap();
    let requests = cascade.requests(&["a seven".into(), "a two".into()], 2, 1);
    let mut seen = Vec::new();
    let mut watch = |stage: usize, step: imagen::diffusion::Step<'_>| {
        seen.push((stage, step.index, step.x_t.shape()[2]));
        ControlFlow::Continue(())
    };
    let drawn = cascade.sample(&requests, None, &mut watch).unwrap();
    let expected: Vec<(usize, usize, usize)> =
        [4, 8, 16].iter().enumerate().flat_map(|(i, &side)| (0..3).map(move |step| (i, step, side))).collect();
    assert_eq!(seen, expected);
    let sizes: Vec<Vec<usize>> = drawn.iter().map(|t| t.shape().to_vec()).collect();
    assert_eq!(sizes, [[4, 1, 4, 4], [4, 1, 8, 8], [4, 1, 16, 16]]);
    let alone = stages();
    let first = alone[0].sample(&requests[0], &mut go_on).unwrap();
    let second = alone[1].enlarge(&requests[1], &first, &mut go_on).unwrap();
    assert!(drawn[0].array().bit_eq(first.array()) && drawn[1].array().bit_eq(second.array()));
    // What leaves the range of images is brought back: no network was ever shown such an image.
    assert!(second.to_f64().iter().any(|v| v.abs() > 1.0));
    let third = alone[2].enlarge(&requests[2], &second.clamp(-1.0, 1.0), &mut go_on).unwrap();
    assert!(drawn[2].array().bit_eq(third.array()));
    // The last two alone make real images larger.
    let upper = Cascade::new(alone.into_iter().skip(1).collect()).unwrap();
    let again = upper.sample(&requests[1..], Some(&first), &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(again[1].array().bit_eq(drawn[2].array()));
    // Two stages have not the same noise: the larger would begin with that of the smaller.
    assert!(requests[0].seed != requests[1].seed && requests[1].seed != requests[2].seed);
}
// ANCHOR_END: a_cascade_is_its_stages_one_after_the_other

#[test]
fn stages_that_do_not_fit_are_an_error_that_says_why() {
    let of = |stages: Vec<TextToImage>| Cascade::new(stages).err().map(|e| e.to_string()).unwrap_or_default();
    let stage = |side, larger| stage(side, larger, Threshold::Static);
    assert_eq!(of(vec![]), "cascade: there is no stage");
    assert!(of(vec![stage(4, false), stage(8, false)]).contains("stage 2 does not make images larger"));
    assert!(
        of(vec![stage(4, false), stage(16, true)])
            .contains("makes images of [1, 8, 8] larger, stage 1 draws [1, 4, 4]")
    );
    // What a later stage cannot do is said before the first has drawn.
    let cascade = Cascade::new(vec![stage(4, false), stage(8, true)]).unwrap();
    let mut requests = cascade.requests(&["two".into()], 1, 1);
    requests[1].sampling.sampler = SamplerKind::AncestralLearned {};
    let refused = cascade.sample(&requests, None, &mut |_, _| panic!("something was drawn"));
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("cascade: stage 2") && said.contains("has not learned its variance"), "{said}");
    let wrongly = |said: &str, change: &dyn Fn(&mut Request)| {
        let mut requests = cascade.requests(&["two".into()], 1, 1);
        change(&mut requests[1]);
        let refused = cascade.sample(&requests, None, &mut |_, _| panic!("something was drawn"));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("cascade: stage 2") && message.contains(said), "{message}");
    };
    wrongly("eta = 5", &|request| request.sampling.sampler = SamplerKind::Ddim { eta: 5.0 });
    wrongly("aug must be between 0 and 1", &|request| request.aug = Some(2.0));
    wrongly("other prompts", &|request| request.count = 2);
    wrongly("other prompts", &|request| request.prompts = vec!["three".into()]);
    let (base, larger) = (stage(4, false), stage(8, true));
    let message = |result: Result<Tensor, ModelError>| result.unwrap_err().to_string();
    let low = |side: usize| Tensor::from_f64([1, 1, side, side], &vec![0.0; side * side], DType::F32);
    let ask = |model: &TextToImage, aug| Request { aug, ..model.request(vec!["two".into()]) };
    assert!(message(larger.sample(&ask(&larger, None), &mut go_on)).contains("was given none"));
    assert!(message(base.enlarge(&ask(&base, None), &low(2), &mut go_on)).contains("does not make images larger"));
    assert!(
        message(larger.enlarge(&ask(&larger, None), &low(8), &mut go_on))
            .contains("[1, 1, 4, 4] larger, not of [1, 1, 8, 8]")
    );
    assert!(
        message(larger.enlarge(&ask(&larger, Some(1.5)), &low(4), &mut go_on)).contains("aug must be between 0 and 1")
    );
}

// ANCHOR: f_nested_draws_find_what_every_stage_adds
// F  An image is x = a + b + c: of two a's there are two b's each, of each b two c's, as a cascade draws several images from one.
//    Every part is + or - its deviation, as probable the one as the other; over all 2^14 ways the mean is the expectation itself.
#[test]
fn f_nested_draws_find_what_every_stage_adds() {
    let own = [0.9, 0.5, 0.2];
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let variance = |x: &[f64]| x.iter().map(|v| (v - mean(x)).powi(2)).sum::<f64>() / x.len() as f64;
    let pairs = |x: &[f64]| -> Vec<f64> { x.chunks(2).map(mean).collect() };
    let within = |x: &[f64]| mean(&x.chunks(2).map(variance).collect::<Vec<_>>());
    let mut found = [0.0; 3];
    for signs in 0..1_u32 << 14 {
        let sign = |place: usize| if signs >> place & 1 == 1 { 1.0 } else { -1.0 };
        let part = |i: usize| [own[0] * sign(i / 4), own[1] * sign(2 + i / 2), own[2] * sign(6 + i)];
        let x: Vec<f64> = (0..8).map(|i| part(i).iter().sum()).collect();
        let (of_b, of_a) = (pairs(&x), pairs(&pairs(&x)));
        // The variance of all is that between groups and that within them, whatever the numbers are.
        assert_close(variance(&x), variance(&of_a) + within(&of_b) + within(&x), 1e-12);
        let images: Vec<Vec<f64>> = x.iter().map(|&pixel| vec![pixel]).collect();
        let parts = components(&images, &[2, 2, 2]);
        // V of (16.3): of n = 2 numbers, the sum of squares over n - 1 is twice the variance.
        let v = [2.0 * variance(&of_a), 2.0 * within(&of_b), 2.0 * within(&x)];
        assert_all_close(&parts, &[v[0] - v[1] / 2.0, v[1] - v[2] / 2.0, v[2]], 1e-12);
        found.iter_mut().zip(parts).for_each(|(found, part)| *found += part / f64::from(1 << 14));
    }
    assert_all_close(&found, &own.map(|deviation| deviation * deviation), 1e-12);
}
// ANCHOR_END: f_nested_draws_find_what_every_stage_adds

// F  Groups need not be pairs, and of several pixels the mean counts. Here 0, 1, 2 have the mean 1 and the variance 1; 10, 12, 14
//    the mean 12 and the variance 4; 1 and 12 the variance 121 / 2, of which (1 + 4) / 2 / 3 is what three numbers leave in a mean.
#[test]
fn components_are_means_over_pixels_of_groups_of_any_size() {
    let pixels = [0.0, 1.0, 2.0, 10.0, 12.0, 14.0];
    let images = pixels.map(|pixel| vec![pixel, 5.0]);
    assert_all_close(&components(&images, &[2, 3]), &[(60.5 - 2.5 / 3.0) / 2.0, 2.5 / 2.0], 1e-12);
}
