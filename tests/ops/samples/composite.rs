//! Attention, losses, recomputation: ops made of others.

use super::{Table, any};
use imagen::autograd::checkpoint;

pub fn add_to(table: &mut Table) {
    attention(table);
    losses(table);
    recomputation(table);
}

fn attention(table: &mut Table) {
    let qkv = |batch: [usize; 2]| {
        let [b, h] = batch;
        [any([b, h, 3, 4]), any([b, h, 5, 4]), any([b, h, 5, 2])]
    };
    table.plain("attention", &qkv([2, 3]), |x| x[0].attention(&x[1], &x[2], None, 0.5));
    table.plain("attention", &[any([3, 4]), any([5, 4]), any([5, 2])], |x| x[0].attention(&x[1], &x[2], None, 0.5));
    table.add("attention", "one text for all heads", &[any([2, 3, 3, 4]), any([2, 1, 5, 4]), any([2, 1, 5, 2])], |x| {
        x[0].attention(&x[1], &x[2], None, 0.5)
    });
    table.add("attention", "no queries", &[any([2, 0, 4]), any([2, 5, 4]), any([2, 5, 3])], |x| {
        x[0].attention(&x[1], &x[2], None, 0.5)
    });
    table.add("attention", "no keys", &[any([2, 3, 4]), any([2, 0, 4]), any([2, 0, 3])], |x| {
        x[0].attention(&x[1], &x[2], None, 0.5)
    });
    table.add("attention", "padding hidden, everything in the second text", &qkv([2, 3]), |x| {
        let shown = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let bias = x[0].constant_like([2, 1, 1, 5], &shown).mask_to_bias();
        x[0].attention(&x[1], &x[2], Some(&bias), 0.5)
    });
    let [q, k, v] = qkv([2, 3]);
    table.add("attention", "learned bias", &[q, k, v, any([3, 3, 5])], |x| {
        x[0].attention(&x[1], &x[2], Some(&x[3]), 0.5)
    });
    // Sizes that a GPU computes without the matrix of weights: fours of features, more queries and keys than a tile.
    let tall = |n: usize, m: usize, d: usize| [any([2, 3, n, d]), any([2, 3, m, d]), any([2, 3, m, d])];
    for (n, m, d) in [(5, 7, 4), (65, 33, 12), (1, 70, 32), (130, 1, 16)] {
        table.plain("attention", &tall(n, m, d), |x| x[0].attention(&x[1], &x[2], None, 0.3));
    }
    table.add("attention", "some keys hidden, all of the second image", &tall(9, 6, 8), |x| {
        let shown = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        x[0].attention(&x[1], &x[2], Some(&x[0].constant_like([2, 1, 1, 6], &shown).mask_to_bias()), 0.5)
    });
    table.add("attention", "a bias a head, query and key", &tall(3, 2, 4), |x| {
        let bias: Vec<f64> = (0..18).map(|i| f64::from(i % 7) - 3.0).collect();
        x[0].attention(&x[1], &x[2], Some(&x[0].constant_like([3, 3, 2], &bias)), 0.5)
    });
    table.add("attention", "many", &[any([3, 4, 49, 8]), any([3, 4, 61, 8]), any([3, 4, 61, 8])], |x| {
        x[0].attention(&x[1], &x[2], None, 8.0_f64.sqrt().recip())
    });
}

fn losses(table: &mut Table) {
    for shape in [[2, 3, 5], [1, 1, 1], [11, 37, 23]] {
        table.plain("mse", &[any(shape), any(shape)], |x| x[0].mse(&x[1]));
    }
    table.plain("mse", &[any([]), any([])], |x| x[0].mse(&x[1]));
    table.plain("cross_entropy", &[any([4, 3])], |x| x[0].cross_entropy(&[2, 0, 2, 1]));
    table.add("cross_entropy", "per position", &[any([2, 3, 2])], |x| x[0].cross_entropy(&[2, 0, 1, 1]));
    table.plain("cross_entropy", &[any([1, 1])], |x| x[0].cross_entropy(&[0]));
    table.add("cross_entropy", "many", &[any([97, 101])], |x| {
        x[0].cross_entropy(&(0..97).map(|i| i * i % 101).collect::<Vec<u32>>())
    });
}

fn recomputation(table: &mut Table) {
    table.add("checkpoint", "used twice inside", &[any([3, 4]), any([4])], |x| {
        checkpoint(&[&x[0], &x[1]], |x| &(&x[0] * &x[1]).silu() + &x[0])
    });
    table.add("checkpoint", "captured", &[any([3, 4]), any([4])], |x| {
        let captured = x[1].clone();
        checkpoint(&[&x[0]], move |x| (&x[0] * &captured).silu())
    });
    table.add("checkpoint", "nested", &[any([3, 4])], |x| {
        checkpoint(&[&x[0]], |x| &checkpoint(&[&x[0]], |x| x[0].tanh()) * &x[0])
    });
}
