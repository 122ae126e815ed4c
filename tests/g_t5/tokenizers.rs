//! G3: both forms of T5's tokenizer against SentencePiece, and the vocabulary that is trained here.

use super::{BOTH, expected, fixture};
use flate2::read::GzDecoder;
use imagen::data::corpus;
use imagen::text::tokenizer::{Tokenizer, TokenizerError, train};
use proptest::prelude::*;
use std::io::Read;
use std::sync::LazyLock;

/// `tokenizer.json` as transformers 5.24 makes it of the fixture's `spiece.model`.
static JSON: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let file = std::fs::File::open(fixture("v1_1").join("tokenizer.json.gz")).unwrap();
    let mut json = Vec::new();
    GzDecoder::new(file).read_to_end(&mut json).unwrap();
    json
});

static TRAINED: LazyLock<Vec<u8>> = LazyLock::new(|| train((0..2000).map(|i| corpus::text(0, i)), 700, 16).unwrap());

fn both() -> [Tokenizer; 2] {
    let model = std::fs::read(fixture("v1_1").join("spiece.model")).unwrap();
    [
        Tokenizer::from_sentencepiece(&model, "spiece.model", 1).unwrap(),
        Tokenizer::from_json(&JSON, "tokenizer.json", 1).unwrap(),
    ]
}

// ANCHOR: g3_ids_are_those_of_sentencepiece
#[test]
fn g3_ids_are_those_of_sentencepiece() {
    for version in BOTH {
        let expected = expected(version);
        let [model, json] = both();
        let folder = Tokenizer::from_folder(&fixture(version), 1).unwrap();
        for ((prompt, ids), pieces) in expected.prompts.iter().zip(&expected.ids).zip(&expected.pieces) {
            for tokenizer in [&model, &json, &folder] {
                let tokens = tokenizer.encode(prompt, 512).unwrap();
                assert_eq!(&tokens.ids, ids, "{prompt:?}");
                assert_eq!(tokens.left_out, 0);
            }
            let tokens = model.encode(prompt, 512).unwrap();
            assert_eq!(tokens.pieces[..pieces.len()], pieces[..]);
            assert_eq!(tokens.pieces[pieces.len()..], ["</s>"]);
        }
    }
}
// ANCHOR_END: g3_ids_are_those_of_sentencepiece

proptest! {
    // ANCHOR: g3_both_forms_agree_on_any_words
    /// Two implementations that know nothing of each other: ours, and the tokenizers crate.
    #[test]
    fn g3_both_forms_agree_on_any_words(words in prop::collection::vec("[a-zA-Z0-9.,!?'éïßñ½℃ﬁ漢字—()-]{1,12}", 0..8)) {
        let text = words.join(" ");
        let [model, json] = both();
        prop_assert_eq!(model.encode(&text, 512).unwrap().ids, json.encode(&text, 512).unwrap().ids);
    }
    // ANCHOR_END: g3_both_forms_agree_on_any_words

    #[test]
    fn any_text_is_encoded_by_the_trained_vocabulary(text in any::<String>()) {
        let tokenizer = Tokenizer::from_json(&TRAINED, "trained", 1).unwrap();
        let tokens = tokenizer.encode(&text, 100).unwrap();
        prop_assert_eq!(tokens.ids.len(), tokens.pieces.len());
        prop_assert!(tokens.ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        prop_assert_eq!(tokens.ids.last(), Some(&1));
    }

    /// A damaged tokenizer.json is an error, or still a tokenizer: never a panic.
    #[test]
    fn damaged_files_are_errors(cut in 0usize..4000, at in 0usize..4000, byte: u8) {
        prop_assert!(Tokenizer::from_json(&TRAINED[..TRAINED.len() - 1 - cut], "x", 1).is_err());
        let mut changed = TRAINED.clone();
        let at = at * (changed.len() - 1) / 4000;
        changed[at] = byte;
        if let Ok(tokenizer) = Tokenizer::from_json(&changed, "x", 1) {
            let _ = tokenizer.encode("a handwritten seven", 100);
        }
    }
}

#[test]
fn what_is_beyond_the_limit_is_left_out_and_counted() {
    for tokenizer in both() {
        let whole = tokenizer.encode("three green sevens above a small red two", 512).unwrap();
        for limit in 1..=whole.ids.len() + 2 {
            let cut = tokenizer.encode("three green sevens above a small red two", limit).unwrap();
            let kept = limit.min(whole.ids.len());
            assert_eq!(cut.ids.len(), kept);
            assert_eq!(cut.left_out, whole.ids.len() - kept);
            assert_eq!(cut.ids[..kept - 1], whole.ids[..kept - 1]);
            // The model has always seen an end.
            assert_eq!(cut.ids.last(), Some(&1));
        }
    }
}

// ANCHOR: names_of_special_tokens_are_text
/// The name of a special token in a prompt is text: nobody ends a text, or opens a gap, by writing it.
#[test]
fn names_of_special_tokens_are_text() {
    let trained = Tokenizer::from_json(&TRAINED, "trained", 1).unwrap();
    let [model, json] = both();
    for tokenizer in [model, json, trained] {
        let special: Vec<u32> = tokenizer.sentinels().into_iter().chain([0, 1]).collect();
        for name in ["</s>", "<pad>", "<extra_id_0>"] {
            let tokens = tokenizer.encode(name, 100).unwrap();
            let (_, text) = tokens.ids.split_last().unwrap();
            assert!(!text.is_empty() && text.iter().all(|id| !special.contains(id)), "{name}: {:?}", tokens.pieces);
        }
    }
}
// ANCHOR_END: names_of_special_tokens_are_text

#[test]
fn sentinels_are_where_t5_has_them() {
    let [model, json] = both();
    assert_eq!(model.sentinels(), json.sentinels());
    assert_eq!(model.sentinels()[..2], [499, 498]);
    assert_eq!((model.len(), json.len()), (500, 500));
    assert_eq!(model.piece(499).as_deref(), Some("<extra_id_0>"));
    assert_eq!(model.piece(400).as_deref(), Some("<extra_id_99>"));
    assert_eq!((model.piece(500), model.id("▁seven")), (None, json.id("▁seven")));
    assert_eq!(model.text(&model.encode("a  handwritten seven", 20).unwrap().ids[..4]), "a handwritten seven");
}

/// The same texts in any order, with any number of threads, give the same file.
#[test]
fn a_vocabulary_is_a_function_of_its_texts() {
    let backwards = (0..2000).rev().map(|i| corpus::text(0, i));
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(one.install(|| train(backwards, 700, 16)).unwrap() == *TRAINED);
    assert!(train((0..2000).map(|i| corpus::text(1, i)), 700, 16).unwrap() != *TRAINED);
}

#[test]
fn common_words_are_one_piece_and_punctuation_stands_alone() {
    let tokenizer = Tokenizer::from_json(&TRAINED, "trained", 1).unwrap();
    let pieces = |text: &str| tokenizer.encode(text, 100).unwrap().pieces.join("|");
    assert_eq!(pieces("The number  after SIX is a 7."), "▁the|▁number|▁after|▁six|▁is|▁a|▁7|.|</s>");
    // Full-width letters and ligatures are taken for what they are.
    assert_eq!(pieces("ＳＥＶＥＮ"), "▁seven|</s>");
    assert!(!tokenizer.encode("zyxwv {}~^\"", 100).unwrap().ids.contains(&2));
    assert!(tokenizer.encode("漢", 100).unwrap().ids.contains(&2));
}

#[test]
fn a_vocabulary_too_small_for_its_characters_is_an_error() {
    let error = train((0..100).map(|i| corpus::text(0, i)), 60, 16).err().unwrap().to_string();
    assert!(error.contains("does not hold the") && error.contains("set a larger one"), "{error}");
}

#[test]
fn a_folder_without_a_tokenizer_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_folder(folder.path(), 1).err().unwrap();
    assert!(matches!(&error, TokenizerError::None { .. }));
    assert!(error.to_string().contains("neither tokenizer.json nor spiece.model"));
    std::fs::write(folder.path().join("spiece.model"), b"\x0a\xff\xff\xff\xff\x0f").unwrap();
    let error = Tokenizer::from_folder(folder.path(), 1).err().unwrap().to_string();
    assert!(error.contains("spiece.model") && error.contains("fetch it again"), "{error}");
    std::fs::write(folder.path().join("tokenizer.json"), "[".repeat(1_000_000)).unwrap();
    assert!(Tokenizer::from_folder(folder.path(), 1).err().unwrap().to_string().contains("is not a tokenizer"));
}
