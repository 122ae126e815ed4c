//! What the engine promises: how gradients add up, what is kept and for how long, and what it says to mistakes.

mod adjoints;
mod chain_rule;
mod checkpoints;
mod convolution;
mod differences;
mod families;
mod memory;
mod mistakes;

use imagen::array::{Array, DType};
use imagen::autograd::{Gradients, Tensor, check_gradients, is_recording, no_grad};
use imagen::random::{Purpose, normal};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn random<const N: usize>(index: u64, shape: [usize; N]) -> Array {
    Array::from_f64(shape, &normal(5, Purpose::Test, 0, index, shape.iter().product()), DType::F64)
}

fn scalar(value: f64) -> Tensor {
    Tensor::leaf(Array::from_f64([], &[value], DType::F64))
}

#[track_caller]
fn gradient(gradients: &Gradients, leaf: &Tensor) -> f64 {
    gradients.get(leaf).expect("a gradient").item()
}

/// What `f` panics with. Panics if it does not.
#[track_caller]
fn panic_message<R>(f: impl FnOnce() -> R) -> String {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("did not panic"),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().expect("a message").to_string(),
    }
}

// ANCHOR: gradients_of_all_paths_add_up
#[test]
fn gradients_of_all_paths_add_up() {
    // y = (3x) (x^2) = 3 x^3, dy/dx = 9 x^2.
    let x = scalar(2.0);
    let y = &(&x * 3.0) * &x.square();
    assert_eq!(gradient(&y.backward(), &x), 36.0);
}
// ANCHOR_END: gradients_of_all_paths_add_up

#[test]
fn one_tensor_in_both_places_of_an_op() {
    let x = scalar(3.0);
    assert_eq!(gradient(&(&x * &x).backward(), &x), 6.0);
    assert_eq!(gradient(&(&x - &x).backward(), &x), 0.0);
    assert_eq!(gradient(&(&x + &x).backward(), &x), 2.0);
}

// ANCHOR: diamonds_on_diamonds_are_walked_once
#[test]
fn diamonds_on_diamonds_are_walked_once() {
    // 2^60 paths, 60 ops: only a walk that visits each node once comes back.
    let x = scalar(1.0);
    let mut y = x.clone();
    for _ in 0..60 {
        y = &y + &y;
    }
    assert_eq!(gradient(&y.backward(), &x), 2.0_f64.powi(60));
}
// ANCHOR_END: diamonds_on_diamonds_are_walked_once

#[test]
fn only_leaves_that_matter_get_a_gradient() {
    let (x, unused, constant) = (scalar(2.0), scalar(3.0), Tensor::scalar(4.0, DType::F64));
    let gradients = (&x * &constant).backward();
    assert_eq!(gradient(&gradients, &x), 4.0);
    assert!(gradients.get(&unused).is_none() && gradients.get(&constant).is_none());
    assert_eq!(gradients.len(), 1);
}

#[test]
fn a_leaf_is_its_own_gradient() {
    let x = scalar(2.0);
    assert_eq!(gradient(&x.backward(), &x), 1.0);
    assert_eq!(gradient(&x.backward(), &x), 1.0);
}

#[test]
fn clones_are_the_same_leaf() {
    let x = scalar(2.0);
    let gradients = x.clone().square().backward();
    assert_eq!(gradient(&gradients, &x), 4.0);
}

// ANCHOR: a_cotangent_weighs_the_results
#[test]
fn a_cotangent_weighs_the_results() {
    let x = Tensor::leaf(random(0, [2, 3]));
    let cotangent = random(1, [2, 3]);
    let gradients = x.square().backward_with(cotangent.clone());
    let expected: Vec<f64> = x.to_f64().iter().zip(cotangent.to_f64()).map(|(x, c)| c * (2.0 * x)).collect();
    assert_eq!(gradients.get(&x).unwrap().to_f64(), expected);
}
// ANCHOR_END: a_cotangent_weighs_the_results

#[test]
fn gradients_with_respect_to_inputs_and_parameters_come_together() {
    let (x, w, b) = (Tensor::leaf(random(0, [3, 4])), Tensor::leaf(random(1, [2, 4])), Tensor::leaf(random(2, [2])));
    let mut gradients = x.linear(&w, Some(&b)).silu().sum_all().backward();
    for leaf in [&x, &w, &b] {
        assert_eq!(gradients.take(leaf).unwrap().shape(), leaf.shape());
        assert!(gradients.take(leaf).is_none());
    }
    assert!(gradients.is_empty());
}

#[test]
fn walking_back_twice_says_what_to_do() {
    let x = scalar(2.0);
    let middle = x.square();
    let (first, second) = (middle.exp(), middle.sin());
    first.backward();
    let message = panic_message(|| first.backward());
    assert!(message.contains("backward has been through exp"), "{message}");
    assert!(message.contains("run the forward pass again"), "{message}");
    // Also where only a part of the graph is shared.
    let message = panic_message(|| second.backward());
    assert!(message.contains("backward has been through square"), "{message}");
}

// ANCHOR: no_grad_makes_no_history
#[test]
fn no_grad_makes_no_history() {
    let x = scalar(2.0);
    let y = no_grad(|| {
        assert!(!is_recording());
        no_grad(|| ());
        assert!(!is_recording(), "the inner one must put back what it found");
        x.square()
    });
    assert!(is_recording() && !y.requires_grad() && y.history().is_empty());
    assert!(x.requires_grad());
    let z = &y * &x;
    assert_eq!(gradient(&z.backward(), &x), 4.0);
}
// ANCHOR_END: no_grad_makes_no_history

#[test]
fn a_panic_ends_no_grad() {
    assert_eq!(panic_message(|| no_grad(|| panic!("on purpose"))), "on purpose");
    assert!(is_recording());
    assert!(scalar(1.0).square().requires_grad());
}

#[test]
fn detach_cuts_the_history() {
    let x = scalar(3.0);
    let y = &x * &x.detach();
    assert!(!x.detach().requires_grad());
    assert_eq!(gradient(&y.backward(), &x), 3.0);
}

#[test]
fn constants_make_no_graph() {
    let x = Tensor::constant(random(0, [2, 3]));
    let y = x.linear(&Tensor::constant(random(1, [4, 3])), None).silu().softmax(-1).sum_all();
    assert!(!y.requires_grad() && y.history().is_empty());
}

#[test]
fn the_history_names_ops_and_parents() {
    let (a, b) = (scalar(1.0), scalar(2.0));
    let history = (&a * &b).exp().history();
    let ops: Vec<&str> = history.iter().map(|(_, op, _)| *op).collect();
    assert_eq!(ops, ["exp", "mul", "leaf", "leaf"]);
    assert_eq!(history[0].2, [history[1].0]);
    assert_eq!(history[1].2, [history[3].0, history[2].0]);
}

#[test]
fn graphs_of_several_threads_do_not_mix() {
    let x = scalar(2.0);
    std::thread::scope(|scope| {
        for i in 1..=4 {
            let x = x.clone();
            scope.spawn(move || {
                for _ in 0..200 {
                    let y = &x.square() * f64::from(i);
                    assert_eq!(gradient(&y.backward(), &x), 4.0 * f64::from(i));
                }
            });
        }
    });
}

// ANCHOR: gradient_checking_finds_wrong_gradients
#[test]
fn gradient_checking_finds_wrong_gradients() {
    let inputs = [random(0, [3, 4]), random(1, [4])];
    let right = |x: &[Tensor]| &x[0].silu() * &x[1];
    let error = check_gradients(right, &inputs, 1, 1e-6).unwrap();
    assert!(error > 0.0 && error < 1e-8, "{error:e}");
    // A branch left out: x detach(x) has the gradient x, not 2 x.
    let error = check_gradients(|x| &x[0] * &(&x[0].detach() * &x[1]), &inputs, 1, 1e-6).unwrap_err();
    assert!(error.input == 0 && error.relative > 0.1 && error.to_string().contains("input 0"), "{error}");
    // The second input forgotten.
    let error = check_gradients(|x| &x[0] * &x[1].detach(), &inputs, 1, 1e-6).unwrap_err();
    assert!(error.input == 1 && error.backward == 0.0, "{error}");
    // Off by a little: a factor 1 + 1e-4 in the gradient alone.
    let slightly = |x: &[Tensor]| &(&x[0] * 1.0001) - &(&x[0] * 0.0001).detach();
    assert!(check_gradients(slightly, &inputs[..1], 1, 1e-6).is_err());
    // Also where the Jacobian is too large to be checked entry by entry.
    let large = [random(2, [100, 100])];
    assert!(check_gradients(|x| x[0].sin(), &large, 1, 1e-6).is_ok());
    assert!(check_gradients(|x| &x[0] * &x[0].detach(), &large, 1, 1e-6).is_err());
    // A gradient that is not a number is no small error.
    assert!(check_gradients(|x| (&x[0] * 0.0).sqrt(), &inputs[..1], 1, 1e-6).is_err());
}
// ANCHOR_END: gradient_checking_finds_wrong_gradients

#[test]
fn gradient_checking_wants_f64() {
    let single = [random(0, [2]).cast(DType::F32)];
    assert!(panic_message(|| check_gradients(|x| x[0].exp(), &single, 1, 1e-6)).contains("must be f64"));
}
