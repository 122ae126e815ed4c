//! (H2) The Fréchet distance between two sets of features.

use super::linalg::{Eigen, product};

/// The Gaussian fitted to a set of features: their mean and covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// The mean m `[d]`.
    pub mean: Vec<f64>,
    /// The covariance C [d, d], row-major, the sum of squares divided by n - 1.
    pub covariance: Vec<f64>,
    /// How many samples there were.
    pub n: usize,
}

impl Moments {
    /// The moments of `features` [n, d], row-major.
    ///
    /// Panics if d is 0, if the count is not a multiple of d, or if n is less than 2.
    #[track_caller]
    pub fn of(features: &[f64], d: usize) -> Moments {
        assert!(d > 0 && features.len().is_multiple_of(d), "moments: {} numbers are not [n, {d}]", features.len());
        let n = features.len() / d;
        assert!(n >= 2, "moments: a covariance needs at least 2 samples, not {n}");
        let mut mean = vec![0.0; d];
        for row in features.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += v / n as f64);
        }
        let mut covariance = vec![0.0; d * d];
        for row in features.chunks_exact(d) {
            // The mean first: sum x x' - n m m' would cancel.
            let centred: Vec<f64> = row.iter().zip(&mean).map(|(v, mean)| v - mean).collect();
            for (to, &a) in covariance.chunks_exact_mut(d).zip(&centred) {
                to.iter_mut().zip(&centred).for_each(|(to, b)| *to += a * b);
            }
        }
        covariance.iter_mut().for_each(|v| *v /= (n - 1) as f64);
        Moments { mean, covariance, n }
    }
}

/// (H2) |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2}): the squared 2-Wasserstein distance of two Gaussians (Heusel et al.,
/// arXiv 1706.08500, eq. 6). 0 if they are the same, and otherwise above; in units of the features squared.
///
/// Between two samples of one distribution it is above 0 too, by about a constant / n: compare only values of the same n,
/// and give the value of real against real data beside them. With singular covariances it is exact to about 1e-8 of
/// their trace, for a rounding of 1e-16 has a root of 1e-8.
///
/// Panics if the dimensions differ, or if a moment is NaN or infinite.
#[track_caller]
pub fn frechet_distance(a: &Moments, b: &Moments) -> f64 {
    let d = a.mean.len();
    assert_eq!(d, b.mean.len(), "frechet_distance: features of {d} and of {} numbers", b.mean.len());
    let means: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    assert!(means.is_finite(), "frechet_distance: the mean holds NaN or infinity");
    // Rounding leaves tiny negative eigenvalues where there should be 0.
    let root = |value: f64| value.max(0.0).sqrt();
    // C1 C2 is not symmetric, but has the eigenvalues of C1^{1/2} C2 C1^{1/2}, which is.
    let root_a = Eigen::of(&a.covariance, d).map(root);
    let inner = product(&product(&root_a, &b.covariance, d), &root_a, d);
    let cross: f64 = Eigen::of(&inner, d).values.iter().map(|&value| root(value)).sum();
    let trace = |moments: &Moments| moments.covariance.iter().step_by(d + 1).sum::<f64>();
    (means + trace(a) + trace(b) - 2.0 * cross).max(0.0)
}
