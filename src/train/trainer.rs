//! The training loop.

use super::run_folder::Claim;
use super::{Checkpoint, CheckpointError, Metrics, Pending, Record, RunConfig, RunFolder, TrainConfig, Training};
use crate::array::{Array, Device};
use crate::autograd::Tensor;
use crate::files::{self, FileError};
use crate::kernels::DeviceError;
use crate::nn::{Parameters, Weights, WeightsError};
use crate::optim::{Ema, Optimizer, OptimizerError, clip};
use crate::picture::{Picture, PictureError, Text};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Something that can be trained: it owns a model and knows its loss at every step.
pub trait Task {
    /// The parameters of the model.
    fn parameters(&self) -> &Parameters;

    /// Called once before the first step, before anything of the run is in `folder`, which is there. What it returns is shown to
    /// the user.
    fn prepare(&self, _folder: &RunFolder) -> Result<Option<String>, TrainError> {
        Ok(None)
    }

    /// The mean loss over the batch of step `step` (from 0), a scalar with history. A function of the step alone.
    fn loss(&self, step: u64) -> Result<Tensor, TrainError>;

    /// Which examples step `step` uses, for messages.
    fn examples(&self, step: u64) -> Vec<usize>;

    /// Written into weights and checkpoints.
    fn metadata(&self) -> BTreeMap<String, String>;

    /// What an example is: images, texts.
    fn unit(&self) -> &'static str {
        "images"
    }

    /// A picture of what the model can do, and texts that go with it; none if `stop` is set meanwhile. The averaged weights
    /// are in place.
    fn preview(&self, _stop: &AtomicBool) -> Result<Option<(Picture, Text)>, TrainError> {
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
    /// The loss, the gradient or a weight is NaN or infinite.
    #[error(
        "the {what} is {value} at step {step}, on examples {examples}; the last checkpoint is untouched: lower \
         learning_rate or train.clip and start again with another --out"
    )]
    NotFinite {
        /// "loss", "gradient norm" or the weight's name.
        what: String,
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
    /// Another process trains in the folder.
    #[error(
        "another process trains in {0}; wait until it is done, or stop it (Ctrl-C writes a checkpoint) and add --resume, or \
         choose another folder with --out"
    )]
    Busy(String),
    /// The folder has something in it that is no run.
    #[error("{0} holds no run that could be resumed: it has no config.toml; choose another folder with --out")]
    NoRun(String),
    /// The run in the folder has another config or other data.
    #[error(
        "{folder} holds a run with another config or other data ({difference}); resume with the same, or choose another \
         folder with --out"
    )]
    Different {
        /// The run's folder.
        folder: String,
        /// The first entry that differs.
        difference: String,
    },
    /// The run in the folder has gone further than it should.
    #[error(
        "{folder} holds a run of {done} steps already, more than the {steps} of the config; set train.steps to more"
    )]
    Beyond {
        /// The run's folder.
        folder: String,
        /// Steps it has.
        done: u64,
        /// Steps that were asked for.
        steps: u64,
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
    /// The device has failed.
    #[error("{0}; the last checkpoint is untouched, and --resume continues from it")]
    Device(#[from] DeviceError),
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
    /// A step was done: steps so far, its loss, examples a second lately.
    Step(u64, f64, f64),
    /// Something worth a line.
    Note(&'a str),
}

/// A task and what changes from step to step.
pub(super) struct Learner<'a> {
    task: &'a dyn Task,
    config: &'a RunConfig,
    optimizer: Box<dyn Optimizer>,
    ema: Ema,
    step: u64,
    pending: Pending,
    /// Steps whose loss has not been looked at.
    unread: Vec<Unread>,
    /// The last one that has been.
    last: Option<Read>,
    read_at: Instant,
}

/// Loss and gradient norm of a step, which the device may still be computing.
struct Unread {
    step: u64,
    loss: Array,
    grad_norm: Array,
}

/// Loss and gradient norm before clipping.
#[derive(Clone, Copy)]
struct Read {
    loss: f64,
    grad_norm: f64,
}

/// The most steps that a GPU is left to itself. Reading a loss waits for the GPU, which has nothing to do meanwhile.
const UNREAD_STEPS: usize = 16;

/// And the longest: who presses Ctrl-C, or looks at the loss, waits for all of them.
const UNREAD_TIME: Duration = Duration::from_secs(1);

/// A run: a task being learnt, and the folder it is written to.
pub struct Trainer<'a> {
    learner: Learner<'a>,
    folder: RunFolder,
    seconds: f64,
    metrics: Metrics,
    /// What the task has to say before it begins.
    note: Option<String>,
    /// No other process may write there meanwhile.
    _claim: Claim,
}

impl<'a> Learner<'a> {
    /// Nothing has been learnt.
    pub(super) fn new(task: &'a dyn Task, config: &'a RunConfig) -> Result<Learner<'a>, TrainError> {
        let optimizer = config.optimizer().build()?;
        let ema = Ema::new(task.parameters(), config.train().ema, true)?;
        let (pending, unread) = (Pending::default(), Vec::new());
        Ok(Learner { task, config, optimizer, ema, step: 0, pending, unread, last: None, read_at: Instant::now() })
    }

    /// One step; returns its learning rate.
    // ANCHOR: train_step
    fn train_step(&mut self, train: &TrainConfig) -> Result<f64, TrainError> {
        let parameters = self.task.parameters();
        let loss = self.task.loss(self.step)?;
        let mut gradients = loss.backward();
        let grad_norm = clip(&mut gradients, parameters, train.clip);
        let at_once = !loss.device().is_asynchronous();
        self.unread.push(Unread { step: self.step, loss: loss.into_array(), grad_norm });
        let enough = self.unread.len() == UNREAD_STEPS || self.read_at.elapsed() > UNREAD_TIME;
        if at_once || enough || self.last.is_none() {
            self.read()?;
        }
        let lr = self.config.learning_rate().at(self.step);
        self.optimizer.step_averaged(parameters, &gradients, lr, &mut self.ema);
        self.step += 1;
        Ok(lr)
    }
    // ANCHOR_END: train_step

    /// Looks at the losses and gradient norms of all steps so far.
    fn read(&mut self) -> Result<(), TrainError> {
        for Unread { step, loss, grad_norm } in std::mem::take(&mut self.unread) {
            let read = Read { loss: loss.item(), grad_norm: grad_norm.item() };
            // A device that has failed reads as NaN, which would be taken for a bad step.
            loss.kernels().check()?;
            self.check_finite("loss", read.loss, step)?;
            self.check_finite("gradient norm", read.grad_norm, step)?;
            self.pending.sum += read.loss;
            self.pending.count += 1;
            self.last = Some(read);
        }
        self.read_at = Instant::now();
        Ok(())
    }

    /// An error if the device has failed.
    fn check_device(&self) -> Result<(), TrainError> {
        match self.task.parameters().iter().next() {
            Some(param) => Ok(param.tensor().array().kernels().check()?),
            None => Ok(()),
        }
    }

    fn check_finite(&self, what: &str, value: f64, step: u64) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        let examples = self.task.examples(step);
        let shown: Vec<String> = examples.iter().take(8).map(usize::to_string).collect();
        let more = if examples.len() > shown.len() { ", …" } else { "" };
        let examples = format!("{}{more}", shown.join(", "));
        Err(TrainError::NotFinite { what: what.to_string(), value, step, examples })
    }

    /// Preview and score, made with the averaged weights. The preview is left out if `stop` is set meanwhile.
    #[allow(clippy::type_complexity, reason = "the two of Task, as they come")]
    fn look(
        &mut self,
        stop: &AtomicBool,
    ) -> Result<(Option<(Picture, Text)>, Option<(&'static str, f64)>), TrainError> {
        let task = self.task;
        let (preview, score) = self.ema.swapped(task.parameters(), || (task.preview(stop), task.score()));
        self.check_device()?;
        Ok((preview?, score?))
    }
}

impl Training for Learner<'_> {
    fn parameters(&self) -> &Parameters {
        self.task.parameters()
    }

    fn loss(&self) -> Result<Tensor, TrainError> {
        self.task.loss(self.step)
    }

    fn step(&mut self) -> Result<(), TrainError> {
        self.train_step(self.config.train())?;
        self.read()
    }

    fn evaluate(&mut self) -> Result<(), TrainError> {
        self.look(&AtomicBool::new(false)).map(|_| ())
    }

    fn optimizer(&self) -> &dyn Optimizer {
        &*self.optimizer
    }

    fn average(&self) -> Option<&Ema> {
        Some(&self.ema)
    }
}

impl<'a> Trainer<'a> {
    /// Starts a run in an empty folder, or continues the one in it if `resume`: what it recorded after its newest checkpoint
    /// is then written again. Errors, changing nothing, if something else is there, or if another trainer is at work there: the folder
    /// is this one's until it is dropped.
    pub fn new(
        task: &'a dyn Task,
        config: &'a RunConfig,
        folder: RunFolder,
        resume: bool,
    ) -> Result<Trainer<'a>, TrainError> {
        let mut learner = Learner::new(task, config)?;
        let claim = folder.claim()?.ok_or_else(|| TrainError::Busy(folder.path().display().to_string()))?;
        let mut seconds = 0.0;
        if let Some(checkpoint) = existing(task, config, &folder, resume)? {
            (learner.step, learner.pending) = (checkpoint.step, checkpoint.pending);
            seconds = checkpoint.seconds;
            let weights = |tensors| Weights { tensors, metadata: BTreeMap::new() };
            task.parameters().load(&weights(checkpoint.model))?;
            learner.ema.load(&weights(checkpoint.ema), learner.step)?;
            learner.optimizer.load_state(&checkpoint.optimizer, learner.step)?;
        }
        let note = task.prepare(&folder)?;
        folder.create(config)?;
        let meta = serde_json::to_string_pretty(&task.metadata()).expect("strings can always be written");
        files::write(&folder.meta(), meta.as_bytes())?;
        let metrics = Metrics::open(&folder.metrics(), learner.step)?;
        Ok(Trainer { learner, folder, seconds, metrics, note, _claim: claim })
    }

    /// Steps done so far.
    pub fn step(&self) -> u64 {
        self.learner.step
    }

    /// Trains until all steps are done or `stop` is set; then a checkpoint is written.
    pub fn run(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(Progress<'_>)) -> Result<Outcome, TrainError> {
        let train = self.learner.config.train().clone();
        if let Some(note) = self.note.take() {
            report(Progress::Note(&note));
        }
        let mut meter = Meter::start();
        while self.learner.step < train.steps {
            let lr = self.learner.train_step(&train)?;
            meter.examples += train.batch;
            // On a GPU the loss is that of the last step that was looked at; the first one always is.
            let loss = self.learner.last.map_or(f64::NAN, |read| read.loss);
            report(Progress::Step(self.learner.step, loss, meter.rate()));

            let stopping = stop.load(Ordering::Relaxed);
            let last = self.learner.step == train.steps;
            let looks = last || self.learner.step.is_multiple_of(train.sample_every);
            let saves = last || stopping || self.learner.step.is_multiple_of(train.checkpoint_every);
            let logs = last || self.learner.step.is_multiple_of(train.log_every);
            if looks || saves || logs {
                self.learner.read()?;
            }
            if looks || saves {
                self.check_weights()?;
            }
            self.seconds += meter.lap();
            // Also when stopping: the resumed run begins after this step and would never do it.
            let score = if looks { self.look(stop, stopping, report)? } else { None };
            if logs || score.is_some() {
                let Pending { sum, count } = std::mem::take(&mut self.learner.pending);
                let grad_norm = self.learner.last.map_or(f64::NAN, |read| read.grad_norm);
                let (step, loss, examples_per_second) = (self.learner.step, sum / count as f64, meter.rate());
                let seconds = self.seconds;
                self.metrics.add(Record { step, loss, grad_norm, lr, examples_per_second, seconds, score })?;
                meter = Meter { lap: meter.lap, ..Meter::start() };
            }
            if looks {
                self.plot()?;
            }
            if saves {
                self.checkpoint(train.keep)?;
            }
            // Evaluating and saving are part of what the run costs.
            self.seconds += meter.lap();
            if stopping && !last {
                return Ok(Outcome::Interrupted(self.learner.step));
            }
        }
        self.finish()?;
        Ok(Outcome::Finished)
    }

    /// An error if the last step has left a weight that is NaN or infinite: it must not get into a checkpoint.
    fn check_weights(&self) -> Result<(), TrainError> {
        // One number tells, most of the time; on a GPU to read each of them takes long.
        let values = self.learner.task.parameters().values();
        let all: Vec<&Array> = values.values().collect();
        if all.first().is_none_or(|first| first.kernels().norm(&all).item().is_finite()) {
            return Ok(());
        }
        let weights = self.learner.task.parameters().iter().map(|p| (p.name().to_string(), p.tensor()));
        let Some((name, tensor)) = weights.into_iter().find(|(_, tensor)| !tensor.array().is_finite()) else {
            return Ok(());
        };
        self.learner.check_device()?;
        let value = tensor.to_f64().into_iter().find(|v| !v.is_finite()).unwrap_or(f64::NAN);
        self.learner.check_finite(&format!("weight {name}"), value, self.learner.step - 1)
    }

    /// Preview and score, made with the averaged weights.
    fn look(
        &mut self,
        stop: &AtomicBool,
        stopping: bool,
        report: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<f64>, TrainError> {
        report(Progress::Note(&format!("step {}: looking at what has been learnt", self.learner.step)));
        // A run that was stopped at this very step draws the picture all the same, and so ends as one that was not. Who asks for
        // a stop meanwhile does not want to wait for it.
        let never = AtomicBool::new(false);
        let (preview, score) = self.learner.look(if stopping { &never } else { stop })?;
        if let Some((picture, mut text)) = preview {
            text.insert("step".to_string(), self.learner.step.to_string());
            crate::picture::write(&self.folder.sample(self.learner.step), &picture, &text)?;
        }
        if let Some((name, value)) = score {
            report(Progress::Note(&format!("step {}: {name} {value:.4}", self.learner.step)));
        }
        Ok(score.map(|(_, value)| value))
    }

    /// The loss curve up to now.
    fn plot(&self) -> Result<(), TrainError> {
        let title = self.folder.path().file_name().map_or_else(|| "loss".into(), |n| n.to_string_lossy());
        Ok(files::write(&self.folder.plot("loss"), self.metrics.loss_curve(&title).as_bytes())?)
    }

    fn checkpoint(&self, keep: usize) -> Result<(), TrainError> {
        let checkpoint = Checkpoint {
            step: self.learner.step,
            seconds: self.seconds,
            pending: self.learner.pending,
            model: on_cpu(self.learner.task.parameters().values()),
            ema: on_cpu(self.learner.ema.values().clone()),
            optimizer: on_cpu(self.learner.optimizer.state()),
            metadata: self.metadata(),
        };
        // Before anything is written: what was read from a device that had failed is NaN.
        self.learner.check_device()?;
        checkpoint.write(&self.folder.checkpoints(), keep)?;
        Ok(())
    }

    /// Writes the averaged weights as the finished model, f16.
    fn finish(&self) -> Result<(), TrainError> {
        let tensors = on_cpu(self.learner.ema.values().clone());
        self.learner.check_device()?;
        Weights { tensors, metadata: self.metadata() }.write(&self.folder.model(), true)?;
        Ok(())
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.learner.task.metadata();
        metadata.insert("step".to_string(), self.learner.step.to_string());
        metadata
    }
}

fn on_cpu(arrays: BTreeMap<String, Array>) -> BTreeMap<String, Array> {
    arrays.into_iter().map(|(name, array)| (name, array.to(Device::Cpu))).collect()
}

/// The checkpoint to continue from; none if the run starts from the beginning. An error if it must not start at all.
fn existing(
    task: &dyn Task,
    config: &RunConfig,
    folder: &RunFolder,
    resume: bool,
) -> Result<Option<Checkpoint>, TrainError> {
    let name = || folder.path().display().to_string();
    if !resume || !folder.config().exists() {
        return match (folder.is_occupied(), resume) {
            (false, _) => Ok(None),
            (true, true) => Err(TrainError::NoRun(name())),
            (true, false) => Err(TrainError::Occupied(name())),
        };
    }
    let existing = folder.read_config().map_err(|e| TrainError::Setup(e.to_string()))?;
    if let Some(difference) = config.difference(&existing) {
        return Err(TrainError::Different { folder: name(), difference });
    }
    let checkpoint = match Checkpoint::newest(&folder.checkpoints()) {
        Ok(checkpoint) => checkpoint,
        // Stopped before its first checkpoint.
        Err(CheckpointError::None { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let digest = |metadata: &BTreeMap<String, String>| metadata.get("data_digest").cloned().unwrap_or_default();
    let (mine, other) = (digest(&task.metadata()), digest(&checkpoint.metadata));
    if mine != other {
        let difference = format!("data_digest is {mine} in one and {other} in the other");
        return Err(TrainError::Different { folder: name(), difference });
    }
    let (done, steps) = (checkpoint.step, config.train().steps);
    if done > steps {
        return Err(TrainError::Beyond { folder: name(), done, steps });
    }
    Ok(Some(checkpoint))
}

/// Time and examples since the last record.
struct Meter {
    lap: Instant,
    since: Instant,
    examples: usize,
}

impl Meter {
    fn start() -> Meter {
        Meter { lap: Instant::now(), since: Instant::now(), examples: 0 }
    }

    /// Examples a second since the last record.
    fn rate(&self) -> f64 {
        self.examples as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }

    /// Seconds since the last call.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.lap, now)).as_secs_f64()
    }
}
