//! How far apart two tokens are, as attention is told it.

use super::T5Config;
use crate::autograd::Tensor;
use crate::nn::{Fill, Init, Param};

// ANCHOR: bucket
/// The class of the distance `relative` = (place of the key) - (place of the query), among `buckets`. (G1; Raffel et al.
/// 2020, arXiv 1910.10683, section 2.1)
///
/// Seen from the query, keys before it and (if `bidirectional`) after it have half of the buckets each; a decoder, which sees
/// nothing after, has all for those before. Half of a side's buckets are for distances of their own: 0, 1, 2, … The others
/// grow geometrically towards `max_distance`, and beyond it all share the last.
pub fn bucket(relative: isize, bidirectional: bool, buckets: usize, max_distance: usize) -> usize {
    let side = if bidirectional { buckets / 2 } else { buckets };
    let first = if bidirectional && relative > 0 { side } else { 0 };
    let distance = if bidirectional { relative.unsigned_abs() } else { (-relative).max(0) as usize };
    let exact = side / 2;
    if distance < exact {
        return first + distance;
    }
    // In f32, as every published model was trained.
    let octaves = (distance as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
    first + (exact + (octaves * (side - exact) as f32) as usize).min(side - 1)
}
// ANCHOR_END: bucket

/// One learned number for each bucket and head, added to the scores of attention. The first layer of a stack has the
/// table, and all layers share it.
#[derive(Clone, Debug)]
pub(super) struct RelativeBias {
    table: Param,
    bidirectional: bool,
    max_distance: usize,
}

impl RelativeBias {
    pub(super) fn new(init: &Init, config: &T5Config, bidirectional: bool) -> RelativeBias {
        let shape = [config.relative_attention_num_buckets, config.num_heads];
        let fill = Fill::Normal(1.0 / (config.d_model as f64).sqrt());
        let max_distance = config.relative_attention_max_distance;
        RelativeBias { table: init.param("weight", shape, fill), bidirectional, max_distance }
    }

    /// [1, heads, n, n] for a text of n tokens.
    pub(super) fn forward(&self, n: usize) -> Tensor {
        let [buckets, heads] = self.table.shape().dims("relative bias");
        let class = |query, key| bucket(key as isize - query as isize, self.bidirectional, buckets, self.max_distance);
        let classes: Vec<u32> =
            (0..n).flat_map(|query| (0..n).map(move |key| (query, key))).map(|(q, k)| class(q, k) as u32).collect();
        self.table.tensor().embedding(&classes).reshape([1, n, n, heads]).permute(&[0, 3, 1, 2])
    }
}
