//! A check-up of a training before it is run for hours, and of a model after it.

use super::diffusion::Words;
use super::trainer::Learner;
use super::{DiffusionRun, DiffusionTask, RunConfig, Task, TrainError, Training};
use crate::array::Device;
use crate::autograd::no_grad;
use crate::cascade::{StageConfig, SuperResolutionConfig};
use crate::data::{Dataset, Images};
use crate::nn::Weights;
use crate::optim::LearningRate;
use crate::text::TextEncoder;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What one look found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// Whether all is well; none if it could not be looked at.
    pub passed: Option<bool>,
    /// What was seen, in words.
    pub seen: String,
    /// What to do if it did not pass, or why it could not be looked at.
    pub advice: &'static str,
}

impl Finding {
    /// That it could not be looked at, and why.
    fn none(name: &'static str, seen: &str, advice: &'static str) -> Finding {
        Finding { name, passed: None, seen: seen.into(), advice }
    }
}

/// A check-up of a diffusion run, and of the weights of its model if there are any.
pub struct Doctor {
    run: DiffusionRun,
    data: Arc<Dataset>,
    device: Device,
    /// Steps of the trial on one image.
    steps: u64,
    /// What reads the captions for all looks, if encoding them is costly.
    reader: OnceLock<Option<Arc<dyn TextEncoder>>>,
}

/// At this learning rate a network of any size learns one image.
const TRIAL_RATE: f64 = 1e-3;

/// Batches that a loss is averaged over, far from those of training.
const BATCHES: std::ops::Range<u64> = 1 << 40..(1 << 40) + 8;

impl Doctor {
    /// Looks at this run. The trial on one image has `steps` steps.
    pub fn new(run: DiffusionRun, data: Arc<Dataset>, device: Device, steps: u64) -> Doctor {
        Doctor { run, data, device, steps, reader: OnceLock::new() }
    }

    /// All looks, in the order of their names below. `tell` is called with each before it begins.
    pub fn examine(&self, weights: Option<&Weights>, tell: &mut dyn FnMut(&str)) -> Result<Vec<Finding>, TrainError> {
        let mut findings = vec![self.terminal_snr(), self.young_average()];
        // First of all: a model of another kind is found out before the trial.
        let trained = weights.map(|weights| self.trained(weights)).transpose()?;
        tell("learning one image by heart");
        findings.extend(self.one_image()?);
        tell("looking whether the text matters");
        findings.push(self.text_matters(trained.as_ref())?);
        tell("looking for a drift of the channels");
        findings.push(self.channel_drift(trained.as_ref())?);
        Ok(findings)
    }

    /// The task of `run`, with captions that are read once for all looks.
    fn task(&self, run: DiffusionRun, data: Arc<Dataset>) -> Result<DiffusionTask, TrainError> {
        let task = DiffusionTask::new(run, data)?.on(self.device);
        let reader = match self.reader.get() {
            Some(reader) => reader.clone(),
            None => {
                let reader = task.reader()?;
                self.reader.get_or_init(|| reader).clone()
            }
        };
        Ok(task.read_by(reader))
    }

    /// The run with these weights. An error if they are of another kind of model than it trains.
    fn trained(&self, weights: &Weights) -> Result<DiffusionTask, TrainError> {
        let task = self.task(self.run.clone(), self.data.clone())?;
        let stage: Option<StageConfig> = weights.metadata.get("stage").and_then(|json| serde_json::from_str(json).ok());
        let mine = task.stage();
        // How it is sampled can be chosen anew at any time.
        let aug = mine.super_resolution.map_or(0.0, |larger| larger.aug);
        let stage = stage.map(|stage| StageConfig {
            sampling: mine.sampling,
            super_resolution: stage.super_resolution.map(|larger| SuperResolutionConfig { aug, ..larger }),
            ..stage
        });
        if stage.as_ref() != Some(mine) {
            let why = "the model was trained with another [text], [unet], [diffusion] or [super_resolution] than the config says";
            return Err(TrainError::Setup(why.into()));
        }
        task.parameters().load(weights).map_err(|e| TrainError::Setup(e.to_string()))?;
        Ok(task)
    }

    // ANCHOR: terminal_snr
    /// Sampling begins with pure noise; so training must end with it.
    fn terminal_snr(&self) -> Finding {
        let snr = self.run.diffusion.build().log_snr(1.0).exp();
        Finding {
            name: "noise at t = 1",
            passed: Some(snr < 1e-3),
            seen: format!("signal-to-noise ratio {snr:.1e}"),
            advice: "the model is never trained on pure noise, which sampling begins with; take another diffusion.schedule",
        }
    }
    // ANCHOR_END: terminal_snr

    /// d_1 d_2 .. d_n: the share that the first weights still have in the moving average at the end.
    fn young_average(&self) -> Finding {
        let decay = |k: u64| self.run.train.ema.min((1 + k) as f64 / (10 + k) as f64);
        let share: f64 = (1..=self.run.train.steps).map(decay).product();
        Finding {
            name: "age of the average",
            passed: Some(share < 1e-2),
            seen: format!("after {} steps {:.2} % of it are first weights", self.run.train.steps, 100.0 * share),
            advice: "images are drawn with the averaged weights: lower train.ema, or train for more steps",
        }
    }

    /// A network that cannot learn one image has a mistake in it, or too small a share of gradients; and once it has learnt, every
    /// layer must have had a part in it.
    fn one_image(&self) -> Result<[Finding; 2], TrainError> {
        let batch = self.run.train.batch.min(16);
        let run = DiffusionRun {
            learning_rate: LearningRate::Constant { rate: TRIAL_RATE },
            train: super::TrainConfig { batch, ..self.run.train.clone() },
            ..self.run.clone()
        };
        let one = Arc::new(Dataset { train: first(&self.data.train), test: self.data.test.clone() });
        let config = RunConfig::Diffusion(run.clone());
        let task = self.task(run, one)?;
        let before = loss(&task, Words::Right)?;
        let mut learner = Learner::new(&task, &config)?;
        for _ in 0..self.steps {
            match learner.step() {
                // What else is found is worth no less.
                Err(TrainError::NotFinite { what, value, step, .. }) => {
                    return Ok(diverged(&format!("the {what} is {value} after {step} steps")));
                }
                done => done?,
            }
        }
        let after = loss(&task, Words::Right)?;
        if !after.is_finite() {
            return Ok(diverged(&format!("the loss is {after} after {} steps", self.steps)));
        }
        let learnt = Finding {
            name: ONE_IMAGE,
            passed: Some(after < 0.3 * before),
            seen: format!("loss {before:.3} before, {after:.3} after {} steps", self.steps),
            advice: "the network does not even learn one image: look at its sizes, at the target, and at the gradients below",
        };
        Ok([learnt, gradients(&task)?])
    }

    /// The loss with the right captions, with wrong ones, and without: if the first is not the smallest, the text is ignored.
    fn text_matters(&self, trained: Option<&DiffusionTask>) -> Result<Finding, TrainError> {
        let name = "the text matters";
        if self.run.text.is_none() {
            return Ok(Finding::none(name, "it takes no text", ""));
        }
        let Some(task) = trained else {
            return Ok(Finding::none(name, "", "name a trained model with --model"));
        };
        let [right, wrong, none] = [Words::Right, Words::Wrong, Words::None].map(|words| loss(task, words));
        let (right, wrong, none) = (right?, wrong?, none?);
        let advice = match [right, wrong, none].iter().all(|loss| loss.is_finite()) {
            true => {
                "train for longer, drop fewer texts (diffusion.drop_text), or look at what `imagen text` makes of the captions"
            }
            false => SPOILT,
        };
        Ok(Finding {
            name,
            passed: Some(right < 0.995 * wrong),
            seen: format!("loss {right:.4} with the right captions, {wrong:.4} with wrong ones, {none:.4} without"),
            advice,
        })
    }

    /// The means of the channels of images that were made larger, against those of the real ones: colours that shift.
    fn channel_drift(&self, trained: Option<&DiffusionTask>) -> Result<Finding, TrainError> {
        let name = "drift of the channels";
        if self.run.super_resolution.is_none() {
            return Ok(Finding::none(name, "it does not make images larger", ""));
        }
        let Some(task) = trained else {
            return Ok(Finding::none(name, "", "name a trained model with --model"));
        };
        let means = task.channel_means()?;
        let seen: Vec<String> = means.iter().map(|[drawn, real]| format!("{drawn:.3} for {real:.3}")).collect();
        Ok(Finding {
            name,
            // NaN is near nothing.
            passed: Some(means.iter().all(|[drawn, real]| (drawn - real).abs() < 0.05)),
            seen: seen.join(", "),
            advice: match means.iter().all(|[drawn, _]| drawn.is_finite()) {
                true => {
                    "shades shift when images are made larger: train for longer, or lower aug and the guidance of this stage"
                }
                false => SPOILT,
            },
        })
    }
}

const ONE_IMAGE: &str = "one image by heart";
const GRADIENTS: &str = "gradients of all layers";

/// What to do with a model that makes NaN of good images.
const SPOILT: &str = "the weights of this model are spoilt: train it again with a lower learning_rate or train.clip";

/// The findings of a trial in which numbers grew until they were none.
fn diverged(seen: &str) -> [Finding; 2] {
    let advice = "at a learning rate of 0.001 a sound network learns one image: lower train.clip, and look at the optimizer \
                  (its momentum and weight_decay) and at diffusion.weighting";
    let seen = seen.to_string();
    let learnt = Finding { name: ONE_IMAGE, passed: Some(false), seen, advice };
    [learnt, Finding::none(GRADIENTS, "", "there are none to look at before one image is learnt")]
}

/// The first image alone.
fn first(images: &Images) -> Images {
    Images { pixels: images.image(0).to_vec(), labels: images.labels[..1].to_vec(), ..images.clone() }
}

/// The mean loss of the present weights.
fn loss(task: &DiffusionTask, words: Words) -> Result<f64, TrainError> {
    let losses = BATCHES.map(|step| no_grad(|| task.loss_with(step, words)).map(|loss| loss.item()));
    Ok(losses.collect::<Result<Vec<f64>, _>>()?.iter().sum::<f64>() / BATCHES.count() as f64)
}

/// Norms of the gradients, layer by layer.
fn gradients(task: &DiffusionTask) -> Result<Finding, TrainError> {
    // Without a text the null token has a part, and with one the layers for texts have.
    let mut squares: BTreeMap<String, f64> = BTreeMap::new();
    for (step, words) in BATCHES.zip([Words::Right, Words::None].into_iter().cycle()) {
        let gradients = task.loss_with(step, words)?.backward();
        for param in task.parameters().iter() {
            let layer = param.name().rsplit_once('.').map_or(param.name(), |(layer, _)| layer).to_string();
            let gradient = gradients.get(&param.tensor()).map_or(Vec::new(), |gradient| gradient.to_f64());
            *squares.entry(layer).or_default() += gradient.iter().map(|g| g * g).sum::<f64>();
        }
    }
    let norm = |(layer, square): (&String, &f64)| (layer.clone(), square.sqrt());
    let norms: Vec<(String, f64)> = squares.iter().map(norm).collect();
    let by_norm = |a: &&(String, f64), b: &&(String, f64)| a.1.total_cmp(&b.1);
    let (least, most) = (norms.iter().min_by(by_norm), norms.iter().max_by(by_norm));
    let say =
        |found: Option<&(String, f64)>| found.map_or(String::new(), |(layer, norm)| format!("{norm:.1e} ({layer})"));
    Ok(Finding {
        name: GRADIENTS,
        passed: Some(norms.iter().all(|(_, norm)| norm.is_finite() && *norm > 0.0)),
        seen: format!("{} layers, from {} to {}", norms.len(), say(least), say(most)),
        advice: "a layer without a gradient learns nothing: the result does not depend on it",
    })
}
