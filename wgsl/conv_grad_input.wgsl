// dx from g and the weight as a product: rows are input channels, columns are pixels of x, k goes over output channels and
// taps. A pixel of g counts if the kernel, placed by it, has this tap on the pixel of x.
//: include conv_params

@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<STORED>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

fn begin_split(batch: u32, split: u32) {
    c_base = split * p.images * p.channels * p.height * p.width;
}

fn a_row(c: u32) -> vec3<i32> {
    return vec3(i32(c * TAPS), 0, 0);
}

fn a_column(k: u32) -> vec3<i32> {
    return vec3(i32(k / TAPS * p.channels * TAPS + k % TAPS), 0, 0);
}

fn a_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    return f32(weight[row.x + column.x]);
}

fn b_row(k: u32) -> vec3<i32> {
    let tap = k % TAPS;
    return vec3(i32(k / TAPS * p.out_height * p.out_width), -i32(tap / KW), -i32(tap % KW));
}

fn b_column(n: u32) -> vec3<i32> {
    let pixels = p.height * p.width;
    let pixel = n % pixels;
    let image = n / pixels * p.outputs * p.out_height * p.out_width;
    return vec3(i32(image), vec2<i32>(vec2(pixel / p.width, pixel % p.width) + p.padding));
}

fn b_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    let at = row + column;
    let corner = vec2<u32>(at.yz);
    let place = corner / STRIDE;
    if all(at.yz >= vec2(0)) && all(place * STRIDE == corner) && place.x < p.out_height && place.y < p.out_width {
        return g[u32(at.x) + place.x * p.out_width + place.y];
    }
    return 0.0;
}

fn c_row(c: u32) -> u32 {
    return c_base + c * p.height * p.width;
}

fn c_column(n: u32) -> u32 {
    let pixels = p.height * p.width;
    return n / pixels * p.channels * pixels + n % pixels;
}

fn put(row: u32, column: u32, value: f32) {
    dx[row + column] = value;
}

//: include gemm
