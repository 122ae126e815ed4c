//! Named parameters.

use super::{Weights, WeightsError};
use crate::array::{Array, DType, Device, Shape, is_planning};
use crate::autograd::Tensor;
use crate::kernels;
use crate::random::{Purpose, hash, stream};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

// ANCHOR: param_struct
/// A named tensor that is trained. Clones are the same parameter.
#[derive(Clone)]
pub struct Param(Arc<Inner>);

struct Inner {
    name: String,
    leaf: RwLock<Tensor>,
}
// ANCHOR_END: param_struct

impl Param {
    /// Its name within the model, such as "middle.attention.out.weight".
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its present value, as the leaf that [`Gradients::get`](crate::autograd::Gradients::get) knows it by.
    pub fn tensor(&self) -> Tensor {
        self.0.leaf.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its shape, which never changes.
    pub fn shape(&self) -> Shape {
        self.tensor().shape().clone()
    }

    /// Changes its value, in place if no graph holds on to it. Panics if `change` changes the shape or dtype.
    pub fn update<R>(&self, change: impl FnOnce(&mut Array) -> R) -> R {
        let mut leaf = self.0.leaf.write().unwrap_or_else(PoisonError::into_inner);
        let (shape, dtype) = (leaf.shape().clone(), leaf.dtype());
        let result = change(leaf.value_mut());
        assert!(
            *leaf.shape() == shape && leaf.dtype() == dtype,
            "{}: a parameter keeps its shape and dtype",
            self.name()
        );
        result
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.tensor().shape())
    }
}

/// All parameters of a model, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<Param>);

impl Parameters {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.0.iter()
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are in all.
    pub fn count(&self) -> usize {
        self.0.iter().map(|p| p.tensor().numel()).sum()
    }

    /// The values by name; cheap, nothing is copied.
    pub fn values(&self) -> BTreeMap<String, Array> {
        self.0.iter().map(|p| (p.name().to_string(), p.tensor().into_array())).collect()
    }

    /// Sets every value from `weights`, converted to the parameter's dtype. Missing, surplus and wrong-shaped tensors, and
    /// numbers that are NaN or infinite, are an error that names them, and then nothing has been changed.
    pub fn load(&self, weights: &Weights) -> Result<(), WeightsError> {
        weights.check_names(self.0.iter().map(|p| (p.name(), p.shape())))?;
        let spoilt = |p: &&Param| !weights.tensors[p.name()].cast(p.tensor().dtype()).is_finite();
        if let Some(param) = self.0.iter().find(spoilt) {
            return Err(WeightsError::NotFinite(param.name().to_string()));
        }
        for param in &self.0 {
            let value = &weights.tensors[param.name()];
            param.update(|p| *p = value.cast(p.dtype()).to(p.device()));
        }
        Ok(())
    }

    /// Moves every value to `device`, where the model computes from then on. Panics if a GPU was not opened.
    #[track_caller]
    pub fn move_to(&self, device: Device) {
        for param in &self.0 {
            param.update(|p| *p = p.to(device));
        }
    }

    /// Keeps the weights of products and convolutions in 16 bits where the device can ([`Kernels::halve`](kernels::Kernels::halve)): half the memory, for
    /// sampling. Weights that come from a file in f16 lose nothing. Training such parameters goes on in 32 bits.
    pub fn halve(&self) {
        for param in self.0.iter().filter(|param| param.shape().len() >= 2) {
            param.update(|p| *p = p.kernels().halve(p));
        }
    }

    /// Exchanges every value with the one in `others`, by name. Panics if a name is missing there or a shape differs.
    pub fn swap(&self, others: &mut BTreeMap<String, Array>) {
        for param in &self.0 {
            let other = others.get_mut(param.name()).unwrap_or_else(|| panic!("swap: no value for {}", param.name()));
            param.update(|value| std::mem::swap(value, other));
        }
    }
}

/// First values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// 0
    Zeros,
    /// 1
    Ones,
    /// Uniform in [-bound, bound].
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
}

impl Fill {
    /// `n` first values.
    fn draw(self, n: usize, mut rng: impl Rng) -> Vec<f64> {
        match self {
            Fill::Zeros => vec![0.0; n],
            Fill::Ones => vec![1.0; n],
            Fill::Uniform(bound) => (0..n).map(|_| (2.0 * rng.random::<f64>() - 1.0) * bound).collect(),
            Fill::Normal(std) => (0..n)
                .map(|_| {
                    let z: f64 = StandardNormal.sample(&mut rng);
                    z * std
                })
                .collect(),
        }
    }
}

/// Makes the parameters of a model: names them and gives them their first values.
///
/// A first value depends on the seed and the parameter's name alone, so adding a layer changes no other layer.
#[derive(Clone)]
pub struct Init {
    seed: u64,
    dtype: DType,
    blank: bool,
    prefix: String,
    made: Rc<RefCell<Vec<Param>>>,
}

impl Init {
    /// Starts a model whose parameters have type `dtype`.
    pub fn new(seed: u64, dtype: DType) -> Init {
        Init { seed, dtype, blank: false, prefix: String::new(), made: Rc::default() }
    }

    /// As [`Init::new`], with every first value 0: for a model whose values will be loaded.
    pub fn blank(dtype: DType) -> Init {
        Init { blank: true, ..Init::new(0, dtype) }
    }

    /// The same model; names made there begin with "`name`.".
    pub fn scope(&self, name: impl fmt::Display) -> Init {
        Init { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    // ANCHOR: init_param
    /// A new parameter. Panics if the model has one of that name.
    #[track_caller]
    pub fn param(&self, name: &str, shape: impl Into<Shape>, fill: Fill) -> Param {
        let (name, shape) = (format!("{}{name}", self.prefix), shape.into());
        assert!(self.made.borrow().iter().all(|p| p.name() != name), "there are two parameters named {name}");
        let value = if is_planning() || self.blank {
            kernels::of(Device::Cpu).fill(&shape, self.dtype, 0.0)
        } else {
            let rng = stream(self.seed, Purpose::Init, 0, hash(&name));
            Array::from_f64(&shape, &fill.draw(shape.numel(), rng), self.dtype)
        };
        let leaf = Tensor::leaf(value);
        let param = Param(Arc::new(Inner { name, leaf: RwLock::new(leaf) }));
        self.made.borrow_mut().push(param.clone());
        param
    }
    // ANCHOR_END: init_param

    /// All parameters made so far.
    pub fn parameters(&self) -> Parameters {
        Parameters(self.made.borrow().clone())
    }
}
