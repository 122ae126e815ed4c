//! Convolutions as matrix products that gather one factor while they go, and, by definition, as what these are tested against.

use super::context::Context;
use super::gemm::{Plan, Product};
use super::map::fill;
use super::matmul::summed;
use super::numbers::{Word, numbers, words};
use super::shader::Shader;
use crate::array::{Array, Shape};
use crate::kernels::ConvShape;
use std::sync::Arc;

/// All sizes of a convolution.
#[derive(Clone, Copy)]
struct Sizes {
    /// [B, C, H, W]
    x: [usize; 4],
    /// [O, C, kh, kw]
    weight: [usize; 4],
    /// [B, O, H', W']
    y: [usize; 4],
    conv: ConvShape,
}

impl Sizes {
    #[track_caller]
    fn new(x: &Shape, weight: &Shape, conv: ConvShape) -> Sizes {
        let (x, weight) = (x.dims::<4>("conv2d input"), weight.dims::<4>("conv2d weight"));
        let side = |size, kernel| conv.output(size, kernel).expect("the caller has checked that the kernel fits");
        Sizes { x, weight, y: [x[0], weight[0], side(x[2], weight[2]), side(x[3], weight[3])], conv }
    }

    fn shader(&self, shader: Shader) -> Shader {
        let [.., kh, kw] = self.weight;
        shader.with("KH", kh).with("KW", kw).with("STRIDE", self.conv.stride)
    }

    fn parameters(&self, product: Product, plan: &Plan, bias: bool) -> Vec<Word> {
        let ([images, channels, height, width], [_, outputs, out_height, out_width]) = (self.x, self.y);
        let Product { m, n, k, batches } = product;
        let Plan { tiles_m, tiles_n, splits, split_k, .. } = *plan;
        let padding = self.conv.padding;
        words![
            m,
            n,
            k,
            batches,
            tiles_m,
            tiles_n,
            splits,
            split_k,
            images,
            channels,
            height,
            width,
            outputs,
            out_height,
            out_width,
            padding,
            bias as u32,
        ]
        .to_vec()
    }
}

/// A convolution as a product: the shader that says where its numbers are, whether those of A and of B lie together along k,
/// and the shape of the result.
struct Implicit<'a> {
    file: &'static str,
    product: Product,
    along_k: [bool; 2],
    shape: &'a [usize],
}

impl Implicit<'_> {
    /// Of two operands, and a bias if there is one.
    fn run(self, gpu: &Arc<Context>, sizes: Sizes, operands: &[&Array], bias: bool) -> Array {
        let Implicit { file, product, along_k, shape } = self;
        let shape = Shape::from(shape);
        if product.k == 0 || shape.numel() == 0 {
            return fill(gpu, &shape, 0.0);
        }
        let plan = Plan::of(product);
        let parts = gpu.array([plan.splits, shape.numel()], file);
        let shader = sizes.shader(plan.shader(file, along_k));
        // Of the operands only the second, the weight, is read in 16 bits.
        let shader = shader.with_half(file != "conv_grad_weight" && numbers(operands[1]).half);
        let wide = |i: usize| if i == 1 && shader.half { operands[i].clone() } else { gpu.widened(operands[i]) };
        let operands: Vec<Array> = (0..operands.len()).map(wide).collect();
        let arrays: Vec<&Array> = operands.iter().chain([&parts]).collect();
        gpu.expect(product.operations());
        gpu.run(shader, &sizes.parameters(product, &plan, bias), &arrays, plan.groups);
        summed(gpu, parts).reshape(shape)
    }
}

pub(super) fn conv2d(gpu: &Arc<Context>, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
    let sizes = Sizes::new(x.shape(), weight.shape(), conv);
    let [b, o, height, width] = sizes.y;
    let product = Product { m: o, n: b * height * width, k: weight.numel() / o.max(1), batches: 1 };
    if let (0, Some(bias)) = (product.k, bias) {
        // Without input channels only the bias is left.
        return super::copy::broadcast_to(gpu, &bias.reshape([o, 1, 1]), &sizes.y.into());
    }
    // Without a bias nobody looks at it, but what a shader names must be there.
    let operands = [x, weight, bias.unwrap_or(x)];
    let implicit = Implicit { file: "conv_forward", product, along_k: [true, false], shape: &sizes.y };
    implicit.run(gpu, sizes, &operands, bias.is_some())
}

pub(super) fn conv2d_grad_input(gpu: &Arc<Context>, g: &Array, weight: &Array, x: &Shape, conv: ConvShape) -> Array {
    let sizes = Sizes::new(x, weight.shape(), conv);
    let [b, c, height, width] = sizes.x;
    let product = Product { m: c, n: b * height * width, k: weight.numel() / c.max(1), batches: 1 };
    // The taps of a channel lie together; if there is but one, its neighbours along k are whole rows apart.
    let along_k = sizes.weight[2] * sizes.weight[3] > 1;
    let implicit = Implicit { file: "conv_grad_input", product, along_k: [along_k, false], shape: &sizes.x };
    implicit.run(gpu, sizes, &[g, weight], false)
}

pub(super) fn conv2d_grad_weight(gpu: &Arc<Context>, g: &Array, x: &Array, weight: &Shape, conv: ConvShape) -> Array {
    let sizes = Sizes::new(x.shape(), weight, conv);
    let [b, o, height, width] = sizes.y;
    let product = Product { m: o, n: weight.numel() / o.max(1), k: b * height * width, batches: 1 };
    let implicit = Implicit { file: "conv_grad_weight", product, along_k: [true, true], shape: &sizes.weight };
    implicit.run(gpu, sizes, &[g, x], false)
}

/// By definition: forward, gradient to the input, gradient to the weight. For tests and benchmarks; nothing may be empty.
pub(super) mod direct {
    use super::*;
    use crate::kernels::gpu::groups;

    fn run(
        gpu: &Arc<Context>,
        entry: &'static str,
        sizes: Sizes,
        operands: &[&Array],
        bias: bool,
        shape: &[usize],
    ) -> Array {
        let none = Product { m: 0, n: 0, k: 0, batches: 0 };
        let parameters = sizes.parameters(none, &Plan::of(none), bias);
        let y = gpu.array(shape, entry);
        let shader = sizes.shader(Shader::new("conv_direct", entry));
        gpu.run(shader, &parameters, &[operands, &[&y]].concat(), groups(y.numel()));
        y
    }

    pub fn forward(gpu: &Arc<Context>, x: &Array, weight: &Array, bias: Option<&Array>, conv: ConvShape) -> Array {
        let sizes = Sizes::new(x.shape(), weight.shape(), conv);
        run(gpu, "forward", sizes, &[x, weight, bias.unwrap_or(weight)], bias.is_some(), &sizes.y)
    }

    pub fn grad_input(gpu: &Arc<Context>, g: &Array, weight: &Array, x: &Shape, conv: ConvShape) -> Array {
        let sizes = Sizes::new(x, weight.shape(), conv);
        run(gpu, "grad_input", sizes, &[weight, g], false, &sizes.x)
    }

    pub fn grad_weight(gpu: &Arc<Context>, g: &Array, x: &Array, weight: &Shape, conv: ConvShape) -> Array {
        let sizes = Sizes::new(x.shape(), weight, conv);
        run(gpu, "grad_weight", sizes, &[x, g], false, &sizes.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_within, gpu, random};
    use super::*;

    // ANCHOR: the_fast_convolutions_compute_what_the_definition_says
    #[test]
    fn the_fast_convolutions_compute_what_the_definition_says() {
        let Some(gpu) = gpu() else { return };
        for (x, weight, stride, padding) in [
            ([2, 3, 5, 7], [4, 3, 3, 3], 1, 1),
            ([2, 3, 9, 8], [5, 3, 3, 3], 2, 1),
            ([1, 2, 7, 6], [3, 2, 5, 2], 3, 2),
            ([3, 17, 4, 5], [9, 17, 1, 1], 1, 0),
            // Long enough for k to be cut, forward and in the gradient to the weight.
            ([1, 70, 3, 3], [2, 70, 3, 3], 1, 1),
            ([4, 2, 17, 19], [3, 2, 3, 3], 1, 1),
        ] {
            let conv = ConvShape { stride, padding };
            let sizes = Sizes::new(&x.into(), &weight.into(), conv);
            let [x, weight, bias, g] =
                [x.to_vec(), weight.to_vec(), vec![weight[0]], sizes.y.to_vec()].map(|s| gpu.to(&random(s, 7)));
            let gpu = &gpu.context;
            let terms = weight.numel().max(g.numel());
            for bias in [None, Some(&bias)] {
                assert_within(
                    &conv2d(gpu, &x, &weight, bias, conv),
                    &direct::forward(gpu, &x, &weight, bias, conv),
                    terms,
                );
            }
            let dx = conv2d_grad_input(gpu, &g, &weight, x.shape(), conv);
            assert_within(&dx, &direct::grad_input(gpu, &g, &weight, x.shape(), conv), terms);
            let dw = conv2d_grad_weight(gpu, &g, &x, weight.shape(), conv);
            assert_within(&dw, &direct::grad_weight(gpu, &g, &x, weight.shape(), conv), terms);
        }
    }
    // ANCHOR_END: the_fast_convolutions_compute_what_the_definition_says
}
