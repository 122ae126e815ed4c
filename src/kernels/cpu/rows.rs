//! Rows of a table, out and back in.

use super::by_dtype;
use super::parallel::for_rows;
use crate::array::{Array, Buffer, Element};

#[track_caller]
pub(super) fn gather_rows(table: &Array, rows: &[u32]) -> Array {
    let [n, width] = table.shape().dims("gather_rows");
    check("gather_rows", rows, n);
    fn run<T: Element>(table: &[T], rows: &[u32], width: usize) -> Buffer<T> {
        let mut y = Buffer::scratch(rows.len() * width);
        for_rows(&mut y, width, |i, y| y.copy_from_slice(&table[rows[i] as usize * width..][..width]));
        y
    }
    by_dtype!(table.dtype(), T => Array::from_buffer([rows.len(), width], run::<T>(table.slice(), rows, width)))
}

#[track_caller]
pub(super) fn scatter_add_rows(g: &Array, rows: &[u32], n: usize) -> Array {
    let [count, width] = g.shape().dims("scatter_add_rows");
    assert_eq!(count, rows.len(), "scatter_add_rows: {} for {} rows", g.shape(), rows.len());
    check("scatter_add_rows", rows, n);
    /// One row after the other: two of them may go to the same place.
    fn run<T: Element>(g: &[T], rows: &[u32], n: usize, width: usize) -> Buffer<T> {
        let mut y = Buffer::filled(n * width, T::zero());
        if width > 0 {
            for (&row, g) in rows.iter().zip(g.chunks_exact(width)) {
                y[row as usize * width..][..width].iter_mut().zip(g).for_each(|(y, &g)| *y += g);
            }
        }
        y
    }
    by_dtype!(g.dtype(), T => Array::from_buffer([n, width], run::<T>(g.slice(), rows, n, width)))
}

#[track_caller]
fn check(what: &str, rows: &[u32], n: usize) {
    if let Some(row) = rows.iter().find(|&&row| row as usize >= n) {
        panic!("{what}: row {row} of a table of {n} rows");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::gaussian;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_copied_and_added() {
        let table = Array::from_vec([3, 2], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(gather_rows(&table, &[2, 0, 2]).to_f64(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        assert_eq!(scatter_add_rows(&table, &[1, 1, 3], 4).to_f64(), [0.0, 0.0, 4.0, 6.0, 0.0, 0.0, 5.0, 6.0]);
        assert_eq!(gather_rows(&table, &[]).numel(), 0);
    }

    #[test]
    #[should_panic(expected = "gather_rows: row 3 of a table of 3 rows")]
    fn a_missing_row_panics() {
        gather_rows(&gaussian([3, 2], 0), &[3]);
    }

    proptest! {
        #[test]
        fn scatter_is_the_adjoint_of_gather(rows in prop::collection::vec(0_u32..6, 0..20), width in 0_usize..5) {
            let (table, g) = (gaussian([6, width], 1), gaussian([rows.len(), width], 2));
            let dot = |a: &Array, b: &Array| a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| a * b).sum::<f64>();
            let (left, right) = (dot(&gather_rows(&table, &rows), &g), dot(&table, &scatter_add_rows(&g, &rows, 6)));
            prop_assert!((left - right).abs() < 1e-12);
        }
    }
}
