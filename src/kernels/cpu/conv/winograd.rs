//! Convolutions of 3 x 3 that keep the size of the image, with a quarter of the multiplications, in f32.
//!
//! A tile of 4 x 4 outputs y meets 6 x 6 inputs d. By the definition it takes 144 multiplications for each pair of
//! channels; by Winograd's minimal filtering F(4 x 4, 3 x 3) it takes 36. With three small matrices A, B and G (see
//! [points]), ' for the transpose and * number by number,
//!
//!   y = A' [(G w G') * (B' d B)] A
//!
//! (Lavin and Gray 2016, equation 8). The sum over channels can be taken before A, so the work in the middle is 36
//! matrix products, one for each place in the 6 x 6. Taking the adjoint of each step gives the gradient of the weight,
//! dw = G' [sum over tiles of (A g A') * (B' d B)] G; the gradient of the input is a convolution with the flipped weight.
//!
//! During all this channels are innermost, so that vectors hold neighbouring channels and no step moves numbers between
//! lanes. What is computed for one tile depends on no other, so neither does a result on how tiles are shared out.

// Iterators and closures are not always inlined, and what is not inlined here is not vectorised.
#![allow(clippy::needless_range_loop)]

mod board;
mod points;
#[cfg(test)]
mod tests;

use super::im2col::split;
use super::turn::turn_out;
use super::{Geometry, Weight};
use crate::array::Buffer;
use crate::kernels::cpu::product::{self, Rows, RowsMut};
use crate::kernels::cpu::scratch::Scratch;
use board::{Board, Places, load, store};
use points::{IN, OUT, Points, TAPS};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Places in the 6 x 6: matrix products in the middle.
const PLACES: usize = IN * IN;

/// Vectors of channels in a block, which stays in the nearest cache from one step to the next.
const VECTORS: usize = 2;

/// Whether these ways can do the convolution and pay: enough channels to fill vectors.
pub(super) fn suits(geometry: &Geometry) -> bool {
    geometry.kernel == [TAPS; 2]
        && geometry.stride == 1
        && geometry.padding == [1; 2]
        && geometry.channels >= 8
        && geometry.out_channels >= 8
        && geometry.size.iter().all(|&size| size > 2)
}

/// Tiles that are computed together: all tiles of some images, or some rows of tiles of one.
#[derive(Clone, Debug)]
struct Piece {
    images: Range<usize>,
    rows: Range<usize>,
}

/// How images are covered by tiles.
struct Tiling<'a> {
    geometry: &'a Geometry,
    /// Rows of tiles in an image, and tiles in a row.
    rows: usize,
    cols: usize,
}

impl<'a> Tiling<'a> {
    fn new(geometry: &'a Geometry) -> Tiling<'a> {
        let [rows, cols] = geometry.size.map(|size| size.div_ceil(OUT));
        Tiling { geometry, rows, cols }
    }

    fn tiles(&self, piece: &Piece) -> usize {
        piece.images.len() * piece.rows.len() * self.cols
    }

    /// Pieces of at most about `most` tiles; at least `least` pieces if there are that many rows of tiles.
    fn cut(&self, most: usize, least: usize) -> Vec<Piece> {
        let batch = self.geometry.batch;
        let pieces = (batch * self.rows * self.cols).div_ceil(most).next_multiple_of(least);
        if pieces <= batch {
            let whole = |images| Piece { images, rows: 0..self.rows };
            return split(0..batch, pieces).map(whole).collect();
        }
        let bands = pieces.div_ceil(batch).min(self.rows);
        let cut = |image| split(0..self.rows, bands).map(move |rows| Piece { images: image..image + 1, rows });
        (0..batch).flat_map(cut).collect()
    }

    /// The rows of pixels under a piece's rows of tiles.
    fn pixels(&self, piece: &Piece) -> Range<usize> {
        piece.rows.start * OUT..(piece.rows.end * OUT).min(self.geometry.size[0])
    }
}

/// Tiles whose transformed inputs fit the second cache together, for a number of channels.
fn tiles_together(channels: usize) -> usize {
    (4000 / channels).clamp(32, 128)
}

/// The convolution.
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
    let block = product::lanes(arch) * VECTORS;
    let transformed = transformed(arch, weight, geometry, block);
    let tiling = Tiling::new(geometry);
    let threads = rayon::current_num_threads();
    let pieces = tiling.cut(tiles_together(geometry.channels), threads);
    let blocks = geometry.out_channels.div_ceil(block);
    // Few pieces are shared out by channels too.
    let groups = threads.div_ceil(pieces.len()).min(blocks);
    let groups: Vec<_> = split(0..blocks, groups).collect();
    let counts: Vec<_> =
        groups.iter().map(|group| (group.len() * block).min(geometry.out_channels - group.start * block)).collect();
    let segments = share_out(&mut out, &tiling, &pieces, &counts);
    let tasks: Vec<_> =
        pieces.iter().flat_map(|piece| groups.iter().map(move |group| (piece, group))).zip(segments).collect();
    tasks.into_par_iter().for_each(|((piece, group), out)| {
        let task = Outputs { x, weight: &transformed, bias, tiling: &tiling, piece, blocks: group.clone(), out };
        arch.dispatch(task);
    });
    out
}

/// What each task writes of the outputs [B, O, H, W], for the pieces in order and for each piece the groups of channels: a
/// slice for each image and channel.
fn share_out<'a>(out: &'a mut [f32], tiling: &Tiling, pieces: &[Piece], groups: &[usize]) -> Vec<Vec<&'a mut [f32]>> {
    let mut segments: Vec<_> = (0..pieces.len() * groups.len()).map(|_| vec![]).collect();
    let mut at = 0;
    for (image, mut planes) in out.chunks_exact_mut(tiling.geometry.out_image()).enumerate() {
        while !pieces[at].images.contains(&image) {
            at += 1;
        }
        let here = pieces[at..].iter().take_while(|piece| piece.images.contains(&image)).count();
        for (group, &channels) in groups.iter().enumerate() {
            for _ in 0..channels {
                for piece in at..at + here {
                    let pixels = tiling.pixels(&pieces[piece]).len() * tiling.geometry.size[1];
                    let (segment, rest) = planes.split_at_mut(pixels);
                    segments[piece * groups.len() + group].push(segment);
                    planes = rest;
                }
            }
        }
    }
    segments
}

/// Parts of the batch whose sums are added at the end; fixed by sizes, so that sums do not depend on threads.
fn parts(tiling: &Tiling) -> usize {
    let tiles = tiling.geometry.batch * tiling.rows * tiling.cols;
    (tiles / 128).clamp(1, 16).next_power_of_two().min(tiling.geometry.batch.max(1) * tiling.rows)
}

/// dW [O, C, 3, 3] from x and the gradient g of the outputs.
pub(super) fn grad_weight(g: &[f32], x: &[f32], geometry: &Geometry) -> Buffer<f32> {
    grad_weight_on(pulp::Arch::new(), g, x, geometry)
}

/// [`grad_weight`] with given vector instructions.
pub(super) fn grad_weight_on(arch: pulp::Arch, g: &[f32], x: &[f32], geometry: &Geometry) -> Buffer<f32> {
    let mut total = Buffer::scratch(geometry.out_channels * geometry.patch());
    if geometry.batch == 0 {
        total.fill(0.0);
        return total;
    }
    let tiling = Tiling::new(geometry);
    let block = product::lanes(arch) * VECTORS;
    let blocks = geometry.channels.div_ceil(block);
    let parts = parts(&tiling);
    let pieces = tiling.cut(tiles_together(geometry.out_channels), parts);
    let parts: Vec<_> = split(0..pieces.len(), parts).collect();
    // Few parts are shared out by channels too.
    let groups: Vec<_> = split(0..blocks, rayon::current_num_threads().div_ceil(parts.len()).min(blocks)).collect();
    let per_block = PLACES * geometry.out_channels * block;
    let mut sums = Scratch::take(parts.len() * blocks * per_block);
    let mut tasks = vec![];
    let mut rest = &mut sums[..];
    for part in parts {
        for group in &groups {
            let (sums, after) = rest.split_at_mut(group.len() * per_block);
            rest = after;
            tasks.push(Sums { g, x, tiling: &tiling, pieces: &pieces[part.clone()], blocks: group.clone(), sums });
        }
    }
    tasks.into_par_iter().for_each(|task| arch.dispatch(task));
    let rows = (geometry.out_channels / 16).max(1);
    total.par_chunks_mut(rows * geometry.patch()).enumerate().for_each(|(i, weight)| {
        arch.dispatch(Total { sums: &sums, first: i * rows, weight, geometry });
    });
    total
}

/// One task of the gradient of the weight: the sum over some pieces, for some blocks of input channels, as
/// [blocks, 36, O, block].
struct Sums<'a, 'b> {
    g: &'a [f32],
    x: &'a [f32],
    tiling: &'a Tiling<'a>,
    pieces: &'a [Piece],
    blocks: Range<usize>,
    sums: &'b mut [f32],
}

impl WithSimd for Sums<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let geometry = self.tiling.geometry;
        let block = VECTORS * S::F32_LANES;
        let o = geometry.out_channels;
        let pitch = o.next_multiple_of(block);
        let per_place = o * block;
        for (i, piece) in self.pieces.iter().enumerate() {
            let tiles = self.tiling.tiles(piece);
            let (mut grad, mut data) = (Places::new(tiles, pitch), Places::new(tiles, block));
            let mut board = Board::new(self.tiling, piece, 0, block);
            for first in (0..o).step_by(block) {
                board.transform_outputs(simd, self.g, o, first, &mut grad);
            }
            let mut board = Board::new(self.tiling, piece, 1, block);
            for (b, sums) in self.blocks.clone().zip(self.sums.chunks_exact_mut(PLACES * per_place)) {
                board.transform_inputs(simd, self.x, geometry.channels, b * block, &mut data, 0);
                for (place, sums) in sums.chunks_exact_mut(per_place).enumerate() {
                    let sums = RowsMut { data: sums, pitch: block };
                    product::multiply_transposed::<S, VECTORS>(
                        simd,
                        [o, tiles],
                        grad.place(place),
                        data.place(place),
                        sums,
                        i > 0,
                    );
                }
            }
        }
    }
}

/// G' u G of the sum over parts, for output channels from `first` on.
struct Total<'a> {
    sums: &'a [f32],
    first: usize,
    weight: &'a mut [f32],
    geometry: &'a Geometry,
}

impl WithSimd for Total<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (channels, lanes, points) = (self.geometry.channels, S::F32_LANES, Points(simd));
        let block = VECTORS * lanes;
        let per_place = self.geometry.out_channels * block;
        let per_part = channels.div_ceil(block) * PLACES * per_place;
        let mut taps = [0.0; TAPS * TAPS * MOST_LANES];
        for (o, weight) in (self.first..).zip(self.weight.chunks_exact_mut(self.geometry.patch())) {
            for c in (0..channels).step_by(lanes) {
                let mut u = [[simd.splat_f32s(0.0); IN]; IN];
                for part in self.sums.chunks_exact(per_part) {
                    let from = &part[c / block * PLACES * per_place + o * block + c % block..];
                    for place in 0..PLACES {
                        let sum = &mut u[place / IN][place % IN];
                        *sum = simd.add_f32s(*sum, load::<S>(&from[place * per_place..]));
                    }
                }
                let w = points.weight_adjoint(u);
                for tap in 0..TAPS * TAPS {
                    store::<S>(&mut taps[tap * lanes..], w[tap / TAPS][tap % TAPS]);
                }
                let weight = weight[c * TAPS * TAPS..].chunks_exact_mut(TAPS * TAPS).take(lanes);
                for (lane, weight) in weight.enumerate() {
                    for tap in 0..TAPS * TAPS {
                        weight[tap] = taps[tap * lanes + lane];
                    }
                }
            }
        }
    }
}

/// Numbers in the widest vector there is.
const MOST_LANES: usize = 16;

/// G w G' for all pairs of channels, as [blocks of O, 36, C, block].
fn transformed(arch: pulp::Arch, weight: Weight, geometry: &Geometry, block: usize) -> Scratch {
    let per_block = PLACES * geometry.channels * block;
    let mut result = Scratch::take(geometry.out_channels.div_ceil(block) * per_block);
    result.par_chunks_mut(per_block).enumerate().for_each(|(i, result)| {
        arch.dispatch(WeightBlock { weight, geometry, first: i * block, result });
    });
    result
}

/// G w G' for the block of output channels from `first` on.
struct WeightBlock<'a, 'b> {
    weight: Weight<'a>,
    geometry: &'a Geometry,
    first: usize,
    result: &'b mut [f32],
}

impl WithSimd for WeightBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const TAPS2: usize = TAPS * TAPS;
        let (channels, o) = (self.geometry.channels, self.geometry.out_channels);
        let (lanes, points) = (S::F32_LANES, Points(simd));
        let block = VECTORS * lanes;
        let count = block.min(o - self.first);
        let mut taps = [0.0; TAPS2 * VECTORS * MOST_LANES];
        for c in 0..channels {
            for k in 0..count {
                match self.weight {
                    Weight::Plain(weight) => {
                        let from: &[f32; TAPS2] =
                            weight[((self.first + k) * channels + c) * TAPS2..].first_chunk().unwrap();
                        for tap in 0..TAPS2 {
                            taps[tap * block + k] = from[tap];
                        }
                    }
                    Weight::Flipped(weight) => {
                        let from: &[f32; TAPS2] = weight[(c * o + self.first + k) * TAPS2..].first_chunk().unwrap();
                        for tap in 0..TAPS2 {
                            taps[tap * block + k] = from[TAPS2 - 1 - tap];
                        }
                    }
                }
            }
            for v in (0..block).step_by(lanes) {
                let mut w = [[simd.splat_f32s(0.0); TAPS]; TAPS];
                for tap in 0..TAPS2 {
                    w[tap / TAPS][tap % TAPS] = load::<S>(&taps[tap * block + v..]);
                }
                let u = points.weight(w);
                let result = &mut self.result[c * block + v..];
                for place in 0..PLACES {
                    store::<S>(&mut result[place * channels * block..], u[place / IN][place % IN]);
                }
            }
        }
    }
}

/// One task of the convolution: the outputs of a piece for some blocks of channels.
struct Outputs<'a, 'b> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    tiling: &'a Tiling<'a>,
    piece: &'a Piece,
    blocks: Range<usize>,
    /// The pixels of each image and channel.
    out: Vec<&'b mut [f32]>,
}

impl WithSimd for Outputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let geometry = self.tiling.geometry;
        let block = VECTORS * S::F32_LANES;
        let channels = geometry.channels;
        let pitch = channels.next_multiple_of(block);
        let tiles = self.tiling.tiles(self.piece);
        let mut data = Places::new(tiles, pitch);
        let mut board = Board::new(self.tiling, self.piece, 1, block);
        for first in (0..channels).step_by(block) {
            board.transform_inputs(simd, self.x, channels, first, &mut data, first);
        }
        let mut board = Board::new(self.tiling, self.piece, 0, block);
        let mut products = Places::new(tiles, block);
        let per_block = PLACES * channels * block;
        for (i, b) in self.blocks.clone().enumerate() {
            let weight = &self.weight[b * per_block..][..per_block];
            // ANCHOR: winograd_products
            for (place, weight) in weight.chunks_exact(channels * block).enumerate() {
                let weight = Rows { data: weight, pitch: block };
                product::multiply::<S, VECTORS>(
                    simd,
                    [tiles, channels],
                    data.place(place),
                    weight,
                    products.place_mut(place),
                    false,
                );
            }
            // ANCHOR_END: winograd_products
            self.pick_up(simd, &products, i * block, b * block, &mut board);
        }
    }
}

impl Outputs<'_, '_> {
    /// A' m A and the bias, written to the images: the block of channels from `channel` on, number `of_task` of the task.
    #[inline(always)]
    fn pick_up<S: Simd>(&mut self, simd: S, products: &Places, of_task: usize, channel: usize, board: &mut Board) {
        let (lanes, points) = (S::F32_LANES, Points(simd));
        let block = VECTORS * lanes;
        let count = block.min(self.tiling.geometry.out_channels - channel);
        let per_image = self.out.len() / self.piece.images.len();
        let mut bias = [simd.splat_f32s(0.0); VECTORS];
        if let Some(all) = self.bias {
            for v in 0..VECTORS {
                bias[v] = simd.partial_load_f32s(&all[(channel + v * lanes).min(all.len())..]);
            }
        }
        let mut tile = 0;
        for out in self.out.chunks_exact_mut(per_image) {
            for row in 0..board.rows {
                for col in 0..board.cols {
                    for v in 0..VECTORS {
                        let y = points.outputs(products.load(simd, tile, v * lanes));
                        for i in 0..OUT {
                            let to = board.line_mut::<S, OUT>(row, col, i, v);
                            for j in 0..OUT {
                                store::<S>(&mut to[j * block..], simd.add_f32s(y[i][j], bias[v]));
                            }
                        }
                    }
                    tile += 1;
                }
            }
            turn_out(&board.numbers, &board.places, &mut out[of_task..of_task + count]);
        }
    }
}
