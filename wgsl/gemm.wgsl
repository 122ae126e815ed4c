// C = A B for matrices that need not exist: the including file says what number stands at a place of A [m, k] and of
// B [k, n], and where a number of C goes. A convolution is such a product (conv_forward.wgsl and its gradients).
//
// A place is found in two halves, one for the row and one for the column, so that what belongs to a row is worked out once:
//   a_row(m), a_column(k), b_row(k), b_column(n) -> vec3<i32>,  a_at(row, column), b_at(row, column) -> f32,
//   c_row(m), c_column(n) -> u32 with put(row, column, value),  begin_split(batch, split).
// p has m, n, k, batches, tiles_m, tiles_n, splits and split_k.
//
// A workgroup makes a tile of C of TILE_M x TILE_N; k goes by in slices of TILE_K, brought into shared memory. A thread has
// 4 M4 x 4 N4 numbers of C in registers: of every 4 M4 + 4 N4 numbers it reads it makes 16 M4 N4 products. While it does, the
// next slice is on its way from memory. Loops are unrolled here, as not every compiler does it.
//
// Constants: TILE_M, TILE_N, TILE_K, M4, N4; A_LOADS and B_LOADS, fours of a slice that a thread brings; A_ALONG_K and
// B_ALONG_K, 1 if neighbours along k are neighbours in memory: then neighbouring threads bring these.
//
// A four of a slice is what a quarter of the tile apart stands: rows j, j + TILE_M / 4, j + TILE_M / 2 and so on. So threads
// that are neighbours bring and put away what is neighbours in memory, and each writes a vec4 of its own: two threads that write
// two components of one would be a race.

const QUADS_M: u32 = TILE_M / 4u;
const QUADS_N: u32 = TILE_N / 4u;
const GROUPS_M: u32 = QUADS_M / M4;
const GROUPS_N: u32 = QUADS_N / N4;
const THREADS: u32 = GROUPS_M * GROUPS_N;
// One more where threads write along k, so that they meet different banks.
const PITCH_A: u32 = QUADS_M + A_ALONG_K;
const PITCH_B: u32 = QUADS_N + B_ALONG_K;

var<workgroup> slice_a: array<vec4<f32>, TILE_K * PITCH_A>;
var<workgroup> slice_b: array<vec4<f32>, TILE_K * PITCH_B>;

@compute @workgroup_size(THREADS)
fn gemm(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = id.y * groups.x + id.x;
    let left = group % p.tiles_n * TILE_N;
    let top = group / p.tiles_n % p.tiles_m * TILE_M;
    let z = group / p.tiles_n / p.tiles_m;
    let split = z % p.splits;
    let batch = z / p.splits;
    if batch >= p.batches {
        return;
    }
    begin_split(batch, split);
    let first_k = split * p.split_k;
    let end_k = min(first_k + p.split_k, p.k);
    let thread_m = thread / GROUPS_N;
    let thread_n = thread % GROUPS_N;

    // Which fours of a slice this thread brings, and the first of them.
//: for i in 0..A_LOADS
    let four_a_$i = thread + $iu * THREADS;
    let j_a_$i = select(four_a_$i % QUADS_M, four_a_$i / TILE_K, A_ALONG_K == 1u);
    let k_a_$i = select(four_a_$i / QUADS_M, four_a_$i % TILE_K, A_ALONG_K == 1u);
    var a_$i = vec4(0.0);
//: for r in 0..4
    let row_a_$i_$r = a_row(top + j_a_$i + $ru * QUADS_M);
    let in_a_$i_$r = top + j_a_$i + $ru * QUADS_M < p.m;
    if in_a_$i_$r && first_k + k_a_$i < end_k {
        a_$i[$r] = a_at(row_a_$i_$r, a_column(first_k + k_a_$i));
    }
//: end
//: end
//: for i in 0..B_LOADS
    let four_b_$i = thread + $iu * THREADS;
    let j_b_$i = select(four_b_$i % QUADS_N, four_b_$i / TILE_K, B_ALONG_K == 1u);
    let k_b_$i = select(four_b_$i / QUADS_N, four_b_$i % TILE_K, B_ALONG_K == 1u);
    var b_$i = vec4(0.0);
//: for r in 0..4
    let column_b_$i_$r = b_column(left + j_b_$i + $ru * QUADS_N);
    let in_b_$i_$r = left + j_b_$i + $ru * QUADS_N < p.n;
    if in_b_$i_$r && first_k + k_b_$i < end_k {
        b_$i[$r] = b_at(b_row(first_k + k_b_$i), column_b_$i_$r);
    }
//: end
//: end

//: for i in 0..M4
//: for r in 0..4
//: for j in 0..N4
    var sum_$i_$r_$j = vec4(0.0);
//: end
//: end
//: end
    for (var k = first_k; k < end_k; k += TILE_K) {
//: for i in 0..A_LOADS
        slice_a[k_a_$i * PITCH_A + j_a_$i] = a_$i;
//: end
//: for i in 0..B_LOADS
        slice_b[k_b_$i * PITCH_B + j_b_$i] = b_$i;
//: end
        workgroupBarrier();
        let next = k + TILE_K;
//: for i in 0..A_LOADS
        a_$i = vec4(0.0);
//: for r in 0..4
        if in_a_$i_$r && next + k_a_$i < end_k {
            a_$i[$r] = a_at(row_a_$i_$r, a_column(next + k_a_$i));
        }
//: end
//: end
//: for i in 0..B_LOADS
        b_$i = vec4(0.0);
//: for r in 0..4
        if in_b_$i_$r && next + k_b_$i < end_k {
            b_$i[$r] = b_at(b_row(next + k_b_$i), column_b_$i_$r);
        }
//: end
//: end
        // ANCHOR: products
//: for k in 0..TILE_K
        {
//: for i in 0..M4
            let x_$i = slice_a[$ku * PITCH_A + $iu * GROUPS_M + thread_m];
//: end
//: for j in 0..N4
            let y_$j = slice_b[$ku * PITCH_B + $ju * GROUPS_N + thread_n];
//: end
//: for i in 0..M4
//: for r in 0..4
//: for j in 0..N4
            sum_$i_$r_$j = fma(vec4(x_$i[$r]), y_$j, sum_$i_$r_$j);
//: end
//: end
//: end
        }
//: end
        // ANCHOR_END: products
        workgroupBarrier();
    }

//: for j in 0..N4
//: for s in 0..4
    let n_out_$j_$s = left + $ju * GROUPS_N + thread_n + $su * QUADS_N;
    let column_$j_$s = c_column(n_out_$j_$s);
//: end
//: end
//: for i in 0..M4
//: for r in 0..4
    {
        let m_out = top + $iu * GROUPS_M + thread_m + $ru * QUADS_M;
        if m_out < p.m {
            let row = c_row(m_out);
//: for j in 0..N4
//: for s in 0..4
            if n_out_$j_$s < p.n {
                put(row, column_$j_$s, sum_$i_$r_$j[$s]);
            }
//: end
//: end
        }
    }
//: end
//: end
}
