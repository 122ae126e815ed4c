//! Training: from a config to a run folder that holds everything that happened.
//!
//! A run is a pure function of its config: every random number is keyed by the seed and the step, so a run that was
//! interrupted at any moment and resumed ends with the same weights, bit for bit, as one that was not.

mod blueprint;
mod checkpoint;
mod classifier;
mod config;
mod data;
mod diffusion;
mod doctor;
mod metrics;
mod plan;
mod remembered;
mod run_folder;
mod span_corruption;
mod trainer;

pub use blueprint::{Blueprint, BlueprintPlan, NamedEncoder, Paper};
pub use checkpoint::{Checkpoint, CheckpointError, Pending};
pub use classifier::ClassifierTask;
pub use config::{
    ClassifierRun, ConfigFileError, DataConfig, DiffusionRun, RunConfig, SpanCorruptionRun, TrainConfig,
    VocabularyConfig,
};
pub use data::TrainingData;
pub use diffusion::DiffusionTask;
pub use doctor::{Doctor, Finding};
pub use metrics::{Metrics, Record};
pub use plan::{MemoryPlan, Training};
pub use run_folder::RunFolder;
pub use span_corruption::SpanCorruptionTask;
pub use trainer::{Outcome, Progress, Task, TrainError, Trainer};
