// Gradients of attention. With the weights P = e^(scores - log_sum), found again from queries and keys:
//   dv = P' g,   dS = P (g v' - delta) with delta = sum(g y) of every query,   dq = scale dS k,   dk = scale dS' q.
// One pass in which a thread has a query, one in which it has a key: no two threads add to the same number.
// (Dao et al. 2022, algorithm 4)
//: include functions
//: include attention_params

@group(0) @binding(5) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> log_sum: array<f32>;
@group(0) @binding(8) var<storage, read_write> dq: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> delta_out: array<f32>;
@group(0) @binding(10) var<storage, read> delta: array<f32>;
@group(0) @binding(11) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read_write> dv: array<vec4<f32>>;

var<workgroup> tile_a: array<vec4<f32>, TILE * D4>;
var<workgroup> tile_b: array<vec4<f32>, TILE * D4>;

@compute @workgroup_size(THREADS)
fn queries(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.y * groups.x + id.x;
    let batch = group / p.tiles;
    if batch >= p.batches {
        return;
    }
    let query = group % p.tiles * THREADS + thread;
    let row = batch * p.n + min(query, p.n - 1u);
    let bias_row = bias_of(batch) + min(query, p.n - 1u) * p.bias_n;
    let log_weights = log_sum[row];
    var d = 0.0;
//: for i in 0..D4
    let q_$i = q[row * D4 + $iu] * p.scale;
    let g_$i = g[row * D4 + $iu];
    d += dot(g_$i, y[row * D4 + $iu]);
    var sum_$i = vec4(0.0);
//: end
    for (var first = 0u; first < p.m; first += TILE) {
        let count = min(TILE, p.m - first);
        for (var i = thread; i < count * D4; i += THREADS) {
            tile_a[i] = k[(batch * p.m + first) * D4 + i];
            tile_b[i] = v[(batch * p.m + first) * D4 + i];
        }
        workgroupBarrier();
        for (var j = 0u; j < count; j += 1u) {
            var score = 0.0;
            var slope = -d;
//: for i in 0..D4
            score += dot(q_$i, tile_a[j * D4 + $iu]);
            slope += dot(g_$i, tile_b[j * D4 + $iu]);
//: end
            if p.biased == 1u {
                score += bias[bias_row + (first + j) * p.bias_m];
            }
            let ds = exponential(score - log_weights) * slope;
            if !is_negative_infinity(score) {
//: for i in 0..D4
                sum_$i += ds * tile_a[j * D4 + $iu];
//: end
            }
        }
        workgroupBarrier();
    }
    if query < p.n {
//: for i in 0..D4
        dq[row * D4 + $iu] = sum_$i * p.scale;
//: end
        delta_out[row] = d;
    }
}

@compute @workgroup_size(THREADS)
fn keys(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.y * groups.x + id.x;
    let batch = group / p.tiles;
    if batch >= p.batches {
        return;
    }
    let key = group % p.tiles * THREADS + thread;
    let row = batch * p.m + min(key, p.m - 1u);
    let bias_column = bias_of(batch) + min(key, p.m - 1u) * p.bias_m;
//: for i in 0..D4
    let k_$i = k[row * D4 + $iu] * p.scale;
    let v_$i = v[row * D4 + $iu];
    var sum_k_$i = vec4(0.0);
    var sum_v_$i = vec4(0.0);
//: end
    for (var first = 0u; first < p.n; first += TILE) {
        let count = min(TILE, p.n - first);
        for (var i = thread; i < count * D4; i += THREADS) {
            tile_a[i] = q[(batch * p.n + first) * D4 + i];
            tile_b[i] = g[(batch * p.n + first) * D4 + i];
        }
        workgroupBarrier();
        for (var j = 0u; j < count; j += 1u) {
            let query = batch * p.n + first + j;
            var score = 0.0;
            var slope = -delta[query];
//: for i in 0..D4
            score += dot(k_$i, tile_a[j * D4 + $iu]);
            slope += dot(v_$i, tile_b[j * D4 + $iu]);
//: end
            if p.biased == 1u {
                score += bias[bias_column + (first + j) * p.bias_n];
            }
            if !is_negative_infinity(score) {
                let weight = exponential(score - log_sum[query]);
                let ds = weight * slope;
//: for i in 0..D4
                sum_k_$i += ds * tile_a[j * D4 + $iu];
                sum_v_$i += weight * tile_b[j * D4 + $iu];
//: end
            }
        }
        workgroupBarrier();
    }
    if key < p.m {
//: for i in 0..D4
        dk[row * D4 + $iu] = sum_k_$i * p.scale;
        dv[row * D4 + $iu] = sum_v_$i;
//: end
    }
}
