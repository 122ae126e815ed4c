//! What a network costs, found by running it on arrays without numbers: parameters, operations and memory by the size of image
//! that a layer works on.

use imagen::array::{Array, DType, Device, Ledger, Shape};
use imagen::autograd::Tensor;
use imagen::diffusion::LowRes;
use imagen::kernels;
use imagen::nn::Init;
use imagen::unet::{Condition, UNet, UNetConfig};
use std::collections::BTreeMap;
use std::error::Error;

/// The cost of the layers of one size.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub parameters: f64,
    /// Operations of one prediction for one image, two for every multiplication with a weight or a score.
    pub flop: f64,
    /// Those of the scores of attention and the means by them, among `flop`.
    pub attention: f64,
    /// Bytes that the forward pass keeps for the backward pass.
    pub kept: f64,
}

/// Side of the images that layers give to what these cost. What has no image (time, text) is at side 0.
pub struct Costs(pub BTreeMap<usize, Cost>);

impl Costs {
    /// Of a network for images of `side` by `side` pixels and texts of so many tokens.
    pub fn of(unet: &UNetConfig, side: usize, tokens: usize) -> Result<Costs, Box<dyn Error>> {
        let ledger = Ledger::default();
        ledger.plan(|| {
            let init = Init::blank(DType::F32);
            let net = UNet::new(unet.clone(), &init)?;
            let zeros = |shape: &[usize]| kernels::of(Device::Cpu).fill(&Shape::from(shape), DType::F32, 0.0);
            let shape = [1, unet.image_channels, side, side];
            let text = unet.text.as_ref().map(|text| {
                Condition::new(zeros(&[1, tokens, text.dim]), Array::from_vec([1, tokens], vec![1.0_f32; tokens]))
            });
            let condition = match unet.low_res {
                true => Some(Condition::with_low_res(text, LowRes { images: zeros(&shape).into(), aug: vec![0.1] })),
                false => text,
            };
            let x: Tensor = zeros(&shape).into();
            let mut walk = Walk { costs: BTreeMap::new(), sizes: BTreeMap::new(), live: ledger.live() };
            let y = net.forward_watched(&x, &[0.5], condition.as_ref(), &mut |name, value| {
                walk.see(name, &value.shape()[..], ledger.live());
            });
            walk.see("conv_out", &y.shape()[..], ledger.live());
            for p in init.parameters().iter() {
                walk.weigh(p.name(), &p.shape()[..], tokens);
            }
            Ok(Costs(walk.costs))
        })
    }

    /// All sizes together.
    pub fn total(&self) -> Cost {
        self.0.values().fold(Cost::default(), |a, b| Cost {
            parameters: a.parameters + b.parameters,
            flop: a.flop + b.flop,
            attention: a.attention + b.attention,
            kept: a.kept + b.kept,
        })
    }
}

struct Walk {
    costs: BTreeMap<usize, Cost>,
    /// Channels and side of what each layer gives.
    sizes: BTreeMap<String, [usize; 2]>,
    live: u64,
}

impl Walk {
    fn see(&mut self, name: &str, shape: &[usize], live: u64) {
        let side = match *shape {
            // the weights of attention, of the layer that was seen just before
            [_, _, n, m] if name.ends_with(".weights") => {
                let [channels, side] = self.sizes[name.trim_end_matches(".weights")];
                let cost = self.costs.entry(side).or_default();
                cost.attention += 4.0 * (n * m * channels) as f64;
                cost.flop += 4.0 * (n * m * channels) as f64;
                side
            }
            [_, channels, side, _] => {
                self.sizes.insert(name.into(), [channels, side]);
                side
            }
            _ => 0,
        };
        self.costs.entry(side).or_default().kept += live as f64 - self.live as f64;
        self.live = live;
    }

    fn weigh(&mut self, name: &str, shape: &[usize], tokens: usize) {
        let name = name.replace("norm_out", "conv_out");
        // the longest name of a layer that it begins with
        let layer = name.rmatch_indices('.').find_map(|(end, _)| self.sizes.get(&name[..end]));
        let side = layer.map_or(0, |[_, side]| *side);
        let numbers = shape.iter().product::<usize>() as f64;
        let uses = match shape.len() {
            0 | 1 => 0,
            4 => side * side,
            _ if name.contains("text_kv") || name.contains("pool.kv") => tokens,
            _ => 1,
        };
        let cost = self.costs.entry(side).or_default();
        cost.parameters += numbers;
        cost.flop += 2.0 * numbers * uses as f64;
    }
}
