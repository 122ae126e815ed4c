//! How good a finite difference is: the curvature it ignores, and the rounding it magnifies.

use num_like::Float;

/// The two precisions, as far as these tests need them.
mod num_like {
    pub trait Float: Copy {
        /// Distance from 1 to the next larger number.
        const EPS: f64;
        /// sin(x), computed in this precision.
        fn sin(x: f64) -> f64;
    }

    impl Float for f64 {
        const EPS: f64 = f64::EPSILON;
        fn sin(x: f64) -> f64 {
            x.sin()
        }
    }

    impl Float for f32 {
        const EPS: f64 = f32::EPSILON as f64;
        fn sin(x: f64) -> f64 {
            f64::from((x as f32).sin())
        }
    }
}

/// Error of the central difference of sin at 1, where sin was rounded to precision T. For powers of two as steps,
/// nothing else is rounded: 1 + h, 1 - h and the division by 2 h are exact.
fn error<T: Float>(h: f64) -> f64 {
    ((T::sin(1.0 + h) - T::sin(1.0 - h)) / (2.0 * h) - 1.0_f64.cos()).abs()
}

// ANCHOR: truncation_falls_with_the_square_of_the_step
/// |error| = h^2 / 6 |f'''| up to a part h^2 / 20 of itself, while rounding is far below; sin''' = -cos.
#[test]
fn truncation_falls_with_the_square_of_the_step() {
    for k in 2..8 {
        let h = 0.5_f64.powi(k);
        let law = h * h / 6.0 * 1.0_f64.cos();
        let rounding = f64::EPSILON / h;
        assert!((error::<f64>(h) - law).abs() <= law * h * h / 20.0 + rounding, "h = {h}");
    }
    // A one-sided difference has an error of first order instead: h / 2 |f''|.
    let one_sided = |h: f64| (((1.0 + h).sin() - 1.0_f64.sin()) / h - 1.0_f64.cos()).abs();
    for h in [1e-2, 1e-3, 1e-4] {
        assert!((one_sided(h) / (h / 2.0 * 1.0_f64.sin()) - 1.0).abs() < h, "h = {h}");
    }
}
// ANCHOR_END: truncation_falls_with_the_square_of_the_step

// ANCHOR: the_error_stays_below_curvature_plus_rounding
/// |error| <= h^2 / 6 M + eps F / h for every step, in both precisions; for the sine both M and F are at most 1.
#[test]
fn the_error_stays_below_curvature_plus_rounding() {
    fn check<T: Float>(smallest: i32) {
        for k in 1..=smallest {
            let h = 0.5_f64.powi(k);
            let bound = h * h / 6.0 + T::EPS / h;
            assert!(error::<T>(h) <= bound, "h = 2^-{k}: {:e} above {bound:e}", error::<T>(h));
        }
    }
    check::<f64>(52);
    check::<f32>(23);
}
// ANCHOR_END: the_error_stays_below_curvature_plus_rounding

// ANCHOR: the_best_step_is_a_cube_root
/// h = (3 eps F / M)^(1/3) is the lowest point of the bound, h^2 M / 2 there; and where the measured error is least.
#[test]
fn the_best_step_is_a_cube_root() {
    fn check<T: Float>(smallest: i32) {
        let (f, m) = (1.0_f64.sin(), 1.0_f64.cos());
        let bound = |h: f64| h * h / 6.0 * m + T::EPS * f / h;
        let best = (3.0 * T::EPS * f / m).cbrt();
        assert!((bound(best) - best * best * m / 2.0).abs() < 1e-12 * bound(best));
        for factor in [0.1, 0.5, 0.9, 0.99, 1.01, 1.1, 2.0, 10.0] {
            assert!(bound(best * factor) > bound(best));
        }
        // Rounding is a matter of luck step by step, so windows of five steps are compared by their worst.
        let worst = |k: i32| (k - 2..=k + 2).map(|k| error::<T>(0.5_f64.powi(k))).fold(0.0, f64::max);
        let found = (3..smallest - 2).min_by(|&a, &b| worst(a).total_cmp(&worst(b))).unwrap();
        let apart = (f64::from(-found) - best.log2()).abs();
        assert!(apart <= 3.0, "measured 2^-{found}, predicted {best:e}");
    }
    check::<f64>(52);
    check::<f32>(23);
}
// ANCHOR_END: the_best_step_is_a_cube_root
