//! The order in which training sees the examples.

use crate::random::{Purpose, stream};
use rand::Rng;
use std::sync::{Arc, Mutex, PoisonError};

/// Which examples each training step uses: epoch after epoch, each in an order of its own.
///
/// The order is a pure function of (number of examples, batch size, seed, step). So a resumed run needs only its step to
/// continue as the uninterrupted one would have. The last batch of an epoch is filled up from the next.
#[derive(Debug)]
pub struct Batches {
    examples: usize,
    batch: usize,
    seed: u64,
    /// The order used last, and its epoch: only saves time.
    latest: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl Batches {
    /// Batches of `batch` out of `examples` examples. Panics if either is zero.
    #[track_caller]
    pub fn new(examples: usize, batch: usize, seed: u64) -> Batches {
        assert!(
            examples > 0 && batch > 0,
            "Batches: {examples} examples in batches of {batch}; both must be at least 1"
        );
        Batches { examples, batch, seed, latest: Mutex::new(None) }
    }

    /// The examples of training step `step`, counted from 0: as many as the batch size, each below the number of examples.
    pub fn indices(&self, step: u64) -> Vec<usize> {
        let mut indices = Vec::with_capacity(self.batch);
        let (mut epoch, mut start) = self.position(step);
        while indices.len() < self.batch {
            let order = self.order(epoch);
            let end = self.examples.min(start + self.batch - indices.len());
            indices.extend_from_slice(&order[start..end]);
            (epoch, start) = (epoch + 1, 0);
        }
        indices
    }

    /// The epoch, counted from 0, that the first example of step `step` belongs to.
    pub fn epoch(&self, step: u64) -> u64 {
        self.position(step).0
    }

    /// (epoch, place in its order) of the first example of a step.
    fn position(&self, step: u64) -> (u64, usize) {
        let seen = u128::from(step) * self.batch as u128;
        let examples = self.examples as u128;
        ((seen / examples) as u64, (seen % examples) as usize)
    }

    fn order(&self, epoch: u64) -> Arc<[usize]> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((known, order)) if *known == epoch => order.clone(),
            _ => {
                let order: Arc<[usize]> = permutation(self.examples, self.seed, epoch).into();
                *latest = Some((epoch, order.clone()));
                order
            }
        }
    }
}

/// The order of one epoch, by Fisher and Yates. Written out because a library's shuffle may change between versions,
/// and with it every run.
fn permutation(examples: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut random = stream(seed, Purpose::Shuffle, epoch, 0);
    let mut order: Vec<usize> = (0..examples).collect();
    for last in (1..examples).rev() {
        // 0..=last by multiplication (Lemire 2019, arXiv 1805.10941); its bias, below examples / 2^64, is left in.
        let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_example_comes_once_an_epoch(examples in 1usize..60, batch in 1usize..80, seed: u64) {
            let batches = Batches::new(examples, batch, seed);
            let epochs = 3;
            let steps = (epochs * examples).div_ceil(batch);
            let seen: Vec<usize> = (0..steps as u64).flat_map(|step| batches.indices(step)).collect();
            prop_assert_eq!(seen.len(), steps * batch);
            for epoch in seen.chunks_exact(examples) {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..examples).collect::<Vec<_>>());
            }
        }

        #[test]
        fn a_step_does_not_depend_on_what_came_before(
            examples in 1usize..60, batch in 1usize..80, seed: u64, steps in prop::collection::vec(0u64..200, 1..10)
        ) {
            let used = Batches::new(examples, batch, seed);
            for step in steps {
                prop_assert_eq!(used.indices(step), Batches::new(examples, batch, seed).indices(step));
            }
        }
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let order = |seed, step| Batches::new(1000, 1000, seed).indices(step);
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn every_order_of_three_is_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        let draws = 6000;
        for epoch in 0..draws {
            *counts.entry(permutation(3, 7, epoch)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Binomial(6000, 1/6): sd = 28.9. Five of them.
        assert!(counts.values().all(|&n: &i32| (n - 1000).abs() < 145), "{counts:?}");
    }

    #[test]
    fn the_order_is_pinned() {
        // A change here changes every run ever made.
        assert_eq!(permutation(8, 0, 0), [4, 3, 7, 0, 1, 6, 2, 5]);
    }

    #[test]
    fn steps_far_out_do_not_overflow() {
        assert_eq!(Batches::new(7, 4, 0).indices(u64::MAX / 8).len(), 4);
    }

    #[test]
    #[should_panic(expected = "0 examples in batches of 4")]
    fn no_examples_make_no_batches() {
        Batches::new(0, 4, 0);
    }
}
