//! Chapter 6, four families of generative models.
//!
//! 6.1 The best discriminator between two Gaussians.
//! 6.2 The best width of a decoder.
//! 6.3 In one dimension every density has a flow.
//! 6.4 One Gaussian for two modes: what each divergence makes of it.

use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::Mixture;
use imagen::diffusion::gaussian::{log_density, normal_cdf};

// ANCHOR: logistic
/// (slope, constant) of the logit of D* between N(m_p, s^2), the data, and N(m_q, s^2).
fn logistic(m_p: f64, m_q: f64, s: f64) -> (f64, f64) {
    ((m_p - m_q) / (s * s), (m_q * m_q - m_p * m_p) / (2.0 * s * s))
}
// ANCHOR_END: logistic

#[test]
fn between_gaussians_of_one_width_the_best_discriminator_is_logistic() {
    for (m_p, m_q, s) in [(1.0, -1.0, 0.7), (0.3, 2.0, 1.5), (0.4, 0.4, 1.0)] {
        let (slope, constant) = logistic(m_p, m_q, s);
        for x in [-3.0, -0.5, 0.0, 1.2, 4.0] {
            let [p, q] = [m_p, m_q].map(|m| log_density(x, m, s * s).exp());
            let d = 1.0 / (1.0 + (-(slope * x + constant)).exp());
            assert!((d - p / (p + q)).abs() < 1e-12);
        }
    }
}

// ANCHOR: best_width
/// The s^2 that makes the mean of log N(x; mean, s^2 I) largest, from the differences x - mean of all numbers of all points.
fn best_variance(differences: &[f64]) -> f64 {
    differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64
}
// ANCHOR_END: best_width

#[test]
fn the_best_width_is_the_root_of_the_mean_squared_error() {
    let differences = [0.3, -0.1, 0.05, 0.4, -0.25, 0.0];
    let best = best_variance(&differences);
    let at = |v: f64| differences.iter().map(|&d| log_density(d, 0.0, v)).sum::<f64>();
    assert!([0.5, 0.9, 0.99, 1.01, 1.1, 2.0].iter().all(|by| at(by * best) < at(best)));
    // and there the loss has no slope in log s^2
    let l = Tensor::leaf(Tensor::scalar(best.ln(), DType::F64).into_array());
    let squares = Tensor::from_f64([6], &differences.map(|d| d * d), DType::F64);
    let loss = (&(&squares * &(-&l).exp()) + &l).sum_all();
    assert!(loss.backward().get(&l).unwrap().to_f64()[0].abs() < 1e-12);
}

// ANCHOR: exact_flow
/// z with Phi(z) = F(x), where F is the distribution function of a mixture of Gaussians of one number; by halving.
fn exact_flow(data: &Mixture, x: f64) -> f64 {
    let below: f64 = data.components.iter().map(|c| c.weight * normal_cdf((x - c.mean[0]) / c.std)).sum();
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < below { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
// ANCHOR_END: exact_flow

// Its slope by central differences; h = 1e-4 is right to about 1e-7 here.
#[test]
fn in_one_dimension_every_density_has_a_flow() {
    let data = Mixture::around(&[vec![-1.0], vec![0.8]], 0.4);
    let h = 1e-4;
    for i in -20..=20 {
        let x = 0.1 * f64::from(i);
        let slope = (exact_flow(&data, x + h) - exact_flow(&data, x - h)) / (2.0 * h);
        let said = log_density(exact_flow(&data, x), 0.0, 1.0) + slope.ln();
        assert!((said - data.log_density(&[x])).abs() < 1e-5, "{x}: {said}");
    }
}

// ANCHOR: two_modes
/// KL(a || b) of two densities of one number, as a sum over a grid.
fn divergence(a: impl Fn(f64) -> f64, b: impl Fn(f64) -> f64) -> f64 {
    let h = 0.02;
    let log_ratio = |x: f64| a(x).exp() * (a(x) - b(x));
    (-500..=500).map(|i| h * log_ratio(h * f64::from(i))).sum()
}

/// The Gaussian that is best for p = N(-m, s^2)/2 + N(m, s^2)/2, as (mean, standard deviation): by KL(p || q), which a
/// likelihood minimises, and by KL(q || p).
fn best_gaussians(m: f64, s: f64) -> [(f64, f64); 2] {
    let p = Mixture::around(&[vec![-m], vec![m]], s);
    let p = |x: f64| p.log_density(&[x]);
    let all = || (0..=30).flat_map(|i| (1..=30).map(move |j| (0.1 * f64::from(i), 0.1 * f64::from(j))));
    let cost = |by: usize, (mean, std): (f64, f64)| {
        let q = |x: f64| log_density(x, mean, std * std);
        if by == 0 { divergence(p, q) } else { divergence(q, p) }
    };
    [0, 1].map(|by| all().min_by(|&a, &b| cost(by, a).total_cmp(&cost(by, b))).unwrap_or_default())
}
// ANCHOR_END: two_modes

#[test]
fn a_likelihood_covers_both_modes_and_the_other_divergence_chooses_one() {
    let [covering, seeking] = best_gaussians(2.0, 0.5);
    // mean and variance of the data: 0 and m^2 + s^2
    assert!(covering.0 == 0.0 && (covering.1 - 4.25_f64.sqrt()).abs() < 0.05, "{covering:?}");
    assert!((seeking.0 - 2.0).abs() < 0.01 && (seeking.1 - 0.5).abs() < 0.01, "{seeking:?}");
}
