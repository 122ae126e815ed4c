// Pixels repeated in blocks of `factor` x `factor`, and sums over such blocks. One thread a pixel of the result.

struct Params {
    count: u32,
    factor: u32,
    // Of the result.
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn upsample_nearest(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        let column = i % p.width / p.factor;
        let row = i / p.width / p.factor;
        // Rows of all images and channels in one: the height is a multiple of the factor.
        y[i] = x[row * (p.width / p.factor) + column];
    }
}

@compute @workgroup_size(256)
fn sum_pool(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.count {
        let wide = p.width * p.factor;
        let corner = i / p.width * p.factor * wide + i % p.width * p.factor;
        var sum = 0.0;
        for (var row = 0u; row < p.factor; row += 1u) {
            for (var column = 0u; column < p.factor; column += 1u) {
                sum += x[corner + row * wide + column];
            }
        }
        y[i] = sum;
    }
}
