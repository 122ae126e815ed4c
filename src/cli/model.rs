//! Finding the model a command is to use.

use super::{Failure, Result, fail};
use imagen::array::Device;
use imagen::cascade::TextToImage;
use imagen::cascade::bundled::{self, Bundled, digest};
use imagen::data::{Dataset, DatasetName};
use imagen::diffusion::TimeConfig;
use imagen::eval::Classifier;
use imagen::files;
use imagen::nn::Weights;
use imagen::train::{Checkpoint, CheckpointError, DataConfig, RunFolder};
use std::path::Path;
use std::sync::Arc;

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
/// A bundled name means the bundled model even if there is a file of that name; ./NAME means the file.
pub fn find(name: &str) -> Result<Found> {
    if let Some(model) = bundled::find(name) {
        return from_bundled(model);
    }
    let path = Path::new(name);
    if path.is_dir() {
        return in_run(path);
    }
    if path.exists() {
        return in_file(path);
    }
    let names: Vec<&str> = bundled::ALL.iter().map(|m| m.name).collect();
    fail(format!(
        "there is no model {name:?}: give a bundled one ({}), a .safetensors file or the folder of a run",
        names.join(", ")
    ))
}

fn from_bundled(model: &Bundled) -> Result<Found> {
    Ok(Found { origin: format!("bundled {}", model.name), digest: model.digest(), weights: model.weights()? })
}

fn in_file(file: &Path) -> Result<Found> {
    let bytes = files::read(file)?;
    Ok(Found { origin: file.display().to_string(), digest: digest(&bytes), weights: Weights::parse(&bytes, file)? })
}

/// The finished model of a run, or the averaged weights of its newest checkpoint if there is none or it has been trained
/// further since.
fn in_run(path: &Path) -> Result<Found> {
    let folder = RunFolder::new(path);
    let finished = folder.model().exists().then(|| in_file(&folder.model())).transpose()?;
    let step = finished.as_ref().and_then(|f| f.weights.metadata.get("step")?.parse::<u64>().ok());
    match (finished, Checkpoint::newest(&folder.checkpoints())) {
        (Some(finished), Ok(checkpoint)) if step >= Some(checkpoint.step) => Ok(finished),
        (_, Ok(Checkpoint { step, ema, metadata, .. })) => {
            let weights = Weights { tensors: ema, metadata };
            let origin = Checkpoint::path(&folder.checkpoints(), step).join("ema.safetensors").display().to_string();
            Ok(Found { origin, digest: digest(&weights.to_bytes(false)), weights })
        }
        (Some(finished), Err(_)) => Ok(finished),
        (None, Err(CheckpointError::None { .. })) => {
            fail(format!("{} is not the folder of a run with a finished model or a checkpoint", path.display()))
        }
        (None, Err(error)) => Err(error.into()),
    }
}

impl Found {
    /// The images that the model was trained on, if it says so.
    pub fn data(&self) -> Option<DataConfig> {
        let config: serde_json::Value = serde_json::from_str(self.weights.metadata.get("config")?).ok()?;
        serde_json::from_value(config["data"].clone()).ok()
    }

    /// The text-to-image model of these weights.
    pub fn text_to_image(&self) -> Result<TextToImage> {
        TextToImage::from_weights(&self.weights).map_err(|e| Failure(format!("{}: {e}", self.origin)))
    }
}

/// A classifier, and the images that it was trained on if it says so.
pub struct Judge {
    pub classifier: Classifier,
    pub origin: String,
    data: Option<DatasetName>,
}

impl Judge {
    /// The classifier of that name, file or folder.
    pub fn find(name: &str) -> Result<Judge> {
        let found = find(name)?;
        let classifier =
            Classifier::from_weights(&found.weights).map_err(|e| Failure(format!("{}: {e}", found.origin)))?;
        let data = found.data().map(|data| data.name);
        Ok(Judge { classifier, origin: found.origin, data })
    }

    /// The real images beside which it judges a model: those that the model was trained on, from the folder `place` if it is
    /// given. For a model that does not say, those that the judge knows.
    pub fn real_images(&self, model: Option<&DataConfig>, place: Option<&Path>) -> Result<(DatasetName, Dataset)> {
        let name = model.map(|data| data.name).or(self.data).unwrap_or(DatasetName::Mnist);
        if let Some(known) = self.data.filter(|&known| known != name) {
            return fail(format!(
                "{} was trained on {known}, and cannot judge a model of {name}: name a --classifier that was trained on {name}",
                self.origin
            ));
        }
        let trained_on = model.and_then(|data| data.folder.as_deref());
        let place = place.or(trained_on).map_or_else(|| name.default_folder(), Path::to_path_buf);
        Ok((name, Dataset::load(name, &place)?))
    }

    /// A class by its name or number.
    pub fn class(&self, class: &str) -> Result<usize> {
        let count = self.classifier.config().classes;
        let number = class.parse().ok().filter(|&number: &usize| number < count);
        let classes = self.data.map_or(&[][..], DatasetName::class_names);
        number.or_else(|| classes.iter().position(|name| *name == class)).ok_or_else(|| {
            let names = if classes.is_empty() { String::new() } else { format!(": {}", classes.join(", ")) };
            Failure(format!("{} has no class {class:?}; it has the {count} from 0 on{names}", self.origin))
        })
    }

    /// The same judge, as what leads `model`, if it was trained for such images and such noise.
    pub fn leading(self, model: TextToImage, device: Device) -> Result<TextToImage> {
        let (mine, size, theirs) = (self.classifier.config(), model.image_size(), model.config());
        if size != [mine.image_channels, mine.image_size, mine.image_size] {
            return fail(format!("{} does not take images of {size:?}", self.origin));
        }
        match mine.noise {
            Some(noise) if noise == theirs.diffusion.schedule && theirs.diffusion.time() == TimeConfig::Continuous => {
                return fail(format!(
                    "{} knows the noise of a chain of 1000 steps, and cannot lead a model with diffusion.time = \"continuous\"",
                    self.origin
                ));
            }
            Some(noise) if noise == theirs.diffusion.schedule => {}
            Some(noise) => {
                let theirs = theirs.diffusion.schedule;
                return fail(format!("{} knows the noise of {noise:?}, the model has that of {theirs:?}", self.origin));
            }
            None => {
                return fail(format!(
                    "{} was trained on images without noise, and cannot lead; see configs/mnist-noisy-classifier.toml",
                    self.origin
                ));
            }
        }
        Ok(model.led_by(Arc::new(self.classifier.on(device))))
    }
}
