//! Cutting a text into the pieces that are most probable together. (G3; Kudo, arXiv 1804.10959, section 3.2)

use super::SentencePieceError;
use super::protobuf::{Kind, Piece};
use std::ops::Range;

/// Pieces with their ids, in the order of their bytes. Those that begin alike stand together: a range of the list does
/// the work of a node of a prefix tree.
#[derive(Clone, Debug)]
pub(super) struct Lexicon(Vec<(String, u32)>);

impl Lexicon {
    /// The pieces that `choose` takes. Errors: [`SentencePieceError::Piece`] if two are the same.
    pub fn new(pieces: &[Piece], choose: impl Fn(Kind) -> bool) -> Result<Lexicon, SentencePieceError> {
        let chosen = pieces.iter().zip(0..).filter(|(piece, _)| choose(piece.kind));
        let mut list: Vec<(String, u32)> = chosen.map(|(piece, id)| (piece.text.into(), id)).collect();
        list.sort_unstable();
        match list.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(SentencePieceError::Piece { id: pair[1].1 as usize, why: "is there twice" }),
            None => Ok(Lexicon(list)),
        }
    }

    /// The id of a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(piece)).ok().map(|at| self.0[at].1)
    }

    /// The pieces that `text` begins with, as length in bytes and id: the shortest first.
    pub fn prefixes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut alike = &self.0[..];
        let next = move |(at, byte): (usize, u8)| {
            // A piece that ends before `at` has `None` there, which is less than any byte.
            let start = alike.partition_point(|(piece, _)| piece.as_bytes().get(at) < Some(&byte));
            let end = alike.partition_point(|(piece, _)| piece.as_bytes().get(at) <= Some(&byte));
            alike = &alike[start..end];
            let (piece, id) = alike.first()?;
            Some((piece.len() == at + 1).then_some((piece.len(), *id)))
        };
        text.bytes().enumerate().map_while(next).flatten()
    }
}

/// A unigram model: each piece has a probability, whatever stands beside it.
#[derive(Clone, Debug)]
pub(super) struct Unigram {
    lexicon: Lexicon,
    /// By id: what a piece adds to the score of a text; `None` if no text can have it.
    scores: Vec<Option<f32>>,
    unknown: u32,
    unknown_score: f32,
}

/// The best way to cut the text up to some place.
#[derive(Clone, Copy)]
struct Best {
    /// The sum of its pieces' scores, less what was taken off.
    score: f32,
    /// The last piece: where it starts, and its id.
    start: usize,
    id: u32,
}

/// How much less than the least of all pieces a character counts that no piece has.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Where sums have grown so large that f32 would drop a good part of what is added, the original begins anew at 0.
const MOST_SUM: f32 = 1e5;

impl Unigram {
    /// Errors: [`SentencePieceError::Piece`] and [`SentencePieceError::Damaged`], if a piece is there twice, or the
    /// pieces have not exactly one that stands for the unknown.
    pub fn new(pieces: &[Piece]) -> Result<Unigram, SentencePieceError> {
        let lexicon = Lexicon::new(pieces, |_| true)?;
        let mut unknown = pieces.iter().zip(0..).filter(|(piece, _)| piece.kind == Kind::Unknown);
        let (Some((_, unknown)), None) = (unknown.next(), unknown.next()) else {
            return Err(SentencePieceError::Damaged { why: "it must have one piece for the unknown" });
        };
        let normal = pieces.iter().filter(|piece| piece.kind == Kind::Normal);
        let scores = pieces.iter().map(|piece| match piece.kind {
            Kind::Normal => Some(piece.score),
            // More than the normal ones, which are below 0, and more than the same text in several pieces.
            Kind::UserDefined => Some((0.1 * (piece.text.len() - 1) as f64) as f32),
            Kind::Unknown | Kind::Control | Kind::Unused | Kind::Byte => None,
        });
        Ok(Unigram {
            lexicon,
            scores: scores.collect(),
            unknown,
            unknown_score: normal.map(|piece| piece.score).fold(f32::MAX, f32::min) - UNKNOWN_PENALTY,
        })
    }

    /// The id of a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.lexicon.id(piece)
    }

    // ANCHOR: cut
    /// Cuts a text, by Viterbi's algorithm: the best way to cut it up to a place is a piece that ends there, after the
    /// best way up to where that starts. Of equals, the one with the longest last piece. Characters that no piece has
    /// are one unknown piece, as long as they follow each other.
    pub fn cut<'a>(&self, text: &'a str) -> Vec<(u32, &'a str)> {
        let mut best = vec![Best { score: f32::NEG_INFINITY, start: 0, id: self.unknown }; text.len() + 1];
        best[0].score = 0.0;
        let mut furthest = 0;
        for (start, char) in text.char_indices() {
            let sum = best[start].score;
            if sum.abs() > MOST_SUM {
                best[start..=furthest].iter_mut().for_each(|later| later.score -= sum);
            }
            let sum = best[start].score;
            let mut offer = |length: usize, id, score: f32| {
                let end = start + length;
                furthest = furthest.max(end);
                if sum + score > best[end].score {
                    best[end] = Best { score: sum + score, start, id };
                }
            };
            let mut char_is_known = false;
            for (length, id) in self.lexicon.prefixes(&text[start..]) {
                if let Some(score) = self.scores[id as usize] {
                    offer(length, id, score);
                    char_is_known |= length == char.len_utf8();
                }
            }
            if !char_is_known {
                offer(char.len_utf8(), self.unknown, self.unknown_score);
            }
        }
        self.trace(&best, text)
    }
    // ANCHOR_END: cut

    /// The pieces of the best way up to the end, which is found from its last piece to its first.
    fn trace<'a>(&self, best: &[Best], text: &'a str) -> Vec<(u32, &'a str)> {
        let mut pieces: Vec<(u32, Range<usize>)> = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let Best { start, id, .. } = best[end];
            match pieces.last_mut() {
                Some((next, range)) if id == self.unknown && *next == id => range.start = start,
                _ => pieces.push((id, start..end)),
            }
            end = start;
        }
        pieces.into_iter().rev().map(|(id, range)| (id, &text[range])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(text: &str, score: f32, kind: Kind) -> Piece<'_> {
        Piece { text, score, kind }
    }

    fn unigram(normal: &[(&str, f32)]) -> Unigram {
        let mut pieces = vec![piece("<unk>", 0.0, Kind::Unknown)];
        pieces.extend(normal.iter().map(|&(text, score)| piece(text, score, Kind::Normal)));
        Unigram::new(&pieces).unwrap()
    }

    #[test]
    fn the_sum_decides_and_of_equals_the_longest_last_piece() {
        let model = unigram(&[("a", -1.0), ("b", -1.0), ("ab", -2.5), ("c", -1.0), ("bc", -2.0)]);
        assert_eq!(model.cut("ab"), [(1, "a"), (2, "b")]);
        assert_eq!(model.cut("abc"), [(1, "a"), (5, "bc")]);
        assert_eq!(model.cut(""), []);
    }

    #[test]
    fn unknown_characters_are_merged() {
        let model = unigram(&[("a", -1.0), ("éb", -1.0)]);
        assert_eq!(model.cut("xéya\0éb"), [(0, "xéy"), (1, "a"), (0, "\0"), (2, "éb")]);
    }

    #[test]
    fn an_unknown_character_counts_less_than_any_piece() {
        let best = |d| unigram(&[("xa", -4.0), ("b", -4.0), ("c", -4.0), ("d", d), ("abcd", 0.0)]).cut("xabcd").len();
        assert_eq!((best(-1.75), best(-2.25)), (4, 2));
    }

    #[test]
    fn only_normal_and_user_defined_pieces_are_found_in_a_text() {
        let kinds = [Kind::Unknown, Kind::Control, Kind::Unused, Kind::Byte, Kind::UserDefined, Kind::Normal];
        let texts = ["<unk>", "</s>", "un", "<0x41>", "[X]", "n"];
        let pieces: Vec<_> = texts.iter().zip(kinds).map(|(text, kind)| piece(text, -1.0, kind)).collect();
        let model = Unigram::new(&pieces).unwrap();
        assert_eq!(model.cut("</s>un[X]<0x41>"), [(0, "</s>u"), (5, "n"), (4, "[X]"), (0, "<0x41>")]);
        assert_eq!(model.scores, [None, None, None, None, Some(0.2), Some(-1.0)]);
        assert_eq!((model.id("</s>"), model.id("[X]"), model.id("a")), (Some(1), Some(4), None));
    }

    #[test]
    fn pieces_twice_and_other_than_one_unknown_are_errors() {
        let of = |kinds: &[(&'static str, Kind)]| {
            Unigram::new(&kinds.iter().map(|&(text, kind)| piece(text, 0.0, kind)).collect::<Vec<_>>()).unwrap_err()
        };
        let twice = of(&[("u", Kind::Unknown), ("b", Kind::Normal), ("a", Kind::Normal), ("b", Kind::Control)]);
        assert_eq!(twice, SentencePieceError::Piece { id: 3, why: "is there twice" });
        let why = SentencePieceError::Damaged { why: "it must have one piece for the unknown" };
        assert_eq!(of(&[]), why);
        assert_eq!(of(&[("a", Kind::Normal)]), why);
        assert_eq!(of(&[("a", Kind::Unknown), ("b", Kind::Unknown)]), why);
    }

    #[test]
    fn sums_do_not_lose_what_is_added_in_long_texts() {
        // From 2^24 on, f32 has no odd numbers: without the new beginnings, -1 and -1.25 would be the same at the end.
        let model = unigram(&[("a", -4000.0), ("b", -0.5), ("bb", -1.25)]);
        let text = "a".repeat(20_000) + "bb";
        assert_eq!(model.cut(&text)[20_000..], [(2, "b"), (2, "b")]);
        let extreme = unigram(&[("a", -1e30), ("aa", 1e30), ("aaa", -1e30), ("b", 1e30)]);
        assert_eq!(extreme.cut(&"aab".repeat(1000)).len(), 2000);
    }

    // ANCHOR: ways
    /// All ways to cut `text` into known pieces and unknown characters, with their sums.
    fn ways<'a>(model: &Unigram, text: &'a str) -> Vec<(f32, Vec<(u32, &'a str)>)> {
        if text.is_empty() {
            return vec![(0.0, vec![])];
        }
        let mut all = Vec::new();
        for (start, char) in text.char_indices() {
            let last = &text[start..];
            let unknown = start + char.len_utf8() == text.len();
            let of_known = model.id(last).and_then(|id| Some((id, model.scores[id as usize]?)));
            let of_unknown = unknown.then_some((model.unknown, model.unknown_score));
            let Some((id, score)) = of_known.or(of_unknown) else { continue };
            for (sum, mut way) in ways(model, &text[..start]) {
                way.push((id, last));
                all.push((sum + score, way));
            }
        }
        all
    }
    // ANCHOR_END: ways

    proptest! {
        // ANCHOR: the_best_of_all_ways_is_found
        #[test]
        fn the_best_of_all_ways_is_found(
            vocabulary in prop::collection::btree_map("[aäb]{1,3}", -8i8..0, 1..12),
            text in "[aäbc]{0,9}",
        ) {
            // Sums of quarters are exact, and equal ones frequent.
            let vocabulary: Vec<(&str, f32)> =
                vocabulary.iter().map(|(text, &score)| (text.as_str(), f32::from(score) / 4.0)).collect();
            let model = unigram(&vocabulary);
            let mut all = ways(&model, &text);
            let from_the_end = |way: &[(u32, &str)]| -> Vec<usize> {
                way.iter().rev().map(|(_, piece)| piece.len()).collect()
            };
            all.sort_by(|(a, x), (b, y)| a.total_cmp(b).then(from_the_end(x).cmp(&from_the_end(y))));
            let mut expected: Vec<(u32, String)> = Vec::new();
            for (id, piece) in all.pop().unwrap().1 {
                match expected.last_mut() {
                    Some((0, run)) if id == 0 => run.push_str(piece),
                    _ => expected.push((id, piece.into())),
                }
            }
            let found: Vec<_> = model.cut(&text).into_iter().map(|(id, piece)| (id, piece.to_string())).collect();
            prop_assert_eq!(found, expected);
        }
        // ANCHOR_END: the_best_of_all_ways_is_found

        #[test]
        fn the_lexicon_finds_every_prefix(
            words in prop::collection::btree_set("[aäb]{1,4}", 0..20),
            text in "[aäb]{0,6}",
        ) {
            let pieces: Vec<_> = words.iter().map(|word| piece(word, 0.0, Kind::Normal)).collect();
            let lexicon = Lexicon::new(&pieces, |_| true).unwrap();
            let mut expected: Vec<_> = words.iter().filter(|word| text.starts_with(*word)).collect();
            expected.sort_by_key(|word| word.len());
            let found: Vec<_> = lexicon.prefixes(&text).collect();
            let expected: Vec<_> = expected.iter().map(|word| (word.len(), lexicon.id(word).unwrap())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
