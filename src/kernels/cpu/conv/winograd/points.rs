//! The small matrices of F(4 x 4, 3 x 3), applied to vectors of numbers.
//!
//! In one dimension: read the 4 numbers g and the 3 numbers w as the coefficients of polynomials. The 6 coefficients of
//! their product p = g w follow from its values at 6 points: evaluate g and w at each (4 -> 6 by A, 3 -> 6 by G), multiply
//! (6 multiplications rather than 12), and interpolate (6 -> 6 by B). The correlation of 6 numbers d with w, 4 outputs y,
//! is the adjoint of g -> g w: <d, g w> = <y, g>. So y = A' [(G w) * (B' d)]. In two dimensions each matrix is applied to
//! the columns, then to the rows.
//!
//! The points are 0, a, -a, b, -b and "infinity", where a polynomial's value is its leading coefficient. Which a and b
//! does not matter in exact arithmetic. In f32, 5/8 and 3/2 leave half the error of the usual 1 and 2 (their powers stay
//! near 1), and they and the entries of B are exact in binary.

use pulp::Simd;

/// The points besides 0 and infinity are a, -a, b and -b.
pub(super) const A: f32 = 5.0 / 8.0;
pub(super) const B: f32 = 3.0 / 2.0;

const A2: f32 = A * A;
const B2: f32 = B * B;

/// Products of the distances from one point to the others: the denominators of Lagrange's interpolation at 0, +-a, +-b.
const AT_0: f32 = A2 * B2;
const AT_A: f32 = 2.0 * A2 * (A2 - B2);
const AT_B: f32 = 2.0 * B2 * (B2 - A2);

/// A transform of two dimensions: one of one dimension on each column of x [N, N], then on each row of the result, [M, M].
macro_rules! both_ways {
    ($(#[$doc:meta])* $name:ident: $line:ident, $N:ident -> $M:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name(self, x: [[S::f32s; $N]; $N]) -> [[S::f32s; $M]; $M] {
            let zero = self.0.splat_f32s(0.0);
            let mut columns = [[zero; $M]; $N];
            for j in 0..$N {
                let mut column = [zero; $N];
                for i in 0..$N {
                    column[i] = x[i][j];
                }
                columns[j] = self.$line(column);
            }
            let mut result = [[zero; $M]; $M];
            for i in 0..$M {
                let mut row = [zero; $N];
                for j in 0..$N {
                    row[j] = columns[j][i];
                }
                result[i] = self.$line(row);
            }
            result
        }
    };
}

/// The transforms, on vectors: each number of a 6 x 6 is one vector.
#[derive(Clone, Copy)]
pub(super) struct Points<S: Simd>(pub S);

impl<S: Simd> Points<S> {
    both_ways! {
        /// B' d B
        data: data_line, IN -> IN
    }
    both_ways! {
        /// A' m A
        outputs: outputs_line, IN -> OUT
    }
    both_ways! {
        /// A g A'
        outputs_adjoint: outputs_adjoint_line, OUT -> IN
    }
    both_ways! {
        /// G w G'
        weight: weight_line, TAPS -> IN
    }
    both_ways! {
        /// G' u G
        weight_adjoint: weight_adjoint_line, IN -> TAPS
    }

    #[inline(always)]
    fn times(self, factor: f32, x: S::f32s) -> S::f32s {
        self.0.mul_f32s(self.0.splat_f32s(factor), x)
    }

    /// factor x + y
    #[inline(always)]
    fn plus(self, factor: f32, x: S::f32s, y: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(self.0.splat_f32s(factor), x, y)
    }

    /// B' d
    #[inline(always)]
    fn data_line(self, [d0, d1, d2, d3, d4, d5]: [S::f32s; IN]) -> [S::f32s; IN] {
        let (even_a, odd_a) = (self.plus(-B2, d2, d4), self.plus(-B2, d1, d3));
        let (even_b, odd_b) = (self.plus(-A2, d2, d4), self.plus(-A2, d1, d3));
        [
            self.plus(AT_0, d0, self.plus(-A2 - B2, d2, d4)),
            self.plus(A, odd_a, even_a),
            self.plus(-A, odd_a, even_a),
            self.plus(B, odd_b, even_b),
            self.plus(-B, odd_b, even_b),
            self.plus(AT_0, d1, self.plus(-A2 - B2, d3, d5)),
        ]
    }

    /// A' m
    #[inline(always)]
    fn outputs_line(self, [m0, m1, m2, m3, m4, m5]: [S::f32s; IN]) -> [S::f32s; OUT] {
        let (sum_a, sum_b) = (self.0.add_f32s(m1, m2), self.0.add_f32s(m3, m4));
        let (minus_a, minus_b) = (self.0.sub_f32s(m1, m2), self.0.sub_f32s(m3, m4));
        [
            self.0.add_f32s(m0, self.0.add_f32s(sum_a, sum_b)),
            self.plus(A, minus_a, self.times(B, minus_b)),
            self.plus(A2, sum_a, self.times(B2, sum_b)),
            self.plus(A2 * A, minus_a, self.plus(B2 * B, minus_b, m5)),
        ]
    }

    /// A g, the adjoint of [`Points::outputs`]: the values of the polynomial g at the points.
    #[inline(always)]
    fn outputs_adjoint_line(self, [g0, g1, g2, g3]: [S::f32s; OUT]) -> [S::f32s; IN] {
        let (even_a, odd_a) = (self.plus(A2, g2, g0), self.plus(A2, g3, g1));
        let (even_b, odd_b) = (self.plus(B2, g2, g0), self.plus(B2, g3, g1));
        [
            g0,
            self.plus(A, odd_a, even_a),
            self.plus(-A, odd_a, even_a),
            self.plus(B, odd_b, even_b),
            self.plus(-B, odd_b, even_b),
            g3,
        ]
    }

    /// G w: the values of the polynomial w at the points, divided by the denominators of the interpolation.
    #[inline(always)]
    fn weight_line(self, [w0, w1, w2]: [S::f32s; TAPS]) -> [S::f32s; IN] {
        let (even_a, odd_a) = (self.times(1.0 / AT_A, self.plus(A2, w2, w0)), self.times(A / AT_A, w1));
        let (even_b, odd_b) = (self.times(1.0 / AT_B, self.plus(B2, w2, w0)), self.times(B / AT_B, w1));
        [
            self.times(1.0 / AT_0, w0),
            self.0.add_f32s(even_a, odd_a),
            self.0.sub_f32s(even_a, odd_a),
            self.0.add_f32s(even_b, odd_b),
            self.0.sub_f32s(even_b, odd_b),
            w2,
        ]
    }

    /// G' u, the adjoint of [`Points::weight`].
    #[inline(always)]
    fn weight_adjoint_line(self, [u0, u1, u2, u3, u4, u5]: [S::f32s; IN]) -> [S::f32s; TAPS] {
        let even_a = self.times(1.0 / AT_A, self.0.add_f32s(u1, u2));
        let even_b = self.times(1.0 / AT_B, self.0.add_f32s(u3, u4));
        let (odd_a, odd_b) = (self.0.sub_f32s(u1, u2), self.0.sub_f32s(u3, u4));
        [
            self.plus(1.0 / AT_0, u0, self.0.add_f32s(even_a, even_b)),
            self.plus(A / AT_A, odd_a, self.times(B / AT_B, odd_b)),
            self.plus(A2, even_a, self.plus(B2, even_b, u5)),
        ]
    }
}

/// Outputs along one side of a tile, the positions of the weight and the inputs they meet.
pub(super) const OUT: usize = 4;
pub(super) const TAPS: usize = 3;
pub(super) const IN: usize = OUT + TAPS - 1;
