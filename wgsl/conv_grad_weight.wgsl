// d weight from g and x as a product: rows are output channels, columns are input channels and taps, k goes over the pixels of
// all images. k is long and C small, so that k is cut into parts: dw [splits, O, C, KH, KW], to be summed.
//: include conv_params

@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;

fn begin_split(batch: u32, split: u32) {
    c_base = split * p.m * p.n;
}

fn a_row(o: u32) -> vec3<i32> {
    return vec3(i32(o * p.out_height * p.out_width), 0, 0);
}

fn a_column(k: u32) -> vec3<i32> {
    let pixels = p.out_height * p.out_width;
    return vec3(i32(k / pixels * p.outputs * pixels + k % pixels), 0, 0);
}

fn a_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    return g[row.x + column.x];
}

fn b_row(k: u32) -> vec3<i32> {
    let pixels = p.out_height * p.out_width;
    let pixel = k % pixels;
    let corner = vec2(pixel / p.out_width, pixel % p.out_width) * STRIDE;
    return vec3(i32(k / pixels * p.channels * p.height * p.width), vec2<i32>(corner) - i32(p.padding));
}

fn b_column(n: u32) -> vec3<i32> {
    let tap = n % TAPS;
    return vec3(i32(n / TAPS * p.height * p.width), i32(tap / KW), i32(tap % KW));
}

fn b_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    let at = row + column;
    if u32(at.y) < p.height && u32(at.z) < p.width {
        return x[at.x + at.y * i32(p.width) + at.z];
    }
    return 0.0;
}

fn c_row(o: u32) -> u32 {
    return c_base + o * p.n;
}

fn c_column(n: u32) -> u32 {
    return n;
}

fn put(row: u32, column: u32, value: f32) {
    dw[row + column] = value;
}

//: include gemm
