//! Layers and their parameters.
//!
//! A layer is a struct of parameters and sizes with a `forward`. It is made from an [`Init`], which names its
//! parameters ("middle.attention.out.weight") and gives them their first values.

mod attention;
mod embedding;
mod layers;
mod mapped;
mod parameters;
mod weights;

pub use attention::Attention;
pub use embedding::{TimeEmbedding, sinusoidal};
pub use layers::{Conv2d, Embedding, FeatureNorm, GroupNorm, LayerNorm, Linear, NormKind, RmsNorm};
pub use mapped::MappedWeights;
pub use parameters::{Fill, Init, Param, Parameters};
pub use weights::{Weights, WeightsError};
