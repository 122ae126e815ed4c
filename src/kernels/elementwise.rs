//! The elementwise functions and their derivatives, as two tables. Every device follows them.

use super::exp::{exp, tanh};
use crate::array::Element;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the table in `value` is the documentation
pub enum Unary {
    Neg,
    Abs,
    Square,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Exp,
    Log,
    Sin,
    Cos,
    Tanh,
    Sigmoid,
    Softplus,
    Relu,
    Silu,
    GeluTanh,
    GeluErf,
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the table in `value` is the documentation
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    Minimum,
    /// 1 where a > b, else 0.
    Greater,
    /// 1 where a = b, else 0.
    Equal,
}

impl Unary {
    /// Every function of the table.
    #[rustfmt::skip]
    pub const ALL: [Unary; 17] = [
        Unary::Neg, Unary::Abs, Unary::Square, Unary::Sqrt, Unary::Rsqrt, Unary::Reciprocal, Unary::Exp, Unary::Log,
        Unary::Sin, Unary::Cos, Unary::Tanh, Unary::Sigmoid, Unary::Softplus, Unary::Relu, Unary::Silu,
        Unary::GeluTanh, Unary::GeluErf,
    ];

    /// f(x).
    #[inline(always)]
    #[rustfmt::skip]
    pub fn value<T: Element>(self, x: T) -> T {
        let c = T::of;
        match self {
            Unary::Neg        => -x,
            Unary::Abs        => x.abs(),
            Unary::Square     => x * x,
            Unary::Sqrt       => x.sqrt(),
            Unary::Rsqrt      => c(1.0) / x.sqrt(),
            Unary::Reciprocal => c(1.0) / x,
            Unary::Exp        => exp(x),
            Unary::Log        => x.ln(),
            Unary::Sin        => x.sin(),
            Unary::Cos        => x.cos(),
            Unary::Tanh       => tanh(x),
            Unary::Sigmoid    => sigmoid(x),
            Unary::Softplus   => relu(x) + exp(-x.abs()).ln_1p(),
            Unary::Relu       => relu(x),
            Unary::Silu       => x * sigmoid(x),
            Unary::GeluTanh   => c(0.5) * x * (c(1.0) + tanh(gelu_inner(x))),
            Unary::GeluErf    => x * normal_cdf(x),
        }
    }

    // ANCHOR: derivative
    /// f'(x). At the kinks of `Abs` and `Relu` it is 0.
    #[inline(always)]
    #[rustfmt::skip]
    pub fn derivative<T: Element>(self, x: T) -> T {
        let c = T::of;
        match self {
            Unary::Neg        => c(-1.0),
            Unary::Abs        => step(x) - step(-x),
            Unary::Square     => c(2.0) * x,
            Unary::Sqrt       => c(0.5) / x.sqrt(),
            Unary::Rsqrt      => c(-0.5) / (x * x.sqrt()),
            Unary::Reciprocal => c(-1.0) / (x * x),
            Unary::Exp        => exp(x),
            Unary::Log        => c(1.0) / x,
            Unary::Sin        => x.cos(),
            Unary::Cos        => -x.sin(),
            Unary::Tanh       => { let t = tanh(x); c(1.0) - t * t }
            Unary::Sigmoid    => { let s = sigmoid(x); s * (c(1.0) - s) }
            Unary::Softplus   => sigmoid(x),
            Unary::Relu       => step(x),
            Unary::Silu       => { let s = sigmoid(x); s * (c(1.0) + x * (c(1.0) - s)) }
            Unary::GeluTanh   => {
                let t = tanh(gelu_inner(x));
                let inner = c(GELU_SCALE) * (c(1.0) + c(3.0 * GELU_CUBIC) * x * x);
                c(0.5) * (c(1.0) + t) + c(0.5) * x * (c(1.0) - t * t) * inner
            }
            Unary::GeluErf    => normal_cdf(x) + x * normal_density(x),
        }
    }
    // ANCHOR_END: derivative

    /// The name, in snake case.
    #[rustfmt::skip]
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg        => "neg",
            Unary::Abs        => "abs",
            Unary::Square     => "square",
            Unary::Sqrt       => "sqrt",
            Unary::Rsqrt      => "rsqrt",
            Unary::Reciprocal => "reciprocal",
            Unary::Exp        => "exp",
            Unary::Log        => "log",
            Unary::Sin        => "sin",
            Unary::Cos        => "cos",
            Unary::Tanh       => "tanh",
            Unary::Sigmoid    => "sigmoid",
            Unary::Softplus   => "softplus",
            Unary::Relu       => "relu",
            Unary::Silu       => "silu",
            Unary::GeluTanh   => "gelu_tanh",
            Unary::GeluErf    => "gelu_erf",
        }
    }
}

impl Binary {
    /// Every function of the table.
    #[rustfmt::skip]
    pub const ALL: [Binary; 8] = [
        Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Maximum, Binary::Minimum, Binary::Greater,
        Binary::Equal,
    ];

    /// f(a, b). `Maximum` and `Minimum` are NaN if either number is.
    #[inline(always)]
    #[rustfmt::skip]
    pub fn value<T: Element>(self, a: T, b: T) -> T {
        let indicator = |yes: bool| if yes { T::one() } else { T::zero() };
        match self {
            Binary::Add     => a + b,
            Binary::Sub     => a - b,
            Binary::Mul     => a * b,
            Binary::Div     => a / b,
            // Comparisons with NaN are false, so b = NaN is what is left; a = NaN has to be asked for.
            Binary::Maximum => if a > b || a.is_nan() { a } else { b },
            Binary::Minimum => if a < b || a.is_nan() { a } else { b },
            Binary::Greater => indicator(a > b),
            Binary::Equal   => indicator(a == b),
        }
    }

    /// The name, in snake case.
    #[rustfmt::skip]
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add     => "add",
            Binary::Sub     => "sub",
            Binary::Mul     => "mul",
            Binary::Div     => "div",
            Binary::Maximum => "maximum",
            Binary::Minimum => "minimum",
            Binary::Greater => "greater",
            Binary::Equal   => "equal",
        }
    }
}

/// 1 / (1 + e^-x). For very negative x the exponential is infinite and the quotient 0, as it should be.
#[inline(always)]
fn sigmoid<T: Element>(x: T) -> T {
    T::one() / (T::one() + exp(-x))
}

/// max(x, 0), and NaN for NaN.
#[inline(always)]
fn relu<T: Element>(x: T) -> T {
    if x <= T::zero() { T::zero() } else { x }
}

/// 1 where x > 0, else 0.
#[inline(always)]
fn step<T: Element>(x: T) -> T {
    if x > T::zero() { T::one() } else { T::zero() }
}

/// sqrt(2 / pi).
const GELU_SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const GELU_CUBIC: f64 = 0.044715;

/// What the tanh of GELU's approximation is taken of (Hendrycks and Gimpel, arXiv 1606.08415, section 2).
#[inline(always)]
fn gelu_inner<T: Element>(x: T) -> T {
    T::of(GELU_SCALE) * x * (T::one() + T::of(GELU_CUBIC) * x * x)
}

/// P(X <= x) of X ~ N(0, 1). Through erfc, which unlike 1 + erf does not cancel for negative x.
#[inline(always)]
fn normal_cdf<T: Element>(x: T) -> T {
    T::of(0.5 * libm::erfc(-x.f64() * FRAC_1_SQRT_2))
}

/// The density of N(0, 1) at x.
#[inline(always)]
fn normal_density<T: Element>(x: T) -> T {
    T::of(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2) * exp(T::of(-0.5) * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Whether f is defined for positive numbers only.
    fn positive_only(op: Unary) -> bool {
        matches!(op, Unary::Sqrt | Unary::Rsqrt | Unary::Log)
    }

    #[test]
    fn the_derivative_column_matches_central_differences() {
        for op in Unary::ALL {
            for i in -40..=40 {
                let x = f64::from(i) * 0.11 + 0.037;
                if positive_only(op) && x <= 0.0 {
                    continue;
                }
                let h = 1e-5 * x.abs().min(1.0);
                let difference = (op.value(x + h) - op.value(x - h)) / (2.0 * h);
                let found = op.derivative(x);
                assert!((found - difference).abs() < 1e-7 * (1.0 + found.abs()), "{op:?} at {x}: {found} {difference}");
            }
        }
    }

    #[test]
    fn f32_follows_f64() {
        for op in Unary::ALL {
            for i in -60..=60 {
                let x = i as f32 * 0.17 + 0.05;
                if positive_only(op) && x <= 0.0 {
                    continue;
                }
                for (single, double) in
                    [(op.value(x), op.value(f64::from(x))), (op.derivative(x), op.derivative(f64::from(x)))]
                {
                    assert!(
                        (f64::from(single) - double).abs() < 2e-6 * (1.0 + double.abs()),
                        "{op:?} {x}: {single} {double}"
                    );
                }
            }
        }
    }

    #[test]
    fn bounded_slopes_stay_finite_far_out() {
        let steady =
            [Unary::Tanh, Unary::Sigmoid, Unary::Softplus, Unary::Relu, Unary::Silu, Unary::GeluTanh, Unary::GeluErf];
        for op in steady {
            for x in [-1e4, -200.0, -89.0, 89.0, 200.0, 1e4] {
                let slope = if x > 0.0 && !matches!(op, Unary::Tanh | Unary::Sigmoid) { 1.0 } else { 0.0 };
                let value = match op {
                    Unary::Tanh => f64::signum(x),
                    Unary::Sigmoid => f64::from(x > 0.0),
                    _ => f64::max(x, 0.0),
                };
                assert!((op.value(x) - value).abs() < 1e-30, "{op:?} at {x}: {}", op.value(x));
                assert!((op.derivative(x) - slope).abs() < 1e-30, "{op:?} at {x}: {}", op.derivative(x));
                assert!((f64::from(op.value(x as f32)) - value).abs() < 1e-30, "{op:?} at {x} in f32");
                assert!((f64::from(op.derivative(x as f32)) - slope).abs() < 1e-30, "{op:?} at {x} in f32");
            }
        }
    }

    #[test]
    fn known_values() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        close(Unary::GeluErf.value(1.0), 0.841_344_746_068_542_9);
        close(Unary::GeluErf.value(-2.0), -0.045_500_263_896_358_42);
        close(Unary::GeluTanh.value(1.0), 0.841_191_990_608_276_8);
        close(Unary::Silu.value(1.0), 0.731_058_578_630_004_9);
        close(Unary::Softplus.value(0.0), std::f64::consts::LN_2);
    }

    #[test]
    fn kinks_and_nan() {
        assert_eq!(Unary::Abs.derivative(0.0), 0.0);
        assert_eq!(Unary::Relu.derivative(0.0), 0.0);
        assert!(Unary::ALL.iter().all(|op| op.value(f32::NAN).is_nan()));
        for op in [Binary::Maximum, Binary::Minimum] {
            assert!(op.value(f64::NAN, 1.0).is_nan() && op.value(1.0, f64::NAN).is_nan());
        }
        assert_eq!(Binary::Maximum.value(1.0, 2.0), 2.0);
        assert_eq!(Binary::Minimum.value(1.0, 2.0), 1.0);
        assert_eq!(Binary::Greater.value(2.0, 2.0), 0.0);
        assert_eq!(Binary::Equal.value(2.0, 2.0), 1.0);
    }

    #[test]
    fn names_are_distinct() {
        let names: HashSet<_> =
            Unary::ALL.iter().map(|op| op.name()).chain(Binary::ALL.iter().map(|op| op.name())).collect();
        assert_eq!(names.len(), Unary::ALL.len() + Binary::ALL.len());
    }
}
