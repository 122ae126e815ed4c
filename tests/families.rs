//! The mathematics of the four families of chapter 6, tried on the files of its example.

#[path = "../examples/families/mod.rs"]
mod families;

use families::diffusion::log_likelihood_bound;
use families::flow::RealNvp;
use families::gan::{discriminator_loss, generator_loss, saturating_loss};
use families::measure::{Coverage, bits_per_pixel, mean, ring};
use families::vae::{Vae, kl_from_standard_normal, log_mean_exp, reparameterised};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::diffusion::gaussian::{kl, log_density, normal_cdf};
use imagen::diffusion::{Denoiser, DiscreteSchedule, Exact, Mixture, Target};
use imagen::nn::{Init, Parameters};
use imagen::random::{Purpose, normal};

/// The middles of a fine grid, and the length of a cell.
fn grid() -> (Vec<f64>, f64) {
    let h = 0.02;
    ((-600..=600).map(|i| h * f64::from(i)).collect(), h)
}

/// A density of one number with two modes.
fn two_modes() -> Mixture {
    let mut mixture = Mixture::around(&[vec![-1.0], vec![1.5]], 0.6);
    (mixture.components[0].weight, mixture.components[1].weight) = (0.3, 0.7);
    mixture
}

// ANCHOR: the_mean_log_likelihood_falls_short_by_a_divergence
// E_p log q = -H(p) - KL(p || q), both integrals on a grid; for Gaussians the divergence is known.
#[test]
fn the_mean_log_likelihood_falls_short_by_a_divergence() {
    let (xs, h) = grid();
    let p = |x: f64| log_density(x, 0.5, 0.8);
    let entropy = 0.5 * (std::f64::consts::TAU * 0.8).ln() + 0.5;
    for (m, v) in [(0.5, 0.8), (0.0, 1.0), (-1.0, 0.5), (2.0, 3.0)] {
        let mean_log: f64 = xs.iter().map(|&x| h * p(x).exp() * log_density(x, m, v)).sum();
        let divergence = kl(0.5, 0.8_f64.ln(), m, f64::ln(v));
        assert!((mean_log + entropy + divergence).abs() < 1e-10, "{mean_log}");
        assert!(divergence >= 0.0 && (divergence > 0.0) == ((m, v) != (0.5, 0.8)));
    }
}
// ANCHOR_END: the_mean_log_likelihood_falls_short_by_a_divergence

/// The discriminator's loss on two densities over a grid, as a function of its logit at every place: each half of the
/// loss weighs the places by the density that its points come from.
fn loss_of_logits(logits: &Tensor, p: &Mixture, q: &Mixture) -> Tensor {
    let (xs, h) = grid();
    let mass = |m: &Mixture| xs.iter().map(|&x| h * m.density(&[x])).collect::<Vec<_>>();
    let weighted = |values: Tensor, m: &Mixture| (&values * &logits.constant_like([xs.len()], &mass(m))).sum_all();
    &weighted((-logits).softplus(), p) + &weighted(logits.softplus(), q)
}

// ANCHOR: the_best_discriminator_is_p_over_p_plus_q
// At log p/q the loss has no slope in any place, and every change makes it larger.
#[test]
fn the_best_discriminator_is_p_over_p_plus_q() {
    let (xs, _) = grid();
    let (p, q) = (two_modes(), Mixture::gaussian(&[0.3], 1.2));
    let best: Vec<f64> = xs.iter().map(|&x| p.log_density(&[x]) - q.log_density(&[x])).collect();
    for (&x, logit) in xs.iter().zip(&best).filter(|(x, _)| x.abs() < 5.0) {
        let d = p.density(&[x]) / (p.density(&[x]) + q.density(&[x]));
        assert!((1.0 / (1.0 + (-logit).exp()) - d).abs() < 1e-12);
    }
    let leaf = Tensor::leaf(Array::from_f64([xs.len()], &best, DType::F64));
    let loss = loss_of_logits(&leaf, &p, &q);
    let least = loss.item();
    let gradients = loss.backward();
    assert!(gradients.get(&leaf).unwrap().to_f64().iter().all(|g| g.abs() < 1e-12));
    for seed in 0..20 {
        let moved = normal(seed, Purpose::Test, 0, 0, xs.len());
        let logits: Vec<f64> = best.iter().zip(moved).map(|(b, m)| b + 0.1 * m).collect();
        assert!(loss_of_logits(&Tensor::from_f64([xs.len()], &logits, DType::F64), &p, &q).item() > least);
    }
}
// ANCHOR_END: the_best_discriminator_is_p_over_p_plus_q

// ANCHOR: the_game_at_its_best_is_the_jensen_shannon_divergence
// JS = KL(p || m)/2 + KL(q || m)/2 with m the mixture of both, by its definition; V = minus the discriminator's loss.
#[test]
fn the_game_at_its_best_is_the_jensen_shannon_divergence() {
    let (xs, h) = grid();
    let value = |p: &Mixture, q: &Mixture| {
        let logits: Vec<f64> = xs.iter().map(|&x| p.log_density(&[x]) - q.log_density(&[x])).collect();
        -loss_of_logits(&Tensor::from_f64([xs.len()], &logits, DType::F64), p, q).item()
    };
    let divergence = |p: &Mixture, q: &Mixture| {
        let half = |a: &Mixture| {
            let middle = |x: f64| 0.5 * (p.density(&[x]) + q.density(&[x]));
            let term = |&x: &f64| 0.5 * h * a.density(&[x]) * (a.density(&[x]) / middle(x)).ln();
            xs.iter().filter(|x| a.density(&[**x]) > 1e-300).map(term).sum::<f64>()
        };
        half(p) + half(q)
    };
    let p = two_modes();
    assert!((value(&p, &p) + 4f64.ln()).abs() < 1e-10);
    for (mean, std) in [(0.3, 1.2), (2.0, 0.5), (-4.0, 0.3)] {
        let q = Mixture::gaussian(&[mean], std);
        let js = divergence(&p, &q);
        assert!((value(&p, &q) - (2.0 * js - 4f64.ln())).abs() < 1e-9);
        assert!(js > 0.0 && js < 2f64.ln());
    }
    // apart, the divergence no longer says by how much
    let far = |mean: f64| divergence(&Mixture::gaussian(&[0.0], 0.3), &Mixture::gaussian(&[mean], 0.3));
    for mean in [4.0, 5.0, 6.0] {
        assert!((far(mean) - 2f64.ln()).abs() < 1e-9, "{mean}: {}", far(mean) - 2f64.ln());
    }
}
// ANCHOR_END: the_game_at_its_best_is_the_jensen_shannon_divergence

// ANCHOR: the_generator_is_pushed_where_it_is_found_out
// Slopes in the logit: D - 1 for -log D, and -D for log(1 - D).
#[test]
fn the_generator_is_pushed_where_it_is_found_out() {
    let slope = |loss: fn(&Tensor) -> Tensor, d: f64| {
        let logit = Tensor::leaf(Tensor::scalar((d / (1.0 - d)).ln(), DType::F64).into_array());
        loss(&logit).backward().get(&logit).unwrap().to_f64()[0]
    };
    for d in [1e-6, 0.01, 0.3, 0.5, 0.9] {
        assert!((slope(generator_loss, d) - (d - 1.0)).abs() < 1e-12);
        assert!((slope(saturating_loss, d) + d).abs() < 1e-12);
    }
    // at the end of the game, D = 1/2, both losses and both slopes are those of a coin
    let half = Tensor::scalar(0.0, DType::F64);
    assert!((generator_loss(&half).item() - 2f64.ln()).abs() < 1e-15);
    assert!((discriminator_loss(&half, &half).item() - 4f64.ln()).abs() < 1e-15);
}
// ANCHOR_END: the_generator_is_pushed_where_it_is_found_out

/// Gives a parameter its values.
fn set(parameters: &Parameters, name: &str, values: &[f64]) {
    let param = parameters.iter().find(|p| p.name() == name).unwrap();
    param.update(|p| *p = Array::from_f64(p.shape(), values, DType::F64));
}

// ANCHOR: linear_gaussian
/// x = w z + b + s e in the plane, with z and e from N(0, 1): everything about it is known.
struct LinearGaussian {
    w: [f64; 2],
    b: [f64; 2],
    variance: f64,
}

impl LinearGaussian {
    const KNOWN: LinearGaussian = LinearGaussian { w: [0.8, -0.5], b: [0.1, 0.3], variance: 0.2 };

    fn along(&self, x: &[f64]) -> f64 {
        (0..2).map(|i| self.w[i] * (x[i] - self.b[i])).sum()
    }

    /// s^2 + |w|^2: the variance of x along w.
    fn largest(&self) -> f64 {
        self.variance + self.w[0].powi(2) + self.w[1].powi(2)
    }

    /// log N(x; b, w w' + s^2 I).
    fn log_p(&self, x: &[f64]) -> f64 {
        let square: f64 = (0..2).map(|i| (x[i] - self.b[i]).powi(2)).sum();
        let distance = (square - self.along(x).powi(2) / self.largest()) / self.variance;
        -0.5 * (distance + (self.variance * self.largest()).ln()) - std::f64::consts::TAU.ln()
    }

    /// Mean and variance of p(z|x).
    fn posterior(&self, x: &[f64]) -> [f64; 2] {
        [self.along(x) / self.largest(), self.variance / self.largest()]
    }

    /// A VAE of linear layers with this decoder; its encoder says the posterior, with the mean `off` too large and the
    /// variance multiplied by `wide`.
    fn vae(&self, off: f64, wide: f64) -> Vae {
        let init = Init::new(0, DType::F64);
        let vae = Vae::new(&init, [2, 1], &[], 1e-3, 1);
        let ([w0, w1], [b0, b1], largest) = (self.w, self.b, self.largest());
        let set = |name: &str, values: &[f64]| set(&init.parameters(), name, values);
        set("decoder.0.weight", &[w0, w1]);
        set("decoder.0.bias", &self.b);
        set("log_variance", &[self.variance.ln() + 4.0]);
        set("encoder.0.weight", &[w0 / largest, w1 / largest, 0.0, 0.0]);
        set("encoder.0.bias", &[off - (w0 * b0 + w1 * b1) / largest, (wide * self.variance / largest).ln()]);
        vae
    }
}
// ANCHOR_END: linear_gaussian

// ANCHOR: the_elbo_falls_short_by_the_divergence_of_the_posterior
// In z the reconstruction is a quadratic: the mean of the draws eps = 1 and -1 is its expectation without error.
#[test]
fn the_elbo_falls_short_by_the_divergence_of_the_posterior() {
    let known = LinearGaussian::KNOWN;
    for x in [[0.0, 0.0], [1.0, -0.4], [-2.0, 1.5]] {
        let point = Tensor::from_f64([1, 2], &x, DType::F64);
        for (off, wide) in [(0.0, 1.0), (0.5, 1.0), (0.0, 0.3), (-0.7, 2.5)] {
            let vae = known.vae(off, wide);
            let at = |eps: f64| vae.elbo(&point, &Tensor::from_f64([1, 1], &[eps], DType::F64)).to_f64()[0];
            let elbo = 0.5 * (at(1.0) + at(-1.0));
            let [m, v] = known.posterior(&x);
            let gap = kl(m + off, (wide * v).ln(), m, v.ln());
            assert!((elbo + gap - known.log_p(&x)).abs() < 1e-10, "{elbo} + {gap}: {}", known.log_p(&x));
            assert!((gap > 1e-12) == ((off, wide) != (0.0, 1.0)));
        }
    }
}
// ANCHOR_END: the_elbo_falls_short_by_the_divergence_of_the_posterior

// ANCHOR: with_the_exact_posterior_every_draw_says_log_p
#[test]
fn with_the_exact_posterior_every_draw_says_log_p() {
    let (known, x) = (LinearGaussian::KNOWN, [0.7, -1.1]);
    let vae = known.vae(0.0, 1.0);
    for eps in [-3.0, -0.2, 0.0, 1.7] {
        let draw = Tensor::from_f64([1, 1], &[eps], DType::F64);
        let weight = vae.log_weight(&Tensor::from_f64([1, 2], &x, DType::F64), &draw).to_f64()[0];
        assert!((weight - known.log_p(&x)).abs() < 1e-10);
    }
}
// ANCHOR_END: with_the_exact_posterior_every_draw_says_log_p

// ANCHOR: more_draws_never_loosen_the_bound
// Groups of 1, 2, 4, .. of the same 8192 draws: Jensen's inequality holds for every pair of groups, so the means rise
// without exception. Below log p they are in expectation: within 5 standard errors.
#[test]
fn more_draws_never_loosen_the_bound() {
    let (known, x, n) = (LinearGaussian::KNOWN, [0.7, -1.1], 8192);
    let vae = known.vae(0.6, 1.8);
    let points = Tensor::from_f64([n, 2], &x.repeat(n), DType::F64);
    let eps = Tensor::from_f64([n, 1], &normal(1, Purpose::Test, 0, 0, n), DType::F64);
    let weights = vae.log_weight(&points, &eps).to_f64();
    let (mut before, first) = (f64::NEG_INFINITY, mean(&weights).0);
    for k in [1, 2, 4, 8, 16, 32, 64] {
        let bounds: Vec<f64> = weights.chunks(k).map(|group| log_mean_exp(group.iter().copied())).collect();
        let (bound, error) = mean(&bounds);
        assert!(bound > before && bound < known.log_p(&x) + 5.0 * error, "k = {k}: {bound} +- {error}");
        before = bound;
    }
    // and the mean of the weights themselves is p(x)
    let (p, error) = mean(&weights.iter().map(|w| w.exp()).collect::<Vec<_>>());
    assert!((p - known.log_p(&x).exp()).abs() < 5.0 * error);
    let missing = |bound: f64| known.log_p(&x) - bound;
    assert!(missing(before) < 0.1 * missing(first), "{} and {}", missing(before), missing(first));
}
// ANCHOR_END: more_draws_never_loosen_the_bound

// ANCHOR: the_divergence_from_a_standard_normal_in_closed_form
// By an integral over z on a grid, one dimension at a time: divergences of independent numbers add.
#[test]
fn the_divergence_from_a_standard_normal_in_closed_form() {
    let (zs, h) = grid();
    let (m, l) = ([0.4, -1.0, 0.0], [0.3, -0.8, 0.0]);
    let integral = |m: f64, l: f64| {
        let term = |&z: &f64| {
            let log_q = log_density(z, m, l.exp());
            h * log_q.exp() * (log_q - log_density(z, 0.0, 1.0))
        };
        zs.iter().map(term).sum::<f64>()
    };
    let expected: f64 = (0..3).map(|i| integral(m[i], l[i])).sum();
    let [m, l] = [m, l].map(|values| Tensor::from_f64([1, 3], &values, DType::F64));
    assert!((kl_from_standard_normal(&m, &l).to_f64()[0] - expected).abs() < 1e-10);
}
// ANCHOR_END: the_divergence_from_a_standard_normal_in_closed_form

// ANCHOR: a_draw_has_a_gradient
// E z^2 = m^2 + e^l for z = m + e^{l/2} eps: slopes 2m and e^l. Draws 1 and -1 have the moments of eps that count here.
#[test]
fn a_draw_has_a_gradient() {
    let [m, l] = [0.7, -0.4].map(|v| Tensor::leaf(Array::from_f64([1], &[v], DType::F64)));
    let draw = |eps: f64| reparameterised(&m, &l, &Tensor::from_f64([1], &[eps], DType::F64)).square();
    let expected = (&draw(1.0) + &draw(-1.0)).affine(0.5, 0.0).sum_all();
    assert!((expected.item() - (0.49 + (-0.4_f64).exp())).abs() < 1e-12);
    let gradients = expected.backward();
    let slope = |x: &Tensor| gradients.get(x).unwrap().to_f64()[0];
    assert!((slope(&m) - 1.4).abs() < 1e-12 && (slope(&l) - (-0.4_f64).exp()).abs() < 1e-12);
}
// ANCHOR_END: a_draw_has_a_gradient

// ANCHOR: shaken
/// A flow of four couplings whose networks say something: no weight is 0.
fn shaken(size: usize, seed: u64, by: f64) -> RealNvp {
    let init = Init::new(seed, DType::F64);
    let flow = RealNvp::new(&init, [size, 4, 6], DType::F64, 1e-3, 1);
    for (i, param) in init.parameters().iter().enumerate() {
        let values = normal(seed, Purpose::Test, 1, i as u64, param.shape().numel());
        let values: Vec<f64> = values.iter().map(|v| by * v).collect();
        param.update(|p| *p = Array::from_f64(p.shape(), &values, DType::F64));
    }
    flow
}

fn row(values: &[f64]) -> Tensor {
    Tensor::from_f64([1, values.len()], values, DType::F64)
}
// ANCHOR_END: shaken

// ANCHOR: the_inverse_undoes_the_flow
#[test]
fn the_inverse_undoes_the_flow() {
    for (size, seed) in [(2, 1), (4, 2), (10, 3)] {
        let flow = shaken(size, seed, 0.4);
        let x = Tensor::from_f64([50, size], &normal(seed, Purpose::Test, 0, 0, 50 * size), DType::F64);
        let (z, _) = flow.to_noise(&x);
        let moved = (&z - &x).to_f64().iter().fold(0.0_f64, |most, d| most.max(d.abs()));
        assert!(moved > 0.1, "a flow that does nothing proves nothing");
        for (back, x) in flow.to_data(&z).to_f64().iter().zip(x.to_f64()) {
            assert!((back - x).abs() < 1e-12);
        }
        let there = flow.to_noise(&flow.to_data(&x)).0;
        assert!((&there - &x).to_f64().iter().all(|d| d.abs() < 1e-12));
    }
}
// ANCHOR_END: the_inverse_undoes_the_flow

/// The determinant of a square matrix of `n` rows, by elimination.
fn determinant(mut m: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for k in 0..n {
        let pivot = (k..n).max_by(|&a, &b| m[a * n + k].abs().total_cmp(&m[b * n + k].abs())).unwrap();
        if pivot != k {
            (0..n).for_each(|j| m.swap(k * n + j, pivot * n + j));
            product = -product;
        }
        product *= m[k * n + k];
        for i in k + 1..n {
            let factor = m[i * n + k] / m[k * n + k];
            (k..n).for_each(|j| m[i * n + j] -= factor * m[k * n + j]);
        }
    }
    product
}

// ANCHOR: the_log_determinant_is_that_of_all_slopes
// Central differences with h = 1e-6: waves of ten times x cost 1e-9, rounding 1e-10.
#[test]
fn the_log_determinant_is_that_of_all_slopes() {
    for (size, seed) in [(2, 4), (4, 5), (6, 6)] {
        let flow = shaken(size, seed, 0.4);
        let x = normal(seed, Purpose::Test, 0, 0, size);
        let h = 1e-6;
        let column = |j: usize| {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[j] += by;
                flow.to_noise(&row(&x)).0.to_f64()
            };
            moved(h).iter().zip(moved(-h)).map(|(up, down)| (up - down) / (2.0 * h)).collect::<Vec<f64>>()
        };
        let transposed: Vec<f64> = (0..size).flat_map(column).collect();
        let expected = determinant(transposed, size).abs().ln();
        let said = flow.to_noise(&row(&x)).1.to_f64()[0];
        assert!((said - expected).abs() < 1e-7, "{said} and {expected}");
        assert!(said.abs() > 0.01);
    }
}
// ANCHOR_END: the_log_determinant_is_that_of_all_slopes

// ANCHOR: the_density_of_the_flow_integrates_to_one
// The middles of 600 x 600 cells over [-9, 9]^2.
#[test]
fn the_density_of_the_flow_integrates_to_one() {
    let (cells, side) = (600, 9.0);
    let h = 2.0 * side / cells as f64;
    let at = |i: usize| h * (i as f64 + 0.5) - side;
    let places: Vec<f64> = (0..cells * cells).flat_map(|i| [at(i % cells), at(i / cells)]).collect();
    let places = Tensor::from_f64([cells * cells, 2], &places, DType::F64);
    for seed in [7, 8] {
        let log_p = no_grad(|| shaken(2, seed, 0.15).log_density(&places)).to_f64();
        let total: f64 = log_p.iter().map(|l| h * h * l.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
    }
}
// ANCHOR_END: the_density_of_the_flow_integrates_to_one

/// The perfect model of known data.
struct Perfect<'a>(Exact<'a>);

impl Denoiser for Perfect<'_> {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, t: &[f64], (): &()) -> Tensor {
        self.0.predict(x_t, t, &None)
    }
}

// ANCHOR: the_bound_of_diffusion_is_below_log_p_and_closes_with_steps
// 500 points of two modes in the plane, the perfect model. What is missing is a mean of independent numbers: 5 standard
// errors around 0 are allowed above.
#[test]
fn the_bound_of_diffusion_is_below_log_p_and_closes_with_steps() {
    let data = Mixture::around(&[vec![-0.6, 0.0], vec![0.6, 0.3]], 0.3);
    let points: Vec<f64> = (0..500).flat_map(|i| data.sample(1, i)).collect();
    let x = Tensor::from_f64([500, 2], &points, DType::F64);
    let log_p: Vec<f64> = points.chunks(2).map(|x| data.log_density(x)).collect();
    let missing = |steps: usize| {
        let schedule = DiscreteSchedule::linear(steps);
        let model = Perfect(Exact { data: data.clone(), schedule: &schedule });
        let bound = log_likelihood_bound(&model, Target::Eps, &schedule, &x, 2);
        mean(&log_p.iter().zip(bound).map(|(log_p, bound)| log_p - bound).collect::<Vec<_>>())
    };
    let gaps = [25, 100, 400].map(missing);
    for (gap, error) in gaps {
        assert!(gap > -5.0 * error, "{gap} +- {error}");
    }
    assert!(gaps[0].0 > 2.0 * gaps[1].0 && gaps[1].0 > gaps[2].0, "{gaps:?}");
    assert!(gaps[2].0 < 0.1, "{gaps:?}");
}
// ANCHOR_END: the_bound_of_diffusion_is_below_log_p_and_closes_with_steps

// ANCHOR: a_level_is_as_probable_as_its_piece_of_the_line
// A density of y = (level + u) / 128 - 1 with u even in [0, 1): the mean of its log over u bounds the log of the level's
// probability, which is the mass of the piece.
#[test]
fn a_level_is_as_probable_as_its_piece_of_the_line() {
    let (m, std) = (0.2, 0.05);
    for level in [120, 150, 153, 160] {
        let edges = [level, level + 1].map(|l| normal_cdf((f64::from(l) / 128.0 - 1.0 - m) / std));
        let exact = -(edges[1] - edges[0]).log2();
        let at = |i: i32| log_density((f64::from(level) + (f64::from(i) + 0.5) / 1000.0) / 128.0 - 1.0, m, std * std);
        let bits = bits_per_pixel((0..1000).map(at).sum::<f64>() / 1000.0, 1);
        assert!(bits >= exact && bits - exact < 0.05, "{bits} and {exact}");
    }
    // a density that knows nothing: 1/2 everywhere in [-1, 1)
    assert!((bits_per_pixel(10.0 * 0.5_f64.ln(), 10) - 8.0).abs() < 1e-12);
}
// ANCHOR_END: a_level_is_as_probable_as_its_piece_of_the_line

// ANCHOR: the_data_hit_all_their_modes
// Real points are good but for 1 %, and hit everything; points of three modes hit three; points between the modes are bad.
#[test]
fn the_data_hit_all_their_modes() {
    let data = ring();
    let real: Vec<f64> = (0..4000).flat_map(|i| data.sample(5, i)).collect();
    let found = Coverage::of(&data, &real);
    // 5 standard errors of a share of 1 %, in either sample
    assert!(found.hit() == 8 && (found.good - 0.99).abs() < 5.0 * (0.01 / 4000.0_f64).sqrt() * 1.4);
    let three: Vec<f64> = (0..4000).flat_map(|i| data.given(i as usize % 3).sample(5, i)).collect();
    assert_eq!(Coverage::of(&data, &three).hit(), 3);
    let between = Coverage::of(&data, &[0.0, 0.0, 0.7, 0.29, 0.5, 0.0]);
    assert!(between.hit() == 0 && between.good == 0.0);
}
// ANCHOR_END: the_data_hit_all_their_modes
