//! Text-to-image diffusion in the manner of Imagen, from scratch.

pub mod array;
pub mod autograd;
pub mod diffusion;
pub mod files;
pub mod kernels;
pub mod nn;
pub mod random;
