//! A text-to-image model as one thing: a text encoder, a U-Net, a noise schedule and a sampler.
//!
//! This is the base stage of Imagen's cascade.

mod config;
mod text_to_image;

pub use crate::bundled;
pub(crate) use config::MOST_PARAMETERS;
pub use config::{DiffusionConfig, SamplingConfig, StageConfig};
pub(crate) use text_to_image::condition;
pub use text_to_image::{Lead, ModelError, Request, TextToImage};
