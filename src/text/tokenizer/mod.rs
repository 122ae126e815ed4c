//! Text as numbers of pieces: `tokenizer.json` and `spiece.model`, the two forms in which T5's tokenizers are published.

mod sentencepiece;
mod training;

pub use sentencepiece::{SentencePiece, SentencePieceError};
pub use training::train;

use crate::bundled::digest;
use crate::files::{self, FileError};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::models::unigram::Unigram;

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
    Json(Box<tokenizers::Tokenizer>),
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

/// Larger files are taken for a mistake: T5's have 2.4 MB, the largest known 17 MB.
const MOST_BYTES: u64 = 128 << 20;

impl Tokenizer {
    /// The tokenizer in the folder of a model: `tokenizer.json`, or else `spiece.model`. `end` is the model's end token.
    pub fn from_folder(folder: &Path, end: u32) -> Result<Tokenizer, TokenizerError> {
        let (json, model) = (folder.join("tokenizer.json"), folder.join("spiece.model"));
        if json.exists() {
            return Tokenizer::from_json(&read(&json)?, &json.display().to_string(), end);
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

    /// From the bytes of `tokenizer.json`; `file` is for messages.
    pub fn from_json(bytes: &[u8], file: &str, end: u32) -> Result<Tokenizer, TokenizerError> {
        let wrong = |problem: String| TokenizerError::Json { file: file.into(), problem };
        let mut tokenizer = caught(|| tokenizers::Tokenizer::from_bytes(bytes))
            .ok_or_else(|| wrong("its parts do not fit each other".into()))?
            .map_err(|e| wrong(e.to_string()))?;
        // What is cut or filled up is said here; and a prompt that contains "</s>" means these letters, not the end.
        tokenizer.with_padding(None).with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        tokenizer.set_encode_special_tokens(true);
        caught(|| hide_special_tokens(&mut tokenizer)).transpose().map_err(|e| wrong(e.to_string()))?;
        Ok(Tokenizer { kind: Kind::Json(Box::new(tokenizer)), end, digest: digest(bytes) })
    }

    /// `text` as at most `limit` tokens, the end token included. What is beyond is left out and counted. Errors only if
    /// `tokenizer.json` has parts that do not fit each other.
    pub fn encode(&self, text: &str, limit: usize) -> Result<Tokens, TokenizerError> {
        let (mut ids, mut pieces) = match &self.kind {
            Kind::SentencePiece(model) => model.pieces(text).into_iter().unzip(),
            Kind::Json(tokenizer) => {
                let encoding = caught(|| tokenizer.encode(text, false)).and_then(Result::ok);
                let encoding = encoding.ok_or_else(|| TokenizerError::Json {
                    file: "tokenizer.json".into(),
                    problem: format!("it fails on the text {text:?}"),
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

/// Unigram models have the special tokens among their pieces, and would find their names in a text all the same. No text has a
/// space by the time it gets to the model, so names with one are never found.
fn hide_special_tokens(tokenizer: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    let tokenizers::ModelWrapper::Unigram(model) = tokenizer.get_model() else { return Ok(()) };
    let special: Vec<String> = tokenizer
        .get_added_tokens_decoder()
        .into_values()
        .filter(|token| token.special)
        .map(|token| token.content)
        .collect();
    let hidden = |(piece, score): &(String, f64)| match special.contains(piece) {
        true => (format!(" {piece} "), *score),
        false => (piece.clone(), *score),
    };
    let unknown = tokenizer.token_to_id("<unk>").map(|id| id as usize);
    let pieces = model.iter().map(hidden).collect();
    let model = Unigram::from(pieces, unknown, model.byte_fallback())?;
    tokenizer.with_model(model);
    Ok(())
}

/// How many sentinels T5 has.
const SENTINELS: usize = 100;

/// The name of the sentinel of gap k.
fn sentinel_name(k: usize) -> String {
    format!("<extra_id_{k}>")
}

/// A tokenizer's file. An error if it is far too large to be one.
fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    Ok(files::read_at_most(path, MOST_BYTES)?)
}

/// What the tokenizers crate gives; `None` if it panics (and says so), which files whose parts contradict each other may lead to.
fn caught<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}
