//! Memory of CPU arrays. A buffer that is dropped is kept and handed out again for the next array of the same length:
//! a training step asks for the same sizes every time, and fresh pages from the system would be zeroed every time.

use super::Element;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Numbers of one array on the CPU; its memory is recycled when it is dropped.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    values: Vec<T>,
    /// Whether it is kept when it is dropped. Memory that came from elsewhere is not: a program that brings its own vector
    /// every step would otherwise leave one more on the shelf every step.
    recycled: bool,
}

/// Below this many numbers the system's allocator is as fast.
pub(super) const SMALLEST_KEPT: usize = 1024;

/// Bytes kept for reuse, over all lengths and both dtypes.
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What may be kept; past this, memory goes back to the system.
pub(super) const MOST_KEPT_BYTES: usize = 2 << 30;

#[doc(hidden)]
pub struct Recycler<T>(Mutex<Option<HashMap<usize, Vec<Vec<T>>>>>);

impl<T: Element> Recycler<T> {
    pub(super) const fn new() -> Recycler<T> {
        Recycler(Mutex::new(None))
    }

    fn take(&self, len: usize) -> Option<Vec<T>> {
        let found = self.0.lock().ok()?.as_mut()?.get_mut(&len)?.pop()?;
        KEPT_BYTES.fetch_sub(size_of_val(found.as_slice()), Ordering::Relaxed);
        Some(found)
    }

    fn keep(&self, values: Vec<T>) {
        let bytes = size_of_val(values.as_slice());
        if values.len() < SMALLEST_KEPT || KEPT_BYTES.load(Ordering::Relaxed) + bytes > MOST_KEPT_BYTES {
            return;
        }
        if let Ok(mut shelves) = self.0.lock() {
            KEPT_BYTES.fetch_add(bytes, Ordering::Relaxed);
            shelves.get_or_insert_default().entry(values.len()).or_default().push(values);
        }
    }
}

impl<T: Element> Buffer<T> {
    /// `len` numbers of unspecified value: for kernels that write every one of them.
    pub fn scratch(len: usize) -> Buffer<T> {
        let values = T::recycler().take(len).unwrap_or_else(|| vec![T::zero(); len]);
        Buffer { values, recycled: true }
    }

    /// `len` times `value`.
    pub fn filled(len: usize, value: T) -> Buffer<T> {
        let values = match T::recycler().take(len) {
            Some(mut values) => {
                values.fill(value);
                values
            }
            None => vec![value; len],
        };
        Buffer { values, recycled: true }
    }
}

impl<T: Element> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Buffer<T> {
        Buffer { values, recycled: false }
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Buffer<T> {
        let mut copy = Buffer::scratch(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.recycled {
            T::recycler().keep(std::mem::take(&mut self.values));
        }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a length that no other test uses: the shelves are the process's.
    const LENGTH: usize = 1_234_567;

    fn kept() -> usize {
        let shelves = f32::recycler().0.lock().unwrap();
        shelves.as_ref().and_then(|shelves| shelves.get(&LENGTH)).map_or(0, Vec::len)
    }

    #[test]
    fn what_was_made_here_is_kept_and_what_came_from_elsewhere_is_not() {
        for _ in 0..3 {
            drop(Buffer::from(vec![0.0_f32; LENGTH]));
            assert_eq!(kept(), 0);
        }
        for _ in 0..3 {
            drop(Buffer::<f32>::scratch(LENGTH));
            assert_eq!(kept(), 1);
        }
    }
}
