//! Chapter 5: the tile that reads least; sums whose order changes them; a sum that stands still; and how often a program waits
//! for its GPU.

use imagen::array::{Array, DType, Device};
use imagen::kernels::gpu::{self, Stats};
use imagen::kernels::of;
use std::collections::BTreeSet;

// ANCHOR: tile
/// A tile of C [m, n] and the length of a slice of k.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    m: usize,
    n: usize,
    k: usize,
}

impl Tile {
    /// Bytes of shared memory for a slice of A and one of B.
    fn bytes(self) -> usize {
        4 * self.k * (self.m + self.n)
    }

    /// Numbers read from memory for a product of [m, k] and [k, n], tiles at the edges whole.
    fn reads(self, [m, n, k]: [usize; 3]) -> usize {
        m.div_ceil(self.m) * n.div_ceil(self.n) * (self.m + self.n) * k
    }

    /// Products that are computed, those with the zeros beyond the edges too.
    fn products(self, [m, n, k]: [usize; 3]) -> usize {
        m.div_ceil(self.m) * self.m * n.div_ceil(self.n) * self.n * k
    }
}

/// The tile, of sides 8, 16, 32, .., that fits into `bytes` with slices of 8, computes at most
/// `waste` times the products that are needed, and of those reads least; of equals the smallest.
fn best_tile(size: [usize; 3], bytes: usize, waste: f64) -> Option<Tile> {
    let needed: usize = size.iter().product();
    let sides = || (3..10).map(|e| 1 << e);
    let tiles = sides().flat_map(|m| sides().map(move |n| Tile { m, n, k: 8 }));
    let fits = |tile: &Tile| tile.bytes() <= bytes && tile.products(size) as f64 <= waste * needed as f64;
    tiles.filter(fits).min_by_key(|tile| (tile.reads(size), tile.m * tile.n))
}
// ANCHOR_END: tile

// ANCHOR: orders
/// Every number that the sum of `x` can be when it is added up one by one, in any order.
fn sums(x: &[f32]) -> BTreeSet<u32> {
    fn go(sum: f32, left: &[f32], found: &mut BTreeSet<u32>) {
        if left.is_empty() {
            found.insert(sum.to_bits());
        }
        for i in 0..left.len() {
            let rest = [&left[..i], &left[i + 1..]].concat();
            go(sum + left[i], &rest, found);
        }
    }
    let mut found = BTreeSet::new();
    go(0.0, x, &mut found);
    found
}
// ANCHOR_END: orders

// ANCHOR: ones
/// n ones, added one after the other.
fn in_a_row(n: u32) -> f32 {
    (0..n).fold(0.0, |sum, _| sum + 1.0)
}

/// n ones, added as a tree: the sum of one half and the sum of the other.
fn as_a_tree(n: u32) -> f32 {
    if n <= 1 { n as f32 } else { as_a_tree(n / 2) + as_a_tree(n - n / 2) }
}
// ANCHOR_END: ones

// ANCHOR: waits
/// Halves x `steps` times and returns its sum after each, asking the GPU for it at once.
fn impatient(mut x: Array, steps: usize) -> Vec<f64> {
    let gpu = of(x.device());
    let halve_and_sum = |_| {
        x = gpu.affine(&x, 0.5, 0.0);
        gpu.reduce(imagen::kernels::Reduce::Sum, &x, 0..1).item()
    };
    (0..steps).map(halve_and_sum).collect()
}

/// The same, asking for all of them at the end.
fn patient(mut x: Array, steps: usize) -> Vec<f64> {
    let gpu = of(x.device());
    let mut sums = Vec::new();
    for _ in 0..steps {
        x = gpu.affine(&x, 0.5, 0.0);
        sums.push(gpu.reduce(imagen::kernels::Reduce::Sum, &x, 0..1));
    }
    gpu.concat(&sums.iter().collect::<Vec<_>>(), 0).to_f64()
}
// ANCHOR_END: waits

#[test]
fn the_tile_that_reads_least_is_found() {
    // Without waste the smaller side decides; with much, the memory does.
    assert_eq!(best_tile([4096, 4096, 4096], 16_384, 1.0), Some(Tile { m: 256, n: 256, k: 8 }));
    assert_eq!(best_tile([4096, 4096, 4096], 8192, 1.0), Some(Tile { m: 128, n: 128, k: 8 }));
    assert_eq!(best_tile([32, 50_176, 288], 8192, 1.0), Some(Tile { m: 32, n: 128, k: 8 }));
    assert_eq!(best_tile([10, 64, 100], 8192, 1.0), None);
    // Reads and products, counted tile by tile.
    for (size, tile) in [([70, 131, 40], Tile { m: 32, n: 64, k: 8 }), ([5, 9, 7], Tile { m: 8, n: 8, k: 8 })] {
        let [m, n, k] = size;
        let tiles = (0..m).step_by(tile.m).flat_map(|i| (0..n).step_by(tile.n).map(move |j| (i, j))).count();
        assert_eq!(tile.reads(size), tiles * k * (tile.m + tile.n));
        assert_eq!(tile.products(size), tiles * k * tile.m * tile.n);
    }
}

#[test]
fn the_order_of_a_sum_changes_it() {
    assert_eq!(sums(&[1.0, 2.0, 3.0, 4.0]).len(), 1, "whole numbers are added without rounding");
    let x = [1e8, 1.0, -1e8, 1e-3, 2.5, -1.0, 0.1];
    let found = sums(&x);
    assert!(found.len() > 20, "{}", found.len());
    let (exact, sizes) = x.iter().fold((0.0, 0.0), |(s, t), &v| (s + f64::from(v), t + f64::from(v).abs()));
    let u = 2f64.powi(-24);
    let bound = 6.0 * u / (1.0 - 6.0 * u) * sizes;
    assert!(found.iter().all(|&bits| (f64::from(f32::from_bits(bits)) - exact).abs() <= bound));
}

#[test]
fn a_sum_of_ones_stands_still_and_a_tree_of_them_does_not() {
    let most = 1 << 24;
    assert_eq!(in_a_row(most + 1000), most as f32);
    assert_eq!(as_a_tree(most + 1000), (most + 1000) as f32);
    for n in [0, 1, 2, 3, 1000] {
        assert_eq!((in_a_row(n), as_a_tree(n)), (n as f32, n as f32));
    }
}

#[test]
fn who_asks_at_the_end_waits_once() {
    let Some(adapter) = gpu::real().or_else(|| gpu::adapters().into_iter().next()) else {
        assert!(
            std::env::var("IMAGEN_REQUIRE_GPU").as_deref() != Ok("1"),
            "there is no GPU, and IMAGEN_REQUIRE_GPU is 1"
        );
        eprintln!("skipped: there is no GPU");
        return;
    };
    let device: Device = gpu::open(adapter.number).unwrap();
    let x = Array::from_f64([1000], &[1.0; 1000], DType::F32).to(device);
    let counted = |way: fn(Array, usize) -> Vec<f64>| {
        gpu::gpu(device).flush();
        let before = gpu::gpu(device).stats();
        let sums = way(x.clone(), 100);
        let Stats { kernels, batches, reads, .. } = gpu::gpu(device).stats();
        (sums, [kernels - before.kernels, batches - before.batches, reads - before.reads])
    };
    let ((one, hurried), (other, calm)) = (counted(impatient), counted(patient));
    assert_eq!(one, other);
    assert_eq!(hurried, [200, 100, 100]);
    assert_eq!((calm[0] >= 200, calm[2]), (true, 1));
    assert_eq!(calm[1], calm[0] / 128 + 1, "a batch has 128 commands");
}
