//! Sampling: from noise to an image, along any grid of times t_0 > t_1 > .. > 0 (D1, D2, D3, D4).
//!
//! Each sampler is a loop in a file of its own that reads like the paper's algorithm. What they share is here: the
//! settings, the random numbers, and one estimate x_hat_0 per step, thresholded and watched.

mod ancestral;
mod ddim;
mod dpm_solver;
mod inpaint;

pub use ddim::ddim_step;
pub use inpaint::Given;

use super::{Denoiser, Levels, Posterior, Schedule, Target, Threshold};
use crate::array::DType;
use crate::autograd::{Tensor, no_grad};
use crate::kernels::DeviceError;
use crate::random::{self, Purpose};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// How images are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// How many steps, each one evaluation of the model: from 1 to [`Sampling::MOST_STEPS`].
    pub steps: usize,
    /// Which algorithm.
    pub sampler: SamplerKind,
    /// What is done to x_hat_0 at every step.
    pub threshold: Threshold,
}

// ANCHOR: kind
/// A sampling algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SamplerKind {
    /// One draw from the model's reverse process per step. (D1) DDPM algorithm 2; Imagen eq. 6.
    Ancestral {
        /// Variance of a step, in [0, 1]: 0 is beta_tilde, 1 is beta, between them in the logarithm.
        #[serde(default)]
        gamma: f64,
    },
    /// The same, with the variance that the model has learned, of every number. (B3) Improved DDPM eq. 15.
    #[serde(alias = "ancestral-learned")]
    AncestralLearned {},
    /// The non-Markovian process. (D2) DDIM eq. 12.
    Ddim {
        /// How random, in [0, 1]: 0 is deterministic, 1 is the ancestral sampler with gamma = 0.
        #[serde(default)]
        eta: f64,
    },
    /// DPM-Solver++(2M): deterministic as DDIM with eta = 0, of second order. (D3) DPM-Solver++ algorithm 2.
    // braces, so that a config that gives it a number is refused: serde lets unit variants have any keys
    #[serde(alias = "dpm-solver")]
    DpmSolver {},
}
// ANCHOR_END: kind

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { steps: 50, sampler: SamplerKind::Ddim { eta: 0.0 }, threshold: Threshold::default() }
    }
}

impl Sampling {
    /// More steps than this are taken for a slip of the hand.
    pub const MOST_STEPS: usize = 100_000;

    // ANCHOR: times
    /// The evenly spaced times 1, 1 - 1/steps, .., 1/steps, 0; `steps` must be at least 1.
    pub fn times(&self) -> Vec<f64> {
        (0..=self.steps).rev().map(|i| i as f64 / self.steps as f64).collect()
    }
    // ANCHOR_END: times

    /// Those of [`Sampling::times`] that are not after `start`, and `start` itself in front: an image that was noised up to there
    /// is drawn from there on. Panics unless `start` is above 0 and at most 1.
    #[track_caller]
    pub fn times_from(&self, start: f64) -> Vec<f64> {
        assert!(start > 0.0 && start <= 1.0, "sampling begins at a time above 0, at most 1, not at {start}");
        // A step of next to no length would only add rounding.
        let shortest = 1e-3 / self.steps as f64;
        let later = self.times().into_iter().filter(|&t| t == 0.0 || t < start - shortest);
        std::iter::once(start).chain(later).collect()
    }

    /// Whether every number is within its range; the first that is not is the error.
    pub fn check(&self) -> Result<(), SampleError> {
        let within = |name, value: f64, allowed, ok| match ok {
            true => Ok(()),
            false => Err(SampleError::Setting { name, value, allowed }),
        };
        let some = (1..=Sampling::MOST_STEPS).contains(&self.steps);
        within("steps", self.steps as f64, "from 1 to 100000", some)?;
        match self.sampler {
            SamplerKind::Ancestral { gamma } => within("gamma", gamma, "from 0 to 1", (0.0..=1.0).contains(&gamma))?,
            SamplerKind::Ddim { eta } => within("eta", eta, "from 0 to 1", (0.0..=1.0).contains(&eta))?,
            SamplerKind::AncestralLearned {} | SamplerKind::DpmSolver {} => {}
        }
        match self.threshold {
            Threshold::Dynamic { percentile: p, cap } => {
                within("percentile", p, "above 0, at most 100", p > 0.0 && p <= 100.0)?;
                cap.map_or(Ok(()), |cap| within("cap", cap, "at least 1", cap >= 1.0))
            }
            Threshold::None | Threshold::Static => Ok(()),
        }
    }
}

/// Why no images came of it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A number of [`Sampling`] is out of range.
    #[error("sampling: {name} = {value} is not allowed; it must be {allowed}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// What it was.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// What the model says has a NaN or an infinity.
    #[error(
        "sampling: the model's {what} is not finite at step {} of {of} (t = {t:.4}); the model's weights or its \
         condition are broken, or its numbers overflow",
        index + 1
    )]
    NotFinite {
        /// What has: "image estimate", "variance", or the "bound" that is made of both.
        what: &'static str,
        /// The step, from 0.
        index: usize,
        /// How many steps there are.
        of: usize,
        /// The time of the step.
        t: f64,
    },
    /// The model should say the variance of its steps, and does not.
    #[error(
        "sampling: this model has not learned its variance; take a fixed one, such as kind = \"ancestral\", gamma = 0.0"
    )]
    NoVariance,
    /// The device has failed.
    #[error("sampling: {0}")]
    Device(#[from] DeviceError),
    /// The progress callback said to stop.
    #[error("sampling: stopped at step {} of {of}", index + 1)]
    Cancelled {
        /// The step, from 0.
        index: usize,
        /// How many steps there are.
        of: usize,
    },
}

/// The images to be sampled: their size, and the keys of their random numbers. An image depends on its own key alone,
/// not on the batch it is in.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// [C, H, W]
    pub size: [usize; 3],
    /// What the model computes in.
    pub dtype: DType,
    /// (seed, index) of every image.
    pub seeds: &'a [(u64, u64)],
}

impl Images<'_> {
    /// x_T ~ N(0, I), [B, C, H, W].
    pub fn start(&self) -> Tensor {
        self.normal(Purpose::Start, 0)
    }

    /// z ~ N(0, I) of a sampler's step, [B, C, H, W].
    pub fn noise(&self, step: usize) -> Tensor {
        self.normal(Purpose::Sampler, step as u64)
    }

    /// N(0, I) that is drawn once an image, for a purpose of its own, [B, C, H, W].
    pub fn noise_for(&self, purpose: Purpose) -> Tensor {
        self.normal(purpose, 0)
    }

    fn normal(&self, purpose: Purpose, step: u64) -> Tensor {
        let [c, h, w] = self.size;
        let of_image = |&(seed, index): &(u64, u64)| random::normal(seed, purpose, step, index, c * h * w);
        let values: Vec<f64> = self.seeds.iter().flat_map(of_image).collect();
        Tensor::from_f64([self.seeds.len(), c, h, w], &values, self.dtype)
    }
}

/// What the progress callback sees, once a step, after the model was asked; of [`Sampler::inpaint`], once a round of every step.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The step, from 0.
    pub index: usize,
    /// How many steps there are.
    pub of: usize,
    /// The time the step starts from.
    pub t: f64,
    /// The noised images at time t, [B, C, H, W].
    pub x_t: &'a Tensor,
    /// The model's estimate of the images, thresholded, [B, C, H, W].
    pub x0_hat: &'a Tensor,
    /// s of every sample: what dynamic thresholding divided by, 1 if nothing.
    pub threshold: &'a [f64],
}

/// Called at every step; `ControlFlow::Break` stops the sampling.
pub type Progress<'a> = dyn FnMut(Step<'_>) -> ControlFlow<()> + 'a;

/// A model together with how it is sampled.
pub struct Sampler<'a, D: Denoiser + ?Sized> {
    /// The schedule the model was trained with.
    pub schedule: &'a dyn Schedule,
    /// The model.
    pub denoiser: &'a D,
    /// What the model predicts.
    pub target: Target,
    /// What the images should show.
    pub condition: &'a D::Condition,
    /// The algorithm and its numbers.
    pub settings: Sampling,
}

impl<D: Denoiser + ?Sized> Sampler<'_, D> {
    /// Images [B, C, H, W] from noise, in `settings.steps` even steps from t = 1 to 0. No gradients are recorded.
    ///
    /// # Errors
    /// If a setting is out of range, or there are more steps than the schedule has; if the steps should have the variance that the
    /// model has learned, and it has learned none; if x_hat_0 or that variance is not finite; if the device fails; or if `progress`
    /// stops it.
    pub fn sample(&self, images: &Images, progress: &mut Progress) -> Result<Tensor, SampleError> {
        self.check()?;
        self.sample_from(images.start().to(self.denoiser.device()), &self.times_from(1.0), images, progress)
    }

    /// Those of [`Sampling::times_from`], each where the schedule is used ([`Schedule::on_grid`]), and none twice. Panics unless
    /// `start` is above 0 and at most 1.
    #[track_caller]
    pub fn times_from(&self, start: f64) -> Vec<f64> {
        let mut times = self.settings.times_from(start);
        times.iter_mut().for_each(|t| *t = self.schedule.on_grid(*t));
        times.dedup();
        times
    }

    /// Whether the settings are within range, and the schedule has so many steps.
    fn check(&self) -> Result<(), SampleError> {
        self.settings.check()?;
        match self.schedule.grid().filter(|&most| self.settings.steps > most) {
            Some(_) => {
                let (name, value) = ("steps", self.settings.steps as f64);
                Err(SampleError::Setting { name, value, allowed: "at most the number of steps of the model's chain" })
            }
            None => Ok(()),
        }
    }

    /// Images from `x` [B, C, H, W] at time `times[0]`, along `times`. The noise of stochastic samplers is that of
    /// `images`; of `settings.steps` only its range is checked.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    ///
    /// # Panics
    /// Unless `times` falls strictly from at most 1 to 0, and `x` has the shape that `images` says.
    #[track_caller]
    pub fn sample_from(
        &self,
        x: Tensor,
        times: &[f64],
        images: &Images,
        progress: &mut Progress,
    ) -> Result<Tensor, SampleError> {
        self.settings.check()?;
        assert!(
            times.len() >= 2 && times.is_sorted_by(|t, s| t > s) && times[0] <= 1.0 && times.last() == Some(&0.0),
            "sampling times must fall strictly from at most 1 to 0: {times:?}"
        );
        let [c, h, w] = images.size;
        assert_eq!(**x.shape(), [images.seeds.len(), c, h, w], "sampling: the start does not fit the images");
        let mut run = Run { sampler: self, images, times, progress };
        no_grad(|| match self.settings.sampler {
            SamplerKind::Ancestral { gamma } => ancestral::run(&mut run, x, Spread::Fixed(gamma)),
            SamplerKind::AncestralLearned {} => ancestral::run(&mut run, x, Spread::Learned),
            SamplerKind::Ddim { eta } => ddim::run(&mut run, x, eta),
            SamplerKind::DpmSolver {} => dpm_solver::run(&mut run, x),
        })
    }
}

impl<D: Denoiser + ?Sized> Sampler<'_, D> {
    /// Images from noise of which a part is given, by ancestral steps: what the mask covers comes out as it is given, and the rest
    /// so that it fits. Any sampler but the ancestral one counts as that with gamma = 0: going forward again takes noise.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    ///
    /// # Panics
    /// Unless what is given has the shape that `images` says, and there is a round.
    #[track_caller]
    pub fn inpaint(&self, given: &Given, images: &Images, progress: &mut Progress) -> Result<Tensor, SampleError> {
        self.check()?;
        let x = images.start();
        let fits = given.images.shape() == x.shape() && given.mask.shape() == x.shape();
        assert!(fits && given.rounds > 0, "inpaint: images and mask of {}, and at least one round", x.shape());
        let device = self.denoiser.device();
        let given = Given { images: given.covered().to(device), mask: given.mask.to(device), rounds: given.rounds };
        let spread = match self.settings.sampler {
            SamplerKind::Ancestral { gamma } => Spread::Fixed(gamma),
            SamplerKind::AncestralLearned {} => Spread::Learned,
            SamplerKind::Ddim { .. } | SamplerKind::DpmSolver {} => Spread::Fixed(0.0),
        };
        let times = self.times_from(1.0);
        let mut run = Run { sampler: self, images, times: &times, progress };
        no_grad(|| inpaint::run(&mut run, x.to(device), spread, &given))
    }
}

/// How far an ancestral step scatters.
#[derive(Clone, Copy)]
enum Spread {
    /// As far everywhere: gamma.
    Fixed(f64),
    /// As the model says.
    Learned,
}

impl Spread {
    /// `z` ~ N(0, I) as the noise of a step with this posterior, s > 0; `v` is what the model says.
    fn noise(self, posterior: &Posterior, z: &Tensor, v: Option<&Tensor>) -> Result<Tensor, SampleError> {
        match (self, v) {
            (Spread::Fixed(gamma), _) => Ok(z * posterior.variance_between(gamma).sqrt()),
            (Spread::Learned, Some(v)) => Ok(z * &posterior.std_between(v)),
            (Spread::Learned, None) => Err(SampleError::NoVariance),
        }
    }
}

/// One sampling under way: what every sampler's loop needs.
struct Run<'a, 'p, D: Denoiser + ?Sized> {
    sampler: &'a Sampler<'a, D>,
    images: &'a Images<'a>,
    times: &'a [f64],
    progress: &'a mut Progress<'p>,
}

/// What the model says at a step, [B, C, H, W] each.
struct Estimate {
    /// x_hat_0.
    x0: Tensor,
    /// eps_hat.
    eps: Tensor,
    /// v of (B3), if the model has learned its variance.
    v: Option<Tensor>,
}

impl<'a, D: Denoiser + ?Sized> Run<'a, '_, D> {
    /// (step, t, s) with s the time after t, in order.
    fn steps(&self) -> impl Iterator<Item = (usize, f64, f64)> + use<'a, D> {
        self.times.windows(2).enumerate().map(|(index, pair)| (index, pair[0], pair[1]))
    }

    /// The schedule.
    fn schedule(&self) -> &'a dyn Schedule {
        self.sampler.schedule
    }

    // ANCHOR: estimate
    /// The estimate at x_t: the model is asked, x_hat_0 thresholded, and eps_hat computed from it, so that both
    /// still make up x_t. (D4)
    fn estimate(&mut self, index: usize, t: f64, x_t: &Tensor) -> Result<Estimate, SampleError> {
        let Sampler { denoiser, target, condition, settings, .. } = self.sampler;
        let of = self.times.len() - 1;
        let t_of_each = vec![t; self.images.seeds.len()];
        let levels = Levels::at(self.schedule(), &t_of_each, x_t.dtype()).to(x_t.device());

        let (prediction, v) = denoiser.predict_with_variance(x_t, &t_of_each, condition);
        let x0 = target.to_x0(&prediction, x_t, &levels);
        let asked = v.as_ref().filter(|_| matches!(settings.sampler, SamplerKind::AncestralLearned {}));
        let (finite, sure) = (x0.array().is_finite(), asked.is_none_or(|v| v.array().is_finite()));
        x0.array().kernels().check()?;
        if !(finite && sure) {
            let what = if finite { "variance" } else { "image estimate" };
            return Err(SampleError::NotFinite { what, index, of, t });
        }
        let (x0, s) = settings.threshold.apply(&x0);
        let eps = Target::X0.to_eps(&x0, x_t, &levels);
        match (self.progress)(Step { index, of, t, x_t, x0_hat: &x0, threshold: &s }) {
            ControlFlow::Continue(()) => Ok(Estimate { x0, eps, v }),
            ControlFlow::Break(()) => Err(SampleError::Cancelled { index, of }),
        }
    }
    // ANCHOR_END: estimate
}
