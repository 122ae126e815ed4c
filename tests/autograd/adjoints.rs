//! A linear map A and the A' that backward computes for it: <A x, y> = <x, A' y>, for random shapes and settings.

use imagen::array::{Array, DType, Shape};
use imagen::autograd::Tensor;
use imagen::random::{Purpose, normal};
use proptest::prelude::*;

fn random(seed: u64, index: u64, shape: &Shape) -> Array {
    Array::from_f64(shape, &normal(seed, Purpose::Test, 1, index, shape.numel()), DType::F64)
}

fn dot(a: &Array, b: &Array) -> f64 {
    a.to_f64().iter().zip(b.to_f64()).map(|(x, y)| x * y).sum()
}

// ANCHOR: assert_adjoint
/// Fails unless <A x, y> = <x, A' y> for random x and y, up to rounding.
fn assert_adjoint(seed: u64, shape: impl Into<Shape>, a: impl Fn(&Tensor) -> Tensor) -> Result<(), TestCaseError> {
    let x = Tensor::leaf(random(seed, 0, &shape.into()));
    let result = a(&x);
    let y = random(seed, 1, result.shape());
    let left = dot(result.array(), &y);
    let gradients = result.backward_with(y);
    let back = gradients.get(&x).expect("a gradient");
    prop_assert_eq!(back.shape(), x.shape());
    let right = dot(x.array(), back);
    let scale = dot(back, back).sqrt() * dot(x.array(), x.array()).sqrt();
    prop_assert!((left - right).abs() <= 1e-12 * scale.max(1.0), "<A x, y> = {}, <x, A' y> = {}", left, right);
    Ok(())
}
// ANCHOR_END: assert_adjoint

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    // ANCHOR: of_conv2d_in_its_input_and_in_its_weight
    #[test]
    fn of_conv2d_in_its_input_and_in_its_weight(
        seed in any::<u64>(), b in 1_usize..4, c in 1_usize..6, o in 1_usize..7, h in 1_usize..12, w in 1_usize..12,
        kh in 1_usize..6, kw in 1_usize..6, stride in 1_usize..4, padding in 0_usize..4,
    ) {
        prop_assume!(kh <= h + 2 * padding && kw <= w + 2 * padding);
        let (xs, ws) = (Shape::from([b, c, h, w]), Shape::from([o, c, kh, kw]));
        let (x, weight) = (Tensor::constant(random(seed, 2, &xs)), Tensor::constant(random(seed, 3, &ws)));
        assert_adjoint(seed, xs, |x| x.conv2d(&weight, None, stride, padding))?;
        assert_adjoint(seed, ws, |weight| x.conv2d(weight, None, stride, padding))?;
        let bias = |bias: &Tensor| x.conv2d(&Tensor::constant(weight.array().affine(0.0, 0.0)), Some(bias), stride, padding);
        assert_adjoint(seed, [o], bias)?;
    }
    // ANCHOR_END: of_conv2d_in_its_input_and_in_its_weight

    // ANCHOR: of_matmul_in_both_factors
    #[test]
    fn of_matmul_in_both_factors(
        seed in any::<u64>(), batch in 1_usize..4, shared in any::<bool>(), n in 1_usize..20, k in 1_usize..20, m in 1_usize..20,
        transpose_a in any::<bool>(), transpose_b in any::<bool>(),
    ) {
        let a = if transpose_a { [batch, k, n] } else { [batch, n, k] };
        let matrix = if transpose_b { [m, k] } else { [k, m] };
        let b: Shape = if shared { matrix.into() } else { [batch, matrix[0], matrix[1]].into() };
        let (left, right) = (Tensor::constant(random(seed, 2, &a.into())), Tensor::constant(random(seed, 3, &b)));
        assert_adjoint(seed, a, |a| a.matmul_t(&right, transpose_a, transpose_b))?;
        assert_adjoint(seed, b, |b| left.matmul_t(b, transpose_a, transpose_b))?;
    }
    // ANCHOR_END: of_matmul_in_both_factors

    // ANCHOR: of_slice_and_pad
    #[test]
    fn of_slice_and_pad(
        seed in any::<u64>(), sizes in prop::collection::vec(1_usize..6, 1..5), pick in any::<prop::sample::Index>(),
        cut in (0_usize..6, 0_usize..6), pad in (0_usize..4, 0_usize..4),
    ) {
        let axis = pick.index(sizes.len());
        let (from, to) = (cut.0.min(cut.1).min(sizes[axis]), cut.0.max(cut.1).min(sizes[axis]));
        assert_adjoint(seed, sizes.clone(), |x| x.slice(axis as isize, from..to))?;
        assert_adjoint(seed, sizes.clone(), |x| x.pad(axis as isize, pad.0, pad.1))?;
        // Each is the other's adjoint, and slicing undoes padding.
        let x = Tensor::constant(random(seed, 0, &sizes.clone().into()));
        let there_and_back = x.pad(axis as isize, pad.0, pad.1).slice(axis as isize, pad.0..pad.0 + sizes[axis]);
        prop_assert!(there_and_back.array().bit_eq(x.array()));
    }
    // ANCHOR_END: of_slice_and_pad

    // ANCHOR: of_every_resize
    #[test]
    fn of_every_resize(
        seed in any::<u64>(), b in 1_usize..3, c in 1_usize..4, h in 1_usize..8, w in 1_usize..8, factor in 1_usize..4,
        height in 1_usize..12, width in 1_usize..12,
    ) {
        let shape = [b, c, h, w];
        let blocks = [b, c, h * factor, w * factor];
        assert_adjoint(seed, shape, |x| x.upsample_nearest(factor))?;
        assert_adjoint(seed, blocks, |x| x.avg_pool2d(factor))?;
        assert_adjoint(seed, shape, |x| x.resize_nearest(height, width))?;
        assert_adjoint(seed, shape, |x| x.resize_bilinear(height, width))?;
        assert_adjoint(seed, blocks, |x| x.pixel_unshuffle(factor))?;
        assert_adjoint(seed, [b, c * factor * factor, h, w], |x| x.pixel_shuffle(factor))?;
        // Shuffling moves numbers and loses none; blocks average to what they were made of.
        let x = Tensor::constant(random(seed, 0, &blocks.into()));
        prop_assert!(x.pixel_unshuffle(factor).pixel_shuffle(factor).array().bit_eq(x.array()));
        let small = Tensor::constant(random(seed, 0, &shape.into()));
        let back = small.upsample_nearest(factor).avg_pool2d(factor).to_f64();
        prop_assert!(back.iter().zip(small.to_f64()).all(|(a, b)| (a - b).abs() <= 1e-14 * (1.0 + b.abs())));
        // Interpolation keeps constants: its weights add up to 1.
        let ones = Tensor::from_f64(shape, &vec![1.0; b * c * h * w], DType::F64);
        prop_assert!(ones.resize_bilinear(height, width).to_f64().iter().all(|v| (v - 1.0).abs() < 1e-14));
    }
    // ANCHOR_END: of_every_resize

    #[test]
    fn of_permute(
        seed in any::<u64>(),
        (sizes, order) in prop::collection::vec(1_usize..6, 0..6).prop_flat_map(|sizes| {
            let axes: Vec<usize> = (0..sizes.len()).collect();
            (Just(sizes), Just(axes).prop_shuffle())
        }),
    ) {
        assert_adjoint(seed, sizes.clone(), |x| x.permute(&order))?;
        let mut inverse = vec![0; order.len()];
        for (i, &axis) in order.iter().enumerate() {
            inverse[axis] = i;
        }
        let x = Tensor::constant(random(seed, 0, &sizes.into()));
        prop_assert!(x.permute(&order).permute(&inverse).array().bit_eq(x.array()));
    }

    // ANCHOR: of_broadcasting_and_sums
    #[test]
    fn of_broadcasting_and_sums(
        seed in any::<u64>(), sizes in prop::collection::vec(1_usize..5, 1..5), repeat in prop::collection::vec(any::<bool>(), 5),
        missing in 0_usize..4,
    ) {
        let part: Vec<usize> = sizes.iter().zip(&repeat).map(|(&n, &one)| if one { 1 } else { n }).collect();
        let part = &part[missing.min(part.len())..];
        assert_adjoint(seed, part, |x| x.broadcast_to(&sizes[..]))?;
        let axes: Vec<isize> = (0..sizes.len()).filter(|&a| repeat[a]).map(|a| a as isize).collect();
        for keep in [true, false] {
            assert_adjoint(seed, sizes.clone(), |x| x.sum(&axes, keep))?;
            assert_adjoint(seed, sizes.clone(), |x| x.mean(&axes, keep))?;
        }
    }
    // ANCHOR_END: of_broadcasting_and_sums
}
