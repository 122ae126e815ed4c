// Softmax and its logarithm along rows of n numbers, and their gradients. LANES threads a row.
//: include functions
//: include lanes

struct Params {
    rows: u32,
    n: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// (first number of this thread, number behind the row's last); an empty range behind the last row.
fn row_of(group: u32, thread: u32) -> vec2<u32> {
    let row = group * ROWS_A_GROUP + thread / LANES;
    if row >= p.rows {
        return vec2(0u, 0u);
    }
    return vec2(row * p.n + thread % LANES, (row + 1u) * p.n);
}

fn largest_of_row(row: vec2<u32>, thread: u32) -> f32 {
    var largest = negative_infinity();
    for (var i = row.x; i < row.y; i += LANES) {
        largest = larger(largest, x[i]);
    }
    return largest_of_lanes(largest, thread);
}

fn exponentials_of_row(row: vec2<u32>, largest: f32, thread: u32) -> f32 {
    var sum = 0.0;
    for (var i = row.x; i < row.y; i += LANES) {
        sum += exponential(x[i] - largest);
    }
    return sum_of_lanes(sum, thread);
}

@compute @workgroup_size(256)
fn softmax(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = row_of(id.y * groups.x + id.x, thread);
    let largest = largest_of_row(row, thread);
    let sum = exponentials_of_row(row, largest, thread);
    // A row of nothing but negative infinity has nothing to choose from.
    let hidden = is_negative_infinity(largest);
    for (var i = row.x; i < row.y; i += LANES) {
        y[i] = select(exponential(x[i] - largest) / sum, 0.0, hidden);
    }
}

// y (g - sum(g y)); y comes as x.
@compute @workgroup_size(256)
fn softmax_grad(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = row_of(id.y * groups.x + id.x, thread);
    var sum = 0.0;
    for (var i = row.x; i < row.y; i += LANES) {
        sum += g[i] * x[i];
    }
    let dot = sum_of_lanes(sum, thread);
    for (var i = row.x; i < row.y; i += LANES) {
        y[i] = x[i] * (g[i] - dot);
    }
}

@compute @workgroup_size(256)
fn log_softmax(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = row_of(id.y * groups.x + id.x, thread);
    let largest = largest_of_row(row, thread);
    let log_sum = logarithm(exponentials_of_row(row, largest, thread));
    let hidden = is_negative_infinity(largest);
    for (var i = row.x; i < row.y; i += LANES) {
        y[i] = select(x[i] - largest - log_sum, negative_infinity(), hidden);
    }
}

// g - e^y sum(g); y comes as x.
@compute @workgroup_size(256)
fn log_softmax_grad(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = row_of(id.y * groups.x + id.x, thread);
    var sum = 0.0;
    for (var i = row.x; i < row.y; i += LANES) {
        sum += g[i];
    }
    let whole = sum_of_lanes(sum, thread);
    for (var i = row.x; i < row.y; i += LANES) {
        y[i] = g[i] - exponential(x[i]) * whole;
    }
}
