//! Softmax and its logarithm over the last axis, with their gradients.

use super::parallel::{for_rows, vectorised};
use super::{by_dtype, lanes};
use crate::array::{Array, Buffer, Element};
use crate::kernels::exp::exp;

/// Runs `row(i, y)` for each row of a new array of the shape of `x`.
fn rows<T: Element>(x: &Array, row: impl Fn(usize, &mut [T]) + Sync) -> Array {
    let mut y = Buffer::scratch(x.numel());
    for_rows(&mut y, x.shape().last().copied().unwrap_or(1), row);
    Array::from_buffer(x.shape(), y)
}

/// Applies `row(y, x)` to each row of x.
fn each<T: Element>(x: &Array, row: impl Fn(&mut [T], &[T]) + Sync) -> Array {
    let numbers = x.slice::<T>();
    rows(x, |i, y| row(y, &numbers[i * y.len()..][..y.len()]))
}

/// Applies `row(out, y, g)` to each row of y and g.
fn each2<T: Element>(y: &Array, g: &Array, row: impl Fn(&mut [T], &[T], &[T]) + Sync) -> Array {
    let (ys, gs) = (y.slice::<T>(), g.slice::<T>());
    rows(y, |i, out| row(out, &ys[i * out.len()..][..out.len()], &gs[i * out.len()..][..out.len()]))
}

pub(super) fn softmax(x: &Array) -> Array {
    by_dtype!(x.dtype(), T => each::<T>(x, softmax_row))
}

pub(super) fn softmax_grad(y: &Array, g: &Array) -> Array {
    by_dtype!(y.dtype(), T => each2::<T>(y, g, softmax_grad_row))
}

pub(super) fn log_softmax(x: &Array) -> Array {
    by_dtype!(x.dtype(), T => each::<T>(x, log_softmax_row))
}

pub(super) fn log_softmax_grad(y: &Array, g: &Array) -> Array {
    by_dtype!(y.dtype(), T => each2::<T>(y, g, log_softmax_grad_row))
}

vectorised! {
    // ANCHOR: softmax_row
    fn softmax_row<T: Element>(y: &mut [T], x: &[T]) {
        let max = lanes::max(x);
        if max == T::neg_infinity() {
            return y.fill(T::zero());
        }
        for (y, &x) in y.iter_mut().zip(x) {
            *y = exp(x - max);
        }
        let scale = T::of(1.0 / lanes::sum(y, |y| y));
        y.iter_mut().for_each(|y| *y *= scale);
    }
    // ANCHOR_END: softmax_row
}

vectorised! {
    // ANCHOR: softmax_grad_row
    fn softmax_grad_row<T: Element>(out: &mut [T], y: &[T], g: &[T]) {
        let dot = T::of(lanes::sum2(y, g, |y, g| y * g));
        out.iter_mut().zip(y).zip(g).for_each(|((out, &y), &g)| *out = y * (g - dot));
    }
    // ANCHOR_END: softmax_grad_row
}

vectorised! {
    // ANCHOR: log_softmax_row
    fn log_softmax_row<T: Element>(y: &mut [T], x: &[T]) {
        let max = lanes::max(x);
        if max == T::neg_infinity() {
            return y.fill(T::neg_infinity());
        }
        for (y, &x) in y.iter_mut().zip(x) {
            *y = exp(x - max);
        }
        let log_sum = T::of(lanes::sum(y, |y| y).ln());
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - max - log_sum);
    }
    // ANCHOR_END: log_softmax_row
}

vectorised! {
    // ANCHOR: log_softmax_grad_row
    fn log_softmax_grad_row<T: Element>(out: &mut [T], y: &[T], g: &[T]) {
        let sum = T::of(lanes::sum(g, |g| g));
        for ((out, &y), &g) in out.iter_mut().zip(y).zip(g) {
            *out = g - exp(y) * sum;
        }
    }
    // ANCHOR_END: log_softmax_grad_row
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_on_any_threads, gaussian};
    use super::*;
    use crate::array::DType;

    fn per_row(x: &Array, g: &Array, f: impl Fn(&[f64], &[f64]) -> Vec<f64>) -> Array {
        let width = *x.shape().last().unwrap();
        let (x64, g64) = (x.to_f64(), g.to_f64());
        let numbers = x64.chunks(width.max(1)).zip(g64.chunks(width.max(1))).flat_map(|(x, g)| f(x, g)).collect();
        Array::from_vec(x.shape(), numbers)
    }

    #[test]
    fn all_four_match_the_formulas() {
        for shape in [vec![1], vec![3, 5], vec![2, 3, 77], vec![40, 1], vec![0, 4], vec![3, 0], vec![2, 5000]] {
            let (x, g) = (gaussian(shape.clone(), 1), gaussian(shape, 2));
            let sum_exp = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let y = per_row(&x, &g, |x, _| x.iter().map(|v| v.exp() / sum_exp(x)).collect());
            let log_y = per_row(&x, &g, |x, _| x.iter().map(|v| v - sum_exp(x).ln()).collect());
            let grad = per_row(&y, &g, |y, g| y.iter().zip(g).map(|(p, v)| p * (v - dot(y, g))).collect());
            let log_grad =
                per_row(&log_y, &g, |y, g| y.iter().zip(g).map(|(y, v)| v - y.exp() * g.iter().sum::<f64>()).collect());
            for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 2e-5)] {
                let at = |x: &Array| x.cast(dtype);
                assert_close(&softmax(&at(&x)), &y, tolerance);
                assert_close(&log_softmax(&at(&x)), &log_y, tolerance);
                assert_close(&softmax_grad(&at(&y), &at(&g)), &grad, tolerance);
                assert_close(&log_softmax_grad(&at(&log_y), &at(&g)), &log_grad, tolerance);
            }
        }
    }

    #[test]
    fn masked_and_huge_numbers() {
        let inf = f32::INFINITY;
        let x = Array::from_vec([3, 2], vec![-inf, -inf, 1e4, -1e4, -inf, 3.0]);
        assert_eq!(softmax(&x).to_f64(), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(log_softmax(&x).to_f32(), [-inf, -inf, 0.0, -2e4, -inf, 0.0]);
        let g = Array::from_vec([3, 2], vec![1.0_f32; 6]);
        assert_eq!(softmax_grad(&softmax(&x), &g).to_f64(), [0.0; 6]);
        assert!(log_softmax_grad(&log_softmax(&x), &g).is_finite());
        assert!(softmax(&Array::from_vec([3], vec![1.0, f64::NAN, 2.0])).to_f64().iter().all(|v| v.is_nan()));
    }

    #[test]
    fn threads_do_not_matter() {
        let (x, g) = (gaussian([50, 1201], 3).cast(DType::F32), gaussian([50, 1201], 4).cast(DType::F32));
        assert_same_on_any_threads(|| {
            vec![softmax(&x), log_softmax(&x), softmax_grad(&x, &g), log_softmax_grad(&x, &g)]
        });
    }
}
