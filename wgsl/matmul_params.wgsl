// What every matrix product is given: a batch of A [m, k] and B [k, n], by strides, so that a transposed one need not be copied.

struct Params {
    m: u32,
    n: u32,
    k: u32,
    batches: u32,
    // Numbers between neighbouring rows and between neighbouring columns.
    a_row: u32,
    a_column: u32,
    b_row: u32,
    b_column: u32,
    // Of the fast one: how often a tile fits, rounded up; and into how many parts k is cut, of which length.
    tiles_m: u32,
    tiles_n: u32,
    splits: u32,
    split_k: u32,
    // The leading axes, and how far a step along each of them goes in A and in B: 0 where one matrix serves all.
    lead: vec4<u32>,
    a_lead: vec4<u32>,
    b_lead: vec4<u32>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
// As f32, or as f16.
@group(0) @binding(2) var<storage, read> b: array<STORED>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

var<private> a_base: u32;
var<private> b_base: u32;

// Finds the matrices of one product of the batch.
fn begin(batch: u32) {
    a_base = 0u;
    b_base = 0u;
    var rest = batch;
    for (var k = 4u; k > 0u; k -= 1u) {
        let at = rest % p.lead[k - 1u];
        rest /= p.lead[k - 1u];
        a_base += at * p.a_lead[k - 1u];
        b_base += at * p.b_lead[k - 1u];
    }
}
