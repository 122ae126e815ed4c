//! Why F(4 x 4, 3 x 3) is the convolution, and how far rounding takes it: the plain version, with matrices from their
//! definition.

use super::*;
use crate::random::{Purpose, normal};

type Matrix = Vec<Vec<f64>>;

// ANCHOR: matrices
/// A [6, 4], B' [6, 6] and G [6, 3] for the points 0, a, -a, b, -b and infinity.
fn matrices(a: f64, b: f64) -> [Matrix; 3] {
    let points = [0.0, a, -a, b, -b];
    let powers = |p: f64, n: usize| (0..n as i32).map(|i| p.powi(i)).collect::<Vec<f64>>();
    let others = |p: f64| points.into_iter().filter(move |&q| q != p);
    // Coefficients of the product of x - q over some points.
    let product = |roots: Vec<f64>| {
        roots.into_iter().fold(vec![1.0], |f, q| {
            (0..=f.len())
                .map(|i| if i > 0 { f[i - 1] } else { 0.0 } - if i < f.len() { q * f[i] } else { 0.0 })
                .collect()
        })
    };
    let mut values: Matrix = points.iter().map(|&p| powers(p, 4)).collect();
    let mut weights: Matrix = points
        .iter()
        .map(|&p| powers(p, 3).into_iter().map(|x| x / others(p).map(|q| p - q).product::<f64>()).collect())
        .collect();
    let mut basis: Matrix = points.iter().map(|&p| [product(others(p).collect()), vec![0.0]].concat()).collect();
    values.push(vec![0.0, 0.0, 0.0, 1.0]);
    weights.push(vec![0.0, 0.0, 1.0]);
    basis.push(product(points.to_vec()));
    [values, basis, weights]
}
// ANCHOR_END: matrices

fn transpose(m: &Matrix) -> Matrix {
    (0..m[0].len()).map(|j| m.iter().map(|row| row[j]).collect()).collect()
}

/// a b, each number rounded to what `round` makes of it.
fn times(a: &Matrix, b: &Matrix, round: fn(f64) -> f64) -> Matrix {
    let entry = |row: &Vec<f64>, j: usize| (0..b.len()).fold(0.0, |sum, l| round(sum + round(row[l] * b[l][j])));
    a.iter().map(|row| (0..b[0].len()).map(|j| entry(row, j)).collect()).collect()
}

/// m x m'
fn both(m: &Matrix, x: &Matrix, round: fn(f64) -> f64) -> Matrix {
    times(&times(m, x, round), &transpose(m), round)
}

fn exact(x: f64) -> f64 {
    x
}

fn single(x: f64) -> f64 {
    f64::from(x as f32)
}

fn random(index: u64, rows: usize, columns: usize) -> Matrix {
    normal(5, Purpose::Test, 0, index, rows * columns)
        .chunks(columns)
        .map(|row| row.iter().map(|&x| single(x)).collect())
        .collect()
}

/// The 4 x 4 outputs by the definition.
fn definition(d: &Matrix, w: &Matrix, round: fn(f64) -> f64) -> Matrix {
    let tap = |i: usize, j: usize, t: usize| round(w[t / 3][t % 3] * d[i + t / 3][j + t % 3]);
    let output = |i, j| (0..9).fold(0.0, |sum, t| round(sum + tap(i, j, t)));
    (0..4).map(|i| (0..4).map(|j| output(i, j)).collect()).collect()
}

/// A' [(G w G') * (B' d B)] A, as one product for each place.
fn filtered([a, b, g]: &[Matrix; 3], d: &Matrix, w: &Matrix, round: fn(f64) -> f64) -> Matrix {
    let (u, v) = (both(g, w, round), both(b, d, round));
    let m: Matrix = u.iter().zip(&v).map(|(u, v)| u.iter().zip(v).map(|(u, v)| round(u * v)).collect()).collect();
    both(&transpose(a), &m, round)
}

fn numbers(m: &Matrix) -> impl Iterator<Item = f64> {
    m.iter().flatten().copied()
}

// ANCHOR: thirty_six_products_give_sixteen_outputs
/// Correlating d with w is the adjoint of multiplying polynomials by w, and 6 values determine a product of degree 5:
/// <y, g> = <d, g w> for all g. So y = A' [(G w) * (B' d)], here for 36 products in two directions.
#[test]
fn thirty_six_products_give_sixteen_outputs() {
    for (a, b) in [(1.0, 2.0), (0.625, 1.5), (0.3, 0.7)] {
        let matrices = matrices(a, b);
        for i in 0..20 {
            let (d, w) = (random(2 * i, 6, 6), random(2 * i + 1, 3, 3));
            let found = filtered(&matrices, &d, &w, exact);
            for (x, y) in numbers(&found).zip(numbers(&definition(&d, &w, exact))) {
                assert!((x - y).abs() < 1e-10, "{x} {y}");
            }
        }
    }
}
// ANCHOR_END: thirty_six_products_give_sixteen_outputs

/// What a transform on vectors does to the numbers of one lane.
fn lane<const N: usize, const M: usize>(x: &Matrix, f: impl Fn([[f32; N]; N]) -> [[f32; M]; M]) -> Matrix {
    let x: [[f32; N]; N] = std::array::from_fn(|i| std::array::from_fn(|j| x[i][j] as f32));
    f(x).iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}

#[test]
fn the_transforms_are_the_matrices() {
    let [a, b, g] = matrices(points::A.into(), points::B.into());
    let points = Points(pulp::Scalar);
    let close = |found: Matrix, expected: Matrix| {
        assert_eq!((found.len(), found[0].len()), (expected.len(), expected[0].len()));
        for (x, y) in numbers(&found).zip(numbers(&expected)) {
            assert!((x - y).abs() < 2e-5 * (1.0 + y.abs()), "{x} {y}");
        }
    };
    for i in 0..10 {
        let (x6, x4, x3) = (random(i, 6, 6), random(i, 4, 4), random(i, 3, 3));
        close(lane(&x6, |x| points.data(x)), both(&b, &x6, exact));
        close(lane(&x6, |x| points.outputs(x)), both(&transpose(&a), &x6, exact));
        close(lane(&x4, |x| points.outputs_adjoint(x)), both(&a, &x4, exact));
        close(lane(&x3, |x| points.weight(x)), both(&g, &x3, exact));
        close(lane(&x6, |x| points.weight_adjoint(x)), both(&transpose(&g), &x6, exact));
    }
}

fn size(m: &Matrix) -> Matrix {
    m.iter().map(|row| row.iter().map(|x| x.abs()).collect()).collect()
}

// ANCHOR: rounding_stays_within_its_bound
/// Each operation errs by at most half an ulp of its result, so a result that takes n of them in a row is within about
/// n u of the same sum of absolute values, u = 2^-24: |y - exact| <= n u |A'| [sum over channels of (|G| |w| |G'|) *
/// (|B'| |d| |B|)] |A|. In a row stand, in both directions: 4 for B, 6 for G (its entries are rounded too) and 5 for A;
/// then one product and C sums.
#[test]
fn rounding_stays_within_its_bound() {
    const CHANNELS: usize = 48;
    let [a, b, g] = matrices(points::A.into(), points::B.into());
    let steps = 2 * (4 + 6 + 5) + 1 + CHANNELS;
    for seed in 0..8 {
        let pick = |kind: u64, c: usize, n| random(1000 * seed + 100 * kind + c as u64, n, n);
        let (mut expected, mut scale) = (vec![vec![0.0; 4]; 4], vec![vec![0.0; 6]; 6]);
        let add = |to: &mut Matrix, m: &Matrix| to.iter_mut().flatten().zip(numbers(m)).for_each(|(t, x)| *t += x);
        let (mut x, mut weight) = (vec![], vec![]);
        for c in 0..CHANNELS {
            let (image, w) = (pick(0, c, 4), pick(1, c, 3));
            // the image has one tile, and zeros around it
            let inside = |i: usize| (1..5).contains(&i);
            let d: Matrix = (0..6)
                .map(|i| (0..6).map(|j| if inside(i) && inside(j) { image[i - 1][j - 1] } else { 0.0 }).collect())
                .collect();
            add(&mut expected, &definition(&d, &w, exact));
            let (u, v) = (both(&size(&g), &size(&w), exact), both(&size(&b), &size(&d), exact));
            scale.iter_mut().flatten().zip(numbers(&u).zip(numbers(&v))).for_each(|(s, (u, v))| *s += u * v);
            x.extend(numbers(&image).map(|x| x as f32));
            weight.extend(numbers(&w).map(|w| w as f32));
        }
        // eight output channels with the same weight: fewer would go another way
        let weight = weight.repeat(8);
        let (x_shape, w_shape) = ([1, CHANNELS, 4, 4].into(), [8, CHANNELS, 3, 3].into());
        let geometry = Geometry::new(&x_shape, &w_shape, crate::kernels::ConvShape { stride: 1, padding: 1 });
        assert!(suits(&geometry));
        let found = forward(&x, Weight::Plain(&weight), None, &geometry);
        let bound = both(&size(&transpose(&a)), &scale, exact);
        for ((&found, y), bound) in found.iter().zip(numbers(&expected)).zip(numbers(&bound)) {
            let (error, bound) = ((f64::from(found) - y).abs(), steps as f64 * 2f64.powi(-24) * bound);
            assert!(error <= bound, "{error} {bound}");
        }
    }
}
// ANCHOR_END: rounding_stays_within_its_bound

/// Root mean square of the errors of one channel in f32.
fn error(outputs: impl Fn(&Matrix, &Matrix) -> Matrix) -> f64 {
    let mut sum = 0.0;
    for i in 0..200 {
        let (d, w) = (random(2 * i, 6, 6), random(2 * i + 1, 3, 3));
        let pairs: Vec<_> = numbers(&outputs(&d, &w)).zip(numbers(&definition(&d, &w, exact))).collect();
        sum += pairs.iter().map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
    }
    (sum / (200.0 * 16.0)).sqrt()
}

// ANCHOR: points_near_one_round_less
#[test]
fn points_near_one_round_less() {
    let with = |a, b| error(|d, w| filtered(&matrices(a, b), d, w, single));
    let direct = error(|d, w| definition(d, w, single));
    let (ours, usual) = (with(points::A.into(), points::B.into()), with(1.0, 2.0));
    assert!(ours < 0.6 * usual, "{ours} {usual}");
    assert!(direct < ours && ours < 8.0 * direct, "{direct} {ours}");
}
// ANCHOR_END: points_near_one_round_less
