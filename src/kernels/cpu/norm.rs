//! Group normalisation (Wu and He, arXiv 1803.08494) and, as its case of one group, layer normalisation.
//!
//! x [B, C, ..] is seen as blocks, one for each image and group, that lie one after the other. A block holds its
//! channels one after the other, each `area` numbers long. Where `area` is 1 (layer normalisation of rows) the weights
//! change with every number, and loops run along them; else with every channel.

use super::parallel::{CHUNK, Formula, rows_per_chunk, vectorised};
use super::{by_dtype, lanes};
use crate::array::{Array, Buffer, Element};
use crate::kernels::Unary;
use rayon::prelude::*;

/// Sizes of one normalisation.
#[derive(Clone, Copy)]
struct Blocks {
    images: usize,
    channels: usize,
    groups: usize,
    area: usize,
}

impl Blocks {
    fn of(x: &Array, groups: usize) -> Blocks {
        let (images, channels, area) = x.shape().around(1);
        Blocks { images, channels, groups, area }
    }

    /// Channels in a block.
    fn channels(&self) -> usize {
        self.channels / self.groups.max(1)
    }

    /// Numbers in a block.
    fn len(&self) -> usize {
        self.channels() * self.area
    }

    /// The channels of block `i`, to index weights with.
    fn range(&self, i: usize) -> std::ops::Range<usize> {
        let first = i % self.groups * self.channels();
        first..first + self.channels()
    }

    fn is_empty(&self) -> bool {
        self.images * self.channels * self.area == 0
    }

    /// How many blocks a thread takes at least.
    fn least(&self) -> usize {
        rows_per_chunk(self.len())
    }
}

/// y, mean and inverse deviation; of y, silu(y) if `silu` is set, while it is in the nearest cache.
#[track_caller]
pub(super) fn group_norm(
    x: &Array,
    weight: &Array,
    bias: &Array,
    groups: usize,
    eps: f64,
    silu: bool,
) -> (Array, Array, Array) {
    let blocks = Blocks::of(x, groups);
    assert!(
        groups > 0 && blocks.channels.is_multiple_of(groups),
        "group_norm: {groups} groups do not divide {}",
        x.shape()
    );
    by_dtype!(x.dtype(), T => {
        let (y, mean, inv_std) = forward::<T>(x.slice(), weight.slice(), bias.slice(), blocks, eps, silu);
        let small = [blocks.images, groups];
        (Array::from_buffer(x.shape(), y), Array::from_buffer(small, mean), Array::from_buffer(small, inv_std))
    })
}

fn forward<T: Element>(
    x: &[T],
    weight: &[T],
    bias: &[T],
    blocks: Blocks,
    eps: f64,
    silu: bool,
) -> (Buffer<T>, Buffer<T>, Buffer<T>) {
    let count = blocks.images * blocks.groups;
    let mut y = Buffer::scratch(x.len());
    let mut mean = Buffer::filled(count, T::zero());
    let mut inv_std = Buffer::filled(count, T::of(1.0 / eps.sqrt()));
    if blocks.is_empty() {
        return (y, mean, inv_std);
    }
    let len = blocks.len();
    let outputs = y.par_chunks_mut(len).zip(mean.par_iter_mut()).zip(inv_std.par_iter_mut());
    outputs.enumerate().with_min_len(blocks.least()).for_each(|(i, ((y, mean), inv_std))| {
        let range = blocks.range(i);
        let (x, weight, bias) = (&x[i * len..][..len], &weight[range.clone()], &bias[range]);
        (*mean, *inv_std) = match silu {
            false => normalise(y, x, weight, bias, eps, &Identity),
            true => normalise(y, x, weight, bias, eps, &Silu),
        };
    });
    (y, mean, inv_std)
}

struct Identity;

impl<T> Formula<T> for Identity {
    #[inline(always)]
    fn at(&self, x: T) -> T {
        x
    }
}

struct Silu;

impl<T: Element> Formula<T> for Silu {
    #[inline(always)]
    fn at(&self, x: T) -> T {
        Unary::Silu.value(x)
    }
}

vectorised! {
    // ANCHOR: normalise
    /// One block, f of each number written; returns its mean and inverse deviation.
    fn normalise<T: Element, F: Formula<T>>(y: &mut [T], x: &[T], weight: &[T], bias: &[T], eps: f64, f: &F) -> (T, T) {
        let (len, area) = (x.len(), x.len() / weight.len());
        let m = T::of(lanes::sum(x, |x| x) / len as f64);
        let variance = lanes::sum(x, |x| (x - m) * (x - m)) / len as f64;
        let s = T::of(1.0 / (variance + eps).sqrt());
        if area == 1 {
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = f.at((x - m) * s * w + b);
            }
        } else {
            for ((y, x), (&w, &b)) in y.chunks_exact_mut(area).zip(x.chunks_exact(area)).zip(weight.iter().zip(bias)) {
                let scale = s * w;
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = f.at((x - m) * scale + b));
            }
        }
        (m, s)
    }
    // ANCHOR_END: normalise
}

/// Gradients with respect to x, weight and bias. With `silu_bias`, the bias of the normalisation, g is the gradient of
/// silu(y); y is then computed again.
pub(super) fn group_norm_grad(
    g: &Array,
    x: &Array,
    weight: &Array,
    silu_bias: Option<&Array>,
    mean: &Array,
    inv_std: &Array,
) -> (Array, Array, Array) {
    let blocks = Blocks::of(x, mean.shape()[1]);
    by_dtype!(x.dtype(), T => {
        let operands = Operands::<T> {
            g: g.slice(),
            x: x.slice(),
            weight: weight.slice(),
            silu_bias: silu_bias.map(Array::slice),
            mean: mean.slice(),
            inv_std: inv_std.slice(),
        };
        let (gx, gweight, gbias) = match blocks {
            _ if blocks.is_empty() => {
                let zeros = vec![T::default(); blocks.channels];
                (Buffer::scratch(0), zeros.clone(), zeros)
            }
            Blocks { area: 1, .. } => backward_rows(operands, blocks),
            _ => backward_planes(operands, blocks),
        };
        let small = [blocks.channels];
        (Array::from_buffer(x.shape(), gx), Array::from_vec(small, gweight), Array::from_vec(small, gbias))
    })
}

#[derive(Clone, Copy)]
struct Operands<'a, T> {
    g: &'a [T],
    x: &'a [T],
    weight: &'a [T],
    silu_bias: Option<&'a [T]>,
    mean: &'a [T],
    inv_std: &'a [T],
}

impl<'a, T: Element> Operands<'a, T> {
    /// The part of block `i`.
    fn block(&self, i: usize, blocks: Blocks) -> Block<'a, T> {
        let len = blocks.len();
        let (g, x, weight) = (&self.g[i * len..][..len], &self.x[i * len..][..len], &self.weight[blocks.range(i)]);
        let silu_bias = self.silu_bias.map(|bias| &bias[blocks.range(i)]);
        Block { g, x, weight, silu_bias, mean: self.mean[i], inv_std: self.inv_std[i] }
    }
}

struct Block<'a, T> {
    g: &'a [T],
    x: &'a [T],
    weight: &'a [T],
    silu_bias: Option<&'a [T]>,
    mean: T,
    inv_std: T,
}

vectorised! {
    /// gy = g silu'(y) where every number has its own weight, with y as [`normalise`] computes it.
    fn through_silu<T: Element>(gy: &mut [T], block: &Block<'_, T>, bias: &[T]) {
        let &Block { g, x, weight, mean: m, inv_std: s, .. } = block;
        for ((gy, (&g, &x)), (&w, &b)) in gy.iter_mut().zip(g.iter().zip(x)).zip(weight.iter().zip(bias)) {
            *gy = g * Unary::Silu.derivative((x - m) * s * w + b);
        }
    }
}

fn backward_planes<T: Element>(o: Operands<T>, blocks: Blocks) -> (Buffer<T>, Vec<T>, Vec<T>) {
    let mut gx = Buffer::scratch(o.x.len());
    let mut sums = vec![[0.0; 2]; blocks.images * blocks.channels];
    let outputs = gx.par_chunks_mut(blocks.len()).zip(sums.par_chunks_mut(blocks.channels()));
    outputs.enumerate().with_min_len(blocks.least()).for_each(|(i, (gx, sums))| {
        let block = o.block(i, blocks);
        planes(gx, sums, &block);
    });
    let (gweight, gbias) = total(sums.chunks_exact(blocks.channels), blocks.channels);
    (gx, gweight, gbias)
}

vectorised! {
    /// One block, from the gradient g of y to that of x. With xhat = (x - m) s, and means over the block,
    ///   gx = s (w g - mean(w g) - xhat mean(w g xhat)),
    /// gweight = sum g xhat and gbias = sum g over images and area. All follow from two sums per channel.
    fn planes<T: Element>(gx: &mut [T], sums: &mut [[f64; 2]], block: &Block<'_, T>) {
        let &Block { g, x, weight, silu_bias, mean: m, inv_std: s } = block;
        let (len, area) = (x.len(), x.len() / weight.len());
        let (mut mean_g, mut mean_gx) = (0.0, 0.0);
        let channels = g.chunks_exact(area).zip(x.chunks_exact(area));
        for (c, (gx, (g, x))) in gx.chunks_exact_mut(area).zip(channels).enumerate() {
            let [with_x, alone] = match silu_bias {
                None => lanes::write_and_sum(gx, g, x, |g, x| [g, g * (x - m), g]),
                Some(bias) => {
                    let (scale, b) = (s * weight[c], bias[c]);
                    // y as `normalise` computes it, and the gradient through SiLU.
                    lanes::write_and_sum(gx, g, x, |g, x| {
                        let g = g * Unary::Silu.derivative((x - m) * scale + b);
                        [g, g * (x - m), g]
                    })
                }
            };
            sums[c] = [with_x * s.f64(), alone];
            mean_gx += weight[c].f64() * sums[c][0] / len as f64;
            mean_g += weight[c].f64() * sums[c][1] / len as f64;
        }
        let (slope, shift) = (T::of(mean_gx) * s * s, T::of(mean_g) * s);
        for ((gx, x), &w) in gx.chunks_exact_mut(area).zip(x.chunks_exact(area)).zip(weight) {
            let scale = w * s;
            for (gx, &x) in gx.iter_mut().zip(x) {
                *gx = scale * *gx - shift - (x - m) * slope;
            }
        }
    }
}

/// The same where every number has its own weight. Images are taken in fixed batches, each with its own sums.
fn backward_rows<T: Element>(o: Operands<T>, blocks: Blocks) -> (Buffer<T>, Vec<T>, Vec<T>) {
    const MOST_BATCHES: usize = 32;
    let channels = blocks.channels;
    let mut through = None;
    if let Some(bias) = o.silu_bias {
        let gy = through.insert(Buffer::scratch(o.g.len()));
        let least = blocks.least();
        gy.par_chunks_mut(blocks.len())
            .enumerate()
            .with_min_len(least)
            .for_each(|(i, gy)| through_silu(gy, &o.block(i, blocks), &bias[blocks.range(i)]));
    }
    let o = Operands { g: through.as_deref().unwrap_or(o.g), ..o };
    let batch = CHUNK.div_ceil(channels).max(blocks.images.div_ceil(MOST_BATCHES));
    let mut gx = Buffer::scratch(o.x.len());
    let mut sums = vec![[0.0; 2]; blocks.images.div_ceil(batch) * channels];
    let outputs = gx.par_chunks_mut(batch * channels).zip(sums.par_chunks_mut(channels));
    outputs.enumerate().for_each(|(k, (gx, sums))| {
        let mut gweight = vec![0.0; channels];
        let mut gbias = vec![0.0; channels];
        for (j, gx) in gx.chunks_exact_mut(blocks.len()).enumerate() {
            let i = k * batch * blocks.groups + j;
            row(gx, &mut gweight[blocks.range(i)], &mut gbias[blocks.range(i)], o.block(i, blocks));
        }
        sums.iter_mut().zip(gweight).zip(gbias).for_each(|((sums, weight), bias)| *sums = [weight, bias]);
    });
    let (gweight, gbias) = total(sums.chunks_exact(channels), channels);
    (gx, gweight, gbias)
}

vectorised! {
    // ANCHOR: norm_row_gradient
    /// One block; adds to gweight and gbias.
    fn row<T: Element>(gx: &mut [T], gweight: &mut [f64], gbias: &mut [f64], block: Block<'_, T>) {
        let Block { g, x, weight, mean: m, inv_std: s, .. } = block;
        // gx holds w g until the two means are known.
        gx.iter_mut().zip(g).zip(weight).for_each(|((gx, &g), &w)| *gx = w * g);
        let mean_g = T::of(lanes::sum(gx, |wg| wg) / x.len() as f64);
        let mean_gx = lanes::sum2(gx, x, |wg, x| wg * (x - m)) * s.f64() / x.len() as f64;
        let slope = T::of(mean_gx) * s;
        for (gx, &x) in gx.iter_mut().zip(x) {
            *gx = s * (*gx - mean_g - (x - m) * slope);
        }
        for (((gweight, gbias), &g), &x) in gweight.iter_mut().zip(gbias).zip(g).zip(x) {
            *gweight += (g * ((x - m) * s)).f64();
            *gbias += g.f64();
        }
    }
    // ANCHOR_END: norm_row_gradient
}

/// Adds the sums of the parts, in order, channel by channel.
fn total<'a, T: Element>(parts: impl Iterator<Item = &'a [[f64; 2]]>, channels: usize) -> (Vec<T>, Vec<T>) {
    let mut total = vec![[0.0; 2]; channels];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(a, b)| *a = [a[0] + b[0], a[1] + b[1]]);
    }
    total.into_iter().map(|[weight, bias]| (T::of(weight), T::of(bias))).unzip()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_on_any_threads, gaussian};
    use super::*;
    use crate::array::DType;

    const EPS: f64 = 1e-5;

    /// y, mean, 1 / deviation and the three gradients, number by number from the definitions.
    fn plain(x: &Array, weight: &Array, bias: &Array, g: &Array, groups: usize) -> [Array; 6] {
        let (images, channels, area) = x.shape().around(1);
        let (xs, ws, bs, gs) = (x.to_f64(), weight.to_f64(), bias.to_f64(), g.to_f64());
        let len = channels / groups * area;
        let (mut y, mut gx) = (vec![0.0; xs.len()], vec![0.0; xs.len()]);
        let (mut mean, mut inv_std) = (vec![], vec![]);
        let (mut gweight, mut gbias) = (vec![0.0; channels], vec![0.0; channels]);
        for block in 0..images * groups {
            let at = block * len..(block + 1) * len;
            let average = |f: &dyn Fn(usize) -> f64| at.clone().map(f).sum::<f64>() / len as f64;
            let m = average(&|i| xs[i]);
            let s = 1.0 / (average(&|i| (xs[i] - m).powi(2)) + EPS).sqrt();
            let (channel, xhat) = (|i: usize| i / area % channels, |i: usize| (xs[i] - m) * s);
            let mean_g = average(&|i| ws[channel(i)] * gs[i]);
            let mean_gx = average(&|i| ws[channel(i)] * gs[i] * xhat(i));
            for i in at.clone() {
                y[i] = xhat(i) * ws[channel(i)] + bs[channel(i)];
                gx[i] = s * (ws[channel(i)] * gs[i] - mean_g - xhat(i) * mean_gx);
                gweight[channel(i)] += gs[i] * xhat(i);
                gbias[channel(i)] += gs[i];
            }
            mean.push(m);
            inv_std.push(s);
        }
        let small = [images, groups];
        let shaped = |values| Array::from_vec::<f64>(x.shape(), values);
        [
            shaped(y),
            Array::from_vec(small, mean),
            Array::from_vec(small, inv_std),
            shaped(gx),
            Array::from_vec([channels], gweight),
            Array::from_vec([channels], gbias),
        ]
    }

    fn both_passes(x: &Array, weight: &Array, bias: &Array, g: &Array, groups: usize) -> [Array; 6] {
        let (y, mean, inv_std) = group_norm(x, weight, bias, groups, EPS, false);
        let (gx, gweight, gbias) = group_norm_grad(g, x, weight, None, &mean, &inv_std);
        [y, mean, inv_std, gx, gweight, gbias]
    }

    // Not nearly: the fused passes compute the very numbers of normalising first and bending then.
    #[test]
    fn with_silu_both_passes_have_the_bits_of_the_two_ops() {
        let cases: [(&[usize], usize); 6] = [
            (&[2, 6, 5, 7], 3),
            (&[1, 4, 3, 3], 4),
            (&[2, 8, 33, 65], 2),
            (&[300, 96], 1),
            (&[3, 6], 2),
            (&[0, 4, 3, 3], 2),
        ];
        for ((shape, groups), dtype) in cases.into_iter().flat_map(|case| [(case, DType::F32), (case, DType::F64)]) {
            let [x, weight, bias, g] = operands(shape).map(|x| x.cast(dtype));
            let (h, mean, inv_std) = group_norm(&x, &weight, &bias, groups, EPS, false);
            let gh = super::super::map::unary_grad(Unary::Silu, &h, &g);
            let (gx, gweight, gbias) = group_norm_grad(&gh, &x, &weight, None, &mean, &inv_std);
            let y = super::super::map::unary(Unary::Silu, &h);

            let (fused, fused_mean, fused_inv_std) = group_norm(&x, &weight, &bias, groups, EPS, true);
            let grads = group_norm_grad(&g, &x, &weight, Some(&bias), &mean, &inv_std);
            let (found, expected) =
                ([fused, fused_mean, fused_inv_std, grads.0, grads.1, grads.2], [y, mean, inv_std, gx, gweight, gbias]);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(found.bit_eq(expected), "result {i} of {shape:?} in {dtype}");
            }
        }
    }

    fn operands(shape: &[usize]) -> [Array; 4] {
        [gaussian(shape, 1), gaussian([shape[1]], 2), gaussian([shape[1]], 3), gaussian(shape, 4)]
    }

    #[test]
    fn both_passes_match_the_definitions() {
        let cases: [(&[usize], usize); 9] = [
            (&[2, 6, 5, 7], 3),
            (&[1, 4, 3, 3], 4),
            (&[3, 5, 2, 2], 1),
            (&[2, 8, 33, 65], 2),
            (&[7, 24], 1),
            (&[5, 24, 1], 1),
            (&[300, 96], 1),
            (&[3, 6], 2),
            (&[2, 3, 1], 3),
        ];
        for (shape, groups) in cases {
            let o = operands(shape);
            let expected = plain(&o[0], &o[1], &o[2], &o[3], groups);
            let found = both_passes(&o[0], &o[1], &o[2], &o[3], groups);
            let o = o.map(|x| x.cast(DType::F32));
            let single = both_passes(&o[0], &o[1], &o[2], &o[3], groups);
            for ((found, single), expected) in found.iter().zip(&single).zip(&expected) {
                assert_close(found, expected, 1e-11);
                // A block of one or two numbers has a deviation near 0 by chance, which single precision feels.
                assert_close(single, expected, 2e-3);
            }
        }
    }

    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        let x = Array::from_vec([1, 1, 1000], (0..1000).map(|i| 1000.0 + (i % 2) as f32).collect());
        let one = Array::from_vec([1], vec![1.0_f32]);
        let (y, _, inv_std) = group_norm(&x, &one, &Array::from_vec([1], vec![0.0_f32]), 1, 0.0, false);
        assert!((inv_std.item() - 2.0).abs() < 1e-4);
        assert!(y.to_f64().iter().all(|y| (y.abs() - 1.0).abs() < 1e-4));
    }

    #[test]
    fn no_images_give_empty_results_and_zero_gradients() {
        for shape in [&[0, 4, 3, 3][..], &[0, 4]] {
            let o = operands(shape);
            let [y, mean, _, gx, gweight, gbias] = both_passes(&o[0], &o[1], &o[2], &o[3], 2);
            assert_eq!((y.shape(), mean.numel(), gx.shape()), (o[0].shape(), 0, o[0].shape()));
            assert_eq!((gweight.to_f64(), gbias.to_f64()), (vec![0.0; 4], vec![0.0; 4]));
        }
    }

    #[test]
    fn threads_do_not_matter() {
        for shape in [&[6, 12, 31, 33][..], &[2001, 70]] {
            let o = operands(shape).map(|x| x.cast(DType::F32));
            assert_same_on_any_threads(|| both_passes(&o[0], &o[1], &o[2], &o[3], 2).to_vec());
        }
    }
}
