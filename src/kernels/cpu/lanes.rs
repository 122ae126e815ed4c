//! Sums and maxima of a slice, in an order that suits vector units and keeps rounding errors small.
//!
//! Neighbours go to different lanes; lanes are joined after every block, and blocks are added in f64. The error grows
//! with the length of a block, not of the slice.

use crate::array::Element;

const LANES: usize = 32;
const BLOCK: usize = 64 * LANES;

/// The larger of two numbers, NaN if either is.
#[inline(always)]
pub(super) fn larger<T: Element>(a: T, b: T) -> T {
    if b > a || b.is_nan() { b } else { a }
}

#[inline(always)]
fn join<T: Element>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

// ANCHOR: sum
/// Sum of f(x) over a slice.
#[inline(always)]
pub(super) fn sum<T: Element>(x: &[T], f: impl Fn(T) -> T) -> f64 {
    let mut total = 0.0;
    for block in x.chunks(BLOCK) {
        let mut lanes = [T::zero(); LANES];
        let (rows, rest) = block.as_chunks::<LANES>();
        for row in rows {
            for i in 0..LANES {
                lanes[i] += f(row[i]);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += f(x);
        }
        total += join(lanes, |a, b| a + b).f64();
    }
    total
}
// ANCHOR_END: sum

/// Sum of f(a, b) over two slices of one length.
#[inline(always)]
pub(super) fn sum2<T: Element>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> f64 {
    let mut total = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let mut lanes = [T::zero(); LANES];
        let ((a_rows, a_rest), (b_rows, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a_rows.iter().zip(b_rows) {
            for i in 0..LANES {
                lanes[i] += f(a[i], b[i]);
            }
        }
        for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane += f(a, b);
        }
        total += join(lanes, |a, b| a + b).f64();
    }
    total
}

/// Writes the first of f(a, b) to y for all numbers of the slices, and returns the sums of the other two.
#[inline(always)]
pub(super) fn write_and_sum<T: Element>(y: &mut [T], a: &[T], b: &[T], f: impl Fn(T, T) -> [T; 3]) -> [f64; 2] {
    let mut totals = [0.0; 2];
    for (y, (a, b)) in y.chunks_mut(BLOCK).zip(a.chunks(BLOCK).zip(b.chunks(BLOCK))) {
        let mut lanes = [[T::zero(); LANES]; 2];
        let ((a_rows, a_rest), (b_rows, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let (y_rows, y_rest) = y.as_chunks_mut::<LANES>();
        for (y, (a, b)) in y_rows.iter_mut().zip(a_rows.iter().zip(b_rows)) {
            for i in 0..LANES {
                let [written, first, second] = f(a[i], b[i]);
                y[i] = written;
                lanes[0][i] += first;
                lanes[1][i] += second;
            }
        }
        for (i, (y, (&a, &b))) in y_rest.iter_mut().zip(a_rest.iter().zip(b_rest)).enumerate() {
            let [written, first, second] = f(a, b);
            *y = written;
            lanes[0][i] += first;
            lanes[1][i] += second;
        }
        for (total, lanes) in totals.iter_mut().zip(lanes) {
            *total += join(lanes, |a, b| a + b).f64();
        }
    }
    totals
}

/// The largest number of a slice; negative infinity if it is empty, NaN if any is NaN.
#[inline(always)]
pub(super) fn max<T: Element>(x: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], row[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    join(lanes, larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_and_maxima_match_plain_loops(x in prop::collection::vec(-1e3_f64..1e3, 0..5000)) {
            let plain: f64 = x.iter().map(|v| v * v).sum();
            prop_assert!((sum(&x, |v| v * v) - plain).abs() <= 1e-12 * plain);
            prop_assert!((sum2(&x, &x, |a, b| a * b) - plain).abs() <= 1e-12 * plain);
            let mut y = vec![0.0; x.len()];
            let [sum, squares] = write_and_sum(&mut y, &x, &x, |a, b| [a + b, a, a * b]);
            prop_assert!((squares - plain).abs() <= 1e-12 * plain);
            prop_assert!((sum - x.iter().sum::<f64>()).abs() <= 1e-9);
            prop_assert!(y.iter().zip(&x).all(|(y, x)| *y == 2.0 * x));
            prop_assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }

    #[test]
    fn nan_is_never_lost() {
        for at in 0..70 {
            let mut x = vec![1.0_f32; 70];
            x[at] = f32::NAN;
            assert!(max(&x).is_nan(), "at {at}");
        }
    }

    #[test]
    fn a_long_sum_of_f32_keeps_its_digits() {
        let x = vec![0.1_f32; 10_000_000];
        let truth = 10_000_000.0 * f64::from(0.1_f32);
        assert!((sum(&x, |v| v) - truth).abs() < 1e-6 * truth);
    }
}
