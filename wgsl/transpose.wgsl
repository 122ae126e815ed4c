// [batch, n, m] to [batch, m, n]. Through a tile of shared memory, so that both sides are read and written in runs; a row of
// the tile is one number longer than it need be, so that a column of it lies in different banks.

struct Params {
    n: u32,
    m: u32,
    tiles_n: u32,
    tiles_m: u32,
    batch: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const TILE: u32 = 32u;
var<workgroup> tile: array<f32, TILE * (TILE + 1u)>;

@compute @workgroup_size(256)
fn transpose_tiles(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.y * groups.x + id.x;
    let left = group % p.tiles_m * TILE;
    let top = group / p.tiles_m % p.tiles_n * TILE;
    let batch = group / p.tiles_m / p.tiles_n;
    let base = batch * p.n * p.m;
    let column = thread % TILE;
    for (var row = thread / TILE; row < TILE; row += 256u / TILE) {
        if batch < p.batch && top + row < p.n && left + column < p.m {
            tile[row * (TILE + 1u) + column] = x[base + (top + row) * p.m + left + column];
        }
    }
    workgroupBarrier();
    for (var row = thread / TILE; row < TILE; row += 256u / TILE) {
        if batch < p.batch && left + row < p.m && top + column < p.n {
            y[base + (left + row) * p.n + top + column] = tile[column * (TILE + 1u) + row];
        }
    }
}
