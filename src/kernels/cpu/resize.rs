//! Pixels repeated in blocks, and sums over blocks.

use super::by_dtype;
use super::parallel::for_rows;
use crate::array::{Array, Buffer, Element};

pub(super) fn upsample_nearest(x: &Array, factor: usize) -> Array {
    let [b, c, h, w] = x.shape().dims("upsample_nearest");
    /// A row of x makes `factor` equal rows of y, which lie one after the other.
    fn run<T: Element>(x: &[T], w: usize, factor: usize) -> Buffer<T> {
        let mut y = Buffer::scratch(x.len() * factor * factor);
        let width = w * factor;
        for_rows(&mut y, width * factor, |i, y| {
            let (first, others) = y.split_at_mut(width);
            let x = &x[i * w..][..w];
            match factor {
                // The usual factor, with a length that the compiler knows.
                2 => first.as_chunks_mut::<2>().0.iter_mut().zip(x).for_each(|(block, &x)| *block = [x, x]),
                _ => first.chunks_exact_mut(factor).zip(x).for_each(|(block, &x)| block.fill(x)),
            }
            others.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(first));
        });
        y
    }
    by_dtype!(x.dtype(), T => Array::from_buffer([b, c, h * factor, w * factor], run::<T>(x.slice(), w, factor)))
}

#[track_caller]
pub(super) fn sum_pool(x: &Array, factor: usize) -> Array {
    let [b, c, h, w] = x.shape().dims("sum_pool");
    assert!(h % factor == 0 && w % factor == 0, "sum_pool: blocks of {factor} do not tile {}", x.shape());
    fn run<T: Element>(x: &[T], w: usize, factor: usize) -> Buffer<T> {
        let mut y = Buffer::scratch(x.len() / (factor * factor));
        for_rows(&mut y, w / factor, |i, y| {
            y.fill(T::zero());
            for x in x[i * w * factor..][..w * factor].chunks_exact(w) {
                for (y, block) in y.iter_mut().zip(x.chunks_exact(factor)) {
                    *y = block.iter().fold(*y, |sum, &x| sum + x);
                }
            }
        });
        y
    }
    by_dtype!(x.dtype(), T => Array::from_buffer([b, c, h / factor, w / factor], run::<T>(x.slice(), w, factor)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_on_any_threads, gaussian};
    use super::*;

    #[test]
    fn both_match_plain_loops() {
        for (b, c, h, w, f) in [(2, 3, 5, 7, 2), (1, 1, 1, 1, 3), (1, 2, 4, 3, 1), (0, 2, 3, 3, 2), (2, 2, 3, 5, 4)] {
            let (small, large) = (gaussian([b, c, h, w], 1), gaussian([b, c, h * f, w * f], 2));
            let mut up = vec![0.0; large.numel()];
            let mut pool = vec![0.0; small.numel()];
            for (i, up) in up.iter_mut().enumerate() {
                let (plane, row, column) = (i / (h * f * w * f), i / (w * f) % (h * f), i % (w * f));
                let source = (plane * h + row / f) * w + column / f;
                *up = small.to_f64()[source];
                pool[source] += large.to_f64()[i];
            }
            assert!(upsample_nearest(&small, f).bit_eq(&Array::from_vec(large.shape(), up)));
            assert_close(&sum_pool(&large, f), &Array::from_vec(small.shape(), pool), 1e-14);
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let x = gaussian([3, 5, 64, 66], 3);
        assert_same_on_any_threads(|| vec![upsample_nearest(&x, 2), sum_pool(&x, 2)]);
    }
}
