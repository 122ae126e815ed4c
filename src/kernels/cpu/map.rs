//! Elementwise kernels, with broadcasting.

use super::by_dtype;
use super::parallel::{CHUNK, map, map2, update, vectorised};
use super::walk::Walk;
use crate::array::{Array, Buffer, DType, Element, Shape};
use crate::kernels::{Binary, Unary};
use rayon::prelude::*;

/// Compiles `$body` once for every op of a table, with the op as the constant `OP`, and runs the one at hand: the
/// choice is made before the loop, and the loop contains nothing but one formula.
macro_rules! by_op {
    ($op:expr, $Table:ident [$($Name:ident)*], $OP:ident => $body:expr) => {
        match $op {
            $($Table::$Name => {
                const $OP: $Table = $Table::$Name;
                $body
            })*
        }
    };
}

macro_rules! by_unary {
    ($op:expr, $OP:ident => $body:expr) => {
        by_op!($op, Unary [Neg Abs Square Sqrt Rsqrt Reciprocal Exp Log Sin Cos Tanh Sigmoid Softplus Relu Silu GeluTanh
            GeluErf], $OP => $body)
    };
}

pub(super) fn fill(shape: &Shape, dtype: DType, value: f64) -> Array {
    by_dtype!(dtype, T => Array::from_buffer(shape, Buffer::filled(shape.numel(), T::of(value))))
}

pub(super) fn unary(op: Unary, x: &Array) -> Array {
    fn run<T: Element>(op: Unary, x: &[T]) -> Buffer<T> {
        by_unary!(op, OP => map(x, |x| OP.value(x)))
    }
    by_dtype!(x.dtype(), T => Array::from_buffer(x.shape(), run::<T>(op, x.slice())))
}

pub(super) fn unary_grad(op: Unary, x: &Array, g: &Array) -> Array {
    fn run<T: Element>(op: Unary, x: &[T], g: &[T]) -> Buffer<T> {
        by_unary!(op, OP => map2(x, g, |x, g| g * OP.derivative(x)))
    }
    by_dtype!(x.dtype(), T => Array::from_buffer(x.shape(), run::<T>(op, x.slice(), g.slice())))
}

pub(super) fn affine(x: &Array, scale: f64, shift: f64) -> Array {
    fn run<T: Element>(x: &[T], scale: T, shift: T) -> Buffer<T> {
        map(x, |x| scale * x + shift)
    }
    by_dtype!(x.dtype(), T => Array::from_buffer(x.shape(), run::<T>(x.slice(), T::of(scale), T::of(shift))))
}

pub(super) fn add_assign(acc: &mut Array, x: &Array, scale: f64) {
    by_dtype!(x.dtype(), T => {
        let scale = T::of(scale);
        update(acc.make_mut::<T>(), x.slice(), |acc, x| acc + scale * x);
    })
}

pub(super) fn lerp_assign(acc: &mut Array, x: &Array, weight: f64) {
    by_dtype!(x.dtype(), T => {
        let weight = T::of(weight);
        update(acc.make_mut::<T>(), x.slice(), |acc, x| acc + weight * (x - acc));
    })
}

#[track_caller]
pub(super) fn binary(op: Binary, a: &Array, b: &Array) -> Array {
    let Some(shape) = a.shape().broadcast(b.shape()) else {
        panic!("{}: shapes {} and {} do not broadcast", op.name(), a.shape(), b.shape())
    };
    let walk = Walk::broadcast(&shape, [a.shape(), b.shape()]);
    fn run<T: Element>(op: Binary, a: &[T], b: &[T], len: usize, walk: &Walk<2>) -> Buffer<T> {
        by_op!(op, Binary [Add Sub Mul Div Maximum Minimum Greater Equal], OP => {
            pair(a, b, len, walk, |a, b| OP.value(a, b))
        })
    }
    by_dtype!(a.dtype(), T => {
        Array::from_buffer(&shape, run::<T>(op, a.slice(), b.slice(), shape.numel(), &walk))
    })
}

/// y = f(a, b) over broadcast operands. Within a run an operand either advances or stays.
fn pair<T: Element>(a: &[T], b: &[T], len: usize, walk: &Walk<2>, f: impl Fn(T, T) -> T + Sync) -> Buffer<T> {
    let mut y = Buffer::scratch(len);
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(i, y)| {
        vectorised(|| {
            walk.over(y, i * CHUNK, |y, [a_at, b_at]| match walk.step {
                [0, _] => {
                    let a = a[a_at];
                    for (y, &b) in y.iter_mut().zip(&b[b_at..]) {
                        *y = f(a, b);
                    }
                }
                [_, 0] => {
                    let b = b[b_at];
                    for (y, &a) in y.iter_mut().zip(&a[a_at..]) {
                        *y = f(a, b);
                    }
                }
                _ => {
                    for ((y, &a), &b) in y.iter_mut().zip(&a[a_at..]).zip(&b[b_at..]) {
                        *y = f(a, b);
                    }
                }
            });
        });
    });
    y
}

pub(super) fn broadcast_to(x: &Array, shape: &Shape) -> Array {
    let walk = Walk::broadcast(shape, [x.shape()]);
    fn run<T: Element>(x: &[T], len: usize, walk: &Walk<1>) -> Buffer<T> {
        let mut y = Buffer::scratch(len);
        y.par_chunks_mut(CHUNK).enumerate().for_each(|(i, y)| {
            walk.over(y, i * CHUNK, |y, [at]| match walk.step {
                [0] => y.fill(x[at]),
                _ => y.copy_from_slice(&x[at..at + y.len()]),
            });
        });
        y
    }
    by_dtype!(x.dtype(), T => Array::from_buffer(shape, run::<T>(x.slice(), shape.numel(), &walk)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_on_any_threads, gaussian};
    use super::*;
    use proptest::prelude::*;

    /// Element `index` of the result, looked up axis by axis.
    fn lookup(x: &Array, shape: &Shape, mut index: usize) -> f64 {
        let mut at = 0;
        let mut stride = 1;
        for (axis, &size) in shape.iter().enumerate().rev() {
            let i = index % size;
            index /= size;
            if let Some(own) = (axis + x.shape().len()).checked_sub(shape.len()) {
                at += if x.shape()[own] == 1 { 0 } else { i * stride };
                stride *= x.shape()[own];
            }
        }
        x.to_f64()[at]
    }

    fn plain_binary(op: Binary, a: &Array, b: &Array) -> Array {
        let shape = a.shape().broadcast(b.shape()).unwrap();
        let values: Vec<f64> =
            (0..shape.numel()).map(|i| op.value(lookup(a, &shape, i), lookup(b, &shape, i))).collect();
        Array::from_vec(shape, values)
    }

    #[test]
    fn binary_broadcasts_as_a_plain_lookup_does() {
        let shapes: [(&[usize], &[usize]); 12] = [
            (&[], &[]),
            (&[5], &[]),
            (&[], &[2, 3]),
            (&[3, 4], &[3, 4]),
            (&[2, 3, 4, 5], &[2, 3, 1, 1]),
            (&[3, 1, 1], &[2, 3, 4, 5]),
            (&[7, 3], &[3]),
            (&[4, 1], &[1, 5]),
            (&[2, 1, 4, 1], &[3, 1, 5]),
            (&[2, 3, 1], &[2, 1, 4]),
            (&[0, 3], &[3]),
            (&[2, 0, 1], &[1, 5]),
        ];
        for (a, b) in shapes {
            let (a, b) = (gaussian(a, 1), gaussian(b, 2));
            for op in Binary::ALL {
                let expected = plain_binary(op, &a, &b);
                assert!(binary(op, &a, &b).bit_eq(&expected), "{op:?} {a:?} {b:?}");
                assert_close(&binary(op, &a.cast(DType::F32), &b.cast(DType::F32)), &expected, 1e-5);
            }
        }
    }

    proptest! {
        #[test]
        fn binary_and_broadcast_to_at_any_shape(
            axes in prop::collection::vec((1_usize..5, any::<bool>(), any::<bool>()), 0..5),
            drop_a in 0_usize..3,
        ) {
            let size = |keep: bool, n: usize| if keep { n } else { 1 };
            let a: Vec<usize> = axes.iter().map(|&(n, keep, _)| size(keep, n)).skip(drop_a).collect();
            let b: Vec<usize> = axes.iter().map(|&(n, _, keep)| size(keep, n)).collect();
            let (a, b) = (gaussian(a, 3), gaussian(b, 4));
            let expected = plain_binary(Binary::Sub, &a, &b);
            prop_assert!(binary(Binary::Sub, &a, &b).bit_eq(&expected));
            let spread = broadcast_to(&a, expected.shape());
            let plain: Vec<f64> = (0..expected.numel()).map(|i| lookup(&a, expected.shape(), i)).collect();
            prop_assert_eq!(spread.to_f64(), plain);
        }
    }

    #[test]
    fn long_arrays_are_cut_without_a_seam() {
        let (a, b) = (gaussian([2, 3, 150, 151], 5), gaussian([3, 1, 1], 6));
        assert!(binary(Binary::Mul, &a, &b).bit_eq(&plain_mul_by_channel(&a, &b)));
        assert_same_on_any_threads(|| {
            vec![binary(Binary::Mul, &a, &b), unary(Unary::Silu, &a), unary_grad(Unary::Silu, &a, &a)]
        });
    }

    fn plain_mul_by_channel(a: &Array, b: &Array) -> Array {
        let values = a.to_f64().iter().enumerate().map(|(i, v)| v * b.to_f64()[i / (150 * 151) % 3]).collect();
        Array::from_vec::<f64>(a.shape(), values)
    }

    #[test]
    fn unary_kernels_follow_the_tables() {
        for op in Unary::ALL {
            let x = binary(Binary::Add, &unary(Unary::Abs, &gaussian([3, 37], 7)), &fill(&[].into(), DType::F64, 0.1));
            let g = gaussian([3, 37], 8);
            let value = x.to_f64().into_iter().map(|x| op.value(x)).collect();
            let grad = x.to_f64().into_iter().zip(g.to_f64()).map(|(x, g)| g * op.derivative(x)).collect();
            let (value, grad) = (Array::from_vec::<f64>([3, 37], value), Array::from_vec::<f64>([3, 37], grad));
            assert!(unary(op, &x).bit_eq(&value));
            assert!(unary_grad(op, &x, &g).bit_eq(&grad));
            assert_close(&unary(op, &x.cast(DType::F32)), &value, 1e-5);
            assert_close(&unary_grad(op, &x.cast(DType::F32), &g.cast(DType::F32)), &grad, 1e-5);
        }
        assert_eq!(unary(Unary::Exp, &gaussian([0, 3], 1)).shape(), &Shape::from([0, 3]));
    }

    #[test]
    fn affine_and_updates_in_place() {
        let x = gaussian([5, 7], 9);
        let mut acc = gaussian([5, 7], 10);
        let before = acc.clone();
        let pairs = || before.to_f64().into_iter().zip(x.to_f64());
        add_assign(&mut acc, &x, 0.5);
        assert_eq!(acc.to_f64(), pairs().map(|(a, x)| a + 0.5 * x).collect::<Vec<_>>());
        acc = before.clone();
        lerp_assign(&mut acc, &x, 0.25);
        assert_eq!(acc.to_f64(), pairs().map(|(a, x)| a + 0.25 * (x - a)).collect::<Vec<_>>());
        assert_eq!(affine(&x, 2.0, -1.0).to_f64(), x.to_f64().iter().map(|x| 2.0 * x - 1.0).collect::<Vec<_>>());
    }
}
