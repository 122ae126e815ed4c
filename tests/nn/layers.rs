//! Every layer, with weights that are neither 0 nor 1, against a loop that says what it means.

use super::{assert_close, random, stir};
use imagen::array::DType;
use imagen::autograd::Tensor;
use imagen::nn::{Attention, Conv2d, Embedding, GroupNorm, Init, LayerNorm, Linear, RmsNorm, sinusoidal};
use proptest::prelude::*;

const CLOSE: f64 = 1e-12;

fn init() -> Init {
    Init::new(3, DType::F64)
}

/// x of the given shape, as a tensor and as plain numbers.
fn input(shape: impl Into<imagen::array::Shape>) -> (Tensor, Vec<f64>) {
    let x = random(1, shape);
    (Tensor::constant(x.clone()), x.to_f64())
}

#[test]
fn sinusoids_of_a_few_positions() {
    let waves = sinusoidal(&[0.0, 1.0, 500.0], 4, DType::F64);
    assert_eq!(**waves.shape(), [3, 4]);
    // Frequencies 1 and 1/100: sines first, then cosines.
    let (one, hundredth) =
        ([0.841_470_984_807_896_5, 0.540_302_305_868_139_8], [0.009_999_833_334_166_664, 0.999_950_000_416_665_3]);
    let last = [500f64.sin(), 5f64.sin(), 500f64.cos(), 5f64.cos()];
    let expected = [[0.0, 0.0, 1.0, 1.0], [one[0], hundredth[0], one[1], hundredth[1]], last].concat();
    assert_close(waves.array(), &expected, 1e-13);
    assert_eq!(sinusoidal(&[0.3], 6, DType::F32).dtype(), DType::F32);
}

proptest! {
    /// The reason for sinusoids: how alike two positions look depends on their distance alone.
    #[test]
    fn likeness_of_positions_depends_on_their_distance(p in 0.0..1000.0, q in 0.0..1000.0, half in 1_usize..40) {
        let waves = sinusoidal(&[p, q], 2 * half, DType::F64).to_f64();
        let (a, b) = waves.split_at(2 * half);
        let likeness: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
        let of_distance: f64 = (0..half).map(|i| ((p - q) * 1e-4_f64.powf(i as f64 / half as f64)).cos()).sum();
        prop_assert!((likeness - of_distance).abs() < 1e-9);
    }
}

#[test]
#[should_panic(expected = "sinusoidal: 5 features cannot be halved")]
fn an_odd_number_of_sinusoids_is_refused() {
    sinusoidal(&[1.0], 5, DType::F32);
}

#[test]
fn linear() {
    let init = init();
    let (with, without) = (Linear::new(&init.scope("a"), 3, 2), Linear::without_bias(&init.scope("b"), 3, 2));
    let zeroed = Linear::zeroed(&init.scope("c"), 3, 2);
    let (x, values) = input([2, 5, 3]);
    assert!(zeroed.forward(&x).to_f64().iter().all(|&v| v == 0.0));

    let p = stir(&init);
    assert_eq!(
        p.keys().map(String::as_str).collect::<Vec<_>>(),
        ["a.bias", "a.weight", "b.weight", "c.bias", "c.weight"]
    );
    let product = |weight: &str, row: &[f64], o: usize| (0..3).map(|i| p[weight][o * 3 + i] * row[i]).sum::<f64>();
    let all = |f: &dyn Fn(&[f64], usize) -> f64| -> Vec<f64> {
        values.chunks(3).flat_map(|row| [f(row, 0), f(row, 1)]).collect()
    };
    let y = with.forward(&x);
    assert_eq!(**y.shape(), [2, 5, 2]);
    assert_close(y.array(), &all(&|row, o| product("a.weight", row, o) + p["a.bias"][o]), CLOSE);
    assert_close(without.forward(&x).array(), &all(&|row, o| product("b.weight", row, o)), CLOSE);
}

#[test]
fn convolution_with_stride_and_padding() {
    for (kernel, stride, padding, [h, w], [h2, w2]) in
        [(3, 1, 1, [4, 5], [4, 5]), (3, 2, 1, [5, 4], [3, 2]), (2, 3, 0, [5, 8], [2, 3])]
    {
        let init = init();
        let conv = Conv2d::new(&init, 2, 3, kernel, stride, padding);
        let (x, values) = input([2, 2, h, w]);
        let p = stir(&init);
        let pixel = |b: usize, c: usize, i: usize, j: usize| {
            let inside = (padding..h + padding).contains(&i) && (padding..w + padding).contains(&j);
            if inside { values[((b * 2 + c) * h + i - padding) * w + j - padding] } else { 0.0 }
        };
        let mut expected = Vec::new();
        for (b, o, i, j) in indices([2, 3, h2, w2]) {
            let mut sum = p["bias"][o];
            for (_, c, u, v) in indices([1, 2, kernel, kernel]) {
                sum +=
                    p["weight"][((o * 2 + c) * kernel + u) * kernel + v] * pixel(b, c, stride * i + u, stride * j + v);
            }
            expected.push(sum);
        }
        let y = conv.forward(&x);
        assert_eq!(**y.shape(), [2, 3, h2, w2]);
        assert_close(y.array(), &expected, CLOSE);
    }
}

/// All indices of a shape of four axes, in row-major order.
fn indices([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

#[test]
fn the_other_convolutions_are_what_their_names_say() {
    let init = init();
    let (same, pointwise) = (Conv2d::same3x3(&init.scope("same"), 2, 3), Conv2d::pointwise(&init.scope("point"), 2, 3));
    let zeroed = [Conv2d::zeroed3x3(&init.scope("z3"), 2, 3), Conv2d::zeroed_pointwise(&init.scope("z1"), 2, 3)];
    let (x, values) = input([1, 2, 4, 5]);
    for layer in &zeroed {
        assert_eq!(layer.forward(&x).to_f64(), [0.0; 60]);
    }
    let p = stir(&init);
    assert_eq!(**same.forward(&x).shape(), [1, 3, 4, 5]);
    assert_eq!((p["same.weight"].len(), p["z3.weight"].len(), p["z1.weight"].len()), (54, 54, 6));
    let expected: Vec<f64> = indices([1, 3, 4, 5])
        .map(|(_, o, i, j)| {
            p["point.bias"][o] + (0..2).map(|c| p["point.weight"][o * 2 + c] * values[c * 20 + i * 5 + j]).sum::<f64>()
        })
        .collect();
    assert_close(pointwise.forward(&x).array(), &expected, CLOSE);
}

/// Mean 0 and variance 1 within each run of `run` numbers.
fn normalised(values: &[f64], run: usize) -> Vec<f64> {
    let one = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / run as f64;
        let variance = part.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / run as f64;
        part.iter().map(|v| (v - mean) / (variance + 1e-5).sqrt()).collect::<Vec<f64>>()
    };
    values.chunks(run).flat_map(one).collect()
}

#[test]
fn norms() {
    let init = init();
    let (group, layer) = (GroupNorm::new(&init.scope("group"), 2, 4), LayerNorm::new(&init.scope("layer"), 5));
    let rms = RmsNorm::new(&init.scope("rms"), 5);
    let (x, values) = input([3, 4, 2, 5]);
    // As they start they only normalise.
    assert_close(group.forward(&x).array(), &normalised(&values, 2 * 2 * 5), CLOSE);
    assert_close(layer.forward(&x).array(), &normalised(&values, 5), CLOSE);

    let p = stir(&init);
    let expected: Vec<f64> = normalised(&values, 20)
        .iter()
        .enumerate()
        .map(|(i, v)| v * p["group.weight"][i / 10 % 4] + p["group.bias"][i / 10 % 4])
        .collect();
    assert_close(group.forward(&x).array(), &expected, CLOSE);
    let expected: Vec<f64> = normalised(&values, 5)
        .iter()
        .enumerate()
        .map(|(i, v)| v * p["layer.weight"][i % 5] + p["layer.bias"][i % 5])
        .collect();
    assert_close(layer.forward(&x).array(), &expected, CLOSE);
    let root = |row: &[f64]| (row.iter().map(|v| v * v).sum::<f64>() / 5.0 + 1e-6).sqrt();
    let expected: Vec<f64> = values
        .chunks(5)
        .flat_map(|row| (0..5).map(|i| row[i] / root(row) * p["rms.weight"][i]).collect::<Vec<_>>())
        .collect();
    assert_close(rms.forward(&x).array(), &expected, CLOSE);
}

#[test]
fn embedding() {
    let init = init();
    let table = Embedding::new(&init, 4, 3);
    let p = stir(&init);
    let rows: Vec<f64> = [2, 0, 2].iter().flat_map(|&r| p["weight"][r * 3..][..3].to_vec()).collect();
    assert_close(table.forward(&[2, 0, 2]).array(), &rows, 0.0);
}

/// Two heads over 2x3 pixels, three tokens of text of which the last of the second image is padding.
#[test]
fn attention_with_text() {
    const B: usize = 2;
    const C: usize = 4;
    const PIXELS: usize = 6;
    const TOKENS: usize = 3;
    const DIM: usize = 5;
    let init = init();
    let attention = Attention::new(&init, C, 2, 2, Some(DIM));
    let (x, values) = input([B, C, 2, 3]);
    assert_eq!(attention.forward(&x, None).to_f64(), values, "it starts as the identity");

    let p = stir(&init);
    let words = random(2, [B, TOKENS, DIM]);
    let mask = Tensor::from_f64([B, 1, 1, TOKENS], &[1.0, 1.0, 1.0, 1.0, 1.0, 0.0], DType::F64);
    let y = attention.forward(&x, Some((&Tensor::constant(words.clone()), &mask.mask_to_bias())));

    let words = words.to_f64();
    let norm = normalised(&values, 2 * PIXELS);
    let norm = |b: usize, c: usize, n: usize| norm[(b * C + c) * PIXELS + n] * p["norm.weight"][c] + p["norm.bias"][c];
    // Feature `i` of what row `o` of a layer makes of a pixel or of a token.
    let pixel =
        |b, n, o: usize| p["qkv.bias"][o] + (0..C).map(|c| p["qkv.weight"][o * C + c] * norm(b, c, n)).sum::<f64>();
    let token = |b: usize, n: usize, o: usize| {
        let word = &words[(b * TOKENS + n) * DIM..][..DIM];
        p["text_kv.bias"][o] + (0..DIM).map(|i| p["text_kv.weight"][o * DIM + i] * word[i]).sum::<f64>()
    };
    // Queries are the first C rows, keys the next, values the last; of a token, keys then values.
    let key = |b, m, c| if m < PIXELS { pixel(b, m, C + c) } else { token(b, m - PIXELS, c) };
    let value = |b, m, c| if m < PIXELS { pixel(b, m, 2 * C + c) } else { token(b, m - PIXELS, C + c) };
    let seen = |b: usize, c: usize, n: usize| {
        let channels = c / 2 * 2..c / 2 * 2 + 2;
        let hidden = |m: usize| b == 1 && m == PIXELS + TOKENS - 1;
        let weights: Vec<f64> = (0..PIXELS + TOKENS)
            .map(|m| {
                let score: f64 = channels.clone().map(|c| pixel(b, n, c) * key(b, m, c)).sum();
                if hidden(m) { 0.0 } else { (score / 2f64.sqrt()).exp() }
            })
            .collect();
        let total: f64 = weights.iter().sum();
        weights.iter().enumerate().map(|(m, w)| w / total * value(b, m, c)).sum::<f64>()
    };
    let expected: Vec<f64> = indices([B, C, 1, PIXELS])
        .map(|(b, o, _, n)| {
            let out = p["out.bias"][o] + (0..C).map(|c| p["out.weight"][o * C + c] * seen(b, c, n)).sum::<f64>();
            values[(b * C + o) * PIXELS + n] + out
        })
        .collect();
    assert_close(y.array(), &expected, 1e-10);
}

#[test]
#[should_panic(expected = "attention: 3 heads do not divide 4 channels")]
fn heads_that_do_not_divide_the_channels_are_refused() {
    Attention::new(&init(), 4, 3, 2, None);
}

#[test]
#[should_panic(expected = "this layer was made without text")]
fn a_text_for_a_layer_without_is_refused() {
    let (x, tokens) = (input([1, 4, 2, 2]).0, input([1, 1, 3]).0);
    Attention::new(&init(), 4, 2, 2, None).forward(&x, Some((&tokens, &tokens)));
}
