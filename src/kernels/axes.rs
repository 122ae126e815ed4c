//! How arrays of different shapes are walked together: axis by axis, as few as possible.

use crate::array::Shape;

/// Axes of a walk over `sizes` in which array n goes `strides[n][axis]` numbers a step: (size, steps), outermost first. Axes
/// of size 1 are left out, and neighbouring ones are joined where every array allows it, so that common cases become few: equal
/// shapes are one axis, [C, 1, 1] against [B, C, H, W] is three.
pub(super) fn joined<const N: usize>(sizes: &[usize], strides: [&[usize]; N]) -> Vec<(usize, [usize; N])> {
    let mut axes: Vec<(usize, [usize; N])> = Vec::new();
    for (axis, &size) in sizes.iter().enumerate().filter(|&(_, &size)| size != 1) {
        let step = strides.map(|strides| strides[axis]);
        match axes.last_mut() {
            Some((outer_size, outer)) if (0..N).all(|n| outer[n] == step[n] * size) => {
                *outer_size *= size;
                *outer = step;
            }
            _ => axes.push((size, step)),
        }
    }
    axes
}

/// How far a step along each axis of `shape` goes in an array of shape `from` that is repeated to it: 0 along repeated axes.
pub(super) fn repeated(from: &[usize], shape: &[usize]) -> Vec<usize> {
    let missing = shape.len() - from.len();
    let mut strides = vec![0; missing];
    strides.extend(Shape::from(from).strides().iter().zip(from).map(|(&stride, &n)| if n == 1 { 0 } else { stride }));
    strides
}
