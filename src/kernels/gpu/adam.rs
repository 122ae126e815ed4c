//! One step of Adam as one pass over parameter, gradient and moments, and over the parameter's moving average.

use super::context::Context;
use super::map::own;
use super::numbers::words;
use super::shader::Shader;
use super::{groups, quads};
use crate::array::Array;
use crate::kernels::AdamStep;
use std::sync::Arc;

pub(super) fn adam(
    gpu: &Arc<Context>,
    parameter: &mut Array,
    grad: &Array,
    [first, second]: [&mut Array; 2],
    average: Option<(&mut Array, f64)>,
    step: AdamStep,
) {
    for array in [&mut *parameter, &mut *first, &mut *second] {
        own(gpu, array);
    }
    let weight = average.as_ref().map_or(0.0, |average| average.1);
    let parameters = words![
        quads(grad),
        step.beta1,
        step.beta2,
        1.0 - step.beta1,
        1.0 - step.beta2,
        step.lr / (1.0 - step.beta1.powf(step.step as f64)),
        1.0 / (1.0 - step.beta2.powf(step.step as f64)).sqrt(),
        step.eps,
        1.0 - step.lr * step.weight_decay,
        weight,
    ];
    let n = groups(quads(grad));
    match average {
        None => gpu.run(Shader::new("adam", "adam"), parameters, &[parameter, grad, first, second], n),
        Some((average, _)) => {
            own(gpu, average);
            let shader = Shader::new("adam", "adam_averaged");
            gpu.run(shader, parameters, &[parameter, grad, first, second, average], n);
        }
    }
}
