//! Counter-based random streams.
//!
//! A stream is keyed by (seed, purpose, step, index), and the key is all there is: nothing is carried from one draw to
//! the next. So a sample does not depend on the batch it was in, on the device, or on the number of threads, and a
//! resumed run draws what the uninterrupted one would have drawn.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// What a stream is used for. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Initial values of parameters; the index is a hash of the parameter's name.
    Init = 1,
    /// The order of the examples in an epoch; the step is the epoch.
    Shuffle = 2,
    /// The noise level t of a training example.
    Time = 3,
    /// The noise eps of a training example.
    Noise = 4,
    /// Whether the condition of a training example is dropped.
    Drop = 5,
    /// Which caption of several a training example gets.
    Caption = 6,
    /// x_T, the starting point of a sampled image; the index is the image.
    Start = 7,
    /// The noise a stochastic sampler adds; the step is the sampler's step.
    Sampler = 8,
    /// Fixed vectors of the hashed-word text encoder; the index is a hash of the word.
    Word = 9,
    /// Random numbers of tests, benchmarks and examples.
    Test = 11,
    /// Random changes that enlarge a training set (shifts, crops).
    Augment = 12,
    /// Texts of the pre-training corpus; the index is the text's number.
    Corpus = 13,
    /// The gaps of a text; the index is the text's number.
    Gaps = 14,
    /// The noise eps of an image that a model is judged by; the index is the image.
    Evaluation = 15,
    /// The noise on the smaller image that a super-resolution model is shown, in training.
    Augmentation = 16,
    /// How much of it there is.
    AugmentationTime = 17,
    /// Which part of a training image is learnt from.
    Crop = 18,
}

// ANCHOR: stream
/// The random stream of one key.
pub fn stream(seed: u64, purpose: Purpose, step: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, step, index]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
// ANCHOR_END: stream

/// `n` draws from N(0, 1) of one stream.
pub fn normal(seed: u64, purpose: Purpose, step: u64, index: u64, n: usize) -> Vec<f64> {
    StandardNormal.sample_iter(stream(seed, purpose, step, index)).take(n).collect()
}

/// A 64-bit FNV-1a hash of a name, to key a stream by it. Stable across versions and platforms.
pub fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
