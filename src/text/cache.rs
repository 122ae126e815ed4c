//! Embeddings on the disk: a large encoder reads each caption once, not once an epoch.
//!
//! The file: the letters "IMGNEMB1"; the length of a JSON header, u64; the header; the first row of each caption and, last,
//! the number of rows, u64 each; the rows, f16. All little-endian. Captions stand in the order of their text.

use super::{Embedding, TextEncoder, TextError};
use crate::array::Device;
use crate::bundled::hex;
use crate::files::{self, FileError};
use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The embeddings of known captions, mapped from a file; any other caption is encoded when it comes.
///
/// Numbers are rounded to f16, so a caption from the cache differs from the same one encoded anew by up to 2^-11 of each number
/// (2^-25 below 2^-14). A run gets the same bits whether it made the file or found it. Those of a file that was made on a GPU
/// are that GPU's.
pub struct EmbeddingCache {
    encoder: Arc<dyn TextEncoder>,
    map: Mmap,
    captions: Vec<String>,
    /// First row of each caption, and the number of rows.
    starts: Vec<usize>,
    /// Where the rows begin.
    rows: usize,
    words: Vec<Vec<String>>,
    left_out: Vec<usize>,
}

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A caption cannot be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The file is not a whole cache.
    #[error("{} is not a whole cache of embeddings ({problem}); remove it, and it is made anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file was made with another encoder or for other captions.
    #[error(
        "{} holds embeddings of another {what} ({found}, not {wanted}); name another file, or remove this one, and it is made \
         anew", path.display()
    )]
    Other {
        /// Which file.
        path: PathBuf,
        /// "text encoder" or "set of captions".
        what: &'static str,
        /// The digest in the file.
        found: String,
        /// The digest that was expected.
        wanted: String,
    },
}

/// The header of a file.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Digest of the encoder: model and tokenizer.
    encoder: String,
    /// SHA-256 of the captions.
    captions: String,
    /// d, the size of a token's vector.
    dim: usize,
    /// The tokens of each caption as text.
    words: Vec<Vec<String>>,
    /// Tokens of each caption that were not read.
    left_out: Vec<usize>,
}

const MAGIC: &[u8; 8] = b"IMGNEMB1";

impl EmbeddingCache {
    /// The cache in `file`, which is made if it is not there: every caption is then encoded once, however often it is among
    /// `captions`. An error if the file is of another encoder or of other captions.
    pub fn open_or_make(
        file: &Path,
        encoder: Arc<dyn TextEncoder>,
        captions: impl IntoIterator<Item = String>,
    ) -> Result<EmbeddingCache, CacheError> {
        let mut captions: Vec<String> = captions.into_iter().collect();
        captions.sort();
        captions.dedup();
        if !file.exists() {
            // Before a large encoder works for hours.
            files::check_file(file)?;
            files::write(file, &bytes(&*encoder, &captions)?)?;
        }
        EmbeddingCache::open(file, encoder, captions)
    }

    /// Checks everything that is later relied on; `captions` are sorted.
    fn open(file: &Path, encoder: Arc<dyn TextEncoder>, captions: Vec<String>) -> Result<EmbeddingCache, CacheError> {
        let damaged = |problem: &str| CacheError::Damaged { path: file.to_path_buf(), problem: problem.into() };
        let map = files::map(file)?;
        let word = |at: usize| map.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
        if map.get(..8) != Some(MAGIC) {
            return Err(damaged("it does not begin as one"));
        }
        let length = word(8).and_then(|n| usize::try_from(n).ok()).filter(|&n| n < map.len());
        let header = length.and_then(|n| map.get(16..16 + n)).ok_or_else(|| damaged("it is cut short"))?;
        let table = 16 + header.len();
        let header: Header = serde_json::from_slice(header).map_err(|e| damaged(&e.to_string()))?;
        for (what, found, wanted) in [
            ("text encoder", &header.encoder, encoder.digest()),
            ("set of captions", &header.captions, digest(&captions)),
        ] {
            if *found != wanted {
                let (path, found) = (file.to_path_buf(), found.clone());
                return Err(CacheError::Other { path, what, found, wanted });
            }
        }
        let starts: Option<Vec<usize>> =
            (0..=captions.len()).map(|i| usize::try_from(word(table + 8 * i)?).ok()).collect();
        let starts = starts.ok_or_else(|| damaged("it is cut short"))?;
        let rows = table + 8 * starts.len();
        let fits = |&last: &usize| last.checked_mul(2 * header.dim).is_some_and(|size| size == map.len() - rows);
        let counted = header.words.len() == captions.len()
            && header.left_out.len() == captions.len()
            && starts
                .windows(2)
                .zip(&header.words)
                .all(|(ends, words)| ends[1].checked_sub(ends[0]) == Some(words.len()));
        if header.dim != encoder.dim() || starts[0] != 0 || !counted || !starts.last().is_some_and(fits) {
            return Err(damaged("its table does not fit its rows"));
        }
        Ok(EmbeddingCache { encoder, map, captions, starts, rows, words: header.words, left_out: header.left_out })
    }

    /// How many captions it knows.
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// The captions that were too long for the encoder.
    pub fn cut(&self) -> impl Iterator<Item = &str> {
        self.captions
            .iter()
            .zip(&self.left_out)
            .filter(|(_, left_out)| **left_out > 0)
            .map(|(caption, _)| caption.as_str())
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }

    /// The embedding of a caption; `None` if it is not in the file.
    pub fn get(&self, caption: &str) -> Option<Embedding> {
        let i = self.captions.binary_search_by(|known| known.as_str().cmp(caption)).ok()?;
        let (d, n) = (self.encoder.dim(), self.starts[i + 1] - self.starts[i]);
        let bytes = &self.map[self.rows + 2 * d * self.starts[i]..][..2 * d * n];
        let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect();
        Some(Embedding { tokens: halves.to_f32_vec(), n, d, words: self.words[i].clone(), left_out: self.left_out[i] })
    }
}

impl TextEncoder for EmbeddingCache {
    fn dim(&self) -> usize {
        self.encoder.dim()
    }

    fn encode(&self, caption: &str) -> Result<Embedding, TextError> {
        self.get(caption).map_or_else(|| self.encoder.encode(caption), Ok)
    }

    /// The captions that are not in the file move with the encoder.
    fn on(self: Arc<Self>, device: Device) -> Arc<dyn TextEncoder> {
        let _ = self.encoder.clone().on(device);
        self
    }

    fn digest(&self) -> String {
        format!("{} as f16", self.encoder.digest())
    }
}

/// The bytes of a file.
fn bytes(encoder: &dyn TextEncoder, captions: &[String]) -> Result<Vec<u8>, TextError> {
    let all: Vec<&str> = captions.iter().map(String::as_str).collect();
    let embeddings = encoder.encode_all(&all)?;
    for (caption, embedding) in captions.iter().zip(&embeddings) {
        if let Some(value) = embedding.tokens.iter().find(|&&v| !f16::from_f32(v).is_finite()) {
            return Err(TextError::Model(format!(
                "it makes {value} of the caption {caption:?}, which f16 does not hold"
            )));
        }
    }
    let header = Header {
        encoder: encoder.digest(),
        captions: digest(captions),
        dim: encoder.dim(),
        words: embeddings.iter().map(|e| e.words.clone()).collect(),
        left_out: embeddings.iter().map(|e| e.left_out).collect(),
    };
    let header = serde_json::to_vec(&header).expect("strings can always be written");
    let mut bytes = MAGIC.to_vec();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    let mut rows = 0u64;
    bytes.extend(rows.to_le_bytes());
    for embedding in &embeddings {
        rows += embedding.n as u64;
        bytes.extend(rows.to_le_bytes());
    }
    bytes.extend(embeddings.iter().flat_map(|e| &e.tokens).flat_map(|&v| f16::from_f32(v).to_le_bytes()));
    Ok(bytes)
}

/// SHA-256 of captions, each with its length in front so that no two sets have the same bytes.
fn digest(captions: &[String]) -> String {
    let mut hasher = Sha256::new();
    for caption in captions {
        hasher.update((caption.len() as u64).to_le_bytes());
        hasher.update(caption);
    }
    hex(&hasher.finalize())
}
