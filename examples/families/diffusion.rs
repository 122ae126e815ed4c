//! Diffusion (Ho et al., arXiv 2006.11239): the mathematics is the library's, and that of the next chapters.
//!
//! ```text
//! x_t = alpha_t x_0 + sigma_t eps                    noise is added, more with every t
//! L   = E ||eps - eps_theta(x_t, t)||^2              a network learns to tell it
//! -log p(x_0) <= L_T + L_{T-1} + .. + L_0            and the steps back are a VAE whose encoder is fixed
//! ```

use super::{Family, Learner, Mlp, WAVES, as_waves, noise};
use imagen::array::DType;
use imagen::autograd::{Tensor, concat, no_grad};
use imagen::diffusion::gaussian::{kl, log_density};
use imagen::diffusion::{
    Denoiser, DiscreteSchedule, Images, Levels, Posterior, Sampler, SamplerKind, Sampling, Target, Threshold,
    Weighting, loss, q_sample,
};
use imagen::nn::{Init, sinusoidal};
use imagen::random::{Purpose, normal, stream};
use rand::RngExt;
use std::ops::ControlFlow;

/// Sines and cosines of the time.
const TIME: usize = 32;

/// (x_t, t) -> eps or x_0, for points of D numbers [B, 1, 1, D].
pub struct Network(Mlp);

impl Denoiser for Network {
    type Condition = ();

    fn predict(&self, x_t: &Tensor, t: &[f64], (): &()) -> Tensor {
        let [b, size] = [t.len(), x_t.numel() / t.len()];
        let scaled: Vec<f64> = t.iter().map(|t| 1000.0 * t).collect();
        let time = sinusoidal(&scaled, TIME, DType::F32);
        let points = x_t.reshape([b, size]);
        let points = if size == 2 { as_waves(&points) } else { points };
        self.0.forward(&concat(&[&points, &time], 1)).reshape(x_t.shape())
    }
}

/// A network, what it says, and the noise it was trained on.
pub struct Diffusion {
    pub network: Network,
    pub target: Target,
    pub schedule: DiscreteSchedule,
    pub sampling: Sampling,
    learner: Learner,
    size: usize,
}

impl Diffusion {
    /// Points of `size` numbers; three hidden layers of `hidden`.
    pub fn new(seed: u64, [size, hidden]: [usize; 2], target: Target, peak: f64, steps: u64) -> Diffusion {
        let init = Init::new(seed, DType::F32);
        let inputs = if size == 2 { size * (1 + 2 * WAVES) } else { size };
        let network = Network(Mlp::new(&init, &[inputs + TIME, hidden, hidden, hidden, size], false));
        // the values of pixels have ends, those of points in the plane have none
        let threshold = if size > 2 { Threshold::Static } else { Threshold::None };
        let sampling = Sampling { steps: 250, sampler: SamplerKind::Ancestral { gamma: 0.0 }, threshold };
        let schedule = DiscreteSchedule::linear(1000);
        Diffusion { network, target, schedule, sampling, learner: Learner::new(&init, peak, steps), size }
    }
}

// ANCHOR: family
impl Family for Diffusion {
    fn train_step(&mut self, x: &Tensor, step: u64) -> f64 {
        let [b, d] = x.shape().dims("diffusion");
        let x0 = x.reshape([b, 1, 1, d]);
        let t: Vec<f64> = (0..b as u64).map(|i| 1.0 - stream(0, Purpose::Time, step, i).random::<f64>()).collect();
        let eps = noise(0, Purpose::Noise, step, [b, d], DType::F32).reshape(x0.shape());
        let x_t = q_sample(&x0, &eps, &Levels::at(&self.schedule, &t, DType::F32));
        let said = self.network.predict(&x_t, &t, &());
        let loss = loss(&said, &x0, &eps, &t, &self.schedule, self.target, Weighting::Simple);
        self.learner.step(&loss.mean, step)
    }

    fn sample(&self, seed: u64, count: usize) -> Tensor {
        let seeds: Vec<(u64, u64)> = (0..count as u64).map(|i| (seed, i)).collect();
        let images = Images { size: [1, 1, self.size], dtype: DType::F32, seeds: &seeds };
        let Diffusion { schedule, network, target, sampling, .. } = self;
        let sampler = Sampler { schedule, denoiser: network, target: *target, condition: &(), settings: *sampling };
        let drawn = sampler.sample(&images, &mut |_| ControlFlow::Continue(()));
        drawn.expect("the network's numbers are finite").reshape([count, self.size])
    }

    fn log_likelihood(&self, x: &Tensor, seed: u64) -> Option<Vec<f64>> {
        Some(log_likelihood_bound(&self.network, self.target, &self.schedule, x, seed))
    }

    fn parameters(&self) -> usize {
        self.learner.parameters.count()
    }
}
// ANCHOR_END: family

// ANCHOR: bound
/// A lower bound of log p(x_0) in nats for every point of `x` `[B, D]`, from one x_i a step: minus what every term of the
/// variational bound costs. The step back from x_i has the variance beta_i, and the density of the last one counts as it is:
/// points have no levels to be rounded to.
pub fn log_likelihood_bound<D: Denoiser<Condition = ()>>(
    model: &D,
    target: Target,
    schedule: &DiscreteSchedule,
    x: &Tensor,
    seed: u64,
) -> Vec<f64> {
    let ([b, d], steps) = (x.shape().dims("bound"), schedule.steps());
    let (values, x0) = (x.to_f64(), x.reshape([b, 1, 1, d]));
    let last = schedule.alpha_bars()[steps];
    let prior = |x: &f64| kl(last.sqrt() * x, (1.0 - last).ln(), 0.0, 0.0);
    let mut bounds: Vec<f64> = values.chunks(d).map(|x| -x.iter().map(prior).sum::<f64>()).collect();
    for i in 1..=steps {
        let t = vec![schedule.time(i); b];
        let levels = Levels::at(schedule, &t, x.dtype());
        let eps = x.constant_like(x0.shape(), &normal(seed, Purpose::Evaluation, i as u64, 0, b * d));
        let x_i = q_sample(&x0, &eps, &levels);
        let guess = no_grad(|| target.to_x0(&model.predict(&x_i, &t, &()), &x_i, &levels)).to_f64();
        let q = Posterior::of_step(schedule, i);
        let cost = |(x, guess): (&f64, &f64)| match i {
            1 => -log_density(*x, *guess, q.forward_variance),
            _ => kl(q.coef_x0 * (x - guess), q.variance.ln(), 0.0, q.forward_variance.ln()),
        };
        for (n, bound) in bounds.iter_mut().enumerate() {
            let mine = n * d..(n + 1) * d;
            *bound -= values[mine.clone()].iter().zip(&guess[mine]).map(cost).sum::<f64>();
        }
    }
    bounds
}
// ANCHOR_END: bound
