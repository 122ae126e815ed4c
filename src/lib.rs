//! Text-to-image diffusion in the manner of Imagen, from scratch.

pub mod array;
pub mod kernels;
pub mod random;
