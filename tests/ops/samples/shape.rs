//! Ops that move numbers, and rows of a table.

use super::{Table, any};
use imagen::autograd::{Tensor, concat};

pub fn add_to(table: &mut Table) {
    reordering(table);
    cutting(table);
    joining(table);
    blocks(table);
    rows(table);
}

fn reordering(table: &mut Table) {
    table.plain("reshape", &[any([2, 3, 5])], |x| x[0].reshape([5, 6]));
    table.plain("reshape", &[any([1])], |x| x[0].reshape([]));
    table.plain("reshape", &[any([0, 3])], |x| x[0].reshape([2, 0, 7]));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        table.add("permute", format!("{order:?}"), &[any([2, 3, 5])], move |x| x[0].permute(&order));
    }
    table.add("permute", "five axes", &[any([2, 3, 1, 4, 5])], |x| x[0].permute(&[3, 0, 4, 2, 1]));
    table.add("permute", "images to pixels", &[any([3, 17, 16, 19])], |x| x[0].permute(&[0, 2, 3, 1]));
    table.plain("permute", &[any([])], |x| x[0].permute(&[]));
    table.plain("permute", &[any([2, 0, 3])], |x| x[0].permute(&[2, 0, 1]));
    table.plain("transpose", &[any([3, 5])], |x| x[0].transpose());
    table.plain("transpose", &[any([2, 3, 1, 5])], |x| x[0].transpose());
    table.plain("transpose", &[any([131, 157])], |x| x[0].transpose());
    table.add("to", "where it is", &[any([3, 5])], |x| x[0].to(x[0].device()));
    table.plain("broadcast_to", &[any([3, 5])], |x| x[0].broadcast_to([2, 3, 5]));
    table.plain("broadcast_to", &[any([2, 1, 5, 1])], |x| x[0].broadcast_to([2, 3, 5, 4]));
    table.plain("broadcast_to", &[any([1, 3, 1])], |x| x[0].broadcast_to([4, 2, 3, 5]));
    table.plain("broadcast_to", &[any([])], |x| x[0].broadcast_to([2, 3]));
    table.plain("broadcast_to", &[any([3])], |x| x[0].broadcast_to([3]));
    table.plain("broadcast_to", &[any([1, 3])], |x| x[0].broadcast_to([0, 3]));
    table.plain("broadcast_to", &[any([7, 1, 37])], |x| x[0].broadcast_to([7, 101, 37]));
}

fn cutting(table: &mut Table) {
    for (axis, range) in [(0, 1..2), (1, 1..4), (2, 0..7), (-1, 3..7), (-2, 0..1), (1, 2..2), (0, 2..2)] {
        let note = format!("axis {axis} {range:?}");
        table.add("slice", note, &[any([2, 5, 7])], move |x| x[0].slice(axis, range.clone()));
    }
    table.add("slice", "of many", &[any([3, 17, 19, 23])], |x| x[0].slice(1, 3..14));
    table.plain("slice", &[any([0, 3])], |x| x[0].slice(1, 1..3));
    for (axis, before, after) in [(0, 1, 0), (1, 0, 2), (-1, 2, 3), (1, 0, 0), (-3, 2, 1)] {
        let note = format!("axis {axis} {before}+{after}");
        table.add("pad", note, &[any([2, 3, 5])], move |x| x[0].pad(axis, before, after));
    }
    table.add("pad", "of nothing", &[any([2, 0])], |x| x[0].pad(1, 1, 2));
    table.add("pad", "of many", &[any([3, 17, 19, 23])], |x| x[0].pad(2, 2, 1));
    let swap = |sizes: &'static [usize], axis: isize| {
        move |x: &[Tensor]| {
            let parts = x[0].split(axis, sizes);
            assert_eq!(parts.len(), sizes.len());
            concat(&parts.iter().rev().collect::<Vec<_>>(), axis)
        }
    };
    table.add("split", "in three, swapped", &[any([2, 6, 3])], swap(&[1, 3, 2], 1));
    table.add("split", "in two with nothing between", &[any([2, 5])], swap(&[2, 0, 3], -1));
    table.add("split", "in one", &[any([2, 5])], swap(&[2], 0));
    table.add("split", "with an unused part", &[any([2, 5])], |x| x[0].split(1, &[2, 3]).remove(1));
}

fn joining(table: &mut Table) {
    let join = |axis: isize| move |x: &[Tensor]| concat(&x.iter().collect::<Vec<_>>(), axis);
    table.add("concat", "of one", &[any([2, 3])], join(0));
    table.add("concat", "axis 0", &[any([2, 5]), any([3, 5])], join(0));
    table.add("concat", "axis 1", &[any([2, 3, 5]), any([2, 1, 5]), any([2, 4, 5])], join(1));
    table.add("concat", "axis -1", &[any([2, 3, 1]), any([2, 3, 4])], join(-1));
    table.add("concat", "with nothing", &[any([2, 0]), any([2, 3])], join(1));
    table.add("concat", "the same twice", &[any([2, 3])], |x| concat(&[&x[0], &x[0]], 1));
    table.add("concat", "of many", &[any([3, 11, 17, 19]), any([3, 5, 17, 19])], join(1));
}

fn blocks(table: &mut Table) {
    for factor in [1, 2, 3] {
        let (f, note) = (factor, format!("by {factor}"));
        table.add("pixel_shuffle", note.clone(), &[any([2, 3 * f * f, 3, 5])], move |x| x[0].pixel_shuffle(f));
        table.add("pixel_unshuffle", note, &[any([2, 3, 3 * f, 5 * f])], move |x| x[0].pixel_unshuffle(f));
    }
}

fn rows(table: &mut Table) {
    table.add("embedding", "repeated rows", &[any([7, 3])], |x| x[0].embedding(&[2, 6, 2, 0, 2, 6]));
    table.add("embedding", "no rows", &[any([7, 3])], |x| x[0].embedding(&[]));
    table.add("embedding", "rows of nothing", &[any([4, 0])], |x| x[0].embedding(&[3, 1]));
    let many: Vec<u32> = (0..1500).map(|i| i * i % 211).collect();
    table.add("embedding", "many rows", &[any([211, 33])], move |x| x[0].embedding(&many));
}
