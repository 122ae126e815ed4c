// What every convolution is given. KH, KW: the kernel; STRIDE. x [B, C, H, W], weight [O, C, KH, KW], y and g [B, O, H', W'].

struct Params {
    // As a product of matrices (gemm.wgsl).
    m: u32,
    n: u32,
    k: u32,
    batches: u32,
    tiles_m: u32,
    tiles_n: u32,
    splits: u32,
    split_k: u32,
    images: u32,
    channels: u32,
    height: u32,
    width: u32,
    outputs: u32,
    out_height: u32,
    out_width: u32,
    padding: u32,
    // 1 if there is a bias.
    bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

const TAPS: u32 = KH * KW;

var<private> c_base: u32;
