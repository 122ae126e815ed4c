//! Weights as safetensors: what goes in comes out, and nothing else ever gets in.

use super::random;
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::eval::{Classifier, ClassifierConfig, ClassifierError};
use imagen::nn::{Init, Linear, Weights, WeightsError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

fn parse(bytes: &[u8]) -> Result<Weights, WeightsError> {
    Weights::parse(bytes, Path::new("some/model.safetensors"))
}

/// Bytes that must be refused as damaged, in a message that names the file.
#[track_caller]
fn assert_damaged(bytes: &[u8], what: &str) {
    let error = parse(bytes).map(|_| ()).expect_err(what);
    assert!(matches!(error, WeightsError::Damaged { .. }), "{what}: {error}");
    assert!(error.to_string().starts_with("some/model.safetensors is not a whole safetensors file"), "{what}: {error}");
}

fn assert_same(a: &Weights, b: &Weights) {
    assert_eq!(a.metadata, b.metadata);
    assert_eq!(a.tensors.keys().collect::<Vec<_>>(), b.tensors.keys().collect::<Vec<_>>());
    for (name, array) in &a.tensors {
        assert!(array.bit_eq(&b.tensors[name]), "{name}: {array:?} and {:?}", b.tensors[name]);
    }
}

fn small() -> Weights {
    let tensors = [("a", random(0, [2, 3])), ("b.weight", random(1, [2]).cast(DType::F32)), ("c", random(2, []))];
    Weights {
        tensors: tensors.map(|(name, array)| (name.into(), array)).into(),
        metadata: [("config".into(), "{\"x\": [1, 2]}".into()), ("step".into(), "7".into())].into(),
    }
}

prop_compose! {
    /// Any bits there are: NaN with a payload, -0, infinities, subnormal numbers.
    fn array()(dims in prop::collection::vec(0_usize..4, 0..4), double in any::<bool>())
        (bits in prop::collection::vec(any::<u64>(), dims.iter().product::<usize>()), dims in Just(dims), double in Just(double)) -> Array {
        if double {
            Array::from_vec(dims, bits.into_iter().map(f64::from_bits).collect())
        } else {
            Array::from_vec(dims, bits.into_iter().map(|b| f32::from_bits(b as u32)).collect())
        }
    }
}

prop_compose! {
    fn weights()(tensors in prop::collection::btree_map("[a-z.\"\\\\ü0-9 ]{1,12}", array(), 0..5),
                 metadata in prop::collection::btree_map(".{0,8}", ".{0,20}", 0..4)) -> Weights {
        Weights { tensors, metadata }
    }
}

proptest! {
    #[test]
    fn every_bit_comes_back(weights in weights()) {
        let bytes = weights.to_bytes(false);
        let read = parse(&bytes).unwrap();
        assert_same(&read, &weights);
        prop_assert_eq!(read.to_bytes(false), bytes, "the same weights always give the same bytes");
    }

    /// Eleven significant bits from 2^-14 up, steps of 2^-24 below.
    #[test]
    fn half_precision_keeps_eleven_bits(values in prop::collection::vec(-6e4_f32..6e4, 1..20), small in -1e-4_f32..1e-4) {
        let values: Vec<f32> = values.into_iter().chain([small, 0.0, -0.0]).collect();
        let n = values.len();
        let f64s = random(0, [3]);
        let tensors = [("a".to_string(), Array::from_vec([n], values.clone())), ("b".to_string(), f64s.clone())];
        let read = parse(&Weights { tensors: tensors.into(), metadata: BTreeMap::new() }.to_bytes(true)).unwrap();
        for (found, value) in read.tensors["a"].slice::<f32>().iter().zip(values) {
            prop_assert!((found - value).abs() <= (value.abs() / 2048.0).max(2f32.powi(-25)), "{} became {}", value, found);
        }
        prop_assert!(read.tensors["b"].bit_eq(&f64s), "f64 stays what it is");
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_damaged(&bytes, "random bytes");
    }

    /// A header of the right length, and any text in it.
    #[test]
    fn a_random_header_is_refused(header in ".{0,80}", rest in prop::collection::vec(any::<u8>(), 1..20)) {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &rest].concat();
        assert_damaged(&bytes, &header);
    }

    /// A flipped byte may leave a valid file (another number, another letter of the metadata); it never panics.
    #[test]
    fn a_flipped_byte_is_an_error_or_whole_weights(at in 0_usize..400, flip in 1_u8..=255) {
        let mut bytes = small().to_bytes(false);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        match parse(&bytes) {
            Ok(weights) => assert_same(&parse(&weights.to_bytes(false)).unwrap(), &weights),
            Err(error) => prop_assert!(matches!(error, WeightsError::Damaged { .. }), "{}", error),
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let bytes = small().to_bytes(false);
    assert_same(&parse(&bytes).unwrap(), &small());
    for length in 0..bytes.len() {
        assert_damaged(&bytes[..length], &format!("{length} of {} bytes", bytes.len()));
    }
    assert_damaged(&[&bytes[..], b"more"].concat(), "bytes at the end that belong to nothing");
}

/// A file with this header and `data` zeros behind it.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn headers_that_lie_are_refused() {
    assert_damaged(&u64::MAX.to_le_bytes(), "a header of 2^64 bytes");
    assert_damaged(&(1_u64 << 40).to_le_bytes(), "a header of a terabyte");
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    assert!(parse(&file(&tensor("F32", "[2]", "[0,8]"), 8)).is_ok(), "the honest one");
    for (what, header, data) in [
        ("fewer bytes than the shape needs", tensor("F32", "[3]", "[0,8]"), 8),
        ("more than there are", tensor("F32", "[2]", "[0,8]"), 4),
        ("a hole in front", tensor("F32", "[1]", "[4,8]"), 8),
        ("backwards", tensor("F32", "[1]", "[8,4]"), 8),
        ("sizes whose product is no number", tensor("F32", "[4294967296,4294967296,4294967296]", "[0,8]"), 8),
        ("the same with a 0 among them", tensor("F32", "[4294967296,4294967296,0]", "[0,0]"), 0),
        ("a negative size", tensor("F32", "[-2]", "[0,8]"), 8),
        ("no such type", tensor("F31", "[2]", "[0,8]"), 8),
        ("a type that is no float", tensor("I32", "[2]", "[0,8]"), 8),
        ("metadata that is no text", "{\"__metadata__\":{\"a\":3}}".into(), 0),
        ("a list", "[]".into(), 0),
        ("nothing", String::new(), 0),
    ] {
        assert_damaged(&file(&header, data), what);
    }
}

#[test]
fn halves_of_both_kinds_are_read_as_f32() {
    let one = "\"shape\":[2],\"data_offsets\"";
    let header = format!("{{\"a\":{{\"dtype\":\"F16\",{one}:[0,4]}},\"b\":{{\"dtype\":\"BF16\",{one}:[4,8]}}}}");
    let mut bytes = file(&header, 0);
    // 1.5 and -2 in either.
    for word in [0x3e00_u16, 0xc000, 0x3fc0, 0xc000] {
        bytes.extend(word.to_le_bytes());
    }
    let read = parse(&bytes).unwrap();
    for name in ["a", "b"] {
        assert_eq!(read.tensors[name].slice::<f32>(), [1.5, -2.0]);
    }
}

/// Rounding is what half precision is asked for; an infinity is not.
#[test]
fn numbers_too_large_for_half_precision_stay_as_they_are() {
    let tensors =
        [("large", vec![1.0_f32, 65520.0]), ("fits", vec![0.1, 65504.0]), ("endless", vec![f32::INFINITY, 0.1])];
    let tensors = tensors.map(|(name, values)| (name.to_string(), Array::from_vec([2], values))).into();
    let read = parse(&Weights { tensors, metadata: BTreeMap::new() }.to_bytes(true)).unwrap();
    assert_eq!(read.tensors["large"].slice::<f32>(), [1.0, 65520.0]);
    assert_eq!(read.tensors["fits"].slice::<f32>(), [0.099_975_586, 65504.0]);
    assert_eq!(read.tensors["endless"].slice::<f32>(), [f32::INFINITY, 0.099_975_586]);
}

#[test]
fn files_are_written_whole_and_named_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    small().write(&path, false).unwrap();
    assert_same(&Weights::read(&path).unwrap(), &small());
    let absent = folder.path().join("absent.safetensors");
    let error = Weights::read(&absent).unwrap_err();
    assert!(matches!(error, WeightsError::File(_)) && error.to_string().contains("absent.safetensors"), "{error}");
    let error = small().write(&folder.path().join("no/such/folder"), false).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}

#[test]
fn loading_converts_to_the_parameters_type() {
    let (from, to) = (Init::new(1, DType::F32), Init::new(2, DType::F64));
    Linear::new(&from, 2, 3);
    Linear::new(&to, 2, 3);
    to.parameters().load(&Weights { tensors: from.parameters().values(), metadata: BTreeMap::new() }).unwrap();
    for (a, b) in from.parameters().iter().zip(to.parameters().iter()) {
        assert!(b.tensor().dtype() == DType::F64 && b.tensor().to_f64() == a.tensor().to_f64());
    }
}

#[test]
fn weights_of_another_model_are_named_and_change_nothing() {
    let init = Init::new(1, DType::F64);
    Linear::new(&init.scope("first"), 2, 3);
    Linear::new(&init.scope("second"), 3, 1);
    let before = init.parameters().values();
    type Change = fn(&mut BTreeMap<String, Array>);
    let cases: [(&[&str], Change); 5] = [
        (&["second.bias [1] is missing"], |t| drop(t.remove("second.bias"))),
        (&["other is surplus"], |t| drop(t.insert("other".into(), random(0, [1])))),
        (&["first.weight is [2, 3], expected [3, 2]"], |t| drop(t.insert("first.weight".into(), random(0, [2, 3])))),
        (&["extra is surplus", "first.bias is [4], expected [3]", "second.weight [1, 3] is missing"], |t| {
            t.insert("extra".into(), random(0, []));
            t.insert("first.bias".into(), random(0, [4]));
            t.remove("second.weight");
        }),
        (&["first.bias [3] is missing", "and 1 more"], |t| {
            t.clear();
            t.insert("z".into(), random(0, []));
        }),
    ];
    for (expected, change) in cases {
        let mut tensors: BTreeMap<String, Array> =
            before.iter().map(|(name, a)| (name.clone(), random(9, a.shape()))).collect();
        change(&mut tensors);
        let error = init.parameters().load(&Weights { tensors, metadata: BTreeMap::new() }).unwrap_err().to_string();
        assert!(error.starts_with("the weights are of another architecture: "), "{error}");
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        assert!(init.parameters().values().iter().all(|(name, a)| a.bit_eq(&before[name])), "something was changed");
    }
}

fn classifier_config() -> ClassifierConfig {
    ClassifierConfig { image_channels: 1, image_size: 9, channels: vec![8, 16], features: 6, classes: 4, noise: None }
}

fn classifier_weights() -> (Classifier, Weights) {
    let init = Init::new(4, DType::F32);
    let classifier = Classifier::new(classifier_config(), &init).unwrap();
    let metadata = [("classifier".into(), serde_json::to_string(&classifier_config()).unwrap())].into();
    (classifier, Weights { tensors: init.parameters().values(), metadata })
}

#[test]
fn a_classifier_read_back_judges_the_same() {
    let (classifier, weights) = classifier_weights();
    let images = Tensor::constant(random(5, [3, 1, 9, 9]).cast(DType::F32));
    let (features, logits) = classifier.forward(&images);
    assert_eq!((&**features.shape(), &**logits.shape()), (&[3, 6][..], &[3, 4][..]));

    let read = Classifier::from_weights(&parse(&weights.to_bytes(false)).unwrap()).unwrap();
    assert_eq!(read.config(), &classifier_config());
    let (read_features, read_logits) = read.forward(&images);
    assert!(read_features.array().bit_eq(features.array()) && read_logits.array().bit_eq(logits.array()));
    let (judged_on, classes) = read.classify(&images);
    assert!(judged_on.bit_eq(features.array()));
    for (row, &class) in logits.to_f64().chunks(4).zip(&classes) {
        assert!(row.iter().all(|&v| v <= row[class]), "{row:?} says {class}");
    }

    let half = Classifier::from_weights(&parse(&weights.to_bytes(true)).unwrap()).unwrap();
    let half_logits = half.forward(&images).1.to_f64();
    for (a, b) in half_logits.iter().zip(logits.to_f64()) {
        assert!((a - b).abs() < 5e-3, "{a} of half the bits, {b} of all");
    }
}

#[test]
fn weights_that_are_no_classifier_are_refused() {
    let refused = |change: &dyn Fn(&mut Weights)| {
        let (_, mut weights) = classifier_weights();
        change(&mut weights);
        Classifier::from_weights(&weights).expect_err("a classifier of these weights")
    };
    let with = |config: &'static str| {
        refused(&move |w| drop(w.metadata.insert("classifier".into(), config.into()))).to_string()
    };

    assert!(refused(&|w| w.metadata.clear()).to_string().contains("lack the metadata entry \"classifier\""));
    assert!(with("{").contains("cannot be understood"));
    let wrong = r#"{"image_channels": 1, "image_size": 9, "channels": [8, 12], "features": 6, "classes": 4}"#;
    assert!(with(wrong).contains("classifier.channels must be divisible by 8; 12 is not"), "{}", with(wrong));
    let absurd = r#"{"image_channels": 1, "image_size": 9, "channels": [8], "features": 6, "classes": 1000000}"#;
    assert!(with(absurd).contains("classifier.classes must be between 1 and 10000"), "{}", with(absurd));
    let other = r#"{"image_channels": 1, "image_size": 9, "channels": [8, 16], "features": 7, "classes": 4}"#;
    assert!(with(other).contains("features.weight is [6, 400], expected [7, 400]"), "{}", with(other));
    let error = refused(&|w| drop(w.tensors.remove("logits.bias")));
    assert!(matches!(&error, ClassifierError::Weights(_)) && error.to_string().contains("logits.bias [4] is missing"));
}
