//! Mistakes with shapes and dtypes panic with the name of the op and both shapes.

use super::{panic_message, random};
use imagen::array::DType;
use imagen::autograd::{Tensor, concat};

fn tensor<const N: usize>(shape: [usize; N]) -> Tensor {
    Tensor::leaf(random(0, shape))
}

/// Fails unless the panic of `f` mentions all of `parts`.
#[track_caller]
fn assert_mentions<R>(parts: &[&str], f: impl FnOnce() -> R) {
    let message = panic_message(f);
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn elementwise_shapes_that_do_not_fit() {
    let (a, b) = (tensor([2, 3]), tensor([2, 4]));
    assert_mentions(&["add", "[2, 3]", "[2, 4]"], || &a + &b);
    assert_mentions(&["sub", "[2, 3]", "[2, 4]"], || &a - &b);
    assert_mentions(&["mul", "[2, 3]", "[2, 4]"], || &a * &b);
    assert_mentions(&["div", "[2, 3]", "[2, 4]"], || &a / &b);
    assert_mentions(&["maximum", "[2, 3]", "[2, 4]"], || a.maximum(&b));
    assert_mentions(&["minimum", "[2, 3]", "[2, 4]"], || a.minimum(&b));
    assert_mentions(&["mse", "[2, 3]", "[2, 4]"], || a.mse(&b));
    assert_mentions(&["clamp", "2", "1"], || a.clamp(2.0, 1.0));
}

#[test]
fn dtypes_that_differ() {
    let (a, b) = (tensor([2, 3]), Tensor::constant(random(0, [2, 3]).cast(DType::F32)));
    assert_mentions(&["add", "dtypes", "[2, 3]"], || &a + &b);
    assert_mentions(&["matmul", "dtypes", "[2, 3]"], || a.matmul_t(&b, true, false));
    assert_mentions(&["concat", "f32", "f64"], || concat(&[&a, &b], 0));
    assert_mentions(&["backward_with", "dtype"], || a.backward_with(b.array().clone()));
    let (image, weight) = (tensor([1, 2, 4, 4]), Tensor::constant(random(0, [3, 2, 3, 3]).cast(DType::F32)));
    assert_mentions(&["conv2d", "dtypes", "[1, 2, 4, 4]", "[3, 2, 3, 3]"], || image.conv2d(&weight, None, 1, 1));
    let scale = Tensor::constant(random(0, [2]).cast(DType::F32));
    assert_mentions(&["group_norm", "dtypes", "[1, 2, 4, 4]", "[2]"], || image.group_norm(&scale, &scale, 1, 1e-5));
}

#[test]
fn matrices_that_do_not_fit() {
    let (a, b) = (tensor([2, 3]), tensor([2, 4]));
    assert_mentions(&["matmul", "[2, 3]", "[2, 4]"], || a.matmul(&b));
    assert_mentions(&["matmul", "[2, 3] transposed", "[2, 4] transposed"], || a.matmul_t(&b, true, true));
    assert_mentions(&["matmul", "[5, 2, 3]", "[4, 3, 2]", "leading"], || tensor([5, 2, 3]).matmul(&tensor([4, 3, 2])));
    assert_mentions(&["matmul", "[3]", "two axes"], || tensor([3]).matmul(&b));
    assert_mentions(&["linear", "[2, 3]", "[5, 4]"], || a.linear(&tensor([5, 4]), None));
    // A bias that would broadcast, and hide the mistake.
    assert_mentions(&["linear", "[5, 3]", "[1]"], || a.linear(&tensor([5, 3]), Some(&tensor([1]))));
    assert_mentions(&["linear", "[5, 3]", "[2, 5]"], || a.linear(&tensor([5, 3]), Some(&tensor([2, 5]))));
    let attention = |k: &Tensor, v: &Tensor, bias: Option<&Tensor>| a.attention(k, v, bias, 1.0);
    assert_mentions(&["attention", "[2, 3]", "[4, 5]"], || attention(&tensor([4, 5]), &tensor([4, 5]), None));
    assert_mentions(&["attention", "[4, 3]", "[5, 3]"], || attention(&tensor([4, 3]), &tensor([5, 3]), None));
    assert_mentions(&["attention", "[2, 4, 3]", "[3, 4, 3]", "leading"], || {
        attention(&tensor([2, 4, 3]), &tensor([3, 4, 3]), None)
    });
    assert_mentions(&["attention", "bias [3, 4]", "[2, 4]"], || {
        attention(&tensor([4, 3]), &tensor([4, 3]), Some(&tensor([3, 4])))
    });
}

#[test]
fn images_that_do_not_fit() {
    let x = tensor([1, 2, 4, 5]);
    assert_mentions(&["conv2d", "[1, 2, 4, 5]", "[3, 4, 3, 3]"], || x.conv2d(&tensor([3, 4, 3, 3]), None, 1, 1));
    assert_mentions(&["conv2d", "[1, 2, 4, 5]", "[3, 2, 7, 7]"], || x.conv2d(&tensor([3, 2, 7, 7]), None, 1, 1));
    assert_mentions(&["conv2d", "[2]", "[3]"], || x.conv2d(&tensor([3, 2, 1, 1]), Some(&tensor([2])), 1, 0));
    assert_mentions(&["conv2d", "stride"], || x.conv2d(&tensor([3, 2, 1, 1]), None, 0, 0));
    assert_mentions(&["conv2d", "4 axes", "[4, 5]"], || tensor([4, 5]).conv2d(&tensor([3, 2, 1, 1]), None, 1, 0));
    assert_mentions(&["group_norm", "3 groups", "[1, 2, 4, 5]"], || x.group_norm(&tensor([2]), &tensor([2]), 3, 1e-5));
    assert_mentions(&["group_norm", "[3]", "[1, 2, 4, 5]"], || x.group_norm(&tensor([3]), &tensor([2]), 1, 1e-5));
    assert_mentions(&["layer_norm", "[4]", "[1, 2, 4, 5]"], || x.layer_norm(&tensor([4]), &tensor([5]), 1e-5));
    assert_mentions(&["rms_norm", "[4]", "[1, 2, 4, 5]"], || x.rms_norm(&tensor([4]), 1e-5));
    assert_mentions(&["avg_pool2d", "2", "[1, 2, 4, 5]"], || x.avg_pool2d(2));
    assert_mentions(&["upsample_nearest", "at least 1"], || x.upsample_nearest(0));
    assert_mentions(&["pixel_shuffle", "2", "[1, 2, 4, 5]"], || x.pixel_shuffle(2));
    assert_mentions(&["pixel_unshuffle", "2", "[1, 2, 4, 5]"], || x.pixel_unshuffle(2));
    assert_mentions(&["resize_bilinear", "[1, 2, 4, 5]", "0 x 3"], || x.resize_bilinear(0, 3));
    assert_mentions(&["resize_nearest", "[1, 2, 4, 5]", "3 x 0"], || x.resize_nearest(3, 0));
}

#[test]
fn axes_and_ranges_that_do_not_exist() {
    let x = tensor([2, 3]);
    assert_mentions(&["reshape", "[2, 3]", "[4, 2]"], || x.reshape([4, 2]));
    assert_mentions(&["permute", "[0, 0]", "[2, 3]"], || x.permute(&[0, 0]));
    assert_mentions(&["permute", "[1]", "[2, 3]"], || x.permute(&[1]));
    assert_mentions(&["transpose", "[3]"], || tensor([3]).transpose());
    assert_mentions(&["broadcast_to", "[2, 3]", "[2, 6]"], || x.broadcast_to([2, 6]));
    assert_mentions(&["broadcast_to", "[2, 3]", "[3]"], || x.broadcast_to([3]));
    assert_mentions(&["slice", "2..4", "[2, 3]"], || x.slice(1, 2..4));
    assert_mentions(&["split", "[1, 1]", "[2, 3]"], || x.split(1, &[1, 1]));
    assert_mentions(&["concat", "[2, 3]", "[3, 2]"], || concat(&[&x, &tensor([3, 2])], 0));
    assert_mentions(&["concat"], || concat(&[], 0));
    assert_mentions(&["axis 2", "[2, 3]"], || x.sum(&[2], false));
    assert_mentions(&["axis -3", "[2, 3]"], || x.softmax(-3));
    assert_mentions(&["embedding", "row 2", "[2, 3]"], || x.embedding(&[0, 2]));
    assert_mentions(&["cross_entropy", "class 3", "[2, 3]"], || x.cross_entropy(&[0, 3]));
    assert_mentions(&["cross_entropy", "[2, 3]", "2 classes"], || x.cross_entropy(&[0]));
}

#[test]
fn backward_from_what_cannot_be() {
    let x = tensor([2, 3]);
    assert_mentions(&["backward", "scalar", "[2, 3]"], || x.square().backward());
    assert_mentions(&["backward_with", "[2, 3]", "[3]"], || x.backward_with(random(0, [3])));
    assert_mentions(&["backward", "depends on no leaf"], || Tensor::scalar(1.0, DType::F64).backward());
}

/// The line of the mistake is the caller's, not one inside the library.
#[test]
fn the_place_is_the_callers() {
    use std::sync::{Arc, Mutex};
    let place = Arc::new(Mutex::new(String::new()));
    let (seen, test) = (place.clone(), std::thread::current().id());
    let former = std::panic::take_hook();
    let earlier = Arc::new(former);
    let passed_on = earlier.clone();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == test {
            *seen.lock().unwrap() = info.location().unwrap().file().to_string();
        } else {
            passed_on(info);
        }
    }));
    let (a, b) = (tensor([2, 3]), tensor([2, 4]));
    let cases: [(&str, &dyn Fn() -> Tensor); 6] = [
        ("add", &|| &a + &b),
        ("matmul", &|| a.matmul(&b)),
        ("linear", &|| a.linear(&b, None)),
        ("reshape", &|| a.reshape([5])),
        ("softmax", &|| a.softmax(2)),
        ("conv2d", &|| a.conv2d(&b, None, 1, 0)),
    ];
    let places: Vec<(&str, String)> = cases
        .iter()
        .map(|(name, f)| {
            panic_message(f);
            (*name, place.lock().unwrap().clone())
        })
        .collect();
    std::panic::set_hook(Box::new(move |info| earlier(info)));
    for (name, file) in places {
        assert!(file.ends_with("mistakes.rs"), "{name}: {file}");
    }
}
