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

/// Recognises handwritten digits under any amount of noise; trained by `configs/mnist-noisy-classifier.toml`.
pub const MNIST_NOISY_CLASSIFIER: Bundled = Bundled {
    name: "mnist-noisy-classifier",
    about: "recognises noised digits, to lead a model that draws them",
    bytes: include_bytes!("../assets/models/mnist-noisy-classifier.safetensors"),
};

/// Draws digits of 8 x 8 pixels from sentences; trained by `configs/mnist-cascade/base8.toml`.
pub const MNIST_BASE8: Bundled = Bundled {
    name: "mnist-cascade/base8",
    about: "draws digits of 8 x 8 pixels from sentences",
    bytes: include_bytes!("../assets/models/mnist-cascade/base8.safetensors"),
};

/// Makes digits of 16 x 16 pixels from those of 8 x 8; trained by `configs/mnist-cascade/sr16.toml`.
pub const MNIST_SR16: Bundled = Bundled {
    name: "mnist-cascade/sr16",
    about: "makes digits of 8 x 8 pixels twice as large",
    bytes: include_bytes!("../assets/models/mnist-cascade/sr16.safetensors"),
};

/// Makes digits of 32 x 32 pixels from those of 16 x 16; trained by `configs/mnist-cascade/sr32.toml`.
pub const MNIST_SR32: Bundled = Bundled {
    name: "mnist-cascade/sr32",
    about: "makes digits of 16 x 16 pixels twice as large",
    bytes: include_bytes!("../assets/models/mnist-cascade/sr32.safetensors"),
};

/// All of them.
pub const ALL: [Bundled; 7] =
    [MNIST, MNIST_CLASSIFIER, MNIST_NOISY_CLASSIFIER, MNIST_BASE8, MNIST_SR16, MNIST_SR32, T5_MINI];

/// The name of the cascade of [`MNIST_BASE8`], [`MNIST_SR16`] and [`MNIST_SR32`].
pub const CASCADE: &str = "mnist-cascade";

/// The file that describes it.
pub const CASCADE_TOML: &str = include_str!("../configs/mnist-cascade/cascade.toml");

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
