//! C. The variational bound, and the simple loss that is left of it.

mod closed_form;

use closed_form::{assert_all_close, assert_close, assert_expectation, tensor};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::diffusion::gaussian::{
    LEVELS, bits_per_dimension, discretised_log_probability, kl, level_value, log_density, normal_cdf,
};
use imagen::diffusion::posterior::mean_from_eps;
use imagen::diffusion::weighting::bound_weight;
use imagen::diffusion::{
    DiscreteSchedule, Levels, Posterior, Schedule, ScheduleConfig, Target, Weighting, loss, q_sample,
};
use imagen::random::{Purpose, normal, stream};
use proptest::prelude::*;
use rand::RngExt;

/// Data N(m, s^2) and a chain short enough to write every term of its bound down.
struct GaussianChain {
    m: f64,
    s: f64,
    schedule: DiscreteSchedule,
}

/// A model of the reverse chain: every step's mean is off by `mean_error`, its variance by the factor `variance_factor`.
#[derive(Clone, Copy)]
struct Model {
    mean_error: f64,
    variance_factor: f64,
}

const EXACT: Model = Model { mean_error: 0.0, variance_factor: 1.0 };

impl GaussianChain {
    fn new() -> GaussianChain {
        GaussianChain { m: 0.3, s: 0.5, schedule: DiscreteSchedule::linear(25) }
    }

    /// (mean, variance) of q(x_i).
    fn marginal(&self, i: usize) -> (f64, f64) {
        let alpha_bar = self.schedule.alpha_bars()[i];
        (alpha_bar.sqrt() * self.m, alpha_bar * self.s * self.s + 1.0 - alpha_bar)
    }

    /// (gain, variance) of x_0 given x_i: E[x_0 | x_i] = m + gain (x_i - E x_i).
    fn image_given(&self, i: usize) -> (f64, f64) {
        let root = self.schedule.alpha_bars()[i].sqrt();
        let gain = root * self.s * self.s / self.marginal(i).1;
        (gain, self.s * self.s * (1.0 - gain * root))
    }

    /// (mean, variance) of the model's p(x_{i-1} | x_i).
    fn reverse(&self, model: Model, i: usize, x_i: f64) -> (f64, f64) {
        let q = Posterior::of_step(&self.schedule, i);
        let (gain, variance) = self.image_given(i);
        let x0_hat = self.m + gain * (x_i - self.marginal(i).0);
        let exact = q.variance + q.coef_x0.powi(2) * variance;
        (q.mean_of(x0_hat, x_i) + model.mean_error, exact * model.variance_factor)
    }

    /// -log N(x_0; m, s^2) in expectation over the data: what the bound bounds.
    fn entropy(&self) -> f64 {
        -log_density(self.m, self.m, self.s * self.s) + 0.5
    }

    /// E_q[L_T + sum L_{i-1} + L_0], every term in closed form.
    fn bound(&self, model: Model) -> f64 {
        let steps = self.schedule.steps();
        // E over x_0 of (sqrt(alpha_bar) x_0 - prior mean)^2 is alpha_bar s^2
        let alpha_bar = self.schedule.alpha_bars()[steps];
        let (_, prior) = self.marginal(steps);
        let l_prior = kl(0.0, (1.0 - alpha_bar).ln(), 0.0, prior.ln()) + alpha_bar * self.s * self.s / (2.0 * prior);

        let l_steps = (2..=steps).map(|i| {
            let q = Posterior::of_step(&self.schedule, i);
            let (_, variance) = self.reverse(model, i, 0.0);
            // mu_tilde - mu_theta = coef_x0 (x_0 - E[x_0 | x_i]) - mean_error, and the first part has mean 0
            let squared_error = q.coef_x0.powi(2) * self.image_given(i).1 + model.mean_error.powi(2);
            kl(0.0, q.variance.ln(), 0.0, variance.ln()) + squared_error / (2.0 * variance)
        });

        let (_, variance) = self.reverse(model, 1, 0.0);
        let l_0 =
            -log_density(0.0, 0.0, variance) + (self.image_given(1).1 + model.mean_error.powi(2)) / (2.0 * variance);
        l_prior + l_steps.sum::<f64>() + l_0
    }

    /// A trajectory x_0, x_1, .., x_T of q and -log p(x_{0:T}) / q(x_{1:T} | x_0), the bound before it is telescoped.
    fn untelescoped(&self, model: Model, index: u64) -> (f64, f64) {
        let steps = self.schedule.steps();
        let z = normal(3, Purpose::Test, 0, index, steps + 1);
        let x0 = self.m + self.s * z[0];
        let (mut x, mut total) = (x0, 0.0);
        for (i, &z) in z.iter().enumerate().skip(1) {
            let beta = self.schedule.betas()[i - 1];
            let next = (1.0 - beta).sqrt() * x + beta.sqrt() * z;
            let (mean, variance) = self.reverse(model, i, next);
            total += log_density(next, (1.0 - beta).sqrt() * x, beta) - log_density(x, mean, variance);
            x = next;
        }
        let (mean, variance) = self.marginal(steps);
        (x0, total - log_density(x, mean, variance))
    }
}

// C1  E[-log p(x_0)] <= E_q[KL(q(x_T|x_0) || p(x_T)) + sum_{t>=2} KL(q(x_{t-1}|x_t,x_0) || p(x_{t-1}|x_t)) - log p(x_0|x_1)]
// With the exact reverse conditionals of Gaussian data the bound is tight: its terms sum to the entropy of the data.
#[test]
fn c1_the_bound_is_tight_for_the_exact_model() {
    let chain = GaussianChain::new();
    assert_close(chain.bound(EXACT), chain.entropy(), 1e-12);
}

// C1  Any other model has a larger bound (Jensen), by what its means and variances are off.
#[test]
fn c1_any_other_model_has_a_larger_bound() {
    let chain = GaussianChain::new();
    for (mean_error, variance_factor) in [(0.01, 1.0), (-0.01, 1.0), (0.0, 1.05), (0.0, 0.95), (0.1, 0.5), (0.3, 2.0)] {
        let excess = chain.bound(Model { mean_error, variance_factor }) - chain.entropy();
        assert!(excess > 1e-4, "mean off by {mean_error}, variance by {variance_factor}: {excess}");
    }
}

// C1  -log p(x_{0:T}) / q(x_{1:T} | x_0), not telescoped: for the exact model it is -log p(x_0) on every single
//     trajectory, and for any model its mean over trajectories is the sum of the telescoped terms.
#[test]
fn c1_telescoping_changes_nothing() {
    let chain = GaussianChain::new();
    for index in 0..200 {
        let (x0, nats) = chain.untelescoped(EXACT, index);
        assert_close(nats, -log_density(x0, chain.m, chain.s * chain.s), 1e-10);
    }
    let model = Model { mean_error: 0.05, variance_factor: 1.3 };
    let nats: Vec<f64> = (0..20_000).map(|index| chain.untelescoped(model, index).1).collect();
    assert_expectation(&nats, chain.bound(model));
}

proptest! {
    // C2  KL(N(m1, v1) || N(m2, v2)) = 1/2 (log v2/v1 + v1/v2 - 1 + (m1 - m2)^2 / v2) >= 0, and 0 only if they are equal
    #[test]
    fn c2_divergence_is_zero_only_between_equals(m1 in -3.0..3.0, v1 in -5.0..5.0, m2 in -3.0..3.0, v2 in -5.0..5.0) {
        prop_assert_eq!(kl(m1, v1, m1, v1), 0.0);
        prop_assert!(kl(m1, v1, m2, v2) >= 0.0);
        prop_assert!(kl(m1, v1, m1 + 1e-3, v1) > 0.0);
        prop_assert!(kl(m1, v1, m1, v1 + 1e-3) > 0.0);
        let by_definition = 0.5 * (v2 - v1 + f64::exp(v1 - v2) - 1.0 + f64::powi(m1 - m2, 2) / f64::exp(v2));
        assert_close(kl(m1, v1, m2, v2), by_definition, 1e-12);
    }

    // C5  eps -> x_0 -> v -> eps: each target says the same as the others
    #[test]
    fn c5_targets_convert_into_one_another(x0 in -1.0..1.0, eps in -4.0..4.0, t in 1e-3..0.999) {
        let levels = Levels::at(&ScheduleConfig::Cosine.build(), &[t], DType::F64);
        let (x0, eps) = (tensor([1, 1, 1, 1], &[x0]), tensor([1, 1, 1, 1], &[eps]));
        let x_t = q_sample(&x0, &eps, &levels);
        let v = Target::V.of(&x0, &eps, &levels);
        for target in [Target::Eps, Target::X0, Target::V] {
            let said = target.of(&x0, &eps, &levels);
            assert_all_close(&target.to_x0(&said, &x_t, &levels).to_f64(), &x0.to_f64(), 1e-9);
            assert_all_close(&target.to_eps(&said, &x_t, &levels).to_f64(), &eps.to_f64(), 1e-9);
            assert_all_close(&target.to_v(&said, &x_t, &levels).to_f64(), &v.to_f64(), 1e-9);
        }
    }

    // C5  ||eps - eps_hat||^2 = SNR ||x_0 - x_hat_0||^2    and    ||v - v_hat||^2 = (SNR + 1) ||x_0 - x_hat_0||^2
    #[test]
    fn c5_errors_of_the_targets_differ_by_powers_of_snr(x0 in -1.0..1.0, eps in -4.0..4.0, x0_hat in -1.0..1.0, t in 0.01..0.99) {
        let schedule = ScheduleConfig::Cosine.build();
        let snr = schedule.log_snr(t).exp();
        let simple = |target| loss_of_estimate(&schedule, t, x0, eps, x0_hat, target, Weighting::Simple);
        let of_x0 = simple(Target::X0);
        assert_close(of_x0, f64::powi(x0 - x0_hat, 2), 1e-12);
        assert_close(simple(Target::Eps) / snr, of_x0, 1e-9);
        assert_close(simple(Target::V) / (snr + 1.0), of_x0, 1e-9);
    }

    // C5  written for x_0 the weights are SNR, max(SNR, 1), min(SNR, gamma): the same loss whatever is predicted
    #[test]
    fn c5_a_weighting_means_the_same_for_every_target(x0 in -1.0..1.0, eps in -4.0..4.0, x0_hat in -1.0..1.0, t in 0.01..0.99) {
        let schedule = ScheduleConfig::Linear.build();
        let snr = schedule.log_snr(t).exp();
        let squared = f64::powi(x0 - x0_hat, 2);
        for (weighting, weight) in [
            (Weighting::Snr, snr),
            (Weighting::TruncatedSnr, snr.max(1.0)),
            (Weighting::MinSnr { gamma: 5.0 }, snr.min(5.0)),
        ] {
            for target in [Target::Eps, Target::X0, Target::V] {
                let loss = loss_of_estimate(&schedule, t, x0, eps, x0_hat, target, weighting);
                assert_close(loss, weight * squared, 1e-8);
            }
        }
        let simple = loss_of_estimate(&schedule, t, x0, eps, x0_hat, Target::Eps, Weighting::Simple);
        assert_close(simple, snr * squared, 1e-8);
    }
}

/// The loss of one number whose image is estimated as `x0_hat`, by a model that says so in terms of `target`.
fn loss_of_estimate(
    schedule: &DiscreteSchedule,
    t: f64,
    x0: f64,
    eps: f64,
    x0_hat: f64,
    target: Target,
    weighting: Weighting,
) -> f64 {
    let one = |x: f64| tensor([1, 1, 1, 1], &[x]);
    let levels = Levels::at(schedule, &[t], DType::F64);
    let x_t = q_sample(&one(x0), &one(eps), &levels);
    let eps_hat = Target::X0.to_eps(&one(x0_hat), &x_t, &levels);
    let prediction = target.of(&one(x0_hat), &eps_hat, &levels);
    loss(&prediction, &one(x0), &one(eps), &[t], schedule, target, weighting).mean.item()
}

// C2, by drawing: KL(p || q) = E_p[log p - log q]
#[test]
fn c2_divergence_is_an_expected_log_ratio() {
    for (k, (m1, v1, m2, v2)) in
        [(0.0, 0.0, 1.0, 0.5), (0.5, -1.0, 0.2, 0.3), (-1.0, 1.0, -1.0, 2.0)].into_iter().enumerate()
    {
        let draw = |z: &f64| m1 + f64::exp(0.5 * v1) * z;
        let log_ratio = |x: f64| log_density(x, m1, f64::exp(v1)) - log_density(x, m2, f64::exp(v2));
        let samples: Vec<f64> =
            normal(4, Purpose::Test, k as u64, 0, 50_000).iter().map(|z| log_ratio(draw(z))).collect();
        assert_expectation(&samples, kl(m1, v1, m2, v2));
    }
}

// C3  for Sigma = sigma_t^2 I:  KL(N(mu_tilde, sigma_t^2) || N(mu_theta, sigma_t^2)) = ||mu_tilde - mu_theta||^2 / (2 sigma_t^2)
//                                          = beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) ||eps - eps_theta||^2
#[test]
fn c3_the_term_of_the_bound_is_a_weighted_error_of_the_noise() {
    for config in [ScheduleConfig::Linear, ScheduleConfig::Cosine] {
        let schedule = config.build();
        for i in 1..=schedule.steps() {
            let [x0, eps, eps_theta] = normal(5, Purpose::Test, i as u64, 0, 3).try_into().unwrap();
            let alpha_bar = schedule.alpha_bars()[i];
            let x_t = alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * eps;
            let variance = schedule.betas()[i - 1];
            let mu_tilde = Posterior::of_step(&schedule, i).mean_of(x0, x_t);
            let mu_theta = mean_from_eps(&schedule, i, x_t, eps_theta);

            let divergence = kl(mu_tilde, variance.ln(), mu_theta, variance.ln());
            let of_the_means = (mu_tilde - mu_theta).powi(2) / (2.0 * variance);
            let of_the_noise = bound_weight(&schedule, i, variance) * (eps - eps_theta).powi(2);
            assert_close(divergence, of_the_means, 1e-9);
            assert_close(of_the_noise, of_the_means, 1e-9);
        }
    }
}

// C4  L_simple = E ||eps - eps_theta||^2 is C3 with its weight dropped: at every t the gradients differ by that weight
#[test]
fn c4_gradient_is_that_of_the_bound_without_its_weight() {
    let schedule = DiscreteSchedule::linear(100);
    for i in [1, 2, 10, 50, 99, 100] {
        let (x0, eps) = (normal(6, Purpose::Test, i, 0, 12), normal(6, Purpose::Test, i, 1, 12));
        let eps_theta = Tensor::leaf(tensor([1, 3, 2, 2], &normal(6, Purpose::Test, i, 2, 12)).into_array());
        let (x0, eps, i) = (tensor([1, 3, 2, 2], &x0), tensor([1, 3, 2, 2], &eps), i as usize);
        let (t, variance, q) = (schedule.time(i), schedule.betas()[i - 1], Posterior::of_step(&schedule, i));
        let levels = Levels::at(&schedule, &[t], DType::F64);
        let x_t = q_sample(&x0, &eps, &levels);

        let simple = loss(&eps_theta, &x0, &eps, &[t], &schedule, Target::Eps, Weighting::Simple).mean;
        let mu_theta = q.mean(&Target::Eps.to_x0(&eps_theta, &x_t, &levels), &x_t);
        let bound = &(&q.mean(&x0, &x_t) - &mu_theta).square().mean_all() * (1.0 / (2.0 * variance));

        let gradient = |loss: &Tensor| loss.backward().get(&eps_theta).unwrap().to_f64();
        let weight = bound_weight(&schedule, i, variance);
        let unweighted: Vec<f64> = gradient(&bound).iter().map(|g| g / weight).collect();
        assert_all_close(&gradient(&simple), &unweighted, 1e-9);
    }
}

// C4  the minimiser of L_simple is eps*(x_t) = E[eps | x_t] = -sigma_t grad log p(x_t), the score up to its factor.
// For a mixture of two Gaussians in the plane, whose p(x_t) is known: the error eps - eps*(x_t) is uncorrelated with every
// function f of x_t, so that eps* + f has the larger loss, by exactly E f^2.
#[test]
fn c4_the_minimiser_is_the_score() {
    let schedule = ScheduleConfig::Cosine.build();
    let (n, t, spread) = (40_000_usize, 0.4, 0.3);
    let centres = [[0.8, 0.5], [-0.6, -0.2]];
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    let variance = alpha * alpha * spread * spread + sigma * sigma;
    let log_p = |x: [f64; 2]| {
        let density = |c: [f64; 2]| (0..2).map(|k| log_density(x[k], alpha * c[k], variance)).sum::<f64>().exp();
        (0.3 * density(centres[0]) + 0.7 * density(centres[1])).ln()
    };
    // grad log p by central differences: nothing of the closed form of the score is assumed
    let score = |x: [f64; 2]| {
        let h = 1e-5;
        [log_p([x[0] + h, x[1]]) - log_p([x[0] - h, x[1]]), log_p([x[0], x[1] + h]) - log_p([x[0], x[1] - h])]
            .map(|difference| difference / (2.0 * h))
    };

    let mut random = stream(7, Purpose::Test, 0, 0);
    let (z, eps) = (normal(7, Purpose::Test, 1, 0, 2 * n), normal(7, Purpose::Test, 2, 0, 2 * n));
    let x0: Vec<f64> = (0..n)
        .flat_map(|i| {
            let c = centres[usize::from(random.random::<f64>() >= 0.3)];
            [c[0] + spread * z[2 * i], c[1] + spread * z[2 * i + 1]]
        })
        .collect();
    let shape = [n, 2, 1, 1];
    let (x0, eps) = (tensor(shape, &x0), tensor(shape, &eps));
    let times = vec![t; n];
    let x_t = q_sample(&x0, &eps, &Levels::at(&schedule, &times, DType::F64)).to_f64();

    let best: Vec<f64> = x_t.chunks(2).flat_map(|x| score([x[0], x[1]]).map(|s| -sigma * s)).collect();
    let losses = |eps_theta: &[f64]| {
        loss(&tensor(shape, eps_theta), &x0, &eps, &times, &schedule, Target::Eps, Weighting::Simple).per_sample
    };
    let at_best = losses(&best);
    type Change = fn(&[f64]) -> [f64; 2];
    let changes: [Change; 5] = [
        |_| [0.2, -0.1],
        |x| [0.2 * x[0], 0.2 * x[1]],
        |x| [-0.3 * x[1], 0.3 * x[0]],
        |x| [0.2 * (3.0 * x[0]).sin(), 0.2 * x[0] * x[1]],
        |x| [-0.2 * x[0].tanh(), 0.0],
    ];
    for f in changes {
        let f: Vec<f64> = x_t.chunks(2).flat_map(f).collect();
        let changed: Vec<f64> = best.iter().zip(&f).map(|(e, f)| e + f).collect();
        let squared: Vec<f64> = f.chunks(2).map(|f| (f[0] * f[0] + f[1] * f[1]) / 2.0).collect();
        let excess: Vec<f64> =
            losses(&changed).iter().zip(&at_best).zip(&squared).map(|((c, b), f)| c - b - f).collect();
        assert_expectation(&excess, 0.0);
        assert!(squared.iter().sum::<f64>() / n as f64 > 1e-3);
    }
}

// C4  one time, one image, one loss per sample: the mean is over the batch, and each sample's loss is its own
#[test]
fn c4_each_sample_has_its_own_time_and_loss() {
    let schedule = ScheduleConfig::Cosine.build();
    let t = [0.1, 0.5, 0.9];
    let draw = |k| normal(8, Purpose::Test, 0, k, 12);
    let (x0, eps, said) = (draw(0), draw(1), draw(2));
    let batch = |v: &[f64]| tensor([3, 1, 2, 2], v);
    let weighting = Weighting::MinSnr { gamma: 5.0 };
    let all = loss(&batch(&said), &batch(&x0), &batch(&eps), &t, &schedule, Target::V, weighting);
    for b in 0..3 {
        let one = |v: &[f64]| tensor([1, 1, 2, 2], &v[4 * b..4 * b + 4]);
        let alone = loss(&one(&said), &one(&x0), &one(&eps), &t[b..=b], &schedule, Target::V, weighting);
        assert_close(all.per_sample[b], alone.mean.item(), 1e-14);
    }
    assert_close(all.mean.item(), all.per_sample.iter().sum::<f64>() / 3.0, 1e-14);
}

// C6  the 256 probabilities of a pixel under the discretised Gaussian sum to 1, whatever its mean and deviation
#[test]
fn c6_probabilities_of_all_levels_sum_to_one() {
    for mean in [-1.7, -1.0, -0.3, 0.001, 0.5, 1.0, 2.5] {
        for std in [1e-3, 0.01, 0.1, 1.0, 10.0] {
            let total: f64 = (0..LEVELS).map(|level| discretised_log_probability(level, mean, std).exp()).sum();
            assert_close(total, 1.0, 1e-13);
        }
    }
}

// C6  p(level) = int from x - 1/255 to x + 1/255 of N(x_0; mean, std^2) (DDPM eq. 13), integrated numerically
#[test]
fn c6_probability_is_the_mass_of_the_bin() {
    let (mean, std, cuts) = (0.2, 0.05, 200);
    for level in [1, 100, 140, 153, 160, 200, 254] {
        let width = 2.0 / 255.0 / f64::from(cuts);
        let left = level_value(level) - 1.0 / 255.0;
        let mass: f64 =
            (0..cuts).map(|k| log_density(left + (f64::from(k) + 0.5) * width, mean, std * std).exp() * width).sum();
        assert!((discretised_log_probability(level, mean, std) - mass.ln()).abs() < 1e-4, "level {level}");
    }
    // the outermost bins take the tails
    assert_close(discretised_log_probability(255, 3.0, 0.1), 0.0, 1e-12);
    assert_close(discretised_log_probability(0, -3.0, 0.1), 0.0, 1e-12);
}

// C6  the distribution function behind it, against tables: Phi(1), Phi(-3), Phi(-10)
#[test]
fn c6_normal_distribution_function() {
    for (z, phi) in [
        (0.0, 0.5),
        (1.0, 0.841_344_746_068_542_9),
        (-3.0, 1.349_898_031_630_094_5e-3),
        (-10.0, 7.619_853_024_160_526e-24),
    ] {
        assert!((normal_cdf(z) / phi - 1.0).abs() < 1e-12, "z = {z}: {}", normal_cdf(z));
    }
    assert_close(normal_cdf(4.2) + normal_cdf(-4.2), 1.0, 1e-15);
}

// C6  the whole bound in bits per dimension: for an image that is always the same, known exactly, all of L_1 .. L_{T-1}
//     is 0, L_T is next to nothing (DDPM section 4.1), and L_0 is the decoder's price for one level.
#[test]
fn c6_bits_per_dimension_of_a_known_image() {
    let schedule = ScheduleConfig::Linear.build();
    let (level, dimensions) = (200, 28 * 28);
    let (x0, alpha_bar) = (level_value(level), schedule.alpha_bar(1.0));
    let l_prior = kl(alpha_bar.sqrt() * x0, (1.0 - alpha_bar).ln(), 0.0, 0.0);
    let l_0 = -discretised_log_probability(level, x0, schedule.betas()[0].sqrt());
    let bits = bits_per_dimension(dimensions as f64 * (l_prior + l_0), dimensions);
    assert!(bits_per_dimension(l_prior, 1) < 1e-4);
    // sqrt(beta_1) = 0.01 spans 2.55 half bins: -log2 of the mass within 1/2.55 deviations
    assert_close(bits, -(2.0 * normal_cdf(1.0 / 2.55) - 1.0).log2(), 1e-4);
}
