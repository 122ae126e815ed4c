//! Products with a small right factor, in f32: attention's, and the linear layers'.
//!
//! The right factor is copied once into panels as wide as a block of vectors, transposed on the way if need be; the left
//! one and the result are used where they lie. (A general matrix product copies parts of both, again and again.)

use super::Plan;
use crate::array::Buffer;
use crate::kernels::cpu::conv::turn_in;
use crate::kernels::cpu::product::{self, Rows, RowsMut};
use crate::kernels::cpu::scratch::Scratch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Vectors in a row of a panel.
const VECTORS: usize = 2;

/// Numbers of the right factor that stay in the second cache.
const MOST: usize = 1 << 18;

/// Whether this way pays. It must not depend on how many rows or products there are: a row's result would depend on what
/// else is in the batch.
pub(super) fn suits(plan: &Plan) -> bool {
    plan.m >= 16 && plan.k > 0 && plan.k * plan.m <= MOST
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
    if let [(a_start, b_start)] = plan.starts[..] {
        let panels = arch.dispatch(Panels { b: &b[b_start..], plan });
        let rows = super::ROWS_PER_TASK.max(super::SMALLEST_TASK / (m * k));
        result.par_chunks_mut(rows * m).enumerate().for_each(|(i, result)| {
            arch.dispatch(Product { a: &a[a_start..], first: i * rows, panels: &panels, plan, result });
        });
        return result;
    }
    let at_once = (super::SMALLEST_TASK / (n * m * k)).max(1);
    result.par_chunks_mut(n * m).zip(&plan.starts).with_min_len(at_once).for_each(|(result, &(a_start, b_start))| {
        let panels = arch.dispatch(Panels { b: &b[b_start..], plan });
        arch.dispatch(Product { a: &a[a_start..], first: 0, panels: &panels, plan, result });
    });
    result
}

/// The right factor [k, m] as [panels, k, panel], with zeros after the last column.
struct Panels<'a> {
    b: &'a [f32],
    plan: &'a Plan,
}

impl WithSimd for Panels<'_> {
    type Output = Scratch;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Scratch {
        let &Plan { k, m, tb, .. } = self.plan;
        let width = VECTORS * S::F32_LANES;
        let mut panels = Scratch::take(m.div_ceil(width) * k * width);
        let places: Vec<usize> = (0..k).map(|i| i * width).collect();
        for (i, panel) in panels.chunks_exact_mut(k * width).enumerate() {
            let first = i * width;
            let count = width.min(m - first);
            if count < width {
                panel.fill(0.0);
            }
            if tb {
                turn_in(&self.b[first * k..][..count * k], k, 0, &places, panel);
            } else {
                for (row, b) in panel.chunks_exact_mut(width).zip(self.b.chunks_exact(m)) {
                    row[..count].copy_from_slice(&b[first..first + count]);
                }
            }
        }
        panels
    }
}

/// Rows of one product, from row `first` on.
struct Product<'a> {
    a: &'a [f32],
    first: usize,
    panels: &'a [f32],
    plan: &'a Plan,
    result: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let &Plan { n, k, m, ta, .. } = self.plan;
        let width = VECTORS * S::F32_LANES;
        let rows = self.result.len() / m;
        let mut last = Scratch::take(rows * width);
        for (i, panel) in self.panels.chunks_exact(k * width).enumerate() {
            let panel = Rows { data: panel, pitch: width };
            let whole = (i + 1) * width <= m;
            let to = if whole {
                RowsMut { data: &mut self.result[i * width..], pitch: m }
            } else {
                RowsMut { data: &mut last, pitch: width }
            };
            if ta {
                let a = Rows { data: &self.a[self.first..], pitch: n };
                product::multiply_transposed::<S, VECTORS>(simd, [rows, k], a, panel, to, false);
            } else {
                let a = Rows { data: &self.a[self.first * k..], pitch: k };
                product::multiply::<S, VECTORS>(simd, [rows, k], a, panel, to, false);
            }
            if !whole {
                for (result, last) in self.result.chunks_exact_mut(m).zip(last.chunks_exact(width)) {
                    result[i * width..].copy_from_slice(&last[..m - i * width]);
                }
            }
        }
    }
}
