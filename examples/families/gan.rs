//! A generative adversarial network (Goodfellow et al., arXiv 1406.2661).
//!
//! A generator G turns noise z into points; q is the density of what it draws. A discriminator D says how probable it is
//! that a point is from the data p and not from q. The two play a game:
//!
//! ```text
//! min_G max_D  V = E_p log D(x) + E_z log(1 - D(G(z)))
//!
//! the best D:        D*(x) = p(x) / (p(x) + q(x))
//! and against it:    V = 2 JS(p, q) - log 4
//! ```
//!
//! D is trained for V. G is not trained for -V, whose slope vanishes where D is sure that a point is drawn, but for
//! E_z log D(G(z)): the same fixed point, and a slope where it is needed ("non-saturating").

use super::{Family, Mlp, noise};
use imagen::array::DType;
use imagen::autograd::{Tensor, no_grad};
use imagen::nn::{Init, Parameters};
use imagen::optim::{Adam, Optimizer};
use imagen::random::Purpose;

// ANCHOR: losses
/// -V: what the discriminator makes small. `real` and `drawn` are its logits, log D / (1 - D), for points of either kind.
///
/// -log D = softplus(-logit), and -log(1 - D) = softplus(logit).
pub fn discriminator_loss(real: &Tensor, drawn: &Tensor) -> Tensor {
    &(-real).softplus().mean_all() + &drawn.softplus().mean_all()
}

/// -E log D(G(z)): what the generator makes small.
pub fn generator_loss(drawn: &Tensor) -> Tensor {
    (-drawn).softplus().mean_all()
}

/// E log(1 - D(G(z))): what it would make small in the game as it is written.
pub fn saturating_loss(drawn: &Tensor) -> Tensor {
    -&drawn.softplus().mean_all()
}
// ANCHOR_END: losses

/// One of the two players.
struct Player {
    network: Mlp,
    parameters: Parameters,
    adam: Adam,
}

impl Player {
    fn new(init: &Init, widths: &[usize], waves: bool) -> Player {
        let network = Mlp::new(init, widths, waves);
        // Little momentum: what was downhill a moment ago need not be so against a new opponent (Radford et al., arXiv 1511.06434).
        Player { network, parameters: init.parameters(), adam: Adam::new([0.5, 0.999], 1e-8, 0.0) }
    }

    fn step(&mut self, loss: &Tensor, rate: f64) -> f64 {
        self.adam.step(&self.parameters, &loss.backward(), rate);
        loss.item()
    }
}

/// Generator and discriminator.
pub struct Gan {
    generator: Player,
    discriminator: Player,
    latent: usize,
    rate: f64,
    seed: u64,
    /// What the generator's loss was in each step.
    pub generator_losses: Vec<f64>,
}

impl Gan {
    /// Points of `size` numbers from noise of `latent`; two hidden layers of `hidden` in either network.
    pub fn new(seed: u64, [size, latent, hidden]: [usize; 3], rate: f64) -> Gan {
        let init = |player: u64| Init::new(2 * seed + player, DType::F32);
        Gan {
            generator: Player::new(&init(0), &[latent, hidden, hidden, size], size == 2),
            discriminator: Player::new(&init(1), &[size, hidden, hidden, 1], size == 2),
            latent,
            rate,
            seed,
            generator_losses: Vec::new(),
        }
    }

    fn draw(&self, seed: u64, purpose: Purpose, step: u64, count: usize) -> Tensor {
        self.generator.network.forward(&noise(seed, purpose, step, [count, self.latent], DType::F32))
    }

    /// D(x), `[B]`: how probable the discriminator takes it that a point is from the data.
    pub fn verdict(&self, x: &Tensor) -> Vec<f64> {
        no_grad(|| self.discriminator.network.forward(x).sigmoid().to_f64())
    }
}

// ANCHOR: family
impl Family for Gan {
    /// The discriminator takes a step, then the generator. Returns the loss of the first.
    fn train_step(&mut self, x: &Tensor, step: u64) -> f64 {
        let drawn = self.draw(self.seed, Purpose::Noise, step, x.shape()[0]);
        let judge = &self.discriminator.network;
        let loss = discriminator_loss(&judge.forward(x), &judge.forward(&drawn.detach()));
        let loss = self.discriminator.step(&loss, self.rate);

        // the gradient goes through the discriminator, which stays as it is
        let fooled = generator_loss(&self.discriminator.network.forward(&drawn));
        self.generator_losses.push(self.generator.step(&fooled, self.rate));
        loss
    }

    fn sample(&self, seed: u64, count: usize) -> Tensor {
        no_grad(|| self.draw(seed, Purpose::Start, 0, count))
    }

    /// None: q is given by how its points are made, and has no formula that could be evaluated at an x.
    fn log_likelihood(&self, _: &Tensor, _: u64) -> Option<Vec<f64>> {
        None
    }

    fn parameters(&self) -> usize {
        self.generator.parameters.count() + self.discriminator.parameters.count()
    }
}
// ANCHOR_END: family
