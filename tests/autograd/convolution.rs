//! What chapter 4 of the book says of convolutions, against loops and matrices written out here.

use super::random;
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::kernels::ConvShape;

/// Sizes of a convolution with a square kernel: (B, C, O), (H, W), (k, s, p).
type Case = ([usize; 3], [usize; 2], [usize; 3]);

const CASES: [Case; 5] = [
    ([1, 1, 1], [4, 4], [3, 1, 0]),
    ([2, 3, 2], [5, 6], [3, 1, 1]),
    ([2, 2, 3], [7, 5], [3, 2, 1]),
    ([1, 2, 2], [6, 7], [2, 2, 0]),
    ([2, 1, 2], [5, 5], [5, 3, 2]),
];

/// Random x, weight, bias and output gradient of a case, the outputs, and the gradients of x, weight and bias.
struct Passes {
    x: Vec<f64>,
    weight: Vec<f64>,
    g: Vec<f64>,
    y: Vec<f64>,
    out: [usize; 2],
    dx: Vec<f64>,
    dw: Vec<f64>,
    db: Vec<f64>,
}

fn passes(([b, c, o], [h, w], [k, s, p]): Case) -> Passes {
    let (x, weight) = (Tensor::leaf(random(0, [b, c, h, w])), Tensor::leaf(random(1, [o, c, k, k])));
    let bias = Tensor::leaf(Array::from_f64([o], &vec![0.0; o], DType::F64));
    let y = x.conv2d(&weight, Some(&bias), s, p);
    let out = [y.shape()[2], y.shape()[3]];
    let g = random(2, [b, o, out[0], out[1]]);
    let gradients = y.backward_with(g.clone());
    let of = |leaf: &Tensor| gradients.get(leaf).expect("a gradient").to_f64();
    Passes {
        x: x.to_f64(),
        weight: weight.to_f64(),
        g: g.to_f64(),
        y: y.to_f64(),
        out,
        dx: of(&x),
        dw: of(&weight),
        db: of(&bias),
    }
}

/// Sums of at most some hundred products of numbers near 1, in another order: far below 1e-12 apart.
#[track_caller]
fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() < 1e-12, "number {i}: {x} and {y}");
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

// ANCHOR: the_worked_example_of_the_three_passes
/// The numbers of the chapter, by hand.
#[test]
fn the_worked_example_of_the_three_passes() {
    let leaf = |side, values: &[f64]| Tensor::leaf(Array::from_f64([1, 1, side, side], values, DType::F64));
    let x = leaf(4, &[1., 2., 0., 1., 0., 1., 3., 2., 2., 1., 0., 1., 1., 0., 2., 3.]);
    let w = leaf(3, &[1., 0., -1., 2., 0., -2., 1., 0., -1.]);
    let y = x.conv2d(&w, None, 1, 0);
    assert_eq!(y.to_f64(), [-3., -1., 0., -4.]);
    let g = Array::from_f64([1, 1, 2, 2], &[1., 0., 0., 2.], DType::F64);
    let gradients = y.backward_with(g.clone());
    let (dx, dw) = (gradients.get(&x).unwrap().to_f64(), gradients.get(&w).unwrap().to_f64());
    assert_eq!(dx, [1., 0., -1., 0., 2., 2., -2., -2., 1., 4., -1., -4., 0., 2., 0., -2.]);
    assert_eq!(dw, [3., 8., 4., 2., 1., 5., 2., 5., 6.]);
    assert_eq!([dot(&y.to_f64(), &g.to_f64()), dot(&x.to_f64(), &dx), dot(&w.to_f64(), &dw)], [-11.0; 3]);
}
// ANCHOR_END: the_worked_example_of_the_three_passes

// ANCHOR: a_map_that_commutes_with_shifts_is_a_convolution
/// On a ring of pixels: the mean of S^-d R S^d over all shifts d commutes with shifts, for any matrix R.
#[test]
fn a_map_that_commutes_with_shifts_is_a_convolution() {
    let n = 7;
    let r = random(0, [n, n]).to_f64();
    let entry = |i: usize, m: usize| (0..n).map(|d| r[(i + d) % n * n + (m + d) % n]).sum::<f64>() / n as f64;
    let apply = |x: &[f64]| (0..n).map(|i| (0..n).map(|m| entry(i, m) * x[m]).sum()).collect::<Vec<f64>>();
    let shifted = |x: &[f64], d: usize| (0..n).map(|i| x[(i + n - d) % n]).collect::<Vec<f64>>();
    let x = random(1, [n]).to_f64();
    (1..n).for_each(|d| close(&apply(&shifted(&x, d)), &shifted(&apply(&x), d)));
    // h is the answer to a single one at pixel 0; a convolution reads it backwards. The ring, cut open,
    // lies twice in a row.
    let one: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i == 0))).collect();
    let h = apply(&one);
    let weight: Vec<f64> = (0..n).map(|v| h[(n - v) % n]).collect();
    let twice = [&x[..], &x[..n - 1]].concat();
    let y = Tensor::from_f64([1, 1, 1, 2 * n - 1], &twice, DType::F64)
        .conv2d(&Tensor::from_f64([1, 1, 1, n], &weight, DType::F64), None, 1, 0)
        .to_f64();
    close(&apply(&x), &y);
}
// ANCHOR_END: a_map_that_commutes_with_shifts_is_a_convolution

// ANCHOR: output_size_counts_the_places_of_the_kernel
#[test]
fn output_size_counts_the_places_of_the_kernel() {
    for (size, kernel, stride, padding) in
        (1..12).flat_map(|h| (1..7).flat_map(move |k| (1..5).flat_map(move |s| (0..4).map(move |p| (h, k, s, p)))))
    {
        // Output i reads the padded pixels s i .. s i + k: count the i for which all of them exist.
        let places = (0..).take_while(|i| stride * i + kernel <= size + 2 * padding).count();
        let output = ConvShape { stride, padding }.output(size, kernel);
        assert_eq!(output.unwrap_or(0), places, "H {size}, k {kernel}, s {stride}, p {padding}");
    }
}
// ANCHOR_END: output_size_counts_the_places_of_the_kernel

// ANCHOR: a_convolution_is_a_sparse_matrix_and_its_gradient_the_transpose
#[test]
fn a_convolution_is_a_sparse_matrix_and_its_gradient_the_transpose() {
    for case in CASES {
        let (([_, c, o], [h, w], [k, s, p]), all) = (case, passes(case));
        let [ho, wo] = all.out;
        // A[(o, i, j), (c, m, n)] = weight[o, c, m - s i + p, n - s j + p], and 0 where that is outside
        // the kernel.
        let entry = |row: usize, column: usize| {
            let (q, i, j) = (row / wo / ho, row / wo % ho, row % wo);
            let (d, m, n) = (column / w / h, column / w % h, column % w);
            let (u, v) = ((m + p).checked_sub(s * i)?, (n + p).checked_sub(s * j)?);
            (u < k && v < k).then(|| all.weight[((q * c + d) * k + u) * k + v])
        };
        let (rows, columns) = (o * ho * wo, c * h * w);
        for row in 0..rows {
            let filled = (0..columns).filter(|&column| entry(row, column).is_some()).count();
            assert!(filled <= c * k * k && (p > 0 || filled == c * k * k));
        }
        let a = |row: usize, column: usize| entry(row, column).unwrap_or(0.0);
        for (x, y) in all.x.chunks_exact(columns).zip(all.y.chunks_exact(rows)) {
            close(y, &(0..rows).map(|i| (0..columns).map(|j| a(i, j) * x[j]).sum()).collect::<Vec<f64>>());
        }
        for (g, dx) in all.g.chunks_exact(rows).zip(all.dx.chunks_exact(columns)) {
            close(dx, &(0..columns).map(|j| (0..rows).map(|i| a(i, j) * g[i]).sum()).collect::<Vec<f64>>());
        }
    }
}
// ANCHOR_END: a_convolution_is_a_sparse_matrix_and_its_gradient_the_transpose

// ANCHOR: at_stride_one_the_input_gradient_is_a_convolution_with_the_turned_kernel
#[test]
fn at_stride_one_the_input_gradient_is_a_convolution_with_the_turned_kernel() {
    for (k, p) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (5, 2)] {
        let case = ([2, 3, 2], [6, 7], [k, 1, p]);
        let ([b, c, o], all) = (case.0, passes(case));
        // turned[c, o, u, v] = weight[o, c, k - 1 - u, k - 1 - v]
        let turned: Vec<f64> = (0..c * o * k * k)
            .map(|at| (at / k / k / o, at / k / k % o, at / k % k, at % k))
            .map(|(d, q, u, v)| all.weight[((q * c + d) * k + k - 1 - u) * k + k - 1 - v])
            .collect();
        let dx = Tensor::from_f64([b, o, all.out[0], all.out[1]], &all.g, DType::F64).conv2d(
            &Tensor::from_f64([c, o, k, k], &turned, DType::F64),
            None,
            1,
            k - 1 - p,
        );
        close(&all.dx, &dx.to_f64());
    }
}
// ANCHOR_END: at_stride_one_the_input_gradient_is_a_convolution_with_the_turned_kernel

// ANCHOR: weight_and_bias_gradients_are_sums_over_images_and_places
#[test]
fn weight_and_bias_gradients_are_sums_over_images_and_places() {
    for case in CASES {
        let (([b, c, o], [h, w], [k, s, p]), all) = (case, passes(case));
        let [ho, wo] = all.out;
        let (mut dw, mut db) = (vec![0.0; all.dw.len()], vec![0.0; o]);
        for (at, g) in all.g.iter().enumerate() {
            let (image, q, i, j) = (at / wo / ho / o, at / wo / ho % o, at / wo % ho, at % wo);
            db[q] += g;
            for (d, u, v) in (0..c * k * k).map(|tap| (tap / k / k, tap / k % k, tap % k)) {
                if (p..h + p).contains(&(s * i + u)) && (p..w + p).contains(&(s * j + v)) {
                    let pixel = ((image * c + d) * h + s * i + u - p) * w + s * j + v - p;
                    dw[((q * c + d) * k + u) * k + v] += g * all.x[pixel];
                }
            }
        }
        assert_eq!(all.g.len(), b * o * ho * wo);
        close(&all.dw, &dw);
        close(&all.db, &db);
    }
}
// ANCHOR_END: weight_and_bias_gradients_are_sums_over_images_and_places

// ANCHOR: products_with_the_matrix_of_patches_are_the_three_passes
#[test]
fn products_with_the_matrix_of_patches_are_the_three_passes() {
    for case in CASES.map(|([_, c, o], size, kernel)| ([1, c, o], size, kernel)) {
        let (([_, c, o], [h, w], [k, s, p]), all) = (case, passes(case));
        let (rows, n) = (c * k * k, all.out[0] * all.out[1]);
        // Where the number in row (c, u, v) and column (i, j) of col comes from; none is padding.
        let source = |row: usize, column: usize| {
            let (d, u, v) = (row / k / k, row / k % k, row % k);
            let (i, j) = (column / all.out[1], column % all.out[1]);
            let (y, x) = ((s * i + u).checked_sub(p)?, (s * j + v).checked_sub(p)?);
            (y < h && x < w).then_some((d * h + y) * w + x)
        };
        let places: Vec<_> = (0..rows * n).map(|at| source(at / n, at % n)).collect();
        let col: Vec<f64> = places.iter().map(|place| place.map_or(0.0, |at| all.x[at])).collect();
        let matrix = |rows, columns, values: &[f64]| Tensor::from_f64([rows, columns], values, DType::F64);
        let (col, weight, g) = (matrix(rows, n, &col), matrix(o, rows, &all.weight), matrix(o, n, &all.g));
        close(&all.y, &weight.matmul(&col).to_f64());
        close(&all.dw, &g.matmul_t(&col, false, true).to_f64());
        let mut dx = vec![0.0; all.dx.len()];
        for (place, value) in places.iter().zip(weight.matmul_t(&g, true, false).to_f64()) {
            if let Some(at) = *place {
                dx[at] += value;
            }
        }
        close(&all.dx, &dx);
    }
}
// ANCHOR_END: products_with_the_matrix_of_patches_are_the_three_passes

// ANCHOR: products_are_counted_by_the_formula
/// With ones everywhere, in place of the padding's zeros too, each product is 1, so that the sum of all outputs counts them.
#[test]
fn products_are_counted_by_the_formula() {
    for ([b, c, o], [h, w], [k, s, p]) in CASES {
        let ones = |shape: [usize; 4]| Tensor::from_f64(shape, &vec![1.0; shape.iter().product::<usize>()], DType::F64);
        let out = passes(([b, c, o], [h, w], [k, s, p])).out;
        let y = ones([b, c, h + 2 * p, w + 2 * p]).conv2d(&ones([o, c, k, k]), None, s, 0);
        assert_eq!(y.sum_all().item(), (b * o * out[0] * out[1] * c * k * k) as f64);
    }
}
// ANCHOR_END: products_are_counted_by_the_formula

// ANCHOR: receptive_field_is_what_a_gradient_reaches
#[test]
fn receptive_field_is_what_a_gradient_reaches() {
    let networks: [&[(usize, usize)]; 5] =
        [&[(3, 1)], &[(3, 1), (3, 1)], &[(5, 1), (3, 2), (3, 2)], &[(3, 2), (3, 2), (3, 1)], &[(2, 2), (1, 1), (5, 3)]];
    for layers in networks {
        let (mut field, mut step) = (1, 1);
        for (k, s) in layers {
            field += (k - 1) * step;
            step *= s;
        }
        let x = Tensor::leaf(Array::from_f64([1, 1, 1, 60], &[1.0; 60], DType::F64));
        let mut y = x.clone();
        for &(k, s) in layers {
            y = y.conv2d(&Tensor::from_f64([1, 1, 1, k], &vec![1.0; k], DType::F64), None, s, 0);
        }
        // The gradient of one output, the second.
        let mut g = vec![0.0; y.numel()];
        g[1] = 1.0;
        let dx = y.backward_with(Array::from_f64(y.shape(), &g, DType::F64)).take(&x).unwrap().to_f64();
        let reached: Vec<usize> = (0..60).filter(|&i| dx[i] != 0.0).collect();
        let expected: Vec<usize> = (step..step + field).collect();
        assert!(reached.iter().all(|i| expected.contains(i)));
        assert_eq!([reached[0], reached[reached.len() - 1]], [step, step + field - 1], "{layers:?}");
    }
}
// ANCHOR_END: receptive_field_is_what_a_gradient_reaches

// ANCHOR: repeating_is_a_multiple_of_the_adjoint_of_averaging
#[test]
fn repeating_is_a_multiple_of_the_adjoint_of_averaging() {
    for f in [1, 2, 3] {
        let large = Tensor::leaf(random(0, [2, 3, 4 * f, 5 * f]));
        let g = random(1, [2, 3, 4, 5]);
        let adjoint = large.avg_pool2d(f).backward_with(g.clone()).take(&large).unwrap();
        let small = Tensor::leaf(g);
        close(&small.upsample_nearest(f).to_f64(), &adjoint.affine((f * f) as f64, 0.0).to_f64());
        // And the other way round: the adjoint of repeating is the sum over the blocks.
        let sums = small.upsample_nearest(f).backward_with(large.array().clone()).take(&small).unwrap();
        close(&sums.to_f64(), &large.avg_pool2d(f).array().affine((f * f) as f64, 0.0).to_f64());
        // Averaging undoes repeating.
        close(&small.upsample_nearest(f).avg_pool2d(f).to_f64(), &small.to_f64());
    }
    // The numbers of the chapter.
    let leaf = |side, values: &[f64]| Tensor::leaf(Array::from_f64([1, 1, side, side], values, DType::F64));
    let (pixel, block) = (leaf(1, &[3.0]), leaf(2, &[1.0, 2.0, 3.0, 4.0]));
    let (repeated, mean) = (pixel.upsample_nearest(2), block.avg_pool2d(2));
    assert_eq!((repeated.to_f64(), mean.to_f64()), (vec![3.0; 4], vec![2.5]));
    assert_eq!(repeated.backward_with(block.array().clone()).take(&pixel).unwrap().to_f64(), [10.0]);
    assert_eq!(mean.backward_with(leaf(1, &[8.0]).into_array()).take(&block).unwrap().to_f64(), [2.0; 4]);
}
// ANCHOR_END: repeating_is_a_multiple_of_the_adjoint_of_averaging
