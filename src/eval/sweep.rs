//! The same images under many settings: what guidance, thresholding and conditioning augmentation do.

use super::{Judge, Share};
use crate::array::Array;
use crate::autograd::Tensor;
use crate::cascade::{Cascade, ModelError, Request};
use crate::data::{Images, Split};
use crate::diffusion::Threshold;
use crate::picture::{Chart, Curve, charts};
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};

/// What is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepSettings {
    /// Images for each setting.
    pub samples: usize,
    /// Keys the noise: every setting starts from the same.
    pub seed: u64,
    /// Which stage is sampled otherwise, from 0; none means all of them.
    pub stage: Option<usize>,
    /// Guidance weights w (E2); empty for those that the stages are sampled with.
    pub guidance: Vec<f64>,
    /// Ways of thresholding (E3); empty for those that the stages are sampled with.
    pub thresholds: Vec<Threshold>,
    /// Amounts of noise on the smaller images (F2); empty for those that the stages are sampled with.
    pub aug: Vec<f64>,
}

/// One setting, and what came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SweepPoint {
    /// Guidance weight w, if it was varied.
    pub guidance: Option<f64>,
    /// The thresholding, if it was varied.
    pub threshold: Option<Threshold>,
    /// The noise on the smaller images, if it was varied.
    pub aug: Option<f64>,
    /// The agreement with captions seen in training.
    pub agreement: Share,
    /// The Fréchet distance of the same images to the real training images.
    pub frechet: f64,
}

/// What a sweep found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// Images for each setting.
    pub samples: usize,
    /// Keys the noise.
    pub seed: u64,
    /// Which stage was varied, from 0; none means all of them.
    pub stage: Option<usize>,
    /// Whether the first stage was left out, and real images were made larger.
    pub from_real: bool,
    /// Every setting: thresholds one after the other, in each amounts of noise, in each weights.
    pub points: Vec<SweepPoint>,
    /// The agreement of as many real test images.
    pub real: Share,
    /// Their Fréchet distance.
    pub frechet_real: f64,
}

impl SweepPoint {
    /// How it was thresholded; empty if that was not varied.
    pub fn threshold_name(&self) -> &'static str {
        match self.threshold {
            None => "",
            Some(Threshold::None) => "none",
            Some(Threshold::Static) => "static",
            Some(Threshold::Dynamic { .. }) => "dynamic",
        }
    }
}

impl Sweep {
    /// Three charts as one SVG: the distance against the agreement (as in Imagen, figure 4c), and both against what was varied
    /// in each curve, which is the weight, or else the noise on smaller images.
    pub fn svg(&self) -> String {
        let by_weight = self.points.iter().any(|point| point.guidance.is_some());
        let mut families: Vec<(String, Vec<&SweepPoint>)> = Vec::new();
        for point in &self.points {
            let aug = point.aug.filter(|_| by_weight).map(|aug| format!("aug {aug}"));
            let parts = [Some(point.threshold_name().to_string()).filter(|name| !name.is_empty()), aug];
            let name = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
            match families.last_mut().filter(|(last, _)| *last == name) {
                Some((_, points)) => points.push(point),
                None => families.push((name, vec![point])),
            }
        }
        let varied = |point: &SweepPoint| if by_weight { point.guidance } else { point.aug }.unwrap_or(0.0);
        let percent = |share: &Share| 100.0 * share.rate.unwrap_or(0.0);
        let (agreement, distance) = ("show what was asked for, %", "Fréchet distance to real images");
        let axis = if by_weight { "guidance weight w" } else { "noise on the smaller images" };
        let mut trade = Chart::new("Distance against agreement").x(agreement).y(distance).log_y();
        let mut asked = Chart::new("Agreement").x(axis).y(agreement);
        let mut far = Chart::new("Distance").x(axis).y(distance).log_y();
        for (name, points) in &families {
            let along = |y: &dyn Fn(&SweepPoint) -> f64| points.iter().map(|p| (varied(p), y(p))).collect();
            let both = points.iter().map(|p| (percent(&p.agreement), p.frechet)).collect();
            let intervals = points.iter().map(|p| p.agreement.interval.map(|end| 100.0 * end)).collect();
            trade = trade.curve(Curve::new(name, both));
            let rates = Curve::new(name, along(&|p| percent(&p.agreement)));
            asked = asked.curve(rates.with_intervals(intervals));
            far = far.curve(Curve::new(name, along(&|p| p.frechet)));
        }
        let real = "as many real test images";
        let ends =
            self.points.iter().map(varied).fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], v| [a.min(v), b.max(v)]);
        let level = |y: f64| Curve::new(real, ends.map(|x| (x, y)).to_vec());
        let trade = trade.dots(real, vec![(percent(&self.real), self.frechet_real)]);
        charts(&[trade, asked.curve(level(percent(&self.real))), far.curve(level(self.frechet_real))], 3)
    }
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug)]
pub enum SweepProgress<'a> {
    /// So many images are done, of [`SweepSettings::images`].
    Images(usize),
    /// One more point is found: the sweep, with the points so far.
    Point(&'a Sweep),
}

/// The values of one setting, or one that leaves things as they are.
fn or_as_it_is<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

impl SweepSettings {
    /// (threshold, aug, guidance) of every point.
    fn grid(&self) -> Vec<(Option<Threshold>, Option<f64>, Option<f64>)> {
        let mut grid = Vec::new();
        for threshold in or_as_it_is(&self.thresholds) {
            for aug in or_as_it_is(&self.aug) {
                grid.extend(or_as_it_is(&self.guidance).into_iter().map(|guidance| (threshold, aug, guidance)));
            }
        }
        grid
    }

    /// How many images are drawn in all.
    pub fn images(&self) -> usize {
        self.grid().len() * self.samples
    }
}

/// Draws with every setting of guidance, thresholding and augmentation, and judges. `requests` are those of the stages as they
/// are sampled otherwise, of which prompts, count and seed do not matter.
///
/// With `real`, the first stage of the cascade must be a super-resolution model; it makes these images larger, each with a
/// caption of its own class, in their order by class: the faults of the stages before are then not in the result. `progress`
/// may stop it.
pub fn sweep(
    cascade: &Cascade,
    requests: &[Request],
    judge: &Judge<'_>,
    real: Option<&Images>,
    settings: &SweepSettings,
    progress: &mut dyn FnMut(SweepProgress<'_>) -> ControlFlow<()>,
) -> Result<Sweep, ModelError> {
    let varied = |i: usize| settings.stage.is_none_or(|stage| stage == i);
    let low = real.map(|images| Lows::of(cascade, images, settings.samples)).transpose()?;
    let (agreement, frechet_real) = judge.real(settings.samples);
    let mut found = Sweep {
        samples: settings.samples,
        seed: settings.seed,
        stage: settings.stage,
        from_real: real.is_some(),
        points: Vec::new(),
        real: agreement.total(),
        frechet_real,
    };
    for (done, (threshold, aug, guidance)) in settings.grid().into_iter().enumerate() {
        let mut draw = |prompts: Vec<String>, numbers: Range<usize>| {
            let set = |(i, (request, own)): (usize, (Request, &Request))| {
                let mut sampling = own.sampling;
                sampling.threshold = threshold.filter(|_| varied(i)).unwrap_or(sampling.threshold);
                Request {
                    first: numbers.start as u64,
                    one_noise_each: true,
                    guidance: guidance.filter(|_| varied(i)).unwrap_or(own.guidance),
                    aug: aug.filter(|_| varied(i)).or(own.aug),
                    sampling,
                    ..request
                }
            };
            let fresh = cascade.requests(&prompts, 1, settings.seed).into_iter().zip(requests);
            let asked: Vec<Request> = fresh.enumerate().map(set).collect();
            let low = low.as_ref().map(|low| low.images.slice(0, numbers.clone()));
            let mut drawn = cascade.sample(&asked, low.as_ref(), &mut |_, _| ControlFlow::Continue(()))?;
            Ok(drawn.pop().expect("a cascade has a stage"))
        };
        let mut report = |images| progress(SweepProgress::Images(done * settings.samples + images));
        let (agreement, features) =
            judge.drawn(Split::Training, settings.samples, cascade.batch(), &mut draw, &mut report)?;
        let frechet = judge.frechet(&features);
        found.points.push(SweepPoint { guidance, threshold, aug, agreement: agreement.total(), frechet });
        if progress(SweepProgress::Point(&found)).is_break() {
            return Err(ModelError::Stopped);
        }
    }
    Ok(found)
}

/// Real images as small as the first stage of a cascade wants them: image i is one of class i modulo the number of classes, as a
/// [`Judge`] asks for them.
#[derive(Clone, Debug)]
pub struct Lows {
    /// Which of the real images they are.
    pub chosen: Vec<usize>,
    /// The images, [N, C, h, w] in [-1, 1]: means of squares of pixels.
    pub images: Tensor,
}

impl Lows {
    /// `samples` of the real `images`, for the first stage of `cascade`. An error if that does not make images larger, if the real
    /// ones cannot be shrunk to what it takes, or if there is a class without one.
    pub fn of(cascade: &Cascade, images: &Images, samples: usize) -> Result<Lows, ModelError> {
        let wrong = |what: String| Err(ModelError::Config(what));
        let first = &cascade.stages()[0];
        let Some(stage) = first.config().super_resolution else {
            return wrong("a cascade that starts from real images begins with a stage that makes them larger".into());
        };
        let [c, h, w] = first.image_size();
        let wanted = [c, h / stage.factor, w / stage.factor];
        let size = [images.channels, images.height, images.width];
        if size[0] != c || !size[1].is_multiple_of(wanted[1]) || size[1] / wanted[1] * wanted[2] != size[2] {
            return wrong(format!("real images of {size:?} cannot be shrunk to {wanted:?}"));
        }
        let classes = images.class_names.len();
        let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
        (0..images.len()).for_each(|i| of_class[usize::from(images.labels[i])].push(i));
        if of_class.iter().any(Vec::is_empty) {
            return wrong("there is a class without a real image".into());
        }
        let chosen: Vec<usize> = (0..samples)
            .map(|i| {
                let mine = &of_class[i % classes];
                mine[i / classes % mine.len()]
            })
            .collect();
        let shape = [samples, size[0], size[1], size[2]];
        let whole = Tensor::constant(Array::from_vec(shape, images.batch_f32(&chosen)));
        Ok(Lows { images: whole.avg_pool2d(size[1] / wanted[1]), chosen })
    }
}
