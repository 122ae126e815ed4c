//! Models as the mathematics sees them, and guidance: pushing a sample further towards its condition (E1, E2).

use super::{Levels, Schedule, Target};
use crate::array::Device;
use crate::autograd::{Tensor, with_grad};

/// A model: (x_t, t, condition) -> prediction of the noise, the image or v, as its `Target` says.
pub trait Denoiser {
    /// What the image should show. It covers the whole batch.
    type Condition: ?Sized;

    /// The prediction, [B, C, H, W] like `x_t`; `t` has one time in (0, 1] for each sample.
    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &Self::Condition) -> Tensor;

    /// The prediction, and beside it v of (B3) for every number, [B, C, H, W], if the model has learned its variance.
    fn predict_with_variance(&self, x_t: &Tensor, t: &[f64], condition: &Self::Condition) -> (Tensor, Option<Tensor>) {
        (self.predict(x_t, t, condition), None)
    }

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

    fn predict_with_variance(&self, x_t: &Tensor, t: &[f64], c: &Self::Condition) -> (Tensor, Option<Tensor>) {
        (**self).predict_with_variance(x_t, t, c)
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

/// Classifier-free guidance: eps_tilde = w eps(x_t, c) + (1 - w) eps(x_t). (E2) 2207.12598 eq. 6, where the
/// weight is w - 1; Imagen eq. 2.
///
/// w = 1 is no guidance and asks the model only once, with c; w = 0 ignores c and asks it only once, without. At
/// fixed x_t, eps, x_0 and v are affine functions of one another and the two weights sum to 1, so the formula is the same
/// for a model that predicts any of them.
///
/// It acts on the prediction alone, that is on the mean of a step. A variance that was learned is that for c, unless w = 0.
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
        self.predict_with_variance(x_t, t, guided).0
    }

    // ANCHOR: classifier_free
    fn predict_with_variance(&self, x_t: &Tensor, t: &[f64], guided: &Self::Condition) -> (Tensor, Option<Tensor>) {
        let with = || self.denoiser.predict_with_variance(x_t, t, &guided.condition);
        let without = || self.denoiser.predict_with_variance(x_t, t, &guided.null);
        match self.weight {
            1.0 => with(),
            0.0 => without(),
            w => {
                let ((with, v), (without, _)) = (with(), without());
                (&(&with * w) + &(&without * (1.0 - w)), v)
            }
        }
    }
    // ANCHOR_END: classifier_free

    fn device(&self) -> Device {
        self.denoiser.device()
    }
}

// ANCHOR: classifier_guided
/// Classifier guidance: eps_hat = eps - s sigma_t grad_{x_t} log p(y | x_t). (E1) Guided diffusion, algorithm 2.
///
/// `eps` and `grad_log_p` are [B, C, H, W]. s = 1 follows Bayes' rule; larger s favours y more.
#[track_caller]
pub fn classifier_guided(eps: &Tensor, grad_log_p: &Tensor, levels: &Levels, s: f64) -> Tensor {
    eps - &(&(&levels.sigma * grad_log_p) * s)
}
// ANCHOR_END: classifier_guided

/// A classifier of noised images.
pub trait NoisyClassifier {
    /// How many classes it tells apart.
    fn classes(&self) -> usize;

    /// log p(y | x_t), one number for each sample, `[B]`, where `y` is the class of each. It has a gradient with respect to
    /// `x_t` [B, C, H, W].
    fn log_p(&self, x_t: &Tensor, t: &[f64], y: &[usize]) -> Tensor;
}

impl<K: NoisyClassifier + ?Sized> NoisyClassifier for &K {
    fn classes(&self) -> usize {
        (**self).classes()
    }

    fn log_p(&self, x_t: &Tensor, t: &[f64], y: &[usize]) -> Tensor {
        (**self).log_p(x_t, t, y)
    }
}

/// A model led by a classifier towards a class of each sample: [`classifier_guided`] at every question. (E1)
///
/// The model itself need not know of classes. With [`ClassifierFree`] inside, both guide. Only the prediction is changed; a
/// variance that was learned stays.
pub struct ByClassifier<'a, D, K> {
    /// The model.
    pub denoiser: D,
    /// What knows the classes. It must have been trained on images noised by `schedule`.
    pub classifier: K,
    /// y, the class of each sample of the batch.
    pub classes: &'a [usize],
    /// s, any finite number: 0 leaves the model as it is, 1 follows Bayes' rule.
    pub scale: f64,
    /// The schedule of the model and of the classifier.
    pub schedule: &'a dyn Schedule,
    /// What the model predicts.
    pub target: Target,
}

impl<D: Denoiser, K: NoisyClassifier> Denoiser for ByClassifier<'_, D, K> {
    type Condition = D::Condition;

    fn predict(&self, x_t: &Tensor, t: &[f64], condition: &Self::Condition) -> Tensor {
        self.predict_with_variance(x_t, t, condition).0
    }

    fn predict_with_variance(&self, x_t: &Tensor, t: &[f64], c: &Self::Condition) -> (Tensor, Option<Tensor>) {
        // ANCHOR: by_classifier
        let (prediction, v) = self.denoiser.predict_with_variance(x_t, t, c);
        if self.scale == 0.0 {
            return (prediction, v);
        }
        let levels = Levels::at(self.schedule, t, x_t.dtype()).to(x_t.device());
        let x = Tensor::leaf(x_t.array().clone());
        // Samples do not see each other, so the gradient of the sum holds the gradient of each.
        let sum = with_grad(|| self.classifier.log_p(&x, t, self.classes).sum_all());
        let gradient = sum.backward().get(&x).map(|gradient| Tensor::constant(gradient.clone()));
        let nothing = x_t * 0.0;
        let change = classifier_guided(&nothing, gradient.as_ref().unwrap_or(&nothing), &levels, self.scale);
        (&prediction + &self.target.change(&change, &levels), v)
        // ANCHOR_END: by_classifier
    }

    fn device(&self) -> Device {
        self.denoiser.device()
    }
}
