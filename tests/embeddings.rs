//! The cache of embeddings: what is in it, and what it refuses.

use half::f16;
use imagen::array::Device;
use imagen::text::{CacheError, Embedding, EmbeddingCache, HashedWords, TextEncoder, TextError};
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Counts the captions it reads.
struct Counting {
    inner: HashedWords,
    read: AtomicUsize,
    /// How often it was asked, for one caption or for many.
    asked: AtomicUsize,
}

impl Counting {
    fn new(seed: u64) -> Arc<Counting> {
        Arc::new(Counting {
            inner: HashedWords::new(6, seed, 32).unwrap(),
            read: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        })
    }
}

impl TextEncoder for Counting {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        self.encode_all(&[caption]).map(|mut all| all.remove(0))
    }

    fn encode_all(&self, captions: &[&str]) -> Result<Vec<Embedding>, TextError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(captions.len(), Ordering::Relaxed);
        self.inner.encode_all(captions)
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
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (captions, tokens) = (3, 2 + 1 + 3);
    assert_eq!(word(8), 2 * 6 * tokens);
    let header = word(16 + word(8));
    assert_eq!(bytes.len(), 16 + word(8) + 8 + header + 8 * (captions + 1));
}

/// The rows were last once.
#[test]
fn a_file_of_the_first_layout_is_still_read() {
    let (_folder, file) = file();
    let new = EmbeddingCache::open_or_make(&file, Counting::new(1), captions()).unwrap();
    let bytes = fs::read(&file).unwrap();
    let rows = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
    let old = [b"IMGNEMB1", &bytes[16 + rows..], &bytes[16..16 + rows]].concat();
    // A new file: the other is still mapped.
    fs::remove_file(&file).unwrap();
    fs::write(&file, &old).unwrap();
    let encoder = Counting::new(1);
    let again = EmbeddingCache::open_or_make(&file, encoder.clone(), captions()).unwrap();
    for caption in CAPTIONS {
        assert_eq!(again.get(caption).unwrap(), new.get(caption).unwrap());
    }
    assert_eq!(encoder.read.load(Ordering::Relaxed), 0);
    fs::remove_file(&file).unwrap();
    fs::write(&file, &old[..old.len() - 1]).unwrap();
    assert!(matches!(EmbeddingCache::open_or_make(&file, encoder, captions()), Err(CacheError::Damaged { .. })));
}

/// Notes how many captions were read, and how many bytes were in a folder, each time it is asked.
struct Watching {
    inner: Arc<Counting>,
    folder: PathBuf,
    seen: Mutex<Vec<(usize, u64)>>,
}

impl TextEncoder for Watching {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        self.inner.encode(caption)
    }

    fn encode_all(&self, captions: &[&str]) -> Result<Vec<Embedding>, TextError> {
        let bytes = fs::read_dir(&self.folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        self.seen.lock().unwrap().push((self.inner.read.load(Ordering::Relaxed), bytes));
        self.inner.encode_all(captions)
    }

    fn on(self: Arc<Self>, _device: Device) -> Arc<dyn TextEncoder> {
        self
    }

    fn digest(&self) -> String {
        self.inner.digest()
    }
}

/// The embeddings of many captions do not fit into memory: those of some are on the disk before the next are made.
#[test]
fn many_captions_are_encoded_part_by_part() {
    let (folder, file) = file();
    let many = || (0..4000).map(|i| format!("this is the picture with the number {i} of some thousand"));
    let watching = Arc::new(Watching {
        inner: Counting::new(1),
        folder: folder.path().to_path_buf(),
        seen: Mutex::new(Vec::new()),
    });
    let cache = EmbeddingCache::open_or_make(&file, watching.clone(), many()).unwrap();
    let seen = watching.seen.lock().unwrap().clone();
    assert!(seen.len() > 1 && seen[0].0 == 0 && seen[1].0 > 500, "{seen:?}");
    // Eleven words of six numbers.
    assert!(seen.iter().all(|&(read, on_disk)| on_disk >= 2 * 6 * 11 * read as u64), "{seen:?}");
    let encoder = watching.inner.clone();
    assert_eq!((encoder.read.load(Ordering::Relaxed), encoder.asked.load(Ordering::Relaxed)), (4000, seen.len()));
    for caption in many().step_by(37) {
        let (found, exact) = (cache.get(&caption).unwrap(), encoder.inner.encode(&caption).unwrap());
        let rounded: Vec<f32> = exact.tokens.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
        assert_eq!((found.tokens, found.words), (rounded, exact.words));
    }
    // One that cannot be encoded, after many that can.
    drop(cache);
    fs::remove_file(&file).unwrap();
    let bad = many().chain(["\u{10FFFF}".to_string()]);
    let error = EmbeddingCache::open_or_make(&file, encoder, bad).err().unwrap();
    assert!(matches!(error, CacheError::Text(TextError::Empty { .. })), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
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

/// An encoder that takes so long that another run makes the same file meanwhile.
struct Overtaken {
    slow: Arc<Counting>,
    fast: Arc<Counting>,
    file: PathBuf,
}

impl TextEncoder for Overtaken {
    fn dim(&self) -> usize {
        self.slow.dim()
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        EmbeddingCache::open_or_make(&self.file, self.fast.clone(), captions()).unwrap();
        self.slow.encode(caption)
    }

    fn on(self: Arc<Self>, _device: Device) -> Arc<dyn TextEncoder> {
        self
    }

    fn digest(&self) -> String {
        self.slow.digest()
    }
}

#[test]
fn of_two_runs_that_make_the_same_file_the_later_replaces_nothing() {
    for (seed, same) in [(1, true), (2, false)] {
        let (folder, file) = file();
        let (slow, fast) = (Counting::new(seed), Counting::new(1));
        let ended = EmbeddingCache::open_or_make(
            &file,
            Arc::new(Overtaken { slow, fast: fast.clone(), file: file.clone() }),
            captions(),
        );
        match ended {
            Ok(cache) => assert!(same && cache.get("seven").is_some()),
            Err(error) => assert!(!same && matches!(error, CacheError::Other { what: "text encoder", .. }), "{error}"),
        }
        // It is still the file of the first.
        EmbeddingCache::open_or_make(&file, fast.clone(), captions()).unwrap();
        assert_eq!(fast.read.load(Ordering::Relaxed), 3);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// An encoder that is read from the disk reads all of itself each time it is asked.
#[test]
fn captions_that_are_not_in_the_file_are_encoded_together() {
    let (_folder, file) = file();
    let encoder = Counting::new(1);
    let cache = EmbeddingCache::open_or_make(&file, encoder.clone(), captions()).unwrap();
    let asked = |encoder: &Counting| encoder.asked.load(Ordering::Relaxed);
    let before = asked(&encoder);
    let wanted = ["eight", "a seven", "nine", "seven", "a nine"];
    let found = cache.encode_all(&wanted).unwrap();
    assert_eq!(asked(&encoder), before + 1);
    for (caption, found) in wanted.iter().zip(&found) {
        assert_eq!(found, &cache.encode(caption).unwrap(), "{caption}");
    }
    let before = asked(&encoder);
    assert!(cache.encode_all(&CAPTIONS).unwrap().len() == 5 && asked(&encoder) == before);
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
