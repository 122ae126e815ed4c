// C = A B, fast. With several splits C is [splits, batches, m, n], to be summed.
//: include matmul_params

var<private> c_base: u32;

fn begin_split(batch: u32, split: u32) {
    begin(batch);
    c_base = (split * p.batches + batch) * p.m * p.n;
}

fn a_row(m: u32) -> vec3<i32> {
    return vec3(i32(a_base + m * p.a_row), 0, 0);
}

fn a_column(k: u32) -> vec3<i32> {
    return vec3(i32(k * p.a_column), 0, 0);
}

fn a_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    return a[row.x + column.x];
}

fn b_row(k: u32) -> vec3<i32> {
    return vec3(i32(b_base + k * p.b_row), 0, 0);
}

fn b_column(n: u32) -> vec3<i32> {
    return vec3(i32(n * p.b_column), 0, 0);
}

fn b_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    return f32(b[row.x + column.x]);
}

fn c_row(m: u32) -> u32 {
    return c_base + m * p.n;
}

fn c_column(n: u32) -> u32 {
    return n;
}

fn put(row: u32, column: u32, value: f32) {
    c[row + column] = value;
}

//: include gemm
