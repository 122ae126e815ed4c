//! What an array on a GPU holds, and the words that a kernel is given beside its arrays.

use super::context::Context;
use crate::array::{Array, Device, Remote};
use half::f16;
use std::sync::Arc;

/// Numbers of an array on a GPU; their buffer goes back to the pool when they are dropped.
pub(super) struct Numbers {
    pub context: Arc<Context>,
    /// None if the GPU failed before there was one, or if there are no numbers.
    pub buffer: Option<wgpu::Buffer>,
    pub len: usize,
    /// Whether each has 16 bits. No kernel writes to such an array.
    pub half: bool,
}

// Every lock of a context is taken for whole changes only, so a panic elsewhere leaves nothing half done.
impl std::panic::UnwindSafe for Numbers {}
impl std::panic::RefUnwindSafe for Numbers {}

impl Drop for Numbers {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.context.take_back(buffer);
        }
    }
}

impl Remote for Numbers {
    fn device(&self) -> Device {
        Device::Gpu(self.context.id)
    }

    fn read(&self) -> Vec<f32> {
        if self.len == 0 {
            return Vec::new();
        }
        let read = |buffer| match self.half {
            false => self.context.read::<f32>(buffer, self.len),
            true => {
                let halves = self.context.read::<u16>(buffer, self.len.next_multiple_of(2))?;
                Some(halves[..self.len].iter().map(|&bits| f16::from_bits(bits).to_f32()).collect())
            }
        };
        self.buffer.as_ref().and_then(read).unwrap_or_else(|| vec![f32::NAN; self.len])
    }
}

/// A word of a kernel's parameters.
#[derive(Clone, Copy)]
pub(super) struct Word(pub u32);

impl From<u32> for Word {
    fn from(value: u32) -> Word {
        Word(value)
    }
}

impl From<usize> for Word {
    fn from(value: usize) -> Word {
        // Arrays that a GPU holds have fewer than 2^32 numbers, and sizes of empty ones do not matter.
        Word(value as u32)
    }
}

impl From<f32> for Word {
    fn from(value: f32) -> Word {
        Word(value.to_bits())
    }
}

impl From<f64> for Word {
    fn from(value: f64) -> Word {
        Word((value as f32).to_bits())
    }
}

/// Parameters of a kernel, in the order of the fields of its `Params`.
macro_rules! words {
    ($($value:expr),* $(,)?) => {
        &[$(crate::kernels::gpu::numbers::Word::from($value)),*]
    };
}
pub(super) use words;

/// The numbers of an array of this module. Panics if it is on another device.
#[track_caller]
pub(super) fn numbers(array: &Array) -> &Numbers {
    let remote = array.remote().and_then(|remote| (&**remote as &dyn std::any::Any).downcast_ref());
    let Some(numbers) = remote else {
        panic!("array {} is on {}: move it to the GPU first", array.shape(), array.device())
    };
    numbers
}
