// q [.., n, d], k and v [.., m, d], d = 4 D4; the leading axes in one, but for the bias, which may be repeated along any axis.

struct Params {
    batches: u32,
    n: u32,
    m: u32,
    // Workgroups a batch.
    tiles: u32,
    scale: f32,
    // 1 if there is a bias.
    biased: u32,
    bias_n: u32,
    bias_m: u32,
    lead: vec4<u32>,
    bias_lead: vec4<u32>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

// Threads, each with a query or a key; and how many of the others are brought into shared memory at a time.
const THREADS: u32 = 64u;
const TILE: u32 = 32u;

// Where the bias of one batch begins.
fn bias_of(batch: u32) -> u32 {
    var rest = batch;
    var base = 0u;
    for (var i = 4u; i > 0u; i -= 1u) {
        base += rest % p.lead[i - 1u] * p.bias_lead[i - 1u];
        rest /= p.lead[i - 1u];
    }
    return base;
}
