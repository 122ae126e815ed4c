//! Matrix products.

use super::{Table, any};
use imagen::autograd::Tensor;

/// Leading axes of a and b, [.., n, k] and [.., k, m].
const BATCHES: [(&[usize], &[usize]); 8] = [
    (&[], &[]),
    (&[2], &[2]),
    (&[2], &[]),
    (&[], &[2]),
    (&[2, 3], &[3]),
    (&[2, 1], &[1, 3]),
    (&[1], &[4]),
    (&[2, 3], &[2, 3]),
];

pub fn add_to(table: &mut Table) {
    for (a, b) in BATCHES {
        for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut shapes = [[a, &[3, 5]].concat(), [b, &[5, 4]].concat()];
            for (shape, transposed) in shapes.iter_mut().zip([transpose_a, transpose_b]) {
                if transposed {
                    let last = shape.len() - 1;
                    shape.swap(last, last - 1);
                }
            }
            let inputs = shapes.map(|shape| super::Input { shape: shape.into(), domain: super::Domain::Any });
            let note = format!("{transpose_a} {transpose_b}");
            table.add("matmul_t", note, &inputs, move |x| x[0].matmul_t(&x[1], transpose_a, transpose_b));
        }
    }
    sizes(table);
    linear(table);
}

fn sizes(table: &mut Table) {
    let plain = |x: &[Tensor]| x[0].matmul(&x[1]);
    table.plain("matmul", &[any([1, 1]), any([1, 1])], plain);
    table.plain("matmul", &[any([1, 7]), any([7, 1])], plain);
    table.plain("matmul", &[any([7, 1]), any([1, 5])], plain);
    table.plain("matmul", &[any([2, 3, 5]), any([5, 4])], plain);
    table.add("matmul", "no terms", &[any([2, 0]), any([0, 3])], plain);
    table.add("matmul", "no rows", &[any([0, 2]), any([2, 3])], plain);
    table.add("matmul", "no matrices", &[any([0, 2, 3]), any([3, 2])], plain);
    table.add("matmul", "large", &[any([67, 129]), any([129, 83])], plain);
    table.add("matmul", "many small", &[any([37, 9, 11]), any([37, 11, 13])], plain);
    table.add("matmul", "many rows", &[any([5, 131, 17]), any([17, 19])], plain);
    table.add("matmul", "of a matrix with itself", &[any([4, 4])], |x| x[0].matmul(&x[0]));
}

fn linear(table: &mut Table) {
    let with_bias = |x: &[Tensor]| x[0].linear(&x[1], Some(&x[2]));
    let without = |x: &[Tensor]| x[0].linear(&x[1], None);
    table.plain("linear", &[any([3, 5]), any([4, 5]), any([4])], with_bias);
    table.plain("linear", &[any([2, 3, 5]), any([4, 5]), any([4])], with_bias);
    table.plain("linear", &[any([2, 3, 5]), any([4, 5])], without);
    table.plain("linear", &[any([5]), any([4, 5]), any([4])], with_bias);
    table.plain("linear", &[any([0, 5]), any([4, 5]), any([4])], with_bias);
    table.add("linear", "no features", &[any([3, 0]), any([4, 0]), any([4])], with_bias);
    table.add("linear", "large", &[any([3, 67, 96]), any([41, 96]), any([41])], with_bias);
}
