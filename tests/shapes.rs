//! The algebra of shapes, on random ones.

use imagen::array::{Array, DType, Shape};
use imagen::autograd::Tensor;
use proptest::prelude::*;

/// Up to five axes of 0 to 4.
fn shapes() -> impl Strategy<Value = Shape> {
    prop::collection::vec(0_usize..5, 0..5).prop_map(Shape::from)
}

/// A shape, and one that broadcasts to it: axes missing in front, or of size 1.
fn broadcastable() -> impl Strategy<Value = (Shape, Shape)> {
    (shapes(), prop::collection::vec(any::<bool>(), 5), 0_usize..5).prop_map(|(whole, ones, missing)| {
        let part: Vec<usize> = whole.iter().zip(&ones).map(|(&n, &one)| if one { 1 } else { n }).collect();
        let part = Shape::from(&part[missing.min(part.len())..]);
        (whole, part)
    })
}

/// Sizes of 1 or one other, so that three random shapes fit each other often, and sometimes do not.
fn often_fitting() -> impl Strategy<Value = Shape> {
    prop::collection::vec(prop_oneof![4 => Just(1_usize), 4 => Just(3), 1 => Just(2)], 0..4).prop_map(Shape::from)
}

proptest! {
    // ANCHOR: broadcasting_commutes
    #[test]
    fn broadcasting_commutes(a in often_fitting(), b in often_fitting()) {
        prop_assert_eq!(a.broadcast(&b), b.broadcast(&a));
    }
    // ANCHOR_END: broadcasting_commutes

    // ANCHOR: broadcasting_associates
    #[test]
    fn broadcasting_associates(a in often_fitting(), b in often_fitting(), c in often_fitting()) {
        // Where one order fails the other one fails too.
        let left = a.broadcast(&b).and_then(|ab| ab.broadcast(&c));
        let right = b.broadcast(&c).and_then(|bc| a.broadcast(&bc));
        prop_assert_eq!(left, right);
    }
    // ANCHOR_END: broadcasting_associates

    #[test]
    fn broadcasting_is_idempotent_and_scalars_are_neutral(a in shapes()) {
        prop_assert_eq!(a.broadcast(&a), Some(a.clone()));
        prop_assert_eq!(a.broadcast(&Shape::default()), Some(a.clone()));
    }

    #[test]
    fn a_part_broadcasts_to_its_whole((whole, part) in broadcastable()) {
        prop_assert_eq!(part.broadcast(&whole), Some(whole.clone()));
    }

    #[test]
    fn sizes_that_differ_do_not_broadcast(a in 2_usize..6, b in 2_usize..6, rest in shapes()) {
        prop_assume!(a != b);
        let with = |n: usize| Shape::from([&[n], &rest[..]].concat());
        prop_assert_eq!(with(a).broadcast(&with(b)), None);
    }

    // ANCHOR: strides_count_through_memory
    /// Row-major: the indices, in order, have the positions 0, 1, 2, …; and at each of them lies the number of that place.
    #[test]
    fn strides_count_through_memory(shape in shapes()) {
        let strides = shape.strides();
        prop_assert_eq!(strides.len(), shape.len());
        let numbers: Vec<f64> = (0..shape.numel()).map(|i| i as f64).collect();
        let tensor = Tensor::from_f64(&shape, &numbers, DType::F64);
        for position in 0..shape.numel() {
            let (mut rest, mut offset, mut cell) = (position, 0, tensor.clone());
            for axis in (0..shape.len()).rev() {
                let i = rest % shape[axis];
                rest /= shape[axis];
                offset += i * strides[axis];
                cell = cell.slice(axis as isize, i..i + 1);
            }
            prop_assert_eq!((offset, cell.item()), (position, position as f64));
        }
    }
    // ANCHOR_END: strides_count_through_memory

    #[test]
    fn the_sizes_around_an_axis_make_up_the_whole(shape in shapes(), pick in any::<prop::sample::Index>()) {
        prop_assume!(!shape.is_empty());
        let axis = pick.index(shape.len());
        let (outer, size, inner) = shape.around(axis);
        prop_assert_eq!(outer * size * inner, shape.numel());
        prop_assert_eq!(size, shape[axis]);
        prop_assert_eq!(shape.without(axis).numel(), outer * inner);
        prop_assert_eq!(shape.with(axis, 7).numel(), outer * 7 * inner);
        prop_assert_eq!(&shape.with(axis, size), &shape);
        if shape.numel() > 0 {
            prop_assert_eq!(inner, shape.strides()[axis]);
        }
    }

    #[test]
    fn axes_count_from_both_ends(shape in shapes(), pick in any::<prop::sample::Index>()) {
        prop_assume!(!shape.is_empty());
        let axis = pick.index(shape.len());
        prop_assert_eq!(shape.axis(axis as isize), axis);
        prop_assert_eq!(shape.axis(axis as isize - shape.len() as isize), axis);
    }

    #[test]
    fn the_text_lists_the_sizes(shape in shapes()) {
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        prop_assert_eq!(shape.to_string(), format!("[{}]", sizes.join(", ")));
        prop_assert_eq!(format!("{shape:?}"), shape.to_string());
    }

    /// What `broadcast` promises is what the arithmetic does.
    #[test]
    fn sums_have_the_broadcast_shape((whole, part) in broadcastable()) {
        let ones = |shape: &Shape| Tensor::from_f64(shape, &vec![1.0; shape.numel()], DType::F64);
        let sum = &ones(&part) + &ones(&whole);
        prop_assert_eq!(sum.shape(), &whole);
        prop_assert!(sum.to_f64().iter().all(|&v| v == 2.0));
    }

    /// Broadcasting repeats numbers, and its adjoint adds up the repeats.
    #[test]
    fn repeats_are_counted((whole, part) in broadcastable()) {
        prop_assume!(part.numel() > 0);
        let repeated = Array::from_f64(&part, &vec![1.0; part.numel()], DType::F64).broadcast_to(&whole);
        let repeats = (whole.numel() / part.numel()) as f64;
        prop_assert!(repeated.sum_to(&part).to_f64().iter().all(|&v| v == repeats));
    }
}

#[test]
fn a_scalar_is_one_number_without_axes() {
    let scalar = Shape::default();
    assert_eq!((scalar.numel(), scalar.len(), scalar.strides()), (1, 0, vec![]));
    assert_eq!(Shape::from([2, 0, 3]).numel(), 0);
}

#[test]
#[should_panic(expected = "axis -3 of shape [2, 5] does not exist")]
fn an_axis_that_does_not_exist_is_named() {
    Shape::from([2, 5]).axis(-3);
}

#[test]
#[should_panic(expected = "image: expected 4 axes, found shape [2, 5]")]
fn a_wrong_number_of_axes_is_named() {
    Shape::from([2, 5]).dims::<4>("image");
}
