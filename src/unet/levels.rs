//! The levels of the U-Net: what they are made of, in the order of the way through the network.

use super::blocks::{Combine, ResBlock, Resize, Upsample};
use super::steps::{Part, Skip, Step};
use super::{Per, Resampling, ResamplingOrder, UNetConfig};
use crate::nn::{Attention, Conv2d, Init};

/// Puts the parts of a network one behind the other, and keeps account of channels.
pub(super) struct Levels<'a> {
    init: &'a Init,
    config: &'a UNetConfig,
    /// Channels of what the next part is given.
    channels: usize,
    /// Channels of what the way down has left and the way up has not yet taken.
    skips: Vec<usize>,
    /// Whether the next part takes a skip connection.
    joins: bool,
    parts: Vec<Part>,
}

impl<'a> Levels<'a> {
    /// All parts from the first convolution to the last normalisation, and the channels of what they give.
    pub(super) fn parts(init: &'a Init, config: &'a UNetConfig) -> (Vec<Part>, usize) {
        let channels = config.base_channels;
        let skips = if config.leaves_sizes() { vec![channels] } else { Vec::new() };
        let mut levels = Levels { init, config, channels, skips, joins: false, parts: Vec::new() };
        for level in 0..config.levels() {
            levels.dblock(level);
        }
        if config.middle {
            levels.middle();
        }
        for level in (0..config.levels()).rev() {
            levels.ublock(level);
        }
        assert!(levels.skips.is_empty(), "every skip connection is taken");
        (levels.parts, levels.channels)
    }

    // ANCHOR: way_down
    /// A level of the way down: in the Efficient U-Net a DBlock,
    /// (halve) -> combine embeddings -> N residual blocks -> (attention); in DDPM the halving comes last. (F3)
    fn dblock(&mut self, level: usize) {
        let (config, name) = (self.config, format!("down.{level}"));
        let width = config.width(level);
        if config.resampling_order == ResamplingOrder::Before {
            self.halve(&name, width);
        }
        if config.embedding_per == Per::Level {
            self.combine(&name);
        }
        for i in 0..config.blocks.at(level) {
            self.block(&format!("{name}.{i}"), width, level);
            if config.skip_per == Per::Block {
                self.leave();
            }
        }
        if config.attention_per == Per::Level {
            self.attend(&name, level);
        }
        if config.skip_per == Per::Level {
            self.leave();
        }
        if config.resampling_order == ResamplingOrder::After && level + 1 < config.levels() {
            self.halve(&name, width);
            if config.skip_per == Per::Block {
                self.leave();
            }
        }
    }
    // ANCHOR_END: way_down

    fn middle(&mut self) {
        let last = self.config.levels() - 1;
        let block = self.res_block("middle.0", self.channels, None);
        self.push("middle.0", Step::Block(block));
        let attention = match self.config.cross_attention.get(last) {
            Some(true) => self.cross_attention("middle"),
            _ => self.attention("middle"),
        };
        self.push("middle", Step::Attend(Box::new(attention)));
        let block = self.res_block("middle.1", self.channels, None);
        self.push("middle.1", Step::Block(block));
    }

    // ANCHOR: way_up
    /// A level of the way up: in the Efficient U-Net a UBlock, input and skip connection -> combine embeddings -> N residual
    /// blocks -> (attention) -> (double). In DDPM every block takes a skip connection. (F3)
    fn ublock(&mut self, level: usize) {
        let (config, name) = (self.config, format!("up.{level}"));
        let width = config.width(level);
        for i in 0..config.blocks_up(level) {
            if i == 0 || config.skip_per == Per::Block {
                self.take();
            }
            if i == 0 && config.embedding_per == Per::Level {
                self.combine(&name);
            }
            self.block(&format!("{name}.{i}"), width, level);
        }
        if config.attention_per == Per::Level {
            self.attend(&name, level);
        }
        match config.resampling_order {
            ResamplingOrder::Before => {
                let wider = level.checked_sub(1).map_or(config.base_channels, |above| config.width(above));
                self.double(&name, wider);
            }
            ResamplingOrder::After if level > 0 => self.double(&name, width),
            ResamplingOrder::After => {}
        }
    }
    // ANCHOR_END: way_up

    /// What the last part gives is left for the way up.
    fn leave(&mut self) {
        if let Some(part) = self.parts.last_mut() {
            part.skip = Skip::Left;
            self.skips.push(self.channels);
        }
    }

    /// The next part is given what was left last, as further channels.
    fn take(&mut self) {
        self.channels += self.skips.pop().expect("the way down has left as much as the way up takes");
        self.joins = true;
    }

    fn push(&mut self, name: &str, step: Step) {
        let skip = if std::mem::take(&mut self.joins) { Skip::Taken } else { Skip::None };
        self.parts.push(Part { name: name.to_string(), skip, step });
    }

    /// A residual block, with attention behind it if the level has that at every block.
    fn block(&mut self, name: &str, width: usize, level: usize) {
        let inputs = std::mem::replace(&mut self.channels, width);
        // Attention first: parameters keep the order that they have in the bundled models.
        let per_block = self.config.attention_per == Per::Block;
        let attention = if per_block { self.attention_of(name, level) } else { None };
        let block = self.res_block(name, inputs, None);
        self.push(name, Step::Block(block));
        self.parts.extend(attention);
    }

    fn res_block(&self, name: &str, inputs: usize, resize: Option<Resize>) -> Box<ResBlock> {
        Box::new(ResBlock::new(&self.init.scope(name), self.config, [inputs, self.channels], resize))
    }

    /// The attention of a level, if it has any.
    fn attend(&mut self, name: &str, level: usize) {
        let attention = self.attention_of(name, level);
        self.parts.extend(attention);
    }

    fn attention_of(&self, name: &str, level: usize) -> Option<Part> {
        let attention = if self.config.attention[level] {
            self.attention(name)
        } else if self.config.cross_attention.get(level) == Some(&true) {
            self.cross_attention(name)
        } else {
            return None;
        };
        Some(Part { name: name.to_string(), skip: Skip::None, step: Step::Attend(Box::new(attention)) })
    }

    fn attention(&self, name: &str) -> Attention {
        let (config, channels) = (self.config, self.channels);
        let text = config.text.as_ref().map(|text| text.dim);
        let init = self.init.scope(format!("{name}.attention"));
        Attention::new(&init, channels, config.heads_of(channels), config.norm_kind(), text)
    }

    fn cross_attention(&self, name: &str) -> Attention {
        let (config, channels) = (self.config, self.channels);
        let text = config.text.as_ref().expect("cross-attention was checked to have a text").dim;
        let init = self.init.scope(format!("{name}.attention"));
        Attention::cross(&init, channels, config.heads_of(channels), config.norm_kind(), text)
    }

    fn combine(&mut self, name: &str) {
        let name = format!("{name}.combine");
        let combine = Combine::new(&self.init.scope(&name), self.config, self.channels);
        self.push(&name, Step::Combine(combine));
    }

    /// Half the height and width, and `width` channels.
    fn halve(&mut self, name: &str, width: usize) {
        let (name, inputs) = (format!("{name}.halve"), std::mem::replace(&mut self.channels, width));
        let step = match self.config.resampling {
            Resampling::Conv => Step::Down(Conv2d::new(&self.init.scope(&name), inputs, width, 3, 2, 1)),
            Resampling::Residual => Step::Block(self.res_block(&name, inputs, Some(Resize::Halve))),
        };
        self.push(&name, step);
    }

    /// Twice the height and width, and `width` channels.
    fn double(&mut self, name: &str, width: usize) {
        let (name, inputs) = (format!("{name}.double"), std::mem::replace(&mut self.channels, width));
        let step = match self.config.resampling {
            Resampling::Conv => Step::Up(Upsample::new(&self.init.scope(&name), inputs, width)),
            Resampling::Residual => Step::Block(self.res_block(&name, inputs, Some(Resize::Double))),
        };
        self.push(&name, step);
    }
}
