//! The cascade: a base model, and models that make its images larger, one after the other.

use super::config::check_aug;
use super::{ModelError, Request, TextToImage};
use crate::array::Device;
use crate::autograd::Tensor;
use crate::diffusion::{Sampling, Step};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What a cascade is made from, as its TOML file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CascadeConfig {
    /// The stages, from the smallest images to the largest: `[[stage]]` in the file.
    pub stage: Vec<StageEntry>,
}

/// A stage of a cascade: which model it is, and what is sampled otherwise than the model says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageEntry {
    /// The folder of a run, a .safetensors file or a bundled model; a path is seen from the current folder.
    pub model: PathBuf,
    /// Guidance weight w (E2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Sampler, steps and thresholding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// How much noise is put on the image of the stage before (F2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aug: Option<f64>,
}

impl StageEntry {
    /// An error naming the first entry that is out of range.
    pub fn check(&self) -> Result<(), String> {
        if let Some(guidance) = self.guidance.filter(|guidance| !guidance.is_finite()) {
            return Err(format!("guidance must be a number, not {guidance}"));
        }
        self.sampling.map_or(Ok(()), |sampling| sampling.check().map_err(|e| e.to_string()))?;
        self.aug.map_or(Ok(()), check_aug)
    }
}

/// A base model and any number of super-resolution models. (F)
pub struct Cascade {
    stages: Vec<TextToImage>,
}

/// Called at every step of every stage, which is given with it, from 0; `ControlFlow::Break` stops the sampling.
pub type CascadeProgress<'a> = dyn FnMut(usize, Step<'_>) -> ControlFlow<()> + 'a;

impl Cascade {
    /// A cascade of these stages. An error unless each but the first makes images larger, and just those that the stage before
    /// it draws. The first may be a super-resolution model as well: then the cascade starts from images.
    pub fn new(stages: Vec<TextToImage>) -> Result<Cascade, ModelError> {
        let wrong = |what: String| Err(ModelError::Config(format!("cascade: {what}")));
        if stages.is_empty() {
            return wrong("there is no stage".into());
        }
        for (i, pair) in stages.windows(2).enumerate() {
            let (before, [c, h, w]) = (pair[0].image_size(), pair[1].image_size());
            let Some(stage) = pair[1].config().super_resolution else {
                return wrong(format!("stage {} does not make images larger", i + 2));
            };
            let wanted = [c, h / stage.factor, w / stage.factor];
            if wanted != before {
                return wrong(format!(
                    "stage {} makes images of {wanted:?} larger, stage {} draws {before:?}",
                    i + 2,
                    i + 1
                ));
            }
        }
        Ok(Cascade { stages })
    }

    /// The stages.
    pub fn stages(&self) -> &[TextToImage] {
        &self.stages
    }

    /// Images sampled at once, at most: see [`TextToImage::batch`].
    pub fn batch(&self) -> usize {
        self.stages.iter().map(TextToImage::batch).max().unwrap_or(1)
    }

    /// The same cascade, computing on `device`. Panics if it is a GPU that was not opened.
    #[track_caller]
    pub fn on(self, device: Device) -> Cascade {
        Cascade { stages: self.stages.into_iter().map(|stage| stage.on(device)).collect() }
    }

    /// What every stage is asked for, as it is sampled by default: `count` images for every prompt.
    ///
    /// The stages have seeds of their own that follow from `seed`: the same key would give two stages the same numbers, and the
    /// noise of one would hold that of the other.
    pub fn requests(&self, prompts: &[String], count: usize, seed: u64) -> Vec<Request> {
        // ANCHOR: requests
        let request = |(i, stage): (usize, &TextToImage)| Request {
            count,
            seed: seed.wrapping_add((i as u64).wrapping_mul(SEEDS_APART)),
            ..stage.request(prompts.to_vec())
        };
        // ANCHOR_END: requests
        self.stages.iter().enumerate().map(request).collect()
    }

    /// The images of every stage, each [prompts * count, C, H, W] on the CPU: those of the last are the result. `requests` has one
    /// entry a stage, for the same prompts and count.
    ///
    /// `low` are the images that the first stage makes larger, if it is a super-resolution model. Errors are those of
    /// [`TextToImage::sample`] and [`TextToImage::enlarge`].
    pub fn sample(
        &self,
        requests: &[Request],
        low: Option<&Tensor>,
        progress: &mut CascadeProgress<'_>,
    ) -> Result<Vec<Tensor>, ModelError> {
        if requests.len() != self.stages.len() {
            let (asked, stages) = (requests.len(), self.stages.len());
            return Err(ModelError::Config(format!("cascade: {asked} requests for {stages} stages")));
        }
        // Before anything is drawn: the last stage may be minutes away.
        for (i, (stage, request)) in self.stages.iter().zip(requests).enumerate() {
            let aug = request.aug.map_or(Ok(()), check_aug);
            let alike = (&request.prompts, request.count) == (&requests[0].prompts, requests[0].count);
            let alike = alike.then_some(()).ok_or_else(|| "other prompts, or another count of images".to_string());
            let checked = stage.config().check_sampling(&request.sampling).and(aug).and(alike);
            checked.map_err(|e| ModelError::Config(format!("cascade: stage {}: {e}", i + 1)))?;
        }
        // ANCHOR: sample
        let mut drawn: Vec<Tensor> = Vec::new();
        for (i, (stage, request)) in self.stages.iter().zip(requests).enumerate() {
            let mut progress = |step: Step<'_>| progress(i, step);
            drawn.push(match drawn.last().or(low) {
                None => stage.sample(request, &mut progress)?,
                // What a network draws may leave the range of images by a little; what it is shown in training does not.
                Some(low) => stage.enlarge(request, &low.clamp(-1.0, 1.0), &mut progress)?,
            });
        }
        Ok(drawn)
        // ANCHOR_END: sample
    }
}

/// An odd number with bits all over, so that the seeds of stages do not meet those of the next user seeds.
const SEEDS_APART: u64 = 0x9E37_79B9_7F4A_7C15;
