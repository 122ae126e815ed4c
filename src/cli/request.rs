//! What is to be drawn, and how: flags that every command that draws has, and what cannot be meant.

use super::{Result, fail, note};
use clap::{Args, ValueEnum};
use imagen::cascade::{Request, TextToImage};
use imagen::diffusion::{SamplerKind, Sampling, Threshold};
use imagen::picture::Text;
use std::path::Path;

/// How to draw.
#[derive(Args)]
pub struct Drawing {
    #[command(flatten)]
    pub method: Method,
    /// What not to draw: guidance leads away from these words
    #[arg(long, value_name = "PROMPT")]
    pub negative: Option<String>,
    /// Chooses the noise that the images grow from [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
}

/// By which method.
#[derive(Args)]
pub struct Method {
    /// Steps of the sampler [default: as the model says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS))]
    steps: Option<u32>,
    /// The rule for a step [default: as the model says]
    #[arg(long, value_enum)]
    pub sampler: Option<SamplerName>,
    /// How strongly the words guide: 0 ignores them, 1 is plain, more exaggerates [default: as the model says]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// What is done to the model's guess of the image, whose pixels should be in [-1, 1] [default: as the model says]
    #[arg(long, value_enum)]
    threshold: Option<ThresholdName>,
}

impl Drawing {
    /// The flags, on top of a request.
    pub fn apply(&self, request: &mut Request) -> Result<()> {
        request.seed = self.seed.unwrap_or(request.seed);
        if self.negative.is_some() {
            request.negative.clone_from(&self.negative);
        }
        self.method.apply(&mut request.guidance, &mut request.sampling)
    }
}

impl Method {
    /// The flags, on top of a guidance weight and a way of sampling.
    pub fn apply(&self, guidance: &mut f64, sampling: &mut Sampling) -> Result<()> {
        sampling.steps = self.steps.map_or(sampling.steps, |steps| steps as usize);
        sampling.sampler = self.sampler.map_or(sampling.sampler, SamplerName::kind);
        sampling.threshold = self.threshold.map_or(sampling.threshold, ThresholdName::threshold);
        *guidance = self.guidance.unwrap_or(*guidance);
        match guidance.is_finite() {
            true => Ok(()),
            false => fail(format!("--guidance must be a number, not {guidance}")),
        }
    }
}

/// The samplers, with their usual numbers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SamplerName {
    /// Random: draws from the model's reverse process
    Ancestral,
    /// The same, with the variance that the model has learned
    AncestralLearned,
    /// Deterministic: first order
    Ddim,
    /// Deterministic: second order, for few steps
    DpmSolver,
}

impl SamplerName {
    fn kind(self) -> SamplerKind {
        match self {
            SamplerName::Ancestral => SamplerKind::Ancestral { gamma: 0.0 },
            SamplerName::AncestralLearned => SamplerKind::AncestralLearned {},
            SamplerName::Ddim => SamplerKind::Ddim { eta: 0.0 },
            SamplerName::DpmSolver => SamplerKind::DpmSolver {},
        }
    }
}

/// Thresholding, with its usual numbers.
#[derive(Clone, Copy, ValueEnum)]
pub enum ThresholdName {
    /// Nothing is done
    None,
    /// Pixels are clipped
    Static,
    /// Where many pixels are beyond, all are divided (99.5th percentile)
    Dynamic,
}

impl ThresholdName {
    pub fn threshold(self) -> Threshold {
        match self {
            ThresholdName::None => Threshold::None,
            ThresholdName::Static => Threshold::Static,
            ThresholdName::Dynamic => Threshold::dynamic(99.5),
        }
    }
}

/// Images a prompt.
pub(super) const MOST_IMAGES: i64 = 4096;
/// Steps of the sampler.
const MOST_STEPS: i64 = Sampling::MOST_STEPS as i64;
/// An error if the request cannot be meant, and notes on what will have no effect.
pub fn check(request: &Request, model: &TextToImage) -> Result<()> {
    // The flags are within these bounds; the settings in a picture may be anything.
    let within = |n: usize, most: i64| (1..=most as usize).contains(&n);
    let whole = !request.prompts.is_empty() && request.first.checked_add(MOST_IMAGES as u64).is_some();
    if !whole || !within(request.count, MOST_IMAGES) || !within(request.sampling.steps, MOST_STEPS) {
        return fail("the settings in that picture are not those of this program; draw it anew");
    }
    // Before anything is drawn: a prompt without words, or with too many.
    let prompts: Vec<&str> = request.prompts.iter().chain(&request.negative).map(String::as_str).collect();
    let read = model.encoder().map_or_else(|| Ok(Vec::new()), |encoder| encoder.encode_all(&prompts))?;
    for (prompt, embedding) in prompts.iter().zip(read).filter(|(_, embedding)| embedding.left_out > 0) {
        let (read, left_out) = (embedding.n, embedding.left_out);
        note(format!("note: only the first {read} tokens of {prompt:?} are read; {left_out} are left out"));
    }
    Ok(())
}

/// Says which words have no effect, in a request of every stage. It is enough that one stage heeds them.
pub fn notes(asked: &[(&Request, &TextToImage)]) {
    let reads = asked.iter().filter(|(_, model)| model.encoder().is_some());
    let weights: Vec<f64> = reads.map(|(request, _)| request.guidance).collect();
    let negative = asked.iter().any(|(request, _)| request.negative.is_some());
    let what = match weights.iter().copied().reduce(f64::max) {
        None if asked.len() == 1 => "this model takes no text; the words have no effect",
        None => "these models take no text; the words have no effect",
        Some(1.0) if negative => "the negative prompt has no effect: the guidance is 1, which is none",
        Some(w) if negative && w < 1.0 => "the negative prompt is led towards, not away from: the guidance is below 1",
        Some(_) => return,
    };
    note(format!("note: {what}"));
}

/// The request that draws image i of `request` alone.
pub fn single(request: &Request, i: usize) -> Request {
    let number = if request.one_noise_each { i } else { i % request.count };
    Request {
        prompts: vec![request.prompts[i / request.count].clone()],
        count: 1,
        first: request.first.wrapping_add(number as u64),
        negative: request.negative.clone(),
        ..*request
    }
}

/// An error if a picture was made from another one, which its settings alone do not draw.
pub fn check_from_noise(path: &Path, text: &Text) -> Result<()> {
    let Some(image) = text.get("image") else { return Ok(()) };
    let (path, command) = (path.display(), if text.contains_key("edit") { "edit" } else { "upscale" });
    fail(format!("{path} was made from {image}; draw such a one anew with `imagen {command}`"))
}
