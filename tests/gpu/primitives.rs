//! Every primitive of the trait at twenty shapes or more, mostly odd ones, against the CPU in f64.

use crate::{device, error_in_roundings, kernels};
use imagen::array::{Array, DType, Device, Shape};
use imagen::kernels::{AdamStep, Binary, ConvShape, Kernels, Reduce, Unary, of};
use imagen::random::{Purpose, normal, stream};
use rand::RngExt;
use std::collections::BTreeSet;

/// How many shapes a primitive is tried at.
const CASES: u64 = 20;

/// One call: its operands, in f64, and what is done with them on a device.
struct Call {
    operands: Vec<Array>,
    work: Work,
    /// Terms of the longest sum.
    terms: usize,
}

type Work = Box<dyn Fn(&dyn Kernels, &[Array]) -> Vec<Array>>;

/// Sizes and numbers of a case.
struct Draw {
    seed: u64,
    rng: rand::rngs::ChaCha8Rng,
    drawn: u64,
}

impl Draw {
    fn new(name: &str, case: u64) -> Draw {
        let seed = imagen::random::hash(name).wrapping_add(case);
        Draw { seed, rng: stream(seed, Purpose::Test, 0, 0), drawn: 0 }
    }

    /// From 1 to `most`; small, odd, and near powers of two more often than not.
    fn size(&mut self, most: usize) -> usize {
        let near = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65];
        let size = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(1..=most),
            _ => near[self.rng.random_range(0..near.len())],
        };
        size.min(most)
    }

    fn shape(&mut self, rank: usize, most: usize) -> Vec<usize> {
        (0..rank).map(|_| self.size(most)).collect()
    }

    /// Draws from N(0, 1) that f32 holds exactly.
    fn array(&mut self, shape: impl Into<Shape>) -> Array {
        self.drawn += 1;
        let shape = shape.into();
        let values = normal(self.seed, Purpose::Test, 1, self.drawn, shape.numel());
        Array::from_f64(shape, &values, DType::F64).cast(DType::F32).cast(DType::F64)
    }

    /// As [`Draw::array`], at least 1/2.
    fn positive(&mut self, shape: impl Into<Shape>) -> Array {
        let values: Vec<f64> = self.array(shape).to_f64().iter().map(|z| 0.5 + z.abs()).collect();
        Array::from_f64([values.len()], &values, DType::F64).cast(DType::F32).cast(DType::F64)
    }
}

fn call(operands: Vec<Array>, terms: usize, work: impl Fn(&dyn Kernels, &[Array]) -> Vec<Array> + 'static) -> Call {
    Call { operands, work: Box::new(work), terms }
}

type Case = Box<dyn Fn(&mut Draw) -> Call>;

/// The primitives by the names of their methods, some more than once.
fn primitives() -> Vec<(&'static str, Case)> {
    let mut all: Vec<(&'static str, Case)> = Vec::new();
    elementwise(&mut all);
    moving(&mut all);
    products(&mut all);
    normalising(&mut all);
    optimising(&mut all);
    all
}

fn add(all: &mut Vec<(&'static str, Case)>, name: &'static str, case: impl Fn(&mut Draw) -> Call + 'static) {
    all.push((name, Box::new(case)));
}

fn elementwise(all: &mut Vec<(&'static str, Case)>) {
    add(all, "fill", |d| {
        let shape = Shape::from(d.shape(3, 9));
        call(vec![d.array([1])], 1, move |k, x| vec![k.fill(&shape, x[0].dtype(), -1.5)])
    });
    for op in Unary::ALL {
        let operand = move |d: &mut Draw| {
            let shape = d.shape(2, 90);
            match op {
                Unary::Sqrt | Unary::Rsqrt | Unary::Log | Unary::Reciprocal => d.positive(shape),
                _ => d.array(shape),
            }
        };
        add(all, "unary", move |d| call(vec![operand(d)], 1, move |k, x| vec![k.unary(op, &x[0])]));
        add(all, "unary_grad", move |d| {
            let x = operand(d);
            let g = d.array(x.shape());
            call(vec![x, g], 1, move |k, x| vec![k.unary_grad(op, &x[0], &x[1])])
        });
    }
    add(all, "affine", |d| {
        let shape = d.shape(3, 30);
        call(vec![d.array(shape)], 1, |k, x| vec![k.affine(&x[0], -1.75, 0.375)])
    });
    for op in Binary::ALL {
        add(all, "binary", move |d| {
            let whole = d.shape(4, 12);
            let mut part = |keep: f64| -> Vec<usize> {
                whole.iter().map(|&n| if d.rng.random::<f64>() < keep { n } else { 1 }).collect()
            };
            let (a, b) = (part(0.7), part(0.7));
            let b = b[d.rng.random_range(0..3_usize)..].to_vec();
            let (a, b) = (d.array(a), if op == Binary::Div { d.positive(b.clone()).reshape(b) } else { d.array(b) });
            call(vec![a, b], 1, move |k, x| vec![k.binary(op, &x[0], &x[1])])
        });
    }
    for shared in [true, false] {
        // An array that others share is copied, one that nobody shares is changed in place.
        let own = move |k: &dyn Kernels, x: &Array| if shared { x.clone() } else { k.affine(x, 1.0, 0.0) };
        add(all, "add_assign", move |d| {
            let shape = d.shape(2, 90);
            call(vec![d.array(shape.clone()), d.array(shape)], 1, move |k, x| {
                let mut acc = own(k, &x[0]);
                k.add_assign(&mut acc, &x[1], 0.625);
                vec![acc, x[0].clone()]
            })
        });
        add(all, "lerp_assign", move |d| {
            let shape = d.shape(2, 90);
            call(vec![d.array(shape.clone()), d.array(shape)], 1, move |k, x| {
                let mut acc = own(k, &x[0]);
                k.lerp_assign(&mut acc, &x[1], 0.125);
                vec![acc, x[0].clone()]
            })
        });
    }
}

fn moving(all: &mut Vec<(&'static str, Case)>) {
    for op in [Reduce::Sum, Reduce::Max] {
        add(all, "reduce", move |d| {
            let shape = d.shape(4, 14);
            let start = d.rng.random_range(0..4_usize);
            let axes = start..d.rng.random_range(start..=4);
            let terms = shape[axes.clone()].iter().product();
            call(vec![d.array(shape)], terms, move |k, x| vec![k.reduce(op, &x[0], axes.clone())])
        });
        // Long enough to be cut into parts, along rows and along columns.
        add(all, "reduce", move |d| {
            let (n, inner) = (d.size(20_000) + 3000, [1, 1, 3, 7][d.rng.random_range(0..4_usize)]);
            call(vec![d.array([2, n, inner])], n, move |k, x| vec![k.reduce(op, &x[0], 1..2)])
        });
    }
    add(all, "broadcast_to", |d| {
        let shape = Shape::from(d.shape(4, 9));
        let from: Vec<usize> = shape.iter().map(|&n| if d.rng.random::<bool>() { n } else { 1 }).collect();
        let from = from[d.rng.random_range(0..3_usize)..].to_vec();
        call(vec![d.array(from)], 1, move |k, x| vec![k.broadcast_to(&x[0], &shape)])
    });
    for rank in [2, 3, 4, 5] {
        add(all, "permute", move |d| {
            let most = [0, 0, 120, 40, 12, 7][rank];
            let shape = d.shape(rank, most);
            let mut order: Vec<usize> = (0..rank).collect();
            (1..rank).for_each(|i| order.swap(i, d.rng.random_range(0..=i)));
            call(vec![d.array(shape)], 1, move |k, x| vec![k.permute(&x[0], &order)])
        });
    }
    add(all, "slice", |d| {
        let (shape, axis) = (d.shape(4, 12), d.rng.random_range(0..4_usize));
        let start = d.rng.random_range(0..shape[axis]);
        let end = d.rng.random_range(start + 1..=shape[axis]);
        call(vec![d.array(shape)], 1, move |k, x| vec![k.slice(&x[0], axis, start..end)])
    });
    add(all, "unslice", |d| {
        let (shape, axis) = (d.shape(4, 9), d.rng.random_range(0..4_usize));
        let start = d.rng.random_range(0..5_usize);
        let size = start + shape[axis] + d.rng.random_range(0..5_usize);
        call(vec![d.array(shape)], 1, move |k, x| vec![k.unslice(&x[0], axis, start, size)])
    });
    add(all, "concat", |d| {
        let (shape, axis) = (Shape::from(d.shape(3, 9)), d.rng.random_range(0..3_usize));
        let parts = (0..d.rng.random_range(1..5_usize)).map(|_| d.size(9)).collect::<Vec<_>>();
        let parts = parts.into_iter().map(|size| d.array(shape.with(axis, size))).collect();
        call(parts, 1, move |k, x| vec![k.concat(&x.iter().collect::<Vec<_>>(), axis)])
    });
    add(all, "gather_rows", |d| {
        let (n, width, count) = (d.size(40), d.size(40), d.size(60));
        let rows: Vec<u32> = (0..count).map(|_| d.rng.random_range(0..n as u32)).collect();
        call(vec![d.array([n, width])], 1, move |k, x| vec![k.gather_rows(&x[0], &rows)])
    });
    add(all, "scatter_add_rows", |d| {
        let (n, width, count) = (d.size(40), d.size(40), d.size(60));
        let rows: Vec<u32> = (0..count).map(|_| d.rng.random_range(0..n as u32)).collect();
        call(vec![d.array([count, width])], count, move |k, x| vec![k.scatter_add_rows(&x[0], &rows, n)])
    });
    add(all, "upsample_nearest", |d| {
        let (shape, factor) = (d.shape(4, 7), d.rng.random_range(1..4_usize));
        call(vec![d.array(shape)], 1, move |k, x| vec![k.upsample_nearest(&x[0], factor)])
    });
    add(all, "sum_pool", |d| {
        let (shape, factor) = (d.shape(4, 7), d.rng.random_range(1..4_usize));
        let shape = [shape[0], shape[1], shape[2] * factor, shape[3] * factor];
        call(vec![d.array(shape)], factor * factor, move |k, x| vec![k.sum_pool(&x[0], factor)])
    });
}

fn products(all: &mut Vec<(&'static str, Case)>) {
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        add(all, "matmul", move |d| {
            let [m, n, k] = [d.size(140), d.size(140), d.size(140)];
            let lead = d.shape(2, 3);
            let mut leading = |rank: usize| -> Vec<usize> {
                lead[2 - rank..].iter().map(|&n| if d.rng.random::<f64>() < 0.7 { n } else { 1 }).collect()
            };
            let (mut a, mut b) = (leading(2), leading(1));
            a.extend(if transpose_a { [k, m] } else { [m, k] });
            b.extend(if transpose_b { [n, k] } else { [k, n] });
            call(vec![d.array(a), d.array(b)], k, move |kernels, x| {
                vec![kernels.matmul(&x[0], &x[1], transpose_a, transpose_b)]
            })
        });
    }
    // A convolution and its operands: x, weight, bias, and a gradient of its result.
    let convolution = |d: &mut Draw| {
        let (kh, kw) = (d.rng.random_range(1..5_usize), d.rng.random_range(1..5_usize));
        let conv = ConvShape { stride: d.rng.random_range(1..4), padding: d.rng.random_range(0..3) };
        let (h, w) = (d.size(17).max(kh), d.size(17).max(kw));
        let [b, c, o] = [d.size(4), d.size(20), d.size(40)];
        let y = [b, o, conv.output(h, kh).unwrap(), conv.output(w, kw).unwrap()];
        let operands = vec![d.array([b, c, h, w]), d.array([o, c, kh, kw]), d.array([o]), d.array(y)];
        (operands, conv, [c * kh * kw, o * kh * kw, y[0] * y[2] * y[3]])
    };
    for biased in [true, false] {
        add(all, "conv2d", move |d| {
            let (operands, conv, [terms, ..]) = convolution(d);
            call(operands, terms, move |k, x| vec![k.conv2d(&x[0], &x[1], biased.then_some(&x[2]), conv)])
        });
    }
    add(all, "conv2d_grad_input", move |d| {
        let (operands, conv, [_, terms, _]) = convolution(d);
        call(operands, terms, move |k, x| vec![k.conv2d_grad_input(&x[3], &x[1], x[0].shape(), conv)])
    });
    add(all, "conv2d_grad_weight", move |d| {
        let (operands, conv, [.., terms]) = convolution(d);
        call(operands, terms, move |k, x| vec![k.conv2d_grad_weight(&x[3], &x[0], x[1].shape(), conv)])
    });
    // q, k, v, a gradient, and a bias that is repeated along some axes.
    let attention = |d: &mut Draw| {
        let [b, h, n, m] = [d.size(3), d.size(4), d.size(80), d.size(80)];
        let features = [3, 4, 8, 12, 16, 32, 36][d.rng.random_range(0..7_usize)];
        let bias: Vec<usize> = [b, h, n, m].iter().map(|&n| if d.rng.random::<bool>() { n } else { 1 }).collect();
        let [q, g] = [(); 2].map(|()| d.array([b, h, n, features]));
        let [k, v] = [(); 2].map(|()| d.array([b, h, m, features]));
        (vec![q, k, v, g, d.array(bias)], n.max(m))
    };
    for biased in [true, false] {
        add(all, "attention", move |d| {
            let (operands, terms) = attention(d);
            call(operands, terms, move |k, x| vec![k.attention(&x[0], &x[1], &x[2], biased.then_some(&x[4]), 0.25).0])
        });
        add(all, "attention_grad", move |d| {
            let (operands, terms) = attention(d);
            call(operands, terms, move |k, x| {
                let bias = biased.then_some(&x[4]);
                let (_, saved) = k.attention(&x[0], &x[1], &x[2], bias, 0.25);
                k.attention_grad(&x[3], [&x[0], &x[1], &x[2]], bias, &saved, 0.25).to_vec()
            })
        });
    }
}

fn normalising(all: &mut Vec<(&'static str, Case)>) {
    // x, weight, bias and a gradient, with how many groups; images of few pixels and of many.
    let operands = |d: &mut Draw| {
        let groups = d.rng.random_range(1..5_usize);
        let channels = groups * d.size(9);
        let (b, pixels) = (d.size(5), d.shape(2, 25));
        let shape = [b, channels, pixels[0], pixels[1]];
        let operands = vec![d.array(shape), d.array([channels]), d.array([channels]), d.array(shape)];
        (operands, groups, b * channels * pixels[0] * pixels[1])
    };
    add(all, "group_norm", move |d| {
        let (x, groups, terms) = operands(d);
        call(x, terms, move |k, x| <[Array; 3]>::from(k.group_norm(&x[0], &x[1], &x[2], groups, 1e-2)).to_vec())
    });
    add(all, "group_norm_silu", move |d| {
        let (x, groups, terms) = operands(d);
        call(x, terms, move |k, x| <[Array; 3]>::from(k.group_norm_silu(&x[0], &x[1], &x[2], groups, 1e-2)).to_vec())
    });
    add(all, "group_norm_grad", move |d| {
        let (x, groups, terms) = operands(d);
        call(x, terms, move |k, x| {
            let (_, mean, inv_std) = k.group_norm(&x[0], &x[1], &x[2], groups, 1e-2);
            <[Array; 3]>::from(k.group_norm_grad(&x[3], &x[0], &x[1], &mean, &inv_std)).to_vec()
        })
    });
    add(all, "group_norm_silu_grad", move |d| {
        let (x, groups, terms) = operands(d);
        call(x, terms, move |k, x| {
            let (_, mean, inv_std) = k.group_norm_silu(&x[0], &x[1], &x[2], groups, 1e-2);
            <[Array; 3]>::from(k.group_norm_silu_grad(&x[3], &x[0], &x[1], &x[2], &mean, &inv_std)).to_vec()
        })
    });
    for width in [20, 700] {
        let rows = move |d: &mut Draw| {
            let shape = [d.size(40), d.size(width).max(width / 8)];
            (d.array(shape), d.array(shape), shape[1])
        };
        add(all, "softmax", move |d| {
            let (x, _, n) = rows(d);
            call(vec![x], n, |k, x| vec![k.softmax(&x[0])])
        });
        add(all, "softmax_grad", move |d| {
            let (x, g, n) = rows(d);
            call(vec![x, g], n, |k, x| vec![k.softmax_grad(&k.softmax(&x[0]), &x[1])])
        });
        add(all, "log_softmax", move |d| {
            let (x, _, n) = rows(d);
            call(vec![x], n, |k, x| vec![k.log_softmax(&x[0])])
        });
        add(all, "log_softmax_grad", move |d| {
            let (x, g, n) = rows(d);
            call(vec![x, g], n, |k, x| vec![k.log_softmax_grad(&k.log_softmax(&x[0]), &x[1])])
        });
    }
}

fn optimising(all: &mut Vec<(&'static str, Case)>) {
    let several = |d: &mut Draw| -> Vec<Array> {
        let shapes: Vec<Vec<usize>> = (0..d.rng.random_range(1..6_usize)).map(|_| d.shape(2, 150)).collect();
        shapes.into_iter().map(|shape| d.array(shape)).collect()
    };
    add(all, "norm", move |d| {
        let arrays = several(d);
        let terms = arrays.iter().map(Array::numel).sum();
        // The CPU's is f64 whatever its operands are.
        call(arrays, terms, |k, x| vec![k.norm(&x.iter().collect::<Vec<_>>())])
    });
    add(all, "shorten", move |d| {
        let arrays = several(d);
        let terms = arrays.iter().map(Array::numel).sum();
        let limit = [1e-3, 1.0, 1e6][d.rng.random_range(0..3_usize)];
        call(arrays, terms, move |k, x| {
            let norm = k.norm(&x.iter().collect::<Vec<_>>());
            let shortened = |x: &Array| {
                let mut x = x.clone();
                k.shorten(&mut x, &norm, limit, 1e-6);
                x
            };
            x.iter().map(shortened).collect()
        })
    });
    for (shared, averaged) in [(true, false), (false, false), (true, true), (false, true)] {
        add(all, "adam", move |d| {
            let shape = d.shape(2, 60);
            let [p, g, m, a] = [(); 4].map(|()| d.array(shape.clone()));
            let v = d.positive(shape.clone()).reshape(shape);
            let step = AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, step: 3 };
            call(vec![p, g, m, v, a], 1, move |k, x| {
                let mut own: Vec<Array> =
                    x.iter().map(|x| if shared { x.clone() } else { k.affine(x, 1.0, 0.0) }).collect();
                let [p, g, m, v, a] = &mut own[..] else { unreachable!("five arrays were drawn") };
                k.adam(p, g, [m, v], averaged.then_some((a, 0.25)), step);
                // Nobody who shares an array sees it change.
                own.into_iter().chain(x.iter().cloned()).collect()
            })
        });
    }
}

// ANCHOR: every_primitive_computes_what_the_cpu_computes
#[test]
fn every_primitive_computes_what_the_cpu_computes() {
    let Some(device) = device() else { return };
    let (gpu, cpu) = (kernels(device), of(Device::Cpu));
    let mut failures = Vec::new();
    for (name, case) in primitives() {
        for number in 0..CASES {
            let Call { operands, work, terms } = case(&mut Draw::new(name, number));
            let moved: Vec<Array> = operands.iter().map(|x| x.cast(DType::F32).to(device)).collect();
            for (i, (found, exact)) in work(gpu, &moved).iter().zip(&work(cpu, &operands)).enumerate() {
                let error = error_in_roundings(found, exact, terms);
                if error > 1.0 {
                    let shapes: Vec<&Shape> = operands.iter().map(Array::shape).collect();
                    failures.push(format!("{name} of {shapes:?}: result {i} is off by {error} times the bound"));
                }
            }
        }
    }
    gpu.check().unwrap();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
// ANCHOR_END: every_primitive_computes_what_the_cpu_computes

#[test]
fn no_primitive_of_the_trait_is_forgotten() {
    let source = include_str!("../../src/kernels/mod.rs");
    let body = source.split("pub trait Kernels").nth(1).unwrap().split("\n}").next().unwrap();
    let methods = body.lines().filter_map(|line| line.strip_prefix("    fn ")?.split('(').next());
    // What computes nothing.
    let methods: BTreeSet<&str> = methods.filter(|name| !["check", "receive", "halve"].contains(name)).collect();
    let tried: BTreeSet<&str> = primitives().iter().map(|(name, _)| *name).collect();
    assert_eq!(tried, methods);
    assert!(methods.len() > 30);
}
