// C = A B, the definition: one thread an entry of C, every number read from memory. What the fast ones are compared with.
//: include matmul_params

@compute @workgroup_size(256)
fn matmul_plain(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (id.y * groups.x + id.x) * 256u + thread;
    if i < p.batches * p.m * p.n {
        begin(i / (p.m * p.n));
        // ANCHOR: plain
        let row = i / p.n % p.m;
        let column = i % p.n;
        var sum = 0.0;
        for (var k = 0u; k < p.k; k += 1u) {
            sum += a[a_base + row * p.a_row + k * p.a_column] * f32(b[b_base + k * p.b_row + column * p.b_column]);
        }
        c[i] = sum;
        // ANCHOR_END: plain
    }
}
