//! `tokenizer.json`, read so far that the tokenizers crate can be trusted with the rest.
//!
//! The crate believes its files. Its tree of pieces takes some 340 bytes for each byte of a piece, and a damaged table of characters makes
//! it ask for more memory than there is. And it follows such a table grapheme by grapheme and drops what a shorter rule leaves of one, where
//! SentencePiece, with which T5s were trained, takes the longest rule and goes on behind it: the reader of `spiece.model` does that for both.

use super::TokenizerError;
use super::sentencepiece::{Charsmap, LONGEST_PIECE, MOST_PIECES, MOST_SCORE};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior, TokenizerImpl,
};

/// The crate's tokenizer, with our steps in front of its model.
pub(super) type Crate = TokenizerImpl<ModelWrapper, Steps, Splits, PostProcessorWrapper, DecoderWrapper>;

/// Larger files are taken for a mistake: T5's have 2.4 MB, the largest known 17 MB.
pub(super) const MOST_BYTES: u64 = 32 << 20;

/// All pieces together, in bytes: the largest vocabularies known, of a quarter of a million pieces, stay below 3 MB by the sizes of
/// their files.
const MOST_TEXT: usize = 4 << 20;

/// And as many for each row of the model: T5's pieces have about 8 on average, by the size of their file.
const MEAN_TEXT: usize = 32;

/// But so many in any case.
const LEAST_TEXT: usize = 64 << 10;

/// The tokenizer in `bytes`. A vocabulary of more than `rows` pieces is an error, and no room is made for it.
pub(super) fn read(bytes: &[u8], file: &str, rows: usize) -> Result<Crate, TokenizerError> {
    let wrong = |problem: String| TokenizerError::Json { file: file.into(), problem };
    if bytes.len() as u64 > MOST_BYTES {
        return Err(wrong(format!("it has more than {MOST_BYTES} bytes")));
    }
    let model = caught(|| Ok(serde_json::from_slice::<Probe>(bytes)?.model)).map_err(wrong)?;
    if !model.is_unigram() {
        let file: File<ModelWrapper> = caught(|| Ok(serde_json::from_slice(bytes)?)).map_err(wrong)?;
        let (model, rest) = file.apart();
        return rest.assembled(model).map_err(wrong);
    }
    let parts: File<UnigramModel> = caught(|| Ok(serde_json::from_slice(bytes)?)).map_err(wrong)?;
    let (model, rest) = parts.apart();
    let pieces = model.vocab.0.len();
    if pieces > rows {
        return Err(TokenizerError::TooMany { file: file.into(), pieces, rows });
    }
    rest.unigram(model, rows).map_err(wrong)
}

/// What the tokenizers crate gives, or why not. Files whose parts contradict each other may lead it to a panic, which says so.
pub(super) fn caught<R>(f: impl FnOnce() -> tokenizers::Result<R>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its parts do not fit each other".into()),
    }
}

/// The file, as far as it says how a text becomes ids. What is cut, filled up or put around a text is said elsewhere.
#[derive(Deserialize)]
struct File<M> {
    version: Option<String>,
    added_tokens: Option<Vec<AddedToken>>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: M,
}

/// As little of it as tells of which kind its model is.
#[derive(Deserialize)]
struct Probe {
    model: Head,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Shape,
}

/// How a vocabulary is written.
#[derive(PartialEq)]
enum Shape {
    /// Pieces with their scores.
    List,
    /// Pieces with their ids.
    Map,
}

impl Head {
    /// Old files do not say what they are; but a vocabulary with scores is one of these.
    fn is_unigram(&self) -> bool {
        self.kind.as_ref().map_or(self.vocab == Shape::List, |kind| kind == "Unigram")
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Shape::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Shape::Map)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[derive(Deserialize)]
struct UnigramModel {
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
    vocab: Pieces,
}

/// The pieces of a unigram model and their scores, within the limits of the reader of `spiece.model`.
struct Pieces(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pieces, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Pieces;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of pieces and their scores")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pieces, A::Error> {
                let (mut pieces, mut text) = (Vec::new(), 0);
                while let Some((piece, score)) = list.next_element::<(String, f64)>()? {
                    let wrong = |why| Err(A::Error::custom(format!("piece {} {why}", pieces.len())));
                    text += piece.len();
                    if piece.len() > LONGEST_PIECE {
                        return wrong("is too long");
                    }
                    if score.abs() > f64::from(MOST_SCORE) {
                        return wrong("has a score that is out of range");
                    }
                    if pieces.len() == MOST_PIECES || text > MOST_TEXT {
                        return wrong("is one too many");
                    }
                    pieces.push((piece, score));
                }
                Ok(Pieces(pieces))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<M> File<M> {
    /// The model, and the rest.
    fn apart(self) -> (M, File<()>) {
        let File { version, added_tokens, normalizer, pre_tokenizer, model } = self;
        (model, File { version, added_tokens, normalizer, pre_tokenizer, model: () })
    }
}

impl File<()> {
    /// The crate's tokenizer of these parts and a model.
    fn assembled(self, model: impl Into<ModelWrapper>) -> Result<Crate, String> {
        if let Some(version) = self.version.filter(|version| version != "1.0") {
            return Err(format!("its version is {version:?}, and only \"1.0\" is known"));
        }
        let mut steps = Steps::default();
        if let Some(normalizer) = self.normalizer {
            steps.push(normalizer)?;
        }
        let splits = self.pre_tokenizer.map(|splits| Splits::new(splits, steps.has_charsmap()));
        let mut tokenizer = Crate::new(model.into());
        tokenizer.with_normalizer(Some(steps)).with_pre_tokenizer(splits);
        let added = self.added_tokens.unwrap_or_default();
        if added.len() > MOST_PIECES || added.iter().map(|token| token.content.len()).sum::<usize>() > MOST_TEXT {
            return Err("it has too many added tokens".into());
        }
        caught(|| Ok(tokenizer.add_tokens(&added)))?;
        // A prompt that contains "</s>" means these letters, not the end.
        tokenizer.set_encode_special_tokens(true);
        Ok(tokenizer)
    }

    /// Unigram models have the special tokens among their pieces, and would find their names in a text all the same. No text has
    /// a space by the time it gets to the model, so names with one are never found.
    fn unigram(self, model: UnigramModel, rows: usize) -> Result<Crate, String> {
        let UnigramModel { unk_id, byte_fallback, vocab: Pieces(pieces) } = model;
        let most = rows.saturating_mul(MEAN_TEXT).clamp(LEAST_TEXT, MOST_TEXT);
        let text: usize = pieces.iter().map(|(piece, _)| piece.len()).sum();
        if text > most {
            return Err(format!("its pieces have {text} bytes together, more than {most}"));
        }
        let mut seen = HashSet::new();
        if let Some((twice, _)) = pieces.iter().find(|(piece, _)| !seen.insert(piece.as_str())) {
            return Err(format!("its piece {twice:?} is there twice"));
        }
        // Added tokens are looked up by their names. For that a plain list does, without the crate's large tree.
        let names = pieces.iter().zip(0..).map(|((piece, _), id)| (piece.clone(), id)).collect();
        let names = WordLevel::builder().vocab(names).build().map_err(|e| e.to_string())?;
        let mut tokenizer = self.assembled(names)?;
        let special: HashSet<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special)
            .map(|token| token.content)
            .collect();
        // Some files leave out which piece stands for the unknown.
        let unknown = unk_id.or_else(|| pieces.iter().position(|(piece, _)| piece == "<unk>"));
        let hidden = |(piece, score): (String, f64)| match special.contains(&piece) {
            true => (format!(" {piece} "), score),
            false => (piece, score),
        };
        let pieces = pieces.into_iter().map(hidden).collect();
        tokenizer.with_model(caught(|| Unigram::from(pieces, unknown, byte_fallback))?);
        Ok(tokenizer)
    }
}

/// What is done to a text before it is split, in this order.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    Crate(NormalizerWrapper),
    /// In the place of the crate's `Precompiled`.
    Charsmap(Charsmap),
}

impl Steps {
    /// Adds what a normaliser does. The crate is never given a table of characters, however deep it is in the file.
    fn push(&mut self, normalizer: Value) -> Result<(), String> {
        let wrong = |e: serde_json::Error| format!("its normalizer cannot be understood: {e}");
        if is(&normalizer, "Sequence", "normalizers")? {
            let steps: Vec<Value> = serde_json::from_value(entry(normalizer, "normalizers")).map_err(wrong)?;
            return steps.into_iter().try_for_each(|step| self.push(step));
        }
        if is(&normalizer, "Precompiled", "precompiled_charsmap")? {
            let map: String = serde_json::from_value(entry(normalizer, "precompiled_charsmap")).map_err(wrong)?;
            let map = from_base64(&map).and_then(|block| Charsmap::parse(&block).ok());
            self.0.push(Step::Charsmap(map.ok_or("its table of characters (precompiled_charsmap) is broken")?));
            return Ok(());
        }
        // By a type that it does not know the crate goes by the entries, and would find a table in them all the same.
        if ["normalizers", "precompiled_charsmap"].iter().any(|key| normalizer.get(key).is_some()) {
            let kind = normalizer.get("type").unwrap_or(&Value::Null);
            return Err(format!("its normalizer of the type {kind} has entries of another type"));
        }
        let step = caught(|| Ok(serde_json::from_value(normalizer)?));
        self.0.push(Step::Crate(step.map_err(|e| format!("its normalizer cannot be understood: {e}"))?));
        Ok(())
    }

    fn has_charsmap(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Charsmap(_)))
    }
}

/// Whether the crate would take this part for one of this type: old files do not say it, but have its entry. An error if the type is
/// not given by its name alone, which the crate would take as well.
fn is(part: &Value, name: &str, key: &str) -> Result<bool, String> {
    match part.get("type") {
        None => Ok(part.get(key).is_some()),
        Some(Value::String(kind)) => Ok(kind == name),
        Some(other) => Err(format!("its normalizer has the type {other}, which is no name")),
    }
}

fn entry(part: Value, key: &str) -> Value {
    let mut entries: Map<String, Value> = serde_json::from_value(part).unwrap_or_default();
    entries.remove(key).unwrap_or_default()
}

impl Normalizer for Steps {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        for step in &self.0 {
            match step {
                Step::Crate(step) => step.normalize(text)?,
                // Where in the original something was is not asked.
                Step::Charsmap(map) => *text = NormalizedString::from(map.replaced(text.get())),
            }
        }
        Ok(())
    }
}

/// How a text is split before the model cuts it, in this order.
#[derive(Clone, Debug)]
pub(super) struct Splits(Vec<Split>);

#[derive(Clone, Debug)]
enum Split {
    Crate(PreTokenizerWrapper),
    /// At spaces, and nothing else.
    Spaces,
}

impl Splits {
    /// SentencePiece knows no white space but the space: its table of characters has made one of what else there is, but for U+0085, which
    /// is a character as any other. So where there is such a table, only spaces split.
    fn new(splits: PreTokenizerWrapper, has_charsmap: bool) -> Splits {
        let mut all = Vec::new();
        let mut rest = vec![splits];
        while let Some(split) = rest.pop() {
            match split {
                PreTokenizerWrapper::Sequence(parts) => rest.extend(parts.into_iter().rev()),
                PreTokenizerWrapper::WhitespaceSplit(_) if has_charsmap => all.push(Split::Spaces),
                other => all.push(Split::Crate(other)),
            }
        }
        Splits(all)
    }
}

impl PreTokenizer for Splits {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        self.0.iter().try_for_each(|split| match split {
            Split::Crate(split) => split.pre_tokenize(text),
            Split::Spaces => text.split(|_, part| part.split(' ', SplitDelimiterBehavior::Removed)),
        })
    }
}

/// Bytes that are written as letters, six bits each (RFC 4648, section 4). `None` if something else is among them.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=').as_bytes();
    if letters.len() % 4 == 1 || !(letters.len()..letters.len() + 3).contains(&text.len()) {
        return None;
    }
    let six_bits = |&letter: &u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 2);
    for group in letters.chunks(4) {
        let mut bits = 0u32;
        for letter in group {
            bits = bits << 6 | u32::from(six_bits(letter)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(caught(|| Ok(3)), Ok(3));
        assert_eq!(caught(|| Err::<(), _>("no".into())), Err("no".into()));
        assert!(caught(|| -> tokenizers::Result<()> { panic!("this is meant to happen") }).is_err());
    }

    #[test]
    fn letters_are_read_as_bytes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg", b"foob"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zm9vY", "Zm9v====", "Z===", "Zm-v", "Zm=v", "Zm9v\n", "é"] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }
}
