//! The CPU kernels: ndarray for views, matrixmultiply for matrix products, rayon for the cores.

/// The processor as a device.
pub struct Cpu;

mod conv;
mod gemm;
mod matmul;
