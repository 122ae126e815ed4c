// Nothing but x = a x + b in registers: how much arithmetic a GPU does if memory never keeps it waiting. A thread goes on with
// eight fours of numbers in turn, so that no product waits for the one before it. What comes out is stored, or a compiler would
// leave it all out.

struct Params {
    threads: u32,
    rounds: u32,
    a: f32,
    b: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn multiply_add(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    let a = vec4(p.a);
    let b = vec4(p.b);
//: for c in 0..8
    var x_$c = vec4(f32(thread) + $c.0);
//: end
    for (var round = 0u; round < p.rounds; round += 1u) {
//: for r in 0..UNROLLED
//: for c in 0..8
        x_$c = fma(a, x_$c, b);
//: end
//: end
    }
    var sum = vec4(0.0);
//: for c in 0..8
    sum += x_$c;
//: end
    if i < p.threads {
        y[i] = sum.x + sum.y + sum.z + sum.w;
    }
}
