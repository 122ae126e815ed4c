//! Text-to-image diffusion in the manner of Imagen, from scratch.

pub mod array;
pub mod autograd;
pub mod files;
pub mod kernels;
pub mod nn;
pub mod optim;
pub mod random;
