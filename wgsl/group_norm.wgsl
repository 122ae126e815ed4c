// Group normalisation, with silu if SILU is 1. The channels of a group lie one behind the other: a row of n numbers, for
// LANES threads.
//: include functions
//: include lanes

struct Params {
    rows: u32,
    // Numbers of a row: its channels times the pixels.
    n: u32,
    groups: u32,
    channels_a_group: u32,
    pixels: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> inv_std: array<f32>;

@compute @workgroup_size(256)
fn group_norm(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = (id.y * groups.x + id.x) * ROWS_A_GROUP + thread / LANES;
    let lane = thread % LANES;
    let base = row * p.n;
    let end = select(0u, p.n, row < p.rows);

    var sum = 0.0;
    for (var i = lane; i < end; i += LANES) {
        sum += x[base + i];
    }
    let m = sum_of_lanes(sum, thread) / f32(p.n);
    // The mean is taken off first: a difference of squares would lose all digits where it is large.
    var squares = 0.0;
    for (var i = lane; i < end; i += LANES) {
        let d = x[base + i] - m;
        squares += d * d;
    }
    let s = 1.0 / sqrt(sum_of_lanes(squares, thread) / f32(p.n) + p.eps);

    if row < p.rows && lane == 0u {
        mean[row] = m;
        inv_std[row] = s;
    }
    let first = row % p.groups * p.channels_a_group;
    for (var i = lane; i < end; i += LANES) {
        let channel = first + i / p.pixels;
        let value = (x[base + i] - m) * s * weight[channel] + bias[channel];
        if SILU == 1u {
            y[base + i] = silu(value);
        } else {
            y[base + i] = value;
        }
    }
}
