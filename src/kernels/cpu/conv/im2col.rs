//! Patches of images as the columns of a matrix, and back.
//!
//! A convolution is a matrix product once every patch of the input that a weight meets is a column: [C kh kw, N] for
//! the N outputs of a tile. The matrix is kh kw times larger than the input, so it is made tile by tile and never kept.

use super::Geometry;
use crate::array::Element;
use std::ops::Range;

/// The outputs computed together: whole images, or some rows of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Images of the batch.
    pub images: Range<usize>,
    /// Rows of the output.
    pub rows: Range<usize>,
}

/// Columns that keep the matrix product busy: fewer, and its edges dominate.
const ENOUGH: usize = 400;

/// Columns past which the matrix leaves the cache.
const TOO_MANY: usize = 1024;

impl Tile {
    /// Cuts the outputs of `images` into tiles of about equal size. Depends on sizes alone, never on threads.
    pub(super) fn cut(geometry: &Geometry, images: Range<usize>) -> Vec<Tile> {
        let [rows, cols] = geometry.out;
        let plane = rows * cols;
        if plane == 0 {
            return vec![];
        }
        if plane < ENOUGH {
            let parts = images.len().div_ceil(ENOUGH.div_ceil(plane));
            return split(images, parts).map(|images| Tile { images, rows: 0..rows }).collect();
        }
        let parts = plane.div_ceil(TOO_MANY).min(rows);
        let cut = |image| split(0..rows, parts).map(move |rows| Tile { images: image..image + 1, rows });
        images.flat_map(cut).collect()
    }

    /// How many outputs: columns of the matrix.
    pub(super) fn columns(&self, geometry: &Geometry) -> usize {
        self.images.len() * self.rows.len() * geometry.out[1]
    }
}

/// `range` in `parts` pieces whose lengths differ by at most one.
pub(super) fn split(range: Range<usize>, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let at = move |i: usize| range.start + i * range.len() / parts;
    (0..parts).map(move |i| at(i)..at(i + 1))
}

// ANCHOR: im2col
/// Fills `col` [C kh kw, N] with the patches that the outputs of `tile` meet; x [B, C, H, W]. Padding
/// becomes zeros.
pub(super) fn im2col<T: Element>(x: &[T], geometry: &Geometry, tile: &Tile, col: &mut [T]) {
    let per_image = tile.rows.len() * geometry.out[1];
    let taps = geometry.kernel[0] * geometry.kernel[1];
    for (row, col) in col.chunks_exact_mut(tile.columns(geometry)).enumerate() {
        let (channel, tap) = (row / taps, row % taps);
        let (ky, kx) = (tap / geometry.kernel[1], tap % geometry.kernel[1]);
        for (image, col) in tile.images.clone().zip(col.chunks_exact_mut(per_image)) {
            let plane = geometry.plane(x, image, channel);
            if geometry.keeps_width() {
                shifted_rows(plane, geometry, tile, ky, kx, col);
            } else {
                strided_rows(plane, geometry, tile, ky, kx, col);
            }
        }
    }
}
// ANCHOR_END: im2col

/// One row of the matrix where output and input are equally wide and the stride is 1: the plane itself, moved, so a
/// single copy does; what it carries over from one end of a row to the next is then set to zero.
fn shifted_rows<T: Element>(plane: &[T], geometry: &Geometry, tile: &Tile, ky: usize, kx: usize, col: &mut [T]) {
    let width = geometry.size[1];
    let [pad_y, pad_x] = geometry.padding;
    let (inside, columns) = (geometry.inside(0, ky), geometry.inside(1, kx));
    let rows = tile.rows.start.max(inside.start)..tile.rows.end.min(inside.end);
    // a kernel may reach beyond the whole image
    if rows.is_empty() || columns.is_empty() {
        col.fill(T::zero());
        return;
    }
    let (first, last) = ((rows.start - tile.rows.start) * width, (rows.end - tile.rows.start) * width);
    col[..first].fill(T::zero());
    col[last..].fill(T::zero());
    // Position of the first number in the plane: (rows.start + ky - pad_y) width + kx - pad_x, which may be before it.
    let start = ((rows.start + ky - pad_y) * width + kx) as isize - pad_x as isize;
    let missing = start.min(0).unsigned_abs();
    let from = start.max(0) as usize;
    let count = (last - first - missing).min(plane.len() - from);
    col[first + missing..first + missing + count].copy_from_slice(&plane[from..from + count]);
    for edge in [0..columns.start, columns.end..width] {
        for x in edge {
            col[first..last].iter_mut().skip(x).step_by(width).for_each(|v| *v = T::zero());
        }
    }
}

/// One row of the matrix in general, row of the output by row.
fn strided_rows<T: Element>(plane: &[T], geometry: &Geometry, tile: &Tile, ky: usize, kx: usize, col: &mut [T]) {
    let (stride, [pad_y, pad_x]) = (geometry.stride, geometry.padding);
    let (rows, columns) = (geometry.inside(0, ky), geometry.inside(1, kx));
    for (y, col) in tile.rows.clone().zip(col.chunks_exact_mut(geometry.out[1])) {
        if !rows.contains(&y) || columns.is_empty() {
            col.fill(T::zero());
            continue;
        }
        col[..columns.start].fill(T::zero());
        col[columns.end..].fill(T::zero());
        let start = (y * stride + ky - pad_y) * geometry.size[1] + columns.start * stride + kx - pad_x;
        let col = &mut col[columns.clone()];
        if stride == 1 {
            col.copy_from_slice(&plane[start..start + col.len()]);
        } else {
            col.iter_mut().zip(plane[start..].iter().step_by(stride)).for_each(|(c, &v)| *c = v);
        }
    }
}

// ANCHOR: col2im
/// Adds every column of `col` [C kh kw, N] to the patch of x it stands for: the adjoint of [`im2col`].
/// `x` holds the images of `tile` alone, [images, C, H, W].
pub(super) fn col2im<T: Element>(col: &[T], geometry: &Geometry, tile: &Tile, x: &mut [T]) {
    let (stride, [pad_y, pad_x]) = (geometry.stride, geometry.padding);
    let per_image = tile.rows.len() * geometry.out[1];
    let taps = geometry.kernel[0] * geometry.kernel[1];
    for (row, col) in col.chunks_exact(tile.columns(geometry)).enumerate() {
        let (channel, tap) = (row / taps, row % taps);
        let (ky, kx) = (tap / geometry.kernel[1], tap % geometry.kernel[1]);
        let (rows, columns) = (geometry.inside(0, ky), geometry.inside(1, kx));
        for (image, col) in col.chunks_exact(per_image).enumerate() {
            let plane = geometry.plane_mut(x, image, channel);
            for (y, col) in tile.rows.clone().zip(col.chunks_exact(geometry.out[1])) {
                if !rows.contains(&y) || columns.is_empty() {
                    continue;
                }
                let first = columns.start * stride + kx - pad_x;
                let start = (y * stride + ky - pad_y) * geometry.size[1] + first;
                let (col, plane) = (&col[columns.clone()], &mut plane[start..]);
                if stride == 1 {
                    plane.iter_mut().zip(col).for_each(|(v, &c)| *v += c);
                } else {
                    plane.iter_mut().step_by(stride).zip(col).for_each(|(v, &c)| *v += c);
                }
            }
        }
    }
}
// ANCHOR_END: col2im

/// Fills `rows` [N, kh kw C] with the same patches as [`im2col`], each a row whose channels are neighbours: with every
/// image turned into [H, W, C] first (in `turned`), kw C numbers of a patch are one copy.
pub(super) fn im2row<T: Element>(x: &[T], geometry: &Geometry, tile: &Tile, turned: &mut [T], rows: &mut [T]) {
    let (channels, [_, kw]) = (geometry.channels, geometry.kernel);
    let wide = geometry.size[1] + 2 * geometry.padding[1];
    let segment = kw * channels;
    let mut patches = rows.chunks_exact_mut(geometry.patch());
    for image in tile.images.clone() {
        turn(x, geometry, tile, image, turned);
        for y in 0..tile.rows.len() {
            for x in 0..geometry.out[1] {
                let Some(patch) = patches.next() else { return };
                for (ky, patch) in patch.chunks_exact_mut(segment).enumerate() {
                    let start = ((y * geometry.stride + ky) * wide + x * geometry.stride) * channels;
                    patch.copy_from_slice(&turned[start..start + segment]);
                }
            }
        }
    }
}

/// Numbers that [`im2row`] needs for one image with channels innermost: the rows that `tile` reads, with their padding.
pub(super) fn turned_len(geometry: &Geometry, tile: &Tile) -> usize {
    let rows = (tile.rows.len() - 1) * geometry.stride + geometry.kernel[0];
    rows * (geometry.size[1] + 2 * geometry.padding[1]) * geometry.channels
}

/// One image, or what `tile` reads of it, as [H, W, C] with its padding.
fn turn<T: Element>(x: &[T], geometry: &Geometry, tile: &Tile, image: usize, turned: &mut [T]) {
    let (channels, [height, width], [pad_y, pad_x]) = (geometry.channels, geometry.size, geometry.padding);
    let row_len = (width + 2 * pad_x) * channels;
    let first = tile.rows.start * geometry.stride;
    for (row, turned) in turned.chunks_exact_mut(row_len).enumerate() {
        let inside = (first + row).checked_sub(pad_y).filter(|&y| y < height);
        let Some(y) = inside else {
            turned.fill(T::zero());
            continue;
        };
        let (left, right) = (pad_x * channels, (pad_x + width) * channels);
        turned[..left].fill(T::zero());
        turned[right..].fill(T::zero());
        let turned = &mut turned[left..right];
        for channel in 0..channels {
            let row = &geometry.plane(x, image, channel)[y * width..][..width];
            turned[channel..].iter_mut().step_by(channels).zip(row).for_each(|(t, &v)| *t = v);
        }
    }
}
