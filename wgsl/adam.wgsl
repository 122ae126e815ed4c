// One step of Adam, in place on the parameter and its moments, and of the moving average of the parameter.

struct Params {
    quads: u32,
    beta1: f32,
    beta2: f32,
    gain1: f32,
    gain2: f32,
    // lr / (1 - beta1^t)
    rate: f32,
    // 1 / sqrt(1 - beta2^t)
    inv_root2: f32,
    eps: f32,
    // 1 - lr decay
    keep: f32,
    // How far the average moves towards the parameter.
    average_weight: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> grad: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> first: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> second: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> average: array<vec4<f32>>;

fn step(i: u32) -> vec4<f32> {
    let g = grad[i];
    let m = p.beta1 * first[i] + p.gain1 * g;
    let v = p.beta2 * second[i] + p.gain2 * g * g;
    let next = p.keep * parameter[i] - p.rate * m / (sqrt(v) * p.inv_root2 + p.eps);
    first[i] = m;
    second[i] = v;
    parameter[i] = next;
    return next;
}

@compute @workgroup_size(256)
fn adam(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        _ = step(i);
    }
}

@compute @workgroup_size(256)
fn adam_averaged(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        let a = average[i];
        average[i] = a + p.average_weight * (step(i) - a);
    }
}
