//! Recomputation gives the same bits as remembering.

use super::random;
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, checkpoint};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Leaves of one run: two inputs, a weight and a bias, in f32, where a different order of additions would show.
fn leaves() -> [Tensor; 4] {
    let leaf = |array: Array| Tensor::leaf(array.cast(DType::F32));
    [leaf(random(0, [3, 4])), leaf(random(1, [3, 4])), leaf(random(2, [4, 4])), leaf(random(3, [4]))]
}

type Block = Arc<dyn Fn(&[Tensor]) -> Tensor + Send + Sync>;

/// Runs `network` once with its blocks remembered and once with them recomputed, and compares result and gradients.
#[track_caller]
fn assert_same_bits(network: impl Fn(&[Tensor; 4], &dyn Fn(&[&Tensor], Block) -> Tensor) -> Tensor) {
    let run = |block: &dyn Fn(&[&Tensor], Block) -> Tensor| {
        let leaves = leaves();
        let y = network(&leaves, block);
        let mut results = vec![y.array().clone()];
        let gradients = y.backward_with(random(9, [3, 4]).cast(DType::F32));
        results.extend(leaves.iter().map(|leaf| gradients.get(leaf).expect("a gradient").clone()));
        results
    };
    let remembered = run(&|inputs, block| block(&inputs.iter().map(|&t| t.clone()).collect::<Vec<_>>()));
    let recomputed = run(&|inputs, block| checkpoint(inputs, move |x| block(x)));
    for (i, (a, b)) in remembered.iter().zip(&recomputed).enumerate() {
        assert!(a.bit_eq(b), "result {i} (0: output, then inputs): {a:?} and {b:?}");
    }
}

#[test]
fn parameters_that_the_block_captures() {
    assert_same_bits(|[x, y, w, b], block| {
        let (w, b) = (w.clone(), b.clone());
        block(&[x, y], Arc::new(move |t| &t[0].linear(&w, Some(&b)).silu() * &t[1]))
    });
}

/// A residual block whose input is also a skip connection, as in a U-Net: gradients from inside and outside meet.
#[test]
fn an_input_that_is_used_inside_twice_and_outside_too() {
    assert_same_bits(|[x, y, w, b], block| {
        let (w, b) = (w.clone(), b.clone());
        let h = &(x + y) * 0.3;
        let z = block(&[&h], Arc::new(move |t| &t[0] + &t[0].linear(&w, Some(&b)).tanh()));
        &(&z * 0.7) + &(&h * 1.1).sin()
    });
}

/// A parameter shared by two blocks and by an op outside of both.
#[test]
fn a_shared_parameter() {
    assert_same_bits(|[x, y, w, b], block| {
        let layer = |w: &Tensor, b: &Tensor| -> Block {
            let (w, b) = (w.clone(), b.clone());
            Arc::new(move |t| t[0].linear(&w, Some(&b)).tanh().linear(&w, Some(&b)).silu())
        };
        let h = block(&[&(x * y)], layer(w, b));
        let h = h.linear(w, Some(b));
        block(&[&h], layer(w, b))
    });
}

#[test]
fn tensors_in_mid_graph_that_the_block_captures() {
    assert_same_bits(|[x, y, w, b], block| {
        let captured = y.linear(w, Some(b)).silu();
        let inside = captured.clone();
        let z = block(&[x], Arc::new(move |t| &(&t[0] * &inside) + &inside.square()));
        &z + &captured.tanh()
    });
}

#[test]
fn nested_blocks() {
    assert_same_bits(|[x, y, w, b], block| {
        let (w, b) = (w.clone(), b.clone());
        let outer: Block = Arc::new(move |t| {
            let (w, b) = (w.clone(), b.clone());
            let inner = checkpoint(&[&t[0], &t[1]], move |t| &t[0].linear(&w, Some(&b)).silu() * &t[1]);
            &(&inner + &t[0]) * &t[1]
        });
        block(&[&(x * 0.5), y], outer)
    });
}

#[test]
fn one_tensor_for_two_inputs() {
    assert_same_bits(|[x, y, w, b], block| {
        let h = &x.linear(w, Some(b)) + y;
        block(&[&h, &h], Arc::new(|t| &t[0].sin() * &t[1].exp()))
    });
}

/// Blocks that return an input as it is, or something from before.
#[test]
fn blocks_that_compute_nothing() {
    assert_same_bits(|[x, y, w, b], block| {
        let h = x.linear(w, Some(b));
        let same = block(&[&h], Arc::new(|t| t[0].clone()));
        let older = y.clone();
        let other = block(&[&h], Arc::new(move |_| older.clone()));
        &same * &other
    });
}

#[test]
fn inputs_that_want_no_gradient() {
    let constant = Tensor::constant(random(0, [3, 4]));
    let leaf = Tensor::leaf(random(1, [3, 4]));
    let y = checkpoint(&[&constant, &leaf], |t| &t[0] * &t[1]);
    let gradients = y.sum_all().backward();
    assert_eq!(gradients.len(), 1);
    assert!(gradients.get(&leaf).unwrap().bit_eq(constant.array()));
}

// ANCHOR: the_block_runs_once_forward_and_once_backward
#[test]
fn the_block_runs_once_forward_and_once_backward() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let x = Tensor::leaf(random(0, [3, 4]));
    let y = checkpoint(&[&x], move |t| {
        counter.fetch_add(1, Ordering::Relaxed);
        t[0].exp()
    });
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    y.sum_all().backward();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}
// ANCHOR_END: the_block_runs_once_forward_and_once_backward
