// Rows of a table by number, and the adjoint: rows added to where they came from. One thread a number.

struct Params {
    count: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// `gather`: which row of the table. `scatter_add`: rows of x, sorted by the row of the table they belong to.
@group(0) @binding(2) var<storage, read> rows: array<u32>;
// Where in `rows` those of a row of the table begin, and, one later, where they end.
@group(0) @binding(3) var<storage, read> begins: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn gather(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        y[i] = x[rows[i / p.width] * p.width + i % p.width];
    }
}

// In the order of the rows, without atomics: the same bits every time.
@compute @workgroup_size(256)
fn scatter_add(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        let row = i / p.width;
        var sum = 0.0;
        for (var k = begins[row]; k < begins[row + 1u]; k += 1u) {
            sum += x[rows[k] * p.width + i % p.width];
        }
        y[i] = sum;
    }
}
