//! G3: both forms of T5's tokenizer against SentencePiece, and the vocabulary that is trained here.

use super::{BOTH, expected, fixture};
use flate2::read::GzDecoder;
use imagen::data::corpus;
use imagen::text::tokenizer::{Tokenizer, TokenizerError, train};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Read;
use std::sync::LazyLock;

/// `tokenizer.json` as transformers 5.24 makes it of the fixture's `spiece.model`.
static JSON: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let file = std::fs::File::open(fixture("v1_1").join("tokenizer.json.gz")).unwrap();
    let mut json = Vec::new();
    GzDecoder::new(file).read_to_end(&mut json).unwrap();
    json
});

/// As many pieces as are taken.
const ROWS: usize = 700;

static TRAINED: LazyLock<Vec<u8>> = LazyLock::new(|| train((0..2000).map(|i| corpus::text(0, i)), 700, 16).unwrap());

fn both() -> [Tokenizer; 2] {
    let model = std::fs::read(fixture("v1_1").join("spiece.model")).unwrap();
    [
        Tokenizer::from_sentencepiece(&model, "spiece.model", 1).unwrap(),
        Tokenizer::from_json(&JSON, "tokenizer.json", 1, ROWS).unwrap(),
    ]
}

// ANCHOR: g3_ids_are_those_of_sentencepiece
#[test]
fn g3_ids_are_those_of_sentencepiece() {
    for version in BOTH {
        let expected = expected(version);
        let [model, json] = both();
        let folder = Tokenizer::from_folder(&fixture(version), 1, ROWS).unwrap();
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

/// The longest rule applies, and what is behind it is still there. The ids are those of `spiece.model`.
#[test]
fn marks_behind_a_replaced_character_are_kept() {
    let [model, json] = both();
    for (text, ids) in [
        ("½\u{fe0f}", &[154, 2, 172, 2][..]),
        ("ﬁ\u{301}", &[144, 11, 2]),
        ("Ａ\u{300}", &[3, 2]),
        ("ẛ\u{323}", &[3, 2]),
        ("…\u{323}", &[3, 10, 10, 10, 2]),
        // Not a space to SentencePiece, though to Unicode.
        ("a\u{85}b", &[5, 2, 68]),
        ("\u{1}\u{200b}", &[]),
    ] {
        for tokenizer in [&model, &json] {
            let tokens = tokenizer.encode(text, 100).unwrap();
            assert_eq!(tokens.ids[..tokens.ids.len() - 1], *ids, "{text:?}");
        }
        assert_eq!(json.encode(text, 100).unwrap(), model.encode(text, 100).unwrap(), "{text:?}");
    }
}

#[test]
fn both_forms_agree_on_every_character() {
    let [model, json] = both();
    let all: Vec<char> = (char::MIN..=char::MAX).collect();
    for some in all.chunks(500) {
        let text: String = some.iter().flat_map(|&c| ['a', c, 'b', ' ']).collect();
        assert!(model.encode(&text, 5000).unwrap().ids == json.encode(&text, 5000).unwrap().ids, "from {:?}", some[0]);
    }
}

/// A `tokenizer.json` of these parts.
fn json(normalizer: Value, added: &[&str], model: Value) -> Vec<u8> {
    let token = |(id, name): (usize, &&str)| {
        json!({
            "id": id, "content": name, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false
        })
    };
    let added: Vec<Value> = added.iter().enumerate().map(token).collect();
    let splits = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let parts = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": splits, "post_processor": null, "decoder": null, "model": model
    });
    serde_json::to_vec(&parts).unwrap()
}

/// Its model, with all scores -1.
fn unigram(pieces: &[&str], unknown: Option<usize>) -> Value {
    let pieces: Vec<Value> = pieces.iter().map(|piece| json!([piece, -1.0])).collect();
    json!({ "type": "Unigram", "unk_id": unknown, "byte_fallback": false, "vocab": pieces })
}

fn refusal(bytes: &[u8], rows: usize) -> String {
    Tokenizer::from_json(bytes, "tokenizer.json", 1, rows).err().expect("it must be refused").to_string()
}

/// The crate takes 340 bytes of memory for each byte of a piece: of some megabytes of file it would make gigabytes.
#[test]
fn vocabularies_that_would_take_far_more_memory_than_their_file_are_refused() {
    let different = |n: usize| [16, 12, 8, 4].map(|bits| char::from(b'a' + (n >> (bits - 4) & 15) as u8));
    let pieces: Vec<String> = (0..20_410).map(|n| different(n).into_iter().chain(['x'; 400]).collect()).collect();
    let all: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let model = |pieces: &[&str]| json(Value::Null, &[], unigram(pieces, Some(0)));
    let message = refusal(&model(&all), 32_128);
    assert!(message.contains("piece 10381 is one too many"), "{message}");
    let message = refusal(&model(&all[..5000]), 32_128);
    assert!(message.contains("its pieces have 2020000 bytes together, more than 1028096"), "{message}");
    let message = refusal(&model(&["a", &"b".repeat(1001)]), 2);
    assert!(message.contains("piece 1 is too long"), "{message}");
    let message = refusal(&model(&["a", "b", "c"]), 2);
    assert!(message.contains("has 3 pieces, the model only 2 rows"), "{message}");
    assert!(Tokenizer::from_json(&model(&["a", "b", "c"]), "x", 1, 3).is_ok());
    let message = refusal(&vec![b' '; (32 << 20) + 1], 2);
    assert!(message.contains("more than 33554432 bytes"), "{message}");
}

/// T5's own vocabularies have 32,100 pieces of about 8 bytes on average.
#[test]
fn a_vocabulary_as_large_as_t5s_is_read() {
    let pieces: Vec<String> = (0..32_100).map(|n| format!("▁{}", 1_000_000 + n)).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let tokenizer = Tokenizer::from_json(&json(Value::Null, &[], unigram(&pieces, Some(2))), "x", 1, 32_128).unwrap();
    assert_eq!(tokenizer.encode("1000007 1032099", 10).unwrap().ids, [7, 32_099, 1]);
}

/// The crate takes its size for room to be made, and panics or ends the process.
#[test]
fn a_damaged_table_of_characters_is_an_error_wherever_it_is() {
    for map in ["/////w==", "no letters!", "AAAAAA=="] {
        let map = json!({ "type": "Precompiled", "precompiled_charsmap": map });
        let untold = json!({ "precompiled_charsmap": map["precompiled_charsmap"] });
        let deep = json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, { "normalizers": [map] }] });
        for normalizer in [map, untold, deep] {
            let message = refusal(&json(normalizer, &[], unigram(&["a"], Some(0))), 1);
            assert!(message.contains("its table of characters (precompiled_charsmap) is broken"), "{message}");
        }
    }
    let hidden = json!({ "type": { "Precompiled": null }, "precompiled_charsmap": "/////w==" });
    let message = refusal(&json(hidden, &[], unigram(&["a"], Some(0))), 1);
    assert!(message.contains("which is no name"), "{message}");
    // By a type that it does not know the crate goes by the entries.
    let table = json!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" });
    for unknown in
        [json!({ "type": "Foo", "normalizers": [table] }), json!({ "type": "Foo", "precompiled_charsmap": "/////w==" })]
    {
        let message = refusal(&json(unknown, &[], unigram(&["a"], Some(0))), 1);
        assert!(message.contains("\"Foo\" has entries of another type"), "{message}");
    }
}

#[test]
fn steps_beside_the_table_of_characters_are_done_in_their_order() {
    let table = serde_json::from_slice::<Value>(&JSON).unwrap()["normalizer"].clone();
    let spaces = json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " });
    let strip = json!({ "type": "Strip", "strip_left": true, "strip_right": true });
    let all = json!({ "type": "Sequence", "normalizers": [table, spaces, { "type": "Lowercase" }, strip] });
    let model = unigram(&["<unk>", "</s>", "▁fi", "▁a", "▁"], Some(0));
    let tokenizer = Tokenizer::from_json(&json(all, &[], model), "x", 1, 5).unwrap();
    assert_eq!(tokenizer.encode("ﬁ \u{3000}Ａ ﬁ\u{200b}", 10).unwrap().ids, [2, 3, 2, 1]);
}

#[test]
fn the_model_says_which_piece_is_the_unknown() {
    for (name, told, wanted) in
        [("[UNK]", Some(2), 2), ("<unk>", Some(2), 2), ("<unk>", None, 2), ("<unk>", Some(0), 0)]
    {
        let model = unigram(&["<pad>", "</s>", name, "▁", "a"], told);
        let file = json(Value::Null, &["<pad>", "</s>", name], model);
        let tokenizer = Tokenizer::from_json(&file, "x", 1, 5).unwrap();
        assert_eq!(tokenizer.encode("az", 10).unwrap().ids, [3, 4, wanted, 1], "{name}");
    }
    let message = refusal(&json(Value::Null, &[], unigram(&["a"], Some(1))), 1);
    assert!(message.contains("`unk_id` is larger than vocabulary size"), "{message}");
    let message = refusal(&json(Value::Null, &[], unigram(&["a", "b", "a"], Some(1))), 3);
    assert!(message.contains("\"a\" is there twice"), "{message}");
}

#[test]
fn a_text_that_cannot_be_cut_is_named_by_its_beginning() {
    let tokenizer = Tokenizer::from_json(&json(Value::Null, &[], unigram(&["▁", "a"], None)), "x", 1, 2).unwrap();
    let message = tokenizer.encode(&"az".repeat(10_000), 10).unwrap_err().to_string();
    assert!(
        message.contains("fails on the text that begins \"azaz") && message.contains("`unk_id` is missing"),
        "{message}"
    );
    assert!(message.len() < 250, "{message}");
}

proptest! {
    // ANCHOR: g3_both_forms_agree_on_any_words
    /// Two implementations that know nothing of each other cut the words: ours, and the tokenizers crate. Among the characters are marks,
    /// variation selectors and joiners, which belong to the one before them.
    #[test]
    fn g3_both_forms_agree_on_any_words(words in prop::collection::vec(
        "[a-zA-Z0-9.,!?'éïßñ½℃ﬁẛＡｶﾞ…漢字—()\\u{85}\\u{a0}\\u{300}-\\u{36f}\\u{3099}\\u{fe00}-\\u{fe0f}\\u{200b}-\\u{200d}-]{1,12}",
        0..8,
    )) {
        let text = words.join(" ");
        let [model, json] = both();
        prop_assert_eq!(model.encode(&text, 512).unwrap().ids, json.encode(&text, 512).unwrap().ids);
    }
    // ANCHOR_END: g3_both_forms_agree_on_any_words

    #[test]
    fn any_text_is_encoded_by_the_trained_vocabulary(text in any::<String>()) {
        let tokenizer = Tokenizer::from_json(&TRAINED, "trained", 1, ROWS).unwrap();
        let tokens = tokenizer.encode(&text, 100).unwrap();
        prop_assert_eq!(tokens.ids.len(), tokens.pieces.len());
        prop_assert!(tokens.ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        prop_assert_eq!(tokens.ids.last(), Some(&1));
    }

    /// A damaged tokenizer.json is an error, or still a tokenizer: never a panic.
    #[test]
    fn damaged_files_are_errors(cut in 0usize..4000, at in 0usize..4000, byte: u8, letter in "[A-Za-z0-9+/]") {
        for file in [&*TRAINED, &*JSON] {
            prop_assert!(Tokenizer::from_json(&file[..file.len() - 1 - cut], "x", 1, ROWS).is_err());
            // Most of the second file is a table, in letters that can all stand there.
            for new in [byte, letter.as_bytes()[0]] {
                let mut changed = file.clone();
                let at = at * (changed.len() - 1) / 4000;
                changed[at] = new;
                if let Ok(tokenizer) = Tokenizer::from_json(&changed, "x", 1, ROWS) {
                    let _ = tokenizer.encode("a handwritten ½ seven ﬁ\u{301}", 100);
                }
            }
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
    let trained = Tokenizer::from_json(&TRAINED, "trained", 1, ROWS).unwrap();
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
    let tokenizer = Tokenizer::from_json(&TRAINED, "trained", 1, ROWS).unwrap();
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
    let error = Tokenizer::from_folder(folder.path(), 1, ROWS).err().unwrap();
    assert!(matches!(&error, TokenizerError::None { .. }));
    assert!(error.to_string().contains("neither tokenizer.json nor spiece.model"));
    std::fs::write(folder.path().join("spiece.model"), b"\x0a\xff\xff\xff\xff\x0f").unwrap();
    let error = Tokenizer::from_folder(folder.path(), 1, ROWS).err().unwrap().to_string();
    assert!(error.contains("spiece.model") && error.contains("fetch it again"), "{error}");
    std::fs::write(folder.path().join("tokenizer.json"), "[".repeat(1_000_000)).unwrap();
    assert!(Tokenizer::from_folder(folder.path(), 1, ROWS).err().unwrap().to_string().contains("is not a tokenizer"));
}
