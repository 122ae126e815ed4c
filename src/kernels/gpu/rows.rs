//! Rows of a table by number.

use super::context::Context;
use super::groups;
use super::map::fill;
use super::numbers::words;
use super::shader::Shader;
use crate::array::Array;
use std::sync::Arc;

#[track_caller]
pub(super) fn gather_rows(gpu: &Arc<Context>, table: &Array, rows: &[u32]) -> Array {
    let [n, width] = table.shape().dims("gather_rows");
    assert!(rows.iter().all(|&row| (row as usize) < n), "gather_rows: a row is not in a table of {n}");
    let y = gpu.array([rows.len(), width], "gather_rows");
    if y.numel() > 0 {
        let rows = gpu.indices(rows);
        gpu.run(Shader::new("rows", "gather"), words![y.numel(), width], &[table, &rows, &y], groups(y.numel()));
    }
    y
}

#[track_caller]
pub(super) fn scatter_add_rows(gpu: &Arc<Context>, g: &Array, rows: &[u32], n: usize) -> Array {
    let width = g.shape()[1];
    if g.numel() == 0 {
        return fill(gpu, &[n, width].into(), 0.0);
    }
    // The rows are known here, so that their order need not be found there.
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|&i| rows[i as usize]);
    let begins: Vec<u32> =
        (0..=n as u32).map(|row| order.partition_point(|&i| rows[i as usize] < row) as u32).collect();
    let (order, begins) = (gpu.indices(&order), gpu.indices(&begins));
    let y = gpu.array([n, width], "scatter_add_rows");
    let shader = Shader::new("rows", "scatter_add");
    gpu.run(shader, words![y.numel(), width], &[g, &order, &begins, &y], groups(y.numel()));
    y
}
