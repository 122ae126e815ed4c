//! Noise schedules: how much of the image is left at time t (A1, A4).
//!
//! Time is continuous: t = 0 is the clean image, t = 1 is (almost) pure noise. Everything a sampler or a loss asks for
//! follows from one function, log alpha_bar(t):
//!
//! ```text
//! alpha(t)   = sqrt(alpha_bar(t))            what is left of the image
//! sigma(t)   = sqrt(1 - alpha_bar(t))        how much noise there is      alpha^2 + sigma^2 = 1
//! log_snr(t) = log(alpha(t)^2 / sigma(t)^2)  "lambda" in the papers
//! ```
//!
//! The discrete chain of DDPM, x_0, x_1, .., x_T, is the grid t = i / T of the same schedule: [`DiscreteSchedule`] is
//! both. Between two grid points it keeps the rate of decay constant (log alpha_bar is linear in t), so that one step
//! of the chain may be cut into smaller Gaussian steps whose composition is that step.

use super::ContinuousSchedule;
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;

// ANCHOR: schedule
/// A noise schedule in continuous time. All functions take t in [0, 1]; implementations may panic outside.
pub trait Schedule: Send + Sync {
    /// log alpha_bar(t): 0 at t = 0, strictly decreasing, finite.
    fn log_alpha_bar(&self, t: f64) -> f64;

    /// alpha_bar(t) = alpha(t)^2, in (0, 1].
    fn alpha_bar(&self, t: f64) -> f64 {
        self.log_alpha_bar(t).exp()
    }

    /// What is left of the image: alpha(t) = sqrt(alpha_bar(t)).
    fn alpha(&self, t: f64) -> f64 {
        (0.5 * self.log_alpha_bar(t)).exp()
    }

    /// Standard deviation of the noise: sigma(t) = sqrt(1 - alpha_bar(t)).
    fn sigma(&self, t: f64) -> f64 {
        // exp_m1 keeps the digits that 1 - alpha_bar would lose near t = 0
        // subtracted from 0, not negated, which would give -0 at t = 0
        (0.0 - self.log_alpha_bar(t).exp_m1()).sqrt()
    }

    /// lambda(t) = log(alpha(t)^2 / sigma(t)^2), strictly decreasing; infinite at t = 0.
    fn log_snr(&self, t: f64) -> f64 {
        let log_alpha_bar = self.log_alpha_bar(t);
        log_alpha_bar - (-log_alpha_bar.exp_m1()).ln()
    }

    /// T, if only the times i / T are used; none if any time is.
    fn grid(&self) -> Option<usize> {
        None
    }

    /// The time that is used for t: the next i / T from t on if there is a grid, or else t itself.
    fn on_grid(&self, t: f64) -> f64 {
        // what t lacks or has too much by rounding must not make it the next step's
        self.grid().map_or(t, |steps| (t * steps as f64 - 1e-9).ceil().max(0.0) / steps as f64)
    }
}
// ANCHOR_END: schedule

/// The chain x_0, x_1, .., x_T of DDPM, and its continuous view t = i / T.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteSchedule {
    /// beta_1 .. beta_T: entry i - 1 belongs to step i.
    betas: Vec<f64>,
    /// alpha_bar_0 = 1, alpha_bar_1 .. alpha_bar_T.
    alpha_bars: Vec<f64>,
    /// log alpha_bar_0 = 0 .. log alpha_bar_T, summed from log(1 - beta) to keep the digits near 1.
    log_alpha_bars: Vec<f64>,
}

/// No step may destroy more than this share of the variance, so that alpha_bar stays above 0 (Improved DDPM, section 3.2).
const LARGEST_BETA: f64 = 0.999;

impl DiscreteSchedule {
    // ANCHOR: from_betas
    /// The chain with the given variances beta_1 .. beta_T. (A1)
    ///
    /// # Panics
    /// If there are none, or one is not strictly between 0 and 1.
    #[track_caller]
    pub fn from_betas(betas: Vec<f64>) -> DiscreteSchedule {
        assert!(!betas.is_empty(), "a schedule needs at least one step");
        if let Some(i) = betas.iter().position(|&beta| !(beta > 0.0 && beta < 1.0)) {
            panic!("beta_{} = {} is not strictly between 0 and 1", i + 1, betas[i]);
        }
        let (mut alpha_bars, mut log_alpha_bars) = (vec![1.0], vec![0.0]);
        let (mut alpha_bar, mut log_alpha_bar) = (1.0, 0.0);
        for &beta in &betas {
            alpha_bar *= 1.0 - beta;
            log_alpha_bar += (-beta).ln_1p();
            alpha_bars.push(alpha_bar);
            log_alpha_bars.push(log_alpha_bar);
        }
        DiscreteSchedule { betas, alpha_bars, log_alpha_bars }
    }
    // ANCHOR_END: from_betas

    // ANCHOR: linear
    /// The linear schedule: beta from 1e-4 to 0.02 in 1000 steps; with another number of steps both ends are scaled by
    /// 1000 / steps, which keeps alpha_bar at the end about the same. (A4) DDPM section 4.
    ///
    /// # Panics
    /// If `steps` is 0.
    #[track_caller]
    pub fn linear(steps: usize) -> DiscreteSchedule {
        let scale = 1000.0 / steps as f64;
        let (first, last) = (scale * 1e-4, scale * 0.02);
        let beta = |i: usize| first + (last - first) * i as f64 / (steps.max(2) - 1) as f64;
        DiscreteSchedule::from_betas((0..steps).map(|i| beta(i).min(LARGEST_BETA)).collect())
    }
    // ANCHOR_END: linear

    // ANCHOR: cosine
    /// The cosine schedule: beta_i = 1 - alpha_bar(i / T) / alpha_bar((i - 1) / T) with [`cosine_alpha_bar`], at most
    /// 0.999. (A4) Improved DDPM eq. 17.
    ///
    /// # Panics
    /// If `steps` is 0.
    #[track_caller]
    pub fn cosine(steps: usize) -> DiscreteSchedule {
        let alpha_bar = |i: usize| cosine_alpha_bar(i as f64 / steps as f64);
        let beta = |i: usize| 1.0 - alpha_bar(i) / alpha_bar(i - 1);
        DiscreteSchedule::from_betas((1..=steps).map(|i| beta(i).min(LARGEST_BETA)).collect())
    }
    // ANCHOR_END: cosine

    /// The chain of `steps` steps that is in any schedule: x_i is x_t at t = i / T. (A3)
    ///
    /// # Panics
    /// If `steps` is 0.
    #[track_caller]
    pub fn of(schedule: &(impl Schedule + ?Sized), steps: usize) -> DiscreteSchedule {
        let log_alpha_bar = |i: usize| schedule.log_alpha_bar(i as f64 / steps as f64);
        let beta = |i: usize| -(log_alpha_bar(i) - log_alpha_bar(i - 1)).exp_m1();
        DiscreteSchedule::from_betas((1..=steps).map(beta).collect())
    }

    /// T, the number of steps.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// beta_1 .. beta_T; entry i - 1 belongs to step i.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// alpha_bar_0 = 1, alpha_bar_1 .. alpha_bar_T; entry i belongs to x_i.
    pub fn alpha_bars(&self) -> &[f64] {
        &self.alpha_bars
    }

    /// The continuous time of x_i: t = i / T.
    pub fn time(&self, i: usize) -> f64 {
        i as f64 / self.steps() as f64
    }
}

impl Schedule for DiscreteSchedule {
    // ANCHOR: log_alpha_bar
    /// Linear in t between the grid points i / T, which it meets.
    #[track_caller]
    fn log_alpha_bar(&self, t: f64) -> f64 {
        assert!((0.0..=1.0).contains(&t), "time {t} is outside [0, 1]");
        let position = t * self.steps() as f64;
        let i = (position as usize).min(self.steps() - 1);
        let fraction = position - i as f64;
        (1.0 - fraction) * self.log_alpha_bars[i] + fraction * self.log_alpha_bars[i + 1]
    }
    // ANCHOR_END: log_alpha_bar
}

/// A chain that is used at its own times i / T alone, as in DDPM: no time between two steps is trained or sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain(pub DiscreteSchedule);

impl Schedule for Chain {
    fn log_alpha_bar(&self, t: f64) -> f64 {
        self.0.log_alpha_bar(t)
    }

    fn grid(&self) -> Option<usize> {
        Some(self.0.steps())
    }
}

// ANCHOR: cosine_alpha_bar
/// alpha_bar(t) = f(t) / f(0) with f(t) = cos^2((t + s) / (1 + s) pi / 2) and s = 0.008: the cosine schedule before it
/// is cut into steps. 0 at t = 1. (A4) Improved DDPM eq. 17.
pub fn cosine_alpha_bar(t: f64) -> f64 {
    const S: f64 = 0.008;
    let f = |t: f64| ((t + S) / (1.0 + S) * FRAC_PI_2).cos().powi(2);
    f(t) / f(0.0)
}
// ANCHOR_END: cosine_alpha_bar

/// A schedule by name, as configs write it: `"linear"` or `"cosine"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// [`DiscreteSchedule::linear`]
    Linear,
    /// [`DiscreteSchedule::cosine`]
    #[default]
    Cosine,
}

impl ScheduleConfig {
    /// How many steps the chain has whose continuous view [`ScheduleConfig::build`] gives.
    pub const STEPS: usize = 1000;

    /// The chain with `steps` steps.
    ///
    /// # Panics
    /// If `steps` is 0.
    #[track_caller]
    pub fn discrete(self, steps: usize) -> DiscreteSchedule {
        match self {
            ScheduleConfig::Linear => DiscreteSchedule::linear(steps),
            ScheduleConfig::Cosine => DiscreteSchedule::cosine(steps),
        }
    }

    /// The schedule in continuous time: that of the chain of 1000 steps, met exactly at t = i / 1000.
    pub fn build(self) -> DiscreteSchedule {
        self.discrete(ScheduleConfig::STEPS)
    }

    /// The schedule by its formula, without a chain.
    pub fn continuous(self) -> ContinuousSchedule {
        match self {
            ScheduleConfig::Linear => ContinuousSchedule::Linear,
            ScheduleConfig::Cosine => ContinuousSchedule::Cosine,
        }
    }

    /// The schedule with the times that `time` says.
    pub fn in_time(self, time: TimeConfig) -> Box<dyn Schedule> {
        match time {
            TimeConfig::Interpolated => Box::new(self.build()),
            TimeConfig::Discrete => Box::new(Chain(self.build())),
            TimeConfig::Continuous => Box::new(self.continuous()),
        }
    }

    /// The chain of 1000 steps that [`ScheduleConfig::in_time`] meets at t = i / 1000: what a bound is the bound of.
    pub fn chain(self, time: TimeConfig) -> DiscreteSchedule {
        match time {
            TimeConfig::Interpolated | TimeConfig::Discrete => self.build(),
            TimeConfig::Continuous => DiscreteSchedule::of(&self.continuous(), ScheduleConfig::STEPS),
        }
    }
}

/// Which times a model is trained and sampled at, as configs write it: `"interpolated"`, `"discrete"` or `"continuous"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeConfig {
    /// Any time in (0, 1]. At t = i / 1000 the schedule is that of the chain of 1000 steps, and log alpha_bar is linear between.
    #[default]
    Interpolated,
    /// The steps of that chain alone, as in DDPM: in training t is one of i / 1000, and so is every time of a sampler.
    Discrete,
    /// Any time in (0, 1], with the schedule's own formula and no chain, as in Imagen.
    Continuous,
}
