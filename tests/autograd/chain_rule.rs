//! The chain rule, the order it is multiplied in, and the walk against a sum over all paths.

use super::{gradient, random, scalar};
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::random::hash;
use proptest::prelude::*;

/// A vector as a leaf.
fn vector<const N: usize>(values: [f64; N]) -> Tensor {
    Tensor::leaf(Array::from_f64([N], &values, DType::F64))
}

/// The Jacobian of `f` at `x`, both vectors: row i is the vector-Jacobian product of the i-th unit vector.
fn jacobian(f: impl Fn(&Tensor) -> Tensor, x: &Array) -> Vec<Vec<f64>> {
    let outputs = f(&Tensor::constant(x.clone())).numel();
    (0..outputs)
        .map(|i| {
            let leaf = Tensor::leaf(x.clone());
            let unit: Vec<f64> = (0..outputs).map(|j| f64::from(u8::from(i == j))).collect();
            let gradients = f(&leaf).backward_with(Array::from_f64([outputs], &unit, DType::F64));
            gradients.get(&leaf).expect("a gradient").to_f64()
        })
        .collect()
}

/// The product of two matrices, and the multiplications it took.
fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> (Vec<Vec<f64>>, usize) {
    let mut count = 0;
    let mut entry = |row: &[f64], column: usize| {
        count += row.len();
        row.iter().zip(b).map(|(x, row)| x * row[column]).sum()
    };
    let rows = a.iter().map(|row| (0..b[0].len()).map(|column| entry(row, column)).collect()).collect();
    (rows, count)
}

fn assert_close(a: &[Vec<f64>], b: &[Vec<f64>], tolerance: f64) {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    assert_eq!(a.iter().flatten().count(), b.iter().flatten().count());
    assert!(pairs.clone().all(|(x, y)| (x - y).abs() <= tolerance * (1.0 + x.abs())), "{a:?}\n{b:?}");
}

// ANCHOR: slopes_of_a_chain_multiply
/// y = exp(sin(x^2)), each slope at its own place; and y = x^8 as three squarings.
#[test]
fn slopes_of_a_chain_multiply() {
    let x = scalar(0.5);
    let u = x.square();
    let v = u.sin();
    let y = v.exp();
    let slopes = [2.0 * x.item(), u.item().cos(), v.item().exp()];
    let product: f64 = slopes.iter().product();
    assert!((product - 1.240883).abs() < 1e-6, "the number in the book");
    assert!((gradient(&y.backward(), &x) - product).abs() < 1e-15);

    let x = scalar(3.0);
    assert_eq!(gradient(&x.square().square().square().backward(), &x), 8.0 * 3.0_f64.powi(7));
}
// ANCHOR_END: slopes_of_a_chain_multiply

// ANCHOR: jacobians_of_a_chain_multiply
/// From 3 numbers to 4 to 2: the Jacobian of the whole is the product of the two, the last one on the left.
#[test]
fn jacobians_of_a_chain_multiply() {
    let (w, v) = (Tensor::constant(random(1, [4, 3])), Tensor::constant(random(2, [2, 4])));
    let first = |x: &Tensor| w.matmul(&x.reshape([3, 1])).reshape([4]).tanh();
    let second = |u: &Tensor| v.matmul(&(u * &u.cos()).reshape([4, 1])).reshape([2]);
    let x = random(0, [3]);
    let between = first(&Tensor::constant(x.clone())).into_array();
    let (expected, _) = product(&jacobian(second, &between), &jacobian(first, &x));
    assert_close(&jacobian(|x| second(&first(x)), &x), &expected, 1e-14);
}
// ANCHOR_END: jacobians_of_a_chain_multiply

proptest! {
    // ANCHOR: both_orders_give_the_same_and_cost_what_the_formula_says
    #[test]
    fn both_orders_give_the_same_and_cost_what_the_formula_says(
        seed in any::<u64>(), sizes in prop::collection::vec(1_usize..8, 3..7),
    ) {
        // Matrix k has sizes[k + 1] rows and sizes[k] columns, filled with small whole numbers: products are exact.
        let small = |k: usize, i: usize, j: usize| (hash(&format!("{seed} {k} {i} {j}")) % 5) as f64 - 2.0;
        let matrices: Vec<Vec<Vec<f64>>> = sizes.windows(2).enumerate()
            .map(|(k, n)| (0..n[1]).map(|i| (0..n[0]).map(|j| small(k, i, j)).collect()).collect())
            .collect();
        let (mut from_the_input, mut from_the_output) = (matrices[0].clone(), matrices[matrices.len() - 1].clone());
        let mut counts = [0, 0];
        for k in 1..matrices.len() {
            let (next, count) = product(&matrices[k], &from_the_input);
            (from_the_input, counts[0]) = (next, counts[0] + count);
            let (next, count) = product(&from_the_output, &matrices[matrices.len() - 1 - k]);
            (from_the_output, counts[1]) = (next, counts[1] + count);
        }
        prop_assert_eq!(&from_the_input, &from_the_output);
        let sum = |steps: &[usize]| steps.windows(2).map(|n| n[0] * n[1]).sum::<usize>();
        let (first, last) = (sizes[0], sizes[sizes.len() - 1]);
        prop_assert_eq!(counts, [first * sum(&sizes[1..]), last * sum(&sizes[..sizes.len() - 1])]);
    }
    // ANCHOR_END: both_orders_give_the_same_and_cost_what_the_formula_says
}

// ANCHOR: a_vector_jacobian_product_by_hand
/// f(a, b) = (a b, a + b^2) at (2, 3) has the Jacobian [[3, 2], [1, 6]]; the transposed takes (1, 10) to (13, 62).
#[test]
fn a_vector_jacobian_product_by_hand() {
    let f = |x: &Tensor| {
        let (a, b) = (x.slice(0, 0..1), x.slice(0, 1..2));
        imagen::autograd::concat(&[&(&a * &b), &(&a + &b.square())], 0)
    };
    let x = vector([2.0, 3.0]);
    assert_eq!(jacobian(f, x.array()), [[3.0, 2.0], [1.0, 6.0]]);
    let gradients = f(&x).backward_with(Array::from_f64([2], &[1.0, 10.0], DType::F64));
    assert_eq!(gradients.get(&x).unwrap().to_f64(), [13.0, 62.0]);
}
// ANCHOR_END: a_vector_jacobian_product_by_hand

/// Every number of a random expression, with the numbers it was made from and its slope with respect to each.
struct Expression(Vec<(Tensor, Vec<(usize, f64)>)>);

impl Expression {
    /// Three leaves, and one more number for every entry of `plan`: an op and which earlier numbers it takes.
    fn new(plan: &[(u8, prop::sample::Index, prop::sample::Index)]) -> Expression {
        let leaf = |i| (Tensor::leaf(random(i, [])), Vec::new());
        let mut numbers: Vec<(Tensor, Vec<(usize, f64)>)> = (0..3).map(leaf).collect();
        for (op, i, j) in plan {
            let (i, j) = (i.index(numbers.len()), j.index(numbers.len()));
            let (a, b) = (numbers[i].0.clone(), numbers[j].0.clone());
            let (x, y) = (a.item(), b.item());
            numbers.push(match op % 5 {
                0 => (&a + &b, vec![(i, 1.0), (j, 1.0)]),
                1 => (&a - &b, vec![(i, 1.0), (j, -1.0)]),
                2 => (&(&a * &b) * 0.5, vec![(i, 0.5 * y), (j, 0.5 * x)]),
                3 => (a.sin(), vec![(i, x.cos())]),
                _ => (a.tanh(), vec![(i, 1.0 - x.tanh().powi(2))]),
            });
        }
        Expression(numbers)
    }

    // ANCHOR: over_all_paths
    /// The slopes along every path from number `from` down to `to`, multiplied; their sum, and that of their sizes.
    fn over_all_paths(&self, from: usize, to: usize) -> (f64, f64) {
        if from == to {
            return (1.0, 1.0);
        }
        self.0[from].1.iter().fold((0.0, 0.0), |(sum, size), &(parent, slope)| {
            let (rest, rest_size) = self.over_all_paths(parent, to);
            (sum + slope * rest, size + slope.abs() * rest_size)
        })
    }
    // ANCHOR_END: over_all_paths
}

/// Up to ten ops on three leaves: at most some thousand paths.
fn plan() -> impl Strategy<Value = Vec<(u8, prop::sample::Index, prop::sample::Index)>> {
    prop::collection::vec(any::<(u8, prop::sample::Index, prop::sample::Index)>(), 1..11)
}

proptest! {
    // ANCHOR: backward_is_the_sum_over_all_paths
    #[test]
    fn backward_is_the_sum_over_all_paths(plan in plan()) {
        let expression = Expression::new(&plan);
        let last = expression.0.len() - 1;
        let gradients = expression.0[last].0.backward();
        for leaf in 0..3 {
            let (sum, size) = expression.over_all_paths(last, leaf);
            let found = gradients.get(&expression.0[leaf].0).map_or(0.0, Array::item);
            prop_assert!((found - sum).abs() <= 1e-13 * size, "leaf {leaf}: {found}, over all paths {sum}");
        }
    }
    // ANCHOR_END: backward_is_the_sum_over_all_paths

    // ANCHOR: parents_have_smaller_ids
    #[test]
    fn parents_have_smaller_ids(plan in plan()) {
        let expression = Expression::new(&plan);
        let history = expression.0[expression.0.len() - 1].0.history();
        prop_assert!(history.is_sorted_by(|a, b| a.0 > b.0), "newest first");
        for (id, op, parents) in &history {
            prop_assert!(parents.iter().all(|parent| parent < id), "{op}#{id} of {parents:?}");
            prop_assert!(parents.iter().all(|parent| history.iter().any(|node| node.0 == *parent)));
        }
    }
    // ANCHOR_END: parents_have_smaller_ids
}

/// Also where every op runs on a thread of its own, while other threads make nodes.
#[test]
fn parents_have_smaller_ids_across_threads() {
    let noise = || (0..1000).for_each(|_| drop(scalar(1.0).square()));
    let mut y = scalar(1.0);
    for _ in 0..50 {
        let x = y.clone();
        y = std::thread::scope(|scope| {
            scope.spawn(noise);
            scope.spawn(move || &x.sin() + &x).join().unwrap()
        });
    }
    assert!(y.history().iter().all(|(id, _, parents)| parents.iter().all(|parent| parent < id)));
}
