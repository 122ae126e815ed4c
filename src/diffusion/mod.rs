//! Diffusion as mathematics: noise schedule, forward process, posterior, targets, losses, samplers, guidance and
//! thresholding. No network is known here: a model is anything that is a [`Denoiser`].
//!
//! Symbols are the papers': x_0 the image, x_t the noised image, eps the noise, alpha_bar, beta_tilde, mu_tilde, lambda.
//! Labels such as (B2) name the equations of the book's derivations; the test of (B2) is in `tests/b_posterior.rs`.

pub mod augmentation;
pub mod bound;
pub mod continuous;
pub mod forward;
pub mod gaussian;
pub mod guidance;
pub mod hybrid;
pub mod loss;
pub mod mixture;
pub mod posterior;
pub mod sampler;
pub mod schedule;
pub mod target;
pub mod threshold;
pub mod weighting;

pub use augmentation::LowRes;
pub use bound::{Bound, ReverseVariance, bound};
pub use continuous::ContinuousSchedule;
pub use forward::{Levels, Transition, q_sample};
pub use guidance::{ByClassifier, ClassifierFree, Denoiser, Guided, NoisyClassifier, classifier_guided};
pub use hybrid::{VLB_WEIGHT, VarianceConfig, bound_terms, hybrid, v_of_output};
pub use loss::{Loss, loss};
pub use mixture::{Component, Exact, Mixture};
pub use posterior::Posterior;
pub use sampler::{Given, Images, SampleError, Sampler, SamplerKind, Sampling, Step};
pub use schedule::{Chain, DiscreteSchedule, Schedule, ScheduleConfig, TimeConfig};
pub use target::Target;
pub use threshold::Threshold;
pub use weighting::Weighting;
