//! Models as the mathematics sees them, and guidance: pushing a sample further towards its condition (E1, E2).

use super::Levels;
use crate::array::Device;
use crate::autograd::Tensor;

/// A model: (x_t, t, condition) -> prediction of the noise, the image or v, as its `Target` says.
pub trait Denoiser {
    /// What the image should show. It covers the whole batch.
    type Condition: ?Sized;

    /// The prediction, [B, C, H, W] like `x_t`; `t` has one time in (0, 1] for each sample.
    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &Self::Condition) -> Tensor;

    /// Where the model computes: what it is given is moved there.
    fn device(&self) -> Device {
        Device::Cpu
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    type Condition = D::Condition;

    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &Self::Condition) -> Tensor {
        (**self).predict(x_t, t, condition)
    }

    fn device(&self) -> Device {
        (**self).device()
    }
}

/// A condition and its absence, for [`ClassifierFree`]. Both cover the whole batch.
#[derive(Clone, Debug)]
pub struct Guided<C> {
    /// c: what the images should show.
    pub condition: C,
    /// What the model was given in training when c was dropped.
    pub null: C,
}

/// Classifier-free guidance: eps_tilde = w eps(x_t, c) + (1 - w) eps(x_t). (E2) 2207.12598 eq. 6; Imagen eq. 2.
///
/// w = 1 is no guidance and asks the model only once, with c; w = 0 ignores c and asks it only once, without. At
/// fixed x_t, eps, x_0 and v are affine functions of one another and the two weights sum to 1, so the formula is the same
/// for a model that predicts any of them.
#[derive(Clone, Debug)]
pub struct ClassifierFree<D> {
    /// The model.
    pub denoiser: D,
    /// w, any finite number; above 1 strengthens the condition.
    pub weight: f64,
}

impl<D: Denoiser> Denoiser for ClassifierFree<D>
where
    D::Condition: Sized,
{
    type Condition = Guided<D::Condition>;

    fn predict(&self, x_t: &Tensor, t: &[f64], guided: &Self::Condition) -> Tensor {
        let with = || self.denoiser.predict(x_t, t, &guided.condition);
        let without = || self.denoiser.predict(x_t, t, &guided.null);
        match self.weight {
            1.0 => with(),
            0.0 => without(),
            w => &(&with() * w) + &(&without() * (1.0 - w)),
        }
    }

    fn device(&self) -> Device {
        self.denoiser.device()
    }
}

/// Classifier guidance: eps_hat = eps - s sigma_t grad_{x_t} log p(y | x_t). (E1) Guided diffusion, algorithm 2.
///
/// `eps` and `grad_log_p` are [B, C, H, W]. s = 1 follows Bayes' rule; larger s favours y more.
#[track_caller]
pub fn classifier_guided(eps: &Tensor, grad_log_p: &Tensor, levels: &Levels, s: f64) -> Tensor {
    eps - &(&(&levels.sigma * grad_log_p) * s)
}
