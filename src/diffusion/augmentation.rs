//! Conditioning augmentation: noise on the small image that a super-resolution model is shown (F1, F2).

use super::{Levels, Schedule, q_sample};
use crate::autograd::Tensor;

/// The small images that a super-resolution model makes larger, as it is shown them.
#[derive(Clone, Debug)]
pub struct LowRes {
    /// z_aug, resized to the size of the model's images: [B, C, H, W].
    pub images: Tensor,
    /// aug, how much noise there is on each, as a time in [0, 1].
    pub aug: Vec<f64>,
}

impl LowRes {
    // ANCHOR: augmented
    /// z_aug = alpha(aug) x_lr + sigma(aug) eps, then resized to `size` [H, W] by linear interpolation. (F2) Imagen section 2.4 and
    /// figure A.32, Cascaded diffusion models (2106.15282) section 4.2.
    ///
    /// `low` and `eps` are [B, C, h, w] with h <= H and w <= W, `aug` has one time in [0, 1] for each sample. Training and
    /// sampling both call this function, so that a model sees the same kind of image in both.
    ///
    /// The noise comes before the resizing: at the larger size it would be finer than the pixels of `low`, and a network could
    /// average it away. Panics if shapes do not fit, or a time is outside [0, 1].
    #[track_caller]
    pub fn augmented(
        low: &Tensor,
        eps: &Tensor,
        aug: &[f64],
        schedule: &(impl Schedule + ?Sized),
        [height, width]: [usize; 2],
    ) -> LowRes {
        assert_eq!(low.shape(), eps.shape(), "augmented: images and noise");
        let levels = Levels::at(schedule, aug, low.dtype()).to(low.device());
        LowRes { images: q_sample(low, eps, &levels).resize_bilinear(height, width), aug: aug.to_vec() }
    }
    // ANCHOR_END: augmented
}
