// acc += weight x, or acc += weight (x - acc) if LERP is 1: in place, and into a new array, where acc is shared with others.

struct Params {
    quads: u32,
    weight: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> acc: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> old: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;

fn moved(a: vec4<f32>, i: u32) -> vec4<f32> {
    if LERP == 1u {
        return a + p.weight * (x[i] - a);
    }
    return a + p.weight * x[i];
}

@compute @workgroup_size(256)
fn in_place(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        acc[i] = moved(acc[i], i);
    }
}

@compute @workgroup_size(256)
fn into_new(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        acc[i] = moved(old[i], i);
    }
}
