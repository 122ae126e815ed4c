//! Checkpoints: everything a run needs to continue as if nothing had happened.
//!
//! A checkpoint is a folder `step-N`. It is written under another name, read back and compared, and only then renamed,
//! so a folder of that name is always complete, whatever moment the power went.

use crate::array::Array;
use crate::bundled::digest;
use crate::files::{self, FileError};
use crate::nn::{Weights, WeightsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The state of a run after `step` steps.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The losses since the last record of the metrics.
    pub pending: Pending,
    /// The trained weights.
    pub model: BTreeMap<String, Array>,
    /// Their moving average.
    pub ema: BTreeMap<String, Array>,
    /// The optimizer's moments.
    pub optimizer: BTreeMap<String, Array>,
    /// Written into the weights: config, version, data digest.
    pub metadata: BTreeMap<String, String>,
}

/// Losses that no record of the metrics has yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Their sum, added up step by step.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

/// A checkpoint that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file of the checkpoint is not what was written.
    #[error("checkpoint {}: {problem}; remove this folder to resume from an older one", path.display())]
    Damaged {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is none to resume from.
    #[error("{} holds no checkpoint to resume from; start the run without --resume", path.display())]
    None {
        /// The folder of checkpoints.
        path: PathBuf,
    },
}

/// state.json
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    seconds: f64,
    #[serde(default)]
    pending: Pending,
    /// SHA-256 by file name.
    digests: BTreeMap<String, String>,
}

const PARTS: [&str; 3] = ["model", "ema", "optimizer"];

impl Checkpoint {
    /// The folder of the checkpoint after `step` steps within the folder of checkpoints.
    pub fn path(folder: &Path, step: u64) -> PathBuf {
        folder.join(format!("step-{step:08}"))
    }

    /// Writes `step-N` into `folder` and removes the oldest ones until `keep` are left. A checkpoint of the same step that
    /// is there already is kept, for it is the same.
    pub fn write(&self, folder: &Path, keep: usize) -> Result<PathBuf, CheckpointError> {
        let path = Checkpoint::path(folder, self.step);
        if !path.exists() {
            let temporary = folder.join(format!(".step-{:08}.tmp", self.step));
            let result = self.write_parts(&temporary).and_then(|()| {
                fs::rename(&temporary, &path).map_err(|e| FileError::new("write", &path, e))?;
                Ok(files::sync_folder(folder)?)
            });
            if let Err(error) = result {
                // Best effort: the error that matters is the one that is returned.
                let _ = fs::remove_dir_all(&temporary);
                return Err(error);
            }
        }
        let mut all = list(folder)?;
        while all.len() > keep.max(1) {
            let (_, oldest) = all.remove(0);
            fs::remove_dir_all(&oldest).map_err(|e| FileError::new("remove", oldest, e))?;
        }
        Ok(path)
    }

    fn write_parts(&self, folder: &Path) -> Result<(), CheckpointError> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|e| FileError::new("remove", folder, e))?;
        }
        files::create_folder(folder)?;
        let mut digests = BTreeMap::new();
        for (name, tensors) in PARTS.iter().zip([&self.model, &self.ema, &self.optimizer]) {
            let bytes = Weights { tensors: tensors.clone(), metadata: self.metadata.clone() }.to_bytes(false);
            let path = folder.join(format!("{name}.safetensors"));
            files::write(&path, &bytes)?;
            let digest = digest(&bytes);
            if self::digest(&files::read(&path)?) != digest {
                let problem =
                    format!("{name}.safetensors reads back differently from what was written; is the disk failing?");
                return Err(CheckpointError::Damaged { path: folder.to_path_buf(), problem });
            }
            digests.insert(format!("{name}.safetensors"), digest);
        }
        let state = State { step: self.step, seconds: self.seconds, pending: self.pending, digests };
        let json = serde_json::to_string_pretty(&state).expect("a state can always be written");
        files::write(&folder.join("state.json"), json.as_bytes())?;
        Ok(files::sync_folder(folder)?)
    }

    /// Removes what interrupted writes have left in `folder`. No other process may be writing there.
    pub fn remove_leftovers(folder: &Path) -> Result<(), FileError> {
        files::remove_matching(folder, |name| name.starts_with(".step-") && name.ends_with(".tmp"))
    }

    /// The newest checkpoint in `folder`. Leftovers of interrupted writes are not looked at.
    pub fn newest(folder: &Path) -> Result<Checkpoint, CheckpointError> {
        match list(folder)?.pop() {
            Some((_, path)) => Checkpoint::read(&path),
            None => Err(CheckpointError::None { path: folder.to_path_buf() }),
        }
    }

    /// The checkpoint in the folder `path`, every file checked against the digest it was written with.
    pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let damaged = |problem: String| CheckpointError::Damaged { path: path.to_path_buf(), problem };
        let read = |name: &str| {
            files::read(&path.join(name)).map_err(|e| match e.source.kind() {
                ErrorKind::NotFound => damaged(format!("{name} is missing")),
                _ => e.into(),
            })
        };
        let state = read("state.json")?;
        let state: State = serde_json::from_slice(&state).map_err(|e| damaged(format!("state.json: {e}")))?;
        let mut parts = Vec::new();
        for name in PARTS {
            let name = format!("{name}.safetensors");
            let bytes = read(&name)?;
            if state.digests.get(&name) != Some(&digest(&bytes)) {
                return Err(damaged(format!("{name} is not what was written")));
            }
            parts.push(Weights::parse(&bytes, &path.join(&name))?);
        }
        let [model, ema, optimizer] = parts.try_into().expect("there are three parts");
        Ok(Checkpoint {
            step: state.step,
            seconds: state.seconds,
            pending: state.pending,
            metadata: model.metadata,
            model: model.tensors,
            ema: ema.tensors,
            optimizer: optimizer.tensors,
        })
    }
}

/// The checkpoints in `folder`, oldest first.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, FileError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(FileError::new("read", folder, e)),
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?, e.path())))
        .collect();
    found.sort();
    Ok(found)
}
