//! Embeddings on the disk: a large encoder reads each caption once, not once an epoch.
//!
//! The file: the letters "IMGNEMB2"; how many bytes the rows have, u64; the rows, f16; the length of a JSON header, u64; the
//! header; the first row of each caption and, last, the number of rows, u64 each. All little-endian. Captions stand in the order
//! of their text. The rows come first because they are written while the encoder works. Files of before, "IMGNEMB1", have the
//! same parts with the rows last, and no number of bytes; they are still read.

use super::{Embedding, TextEncoder, TextError};
use crate::array::Device;
use crate::bundled::hex;
use crate::files::{self, FileError, NewFile};
use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
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

/// What a file says about its rows; in the old layout it comes before them.
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

const MAGIC: &[u8; 8] = b"IMGNEMB2";
const OLD_MAGIC: &[u8; 8] = b"IMGNEMB1";

/// Bytes of captions that the encoder is given at a time: a thousand captions or so. Less, and an encoder that is read from the
/// disk reads itself more often; more, and what waits to be written takes much memory (half a gigabyte at d = 4096).
const TOGETHER: usize = 128 << 10;

impl EmbeddingCache {
    /// The cache in `file`, which is made if it is not there: every caption is then encoded once, however often it is among
    /// `captions`. An error if the file is of another encoder or of other captions; it is never replaced, not even one that
    /// another process has made meanwhile.
    pub fn open_or_make(
        file: &Path,
        encoder: Arc<dyn TextEncoder>,
        captions: impl IntoIterator<Item = String>,
    ) -> Result<EmbeddingCache, CacheError> {
        let mut captions: Vec<String> = captions.into_iter().collect();
        captions.sort();
        captions.dedup();
        // A link to nothing is there, too.
        if file.symlink_metadata().is_err() {
            make(file, &*encoder, &captions)?;
        }
        EmbeddingCache::open(file, encoder, captions)
    }

    /// Checks everything that is later relied on; `captions` are sorted.
    fn open(file: &Path, encoder: Arc<dyn TextEncoder>, captions: Vec<String>) -> Result<EmbeddingCache, CacheError> {
        let damaged = |problem: &str| CacheError::Damaged { path: file.to_path_buf(), problem: problem.into() };
        let map = files::map(file)?;
        let cut = || damaged("it is cut short");
        let word = |at: usize| {
            let bytes = *map.get(at..)?.first_chunk()?;
            usize::try_from(u64::from_le_bytes(bytes)).ok()
        };
        // Where the rows end if they come first, and where the header's length is.
        let (first_rows, at) = match map.first_chunk() {
            Some(MAGIC) => {
                let end = word(8).and_then(|n| n.checked_add(16)).ok_or_else(cut)?;
                (Some(16..end), end)
            }
            Some(OLD_MAGIC) => (None, 8),
            _ => return Err(damaged("it does not begin as one")),
        };
        let length = word(at).filter(|&n| n < map.len()).ok_or_else(cut)?;
        let table = at + 8 + length;
        let header = map.get(at + 8..table).ok_or_else(cut)?;
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
        let starts: Option<Vec<usize>> = (0..=captions.len()).map(|i| word(table + 8 * i)).collect();
        let starts = starts.ok_or_else(cut)?;
        let end = table + 8 * starts.len();
        let is_end = first_rows.is_none() || end == map.len();
        let rows = first_rows.unwrap_or(end..map.len());
        let fits = |&last: &usize| last.checked_mul(2 * header.dim).is_some_and(|size| size == rows.len());
        let counted = header.words.len() == captions.len()
            && header.left_out.len() == captions.len()
            && starts
                .windows(2)
                .zip(&header.words)
                .all(|(ends, words)| ends[1].checked_sub(ends[0]) == Some(words.len()));
        if !is_end || header.dim != encoder.dim() || starts[0] != 0 || !counted || !starts.last().is_some_and(fits) {
            return Err(damaged("its table does not fit its rows"));
        }
        let (words, left_out) = (header.words, header.left_out);
        Ok(EmbeddingCache { encoder, map, captions, starts, rows: rows.start, words, left_out })
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

    /// Those that are not in the file go to the encoder together, which may read all of itself from the disk for each call.
    fn encode_all(&self, captions: &[&str]) -> Result<Vec<Embedding>, TextError> {
        let mut found: Vec<Option<Embedding>> = captions.iter().map(|caption| self.get(caption)).collect();
        let missing: Vec<usize> = (0..captions.len()).filter(|&i| found[i].is_none()).collect();
        if !missing.is_empty() {
            let all: Vec<&str> = missing.iter().map(|&i| captions[i]).collect();
            for (i, embedding) in missing.into_iter().zip(self.encoder.encode_all(&all)?) {
                found[i] = Some(embedding);
            }
        }
        Ok(found.into_iter().flatten().collect())
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

/// Makes a file, unless another process makes it first: then that one stays. Only what was encoded last is in memory.
fn make(file: &Path, encoder: &dyn TextEncoder, captions: &[String]) -> Result<(), CacheError> {
    // Before a large encoder works for hours.
    let mut new = NewFile::begin(file)?;
    let (mut words, mut left_out) = (Vec::new(), Vec::new());
    let (mut starts, mut rows) = (0u64.to_le_bytes().to_vec(), 0u64);
    // The number of bytes is filled in at the end.
    new.fill(|file| file.write_all(&[*MAGIC, [0; 8]].concat()))?;
    let mut rest = captions;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = |caption: &&String| {
            size += caption.len();
            size <= TOGETHER
        };
        let (some, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = after;
        let texts: Vec<&str> = some.iter().map(String::as_str).collect();
        for (caption, embedding) in some.iter().zip(encoder.encode_all(&texts)?) {
            if let Some(value) = embedding.tokens.iter().find(|&&v| !f16::from_f32(v).is_finite()) {
                return Err(CacheError::Text(TextError::Model(format!(
                    "it makes {value} of the caption {caption:?}, which f16 does not hold"
                ))));
            }
            let halves: Vec<u8> = embedding.tokens.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
            new.fill(|file| file.write_all(&halves))?;
            rows += embedding.n as u64;
            starts.extend(rows.to_le_bytes());
            words.push(embedding.words);
            left_out.push(embedding.left_out);
        }
    }
    let dim = encoder.dim();
    let header = Header { encoder: encoder.digest(), captions: digest(captions), dim, words, left_out };
    let header = serde_json::to_vec(&header).expect("strings can always be written");
    new.fill(|file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        file.write_all(&starts)?;
        file.seek(SeekFrom::Start(8))?;
        file.write_all(&(rows * 2 * dim as u64).to_le_bytes())
    })?;
    match new.publish() {
        // It is then checked as one that was there before.
        Err(error) if error.source.kind() == ErrorKind::AlreadyExists => Ok(()),
        published => Ok(published?),
    }
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
