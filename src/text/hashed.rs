//! Words as fixed random vectors: the zero line that real text encoders are compared with.

use super::{Embedding, TextEncoder, TextError};
use crate::array::Device;
use crate::random::{self, Purpose};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Each word is a fixed random vector, chosen by the word's hash, plus a vector for its place in the caption.
///
/// It knows which words are the same and where they stand, and nothing else: "seven" is as far from "7" as from
/// "background", and a word not seen in training is noise. What a model learns of language with it, the model learned
/// from its captions. A pretrained encoder (Imagen's T5) has to be better than this to be worth its size.
#[derive(Debug)]
pub struct HashedWords {
    dim: usize,
    seed: u64,
    max_words: usize,
    /// Vectors of words met before: only saves time.
    known: Mutex<HashMap<String, Arc<[f32]>>>,
}

/// How strongly a word's place counts, against word vectors of unit variance. Sinusoids have a mean square of 1/2, so
/// this leaves a ninth of a token's variance to the place: seen easily, but the word dominates.
const PLACE_SCALE: f64 = 0.5;

/// So that a server that meets ever new words does not grow forever.
const MOST_KNOWN: usize = 1 << 16;

impl HashedWords {
    /// The longest caption where nothing else is said, in words.
    pub const DEFAULT_MAX_WORDS: usize = 32;

    /// An encoder with vectors of size `dim` (1 to 65536) chosen by `seed`, for captions of at most `max_words` (1 to
    /// 4096). Errors: [`TextError::Setting`] if out of these ranges.
    pub fn new(dim: usize, seed: u64, max_words: usize) -> Result<HashedWords, TextError> {
        for (setting, value, most) in [("dim", dim, 1 << 16), ("max_words", max_words, 4096)] {
            if !(1..=most).contains(&value) {
                return Err(TextError::Setting { setting, value, least: 1, most });
            }
        }
        Ok(HashedWords { dim, seed, max_words, known: Mutex::new(HashMap::new()) })
    }

    /// The vector of a normalised word, [d]: draws from N(0, 1).
    fn word(&self, word: &str) -> Arc<[f32]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vector) = known.get(word) {
            return vector.clone();
        }
        let draws = random::normal(self.seed, Purpose::Word, 0, random::hash(word), self.dim);
        let vector: Arc<[f32]> = draws.into_iter().map(|v| v as f32).collect();
        if known.len() < MOST_KNOWN {
            known.insert(word.into(), vector.clone());
        }
        vector
    }
}

/// The words of a caption: split at white space, in lower case, without whatever is neither letter nor digit at their
/// ends. "A T-shirt!" is ["a", "t-shirt"].
fn words(caption: &str) -> Vec<String> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    caption.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect()
}

/// Component `i` of `dim` of the vector of place `place` (Vaswani et al., arXiv 1706.03762, section 3.5): sine where i is
/// even, cosine where it is odd, of place / 10000^(2 floor(i / 2) / dim).
fn place(place: usize, i: usize, dim: usize) -> f64 {
    let angle = place as f64 / 10000f64.powf((i - i % 2) as f64 / dim as f64);
    if i.is_multiple_of(2) { angle.sin() } else { angle.cos() }
}

impl TextEncoder for HashedWords {
    fn dim(&self) -> usize {
        self.dim
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        let words = words(caption);
        if words.is_empty() {
            return Err(TextError::Empty { caption: caption.into() });
        }
        if words.len() > self.max_words {
            return Err(TextError::TooLong { words: words.len(), limit: self.max_words });
        }
        let mut tokens = Vec::with_capacity(words.len() * self.dim);
        for (at, word) in words.iter().enumerate() {
            let vector = self.word(word);
            tokens.extend(vector.iter().enumerate().map(|(i, &v)| v + (PLACE_SCALE * place(at, i, self.dim)) as f32));
        }
        Ok(Embedding { tokens, n: words.len(), d: self.dim, words, left_out: 0 })
    }

    /// Vectors are looked up, not computed: there is nothing to move.
    fn on(self: Arc<Self>, _device: Device) -> Arc<dyn TextEncoder> {
        self
    }

    fn digest(&self) -> String {
        // Readable, since this is all there is to it. The limit decides which captions are refused, not what they become.
        format!("hashed-words-1:dim={},seed={}", self.dim, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{TextBatch, TextEncoderConfig};
    use proptest::prelude::*;

    fn encoder(dim: usize) -> HashedWords {
        HashedWords::new(dim, 1, 32).unwrap()
    }

    #[test]
    fn captions_are_normalised() {
        assert_eq!(words("  A \"T-shirt\",\tthe Number:  7! -- (É)"), ["a", "t-shirt", "the", "number", "7", "é"]);
        let e = encoder(8);
        assert_eq!(e.encode("A handwritten SEVEN.").unwrap(), e.encode("a handwritten seven").unwrap());
    }

    #[test]
    fn a_token_is_the_word_plus_its_place() {
        let e = encoder(6);
        let twice = e.encode("seven seven").unwrap();
        assert_eq!((twice.n, twice.d, twice.tokens.len()), (2, 6, 12));
        for i in 0..6 {
            let difference = f64::from(twice.tokens[6 + i]) - f64::from(twice.tokens[i]);
            let expected = 0.5 * (place(1, i, 6) - place(0, i, 6));
            assert!((difference - expected).abs() < 1e-6);
        }
        assert_eq!(place(0, 0, 6), 0.0);
        assert_eq!(place(0, 1, 6), 1.0);
        assert!((place(3, 2, 6) - (3.0 / 10000f64.powf(1.0 / 3.0)).sin()).abs() < 1e-15);
    }

    #[test]
    fn word_vectors_have_unit_variance_and_no_relation() {
        let e = encoder(4096);
        let (a, b) = (e.word("seven"), e.word("7"));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / 4096.0;
        // Means of 4096 draws: sd of a square's is sqrt(2 / 4096) = 0.022, of a product's 1 / 64. Five of them.
        assert!((dot(&a, &a) - 1.0).abs() < 0.11 && (dot(&b, &b) - 1.0).abs() < 0.11);
        assert!(dot(&a, &b).abs() < 0.079);
    }

    #[test]
    fn seeds_choose_other_vectors_and_digests() {
        let other = HashedWords::new(8, 2, 32).unwrap();
        assert_ne!(encoder(8).encode("seven"), other.encode("seven"));
        assert_ne!(encoder(8).digest(), other.digest());
        assert_eq!(encoder(8).digest(), encoder(8).digest());
    }

    #[test]
    fn prompts_without_words_and_prompts_too_long_are_errors() {
        for caption in ["", "   ", "?! -- …", "\u{0}"] {
            assert_eq!(encoder(4).encode(caption), Err(TextError::Empty { caption: caption.into() }));
        }
        assert!(encoder(4).encode(&"word ".repeat(32)).is_ok());
        let long = encoder(4).encode(&"word ".repeat(33)).unwrap_err();
        assert_eq!(long, TextError::TooLong { words: 33, limit: 32 });
        assert_eq!(long.to_string(), "the prompt has 33 words, but the text encoder takes at most 32; shorten it");
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert_eq!(
            HashedWords::new(0, 0, 32).unwrap_err(),
            TextError::Setting { setting: "dim", value: 0, least: 1, most: 65536 }
        );
        assert!(matches!(HashedWords::new(8, 0, 0), Err(TextError::Setting { setting: "max_words", .. })));
        assert!(matches!(HashedWords::new(usize::MAX, 0, 1), Err(TextError::Setting { setting: "dim", .. })));
    }

    #[test]
    fn configs_are_read_with_defaults_and_unknown_keys_refused() {
        let config: TextEncoderConfig = toml::from_str("encoder = \"hashed-words\"\ndim = 8").unwrap();
        assert_eq!(config, TextEncoderConfig::HashedWords { dim: 8, seed: 0, max_words: 32 });
        assert_eq!(config.build().unwrap().dim(), 8);
        assert!(toml::from_str::<TextEncoderConfig>("encoder = \"hashed-words\"\ndim = 8\nmaxwords = 3").is_err());
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<TextEncoderConfig>(&text).unwrap(), config);
    }

    #[test]
    #[should_panic(expected = "caption 1 has vectors of 3, caption 0 of 4")]
    fn captions_of_different_sizes_do_not_make_a_batch() {
        TextBatch::pad(&[Embedding::null(4), Embedding::null(3)]);
    }

    #[test]
    fn a_batch_without_tokens_has_one_column_of_padding() {
        let batch = TextBatch::pad(&[Embedding::null(4), Embedding::null(4)]);
        assert_eq!((&batch.tokens.shape()[..], &batch.mask.shape()[..]), (&[2, 1, 4][..], &[2, 1][..]));
        assert!(batch.mask.to_f32().iter().chain(&batch.tokens.to_f32()).all(|&v| v == 0.0));
    }

    proptest! {
        #[test]
        fn any_text_is_encoded_or_refused(caption in any::<String>()) {
            match encoder(5).encode(&caption) {
                Ok(e) => {
                    prop_assert!(e.n >= 1 && e.n == e.words.len() && e.tokens.len() == 5 * e.n);
                    prop_assert!(e.tokens.iter().all(|v| v.is_finite()));
                }
                Err(TextError::Empty { .. }) => prop_assert!(words(&caption).is_empty()),
                Err(TextError::TooLong { words: n, limit: 32 }) => prop_assert!(n > 32),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }

        #[test]
        fn padding_keeps_every_token_and_marks_the_rest(lengths in prop::collection::vec(0usize..6, 1..5)) {
            let e = encoder(3);
            let captions: Vec<Embedding> = lengths.iter()
                .map(|&n| if n == 0 { Embedding::null(3) } else { e.encode(&"seven ".repeat(n)).unwrap() })
                .collect();
            let longest = *lengths.iter().max().unwrap().max(&1);
            let batch = TextBatch::pad(&captions);
            prop_assert_eq!(&batch.tokens.shape()[..], &[captions.len(), longest, 3]);
            prop_assert_eq!(&batch.mask.shape()[..], &[captions.len(), longest]);
            for (row, caption) in captions.iter().enumerate() {
                let tokens = &batch.tokens.slice::<f32>()[row * longest * 3..][..longest * 3];
                let mask = &batch.mask.slice::<f32>()[row * longest..][..longest];
                prop_assert_eq!(&tokens[..caption.n * 3], &caption.tokens[..]);
                prop_assert!(tokens[caption.n * 3..].iter().all(|&v| v == 0.0));
                prop_assert!(mask.iter().enumerate().all(|(i, &m)| m == f32::from(u8::from(i < caption.n))));
            }
        }
    }
}
