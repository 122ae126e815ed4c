//! How a matrix product is cut into tiles (gemm.wgsl).

use super::shader::Shader;

/// The tile of C that a workgroup makes, and the slices of k it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    m: usize,
    n: usize,
    k: usize,
    /// Fours of rows and of columns of a thread.
    m4: usize,
    n4: usize,
    /// Arithmetic a second as a share of the largest tile's: how often a number is used once it is in registers.
    speed: f64,
}

// ANCHOR: tiles
/// From the largest on. Shared memory of each is at most 13 KB, of the 16 KB that every GPU has.
pub(super) const TILES: [Tile; 5] = [
    Tile { m: 128, n: 128, k: 8, m4: 2, n4: 2, speed: 1.0 },
    Tile { m: 64, n: 128, k: 16, m4: 1, n4: 2, speed: 0.85 },
    Tile { m: 64, n: 64, k: 16, m4: 1, n4: 1, speed: 0.65 },
    Tile { m: 32, n: 128, k: 16, m4: 1, n4: 2, speed: 0.65 },
    Tile { m: 32, n: 32, k: 16, m4: 1, n4: 1, speed: 0.4 },
];
// ANCHOR_END: tiles

/// Workgroups that keep a large GPU busy.
const ENOUGH_GROUPS: usize = 256;

/// Numbers along k that a part of it has at least, if k is cut.
const LEAST_SPLIT: usize = 256;

/// The most numbers that the parts of all sums may take together.
const MOST_PARTS: usize = 1 << 24;

/// A product of [m, k] and [k, n], `batches` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batches: usize,
}

impl Product {
    /// Multiplications and additions.
    pub fn operations(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64 * self.batches as f64
    }
}

/// How a product is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub tile: Tile,
    pub tiles_m: usize,
    pub tiles_n: usize,
    /// Into how many parts k is cut, each summed on its own.
    pub splits: usize,
    /// Numbers along k in a part.
    pub split_k: usize,
    pub groups: usize,
}

impl Plan {
    /// The plan that should be fastest: arithmetic, with what tiles waste at the edges, over speed, over the share of the GPU
    /// that is busy.
    pub fn of(product: Product) -> Plan {
        let plans = TILES.map(|tile| Plan::with(product, tile, usize::MAX));
        let cost = |plan: &Plan| {
            let busy = (plan.groups as f64 / ENOUGH_GROUPS as f64).min(1.0);
            (plan.groups * plan.tile.m * plan.tile.n * plan.split_k) as f64 / plan.tile.speed / busy
        };
        plans.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("there are tiles")
    }

    /// The plan with a given tile, and k cut into at most `most_splits` parts.
    pub fn with(product: Product, tile: Tile, most_splits: usize) -> Plan {
        let Product { m, n, k, batches } = product;
        let (tiles_m, tiles_n) = (m.div_ceil(tile.m), n.div_ceil(tile.n));
        let groups = tiles_m * tiles_n * batches;
        let wanted = ENOUGH_GROUPS / groups.max(1);
        let allowed = (k / LEAST_SPLIT).min(MOST_PARTS / (m * n * batches).max(1)).min(most_splits);
        let split_k = k.div_ceil(wanted.min(allowed).max(1)).next_multiple_of(tile.k);
        // Rounding up may have left the last parts without numbers.
        let splits = k.div_ceil(split_k.max(1)).max(1);
        Plan { tile, tiles_m, tiles_n, splits, split_k, groups: groups * splits }
    }

    /// The shader `file`, which includes gemm.wgsl. `along_k`: whether numbers of A and of B lie together along k.
    pub fn shader(&self, file: &'static str, along_k: [bool; 2]) -> Shader {
        let Tile { m, n, k, m4, n4, .. } = self.tile;
        let threads = m / (4 * m4) * (n / (4 * n4));
        Shader::new(file, "gemm")
            .with("TILE_M", m)
            .with("TILE_N", n)
            .with("TILE_K", k)
            .with("M4", m4)
            .with("N4", n4)
            .with("A_LOADS", m * k / 4 / threads)
            .with("B_LOADS", n * k / 4 / threads)
            .with("A_ALONG_K", along_k[0])
            .with("B_ALONG_K", along_k[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ANCHOR: threads_bring_whole_slices_and_shared_memory_is_enough_everywhere
    #[test]
    fn threads_bring_whole_slices_and_shared_memory_is_enough_everywhere() {
        for tile in TILES {
            let threads = tile.m / (4 * tile.m4) * (tile.n / (4 * tile.n4));
            assert!(threads <= 256 && threads.is_multiple_of(tile.k));
            // A thread brings whole fours.
            assert!((tile.m * tile.k).is_multiple_of(4 * threads) && (tile.n * tile.k).is_multiple_of(4 * threads));
            assert!(16 * tile.k * (tile.m / 4 + 1 + tile.n / 4 + 1) <= 16_384, "{tile:?}");
        }
    }
    // ANCHOR_END: threads_bring_whole_slices_and_shared_memory_is_enough_everywhere

    #[test]
    fn parts_cover_k_and_none_is_empty() {
        for k in [1, 15, 16, 300, 512, 5000, 50_176, 1_000_003] {
            for tile in TILES {
                let plan = Plan::with(Product { m: 32, n: 288, k, batches: 1 }, tile, usize::MAX);
                assert!(plan.splits * plan.split_k >= k && (plan.splits - 1) * plan.split_k < k, "{k}: {plan:?}");
            }
        }
    }

    #[test]
    fn large_products_take_large_tiles_and_long_thin_ones_are_cut() {
        assert_eq!(Plan::of(Product { m: 4096, n: 4096, k: 4096, batches: 1 }).tile, TILES[0]);
        assert_eq!(Plan::of(Product { m: 3, n: 5, k: 7, batches: 1 }).tile, TILES[4]);
        assert!(Plan::of(Product { m: 32, n: 288, k: 50_176, batches: 1 }).splits > 8);
    }
}
