//! The convolution that keeps the size of the image and the gradient of its weight, in f32, without a matrix of patches.
//!
//! Images lie one after the other in one long row per channel, with zeros between their rows. There, the input that
//! position (ky, kx) of the kernel meets is the whole row moved by ky pitch + kx, so vectors of neighbouring outputs
//! need only plain loads. A block of outputs of a few channels stays in registers during the sum over the patch. What
//! is computed for the zeros between the rows is thrown away.
//!
//! With the gradient g of the outputs laid out the same way, those zeros in place, the gradient of the weight at
//! (o, c, ky, kx) is one scalar product of two rows: g of channel o with x of channel c moved by ky pitch + kx.

use super::Geometry;
use crate::array::Buffer;
use crate::kernels::cpu::product::each;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Vectors of neighbouring outputs in a block.
const VECTORS: usize = 3;

/// Outputs that make the work on one group of images worth handing out.
const ENOUGH: usize = 400;

/// Whether [`forward`] can do this convolution: stride 1, output as large as the input, a kernel larger than 1 x 1.
pub(super) fn suits(geometry: &Geometry) -> bool {
    geometry.stride == 1 && geometry.size == geometry.out && geometry.kernel != [1; 2]
}

/// out = W x + bias, a group of images at a time; the weight comes as W' [C kh kw, O].
pub(super) fn forward(x: &[f32], turned_weight: &[f32], bias: Option<&[f32]>, geometry: &Geometry) -> Buffer<f32> {
    forward_on(pulp::Arch::new(), x, turned_weight, bias, geometry)
}

/// [`forward`] with given vector instructions.
pub(super) fn forward_on(
    arch: pulp::Arch,
    x: &[f32],
    turned_weight: &[f32],
    bias: Option<&[f32]>,
    geometry: &Geometry,
) -> Buffer<f32> {
    let mut out = Buffer::scratch(geometry.batch * geometry.out_image());
    if out.is_empty() {
        return out;
    }
    let plane = geometry.size[0] * geometry.size[1];
    let groups = geometry.batch.div_ceil(ENOUGH.div_ceil(plane));
    let together = geometry.batch.div_ceil(groups);
    out.par_chunks_mut(together * geometry.out_image()).zip(x.par_chunks(together * geometry.image())).for_each_init(
        Default::default,
        |(input, output): &mut (Vec<f32>, Vec<f32>), (out, x)| {
            let line = Line::new(geometry, x.len() / geometry.image());
            line.lay_out(x, geometry, input);
            output.resize(geometry.out_channels * line.outputs, 0.0);
            arch.dispatch(Sums { input, weight: turned_weight, bias, geometry, line: &line, output });
            line.pick_up(output, geometry, out);
        },
    );
    out
}

/// Outputs in one scalar product: enough that adding up its lanes at the end costs little, few enough that the rows of
/// a block of channels stay in the nearest cache.
const PRODUCT: usize = 1000;

/// Parts of the batch whose sums are added at the end; fixed by sizes, so that sums do not depend on threads.
const MOST_PARTS: usize = 16;

/// dW [O, C, kh, kw] from x and the gradient g of the outputs.
pub(super) fn grad_weight(g: &[f32], x: &[f32], geometry: &Geometry) -> Buffer<f32> {
    grad_weight_on(pulp::Arch::new(), g, x, geometry)
}

/// [`grad_weight`] with given vector instructions.
pub(super) fn grad_weight_on(arch: pulp::Arch, g: &[f32], x: &[f32], geometry: &Geometry) -> Buffer<f32> {
    let (image, out_image) = (geometry.image().max(1), geometry.out_image().max(1));
    let outputs = geometry.batch * geometry.size[0] * geometry.size[1];
    let parts = (outputs / PRODUCT).clamp(1, MOST_PARTS);
    let of_part = geometry.batch.div_ceil(parts).max(1);
    let together = (PRODUCT / (geometry.size[0] * geometry.size[1]).max(1)).clamp(1, of_part);
    let sums: Vec<Buffer<f32>> = g
        .par_chunks(of_part * out_image)
        .zip(x.par_chunks(of_part * image))
        .map_init(Default::default, |(input, grad): &mut (Vec<f32>, Vec<f32>), (g, x)| {
            let mut sums = Buffer::filled(geometry.out_channels * geometry.patch(), 0.0);
            for (g, x) in g.chunks(together * out_image).zip(x.chunks(together * image)) {
                let line = Line::new(geometry, x.len() / image);
                line.lay_out(x, geometry, input);
                line.spread(g, geometry.out_channels, geometry.out, 0, line.outputs, grad);
                arch.dispatch(Products { input, grad, geometry, line: &line, sums: &mut sums });
            }
            sums
        })
        .collect();
    let mut sums = sums.into_iter();
    let mut total = sums.next().unwrap_or_else(|| Buffer::filled(geometry.out_channels * geometry.patch(), 0.0));
    for sum in sums {
        total.iter_mut().zip(sum.iter()).for_each(|(t, &s)| *t += s);
    }
    total
}

/// How the images of a group lie in one row.
struct Line {
    /// From one row of an image to the next: its width and the zeros between, which serve both.
    pitch: usize,
    /// From one image to the next.
    image_pitch: usize,
    /// Outputs computed per channel, a whole number of the widest blocks.
    outputs: usize,
    /// Inputs per channel.
    inputs: usize,
}

impl Line {
    fn new(geometry: &Geometry, images: usize) -> Line {
        let pitch = geometry.size[1] + geometry.padding[1];
        let image_pitch = (geometry.size[0] + geometry.padding[0]) * pitch;
        let outputs = (images * image_pitch).next_multiple_of(16 * VECTORS);
        let inputs = outputs + (geometry.kernel[0] - 1) * pitch + geometry.kernel[1] - 1;
        Line { pitch, image_pitch, outputs, inputs }
    }

    /// The input of the convolution, the padding before the first row included.
    fn lay_out(&self, x: &[f32], geometry: &Geometry, input: &mut Vec<f32>) {
        let lead = geometry.padding[0] * self.pitch + geometry.padding[1];
        self.spread(x, geometry.channels, geometry.size, lead, self.inputs, input);
    }

    /// Images [.., channels, height, width], one row of `length` numbers a channel, from number `lead` on.
    fn spread(&self, x: &[f32], channels: usize, size: [usize; 2], lead: usize, length: usize, line: &mut Vec<f32>) {
        // The zeros of a line of this length are still in place.
        if line.len() != channels * length {
            line.clear();
            line.resize(channels * length, 0.0);
        }
        let [height, width] = size;
        for (i, row) in x.chunks_exact(width).enumerate() {
            let (image, channel, y) = (i / height / channels, i / height % channels, i % height);
            let start = channel * length + lead + image * self.image_pitch + y * self.pitch;
            line[start..start + width].copy_from_slice(row);
        }
    }

    fn pick_up(&self, output: &[f32], geometry: &Geometry, out: &mut [f32]) {
        let [height, width] = geometry.out;
        for (i, row) in out.chunks_exact_mut(width).enumerate() {
            let (image, channel, y) =
                (i / height / geometry.out_channels, i / height % geometry.out_channels, i % height);
            let start = channel * self.outputs + image * self.image_pitch + y * self.pitch;
            row.copy_from_slice(&output[start..start + width]);
        }
    }
}

/// The sums over the patches, for every output of a line.
struct Sums<'a> {
    input: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    geometry: &'a Geometry,
    line: &'a Line,
    output: &'a mut [f32],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let o = self.geometry.out_channels;
        for start in (0..self.line.outputs).step_by(VECTORS * S::F32_LANES) {
            let mut channel = 0;
            // As many sums as there are registers for: 32 with the widest vectors, else 16.
            while S::F32_LANES >= 16 && channel + 8 <= o {
                self.block::<S, 8>(simd, channel, start);
                channel += 8;
            }
            while channel + 4 <= o {
                self.block::<S, 4>(simd, channel, start);
                channel += 4;
            }
            while channel < o {
                self.block::<S, 1>(simd, channel, start);
                channel += 1;
            }
        }
    }
}

impl Sums<'_> {
    /// Channels `channel..channel + N` of the outputs from `start` on.
    #[inline(always)]
    fn block<S: Simd, const N: usize>(&mut self, simd: S, channel: usize, start: usize) {
        let (o, [kh, kw], span) = (self.geometry.out_channels, self.geometry.kernel, VECTORS * S::F32_LANES);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
        if let Some(bias) = self.bias {
            each!(N, |n| sums[n] = [simd.splat_f32s(bias[channel + n]); VECTORS]);
        }
        // ANCHOR: direct_sums
        let mut weights = self.weight.chunks_exact(o);
        for input in self.input.chunks_exact(self.line.inputs) {
            for ky in 0..kh {
                let row = &input[start + ky * self.line.pitch..][..span + kw - 1];
                for (kx, weights) in (0..kw).zip(&mut weights) {
                    let (x, _) = S::as_simd_f32s(&row[kx..kx + span]);
                    let x: [S::f32s; VECTORS] = [x[0], x[1], x[2]];
                    let weights: &[f32; N] = weights[channel..].first_chunk().unwrap();
                    each!(N, |n| {
                        let w = simd.splat_f32s(weights[n]);
                        sums[n][0] = simd.mul_add_e_f32s(w, x[0], sums[n][0]);
                        sums[n][1] = simd.mul_add_e_f32s(w, x[1], sums[n][1]);
                        sums[n][2] = simd.mul_add_e_f32s(w, x[2], sums[n][2]);
                    });
                }
            }
        }
        // ANCHOR_END: direct_sums
        each!(N, |n| {
            let output = &mut self.output[(channel + n) * self.line.outputs + start..][..span];
            let (output, _) = S::as_mut_simd_f32s(output);
            (output[0], output[1], output[2]) = (sums[n][0], sums[n][1], sums[n][2]);
        });
    }
}

/// The scalar products that make up the gradient of the weight, added to `sums` [O, C, kh, kw].
struct Products<'a> {
    input: &'a [f32],
    grad: &'a [f32],
    geometry: &'a Geometry,
    line: &'a Line,
    sums: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (o, [kh, kw]) = (self.geometry.out_channels, self.geometry.kernel);
        let moves: Vec<usize> = (0..kh).flat_map(|ky| (0..kw).map(move |kx| ky * self.line.pitch + kx)).collect();
        let mut channel = 0;
        while S::F32_LANES >= 16 && channel + 8 <= o {
            self.channels::<S, 8>(simd, channel, &moves);
            channel += 8;
        }
        while channel + 4 <= o {
            self.channels::<S, 4>(simd, channel, &moves);
            channel += 4;
        }
        while channel < o {
            self.channels::<S, 1>(simd, channel, &moves);
            channel += 1;
        }
    }
}

impl Products<'_> {
    /// Output channels `channel..channel + N`, all input channels, all positions of the kernel.
    #[inline(always)]
    fn channels<S: Simd, const N: usize>(&mut self, simd: S, channel: usize, moves: &[usize]) {
        for c in 0..self.geometry.channels {
            let mut tap = 0;
            while tap + 3 <= moves.len() {
                self.block::<S, N, 3>(simd, channel, c, moves, tap);
                tap += 3;
            }
            while tap < moves.len() {
                self.block::<S, N, 1>(simd, channel, c, moves, tap);
                tap += 1;
            }
        }
    }

    /// N output channels and T positions of the kernel for one input channel.
    #[inline(always)]
    fn block<S: Simd, const N: usize, const T: usize>(
        &mut self,
        simd: S,
        channel: usize,
        c: usize,
        moves: &[usize],
        tap: usize,
    ) {
        let length = self.line.outputs;
        let vectors = length / S::F32_LANES;
        let input = &self.input[c * self.line.inputs..][..self.line.inputs];
        let x: [&[S::f32s]; T] =
            std::array::from_fn(|t| &S::as_simd_f32s(&input[moves[tap + t]..][..length]).0[..vectors]);
        let g: [&[S::f32s]; N] =
            std::array::from_fn(|n| &S::as_simd_f32s(&self.grad[(channel + n) * length..][..length]).0[..vectors]);
        let mut sums = [[simd.splat_f32s(0.0); T]; N];
        for v in 0..vectors {
            let x: [S::f32s; T] = std::array::from_fn(|t| x[t][v]);
            each!(N, |n| {
                let g = g[n][v];
                each!(T, |t| sums[n][t] = simd.mul_add_e_f32s(g, x[t], sums[n][t]));
            });
        }
        let patch = self.geometry.patch();
        each!(N, |n| {
            let to = &mut self.sums[(channel + n) * patch + c * moves.len() + tap..][..T];
            each!(T, |t| to[t] += simd.reduce_sum_f32s(sums[n][t]));
        });
    }
}
