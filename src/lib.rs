//! Text-to-image diffusion in the manner of Imagen, from scratch.
//!
//! Modules in the order to read them, each using only those before it: [`mod@array`], [`kernels`], [`autograd`], [`nn`],
//! [`optim`], [`diffusion`], [`text`], [`unet`], [`cascade`], [`data`], [`eval`], [`train`]. Beside them stand [`random`],
//! [`files`], [`picture`] and [`bundled`]. Labels such as (B2) name an equation; the test that derives it has the same label
//! and is in the file of `tests/` that begins with its letter.
//!
//! Gradients:
//!
//! ```
//! use imagen::array::DType;
//! use imagen::autograd::Tensor;
//!
//! let x = Tensor::leaf(Tensor::from_f64([3], &[1.0, 2.0, 3.0], DType::F64).into_array());
//! let y = (&x.square() * 0.5).sum_all();
//! assert_eq!(y.item(), 7.0);
//! assert_eq!(y.backward().get(&x).unwrap().to_f64(), [1.0, 2.0, 3.0]);
//! ```
//!
//! An image from a sentence:
//!
//! ```
//! use imagen::cascade::{Request, TextToImage, bundled};
//! use std::ops::ControlFlow;
//!
//! let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
//! let mut request = Request { count: 2, ..model.request(vec!["a handwritten seven".into()]) };
//! request.sampling.steps = 5;
//! let images = model.sample(&request, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(images.shape().to_vec(), [2, 1, 28, 28]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod array;
pub mod autograd;
pub mod bundled;
pub mod cascade;
pub mod data;
pub mod diffusion;
pub mod eval;
pub mod files;
pub mod kernels;
pub mod nn;
pub mod optim;
pub mod picture;
pub mod random;
pub mod text;
pub mod train;
pub mod unet;
