//! Labelled images in memory, and the two data sets that come in MNIST's files.

use super::idx::{self, IdxError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The data sets that can be named in a config: in TOML, `mnist` or `fashion-mnist`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetName {
    /// Handwritten digits (LeCun, Cortes, Burges 1998): 60,000 + 10,000 grey images of 28x28.
    Mnist,
    /// Pictures of clothes (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747), in the same format and sizes.
    FashionMnist,
}

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const CLOTHES: [&str; 10] =
    ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

impl DatasetName {
    /// The names of the classes, by label.
    pub fn class_names(self) -> &'static [&'static str] {
        match self {
            DatasetName::Mnist => &DIGITS,
            DatasetName::FashionMnist => &CLOTHES,
        }
    }

    /// Where the files are looked for when no folder is named: `assets/NAME` in the current folder if it is there, else
    /// in the folder this crate was built from.
    pub fn default_folder(self) -> PathBuf {
        let here = Path::new("assets").join(self.to_string());
        if here.is_dir() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join(here) }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatasetName::Mnist => "mnist",
            DatasetName::FashionMnist => "fashion-mnist",
        })
    }
}

/// Why a data set could not be loaded.
#[derive(Debug, Error)]
pub enum DataError {
    /// One of its files is not there.
    #[error("{folder}: {file}.gz is missing (and so is {file}); copy the data set's four original files there")]
    Missing {
        /// The folder looked in.
        folder: PathBuf,
        /// The file, without .gz.
        file: String,
    },
    /// One of its files is there but cannot be used.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// There is not one label for each image.
    #[error("{folder}: {images} images but {labels} labels in the {part} files; take all four from the same data set")]
    Counts {
        /// The folder.
        folder: PathBuf,
        /// "train" or "t10k", as the files are called.
        part: &'static str,
        /// How many images there are.
        images: usize,
        /// How many labels there are.
        labels: usize,
    },
    /// A label names no class.
    #[error(
        "{folder}: label {label} of {part} image {index} is not below {classes}; this is not the data set it should be"
    )]
    Label {
        /// The folder.
        folder: PathBuf,
        /// "train" or "t10k", as the files are called.
        part: &'static str,
        /// Which image, from 0.
        index: usize,
        /// Its label.
        label: u8,
        /// How many classes there are.
        classes: usize,
    },
    /// Training and test images are of different sizes.
    #[error(
        "{folder}: train images are {train:?} but t10k images are {test:?}; take all four files from the same data set"
    )]
    Sizes {
        /// The folder.
        folder: PathBuf,
        /// [height, width] of the training images.
        train: [usize; 2],
        /// [height, width] of the test images.
        test: [usize; 2],
    },
}

/// Labelled images of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// [N, C, H, W], 0 to 255.
    pub pixels: Vec<u8>,
    /// One per image, each below the number of classes.
    pub labels: Vec<u8>,
    /// C.
    pub channels: usize,
    /// H, in pixels.
    pub height: usize,
    /// W, in pixels.
    pub width: usize,
    /// The names of the classes, by label.
    pub class_names: Vec<String>,
}

impl Images {
    /// How many images there are: N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many numbers one image has: C H W.
    pub fn image_numel(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The pixels [C, H, W] of one image. Panics if there is no such image.
    #[track_caller]
    pub fn image(&self, index: usize) -> &[u8] {
        assert!(index < self.len(), "image {index} of {} does not exist", self.len());
        let numel = self.image_numel();
        &self.pixels[index * numel..(index + 1) * numel]
    }

    /// The images `indices` as [B, C, H, W], from [-1, 1]: v / 127.5 - 1, the scaling of DDPM (arXiv 2006.11239,
    /// section 3.3). Panics if one does not exist.
    #[track_caller]
    pub fn batch_f32(&self, indices: &[usize]) -> Vec<f32> {
        let mut batch = Vec::with_capacity(indices.len() * self.image_numel());
        for &index in indices {
            batch.extend(self.image(index).iter().map(|&v| f32::from(v) / 127.5 - 1.0));
        }
        batch
    }

    /// The labels of the images `indices`, in their order. Panics if one does not exist.
    #[track_caller]
    pub fn batch_labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|&index| usize::from(self.labels[index])).collect()
    }

    /// The same images in a black frame of `pad` x `pad` pixels, if it is given, then shrunk to `resolution` x `resolution`, if that
    /// is given: every pixel is the mean of a square of them, rounded. An error that says why, if that does not go.
    pub fn resized(self, pad: Option<usize>, resolution: Option<usize>) -> Result<Images, String> {
        if pad.is_none() && resolution.is_none() {
            return Ok(self);
        }
        let [h, w] = [self.height, self.width];
        let side = pad.unwrap_or(h);
        if side < h.max(w) || side > MOST_PIXELS {
            return Err(format!("images of {h}x{w} cannot be framed to {side}x{side}"));
        }
        let size = resolution.unwrap_or(side);
        if size == 0 || !side.is_multiple_of(size) {
            return Err(format!("images of {side}x{side} cannot be shrunk to {size}x{size}: the sides must divide"));
        }
        let bytes = (self.len() * self.channels) as u64 * (size * size) as u64;
        if bytes > MOST_BYTES {
            return Err(format!("{} images of {size}x{size} would take {} GB", self.len(), bytes >> 30));
        }
        let (top, left, factor) = ((side - h) / 2, (side - w) / 2, side / size);
        let mut pixels = Vec::with_capacity(self.len() * self.channels * size * size);
        for channel in self.pixels.chunks_exact((h * w).max(1)) {
            let at = |y: usize, x: usize| match (y.checked_sub(top), x.checked_sub(left)) {
                (Some(y), Some(x)) if y < h && x < w => u32::from(channel[y * w + x]),
                _ => 0,
            };
            for (y, x) in (0..size).flat_map(|y| (0..size).map(move |x| (y, x))) {
                let square = (0..factor * factor).map(|i| at(y * factor + i / factor, x * factor + i % factor));
                let count = (factor * factor) as u32;
                pixels.push(((square.sum::<u32>() + count / 2) / count) as u8);
            }
        }
        Ok(Images { pixels, height: size, width: size, ..self })
    }

    fn load(name: DatasetName, folder: &Path, part: &'static str) -> Result<Images, DataError> {
        let images = idx::read(&find(folder, &format!("{part}-images-idx3-ubyte"))?, 3)?;
        let labels = idx::read(&find(folder, &format!("{part}-labels-idx1-ubyte"))?, 1)?.values;
        if images.dims[0] != labels.len() {
            let (images, labels) = (images.dims[0], labels.len());
            return Err(DataError::Counts { folder: folder.into(), part, images, labels });
        }
        let class_names: Vec<String> = name.class_names().iter().map(|&name| name.into()).collect();
        let classes = class_names.len();
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return Err(DataError::Label { folder: folder.into(), part, index, label: labels[index], classes });
        }
        // One channel: [N, H, W] in the file is [N, 1, H, W] as it stands.
        let [_, height, width] = images.dims[..] else { unreachable!("three axes were asked for") };
        Ok(Images { pixels: images.values, labels, channels: 1, height, width, class_names })
    }

    fn feed(&self, hash: &mut Sha256) {
        // The sizes too, so that the same bytes cut into other images differ.
        for size in [self.len(), self.channels, self.height, self.width] {
            hash.update((size as u64).to_le_bytes());
        }
        hash.update(&self.pixels);
        hash.update(&self.labels);
    }
}

/// `file`.gz in `folder`, or `file` where only that is there.
fn find(folder: &Path, file: &str) -> Result<PathBuf, DataError> {
    [format!("{file}.gz"), file.to_string()]
        .into_iter()
        .map(|name| folder.join(name))
        .find(|path| path.exists())
        .ok_or_else(|| DataError::Missing { folder: folder.into(), file: file.into() })
}

/// A data set: images to train on, and images never trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// To train on.
    pub train: Images,
    /// To test on.
    pub test: Images,
}

/// What images may take after they were framed: 16 GiB.
const MOST_BYTES: u64 = 16 << 30;

/// A side of more pixels is taken for a slip of the hand.
const MOST_PIXELS: usize = 4096;

impl Dataset {
    /// Both parts framed and shrunk: see [`Images::resized`].
    pub fn resized(self, pad: Option<usize>, resolution: Option<usize>) -> Result<Dataset, String> {
        Ok(Dataset { train: self.train.resized(pad, resolution)?, test: self.test.resized(pad, resolution)? })
    }

    /// Loads a data set from a folder with its four original files (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
    /// `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`), each with .gz or without. Errors: every variant of
    /// [`DataError`].
    pub fn load(name: DatasetName, folder: &Path) -> Result<Dataset, DataError> {
        let (train, test) = (Images::load(name, folder, "train")?, Images::load(name, folder, "t10k")?);
        let sizes = [&train, &test].map(|images| [images.height, images.width]);
        if sizes[0] != sizes[1] {
            return Err(DataError::Sizes { folder: folder.into(), train: sizes[0], test: sizes[1] });
        }
        Ok(Dataset { train, test })
    }

    /// SHA-256 over sizes, pixels and labels as decoded, in hex: the same however the files were compressed.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        self.train.feed(&mut hash);
        self.test.feed(&mut hash);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
