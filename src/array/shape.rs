//! Shapes: sizes along each axis, outermost first.

use std::fmt;
use std::ops::Deref;

/// Sizes along each axis, outermost first. Images are [B, C, H, W]. A scalar has no axes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// How many numbers an array of this shape holds: the product of the sizes, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.0.iter().product()
    }

    // ANCHOR: strides
    /// Distance in memory between neighbours along each axis, in numbers (not bytes).
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.len()];
        for axis in (1..self.len()).rev() {
            strides[axis - 1] = strides[axis] * self[axis];
        }
        strides
    }
    // ANCHOR_END: strides

    // ANCHOR: broadcast
    /// The shape two operands of an elementwise op have together: axes are matched from the last one, and sizes must
    /// be equal or one of them 1. `None` if they do not fit.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.len().max(other.len());
        let size = |shape: &Shape, axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |a| shape[a]);
        (0..rank)
            .map(|axis| match (size(self, axis), size(other, axis)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }
    // ANCHOR_END: broadcast

    /// The axis meant by `axis`, where -1 is the last one. Panics if there is no such axis.
    #[track_caller]
    pub fn axis(&self, axis: isize) -> usize {
        let resolved = if axis < 0 { axis + self.len() as isize } else { axis };
        assert!((0..self.len() as isize).contains(&resolved), "axis {axis} of shape {self} does not exist");
        resolved as usize
    }

    /// (product of the sizes before `axis`, size of `axis`, product of the sizes after it). Panics if there is no such axis.
    pub fn around(&self, axis: usize) -> (usize, usize, usize) {
        (self[..axis].iter().product(), self[axis], self[axis + 1..].iter().product())
    }

    /// This shape with the size of one axis replaced. Panics if there is no such axis.
    pub fn with(&self, axis: usize, size: usize) -> Shape {
        let mut sizes = self.0.clone();
        sizes[axis] = size;
        Shape(sizes)
    }

    /// This shape without one axis. Panics if there is no such axis.
    pub fn without(&self, axis: usize) -> Shape {
        let mut sizes = self.0.clone();
        sizes.remove(axis);
        Shape(sizes)
    }

    /// The sizes of a shape with exactly `N` axes. Panics, naming `what`, if it has more or fewer.
    #[track_caller]
    pub fn dims<const N: usize>(&self, what: &str) -> [usize; N] {
        // Not unwrap_or_else: a panic inside a closure would name this line, not the caller's.
        let Ok(sizes) = self.0.as_slice().try_into() else { panic!("{what}: expected {N} axes, found shape {self}") };
        sizes
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Shape {
        Shape(sizes)
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Shape {
        Shape(sizes.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Shape {
        Shape(sizes.to_vec())
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Shape {
        shape.clone()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, size) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
