//! The innermost block of matrix products in f32, for factors that lie in memory as vectors want them.
//!
//! [`gemm`](super::gemm) first packs both factors, whatever their layout. Where one of them is small, used once or
//! made just before, that packing costs as much as the product. Here nothing is packed: the rows of the right factor
//! are read as vectors, the numbers of the left one are spread over all lanes, the sums stay in registers.

// Iterators and closures are not always inlined, and what is not inlined here is not vectorised.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};

/// The same lines for n = 0, 1, .. up to $count, at most 8. Written out, because a loop would keep the sums in memory
/// rather than in registers.
macro_rules! each {
    ($count:expr, |$n:ident| $body:expr) => {
        crate::kernels::cpu::product::each!(@ $count, $n, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $count:expr, $n:ident, $body:expr, $($i:literal)*) => {
        $(if $i < $count {
            let $n: usize = $i;
            $body
        })*
    };
}
pub(super) use each;

/// A matrix in a slice, its rows `pitch` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub pitch: usize,
}

/// A result, its rows `pitch` apart.
pub(super) struct RowsMut<'a> {
    pub data: &'a mut [f32],
    pub pitch: usize,
}

impl RowsMut<'_> {
    fn skip(&mut self, row: usize) -> RowsMut<'_> {
        RowsMut { data: self.data.get_mut(row * self.pitch..).unwrap_or_default(), pitch: self.pitch }
    }
}

/// c = a b, or c + a b if `more`: a [n, k], b [k, V vectors], c [n, V vectors]. Every number of c is one sum over k in
/// order, so it does not depend on what is computed with it.
#[inline(always)]
pub(super) fn multiply<S: Simd, const V: usize>(
    simd: S,
    [n, k]: [usize; 2],
    a: Rows,
    b: Rows,
    mut c: RowsMut,
    more: bool,
) {
    let mut row = 0;
    // As many sums as there are registers for: 32 with the widest vectors, else 16.
    while S::F32_LANES >= 16 && row + 8 <= n {
        block::<S, 8, V>(simd, k, a.skip(row), b, c.skip(row), more);
        row += 8;
    }
    while row + 4 <= n {
        block::<S, 4, V>(simd, k, a.skip(row), b, c.skip(row), more);
        row += 4;
    }
    while row < n {
        block::<S, 1, V>(simd, k, a.skip(row), b, c.skip(row), more);
        row += 1;
    }
}

impl<'a> Rows<'a> {
    fn skip(self, row: usize) -> Rows<'a> {
        Rows { data: self.data.get(row * self.pitch..).unwrap_or_default(), pitch: self.pitch }
    }
}

#[inline(always)]
fn block<S: Simd, const N: usize, const V: usize>(simd: S, k: usize, a: Rows, b: Rows, c: RowsMut, more: bool) {
    let width = V * S::F32_LANES;
    let mut rows: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        rows[n] = &a.data[n * a.pitch..][..k];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    if more {
        each!(N, |n| {
            let (from, _) = S::as_simd_f32s(&c.data[n * c.pitch..][..width]);
            each!(V, |v| sums[n][v] = from[v]);
        });
    }
    for i in 0..k {
        let (b, _) = S::as_simd_f32s(&b.data[i * b.pitch..][..width]);
        let b: &[S::f32s; V] = b.first_chunk().unwrap();
        each!(N, |n| {
            let a = simd.splat_f32s(rows[n][i]);
            each!(V, |v| sums[n][v] = simd.mul_add_e_f32s(a, b[v], sums[n][v]));
        });
    }
    each!(N, |n| {
        let (to, _) = S::as_mut_simd_f32s(&mut c.data[n * c.pitch..][..width]);
        each!(V, |v| to[v] = sums[n][v]);
    });
}

/// c = a' b, or c + a' b if `more`: a [k, n], b [k, V vectors], c [n, V vectors].
#[inline(always)]
pub(super) fn multiply_transposed<S: Simd, const V: usize>(
    simd: S,
    [n, k]: [usize; 2],
    a: Rows,
    b: Rows,
    mut c: RowsMut,
    more: bool,
) {
    let mut row = 0;
    while S::F32_LANES >= 16 && row + 8 <= n {
        block_transposed::<S, 8, V>(simd, k, a, row, b, c.skip(row), more);
        row += 8;
    }
    while row + 4 <= n {
        block_transposed::<S, 4, V>(simd, k, a, row, b, c.skip(row), more);
        row += 4;
    }
    while row < n {
        block_transposed::<S, 1, V>(simd, k, a, row, b, c.skip(row), more);
        row += 1;
    }
}

#[inline(always)]
fn block_transposed<S: Simd, const N: usize, const V: usize>(
    simd: S,
    k: usize,
    a: Rows,
    column: usize,
    b: Rows,
    c: RowsMut,
    more: bool,
) {
    let width = V * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    if more {
        each!(N, |n| {
            let (from, _) = S::as_simd_f32s(&c.data[n * c.pitch..][..width]);
            each!(V, |v| sums[n][v] = from[v]);
        });
    }
    for i in 0..k {
        let (b, _) = S::as_simd_f32s(&b.data[i * b.pitch..][..width]);
        let b: &[S::f32s; V] = b.first_chunk().unwrap();
        let a: &[f32; N] = a.data[i * a.pitch + column..].first_chunk().unwrap();
        each!(N, |n| {
            let a = simd.splat_f32s(a[n]);
            each!(V, |v| sums[n][v] = simd.mul_add_e_f32s(a, b[v], sums[n][v]));
        });
    }
    each!(N, |n| {
        let (to, _) = S::as_mut_simd_f32s(&mut c.data[n * c.pitch..][..width]);
        each!(V, |v| to[v] = sums[n][v]);
    });
}

/// Numbers in a vector of these instructions.
pub(super) fn lanes(arch: pulp::Arch) -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    arch.dispatch(Lanes)
}
