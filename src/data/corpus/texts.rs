//! The texts of a pre-training run: those of the grammar, and those of a folder that the user names.

use super::text;
use crate::bundled::hex;
use crate::files::{self, FileError};
use crate::random::{Purpose, hash, stream};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a run reads: in TOML, the section `[corpus]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// A folder of plain text, read whole with all folders within; none if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Share of the texts that come from the folder, if there is one; the others come from the grammar.
    #[serde(default = "default_share")]
    pub folder_share: f64,
}

fn default_share() -> f64 {
    0.5
}

/// Texts by number.
#[derive(Debug)]
pub struct Corpus {
    seed: u64,
    share: f64,
    training: Vec<String>,
    held_out: Vec<String>,
    digest: String,
    /// What of the folder is not read.
    unread: Unread,
}

/// What of a folder is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unread {
    /// Files that are no text.
    files: usize,
    /// Texts of a single word.
    single: usize,
}

/// A folder that cannot be read as text.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A file or folder could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no text.
    #[error(
        "{} has no text of two words or more, but {files} files that are not text in UTF-8 and {single} lines of a single word or \
         without spaces; name a folder with .txt files, or leave corpus.folder out", folder.display()
    )]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// Files in it that are no text.
        files: usize,
        /// Lines in it of a single word, as a line without spaces is.
        single: usize,
    },
    /// A setting is out of range.
    #[error("corpus.folder_share must be between 0 and 1, not {0}")]
    Share(f64),
}

/// Longer lines become several texts.
const MOST_WORDS: usize = 48;

/// One line of so many of a folder is kept for evaluation.
const HELD_OUT: u64 = 20;

/// Numbers of the grammar's texts from here on are kept for evaluation.
const HELD_OUT_FROM: u64 = 1 << 48;

/// A change of the grammar changes this, and no run of another grammar can be resumed.
const GRAMMAR: &str = "grammar-1";

impl Corpus {
    /// Texts chosen by `seed`, those of the folder read into memory.
    pub fn new(config: &CorpusConfig, seed: u64) -> Result<Corpus, CorpusError> {
        if !(0.0..=1.0).contains(&config.folder_share) {
            return Err(CorpusError::Share(config.folder_share));
        }
        let mut hasher = Sha256::new();
        hasher.update(GRAMMAR);
        let mut corpus = Corpus {
            seed,
            share: 0.0,
            training: Vec::new(),
            held_out: Vec::new(),
            digest: String::new(),
            unread: Unread::default(),
        };
        if let Some(folder) = &config.folder {
            corpus.share = config.folder_share;
            let (lines, unread) = lines(folder)?;
            corpus.unread = unread;
            for line in lines {
                hasher.update(&line);
                hasher.update("\n");
                let kept = hash(&line).is_multiple_of(HELD_OUT);
                if kept { corpus.held_out.push(line) } else { corpus.training.push(line) }
            }
            if corpus.training.is_empty() {
                std::mem::swap(&mut corpus.training, &mut corpus.held_out);
            }
            if corpus.training.is_empty() {
                let Unread { files, single } = unread;
                return Err(CorpusError::Empty { folder: folder.clone(), files, single });
            }
        }
        corpus.digest = hex(&hasher.finalize());
        Ok(corpus)
    }

    /// Training text number `index`: without end, and a function of the seed and the number alone.
    pub fn text(&self, index: u64) -> String {
        self.pick(&self.training, index)
    }

    /// A text drawn apart from those of training. A line of a folder is in training or here, unless the folder has too few lines to
    /// keep any; a short text of the grammar may be in both.
    pub fn held_out(&self, index: u64) -> String {
        let lines = if self.held_out.is_empty() { &self.training } else { &self.held_out };
        self.pick(lines, HELD_OUT_FROM + index)
    }

    fn pick(&self, lines: &[String], index: u64) -> String {
        let mut random = stream(self.seed, Purpose::Corpus, 1, index);
        let share = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if share < self.share {
            let line = (u128::from(random.next_u64()) * lines.len() as u128) >> 64;
            return lines[line as usize].clone();
        }
        text(self.seed, index)
    }

    /// How many files of the folder are not text in UTF-8, and were passed over.
    pub fn passed_over(&self) -> usize {
        self.unread.files
    }

    /// How many lines of the folder, or ends of lines that were too long for one text, are a single word and left out: nothing of
    /// them could be guessed from the rest. Words are what stands between spaces.
    pub fn single_words(&self) -> usize {
        self.unread.single
    }

    /// All texts of the folder that may be drawn, for training or evaluation.
    pub fn folder_texts(&self) -> impl Iterator<Item = &str> {
        let drawn = self.share > 0.0;
        self.training.iter().chain(&self.held_out).filter(move |_| drawn).map(String::as_str)
    }

    /// The first `count` texts of the grammar; none if only those of the folder are drawn.
    pub fn grammar_texts(&self, count: u64) -> impl Iterator<Item = String> {
        let count = if self.share < 1.0 { count } else { 0 };
        (0..count).map(|index| text(self.seed, index))
    }

    /// SHA-256 of the grammar's version and the folder's lines. What else the texts depend on, the seed and the folder's share, is
    /// not in it: when a run is resumed, its config tells of them.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the folder's texts in memory.
    pub fn bytes(&self) -> u64 {
        self.training.iter().chain(&self.held_out).map(|line| line.len() as u64).sum()
    }
}

/// Every line of two words or more in the text files of a folder, in the order of their paths, and what is left out.
fn lines(folder: &Path) -> Result<(Vec<String>, Unread), FileError> {
    let (mut lines, mut unread) = (Vec::new(), Unread::default());
    for file in files::all_within(folder)? {
        let Some(text) = text_of(&file)? else {
            unread.files += 1;
            continue;
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            for words in words.chunks(MOST_WORDS) {
                match words {
                    [_] => unread.single += 1,
                    _ => lines.push(words.join(" ")),
                }
            }
        }
    }
    Ok((lines, unread))
}

/// Bytes of a file that are looked at before more are read.
const BLOCK: u64 = 1 << 20;

/// The whole of a file; `None` if it is not UTF-8, and then no more is read of it than shows that: a file of weights among the
/// texts may be larger than the memory.
fn text_of(path: &Path) -> Result<Option<String>, FileError> {
    let failed = |e| FileError::new("read", path, e);
    let mut file = File::open(path).map_err(failed)?;
    // What is known to be UTF-8, and bytes after it that may be the beginning of a character.
    let (mut bytes, mut good) = (Vec::new(), 0);
    loop {
        let read = file.by_ref().take(BLOCK).read_to_end(&mut bytes).map_err(failed)?;
        match std::str::from_utf8(&bytes[good..]) {
            Ok(_) => good = bytes.len(),
            Err(error) if error.error_len().is_some() => return Ok(None),
            Err(error) => good += error.valid_up_to(),
        }
        if read == 0 {
            return Ok((good == bytes.len()).then(|| String::from_utf8(bytes).expect("it was looked at part by part")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn characters_may_lie_across_blocks_but_not_beyond_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let block = BLOCK as usize;
        for before in block - 4..=block {
            let text = "a".repeat(before) + "\u{1F600}" + &"é".repeat(block);
            fs::write(&path, &text).unwrap();
            assert!(text_of(&path).unwrap().is_some_and(|read| read == text), "{before}");
            for cut in 1..=3 {
                fs::write(&path, &text.as_bytes()[..before + cut]).unwrap();
                assert_eq!(text_of(&path).unwrap(), None, "{before} {cut}");
            }
        }
        fs::write(&path, "").unwrap();
        assert_eq!(text_of(&path).unwrap().as_deref(), Some(""));
    }
}
