//! Matrix products on one thread: the safe face of `matrixmultiply`.
//!
//! The one unsafe call of the CPU kernels is here. It reads and writes through raw pointers with strides; it is sound
//! because [`gemm`] first checks that the last element of every operand is inside its slice, that no two elements of
//! the result share memory, and because a `&mut` slice cannot overlap the two that are read.
#![allow(unsafe_code)]

use crate::array::Element;

/// A matrix in a slice: element (i, j) is `data[i * row_stride + j * col_stride]`. Elements may overlap.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix [rows, cols] whose rows start `row_stride` apart.
    pub(super) fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Mat<'a, T> {
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, as a view.
    pub(super) fn t(self) -> Mat<'a, T> {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// This matrix, transposed if `transposed`.
    pub(super) fn t_if(self, transposed: bool) -> Mat<'a, T> {
        if transposed { self.t() } else { self }
    }

    /// `count` rows from row `start` on.
    pub(super) fn row_block(self, start: usize, count: usize) -> Mat<'a, T> {
        assert!(start + count <= self.rows, "rows {start} + {count} of {}", self.rows);
        let data = self.data.get(start * self.row_stride..).unwrap_or_default();
        Mat { data, rows: count, ..self }
    }
}

/// The two number types `matrixmultiply` has a kernel for.
pub(super) trait Gemm: Element {
    /// C = A B + beta C for pointers to A [m, k], B [k, n], C [m, n], each with its row and column stride.
    ///
    /// # Safety
    /// Every element of A and B must be readable, every element of C writable and (unless beta is 0) readable;
    /// elements of C must not share memory with each other or with A or B.
    unsafe fn gemm(size: [usize; 3], a: Pointer<Self>, b: Pointer<Self>, beta: Self, c: PointerMut<Self>);
}

type Pointer<T> = (*const T, isize, isize);
type PointerMut<T> = (*mut T, isize, isize);

macro_rules! gemm {
    ($t:ident, $function:ident) => {
        impl Gemm for $t {
            unsafe fn gemm([m, k, n]: [usize; 3], a: Pointer<$t>, b: Pointer<$t>, beta: $t, c: PointerMut<$t>) {
                // SAFETY: the same conditions as this function's.
                unsafe {
                    matrixmultiply::$function(m, k, n, 1.0, a.0, a.1, a.2, b.0, b.1, b.2, beta, c.0, c.1, c.2);
                }
            }
        }
    };
}

gemm!(f32, sgemm);
gemm!(f64, dgemm);

/// C = A B + beta C with A [m, k], B [k, n] and C [m, n] row-major, its rows `row_stride` apart. C is not read if beta
/// is 0. Each number of C is one sum over k in an order that depends on k alone, so the result does not change when
/// rows or columns of C are computed apart. Panics if the sizes do not fit together or a slice is too short.
#[track_caller]
pub(super) fn gemm<T: Gemm>(a: Mat<T>, b: Mat<T>, beta: T, c: &mut [T], row_stride: usize) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "gemm: [{m}, {k}] times [{}, {n}]", b.rows);
    let result = Mat { data: &*c, rows: m, cols: n, row_stride, col_stride: 1 };
    for (name, operand) in [("a", a), ("b", b), ("c", result)] {
        assert!(fits(&operand), "gemm: {name} is too short");
    }
    assert!(m <= 1 || row_stride >= n, "gemm: rows of c overlap");
    let (a, b, c) = (pointer(a), pointer(b), (c.as_mut_ptr(), step(m, row_stride), 1));
    // SAFETY: `fits` has shown that the element with the largest offset of a, b and c is inside its slice, and offsets
    // are never negative. Elements of c do not share memory: its rows are at least n apart. c is borrowed mutably, so
    // it does not overlap a or b. Offsets fit isize because slices are never longer than that.
    unsafe { T::gemm([m, k, n], a, b, beta, c) }
}

fn pointer<T>(x: Mat<T>) -> Pointer<T> {
    (x.data.as_ptr(), step(x.rows, x.row_stride), step(x.cols, x.col_stride))
}

/// A stride is multiplied by at most size - 1; where that is 0 any stride will do, and 1 is sure to fit isize.
fn step(size: usize, stride: usize) -> isize {
    if size > 1 { stride as isize } else { 1 }
}

/// Whether every element is inside the slice.
fn fits<T>(x: &Mat<T>) -> bool {
    let (Some(i), Some(j)) = (x.rows.checked_sub(1), x.cols.checked_sub(1)) else { return true };
    let row = i.checked_mul(x.row_stride);
    let last = row.and_then(|row| j.checked_mul(x.col_stride).and_then(|col| row.checked_add(col)));
    last.is_some_and(|last| last < x.data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
        (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect()
    }

    #[test]
    fn strided_product_accumulates_and_leaves_the_gaps_alone() {
        let [m, k, n] = [3, 5, 2];
        let a: Vec<f64> = (0..15).map(f64::from).collect();
        let b: Vec<f64> = (0..10).map(|i| 1.0 - f64::from(i)).collect();
        let mut c = vec![100.0; 3 * 4];
        gemm(Mat::new(&a, m, k, k), Mat::new(&b, k, n, n), 1.0, &mut c, 4);
        let expected = product(&a, &b, [m, k, n]);
        for i in 0..m {
            assert_eq!(c[i * 4..i * 4 + 2], [100.0 + expected[2 * i], 100.0 + expected[2 * i + 1]]);
            assert_eq!(c[i * 4 + 2..i * 4 + 4], [100.0; 2]);
        }
    }

    #[test]
    fn no_inner_axis_gives_zeros_whatever_was_there() {
        let mut c = vec![f32::NAN; 6];
        gemm(Mat::new(&[], 2, 0, 0), Mat::new(&[], 0, 3, 3), 0.0, &mut c, 3);
        assert_eq!(c, [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "b is too short")]
    fn short_operand_is_refused() {
        gemm(Mat::new(&[1.0f32; 4], 2, 2, 2), Mat::new(&[1.0; 3], 2, 2, 2), 0.0, &mut [0.0; 4], 2);
    }

    #[test]
    #[should_panic(expected = "c is too short")]
    fn short_result_is_refused() {
        gemm(Mat::new(&[1.0f32; 4], 2, 2, 2), Mat::new(&[1.0; 4], 2, 2, 2), 0.0, &mut [0.0; 3], 2);
    }

    #[test]
    #[should_panic(expected = "rows of c overlap")]
    fn overlapping_result_is_refused() {
        gemm(Mat::new(&[1.0f32; 4], 2, 2, 2), Mat::new(&[1.0; 4], 2, 2, 2), 0.0, &mut [0.0; 4], 1);
    }

    #[test]
    #[should_panic(expected = "a is too short")]
    fn absurd_stride_is_refused() {
        gemm(Mat::new(&[1.0f32; 4], 3, 2, usize::MAX), Mat::new(&[1.0; 4], 2, 2, 2), 0.0, &mut [0.0; 6], 2);
    }
}
