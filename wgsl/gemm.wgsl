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
// Constants: TILE_M, TILE_N, TILE_K, M4, N4; A_LOADS and B_LOADS, numbers of a slice that a thread brings; A_ALONG_K and
// B_ALONG_K, 1 if neighbours along k are neighbours in memory: then neighbouring threads bring these.

const GROUPS_M: u32 = TILE_M / (4u * M4);
const GROUPS_N: u32 = TILE_N / (4u * N4);
const THREADS: u32 = GROUPS_M * GROUPS_N;
// In vec4; one more where threads write along k, so that they meet different banks.
const PITCH_A: u32 = TILE_M / 4u + A_ALONG_K;
const PITCH_B: u32 = TILE_N / 4u + B_ALONG_K;

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

    // Which numbers of a slice this thread brings.
//: for i in 0..A_LOADS
    let at_a_$i = thread + $iu * THREADS;
    let m_$i = select(at_a_$i % TILE_M, at_a_$i / TILE_K, A_ALONG_K == 1u);
    let ka_$i = select(at_a_$i / TILE_M, at_a_$i % TILE_K, A_ALONG_K == 1u);
    let row_a_$i = a_row(top + m_$i);
    let in_a_$i = top + m_$i < p.m;
    var a_$i = 0.0;
    if in_a_$i && first_k + ka_$i < end_k {
        a_$i = a_at(row_a_$i, a_column(first_k + ka_$i));
    }
//: end
//: for i in 0..B_LOADS
    let at_b_$i = thread + $iu * THREADS;
    let n_$i = select(at_b_$i % TILE_N, at_b_$i / TILE_K, B_ALONG_K == 1u);
    let kb_$i = select(at_b_$i / TILE_N, at_b_$i % TILE_K, B_ALONG_K == 1u);
    let column_b_$i = b_column(left + n_$i);
    let in_b_$i = left + n_$i < p.n;
    var b_$i = 0.0;
    if in_b_$i && first_k + kb_$i < end_k {
        b_$i = b_at(b_row(first_k + kb_$i), column_b_$i);
    }
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
        slice_a[ka_$i * PITCH_A + m_$i / 4u][m_$i % 4u] = a_$i;
//: end
//: for i in 0..B_LOADS
        slice_b[kb_$i * PITCH_B + n_$i / 4u][n_$i % 4u] = b_$i;
//: end
        workgroupBarrier();
        let next = k + TILE_K;
//: for i in 0..A_LOADS
        a_$i = 0.0;
        if in_a_$i && next + ka_$i < end_k {
            a_$i = a_at(row_a_$i, a_column(next + ka_$i));
        }
//: end
//: for i in 0..B_LOADS
        b_$i = 0.0;
        if in_b_$i && next + kb_$i < end_k {
            b_$i = b_at(b_row(next + kb_$i), column_b_$i);
        }
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
    let n_out_$j_$s = left + 4u * ($ju * GROUPS_N + thread_n) + $su;
    let column_$j_$s = c_column(n_out_$j_$s);
//: end
//: end
//: for i in 0..M4
//: for r in 0..4
    {
        let m_out = top + 4u * ($iu * GROUPS_M + thread_m) + $ru;
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
