//! Batched matrix products: many small ones, or one large one in blocks of rows, spread over the cores.

mod panels;

use super::gemm::{Gemm, Mat, gemm};
use crate::array::{Array, Buffer, DType, Shape};
use rayon::prelude::*;

/// Rows of a result that one task computes. Blocks do not change the numbers: see [`gemm`].
const ROWS_PER_TASK: usize = 64;

/// Multiplications below which a task costs more to hand out than to do.
const SMALLEST_TASK: usize = 1 << 16;

/// Batched matrix product: a is [.., n, k] ([.., k, n] if `ta`), b is [.., k, m] ([.., m, k] if `tb`), the result
/// [.., n, m]; the leading axes broadcast. Panics if the shapes or the dtypes do not fit.
#[track_caller]
pub(super) fn matmul(a: &Array, b: &Array, ta: bool, tb: bool) -> Array {
    let plan = Plan::new(a.shape(), b.shape(), ta, tb);
    match a.dtype() {
        DType::F32 if panels::suits(&plan) => {
            Array::from_buffer(plan.shape.clone(), panels::run(a.slice(), b.slice(), &plan))
        }
        DType::F32 => Array::from_buffer(plan.shape.clone(), run::<f32>(a.slice(), b.slice(), &plan)),
        DType::F64 => Array::from_buffer(plan.shape.clone(), run::<f64>(a.slice(), b.slice(), &plan)),
    }
}

/// The sizes of a batched product and where each of its matrices starts.
struct Plan {
    shape: Shape,
    n: usize,
    k: usize,
    m: usize,
    ta: bool,
    tb: bool,
    /// Per product: where its a and its b start.
    starts: Vec<(usize, usize)>,
}

impl Plan {
    #[track_caller]
    fn new(a: &Shape, b: &Shape, ta: bool, tb: bool) -> Plan {
        let misfit = || -> ! { panic!("matmul: {a} (transposed: {ta}) times {b} (transposed: {tb})") };
        let (Some((a_lead, a_last)), Some((b_lead, b_last))) = (a.split_last_chunk(), b.split_last_chunk()) else {
            misfit()
        };
        let (&[a0, a1], &[b0, b1]): (&[usize; 2], &[usize; 2]) = (a_last, b_last);
        let (n, k) = if ta { (a1, a0) } else { (a0, a1) };
        let (kb, m) = if tb { (b1, b0) } else { (b0, b1) };
        let Some(lead) = Shape::from(a_lead).broadcast(&Shape::from(b_lead)) else { misfit() };
        if k != kb {
            misfit()
        }
        let shape = Shape::from([&lead[..], &[n, m]].concat());
        // One matrix b for all: the products are one product with all rows below each other.
        if b_lead.iter().all(|&size| size == 1) && !ta {
            return Plan { shape, n: lead.numel() * n, k, m, ta, tb, starts: vec![(0, 0)] };
        }
        let starts = (0..lead.numel()).map(|i| (start(i, &lead, a_lead) * n * k, start(i, &lead, b_lead) * k * m));
        Plan { starts: starts.collect(), shape, n, k, m, ta, tb }
    }
}

/// Which matrix of an operand with leading axes `sizes` goes into product `index` of those of `lead`.
fn start(mut index: usize, lead: &[usize], sizes: &[usize]) -> usize {
    let (mut result, mut stride) = (0, 1);
    for (&size, &all) in sizes.iter().rev().zip(lead.iter().rev()) {
        if size > 1 {
            result += index % all * stride;
        }
        index /= all;
        stride *= size;
    }
    result
}

// ANCHOR: run
fn run<T: Gemm>(a: &[T], b: &[T], plan: &Plan) -> Buffer<T> {
    let &Plan { n, k, m, ta, tb, .. } = plan;
    let mut result = Buffer::scratch(plan.starts.len() * n * m);
    if result.is_empty() {
        return result;
    }
    let at_once = (SMALLEST_TASK / (n * m * k).max(1)).max(1);
    result.par_chunks_mut(n * m).zip(&plan.starts).with_min_len(at_once).for_each(|(result, &(a_start, b_start))| {
        let (a_rows, a_cols) = if ta { (k, n) } else { (n, k) };
        let (b_rows, b_cols) = if tb { (m, k) } else { (k, m) };
        let a = Mat::new(&a[a_start..], a_rows, a_cols, a_cols).t_if(ta);
        let b = Mat::new(&b[b_start..], b_rows, b_cols, b_cols).t_if(tb);
        let rows_at_once = ROWS_PER_TASK.max(SMALLEST_TASK / (m * k).max(1));
        result.par_chunks_mut(rows_at_once * m).enumerate().for_each(|(i, result)| {
            gemm(a.row_block(i * rows_at_once, result.len() / m), b, T::zero(), result, m);
        });
    });
    result
}
// ANCHOR_END: run

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal};
    use proptest::prelude::*;

    fn random(shape: &[usize], seed: u64) -> Array {
        let shape = Shape::from(shape);
        Array::from_vec(shape.clone(), normal(seed, Purpose::Test, 0, 0, shape.numel()))
    }

    /// The definition, number by number.
    fn reference(a: &Array, b: &Array, ta: bool, tb: bool) -> Vec<f64> {
        let lead = |s: &Shape| Shape::from(&s[..s.len() - 2]);
        let (a_lead, b_lead) = (lead(a.shape()), lead(b.shape()));
        let all = a_lead.broadcast(&b_lead).unwrap();
        let last =
            |s: &Shape, t: bool| if t { (s[s.len() - 1], s[s.len() - 2]) } else { (s[s.len() - 2], s[s.len() - 1]) };
        let ((n, k), (_, m)) = (last(a.shape(), ta), last(b.shape(), tb));
        let pick = |i: usize, own: &Shape| -> usize {
            let digits: Vec<usize> = all.strides().iter().zip(all.iter()).map(|(&s, &d)| i / s % d).collect();
            let skip = all.len() - own.len();
            own.strides().iter().enumerate().map(|(j, &s)| if own[j] == 1 { 0 } else { digits[skip + j] * s }).sum()
        };
        let (av, bv) = (a.to_f64(), b.to_f64());
        let mut result = vec![];
        for p in 0..all.numel() {
            let (pa, pb) = (pick(p, &a_lead) * n * k, pick(p, &b_lead) * k * m);
            for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
                let at = |l| av[pa + if ta { l * n + i } else { i * k + l }];
                let bt = |l| bv[pb + if tb { j * k + l } else { l * m + j }];
                result.push((0..k).map(|l| at(l) * bt(l)).sum());
            }
        }
        result
    }

    fn check(a_lead: &[usize], b_lead: &[usize], [n, k, m]: [usize; 3], ta: bool, tb: bool) {
        let shape = |lead: &[usize], last: [usize; 2]| [lead, &last].concat();
        let a = random(&shape(a_lead, if ta { [k, n] } else { [n, k] }), 1);
        let b = random(&shape(b_lead, if tb { [m, k] } else { [k, m] }), 2);
        let expected = reference(&a, &b, ta, tb);
        let result = matmul(&a, &b, ta, tb);
        assert_eq!(result.numel(), expected.len());
        let single = matmul(&a.cast(DType::F32), &b.cast(DType::F32), ta, tb).to_f64();
        let scale = 1.0 + (k as f64).sqrt();
        for ((x, y), z) in result.to_f64().iter().zip(&expected).zip(single) {
            assert!((x - y).abs() < 1e-13 * scale, "{x} {y}");
            assert!((z - y).abs() < 1e-5 * scale, "{z} {y}");
        }
    }

    proptest! {
        // ANCHOR: agrees_with_the_definition
        #[test]
        fn agrees_with_the_definition(n in 0usize..20, k in 0usize..20, m in 0usize..50, lead in 0usize..6, ta: bool, tb: bool) {
            let leads: [(&[usize], &[usize]); 6] =
                [(&[], &[]), (&[3], &[3]), (&[2, 3], &[]), (&[3], &[2, 1]), (&[2, 1], &[1, 3]), (&[1], &[0])];
            let (a, b) = leads[lead];
            check(a, b, [n, k, m], ta, tb);
        }
        // ANCHOR_END: agrees_with_the_definition
    }

    #[test]
    fn large_products_are_split_into_blocks_of_rows() {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            check(&[], &[], [301, 65, 77], ta, tb);
            check(&[2], &[2], [131, 257, 33], ta, tb);
        }
    }

    /// Blocks in both directions, the last ones cut short, alone and in a batch.
    #[test]
    fn a_large_right_factor_is_gone_through_in_blocks() {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            check(&[], &[], [9, 1030, 531], ta, tb);
            check(&[2], &[2], [3, 520, 517], ta, tb);
        }
    }

    /// A row is the same sum whatever is computed with it.
    #[test]
    fn a_row_of_a_large_product_does_not_depend_on_the_others() {
        let (a, b) = (random(&[70, 1030], 1).cast(DType::F32), random(&[531, 1030], 2).cast(DType::F32));
        let all = matmul(&a, &b, false, true).to_f32();
        for row in [0, 7, 69] {
            let one = Array::from_vec([1, 1030], a.slice::<f32>()[row * 1030..][..1030].to_vec());
            assert_eq!(matmul(&one, &b, false, true).to_f32(), all[row * 531..][..531]);
        }
    }

    /// Most machines only ever take one of these ways.
    #[test]
    fn every_vector_width_agrees_with_the_definition() {
        let mut widths = vec![pulp::Arch::Scalar, pulp::Arch::new()];
        #[cfg(target_arch = "x86_64")]
        widths.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let a = random(if ta { &[3, 21, 13] } else { &[3, 13, 21] }, 1);
            let b = random(if tb { &[3, 37, 21] } else { &[3, 21, 37] }, 2);
            let expected = reference(&a, &b, ta, tb);
            let plan = Plan::new(a.shape(), b.shape(), ta, tb);
            for &arch in &widths {
                let result = panels::run_on(arch, &a.to_f32(), &b.to_f32(), &plan);
                assert!(result.iter().zip(&expected).all(|(&x, y)| (f64::from(x) - y).abs() < 1e-4));
            }
        }
    }

    // ANCHOR: result_does_not_depend_on_the_number_of_threads
    #[test]
    fn result_does_not_depend_on_the_number_of_threads() {
        let (a, b) = (random(&[2, 301, 65], 1).cast(DType::F32), random(&[2, 65, 77], 2).cast(DType::F32));
        let with = |n| {
            rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(|| matmul(&a, &b, false, false))
        };
        assert!(with(1).bit_eq(&with(2)));
    }
    // ANCHOR_END: result_does_not_depend_on_the_number_of_threads

    #[test]
    #[should_panic(expected = "matmul: [2, 3] (transposed: false) times [2, 3] (transposed: false)")]
    fn misfit_names_both_shapes() {
        matmul(&random(&[2, 3], 1), &random(&[2, 3], 2), false, false);
    }
}
