//! Matrix products.

use super::Tensor;
use super::graph::op;

impl Tensor {
    /// A B for a [.., n, k], b [.., k, m]; leading axes broadcast. Panics if the shapes do not fit.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        self.matmul_t(other, false, false)
    }

    // ANCHOR: matmul_t
    /// op(A) op(B), where op transposes the last two axes if asked to, without copying.
    ///
    /// y = A B: dA = g B', dB = A' g, each summed over what was broadcast. Panics if the shapes do not fit.
    #[track_caller]
    pub fn matmul_t(&self, other: &Tensor, transpose_a: bool, transpose_b: bool) -> Tensor {
        let (a, b) = (self.value.clone(), other.value.clone());
        let (shape_a, shape_b) = (a.shape().clone(), b.shape().clone());
        check(self, other, transpose_a, transpose_b);
        let k = self.kernels();
        op("matmul", k.matmul(&a, &b, transpose_a, transpose_b))
            .grad(self, move |g| {
                let grad =
                    if transpose_a { k.matmul(&b, g, transpose_b, true) } else { k.matmul(g, &b, false, !transpose_b) };
                grad.sum_to(&shape_a)
            })
            .grad(other, move |g| {
                let grad =
                    if transpose_b { k.matmul(g, &a, true, transpose_a) } else { k.matmul(&a, g, !transpose_a, false) };
                grad.sum_to(&shape_b)
            })
            .done()
    }
    // ANCHOR_END: matmul_t

    /// x W' + b for x [.., k], weight [m, k], bias `[m]`. Panics if the shapes do not fit.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (x, w) = (self.shape(), weight.shape());
        assert!(
            w.len() == 2 && x.last() == Some(&w[1]),
            "linear: input {x} does not fit weight {w}, which is [out, in]"
        );
        if let Some(bias) = bias {
            assert_eq!(**bias.shape(), [w[0]], "linear: bias for weight {w} must be [{}]", w[0]);
        }
        let rows = x[..x.len() - 1].iter().product();
        let mut shape = x.to_vec();
        shape[x.len() - 1] = w[0];
        let y = self.reshape([rows, w[1]]).matmul_t(weight, false, true);
        let y = if let Some(bias) = bias { &y + bias } else { y };
        y.reshape(shape)
    }
}

#[track_caller]
fn check(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) {
    let (sa, sb) = (a.shape(), b.shape());
    let describe = |t: bool| if t { " transposed" } else { "" };
    let whole = || format!("matmul: {sa}{} and {sb}{} do not fit", describe(transpose_a), describe(transpose_b));
    assert!(sa.len() >= 2 && sb.len() >= 2, "{}: both need two axes or more", whole());
    let inner_a = sa[sa.len() - if transpose_a { 2 } else { 1 }];
    let inner_b = sb[sb.len() - if transpose_b { 1 } else { 2 }];
    assert_eq!(inner_a, inner_b, "{}", whole());
    let (batch_a, batch_b) = (&sa[..sa.len() - 2], &sb[..sb.len() - 2]);
    let fits = crate::array::Shape::from(batch_a).broadcast(&batch_b.into()).is_some();
    assert!(fits, "{}: leading axes do not broadcast", whole());
    assert_eq!(a.dtype(), b.dtype(), "{}: dtypes differ", whole());
}
