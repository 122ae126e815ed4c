//! Functions of one number and of two.

use super::Domain::{Any, Apart, Nonzero, Positive};
use super::{Domain, Table, any, apart, nonzero};
use imagen::autograd::Tensor;

pub fn add_to(table: &mut Table) {
    unary(table, "neg", Any, |x| x[0].neg());
    unary(table, "abs", Apart, |x| x[0].abs());
    unary(table, "square", Any, |x| x[0].square());
    unary(table, "sqrt", Positive, |x| x[0].sqrt());
    unary(table, "rsqrt", Positive, |x| x[0].rsqrt());
    unary(table, "reciprocal", Nonzero, |x| x[0].reciprocal());
    unary(table, "exp", Any, |x| x[0].exp());
    unary(table, "log", Positive, |x| x[0].log());
    unary(table, "sin", Any, |x| x[0].sin());
    unary(table, "cos", Any, |x| x[0].cos());
    unary(table, "tanh", Any, |x| x[0].tanh());
    unary(table, "sigmoid", Any, |x| x[0].sigmoid());
    unary(table, "softplus", Any, |x| x[0].softplus());
    unary(table, "relu", Apart, |x| x[0].relu());
    unary(table, "silu", Any, |x| x[0].silu());
    unary(table, "gelu_tanh", Any, |x| x[0].gelu_tanh());
    unary(table, "gelu_erf", Any, |x| x[0].gelu_erf());
    saturated(table);

    binary(table, "add", Any, |x| x[0].add(&x[1]));
    binary(table, "sub", Any, |x| x[0].sub(&x[1]));
    binary(table, "mul", Any, |x| x[0].mul(&x[1]));
    binary(table, "div", Nonzero, |x| x[0].div(&x[1]));
    binary(table, "maximum", Apart, |x| x[0].maximum(&x[1]));
    binary(table, "minimum", Apart, |x| x[0].minimum(&x[1]));
    with_numbers(table);
}

/// Odd sizes, one number, none, and enough for several threads.
fn unary(table: &mut Table, op: &'static str, domain: Domain, f: fn(&[Tensor]) -> Tensor) {
    table.plain(op, &[domain.of([3, 1, 7])], f);
    table.plain(op, &[domain.of([])], f);
    table.plain(op, &[domain.of([0, 3])], f);
    table.plain(op, &[domain.of([37, 1031])], f);
}

/// Every way in which two shapes meet, then the op with the same tensor twice.
fn binary(table: &mut Table, op: &'static str, domain: Domain, f: fn(&[Tensor]) -> Tensor) {
    table.plain(op, &[domain.of([3, 5]), domain.of([3, 5])], f);
    table.plain(op, &[domain.of([3, 5]), domain.of([5])], f);
    table.plain(op, &[domain.of([5]), domain.of([3, 5])], f);
    table.plain(op, &[domain.of([2, 3, 5]), domain.of([2, 1, 5])], f);
    table.plain(op, &[domain.of([2, 3, 1, 2]), domain.of([1, 3, 2, 1])], f);
    table.plain(op, &[domain.of([2, 1, 5]), domain.of([3, 1])], f);
    table.plain(op, &[domain.of([]), domain.of([2, 3])], f);
    table.plain(op, &[domain.of([2, 3]), domain.of([])], f);
    table.plain(op, &[domain.of([]), domain.of([])], f);
    table.plain(op, &[domain.of([1, 1, 1]), domain.of([2])], f);
    table.plain(op, &[domain.of([0, 3]), domain.of([3])], f);
    table.plain(op, &[domain.of([2, 0]), domain.of([2, 1])], f);
    table.plain(op, &[domain.of([7, 5, 33, 31]), domain.of([7, 5, 33, 31])], f);
    table.plain(op, &[domain.of([7, 5, 33, 31]), domain.of([7, 5, 1, 1])], f);
    table.plain(op, &[domain.of([1, 5, 1, 1]), domain.of([7, 5, 33, 31])], f);
    table.plain(op, &[domain.of([997, 37]), domain.of([37])], f);
}

/// Far from 0, where a careless formula overflows or divides infinity by infinity. Powers of two add no rounding of their own.
fn saturated(table: &mut Table) {
    let far = [any([4, 5])];
    table.add("tanh", "of 16 x", &far, |x| (&x[0] * 16.0).tanh());
    table.add("sigmoid", "of 64 x", &far, |x| (&x[0] * 64.0).sigmoid());
    table.add("softplus", "of 64 x", &far, |x| (&x[0] * 64.0).softplus());
    table.add("silu", "of 64 x", &far, |x| (&x[0] * 64.0).silu());
    table.add("gelu_tanh", "of 16 x", &far, |x| (&x[0] * 16.0).gelu_tanh());
    table.add("gelu_erf", "of 16 x", &far, |x| (&x[0] * 16.0).gelu_erf());
}

fn with_numbers(table: &mut Table) {
    let small = [any([3, 1, 5])];
    table.add("affine", "-1.7 x + 0.3", &small, |x| x[0].affine(-1.7, 0.3));
    table.add("affine", "0 x + 2", &small, |x| x[0].affine(0.0, 2.0));
    table.add("affine", "as operators", &small, |x| -&(&(&(&(&x[0] + 1.5) * 0.7) - 0.2) / 0.9));
    table.add("affine", "of nothing", &[any([2, 0])], |x| x[0].affine(2.0, 1.0));
    table.add("affine", "of many", &[any([91, 403])], |x| x[0].affine(2.5, 1.0));
    table.add("clamp", "both sides", &[apart([5, 7])], |x| x[0].clamp(-0.5, 0.8));
    table.add("clamp", "to one number", &[apart([5, 7])], |x| x[0].clamp(0.1, 0.1));
    table.add("mul", "of a tensor with itself", &small, |x| &x[0] * &x[0]);
    table.add("div", "of a tensor by its square", &[nonzero([2, 3])], |x| &x[0] / &(&x[0] * &x[0]));
}
