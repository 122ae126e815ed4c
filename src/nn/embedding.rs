//! Numbers as vectors of sines and cosines.

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
