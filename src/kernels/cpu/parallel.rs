//! How work is cut for the cores and for the vector units.
//!
//! Pieces have sizes that depend on shapes only, never on the number of threads: so results do not either.

use crate::array::{Buffer, Element};
use rayon::prelude::*;

/// Numbers in one piece of an elementwise loop. Less than two pieces stay on the calling thread.
pub(super) const CHUNK: usize = 16 << 10;

/// How many rows of `width` numbers make up a piece of about [`CHUNK`] numbers.
pub(super) fn rows_per_chunk(width: usize) -> usize {
    CHUNK.div_ceil(width.max(1))
}

/// Runs a loop compiled for the widest vector instructions this processor has.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// y = f(x), element by element.
pub(super) fn map<T: Element>(x: &[T], f: impl Fn(T) -> T + Sync) -> Buffer<T> {
    let mut y = Buffer::scratch(x.len());
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        vectorised(|| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(x);
            }
        });
    });
    y
}

/// y = f(a, b), element by element.
pub(super) fn map2<T: Element>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> Buffer<T> {
    let mut y = Buffer::scratch(a.len());
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK)).for_each(|((y, a), b)| {
        vectorised(|| {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = f(a, b);
            }
        });
    });
    y
}

/// acc = f(acc, x), element by element, in place.
pub(super) fn update<T: Element>(acc: &mut [T], x: &[T], f: impl Fn(T, T) -> T + Sync) {
    acc.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(acc, x)| {
        vectorised(|| {
            for (acc, &x) in acc.iter_mut().zip(x) {
                *acc = f(*acc, x);
            }
        });
    });
}

/// Calls `work(i, row i)` for every row of `width` numbers.
pub(super) fn for_rows<T: Element>(rows: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    if !rows.is_empty() {
        let least = rows_per_chunk(width);
        rows.par_chunks_mut(width).enumerate().with_min_len(least).for_each(|(i, row)| vectorised(|| work(i, row)));
    }
}
