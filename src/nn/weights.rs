//! Weights as safetensors files: named arrays with metadata.

use crate::array::{Array, DType, Device, Shape};
use crate::files::{self, FileError};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Named arrays and what is known about them. The only form in which weights are stored or loaded.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// The arrays by name.
    pub tensors: BTreeMap<String, Array>,
    /// Anything worth knowing: the model's config as JSON, the training step, the dataset's digest.
    pub metadata: BTreeMap<String, String>,
}

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a whole safetensors file.
    #[error("{} is not a whole safetensors file ({reason}); it may be cut short or damaged, fetch or train it again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors are not those of this model.
    #[error("the weights are of another architecture: {0}; use the config they were trained with")]
    Mismatch(String),
    /// A weight is NaN or infinite, and so would be all that is computed with it.
    #[error("the weights hold NaN or infinity, first in {0}: they are spoilt; fetch them or train the model again")]
    NotFinite(String),
    /// The metadata lacks something or cannot be understood.
    #[error("{}: metadata entry {key:?} {problem}", path.display())]
    Metadata {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Weights {
    /// Reads a file. F16, BF16, F32 and F64 tensors are taken; halves become f32.
    pub fn read(path: &Path) -> Result<Weights, WeightsError> {
        Weights::parse(&files::read(path)?, path)
    }

    /// As [`Weights::read`], from memory; `path` is only for messages.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Weights, WeightsError> {
        let damaged = |reason: String| damaged(path, reason);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let array = decode(&view)
                .ok_or_else(|| damaged(format!("{name} has type {:?}, which is no float", view.dtype())))?;
            tensors.insert(name, array);
        }
        Ok(Weights { tensors, metadata })
    }

    /// Writes a file, atomically; f32 arrays as f16 if `half`, but for those with a number that would become infinite.
    pub fn write(&self, path: &Path, half: bool) -> Result<(), WeightsError> {
        Ok(files::write(path, &self.to_bytes(half))?)
    }

    /// The bytes of the file. The same weights always give the same bytes.
    pub fn to_bytes(&self, half: bool) -> Vec<u8> {
        let encoded: Vec<(&String, Dtype, Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, array)| {
                let (dtype, bytes) = encode(array, half);
                (name, dtype, array.shape().to_vec(), bytes)
            })
            .collect();
        let views = encoded.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("the bytes of an array fit its shape");
            (name.as_str(), view)
        });
        // Sorted: a hash map would write the same metadata in a different order every time.
        let file = safetensors::serialize(views, None).expect("arrays can always be serialised");
        insert_metadata(&file, &self.metadata)
    }

    /// An error naming what is missing, surplus or of another shape than `wanted`.
    pub fn check_names<'a>(&self, wanted: impl Iterator<Item = (&'a str, Shape)>) -> Result<(), WeightsError> {
        let wanted: HashMap<&str, Shape> = wanted.collect();
        let mut problems: Vec<String> = Vec::new();
        for (name, shape) in &wanted {
            match self.tensors.get(*name) {
                None => problems.push(format!("{name} {shape} is missing")),
                Some(found) if found.shape() != shape => {
                    problems.push(format!("{name} is {}, expected {shape}", found.shape()))
                }
                Some(_) => {}
            }
        }
        problems.extend(
            self.tensors.keys().filter(|n| !wanted.contains_key(n.as_str())).map(|n| format!("{n} is surplus")),
        );
        WeightsError::mismatch(problems).map_or(Ok(()), Err)
    }
}

impl WeightsError {
    /// The error that tells of these problems, the first four of them; `None` if there are none.
    pub(crate) fn mismatch(mut problems: Vec<String>) -> Option<WeightsError> {
        problems.sort();
        let more = problems.len().saturating_sub(4);
        problems.truncate(4);
        let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
        (!problems.is_empty()).then(|| WeightsError::Mismatch(format!("{}{rest}", problems.join(", "))))
    }
}

pub(super) fn damaged(path: &Path, reason: String) -> WeightsError {
    WeightsError::Damaged { path: path.to_path_buf(), reason }
}

fn decode(view: &TensorView<'_>) -> Option<Array> {
    let shape: Shape = view.shape().to_vec().into();
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F64 => Array::from_vec(shape, words(data, f64::from_le_bytes)),
        Dtype::F32 => Array::from_vec(shape, words(data, f32::from_le_bytes)),
        Dtype::F16 => Array::from_vec(shape, words(data, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Array::from_vec(shape, words(data, |b| half::bf16::from_le_bytes(b).to_f32())),
        _ => return None,
    })
}

fn words<const N: usize, T>(data: &[u8], word: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|&bytes| word(bytes)).collect()
}

fn encode(array: &Array, half: bool) -> (Dtype, Vec<u8>) {
    let array = &array.to(Device::Cpu);
    match array.dtype() {
        DType::F64 => (Dtype::F64, array.slice::<f64>().iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F32 if half && fits_half(array.slice()) => {
            (Dtype::F16, array.slice::<f32>().iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect())
        }
        DType::F32 => (Dtype::F32, array.slice::<f32>().iter().flat_map(|v| v.to_le_bytes()).collect()),
    }
}

/// Whether every finite number stays finite as f16.
fn fits_half(values: &[f32]) -> bool {
    values.iter().all(|&v| !v.is_finite() || f16::from_f32(v).is_finite())
}

/// The same file with a sorted `__metadata__` entry in front of its header.
fn insert_metadata(file: &[u8], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let (length, rest) = file.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let (header, data) = rest.split_at(length);
    let tensors = std::str::from_utf8(header).expect("a header is JSON").trim_end().trim_start_matches('{');
    let comma = if tensors.trim_start().starts_with('}') { "" } else { "," };
    let metadata = serde_json::to_string(metadata).expect("strings are JSON");
    let mut header = format!("{{\"__metadata__\":{metadata}{comma}{tensors}");
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}
