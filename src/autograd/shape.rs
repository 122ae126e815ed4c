//! Ops that move numbers and change none.

use super::Tensor;
use super::graph::op;
use crate::array::{Array, Device, Shape};
use std::ops::Range;

impl Tensor {
    /// The same numbers under another shape, for free. Panics unless both hold equally many.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let old = self.shape().clone();
        op("reshape", self.value.reshape(shape)).grad(self, move |g| g.reshape(old)).done()
    }

    /// The same numbers on another device; the gradient goes back to this one. Panics if a GPU was not opened, or if it is to
    /// take numbers that are not f32.
    #[track_caller]
    pub fn to(&self, device: Device) -> Tensor {
        let here = self.device();
        if here == device {
            return self.clone();
        }
        op("to", self.value.to(device)).grad(self, move |g| g.to(here)).done()
    }

    /// Axes in another order: axis i of the result is axis `order[i]`. The gradient goes back by the inverse order.
    /// Panics unless `order` names every axis once.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Tensor {
        let mut inverse = vec![usize::MAX; order.len()];
        for (i, &axis) in order.iter().enumerate() {
            if let Some(slot) = inverse.get_mut(axis) {
                *slot = i;
            }
        }
        let complete = order.len() == self.shape().len() && !inverse.contains(&usize::MAX);
        assert!(complete, "permute: {order:?} is no order of the axes of {}", self.shape());
        let k = self.kernels();
        op("permute", k.permute(&self.value, order)).grad(self, move |g| k.permute(g, &inverse)).done()
    }

    /// The last two axes exchanged. Panics if there are fewer than two.
    #[track_caller]
    pub fn transpose(&self) -> Tensor {
        let rank = self.shape().len();
        assert!(rank >= 2, "transpose: {} has no two axes", self.shape());
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 1, rank - 2);
        self.permute(&order)
    }

    /// Repeated along axes of size 1 (or missing in front) to `shape`: dx = g summed over what was repeated.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl Into<Shape>) -> Tensor {
        let old = self.shape().clone();
        op("broadcast_to", self.value.broadcast_to(&shape.into())).grad(self, move |g| g.sum_to(&old)).done()
    }

    // ANCHOR: slice
    /// The part with `range` along `axis` (-1 is the last): dx = g among zeros. Panics if the range does not exist.
    #[track_caller]
    pub fn slice(&self, axis: isize, range: Range<usize>) -> Tensor {
        let axis = self.shape().axis(axis);
        let size = self.shape()[axis];
        assert!(
            range.start <= range.end && range.end <= size,
            "slice: {range:?} is not within axis {axis} of {}",
            self.shape()
        );
        let (k, start) = (self.kernels(), range.start);
        op("slice", k.slice(&self.value, axis, range)).grad(self, move |g| k.unslice(g, axis, start, size)).done()
    }
    // ANCHOR_END: slice

    /// Zeros before and after along `axis`: the adjoint of [`Tensor::slice`].
    #[track_caller]
    pub fn pad(&self, axis: isize, before: usize, after: usize) -> Tensor {
        let axis = self.shape().axis(axis);
        let (k, size) = (self.kernels(), self.shape()[axis]);
        op("pad", k.unslice(&self.value, axis, before, before + size + after))
            .grad(self, move |g| k.slice(g, axis, before..before + size))
            .done()
    }

    /// Cut into pieces of the given sizes along `axis`. Panics unless the sizes add up.
    #[track_caller]
    pub fn split(&self, axis: isize, sizes: &[usize]) -> Vec<Tensor> {
        let total = self.shape()[self.shape().axis(axis)];
        assert_eq!(
            sizes.iter().sum::<usize>(),
            total,
            "split: {sizes:?} does not add up to axis {axis} of {}",
            self.shape()
        );
        let mut start = 0;
        sizes
            .iter()
            .map(|&size| {
                start += size;
                self.slice(axis, start - size..start)
            })
            .collect()
    }

    /// [B, C f^2, H, W] to [B, C, f H, f W]: every group of f^2 channels becomes a block of f x f pixels. Panics unless f^2 divides the channels.
    #[track_caller]
    pub fn pixel_shuffle(&self, factor: usize) -> Tensor {
        let [b, c, h, w] = self.shape().dims("pixel_shuffle");
        let f = factor;
        assert!(f > 0 && c % (f * f) == 0, "pixel_shuffle: {f}^2 does not divide the channels of {}", self.shape());
        self.reshape([b, c / (f * f), f, f, h, w]).permute(&[0, 1, 4, 2, 5, 3]).reshape([b, c / (f * f), h * f, w * f])
    }

    /// [B, C, f H, f W] to [B, C f^2, H, W]: the inverse of [`Tensor::pixel_shuffle`]. Panics unless f divides both sizes.
    #[track_caller]
    pub fn pixel_unshuffle(&self, factor: usize) -> Tensor {
        let [b, c, h, w] = self.shape().dims("pixel_unshuffle");
        let f = factor;
        assert!(
            f > 0 && h % f == 0 && w % f == 0,
            "pixel_unshuffle: {f} does not divide height and width of {}",
            self.shape()
        );
        self.reshape([b, c, h / f, f, w / f, f]).permute(&[0, 1, 3, 5, 2, 4]).reshape([b, c * f * f, h / f, w / f])
    }
}

/// Tensors joined along `axis` (-1 is the last); the gradient is cut at the seams. Panics if there are none, or if
/// another axis differs.
#[track_caller]
pub fn concat(parts: &[&Tensor], axis: isize) -> Tensor {
    let first = parts.first().expect("concat: nothing to join");
    let axis = first.shape().axis(axis);
    for part in parts {
        let fits = part.shape().len() == first.shape().len()
            && part.shape().without(axis) == first.shape().without(axis)
            && part.dtype() == first.dtype();
        assert!(
            fits,
            "concat: {} {} and {} {} do not fit along axis {axis}",
            first.shape(),
            first.dtype(),
            part.shape(),
            part.dtype()
        );
    }
    // ANCHOR: concat_grad
    let k = first.kernels();
    let arrays: Vec<&Array> = parts.iter().map(|part| part.array()).collect();
    let mut joined = op("concat", k.concat(&arrays, axis));
    let mut start = 0;
    for part in parts {
        let range = start..start + part.shape()[axis];
        start = range.end;
        joined = joined.grad(part, move |g| k.slice(g, axis, range));
    }
    joined.done()
    // ANCHOR_END: concat_grad
}
