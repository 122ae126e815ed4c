//! The table: for every op, inputs that exercise it. One file per family of ops, as in `src/autograd`.
//!
//! The drivers in `main.rs` run everything over this table, and a second device is driven by it too. An op that is
//! missing here fails the test in `coverage.rs`.

mod composite;
mod conv;
mod elementwise;
mod matmul;
mod norm;
mod reduce;
mod resize;
mod shape;

use imagen::array::{Array, Shape};
use imagen::autograd::Tensor;
use imagen::random::{Purpose, hash, normal};
use std::fmt;

/// One use of one op.
pub struct Sample {
    /// Name of the op: of its method, or of the function.
    pub op: &'static str,
    /// What is special about this use; may be empty.
    note: String,
    /// What it is differentiated by, in f64.
    pub inputs: Vec<Array>,
    /// The op itself. Follows the dtype of its inputs.
    pub f: Function,
}

/// Takes the inputs to the result.
pub type Function = Box<dyn Fn(&[Tensor]) -> Tensor + Send + Sync>;

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self.inputs.iter().map(|x| x.shape().to_string()).collect();
        write!(f, "{} {} {}", self.op, shapes.join(" "), self.note)
    }
}

/// Every sample of every op.
pub fn samples() -> Vec<Sample> {
    let mut table = Table(Vec::new());
    elementwise::add_to(&mut table);
    shape::add_to(&mut table);
    reduce::add_to(&mut table);
    matmul::add_to(&mut table);
    conv::add_to(&mut table);
    norm::add_to(&mut table);
    resize::add_to(&mut table);
    composite::add_to(&mut table);
    table.0
}

/// The samples so far.
struct Table(Vec<Sample>);

impl Table {
    /// A use of `op` without anything special.
    fn plain(&mut self, op: &'static str, inputs: &[Input], f: fn(&[Tensor]) -> Tensor) {
        self.add(op, "", inputs, f);
    }

    /// A use of `op`. Its numbers depend on nothing but its own name, note and shapes.
    fn add(
        &mut self,
        op: &'static str,
        note: impl Into<String>,
        inputs: &[Input],
        f: impl Fn(&[Tensor]) -> Tensor + Send + Sync + 'static,
    ) {
        let mut sample = Sample { op, note: note.into(), inputs: Vec::new(), f: Box::new(f) };
        let shapes: Vec<&Shape> = inputs.iter().map(|input| &input.shape).collect();
        let seed = hash(&format!("{op} {} {shapes:?}", sample.note));
        let most = inputs.iter().map(|input| input.shape.numel()).max().unwrap_or(0);
        sample.inputs = inputs.iter().enumerate().map(|(i, input)| input.draw(seed, i, most)).collect();
        self.0.push(sample);
    }
}

/// Shape and domain of one input.
#[derive(Clone)]
struct Input {
    shape: Shape,
    domain: Domain,
}

/// Where an op is smooth.
#[derive(Clone, Copy)]
enum Domain {
    /// Everywhere: draws from N(0, 1).
    Any,
    /// For numbers above 0: 0.5 + |N(0, 1)|.
    Positive,
    /// Away from 0 on both sides: N(0, 1) pushed outwards by 0.5.
    Nonzero,
    /// Where no two numbers are equal and none is 0 (kinks are there): all of them, over both inputs of an op, lie in
    /// steps of 0.05, or finer where they are many; and a quarter of a step beside the multiples of the step.
    Apart,
}

impl Domain {
    fn of<const N: usize>(self, shape: [usize; N]) -> Input {
        Input { shape: shape.into(), domain: self }
    }
}

fn any<const N: usize>(shape: [usize; N]) -> Input {
    Domain::Any.of(shape)
}

fn nonzero<const N: usize>(shape: [usize; N]) -> Input {
    Domain::Nonzero.of(shape)
}

fn apart<const N: usize>(shape: [usize; N]) -> Input {
    Domain::Apart.of(shape)
}

impl Input {
    /// Numbers of input `index` of an op whose largest input has `most`.
    fn draw(&self, seed: u64, index: usize, most: usize) -> Array {
        let n = self.shape.numel();
        let z = normal(seed, Purpose::Test, 0, index as u64, n);
        let values = match self.domain {
            Domain::Any => z,
            Domain::Positive => z.iter().map(|z| 0.5 + z.abs()).collect(),
            Domain::Nonzero => z.iter().map(|z| z + 0.5 * z.signum()).collect(),
            Domain::Apart => {
                let mut by_size: Vec<usize> = (0..n).collect();
                by_size.sort_by(|&a, &b| z[a].total_cmp(&z[b]));
                let mut values = vec![0.0; n];
                let step = 0.05_f64.min(8.0 / most as f64);
                for (rank, &i) in by_size.iter().enumerate() {
                    // Two inputs of one op take turns, so that neither shares a number with the other.
                    let place = (2 * rank + index) as f64 - (n / 2 * 2) as f64;
                    values[i] = step * (place + 0.25);
                }
                values
            }
        };
        Array::from_vec(self.shape.clone(), values)
    }
}
