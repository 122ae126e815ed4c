//! Text as numbers of pieces: `tokenizer.json` and `spiece.model`, the two forms in which T5's tokenizers are published.

mod json;
mod sentencepiece;
mod training;

pub use sentencepiece::{SentencePiece, SentencePieceError};
pub use training::train;

use crate::bundled::digest;
use crate::files::{self, FileError};
use std::collections::HashMap;
use std::path::Path;

/// A tokenizer that cannot be used, or a text it cannot take.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// `spiece.model` is damaged, or of a kind that is not known here.
    #[error("{file}: {problem}; fetch it again")]
    SentencePiece {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: SentencePieceError,
    },
    /// `tokenizer.json` is damaged.
    #[error("{file} is not a tokenizer: {problem}; fetch it again")]
    Json {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// `tokenizer.json` is of another model.
    #[error(
        "{file} has {pieces} pieces, the model only {rows} rows for them (vocab_size): they do not belong together; fetch both from \
         the same place"
    )]
    TooMany {
        /// Which file.
        file: String,
        /// How many pieces it has.
        pieces: usize,
        /// How many there may be.
        rows: usize,
    },
    /// There is neither.
    #[error("{folder} has neither tokenizer.json nor spiece.model: fetch one of them beside the model")]
    None {
        /// The folder.
        folder: String,
    },
    /// A vocabulary cannot be trained.
    #[error("tokenizer: {0}")]
    Training(String),
}

/// Cuts a text into pieces of words and numbers them.
pub struct Tokenizer {
    kind: Kind,
    end: u32,
    digest: String,
}

enum Kind {
    Json(Box<json::Crate>),
    SentencePiece(SentencePiece),
}

/// A text, cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The number of each piece; the last is the end token.
    pub ids: Vec<u32>,
    /// The pieces as text: as many. U+2581 stands for a space.
    pub pieces: Vec<String>,
    /// Pieces beyond the limit, which are not among them.
    pub left_out: usize,
}

impl Tokenizer {
    /// The tokenizer in the folder of a model: `tokenizer.json`, or else `spiece.model`. `end` is the model's end token, `rows` how
    /// many pieces it has room for: see [`Tokenizer::from_json`].
    pub fn from_folder(folder: &Path, end: u32, rows: usize) -> Result<Tokenizer, TokenizerError> {
        let (json, model) = (folder.join("tokenizer.json"), folder.join("spiece.model"));
        if json.exists() {
            return Tokenizer::from_json(&read(&json)?, &json.display().to_string(), end, rows);
        }
        if model.exists() {
            return Tokenizer::from_sentencepiece(&read(&model)?, &model.display().to_string(), end);
        }
        Err(TokenizerError::None { folder: folder.display().to_string() })
    }

    /// From the bytes of `spiece.model`; `file` is for messages.
    pub fn from_sentencepiece(bytes: &[u8], file: &str, end: u32) -> Result<Tokenizer, TokenizerError> {
        let model = SentencePiece::parse(bytes)
            .map_err(|problem| TokenizerError::SentencePiece { file: file.into(), problem })?;
        Ok(Tokenizer { kind: Kind::SentencePiece(model), end, digest: digest(bytes) })
    }

    /// From the bytes of `tokenizer.json`; `file` is for messages. A unigram vocabulary of more than `rows` pieces, the rows of the
    /// model's table, is an error, found before room is made for it: its tree takes a hundred times as much as the file.
    pub fn from_json(bytes: &[u8], file: &str, end: u32, rows: usize) -> Result<Tokenizer, TokenizerError> {
        let tokenizer = json::read(bytes, file, rows)?;
        Ok(Tokenizer { kind: Kind::Json(Box::new(tokenizer)), end, digest: digest(bytes) })
    }

    /// `text` as at most `limit` tokens, the end token included. What is beyond is left out and counted. Errors only if
    /// `tokenizer.json` has parts that do not fit each other.
    pub fn encode(&self, text: &str, limit: usize) -> Result<Tokens, TokenizerError> {
        let (mut ids, mut pieces) = match &self.kind {
            Kind::SentencePiece(model) => model.pieces(text).into_iter().unzip(),
            Kind::Json(tokenizer) => {
                let encoding = json::caught(|| tokenizer.encode(text, false)).map_err(|problem| {
                    let start: String = text.chars().take(QUOTED).collect();
                    TokenizerError::Json {
                        file: "tokenizer.json".into(),
                        problem: format!("it fails on the text that begins {start:?}: {problem}"),
                    }
                })?;
                (encoding.get_ids().to_vec(), encoding.get_tokens().to_vec())
            }
        };
        let left_out = (ids.len() + 1).saturating_sub(limit.max(1));
        ids.truncate(ids.len() - left_out);
        pieces.truncate(ids.len());
        ids.push(self.end);
        pieces.push(self.piece(self.end).unwrap_or_else(|| "</s>".into()));
        Ok(Tokens { ids, pieces, left_out })
    }

    /// The piece of a number.
    pub fn piece(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::SentencePiece(model) => model.piece(id).map(str::to_string).or_else(|| {
                let gap = (model.len() + SENTINELS).checked_sub(id as usize + 1)?;
                (gap < SENTINELS).then(|| sentinel_name(gap))
            }),
            Kind::Json(tokenizer) => tokenizer.id_to_token(id),
        }
    }

    /// The number of a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        match &self.kind {
            Kind::SentencePiece(model) => model.id(piece),
            Kind::Json(tokenizer) => tokenizer.token_to_id(piece),
        }
    }

    /// The tokens that stand for gaps in a text, first to last; none if there are none.
    pub fn sentinels(&self) -> Vec<u32> {
        match &self.kind {
            // They are not in the file: T5 puts them behind its pieces, the first one last.
            Kind::SentencePiece(model) => (0..SENTINELS).map(|k| (model.len() + SENTINELS - 1 - k) as u32).collect(),
            Kind::Json(_) => (0..).map_while(|k| self.id(&sentinel_name(k))).collect(),
        }
    }

    /// How many numbers there are; all ids are below.
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::SentencePiece(model) => model.len() + SENTINELS,
            Kind::Json(tokenizer) => {
                let vocabulary: HashMap<String, u32> = tokenizer.get_vocab(true);
                vocabulary.values().max().map_or(0, |&last| last as usize + 1)
            }
        }
    }

    /// How many rows a model needs at least: as many as the ids that a text can get.
    pub fn text_pieces(&self) -> usize {
        match &self.kind {
            Kind::SentencePiece(model) => model.len(),
            Kind::Json(_) => self.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pieces as the text they came from.
    pub fn text(&self, ids: &[u32]) -> String {
        let pieces: String = ids.iter().filter_map(|&id| self.piece(id)).collect();
        pieces.replace('\u{2581}', " ").trim().to_string()
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// So many characters of a text are in a message.
const QUOTED: usize = 60;

/// How many sentinels T5 has.
const SENTINELS: usize = 100;

/// The name of the sentinel of gap k.
fn sentinel_name(k: usize) -> String {
    format!("<extra_id_{k}>")
}

/// A tokenizer's file. An error if it is far too large to be one.
fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    Ok(files::read_at_most(path, json::MOST_BYTES)?)
}
