//! A vocabulary from texts.

use super::{TokenizerError, sentinel_name};
use std::collections::BTreeMap;
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFKC, Replace, Sequence, Strip};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as Splits;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior,
};

/// The first numbers, as T5 has them: padding, end, unknown.
const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// A character that no text has: it is not in normal form, which the texts are taken in.
const MARK: char = '\u{2126}';

/// How many of a word are counted together.
const TOGETHER: u32 = 32;

/// The longest piece, in characters.
const LONGEST: usize = 16;

/// Trains a unigram vocabulary of at most `size` pieces, `sentinels` for gaps included, by the tokenizers crate: the bytes of a
/// `tokenizer.json`. The same texts in any order always give the same bytes. Text is taken in lower case and normal form (NFKC);
/// words and punctuation are never in one piece. Every printable ASCII character has a piece. (Kudo 2018, arXiv 1804.10959)
pub fn train(texts: impl Iterator<Item = String>, size: usize, sentinels: usize) -> Result<Vec<u8>, TokenizerError> {
    let failed = |e: tokenizers::Error| TokenizerError::Training(e.to_string());
    let (normalizer, splits) = (normalizer().map_err(failed)?, splits());
    let mut counts: BTreeMap<String, u32> = alphabet().map(|c| (c.to_string(), 1)).collect();
    for text in texts {
        for word in words(&text, &normalizer, &splits).map_err(failed)? {
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    let most = size.saturating_sub(SPECIAL.len() + sentinels);
    let mut pieces = pieces(counts.into_iter().collect(), most)?;
    // Ties come in any order out of the crate's hash maps.
    pieces.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));

    let special = SPECIAL.iter().map(|s| s.to_string());
    let gaps = (0..sentinels).rev().map(sentinel_name);
    let vocabulary = special.clone().map(|s| (s, 0.0)).chain(pieces).chain(gaps.clone().map(|s| (s, 0.0))).collect();
    let mut tokenizer = tokenizers::Tokenizer::new(Unigram::from(vocabulary, Some(2), false).map_err(failed)?);
    tokenizer.with_normalizer(Some(normalizer)).with_pre_tokenizer(Some(splits));
    let names: Vec<AddedToken> = special.chain(gaps).map(|name| AddedToken::from(name, true)).collect();
    tokenizer.add_special_tokens(&names);
    Ok(tokenizer.to_string(false).map_err(failed)?.into_bytes())
}

/// Normal form, lower case, single spaces.
fn normalizer() -> Result<NormalizerWrapper, tokenizers::Error> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let parts: Vec<NormalizerWrapper> =
        vec![NFKC.into(), Lowercase.into(), spaces.into(), Strip::new(true, true).into()];
    Ok(Sequence::new(parts).into())
}

/// Words, each with U+2581 in front, and punctuation.
fn splits() -> PreTokenizerWrapper {
    let words = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    Splits::new(vec![words.into(), Punctuation::new(SplitDelimiterBehavior::Isolated).into()]).into()
}

/// Space and controls are not among them.
fn alphabet() -> impl Iterator<Item = char> {
    ('!'..='~').filter(|c| !c.is_ascii_uppercase()).chain(['\u{2581}'])
}

fn words(
    text: &str,
    normalizer: &NormalizerWrapper,
    splits: &PreTokenizerWrapper,
) -> Result<Vec<String>, tokenizers::Error> {
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized)?;
    let mut cut = PreTokenizedString::from(normalized);
    splits.pre_tokenize(&mut cut)?;
    let words = cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(words.into_iter().map(|(word, _, _)| word.to_string()).collect())
}

/// Pieces and the logarithms of their probabilities, by expectation and maximisation.
fn pieces(counts: Vec<(String, u32)>, most: usize) -> Result<Vec<(String, f64)>, TokenizerError> {
    let characters = counts.iter().flat_map(|(word, _)| word.chars()).collect::<std::collections::BTreeSet<_>>().len();
    if most <= characters {
        return Err(TokenizerError::Training(format!(
            "a vocabulary of {most} pieces besides the special ones does not hold the {characters} characters of the \
             texts; set a larger one"
        )));
    }
    let trainer =
        UnigramTrainer::builder().show_progress(false).vocab_size(most as u32).max_piece_length(LONGEST).build();
    let trainer = trainer.map_err(|e| TokenizerError::Training(e.to_string()))?;
    let mut model = Unigram::default();
    // One thread: the crate adds up in an order that depends on how many there are.
    let alone =
        rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| TokenizerError::Training(e.to_string()))?;
    // Candidates are what goes on in different ways in the crate's list of words. Whole words, which all end alike, are to be
    // among them: so each is there once more with a mark behind it.
    // And how often it finds one there is its first guess of how common that is: so a common word is there many times.
    let marked = counts.iter().map(|(word, _)| (format!("{word}{MARK}"), 1));
    let copies = counts.iter().flat_map(|(word, n)| {
        let copies = n.div_ceil(TOGETHER);
        (0..copies).map(move |i| (word.clone(), n / copies + u32::from(i < n % copies)))
    });
    let words: Vec<(String, u32)> = marked.chain(copies).collect();
    alone.install(|| trainer.do_train(words, &mut model)).map_err(|e| TokenizerError::Training(e.to_string()))?;
    Ok(model.iter().filter(|(piece, _)| !piece.contains(MARK)).cloned().collect())
}
