//! MNIST as it is bundled, and what happens when its files are not as they should be.

use imagen::data::{Captions, DataError, Dataset, DatasetName, Idx, IdxError, Split, idx};
use imagen::text::{TextEncoderConfig, TextError};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static MNIST: LazyLock<Dataset> =
    LazyLock::new(|| Dataset::load(DatasetName::Mnist, &DatasetName::Mnist.default_folder()).unwrap());

/// Writes a plain IDX file.
fn write(path: PathBuf, dims: &[u32], values: &[u8]) {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(values);
    fs::write(path, bytes).unwrap();
}

/// A folder with a tiny valid data set: three 2x2 images to train on, one to test on.
fn tiny() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(at("train-images-idx3-ubyte"), &[3, 2, 2], &[0, 255, 51, 102, 1, 2, 3, 4, 5, 6, 7, 8]);
    write(at("train-labels-idx1-ubyte"), &[3], &[9, 0, 5]);
    write(at("t10k-images-idx3-ubyte"), &[1, 2, 2], &[9; 4]);
    write(at("t10k-labels-idx1-ubyte"), &[1], &[3]);
    folder
}

fn load(folder: &Path) -> Result<Dataset, DataError> {
    Dataset::load(DatasetName::Mnist, folder)
}

#[test]
fn mnist_is_what_it_is_known_to_be() {
    let Dataset { train, test } = &*MNIST;
    assert_eq!((train.len(), test.len()), (60_000, 10_000));
    assert_eq!((train.channels, train.height, train.width), (1, 28, 28));
    assert_eq!(train.labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(test.labels[..5], [7, 2, 1, 0, 4]);
    let counts = |labels: &[u8]| {
        let mut counts = [0; 10];
        labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    };
    assert_eq!(counts(&train.labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    assert_eq!(counts(&test.labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    // Mean and standard deviation of the training pixels on [0, 1]: the 0.1307 and 0.3081 of every tutorial.
    let n = train.pixels.len() as f64;
    let mean = train.pixels.iter().map(|&v| f64::from(v) / 255.0).sum::<f64>() / n;
    let square = train.pixels.iter().map(|&v| (f64::from(v) / 255.0).powi(2)).sum::<f64>() / n;
    assert!((mean - 0.1307).abs() < 5e-5 && ((square - mean * mean).sqrt() - 0.3081).abs() < 5e-5);
    assert_eq!(train.class_names[7], "seven");
}

/// Computed by Python's hashlib from the original files.
const PINNED_DIGEST: &str = "8d3be2d40c41b8c707f10f3ae6e5d0792026f86e310b6a74c844d8a8cd5755a0";

#[test]
fn the_digest_is_of_the_content() {
    let digest = MNIST.digest();
    assert_eq!(digest.len(), 64);
    assert_eq!(digest, PINNED_DIGEST);
    let folder = tiny();
    let plain = load(folder.path()).unwrap();
    let mut changed = plain.clone();
    changed.test.labels[0] ^= 1;
    assert_ne!(plain.digest(), changed.digest());
    changed = plain.clone();
    (changed.train.height, changed.train.width) = (4, 1);
    assert_ne!(plain.digest(), changed.digest());
}

#[test]
fn batches_are_scaled_to_minus_one_to_one() {
    let folder = tiny();
    let train = load(folder.path()).unwrap().train;
    let batch = train.batch_f32(&[1, 0]);
    assert_eq!(batch.len(), 8);
    for (value, expected) in batch[4..].iter().zip([-1.0, 1.0, -0.6, -0.2]) {
        assert!((value - expected).abs() < 1e-6);
    }
    assert_eq!((batch[4], batch[5]), (-1.0, 1.0));
    assert_eq!(train.batch_labels(&[1, 0]), [0, 9]);
}

#[test]
#[should_panic(expected = "image 3 of 3 does not exist")]
fn images_out_of_range_panic() {
    load(tiny().path()).unwrap().train.batch_f32(&[3]);
}

#[test]
fn a_missing_file_is_named() {
    let folder = tiny();
    fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
    match load(folder.path()).unwrap_err() {
        DataError::Missing { folder: found, file } => {
            assert_eq!((found.as_path(), file.as_str()), (folder.path(), "t10k-labels-idx1-ubyte"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn images_and_labels_must_be_equally_many() {
    let folder = tiny();
    write(folder.path().join("train-labels-idx1-ubyte"), &[2], &[1, 2]);
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Counts { part: "train", images: 3, labels: 2, .. }), "{error}");
}

#[test]
fn labels_must_name_a_class() {
    let folder = tiny();
    write(folder.path().join("train-labels-idx1-ubyte"), &[3], &[1, 10, 2]);
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Label { part: "train", index: 1, label: 10, classes: 10, .. }), "{error}");
}

#[test]
fn training_and_test_images_must_be_of_one_size() {
    let folder = tiny();
    write(folder.path().join("t10k-images-idx3-ubyte"), &[1, 1, 4], &[9; 4]);
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Sizes { train: [2, 2], test: [1, 4], .. }), "{error}");
}

#[test]
fn labels_in_place_of_images_are_noticed() {
    let folder = tiny();
    let at = |name: &str| folder.path().join(name);
    fs::copy(at("train-labels-idx1-ubyte"), at("train-images-idx3-ubyte")).unwrap();
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Idx(IdxError::Magic { found: [0, 0, 8, 1], rank: 3, .. })), "{error}");
}

#[test]
fn a_cut_original_is_a_damaged_gzip_and_a_plain_file_may_be_called_gz() {
    let original = fs::read(DatasetName::Mnist.default_folder().join("t10k-labels-idx1-ubyte.gz")).unwrap();
    let folder = tiny();
    let path = folder.path().join("t10k-labels-idx1-ubyte.gz");
    fs::write(&path, &original[..original.len() / 2]).unwrap();
    let error = load(folder.path()).unwrap_err();
    assert!(matches!(error, DataError::Idx(IdxError::Gzip { .. })), "{error}");
    assert!(error.to_string().contains("t10k-labels-idx1-ubyte.gz"), "{error}");
    write(path.clone(), &[1], &[3]);
    assert_eq!(idx::read(&path, 1).unwrap(), Idx { dims: vec![1], values: vec![3] });
}

#[test]
fn names_in_configs_are_kebab_case() {
    for name in [DatasetName::Mnist, DatasetName::FashionMnist] {
        assert_eq!(serde_json::to_string(&name).unwrap(), format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<DatasetName>(&format!("\"{name}\"")).unwrap(), name);
    }
}

#[test]
fn every_caption_can_be_encoded_and_held_out_ones_are_new_to_the_encoder_too() {
    let encoder = TextEncoderConfig::HashedWords { dim: 4, seed: 0, max_words: 32 }.build().unwrap();
    for name in [DatasetName::Mnist, DatasetName::FashionMnist] {
        let captions = Captions::of(name);
        let words = |split: Split| -> Result<Vec<Vec<String>>, TextError> {
            let all = (0..captions.classes()).flat_map(|label| {
                (0..captions.templates(split).len()).map(move |template| captions.caption(split, label, template))
            });
            all.map(|caption| Ok(encoder.encode(&caption)?.words)).collect()
        };
        let training = words(Split::Training).unwrap();
        let held_out = words(Split::HeldOut).unwrap();
        assert!(held_out.iter().all(|caption| !training.contains(caption)));
    }
}
