//! Attention: every query takes a weighted mean of the values, weighted by how well their keys match it.

use super::Tensor;
use super::graph::{is_recording, op};
use crate::array::Shape;

impl Tensor {
    // ANCHOR: soft_lookup
    /// softmax(scale q k' + bias) v for queries self [.., n, d], keys [.., m, d], values [.., m, e]: result [.., n, e].
    ///
    /// `bias` broadcasts to [.., n, m]; negative infinity hides a key completely (see [`Tensor::mask_to_bias`]). A query
    /// that sees no key at all gets zeros. The usual scale is 1 / sqrt(d). (Vaswani et al. 2017, eq. 1)
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor, bias: Option<&Tensor>, scale: f64) -> Tensor {
        self.check_attention(keys, values, bias);
        // The primitive has no gradient for a bias.
        if bias.is_some_and(|bias| is_recording() && bias.requires_grad()) {
            return self.attention_weights(keys, bias, scale).matmul(values);
        }
        let kernels = self.kernels();
        let (q, k, v) = (self.value.clone(), keys.value.clone(), values.value.clone());
        let bias = bias.map(|bias| bias.value.clone());
        let (y, saved) = kernels.attention(&q, &k, &v, bias.as_ref(), scale);
        op("attention", y)
            .grads([self, keys, values], move |g| {
                let grads = kernels.attention_grad(g, [&q, &k, &v], bias.as_ref(), &saved, scale);
                let [dq, dk, dv] = &grads;
                [dq.sum_to(q.shape()), dk.sum_to(k.shape()), dv.sum_to(v.shape())]
            })
            .done()
    }

    /// softmax(scale q k' + bias): how much each query takes of each value, [.., n, m].
    #[track_caller]
    pub(crate) fn attention_weights(&self, keys: &Tensor, bias: Option<&Tensor>, scale: f64) -> Tensor {
        let scores = (self * scale).matmul_t(keys, false, true);
        let scores = if let Some(bias) = bias { &scores + bias } else { scores };
        scores.softmax(-1)
    }
    // ANCHOR_END: soft_lookup

    #[track_caller]
    fn check_attention(&self, keys: &Tensor, values: &Tensor, bias: Option<&Tensor>) {
        let (q, k, v) = (self.shape(), keys.shape(), values.shape());
        let whole = || format!("attention: queries {q}, keys {k} and values {v} do not fit");
        let (Some((q_lead, &[n, d])), Some((k_lead, &[m, kd])), Some((v_lead, &[vm, _]))) =
            (q.split_last_chunk(), k.split_last_chunk(), v.split_last_chunk())
        else {
            panic!("{}: each needs two axes or more", whole())
        };
        assert!(d == kd && m == vm, "{}", whole());
        let lead = Shape::from(q_lead).broadcast(&k_lead.into());
        let Some(lead) = lead.filter(|lead| lead.broadcast(&v_lead.into()).is_some()) else {
            panic!("{}: leading axes do not broadcast", whole())
        };
        let dtypes = [keys.dtype(), values.dtype(), bias.map_or(self.dtype(), Tensor::dtype)];
        assert!(dtypes == [self.dtype(); 3], "{}: dtypes differ", whole());
        if let Some(bias) = bias {
            let scores = Shape::from([&lead[..], &[n, m]].concat());
            assert!(
                bias.shape().broadcast(&scores).is_some(),
                "attention: bias {} does not fit scores {scores}",
                bias.shape()
            );
        }
    }

    /// log(mask): 0 where the mask is 1, negative infinity where it is 0. The bias that hides padding from attention.
    pub fn mask_to_bias(&self) -> Tensor {
        self.detach().log().detach()
    }
}
