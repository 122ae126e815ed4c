//! The ancestral sampler: one draw from p(x_s | x_t) per step (D1).

use super::{Estimate, Run, SampleError, Spread};
use crate::autograd::Tensor;
use crate::diffusion::{Denoiser, Posterior};

// ANCHOR: ancestral
/// DDPM algorithm 2, in the form of Imagen eq. 6, from x = x_t at the first time:
///
/// ```text
/// x_s = mu_tilde(x_t, x_hat_0) + sqrt(beta_tilde^(1 - gamma) beta^gamma) z,    z ~ N(0, I), none in the last step
/// ```
///
/// If the variance is learned, gamma is v, and every number has its own.
pub(super) fn run<D: Denoiser + ?Sized>(
    run: &mut Run<D>,
    mut x: Tensor,
    spread: Spread,
) -> Result<Tensor, SampleError> {
    for (index, t, s) in run.steps() {
        let Estimate { x0, v, .. } = run.estimate(index, t, &x)?;
        let posterior = Posterior::between(run.schedule(), s, t);
        x = posterior.mean(&x0, &x);
        if s > 0.0 {
            let z = run.images.noise(index).to(x.device());
            x = &x + &spread.noise(&posterior, &z, v.as_ref())?;
        }
    }
    Ok(x)
}
// ANCHOR_END: ancestral
