//! The DPM-Solver++(2M) sampler: the last two estimates together make a step of second order (D3).

use super::{Run, SampleError};
use crate::autograd::Tensor;
use crate::diffusion::Denoiser;

// ANCHOR: dpm_solver
/// DPM-Solver++(2M) from x = x_t at the first time. (D3) DPM-Solver++ (2211.01095), algorithm 2.
///
/// ```text
/// h   = l_s - l_t                                     l = log(alpha / sigma), half of log_snr; the paper's lambda
/// D   = (1 + 1/(2r)) x_hat_0 - 1/(2r) x_hat_0'        r = h' / h; x_hat_0' and h' are those of the step before
/// x_s = (sigma_s / sigma_t) x_t - alpha_s (e^{-h} - 1) D
/// ```
///
/// D is x_hat_0 alone in the first step, before which there is none, and in the last: s = 0 makes h infinite and x_s = D.
pub(super) fn run<D: Denoiser + ?Sized>(run: &mut Run<D>, mut x: Tensor) -> Result<Tensor, SampleError> {
    let schedule = run.schedule();
    let l = |t: f64| 0.5 * schedule.log_snr(t);
    let mut before: Option<(Tensor, f64)> = None;
    for (index, t, s) in run.steps() {
        let x0 = run.estimate(index, t, &x)?.x0;
        let h = l(s) - l(t);
        let d = match &before {
            Some((x0_before, h_before)) if s > 0.0 => {
                let r = h_before / h;
                &(&x0 * (1.0 + 0.5 / r)) - &(x0_before * (0.5 / r))
            }
            _ => x0.clone(),
        };
        // at s = 0: 0 x_t + 1 D
        x = &(&x * (schedule.sigma(s) / schedule.sigma(t))) - &(&d * (schedule.alpha(s) * (-h).exp_m1()));
        before = Some((x0, h));
    }
    Ok(x)
}
// ANCHOR_END: dpm_solver
