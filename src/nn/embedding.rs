//! Numbers as vectors of sines and cosines.

use super::{Init, Linear};
use crate::array::DType;
use crate::autograd::Tensor;

// ANCHOR: sinusoidal
/// Each position as `dim` features: sines, then cosines, of the position times frequencies falling geometrically from
/// 1 towards 1/10000, which is not reached: [positions.len(), dim]. Panics unless `dim` is even. (Vaswani et al. 2017, section 3.5; DDPM, appendix B)
#[track_caller]
pub fn sinusoidal(positions: &[f64], dim: usize, dtype: DType) -> Tensor {
    assert!(dim.is_multiple_of(2), "sinusoidal: {dim} features cannot be halved into sines and cosines");
    let half = dim / 2;
    let frequency = |i: usize| (-(1e4_f64).ln() * i as f64 / half as f64).exp();
    let values: Vec<f64> = positions
        .iter()
        .flat_map(|&p| {
            let sines = (0..half).map(move |i| (p * frequency(i)).sin());
            sines.chain((0..half).map(move |i| (p * frequency(i)).cos()))
        })
        .collect();
    Tensor::from_f64([positions.len(), dim], &values, dtype)
}
// ANCHOR_END: sinusoidal

/// t as sines and cosines, then two linear layers.
#[derive(Clone, Debug)]
pub struct TimeEmbedding {
    features: usize,
    first: Linear,
    second: Linear,
}

/// The DDPM counts a thousand steps; the sinusoids are laid out for that scale.
const STEPS: f64 = 1000.0;

impl TimeEmbedding {
    /// `features` sines and cosines to `dim` numbers. Panics unless `features` is even.
    pub fn new(init: &Init, features: usize, dim: usize) -> TimeEmbedding {
        let first = Linear::new(&init.scope("0"), features, dim);
        TimeEmbedding { features, first, second: Linear::new(&init.scope("1"), dim, dim) }
    }

    // ANCHOR: time_embedding
    /// Times in [0, 1] to [B, dim], in the dtype and on the device of `like`.
    pub fn forward(&self, t: &[f64], like: &Tensor) -> Tensor {
        let steps: Vec<f64> = t.iter().map(|t| t * STEPS).collect();
        let waves = sinusoidal(&steps, self.features, like.dtype()).to(like.device());
        self.second.forward(&self.first.forward(&waves).silu())
    }
    // ANCHOR_END: time_embedding
}
