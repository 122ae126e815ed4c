// Numbers moved, none changed.

struct Params {
    count: u32,
    // Where in x to begin.
    start: u32,
    // `place` and `unslice`: rows of `part` numbers, in rows of `whole`.
    part: u32,
    whole: u32,
    sizes: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// y in order, x by strides. RANK: axes.
@compute @workgroup_size(256)
fn gather(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        var rest = i;
        var from_x = p.start;
        for (var k = RANK; k > 0u; k -= 1u) {
            let axis = k - 1u;
            let size = p.sizes[axis / 4u][axis % 4u];
            from_x += rest % size * p.strides[axis / 4u][axis % 4u];
            rest /= size;
        }
        y[i] = x[from_x];
    }
}

// Rows of x into rows of y that are longer, from `start` on. The rest of y is left alone.
@compute @workgroup_size(256)
fn place(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        y[i / p.part * p.whole + p.start + i % p.part] = x[i];
    }
}

// As `place`, and zeros elsewhere: one thread a number of y.
@compute @workgroup_size(256)
fn unslice(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        let at = i % p.whole;
        var value = 0.0;
        if at >= p.start && at < p.start + p.part {
            value = x[i / p.whole * p.part + at - p.start];
        }
        y[i] = value;
    }
}
