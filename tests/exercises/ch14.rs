//! Chapter 14, thresholding.
//!
//! 14.1 From which weight on does a pixel leave the range?
//! 14.2 Find a percentile without sorting.
//! 14.3 Rescale the guided image instead.
//! 14.4 One percentile for a whole batch, and what is wrong with it.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::Threshold;
use imagen::random::{Purpose, normal};

// ANCHOR: leaves_at
/// The weight w >= 1 at which a pixel of the guided guess reaches the end of [-1, 1]; infinite if it never does.
fn leaves_at(with: f64, without: f64) -> f64 {
    let towards = with - without;
    if towards == 0.0 { f64::INFINITY } else { (towards.signum() - without) / towards }
}
// ANCHOR_END: leaves_at

#[test]
fn a_pixel_is_at_the_end_there() {
    for (with, without) in [(0.5525, 0.077), (-0.9, 0.3), (0.2, 0.9), (1.0, -1.0)] {
        let w = leaves_at(with, without);
        assert!(w >= 1.0);
        assert!(((without + w * (with - without)).abs() - 1.0).abs() < 1e-12);
        assert!((without + 1.01 * w * (with - without)).abs() > 1.0);
    }
    assert!((leaves_at(0.5525, 0.077) - 1.941).abs() < 1e-3);
    assert_eq!(leaves_at(0.4, 0.4), f64::INFINITY);
}

// ANCHOR: selected
/// The percentile of |x|, as dynamic thresholding takes it, without putting all numbers in order.
fn selected(x: &[f64], percentile: f64) -> f64 {
    let mut sizes: Vec<f64> = x.iter().map(|x| x.abs()).collect();
    let position = percentile / 100.0 * (sizes.len() - 1) as f64;
    let (_, &mut below, larger) = sizes.select_nth_unstable_by(position.floor() as usize, f64::total_cmp);
    // its neighbour in order is the least of those that are larger
    let above = larger.iter().copied().fold(f64::INFINITY, f64::min);
    if position.fract() == 0.0 { below } else { below + (above - below) * position.fract() }
}
// ANCHOR_END: selected

fn image(x: &[f64]) -> Tensor {
    Tensor::from_f64([1, 1, 1, x.len()], x, DType::F64)
}

#[test]
fn selecting_finds_the_same_percentile() {
    for n in [1, 2, 10, 201, 784] {
        // all are above 1, so s is the percentile
        let x: Vec<f64> =
            normal(1, Purpose::Test, 0, n as u64, n).iter().map(|x| x.signum() * (2.0 + x.abs())).collect();
        for percentile in [0.5, 50.0, 80.0, 99.5, 100.0] {
            let (_, s) = Threshold::dynamic(percentile).apply(&image(&x));
            assert!((selected(&x, percentile) - s[0]).abs() < 1e-14);
        }
    }
}

/// The standard deviation of the pixels.
fn deviation(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
}

// ANCHOR: rescaled
/// The guided guess, with the standard deviation that the guess with words has; `share` in [0, 1] of that, and the rest as it is.
fn rescaled(with: &[f64], without: &[f64], w: f64, share: f64) -> Vec<f64> {
    let guided: Vec<f64> = with.iter().zip(without).map(|(with, without)| without + w * (with - without)).collect();
    let factor = deviation(with) / deviation(&guided);
    guided.iter().map(|x| x * (share * factor + 1.0 - share)).collect()
}
// ANCHOR_END: rescaled

#[test]
fn rescaling_keeps_the_contrast_of_the_guess_with_words() {
    let with: Vec<f64> = normal(2, Purpose::Test, 0, 0, 400).iter().map(|x| 0.4 * x).collect();
    let without: Vec<f64> = normal(2, Purpose::Test, 0, 1, 400).iter().map(|x| 0.2 * x).collect();
    for w in [1.0, 4.0, 10.0] {
        assert!((deviation(&rescaled(&with, &without, w, 1.0)) - deviation(&with)).abs() < 1e-12);
        let half = deviation(&rescaled(&with, &without, w, 0.5));
        let mean = 0.5 * (deviation(&with) + deviation(&rescaled(&with, &without, w, 0.0)));
        assert!((half - mean).abs() < 1e-12);
    }
    // an image with one extreme pixel keeps it: contrast is no bound
    let (mut with, without) = (vec![0.0; 100], vec![0.0; 100]);
    with[7] = 1.0;
    with[8] = -0.1;
    assert!(rescaled(&with, &without, 4.0, 0.9)[7] > 1.0);
}

// ANCHOR: of_the_batch
/// Dynamic thresholding with one s for all images of a batch [B, ..].
fn of_the_batch(x0: &Tensor, percentile: f64) -> Tensor {
    let together = x0.reshape([1, x0.numel()]);
    Threshold::dynamic(percentile).apply(&together).0.reshape(x0.shape())
}
// ANCHOR_END: of_the_batch

#[test]
fn with_one_percentile_an_image_depends_on_its_neighbour() {
    let quiet: Vec<f64> = normal(3, Purpose::Test, 0, 0, 64).iter().map(|x| 0.5 * x).collect();
    let beside = |factor: f64| {
        let other = quiet.iter().rev().map(|x| factor * x);
        Tensor::from_f64([2, 1, 8, 8], &quiet.iter().copied().chain(other).collect::<Vec<_>>(), DType::F64)
    };
    let first = |x: &Tensor| x.to_f64()[..64].to_vec();
    let (calm, loud) = (beside(1.0), beside(6.0));
    assert_ne!(first(&of_the_batch(&calm, 95.0)), first(&of_the_batch(&loud, 95.0)));
    let each = Threshold::dynamic(95.0);
    assert_eq!(first(&each.apply(&calm).0), first(&each.apply(&loud).0));
}
