// acc += weight x and acc += weight (x - acc), in place; and the same into a new array, where acc is shared with others.

struct Params {
    quads: u32,
    weight: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> acc: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> old: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;

fn place(id: vec3<u32>, groups: vec3<u32>, thread: u32) -> u32 {
    return (id.y * groups.x + id.x) * 256u + thread;
}

@compute @workgroup_size(256)
fn add(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = place(id, groups, thread);
    if i < p.quads {
        acc[i] += p.weight * x[i];
    }
}

@compute @workgroup_size(256)
fn lerp(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = place(id, groups, thread);
    if i < p.quads {
        let a = acc[i];
        acc[i] = a + p.weight * (x[i] - a);
    }
}

@compute @workgroup_size(256)
fn add_new(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = place(id, groups, thread);
    if i < p.quads {
        acc[i] = old[i] + p.weight * x[i];
    }
}

@compute @workgroup_size(256)
fn lerp_new(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = place(id, groups, thread);
    if i < p.quads {
        let a = old[i];
        acc[i] = a + p.weight * (x[i] - a);
    }
}
