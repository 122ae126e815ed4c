//! Measuring what a model draws: does it show what was asked for, and is it distributed as the data are.

mod agreement;
mod frechet;
pub mod linalg;

pub use agreement::{Agreement, Share};
pub use frechet::{Moments, frechet_distance};
