//! Keeping x_hat_0 within the range of images (E3, D4).

use crate::autograd::Tensor;
use serde::{Deserialize, Serialize};

/// What is done to x_hat_0 at every sampling step. Pixels of images are in [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Threshold {
    /// Nothing.
    None,
    /// Clip to [-1, 1].
    #[default]
    Static,
    /// Per sample, s = the percentile of |x_hat_0| over all its numbers, at least 1; clip to [-s, s] and divide by s.
    /// Imagen section 2.3 and figure A.31.
    Dynamic {
        /// In (0, 100]; Imagen uses 99.5. (Of 0, which configs may not have, the smallest number is taken.) Between two numbers
        /// it is interpolated linearly.
        #[serde(default = "usual_percentile")]
        percentile: f64,
        /// The largest s, at least 1: what lies beyond is clipped as by `Static`. None if it is not given, as in Imagen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cap: Option<f64>,
    },
}

/// Imagen's.
fn usual_percentile() -> f64 {
    99.5
}

impl Threshold {
    /// Dynamic thresholding without a cap.
    pub fn dynamic(percentile: f64) -> Threshold {
        Threshold::Dynamic { percentile, cap: None }
    }

    /// x_hat_0 within range, and s of every sample (1 where nothing was divided). `x0` is [B, ..].
    ///
    /// # Panics
    /// If a sample is empty or the percentile is outside [0, 100]. The numbers must be finite.
    #[track_caller]
    pub fn apply(self, x0: &Tensor) -> (Tensor, Vec<f64>) {
        let batch = x0.shape()[0];
        match self {
            Threshold::None => (x0.clone(), vec![1.0; batch]),
            Threshold::Static => (x0.clamp(-1.0, 1.0), vec![1.0; batch]),
            // ANCHOR: dynamic
            Threshold::Dynamic { percentile, cap } => {
                let per_sample: usize = x0.shape()[1..].iter().product();
                let values = x0.to_f64();
                // at least 1: a sample within range is never stretched to fill it
                let s: Vec<f64> = values
                    .chunks_exact(per_sample)
                    .map(|sample| percentile_of_abs(sample, percentile).min(cap.unwrap_or(f64::INFINITY)).max(1.0))
                    .collect();
                // dividing first makes the clipping the same for all samples: clip(x, -s, s) / s = clip(x / s, -1, 1)
                let mut shape = vec![1; x0.shape().len()];
                shape[0] = batch;
                ((x0 / &x0.constant_like(shape, &s)).clamp(-1.0, 1.0), s)
                // ANCHOR_END: dynamic
            }
        }
    }
}

// ANCHOR: percentile
/// The percentile of |x|, interpolated linearly between neighbours in order. Panics if there are no numbers.
#[track_caller]
fn percentile_of_abs(x: &[f64], percentile: f64) -> f64 {
    assert!((0.0..=100.0).contains(&percentile), "percentile {percentile} is outside [0, 100]");
    let mut sorted: Vec<f64> = x.iter().map(|v| v.abs()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let position = percentile / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}
// ANCHOR_END: percentile
