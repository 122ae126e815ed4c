//! One step of Adam as one pass over parameter, gradient and moments.

use super::by_dtype;
use super::parallel::{CHUNK, vectorised};
use crate::array::{Array, Element};
use crate::kernels::AdamStep;
use rayon::prelude::*;

pub(super) fn adam(parameter: &mut Array, grad: &Array, first: &mut Array, second: &mut Array, step: AdamStep) {
    by_dtype!(grad.dtype(), T => {
        pass::<T>(parameter.make_mut(), grad.slice(), first.make_mut(), second.make_mut(), step);
    })
}

/// The numbers of a step that are the same for all parameters.
#[derive(Clone, Copy)]
struct Factors<T> {
    beta1: T,
    beta2: T,
    gain1: T,
    gain2: T,
    /// lr / (1 - beta1^t).
    rate: T,
    /// 1 / sqrt(1 - beta2^t).
    inv_root2: T,
    eps: T,
    /// 1 - lr decay.
    keep: T,
}

/// Kingma and Ba (arXiv 1412.6980, algorithm 1), with the decoupled decay of Loshchilov and Hutter (arXiv 1711.05101,
/// algorithm 2) applied before the step:
///   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
///   p = (1 - lr decay) p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
fn pass<T: Element>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], step: AdamStep) {
    // ANCHOR: adam_factors
    let factors = Factors {
        beta1: T::of(step.beta1),
        beta2: T::of(step.beta2),
        gain1: T::of(1.0 - step.beta1),
        gain2: T::of(1.0 - step.beta2),
        rate: T::of(step.lr / (1.0 - step.beta1.powf(step.step as f64))),
        inv_root2: T::of(1.0 / (1.0 - step.beta2.powf(step.step as f64)).sqrt()),
        eps: T::of(step.eps),
        keep: T::of(1.0 - step.lr * step.weight_decay),
    };
    // ANCHOR_END: adam_factors
    let pieces =
        p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
    pieces.for_each(|(((p, g), m), v)| piece(p, g, m, v, factors));
}

vectorised! {
    // ANCHOR: adam_piece
    fn piece<T: Element>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], f: Factors<T>) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            *m = f.beta1 * *m + f.gain1 * g;
            *v = f.beta2 * *v + f.gain2 * g * g;
            *p = f.keep * *p - f.rate * *m / (v.sqrt() * f.inv_root2 + f.eps);
        }
    }
    // ANCHOR_END: adam_piece
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_on_any_threads, gaussian};
    use super::*;
    use crate::array::DType;
    use crate::kernels::cpu::map::fill;

    const STEP: AdamStep = AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, step: 1 };

    #[test]
    fn three_steps_follow_the_equations() {
        let shape = [5, 7];
        let mut arrays =
            [gaussian(shape, 1), fill(&shape.into(), DType::F64, 0.0), fill(&shape.into(), DType::F64, 0.0)];
        let (mut p, mut m, mut v) = (arrays[0].to_f64(), vec![0.0; 35], vec![0.0; 35]);
        for t in 1..=3 {
            let g = gaussian(shape, 10 + t);
            let [parameter, first, second] = &mut arrays;
            adam(parameter, &g, first, second, AdamStep { step: t, ..STEP });
            for (i, g) in g.to_f64().into_iter().enumerate() {
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (m_hat, v_hat) = (m[i] / (1.0 - 0.9_f64.powi(t as i32)), v[i] / (1.0 - 0.99_f64.powi(t as i32)));
                p[i] = p[i] * (1.0 - 0.1 * 0.01) - 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        for (found, expected) in arrays.iter().zip([p, m, v]) {
            assert_close(found, &Array::from_vec(shape, expected), 1e-13);
        }
    }

    #[test]
    fn threads_do_not_matter() {
        assert_same_on_any_threads(|| {
            let mut arrays = [1, 2, 3].map(|i| gaussian([100_003], i).cast(DType::F32));
            let [parameter, first, second] = &mut arrays;
            adam(parameter, &first.clone(), first, &mut second.clone(), STEP);
            arrays.to_vec()
        });
    }
}
