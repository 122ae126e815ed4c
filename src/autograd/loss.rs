//! Losses: scalars to descend on.

use super::Tensor;

impl Tensor {
    /// mean((a - b)^2) over everything. Panics if the shapes differ: broadcasting here has hidden many bugs.
    #[track_caller]
    pub fn mse(&self, target: &Tensor) -> Tensor {
        assert_eq!(self.shape(), target.shape(), "mse: prediction and target differ in shape");
        (self - target).square().mean_all()
    }

    // ANCHOR: cross_entropy
    /// Mean of `-log softmax(x)[class]` over samples: logits [N, K] or, as PyTorch has it, [N, K, ..] with one class per
    /// remaining position, in row-major order of [N, ..]. Panics unless there is one class per position, each below K.
    #[track_caller]
    pub fn cross_entropy(&self, classes: &[u32]) -> Tensor {
        let shape = self.shape();
        assert!(shape.len() >= 2, "cross_entropy: needs logits [N, K, ..], found {shape}");
        let (n, k, rest) = shape.around(1);
        assert_eq!(classes.len(), n * rest, "cross_entropy: logits {shape} need {} classes", n * rest);
        let worst = classes.iter().max().map_or(0, |&c| c as usize);
        assert!(worst < k, "cross_entropy: class {worst} does not exist in logits {shape}");
        let mut chosen = vec![0.0; n * k * rest];
        for (i, &class) in classes.iter().enumerate() {
            chosen[(i / rest * k + class as usize) * rest + i % rest] = -1.0 / classes.len() as f64;
        }
        (&self.log_softmax(1) * &self.constant_like(shape, &chosen)).sum_all()
    }
    // ANCHOR_END: cross_entropy
}
