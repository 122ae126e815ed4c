//! Elementwise ops. The functions of one number and their derivatives are the table in `kernels::Unary`; the gradients
//! of functions of two numbers are the table in [`Tensor::binary`]'s callers below.

use super::Tensor;
use super::graph::op;
use crate::array::Array;
use crate::kernels::{Binary, Unary};
use std::ops::{Add, Div, Mul, Neg, Sub};

// ANCHOR: unary
/// A method for every function of one number: y = f(x), dx = g f'(x).
macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident = $variant:ident;)*) => {
        impl Tensor {
            $($(#[$doc])*
            pub fn $method(&self) -> Tensor {
                let x = self.value.clone();
                op(stringify!($method), x.kernels().unary(Unary::$variant, &x))
                    .grad(self, move |g| g.kernels().unary_grad(Unary::$variant, &x, g))
                    .done()
            })*
        }
    };
}
// ANCHOR_END: unary

unary! {
    /// -x
    neg = Neg;
    /// |x|; its derivative at 0 is taken as 0.
    abs = Abs;
    /// x^2
    square = Square;
    /// sqrt(x)
    sqrt = Sqrt;
    /// 1 / sqrt(x)
    rsqrt = Rsqrt;
    /// 1 / x
    reciprocal = Reciprocal;
    /// e^x
    exp = Exp;
    /// Natural logarithm.
    log = Log;
    /// sin(x)
    sin = Sin;
    /// cos(x)
    cos = Cos;
    /// tanh(x)
    tanh = Tanh;
    /// 1 / (1 + e^-x)
    sigmoid = Sigmoid;
    /// log(1 + e^x)
    softplus = Softplus;
    /// max(x, 0); its derivative at 0 is taken as 0.
    relu = Relu;
    /// x sigmoid(x), also called swish.
    silu = Silu;
    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the approximation T5 v1.1 uses.
    gelu_tanh = GeluTanh;
    /// x Phi(x) = x/2 (1 + erf(x / sqrt 2)).
    gelu_erf = GeluErf;
}

impl Tensor {
    /// a + b, broadcast: da = g, db = g.
    #[track_caller]
    pub fn add(&self, other: &Tensor) -> Tensor {
        self.binary("add", Binary::Add, other, |g| g.clone(), |g| g.clone())
    }

    /// a - b, broadcast: da = g, db = -g.
    #[track_caller]
    pub fn sub(&self, other: &Tensor) -> Tensor {
        self.binary("sub", Binary::Sub, other, |g| g.clone(), |g| -g)
    }

    // ANCHOR: mul
    /// a b, broadcast: da = g b, db = g a.
    #[track_caller]
    pub fn mul(&self, other: &Tensor) -> Tensor {
        let (a, b) = (self.value.clone(), other.value.clone());
        self.binary("mul", Binary::Mul, other, move |g| g * &b, move |g| g * &a)
    }
    // ANCHOR_END: mul

    // ANCHOR: div
    /// a / b, broadcast: da = g / b, db = -g a / b^2.
    #[track_caller]
    pub fn div(&self, other: &Tensor) -> Tensor {
        let (a, b) = (self.value.clone(), other.value.clone());
        let b2 = b.clone();
        self.binary("div", Binary::Div, other, move |g| g / &b, move |g| -&(&(g * &a) / &(&b2 * &b2)))
    }
    // ANCHOR_END: div

    /// The larger of a and b, broadcast. The gradient goes to the larger; halves where they are equal.
    #[track_caller]
    pub fn maximum(&self, other: &Tensor) -> Tensor {
        let (a, b) = (self.value.clone(), other.value.clone());
        let (a2, b2) = (a.clone(), b.clone());
        self.binary("maximum", Binary::Maximum, other, move |g| g * &wins(&a, &b), move |g| g * &wins(&b2, &a2))
    }

    /// The smaller of a and b, broadcast. The gradient goes to the smaller; halves where they are equal.
    #[track_caller]
    pub fn minimum(&self, other: &Tensor) -> Tensor {
        let (a, b) = (self.value.clone(), other.value.clone());
        let (a2, b2) = (a.clone(), b.clone());
        self.binary("minimum", Binary::Minimum, other, move |g| g * &wins(&b, &a), move |g| g * &wins(&a2, &b2))
    }

    // ANCHOR: binary
    /// y = f(a, b) with its two gradients, each summed over what was broadcast. Each closure holds of a and b only what
    /// its formula needs: a sum keeps neither alive.
    #[track_caller]
    fn binary(
        &self,
        name: &'static str,
        f: Binary,
        other: &Tensor,
        grad_a: impl FnOnce(&Array) -> Array + Send + 'static,
        grad_b: impl FnOnce(&Array) -> Array + Send + 'static,
    ) -> Tensor {
        let (shape_a, shape_b) = (self.shape().clone(), other.shape().clone());
        op(name, self.value.binary(f, &other.value))
            .grad(self, move |g| grad_a(g).sum_to(&shape_a))
            .grad(other, move |g| grad_b(g).sum_to(&shape_b))
            .done()
    }
    // ANCHOR_END: binary

    /// scale x + shift with plain numbers: dx = scale g.
    pub fn affine(&self, scale: f64, shift: f64) -> Tensor {
        op("affine", self.value.affine(scale, shift)).grad(self, move |g| g.affine(scale, 0.0)).done()
    }

    /// x kept within [low, high]: min(max(x, low), high). dx = g inside, 0 outside, g / 2 at the bounds. Panics if low > high.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Tensor {
        assert!(low <= high, "clamp: {low} > {high}");
        self.maximum(&self.constant_like([], &[low])).minimum(&self.constant_like([], &[high]))
    }
}

/// 1 where a > b, 1/2 where they are equal, else 0.
fn wins(a: &Array, b: &Array) -> Array {
    &a.binary(Binary::Greater, b) + &a.binary(Binary::Equal, b).affine(0.5, 0.0)
}

macro_rules! operator {
    ($trait:ident, $method:ident, |$x:ident, $c:ident| $with_number:expr) => {
        impl $trait for &Tensor {
            type Output = Tensor;

            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                Tensor::$method(self, other)
            }
        }

        impl $trait<f64> for &Tensor {
            type Output = Tensor;

            fn $method(self, $c: f64) -> Tensor {
                let $x = self;
                $with_number
            }
        }
    };
}

operator!(Add, add, |x, c| x.affine(1.0, c));
operator!(Sub, sub, |x, c| x.affine(1.0, -c));
operator!(Mul, mul, |x, c| x.affine(c, 0.0));
operator!(Div, div, |x, c| x.affine(1.0 / c, 0.0));

impl Neg for &Tensor {
    type Output = Tensor;

    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}
