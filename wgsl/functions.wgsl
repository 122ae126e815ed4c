// The functions of `kernels::Unary` and `kernels::Binary`, numbered as there. The built-in exp, log, sin, cos and tanh of WGSL
// may be off by thousands of units in the last place; these are written out, as on the CPU, and are off by a few on every GPU.
//
// Compilers of some drivers take it that there are no NaN and no infinities, and may sum in another order. So both are told
// by their bits, and where a difference must be taken exactly it is a fused multiply-add.

// Not a constant: WGSL has no constant that is infinite.
var<private> infinity_bits: u32 = 0x7f800000u;

fn infinity() -> f32 {
    return bitcast<f32>(infinity_bits);
}

fn negative_infinity() -> f32 {
    return bitcast<f32>(infinity_bits | 0x80000000u);
}

fn not_a_number() -> f32 {
    return bitcast<f32>(infinity_bits | 0x00400000u);
}

// ANCHOR: is_nan
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
// ANCHOR_END: is_nan

fn is_infinite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

fn is_negative_infinity(x: f32) -> bool {
    return bitcast<u32>(x) == 0xff800000u;
}

fn power_of_two(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

// ANCHOR: exponential
// e^x = 2^n e^r with n the integer next to x / ln 2, and |r| <= ln 2 / 2.
fn exponential(at: f32) -> f32 {
    if is_nan(at) {
        return at;
    }
    let x = clamp(at, -104.0, 89.0);
    let n = round(x * 1.4426950408889634);
    let r = fma(n, 2.12194440e-4, fma(n, -0.693359375, x));
    var q = 1.9875691500e-4;
    q = q * r + 1.3981999507e-3;
    q = q * r + 8.3334519073e-3;
    q = q * r + 4.1665795894e-2;
    q = q * r + 1.6666665459e-1;
    q = q * r + 5.0000001201e-1;
    q = q * r * r + r + 1.0;
    // 2^n in two factors: neither overflows.
    let half = i32(n) >> 1u;
    return q * power_of_two(half) * power_of_two(i32(n) - half);
}
// ANCHOR_END: exponential

// x = 2^e m with m around 1, and log m by a polynomial.
fn logarithm(x: f32) -> f32 {
    if is_nan(x) {
        return x;
    }
    if x < 0.0 {
        return not_a_number();
    }
    if x == 0.0 {
        return negative_infinity();
    }
    if is_infinite(x) {
        return x;
    }
    let small = x < 1.17549435e-38;
    let bits = bitcast<u32>(select(x, x * 8388608.0, small));
    var e = f32(i32(bits >> 23u) - 126 - select(0, 23, small));
    var m = bitcast<f32>((bits & 0x007fffffu) | 0x3f000000u);
    if m < 0.70710678 {
        e -= 1.0;
        m = m + m - 1.0;
    } else {
        m -= 1.0;
    }
    let z = m * m;
    var q = 7.0376836292e-2;
    q = q * m - 1.1514610310e-1;
    q = q * m + 1.1676998740e-1;
    q = q * m - 1.2420140846e-1;
    q = q * m + 1.4249322787e-1;
    q = q * m - 1.6668057665e-1;
    q = q * m + 2.0000714765e-1;
    q = q * m - 2.4999993993e-1;
    q = q * m + 3.3333331174e-1;
    return m + (q * m * z + e * -2.12194440e-4 - 0.5 * z) + e * 0.693359375;
}

// log(1 + x) for x in [0, 1]: with s = x / (2 + x) it is 2 (s + s^3 / 3 + s^5 / 5 + ..), and s^2 is 1/9 at most.
fn logarithm_1p(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let z = s * s;
    var q = 1.0 / 15.0;
    q = q * z + 1.0 / 13.0;
    q = q * z + 1.0 / 11.0;
    q = q * z + 1.0 / 9.0;
    q = q * z + 1.0 / 7.0;
    q = q * z + 1.0 / 5.0;
    q = q * z + 1.0 / 3.0;
    return 2.0 * s * (q * z + 1.0);
}

fn sign_of(x: f32, magnitude: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(magnitude) & 0x7fffffffu) | (bitcast<u32>(x) & 0x80000000u));
}

fn hyperbolic_tangent(x: f32) -> f32 {
    if is_nan(x) {
        return x;
    }
    let z = x * x;
    if abs(x) < 0.625 {
        var q = -5.70498872745e-3;
        q = q * z + 2.06390887954e-2;
        q = q * z - 5.37397155531e-2;
        q = q * z + 1.33314422036e-1;
        q = q * z - 3.33332819422e-1;
        return q * z * x + x;
    }
    return sign_of(x, 1.0 - 2.0 / (exponential(2.0 * abs(x)) + 1.0));
}

// sin(x + quarters pi / 2). x is taken modulo pi / 2 in three parts, which is exact enough up to |x| of some thousands.
fn sine(x: f32, quarters: i32) -> f32 {
    let n = round(x * 0.6366197723675814);
    let r = fma(n, -7.54978995489188e-8, fma(n, -4.837512969970703e-4, fma(n, -1.5703125, x)));
    let z = r * r;
    let s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
    let c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
    let quadrant = (i32(n) + quarters) & 3;
    let value = select(s, c, (quadrant & 1) == 1);
    return select(value, -value, quadrant >= 2);
}

// 1 / (1 + e^-x).
fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exponential(-x));
}

fn relu(x: f32) -> f32 {
    // Some compilers make a maximum of a comparison and a choice, and the maximum of NaN and 0 is 0.
    if is_nan(x) {
        return x;
    }
    return select(x, 0.0, x <= 0.0);
}

fn positive(x: f32) -> f32 {
    return select(0.0, 1.0, x > 0.0);
}

fn silu(x: f32) -> f32 {
    return x * sigmoid(x);
}

fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    return s * (1.0 + x * (1.0 - s));
}

const GELU_SCALE: f32 = 0.7978845608028654;
const GELU_CUBIC: f32 = 0.044715;

fn gelu_inner(x: f32) -> f32 {
    return GELU_SCALE * x * (1.0 + GELU_CUBIC * x * x);
}

// P(X <= x) of X ~ N(0, 1): half of erfc(-x / sqrt 2), by a Chebyshev fit with a relative error of 1.2e-7.
fn normal_cdf(x: f32) -> f32 {
    if is_nan(x) {
        return x;
    }
    let z = min(abs(x) * 0.7071067811865476, 20.0);
    let t = 1.0 / (1.0 + 0.5 * z);
    var q = 0.17087277;
    q = q * t - 0.82215223;
    q = q * t + 1.48851587;
    q = q * t - 1.13520398;
    q = q * t + 0.27886807;
    q = q * t - 0.18628806;
    q = q * t + 0.09678418;
    q = q * t + 0.37409196;
    q = q * t + 1.00002368;
    q = q * t - 1.26551223;
    let tail = 0.5 * t * exponential(q - z * z);
    return select(tail, 1.0 - tail, x > 0.0);
}

fn normal_density(x: f32) -> f32 {
    return 0.3989422804014327 * exponential(-0.5 * x * x);
}

fn unary_value(op: u32, x: f32) -> f32 {
    switch op {
        case 0u: { return -x; }
        case 1u: { return abs(x); }
        case 2u: { return x * x; }
        case 3u: { return sqrt(x); }
        case 4u: { return 1.0 / sqrt(x); }
        case 5u: { return 1.0 / x; }
        case 6u: { return exponential(x); }
        case 7u: { return logarithm(x); }
        case 8u: { return sine(x, 0); }
        case 9u: { return sine(x, 1); }
        case 10u: { return hyperbolic_tangent(x); }
        case 11u: { return sigmoid(x); }
        case 12u: { return relu(x) + logarithm_1p(exponential(-abs(x))); }
        case 13u: { return relu(x); }
        case 14u: { return silu(x); }
        case 15u: { return 0.5 * x * (1.0 + hyperbolic_tangent(gelu_inner(x))); }
        default: { return x * normal_cdf(x); }
    }
}

fn unary_slope(op: u32, x: f32) -> f32 {
    switch op {
        case 0u: { return -1.0; }
        case 1u: { return positive(x) - positive(-x); }
        case 2u: { return 2.0 * x; }
        case 3u: { return 0.5 / sqrt(x); }
        case 4u: { return -0.5 / (x * sqrt(x)); }
        case 5u: { return -1.0 / (x * x); }
        case 6u: { return exponential(x); }
        case 7u: { return 1.0 / x; }
        case 8u: { return sine(x, 1); }
        case 9u: { return -sine(x, 0); }
        case 10u: { let t = hyperbolic_tangent(x); return 1.0 - t * t; }
        case 11u: { let s = sigmoid(x); return s * (1.0 - s); }
        case 12u: { return sigmoid(x); }
        case 13u: { return positive(x); }
        case 14u: { return silu_slope(x); }
        case 15u: {
            let t = hyperbolic_tangent(gelu_inner(x));
            let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
            return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
        }
        default: { return normal_cdf(x) + x * normal_density(x); }
    }
}

// The larger, and NaN if either is.
fn larger(a: f32, b: f32) -> f32 {
    return select(b, a, a > b || is_nan(a));
}

fn smaller(a: f32, b: f32) -> f32 {
    return select(b, a, a < b || is_nan(a));
}

// WGSL promises nothing for divisors beyond 2^126: some GPUs take the reciprocal first, which is then below the normal range.
fn quotient(a: f32, b: f32) -> f32 {
    let scale = select(1.0, 0.25, abs(b) > 8.5e37);
    return (a * scale) / (b * scale);
}

fn binary_value(op: u32, a: f32, b: f32) -> f32 {
    switch op {
        case 0u: { return a + b; }
        case 1u: { return a - b; }
        case 2u: { return a * b; }
        case 3u: { return quotient(a, b); }
        case 4u: { return larger(a, b); }
        case 5u: { return smaller(a, b); }
        case 6u: { return select(0.0, 1.0, a > b); }
        default: { return select(0.0, 1.0, a == b); }
    }
}
