// C = A B by tiles of 16 x 16: what a tile of C needs of A and B is first brought into shared memory, where every number is
// used 16 times. One thread an entry of C.
//: include matmul_params

const TILE: u32 = 16u;
// ANCHOR: tiled
var<workgroup> a_tile: array<f32, TILE * TILE>;
var<workgroup> b_tile: array<f32, TILE * TILE>;

@compute @workgroup_size(256)
fn matmul_tiled(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.y * groups.x + id.x;
    let batch = group / p.tiles_n / p.tiles_m;
    begin(batch);
    let y = thread / TILE;
    let x = thread % TILE;
    let row = group / p.tiles_n % p.tiles_m * TILE + y;
    let column = group % p.tiles_n * TILE + x;

    var sum = 0.0;
    for (var k = 0u; k < p.k; k += TILE) {
        // One number of each tile a thread; zeros beyond the edge, which add nothing.
        a_tile[thread] = 0.0;
        b_tile[thread] = 0.0;
        if batch < p.batches && row < p.m && k + x < p.k {
            a_tile[thread] = a[a_base + row * p.a_row + (k + x) * p.a_column];
        }
        if batch < p.batches && k + y < p.k && column < p.n {
            b_tile[thread] = f32(b[b_base + (k + y) * p.b_row + column * p.b_column]);
        }
        workgroupBarrier();
        for (var i = 0u; i < TILE; i += 1u) {
            sum += a_tile[y * TILE + i] * b_tile[i * TILE + x];
        }
        workgroupBarrier();
    }
    if batch < p.batches && row < p.m && column < p.n {
        c[(batch * p.m + row) * p.n + column] = sum;
    }
}
// ANCHOR_END: tiled
