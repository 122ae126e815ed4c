// The norm of many arrays from sums of their squares, and their shortening, without the CPU knowing the norm.
//: include functions
//: include lanes

struct Params {
    // `norm`: sums. `shorten`: numbers in fours.
    count: u32,
    max_norm: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> squares: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@group(0) @binding(3) var<storage, read> length: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn norm(@builtin(local_invocation_index) thread: u32) {
    var sum = 0.0;
    for (var i = thread; i < p.count; i += GROUP) {
        sum += squares[i];
    }
    sum = sum_of_lanes(sum, thread);
    if thread == 0u {
        result[0] = sqrt(sum);
    }
}

@compute @workgroup_size(256)
fn shorten(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    let scale = p.max_norm / (length[0] + p.eps);
    let finite = !is_nan(length[0]) && !is_infinite(length[0]);
    if i < p.count {
        // Within the limit they stay as they are, to the bit; and so they do where nothing sensible can be done.
        y[i] = select(x[i], x[i] * scale, finite && scale < 1.0);
    }
}
