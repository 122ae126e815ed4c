//! Kernels that move numbers without changing them.

use super::by_dtype;
use super::parallel::{CHUNK, rows_per_chunk};
use super::walk::Walk;
use crate::array::{Array, Buffer, Element, Shape};
use rayon::prelude::*;
use std::ops::Range;

pub(super) fn permute(x: &Array, order: &[usize]) -> Array {
    let strides = x.shape().strides();
    let shape = Shape::from(order.iter().map(|&axis| x.shape()[axis]).collect::<Vec<_>>());
    let strides: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
    let walk = Walk::new(&shape, [&strides]);
    fn run<T: Element>(x: &[T], walk: &Walk<1>) -> Buffer<T> {
        let mut y = Buffer::scratch(x.len());
        if !x.is_empty() {
            let rows = rows_per_chunk(walk.run);
            y.par_chunks_mut(rows * walk.run).enumerate().for_each(|(i, y)| reorder(y, i * rows, x, walk));
        }
        y
    }
    by_dtype!(x.dtype(), T => Array::from_buffer(shape, run::<T>(x.slice(), &walk)))
}

/// Writes the runs from number `first` on. Where neighbouring runs start at neighbouring numbers of x, as when a matrix
/// is transposed, a band of them is written together: x is read in cache lines, not in single numbers.
fn reorder<T: Element>(y: &mut [T], first: usize, x: &[T], walk: &Walk<1>) {
    const BAND: usize = 16;
    let (run, [step]) = (walk.run, walk.step);
    let (neighbours, [apart]) = walk.around_run();
    let mut rest = y;
    let mut index = first;
    while !rest.is_empty() {
        let left = (rest.len() / run).min(neighbours - index % neighbours);
        let count = if apart == 1 && step != 1 { left.min(BAND) } else { 1 };
        let (band, after) = rest.split_at_mut(count * run);
        let [at] = walk.start(index);
        if step == 1 {
            band.copy_from_slice(&x[at..at + run]);
        } else if count == BAND {
            for j in 0..run {
                let source = &x[at + j * step..][..BAND];
                for i in 0..BAND {
                    band[i * run + j] = source[i];
                }
            }
        } else {
            for (i, row) in band.chunks_exact_mut(run).enumerate() {
                row.iter_mut().zip(x[at + i..].iter().step_by(step)).for_each(|(y, &x)| *y = x);
            }
        }
        (rest, index) = (after, index + count);
    }
}

pub(super) fn slice(x: &Array, axis: usize, range: Range<usize>) -> Array {
    let (_, size, inner) = x.shape().around(axis);
    let shape = x.shape().with(axis, range.len());
    fn run<T: Element>(x: &[T], numel: usize, start: usize, [len, apart]: [usize; 2]) -> Buffer<T> {
        let mut y = Buffer::scratch(numel);
        rows(&mut y, len, x, apart, |y, x| copy(y, &x[start..][..len]));
        y
    }
    let (start, sizes) = (range.start * inner, [range.len() * inner, size * inner]);
    by_dtype!(x.dtype(), T => Array::from_buffer(shape.clone(), run::<T>(x.slice(), shape.numel(), start, sizes)))
}

pub(super) fn unslice(x: &Array, axis: usize, start: usize, size: usize) -> Array {
    let (_, part, inner) = x.shape().around(axis);
    let shape = x.shape().with(axis, size);
    fn run<T: Element>(x: &[T], numel: usize, start: usize, [len, apart]: [usize; 2]) -> Buffer<T> {
        if x.is_empty() {
            return Buffer::filled(numel, T::zero());
        }
        let mut y = Buffer::scratch(numel);
        rows(&mut y, apart, x, len, |y, x| {
            y[..start].fill(T::zero());
            copy(&mut y[start..][..len], x);
            y[start + len..].fill(T::zero());
        });
        y
    }
    let (start, sizes) = (start * inner, [part * inner, size * inner]);
    by_dtype!(x.dtype(), T => Array::from_buffer(shape.clone(), run::<T>(x.slice(), shape.numel(), start, sizes)))
}

pub(super) fn concat(parts: &[&Array], axis: usize) -> Array {
    let shape = parts[0].shape().with(axis, parts.iter().map(|part| part.shape()[axis]).sum());
    let (_, size, inner) = shape.around(axis);
    fn run<T: Element>(parts: &[&Array], axis: usize, numel: usize, apart: usize, inner: usize) -> Buffer<T> {
        let mut y = Buffer::scratch(numel);
        let mut start = 0;
        for part in parts {
            let len = part.shape()[axis] * inner;
            rows(&mut y, apart, part.slice(), len, |y, x| copy(&mut y[start..][..len], x));
            start += len;
        }
        y
    }
    by_dtype!(parts[0].dtype(), T => {
        Array::from_buffer(shape.clone(), run::<T>(parts, axis, shape.numel(), size * inner, inner))
    })
}

/// `work` on every row of y, `y_len` long, and the same row of x, `x_len` long; in parallel. Nothing to do if either has
/// no numbers.
fn rows<T: Element>(y: &mut [T], y_len: usize, x: &[T], x_len: usize, work: impl Fn(&mut [T], &[T]) + Sync) {
    if x.is_empty() || y.is_empty() {
        return;
    }
    let least = rows_per_chunk(y_len.min(x_len));
    y.par_chunks_exact_mut(y_len).zip(x.par_chunks_exact(x_len)).with_min_len(least).for_each(|(y, x)| work(y, x));
}

/// y = x; a long run in parallel.
fn copy<T: Element>(y: &mut [T], x: &[T]) {
    if y.len() < 4 * CHUNK {
        y.copy_from_slice(x);
    } else {
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| y.copy_from_slice(x));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_same_on_any_threads, gaussian};
    use super::*;
    use ndarray::{ArrayViewD, Axis, Slice, concatenate};
    use proptest::prelude::*;

    fn view(x: &Array) -> ArrayViewD<'_, f64> {
        x.view()
    }

    fn assert_is(found: &Array, expected: ArrayViewD<'_, f64>) {
        assert_eq!(&**found.shape(), expected.shape());
        assert_eq!(found.to_f64(), expected.iter().copied().collect::<Vec<_>>());
    }

    /// Every order of the axes `0..rank`.
    fn orders(rank: usize) -> Vec<Vec<usize>> {
        let Some(last) = rank.checked_sub(1) else { return vec![vec![]] };
        orders(last)
            .into_iter()
            .flat_map(|order| (0..rank).map(move |at| [&order[..at], &[last], &order[at..]].concat()))
            .collect()
    }

    #[test]
    fn permute_matches_ndarray_for_every_order() {
        for shape in [vec![], vec![5], vec![7, 33], vec![2, 19, 1, 21], vec![3, 17, 2, 35], vec![2, 0, 3]] {
            let x = gaussian(shape.clone(), 1);
            for order in orders(shape.len()) {
                assert_is(&permute(&x, &order), view(&x).permuted_axes(order));
            }
        }
    }

    #[test]
    fn threads_do_not_matter_and_pieces_fit() {
        let x = gaussian([3, 5, 67, 91], 2);
        for order in [[0, 1, 3, 2], [0, 2, 1, 3], [3, 2, 1, 0], [1, 2, 3, 0]] {
            assert_is(&permute(&x, &order), view(&x).permuted_axes(order.to_vec()));
            assert_same_on_any_threads(|| vec![permute(&x, &order)]);
        }
    }

    proptest! {
        #[test]
        fn slices_and_joins_match_ndarray(
            sizes in prop::collection::vec(0_usize..6, 1..5), axis in 0_usize..4, cut in (0_usize..6, 0_usize..6),
        ) {
            let x = gaussian(sizes.clone(), 3);
            let axis = axis % sizes.len();
            let (a, b) = (cut.0.min(cut.1).min(sizes[axis]), cut.0.max(cut.1).min(sizes[axis]));
            let part = |range: Range<usize>| slice(&x, axis, range);
            assert_is(&part(a..b), view(&x).slice_axis(Axis(axis), Slice::from(a..b)));
            let parts = [part(0..a), part(a..b), part(b..sizes[axis])];
            prop_assert!(concat(&parts.each_ref(), axis).bit_eq(&x));
            let zeros = |n| Array::from_vec(x.shape().with(axis, n), vec![0.0; x.shape().with(axis, n).numel()]);
            let (before, after) = (zeros(a), zeros(2));
            let placed = concatenate(Axis(axis), &[view(&before), view(&x), view(&after)]).unwrap();
            assert_is(&unslice(&x, axis, a, a + sizes[axis] + 2), placed.view());
        }
    }
}
