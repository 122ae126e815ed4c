//! Span corruption: a text with gaps, and what is missing from them. (G2; Raffel et al. 2020, section 3.1.4)

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How texts are corrupted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corruption {
    /// Share of the tokens that go missing, above 0 and below 1.
    #[serde(default = "default_rate")]
    pub rate: f64,
    /// Tokens of a gap on average, at least 1.
    #[serde(default = "default_mean_span")]
    pub mean_span: f64,
}

fn default_rate() -> f64 {
    0.15
}

fn default_mean_span() -> f64 {
    3.0
}

/// The settings of T5: 15 % of the tokens, three to a gap.
impl Default for Corruption {
    fn default() -> Corruption {
        Corruption { rate: default_rate(), mean_span: default_mean_span() }
    }
}

/// A corrupted text and what the model is to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gapped {
    /// The text with one sentinel for each gap, and the end token.
    pub input: Vec<u32>,
    /// Each sentinel followed by what it stands for, a last sentinel, and the end token.
    pub target: Vec<u32>,
}

impl Corruption {
    /// An error naming what is out of range.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.rate > 0.0 && self.rate < 1.0) {
            return Err(format!("rate must be above 0 and below 1, not {}", self.rate));
        }
        if !(self.mean_span >= 1.0 && self.mean_span.is_finite()) {
            return Err(format!("mean_span must be at least 1, not {}", self.mean_span));
        }
        Ok(())
    }

    // ANCHOR: corrupt
    /// Puts gaps into `tokens`, which are without an end token: `rate` n tokens go missing, at least one, in as many gaps as make
    /// `mean_span` of a gap, both rounded; all ways to place them are equally likely. `sentinels` are as many as there may be
    /// gaps, and one more. A text of fewer than two tokens has no gap.
    pub fn corrupt(&self, tokens: &[u32], sentinels: &[u32], end: u32, random: &mut impl Rng) -> Gapped {
        let (mut input, mut target) = (Vec::new(), Vec::new());
        let mut names = sentinels.iter();
        let mut rest = tokens;
        for (keep, lose) in self.spans(tokens.len(), sentinels.len().saturating_sub(1), random) {
            let (kept, after) = rest.split_at(keep);
            let (lost, after) = after.split_at(lose);
            rest = after;
            input.extend(kept);
            if !lost.is_empty() {
                let name = names.next();
                input.extend(name);
                target.extend(name);
                target.extend(lost);
            }
        }
        target.extend(names.next());
        input.push(end);
        target.push(end);
        Gapped { input, target }
    }

    /// (tokens kept, then tokens lost), n in all. The first kept and the last lost may be none.
    fn spans(&self, n: usize, most: usize, random: &mut impl Rng) -> Vec<(usize, usize)> {
        if n < 2 || most == 0 {
            return vec![(n, 0)];
        }
        let lost = ((self.rate * n as f64).round() as usize).clamp(1, n - 1);
        let gaps = (lost as f64 / self.mean_span).round() as usize;
        let gaps = gaps.clamp(1, lost.min(n - lost + 1).min(most));
        // At least one token is kept between two gaps, but none need be before the first and after the last. (T5 itself ends
        // every text with a gap and begins none with one, which matters little where texts are long.)
        let mut kept = parts(n - lost + 2, gaps + 1, random);
        kept[0] -= 1;
        kept[gaps] -= 1;
        kept.into_iter().zip(parts(lost, gaps, random).into_iter().chain([0])).collect()
    }
    // ANCHOR_END: corrupt
}

/// `n` as a sum of `count` whole numbers of at least 1, every way equally likely: the cuts are a random choice of n - 1 places.
fn parts(n: usize, count: usize, random: &mut impl Rng) -> Vec<usize> {
    let mut places: Vec<usize> = (1..n).collect();
    for i in 0..count - 1 {
        let other = random.random_range(i..places.len());
        places.swap(i, other);
    }
    let mut cuts = places[..count - 1].to_vec();
    cuts.sort_unstable();
    cuts.push(n);
    let mut last = 0;
    cuts.into_iter().map(|cut| cut - std::mem::replace(&mut last, cut)).collect()
}
