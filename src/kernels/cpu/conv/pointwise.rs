//! Convolutions of 1 x 1, in f32: matrix products over the channels, on images as they lie in memory.
//!
//! A row of pixels of one channel is a row of the right factor, so nothing is copied for the convolution itself and the
//! gradient of the input. For that of the weight the sum runs over pixels, and one of the two images is turned so that
//! its channels are innermost.

use super::im2col::split;
use super::turn::turn_in;
use super::{Geometry, Weight};
use crate::array::Buffer;
use crate::kernels::cpu::product::{self, Rows, RowsMut};
use crate::kernels::cpu::scratch::Scratch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Vectors of neighbouring pixels in a block.
const VECTORS: usize = 2;

/// Pixels whose channels are copied together where an image is larger: a block of pixels of every channel then lies in
/// the nearest cache, not all over the image.
const NEAR: usize = 128;

/// Output channels computed together, before the next.
const ROWS: usize = 8;

/// Pixels in the widest vector there is: an image must fill one.
const WIDEST: usize = 16;

pub(super) fn suits(geometry: &Geometry) -> bool {
    geometry.pointwise() && geometry.size[0] * geometry.size[1] >= WIDEST
}

/// out = W x + bias for each image.
pub(super) fn forward(x: &[f32], weight: Weight, bias: Option<&[f32]>, geometry: &Geometry) -> Buffer<f32> {
    forward_on(pulp::Arch::new(), x, weight, bias, geometry)
}

/// [`forward`] with given vector instructions.
pub(super) fn forward_on(
    arch: pulp::Arch,
    x: &[f32],
    weight: Weight,
    bias: Option<&[f32]>,
    geometry: &Geometry,
) -> Buffer<f32> {
    let mut out = Buffer::scratch(geometry.batch * geometry.out_image());
    if out.is_empty() {
        return out;
    }
    let plane = geometry.size[0] * geometry.size[1];
    // Few images are shared out by channels too, in equal parts.
    let channels = geometry.out_channels;
    let groups = rayon::current_num_threads().div_ceil(geometry.batch);
    let groups = (1..=groups).rev().find(|&groups| channels.is_multiple_of(groups)).unwrap_or(1);
    let rows = channels / groups;
    out.par_chunks_mut(rows * plane).enumerate().for_each(|(i, out)| {
        let x = &x[i / groups * geometry.image()..][..geometry.image()];
        arch.dispatch(Outputs { x, weight, bias, first: i % groups * rows, geometry, out });
    });
    out
}

/// Channels of one image's output, from `first` on.
struct Outputs<'a> {
    x: &'a [f32],
    weight: Weight<'a>,
    bias: Option<&'a [f32]>,
    first: usize,
    geometry: &'a Geometry,
    out: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let plane = self.geometry.size[0] * self.geometry.size[1];
        if plane < VECTORS * S::F32_LANES {
            self.run::<S, 1>(simd, plane);
        } else {
            self.run::<S, VECTORS>(simd, plane);
        }
    }
}

impl Outputs<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(&mut self, simd: S, plane: usize) {
        let channels = self.geometry.channels;
        let width = V * S::F32_LANES;
        let all = std::mem::take(&mut self.out);
        let near = NEAR.next_multiple_of(width);
        let mut copy = Scratch::take(channels * near);
        for start in (0..plane).step_by(near) {
            // The last block begins early if it has to; what it computes again comes out the same.
            let start = start.min(plane - width);
            let pixels = near.min(plane - start);
            let mut x = Rows { data: &self.x[start..], pitch: plane };
            if pixels < plane {
                for (to, from) in copy.chunks_exact_mut(near).zip(self.x.chunks_exact(plane)) {
                    to[..pixels].copy_from_slice(&from[start..start + pixels]);
                }
                x = Rows { data: &copy, pitch: near };
            }
            for (row, out) in all.chunks_mut(ROWS * plane).enumerate() {
                let rows = row * ROWS..row * ROWS + out.len() / plane;
                for block in (0..pixels).step_by(width).map(|block| block.min(pixels - width)) {
                    let x = Rows { data: &x.data[block..], ..x };
                    let out = RowsMut { data: &mut out[start + block..], pitch: plane };
                    self.block::<S, V>(simd, rows.clone(), x, out);
                }
            }
        }
    }

    /// The rows `rows` of this task for one block of pixels.
    #[inline(always)]
    fn block<S: Simd, const V: usize>(&self, simd: S, rows: Range<usize>, x: Rows, out: RowsMut) {
        let (channels, o) = (self.geometry.channels, self.geometry.out_channels);
        let first = self.first + rows.start;
        if let Some(bias) = self.bias {
            for (out, &bias) in out.data.chunks_mut(out.pitch).zip(&bias[first..][..rows.len()]) {
                out[..V * S::F32_LANES].fill(bias);
            }
        }
        let (size, more) = ([rows.len(), channels], self.bias.is_some());
        match self.weight {
            Weight::Plain(weight) => {
                let weight = Rows { data: &weight[first * channels..], pitch: channels };
                product::multiply::<S, V>(simd, size, weight, x, out, more);
            }
            Weight::Flipped(weight) => {
                let weight = Rows { data: &weight[first..], pitch: o };
                product::multiply_transposed::<S, V>(simd, size, weight, x, out, more);
            }
        }
    }
}

/// Pixels in one part of the sum over the batch: enough that adding up the parts costs little. The number of parts is
/// fixed by sizes, so that sums do not depend on threads.
const PART: usize = 1024;

const MOST_PARTS: usize = 16;

/// dW [O, C] from x and the gradient g of the outputs: the sum of g x' over images.
pub(super) fn grad_weight(g: &[f32], x: &[f32], geometry: &Geometry) -> Buffer<f32> {
    grad_weight_on(pulp::Arch::new(), g, x, geometry)
}

/// [`grad_weight`] with given vector instructions.
pub(super) fn grad_weight_on(arch: pulp::Arch, g: &[f32], x: &[f32], geometry: &Geometry) -> Buffer<f32> {
    let (channels, o, batch) = (geometry.channels, geometry.out_channels, geometry.batch);
    let plane = geometry.size[0] * geometry.size[1];
    let mut total = Buffer::filled(o * channels, 0.0);
    if batch == 0 {
        return total;
    }
    // The image with fewer channels is the one to turn: x, or with dW' = x g' instead, g.
    let swap = o < channels;
    let (left, right, rows, columns) = if swap { (x, g, channels, o) } else { (g, x, o, channels) };
    let width = VECTORS * product::lanes(arch);
    let blocks = columns.div_ceil(width);
    let parts = (batch * plane / PART).clamp(1, MOST_PARTS).min(batch);
    let mut sums = Scratch::take(parts * blocks * rows * width);
    sums.par_chunks_mut(rows * width).enumerate().for_each(|(i, sums)| {
        let images = split(0..batch, parts).nth(i / blocks).unwrap_or_default();
        arch.dispatch(Sums { left, right, rows, columns, plane, images, first: i % blocks * width, sums });
    });
    for (i, sums) in sums.chunks_exact(rows * width).enumerate() {
        let first = i % blocks * width;
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            let sums = &sums[..width.min(columns - first)];
            if swap {
                total[first * channels + row..].iter_mut().step_by(channels).zip(sums).for_each(|(t, &s)| *t += s);
            } else {
                total[row * channels + first..].iter_mut().zip(sums).for_each(|(t, &s)| *t += s);
            }
        }
    }
    total
}

/// The sum of left right' over some images, for the block of columns from `first` on: [rows, block].
struct Sums<'a> {
    /// [.., rows, plane]
    left: &'a [f32],
    /// [.., columns, plane]
    right: &'a [f32],
    rows: usize,
    columns: usize,
    plane: usize,
    images: Range<usize>,
    first: usize,
    sums: &'a mut [f32],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Sums { rows, columns, plane, .. } = self;
        let width = VECTORS * S::F32_LANES;
        let count = width.min(columns - self.first);
        let mut turned = Scratch::take(NEAR * width);
        turned.fill(0.0);
        let places: Vec<usize> = (0..NEAR).map(|pixel| pixel * width).collect();
        for (i, image) in self.images.enumerate() {
            let left = &self.left[image * rows * plane..][..rows * plane];
            let right = &self.right[(image * columns + self.first) * plane..][..count * plane];
            for start in (0..plane).step_by(NEAR) {
                let pixels = NEAR.min(plane - start);
                turn_in(right, plane, start, &places[..pixels], &mut turned);
                let left = Rows { data: &left[start..], pitch: plane };
                let right = Rows { data: &turned, pitch: width };
                let sums = RowsMut { data: &mut *self.sums, pitch: width };
                product::multiply::<S, VECTORS>(simd, [rows, pixels], left, right, sums, i > 0 || start > 0);
            }
        }
    }
}
