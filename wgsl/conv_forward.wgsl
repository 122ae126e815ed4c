// y = x * weight + bias as a product that gathers x while it goes: rows are output channels, columns are pixels of all images,
// k goes over input channels and taps.
//: include conv_params

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<STORED>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<private> with_bias: bool;

fn begin_split(batch: u32, split: u32) {
    c_base = split * p.images * p.outputs * p.out_height * p.out_width;
    with_bias = p.bias == 1u && split == 0u;
}

fn a_row(o: u32) -> vec3<i32> {
    return vec3(i32(o * p.k), 0, 0);
}

fn a_column(k: u32) -> vec3<i32> {
    return vec3(i32(k), 0, 0);
}

fn a_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    return f32(weight[row.x + column.x]);
}

// ANCHOR: gather
// (where the channel begins, row of the tap, column of the tap)
fn b_row(k: u32) -> vec3<i32> {
    let tap = k % TAPS;
    return vec3(i32(k / TAPS * p.height * p.width), i32(tap / KW), i32(tap % KW));
}

// (where the image begins, row and column of the first pixel under the kernel, which may be outside)
fn b_column(n: u32) -> vec3<i32> {
    let pixels = p.out_height * p.out_width;
    let pixel = n % pixels;
    let corner = vec2(pixel / p.out_width, pixel % p.out_width) * STRIDE;
    let image = n / pixels * p.channels * p.height * p.width;
    return vec3(i32(image), vec2<i32>(corner) - i32(p.padding));
}

fn b_at(row: vec3<i32>, column: vec3<i32>) -> f32 {
    let at = row + column;
    // A negative number is a large one without its sign: one comparison for both sides.
    if u32(at.y) < p.height && u32(at.z) < p.width {
        return x[at.x + at.y * i32(p.width) + at.z];
    }
    return 0.0;
}
// ANCHOR_END: gather

var<private> bias_of_row: f32;

fn c_row(o: u32) -> u32 {
    bias_of_row = 0.0;
    if with_bias {
        bias_of_row = bias[o];
    }
    return c_base + o * p.out_height * p.out_width;
}

fn c_column(n: u32) -> u32 {
    let pixels = p.out_height * p.out_width;
    return n / pixels * p.outputs * pixels + n % pixels;
}

fn put(row: u32, column: u32, value: f32) {
    y[row + column] = value + bias_of_row;
}

//: include gemm
