// y = f(x) and y = g f'(x). OP: which function.
//: include functions

struct Params {
    // Numbers, in fours: what lies behind the last of an array belongs to nobody.
    quads: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn unary(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        let v = x[i];
        y[i] = vec4(unary_value(OP, v.x), unary_value(OP, v.y), unary_value(OP, v.z), unary_value(OP, v.w));
    }
}

@compute @workgroup_size(256)
fn unary_grad(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        let v = x[i];
        y[i] = g[i] * vec4(unary_slope(OP, v.x), unary_slope(OP, v.y), unary_slope(OP, v.z), unary_slope(OP, v.w));
    }
}
