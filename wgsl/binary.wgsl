// y = f(a, b). OP: which function. RANK: axes, where shapes differ.
//: include functions

struct Params {
    // Numbers of y (`broadcast`), or numbers in fours (`same`).
    count: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    sizes: array<vec4<u32>, 2>,
    strides_a: array<vec4<u32>, 2>,
    strides_b: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> a_one: array<f32>;
@group(0) @binding(5) var<storage, read> b_one: array<f32>;
@group(0) @binding(6) var<storage, read_write> y_one: array<f32>;

@compute @workgroup_size(256)
fn same(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        let s = a[i];
        let t = b[i];
        y[i] = vec4(
            binary_value(OP, s.x, t.x),
            binary_value(OP, s.y, t.y),
            binary_value(OP, s.z, t.z),
            binary_value(OP, s.w, t.w),
        );
    }
}

// The place in y, axis by axis, gives the places in a and b: an axis that is repeated has stride 0.
@compute @workgroup_size(256)
fn broadcast(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        var rest = i;
        var in_a = 0u;
        var in_b = 0u;
        for (var k = RANK; k > 0u; k -= 1u) {
            let axis = k - 1u;
            let size = p.sizes[axis / 4u][axis % 4u];
            let at = rest % size;
            rest /= size;
            in_a += at * p.strides_a[axis / 4u][axis % 4u];
            in_b += at * p.strides_b[axis / 4u][axis % 4u];
        }
        y_one[i] = binary_value(OP, a_one[in_a], b_one[in_b]);
    }
}
