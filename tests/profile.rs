//! The profile counts what the primitives do. Alone in its binary: a profile is of the whole process.

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, no_grad};
use imagen::kernels::profile::{self, Cost};
use imagen::nn::Init;
use imagen::random::{Purpose, normal};
use imagen::unet::{UNet, UNetConfig};

/// The products and convolutions of one prediction of `mnist28` are the 554 million operations that its layers can be counted
/// to; a training step does each convolution three times, but need not find the gradient of the image.
#[test]
fn the_profile_counts_the_arithmetic_of_the_reference_network() {
    let net = UNet::new(UNetConfig::mnist28(), &Init::new(0, DType::F32)).unwrap();
    let draw = |index| Tensor::from_f64([1, 1, 28, 28], &normal(0, Purpose::Test, 0, index, 784), DType::F32);
    let of = |rows: &[(String, Cost)], name: &str| -> f64 {
        rows.iter().filter(|row| row.0.starts_with(name)).map(|row| row.1.flops).sum()
    };

    profile::start();
    no_grad(|| net.forward(&draw(0), &[0.5], None));
    let forward = profile::stop();
    let products = of(&forward.rows, "conv2d ") + of(&forward.rows, "matmul ");
    assert_eq!((products / 1e6).round(), 554.0);
    assert!(forward.rows.iter().all(|row| row.1.calls > 0 && row.1.bytes > 0.0));
    assert!(forward.rows.is_sorted_by(|a, b| a.1.time >= b.1.time));

    profile::start();
    drop(net.forward(&draw(0), &[0.5], None).mse(&draw(1)).backward());
    let step = profile::stop();
    let [once, input, weight] =
        ["conv2d ", "conv2d_grad_input ", "conv2d_grad_weight "].map(|name| of(&step.rows, name));
    assert_eq!((once, once), (of(&forward.rows, "conv2d "), weight));
    // conv_in: 9 weights, 32 channels out of 1
    assert_eq!(once - input, 2.0 * 9.0 * 32.0 * 784.0);

    let table = step.to_string();
    assert!(table.starts_with("primitive") && table.lines().last().unwrap().starts_with("all"), "{table}");
    assert_eq!(table.lines().count(), step.rows.len() + 2);

    // without a profile nothing is counted
    let _ = &Array::from_vec([2], vec![1.0, 2.0]) + &Array::from_vec([2], vec![1.0, 2.0]);
    assert!(profile::stop().rows.is_empty());
}
