//! Networks that are counted and not trained: the models of the paper at full size.

use super::config::{ConfigFileError, apply};
use super::plan::process;
use super::{MemoryPlan, TrainError, Training};
use crate::array::{Array, DType, Device, Ledger, Shape};
use crate::autograd::{Tensor, no_grad};
use crate::cascade::MOST_PIXELS;
use crate::diffusion::LowRes;
use crate::files::{self, toml_mistake};
use crate::kernels;
use crate::nn::{Init, Parameters};
use crate::optim::{Ema, Optimizer, OptimizerConfig};
use crate::unet::{Condition, UNet, UNetConfig};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `task = "blueprint"`: a network by its sizes alone. Its text encoder and its images are named and not needed, so it can be
/// counted and its memory planned on any computer, and trained on none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blueprint {
    task: Task,
    /// [C, H, W] of the images it makes.
    pub image: [usize; 3],
    /// Height and width of the parts of images that it is trained on; whole ones if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// Images a step for which memory is planned.
    pub batch: usize,
    /// Whether blocks are computed a second time in the backward pass instead of kept.
    #[serde(default)]
    pub recompute: bool,
    /// What it is compared with.
    pub paper: Paper,
    /// What would read its texts.
    pub text: NamedEncoder,
    /// What would train it.
    pub optimizer: OptimizerConfig,
    /// The network.
    pub unet: UNetConfig,
}

/// Says which kind of config this is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Task {
    Blueprint,
}

/// What a paper says of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Its number of parameters, as far as it is given.
    pub parameters: u64,
    /// Where that stands.
    pub source: String,
}

/// A text encoder that is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedEncoder {
    /// Its name.
    pub encoder: String,
    /// Its number of parameters.
    pub parameters: u64,
    /// Tokens of a text for which memory is planned.
    pub tokens: usize,
}

/// What a [`Blueprint`] would take of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BlueprintPlan {
    /// Training it, without images, text encoder and checkpoints.
    pub training: MemoryPlan,
    /// The most the process would hold at once while it draws one image, without the text encoder.
    pub sampling_peak_bytes: u64,
}

impl Blueprint {
    /// Reads a config file and applies `overrides` of the form `batch=4`; `None` if the file has another task.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Option<Blueprint>, ConfigFileError> {
        let text = files::read_text(path)?;
        let invalid = |problem: String| ConfigFileError::Invalid { path: path.to_path_buf(), problem };
        let mut table: toml::Table = text.parse().map_err(|e| invalid(toml_mistake(&e)))?;
        if table.get("task").and_then(toml::Value::as_str) != Some("blueprint") {
            return Ok(None);
        }
        let blueprint: Blueprint = toml::from_str(&text).map_err(|e| invalid(toml_mistake(&e)))?;
        blueprint.validate().map_err(invalid)?;
        if overrides.is_empty() {
            return Ok(Some(blueprint));
        }
        for argument in overrides {
            let argument = argument.clone();
            apply(&mut table, &argument).map_err(|problem| ConfigFileError::Override { argument, problem })?;
        }
        let wrong = |problem: String| ConfigFileError::Override { argument: overrides.join(" --set "), problem };
        let blueprint: Blueprint = toml::Value::Table(table).try_into().map_err(|e| wrong(toml_mistake(&e)))?;
        blueprint.validate().map_err(wrong)?;
        Ok(Some(blueprint))
    }

    fn validate(&self) -> Result<(), String> {
        self.unet.validate().map_err(|e| e.to_string())?;
        self.optimizer.check().map_err(|e| format!("optimizer: {e}"))?;
        let divisor = self.unet.size_divisor();
        for [channels, height, width] in [self.image, self.trained_on()] {
            let sides = [height, width].iter().all(|&side| (1..=MOST_PIXELS).contains(&side) && side % divisor == 0);
            if channels != self.unet.image_channels || !sides {
                return Err(format!(
                    "images of {channels}x{height}x{width} do not fit the network: it takes {} channels and sides of at most \
                     {MOST_PIXELS} that are divisible by {divisor}",
                    self.unet.image_channels
                ));
            }
        }
        for (key, value, most) in [("batch", self.batch, 65_536), ("text.tokens", self.text.tokens, 2048)] {
            if !(1..=most).contains(&value) {
                return Err(format!("{key} must be between 1 and {most}, not {value}"));
            }
        }
        match self.unet.text {
            Some(_) => Ok(()),
            None => Err("there is a [text] encoder, but the network takes no text: add [unet.text]".into()),
        }
    }

    /// [C, H, W] of what it is trained on.
    pub fn trained_on(&self) -> [usize; 3] {
        let [channels, height, width] = self.image;
        self.crop.map_or([channels, height, width], |side| [channels, side, side])
    }

    /// How many parameters the network has, found by making it without numbers.
    pub fn parameters(&self) -> Result<usize, TrainError> {
        Ledger::default().plan(|| Ok(Sketch::new(self, 1, self.image)?.parameters.count()))
    }

    /// What it would take of memory.
    pub fn plan(&self) -> Result<BlueprintPlan, TrainError> {
        let ledger = Ledger::default();
        let training =
            ledger.plan(|| MemoryPlan::watch(&ledger, &mut Sketch::new(self, self.batch, self.trained_on())?))?;
        let ledger = Ledger::default();
        let peak = ledger.plan(|| {
            let sketch = Sketch::new(self, 1, self.image)?;
            no_grad(|| sketch.batch.predict(&sketch.net));
            Ok::<u64, TrainError>(ledger.peak())
        })?;
        Ok(BlueprintPlan { training, sampling_peak_bytes: process(peak) })
    }
}

/// A blueprint as a network of arrays without numbers, and a batch of the same kind.
struct Sketch {
    net: UNet,
    parameters: Parameters,
    optimizer: Box<dyn Optimizer>,
    average: Ema,
    batch: Batch,
}

struct Batch {
    images: Tensor,
    condition: Condition,
}

/// To be made while memory is planned.
impl Sketch {
    fn new(blueprint: &Blueprint, count: usize, [channels, height, width]: [usize; 3]) -> Result<Sketch, TrainError> {
        let setup = |e: &dyn std::fmt::Display| TrainError::Setup(e.to_string());
        let Blueprint { unet, text, optimizer, .. } = blueprint;
        let init = Init::blank(DType::F32);
        let net = UNet::new(unet.clone(), &init).map_err(|e| setup(&e))?.recomputing(blueprint.recompute);
        let fill = |shape: &[usize], value| kernels::of(Device::Cpu).fill(&Shape::from(shape), DType::F32, value);
        let shape = [count, channels, height, width];
        let dim = unet.text.as_ref().map_or(1, |text| text.dim);
        let tokens = fill(&[count, text.tokens, dim], 0.0);
        let mask = Array::from_vec([count, text.tokens], vec![1.0_f32; count * text.tokens]);
        let mut condition = Condition::new(tokens, mask);
        if unet.low_res {
            let low = LowRes { images: fill(&shape, 0.0).into(), aug: vec![0.1; count] };
            condition = Condition::with_low_res(Some(condition), low);
        }
        let parameters = init.parameters();
        Ok(Sketch {
            net,
            optimizer: optimizer.build().map_err(|e| setup(&e))?,
            average: Ema::new(&parameters, 0.9999, true).map_err(|e| setup(&e))?,
            parameters,
            batch: Batch { images: fill(&shape, 0.0).into(), condition },
        })
    }
}

impl Batch {
    fn predict(&self, net: &UNet) -> Tensor {
        net.forward(&self.images, &vec![0.5; self.images.shape()[0]], Some(&self.condition))
    }
}

impl Training for Sketch {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Of the prediction alone, if the variance is learned as well: the bound that teaches it is small beside the network.
    fn loss(&self) -> Result<Tensor, TrainError> {
        let output = self.batch.predict(&self.net);
        let channels = self.batch.images.shape()[1];
        let prediction = if output.shape()[1] > channels { output.slice(1, 0..channels) } else { output };
        Ok(prediction.mse(&self.batch.images))
    }

    fn step(&mut self) -> Result<(), TrainError> {
        let gradients = self.loss()?.backward();
        self.optimizer.step_averaged(&self.parameters, &gradients, 1e-4, &mut self.average);
        Ok(())
    }

    fn optimizer(&self) -> &dyn Optimizer {
        &*self.optimizer
    }

    fn average(&self) -> Option<&Ema> {
        Some(&self.average)
    }
}
