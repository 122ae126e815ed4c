//! Batched matrix products, on a ladder: by definition, by tiles in shared memory, and with blocks in registers.

use super::context::Context;
use super::gemm::{Plan, Product};
use super::groups;
use super::map::fill;
use super::numbers::{Word, numbers, words};
use super::reduce::reduce;
use super::shader::Shader;
use crate::array::{Array, Shape};
use crate::kernels::Reduce;
use std::sync::Arc;

/// Leading axes that a kernel can tell apart, after joining.
const MOST_LEAD: usize = 4;

/// One batched product, in strides.
struct Call<'a> {
    a: &'a Array,
    b: &'a Array,
    product: Product,
    /// Numbers between rows and between columns.
    a_strides: [usize; 2],
    b_strides: [usize; 2],
    lead: [[usize; MOST_LEAD]; 3],
    shape: Shape,
}

impl<'a> Call<'a> {
    #[track_caller]
    fn new(a: &'a Array, b: &'a Array, transpose_a: bool, transpose_b: bool) -> Call<'a> {
        let ((a_lead, a_matrix), (b_lead, b_matrix)) = (split(a.shape()), split(b.shape()));
        let oriented = |[rows, columns]: [usize; 2], transposed: bool| match transposed {
            false => ([rows, columns], [columns, 1]),
            true => ([columns, rows], [1, columns]),
        };
        let ([m, k], a_strides) = oriented(a_matrix, transpose_a);
        let ([_, n], b_strides) = oriented(b_matrix, transpose_b);
        let lead = Shape::from(a_lead).broadcast(&b_lead.into()).expect("the caller has compared the shapes");
        let shape = Shape::from([&lead[..], &[m, n]].concat());
        let batches = lead.numel();
        // Many matrices times one is one long matrix times one.
        if !transpose_a && b_lead.iter().all(|&size| size == 1) {
            let product = Product { m: batches * m, n, k, batches: 1 };
            let lead = [[1; MOST_LEAD], [0; MOST_LEAD], [0; MOST_LEAD]];
            return Call { a, b, product, a_strides, b_strides, lead, shape };
        }
        let steps = |from: &[usize], size: usize| {
            crate::kernels::axes::repeated(from, &lead).into_iter().map(|stride| stride * size).collect::<Vec<_>>()
        };
        let axes = super::axes::Axes::new(&lead, [steps(a_lead, m * k), steps(b_lead, k * n)]);
        assert!(axes.rank() <= MOST_LEAD, "matmul: the GPU takes at most {MOST_LEAD} leading axes, {lead} has more");
        let four = |numbers: &[usize], fill| std::array::from_fn(|i| numbers.get(i).copied().unwrap_or(fill));
        let lead = [four(&axes.sizes, 1), four(&axes.strides[0], 0), four(&axes.strides[1], 0)];
        Call { a, b, product: Product { m, n, k, batches }, a_strides, b_strides, lead, shape }
    }

    fn parameters(&self, [tiles_m, tiles_n, splits, split_k]: [usize; 4]) -> Vec<Word> {
        let Product { m, n, k, batches } = self.product;
        let ([a_row, a_column], [b_row, b_column]) = (self.a_strides, self.b_strides);
        let mut parameters =
            words![m, n, k, batches, a_row, a_column, b_row, b_column, tiles_m, tiles_n, splits, split_k].to_vec();
        parameters.extend(self.lead.iter().flatten().map(|&number| Word::from(number)));
        parameters
    }

    /// Whether there is nothing to add up; the result is zeros then.
    fn is_empty(&self) -> bool {
        self.product.k == 0 || self.shape.numel() == 0
    }
}

/// (leading axes, [rows, columns])
fn split(shape: &Shape) -> (&[usize], [usize; 2]) {
    let (lead, &matrix) = shape.split_last_chunk().expect("a matrix has two axes");
    (lead, matrix)
}

pub(super) fn matmul(gpu: &Arc<Context>, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
    let call = Call::new(a, b, transpose_a, transpose_b);
    let plan = Plan::of(call.product);
    fast(gpu, call, plan)
}

fn fast(gpu: &Arc<Context>, call: Call<'_>, plan: Plan) -> Array {
    if call.is_empty() {
        return fill(gpu, &call.shape, 0.0);
    }
    let Plan { tiles_m, tiles_n, splits, split_k, .. } = plan;
    let along_k = [call.a_strides[1] == 1, call.b_strides[0] == 1];
    let parts = gpu.array([splits, call.shape.numel()], "matmul");
    let parameters = call.parameters([tiles_m, tiles_n, splits, split_k]);
    let shader = plan.shader("matmul", along_k).with_half(numbers(call.b).half);
    gpu.expect(call.product.operations());
    gpu.run(shader, &parameters, &[&gpu.widened(call.a), call.b, &parts], plan.groups);
    summed(gpu, parts).reshape(call.shape)
}

/// Parts [splits, ..] summed.
pub(super) fn summed(gpu: &Arc<Context>, parts: Array) -> Array {
    if parts.shape()[0] == 1 { parts } else { reduce(gpu, Reduce::Sum, &parts, 0..1) }
}

/// The definition.
pub(super) fn plain(gpu: &Arc<Context>, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
    let call = Call::new(a, b, transpose_a, transpose_b);
    let y = gpu.array(&call.shape, "matmul");
    if call.is_empty() {
        return fill(gpu, &call.shape, 0.0);
    }
    gpu.run(Shader::new("matmul_plain", "matmul_plain"), &call.parameters([0; 4]), &[a, b, &y], groups(y.numel()));
    y
}

/// With tiles in shared memory.
pub(super) fn tiled(gpu: &Arc<Context>, a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
    const TILE: usize = 16;
    let call = Call::new(a, b, transpose_a, transpose_b);
    if call.is_empty() {
        return fill(gpu, &call.shape, 0.0);
    }
    let (tiles_m, tiles_n) = (call.product.m.div_ceil(TILE), call.product.n.div_ceil(TILE));
    let y = gpu.array(&call.shape, "matmul");
    let parameters = call.parameters([tiles_m, tiles_n, 1, 0]);
    let shader = Shader::new("matmul_tiled", "matmul_tiled");
    gpu.run(shader, &parameters, &[a, b, &y], tiles_m * tiles_n * call.product.batches);
    y
}

#[cfg(test)]
mod tests {
    use super::super::gemm::{Plan, TILES};
    use super::super::testing::{assert_within, gpu, random};
    use super::*;
    use crate::kernels::{Kernels, cpu::Cpu};

    /// Sizes that fill no tile, and some that do.
    const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [3, 5, 7], [33, 17, 65], [70, 131, 40], [64, 64, 32], [129, 20, 130]];

    #[test]
    fn every_rung_of_the_ladder_computes_the_same_product() {
        let Some(gpu) = gpu() else { return };
        for [m, n, k] in SIZES {
            for flags in [[false, false], [false, true], [true, false], [true, true]] {
                let shape =
                    |rows, columns, transposed| if transposed { [3, columns, rows] } else { [3, rows, columns] };
                let (a, b) = (random(shape(m, k, flags[0]), 1), random(shape(k, n, flags[1]), 2));
                let expected = Cpu.matmul(&a, &b, flags[0], flags[1]);
                let (x, y) = (gpu.to(&a), gpu.to(&b));
                for result in [
                    plain(&gpu.context, &x, &y, flags[0], flags[1]),
                    tiled(&gpu.context, &x, &y, flags[0], flags[1]),
                    matmul(&gpu.context, &x, &y, flags[0], flags[1]),
                ] {
                    assert_within(&result, &expected, k);
                }
            }
        }
    }

    #[test]
    fn every_tile_size_and_every_cut_of_k_computes_the_same_product() {
        let Some(gpu) = gpu() else { return };
        for [m, n, k] in [[70, 131, 40], [129, 150, 33], [5, 9, 1100]] {
            for flags in [[false, false], [true, true]] {
                let shape = |rows, columns, transposed| if transposed { [columns, rows] } else { [rows, columns] };
                let (a, b) = (random(shape(m, k, flags[0]), 3), random(shape(k, n, flags[1]), 4));
                let expected = Cpu.matmul(&a, &b, flags[0], flags[1]);
                let (x, y) = (gpu.to(&a), gpu.to(&b));
                for tile in TILES {
                    for most_splits in [1, usize::MAX] {
                        let call = Call::new(&x, &y, flags[0], flags[1]);
                        let plan = Plan::with(call.product, tile, most_splits);
                        assert!(k < 1000 || most_splits == 1 || plan.splits > 1);
                        assert_within(&fast(&gpu.context, call, plan), &expected, k);
                    }
                }
            }
        }
    }
}
