//! Attention: every query takes a weighted mean of the values, weighted by how well their keys match it.

use super::Tensor;

impl Tensor {
    // ANCHOR: soft_lookup
    /// softmax(scale q k' + bias) v for queries self [.., n, d], keys [.., m, d], values [.., m, e]: result [.., n, e].
    ///
    /// `bias` broadcasts to [.., n, m]; negative infinity hides a key completely (see [`Tensor::mask_to_bias`]). A query
    /// that sees no key at all gets zeros. The usual scale is 1 / sqrt(d). (Vaswani et al. 2017, eq. 1)
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor, bias: Option<&Tensor>, scale: f64) -> Tensor {
        self.attention_weights(keys, bias, scale).matmul(values)
    }

    /// softmax(scale q k' + bias): how much each query takes of each value, [.., n, m].
    #[track_caller]
    pub(crate) fn attention_weights(&self, keys: &Tensor, bias: Option<&Tensor>, scale: f64) -> Tensor {
        let scores = (self * scale).matmul_t(keys, false, true);
        let scores = if let Some(bias) = bias { &scores + bias } else { scores };
        scores.softmax(-1)
    }
    // ANCHOR_END: soft_lookup

    /// log(mask): 0 where the mask is 1, negative infinity where it is 0. The bias that hides padding from attention.
    pub fn mask_to_bias(&self) -> Tensor {
        self.detach().log().detach()
    }
}
