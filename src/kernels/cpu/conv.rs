//! 2-D convolution and its two gradients: patches as columns ([im2col]), then matrix products.
//!
//! With col [C kh kw, N] the patches of N outputs, W [O, C kh kw] the weight, G [O, N] the gradient of the outputs and '
//! for the transpose: out = W col, and by the product rule dW = G col' and dcol = W' G. In f32 the convolutions that keep
//! the size of the image, most of a U-Net's work, go a [direct] way that needs no such matrix. Work is cut by sizes alone
//! and sums are added in a fixed order, so results are the same, bit for bit, for any number of threads.

mod direct;
mod im2col;
mod pointwise;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod turn;
mod winograd;

use super::gemm::{Gemm, Mat, gemm};
use crate::array::{Array, Buffer, DType, Shape};
use crate::kernels::ConvShape;
use im2col::{Tile, col2im, im2col, im2row, split, turned_len};
use rayon::prelude::*;
use std::ops::Range;
pub(super) use turn::turn_in;

/// The sizes of one convolution; pairs are (vertical, horizontal).
#[derive(Clone, Debug)]
struct Geometry {
    batch: usize,
    channels: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    out_channels: usize,
    out: [usize; 2],
}

impl Geometry {
    #[track_caller]
    fn new(x: &Shape, weight: &Shape, conv: ConvShape) -> Geometry {
        let [batch, channels, h, w] = x.dims("conv2d input");
        let [out_channels, c, kh, kw] = weight.dims("conv2d weight");
        let (Some(ho), Some(wo), true) = (conv.output(h, kh), conv.output(w, kw), c == channels) else {
            panic!("conv2d: input {x} and weight {weight} do not fit with {conv:?}")
        };
        let padding = [conv.padding; 2];
        Geometry {
            batch,
            channels,
            size: [h, w],
            kernel: [kh, kw],
            stride: conv.stride,
            padding,
            out_channels,
            out: [ho, wo],
        }
    }

    /// A 1x1 convolution whose input is the output of this one: the matrix of its patches is G.
    fn of_outputs(&self) -> Geometry {
        let (channels, size) = (self.out_channels, self.out);
        Geometry { channels, size, kernel: [1; 2], stride: 1, padding: [0; 2], ..self.clone() }
    }

    // ANCHOR: adjoint
    /// The convolution that turns the gradient of the outputs into that of the input. There is one if
    /// the stride is 1 and the padding smaller than the kernel; its weight is [`flipped`].
    fn adjoint(&self) -> Option<Geometry> {
        let pad = |axis: usize| (self.kernel[axis] - 1).checked_sub(self.padding[axis]);
        let (1, Some(y), Some(x)) = (self.stride, pad(0), pad(1)) else { return None };
        let (channels, out_channels) = (self.out_channels, self.channels);
        let (size, out, padding) = (self.out, self.size, [y, x]);
        Some(Geometry { channels, out_channels, size, out, padding, ..self.clone() })
    }
    // ANCHOR_END: adjoint

    /// Numbers in a patch: rows of the matrix of patches.
    fn patch(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Numbers in one image of the input.
    fn image(&self) -> usize {
        self.channels * self.size[0] * self.size[1]
    }

    /// Numbers in one image of the output.
    fn out_image(&self) -> usize {
        self.out_channels * self.out[0] * self.out[1]
    }

    /// Whether each input pixel is one output pixel's only patch.
    fn pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.stride == 1 && self.padding == [0; 2]
    }

    /// Whether row y of the output lies over row y of the input, number by number.
    fn keeps_width(&self) -> bool {
        self.stride == 1 && self.size[1] == self.out[1]
    }

    /// The outputs along one axis that position `k` of the kernel reads from inside the image rather than its padding.
    fn inside(&self, axis: usize, k: usize) -> Range<usize> {
        let first = self.padding[axis].saturating_sub(k).div_ceil(self.stride);
        let end = (self.size[axis] + self.padding[axis]).saturating_sub(k).div_ceil(self.stride).min(self.out[axis]);
        first.min(end)..end
    }

    fn plane<'a, T>(&self, x: &'a [T], image: usize, channel: usize) -> &'a [T] {
        let plane = self.size[0] * self.size[1];
        &x[(image * self.channels + channel) * plane..][..plane]
    }

    fn plane_mut<'a, T>(&self, x: &'a mut [T], image: usize, channel: usize) -> &'a mut [T] {
        let plane = self.size[0] * self.size[1];
        &mut x[(image * self.channels + channel) * plane..][..plane]
    }
}

/// The weight of a convolution from C to O channels.
#[derive(Clone, Copy)]
enum Weight<'a> {
    /// As it is: [O, C, kh, kw].
    Plain(&'a [f32]),
    /// The [`flipped`] one of [C, O, kh, kw]: roles swapped, the kernel turned by half a turn.
    Flipped(&'a [f32]),
}

/// Cross-correlation: x [B, C, H, W], weight [O, C, kh, kw], bias [O], result [B, O, H', W'] with sizes by
/// [`ConvShape::output`]. Panics if shapes or dtypes do not fit.
#[track_caller]
pub(super) fn conv2d(x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
    let geometry = Geometry::new(x.shape(), weight.shape(), conv);
    let shape = Shape::from([geometry.batch, geometry.out_channels, geometry.out[0], geometry.out[1]]);
    match x.dtype() {
        DType::F32 => {
            Array::from_buffer(shape, forward_f32(x.slice(), weight.slice(), bias.map(Array::slice), &geometry))
        }
        DType::F64 => {
            let weight = turned::<f64>(weight.slice(), &geometry);
            Array::from_buffer(shape, forward(x.slice(), &weight, bias.map(Array::slice), &geometry))
        }
    }
}

/// Gradient of [`conv2d`] with respect to its input, of shape `x_shape`; g [B, O, H', W']. Panics if shapes or dtypes
/// do not fit.
#[track_caller]
pub(super) fn conv2d_grad_input(g: &Array, weight: &Array, x_shape: &Shape, conv: ConvShape) -> Array {
    let geometry = Geometry::new(x_shape, weight.shape(), conv);
    check_gradient(g, &geometry);
    match g.dtype() {
        DType::F32 => match geometry.adjoint() {
            Some(adjoint) if winograd::suits(&adjoint) => {
                let weight = Weight::Flipped(weight.slice());
                Array::from_buffer(x_shape, winograd::forward(g.slice(), weight, None, &adjoint))
            }
            Some(adjoint) if pointwise::suits(&adjoint) => {
                let weight = Weight::Flipped(weight.slice());
                Array::from_buffer(x_shape, pointwise::forward(g.slice(), weight, None, &adjoint))
            }
            Some(adjoint) if direct::suits(&adjoint) => {
                let weight = flipped(weight.slice(), &geometry);
                Array::from_buffer(x_shape, direct::forward(g.slice(), &weight, None, &adjoint))
            }
            _ => Array::from_buffer(x_shape, grad_input::<f32>(g.slice(), weight.slice(), &geometry)),
        },
        DType::F64 => Array::from_buffer(x_shape, grad_input::<f64>(g.slice(), weight.slice(), &geometry)),
    }
}

/// Gradient of [`conv2d`] with respect to its weight, of shape `weight_shape`; g [B, O, H', W'], x [B, C, H, W].
/// Panics if shapes or dtypes do not fit.
#[track_caller]
pub(super) fn conv2d_grad_weight(g: &Array, x: &Array, weight_shape: &Shape, conv: ConvShape) -> Array {
    let geometry = Geometry::new(x.shape(), weight_shape, conv);
    check_gradient(g, &geometry);
    match g.dtype() {
        DType::F32 => {
            let way = if winograd::suits(&geometry) {
                winograd::grad_weight
            } else if pointwise::suits(&geometry) {
                pointwise::grad_weight
            } else if direct::suits(&geometry) {
                direct::grad_weight
            } else {
                grad_weight
            };
            Array::from_buffer(weight_shape, way(g.slice(), x.slice(), &geometry))
        }
        DType::F64 => Array::from_buffer(weight_shape, grad_weight::<f64>(g.slice(), x.slice(), &geometry)),
    }
}

#[track_caller]
fn check_gradient(g: &Array, geometry: &Geometry) {
    let expected = Shape::from([geometry.batch, geometry.out_channels, geometry.out[0], geometry.out[1]]);
    assert_eq!(*g.shape(), expected, "conv2d: the gradient is {}, the outputs are {expected}", g.shape());
}

/// The patches of a tile as a matrix [C kh kw, N]: x itself where it is one already, else written to `col`.
fn patches<'a, T: Gemm>(x: &'a [T], geometry: &Geometry, tile: &Tile, col: &'a mut Vec<T>) -> Mat<'a, T> {
    let columns = tile.columns(geometry);
    if geometry.pointwise() && tile.images.len() == 1 {
        let start = tile.images.start * geometry.image() + tile.rows.start * geometry.size[1];
        return Mat::new(&x[start..], geometry.channels, columns, geometry.size[0] * geometry.size[1]);
    }
    let col = sized(col, geometry.patch() * columns);
    im2col(x, geometry, tile, col);
    Mat::new(col, geometry.patch(), columns, columns)
}

/// The first `len` numbers of a scratch vector, of unspecified value.
fn sized<T: Gemm>(scratch: &mut Vec<T>, len: usize) -> &mut [T] {
    if scratch.len() < len {
        scratch.resize(len, T::zero());
    }
    &mut scratch[..len]
}

/// [`forward`], or a faster way where there is one; the weight as it is.
fn forward_f32(x: &[f32], weight: &[f32], bias: Option<&[f32]>, geometry: &Geometry) -> Buffer<f32> {
    if winograd::suits(geometry) {
        return winograd::forward(x, Weight::Plain(weight), bias, geometry);
    }
    if pointwise::suits(geometry) {
        return pointwise::forward(x, Weight::Plain(weight), bias, geometry);
    }
    let way = if direct::suits(geometry) { direct::forward } else { forward };
    way(x, &turned(weight, geometry), bias, geometry)
}

/// out = W col + bias, tile by tile. The weight comes as W' [C kh kw, O]: every tile reads it again, and a matrix
/// product reads its left factor faster by columns.
fn forward<T: Gemm>(x: &[T], turned_weight: &[T], bias: Option<&[T]>, geometry: &Geometry) -> Buffer<T> {
    let mut out = Buffer::scratch(geometry.batch * geometry.out_image());
    let tiles = Tile::cut(geometry, 0..geometry.batch);
    let tasks: Vec<_> = tiles.iter().zip(segments(&mut out, &tiles, geometry)).collect();
    let weight = Mat::new(turned_weight, geometry.patch(), geometry.out_channels, geometry.out_channels).t();
    tasks.into_par_iter().for_each_init(
        Default::default,
        |(col, product): &mut (Vec<T>, Vec<T>), (tile, mut segments)| {
            // ANCHOR: forward_tile
            let columns = tile.columns(geometry);
            let col = patches(x, geometry, tile, col);
            if let [image] = &mut segments[..] {
                gemm(weight, col, T::zero(), image, columns);
                if let Some(bias) = bias {
                    image
                        .chunks_exact_mut(columns)
                        .zip(bias)
                        .for_each(|(row, &b)| row.iter_mut().for_each(|v| *v += b));
                }
                return;
            }
            // ANCHOR_END: forward_tile
            let product = sized(product, geometry.out_channels * columns);
            gemm(weight, col, T::zero(), product, columns);
            let per_image = columns / tile.images.len();
            for (i, segment) in segments.into_iter().enumerate() {
                let (image, channel) = (i / geometry.out_channels, i % geometry.out_channels);
                let product = &product[channel * columns + image * per_image..][..per_image];
                let bias = bias.map_or(T::zero(), |bias| bias[channel]);
                segment.iter_mut().zip(product).for_each(|(v, &p)| *v = p + bias);
            }
        },
    );
    out
}

/// What each tile writes of the outputs: one piece if the tile is an image, else a piece for each image and channel.
fn segments<'a, T>(out: &'a mut [T], tiles: &[Tile], geometry: &Geometry) -> Vec<Vec<&'a mut [T]>> {
    let plane = geometry.out[0] * geometry.out[1];
    let mut pieces: Vec<Vec<&mut [T]>> = tiles.iter().map(|_| vec![]).collect();
    let mut rest = out;
    let mut tile = 0;
    while tile < tiles.len() {
        let images = tiles[tile].images.clone();
        let same = tiles[tile..].iter().take_while(|other| other.images == images).count();
        let (here, after) = rest.split_at_mut(images.len() * geometry.out_image());
        rest = after;
        if same == 1 && images.len() == 1 {
            pieces[tile].push(here);
        } else {
            for mut channel in here.chunks_exact_mut(plane) {
                for tile in tile..tile + same {
                    let (piece, after) = channel.split_at_mut(tiles[tile].rows.len() * geometry.out[1]);
                    pieces[tile].push(piece);
                    channel = after;
                }
            }
        }
        tile += same;
    }
    pieces
}

/// dx: for stride 1 a convolution of g with the flipped weight, in which each pixel is a sum of its own; else
/// dcol = W' G, each column added to the patch it stands for.
fn grad_input<T: Gemm>(g: &[T], weight: &[T], geometry: &Geometry) -> Buffer<T> {
    if let Some(adjoint) = geometry.adjoint() {
        return forward(g, &flipped(weight, geometry), None, &adjoint);
    }
    let outputs = geometry.of_outputs();
    let mut dx = Buffer::filled(geometry.batch * geometry.image(), T::zero());
    if dx.is_empty() {
        return dx;
    }
    let weight = Mat::new(weight, geometry.out_channels, geometry.patch(), geometry.patch());
    let together = images_together(geometry);
    dx.par_chunks_mut(together * geometry.image()).enumerate().for_each_init(
        Default::default,
        |(gathered, dcol): &mut (Vec<T>, Vec<T>), (i, dx)| {
            let first = i * together;
            // ANCHOR: grad_input_tile
            for tile in Tile::cut(geometry, first..first + dx.len() / geometry.image()) {
                let columns = tile.columns(geometry);
                let dcol = sized(dcol, geometry.patch() * columns);
                let g = patches(g, &outputs, &tile, gathered);
                gemm(weight.t(), g, T::zero(), dcol, columns);
                let [start, end] = [tile.images.start, tile.images.end].map(|i| (i - first) * geometry.image());
                col2im(dcol, geometry, &tile, &mut dx[start..end]);
            }
            // ANCHOR_END: grad_input_tile
        },
    );
    dx
}

/// How many images make one tile of useful size.
fn images_together(geometry: &Geometry) -> usize {
    Tile::cut(geometry, 0..geometry.batch).first().map_or(1, |tile| tile.images.len())
}

/// W' [C kh kw, O] of a weight [O, C, kh, kw].
fn turned<T: Gemm>(weight: &[T], geometry: &Geometry) -> Vec<T> {
    let (o, patch) = (geometry.out_channels, geometry.patch());
    (0..patch).flat_map(|i| (0..o).map(move |k| weight[k * patch + i])).collect()
}

// ANCHOR: flipped
/// W' [O kh kw, C] of the adjoint convolution's weight [C, O, kh, kw]: roles swapped, the kernel
/// turned by half a turn.
fn flipped<T: Gemm>(weight: &[T], geometry: &Geometry) -> Vec<T> {
    let taps = geometry.kernel[0] * geometry.kernel[1];
    let mut result = Vec::with_capacity(weight.len());
    for kernels in weight.chunks_exact(geometry.patch().max(1)) {
        for tap in (0..taps).rev() {
            result.extend(kernels[tap..].iter().step_by(taps));
        }
    }
    result
}
// ANCHOR_END: flipped

/// Parts the batch is cut into for the gradient of the weight; fixed, so that sums do not depend on threads.
const PARTS: usize = 16;

/// dW = G col': a sum for each part of the batch, then the sum of those in their order. The patches are written as
/// rows, col' itself, because a matrix product reads its right factor twice as fast that way as transposed.
fn grad_weight<T: Gemm>(g: &[T], x: &[T], geometry: &Geometry) -> Buffer<T> {
    let outputs = geometry.of_outputs();
    let (o, patch) = (geometry.out_channels, geometry.patch());
    let parts: Vec<_> = split(0..geometry.batch, geometry.batch.min(PARTS)).collect();
    let sums: Vec<Buffer<T>> = parts
        .into_par_iter()
        .map_init(Default::default, |(gathered, turned, rows): &mut (Vec<T>, Vec<T>, Vec<T>), images| {
            let mut sum = Buffer::filled(o * patch, T::zero());
            // ANCHOR: grad_weight_tile
            for tile in Tile::cut(geometry, images) {
                let columns = tile.columns(geometry);
                let g = patches(g, &outputs, &tile, gathered);
                let rows = sized(rows, columns * patch);
                im2row(x, geometry, &tile, sized(turned, turned_len(geometry, &tile)), rows);
                gemm(g, Mat::new(rows, columns, patch, patch), T::one(), &mut sum, patch);
            }
            // ANCHOR_END: grad_weight_tile
            sum
        })
        .collect();
    let mut sums = sums.into_iter();
    let mut total = sums.next().unwrap_or_else(|| Buffer::filled(o * patch, T::zero()));
    for sum in sums {
        total.iter_mut().zip(sum.iter()).for_each(|(t, &s)| *t += s);
    }
    channels_outside(&total, geometry)
}

/// [O, kh, kw, C] as [O, C, kh, kw].
fn channels_outside<T: Gemm>(weight: &[T], geometry: &Geometry) -> Buffer<T> {
    let mut result = Buffer::scratch(weight.len());
    let taps = geometry.kernel[0] * geometry.kernel[1];
    for (result, weight) in result.chunks_exact_mut(geometry.patch()).zip(weight.chunks_exact(geometry.patch())) {
        for (channel, result) in result.chunks_exact_mut(taps).enumerate() {
            let values = weight[channel..].iter().step_by(geometry.channels);
            result.iter_mut().zip(values).for_each(|(r, &w)| *r = w);
        }
    }
    result
}
