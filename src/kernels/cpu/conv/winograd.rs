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

mod points;

use super::im2col::split;
use super::{Geometry, each_channel};
use crate::array::Buffer;
use points::{IN, OUT, Points, TAPS};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};

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
    (8000 / channels).clamp(48, 256)
}

/// The convolution; the weight comes as W' [C 3 3, O].
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
    let block = arch.dispatch(Width) * VECTORS;
    let weight = arch.dispatch(Weight { turned: turned_weight, geometry });
    let tiling = Tiling::new(geometry);
    let threads = rayon::current_num_threads();
    let pieces = tiling.cut(tiles_together(geometry.channels), threads);
    let blocks = geometry.out_channels.div_ceil(block);
    // Few pieces are shared out by channels too.
    let groups = threads.div_ceil(pieces.len()).min(blocks);
    let groups: Vec<_> = split(0..blocks, groups).collect();
    let channels = |group: &Range<usize>| group.start * block..(group.end * block).min(geometry.out_channels);
    let mut tasks: Vec<_> = pieces.iter().flat_map(|piece| groups.iter().map(move |g| (piece, g, vec![]))).collect();
    let mut at = 0;
    for (image, mut planes) in out.chunks_exact_mut(geometry.out_image()).enumerate() {
        while !pieces[at].images.contains(&image) {
            at += 1;
        }
        let here = pieces[at..].iter().take_while(|piece| piece.images.contains(&image)).count();
        for (g, group) in groups.iter().enumerate() {
            for _ in channels(group) {
                for piece in at..at + here {
                    let pixels = tiling.pixels(&pieces[piece]).len() * geometry.size[1];
                    let (segment, rest) = planes.split_at_mut(pixels);
                    tasks[piece * groups.len() + g].2.push(segment);
                    planes = rest;
                }
            }
        }
    }
    tasks.into_par_iter().for_each(|(piece, group, out)| {
        let task = Outputs { x, weight: &weight, bias, tiling: &tiling, piece, blocks: group.clone(), out };
        arch.dispatch(task);
    });
    out
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
    let block = arch.dispatch(Width) * VECTORS;
    let blocks = geometry.channels.div_ceil(block);
    let parts = parts(&tiling);
    let pieces = tiling.cut(tiles_together(geometry.out_channels), parts);
    let parts: Vec<_> = split(0..pieces.len(), parts).collect();
    // Few parts are shared out by channels too.
    let groups: Vec<_> = split(0..blocks, rayon::current_num_threads().div_ceil(parts.len()).min(blocks)).collect();
    let per_block = PLACES * geometry.out_channels.next_multiple_of(4) * block;
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
        let pitch = o.next_multiple_of(block.max(4));
        let outputs = Geometry { channels: o, ..geometry.clone() };
        let of_outputs = Tiling { geometry: &outputs, ..*self.tiling };
        let mut rows = Scratch::take(IN * (self.tiling.cols * OUT + 2) * block);
        let per_place = o.next_multiple_of(4) * block;
        for (i, piece) in self.pieces.iter().enumerate() {
            let tiles = self.tiling.tiles(piece);
            let (mut grad, mut data) = (Places::new(tiles, pitch), Places::new(tiles, block));
            for first in (0..o).step_by(block) {
                transform::<S, false>(simd, self.g, &of_outputs, piece, first, &mut rows, &mut grad, first);
            }
            for (b, sums) in self.blocks.clone().zip(self.sums.chunks_exact_mut(PLACES * per_place)) {
                transform::<S, true>(simd, self.x, self.tiling, piece, b * block, &mut rows, &mut data, 0);
                for (place, sums) in sums.chunks_exact_mut(per_place).enumerate() {
                    add_products(simd, grad.place(place), pitch, data.place(place), sums, i > 0);
                }
            }
        }
    }
}

/// sums [O, block] = (the same, if `more`) + grad' [O, tiles] data [tiles, block].
#[inline(always)]
fn add_products<S: Simd>(simd: S, grad: &[f32], pitch: usize, data: &[f32], sums: &mut [f32], more: bool) {
    let block = VECTORS * S::F32_LANES;
    let (mut sums, mut channel) = (sums, 0);
    while S::F32_LANES >= 16 && sums.len() >= 8 * block {
        let (now, rest) = sums.split_at_mut(8 * block);
        rows_of_sums::<S, 8>(simd, grad, pitch, channel, data, now, more);
        (sums, channel) = (rest, channel + 8);
    }
    while sums.len() >= 4 * block {
        let (now, rest) = sums.split_at_mut(4 * block);
        rows_of_sums::<S, 4>(simd, grad, pitch, channel, data, now, more);
        (sums, channel) = (rest, channel + 4);
    }
}

#[inline(always)]
fn rows_of_sums<S: Simd, const N: usize>(
    simd: S,
    grad: &[f32],
    pitch: usize,
    channel: usize,
    data: &[f32],
    to: &mut [f32],
    more: bool,
) {
    let (data, _) = S::as_simd_f32s(data);
    let (to, _) = S::as_mut_simd_f32s(to);
    let (to, _) = to.as_chunks_mut::<VECTORS>();
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
    if more {
        each_channel!(N, |n| sums[n] = to[n]);
    }
    for (grad, data) in grad.chunks_exact(pitch).zip(data.as_chunks::<VECTORS>().0) {
        let grad: &[f32; N] = grad[channel..].first_chunk().unwrap();
        each_channel!(N, |n| {
            let g = simd.splat_f32s(grad[n]);
            sums[n][0] = simd.mul_add_e_f32s(g, data[0], sums[n][0]);
            sums[n][1] = simd.mul_add_e_f32s(g, data[1], sums[n][1]);
        });
    }
    each_channel!(N, |n| to[n] = sums[n]);
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
        let per_place = self.geometry.out_channels.next_multiple_of(4) * block;
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

struct Width;

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// G w G' for all pairs of channels, as [blocks of O, 36, C, block].
struct Weight<'a> {
    turned: &'a [f32],
    geometry: &'a Geometry,
}

impl WithSimd for Weight<'_> {
    type Output = Scratch;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Scratch {
        let (channels, o) = (self.geometry.channels, self.geometry.out_channels);
        let (lanes, points) = (S::F32_LANES, Points(simd));
        let block = lanes * VECTORS;
        let blocks = o.div_ceil(block);
        let mut result = Scratch::take(blocks * PLACES * channels * block);
        for (c, taps) in self.turned.chunks_exact(TAPS * TAPS * o).enumerate() {
            for first in (0..blocks * block).step_by(lanes) {
                let mut w = [[simd.splat_f32s(0.0); TAPS]; TAPS];
                for tap in 0..TAPS * TAPS {
                    let row = &taps[tap * o..][..o];
                    w[tap / TAPS][tap % TAPS] = if first + lanes <= o {
                        load::<S>(&row[first..])
                    } else {
                        simd.partial_load_f32s(&row[first.min(o)..])
                    };
                }
                let u = points.weight(w);
                for place in 0..PLACES {
                    let at = ((first / block * PLACES + place) * channels + c) * block + first % block;
                    store::<S>(&mut result[at..], u[place / IN][place % IN]);
                }
            }
        }
        result
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
        let tiles = self.tiling.tiles(self.piece).next_multiple_of(4);
        let mut data = Places::new(tiles, pitch);
        let mut rows = Scratch::take(IN * (self.tiling.cols * OUT + 2) * block);
        for first in (0..pitch).step_by(block) {
            transform::<S, true>(simd, self.x, self.tiling, self.piece, first, &mut rows, &mut data, first);
        }
        let mut products = Places::new(tiles, block);
        let per_block = PLACES * channels * block;
        for (i, b) in self.blocks.clone().enumerate() {
            let weight = &self.weight[b * per_block..][..per_block];
            for (place, weight) in weight.chunks_exact(channels * block).enumerate() {
                let (data, products) = (data.place(place), products.place_mut(place));
                multiply(simd, data, pitch, channels, weight, products);
            }
            self.pick_up(simd, &products, i * block, b * block, &mut rows);
        }
    }
}

impl Outputs<'_, '_> {
    /// A' m A and the bias, written to the images: the block of channels from `channel` on.
    #[inline(always)]
    fn pick_up<S: Simd>(&mut self, simd: S, products: &Places, of_task: usize, channel: usize, rows: &mut [f32]) {
        let (geometry, piece, cols) = (self.tiling.geometry, self.piece, self.tiling.cols);
        let (lanes, points) = (S::F32_LANES, Points(simd));
        let block = VECTORS * lanes;
        let width = geometry.size[1];
        let count = block.min(geometry.out_channels - channel);
        let per_image = self.out.len() / piece.images.len();
        let mut bias = [simd.splat_f32s(0.0); VECTORS];
        if let Some(all) = self.bias {
            for v in 0..VECTORS {
                bias[v] = simd.partial_load_f32s(&all[(channel + v * lanes).min(all.len())..]);
            }
        }
        let pixels = self.tiling.pixels(piece);
        let mut tile = 0;
        for out in self.out.chunks_exact_mut(per_image) {
            let out = &mut out[of_task..of_task + count];
            for row in 0..piece.rows.len() {
                for col in 0..cols {
                    for v in 0..VECTORS {
                        let y = points.outputs(products.load(simd, tile, v * lanes));
                        for i in 0..OUT {
                            let to = &mut rows[(i * cols + col) * OUT * block + v * lanes..];
                            for j in 0..OUT {
                                store::<S>(&mut to[j * block..], simd.add_f32s(y[i][j], bias[v]));
                            }
                        }
                    }
                    tile += 1;
                }
                for i in 0..OUT.min(pixels.len() - row * OUT) {
                    let from = &rows[i * cols * OUT * block..][..width * block];
                    turn_out(from, block, (row * OUT + i) * width, width, out);
                }
            }
        }
    }
}

/// For all tiles of a piece and the block of channels from `channel` on: B' d B of the 6 x 6 inputs that a tile meets,
/// or if not `MET`, A g A' of the 4 x 4 numbers it is. Written to `result` from number `to` of each row on.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transform<S: Simd, const MET: bool>(
    simd: S,
    x: &[f32],
    tiling: &Tiling,
    piece: &Piece,
    channel: usize,
    rows: &mut [f32],
    result: &mut Places,
    to: usize,
) {
    let (geometry, points, lanes) = (tiling.geometry, Points(simd), S::F32_LANES);
    let block = VECTORS * lanes;
    let [height, width] = geometry.size;
    // What tiles meet beyond the image, one pixel on each side, is zero.
    let (side, margin) = if MET { (IN, 1) } else { (OUT, 0) };
    let row_len = (tiling.cols * OUT + 2 * margin) * block;
    let count = block.min(geometry.channels - channel);
    let rows = &mut rows[..side * row_len];
    rows.fill(0.0);
    let mut tile = 0;
    for image in piece.images.clone() {
        let plane = height * width;
        let x = &x[(image * geometry.channels + channel) * plane..][..count * plane];
        for row in piece.rows.clone() {
            // Two rows of the tiles above are met again.
            let known = if row == piece.rows.start { 0 } else { side - OUT };
            rows.copy_within((side - known) * row_len.., 0);
            for (i, to) in rows.chunks_exact_mut(row_len).enumerate().skip(known) {
                match (row * OUT + i).checked_sub(margin).filter(|&y| y < height) {
                    Some(y) => turn_in(x, plane, y * width, width, block, &mut to[margin * block..]),
                    None => to.fill(0.0),
                }
            }
            for col in 0..tiling.cols {
                for v in 0..VECTORS {
                    let from = &rows[col * OUT * block + v * lanes..];
                    let values = if MET {
                        let mut d = [[simd.splat_f32s(0.0); IN]; IN];
                        for place in 0..PLACES {
                            let (i, j) = (place / IN, place % IN);
                            d[i][j] = load::<S>(&from[i * row_len + j * block..]);
                        }
                        points.data(d)
                    } else {
                        let mut g = [[simd.splat_f32s(0.0); OUT]; OUT];
                        for place in 0..OUT * OUT {
                            let (i, j) = (place / OUT, place % OUT);
                            g[i][j] = load::<S>(&from[i * row_len + j * block..]);
                        }
                        points.outputs_adjoint(g)
                    };
                    result.store::<S>(tile, to + v * lanes, values);
                }
                tile += 1;
            }
        }
    }
}

/// Squares of this side are transposed in registers.
const SQUARE: usize = 4;

/// A row of `width` pixels of every channel (planes of x, `plane` apart), from `start` on, with channels innermost,
/// pixels `block` apart.
#[inline(always)]
fn turn_in(x: &[f32], plane: usize, start: usize, width: usize, block: usize, to: &mut [f32]) {
    let to = &mut to[..width * block];
    let mut planes = x.chunks_exact(SQUARE * plane);
    let mut channel = 0;
    for planes in &mut planes {
        let mut rows: [&[f32]; SQUARE] = [&[]; SQUARE];
        for i in 0..SQUARE {
            rows[i] = &planes[i * plane + start..][..width];
        }
        let mut squares = to.chunks_exact_mut(SQUARE * block);
        for (s, to) in (&mut squares).enumerate() {
            let mut square = [[0.0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i] = *rows[i][s * SQUARE..].first_chunk().unwrap();
            }
            for j in 0..SQUARE {
                let to = &mut to[j * block + channel..][..SQUARE];
                for i in 0..SQUARE {
                    to[i] = square[i][j];
                }
            }
        }
        let done = width / SQUARE * SQUARE;
        for (x, to) in (done..width).zip(squares.into_remainder().chunks_exact_mut(block)) {
            for i in 0..SQUARE {
                to[channel + i] = rows[i][x];
            }
        }
        channel += SQUARE;
    }
    for plane in planes.remainder().chunks_exact(plane) {
        let row = &plane[start..start + width];
        to.chunks_exact_mut(block).zip(row).for_each(|(to, &x)| to[channel] = x);
        channel += 1;
    }
}

/// The other way: pixels with channels innermost to a row of each channel's plane.
#[inline(always)]
fn turn_out(from: &[f32], block: usize, start: usize, width: usize, out: &mut [&mut [f32]]) {
    let from = &from[..width * block];
    let mut planes = out.chunks_exact_mut(SQUARE);
    let mut channel = 0;
    for planes in &mut planes {
        let squares = from.chunks_exact(SQUARE * block);
        let rest = squares.remainder();
        for (s, from) in squares.enumerate() {
            let mut square = [[0.0; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                square[i] = *from[i * block + channel..].first_chunk().unwrap();
            }
            for j in 0..SQUARE {
                let to = &mut planes[j][start + s * SQUARE..][..SQUARE];
                for i in 0..SQUARE {
                    to[i] = square[i][j];
                }
            }
        }
        let done = width / SQUARE * SQUARE;
        for (x, from) in (done..width).zip(rest.chunks_exact(block)) {
            for j in 0..SQUARE {
                planes[j][start + x] = from[channel + j];
            }
        }
        channel += SQUARE;
    }
    for plane in planes.into_remainder() {
        let row = &mut plane[start..start + width];
        row.iter_mut().zip(from[channel..].iter().step_by(block)).for_each(|(o, &f)| *o = f);
        channel += 1;
    }
}

/// m [tiles, block] = data [tiles, C] weight [C, block].
#[inline(always)]
fn multiply<S: Simd>(simd: S, data: &[f32], pitch: usize, channels: usize, weight: &[f32], m: &mut [f32]) {
    let block = VECTORS * S::F32_LANES;
    let mut data = data;
    let mut m = m;
    while S::F32_LANES >= 16 && m.len() >= 8 * block {
        rows_of_product::<S, 8>(simd, data, pitch, channels, weight, &mut m[..8 * block]);
        (data, m) = (&data[8 * pitch..], &mut m[8 * block..]);
    }
    while m.len() >= 4 * block {
        rows_of_product::<S, 4>(simd, data, pitch, channels, weight, &mut m[..4 * block]);
        (data, m) = (&data[4 * pitch..], &mut m[4 * block..]);
    }
}

#[inline(always)]
fn rows_of_product<S: Simd, const N: usize>(
    simd: S,
    data: &[f32],
    pitch: usize,
    channels: usize,
    weight: &[f32],
    m: &mut [f32],
) {
    let rows: [&[f32]; N] = std::array::from_fn(|n| &data[n * pitch..][..channels]);
    let (weight, _) = S::as_simd_f32s(weight);
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
    for (c, weight) in (0..channels).zip(weight.as_chunks::<VECTORS>().0) {
        each_channel!(N, |n| {
            let x = simd.splat_f32s(rows[n][c]);
            sums[n][0] = simd.mul_add_e_f32s(x, weight[0], sums[n][0]);
            sums[n][1] = simd.mul_add_e_f32s(x, weight[1], sums[n][1]);
        });
    }
    let (m, _) = S::as_mut_simd_f32s(m);
    let (m, _) = m.as_chunks_mut::<VECTORS>();
    each_channel!(N, |n| m[n] = sums[n]);
}

/// 36 matrices [tiles, width], one for each place in the 6 x 6.
struct Places {
    numbers: Scratch,
    width: usize,
    /// Numbers of one matrix, and from one to the next: not a power of two, which would crowd one corner of a cache.
    len: usize,
    pitch: usize,
}

impl Places {
    fn new(tiles: usize, width: usize) -> Places {
        let len = tiles * width;
        let pitch = len.next_multiple_of(16) + 16;
        Places { numbers: Scratch::take(PLACES * pitch), width, len, pitch }
    }

    fn place(&self, place: usize) -> &[f32] {
        &self.numbers[place * self.pitch..][..self.len]
    }

    fn place_mut(&mut self, place: usize) -> &mut [f32] {
        &mut self.numbers[place * self.pitch..][..self.len]
    }

    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, tile: usize, from: usize) -> [[S::f32s; IN]; IN] {
        let mut values = [[simd.splat_f32s(0.0); IN]; IN];
        let start = &self.numbers[tile * self.width + from..];
        for place in 0..PLACES {
            values[place / IN][place % IN] = load::<S>(&start[place * self.pitch..]);
        }
        values
    }

    #[inline(always)]
    fn store<S: Simd>(&mut self, tile: usize, to: usize, values: [[S::f32s; IN]; IN]) {
        let start = &mut self.numbers[tile * self.width + to..];
        for place in 0..PLACES {
            store::<S>(&mut start[place * self.pitch..], values[place / IN][place % IN]);
        }
    }
}

/// The first vector of a slice.
#[inline(always)]
fn load<S: Simd>(from: &[f32]) -> S::f32s {
    S::as_simd_f32s(&from[..S::F32_LANES]).0[0]
}

#[inline(always)]
fn store<S: Simd>(to: &mut [f32], value: S::f32s) {
    S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = value;
}

/// Numbers of unspecified value that start where a line of the cache does: a vector that straddles two lines costs
/// twice. The memory is kept by the thread that drops it, for its next use.
struct Scratch {
    numbers: Vec<f32>,
    start: usize,
    len: usize,
}

/// Bytes.
const CACHE_LINE: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(vec![]) };
}

impl Scratch {
    fn take(len: usize) -> Scratch {
        let needed = len + CACHE_LINE / size_of::<f32>();
        let spare = SPARE.with_borrow_mut(|spare| {
            let fits = spare.iter().enumerate().filter(|(_, numbers)| numbers.len() >= needed);
            let best = fits.min_by_key(|(_, numbers)| numbers.len()).map(|(i, _)| i);
            best.map(|i| spare.swap_remove(i))
        });
        let numbers = spare.unwrap_or_else(|| vec![0.0; needed]);
        let start = numbers.as_ptr().align_offset(CACHE_LINE).min(needed - len);
        Scratch { numbers, start, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SPARE.with_borrow_mut(|spare| spare.push(std::mem::take(&mut self.numbers)));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.start..self.start + self.len]
    }
}
