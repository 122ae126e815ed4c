//! (H) Evaluation: the Fréchet distance and the agreement of pictures with their prompts.

use imagen::eval::linalg::{Eigen, product};
use imagen::eval::{Agreement, Moments, Share, frechet_distance};
use imagen::random::{Purpose, normal};
use safetensors::SafeTensors;
use std::time::Instant;

/// `n` standard normal features [n, d]; another `index` gives others.
fn gaussian(index: u64, n: usize, d: usize) -> Vec<f64> {
    normal(1, Purpose::Test, 0, index, n * d)
}

/// Features with correlations: every row of `gaussian` times one random matrix, plus `shift`.
fn correlated(index: u64, n: usize, d: usize, shift: f64) -> Vec<f64> {
    let (features, mixing) = (gaussian(index, n, d), gaussian(index + 1_000_000, d, d));
    let rows = features.chunks_exact(d);
    let mixed = |row: &[f64], j: usize| (0..d).map(|i| row[i] * mixing[i * d + j]).sum::<f64>() + shift;
    rows.flat_map(|row| (0..d).map(move |j| mixed(row, j))).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

fn transposed(a: &[f64], d: usize) -> Vec<f64> {
    (0..d * d).map(|i| a[i % d * d + i / d]).collect()
}

/// A = V' diag(values) V and V V' = 1, to rounding: full, rank-deficient, diagonal, zero and strongly graded matrices.
#[test]
fn h2_eigen_decomposition_rebuilds_the_matrix() {
    for d in [1, 2, 3, 7, 40] {
        let square = gaussian(3, d, d);
        let symmetric: Vec<f64> = square.iter().zip(transposed(&square, d)).map(|(a, b)| a + b).collect();
        let of_rank_2 = {
            let thin = gaussian(4, 2, d);
            (0..d * d).map(|i| thin[i / d] * thin[i % d] + thin[d + i / d] * thin[d + i % d]).collect::<Vec<f64>>()
        };
        let on_diagonal = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..d * d).map(|i| if i / d == i % d { f(i / d) } else { 0.0 }).collect()
        };
        let graded = (0..d * d).map(|i| symmetric[i] * 10f64.powi(-((i / d + i % d) as i32))).collect();
        let tiny = symmetric.iter().map(|v| v * 1e-200).collect();
        let diagonal = on_diagonal(&|i| ((i * 5) % 3) as f64);
        for a in [symmetric, of_rank_2, diagonal, on_diagonal(&|_| 0.0), graded, tiny] {
            let eigen = Eigen::of(&a, d);
            let size = a.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            assert!(largest_difference(&eigen.map(|v| v), &a) <= 1e-14 * d as f64 * size);
            let v_vt = product(&eigen.vectors, &transposed(&eigen.vectors, d), d);
            assert!(largest_difference(&v_vt, &on_diagonal(&|_| 1.0)) < 1e-14 * d as f64);
            assert!(eigen.values.is_sorted());
        }
    }
}

/// The second-difference matrix has the eigenvalues 2 - 2 cos(pi k / (d + 1)).
#[test]
fn h2_eigenvalues_of_a_known_matrix() {
    let d = 50usize;
    let a: Vec<f64> = (0..d * d)
        .map(|i| match (i / d).abs_diff(i % d) {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        })
        .collect();
    let expected: Vec<f64> =
        (1..=d).map(|k| 2.0 - 2.0 * (std::f64::consts::PI * k as f64 / (d + 1) as f64).cos()).collect();
    assert!(largest_difference(&Eigen::of(&a, d).values, &expected) < 1e-13);
}

// ANCHOR: h2_frechet_distance_agrees_with_scipy
/// (H2) against scipy's matrix square root.
#[test]
fn h2_frechet_distance_agrees_with_scipy() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/diffusion.safetensors")).unwrap();
    let fixture = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| -> Vec<f64> {
        let data = fixture.tensor(name).unwrap().data();
        data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let of = |name| Moments::of(&tensor(name), 8);
    let (a, b, expected) = (of("frechet.features1"), of("frechet.features2"), tensor("frechet.out")[0]);
    assert_eq!((a.n, b.n), (200, 150));
    let found = frechet_distance(&a, &b);
    assert!((found - expected).abs() < 1e-9 * expected, "{found} instead of {expected}");
}
// ANCHOR_END: h2_frechet_distance_agrees_with_scipy

/// (H2) is 0 between a distribution and itself; with fewer samples than dimensions, to the root of the rounding.
#[test]
fn h2_frechet_distance_is_zero_on_itself() {
    for (n, bound) in [(500, 1e-12), (10, 1e-7)] {
        let moments = Moments::of(&correlated(5, n, 16, 3.0), 16);
        let trace: f64 = moments.covariance.iter().step_by(17).sum();
        let found = frechet_distance(&moments, &moments);
        assert!(found <= bound * trace, "{n} samples: {found}");
    }
}

/// (H2) is symmetric, though C1 and C2 do not play the same part in tr (C1^{1/2} C2 C1^{1/2})^{1/2}.
#[test]
fn h2_frechet_distance_is_symmetric() {
    let (a, b) = (Moments::of(&correlated(6, 300, 12, 0.0), 12), Moments::of(&correlated(7, 200, 12, 0.5), 12));
    let (forth, back) = (frechet_distance(&a, &b), frechet_distance(&b, &a));
    assert!(forth > 1.0 && (forth - back).abs() < 1e-11 * forth, "{forth} and {back}");
}

// ANCHOR: h2_frechet_distance_is_invariant_to_rotation
/// (H2) does not change when one rotation turns both sets of features.
#[test]
fn h2_frechet_distance_is_invariant_to_rotation() {
    let d = 12;
    let (a, b) = (correlated(8, 300, d, 0.0), correlated(9, 200, d, 0.5));
    let square = gaussian(10, d, d);
    let symmetric: Vec<f64> = square.iter().zip(transposed(&square, d)).map(|(a, b)| a + b).collect();
    let rotation = Eigen::of(&symmetric, d).vectors;
    let rotate = |features: &[f64]| -> Vec<f64> {
        let rows = features.chunks_exact(d);
        rows.flat_map(|row| (0..d).map(|j| (0..d).map(|i| rotation[j * d + i] * row[i]).sum::<f64>())).collect()
    };
    let distance = |a: &[f64], b: &[f64]| frechet_distance(&Moments::of(a, d), &Moments::of(b, d));
    let (before, after) = (distance(&a, &b), distance(&rotate(&a), &rotate(&b)));
    assert!((before - after).abs() < 1e-11 * before, "{before} and {after}");
    assert!((distance(&a, &rotate(&b)) - before).abs() > 0.01 * before, "turning one of them alone does change it");
}
// ANCHOR_END: h2_frechet_distance_is_invariant_to_rotation

// ANCHOR: h2_frechet_distance_has_the_closed_form_in_one_dimension
/// (H2) in one dimension is (m1 - m2)^2 + (s1 - s2)^2.
#[test]
fn h2_frechet_distance_has_the_closed_form_in_one_dimension() {
    for (m1, s1, m2, s2) in [(0.0, 1.0, 0.0, 2.0), (1.0, 0.5, -2.0, 3.0), (4.0, 1.0, 4.5, 1.0), (0.0, 0.0, 1.0, 2.0)] {
        let of = |m: f64, s: f64| Moments { mean: vec![m], covariance: vec![s * s], n: 2 };
        let expected = (m1 - m2) * (m1 - m2) + (s1 - s2) * (s1 - s2);
        assert!((frechet_distance(&of(m1, s1), &of(m2, s2)) - expected).abs() < 1e-13);
    }
}
// ANCHOR_END: h2_frechet_distance_has_the_closed_form_in_one_dimension

/// The moments are those of the definition: mean and covariance with n - 1.
#[test]
fn h2_moments_of_three_points() {
    let moments = Moments::of(&[1.0, 2.0, 3.0, 2.0, 5.0, 8.0], 2);
    assert_eq!(moments, Moments { mean: vec![3.0, 4.0], covariance: vec![4.0, 6.0, 6.0, 12.0], n: 3 });
}

// ANCHOR: h2_bias_falls_as_one_over_the_sample_size
/// Two samples of n from one N(0, 1) in d dimensions are not at distance 0, but at about (2 d + d (d + 1) / 2) / n: the
/// means differ by 2 d / n, the covariances by |C1 - C2|^2 / 4 to lowest order. So distances of different n do not compare.
#[test]
fn h2_bias_falls_as_one_over_the_sample_size() {
    let (d, repeats) = (8, 100);
    let constant = (2 * d + d * (d + 1) / 2) as f64;
    println!("     n  distance of two samples of one distribution   expected");
    for n in [100, 200, 400, 800] {
        let found: Vec<f64> = (0..repeats)
            .map(|i| {
                let of = |index| Moments::of(&gaussian(index, n, d), d);
                frechet_distance(&of(1000 + 2 * i), &of(1001 + 2 * i))
            })
            .collect();
        let mean = found.iter().sum::<f64>() / repeats as f64;
        let variance = found.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (repeats - 1) as f64;
        let expected = constant / n as f64;
        println!("{n:6}  {mean:10.5}                                      {expected:8.5}");
        // Four standard errors of the mean, and the next order in 1 / n, of relative size d / n.
        let bound = 4.0 * (variance / repeats as f64).sqrt() + expected * d as f64 / n as f64;
        assert!((mean - expected).abs() < bound, "n = {n}: {mean} instead of {expected} ± {bound}");
        assert!(bound < 0.2 * expected, "the bound says something");
    }
}
// ANCHOR_END: h2_bias_falls_as_one_over_the_sample_size

/// d = 256, larger than any classifier here, takes a moment.
#[test]
fn h2_frechet_distance_of_256_features_is_fast() {
    let (a, b) = (Moments::of(&gaussian(11, 600, 256), 256), Moments::of(&gaussian(12, 600, 256), 256));
    let start = Instant::now();
    let distance = frechet_distance(&a, &b);
    let seconds = start.elapsed().as_secs_f64();
    println!("256 features: {seconds:.3} s");
    assert!(distance > 0.0);
    // The aim is 1 s; machines that run other tests beside this one get more.
    assert!(seconds < 5.0, "{seconds} s");
}

#[test]
#[should_panic(expected = "features of 2 and of 3 numbers")]
fn h2_dimensions_must_match() {
    frechet_distance(&Moments::of(&gaussian(1, 4, 2), 2), &Moments::of(&gaussian(1, 4, 3), 3));
}

#[test]
#[should_panic(expected = "NaN or infinity")]
fn h2_features_must_be_finite() {
    let moments = Moments::of(&[f64::NAN, 1.0, 2.0, 3.0], 2);
    frechet_distance(&moments, &moments);
}

fn example() -> Agreement {
    let mut agreement = Agreement::new(["zero", "one", "eight"]);
    for (asked, recognised, times) in [(0, 0, 96), (0, 2, 3), (0, 1, 1), (1, 1, 50)] {
        (0..times).for_each(|_| agreement.count(asked, recognised));
    }
    agreement
}

#[test]
fn agreement_counts_per_class_and_in_total() {
    let agreement = example();
    assert_eq!(agreement.confusion(), [[96, 1, 3], [0, 50, 0], [0, 0, 0]]);
    assert_eq!(agreement.of_class(0).rate, Some(0.96));
    assert_eq!((agreement.total().agreed, agreement.total().asked), (146, 150));
    assert_eq!(agreement.of_class(2).rate, None);
}

/// Wilson's interval holds the shares p with |p - agreed / n| <= z sqrt(p (1 - p) / n): its ends solve the equation.
#[test]
fn agreement_interval_is_wilsons() {
    for (agreed, asked) in [(0, 10), (1, 3), (96, 100), (970, 1000), (10, 10)] {
        let share = Share::new(agreed, asked);
        let rate = share.rate.unwrap();
        for end in share.interval {
            let bound = 1.959_963_984_540_054 * (end * (1.0 - end) / asked as f64).sqrt();
            assert!(((end - rate).abs() - bound).abs() < 1e-12, "{agreed} of {asked}: {end}");
        }
        assert!(share.interval[0] <= rate && rate <= share.interval[1] && share.interval[0] < share.interval[1]);
    }
    assert_eq!(Share::new(0, 0).interval, [0.0, 1.0]);
}

#[test]
fn agreement_prints_as_an_aligned_table() {
    let table = example().to_string();
    println!("{table}");
    let expected = "\
class   asked  agreement  95 % interval  mistaken for
zero      100     96.0 %   90.2 –  98.4  eight (3)
one        50    100.0 %   92.9 – 100.0
eight       0        – %      –
all       150     97.3 %   93.3 –  99.0
";
    assert_eq!(table, expected);
}

#[test]
fn agreement_serialises_with_all_that_follows_from_it() {
    let json = serde_json::to_value(example()).unwrap();
    assert_eq!(json["classes"][2], "eight");
    assert_eq!(json["confusion"][0], serde_json::json!([96, 1, 3]));
    assert_eq!(json["per_class"][0]["rate"], 0.96);
    assert!(json["per_class"][2]["rate"].is_null());
    assert_eq!(json["total"]["asked"], 150);
}

#[test]
#[should_panic(expected = "classes 3 and 0 of 3")]
fn agreement_refuses_a_class_that_does_not_exist() {
    example().count(3, 0);
}
