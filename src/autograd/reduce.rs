//! Reductions over axes.

use super::Tensor;
use super::graph::op;
use crate::array::Shape;
use crate::kernels::{Binary, Reduce, runs};

impl Tensor {
    // ANCHOR: sum
    /// Sum over `axes` (-1 is the last), which keep size 1 if `keep`. dx = g repeated. Panics if an axis does not exist.
    #[track_caller]
    pub fn sum(&self, axes: &[isize], keep: bool) -> Tensor {
        let (kept, result) = reduced_shapes(self.shape(), axes, keep);
        let shape = self.shape().clone();
        op("sum", self.value.sum_to(&kept).reshape(result))
            .grad(self, move |g| g.reshape(kept).broadcast_to(&shape))
            .done()
    }
    // ANCHOR_END: sum

    /// Mean over `axes` (-1 is the last), which keep size 1 if `keep`.
    #[track_caller]
    pub fn mean(&self, axes: &[isize], keep: bool) -> Tensor {
        let (kept, _) = reduced_shapes(self.shape(), axes, keep);
        &self.sum(axes, keep) * (kept.numel() as f64 / self.numel() as f64)
    }

    /// Sum of all numbers, as a scalar.
    pub fn sum_all(&self) -> Tensor {
        self.reshape([self.numel()]).sum(&[0], false)
    }

    /// Mean of all numbers, as a scalar.
    pub fn mean_all(&self) -> Tensor {
        &self.sum_all() * (1.0 / self.numel() as f64)
    }

    /// Variance over `axes`, divided by the count: mean((x - mean)^2).
    #[track_caller]
    pub fn var(&self, axes: &[isize], keep: bool) -> Tensor {
        (self - &self.mean(axes, true)).square().mean(axes, keep)
    }

    // ANCHOR: max
    /// Largest number along `axes`. Where several are equally large the gradient is shared equally among them.
    #[track_caller]
    pub fn max(&self, axes: &[isize], keep: bool) -> Tensor {
        let (kept, result) = reduced_shapes(self.shape(), axes, keep);
        let mut y = self.value.clone();
        for run in runs((0..kept.len()).filter(|&a| kept[a] != self.shape()[a])).into_iter().rev() {
            y = y.kernels().reduce(Reduce::Max, &y, run);
        }
        let (x, largest) = (self.value.clone(), y.clone());
        op("max", y.reshape(result))
            .grad(self, move |g| {
                let winners = x.binary(Binary::Equal, &largest);
                let share = &g.reshape(kept.clone()) / &winners.sum_to(&kept);
                &winners * &share
            })
            .done()
    }
    // ANCHOR_END: max
}

/// The shape with size 1 along `axes`, and the shape of the result.
#[track_caller]
fn reduced_shapes(shape: &Shape, axes: &[isize], keep: bool) -> (Shape, Shape) {
    let axes: Vec<usize> = axes.iter().map(|&axis| shape.axis(axis)).collect();
    let kept: Vec<usize> = shape.iter().enumerate().map(|(a, &n)| if axes.contains(&a) { 1 } else { n }).collect();
    let left: Vec<usize> = shape.iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, &n)| n).collect();
    (kept.clone().into(), if keep { kept.into() } else { left.into() })
}
