//! Attention that stores no n x m matrix.

use super::axes::Axes;
use super::context::Context;
use super::numbers::{Word, words};
use super::shader::Shader;
use crate::array::{Array, Shape};
use crate::kernels::axes::repeated;
use std::sync::Arc;

/// Threads of a workgroup, each with a query or a key.
const THREADS: usize = 64;

/// The most features that a thread keeps in registers.
const MOST_FEATURES: usize = 32;

/// An attention that the kernels can compute.
pub(super) struct Fused {
    batches: usize,
    n: usize,
    m: usize,
    features: usize,
    /// Sizes of the leading axes, and a bias's steps along them, along queries and along keys.
    lead: [usize; 4],
    bias_lead: [usize; 4],
    bias_steps: [usize; 2],
    biased: bool,
}

impl Fused {
    /// For q [.., n, d], k [.., m, d] and v [.., m, e]; none if their sizes are not among those the kernels are made for.
    pub fn of(q: &Array, k: &Array, v: &Array, bias: Option<&Array>) -> Option<Fused> {
        let (lead, &[n, d]) = q.shape().split_last_chunk()?;
        let (k_lead, &[m, _]) = k.shape().split_last_chunk()?;
        let fits = k.shape() == v.shape() && k_lead == lead && d.is_multiple_of(4) && (4..=MOST_FEATURES).contains(&d);
        if !fits || q.numel() == 0 || k.numel() == 0 {
            return None;
        }
        let scores = [lead, &[n, m]].concat();
        let (mut bias_lead, mut bias_steps) = (vec![0; lead.len()], [0; 2]);
        if let Some(bias) = bias {
            if bias.shape().broadcast(&scores[..].into()).is_none_or(|both| both[..] != scores) {
                return None;
            }
            let steps = repeated(bias.shape(), &scores);
            bias_lead = steps[..lead.len()].to_vec();
            bias_steps = [steps[lead.len()], steps[lead.len() + 1]];
        }
        let axes = Axes::new(lead, [bias_lead]);
        let four = |numbers: &[usize], fill| std::array::from_fn(|i| numbers.get(i).copied().unwrap_or(fill));
        (axes.rank() <= 4).then(|| Fused {
            batches: Shape::from(lead).numel(),
            n,
            m,
            features: d,
            lead: four(&axes.sizes, 1),
            bias_lead: four(&axes.strides[0], 0),
            bias_steps,
            biased: bias.is_some(),
        })
    }

    fn parameters(&self, tiles: usize, scale: f64) -> Vec<Word> {
        let [bias_n, bias_m] = self.bias_steps;
        let mut parameters =
            words![self.batches, self.n, self.m, tiles, scale, u32::from(self.biased), bias_n, bias_m].to_vec();
        parameters.extend(self.lead.iter().chain(&self.bias_lead).map(|&number| Word::from(number)));
        parameters
    }

    fn shader(&self, file: &'static str, entry: &'static str) -> Shader {
        Shader::new(file, entry).with("D4", self.features / 4)
    }

    /// y like q; and to be saved y, and the logarithms of the sums of exponentials [.., n].
    pub fn forward(
        &self,
        gpu: &Arc<Context>,
        [q, k, v]: [&Array; 3],
        bias: Option<&Array>,
        scale: f64,
    ) -> (Array, Vec<Array>) {
        let y = gpu.array(q.shape(), "attention");
        let log_sum = gpu.array([self.batches, self.n], "attention");
        let tiles = self.n.div_ceil(THREADS);
        let arrays = [q, k, v, bias.unwrap_or(q), &y, &log_sum];
        let parameters = self.parameters(tiles, scale);
        gpu.run(self.shader("attention", "attention"), &parameters, &arrays, self.batches * tiles);
        (y.clone(), vec![y, log_sum])
    }

    /// Gradients of q, k and v.
    pub fn backward(
        &self,
        gpu: &Arc<Context>,
        g: &Array,
        [q, k, v]: [&Array; 3],
        bias: Option<&Array>,
        saved: &[Array],
        scale: f64,
    ) -> [Array; 3] {
        let [y, log_sum] = saved else { panic!("attention_grad: needs two arrays, found {}", saved.len()) };
        let [dq, dk, dv] = [q, k, v].map(|x| gpu.array(x.shape(), "attention_grad"));
        let delta = gpu.array(log_sum.shape(), "attention_grad");
        let bias = bias.unwrap_or(q);
        let tiles = self.n.div_ceil(THREADS);
        let arrays = [q, k, v, bias, g, y, log_sum, &dq, &delta];
        let shader = self.shader("attention_grad", "queries");
        gpu.run(shader, &self.parameters(tiles, scale), &arrays, self.batches * tiles);
        let tiles = self.m.div_ceil(THREADS);
        let arrays = [q, k, v, bias, g, log_sum, &delta, &dk, &dv];
        let shader = self.shader("attention_grad", "keys");
        gpu.run(shader, &self.parameters(tiles, scale), &arrays, self.batches * tiles);
        [dq, dk, dv]
    }
}
