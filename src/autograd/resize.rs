//! Changing the size of images [B, C, H, W].

use super::Tensor;
use super::graph::op;

impl Tensor {
    // ANCHOR: upsample_nearest
    /// Every pixel as a block of `factor` x `factor`: dx = g summed over the blocks.
    #[track_caller]
    pub fn upsample_nearest(&self, factor: usize) -> Tensor {
        let [..] = self.shape().dims::<4>("upsample_nearest");
        assert!(factor > 0, "upsample_nearest: the factor must be at least 1");
        let k = self.kernels();
        op("upsample_nearest", k.upsample_nearest(&self.value, factor))
            .grad(self, move |g| k.sum_pool(g, factor))
            .done()
    }
    // ANCHOR_END: upsample_nearest

    // ANCHOR: avg_pool2d
    /// Mean of every block of `kernel` x `kernel`: dx = g / kernel^2 repeated. Panics unless the kernel
    /// divides H and W.
    #[track_caller]
    pub fn avg_pool2d(&self, kernel: usize) -> Tensor {
        let [_, _, h, w] = self.shape().dims("avg_pool2d");
        assert!(
            kernel > 0 && h % kernel == 0 && w % kernel == 0,
            "avg_pool2d: {kernel} does not divide height and width of {}",
            self.shape()
        );
        let k = self.kernels();
        let share = 1.0 / (kernel * kernel) as f64;
        op("avg_pool2d", k.sum_pool(&self.value, kernel).affine(share, 0.0))
            .grad(self, move |g| k.upsample_nearest(&g.affine(share, 0.0), kernel))
            .done()
    }
    // ANCHOR_END: avg_pool2d

    /// Resized to `height` x `width` by linear interpolation between pixel centres (corners not aligned):
    /// output pixel i samples the input at (i + 1/2) H / height - 1/2, kept within the image.
    ///
    /// Interpolation is linear in the image and separable, so it is two matrix products, and has their gradients.
    #[track_caller]
    pub fn resize_bilinear(&self, height: usize, width: usize) -> Tensor {
        let [_, _, h, w] = self.shape().dims("resize_bilinear");
        assert!(
            h * w * height * width > 0,
            "resize_bilinear: {} to {height} x {width} has an empty side",
            self.shape()
        );
        let rows = self.constant_like([height, h], &linear_weights(h, height));
        let columns = self.constant_like([width, w], &linear_weights(w, width));
        rows.matmul(self).matmul_t(&columns, false, true)
    }

    /// Resized to `height` x `width` by taking the nearest pixel: output i takes input floor(i H / height).
    #[track_caller]
    pub fn resize_nearest(&self, height: usize, width: usize) -> Tensor {
        let [_, _, h, w] = self.shape().dims("resize_nearest");
        assert!(h * w * height * width > 0, "resize_nearest: {} to {height} x {width} has an empty side", self.shape());
        if height.is_multiple_of(h) && height / h * w == width {
            return self.upsample_nearest(height / h);
        }
        let rows = self.constant_like([height, h], &nearest_weights(h, height));
        let columns = self.constant_like([width, w], &nearest_weights(w, width));
        rows.matmul(self).matmul_t(&columns, false, true)
    }
}

/// [to, from]: row i holds the two weights of output i.
fn linear_weights(from: usize, to: usize) -> Vec<f64> {
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let position = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
        let left = position as usize;
        let fraction = position - left as f64;
        row[left] += 1.0 - fraction;
        row[(left + 1).min(from - 1)] += fraction;
    }
    weights
}

/// [to, from]: row i holds a one at the pixel of output i.
fn nearest_weights(from: usize, to: usize) -> Vec<f64> {
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        row[i * from / to] = 1.0;
    }
    weights
}
