//! The graph behind a [`Tensor`], and the walk back through it.
//!
//! Every op that runs while gradients are wanted makes a node. Node ids only grow, so a node's parents have smaller
//! ids than the node: descending id is reverse topological order, and backward needs neither recursion nor sorting.

use super::Tensor;
use crate::array::Array;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Grows by one a node, over all threads. `Relaxed` is enough for a parent to have the smaller id: additions to one atomic
/// stand in one order, and who can name a parent comes after it.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

// ANCHOR: node
/// The way from a node's gradient to its parents': consumes what forward saved for it.
type Edge = Box<dyn FnOnce(&Array, &mut Pending) + Send>;

/// One op of the graph, or a leaf: a tensor that gradients are wanted for.
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) op: &'static str,
    pub(super) parents: Vec<Arc<Node>>,
    /// `None` once backward went through. A leaf has no edges.
    edges: Mutex<Option<Vec<Edge>>>,
}
// ANCHOR_END: node

impl Node {
    // ANCHOR: node_new
    fn new(op: &'static str, parents: Vec<Arc<Node>>, edges: Vec<Edge>) -> Arc<Node> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node { id, op, parents, edges: Mutex::new(Some(edges)) })
    }
    // ANCHOR_END: node_new

    pub(super) fn leaf() -> Arc<Node> {
        Node::new("leaf", Vec::new(), Vec::new())
    }

    fn is_leaf(&self) -> bool {
        self.op == "leaf"
    }

    /// The edges, once: what they hold is freed as they run.
    fn take_edges(&self) -> Option<Vec<Edge>> {
        self.edges.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

impl Drop for Node {
    /// A chain of a million ops must not need a million stack frames to be freed.
    fn drop(&mut self) {
        let mut unvisited = std::mem::take(&mut self.parents);
        self.take_edges();
        while let Some(node) = unvisited.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                node.take_edges();
                unvisited.append(&mut node.parents);
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.op, self.id)
    }
}

/// Gradients that have arrived at nodes whose turn has not come.
pub(super) struct Pending(BTreeMap<u64, (Arc<Node>, Array)>);

impl Pending {
    fn new() -> Pending {
        Pending(BTreeMap::new())
    }

    // ANCHOR: pending_add
    /// Adds a gradient to a node's. The first one is moved in, never added to zeros.
    pub(super) fn add(&mut self, node: &Arc<Node>, grad: Array) {
        match self.0.get_mut(&node.id) {
            Some((_, sum)) => sum.kernels().add_assign(sum, &grad, 1.0),
            None => {
                self.0.insert(node.id, (node.clone(), grad));
            }
        }
    }
    // ANCHOR_END: pending_add

    // ANCHOR: walk
    /// Walks back through the graph, newest node first; what arrives at a leaf is handed to `arrived`.
    #[track_caller]
    fn walk(mut self, mut arrived: impl FnMut(Arc<Node>, Array)) {
        while let Some((_, (node, grad))) = self.0.pop_last() {
            if node.is_leaf() {
                arrived(node, grad);
                continue;
            }
            let Some(edges) = node.take_edges() else {
                panic!(
                    "backward has been through {node:?} before: what it had saved is gone; run the forward pass again"
                )
            };
            for edge in edges {
                edge(&grad, &mut self);
            }
        }
    }
    // ANCHOR_END: walk
}

/// The gradients of one [`Tensor::backward`]: one for every leaf it reached.
#[derive(Debug, Default)]
pub struct Gradients(HashMap<u64, Array>);

impl Gradients {
    /// The gradient with respect to a leaf; `None` if the result does not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Array> {
        self.0.get(&leaf.node.as_ref()?.id)
    }

    /// As [`Gradients::get`], by value.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Array> {
        self.0.remove(&leaf.node.as_ref()?.id)
    }

    /// As [`Gradients::get`], to be changed in place.
    pub fn get_mut(&mut self, leaf: &Tensor) -> Option<&mut Array> {
        self.0.get_mut(&leaf.node.as_ref()?.id)
    }

    /// Sets the gradient with respect to a leaf and returns the one it had. Panics if `leaf` has no history, or if its
    /// shape or dtype differs from the gradient's.
    #[track_caller]
    pub fn insert(&mut self, leaf: &Tensor, grad: Array) -> Option<Array> {
        assert_eq!(leaf.shape(), grad.shape(), "insert: leaf and gradient differ in shape");
        assert_eq!(leaf.dtype(), grad.dtype(), "insert: leaf and gradient differ in dtype");
        let node = leaf.node.as_ref().expect("insert: a constant has no gradient");
        self.0.insert(node.id, grad)
    }

    /// How many leaves were reached.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no leaf was reached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Tensor {
    /// Gradients of this scalar with respect to every leaf it depends on. Panics if it is no scalar or has no history.
    #[track_caller]
    pub fn backward(&self) -> Gradients {
        assert_eq!(
            self.numel(),
            1,
            "backward: needs a scalar, found {}; use backward_with to give a cotangent",
            self.shape()
        );
        self.backward_with(self.kernels().fill(self.shape(), self.dtype(), 1.0))
    }

    // ANCHOR: backward_with
    /// Vector-Jacobian product: the gradients of sum(cotangent * self) with respect to every leaf. Panics if the
    /// shapes or dtypes differ, if there is no history, or if backward has been through it before.
    #[track_caller]
    pub fn backward_with(&self, cotangent: Array) -> Gradients {
        assert_eq!(cotangent.shape(), self.shape(), "backward_with: cotangent and tensor differ in shape");
        assert_eq!(cotangent.dtype(), self.dtype(), "backward_with: cotangent and tensor differ in dtype");
        let node = self.node.as_ref().expect("backward: this tensor depends on no leaf (or was made under no_grad)");
        let mut pending = Pending::new();
        pending.add(node, cotangent);
        let mut gradients = Gradients::default();
        pending.walk(|leaf, grad| {
            gradients.0.insert(leaf.id, grad);
        });
        gradients
    }
    // ANCHOR_END: backward_with
}

/// An op being made: its result, and where its gradient goes.
///
/// ```text
/// op("mul", &a * &b).grad(x, move |g| g * &b).grad(y, move |g| g * &a).done()
/// ```
///
/// A closure for a parent that needs no gradient is dropped at once, with all it holds.
pub(super) struct Op {
    name: &'static str,
    value: Array,
    parents: Vec<Arc<Node>>,
    edges: Vec<Edge>,
}

/// Begins an op named `name` with the result `value`.
pub(super) fn op(name: &'static str, value: Array) -> Op {
    Op { name, value, parents: Vec::new(), edges: Vec::new() }
}

impl Op {
    // ANCHOR: op_grad
    /// `vjp` takes the gradient of the result to the gradient of `parent`.
    pub(super) fn grad(mut self, parent: &Tensor, vjp: impl FnOnce(&Array) -> Array + Send + 'static) -> Op {
        if let Some(node) = parent.tracked() {
            let target = node.clone();
            self.parents.push(node);
            self.edges.push(Box::new(move |g, pending| pending.add(&target, vjp(g))));
        }
        self
    }
    // ANCHOR_END: op_grad

    /// As [`Op::grad`] for several parents whose gradients are computed together. All or none are computed.
    pub(super) fn grads<const N: usize>(
        mut self,
        parents: [&Tensor; N],
        vjp: impl FnOnce(&Array) -> [Array; N] + Send + 'static,
    ) -> Op {
        let targets = parents.map(Tensor::tracked);
        if targets.iter().any(Option::is_some) {
            self.parents.extend(targets.iter().flatten().cloned());
            self.edges.push(Box::new(move |g, pending| {
                for (target, grad) in targets.iter().zip(vjp(g)) {
                    if let Some(target) = target {
                        pending.add(target, grad);
                    }
                }
            }));
        }
        self
    }

    /// An edge that writes to whatever nodes it reaches (recomputation finds them only when it runs). `parents` are
    /// those known now: through them the graph is shown, and freed without recursion.
    pub(super) fn edge(mut self, parents: &[Tensor], edge: impl FnOnce(&Array, &mut Pending) + Send + 'static) -> Op {
        if is_recording() {
            self.parents.extend(parents.iter().filter_map(Tensor::tracked));
            self.edges.push(Box::new(edge));
        }
        self
    }

    // ANCHOR: op_done
    /// The finished tensor.
    pub(super) fn done(self) -> Tensor {
        let node = (!self.edges.is_empty()).then(|| Node::new(self.name, self.parents, self.edges));
        Tensor { value: self.value, node }
    }
    // ANCHOR_END: op_done
}

/// Whether ops on this thread make graph nodes.
pub fn is_recording() -> bool {
    RECORDING.get()
}

// ANCHOR: no_grad
/// Runs `f` without recording: results have no history, and nothing is saved for backward. For sampling and evaluation.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    recording(false, f)
}
// ANCHOR_END: no_grad

/// Runs `f` with recording, also within [`no_grad`]: for a gradient that is part of a computation which itself needs none.
pub fn with_grad<R>(f: impl FnOnce() -> R) -> R {
    recording(true, f)
}

/// Runs `f` with recording on or off, and puts the former state back, also when `f` panics.
pub(super) fn recording<R>(on: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(on));
    f()
}
