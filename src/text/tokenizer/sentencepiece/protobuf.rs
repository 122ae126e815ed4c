//! The model file: a protocol buffer message, read without copying it.
//!
//! A message is a row of fields. Each begins with its number times 8 plus its wire type, which says where it ends: so a
//! reader can skip fields that it does not know. A message within a message is a field of bytes, read in turn.

use super::SentencePieceError;

/// What a field holds, as far as its wire type tells.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    Varint(u64),
    Float(f32),
    Bytes(&'a [u8]),
    /// Eight bytes: no field of a model that is read here has them.
    Fixed64,
}

/// What is left of a message.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// The number and the value of the next field; `None` at the end.
    fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, SentencePieceError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key % 8 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Float(f32::from_le_bytes(self.take(4)?.try_into().expect("4 bytes"))),
            _ => return Err(SentencePieceError::Damaged { why: "it has a field of a kind that does not exist" }),
        };
        Ok(Some((key / 8, value)))
    }

    /// A number in groups of seven bits, the lowest first; all but the last have the eighth bit set.
    fn varint(&mut self) -> Result<u64, SentencePieceError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(SentencePieceError::Damaged { why: "it has a number of more than 64 bits" })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], SentencePieceError> {
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or(SentencePieceError::Damaged { why: "its end is missing" })?;
        self.0 = rest;
        Ok(taken)
    }
}

/// What the file says, as far as encoding needs it.
#[derive(Debug, Default)]
pub(super) struct Model<'a> {
    /// The pieces: a piece's place in the list is its id.
    pub pieces: Vec<Piece<'a>>,
    pub trainer: Trainer,
    /// `None` if the file does not have this part: it was cut off, for it is the last one.
    pub normalizer: Option<Normalizer<'a>>,
}

/// One piece of the vocabulary. Its text has 1 to `MOST_BYTES` bytes, its score is within `MOST_SCORE` of 0.
#[derive(Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub text: &'a str,
    /// The logarithm of its probability.
    pub score: f32,
    pub kind: Kind,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// How the model was made.
#[derive(Debug)]
pub(super) struct Trainer {
    /// 1 is a unigram model.
    pub model_type: u64,
    pub whitespace_as_suffix: bool,
    pub byte_fallback: bool,
}

/// What is done to a text before it is cut into pieces.
#[derive(Debug)]
pub(super) struct Normalizer<'a> {
    /// What [`super::charsmap::Charsmap`] reads; empty if no character changes.
    pub charsmap: &'a [u8],
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
}

impl Default for Trainer {
    fn default() -> Trainer {
        Trainer { model_type: 1, whitespace_as_suffix: false, byte_fallback: false }
    }
}

impl Default for Normalizer<'_> {
    fn default() -> Self {
        Normalizer { charsmap: &[], add_dummy_prefix: true, remove_extra_whitespaces: true, escape_whitespaces: true }
    }
}

/// The longest text of a piece, in bytes: it bounds the time that encoding takes. Models are made with 16 characters at
/// most, unless they are told otherwise.
pub(in crate::text::tokenizer) const MOST_BYTES: usize = 1000;

/// A vocabulary of more pieces is taken for a damaged file: the largest known have a quarter of a million.
pub(in crate::text::tokenizer) const MOST_PIECES: usize = 1 << 20;

/// Far from any logarithm of a probability, and sums of a few are finite.
pub(in crate::text::tokenizer) const MOST_SCORE: f32 = 1e30;

impl<'a> Model<'a> {
    /// Reads a model file. Errors: [`SentencePieceError::Damaged`] and [`SentencePieceError::Piece`].
    pub fn read(file: &'a [u8]) -> Result<Model<'a>, SentencePieceError> {
        let mut model = Model::default();
        let mut message = Message(file);
        while let Some(field) = message.field()? {
            match field {
                (1, Value::Bytes(_)) if model.pieces.len() == MOST_PIECES => {
                    return Err(SentencePieceError::NotSupported { what: "of more than a million pieces" });
                }
                (1, Value::Bytes(piece)) => model.pieces.push(Piece::read(piece, model.pieces.len())?),
                (2, Value::Bytes(trainer)) => model.trainer.read(trainer)?,
                (3, Value::Bytes(normalizer)) => model.normalizer.get_or_insert_default().read(normalizer)?,
                _ => {}
            }
        }
        Ok(model)
    }
}

impl<'a> Piece<'a> {
    fn read(bytes: &'a [u8], id: usize) -> Result<Piece<'a>, SentencePieceError> {
        let (mut text, mut score, mut kind) = (&[][..], 0.0, 1);
        let mut message = Message(bytes);
        while let Some(field) = message.field()? {
            match field {
                (1, Value::Bytes(value)) => text = value,
                (2, Value::Float(value)) => score = value,
                (3, Value::Varint(value)) => kind = value,
                _ => {}
            }
        }
        let wrong = |why| SentencePieceError::Piece { id, why };
        let text = str::from_utf8(text).map_err(|_| wrong("is not UTF-8"))?;
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        if text.len() > MOST_BYTES {
            return Err(wrong("is too long"));
        }
        if !(-MOST_SCORE..=MOST_SCORE).contains(&score) {
            return Err(wrong("has a score that is out of range"));
        }
        let kind = match kind {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return Err(wrong("is of a kind that does not exist")),
        };
        Ok(Piece { text, score, kind })
    }
}

impl Trainer {
    fn read(&mut self, bytes: &[u8]) -> Result<(), SentencePieceError> {
        let mut message = Message(bytes);
        while let Some(field) = message.field()? {
            match field {
                (3, Value::Varint(value)) => self.model_type = value,
                (24, Value::Varint(value)) => self.whitespace_as_suffix = value != 0,
                (35, Value::Varint(value)) => self.byte_fallback = value != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Normalizer<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), SentencePieceError> {
        let mut message = Message(bytes);
        while let Some(field) = message.field()? {
            match field {
                (2, Value::Bytes(value)) => self.charsmap = value,
                (3, Value::Varint(value)) => self.add_dummy_prefix = value != 0,
                (4, Value::Varint(value)) => self.remove_extra_whitespaces = value != 0,
                (5, Value::Varint(value)) => self.escape_whitespaces = value != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_of_every_wire_type_are_told_apart() {
        let mut message = Message(b"\x08\x96\x01\x11abcdefgh\x1a\x02hi\x25\x00\x00\x80\x3f\xf8\x07\x00");
        for expected in [
            (1, Value::Varint(150)),
            (2, Value::Fixed64),
            (3, Value::Bytes(b"hi")),
            (4, Value::Float(1.0)),
            (127, Value::Varint(0)),
        ] {
            assert_eq!(message.field(), Ok(Some(expected)));
        }
        assert_eq!(message.field(), Ok(None));
    }

    #[test]
    fn broken_fields_are_errors() {
        for (bytes, why) in [
            (&b"\x08"[..], "its end is missing"),
            (b"\x08\x80", "its end is missing"),
            (b"\x25\x00\x00\x80", "its end is missing"),
            (b"\x11abcdefg", "its end is missing"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "its end is missing"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "it has a number of more than 64 bits"),
            (b"\x0b\x0c", "it has a field of a kind that does not exist"),
            (b"\x0f", "it has a field of a kind that does not exist"),
        ] {
            assert_eq!(Message(bytes).field(), Err(SentencePieceError::Damaged { why }), "{bytes:x?}");
        }
    }

    #[test]
    fn fields_not_known_are_skipped_and_missing_ones_have_their_defaults() {
        let piece = |bytes| Piece::read(bytes, 7);
        assert_eq!(piece(b"\x0a\x01a").unwrap(), Piece { text: "a", score: 0.0, kind: Kind::Normal });
        let full = piece(b"\xf8\x07\x00\x0a\x01a\x15\x00\x00\x80\xbf\x18\x04").unwrap();
        assert_eq!(full, Piece { text: "a", score: -1.0, kind: Kind::UserDefined });
        let model = Model::read(b"\x12\x00\x1a\x02\x18\x00\x22\x03abc").unwrap();
        assert!(model.trainer.model_type == 1 && !model.trainer.whitespace_as_suffix && !model.trainer.byte_fallback);
        let normalizer = model.normalizer.unwrap();
        assert!(!normalizer.add_dummy_prefix && normalizer.remove_extra_whitespaces && normalizer.escape_whitespaces);
    }

    #[test]
    fn pieces_that_cannot_be_used_are_errors() {
        let long = [b"\x0a\xe9\x07".as_slice(), &[b'a'; 1001]].concat();
        for (bytes, why) in [
            (&b""[..], "is empty"),
            (b"\x0a\x01\xff", "is not UTF-8"),
            (&long, "is too long"),
            (b"\x0a\x01a\x15\x00\x00\xc0\x7f", "has a score that is out of range"),
            (b"\x0a\x01a\x15\x00\x00\x80\xff", "has a score that is out of range"),
            (b"\x0a\x01a\x15\xff\xff\x7f\x7f", "has a score that is out of range"),
            (b"\x0a\x01a\x18\x09", "is of a kind that does not exist"),
        ] {
            assert_eq!(Piece::read(bytes, 7), Err(SentencePieceError::Piece { id: 7, why }));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Model::read(&bytes);
        }
    }
}
