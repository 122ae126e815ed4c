//! The DDIM sampler: fewer steps, as random as wanted (D2).

use super::{Estimate, Run, SampleError};
use crate::autograd::Tensor;
use crate::diffusion::{Denoiser, Posterior, Schedule};

// ANCHOR: ddim
/// DDIM from x = x_t at the first time; each step is [`ddim_step`] plus noise of variance eta^2 beta_tilde. DDIM eq. 12
/// with the sigma of eq. 16.
pub(super) fn run<D: Denoiser + ?Sized>(run: &mut Run<D>, mut x: Tensor, eta: f64) -> Result<Tensor, SampleError> {
    for (index, t, s) in run.steps() {
        let Estimate { x0, eps, .. } = run.estimate(index, t, &x)?;
        let sigma = eta * Posterior::between(run.schedule(), s, t).variance.sqrt();
        x = ddim_step(&x0, &eps, run.schedule(), s, sigma);
        if sigma > 0.0 {
            x = &x + &(&run.images.noise(index).to(x.device()) * sigma);
        }
    }
    Ok(x)
}
// ANCHOR_END: ddim

// ANCHOR: ddim_step
/// The mean of a DDIM step to time s, which noise of standard deviation `sigma` is to be added to. (D2) DDIM eq. 12.
///
/// ```text
/// sqrt(alpha_bar_s) x_hat_0 + sqrt(1 - alpha_bar_s - sigma^2) eps_hat
/// ```
///
/// `x0` and `eps` are the estimates at time t, [B, C, H, W]. With sigma = 0 the time s may also be later than t: the
/// step then runs from the image towards its noise. `sigma` is at most sigma(s).
#[track_caller]
pub fn ddim_step(x0: &Tensor, eps: &Tensor, schedule: &(impl Schedule + ?Sized), s: f64, sigma: f64) -> Tensor {
    // at s = 0 both terms under the root are 0; rounding must not make it negative
    let towards_x_t = (schedule.sigma(s).powi(2) - sigma * sigma).max(0.0).sqrt();
    &(x0 * schedule.alpha(s)) + &(eps * towards_x_t)
}
// ANCHOR_END: ddim_step
