//! Finding the model a command is to use.

use super::{Failure, Result, fail};
use imagen::cascade::TextToImage;
use imagen::cascade::bundled::{self, Bundled, digest};
use imagen::files;
use imagen::nn::Weights;
use imagen::train::RunFolder;
use std::path::Path;

/// Weights and where they came from.
pub struct Found {
    /// "bundled mnist", or the file.
    pub origin: String,
    /// SHA-256 of the file.
    pub digest: String,
    /// The weights.
    pub weights: Weights,
}

/// Weights by the name of a bundled model, a safetensors file, or the folder of a run that has finished or has a checkpoint.
pub fn find(name: &str) -> Result<Found> {
    if let Some(model) = bundled::ALL.iter().find(|m| m.name == name) {
        return from_bundled(model);
    }
    let path = Path::new(name);
    let file = match path.is_dir() {
        false if path.exists() => path.to_path_buf(),
        false => {
            let names: Vec<&str> = bundled::ALL.iter().map(|m| m.name).collect();
            return fail(format!(
                "there is no model {name:?}: give a bundled one ({}), a .safetensors file or the folder of a run",
                names.join(", ")
            ));
        }
        true => in_run(path)?,
    };
    let bytes = files::read(&file)?;
    Ok(Found { origin: file.display().to_string(), digest: digest(&bytes), weights: Weights::parse(&bytes, &file)? })
}

fn from_bundled(model: &Bundled) -> Result<Found> {
    Ok(Found { origin: format!("bundled {}", model.name), digest: model.digest(), weights: model.weights()? })
}

/// The finished model of a run, or the averaged weights of its newest checkpoint.
fn in_run(path: &Path) -> Result<std::path::PathBuf> {
    let folder = RunFolder::new(path);
    if folder.model().exists() {
        return Ok(folder.model());
    }
    let mut steps: Vec<_> = std::fs::read_dir(folder.checkpoints())
        .map_err(|_| Failure(format!("{} is not the folder of a run: it has neither a model nor checkpoints", path.display())))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("step-")))
        .collect();
    steps.sort();
    match steps.pop() {
        Some(step) => Ok(step.join("ema.safetensors")),
        None => fail(format!("the run in {} has no finished model and no checkpoint yet", path.display())),
    }
}

impl Found {
    /// The text-to-image model of these weights.
    pub fn text_to_image(&self) -> Result<TextToImage> {
        TextToImage::from_weights(&self.weights).map_err(|e| Failure(format!("{}: {e}", self.origin)))
    }
}
