//! The folder of a run: where everything of it is found again.
//!
//! ```text
//! config.toml     the config in full            samples/step-N.png   sample grids
//! meta.json       version, model, data digest   plots/loss.svg       the loss curve
//! metrics.jsonl   one line every few steps      model.safetensors    the finished model
//! checkpoints/step-N/{model,ema,optimizer}.safetensors and state.json
//! captions.embeddings                           what a T5 made of the captions, if there is one
//! ```

use super::{Checkpoint, ConfigFileError, RunConfig};
use crate::files::{self, FileError};
use std::path::{Path, PathBuf};

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> RunFolder {
        RunFolder(path.into())
    }

    /// Makes the folder and those within it, `config` as config.toml, and removes what killed writers have left. The
    /// config comes first: where there is anything else of a run, there is also what it was made from.
    pub fn create(&self, config: &RunConfig) -> Result<(), FileError> {
        files::create_folder(&self.0)?;
        files::write(&self.config(), config.to_toml().as_bytes())?;
        files::remove_matching(&self.0, files::is_leftover)?;
        for folder in [self.checkpoints(), self.0.join("samples"), self.0.join("plots")] {
            files::create_folder(&folder)?;
            files::remove_matching(&folder, files::is_leftover)?;
        }
        Checkpoint::remove_leftovers(&self.checkpoints())
    }

    /// Whether there is anything in it, besides what killed writers have left.
    pub fn is_occupied(&self) -> bool {
        let left = |name: std::ffi::OsString| name.to_str().is_some_and(files::is_leftover);
        std::fs::read_dir(&self.0).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| !left(e.file_name()))))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The config in full.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Version, model and data of the run.
    pub fn meta(&self) -> PathBuf {
        self.0.join("meta.json")
    }

    /// One JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The sample grid of a step.
    pub fn sample(&self, step: u64) -> PathBuf {
        self.0.join("samples").join(format!("step-{step:06}.png"))
    }

    /// A plot.
    pub fn plot(&self, name: &str) -> PathBuf {
        self.0.join("plots").join(format!("{name}.svg"))
    }

    /// The finished model: averaged weights, f16.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// What a costly text encoder made of the captions.
    pub fn embeddings(&self) -> PathBuf {
        self.0.join("captions.embeddings")
    }

    /// Reads the config of the run.
    pub fn read_config(&self) -> Result<RunConfig, ConfigFileError> {
        RunConfig::read(&self.config(), &[])
    }
}
