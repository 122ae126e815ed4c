//! What can go wrong on a device that is not the CPU.

/// A device that cannot be used, or can no longer be used. Once a device has failed it computes nothing more; arrays on it read
/// as NaN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such GPU.
    #[error("{0}")]
    Missing(String),
    /// The GPU lacks something that the kernels need.
    #[error("{gpu} cannot be used: {lack}; use --device cpu")]
    Unfit {
        /// Its name.
        gpu: String,
        /// What it lacks.
        lack: String,
    },
    /// An array is larger than the GPU takes as one.
    #[error(
        "an array of {bytes} bytes for {what} is more than the GPU takes at once ({limit} bytes): use a smaller batch, or \
         --device cpu"
    )]
    TooLarge {
        /// What the array was for.
        what: String,
        /// Its size.
        bytes: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The memory of the GPU is used up.
    #[error(
        "out of GPU memory: no {} MB left for {what}, with {} MB in use; use a smaller batch (train.batch) or \
         train.recompute = true",
        bytes.div_ceil(1_000_000),
        used / 1_000_000
    )]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// How much was asked for.
        bytes: u64,
        /// How much this program held then.
        used: u64,
    },
    /// The GPU is gone: it was reset, unplugged, or its driver crashed.
    #[error("the GPU was lost ({0}); nothing on it can be read any more")]
    Lost(String),
    /// A shader does not compile.
    #[error("{place}: {problem}")]
    Shader {
        /// File and line.
        place: String,
        /// What the compiler says.
        problem: String,
    },
    /// The driver refused something that should work.
    #[error("the GPU's driver reports: {0}")]
    Driver(String),
}
