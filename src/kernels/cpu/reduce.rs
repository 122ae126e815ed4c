//! Sums and maxima along axes.

use super::parallel::{CHUNK, rows_per_chunk, vectorised};
use super::{by_dtype, lanes};
use crate::array::{Array, Buffer, Element, Shape};
use crate::kernels::Reduce;
use rayon::prelude::*;
use std::ops::Range;

/// x is seen as [outer, n, inner], n the axes that are combined. n is cut into segments, whose results, in f64, are
/// combined in order.
pub(super) fn reduce(op: Reduce, x: &Array, axes: Range<usize>) -> Array {
    let sizes = x.shape();
    let n = sizes[axes.clone()].iter().product();
    let inner = sizes[axes.end..].iter().product();
    let shape: Vec<usize> = sizes.iter().enumerate().map(|(i, &n)| if axes.contains(&i) { 1 } else { n }).collect();
    let shape = Shape::from(shape);
    by_dtype!(x.dtype(), T => {
        let numbers = match op {
            Reduce::Sum => combine::<T>(x.slice(), n, inner, shape.numel(), 0.0, add_segment, |a, b| a + b),
            Reduce::Max => combine::<T>(x.slice(), n, inner, shape.numel(), f64::NEG_INFINITY, max_segment, lanes::larger),
        };
        Array::from_buffer(shape, numbers)
    })
}

fn combine<T: Element>(
    x: &[T],
    n: usize,
    inner: usize,
    len: usize,
    empty: f64,
    segment: impl Fn(&[T], &mut [f64]) + Sync,
    join: impl Fn(f64, f64) -> f64 + Sync,
) -> Buffer<T> {
    if x.is_empty() {
        return Buffer::filled(len, T::of(empty));
    }
    let rows = rows_per_chunk(inner).max(32).min(n);
    let segments = n.div_ceil(rows);
    let mut partial = Buffer::filled(len * segments, empty);
    let least = CHUNK.div_ceil(rows * inner);
    partial.par_chunks_mut(inner).enumerate().with_min_len(least).for_each(|(i, acc)| {
        let (outer, from) = (i / segments, i % segments * rows);
        let count = rows.min(n - from);
        vectorised(|| segment(&x[(outer * n + from) * inner..][..count * inner], acc));
    });
    let mut y = Buffer::scratch(len);
    for (y, partial) in y.chunks_exact_mut(inner).zip(partial.chunks_exact_mut(segments * inner)) {
        let (first, others) = partial.split_at_mut(inner);
        for other in others.chunks_exact(inner) {
            first.iter_mut().zip(other).for_each(|(a, &b)| *a = join(*a, b));
        }
        y.iter_mut().zip(first).for_each(|(y, &mut sum)| *y = T::of(sum));
    }
    y
}

/// acc = the sums over the rows of x, each as long as acc.
#[inline(always)]
fn add_segment<T: Element>(x: &[T], acc: &mut [f64]) {
    match acc {
        [acc] => *acc = lanes::sum(x, |x| x),
        _ => by_row(x, acc, |acc, x| acc + x.f64()),
    }
}

/// acc = the maxima over the rows of x, each as long as acc.
#[inline(always)]
fn max_segment<T: Element>(x: &[T], acc: &mut [f64]) {
    match acc {
        [acc] => *acc = lanes::max(x).f64(),
        _ => by_row(x, acc, |acc, x| lanes::larger(acc, x.f64())),
    }
}

/// Row by row, over few enough columns at a time that the accumulators stay in the nearest cache.
#[inline(always)]
fn by_row<T: Element>(x: &[T], acc: &mut [f64], f: impl Fn(f64, T) -> f64) {
    const COLUMNS: usize = 1024;
    let width = acc.len();
    for (i, acc) in acc.chunks_mut(COLUMNS).enumerate() {
        for row in x.chunks_exact(width) {
            acc.iter_mut().zip(&row[i * COLUMNS..]).for_each(|(acc, &x)| *acc = f(*acc, x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_on_any_threads, gaussian};
    use super::*;
    use crate::array::DType;

    fn plain(op: Reduce, x: &Array, axes: Range<usize>) -> Vec<f64> {
        let n: usize = x.shape()[axes.clone()].iter().product();
        let inner: usize = x.shape()[axes.end..].iter().product();
        let outer: usize = x.shape()[..axes.start].iter().product();
        let values = &x.to_f64();
        (0..outer * inner)
            .map(|i| (0..n).map(move |k| values[(i / inner * n + k) * inner + i % inner]))
            .map(|column| match op {
                Reduce::Sum => column.sum(),
                Reduce::Max => column.fold(f64::NEG_INFINITY, f64::max),
            })
            .collect()
    }

    #[test]
    fn every_run_of_axes_at_odd_shapes() {
        for shape in
            [vec![], vec![1], vec![7], vec![3, 5, 4], vec![2, 70, 3, 37], vec![100, 2000], vec![0, 3], vec![3, 0, 2]]
        {
            let x = gaussian(shape.clone(), 1);
            for (start, end) in (0..=shape.len()).flat_map(|a| (a..=shape.len()).map(move |b| (a, b))) {
                for op in [Reduce::Sum, Reduce::Max] {
                    let found = reduce(op, &x, start..end);
                    let expected = Array::from_vec(found.shape(), plain(op, &x, start..end));
                    assert_close(&found, &expected, 1e-12);
                    assert_close(&reduce(op, &x.cast(DType::F32), start..end), &expected, 1e-4);
                    for (axis, &size) in found.shape().iter().enumerate() {
                        assert_eq!(size, if (start..end).contains(&axis) { 1 } else { shape[axis] });
                    }
                }
            }
        }
    }

    #[test]
    fn a_nan_makes_the_maximum_nan() {
        for at in 0..6 {
            let mut values = vec![1.0; 6];
            values[at] = f64::NAN;
            let x = Array::from_vec([3, 2], values);
            let nan = |axes| reduce(Reduce::Max, &x, axes).to_f64().iter().filter(|v| v.is_nan()).count();
            assert_eq!((nan(0..1), nan(1..2), nan(0..2)), (1, 1, 1));
        }
    }

    #[test]
    fn f32_sums_keep_their_digits() {
        let x = Array::from_vec([1_000_000, 3], vec![0.1_f32; 3_000_000]);
        for (axes, count) in [(0..2, 3_000_000.0), (0..1, 1_000_000.0)] {
            let truth = count * f64::from(0.1_f32);
            for sum in reduce(Reduce::Sum, &x, axes).to_f64() {
                assert!((sum - truth).abs() < 1e-6 * truth, "{sum} instead of {truth}");
            }
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let x = gaussian([7, 501, 83], 2).cast(DType::F32);
        assert_same_on_any_threads(|| {
            [0..1, 1..2, 2..3, 0..2, 1..3, 0..3].map(|axes| reduce(Reduce::Sum, &x, axes)).to_vec()
        });
    }
}
