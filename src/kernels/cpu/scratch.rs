//! Memory for what a kernel needs while it runs.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers of unspecified value that start where a line of the cache does: a vector that straddles two lines costs
/// twice. The memory is kept by the thread that drops it, for its next use.
pub(super) struct Scratch {
    numbers: Vec<f32>,
    start: usize,
    len: usize,
}

/// Bytes.
const CACHE_LINE: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(vec![]) };
}

impl Scratch {
    pub(super) fn take(len: usize) -> Scratch {
        let needed = len + CACHE_LINE / size_of::<f32>();
        let spare = SPARE.with_borrow_mut(|spare| {
            let fits = spare.iter().enumerate().filter(|(_, numbers)| numbers.len() >= needed);
            let best = fits.min_by_key(|(_, numbers)| numbers.len()).map(|(i, _)| i);
            best.map(|i| spare.swap_remove(i))
        });
        let numbers = spare.unwrap_or_else(|| vec![0.0; needed]);
        let start = numbers.as_ptr().align_offset(CACHE_LINE).min(needed - len);
        Scratch { numbers, start, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SPARE.with_borrow_mut(|spare| spare.push(std::mem::take(&mut self.numbers)));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.start..self.start + self.len]
    }
}
