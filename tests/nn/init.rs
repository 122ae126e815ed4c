//! First values of parameters, and parameters as a set.

use super::random;
use imagen::array::{Array, DType};
use imagen::nn::{Conv2d, Fill, Init, Linear};

const NORMAL: Fill = Fill::Normal(1.0);

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
