//! Products in f32: attention's, and the linear layers'.
//!
//! The right factor is copied into panels as wide as a block of vectors, transposed on the way if need be; the left one and
//! the result are used where they lie. A factor that does not fit into the second cache is gone through in blocks that do, one
//! after the other, and all rows are multiplied by a block while it is there.

use super::Plan;
use crate::array::Buffer;
use crate::kernels::cpu::conv::turn_in;
use crate::kernels::cpu::product::{self, Rows, RowsMut};
use crate::kernels::cpu::scratch::Scratch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Vectors in a row of a panel.
const VECTORS: usize = 2;

/// Numbers of the right factor that are taken whole.
const MOST: usize = 1 << 18;

/// Rows and columns of a block of a larger one: half a megabyte.
const BLOCK: [usize; 2] = [512, 256];

/// Numbers of a block that a thread copies at least, if several do.
const SHARED: usize = 1 << 15;

/// A longer sum in one go would lose more by rounding than the general product, which adds up parts.
const LONGEST: usize = 1 << 13;

/// Whether this way pays. It must not depend on how many rows or products there are: a row's result would depend on what
/// else is in the batch.
pub(super) fn suits(plan: &Plan) -> bool {
    plan.m >= 16 && (1..=LONGEST).contains(&plan.k)
}

pub(super) fn run(a: &[f32], b: &[f32], plan: &Plan) -> Buffer<f32> {
    run_on(pulp::Arch::new(), a, b, plan)
}

/// [`run`] with given vector instructions.
pub(super) fn run_on(arch: pulp::Arch, a: &[f32], b: &[f32], plan: &Plan) -> Buffer<f32> {
    let &Plan { n, k, m, .. } = plan;
    let mut result = Buffer::scratch(plan.starts.len() * n * m);
    if result.is_empty() {
        return result;
    }
    let whole = Block { inner: 0..k, columns: 0..m };
    let rows = super::ROWS_PER_TASK.max(super::SMALLEST_TASK / (m * k));
    if k * m > MOST || plan.starts.len() == 1 {
        let blocks = if k * m > MOST { blocks(k, m) } else { vec![whole] };
        for (result, &(a_start, b_start)) in result.chunks_mut(n * m).zip(&plan.starts) {
            for block in &blocks {
                let panels = panels(arch, &b[b_start..], plan, block, SHARED);
                result.par_chunks_mut(rows * m).enumerate().for_each(|(i, result)| {
                    let (a, panels) = (&a[a_start..], &panels);
                    arch.dispatch(Product { a, first: i * rows, panels, plan, block, result });
                });
            }
        }
        return result;
    }
    let at_once = (super::SMALLEST_TASK / (n * m * k)).max(1);
    result.par_chunks_mut(n * m).zip(&plan.starts).with_min_len(at_once).for_each(|(result, &(a_start, b_start))| {
        let panels = panels(arch, &b[b_start..], plan, &whole, usize::MAX);
        arch.dispatch(Product { a: &a[a_start..], first: 0, panels: &panels, plan, block: &whole, result });
    });
    result
}

/// A part of the right factor.
struct Block {
    /// Its rows.
    inner: Range<usize>,
    columns: Range<usize>,
}

/// A right factor [k, m] in blocks, those of the same columns from the first row to the last: each number of the result is the
/// same sum in the same order as without blocks.
fn blocks(k: usize, m: usize) -> Vec<Block> {
    let [rows, columns] = BLOCK;
    let inner = (0..k).step_by(rows).map(|i| i..k.min(i + rows));
    let columns = (0..m).step_by(columns).map(|j| j..m.min(j + columns));
    columns.flat_map(|columns| inner.clone().map(move |inner| Block { inner, columns: columns.clone() })).collect()
}

/// A block of the right factor as [panels, inner, panel], with zeros after the last column; `at_once` numbers or more by one
/// thread.
fn panels(arch: pulp::Arch, b: &[f32], plan: &Plan, block: &Block, at_once: usize) -> Scratch {
    let width = arch.dispatch(Width);
    let size = block.inner.len() * width;
    let mut panels = Scratch::take(block.columns.len().div_ceil(width) * size);
    let tasks = panels.par_chunks_exact_mut(size).enumerate().with_min_len(at_once.div_ceil(size));
    tasks.for_each(|(i, panel)| {
        let first = block.columns.start + i * width;
        let columns = first..block.columns.end.min(first + width);
        arch.dispatch(Panel { b, plan, inner: &block.inner, columns, panel });
    });
    panels
}

/// Numbers in a row of a panel.
struct Width;

impl WithSimd for Width {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        VECTORS * S::F32_LANES
    }
}

/// One panel to fill.
struct Panel<'a> {
    b: &'a [f32],
    plan: &'a Plan,
    inner: &'a Range<usize>,
    columns: Range<usize>,
    panel: &'a mut [f32],
}

impl WithSimd for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let &Plan { k, m, tb, .. } = self.plan;
        let Panel { b, inner, columns, panel, .. } = self;
        let (width, first, count) = (VECTORS * S::F32_LANES, columns.start, columns.len());
        if count < width {
            panel.fill(0.0);
        }
        if tb {
            let places: Vec<usize> = (0..inner.len()).map(|i| i * width).collect();
            turn_in(&b[first * k..][..count * k], k, inner.start, &places, panel);
        } else {
            let rows = b[inner.start * m..].chunks_exact(m);
            for (row, b) in panel.chunks_exact_mut(width).zip(rows) {
                row[..count].copy_from_slice(&b[first..first + count]);
            }
        }
    }
}

/// Rows of one product with a block, from row `first` on; added to what is there if the block is not at the top.
struct Product<'a> {
    a: &'a [f32],
    first: usize,
    panels: &'a [f32],
    plan: &'a Plan,
    block: &'a Block,
    result: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let &Plan { n, k, m, ta, .. } = self.plan;
        let Block { inner, columns } = self.block;
        let width = VECTORS * S::F32_LANES;
        let (rows, more) = (self.result.len() / m, inner.start > 0);
        let mut last = Scratch::take(rows * width);
        for (i, panel) in self.panels.chunks_exact(inner.len() * width).enumerate() {
            let panel = Rows { data: panel, pitch: width };
            let first = columns.start + i * width;
            let count = width.min(columns.end - first);
            if count < width && more {
                for (result, last) in self.result.chunks_exact(m).zip(last.chunks_exact_mut(width)) {
                    last[..count].copy_from_slice(&result[first..first + count]);
                }
            }
            let to = if count == width {
                RowsMut { data: &mut self.result[first..], pitch: m }
            } else {
                RowsMut { data: &mut last, pitch: width }
            };
            let size = [rows, inner.len()];
            if ta {
                let a = Rows { data: &self.a[inner.start * n + self.first..], pitch: n };
                product::multiply_transposed::<S, VECTORS>(simd, size, a, panel, to, more);
            } else {
                let a = Rows { data: &self.a[self.first * k + inner.start..], pitch: k };
                product::multiply::<S, VECTORS>(simd, size, a, panel, to, more);
            }
            if count < width {
                for (result, last) in self.result.chunks_exact_mut(m).zip(last.chunks_exact(width)) {
                    result[first..first + count].copy_from_slice(&last[..count]);
                }
            }
        }
    }
}
