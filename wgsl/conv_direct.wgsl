// Convolution and its two gradients by their definitions, one thread a number of the result. What the fast ones are compared
// with.
//: include conv_params

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> g: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

fn x_at(b: u32, c: u32, row: i32, column: i32) -> f32 {
    if row < 0 || row >= i32(p.height) || column < 0 || column >= i32(p.width) {
        return 0.0;
    }
    return x[((b * p.channels + c) * p.height + u32(row)) * p.width + u32(column)];
}

@compute @workgroup_size(256)
fn forward(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i >= p.images * p.outputs * p.out_height * p.out_width {
        return;
    }
    // ANCHOR: definition
    let column = i % p.out_width;
    let row = i / p.out_width % p.out_height;
    let o = i / p.out_width / p.out_height % p.outputs;
    let b = i / p.out_width / p.out_height / p.outputs;
    var sum = 0.0;
    if p.bias == 1u {
        sum = bias[o];
    }
    for (var c = 0u; c < p.channels; c += 1u) {
        for (var u = 0u; u < KH; u += 1u) {
            for (var v = 0u; v < KW; v += 1u) {
                let from_row = i32(STRIDE * row + u) - i32(p.padding);
                let from_column = i32(STRIDE * column + v) - i32(p.padding);
                sum += weight[((o * p.channels + c) * KH + u) * KW + v] * x_at(b, c, from_row, from_column);
            }
        }
    }
    y[i] = sum;
    // ANCHOR_END: definition
}

@compute @workgroup_size(256)
fn grad_input(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i >= p.images * p.channels * p.height * p.width {
        return;
    }
    let column = i % p.width;
    let row = i / p.width % p.height;
    let c = i / p.width / p.height % p.channels;
    let b = i / p.width / p.height / p.channels;
    var sum = 0.0;
    for (var o = 0u; o < p.outputs; o += 1u) {
        for (var u = 0u; u < KH; u += 1u) {
            for (var v = 0u; v < KW; v += 1u) {
                let down = i32(row + p.padding) - i32(u);
                let right = i32(column + p.padding) - i32(v);
                if down >= 0 && right >= 0 && down % i32(STRIDE) == 0 && right % i32(STRIDE) == 0 {
                    let r = u32(down) / STRIDE;
                    let s = u32(right) / STRIDE;
                    if r < p.out_height && s < p.out_width {
                        sum += weight[((o * p.channels + c) * KH + u) * KW + v]
                            * g[((b * p.outputs + o) * p.out_height + r) * p.out_width + s];
                    }
                }
            }
        }
    }
    y[i] = sum;
}

@compute @workgroup_size(256)
fn grad_weight(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i >= p.outputs * p.channels * TAPS {
        return;
    }
    let v = i % KW;
    let u = i / KW % KH;
    let c = i / TAPS % p.channels;
    let o = i / TAPS / p.channels;
    var sum = 0.0;
    for (var b = 0u; b < p.images; b += 1u) {
        for (var r = 0u; r < p.out_height; r += 1u) {
            for (var s = 0u; s < p.out_width; s += 1u) {
                let from_row = i32(STRIDE * r + u) - i32(p.padding);
                let from_column = i32(STRIDE * s + v) - i32(p.padding);
                sum += g[((b * p.outputs + o) * p.out_height + r) * p.out_width + s] * x_at(b, c, from_row, from_column);
            }
        }
    }
    y[i] = sum;
}
