//! One step after the other through the network.

use super::SkipScale;
use super::blocks::{Combine, ResBlock, Upsample};
use crate::autograd::{Tensor, checkpoint, concat};
use crate::nn::{Attention, Conv2d};

/// What every block is told besides the image.
pub(super) struct Told<'a> {
    /// [B, time_dim], activated.
    pub(super) embedding: &'a Tensor,
    /// Tokens [B, N, D] and a bias for attention [B, 1, 1, N].
    pub(super) text: Option<(&'a Tensor, &'a Tensor)>,
    pub(super) skip_scale: SkipScale,
    /// Whether blocks are forgotten and computed again in backward.
    pub(super) recompute: bool,
    /// Whether anybody looks at what is in between, such as the weights of attention.
    pub(super) watched: bool,
}

/// Is shown results on the way through the network, with the names of the layers they come from.
pub(super) type Watch<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// A step, its name, and what it has to do with the way down or up.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) skip: Skip,
    pub(super) step: Step,
}

/// The end of a skip connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// There is none here.
    None,
    /// The result is left for the way up.
    Left,
    /// What was left last is joined to the input, as further channels.
    Taken,
}

/// One step on the way.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A residual block; one that halves or doubles as well.
    Block(Box<ResBlock>),
    /// The embedding, told to a whole level.
    Combine(Combine),
    /// Attention to pixels, text or both.
    Attend(Box<Attention>),
    /// Half the height and width.
    Down(Conv2d),
    /// Twice the height and width.
    Up(Upsample),
}

impl Part {
    /// Takes h one step further. `skips` is what the way down has left and the way up has not yet taken.
    pub(super) fn forward(
        &self,
        h: &Tensor,
        skips: &mut Vec<Tensor>,
        told: &Told<'_>,
        watch: &mut Watch<'_>,
    ) -> Tensor {
        let skip = if self.skip == Skip::Taken { skips.pop() } else { None };
        let h = match (&self.step, skip) {
            (Step::Attend(attention), _) => told.attend(&self.name, attention, h, watch),
            // Joined within the block: what is joined is then not kept either.
            (step, Some(skip)) if told.recompute => told.run(step, &[h, &skip]),
            (step, Some(skip)) => {
                let joined = joined(&[h, &skip], told.skip_scale);
                watch(&format!("{}.joined", self.name), &joined);
                told.run(step, &[&joined])
            }
            (step, None) => told.run(step, &[h]),
        };
        if !matches!(self.step, Step::Attend(_)) {
            watch(&self.name, &h);
        }
        if self.skip == Skip::Left {
            skips.push(h.clone());
        }
        h
    }
}

impl Step {
    /// [B, C, H, W] to what the next step is given.
    fn forward(&self, x: &Tensor, told: &Told<'_>) -> Tensor {
        match self {
            Step::Block(block) => block.forward(x, told.embedding),
            Step::Combine(combine) => combine.forward(x, told.embedding),
            Step::Attend(attention) => attention.forward(x, told.text),
            Step::Down(halve) => halve.forward(x),
            Step::Up(double) => double.forward(x),
        }
    }
}

impl Told<'_> {
    /// `step` on `parts`, joined as channels; under [`checkpoint`] if it knows the embedding and blocks are to be recomputed.
    fn run(&self, step: &Step, parts: &[&Tensor]) -> Tensor {
        let scale = self.skip_scale;
        if !self.recompute || matches!(step, Step::Down(_) | Step::Up(_)) {
            return step.forward(&joined(parts, scale), self);
        }
        let step = step.clone();
        let inputs = [&[self.embedding], parts].concat();
        checkpoint(&inputs, move |inputs| {
            let parts: Vec<&Tensor> = inputs[1..].iter().collect();
            let told = Told { embedding: &inputs[0], text: None, skip_scale: scale, recompute: false, watched: false };
            step.forward(&joined(&parts, scale), &told)
        })
    }

    /// The attention of the step `name`.
    fn attend(&self, name: &str, attention: &Attention, h: &Tensor, watch: &mut Watch<'_>) -> Tensor {
        if !self.recompute && !self.watched {
            return attention.forward(h, self.text);
        }
        if !self.recompute {
            let (h, weights) = attention.forward_with_weights(h, self.text);
            watch(&format!("{name}.attention"), &h);
            watch(&format!("{name}.attention.weights"), &weights);
            return h;
        }
        let attention = attention.clone();
        let mut inputs = vec![h];
        inputs.extend(self.text.iter().flat_map(|&(tokens, bias)| [tokens, bias]));
        checkpoint(&inputs, move |inputs| {
            let text = (inputs.len() > 1).then(|| (&inputs[1], &inputs[2]));
            attention.forward(&inputs[0], text)
        })
    }
}

/// What a step is given as channels of one: h, and the skip connection, if there is one.
fn joined(parts: &[&Tensor], scale: SkipScale) -> Tensor {
    match parts {
        [h, skip] => concat(&[h, &scale.skip(skip)], 1),
        [h, ..] => (*h).clone(),
        [] => unreachable!("a step is given something"),
    }
}
