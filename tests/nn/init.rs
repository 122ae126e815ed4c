//! First values of parameters, and parameters as a set.

use super::random;
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::nn::{Conv2d, Fill, Init, Linear};
use std::f64::consts::PI;

const NORMAL: Fill = Fill::Normal(1.0);

// ANCHOR: a_first_value_depends_on_seed_and_name_alone
#[test]
fn a_first_value_depends_on_seed_and_name_alone() {
    let value = |seed: u64, name: &str| Init::new(seed, DType::F64).param(name, [50], NORMAL).tensor().into_array();
    let first = value(1, "a.b");
    assert!(!first.bit_eq(&value(2, "a.b")) && !first.bit_eq(&value(1, "a.c")));
    // Neither on what was made before, nor on how the name came about.
    let init = Init::new(1, DType::F64);
    init.param("b", [7], NORMAL);
    Linear::new(&init.scope("c"), 3, 4);
    assert!(first.bit_eq(init.scope("a").param("b", [50], NORMAL).tensor().array()));
    // A longer one begins the same, and f32 is f64 rounded.
    let longer = Init::new(1, DType::F32).param("a.b", [60], NORMAL).tensor().to_f64();
    let rounded: Vec<f64> = first.to_f64().iter().map(|&v| f64::from(v as f32)).collect();
    assert_eq!(longer[..50], rounded);
}
// ANCHOR_END: a_first_value_depends_on_seed_and_name_alone

#[test]
fn parameters_come_in_the_order_they_were_made() {
    let init = Init::new(0, DType::F32);
    let outer = init.scope("outer");
    Conv2d::same3x3(&outer.scope(0), 2, 3);
    outer.param("extra", [4], Fill::Ones);
    let parameters = init.parameters();
    let names: Vec<&str> = parameters.iter().map(|p| p.name()).collect();
    assert_eq!(names, ["outer.0.weight", "outer.0.bias", "outer.extra"]);
    assert_eq!((parameters.len(), parameters.count(), parameters.is_empty()), (3, 54 + 3 + 4, false));
    assert!(Init::new(0, DType::F32).parameters().is_empty());
}

#[test]
#[should_panic(expected = "there are two parameters named a.weight")]
fn two_parameters_of_one_name_are_refused() {
    let init = Init::new(0, DType::F32);
    init.scope("a").param("weight", [1], Fill::Zeros);
    init.param("a.weight", [1], Fill::Zeros);
}

// ANCHOR: first_values_have_the_mean_and_variance_asked_for
/// With n draws the mean has deviation s / sqrt(n), and the variance s^2 sqrt((kurtosis - 1) / n): five of them either way.
#[test]
fn first_values_have_the_mean_and_variance_asked_for() {
    const N: usize = 100_000;
    let moments = |fill: Fill| {
        let values = Init::new(9, DType::F64).param("p", [N], fill).tensor().to_f64();
        let mean = values.iter().sum::<f64>() / N as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / N as f64, values)
    };
    for (fill, variance, kurtosis) in [(Fill::Normal(0.3), 0.09, 3.0), (Fill::Uniform(0.6), 0.12, 1.8_f64)] {
        let (mean, found, values) = moments(fill);
        assert!(mean.abs() < 5.0 * (variance / N as f64).sqrt(), "{fill:?}: mean {mean}");
        let spread = variance * ((kurtosis - 1.0) / N as f64).sqrt();
        assert!((found - variance).abs() < 5.0 * spread, "{fill:?}: variance {found}");
        if let Fill::Uniform(bound) = fill {
            let largest = values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            assert!(largest <= bound && largest > 0.999 * bound, "{largest}");
        }
    }
    assert!(moments(Fill::Zeros).2.iter().all(|&v| v == 0.0) && moments(Fill::Ones).2.iter().all(|&v| v == 1.0));
}
// ANCHOR_END: first_values_have_the_mean_and_variance_asked_for

// ANCHOR: layers_start_within_their_bounds
/// PyTorch's bound: 1 / sqrt(numbers that one output is a sum of), for weight and bias.
#[test]
fn layers_start_within_their_bounds() {
    let init = Init::new(0, DType::F64);
    Linear::new(&init.scope("linear"), 100, 50);
    Conv2d::new(&init.scope("conv"), 4, 50, 5, 1, 0);
    for param in init.parameters().iter() {
        let largest = param.tensor().to_f64().iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(largest <= 0.1 && largest > 0.09, "{param:?}: {largest}");
    }
}
// ANCHOR_END: layers_start_within_their_bounds

#[test]
fn an_update_keeps_the_leaf_that_gradients_are_known_by() {
    let param = Init::new(0, DType::F64).param("p", [3], NORMAL);
    let gradients = param.tensor().square().sum_all().backward();
    let before = param.tensor().to_f64();
    let returned = param.update(|value| {
        value.make_mut::<f64>()[0] = 5.0;
        "done"
    });
    assert_eq!((returned, param.tensor().to_f64()[0]), ("done", 5.0));
    let twice: Vec<f64> = before.iter().map(|v| 2.0 * v).collect();
    assert_eq!(gradients.get(&param.tensor()).map(Array::to_f64), Some(twice));
    assert_eq!(param.clone().tensor().to_f64(), param.tensor().to_f64(), "clones are the same parameter");
}

#[test]
#[should_panic(expected = "p: a parameter keeps its shape and dtype")]
fn an_update_cannot_change_the_shape() {
    Init::new(0, DType::F64).param("p", [3], NORMAL).update(|value| *value = random(0, [4]));
}

#[test]
fn swapping_twice_changes_nothing() {
    let init = Init::new(0, DType::F64);
    Linear::new(&init, 2, 3);
    let (parameters, original) = (init.parameters(), init.parameters().values());
    let mut others = original.iter().map(|(name, a)| (name.clone(), random(1, a.shape()))).collect();
    let kept: std::collections::BTreeMap<String, Array> = Clone::clone(&others);
    parameters.swap(&mut others);
    assert!(parameters.values().iter().all(|(name, a)| a.bit_eq(&kept[name])));
    assert!(others.iter().all(|(name, a)| a.bit_eq(&original[name])));
    parameters.swap(&mut others);
    assert!(parameters.values().iter().all(|(name, a)| a.bit_eq(&original[name])));
}

// ANCHOR: a_layer_multiplies_the_mean_square_by_inputs_times_variance
/// y = W x has the mean square n v times that of x, where v is the variance of the n weights of a row. Given x, the m
/// outputs are independent; for normal weights they are normal and the mean of their squares has the relative deviation
/// sqrt(2 / m); for uniform weights less.
#[test]
fn a_layer_multiplies_the_mean_square_by_inputs_times_variance() {
    const N: usize = 100;
    const M: usize = 20_000;
    let mean_square = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>() / v.len() as f64;
    let x = Tensor::constant(random(4, [1, N]));
    for (fill, variance) in [(Fill::Normal(0.3), 0.09), (Fill::Uniform(0.1), 0.01 / 3.0)] {
        let weight = Init::new(5, DType::F64).param("w", [M, N], fill);
        let y = x.linear(&weight.tensor(), None).to_f64();
        let factor = mean_square(&y) / mean_square(&x.to_f64());
        let expected = N as f64 * variance;
        assert!((factor / expected - 1.0).abs() < 5.0 * (2.0 / M as f64).sqrt(), "{fill:?}: {factor}, {expected}");
    }
}
// ANCHOR_END: a_layer_multiplies_the_mean_square_by_inputs_times_variance

// ANCHOR: bends_keep_a_share_of_the_mean_square
/// E f(z)^2 for z from N(0, 1), as an integral: 1/2 for ReLU, 0.3558 for SiLU. SiLU's share depends on the size of z, from
/// 1/4 where it is nearly x/2 to 1/2 where it is nearly ReLU; ReLU's does not.
#[test]
fn bends_keep_a_share_of_the_mean_square() {
    let share = |bend: fn(&Tensor) -> Tensor, size: f64| {
        let step = 1e-3;
        let z: Vec<f64> = (0..=20_000).map(|i| f64::from(i) * step - 10.0).collect();
        let squares = bend(&(&Tensor::from_f64([z.len()], &z, DType::F64) * size)).square().to_f64();
        let density = |z: f64| (-z * z / 2.0).exp() / (2.0 * PI).sqrt();
        z.iter().zip(squares).map(|(&z, y)| density(z) * y * step).sum::<f64>() / (size * size)
    };
    for size in [0.1, 1.0, 10.0] {
        assert!((share(Tensor::relu, size) - 0.5).abs() < 1e-9);
    }
    assert!((share(Tensor::silu, 1.0) - 0.355_775_519_8).abs() < 1e-9);
    let shares = [0.01, 0.5, 1.0, 2.0, 100.0].map(|size| share(Tensor::silu, size));
    assert!(shares.is_sorted() && (shares[0] - 0.25).abs() < 1e-4 && (shares[4] - 0.5).abs() < 1e-4, "{shares:?}");
}
// ANCHOR_END: bends_keep_a_share_of_the_mean_square

// ANCHOR: two_over_inputs_keeps_the_size_through_relu_layers
/// Weights of variance g / n and ReLU: L layers multiply the mean square by (g / 2)^L in the mean over the weights. For
/// g = 2 one layer adds a relative variance of 5 / n (ReLU of a normal number has E y^4 / (E y^2)^2 = 6), L of them
/// (1 + 5 / n)^L - 1; five deviations of the mean over all seeds are allowed.
#[test]
fn two_over_inputs_keeps_the_size_through_relu_layers() {
    const N: usize = 64;
    const LAYERS: i32 = 6;
    const SEEDS: u64 = 200;
    let after = |gain: f64, seed: u64| {
        let init = Init::new(seed, DType::F64);
        let mut x = Tensor::constant(Array::from_vec([1, N], vec![1.0; N]));
        for layer in 0..LAYERS {
            let weight = init.param(&layer.to_string(), [N, N], Fill::Normal((gain / N as f64).sqrt())).tensor();
            x = x.linear(&weight, None).relu().detach();
        }
        x.square().mean_all().item()
    };
    let mean = (0..SEEDS).map(|seed| after(2.0, seed)).sum::<f64>() / SEEDS as f64;
    let spread = (((1.0 + 5.0 / N as f64).powi(LAYERS) - 1.0) / SEEDS as f64).sqrt();
    assert!((mean - 1.0).abs() < 5.0 * spread, "{mean}, allowed {}", 5.0 * spread);
    for gain in [1.0, 4.0] {
        let factor = after(gain, 0) / after(2.0, 0);
        assert!((factor / (gain / 2.0).powi(LAYERS) - 1.0).abs() < 1e-9, "gain {gain}: {factor}");
    }
}
// ANCHOR_END: two_over_inputs_keeps_the_size_through_relu_layers
