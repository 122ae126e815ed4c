//! Memory that is counted and not used: what a program would take, found by running it on arrays without numbers.

use super::buffer::{MOST_KEPT_BYTES, SMALLEST_KEPT};
use super::{DType, Element};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

thread_local! {
    static CURRENT: RefCell<Option<Ledger>> = const { RefCell::new(None) };
}

/// Counts the memory of arrays. Within [`Ledger::plan`] every new array has a shape and a dtype but no numbers, kernels
/// compute nothing, and the ledger keeps account of the bytes that the arrays of the CPU would have.
///
/// It follows what the CPU does with memory: a buffer that is dropped is kept for the next array of its length, so the
/// most that is taken from the system is more than the most that is alive at once.
///
/// ```
/// use imagen::array::{DType, Ledger};
/// use imagen::autograd::Tensor;
///
/// let ledger = Ledger::default();
/// ledger.plan(|| {
///     let x = Tensor::from_f64([1000, 1000], &vec![1.0; 1_000_000], DType::F32);
///     let y = x.matmul(&x);
///     assert_eq!(y.shape()[..], [1000, 1000]);
///     assert_eq!(ledger.live(), 8_000_000);
/// });
/// assert_eq!((ledger.live(), ledger.peak()), (0, 8_000_000));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    /// Bytes of arrays that are alive.
    live: u64,
    /// Bytes taken from the system: alive or on a shelf.
    taken: u64,
    peak: u64,
    /// Bytes on shelves.
    kept: u64,
    /// How many buffers lie on the shelf of each dtype and length.
    shelves: HashMap<(DType, usize), usize>,
}

impl Ledger {
    /// Runs `f` with this ledger: arrays that this thread makes meanwhile have no numbers and are counted here, as long as
    /// they live. Arrays made before keep theirs. May be called again, and goes on counting then.
    ///
    /// An array made from given numbers remembers them and gives them when it is read ([`Array::to_f64`](super::Array::to_f64)),
    /// so that masks and times say what they should; a computed one reads as zeros.
    pub fn plan<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<Ledger>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        f()
    }

    /// Bytes of the arrays that are alive.
    pub fn live(&self) -> u64 {
        self.books().live
    }

    /// Bytes that are taken from the system: alive, or kept for reuse.
    pub fn taken(&self) -> u64 {
        self.books().taken
    }

    /// The most bytes that were taken from the system at once, buffers kept for reuse included.
    pub fn peak(&self) -> u64 {
        self.books().peak
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this thread is within [`Ledger::plan`].
pub fn is_planning() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// The memory of an array without numbers, counted as long as this lives.
pub(super) struct Planned {
    dtype: DType,
    numel: usize,
    /// Whether its buffer comes from a shelf and goes back to it.
    recycled: bool,
    /// What it was made from, unless it was computed or all is zero.
    numbers: Option<Vec<f64>>,
    ledger: Ledger,
}

impl Planned {
    /// Of an array that kernels make.
    #[track_caller]
    pub(super) fn new(numel: usize, dtype: DType) -> Planned {
        Planned::counted(numel, dtype, true, None)
    }

    /// Of an array that is made from given numbers.
    #[track_caller]
    pub(super) fn given<T: Element>(values: &[T]) -> Planned {
        let numbers = values.iter().any(|v| !v.is_zero()).then(|| values.iter().map(|v| v.f64()).collect());
        Planned::counted(values.len(), T::DTYPE, false, numbers)
    }

    #[track_caller]
    fn counted(numel: usize, dtype: DType, recycled: bool, numbers: Option<Vec<f64>>) -> Planned {
        let ledger = CURRENT.with_borrow(Clone::clone);
        let planned = Planned { dtype, numel, recycled, numbers, ledger: ledger.expect("memory is not being planned") };
        let bytes = planned.bytes();
        let mut books = planned.ledger.books();
        books.live += bytes;
        match books.shelves.get_mut(&(dtype, numel)).filter(|count| recycled && **count > 0) {
            Some(count) => {
                *count -= 1;
                books.kept -= bytes;
            }
            None => books.taken += bytes,
        }
        books.peak = books.peak.max(books.taken);
        drop(books);
        planned
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn to_f64(&self) -> Vec<f64> {
        self.numbers.clone().unwrap_or_else(|| vec![0.0; self.numel])
    }

    fn bytes(&self) -> u64 {
        (self.numel * self.dtype.size()) as u64
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        let bytes = self.bytes();
        let mut books = self.ledger.books();
        books.live -= bytes;
        if self.recycled && self.numel >= SMALLEST_KEPT && books.kept + bytes <= MOST_KEPT_BYTES as u64 {
            books.kept += bytes;
            *books.shelves.entry((self.dtype, self.numel)).or_default() += 1;
        } else {
            books.taken -= bytes;
        }
    }
}
