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
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

/// The right to train in a folder, which only one process has at a time. It ends with this value, or with the process, however
/// that ends.
#[derive(Debug)]
pub(super) struct Claim {
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    /// What is locked; none where the file system has no locks.
    lock: Option<File>,
}

const EMBEDDINGS: &str = "captions.embeddings";

/// What is locked on systems that do not open folders.
const LOCK: &str = ".lock";

impl RunFolder {
    /// The folder at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> RunFolder {
        RunFolder(path.into())
    }

    /// Takes the folder for this process, and makes it if it is not there; none if another process has it. Where the file system
    /// has no locks, every process gets it.
    pub(super) fn claim(&self) -> Result<Option<Claim>, FileError> {
        let made = self.0.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made = made.map(Path::to_path_buf).collect();
        files::create_folder(&self.0)?;
        let lock = match self.lockable().map(|file| (file.try_lock(), file)) {
            Ok((Err(TryLockError::WouldBlock), _)) => return Ok(None),
            Ok((Ok(()), file)) => Some(file),
            Ok((Err(TryLockError::Error(_)), _)) | Err(_) => None,
        };
        Ok(Some(Claim { made, lock }))
    }

    /// What is locked: the folder itself, so that no file is left to wonder about, nor a lock when the process is killed.
    #[cfg(unix)]
    fn lockable(&self) -> io::Result<File> {
        File::open(&self.0)
    }

    /// What is locked: a file, for folders cannot be opened here.
    #[cfg(not(unix))]
    fn lockable(&self) -> io::Result<File> {
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join(LOCK))
    }

    /// Makes the folder and those within it, `config` as config.toml, and removes what killed writers have left. Only what makes
    /// no run of a folder is there before the config: see [`RunFolder::is_occupied`].
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

    /// Whether there is anything in it, besides what killed writers have left and the embeddings of captions, which are made
    /// before a run begins and serve the next one as well.
    pub fn is_occupied(&self) -> bool {
        let free = |name: &str| files::is_leftover(name) || name == EMBEDDINGS || name == LOCK;
        let free = |name: std::ffi::OsString| name.to_str().is_some_and(free);
        fs::read_dir(&self.0).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| !free(e.file_name()))))
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
        self.0.join(EMBEDDINGS)
    }

    /// Reads the config of the run.
    pub fn read_config(&self) -> Result<RunConfig, ConfigFileError> {
        RunConfig::read(&self.config(), &[])
    }
}

impl Drop for Claim {
    /// A run that did not begin leaves no folders: those with something in them are not removed.
    fn drop(&mut self) {
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
        // Closing the file is not enough: a program that is being started at this moment may have it open for a little longer.
        if let Some(lock) = &self.lock {
            let _ = lock.unlock();
        }
    }
}
