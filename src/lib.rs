//! Text-to-image diffusion in the manner of Imagen, from scratch.

pub mod array;
pub mod eval;
pub mod picture;
pub mod random;
