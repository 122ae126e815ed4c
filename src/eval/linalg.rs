//! The eigenvalues of symmetric matrices, in f64: what the Fréchet distance (H2) needs, and no more.
//!
//! Householder reflections make the matrix tridiagonal, then implicitly shifted QL iterations make it diagonal
//! (Golub and Van Loan, Matrix Computations, sections 8.3.1 and 8.3.3). About 9 d^3 operations with vectors.

/// A = V' diag(values) V for a symmetric A [d, d].
#[derive(Clone, Debug)]
pub struct Eigen {
    /// The eigenvalues `[d]`, from the smallest up.
    pub values: Vec<f64>,
    /// The eigenvectors V [d, d], row i that of value i: orthonormal.
    pub vectors: Vec<f64>,
}

impl Eigen {
    /// The decomposition of the symmetric matrix `a` [d, d]; only its symmetric part counts.
    ///
    /// Panics unless there are d * d finite numbers.
    #[track_caller]
    pub fn of(a: &[f64], d: usize) -> Eigen {
        assert_eq!(a.len(), d * d, "eigen: {} numbers are not [{d}, {d}]", a.len());
        assert!(a.iter().all(|v| v.is_finite()), "eigen: the matrix holds NaN or infinity");
        let mut a: Vec<f64> = (0..d * d).map(|i| 0.5 * (a[i] + a[i % d * d + i / d])).collect();
        let mut vectors: Vec<f64> = (0..d * d).map(|i| if i % d == i / d { 1.0 } else { 0.0 }).collect();
        let mut off_diagonal = tridiagonalise(&mut a, &mut vectors, d);
        let mut diagonal: Vec<f64> = (0..d).map(|i| a[i * d + i]).collect();
        diagonalise(&mut diagonal, &mut off_diagonal, &mut vectors);
        let mut order: Vec<usize> = (0..d).collect();
        order.sort_by(|&i, &j| diagonal[i].total_cmp(&diagonal[j]));
        Eigen {
            values: order.iter().map(|&i| diagonal[i]).collect(),
            vectors: order.iter().flat_map(|&i| &vectors[i * d..][..d]).copied().collect(),
        }
    }

    /// V' diag(f(values)) V, such as the square root of the matrix.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let d = self.values.len();
        let mut out = vec![0.0; d * d];
        for (&value, vector) in self.values.iter().zip(self.vectors.chunks_exact(d.max(1))) {
            let scale = f(value);
            for (row, &v) in out.chunks_exact_mut(d).zip(vector) {
                add_scaled(row, scale * v, vector);
            }
        }
        out
    }
}

/// The product A B of two matrices [d, d], row-major. Panics unless both have d * d numbers.
#[track_caller]
pub fn product(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    assert!(a.len() == d * d && b.len() == d * d, "product: {} and {} numbers, not [{d}, {d}]", a.len(), b.len());
    let mut out = vec![0.0; d * d];
    for (row, out) in a.chunks_exact(d.max(1)).zip(out.chunks_exact_mut(d.max(1))) {
        for (&scale, b) in row.iter().zip(b.chunks_exact(d)) {
            add_scaled(out, scale, b);
        }
    }
    out
}

fn add_scaled(to: &mut [f64], scale: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Makes `a` tridiagonal by reflections H = I - 2 u u' from both sides, multiplies `vectors` by each from the left,
/// and returns the off-diagonal `[d]`, its last 0.
fn tridiagonalise(a: &mut [f64], vectors: &mut [f64], d: usize) -> Vec<f64> {
    let mut off_diagonal = vec![0.0; d];
    for k in 0..d.saturating_sub(1) {
        // Row k right of the diagonal is to become (alpha, 0, …, 0).
        let mut u = a[k * d + k + 1..(k + 1) * d].to_vec();
        let size = u.iter().fold(0.0, |size: f64, v| size.max(v.abs()));
        if size == 0.0 {
            continue;
        }
        // Scaled, for squares of tiny numbers vanish.
        u.iter_mut().for_each(|v| *v /= size);
        // The sign that adds up instead of cancelling.
        let alpha = -dot(&u, &u).sqrt().copysign(u[0]);
        off_diagonal[k] = alpha * size;
        u[0] -= alpha;
        let length = dot(&u, &u).sqrt();
        u.iter_mut().for_each(|v| *v /= length);
        reflect_both_sides(a, &u, d);
        reflect_rows(vectors, &u, d);
    }
    off_diagonal
}

/// H A H on the last rows and columns, as A - u w' - w u' with w = 2 (A u - (u' A u) u).
fn reflect_both_sides(a: &mut [f64], u: &[f64], d: usize) {
    let start = d - u.len();
    let rows = a.chunks_exact_mut(d).skip(start);
    let mut w: Vec<f64> = rows.map(|row| 2.0 * dot(&row[start..], u)).collect();
    let inner = 0.5 * dot(&w, u);
    w.iter_mut().zip(u).for_each(|(w, u)| *w -= 2.0 * inner * u);
    for (row, (&ui, &wi)) in a.chunks_exact_mut(d).skip(start).zip(u.iter().zip(&w)) {
        for (to, (u, w)) in row[start..].iter_mut().zip(u.iter().zip(&w)) {
            *to -= ui * w + wi * u;
        }
    }
}

/// H V on the last rows.
fn reflect_rows(vectors: &mut [f64], u: &[f64], d: usize) {
    let start = d - u.len();
    let mut sum = vec![0.0; d];
    for (row, &u) in vectors.chunks_exact(d).skip(start).zip(u) {
        add_scaled(&mut sum, u, row);
    }
    for (row, &u) in vectors.chunks_exact_mut(d).skip(start).zip(u) {
        add_scaled(row, -2.0 * u, &sum);
    }
}

/// QL iterations with implicit shifts: `diagonal` becomes the eigenvalues, and the rotations are applied to the rows of
/// `vectors`.
fn diagonalise(diagonal: &mut [f64], off: &mut [f64], vectors: &mut [f64]) {
    let d = diagonal.len();
    let scale = diagonal.iter().chain(off.iter()).fold(0.0, |m: f64, v| m.max(v.abs()));
    // Rounding made of the whole matrix is as large; without it, zero eigenvalues would be polished for ever.
    let nothing = f64::EPSILON * f64::EPSILON * scale;
    for first in 0..d {
        for sweep in 0.. {
            assert!(sweep < 100, "eigen: no convergence, eigenvalue {first} of {d}");
            let small =
                |i: usize| off[i].abs() <= (f64::EPSILON * (diagonal[i].abs() + diagonal[i + 1].abs())).max(nothing);
            let last = (first..d - 1).find(|&i| small(i)).unwrap_or(d - 1);
            if last == first {
                break;
            }
            chase(diagonal, off, vectors, first, last);
        }
    }
}

/// One QL sweep over the unreduced block `first..=last`: a bulge is chased up from its end by plane rotations.
fn chase(diagonal: &mut [f64], off: &mut [f64], vectors: &mut [f64], first: usize, last: usize) {
    let d = diagonal.len();
    let g = (diagonal[first + 1] - diagonal[first]) / (2.0 * off[first]);
    let mut g = diagonal[last] - diagonal[first] + off[first] / (g + g.hypot(1.0).copysign(g));
    let (mut s, mut c, mut shift) = (1.0, 1.0, 0.0);
    for i in (first..last).rev() {
        let (f, b) = (s * off[i], c * off[i]);
        let r = f64::hypot(f, g);
        off[i + 1] = r;
        if r == 0.0 {
            // The block has fallen apart here: start again on what is left.
            diagonal[i + 1] -= shift;
            off[last] = 0.0;
            return;
        }
        (s, c) = (f / r, g / r);
        g = diagonal[i + 1] - shift;
        let r = (diagonal[i] - g) * s + 2.0 * c * b;
        shift = s * r;
        diagonal[i + 1] = g + shift;
        g = c * r - b;
        let (upper, lower) = vectors.split_at_mut((i + 1) * d);
        for (a, b) in upper[i * d..].iter_mut().zip(&mut lower[..d]) {
            (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
        }
    }
    diagonal[first] -= shift;
    off[first] = g;
    off[last] = 0.0;
}
