//! The characters that a model replaces, compiled by SentencePiece into one block of bytes: mostly NFKC, the form of
//! Unicode in which "ﬁ" is "fi" and "½" is "1⁄2".

use super::SentencePieceError;

/// Rules that replace a string by another, found by a double array (Darts-clone).
///
/// A double array is a prefix tree in one list of 32-bit units. The children of a node lie in one block of 256 units:
/// the child at byte `b` is at `place ^ offset ^ b`, where `place` and `offset` are the node's, if the unit there has
/// the label `b`; else that belongs to another node, as blocks are shared. If a string ends at a node, its value is
/// where the child at the byte 0 would be.
///
/// - Bits 0 to 7: the label. Bit 8: whether a string ends here.
/// - Bits 10 to 31: the offset, in units of 256 if bit 9 is set.
/// - In a unit that is a value, bit 31 is set (so that no byte equals its label) and bits 0 to 30 are the value: where
///   in the block of strings, each ended by a NUL, the replacement begins.
#[derive(Clone, Debug, Default)]
pub(in crate::text::tokenizer) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

/// A label or, where bit 31 is set, what equals no label.
fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

fn has_value(unit: u32) -> bool {
    unit & 0x100 != 0
}

fn is_value(unit: u32) -> bool {
    unit & 0x8000_0000 != 0
}

fn value(unit: u32) -> usize {
    (unit & 0x7fff_ffff) as usize
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << if unit & 0x200 == 0 { 0 } else { 8 }) as usize
}

/// The longest string that is replaced, and the longest that replaces, in bytes; Unicode stays far below. It bounds the
/// work where a damaged tree runs in a circle, and how much longer a text can become.
const LONGEST: usize = 256;

impl Charsmap {
    /// Reads the block: the size of the double array in bytes (32 bits, little-endian), the array, the replacements. An
    /// empty block has no rules. Errors: [`SentencePieceError::Damaged`], whenever a lookup could leave the block.
    pub fn parse(block: &[u8]) -> Result<Charsmap, SentencePieceError> {
        if block.is_empty() {
            return Ok(Charsmap::default());
        }
        Charsmap::read(block).ok_or(SentencePieceError::Damaged { why: "its table of characters is broken" })
    }

    fn read(block: &[u8]) -> Option<Charsmap> {
        let (size, rest) = block.split_first_chunk()?;
        let (array, replacements) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let (units, []) = array.as_chunks() else { return None };
        let map = Charsmap {
            units: units.iter().copied().map(u32::from_le_bytes).collect(),
            replacements: str::from_utf8(replacements).ok()?.into(),
        };
        map.is_sound().then_some(map)
    }

    /// Whether nothing that `longest` looks up lies outside: it relies on this.
    fn is_sound(&self) -> bool {
        let strings = &self.replacements;
        let unit_is_sound = |(place, &unit): (usize, &u32)| {
            if is_value(unit) {
                return value(unit) < strings.len() && strings.is_char_boundary(value(unit));
            }
            let children = place ^ offset(unit);
            (children | 0xff) < self.units.len() && (!has_value(unit) || is_value(self.units[children]))
        };
        self.units.first().is_some_and(|&root| !is_value(root))
            && self.units.iter().enumerate().all(unit_is_sound)
            && strings.ends_with('\0')
            && strings.split('\0').all(|string| string.len() <= LONGEST)
    }

    /// The longest beginning of `text` that has a rule, as its length in bytes, and what replaces it.
    pub fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut children = offset(*self.units.first()?);
        let mut found = None;
        for (at, byte) in text.bytes().enumerate().take(LONGEST) {
            let place = children ^ usize::from(byte);
            let unit = self.units[place];
            if label(unit) != u32::from(byte) {
                break;
            }
            children = place ^ offset(unit);
            if has_value(unit) && text.is_char_boundary(at + 1) {
                found = Some((at + 1, value(self.units[children])));
            }
        }
        let (length, start) = found?;
        Some((length, self.replacements[start..].split('\0').next().unwrap_or_default()))
    }

    /// What is next in a text, as its length in bytes, and what becomes of it: what the longest rule takes, or else the next
    /// character, as it is. Nothing of no text.
    pub fn first<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        let length = text.chars().next().map_or(0, char::len_utf8);
        self.longest(text).unwrap_or((length, &text[..length]))
    }

    /// A text, with all rules applied from its start to its end.
    pub fn replaced(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let (length, part) = self.first(rest);
            replaced.push_str(part);
            rest = &rest[length..];
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block of a map whose units are 0 but for those given.
    fn block(units: &[(usize, u32)], replacements: &[u8]) -> Vec<u8> {
        let mut array = [0u32; 512];
        // Children of the unit 0 are at 256 + byte. No label is 0, so that the others are nobody's.
        array[0] = 256 << 10;
        units.iter().for_each(|&(at, unit)| array[at] = unit);
        let mut block = 2048u32.to_le_bytes().to_vec();
        array.iter().for_each(|unit| block.extend(unit.to_le_bytes()));
        block.extend(replacements);
        block
    }

    /// A unit at `at` with this label and a value, and children from `children` on.
    fn node(at: usize, label: u8, children: usize) -> (usize, u32) {
        (at, ((at ^ children) as u32) << 10 | 0x100 | u32::from(label))
    }

    /// "a" becomes "é", "ab" nothing; the units after "a" are those from 0 on.
    fn rules() -> Vec<(usize, u32)> {
        let value = |place: usize, value: u32| (place, value | 1 << 31);
        vec![node(256 + 97, 97, 1), value(1, 0), node(1 ^ 98, 98, 2), value(2, 2)]
    }

    #[test]
    fn the_longest_rule_applies() {
        let map = Charsmap::parse(&block(&rules(), "é\0".as_bytes())).unwrap();
        assert_eq!(map.longest("abc"), Some((2, "")));
        assert_eq!(map.longest("acb"), Some((1, "é")));
        for text in ["", "b", "é", "\0", "\u{1}"] {
            assert_eq!(map.longest(text), None, "{text:?}");
        }
        assert_eq!(Charsmap::parse(b"").unwrap().longest("a"), None);
        assert_eq!(map.replaced("abacab\u{301}"), "éc\u{301}");
        assert_eq!((map.replaced(""), map.first("")), (String::new(), (0, "")));
    }

    #[test]
    fn offsets_can_be_in_units_of_256() {
        let map = Charsmap::parse(&block(&[(256 + 97, 97 | 0x300 | 1 << 10), (97, 1 << 31)], b"b\0")).unwrap();
        assert_eq!(map.longest("a"), Some((1, "b")));
    }

    #[test]
    fn broken_blocks_are_errors() {
        let good = block(&rules(), "é\0".as_bytes());
        let with = |at, unit| block(&[rules(), vec![(at, unit)]].concat(), "é\0".as_bytes());
        let long = [good.clone(), vec![b'a'; 257], vec![0]].concat();
        for (what, bytes) in [
            ("an array larger than the block", [&u32::MAX.to_le_bytes(), &good[4..]].concat()),
            ("no array", [&0u32.to_le_bytes(), &b"a\0"[..]].concat()),
            ("half a unit", [&2047u32.to_le_bytes(), &good[4..]].concat()),
            ("a unit pointing outside", with(256 + 97, 97 | 512 << 10)),
            ("a unit pointing far outside", with(256 + 97, 97 | 0x200 | 0x1f_ffff << 10)),
            ("a value that is none", with(1, 1)),
            ("a replacement outside", with(1, 1 << 31 | 3)),
            ("a replacement within a character", with(1, 1 << 31 | 1)),
            ("a root that is a value", with(0, 1 << 31)),
            ("a replacement without end", block(&rules(), "é".as_bytes())),
            ("no replacement", block(&[], b"")),
            ("no UTF-8", block(&rules(), b"\xe9\0\0")),
            ("a replacement too long", long),
        ] {
            assert!(Charsmap::parse(&bytes).is_err(), "{what}");
        }
        for end in 1..good.len() {
            assert!(Charsmap::parse(&good[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_tree_that_runs_in_a_circle_is_left() {
        // After an "a" come the children of the root again; the value at 256 is theirs and "a"'s.
        let map = Charsmap::parse(&block(&[node(256 + 97, 97, 256), (256, 1 << 31)], b"b\0")).unwrap();
        assert_eq!(map.longest(&"a".repeat(1000)), Some((256, "b")));
    }

    #[test]
    fn rules_that_end_within_a_character_do_not_apply() {
        let map = Charsmap::parse(&block(&[node(256 + 0xc3, 0xc3, 1), (1, 1 << 31)], b"b\0")).unwrap();
        assert_eq!(map.longest("é"), None);
    }
}
