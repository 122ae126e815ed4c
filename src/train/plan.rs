//! Memory, planned: the training step itself, run on arrays that have no numbers.

use super::trainer::Learner;
use super::{RunConfig, TrainError, TrainingData};
use crate::array::{Array, Device, Ledger};
use crate::autograd::Tensor;
use crate::nn::Parameters;
use crate::optim::{Ema, Optimizer};
use serde::Serialize;

/// What training takes of memory, in bytes, and how many parameters there are.
///
/// Found by running the training step on a [`Ledger`], so it cannot differ from what the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// How many numbers are trained.
    pub parameters: usize,
    /// The parameters.
    pub parameter_bytes: u64,
    /// Their gradients.
    pub gradient_bytes: u64,
    /// What the optimizer remembers between steps.
    pub optimizer_bytes: u64,
    /// The moving average of the parameters; 0 if there is none.
    pub average_bytes: u64,
    /// What the forward pass of one batch keeps for the backward pass, its inputs included.
    pub activation_bytes: u64,
    /// The data set.
    pub data_bytes: u64,
    /// The most the process will hold at once: all of the above as far as it is needed at the same time, what passes
    /// through, previews, checkpoints being written, and the program.
    pub peak_bytes: u64,
}

/// Something that trains step by step, so that its memory can be planned.
pub trait Training {
    /// What is trained.
    fn parameters(&self) -> &Parameters;

    /// The loss of the next step, with history.
    fn loss(&self) -> Result<Tensor, TrainError>;

    /// One whole step.
    fn step(&mut self) -> Result<(), TrainError>;

    /// What is done between steps now and then, if anything: previews, scores.
    fn evaluate(&mut self) -> Result<(), TrainError> {
        Ok(())
    }

    /// The optimizer.
    fn optimizer(&self) -> &dyn Optimizer;

    /// The moving average of the parameters, if there is one.
    fn average(&self) -> Option<&Ema> {
        None
    }
}

/// Bytes of a process without arrays: the program and its threads.
const PROGRAM: u64 = 15_000_000;

/// What kernels need while they run (patches of convolutions, transformed weights, sums of parts) and what lies between
/// blocks of memory, as a share of the arrays. Together with [`PROGRAM`] it brought the ledger within 8 % of the resident
/// memory of `mnist28` at batches of 2 to 64 and `cifar32` at 2 to 16, recomputed or not, on two threads.
const KERNELS: f64 = 0.1;

/// Bytes of a process whose arrays take `arrays` bytes.
pub(super) fn process(arrays: u64) -> u64 {
    PROGRAM + arrays + (KERNELS * arrays as f64) as u64
}

/// A checkpoint is written part by part; each is there three times at once: encoded, as a file, and with its metadata.
const COPIES_WHEN_SAVED: u64 = 3;

impl MemoryPlan {
    /// The plan of a run on `data`. Errors are those of the run itself.
    pub fn of(config: &RunConfig, data: &TrainingData) -> Result<MemoryPlan, TrainError> {
        let ledger = Ledger::default();
        ledger.plan(|| {
            let task = data.task(config, Device::Cpu)?;
            let plan = MemoryPlan::watch(&ledger, &mut Learner::new(&*task, config)?)?;
            let largest = plan.parameter_bytes.max(plan.optimizer_bytes).max(plan.average_bytes);
            let saving = process(ledger.taken()) + COPIES_WHEN_SAVED * largest;
            let data_bytes = data.bytes();
            let peak_bytes = plan.peak_bytes.max(saving) + data_bytes;
            Ok(MemoryPlan { data_bytes, peak_bytes, ..plan })
        })
    }

    /// The plan of `training`, which was made within [`Ledger::plan`] of this ledger and is trained some steps here, within
    /// it as well. Without data and checkpoints, of which it knows nothing.
    pub fn watch(ledger: &Ledger, training: &mut dyn Training) -> Result<MemoryPlan, TrainError> {
        // The second step finds an optimizer that remembers, the third finds all shelves filled.
        for _ in 0..3 {
            training.step()?;
        }
        training.evaluate()?;
        let before = ledger.live();
        let loss = training.loss()?;
        let activation_bytes = ledger.live() - before;
        let gradients = loss.backward();
        let parameters = training.parameters();
        let reached = parameters.iter().filter_map(|p| gradients.get(&p.tensor()).map(bytes));
        let values = training.average().map(|average| average.values().values().map(bytes).sum());
        Ok(MemoryPlan {
            parameters: parameters.count(),
            parameter_bytes: parameters.values().values().map(bytes).sum(),
            gradient_bytes: reached.sum(),
            optimizer_bytes: training.optimizer().state().values().map(bytes).sum(),
            average_bytes: values.unwrap_or(0),
            activation_bytes,
            data_bytes: 0,
            peak_bytes: process(ledger.peak()),
        })
    }
}

fn bytes(array: &Array) -> u64 {
    (array.numel() * array.dtype().size()) as u64
}
