//! The texts of a pre-training run: those of the grammar, and those of a folder that the user names.

use super::text;
use crate::bundled::hex;
use crate::files::{self, FileError};
use crate::random::{Purpose, hash, stream};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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
    /// Files of the folder that are no text.
    passed_over: usize,
}

/// A folder that cannot be read as text.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A file or folder could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no text.
    #[error("{} has no text of two words or more; name a folder with .txt files, or leave corpus.folder out", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
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
            passed_over: 0,
        };
        if let Some(folder) = &config.folder {
            corpus.share = config.folder_share;
            let (lines, passed_over) = lines(folder)?;
            corpus.passed_over = passed_over;
            for line in lines {
                hasher.update(&line);
                hasher.update("\n");
                let kept = hash(&line).is_multiple_of(HELD_OUT);
                if kept { corpus.held_out.push(line) } else { corpus.training.push(line) }
            }
            if corpus.training.is_empty() {
                return Err(CorpusError::Empty { folder: folder.clone() });
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
        self.passed_over
    }

    /// SHA-256 of everything the texts depend on but the seed.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the folder's texts in memory.
    pub fn bytes(&self) -> u64 {
        self.training.iter().chain(&self.held_out).map(|line| line.len() as u64).sum()
    }
}

/// Every line of two words or more in the text files of a folder, in the order of their paths, and how many files are not UTF-8.
fn lines(folder: &Path) -> Result<(Vec<String>, usize), FileError> {
    let (mut lines, mut passed_over) = (Vec::new(), 0);
    for file in files::all_within(folder)? {
        let Ok(text) = String::from_utf8(files::read(&file)?) else {
            passed_over += 1;
            continue;
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let texts = words.chunks(MOST_WORDS).filter(|words| words.len() > 1);
            lines.extend(texts.map(|words| words.join(" ")));
        }
    }
    Ok((lines, passed_over))
}
