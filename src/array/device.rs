//! Where numbers live and are computed on.

use std::any::Any;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// Where an array lives and is computed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The processor, with the kernels of `kernels::cpu`.
    #[default]
    Cpu,
    /// A graphics processor, with the kernels of `kernels::gpu`. It is opened by `kernels::gpu::open`, which gives this.
    Gpu(GpuId),
}

/// Which graphics processor, and which opening of it: one that was lost and opened again is another device, and knows nothing
/// of arrays of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GpuId {
    /// Its number in the list of `kernels::gpu::adapters`.
    pub adapter: u32,
    /// How often it had been opened before.
    pub opening: u32,
}

impl Device {
    /// Whether kernels return before they are done: reading a number then waits for all that was asked for before.
    pub fn is_asynchronous(self) -> bool {
        self != Device::Cpu
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(id) => write!(f, "gpu:{}", id.adapter),
        }
    }
}

/// The numbers of an array on another device than the CPU, f32. Its kernels know what is behind it.
pub trait Remote: Any + Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Which device.
    fn device(&self) -> Device;

    /// A copy of the numbers: waits until they have been computed. All NaN if the device has failed, so that nobody takes
    /// them for a result; `Kernels::check` says why.
    fn read(&self) -> Vec<f32>;
}
