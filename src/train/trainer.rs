//! The training loop.

use super::{Checkpoint, CheckpointError, Metrics, Record, RunConfig, RunFolder};
use crate::array::Array;
use crate::autograd::Tensor;
use crate::files::{self, FileError};
use crate::nn::{Parameters, Weights, WeightsError};
use crate::optim::{Ema, Optimizer, OptimizerError, clip};
use crate::picture::{Picture, PictureError, Text};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Something that can be trained: it owns a model and knows its loss at every step.
pub trait Task {
    /// The parameters of the model.
    fn parameters(&self) -> &Parameters;

    /// The mean loss over the batch of step `step` (from 0), a scalar with history. A function of the step alone.
    fn loss(&self, step: u64) -> Result<Tensor, TrainError>;

    /// Which examples step `step` uses, for messages.
    fn examples(&self, step: u64) -> Vec<usize>;

    /// Written into weights and checkpoints.
    fn metadata(&self) -> BTreeMap<String, String>;

    /// A picture of what the model can do, and texts that go with it. The averaged weights are in place.
    fn preview(&self) -> Result<Option<(Picture, Text)>, TrainError> {
        Ok(None)
    }

    /// A score of the model and its name. The averaged weights are in place.
    fn score(&self) -> Result<Option<(&'static str, f64)>, TrainError> {
        Ok(None)
    }
}

/// Why training stopped or could not start.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The loss or the gradient is NaN or infinite.
    #[error(
        "the {what} is {value} at step {step}, on examples {examples}; the last checkpoint is untouched: lower the learning \
         rate or train.clip and resume"
    )]
    NotFinite {
        /// "loss" or "gradient norm".
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// Steps done before.
        step: u64,
        /// The examples of the batch.
        examples: String,
    },
    /// The folder has something in it.
    #[error("{0} is not empty; add --resume to continue that run, or choose another folder with --out")]
    Occupied(String),
    /// The run in the folder has another config.
    #[error(
        "{folder} holds a run with another config ({difference}); resume with the same config, or choose another folder with --out"
    )]
    Different {
        /// The run's folder.
        folder: String,
        /// The first entry that differs.
        difference: String,
    },
    /// Something about the model, the data or the text.
    #[error("{0}")]
    Setup(String),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Weights could not be written or read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A picture could not be written.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The optimizer's state does not fit.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were done; the finished model is in the folder.
    Finished,
    /// It was asked to stop after this many steps; a checkpoint is in the folder.
    Interrupted(u64),
}

/// What a run reports while it goes on.
pub enum Progress<'a> {
    /// A step was done: steps so far, its loss, images a second lately.
    Step(u64, f64, f64),
    /// Something worth a line.
    Note(&'a str),
}

/// A run: a task, its folder, and the state that changes from step to step.
pub struct Trainer<'a> {
    task: &'a dyn Task,
    config: &'a RunConfig,
    folder: RunFolder,
    optimizer: Box<dyn Optimizer>,
    ema: Ema,
    step: u64,
    seconds: f64,
    metrics: Metrics,
}

impl<'a> Trainer<'a> {
    /// Starts a run in an empty folder, or continues the one in it if `resume`. Nothing that is there is overwritten.
    pub fn new(
        task: &'a dyn Task,
        config: &'a RunConfig,
        folder: RunFolder,
        resume: bool,
    ) -> Result<Trainer<'a>, TrainError> {
        let mut optimizer = config.optimizer().build()?;
        let mut ema = Ema::new(task.parameters(), config.train().ema, true)?;
        let (mut step, mut seconds) = (0, 0.0);
        let name = folder.path().display().to_string();
        if resume && folder.config().exists() {
            let existing = folder.read_config().map_err(|e| TrainError::Setup(e.to_string()))?;
            if let Some(difference) = config.difference(&existing) {
                return Err(TrainError::Different { folder: name, difference });
            }
            // A run that was stopped before its first checkpoint starts again from the beginning.
            match Checkpoint::newest(&folder.checkpoints()) {
                Ok(checkpoint) => {
                    step = checkpoint.step;
                    seconds = checkpoint.seconds;
                    let weights = |tensors| Weights { tensors, metadata: BTreeMap::new() };
                    task.parameters().load(&weights(checkpoint.model))?;
                    ema.load(&weights(checkpoint.ema), step)?;
                    optimizer.load_state(&checkpoint.optimizer, step)?;
                }
                Err(CheckpointError::None { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        } else if folder.is_occupied() {
            return Err(TrainError::Occupied(name));
        }
        folder.create()?;
        files::write(&folder.config(), config.to_toml().as_bytes())?;
        let meta = serde_json::to_string_pretty(&task.metadata()).expect("strings can always be written");
        files::write(&folder.meta(), meta.as_bytes())?;
        let metrics = Metrics::open(&folder.metrics(), step)?;
        Ok(Trainer { task, config, folder, optimizer, ema, step, seconds, metrics })
    }

    /// Steps done so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Trains until all steps are done or `stop` is set; then a checkpoint is written.
    pub fn run(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(Progress<'_>)) -> Result<Outcome, TrainError> {
        let train = self.config.train().clone();
        let mut meter = Meter::start();
        while self.step < train.steps {
            let (loss, grad_norm, lr) = self.train_step(&train)?;
            meter.add(loss, train.batch);
            report(Progress::Step(self.step, loss, meter.rate()));

            let stopping = stop.load(Ordering::Relaxed);
            let last = self.step == train.steps;
            let looks = last || self.step.is_multiple_of(train.sample_every);
            self.seconds += meter.lap();
            let score = if looks && !stopping { self.look(report)? } else { None };
            if last || score.is_some() || self.step.is_multiple_of(train.log_every) {
                let (loss, images_per_second) = meter.take();
                let record =
                    Record { step: self.step, loss, grad_norm, lr, images_per_second, seconds: self.seconds, score };
                self.metrics.add(record)?;
            }
            if last || stopping || self.step.is_multiple_of(train.checkpoint_every) {
                self.checkpoint(train.keep)?;
            }
            // Evaluating and saving are part of what the run costs.
            self.seconds += meter.lap();
            if stopping && !last {
                return Ok(Outcome::Interrupted(self.step));
            }
        }
        self.finish()?;
        Ok(Outcome::Finished)
    }

    /// One step: (loss, gradient norm before clipping, learning rate).
    fn train_step(&mut self, train: &super::TrainConfig) -> Result<(f64, f64, f64), TrainError> {
        let parameters = self.task.parameters();
        let loss = self.task.loss(self.step)?;
        let value = loss.item();
        self.finite("loss", value)?;
        let mut gradients = loss.backward();
        let grad_norm = clip(&mut gradients, parameters, train.clip);
        self.finite("gradient norm", grad_norm)?;
        let lr = self.config.learning_rate().at(self.step);
        self.optimizer.step(parameters, &gradients, lr);
        self.ema.update(parameters);
        self.step += 1;
        Ok((value, grad_norm, lr))
    }

    fn finite(&self, what: &'static str, value: f64) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        let examples = self.task.examples(self.step);
        let shown: Vec<String> = examples.iter().take(8).map(usize::to_string).collect();
        let more = if examples.len() > shown.len() { ", …" } else { "" };
        let examples = format!("{}{more}", shown.join(", "));
        Err(TrainError::NotFinite { what, value, step: self.step, examples })
    }

    /// Preview, score and loss curve, made with the averaged weights.
    fn look(&mut self, report: &mut dyn FnMut(Progress<'_>)) -> Result<Option<f64>, TrainError> {
        let task = self.task;
        let (preview, score) = self.ema.swapped(task.parameters(), || (task.preview(), task.score()));
        if let Some((picture, mut text)) = preview? {
            text.insert("step".to_string(), self.step.to_string());
            crate::picture::write(&self.folder.sample(self.step), &picture, &text)?;
        }
        let title = self.folder.path().file_name().map_or_else(|| "loss".into(), |n| n.to_string_lossy());
        files::write(&self.folder.plot("loss"), self.metrics.loss_curve(&title).as_bytes())?;
        let score = score?;
        if let Some((name, value)) = score {
            report(Progress::Note(&format!("step {}: {name} {value:.4}", self.step)));
        }
        Ok(score.map(|(_, value)| value))
    }

    fn checkpoint(&self, keep: usize) -> Result<(), TrainError> {
        let checkpoint = Checkpoint {
            step: self.step,
            seconds: self.seconds,
            model: self.task.parameters().values(),
            ema: self.ema.values().clone(),
            optimizer: self.optimizer.state(),
            metadata: self.metadata(),
        };
        checkpoint.write(&self.folder.checkpoints(), keep)?;
        Ok(())
    }

    /// Writes the averaged weights as the finished model, f16.
    fn finish(&self) -> Result<(), TrainError> {
        let tensors: BTreeMap<String, Array> = self.ema.values().clone();
        Weights { tensors, metadata: self.metadata() }.write(&self.folder.model(), true)?;
        Ok(())
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.task.metadata();
        metadata.insert("step".to_string(), self.step.to_string());
        metadata
    }
}

/// Time, losses and images since the last record.
struct Meter {
    lap: Instant,
    since: Instant,
    images: usize,
    losses: Vec<f64>,
}

impl Meter {
    fn start() -> Meter {
        Meter { lap: Instant::now(), since: Instant::now(), images: 0, losses: Vec::new() }
    }

    fn add(&mut self, loss: f64, images: usize) {
        self.losses.push(loss);
        self.images += images;
    }

    /// Images a second since the last record.
    fn rate(&self) -> f64 {
        self.images as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }

    /// Seconds since the last call.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.lap, now)).as_secs_f64()
    }

    /// (mean loss, images a second) since the last call.
    fn take(&mut self) -> (f64, f64) {
        let result = (self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64, self.rate());
        *self = Meter { lap: self.lap, ..Meter::start() };
        result
    }
}
