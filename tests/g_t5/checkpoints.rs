//! Checkpoints in the format of the hub: one file or many, any float type, whole or layer by layer; and damaged ones.

use super::{BOTH, expected, fixture};
use half::{bf16, f16};
use imagen::nn::Weights;
use imagen::text::t5::{Residency, T5Config, T5Encoder};
use imagen::text::{Embedding, TextEncoder};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

type Stored = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The tensors of a fixture, stored as `dtype`.
fn stored(version: &str, dtype: Dtype) -> Stored {
    let weights = Weights::read(&fixture(version).join("model.safetensors")).unwrap();
    let bytes = |values: &[f32]| -> Vec<u8> {
        match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Dtype::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            other => panic!("no test stores {other:?}"),
        }
    };
    let store = |array: &imagen::array::Array| (dtype, array.shape().to_vec(), bytes(&array.to_f32()));
    weights.tensors.iter().map(|(name, array)| (name.clone(), store(array))).collect()
}

fn write(path: &Path, tensors: &Stored) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A folder with config and tokenizer of a fixture and these tensors.
fn folder(version: &str, tensors: &Stored) -> TempDir {
    let folder = bare(version);
    write(&folder.path().join("model.safetensors"), tensors);
    folder
}

/// A folder with config and tokenizer of a fixture.
fn bare(version: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "spiece.model"] {
        std::fs::copy(fixture(version).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// The tensors in several files, by their number, with the index.
fn sharded(version: &str, tensors: &Stored, shards: usize) -> TempDir {
    let folder = bare(version);
    let name = |k: usize| format!("model-{:05}-of-{shards:05}.safetensors", k + 1);
    let mut parts = vec![Stored::new(); shards];
    let mut index = BTreeMap::new();
    for (i, (tensor, value)) in tensors.iter().enumerate() {
        parts[i % shards].insert(tensor.clone(), value.clone());
        index.insert(tensor.clone(), name(i % shards));
    }
    for (k, part) in parts.iter().enumerate() {
        write(&folder.path().join(name(k)), part);
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": index });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    folder
}

fn open(folder: &Path, residency: Residency) -> T5Encoder {
    T5Encoder::open(folder, 512, residency).unwrap_or_else(|e| panic!("{e}"))
}

fn error(folder: &TempDir) -> String {
    T5Encoder::open(folder.path(), 512, Residency::Automatic).err().expect("it must not open").to_string()
}

fn states(encoder: &T5Encoder) -> Vec<Embedding> {
    let prompts = expected("v1_1").prompts;
    let tokens: Vec<_> = prompts.iter().map(|p| encoder.tokens(p).unwrap()).collect();
    encoder.embed_all(&tokens).unwrap()
}

// ANCHOR: shards_and_layers_read_one_by_one_change_no_bit
#[test]
fn shards_and_layers_read_one_by_one_change_no_bit() {
    for version in BOTH {
        let tensors = stored(version, Dtype::F32);
        let whole = states(&open(&fixture(version), Residency::Whole));
        assert_eq!(whole, states(&open(&fixture(version), Residency::Streamed)));
        let shards = sharded(version, &tensors, 3);
        assert_eq!(whole, states(&open(shards.path(), Residency::Whole)));
        assert_eq!(whole, states(&open(shards.path(), Residency::Streamed)));
    }
}
// ANCHOR_END: shards_and_layers_read_one_by_one_change_no_bit

// ANCHOR: every_float_type_is_read_as_the_number_it_stands_for
#[test]
fn every_float_type_is_read_as_the_number_it_stands_for() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F64] {
        let folder = folder("v1_1", &stored("v1_1", dtype));
        let [whole, streamed] = [Residency::Whole, Residency::Streamed].map(|r| states(&open(folder.path(), r)));
        assert_eq!(whole, streamed);
        let exact = states(&open(&fixture("v1_1"), Residency::Whole));
        let bits: i32 = match dtype {
            Dtype::F16 => 11,
            Dtype::BF16 => 8,
            _ => 53,
        };
        for (a, b) in whole.iter().zip(&exact) {
            let worst = a.tokens.iter().zip(&b.tokens).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Two blocks of products, each number of which is rounded once: a few units in the last place.
            assert!(worst <= 16.0 * 2f32.powi(-bits), "{dtype:?}: {worst}");
            assert!(worst > 0.0 || dtype == Dtype::F64);
        }
    }
}
// ANCHOR_END: every_float_type_is_read_as_the_number_it_stands_for

// ANCHOR: a_text_does_not_depend_on_its_batch
/// Texts are read in batches of similar length; what comes out is what each gives alone.
#[test]
fn a_text_does_not_depend_on_its_batch() {
    let encoder = open(&fixture("v1_0"), Residency::Whole);
    let prompts = expected("v1_0").prompts;
    for (prompt, together) in prompts.iter().zip(states(&encoder)) {
        let tokens = encoder.tokens(prompt).unwrap();
        assert_eq!(encoder.embed_all(std::slice::from_ref(&tokens)).unwrap(), [together], "{prompt}");
    }
}
// ANCHOR_END: a_text_does_not_depend_on_its_batch

/// A folder needs no decoder, and every tensor in it is accounted for.
#[test]
fn missing_surplus_and_wrong_tensors_are_named() {
    let tensors = stored("v1_1", Dtype::F32);
    let encoder_only: Stored = tensors
        .clone()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("decoder.") && name != "lm_head.weight")
        .collect();
    open(folder("v1_1", &encoder_only).path(), Residency::Whole);

    let gone = "encoder.block.1.layer.1.DenseReluDense.wo.weight";
    let mut changed = tensors.clone();
    changed.remove(gone);
    assert!(error(&folder("v1_1", &changed)).contains(&format!("{gone} [32, 48] is missing")));

    let mut changed = tensors.clone();
    changed.insert("encoder.block.2.layer.0.layer_norm.weight".into(), tensors["shared.weight"].clone());
    let message = error(&folder("v1_1", &changed));
    assert!(message.contains("encoder.block.2.layer.0.layer_norm.weight [512, 32] is surplus"), "{message}");

    // Also in the decoder, which an encoder does not use.
    let mut changed = tensors.clone();
    let entry = changed.get_mut("decoder.block.0.layer.2.DenseReluDense.wo.weight").unwrap();
    entry.1 = vec![48, 32];
    let message = error(&folder("v1_1", &changed));
    assert!(message.contains("DenseReluDense.wo.weight is [48, 32], expected [32, 48]"), "{message}");

    let mut changed = tensors.clone();
    changed.insert("shared.weight".into(), (Dtype::I64, vec![2], vec![0; 16]));
    assert!(error(&folder("v1_1", &changed)).contains("shared.weight has type I64, which is no float"));
}

/// v1.0 repeats its table under other names; one of them is enough, and they must be the same.
#[test]
fn the_repeated_table_must_be_the_same() {
    let mut tensors = stored("v1_0", Dtype::F32);
    let whole = states(&open(&fixture("v1_0"), Residency::Whole));
    let table = tensors.remove("shared.weight").unwrap();
    for residency in [Residency::Whole, Residency::Streamed] {
        assert_eq!(whole, states(&open(folder("v1_0", &tensors).path(), residency)));
    }
    tensors.insert("shared.weight".into(), table);
    tensors.insert("lm_head.weight".into(), tensors["shared.weight"].clone());
    open(folder("v1_0", &tensors).path(), Residency::Whole);
    tensors.get_mut("encoder.embed_tokens.weight").unwrap().2[0] ^= 1;
    let message = error(&folder("v1_0", &tensors));
    assert!(message.contains("encoder.embed_tokens.weight differs from shared.weight"), "{message}");
    let mut narrow = tensors.clone();
    narrow
        .retain(|name, _| name != "shared.weight" && name != "decoder.embed_tokens.weight" && name != "lm_head.weight");
    let table = narrow.get_mut("encoder.embed_tokens.weight").unwrap();
    table.1 = vec![512, 31];
    table.2.truncate(512 * 31 * 4);
    let message = error(&folder("v1_0", &narrow));
    assert!(message.contains("encoder.embed_tokens.weight should be [512, 32]"), "{message}");
    tensors.retain(|name, _| !name.contains("embed_tokens") && name != "shared.weight" && name != "lm_head.weight");
    assert!(error(&folder("v1_0", &tensors)).contains("shared.weight [512, 32] is missing"));
}

#[test]
fn an_index_that_does_not_fit_its_files_is_an_error() {
    let tensors = stored("v1_1", Dtype::F32);
    let with_index = |change: &dyn Fn(&mut serde_json::Value)| {
        let folder = sharded("v1_1", &tensors, 2);
        let path = folder.path().join("model.safetensors.index.json");
        let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut index);
        std::fs::write(path, index.to_string()).unwrap();
        error(&folder)
    };
    let shared = "shared.weight";
    assert!(
        with_index(&|index| index["weight_map"][shared] = "../secret".into())
            .contains("is not the name of a file beside")
    );
    assert!(with_index(&|index| index["weight_map"][shared] = "gone.safetensors".into()).contains("gone.safetensors"));
    assert!(
        with_index(&|index| index["weight_map"]["extra"] = index["weight_map"][shared].clone())
            .contains("extra is not in")
    );
    let drop = |index: &mut serde_json::Value| {
        index["weight_map"].as_object_mut().unwrap().remove(shared);
    };
    assert!(with_index(&drop).contains("shared.weight is in"));
    assert!(with_index(&|index| *index = serde_json::json!({})).contains("weight_map"));
}

#[test]
fn a_folder_that_is_no_model_says_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let message = T5Encoder::find(empty.path().to_str().unwrap(), 256).err().unwrap().to_string();
    assert!(message.contains("give a bundled one (t5-mini)"), "{message}");
    let folder = bare("v1_1");
    assert!(error(&folder).contains("model.safetensors"));
    std::fs::write(folder.path().join("config.json"), "{\"vocab_size\": 512}").unwrap();
    assert!(error(&folder).contains("is not the config of a T5: missing field"));
    let gigantic = std::fs::read_to_string(fixture("v1_1").join("config.json"))
        .unwrap()
        .replace("\"d_ff\": 48", "\"d_ff\": 4800000000");
    std::fs::write(folder.path().join("config.json"), gigantic).unwrap();
    assert!(error(&folder).contains("d_ff must be between 1 and"));
    for (from, to) in [("\"num_layers\": 2", "\"num_layers\": 1000000"), ("\"num_heads\": 4", "\"num_heads\": 1000000")]
    {
        let config = std::fs::read_to_string(fixture("v1_1").join("config.json")).unwrap();
        std::fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
        assert!(error(&folder).contains("must be between 1 and"));
    }
    let activation =
        std::fs::read_to_string(fixture("v1_1").join("config.json")).unwrap().replace("gated-gelu", "swiglu");
    std::fs::write(folder.path().join("config.json"), activation).unwrap();
    assert!(error(&folder).contains("unknown variant `swiglu`"));
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = bare("v1_1");
    let mut tensors = stored("v1_1", Dtype::F32);
    let config = std::fs::read_to_string(fixture("v1_1").join("config.json")).unwrap();
    std::fs::write(folder.path().join("config.json"), config.replace("\"vocab_size\": 512", "\"vocab_size\": 300"))
        .unwrap();
    for name in ["shared.weight", "lm_head.weight"] {
        let (_, shape, bytes) = tensors.get_mut(name).unwrap();
        shape[0] = 300;
        bytes.truncate(300 * 32 * 4);
    }
    write(&folder.path().join("model.safetensors"), &tensors);
    assert!(error(&folder).contains("the tokenizer has 400 pieces, the model only 300"));
}

/// Another model, tokenizer or limit is another encoder.
#[test]
fn digests_tell_encoders_apart() {
    let digest = |folder: &Path, limit| T5Encoder::open(folder, limit, Residency::Automatic).unwrap().digest();
    let mut tensors = stored("v1_1", Dtype::F32);
    let same = folder("v1_1", &tensors);
    let one = digest(same.path(), 512);
    assert_eq!(one, digest(same.path(), 512));
    assert_eq!(one, open(same.path(), Residency::Streamed).digest());
    tensors.get_mut("encoder.final_layer_norm.weight").unwrap().2[0] ^= 1;
    let others =
        [digest(folder("v1_1", &tensors).path(), 512), digest(same.path(), 256), digest(&fixture("v1_0"), 512)];
    assert!(others.iter().all(|other| *other != one));
    std::fs::write(same.path().join("tokenizer.json"), {
        let mut json = Vec::new();
        let file = std::fs::File::open(fixture("v1_1").join("tokenizer.json.gz")).unwrap();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut json).unwrap();
        json
    })
    .unwrap();
    assert_ne!(digest(same.path(), 512), one);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A file that is cut short or changed anywhere in its header is an error or another model, never a panic.
    #[test]
    fn damaged_weights_are_errors(cut in 0usize..400_000, at in 0usize..6000, byte: u8) {
        let bytes = std::fs::read(fixture("v1_1").join("model.safetensors")).unwrap();
        let folder = bare("v1_1");
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, &bytes[..cut.min(bytes.len() - 1)]).unwrap();
        prop_assert!(T5Encoder::open(folder.path(), 512, Residency::Automatic).is_err());
        let mut changed = bytes;
        changed[at] = byte;
        std::fs::write(&path, changed).unwrap();
        let _ = T5Encoder::open(folder.path(), 512, Residency::Automatic);
    }
}

/// The config in the metadata of weights may be anything: nothing is made of its size before the tensors are known to have it. What this
/// one asks for, hundreds of terabytes, is in no address space: to make room would end the process.
#[test]
fn a_config_that_does_not_fit_its_weights_makes_no_room() {
    let mut weights = imagen::bundled::T5_MINI.weights().unwrap();
    let mut config = T5Config::parse(&weights.metadata["t5"]).unwrap();
    config = T5Config { d_model: 1 << 20, d_ff: 1 << 20, num_layers: 30, num_decoder_layers: Some(30), ..config };
    weights.metadata.insert("t5".into(), config.to_json());
    for message in [
        T5Encoder::from_weights(&weights, 64).err().unwrap().to_string(),
        imagen::text::t5::T5::from_weights(&weights).err().unwrap().to_string(),
    ] {
        assert!(message.contains("expected [1048576"), "{message}");
    }
}

#[test]
fn limits_out_of_range_are_refused_wherever_an_encoder_is_made() {
    let weights = imagen::bundled::T5_MINI.weights().unwrap();
    for limit in [0, 1, 2049, usize::MAX] {
        for message in [
            T5Encoder::open(&fixture("v1_1"), limit, Residency::Automatic).err().unwrap().to_string(),
            T5Encoder::from_weights(&weights, limit).err().unwrap().to_string(),
            T5Encoder::find("t5-mini", limit).err().unwrap().to_string(),
        ] {
            assert!(message.contains(&format!("max_tokens = {limit} is out of range")), "{message}");
        }
    }
    for limit in [2, 2048] {
        assert!(T5Encoder::from_weights(&weights, limit).is_ok());
    }
}

/// Some programs write every key that they know, and `null` where nothing was said.
#[test]
fn null_in_a_config_is_as_good_as_nothing() {
    let text = std::fs::read_to_string(fixture("v1_0").join("config.json")).unwrap();
    let needed = ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"];
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    config.retain(|key, _| needed.contains(&key.as_str()));
    let parse = |config: &serde_json::Map<_, _>| T5Config::parse(&serde_json::to_string(config).unwrap());
    let bare = parse(&config).unwrap();
    assert_eq!((bare.relative_attention_num_buckets, bare.relative_attention_max_distance), (32, 128));
    assert_eq!((bare.pad_token_id, bare.eos_token_id, bare.decoder_start_token_id), (0, 1, 0));
    assert!(bare.tie_word_embeddings && bare.layer_norm_epsilon == 1e-6 && bare.num_decoder_layers.is_none());
    for key in [
        "num_decoder_layers",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "layer_norm_epsilon",
        "feed_forward_proj",
        "tie_word_embeddings",
        "pad_token_id",
        "eos_token_id",
        "decoder_start_token_id",
    ] {
        config.insert(key.into(), serde_json::Value::Null);
    }
    assert_eq!(parse(&config), Ok(bare));
    config.insert("d_ff".into(), serde_json::Value::Null);
    assert!(parse(&config).unwrap_err().contains("invalid type: null"));
}
