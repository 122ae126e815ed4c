//! What the network is told besides the image: the time and the text.

use super::{TextPooling, UNetConfig};
use crate::array::Array;
use crate::autograd::Tensor;
use crate::diffusion::LowRes;
use crate::nn::{Fill, Init, LayerNorm, Linear, Param};

/// What a batch of images is to show: texts, some of them dropped, or smaller images of the same, or both.
#[derive(Clone, Debug)]
pub struct Condition {
    texts: Option<Texts>,
    low_res: Option<LowRes>,
}

/// Texts for a batch of images, some of them dropped.
#[derive(Clone, Debug)]
struct Texts {
    tokens: Array,
    mask: Array,
    keep: Vec<bool>,
}

impl Condition {
    /// tokens [B, N, D] as a text encoder gives them, mask [B, N] with 1 for a token and 0 for padding. Panics unless
    /// they fit each other, N is at least 1, and every text has a token.
    #[track_caller]
    pub fn new(tokens: Array, mask: Array) -> Condition {
        let [b, n, _] = tokens.shape().dims("condition tokens");
        assert_eq!(**mask.shape(), [b, n], "condition: mask does not fit tokens {}", tokens.shape());
        let rows = mask.to_f64();
        assert!(n > 0 && rows.chunks(n).all(|row| row.contains(&1.0)), "condition: every text needs a token");
        let texts = Texts { tokens: without_padding(&tokens, &rows), mask, keep: vec![true; b] };
        Condition { texts: Some(texts), low_res: None }
    }

    /// Smaller images, and no text. (F1)
    pub fn low_res(low_res: LowRes) -> Condition {
        Condition { texts: None, low_res: Some(low_res) }
    }

    /// The texts of `texts`, if there is one, with smaller images. Panics unless there are as many.
    #[track_caller]
    pub fn with_low_res(texts: Option<Condition>, low_res: LowRes) -> Condition {
        let texts = texts.and_then(|condition| condition.texts);
        let fits = texts.as_ref().is_none_or(|texts| texts.keep.len() == low_res.aug.len());
        assert!(fits, "condition: as many texts as smaller images are needed");
        Condition { texts, low_res: Some(low_res) }
    }

    /// The same with the text of image i replaced by the null text where `keep[i]` is false: how a model learns to do
    /// without (classifier-free guidance, E2). Panics unless there is one entry an image.
    #[track_caller]
    pub fn with_dropped(self, keep: Vec<bool>) -> Condition {
        assert_eq!(keep.len(), self.len(), "condition: one entry an image is needed");
        Condition { texts: self.texts.map(|texts| Texts { keep, ..texts }), ..self }
    }

    /// How many images it is for.
    pub fn len(&self) -> usize {
        match (&self.texts, &self.low_res) {
            (Some(texts), _) => texts.keep.len(),
            (None, Some(low_res)) => low_res.aug.len(),
            (None, None) => 0,
        }
    }

    /// Whether it is for no image at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are texts.
    pub(super) fn has_texts(&self) -> bool {
        self.texts.is_some()
    }

    /// The smaller images, if there are any.
    pub(super) fn smaller(&self) -> Option<&LowRes> {
        self.low_res.as_ref()
    }
}

/// tokens [B, N, D] with zeros where the mask [B, N] is 0. The mask alone would keep padding out of sums, but a NaN or an
/// infinity times 0 is NaN.
fn without_padding(tokens: &Array, mask: &[f64]) -> Array {
    // Without padding there is nothing to do; and whoever plans memory has no numbers, and no room for them.
    if tokens.is_planned() || !mask.contains(&0.0) {
        return tokens.clone();
    }
    let [_, _, d] = tokens.shape().dims("condition tokens");
    let mut values = tokens.to_f64();
    for (token, _) in values.chunks_mut(d.max(1)).zip(mask).filter(|&(_, &seen)| seen == 0.0) {
        token.fill(0.0);
    }
    Array::from_f64(tokens.shape(), &values, tokens.dtype())
}

/// Text tokens, normalised, as a sequence for attention and pooled for the time embedding. (F4)
#[derive(Debug)]
pub(super) struct TextInput {
    norm: LayerNorm,
    /// Stands for "no text": one learned token.
    null: Param,
    /// None where the mean of the tokens is taken.
    pool: Option<AttentionPool>,
    first: Linear,
    second: Linear,
    dim: usize,
}

impl TextInput {
    /// Of tokens of `dim` features.
    pub(super) fn new(init: &Init, config: &UNetConfig, dim: usize) -> TextInput {
        let features = config.time_dim();
        let norm = LayerNorm::new(&init.scope("norm"), dim);
        let null = init.param("null", [dim], Fill::Normal(1.0));
        let pool = match config.text_pooling {
            TextPooling::Mean => None,
            TextPooling::Attention => {
                let heads = config.heads_of(features);
                Some(AttentionPool::new(&init.scope("pool"), dim, features, heads))
            }
        };
        let inputs = if pool.is_some() { features } else { dim };
        TextInput {
            norm,
            null,
            pool,
            first: Linear::new(&init.scope("pooled.0"), inputs, features),
            second: Linear::zeroed(&init.scope("pooled.1"), features, features),
            dim,
        }
    }

    /// (tokens [B, N, D], bias for attention [B, 1, 1, N], pooled [B, embedding_dim]).
    #[track_caller]
    pub(super) fn forward(&self, condition: Option<&Condition>, b: usize) -> (Tensor, Tensor, Tensor) {
        let null = self.null.tensor();
        let (tokens, mask) = match condition.and_then(|condition| condition.texts.as_ref()) {
            None => {
                let tokens = null.reshape([1, 1, self.dim]).broadcast_to([b, 1, self.dim]);
                (tokens, null.constant_like([b, 1], &vec![1.0; b]))
            }
            Some(texts) => self.replace_dropped(texts, b),
        };
        // ANCHOR: pooled_text
        let n = tokens.shape()[1];
        let bias = mask.reshape([b, 1, 1, n]).mask_to_bias();
        let pooled = match &self.pool {
            None => {
                let weights = mask.reshape([b, n, 1]);
                &(&tokens * &weights).sum(&[1], false) / &weights.sum(&[1], false)
            }
            Some(pool) => pool.forward(&tokens, &bias),
        };
        let pooled = self.second.forward(&self.first.forward(&pooled).silu());
        (tokens, bias, pooled)
        // ANCHOR_END: pooled_text
    }

    /// Tokens and mask with a dropped text as the null token alone: the same as without a condition, however much
    /// padding the batch has.
    #[track_caller]
    fn replace_dropped(&self, texts: &Texts, b: usize) -> (Tensor, Tensor) {
        assert_eq!(texts.keep.len(), b, "unet: {b} images need as many texts");
        // ANCHOR: replace_dropped
        let [_, n, d] = texts.tokens.shape().dims("condition tokens");
        assert_eq!(d, self.dim, "unet: the text has {d} features a token, the network was made for {}", self.dim);
        let null = self.null.tensor();
        let kept: Vec<f64> = texts.keep.iter().map(|&k| f64::from(u8::from(k))).collect();
        let mut mask = texts.mask.to_f64();
        for (row, _) in mask.chunks_mut(n).zip(&texts.keep).filter(|(_, keep)| !**keep) {
            row.fill(0.0);
            row[0] = 1.0;
        }
        let tokens = self.norm.forward(&Tensor::constant(texts.tokens.cast(null.dtype()).to(null.device())));
        let kept = null.constant_like([b, 1, 1], &kept);
        let tokens = &(&tokens * &kept) + &(&null * &kept.affine(-1.0, 1.0));
        (tokens, null.constant_like([b, n], &mask))
        // ANCHOR_END: replace_dropped
    }
}

/// One learned query that looks at all tokens of a text. (F4)
#[derive(Debug)]
struct AttentionPool {
    /// `features` numbers
    query: Param,
    kv: Linear,
    heads: usize,
}

impl AttentionPool {
    fn new(init: &Init, dim: usize, features: usize, heads: usize) -> AttentionPool {
        AttentionPool {
            query: init.param("query", [features], Fill::Normal(1.0)),
            kv: Linear::new(&init.scope("kv"), dim, 2 * features),
            heads,
        }
    }

    // ANCHOR: attention_pool
    /// tokens [B, N, D] and a bias [B, 1, 1, N], 0 for a token and negative infinity for padding, to [B, features].
    fn forward(&self, tokens: &Tensor, bias: &Tensor) -> Tensor {
        let query = self.query.tensor();
        let (b, n, features) = (tokens.shape()[0], tokens.shape()[1], query.numel());
        let d = features / self.heads;
        let kv = self.kv.forward(tokens).reshape([b, n, 2 * self.heads, d]).permute(&[0, 2, 1, 3]);
        let kv = kv.split(1, &[self.heads; 2]);
        let query = query.reshape([1, self.heads, 1, d]).broadcast_to([b, self.heads, 1, d]);
        query.attention(&kv[0], &kv[1], Some(bias), 1.0 / (d as f64).sqrt()).reshape([b, features])
    }
    // ANCHOR_END: attention_pool
}
