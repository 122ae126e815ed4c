// Sums (OP 0), maxima (OP 1) and sums of squares (OP 2) of x [outer, n, inner] along n, which is cut into segments:
// y [outer, segments, inner]. A second pass over the segments ends it.
//: include functions
//: include lanes

struct Params {
    // Results: outer segments inner.
    count: u32,
    n: u32,
    inner: u32,
    segments: u32,
    // Numbers along n in a segment; the last may have fewer.
    length: u32,
    // Where in y to begin.
    start: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn empty() -> f32 {
    return select(0.0, negative_infinity(), OP == 1u);
}

fn combined(sum: f32, value: f32) -> f32 {
    if OP == 1u {
        return larger(sum, value);
    }
    return sum + select(value, value * value, OP == 2u);
}

// inner is 1: LANES threads a result.
@compute @workgroup_size(256)
fn along_rows(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = (id.y * groups.x + id.x) * ROWS_A_GROUP + thread / LANES;
    var sum = empty();
    if row < p.count {
        let begin = row % p.segments * p.length;
        let end = min(begin + p.length, p.n);
        let base = row / p.segments * p.n;
        for (var i = begin + thread % LANES; i < end; i += LANES) {
            sum = combined(sum, x[base + i]);
        }
    }
    if OP == 1u {
        sum = largest_of_lanes(sum, thread);
    } else {
        sum = sum_of_lanes(sum, thread);
    }
    if row < p.count && thread % LANES == 0u {
        y[p.start + row] = sum;
    }
}

// One thread a result: neighbours read neighbours.
@compute @workgroup_size(256)
fn along_columns(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        let segment = i / p.inner % p.segments;
        let base = i / p.inner / p.segments * p.n * p.inner + i % p.inner;
        let end = min((segment + 1u) * p.length, p.n);
        var sum = empty();
        for (var k = segment * p.length; k < end; k += 1u) {
            sum = combined(sum, x[base + k * p.inner]);
        }
        y[p.start + i] = sum;
    }
}
