//! Every op against numbers that PyTorch computed in f64: results, and vector-Jacobian products for a random cotangent.

use imagen::array::{Array, DType};
use imagen::autograd::{Tensor, concat};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// One line of `fixtures/ops.json`.
#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    attrs: Value,
    inputs: Vec<String>,
}

#[test]
fn results_and_gradients_in_f64() {
    check_all(DType::F64, 1e-9);
}

#[test]
fn results_and_gradients_in_f32() {
    check_all(DType::F32, 1e-4);
}

/// Every case, within `tolerance` times max(1, |expected|).
#[track_caller]
fn check_all(dtype: DType, tolerance: f64) {
    let cases: Vec<Case> = serde_json::from_slice(&read("ops.json")).unwrap();
    let bytes = read("ops.safetensors");
    let golden = Golden(SafeTensors::deserialize(&bytes).unwrap());
    assert_eq!(cases.len(), 53);
    let mut failures = Vec::new();
    for case in &cases {
        let name = &case.name;
        let load = |part: &str| golden.floats(&format!("{name}.{part}"));
        let inputs: Vec<Tensor> =
            case.inputs.iter().map(|input| Tensor::leaf(load(&format!("in.{input}")).cast(dtype))).collect();
        let y = run(case, &inputs, &golden);
        let mut compare = |what: &str, actual: &Array, expected: &Array| {
            assert_eq!(actual.shape(), expected.shape(), "{name} {what}");
            let error = |(a, e): (&f64, &f64)| (a - e).abs() / e.abs().max(1.0);
            let worst = actual.to_f64().iter().zip(&expected.to_f64()).map(error).fold(0.0, largest);
            if worst > tolerance {
                failures.push(format!("{name} {what}: off by {worst:e}"));
            }
        };
        compare("out", y.array(), &load("out"));
        let gradients = y.backward_with(load("cotangent").cast(dtype));
        for (input, leaf) in case.inputs.iter().zip(&inputs) {
            let gradient = gradients.get(leaf).unwrap_or_else(|| panic!("{name}: no gradient for {input}"));
            compare(&format!("grad.{input}"), gradient, &load(&format!("grad.{input}")));
        }
    }
    assert!(failures.is_empty(), "{dtype}:\n{}", failures.join("\n"));
}

/// The larger one; NaN, once there, stays as infinity.
fn largest(a: f64, b: f64) -> f64 {
    if b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// The op a case names, on its inputs. Panics if it names one that is not here.
fn run(case: &Case, x: &[Tensor], golden: &Golden) -> Tensor {
    let attr = |name: &str| &case.attrs[name];
    let number = |name: &str| attr(name).as_u64().unwrap_or_else(|| panic!("{}: no {name}", case.name)) as usize;
    let eps = || attr("eps").as_f64().unwrap();
    let axis = || attr("dim").as_i64().unwrap() as isize;
    let integers = |name: &str| golden.integers(attr(name).as_str().unwrap());
    match case.op.as_str() {
        "conv2d" => x[0].conv2d(&x[1], Some(&x[2]), number("stride"), number("padding")),
        "matmul" => x[0].matmul(&x[1]),
        "linear" => x[0].linear(&x[1], Some(&x[2])),
        "group_norm" => x[0].group_norm(&x[1], &x[2], number("groups"), eps()),
        "layer_norm" => x[0].layer_norm(&x[1], &x[2], eps()),
        "rms_norm" => x[0].rms_norm(&x[1], eps()),
        "silu" => x[0].silu(),
        "gelu_erf" => x[0].gelu_erf(),
        "gelu_tanh" => x[0].gelu_tanh(),
        "relu" => x[0].relu(),
        "tanh" => x[0].tanh(),
        "sigmoid" => x[0].sigmoid(),
        "exp" => x[0].exp(),
        "sin" => x[0].sin(),
        "cos" => x[0].cos(),
        "softplus" => x[0].softplus(),
        "log" => x[0].log(),
        "sqrt" => x[0].sqrt(),
        "rsqrt" => x[0].rsqrt(),
        "reciprocal" => x[0].reciprocal(),
        "softmax" => x[0].softmax(axis()),
        "log_softmax" => x[0].log_softmax(axis()),
        "add" => &x[0] + &x[1],
        "sub" => &x[0] - &x[1],
        "mul" => &x[0] * &x[1],
        "div" => &x[0] / &x[1],
        "maximum" => x[0].maximum(&x[1]),
        "sum" => x[0].sum(&[axis()], attr("keepdim").as_bool().unwrap()),
        "mean" => x[0].mean_all(),
        "var" => x[0].var(&[axis()], false),
        "max" => x[0].max(&[axis()], false),
        "scaled_dot_product_attention" => {
            let width = *x[0].shape().last().unwrap() as f64;
            let bias = attr("mask").as_str().map(|mask| golden.mask(mask, x[0].dtype()).mask_to_bias());
            x[0].attention(&x[1], &x[2], bias.as_ref(), 1.0 / width.sqrt())
        }
        "embedding" => {
            let (shape, index) = integers("index");
            let rows = x[0].embedding(&index);
            rows.reshape([&shape[..], &x[0].shape()[1..]].concat())
        }
        "upsample_nearest" => x[0].upsample_nearest(number("scale")),
        "resize_bilinear" => {
            assert_eq!(attr("align_corners"), false);
            let size: [usize; 2] = serde_json::from_value(attr("size").clone()).unwrap();
            x[0].resize_bilinear(size[0], size[1])
        }
        "avg_pool2d" => x[0].avg_pool2d(number("kernel")),
        "pixel_shuffle" => x[0].pixel_shuffle(number("factor")),
        "pixel_unshuffle" => x[0].pixel_unshuffle(number("factor")),
        "concat" => concat(&x.iter().collect::<Vec<_>>(), axis()),
        "permute" => x[0].permute(&serde_json::from_value::<Vec<usize>>(attr("dims").clone()).unwrap()),
        "slice" => x[0].slice(axis(), number("start")..number("end")),
        "cross_entropy" => x[0].reshape([10, 7]).cross_entropy(&integers("target").1),
        "mse_loss" => x[0].mse(&x[1]),
        unknown => panic!("{}: this test does not know the op {unknown}", case.name),
    }
}

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tensors of `fixtures/ops.safetensors`.
struct Golden<'a>(SafeTensors<'a>);

impl Golden<'_> {
    fn floats(&self, name: &str) -> Array {
        let view = self.0.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(view.dtype(), Dtype::F64, "{name}");
        let values = view.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
        Array::from_vec::<f64>(view.shape(), values)
    }

    /// Shape and numbers of a tensor of row or class numbers.
    fn integers(&self, name: &str) -> (Vec<usize>, Vec<u32>) {
        let view = self.0.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        let numbers = view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
        (view.shape().to_vec(), numbers.map(|n| u32::try_from(n).unwrap()).collect())
    }

    /// A mask of zeros and ones.
    fn mask(&self, name: &str, dtype: DType) -> Tensor {
        let view = self.0.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(view.dtype(), Dtype::U8, "{name}");
        let values: Vec<f64> = view.data().iter().map(|&m| f64::from(m)).collect();
        Tensor::from_f64(view.shape(), &values, dtype)
    }
}
