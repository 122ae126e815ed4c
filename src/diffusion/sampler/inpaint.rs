//! Filling in what is missing of an image: the ancestral sampler, told what is there (RePaint).

use super::{Estimate, Run, SampleError, Spread};
use crate::autograd::Tensor;
use crate::diffusion::{Denoiser, Levels, Posterior, Transition, q_sample};

/// What is there of the images, and how hard the rest is made to fit.
#[derive(Clone, Debug)]
pub struct Given {
    /// The images, [B, C, H, W]; what they hold outside of the mask is not looked at.
    pub images: Tensor,
    /// 1 where the image is given and 0 where it is to be drawn, [B, C, H, W].
    pub mask: Tensor,
    /// How often each step is taken, at least 1. With 1 the rest is drawn beside what is given, but the two grow up apart; going
    /// forward again and taking the step anew lets each adapt to the other.
    pub rounds: usize,
}

impl Given {
    /// The images with 0 where nothing is given: a NaN or an infinity there would come through, even times 0.
    pub(super) fn covered(&self) -> Tensor {
        let (mut values, mask) = (self.images.to_f64(), self.mask.to_f64());
        values.iter_mut().zip(mask).filter(|(_, mask)| *mask == 0.0).for_each(|(value, _)| *value = 0.0);
        self.images.constant_like(self.images.shape().clone(), &values)
    }
}

/// RePaint (2201.09865) algorithm 1, from x = x_t at the first time:
///
/// ```text
/// known    x_s ~ q(x_s | x_0)                        what is given, noised as much as the rest should be
/// unknown  x_s ~ p(x_s | x_t)                        an ancestral step
/// x_s = mask known + (1 - mask) unknown
/// but for the last round:  x_t ~ q(x_t | x_s)        forward again, and the same step anew
/// ```
pub(super) fn run<D: Denoiser + ?Sized>(
    run: &mut Run<D>,
    mut x: Tensor,
    spread: Spread,
    given: &Given,
) -> Result<Tensor, SampleError> {
    let drawn_here = given.mask.affine(-1.0, 1.0);
    let mut draws = 0;
    for (index, t, s) in run.steps() {
        let (posterior, forward) =
            (Posterior::between(run.schedule(), s, t), Transition::between(run.schedule(), s, t));
        let levels = Levels::at(run.schedule(), &vec![s; run.images.seeds.len()], x.dtype()).to(x.device());
        // At s = 0 nothing is random any more: a second round would repeat the first but for its start.
        let rounds = if s > 0.0 { given.rounds } else { 1 };
        // ANCHOR: rounds
        for round in 1..=rounds {
            let mut noise = || {
                draws += 1;
                run.images.noise(draws).to(x.device())
            };
            let [of_known, of_step, of_return] = [noise(), noise(), noise()];
            let Estimate { x0, v, .. } = run.estimate(index, t, &x)?;
            let known = q_sample(&given.images, &of_known, &levels);
            let mut unknown = posterior.mean(&x0, &x);
            if s > 0.0 {
                unknown = &unknown + &spread.noise(&posterior, &of_step, v.as_ref())?;
            }
            x = &(&given.mask * &known) + &(&drawn_here * &unknown);
            if round < rounds {
                x = &(&x * forward.scale) + &(&of_return * forward.variance.sqrt());
            }
        }
        // ANCHOR_END: rounds
    }
    Ok(x)
}
