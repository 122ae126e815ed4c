//! The two number types, as a run-time value ([`DType`]) and as a bound for kernels ([`Element`]).

use super::{Buffer, Storage};
use std::fmt::{self, Debug};
use std::ops::{AddAssign, MulAssign, SubAssign};
use std::sync::Arc;

/// The type of an array's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DType {
    /// 32-bit floats: training and sampling.
    #[default]
    F32,
    /// 64-bit floats: gradient checks and tests of the mathematics.
    F64,
}

impl DType {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
        })
    }
}

/// A number that CPU kernels compute with: `f32` or `f64`.
pub trait Element:
    num_traits::Float + AddAssign + SubAssign + MulAssign + Default + Debug + Send + Sync + 'static + private::Sealed
{
    /// The run-time name of this type.
    const DTYPE: DType;

    /// From f64, rounding to nearest.
    fn of(value: f64) -> Self;

    /// As f64, exactly.
    fn f64(self) -> f64;

    #[doc(hidden)]
    fn recycler() -> &'static super::buffer::Recycler<Self>;
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn into_storage(buffer: Arc<Buffer<Self>>) -> Storage;
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn from_storage(storage: &Storage) -> Option<&[Self]>;
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn from_storage_mut(storage: &mut Storage) -> Option<&mut [Self]>;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

macro_rules! element {
    ($t:ident, $variant:ident) => {
        impl Element for $t {
            const DTYPE: DType = DType::$variant;

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }

            #[inline(always)]
            fn f64(self) -> f64 {
                self as f64
            }

            fn recycler() -> &'static super::buffer::Recycler<Self> {
                static RECYCLER: super::buffer::Recycler<$t> = super::buffer::Recycler::new();
                &RECYCLER
            }

            #[allow(private_interfaces)]
            fn into_storage(buffer: Arc<Buffer<Self>>) -> Storage {
                Storage::$variant(buffer)
            }

            #[allow(private_interfaces)]
            fn from_storage(storage: &Storage) -> Option<&[Self]> {
                match storage {
                    Storage::$variant(buffer) => Some(buffer),
                    _ => None,
                }
            }

            #[allow(private_interfaces)]
            fn from_storage_mut(storage: &mut Storage) -> Option<&mut [Self]> {
                match storage {
                    Storage::$variant(buffer) => Some(&mut **Arc::make_mut(buffer)),
                    _ => None,
                }
            }
        }
    };
}

element!(f32, F32);
element!(f64, F64);
