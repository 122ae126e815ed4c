//! Raw numbers on a device, without history: shape, dtype, device and the [`Array`] that joins them.
//!
//! Every array is row-major and contiguous. Cloning one is cheap: clones share the numbers, and the numbers of a
//! shared array never change. Within [`Ledger::plan`] arrays have no numbers, and their memory is only counted.

mod buffer;
mod device;
mod dtype;
mod ledger;
mod shape;

pub use buffer::Buffer;
pub use device::{Device, GpuId, Remote};
pub use dtype::{DType, Element};
pub use ledger::{Ledger, is_planning};
pub use shape::Shape;

use ledger::Planned;
use ndarray::{ArrayD, ArrayViewD};
use std::fmt;
use std::sync::Arc;

// ANCHOR: array
/// A contiguous, row-major block of numbers with a [`Shape`], a [`DType`] and a [`Device`].
#[derive(Clone)]
pub struct Array {
    shape: Shape,
    storage: Storage,
}

/// Where the numbers of an [`Array`] are.
#[derive(Clone)]
enum Storage {
    F32(Arc<Buffer<f32>>),
    F64(Arc<Buffer<f64>>),
    /// On another device, f32.
    Remote(Arc<dyn Remote>),
    /// Nowhere: memory is only counted (see [`Ledger`]).
    Planned(Arc<Planned>),
}
// ANCHOR_END: array

impl Array {
    /// An array on the CPU from a buffer of the CPU kernels. Panics unless the buffer holds exactly `shape.numel()` numbers.
    #[track_caller]
    pub fn from_buffer<T: Element>(shape: impl Into<Shape>, buffer: Buffer<T>) -> Array {
        let shape = shape.into();
        assert_eq!(shape.numel(), buffer.len(), "shape {shape} does not hold {} numbers", buffer.len());
        if is_planning() {
            return Array { shape, storage: Storage::Planned(Arc::new(Planned::given(&buffer))) };
        }
        Array { shape, storage: T::into_storage(Arc::new(buffer)) }
    }

    /// An array on the CPU from a vector. Panics unless `values` holds exactly `shape.numel()` numbers.
    #[track_caller]
    pub fn from_vec<T: Element>(shape: impl Into<Shape>, values: Vec<T>) -> Array {
        Array::from_buffer(shape, Buffer::from(values))
    }

    /// An array on the CPU from f64 values, stored as `dtype`. Panics unless the count fits the shape.
    #[track_caller]
    pub fn from_f64(shape: impl Into<Shape>, values: &[f64], dtype: DType) -> Array {
        match dtype {
            DType::F32 => Array::from_vec(shape, values.iter().map(|&v| v as f32).collect()),
            DType::F64 => Array::from_vec(shape, values.to_vec()),
        }
    }

    /// An array on another device. `numbers` must be as many as the shape holds.
    pub(crate) fn from_remote(shape: impl Into<Shape>, numbers: Arc<dyn Remote>) -> Array {
        Array { shape: shape.into(), storage: Storage::Remote(numbers) }
    }

    /// What holds the numbers on another device; `None` if they are on the CPU or nowhere.
    pub(crate) fn remote(&self) -> Option<&Arc<dyn Remote>> {
        match &self.storage {
            Storage::Remote(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// Whether no other array shares the numbers, which are on another device: they may be changed in place.
    pub(crate) fn owns_remote(&mut self) -> bool {
        match &mut self.storage {
            Storage::Remote(numbers) => Arc::get_mut(numbers).is_some(),
            _ => false,
        }
    }

    /// An array without numbers, counted as one that the CPU kernels make. Panics outside of [`Ledger::plan`].
    #[track_caller]
    pub(crate) fn planned(shape: impl Into<Shape>, dtype: DType) -> Array {
        let shape = shape.into();
        let planned = Planned::new(shape.numel(), dtype);
        Array { shape, storage: Storage::Planned(Arc::new(planned)) }
    }

    /// Counts what [`Array::make_mut`] does: a shared array without numbers becomes one of its own.
    pub(crate) fn plan_mut(&mut self) {
        if let Storage::Planned(planned) = &mut self.storage
            && Arc::get_mut(planned).is_none()
        {
            *self = Array::planned(&self.shape, self.dtype());
        }
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The type of the numbers.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::F32(_) => DType::F32,
            Storage::F64(_) => DType::F64,
            Storage::Remote(_) => DType::F32,
            Storage::Planned(planned) => planned.dtype(),
        }
    }

    /// Whether there are no numbers: the array was made within [`Ledger::plan`].
    pub fn is_planned(&self) -> bool {
        matches!(self.storage, Storage::Planned(_))
    }

    /// The device that holds the numbers, or would hold them if there were any.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Remote(numbers) => numbers.device(),
            _ => Device::Cpu,
        }
    }

    /// How many numbers there are.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// The same numbers under another shape, for free. Panics unless both shapes hold equally many numbers.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        assert_eq!(shape.numel(), self.numel(), "reshape: {} does not fit into {shape}", self.shape);
        Array { shape, storage: self.storage.clone() }
    }

    /// The numbers, which are on the CPU. Panics if the dtype is not `T`, if they are on another device (see
    /// `Array::to`), or if there are none.
    #[track_caller]
    pub fn slice<T: Element>(&self) -> &[T] {
        let Some(values) = T::from_storage(&self.storage) else { self.refuse::<T>() };
        values
    }

    /// Says why there are no numbers of type `T`.
    #[track_caller]
    fn refuse<T: Element>(&self) -> ! {
        assert!(!self.is_planned(), "array {} has no numbers: it was made to plan memory", self.shape);
        let device = self.device();
        assert!(device == Device::Cpu, "array {} is on {device}: move it with to(Device::Cpu) first", self.shape);
        panic!("expected {}, found {}", T::DTYPE, self.dtype())
    }

    /// The numbers as an ndarray view, for slicing, iterating and everything else ndarray does. Panics if the dtype is
    /// not `T`.
    #[track_caller]
    pub fn view<T: Element>(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(&*self.shape, self.slice()).expect("an array is contiguous and row-major")
    }

    /// The numbers, to be changed in place. Copies them first if another array shares them. Panics if the dtype is not `T`,
    /// if they are on another device, or if there are none.
    #[track_caller]
    pub fn make_mut<T: Element>(&mut self) -> &mut [T] {
        if self.dtype() != T::DTYPE || self.is_planned() || self.device() != Device::Cpu {
            self.refuse::<T>()
        }
        T::from_storage_mut(&mut self.storage).expect("the dtype has been compared")
    }

    /// A copy of the numbers as f64, whatever the dtype; zeros if there are none.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.storage {
            Storage::Planned(planned) => planned.to_f64(),
            Storage::Remote(numbers) => numbers.read().into_iter().map(f64::from).collect(),
            Storage::F32(b) => b.iter().map(|&v| f64::from(v)).collect(),
            Storage::F64(b) => b.to_vec(),
        }
    }

    /// A copy of the numbers as f32, whatever the dtype; zeros if there are none.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.storage {
            Storage::Planned(planned) => planned.to_f64().into_iter().map(|v| v as f32).collect(),
            Storage::Remote(numbers) => numbers.read(),
            Storage::F32(b) => b.to_vec(),
            Storage::F64(b) => b.iter().map(|&v| v as f32).collect(),
        }
    }

    /// This array as `dtype`; the array itself if it is that already, and otherwise one on the CPU.
    pub fn cast(&self, dtype: DType) -> Array {
        match (self.dtype(), dtype) {
            (a, b) if a == b => self.clone(),
            (_, DType::F32) => Array::from_vec(self.shape.clone(), self.to_f32()),
            (_, DType::F64) => Array::from_vec(self.shape.clone(), self.to_f64()),
        }
    }

    /// The only number of an array of one number; 0 if it has none. Panics if there are more or fewer.
    #[track_caller]
    pub fn item(&self) -> f64 {
        assert_eq!(self.numel(), 1, "item: {} does not hold exactly one number", self.shape);
        match &self.storage {
            Storage::Planned(planned) => planned.to_f64()[0],
            Storage::Remote(numbers) => f64::from(numbers.read()[0]),
            Storage::F32(b) => f64::from(b[0]),
            Storage::F64(b) => b[0],
        }
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        match &self.storage {
            Storage::F32(b) => b.iter().all(|v| v.is_finite()),
            Storage::F64(b) => b.iter().all(|v| v.is_finite()),
            Storage::Remote(numbers) => numbers.read().iter().all(|v| v.is_finite()),
            Storage::Planned(_) => true,
        }
    }

    /// Whether dtype, shape and every bit of every number are the same. An array without numbers equals none.
    pub fn bit_eq(&self, other: &Array) -> bool {
        self.shape == other.shape
            && match (&self.storage, &other.storage) {
                (Storage::F32(a), Storage::F32(b)) => a.iter().zip(b.iter()).all(|(a, b)| a.to_bits() == b.to_bits()),
                (Storage::F64(a), Storage::F64(b)) => a.iter().zip(b.iter()).all(|(a, b)| a.to_bits() == b.to_bits()),
                (Storage::Planned(_), _) | (_, Storage::Planned(_)) => false,
                (Storage::Remote(_), _) | (_, Storage::Remote(_)) if self.dtype() == other.dtype() => {
                    self.to_f32().iter().zip(other.to_f32()).all(|(a, b)| a.to_bits() == b.to_bits())
                }
                _ => false,
            }
    }
}

impl<T: Element> From<ArrayD<T>> for Array {
    /// The same numbers in row-major order, whatever the layout was.
    fn from(values: ArrayD<T>) -> Array {
        Array::from_vec(values.shape(), values.iter().copied().collect())
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_planned() {
            return write!(f, "Array{}:{} without numbers", self.shape, self.dtype());
        }
        let values = self.to_f64();
        let (shown, rest) = values.split_at(values.len().min(12));
        write!(f, "Array{}:{} {shown:?}", self.shape, self.dtype())?;
        if rest.is_empty() { Ok(()) } else { write!(f, " … {} more", rest.len()) }
    }
}
