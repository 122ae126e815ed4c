//! The loss a network is trained with (C4, C5).

use super::{Levels, Schedule, Target, Weighting};
use crate::autograd::Tensor;

/// The loss of a batch.
#[derive(Clone)]
pub struct Loss {
    /// The mean over the batch, a scalar with history: what is differentiated.
    pub mean: Tensor,
    /// The weighted loss of every sample, `[B]`, without history: which noise levels are hard.
    pub per_sample: Tensor,
}

/// L = mean over samples of w(t) mean over pixels of (target - prediction)^2. (C4, C5) DDPM eq. 14.
///
/// `prediction`, `x0` and `eps` are [B, C, H, W]; `prediction` is what the network said at
/// x_t = alpha_t x_0 + sigma_t eps ([`super::q_sample`]); `t` has one time in (0, 1] for each sample.
///
/// # Panics
/// If shapes differ, or a time is outside (0, 1].
#[track_caller]
// ANCHOR: loss
pub fn loss(
    prediction: &Tensor,
    x0: &Tensor,
    eps: &Tensor,
    t: &[f64],
    schedule: &(impl Schedule + ?Sized),
    target: Target,
    weighting: Weighting,
) -> Loss {
    let [batch, ..] = x0.shape().dims::<4>("diffusion loss");
    assert_eq!(t.len(), batch, "diffusion loss: {} times for {batch} samples", t.len());
    assert_eq!(prediction.shape(), x0.shape(), "diffusion loss: prediction and image differ in shape");
    assert_eq!(eps.shape(), x0.shape(), "diffusion loss: noise and image differ in shape");
    assert!(t.iter().all(|&t| t > 0.0), "diffusion loss: a time is 0, where there is no noise to learn from");

    let wanted = target.of(x0, eps, &Levels::at(schedule, t, x0.dtype()).to(x0.device()));
    let weights: Vec<f64> = t.iter().map(|&t| weighting.weight(target, schedule.log_snr(t).exp())).collect();
    let weights = x0.constant_like([batch], &weights);
    let per_sample = &(&wanted - prediction).square().mean(&[1, 2, 3], false) * &weights;
    Loss { mean: per_sample.mean_all(), per_sample: per_sample.detach() }
}
// ANCHOR_END: loss
