// softmax(scale q k' + bias) v without the n x m matrix: a thread has one query, goes through the keys once, and keeps the
// largest score so far, the sum of the exponentials, and the sum of the values. When a larger score comes, the sums are
// scaled down to it. (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1)
//: include functions
//: include attention_params

@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
// log of the sum of the exponentials of a query's scores: what backward needs to find the weights again.
@group(0) @binding(6) var<storage, read_write> log_sum: array<f32>;

var<workgroup> keys: array<vec4<f32>, TILE * D4>;
var<workgroup> values: array<vec4<f32>, TILE * D4>;

@compute @workgroup_size(THREADS)
fn attention(
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
    let exists = query < p.n;
    // A thread without a query works on the last one, and writes nothing.
    let row = batch * p.n + min(query, p.n - 1u);
    let bias_row = bias_of(batch) + min(query, p.n - 1u) * p.bias_n;
//: for i in 0..D4
    let q_$i = q[row * D4 + $iu] * p.scale;
    var sum_$i = vec4(0.0);
//: end
    // Below every score, and finite: the first that is not hidden is larger.
    var largest = -3.4028234e38;
    var weights = 0.0;
    for (var first = 0u; first < p.m; first += TILE) {
        let count = min(TILE, p.m - first);
        for (var i = thread; i < count * D4; i += THREADS) {
            keys[i] = k[(batch * p.m + first) * D4 + i];
            values[i] = v[(batch * p.m + first) * D4 + i];
        }
        workgroupBarrier();
        for (var j = 0u; j < count; j += 1u) {
            var score = 0.0;
//: for i in 0..D4
            score += dot(q_$i, keys[j * D4 + $iu]);
//: end
            if p.biased == 1u {
                score += bias[bias_row + (first + j) * p.bias_m];
            }
            if is_negative_infinity(score) {
                continue;
            }
            // ANCHOR: online
            if score > largest {
                let down = exponential(largest - score);
                weights *= down;
//: for i in 0..D4
                sum_$i *= down;
//: end
                largest = score;
            }
            let weight = exponential(score - largest);
            weights += weight;
//: for i in 0..D4
            sum_$i += weight * values[j * D4 + $iu];
//: end
            // ANCHOR_END: online
        }
        workgroupBarrier();
    }
    if exists {
        // A query that sees no key gets zeros, and its weights are found to be zero again: e^(score - infinity).
        let hidden = weights == 0.0;
        let scale = select(1.0 / weights, 0.0, hidden);
//: for i in 0..D4
        y[row * D4 + $iu] = sum_$i * scale;
//: end
        log_sum[row] = select(largest + logarithm(weights), infinity(), hidden);
    }
}
