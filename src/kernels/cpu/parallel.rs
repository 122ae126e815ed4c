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

/// Defines a function that is compiled for several vector instruction sets and runs as the widest one that this
/// processor has. pulp does that to whatever is inlined into its call, and leaves the rest at the lowest common set.
/// So the body becomes a method that must be inlined, which Rust cannot yet ask of a closure. What the body calls must
/// be small or `#[inline(always)]` too.
macro_rules! vectorised {
    ($(#[$doc:meta])* $visible:vis fn $name:ident<$($T:ident: $Bound:path),*>($($arg:ident: $Type:ty),* $(,)?) $(-> $R:ty)? $body:block) => {
        $(#[$doc])*
        $visible fn $name<$($T: $Bound),*>($($arg: $Type),*) $(-> $R)? {
            struct Body<A, G>(A, std::marker::PhantomData<G>);
            impl<$($T: $Bound),*> pulp::NullaryFnOnce for Body<($($Type,)*), ($($T,)*)> {
                type Output = vectorised!(@output $($R)?);
                #[inline(always)]
                fn call(self) -> Self::Output {
                    let ($($arg,)*) = self.0;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Body::<_, ($($T,)*)>(($($arg,)*), std::marker::PhantomData))
        }
    };
    (@output) => { () };
    (@output $R:ty) => { $R };
}
pub(super) use vectorised;

/// A formula in one number. Closures are formulas; long ones are types of their own, to be inlined for sure.
pub(super) trait Formula<T>: Sync {
    fn at(&self, x: T) -> T;
}

/// A formula in two numbers.
pub(super) trait Formula2<T>: Sync {
    fn at(&self, a: T, b: T) -> T;
}

impl<T, F: Fn(T) -> T + Sync> Formula<T> for F {
    #[inline(always)]
    fn at(&self, x: T) -> T {
        self(x)
    }
}

impl<T, F: Fn(T, T) -> T + Sync> Formula2<T> for F {
    #[inline(always)]
    fn at(&self, a: T, b: T) -> T {
        self(a, b)
    }
}

vectorised! {
    pub(super) fn map_piece<T: Element, F: Formula<T>>(y: &mut [T], x: &[T], f: &F) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = f.at(x);
        }
    }
}

vectorised! {
    pub(super) fn map2_piece<T: Element, F: Formula2<T>>(y: &mut [T], a: &[T], b: &[T], f: &F) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = f.at(a, b);
        }
    }
}

vectorised! {
    fn update_piece<T: Element, F: Formula2<T>>(acc: &mut [T], x: &[T], f: &F) {
        for (acc, &x) in acc.iter_mut().zip(x) {
            *acc = f.at(*acc, x);
        }
    }
}

/// y = f(x), element by element.
pub(super) fn map<T: Element>(x: &[T], f: impl Formula<T>) -> Buffer<T> {
    let mut y = Buffer::scratch(x.len());
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| map_piece(y, x, &f));
    y
}

/// y = f(a, b), element by element.
pub(super) fn map2<T: Element>(a: &[T], b: &[T], f: impl Formula2<T>) -> Buffer<T> {
    let mut y = Buffer::scratch(a.len());
    let pieces = y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    pieces.for_each(|((y, a), b)| map2_piece(y, a, b, &f));
    y
}

/// acc = f(acc, x), element by element, in place.
pub(super) fn update<T: Element>(acc: &mut [T], x: &[T], f: impl Formula2<T>) {
    acc.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(acc, x)| update_piece(acc, x, &f));
}

/// Calls `work(i, row i)` for every row of `width` numbers.
pub(super) fn for_rows<T: Element>(rows: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    if !rows.is_empty() {
        let least = rows_per_chunk(width);
        rows.par_chunks_mut(width).enumerate().with_min_len(least).for_each(|(i, row)| work(i, row));
    }
}
