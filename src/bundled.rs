//! The models that come with the program, compiled into it so that it works from any folder.

use crate::nn::{Weights, WeightsError};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A model compiled into the program.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// A safetensors file.
    pub bytes: &'static [u8],
}

/// Draws handwritten digits from sentences; trained by `configs/mnist.toml`.
pub const MNIST: Bundled = Bundled {
    name: "mnist",
    about: "draws handwritten digits from sentences",
    bytes: include_bytes!("../assets/models/mnist.safetensors"),
};

/// Recognises handwritten digits; trained by `configs/mnist-classifier.toml`.
pub const MNIST_CLASSIFIER: Bundled = Bundled {
    name: "mnist-classifier",
    about: "recognises handwritten digits, to judge the other",
    bytes: include_bytes!("../assets/models/mnist-classifier.safetensors"),
};

/// Reads sentences; trained on text alone by `configs/t5-mini.toml`.
pub const T5_MINI: Bundled = Bundled {
    name: "t5-mini",
    about: "reads sentences, for the models that draw from them",
    bytes: include_bytes!("../assets/models/t5-mini.safetensors"),
};

/// All of them.
pub const ALL: [Bundled; 3] = [MNIST, MNIST_CLASSIFIER, T5_MINI];

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Bundled> {
    ALL.iter().find(|model| model.name == name)
}

impl Bundled {
    /// The weights. An error would mean that the program was built from a damaged file.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        Weights::parse(self.bytes, Path::new(self.name))
    }

    /// SHA-256 of the file, as hexadecimal digits.
    pub fn digest(&self) -> String {
        digest(self.bytes)
    }
}

/// SHA-256 as hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits, two each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
