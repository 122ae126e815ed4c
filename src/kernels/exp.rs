//! exp and tanh. The f32 versions are free of branches and calls, so that loops over them become vector instructions;
//! the f64 versions are the standard library's.

use crate::array::{DType, Element};

/// e^x. For f32 within 2 units in the last place, and exact where the result is 0, infinite or NaN.
#[inline(always)]
pub fn exp<T: Element>(x: T) -> T {
    match T::DTYPE {
        // The compiler removes the round trip through f64.
        DType::F32 => T::of(f64::from(exp_f32(x.f64() as f32))),
        DType::F64 => x.exp(),
    }
}

/// The hyperbolic tangent. For f32 within 3 units in the last place.
#[inline(always)]
pub fn tanh<T: Element>(x: T) -> T {
    match T::DTYPE {
        DType::F32 => T::of(f64::from(tanh_f32(x.f64() as f32))),
        DType::F64 => x.tanh(),
    }
}

/// e^x = 2^n e^r with n the integer next to x / ln 2 and |r| <= ln 2 / 2; e^r by the minimax polynomial of Cephes `expf`.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    /// Adding it moves an integer part into the low bits of the mantissa, rounded to nearest.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    /// ln 2 in two parts, the first so short that n times it is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Past these bounds the result is infinity or zero anyway. Written so that NaN passes through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2[0] - n * LN2[1];
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // 2^n in two factors: neither overflows, and results below the normal range are rounded only once.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Near zero a polynomial (Cephes `tanhf`), as 1 - 2 / (e^2|x| + 1) would cancel there.
#[inline(always)]
fn tanh_f32(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3;
    let p = p * z + 2.063_908_8e-2;
    let p = p * z - 5.373_971_5e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let small = p * z * x + x;
    let large = 1.0 - 2.0 / (exp_f32(2.0 * x.abs()) + 1.0);
    (if x.abs() < 0.625 { small } else { large }).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance from the f64 value `truth`, in units in the last place of f32.
    fn ulps(found: f32, truth: f64) -> f64 {
        let ulp = f64::from((truth as f32).abs().next_up()) - f64::from((truth as f32).abs());
        (f64::from(found) - truth).abs() / ulp
    }

    #[test]
    fn exp_is_within_two_ulps_over_its_range() {
        let mut worst = 0.0_f64;
        let mut bits = (-103.0_f32).to_bits();
        for sign in [1.0_f32, -1.0] {
            for x in (0..4_000_000).map(|i| sign * i as f32 * (88.7 / 4_000_000.0)) {
                worst = worst.max(ulps(exp_f32(x), f64::from(x).exp()));
            }
        }
        while f32::from_bits(bits) < -80.0 {
            worst = worst.max(ulps(exp_f32(f32::from_bits(bits)), f64::from(f32::from_bits(bits)).exp()));
            bits -= 11;
        }
        assert!(worst < 2.0, "{worst} ulps");
    }

    #[test]
    fn exp_is_exact_at_the_edges() {
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(-0.0), 1.0);
        assert_eq!(exp_f32(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(f32::MAX), f32::INFINITY);
        assert_eq!(exp_f32(f32::MIN), 0.0);
        assert!(exp_f32(f32::NAN).is_nan());
        assert!(exp_f32(88.722).is_finite() && exp_f32(88.73).is_infinite());
        assert!(exp_f32(-103.9) > 0.0 && exp_f32(-104.1) == 0.0);
    }

    #[test]
    fn tanh_is_within_three_ulps_and_odd() {
        for x in (0..2_000_000).map(|i| i as f32 * 6e-6) {
            let found = ulps(tanh_f32(x), f64::from(x).tanh());
            assert!(found < 3.0, "{found} ulps at {x}");
            assert_eq!(tanh_f32(-x).to_bits(), (-tanh_f32(x)).to_bits());
        }
        assert_eq!(tanh_f32(f32::INFINITY), 1.0);
        assert_eq!(tanh_f32(f32::NEG_INFINITY), -1.0);
        assert!(tanh_f32(f32::NAN).is_nan());
    }
}
