//! Reverse-mode automatic differentiation: [`Tensor`], an [`Array`] that knows how it came about.
//!
//! One file per family of ops, with every op's formula, forward and gradient on the same screen. A new op that is a
//! composition of others is a function here; a new primitive is `op(name, value).grad(parent, vjp).done()`.
//! `tests/ops` holds a table of samples per op; it fails when an op is missing there.

mod attention;
mod check;
mod checkpoint;
mod conv;
mod elementwise;
mod graph;
mod lookup;
mod loss;
mod matmul;
mod norm;
mod reduce;
mod resize;
mod shape;
mod softmax;

pub use check::{GradientError, check_gradients};
pub use checkpoint::checkpoint;
pub use graph::{Gradients, is_recording, no_grad, with_grad};
pub use shape::concat;

use crate::array::{Array, DType, Device, Shape};
use crate::kernels::Kernels;
use graph::Node;
use std::fmt;
use std::sync::Arc;

// ANCHOR: tensor
/// An [`Array`] with a history: what backward needs to find gradients with respect to what it was computed from.
///
/// Cloning is cheap and shares both. Shape and dtype mistakes panic at the caller's line and name the op and both shapes.
#[derive(Clone)]
pub struct Tensor {
    value: Array,
    node: Option<Arc<Node>>,
}
// ANCHOR_END: tensor

impl Tensor {
    /// A tensor that gradients are not wanted for.
    pub fn constant(value: Array) -> Tensor {
        Tensor { value, node: None }
    }

    /// A tensor that gradients are wanted for: [`Gradients::get`] finds them by it.
    pub fn leaf(value: Array) -> Tensor {
        Tensor { value, node: Some(Node::leaf()) }
    }

    /// A constant from f64 values, stored as `dtype`. Panics unless their number fits the shape.
    #[track_caller]
    pub fn from_f64(shape: impl Into<Shape>, values: &[f64], dtype: DType) -> Tensor {
        Tensor::constant(Array::from_f64(shape, values, dtype))
    }

    /// A constant with the dtype and on the device of this tensor. Panics unless the number of values fits the shape.
    #[track_caller]
    pub fn constant_like(&self, shape: impl Into<Shape>, values: &[f64]) -> Tensor {
        Tensor::from_f64(shape, values, self.dtype()).to(self.device())
    }

    /// A constant without axes.
    pub fn scalar(value: f64, dtype: DType) -> Tensor {
        Tensor::from_f64([], &[value], dtype)
    }

    /// The numbers, for an optimizer to change in place. The leaf stays the same one.
    pub(crate) fn value_mut(&mut self) -> &mut Array {
        &mut self.value
    }

    /// The same numbers without the history.
    pub fn detach(&self) -> Tensor {
        Tensor::constant(self.value.clone())
    }

    /// The numbers.
    pub fn array(&self) -> &Array {
        &self.value
    }

    /// The numbers, without the history.
    pub fn into_array(self) -> Array {
        self.value
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// How many numbers there are.
    pub fn numel(&self) -> usize {
        self.value.numel()
    }

    /// The type of the numbers.
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }

    /// The device that holds the numbers.
    pub fn device(&self) -> Device {
        self.value.device()
    }

    /// A copy of the numbers as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        self.value.to_f64()
    }

    /// The only number. Panics if there are more or fewer.
    #[track_caller]
    pub fn item(&self) -> f64 {
        self.value.item()
    }

    /// Whether a gradient would reach a leaf through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The ops that made this tensor and their parents, newest first: (id, op, ids of the parents). For figures.
    pub fn history(&self) -> Vec<(u64, &'static str, Vec<u64>)> {
        let mut nodes = std::collections::BTreeMap::new();
        let mut unvisited: Vec<Arc<Node>> = self.node.iter().cloned().collect();
        while let Some(node) = unvisited.pop() {
            if nodes.insert(node.id, (node.op, node.parents.iter().map(|p| p.id).collect())).is_none() {
                unvisited.extend(node.parents.iter().cloned());
            }
        }
        nodes.into_iter().rev().map(|(id, (op, parents))| (id, op, parents)).collect()
    }

    fn kernels(&self) -> &'static dyn Kernels {
        self.value.kernels()
    }

    /// The node to send a gradient to, if one is wanted.
    fn tracked(&self) -> Option<Arc<Node>> {
        if is_recording() { self.node.clone() } else { None }
    }
}

impl From<Array> for Tensor {
    fn from(value: Array) -> Tensor {
        Tensor::constant(value)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{:?} by {node:?}", self.value),
            None => write!(f, "{:?}", self.value),
        }
    }
}
