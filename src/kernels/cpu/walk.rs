//! Walking over broadcast or permuted operands in the order of the result, in runs as long as possible.

use crate::array::Shape;
use crate::kernels::axes::{joined, repeated};

/// Where `N` operands are read while a result of some shape is written from front to back.
///
/// Neighbouring axes are merged where every operand allows it, so that common cases become few, long runs: equal
/// shapes are one run, a scalar operand is one run, [C, 1, 1] against [B, C, H, W] is runs of H W.
pub(super) struct Walk<const N: usize> {
    /// Outer axes, outermost first: size and the distance each operand moves per step.
    outer: Vec<(usize, [usize; N])>,
    /// The innermost axis: length of a run.
    pub run: usize,
    /// How far each operand moves within a run: 0 for a constant, 1 for neighbours.
    pub step: [usize; N],
}

impl<const N: usize> Walk<N> {
    /// A walk over `sizes`, where operand k moves `strides[k][axis]` per step along an axis.
    pub fn new(sizes: &[usize], strides: [&[usize]; N]) -> Walk<N> {
        let mut axes = joined(sizes, strides);
        let (run, step) = axes.pop().unwrap_or((1, [1; N]));
        Walk { outer: axes, run, step }
    }

    /// A walk over operands of the given shapes as they broadcast to `shape`.
    pub fn broadcast(shape: &Shape, operands: [&Shape; N]) -> Walk<N> {
        let strides = operands.map(|operand| repeated(operand, shape));
        Walk::new(shape, strides.each_ref().map(Vec::as_slice))
    }

    /// Size of the axis around a run and the distance each operand moves along it; a single step if there is none.
    pub fn around_run(&self) -> (usize, [usize; N]) {
        self.outer.last().copied().unwrap_or((1, [0; N]))
    }

    /// Where each operand's run number `index` starts.
    pub fn start(&self, mut index: usize) -> [usize; N] {
        let mut at = [0; N];
        for (size, step) in self.outer.iter().rev() {
            let i = index % size;
            index /= size;
            at.iter_mut().zip(step).for_each(|(at, step)| *at += i * step);
        }
        at
    }

    /// Calls `work(part, starts)` for the parts of runs that make up the piece `out`, whose first number is number
    /// `first` of the result. `starts` says where each operand begins.
    pub fn over<T>(&self, out: &mut [T], first: usize, mut work: impl FnMut(&mut [T], [usize; N])) {
        let (mut index, mut skip) = (first / self.run, first % self.run);
        let mut rest = out;
        while !rest.is_empty() {
            let (part, after) = rest.split_at_mut((self.run - skip).min(rest.len()));
            let mut at = self.start(index);
            at.iter_mut().zip(&self.step).for_each(|(at, step)| *at += skip * step);
            work(part, at);
            (rest, skip, index) = (after, 0, index + 1);
        }
    }
}
