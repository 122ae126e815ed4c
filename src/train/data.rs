//! What a run learns from, and the task that learns it.

use super::{ClassifierTask, DataConfig, DiffusionTask, RunConfig, SpanCorruptionTask, Task, TrainError};
use crate::array::Device;
use crate::data::{Corpus, Dataset};
use std::sync::Arc;

/// What a run learns from.
#[derive(Clone, Debug)]
pub enum TrainingData {
    /// Images with their classes.
    Images(Arc<Dataset>),
    /// Texts.
    Texts(Arc<Corpus>),
}

impl TrainingData {
    /// Reads what `config` names.
    pub fn load(config: &RunConfig) -> Result<TrainingData, TrainError> {
        match config {
            RunConfig::Diffusion(run) => images(&run.data),
            RunConfig::Classifier(run) => images(&run.data),
            RunConfig::SpanCorruption(run) => match Corpus::new(&run.corpus, run.seed) {
                Ok(corpus) => Ok(TrainingData::Texts(Arc::new(corpus))),
                Err(error) => Err(TrainError::Setup(error.to_string())),
            },
        }
    }

    /// The task of `config`, computing on `device`. An error if it learns from something else, or if the data does not fit the
    /// model.
    pub fn task(&self, config: &RunConfig, device: Device) -> Result<Box<dyn Task>, TrainError> {
        Ok(match (config.clone(), self.clone()) {
            (RunConfig::Diffusion(run), TrainingData::Images(data)) => {
                Box::new(DiffusionTask::new(run, data)?.on(device))
            }
            (RunConfig::Classifier(run), TrainingData::Images(data)) => {
                Box::new(ClassifierTask::new(run, data)?.on(device))
            }
            (RunConfig::SpanCorruption(run), TrainingData::Texts(texts)) => {
                Box::new(SpanCorruptionTask::new(run, texts)?.on(device))
            }
            _ => return Err(TrainError::Setup("this task learns from another kind of data".into())),
        })
    }

    /// Bytes it has in memory.
    pub fn bytes(&self) -> u64 {
        match self {
            TrainingData::Images(data) => {
                [&data.train, &data.test].map(|i| (i.pixels.len() + i.labels.len()) as u64).iter().sum()
            }
            TrainingData::Texts(texts) => texts.bytes(),
        }
    }
}

fn images(config: &DataConfig) -> Result<TrainingData, TrainError> {
    let folder = config.folder.clone().unwrap_or_else(|| config.name.default_folder());
    let data = Dataset::load(config.name, &folder).map_err(|e| TrainError::Setup(e.to_string()))?;
    let data = data.resized(config.pad, config.resolution).map_err(|e| TrainError::Setup(format!("data: {e}")))?;
    Ok(TrainingData::Images(Arc::new(data)))
}
