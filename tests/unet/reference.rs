//! The same network written a second time, in one piece and without layers, from the papers and the PyTorch program it
//! is compared with: nothing but the names of the parameters is shared.

use super::{TEXT_DIM, awake, kinds, largest_difference, predict, random, times, tiny};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, concat};
use imagen::diffusion::LowRes;
use imagen::unet::{Condition, Resampling, TextPooling, UNetConfig};
use std::collections::BTreeMap;

/// What a block is told besides the image.
pub(super) struct Told {
    /// The activated embedding of the time, with the pooled text [B, time_dim].
    pub(super) embedding: Tensor,
    /// Normalised tokens [B, N, TEXT_DIM].
    tokens: Option<Tensor>,
}

pub(super) struct Reference {
    pub(super) config: UNetConfig,
    pub(super) values: BTreeMap<String, Array>,
}

impl Reference {
    fn p(&self, name: String) -> Tensor {
        Tensor::constant(self.values.get(&name).unwrap_or_else(|| panic!("no {name}")).clone())
    }

    pub(super) fn linear(&self, name: &str, x: &Tensor) -> Tensor {
        x.linear(&self.p(format!("{name}.weight")), Some(&self.p(format!("{name}.bias"))))
    }

    pub(super) fn conv(&self, name: &str, x: &Tensor, stride: usize) -> Tensor {
        let weight = self.p(format!("{name}.weight"));
        let padding = weight.shape()[3] / 2;
        x.conv2d(&weight, Some(&self.p(format!("{name}.bias"))), stride, padding)
    }

    pub(super) fn norm(&self, name: &str, x: &Tensor) -> Tensor {
        x.group_norm(&self.p(format!("{name}.weight")), &self.p(format!("{name}.bias")), self.config.groups, 1e-5)
    }

    fn block(&self, name: &str, x: &Tensor, told: &Told) -> Tensor {
        self.resizing_block(name, x, told, |x| x.clone())
    }

    /// BigGAN's block: what is resized is x, and what goes into the first convolution.
    fn resizing_block(&self, name: &str, x: &Tensor, told: &Told, resize: fn(&Tensor) -> Tensor) -> Tensor {
        let of = |part: &str| format!("{name}.{part}");
        let h = self.conv(&of("conv1"), &resize(&self.norm(&of("norm1"), x).silu()), 1);
        let x = &resize(x);
        let e = self.linear(&of("embedding"), &told.embedding);
        let c = h.shape()[1];
        let channels = |from: usize| e.slice(1, from..from + c).reshape([e.shape()[0], c, 1, 1]);
        let h = if self.config.scale_shift {
            // Guided diffusion, section 3: y_s GroupNorm(h) + y_b, with y_s written as 1 + its deviation.
            &(&self.norm(&of("norm2"), &h) * &(&channels(0) + 1.0)) + &channels(c)
        } else {
            self.norm(&of("norm2"), &(&h + &channels(0)))
        };
        let h = self.conv(&of("conv2"), &h.silu(), 1);
        let changes = x.shape()[1] != c;
        if changes { &self.conv(&of("shortcut"), x, 1) + &h } else { x + &h }
    }

    /// In how many heads so many channels are, and how many each has.
    fn heads(&self, channels: usize) -> (usize, usize) {
        let d = self.config.head_channels.unwrap_or_else(|| channels / self.config.heads);
        (channels / d, d)
    }

    /// Head by head: the pixels look at the tokens of the text alone.
    pub(super) fn cross_attention(&self, name: &str, x: &Tensor, told: &Told) -> Tensor {
        let [b, c, height, width] = x.shape().dims("attention");
        let (heads, d) = self.heads(c);
        let queries = self.conv(&format!("{name}.q"), &self.norm(&format!("{name}.norm"), x), 1);
        let queries = queries.reshape([b, c, height * width]).transpose();
        let text = self.linear(&format!("{name}.text_kv"), told.tokens.as_ref().expect("a text"));
        let seen: Vec<Tensor> = (0..heads)
            .map(|head| {
                let of = |x: &Tensor, from: usize| x.slice(-1, from + head * d..from + (head + 1) * d);
                let scores = of(&queries, 0).matmul(&of(&text, 0).transpose());
                (&scores / (d as f64).sqrt()).softmax(-1).matmul(&of(&text, c))
            })
            .collect();
        let seen = concat(&seen.iter().collect::<Vec<_>>(), -1).transpose().reshape([b, c, height, width]);
        x + &self.conv(&format!("{name}.out"), &seen, 1)
    }

    /// What one query sees of the tokens [B, N, TEXT_DIM], head by head, or their mean.
    fn pooled(&self, tokens: &Tensor) -> Tensor {
        if self.config.text_pooling == TextPooling::Mean {
            return tokens.mean(&[1], false);
        }
        let features = self.config.time_dim();
        let (heads, d) = self.heads(features);
        let (query, kv) = (self.p("text.pool.query".into()), self.linear("text.pool.kv", tokens));
        let seen: Vec<Tensor> = (0..heads)
            .map(|head| {
                let of = |from: usize| kv.slice(-1, from + head * d..from + (head + 1) * d);
                let scores = of(0).matmul(&query.slice(0, head * d..(head + 1) * d).reshape([d, 1]));
                // one weight a token
                (&of(features) * &(&scores / (d as f64).sqrt()).softmax(1)).sum(&[1], false)
            })
            .collect();
        concat(&seen.iter().collect::<Vec<_>>(), -1)
    }

    /// Head by head.
    pub(super) fn attention(&self, name: &str, x: &Tensor, told: &Told) -> Tensor {
        let [b, c, height, width] = x.shape().dims("attention");
        let (heads, d) = self.heads(c);
        let rows = self.conv(&format!("{name}.qkv"), &self.norm(&format!("{name}.norm"), x), 1);
        let rows = rows.reshape([b, 3 * c, height * width]).transpose();
        let text = told.tokens.as_ref().map(|tokens| self.linear(&format!("{name}.text_kv"), tokens));
        let seen: Vec<Tensor> = (0..heads)
            .map(|head| {
                let of = |part: usize| rows.slice(-1, part * c + head * d..part * c + (head + 1) * d);
                let with_text = |part: usize| match &text {
                    Some(text) => {
                        let from = (part - 1) * c + head * d;
                        concat(&[&text.slice(-1, from..from + d), &of(part)], 1)
                    }
                    None => of(part),
                };
                let scores = of(0).matmul(&with_text(1).transpose());
                (&scores / (d as f64).sqrt()).softmax(-1).matmul(&with_text(2))
            })
            .collect();
        let seen = concat(&seen.iter().collect::<Vec<_>>(), -1).transpose().reshape([b, c, height, width]);
        x + &self.conv(&format!("{name}.out"), &seen, 1)
    }

    /// The embedding of times, or of how noisy smaller images are, not activated.
    fn of_times(&self, name: &str, t: &[f64]) -> Tensor {
        let half = self.config.base_channels / 2;
        let angle = |t: f64, i: usize| 1000.0 * t / 1e4_f64.powf(i as f64 / half as f64);
        let waves: Vec<f64> = t
            .iter()
            .flat_map(|&t| {
                (0..2 * half).map(move |i| if i < half { angle(t, i).sin() } else { angle(t, i - half).cos() })
            })
            .collect();
        let waves = Tensor::from_f64([t.len(), 2 * half], &waves, DType::F64);
        self.linear(&format!("{name}.1"), &self.linear(&format!("{name}.0"), &waves).silu())
    }

    pub(super) fn told(&self, t: &[f64], tokens: Option<&Tensor>, low_res: Option<&LowRes>) -> Told {
        let mut embedding = self.of_times("time", t);
        if let Some(low_res) = low_res {
            embedding = &embedding + &self.of_times("aug", &low_res.aug);
        }
        let Some(tokens) = tokens else { return Told { embedding: embedding.silu(), tokens: None } };
        let (weight, bias) = (self.p("text.norm.weight".into()), self.p("text.norm.bias".into()));
        let tokens = tokens.layer_norm(&weight, &bias, 1e-5);
        let pooled = self.linear("text.pooled.1", &self.linear("text.pooled.0", &self.pooled(&tokens)).silu());
        Told { embedding: (&embedding + &pooled).silu(), tokens: Some(tokens) }
    }

    fn forward(&self, x: &Tensor, t: &[f64], tokens: Option<&Tensor>, low_res: Option<&LowRes>) -> Tensor {
        let told = self.told(t, tokens, low_res);
        let x = &low_res.map_or(x.clone(), |low_res| concat(&[x, &low_res.images], 1));
        let residual = self.config.resampling == Resampling::Residual;
        let UNetConfig { blocks, attention, .. } = &self.config;
        let (blocks, levels) = (blocks.at(0), attention.len());
        let step = |name: String, h: &Tensor, attends: bool| {
            let h = self.block(&name, h, &told);
            if attends { self.attention(&format!("{name}.attention"), &h, &told) } else { h }
        };
        let mut h = self.conv("conv_in", x, 1);
        let mut skips = vec![h.clone()];
        for (level, &attends) in attention.iter().enumerate() {
            for i in 0..blocks {
                h = step(format!("down.{level}.{i}"), &h, attends);
                skips.push(h.clone());
            }
            if level < levels - 1 {
                let name = format!("down.{level}.halve");
                h = match residual {
                    true => self.resizing_block(&name, &h, &told, |x| x.avg_pool2d(2)),
                    false => self.conv(&name, &h, 2),
                };
                skips.push(h.clone());
            }
        }
        h = self.block("middle.0", &h, &told);
        h = self.attention("middle.attention", &h, &told);
        h = self.block("middle.1", &h, &told);
        for (level, &attends) in attention.iter().enumerate().rev() {
            for i in 0..=blocks {
                let skip = skips.pop().expect("a skip connection");
                h = step(format!("up.{level}.{i}"), &concat(&[&h, &skip], 1), attends);
            }
            if level > 0 {
                let name = format!("up.{level}.double");
                h = match residual {
                    true => self.resizing_block(&name, &h, &told, |x| x.upsample_nearest(2)),
                    false => self.conv(&name, &h.upsample_nearest(2), 1),
                };
            }
        }
        assert!(skips.is_empty());
        self.conv("conv_out", &self.norm("norm_out", &h).silu(), 1)
    }
}

// ANCHOR: the_network_is_the_one_written_down_twice
#[test]
fn the_network_is_the_one_written_down_twice() {
    let deep = UNetConfig {
        image_channels: 3,
        channel_multipliers: vec![1, 3, 2],
        blocks: 2.into(),
        attention: vec![true, false, true],
        ..tiny()
    };
    let [guided, ..] = kinds();
    let larger = UNetConfig { low_res: true, ..guided.clone() };
    let shifted = UNetConfig { scale_shift: true, ..tiny() };
    for config in [tiny(), shifted, UNetConfig { text: None, ..deep.clone() }, deep, guided, larger] {
        let (net, parameters) = awake(config.clone(), DType::F64);
        let reference = Reference { config: config.clone(), values: parameters.values() };
        let x = Tensor::constant(random(1, [2, config.image_channels, 8, 12], DType::F64));
        let tokens = config.text.as_ref().map(|_| Tensor::constant(random(2, [2, 3, TEXT_DIM], DType::F64)));
        let condition = tokens
            .as_ref()
            .map(|tokens| Condition::new(tokens.array().clone(), Array::from_f64([2, 3], &[1.0; 6], DType::F64)));
        let low_res =
            config.low_res.then(|| LowRes { images: random(3, x.shape(), DType::F64).into(), aug: vec![0.1, 0.6] });
        let condition = match &low_res {
            Some(low_res) => Some(Condition::with_low_res(condition, low_res.clone())),
            None => condition,
        };
        let found = predict(&net, &x, &times(2), condition.as_ref());
        let expected = reference.forward(&x, &times(2), tokens.as_ref(), low_res.as_ref()).into_array();
        let error = largest_difference(&found, &expected);
        assert!(error < 1e-12, "{config:?}: {error:e}");
    }
}
// ANCHOR_END: the_network_is_the_one_written_down_twice
