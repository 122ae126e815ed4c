//! Between images and the 36 matrices: pixels with channels innermost, and the transforms of their tiles.

use super::points::{IN, OUT, Points};
use super::{PLACES, Piece, Tiling, VECTORS};
use crate::kernels::cpu::conv::turn::turn_in;
use crate::kernels::cpu::product::{Rows, RowsMut};
use crate::kernels::cpu::scratch::Scratch;
use pulp::Simd;
use std::ops::Range;

/// The pixels of a piece of one image for one block of channels, channels innermost, in whole tiles: with zeros where
/// they reach beyond the image, by `margin` more pixels on each side.
pub(super) struct Board {
    pub(super) numbers: Scratch,
    images: Range<usize>,
    /// Pixels of an image, and the first of them that is here.
    plane: usize,
    first: usize,
    /// Where in `numbers` the pixels from `first` on are.
    pub(super) places: Vec<usize>,
    /// From one row of pixels to the next.
    pitch: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Board {
    pub(super) fn new(tiling: &Tiling, piece: &Piece, margin: usize, block: usize) -> Board {
        let [height, width] = tiling.geometry.size;
        let pitch = (tiling.cols * OUT + 2 * margin) * block;
        let top = piece.rows.start * OUT;
        let ys = top.saturating_sub(margin)..(piece.rows.end * OUT + margin).min(height);
        let place = |y: usize, x: usize| (y + margin - top) * pitch + (x + margin) * block;
        let places = ys.clone().flat_map(|y| (0..width).map(move |x| place(y, x))).collect();
        let mut numbers = Scratch::take((piece.rows.len() * OUT + 2 * margin) * pitch);
        numbers.fill(0.0);
        Board {
            numbers,
            images: piece.images.clone(),
            plane: height * width,
            first: ys.start * width,
            places,
            pitch,
            rows: piece.rows.len(),
            cols: tiling.cols,
        }
    }

    /// The vectors `v` of N pixels in line `i` of a tile.
    #[inline(always)]
    pub(super) fn line<S: Simd, const N: usize>(&self, row: usize, col: usize, i: usize, v: usize) -> &[f32] {
        let block = VECTORS * S::F32_LANES;
        let start = (row * OUT + i) * self.pitch + col * OUT * block + v * S::F32_LANES;
        &self.numbers[start..][..(N - 1) * block + S::F32_LANES]
    }

    #[inline(always)]
    pub(super) fn line_mut<S: Simd, const N: usize>(
        &mut self,
        row: usize,
        col: usize,
        i: usize,
        v: usize,
    ) -> &mut [f32] {
        let block = VECTORS * S::F32_LANES;
        let start = (row * OUT + i) * self.pitch + col * OUT * block + v * S::F32_LANES;
        &mut self.numbers[start..][..(N - 1) * block + S::F32_LANES]
    }

    /// Reads the block of channels from `channel` on, of `channels`, of one image of x.
    #[inline(always)]
    pub(super) fn read<S: Simd>(&mut self, x: &[f32], image: usize, channels: usize, channel: usize) {
        let count = (VECTORS * S::F32_LANES).min(channels - channel);
        let x = &x[(image * channels + channel) * self.plane..][..count * self.plane];
        turn_in(x, self.plane, self.first, &self.places, &mut self.numbers);
    }

    /// B' d B of the 6 x 6 inputs that each tile meets, for a block of channels; written from number `to` of rows on.
    #[inline(always)]
    pub(super) fn transform_inputs<S: Simd>(
        &mut self,
        simd: S,
        x: &[f32],
        channels: usize,
        channel: usize,
        data: &mut Places,
        to: usize,
    ) {
        let (lanes, points) = (S::F32_LANES, Points(simd));
        let mut tile = 0;
        for image in self.images.clone() {
            self.read::<S>(x, image, channels, channel);
            for row in 0..self.rows {
                for col in 0..self.cols {
                    for v in 0..VECTORS {
                        let mut d = [[simd.splat_f32s(0.0); IN]; IN];
                        for i in 0..IN {
                            let from = self.line::<S, IN>(row, col, i, v);
                            for j in 0..IN {
                                d[i][j] = load::<S>(&from[j * VECTORS * lanes..]);
                            }
                        }
                        data.store::<S>(tile, to + v * lanes, points.data(d));
                    }
                    tile += 1;
                }
            }
        }
    }

    /// A g A' of the 4 x 4 numbers of each tile, for the block of channels from `channel` on.
    #[inline(always)]
    pub(super) fn transform_outputs<S: Simd>(
        &mut self,
        simd: S,
        g: &[f32],
        channels: usize,
        channel: usize,
        grad: &mut Places,
    ) {
        let (lanes, points) = (S::F32_LANES, Points(simd));
        let mut tile = 0;
        for image in self.images.clone() {
            self.read::<S>(g, image, channels, channel);
            for row in 0..self.rows {
                for col in 0..self.cols {
                    for v in 0..VECTORS {
                        let mut g = [[simd.splat_f32s(0.0); OUT]; OUT];
                        for i in 0..OUT {
                            let from = self.line::<S, OUT>(row, col, i, v);
                            for j in 0..OUT {
                                g[i][j] = load::<S>(&from[j * VECTORS * lanes..]);
                            }
                        }
                        grad.store::<S>(tile, channel + v * lanes, points.outputs_adjoint(g));
                    }
                    tile += 1;
                }
            }
        }
    }
}

/// 36 matrices [tiles, width], one for each place in the 6 x 6.
pub(super) struct Places {
    numbers: Scratch,
    width: usize,
    /// Numbers of one matrix, and from one to the next: not a power of two, which would crowd one corner of a cache.
    len: usize,
    pitch: usize,
}

impl Places {
    pub(super) fn new(tiles: usize, width: usize) -> Places {
        let len = tiles * width;
        let pitch = len.next_multiple_of(16) + 16;
        Places { numbers: Scratch::take(PLACES * pitch), width, len, pitch }
    }

    pub(super) fn place(&self, place: usize) -> Rows<'_> {
        Rows { data: &self.numbers[place * self.pitch..][..self.len], pitch: self.width }
    }

    pub(super) fn place_mut(&mut self, place: usize) -> RowsMut<'_> {
        RowsMut { data: &mut self.numbers[place * self.pitch..][..self.len], pitch: self.width }
    }

    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, simd: S, tile: usize, from: usize) -> [[S::f32s; IN]; IN] {
        let mut values = [[simd.splat_f32s(0.0); IN]; IN];
        let start = &self.numbers[tile * self.width + from..];
        for place in 0..PLACES {
            values[place / IN][place % IN] = load::<S>(&start[place * self.pitch..]);
        }
        values
    }

    #[inline(always)]
    pub(super) fn store<S: Simd>(&mut self, tile: usize, to: usize, values: [[S::f32s; IN]; IN]) {
        let start = &mut self.numbers[tile * self.width + to..];
        for place in 0..PLACES {
            store::<S>(&mut start[place * self.pitch..], values[place / IN][place % IN]);
        }
    }
}

/// The first vector of a slice.
#[inline(always)]
pub(super) fn load<S: Simd>(from: &[f32]) -> S::f32s {
    S::as_simd_f32s(&from[..S::F32_LANES]).0[0]
}

#[inline(always)]
pub(super) fn store<S: Simd>(to: &mut [f32], value: S::f32s) {
    S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = value;
}
