//! Memory of GPU arrays. A buffer that is dropped is kept on a shelf for its size and handed out again: making one takes the
//! driver far longer than most kernels run.
//!
//! A shelf holds sizes that differ by up to a quarter, so that few buffers serve many sizes.

use std::collections::BTreeMap;

/// The smallest buffer, and what every size is a multiple of: kernels read and write four numbers at a time, also behind the
/// last one of an array.
const SMALLEST: u64 = 256;

// ANCHOR: size_class
/// The size of the buffer that serves `bytes`: the next of the sizes 1, 5/4, 3/2, 7/4 times a power of two.
pub fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(SMALLEST);
    let step = (1 << bytes.ilog2()) / 4;
    bytes.next_multiple_of(step)
}
// ANCHOR_END: size_class

/// What a pool has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes of buffers in use.
    pub live: u64,
    /// Bytes of buffers on shelves.
    pub shelved: u64,
    /// The most bytes that were held at once, on shelves or in use.
    pub peak: u64,
    /// How many buffers were made.
    pub made: u64,
    /// How often one from a shelf was used again.
    pub reused: u64,
}

/// Buffers by size, each with the number of the batch of commands that was open when it was dropped.
pub(super) struct Pool {
    shelves: BTreeMap<u64, Vec<(u64, wgpu::Buffer)>>,
    stats: PoolStats,
}

impl Pool {
    pub fn new() -> Pool {
        Pool { shelves: BTreeMap::new(), stats: PoolStats::default() }
    }

    pub fn stats(&self) -> PoolStats {
        self.stats
    }

    /// A buffer of exactly the size `class`, dropped before the batch `before`; none if there is none.
    pub fn take(&mut self, class: u64, before: u64) -> Option<wgpu::Buffer> {
        let shelf = self.shelves.get_mut(&class)?;
        let place = shelf.iter().rposition(|&(batch, _)| batch < before)?;
        let (_, buffer) = shelf.remove(place);
        self.stats.shelved -= class;
        self.stats.live += class;
        self.stats.reused += 1;
        Some(buffer)
    }

    /// Counts a buffer that was made.
    pub fn made(&mut self, class: u64) {
        self.stats.made += 1;
        self.stats.live += class;
        self.stats.peak = self.stats.peak.max(self.stats.live + self.stats.shelved);
    }

    /// Keeps a buffer that is no longer used from batch `batch` on.
    pub fn keep(&mut self, class: u64, batch: u64, buffer: wgpu::Buffer) {
        self.stats.live -= class;
        self.stats.shelved += class;
        self.shelves.entry(class).or_default().push((batch, buffer));
    }

    /// Gives everything on the shelves back to the driver.
    pub fn clear(&mut self) {
        self.shelves.clear();
        self.stats.shelved = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_holds_what_it_is_for_and_wastes_at_most_a_quarter() {
        for bytes in (0..5000).chain([1 << 20, (1 << 20) + 1, 3 << 29, u64::from(u32::MAX)]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(64), "{bytes}: {class}");
            assert!(class <= SMALLEST || class - bytes <= bytes / 4, "{bytes}: {class}");
            assert_eq!(size_class(class), class);
        }
    }
}
