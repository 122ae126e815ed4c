//! Text-to-image diffusion in the manner of Imagen, from scratch.

pub mod array;
pub mod autograd;
pub mod cascade;
pub mod data;
pub mod diffusion;
pub mod eval;
pub mod files;
pub mod kernels;
pub mod nn;
pub mod optim;
pub mod picture;
pub mod random;
pub mod text;
pub mod train;
pub mod unet;
