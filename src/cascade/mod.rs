//! A text-to-image model as one thing: a text encoder, a U-Net, a noise schedule and a sampler. And the cascade: such a model,
//! and others that make its images larger.

mod chain;
mod config;
mod text_to_image;

pub use crate::bundled;
pub use chain::{Cascade, CascadeConfig, CascadeProgress, StageEntry};
pub use config::{DiffusionConfig, SamplingConfig, StageConfig, SuperResolutionConfig};
pub(crate) use config::{MOST_PARAMETERS, MOST_PIXELS};
pub(crate) use text_to_image::condition;
pub use text_to_image::{Edit, Lead, ModelError, Request, TextToImage};
