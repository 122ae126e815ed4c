// y = scale x + shift: one thread, four numbers.

struct Params {
    quads: u32,
    scale: f32,
    shift: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

// ANCHOR: affine
@compute @workgroup_size(256)
fn affine(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.quads {
        y[i] = p.scale * x[i] + p.shift;
    }
}
// ANCHOR_END: affine
