//! How long things live: graphs of any depth, and what is saved for backward.

use super::{gradient, random, scalar};
use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, checkpoint, no_grad};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// On a small stack, where recursion over the graph would end the process.
fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 << 10).spawn(f).unwrap().join().unwrap();
}

fn chain(x: &Tensor, length: usize) -> Tensor {
    (0..length).fold(x.clone(), |y, _| y.affine(1.0, 1.0))
}

#[test]
fn a_million_ops_are_differentiated_without_recursion() {
    on_a_small_stack(|| {
        let x = scalar(0.0);
        let y = chain(&x, 1_000_000);
        assert_eq!(y.item(), 1e6);
        assert_eq!(gradient(&y.backward(), &x), 1.0);
    });
}

#[test]
fn a_million_ops_are_freed_without_recursion() {
    on_a_small_stack(|| drop(chain(&scalar(0.0), 1_000_000)));
}

#[test]
fn a_long_chain_of_pairs_is_freed_without_recursion() {
    on_a_small_stack(|| {
        let x = scalar(1.0);
        drop((0..100_000).fold(x.clone(), |y, _| &(&y + &x) * &y));
    });
}

#[test]
fn a_long_chain_of_checkpoints_is_differentiated_and_freed_without_recursion() {
    on_a_small_stack(|| {
        let x = scalar(0.0);
        let chain = || (0..50_000).fold(x.clone(), |y, _| checkpoint(&[&y], |y| y[0].affine(1.0, 1.0)));
        assert_eq!(gradient(&chain().backward(), &x), 1.0);
        drop(chain());
    });
}

/// Whether the numbers of `array` are held by nobody else: then changing them in place needs no copy.
fn is_only_holder(array: &mut Array) -> bool {
    let before = array.slice::<f64>().as_ptr();
    array.make_mut::<f64>().as_ptr() == before
}

#[test]
fn sharing_can_be_seen() {
    let mut array = random(0, [5]);
    assert!(is_only_holder(&mut array));
    let second = array.clone();
    assert!(!is_only_holder(&mut array));
    drop(second);
    assert!(is_only_holder(&mut array));
}

// ANCHOR: backward_frees_what_forward_saved
#[test]
fn backward_frees_what_forward_saved() {
    let leaf = Tensor::leaf(random(0, [5]));
    let mut saved = random(1, [5]);
    let constant = Tensor::constant(saved.clone());
    let y = (&leaf * &constant).sum_all();
    drop(constant);
    assert!(!is_only_holder(&mut saved.clone()));
    assert!(!is_only_holder(&mut saved), "the product must have saved its factor");

    // make_mut gave `saved` numbers of its own, so the question is put again for a second product.
    let constant = Tensor::constant(saved.clone());
    let z = (&leaf * &constant).sum_all();
    drop(constant);
    z.backward();
    assert!(is_only_holder(&mut saved), "after backward nothing may hold it, though z itself lives on");
    drop((y, z));
}
// ANCHOR_END: backward_frees_what_forward_saved

#[test]
fn dropping_the_result_frees_what_forward_saved() {
    let leaf = Tensor::leaf(random(0, [5]));
    let mut saved = random(1, [5]);
    let y = (&leaf * &Tensor::constant(saved.clone())).sum_all();
    drop(y);
    assert!(is_only_holder(&mut saved));
}

#[test]
fn nothing_is_saved_for_parents_that_want_no_gradient() {
    // d(a b)/db needs a; nobody asks for it.
    let mut a = random(0, [5]);
    let constant = Tensor::constant(random(1, [5]));
    let leaf = Tensor::leaf(a.clone());
    let y = &leaf * &constant;
    drop(leaf);
    assert!(is_only_holder(&mut a), "saved for the gradient of a constant");
    drop(y);

    // And nothing at all without recording.
    let mut a = random(0, [5]);
    let leaf = Tensor::leaf(a.clone());
    let y = no_grad(|| &leaf * &leaf);
    drop(leaf);
    assert!(is_only_holder(&mut a));
    drop(y);
}

#[test]
fn a_checkpoint_holds_its_inputs_and_nothing_from_inside() {
    let mut inside = random(1, [5]);
    let leaf = Tensor::leaf(random(0, [5]));
    // The captured numbers reach the product as a new tensor each time; only the block itself holds them.
    let factors = inside.to_f64();
    let y = checkpoint(&[&leaf], move |x| &x[0] * &Tensor::from_f64([5], &factors, DType::F64));
    assert!(is_only_holder(&mut inside));
    let history: Vec<&str> = y.history().iter().map(|(_, op, _)| *op).collect();
    assert_eq!(history, ["checkpoint", "leaf"]);
}

/// A residual connection must not keep both of its branches alive: the gradient of a sum needs only their shapes.
#[test]
fn a_sum_holds_neither_of_its_terms() {
    let mut terms = [random(0, [5]), random(1, [5])];
    let leaves = terms.clone().map(Tensor::leaf);
    let sum = &(&leaves[0] + &leaves[1]) - &leaves[0];
    drop(leaves);
    assert!(terms.iter_mut().all(is_only_holder));
    assert!(sum.requires_grad());
}

/// With a frozen weight a product needs the weight, not its input.
#[test]
fn a_matrix_product_holds_only_the_other_factor() {
    let mut input = random(0, [3, 4]);
    let leaf = Tensor::leaf(input.clone());
    let y = leaf.matmul(&Tensor::constant(random(1, [4, 2])));
    drop(leaf);
    assert!(is_only_holder(&mut input));
    assert!(y.requires_grad());
}

// ANCHOR: segments_of_a_chain_keep_few_nodes
/// A chain of n ops in segments of s keeps n / s checkpoints, and while backward is in a segment, its s ops: least at
/// s = sqrt(n), where it is 2 sqrt(n).
#[test]
fn segments_of_a_chain_keep_few_nodes() {
    let n = 144;
    let kept = |s: usize| {
        let most = Arc::new(AtomicUsize::new(0));
        let segment = |y: Tensor| {
            let most = most.clone();
            checkpoint(&[&y], move |y| {
                let end = (0..s).fold(y[0].clone(), |y, _| y.sin());
                // What is alive in backward: the rest of the chain before this segment, and this segment's ops.
                let alive = end.history().iter().filter(|(_, op, _)| *op != "leaf").count();
                most.fetch_max(alive, Ordering::Relaxed);
                end
            })
        };
        let x = scalar(0.5);
        let y = (0..n / s).fold(x.clone(), |y, _| segment(y));
        let plain = (0..n).fold(x.clone(), |y, _| y.sin());
        assert_eq!(y.history().len(), n / s + 1);
        assert_eq!(gradient(&y.backward(), &x), gradient(&plain.backward(), &x));
        // The checkpoint that is being run, and has left the history, is one more.
        most.load(Ordering::Relaxed) + 1
    };
    for s in (1..=n).filter(|s| n % s == 0) {
        assert_eq!(kept(s), n / s + s);
        assert!(kept(s) >= kept(12));
    }
    assert_eq!(kept(12), 24);
}
// ANCHOR_END: segments_of_a_chain_keep_few_nodes
