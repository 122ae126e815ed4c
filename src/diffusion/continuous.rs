//! Noise schedules as formulas in continuous time, with no chain behind them (A3, A4).

use super::Schedule;
use std::f64::consts::FRAC_PI_2;

/// A schedule by its formula. The chains of the same names have it as their limit: with more and more steps they come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContinuousSchedule {
    /// The noise comes at the rate beta(t) = 0.1 + 19.9 t. (A4) Score SDE (2011.13456), eq. 33.
    Linear,
    /// The squared cosine of Improved DDPM eq. 17. (A4) It would leave nothing of the image at t = 1; in its last thousandth it goes
    /// on as the chain of 1000 steps does, whose last step keeps a thousandth of the variance.
    Cosine,
}

impl Schedule for ContinuousSchedule {
    // ANCHOR: continuous
    #[track_caller]
    fn log_alpha_bar(&self, t: f64) -> f64 {
        assert!((0.0..=1.0).contains(&t), "time {t} is outside [0, 1]");
        const FROM: f64 = 0.999;
        match self {
            // minus the integral of beta from 0 to t
            ContinuousSchedule::Linear => -(0.1 * t + 0.5 * 19.9 * t * t),
            ContinuousSchedule::Cosine if t <= FROM => log_cosine(t),
            ContinuousSchedule::Cosine => log_cosine(FROM) + (t - FROM) / (1.0 - FROM) * 1e-3_f64.ln(),
        }
    }
    // ANCHOR_END: continuous
}

/// log of cos^2(b) / cos^2(a), where a and b are the angles of the cosine schedule at times 0 and t.
fn log_cosine(t: f64) -> f64 {
    const S: f64 = 0.008;
    let angle = |t: f64| (t + S) / (1.0 + S) * FRAC_PI_2;
    let (a, b) = (angle(0.0), angle(t));
    // cos b = cos a - 2 sin((b + a) / 2) sin((b - a) / 2): near t = 0 the logarithm keeps its digits
    2.0 * (-2.0 * (0.5 * (b + a)).sin() * (0.5 * (b - a)).sin() / a.cos()).ln_1p()
}
