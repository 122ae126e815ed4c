//! Reductions, softmax.

use super::{Domain, Table, any, apart};
use imagen::autograd::Tensor;

/// Axes to reduce over: every subset of three, in order and not, from the front and from the back.
const AXES: [&[isize]; 11] =
    [&[], &[0], &[1], &[2], &[-1], &[-3], &[0, 1], &[0, 2], &[2, 1], &[0, 1, 2], &[-1, -2, -3]];

type Reduction = fn(&Tensor, &[isize], bool) -> Tensor;

pub fn add_to(table: &mut Table) {
    over_axes(table, "sum", Domain::Any, Tensor::sum);
    over_axes(table, "mean", Domain::Any, Tensor::mean);
    over_axes(table, "var", Domain::Any, Tensor::var);
    over_axes(table, "max", Domain::Apart, Tensor::max);
    table.add("sum", "of nothing", &[any([2, 0, 3])], |x| x[0].sum(&[1], false));
    table.add("sum", "no numbers left", &[any([2, 0, 3])], |x| x[0].sum(&[2], false));
    table.add("max", "no numbers left", &[any([2, 0, 3])], |x| x[0].max(&[2], true));
    for shape in [[2, 3, 5], [1, 1, 1], [13, 37, 101]] {
        table.plain("sum_all", &[any(shape)], |x| x[0].sum_all());
        table.plain("mean_all", &[any(shape)], |x| x[0].mean_all());
    }
    table.plain("sum_all", &[any([])], |x| x[0].sum_all());
    table.plain("sum_all", &[any([0, 2])], |x| x[0].sum_all());
    table.plain("mean_all", &[any([])], |x| x[0].mean_all());
    along_an_axis(table, "softmax", Tensor::softmax);
    along_an_axis(table, "log_softmax", Tensor::log_softmax);
    table.add("softmax", "far apart", &[apart([3, 7])], |x| (&x[0] * 512.0).softmax(-1));
    table.add("log_softmax", "far apart", &[apart([3, 7])], |x| (&x[0] * 512.0).log_softmax(-1));
    table.add("softmax", "some hidden, one row whole", &[any([3, 4])], |x| {
        let shown = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        (&x[0] + &x[0].constant_like([3, 4], &shown).mask_to_bias()).softmax(-1)
    });
}

fn over_axes(table: &mut Table, op: &'static str, domain: Domain, f: Reduction) {
    for axes in AXES {
        for keep in [true, false] {
            let note = format!("{axes:?} keep {keep}");
            table.add(op, note, &[domain.of([2, 3, 5])], move |x| f(&x[0], axes, keep));
        }
    }
    table.add(op, "of sizes 1", &[domain.of([1, 3, 1])], move |x| f(&x[0], &[0, 2], false));
    table.add(op, "of a scalar", &[domain.of([])], move |x| f(&x[0], &[], false));
    table.add(op, "many rows", &[domain.of([301, 67])], move |x| f(&x[0], &[1], true));
    table.add(op, "many columns", &[domain.of([301, 67])], move |x| f(&x[0], &[0], false));
    table.add(op, "images to channels", &[domain.of([3, 7, 29, 31])], move |x| f(&x[0], &[0, 2, 3], true));
}

fn along_an_axis(table: &mut Table, op: &'static str, f: fn(&Tensor, isize) -> Tensor) {
    for axis in [0, 1, 2, -1, -2, -3] {
        table.add(op, format!("axis {axis}"), &[any([2, 3, 5])], move |x| f(&x[0], axis));
    }
    table.add(op, "of one", &[any([3, 1])], move |x| f(&x[0], 1));
    table.add(op, "of a vector", &[any([4])], move |x| f(&x[0], 0));
    table.add(op, "no rows", &[any([0, 3])], move |x| f(&x[0], 1));
    table.add(op, "many rows", &[any([211, 77])], move |x| f(&x[0], -1));
}
