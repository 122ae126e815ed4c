// Gradients of group normalisation, with silu if SILU is 1. With xhat = (x - mean) inv_std and h = g (times silu'(y)):
//   d bias = sum of h,  d weight = sum of h xhat,
//   dx = inv_std (h weight - mean of (h weight) - xhat mean of (h weight xhat)), means over the group.
// Both kinds of sums are made of the sums over the pixels of every channel, which come first.
//: include functions
//: include lanes

struct Params {
    rows: u32,
    // `channel_sums`: pixels of a channel. `grad_input`: numbers of a group.
    n: u32,
    channels: u32,
    groups: u32,
    channels_a_group: u32,
    pixels: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> mean: array<f32>;
@group(0) @binding(6) var<storage, read> inv_std: array<f32>;
// [B, C] each.
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;
@group(0) @binding(8) var<storage, read_write> sums_xhat: array<f32>;
@group(0) @binding(9) var<storage, read_write> dx: array<f32>;

fn before_silu(g: f32, xhat: f32, channel: u32) -> f32 {
    if SILU == 1u {
        return g * silu_slope(xhat * weight[channel] + bias[channel]);
    }
    return g;
}

// A row is a channel of an image.
@compute @workgroup_size(256)
fn channel_sums(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = (id.y * groups.x + id.x) * ROWS_A_GROUP + thread / LANES;
    let lane = thread % LANES;
    var sum = 0.0;
    var sum_xhat = 0.0;
    if row < p.rows {
        let channel = row % p.channels;
        let block = row / p.channels * p.groups + channel / p.channels_a_group;
        let m = mean[block];
        let s = inv_std[block];
        for (var i = lane; i < p.n; i += LANES) {
            let xhat = (x[row * p.n + i] - m) * s;
            let h = before_silu(g[row * p.n + i], xhat, channel);
            sum += h;
            sum_xhat += h * xhat;
        }
    }
    sum = sum_of_lanes(sum, thread);
    sum_xhat = sum_of_lanes(sum_xhat, thread);
    if row < p.rows && lane == 0u {
        sums[row] = sum;
        sums_xhat[row] = sum_xhat;
    }
}

// A row is a group of an image.
@compute @workgroup_size(256)
fn grad_input(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = (id.y * groups.x + id.x) * ROWS_A_GROUP + thread / LANES;
    let lane = thread % LANES;
    let first = row % p.groups * p.channels_a_group;
    let image = row / p.groups * p.channels;
    var sum = 0.0;
    var sum_xhat = 0.0;
    if row < p.rows {
        for (var c = first + lane; c < first + p.channels_a_group; c += LANES) {
            sum += weight[c] * sums[image + c];
            sum_xhat += weight[c] * sums_xhat[image + c];
        }
    }
    sum = sum_of_lanes(sum, thread) / f32(p.n);
    sum_xhat = sum_of_lanes(sum_xhat, thread) / f32(p.n);
    if row < p.rows {
        let m = mean[row];
        let s = inv_std[row];
        for (var i = lane; i < p.n; i += LANES) {
            let channel = first + i / p.pixels;
            let xhat = (x[row * p.n + i] - m) * s;
            let h = before_silu(g[row * p.n + i], xhat, channel);
            dx[row * p.n + i] = s * (h * weight[channel] - sum - xhat * sum_xhat);
        }
    }
}
