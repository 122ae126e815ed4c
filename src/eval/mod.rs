//! Measuring what a model draws: does it show what was asked for, and is it distributed as the data are.

mod agreement;
mod classifier;
mod frechet;
pub mod linalg;
mod report;
mod sweep;

pub use agreement::{Agreement, Share};
pub use classifier::{Classifier, ClassifierConfig, ClassifierError};
pub use frechet::{Moments, frechet_distance};
pub use report::{Draw, Evaluation, Judge, Report, evaluate};
pub use sweep::{Lows, Sweep, SweepPoint, SweepProgress, SweepSettings, sweep};
