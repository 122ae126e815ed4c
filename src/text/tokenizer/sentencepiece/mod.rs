//! SentencePiece unigram models, as T5 has them: a text becomes the ids of pieces of words (Kudo and Richardson, arXiv
//! 1808.06226).
//!
//! The text is normalised first (characters by the model's table, then white space), and then cut where the product of
//! the pieces' probabilities is largest. Ids are the same as those of the library of that name, version 0.2.3.

mod charsmap;
mod protobuf;
mod unigram;

pub(super) use charsmap::Charsmap;
pub(super) use protobuf::{MOST_BYTES as LONGEST_PIECE, MOST_PIECES, MOST_SCORE};

use protobuf::{Kind, Model};
use thiserror::Error;
use unigram::{Lexicon, Unigram};

/// Why a model file could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SentencePieceError {
    /// It is another kind of file, or not as it was written.
    #[error("this is no SentencePiece model, or a damaged one: {why}; get the file again")]
    Damaged {
        /// What is wrong.
        why: &'static str,
    },
    /// One of its pieces cannot be used.
    #[error("this is a damaged SentencePiece model: piece {id} {why}; get the file again")]
    Piece {
        /// Its place in the list of pieces, from 0.
        id: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The model is of another kind.
    #[error("SentencePiece models {what} are not supported; use a unigram model, such as that of a T5")]
    NotSupported {
        /// What the model does.
        what: &'static str,
    },
}

/// A unigram model.
///
/// Spaces are part of the pieces, written "▁" (U+2581), and a text begins with one: "red two" is "▁red" and "▁two".
#[derive(Clone, Debug)]
pub struct SentencePiece {
    pieces: Vec<String>,
    unigram: Unigram,
    charsmap: Charsmap,
    /// The pieces that normalising leaves alone.
    user_defined: Lexicon,
    /// What a space becomes.
    space: char,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

impl SentencePiece {
    /// Reads a model from the bytes of its file, `spiece.model`. Errors: [`SentencePieceError`].
    pub fn parse(bytes: &[u8]) -> Result<SentencePiece, SentencePieceError> {
        let Model { pieces, trainer, normalizer } = Model::read(bytes)?;
        for (found, what) in [
            (trainer.model_type != 1, "that are not of the unigram type"),
            (trainer.byte_fallback, "that write unknown characters as bytes"),
            (trainer.whitespace_as_suffix, "with spaces at the ends of words"),
        ] {
            if found {
                return Err(SentencePieceError::NotSupported { what });
            }
        }
        let unigram = Unigram::new(&pieces)?;
        let normalizer = normalizer.ok_or(SentencePieceError::Damaged { why: "its end is missing" })?;
        Ok(SentencePiece {
            unigram,
            charsmap: Charsmap::parse(normalizer.charsmap)?,
            user_defined: Lexicon::new(&pieces, |kind| kind == Kind::UserDefined)?,
            pieces: pieces.iter().map(|piece| piece.text.into()).collect(),
            space: if normalizer.escape_whitespaces { '▁' } else { ' ' },
            add_dummy_prefix: normalizer.add_dummy_prefix,
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces,
        })
    }

    /// The ids of the pieces of a text; no end token is added. A run of characters that are in no piece is one unknown.
    /// Nothing is an empty list, and so is nothing but spaces in most models.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.unigram.cut(&self.normalize(text)).into_iter().map(|(id, _)| id).collect()
    }

    /// [`SentencePiece::encode`] with what each id stands for in this text: together the normalised text.
    pub fn pieces(&self, text: &str) -> Vec<(u32, String)> {
        self.unigram.cut(&self.normalize(text)).into_iter().map(|(id, piece)| (id, piece.into())).collect()
    }

    /// The text that is cut into pieces.
    pub fn normalize(&self, text: &str) -> String {
        let mut normalized = String::with_capacity(text.len() + self.space.len_utf8());
        if self.add_dummy_prefix && !text.is_empty() {
            normalized.push(self.space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        let mut rest = text;
        while !rest.is_empty() {
            let (length, part) = match self.user_defined.prefixes(rest).last() {
                Some((length, _)) => (length, &rest[..length]),
                None => self.charsmap.first(rest),
            };
            rest = &rest[length..];
            let part = if after_space { part.trim_start_matches(' ') } else { part };
            normalized.extend(part.chars().map(|char| if char == ' ' { self.space } else { char }));
            // A part of which nothing is left does not come between two spaces.
            if !part.is_empty() {
                after_space = self.remove_extra_whitespaces && part.ends_with(' ');
            }
        }
        if self.remove_extra_whitespaces {
            normalized.truncate(normalized.trim_end_matches(self.space).len());
        }
        normalized
    }

    /// The piece of an id.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(String::as_str)
    }

    /// The id of a piece, of whatever kind: that of `</s>` ends a text.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.unigram.id(piece)
    }

    /// How many pieces there are: ids are below.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never: there is one piece at least, the unknown.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// A whole T5 model, with what version 0.2.3 of the library makes of some prompts.
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/t5-v1_1-tiny");

    static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read(format!("{FOLDER}/spiece.model")).unwrap());
    static T5: LazyLock<SentencePiece> = LazyLock::new(|| SentencePiece::parse(&FILE).unwrap());

    /// A field of bytes, with its length in three groups of seven bits.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = bytes.len();
        let start = [number << 3 | 2, length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8 & 0x7f];
        [&start, bytes].concat()
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        field(1, &[&field(1, text.as_bytes())[..], &[0x15], &score.to_le_bytes(), &[0x18, kind]].concat())
    }

    /// A model of "▁", "a" and "[ ]", which is user defined, with these fields in its normaliser.
    fn small(normalizer: &[u8]) -> Vec<u8> {
        let pieces = [piece("<unk>", 0.0, 2), piece("▁", -1.0, 1), piece("a", -2.0, 1), piece("[ ]", 0.0, 4)];
        [pieces.concat(), field(3, normalizer)].concat()
    }

    #[test]
    fn ids_and_pieces_are_those_of_the_library() {
        let expected = std::fs::read(format!("{FOLDER}/expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let prompts = expected["prompts"].as_array().unwrap();
        assert_eq!(prompts.len(), 7);
        for (i, prompt) in prompts.iter().enumerate() {
            let prompt = prompt.as_str().unwrap();
            let (mut ids, pieces): (Vec<u32>, Vec<String>) = T5.pieces(prompt).into_iter().unzip();
            assert_eq!(ids, T5.encode(prompt));
            ids.push(T5.id("</s>").unwrap());
            assert_eq!(serde_json::json!(ids), expected["ids"][i], "{prompt}");
            assert_eq!(serde_json::json!(pieces), expected["pieces"][i], "{prompt}");
        }
    }

    #[test]
    fn texts_are_normalised_as_by_the_library() {
        for (text, normalized) in [
            ("ﬁne ½ ℃", "▁fine▁1⁄2▁°C"),
            ("Ａ１\u{3000}ｂ ①㎡ ｶﾞ", "▁A1▁b▁1m2▁ガ"),
            ("\ta\n b\r\n", "▁a▁b"),
            ("e\u{301} \u{1e9b}\u{323}", "▁é▁\u{1e61}\u{323}"),
            ("a\u{200b}b\u{feff}c\u{200d}d", "▁a▁b▁c\u{200d}d"),
            ("a \u{1} b", "▁a▁b"),
            ("a\0b", "▁a\0b"),
            ("▁a▁▁b", "▁a▁b"),
            ("\u{200b}\u{1} \u{3000}", ""),
            ("", ""),
        ] {
            assert_eq!(T5.normalize(text), normalized, "{text:?}");
        }
    }

    #[test]
    fn flags_of_the_normaliser_count() {
        for (fields, text, normalized) in [
            (&b""[..], "  a  a ", "▁a▁a"),
            (b"", "[ ] [ ]", "▁[▁]▁[▁]"),
            (b"\x18\x00", " a", "a"),
            (b"\x20\x00", " a  a ", "▁▁a▁▁a▁"),
            (b"\x28\x00", " a  a ", " a a"),
            (b"\x18\x00\x20\x00\x28\x00", " a  a ", " a  a "),
        ] {
            assert_eq!(SentencePiece::parse(&small(fields)).unwrap().normalize(text), normalized);
        }
    }

    #[test]
    fn user_defined_pieces_are_not_normalised() {
        let model = SentencePiece::parse(&[&FILE[..], &piece("ﬁ", 0.0, 4)].concat()).unwrap();
        assert_eq!(model.normalize("ﬂﬁ"), "▁flﬁ");
        assert_eq!(model.encode("aﬁ"), [5, 400]);
    }

    #[test]
    fn ids_and_pieces_belong_together() {
        assert!(T5.len() == 400 && !T5.is_empty());
        assert!((0..400).all(|id| T5.id(T5.piece(id).unwrap()) == Some(id)));
        assert_eq!(
            [T5.id("<pad>"), T5.id("</s>"), T5.id("<unk>"), T5.id("no piece")],
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!(T5.piece(400), None);
        assert!(!T5.encode("</s> <pad>").iter().any(|&id| id < 2));
    }

    #[test]
    fn a_very_long_word_is_encoded() {
        assert_eq!(T5.pieces(&"é".repeat(50_000))[1], (2, "é".repeat(50_000)));
        assert!(T5.encode(&"handwritten".repeat(10_000)).len() >= 20_000);
    }

    #[test]
    fn models_of_another_kind_are_refused() {
        for (trainer, message) in [
            (
                &b"\x18\x02"[..],
                "SentencePiece models that are not of the unigram type are not supported; use a unigram",
            ),
            (b"\xc0\x01\x01", "SentencePiece models with spaces at the ends of words are not supported"),
            (b"\x98\x02\x01", "SentencePiece models that write unknown characters as bytes are not supported"),
        ] {
            let error = SentencePiece::parse(&[small(b""), field(2, trainer)].concat()).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }

    #[test]
    fn files_that_are_no_models_are_errors() {
        let nested = (0..5_000).fold(vec![], |inner, _| field(3, &inner));
        for (bytes, why) in [
            (b"".to_vec(), "it must have one piece for the unknown"),
            (b"{\"model\": {}}".to_vec(), "it has a field of a kind that does not exist"),
            (b"\x0a\xff\xff\xff\xff\x0f".to_vec(), "its end is missing"),
            (small(b"")[..small(b"").len() - 4].to_vec(), "its end is missing"),
            (small(&field(2, b"\xff\xff\xff\xff")), "its table of characters is broken"),
            (nested, "it must have one piece for the unknown"),
        ] {
            assert_eq!(SentencePiece::parse(&bytes).unwrap_err(), SentencePieceError::Damaged { why });
        }
        for (bytes, message) in [
            (b"\x0a\x00".repeat(3_000_000), "piece 0 is empty"),
            ([small(b""), piece("b", f32::NAN, 1)].concat(), "piece 4 has a score that is out of range"),
            ([small(b""), piece("b", f32::INFINITY, 1)].concat(), "piece 4 has a score that is out of range"),
            ([small(b""), piece("a", -1.0, 1)].concat(), "piece 4 is there twice"),
        ] {
            let error = SentencePiece::parse(&bytes).unwrap_err().to_string();
            assert_eq!(error, format!("this is a damaged SentencePiece model: {message}; get the file again"));
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_is_an_error() {
        // The normaliser is the last part, and most of the file.
        for end in (0..FILE.len()).filter(|end| *end < 12_000 || end % 97 == 0) {
            assert!(matches!(SentencePiece::parse(&FILE[..end]), Err(SentencePieceError::Damaged { .. })), "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_encoded(text in any::<String>()) {
            let (ids, pieces): (Vec<u32>, Vec<String>) = T5.pieces(&text).into_iter().unzip();
            prop_assert_eq!(pieces.concat(), T5.normalize(&text));
            prop_assert!(ids.iter().zip(&pieces).all(|(&id, piece)| id == 2 || T5.piece(id) == Some(piece)));
        }

        #[test]
        fn normalising_twice_changes_nothing(text in "[a-zA-Z0-9 \t０-９ａ-ｚﬁ½℃é\u{3000}…]{0,30}") {
            let once = T5.normalize(&text);
            prop_assert_eq!(T5.normalize(&once.replace('▁', " ")), once);
        }

        #[test]
        fn a_changed_byte_is_an_error_or_a_model(at in 0..FILE.len(), byte: u8, near_start: bool) {
            let mut file = FILE.clone();
            file[if near_start { at % 12_000 } else { at }] = byte;
            if let Ok(model) = SentencePiece::parse(&file) {
                let text = "A ﬁne photo of ½ — ℃ カ\u{3099}";
                let pieces: Vec<String> = model.pieces(text).into_iter().map(|(_, piece)| piece).collect();
                prop_assert_eq!(pieces.concat(), model.normalize(text));
            }
        }
    }
}
