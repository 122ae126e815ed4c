//! The cache of embeddings: what is in it, and what it refuses.

use half::f16;
use imagen::array::Device;
use imagen::text::{CacheError, Embedding, EmbeddingCache, HashedWords, TextEncoder, TextError};
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Counts the captions it reads.
struct Counting {
    inner: HashedWords,
    read: AtomicUsize,
}

impl Counting {
    fn new(seed: u64) -> Arc<Counting> {
        Arc::new(Counting { inner: HashedWords::new(6, seed, 32).unwrap(), read: AtomicUsize::new(0) })
    }
}

impl TextEncoder for Counting {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.inner.encode(caption)
    }

    fn on(self: Arc<Self>, _device: Device) -> Arc<dyn TextEncoder> {
        self
    }

    fn digest(&self) -> String {
        self.inner.digest()
    }
}

const CAPTIONS: [&str; 5] = ["a seven", "the digit 7", "a seven", "seven", "the digit 7"];

fn captions() -> impl Iterator<Item = String> {
    CAPTIONS.into_iter().map(String::from)
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("captions.embeddings");
    (folder, file)
}

#[test]
fn every_caption_is_read_once_and_never_again() {
    let (_folder, file) = file();
    let encoder = Counting::new(1);
    let cache = EmbeddingCache::open_or_make(&file, encoder.clone(), captions()).unwrap();
    assert_eq!((cache.len(), encoder.read.load(Ordering::Relaxed)), (3, 3));
    for caption in CAPTIONS {
        let (found, exact) = (cache.encode(caption).unwrap(), encoder.inner.encode(caption).unwrap());
        assert_eq!((found.n, found.d, &found.words), (exact.n, exact.d, &exact.words));
        let rounded: Vec<f32> = exact.tokens.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
        assert_eq!(found.tokens, rounded);
    }
    let again = EmbeddingCache::open_or_make(&file, encoder.clone(), captions()).unwrap();
    assert_eq!(cache.encode("seven").unwrap(), again.encode("seven").unwrap());
    assert_eq!(encoder.read.load(Ordering::Relaxed), 3);
    // Nothing else is in it; it is read when it comes.
    assert!(again.get("eight").is_none());
    assert_eq!(again.encode("eight").unwrap(), encoder.inner.encode("eight").unwrap());
    assert_eq!(encoder.read.load(Ordering::Relaxed), 4);
}

/// Rows are not padded: the file has 2 d bytes for each token, and what is said about them.
#[test]
fn the_file_has_no_padding() {
    let (_folder, file) = file();
    EmbeddingCache::open_or_make(&file, Counting::new(1), captions()).unwrap();
    let bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
    let (captions, tokens) = (3, 2 + 1 + 3);
    assert_eq!(bytes.len(), 16 + header + 8 * (captions + 1) + 2 * 6 * tokens);
}

#[test]
fn another_encoder_or_other_captions_are_refused_and_nothing_is_overwritten() {
    let (_folder, file) = file();
    EmbeddingCache::open_or_make(&file, Counting::new(1), captions()).unwrap();
    let before = fs::read(&file).unwrap();
    let refused =
        |encoder, captions: Vec<String>| EmbeddingCache::open_or_make(&file, encoder, captions).err().unwrap();
    let error = refused(Counting::new(2), captions().collect());
    assert!(matches!(&error, CacheError::Other { what: "text encoder", .. }));
    let message = error.to_string();
    assert!(
        message.contains("seed=1") && message.contains("seed=2") && message.contains("name another file"),
        "{message}"
    );
    let error = refused(Counting::new(1), vec!["a seven".into(), "seven".into()]);
    assert!(matches!(error, CacheError::Other { what: "set of captions", .. }));
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// Gives one number for every word.
struct Giving(f32);

impl TextEncoder for Giving {
    fn dim(&self) -> usize {
        1
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        let words: Vec<String> = caption.split(' ').map(String::from).collect();
        Ok(Embedding { tokens: vec![self.0; words.len()], n: words.len(), d: 1, words, left_out: 2 })
    }

    fn on(self: Arc<Self>, _device: Device) -> Arc<dyn TextEncoder> {
        self
    }

    fn digest(&self) -> String {
        "giving".into()
    }
}

/// What f16 does not hold would be infinite for ever after, and NaN may come from a device that has failed.
#[test]
fn numbers_that_f16_does_not_hold_are_refused() {
    let (_folder, file) = file();
    for value in [f32::NAN, f32::INFINITY, 65_520.0, -1e9] {
        let error = EmbeddingCache::open_or_make(&file, Arc::new(Giving(value)), captions()).err().unwrap();
        assert!(error.to_string().contains("which f16 does not hold"), "{error}");
        assert!(!file.exists());
    }
    let cache = EmbeddingCache::open_or_make(&file, Arc::new(Giving(65_504.0)), captions()).unwrap();
    assert_eq!(cache.get("seven").unwrap().tokens, [65_504.0]);
    assert_eq!((cache.get("seven").unwrap().left_out, cache.cut().count()), (2, 3));
}

#[test]
fn a_caption_that_cannot_be_read_leaves_no_file() {
    let (_folder, file) = file();
    let captions = ["seven".to_string(), "?!".to_string()];
    let error = EmbeddingCache::open_or_make(&file, Counting::new(1), captions).err().unwrap();
    assert!(matches!(error, CacheError::Text(TextError::Empty { .. })));
    assert!(!file.exists());
}

proptest! {
    /// A file cut short or changed is an error; or the change was in a number, and only a number is another.
    #[test]
    fn damaged_files_are_errors(cut in 0usize..2000, at in 0usize..2000, byte: u8) {
        let (_folder, file) = file();
        EmbeddingCache::open_or_make(&file, Counting::new(1), captions()).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..cut % bytes.len()]).unwrap();
        let error = EmbeddingCache::open_or_make(&file, Counting::new(1), captions()).err();
        let damaged = matches!(error, Some(CacheError::Damaged { .. }));
        prop_assert!(damaged);
        let mut changed = bytes.clone();
        changed[at % bytes.len()] = byte;
        fs::write(&file, changed).unwrap();
        if let Ok(cache) = EmbeddingCache::open_or_make(&file, Counting::new(1), captions()) {
            for caption in CAPTIONS {
                prop_assert_eq!(cache.get(caption).unwrap().tokens.len(), 6 * caption.split(' ').count());
            }
        }
    }
}
