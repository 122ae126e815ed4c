//! Arithmetic on arrays without history, so that gradients read as formulas.

use super::{Binary, Kernels, Reduce, of};
use crate::array::{Array, Device, Shape};
use std::ops::{Add, Div, Mul, Neg, Sub};

impl Array {
    /// The kernels of the device that holds this array.
    pub fn kernels(&self) -> &'static dyn Kernels {
        of(self.device())
    }

    /// The same numbers on `device`; the array itself if they are there already. Copying to a GPU waits for nothing, copying
    /// from one waits until they have been computed. Panics if a GPU is to take numbers that are not f32, or was not opened.
    #[track_caller]
    pub fn to(&self, device: Device) -> Array {
        if self.device() == device || self.is_planned() {
            return self.clone();
        }
        match (self.device(), device) {
            (Device::Cpu, _) => of(device).receive(self),
            (_, Device::Cpu) => Array::from_vec(self.shape(), self.to_f32()),
            (_, other) => self.to(Device::Cpu).to(other),
        }
    }

    /// y = f(a, b), element by element. Panics unless dtypes are equal and shapes broadcast.
    #[track_caller]
    pub fn binary(&self, op: Binary, other: &Array) -> Array {
        let (a, b) = (self.shape(), other.shape());
        assert!(a.broadcast(b).is_some(), "{}: shapes {a} and {b} do not broadcast", op.name());
        assert_eq!(self.dtype(), other.dtype(), "{}: dtypes of {a} and {b} differ", op.name());
        assert_eq!(self.device(), other.device(), "{}: devices of {a} and {b} differ", op.name());
        self.kernels().binary(op, self, other)
    }

    /// scale x + shift, element by element.
    pub fn affine(&self, scale: f64, shift: f64) -> Array {
        self.kernels().affine(self, scale, shift)
    }

    // ANCHOR: sum_to_shape
    /// Summed over the axes along which `shape` was broadcast to this array's shape: the adjoint of broadcasting.
    /// Panics if `shape` does not broadcast to this array's shape.
    #[track_caller]
    pub fn sum_to(&self, shape: &Shape) -> Array {
        if self.shape() == shape {
            return self.clone();
        }
        let from = self.shape();
        assert!(shape.broadcast(from).as_ref() == Some(from), "sum_to: {shape} does not broadcast to {from}");
        let missing = from.len() - shape.len();
        let mut sum = self.clone();
        for run in runs((0..from.len()).filter(|&a| a < missing || shape[a - missing] != from[a])).into_iter().rev() {
            sum = sum.kernels().reduce(Reduce::Sum, &sum, run);
        }
        sum.reshape(shape)
    }
    // ANCHOR_END: sum_to_shape

    /// Repeated along axes of size 1 (or missing in front) until the shape is `shape`. Panics if it does not broadcast.
    #[track_caller]
    pub fn broadcast_to(&self, shape: &Shape) -> Array {
        if self.shape() == shape {
            return self.clone();
        }
        let from = self.shape();
        assert!(from.broadcast(shape).as_ref() == Some(shape), "broadcast_to: {from} does not broadcast to {shape}");
        self.kernels().broadcast_to(self, shape)
    }
}

/// Increasing numbers as runs of neighbours: 0, 2, 3 is 0..1, 2..4.
pub(crate) fn runs(axes: impl Iterator<Item = usize>) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for axis in axes {
        match runs.last_mut() {
            Some(run) if run.end == axis => run.end += 1,
            _ => runs.push(axis..axis + 1),
        }
    }
    runs
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:ident) => {
        impl $trait for &Array {
            type Output = Array;

            #[track_caller]
            fn $method(self, other: &Array) -> Array {
                self.binary(Binary::$op, other)
            }
        }
    };
}

operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);

impl Neg for &Array {
    type Output = Array;

    fn neg(self) -> Array {
        self.affine(-1.0, 0.0)
    }
}
