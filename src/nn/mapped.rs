//! Weights that stay in their file: mapped into memory, and converted tensor by tensor when they are asked for.

use super::WeightsError;
use super::weights::damaged;
use crate::array::{Array, Buffer, DType, Shape, is_planning};
use crate::files;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The tensors of a model in the Hugging Face format, in one file or several, as they lie on the disk.
#[derive(Debug)]
pub struct MappedWeights {
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Place>,
}

/// A safetensors file, mapped.
#[derive(Debug)]
struct Mapped {
    bytes: Mmap,
    path: PathBuf,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    file: usize,
    bytes: Range<usize>,
    dtype: Dtype,
    shape: Shape,
}

/// Numbers converted by one task: large enough to be worth handing over, small enough for the cache.
const CHUNK: usize = 1 << 16;

/// Bytes that are looked at before their memory is given back.
const PART: usize = 1 << 24;

impl MappedWeights {
    /// The weights in the folder of a model: `model.safetensors`, or the files that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<MappedWeights, WeightsError> {
        let (whole, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        let mut weights = MappedWeights { files: Vec::new(), tensors: BTreeMap::new() };
        if whole.exists() || !index.exists() {
            weights.add(&whole)?;
            return Ok(weights);
        }
        let places = read_index(&index)?;
        let mut names: Vec<&String> = places.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            weights.add(&folder.join(name))?;
        }
        weights.check_index(&places, &index)?;
        Ok(weights)
    }

    /// Adds the tensors of a file.
    fn add(&mut self, path: &Path) -> Result<(), WeightsError> {
        let bytes = files::map(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(path, e.to_string()))?;
        let data = 8 + header;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                file: self.files.len(),
                bytes: data + start..data + end,
                dtype: info.dtype,
                shape: info.shape.clone().into(),
            };
            if !matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64) {
                return Err(damaged(path, format!("{name} has type {:?}, which is no float", info.dtype)));
            }
            if self.tensors.insert(name.clone(), place).is_some() {
                return Err(damaged(path, format!("{name} is in another file as well")));
            }
        }
        self.files.push(Mapped { bytes, path: path.to_path_buf() });
        Ok(())
    }

    /// An error unless every tensor is in the file that the index says.
    fn check_index(&self, places: &BTreeMap<String, String>, index: &Path) -> Result<(), WeightsError> {
        let file = |place: &Place| self.files[place.file].path.file_name().unwrap_or_default().to_string_lossy();
        for (name, wanted) in places {
            match self.tensors.get(name) {
                Some(place) if file(place) == *wanted => {}
                Some(place) => return Err(damaged(index, format!("{name} is in {}, not in {wanted}", file(place)))),
                None => return Err(damaged(index, format!("{name} is not in {wanted}"))),
            }
        }
        match self.tensors.keys().find(|name| !places.contains_key(*name)) {
            Some(name) => Err(damaged(index, format!("{name} is in {}, but not here", file(&self.tensors[name])))),
            None => Ok(()),
        }
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.tensors.iter().map(|(name, place)| (name.as_str(), &place.shape))
    }

    /// The shape of a tensor; `None` if there is no such one.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.tensors.get(name).map(|place| &place.shape)
    }

    /// A tensor, converted to f32. Panics if there is no such one.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Array {
        let place = self.place(name);
        if is_planning() {
            return Array::planned(&place.shape, DType::F32);
        }
        let array = decode(self.bytes(place), place.dtype, &place.shape);
        self.release(place);
        array
    }

    /// Rows of a tensor [n, d], converted to f32: [rows.len(), d]. Only they are read. Panics if there is no such tensor or
    /// row.
    #[track_caller]
    pub fn rows(&self, name: &str, rows: &[u32]) -> Array {
        let place = self.place(name);
        let [n, d] = place.shape.dims("mapped rows");
        let bytes = self.bytes(place);
        let size = bytes.len() / n.max(1);
        let mut chosen = Vec::with_capacity(rows.len() * size);
        for &row in rows {
            assert!((row as usize) < n, "row {row} is not in {name}, of shape {}", place.shape);
            chosen.extend_from_slice(&bytes[row as usize * size..][..size]);
        }
        self.release(place);
        decode(&chosen, place.dtype, &Shape::from([rows.len(), d]))
    }

    /// Whether two tensors are the same, byte for byte. Panics if one is missing.
    #[track_caller]
    pub fn same(&self, a: &str, b: &str) -> bool {
        let (a, b) = (self.place(a), self.place(b));
        let same = a.dtype == b.dtype && a.shape == b.shape && self.bytes(a) == self.bytes(b);
        self.release(a);
        self.release(b);
        same
    }

    /// Bytes of all tensors on the disk.
    pub fn stored_bytes(&self) -> u64 {
        self.tensors.values().map(|place| place.bytes.len() as u64).sum()
    }

    /// All bytes of all files, part by part.
    pub fn each_part(&self, look: &mut dyn FnMut(&[u8])) {
        for file in &self.files {
            for start in (0..file.bytes.len()).step_by(PART) {
                let range = start..file.bytes.len().min(start + PART);
                look(&file.bytes[range.clone()]);
                forget(&file.bytes, range);
            }
        }
    }

    #[track_caller]
    fn place(&self, name: &str) -> &Place {
        self.tensors.get(name).unwrap_or_else(|| panic!("there is no tensor {name} in the weights"))
    }

    fn bytes(&self, place: &Place) -> &[u8] {
        &self.files[place.file].bytes[place.bytes.clone()]
    }

    /// Lets the system have the memory back that reading has mapped. The file keeps the numbers.
    fn release(&self, place: &Place) {
        forget(&self.files[place.file].bytes, place.bytes.clone());
    }
}

/// Reads `model.safetensors.index.json`: the file of each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index =
        serde_json::from_str(&files::read_small_text(path)?).map_err(|e| damaged(path, format!("as an index: {e}")))?;
    // A file elsewhere on the disk is nothing that an index may name.
    match index.weight_map.values().find(|file| Path::new(file).file_name() != Some(file.as_ref())) {
        Some(file) => Err(damaged(path, format!("{file:?} is not the name of a file beside it"))),
        None => Ok(index.weight_map),
    }
}

/// Numbers of any float type as f32, by all threads.
fn decode(bytes: &[u8], dtype: Dtype, shape: &Shape) -> Array {
    let mut numbers = Buffer::<f32>::scratch(shape.numel());
    let size = bytes.len() / numbers.len().max(1);
    let parts = numbers.par_chunks_mut(CHUNK).zip(bytes.par_chunks((CHUNK * size).max(1)));
    parts.for_each(|(to, from)| match dtype {
        Dtype::BF16 => each(to, from, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F16 => {
            let mut halves = vec![half::f16::ZERO; to.len()];
            each(&mut halves, from, half::f16::from_le_bytes);
            halves.convert_to_f32_slice(to);
        }
        Dtype::F64 => each(to, from, |b| f64::from_le_bytes(b) as f32),
        _ => each(to, from, f32::from_le_bytes),
    });
    Array::from_buffer(shape, numbers)
}

fn each<const N: usize, T>(to: &mut [T], from: &[u8], number: impl Fn([u8; N]) -> T) {
    for (to, &bytes) in to.iter_mut().zip(from.as_chunks::<N>().0) {
        *to = number(bytes);
    }
}

/// Tells the system that these bytes will not be read soon. It only gives memory back: the mapping is read-only and shared, so
/// the bytes come from the file again when they are next looked at.
#[allow(unsafe_code)]
fn forget(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    {
        // Whole pages only: the advice on a part of one would be about all of it, and its neighbours are still wanted.
        const PAGE: usize = 1 << 16;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if start < end {
            // A hint: if the system refuses it, nothing is lost.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
