//! Strides of arrays that are walked together.

use crate::kernels::axes::joined;

/// The most axes that a kernel walks along, after axes that lie together have been joined.
const MOST_AXES: usize = 8;

/// Axes of a walk, joined where they can be: their sizes, and for each of N arrays how far a step along them goes.
#[derive(Debug, PartialEq)]
pub(super) struct Axes<const N: usize> {
    pub sizes: Vec<usize>,
    pub strides: [Vec<usize>; N],
}

impl<const N: usize> Axes<N> {
    /// Panics if more axes are left than a kernel can walk along.
    #[track_caller]
    pub fn new(sizes: &[usize], strides: [Vec<usize>; N]) -> Axes<N> {
        let (sizes, steps): (Vec<usize>, Vec<[usize; N]>) =
            joined(sizes, strides.each_ref().map(Vec::as_slice)).into_iter().unzip();
        let rank = sizes.len();
        assert!(rank <= MOST_AXES, "the GPU walks along at most {MOST_AXES} axes, these sizes need {rank}: {sizes:?}");
        Axes { sizes, strides: std::array::from_fn(|n| steps.iter().map(|step| step[n]).collect()) }
    }

    /// How many axes.
    pub fn rank(&self) -> usize {
        self.sizes.len()
    }
}

/// `numbers` in front, `fill` behind: eight in all.
pub(super) fn eight(numbers: &[usize], fill: usize) -> [usize; MOST_AXES] {
    std::array::from_fn(|i| numbers.get(i).copied().unwrap_or(fill))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::axes::repeated;

    #[test]
    fn axes_that_lie_together_are_joined() {
        let images = [4, 8, 5, 6];
        let channels = Axes::new(&images, [repeated(&images, &images), repeated(&[8, 1, 1], &images)]);
        assert_eq!(channels, Axes { sizes: vec![4, 8, 30], strides: [vec![240, 30, 1], vec![0, 1, 0]] });
        let all = Axes::new(&images, [repeated(&images, &images), repeated(&[], &images)]);
        assert_eq!(all, Axes { sizes: vec![960], strides: [vec![1], vec![0]] });
        assert_eq!(Axes::new(&[1, 1], [vec![5, 7]]).rank(), 0);
    }

    #[test]
    fn a_walk_by_joined_axes_meets_the_same_places() {
        let (sizes, from) = ([2, 1, 3, 4, 5], [2, 1, 1, 4, 5]);
        let strides = repeated(&from, &sizes);
        let places = |sizes: &[usize], strides: &[usize]| -> Vec<usize> {
            (0..120)
                .map(|mut i| {
                    (0..sizes.len()).rev().fold(0, |place, axis| {
                        let at = i % sizes[axis];
                        i /= sizes[axis];
                        place + at * strides[axis]
                    })
                })
                .collect()
        };
        let axes = Axes::new(&sizes, [strides.clone()]);
        assert_eq!(axes.sizes, [2, 3, 20]);
        assert_eq!(places(&axes.sizes, &axes.strides[0]), places(&sizes, &strides));
    }
}
