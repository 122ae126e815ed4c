//! Kernels that move numbers without changing them.

use super::by_dtype;
use super::parallel::rows_per_chunk;
use super::walk::Walk;
use crate::array::{Array, Buffer, Element, Shape};
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Zip};
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
    let shape = x.shape().with(axis, range.len());
    fn run<T: Element>(x: &Array, axis: usize, range: Range<usize>, shape: Shape) -> Array {
        let mut y = Buffer::<T>::scratch(shape.numel());
        copy(x.view().slice_axis(Axis(axis), range.into()), view_mut(&mut y, &shape));
        Array::from_buffer(shape, y)
    }
    by_dtype!(x.dtype(), T => run::<T>(x, axis, range, shape))
}

pub(super) fn unslice(x: &Array, axis: usize, start: usize, size: usize) -> Array {
    let shape = x.shape().with(axis, size);
    fn run<T: Element>(x: &Array, axis: usize, range: Range<usize>, shape: Shape) -> Array {
        let mut y = Buffer::<T>::filled(shape.numel(), T::zero());
        copy(x.view(), view_mut(&mut y, &shape).slice_axis_mut(Axis(axis), range.into()));
        Array::from_buffer(shape, y)
    }
    by_dtype!(x.dtype(), T => run::<T>(x, axis, start..start + x.shape()[axis], shape))
}

pub(super) fn concat(parts: &[&Array], axis: usize) -> Array {
    let shape = parts[0].shape().with(axis, parts.iter().map(|part| part.shape()[axis]).sum());
    fn run<T: Element>(parts: &[&Array], axis: usize, shape: Shape) -> Array {
        let mut y = Buffer::<T>::scratch(shape.numel());
        let mut rest = view_mut(&mut y, &shape);
        for part in parts {
            let (here, after) = rest.split_at(Axis(axis), part.shape()[axis]);
            copy(part.view(), here);
            rest = after;
        }
        Array::from_buffer(shape, y)
    }
    by_dtype!(parts[0].dtype(), T => run::<T>(parts, axis, shape))
}

fn view_mut<'a, T: Element>(y: &'a mut [T], shape: &Shape) -> ArrayViewMutD<'a, T> {
    ArrayViewMutD::from_shape(&**shape, y).expect("a buffer of this shape")
}

/// y = x, in parallel.
fn copy<T: Element>(x: ArrayViewD<'_, T>, y: ArrayViewMutD<'_, T>) {
    Zip::from(y).and(x).par_for_each(|y, &x| *y = x);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_same_on_any_threads, gaussian};
    use super::*;
    use ndarray::{Slice, concatenate};
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
