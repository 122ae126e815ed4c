//! Every layer, with weights that are neither 0 nor 1, against a loop that says what it means.

use super::{assert_close, random, stir};
use imagen::array::{Array, DType};
use imagen::autograd::Tensor;
use imagen::nn::{
    Attention, Conv2d, Embedding, FeatureNorm, GroupNorm, Init, LayerNorm, Linear, NormKind, RmsNorm, sinusoidal,
};
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

// ANCHOR: sinusoids_of_a_few_positions
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
// ANCHOR_END: sinusoids_of_a_few_positions

// ANCHOR: likeness_of_positions_depends_on_their_distance
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
// ANCHOR_END: likeness_of_positions_depends_on_their_distance

proptest! {
    // ANCHOR: a_shift_in_time_is_a_rotation
    /// Each pair of sine and cosine at p + d is the pair at p, turned by an angle that depends on d alone.
    #[test]
    fn a_shift_in_time_is_a_rotation(p in 0.0..1000.0, d in -500.0_f64..500.0, half in 1_usize..40) {
        let waves = sinusoidal(&[p, p + d], 2 * half, DType::F64).to_f64();
        let (now, later) = waves.split_at(2 * half);
        for i in 0..half {
            let (sin, cos) = f64::sin_cos(d * 1e-4_f64.powf(i as f64 / half as f64));
            let turned = [cos * now[i] + sin * now[half + i], cos * now[half + i] - sin * now[i]];
            prop_assert!((turned[0] - later[i]).abs() < 1e-11 && (turned[1] - later[half + i]).abs() < 1e-11);
        }
    }
    // ANCHOR_END: a_shift_in_time_is_a_rotation
}

#[test]
#[should_panic(expected = "sinusoidal: 5 features cannot be halved")]
fn an_odd_number_of_sinusoids_is_refused() {
    sinusoidal(&[1.0], 5, DType::F32);
}

// ANCHOR: linear
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
// ANCHOR_END: linear

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

// ANCHOR: norms
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
// ANCHOR_END: norms

// ANCHOR: norms_of_features
/// Each of the three by its definition: what is normalised together, and what of it is taken off.
#[test]
fn norms_of_features() {
    const C: usize = 4;
    let (x, values) = input([2, C, 2, 3]);
    // The channels of each pixel, one pixel after the other.
    let at = |b: usize, c: usize, n: usize| values[(b * C + c) * 6 + n];
    let pixel = |b: usize, n: usize| [0, 1, 2, 3].map(|c| at(b, c, n));
    let mean = |v: [f64; C]| v.iter().sum::<f64>() / C as f64;
    for kind in [NormKind::Group(2), NormKind::Layer, NormKind::Rms] {
        let init = init();
        let norm = FeatureNorm::new(&init, kind, C);
        let p = stir(&init);
        assert_eq!(p.contains_key("bias"), kind != NormKind::Rms);
        let expected: Vec<f64> = (0..values.len())
            .map(|i| {
                let (b, c, n) = (i / (6 * C), i / 6 % C, i % 6);
                let all = pixel(b, n);
                let normalised = match kind {
                    NormKind::Group(_) => normalised(&values, 2 * 6)[i],
                    NormKind::Layer => {
                        let variance = mean(all.map(|v| (v - mean(all)).powi(2)));
                        (at(b, c, n) - mean(all)) / (variance + 1e-5).sqrt()
                    }
                    NormKind::Rms => at(b, c, n) / (mean(all.map(|v| v * v)) + 1e-6).sqrt(),
                };
                normalised * p["weight"][c] + p.get("bias").map_or(0.0, |bias| bias[c])
            })
            .collect();
        assert_close(norm.forward(&x).array(), &expected, CLOSE);
        let silu: Vec<f64> = expected.iter().map(|v| v / (1.0 + (-v).exp())).collect();
        assert_close(norm.forward_silu(&x).array(), &silu, CLOSE);
    }
}
// ANCHOR_END: norms_of_features

// ANCHOR: embedding
#[test]
fn embedding() {
    let init = init();
    let table = Embedding::new(&init, 4, 3);
    let p = stir(&init);
    let rows: Vec<f64> = [2, 0, 2].iter().flat_map(|&r| p["weight"][r * 3..][..3].to_vec()).collect();
    assert_close(table.forward(&[2, 0, 2]).array(), &rows, 0.0);
}
// ANCHOR_END: embedding

// ANCHOR: attention_with_text
/// Two heads over 2x3 pixels, three tokens of text of which the last of the second image is padding.
#[test]
fn attention_with_text() {
    const B: usize = 2;
    const C: usize = 4;
    const PIXELS: usize = 6;
    const TOKENS: usize = 3;
    const DIM: usize = 5;
    let init = init();
    let attention = Attention::new(&init, C, 2, NormKind::Group(2), Some(DIM));
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
// ANCHOR_END: attention_with_text

#[test]
#[should_panic(expected = "attention: 3 heads do not divide 4 channels")]
fn heads_that_do_not_divide_the_channels_are_refused() {
    Attention::new(&init(), 4, 3, NormKind::Group(2), None);
}

#[test]
#[should_panic(expected = "this layer was made without text")]
fn a_text_for_a_layer_without_is_refused() {
    let (x, tokens) = (input([1, 4, 2, 2]).0, input([1, 1, 3]).0);
    Attention::new(&init(), 4, 2, NormKind::Group(2), None).forward(&x, Some((&tokens, &tokens)));
}

// ANCHOR: layers_without_a_bend_are_one_layer
/// W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2).
#[test]
fn layers_without_a_bend_are_one_layer() {
    let [x, w1, b1, w2, b2] =
        [&[7, 3][..], &[5, 3], &[5], &[2, 5], &[2]].map(|shape| Tensor::constant(random(shape.len() as u64, shape)));
    let two = x.linear(&w1, Some(&b1)).linear(&w2, Some(&b2));
    let bias = &b1.reshape([1, 5]).linear(&w2, None).reshape([2]) + &b2;
    let one = x.linear(&w2.matmul(&w1), Some(&bias));
    assert_close(two.array(), &one.to_f64(), CLOSE);
}
// ANCHOR_END: layers_without_a_bend_are_one_layer

// ANCHOR: silu_has_the_slope_of_its_formula
/// The slope of x s(x) is s (1 + x (1 - s)): 1/2 at 0, 0 at the minimum x = -1.2785, where SiLU is x + 1.
#[test]
fn silu_has_the_slope_of_its_formula() {
    let lowest = -1.278_464_542_761_073_7;
    let xs = [-20.0, -3.0, lowest, -0.5, 0.0, 0.5, 3.0, 20.0];
    let x = Tensor::leaf(Array::from_vec([xs.len()], xs.to_vec()));
    let y = x.silu();
    let slopes = y.sum_all().backward().get(&x).unwrap().to_f64();
    let s = |x: f64| 1.0 / (1.0 + (-x).exp());
    assert_close(y.array(), &xs.map(|x| x * s(x)), 1e-15);
    for (x, slope) in xs.iter().zip(&slopes) {
        assert!((slope - s(*x) * (1.0 + x * (1.0 - s(*x)))).abs() < 1e-15, "{x}: {slope}");
    }
    assert!(slopes[2].abs() < 1e-15 && slopes[4] == 0.5);
    assert!((y.to_f64()[2] - (lowest + 1.0)).abs() < 1e-15);
}
// ANCHOR_END: silu_has_the_slope_of_its_formula

proptest! {
    // ANCHOR: norms_forget_scale_and_shift
    /// Without eps, layer normalisation of a x + c is that of x for every a > 0 and c, and RMS normalisation of a x that of x.
    #[test]
    fn norms_forget_scale_and_shift(
        x in prop::collection::vec(-3.0..3.0f64, 8),
        a in 0.1..10.0f64,
        c in -5.0..5.0f64,
    ) {
        let mean = x.iter().sum::<f64>() / 8.0;
        prop_assume!(x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() > 0.1);
        let [one, zero] = [1.0, 0.0].map(|v| Tensor::from_f64([8], &[v; 8], DType::F64));
        let x = Tensor::from_f64([8], &x, DType::F64);
        let (layer, rms) = (|x: &Tensor| x.layer_norm(&one, &zero, 0.0), |x: &Tensor| x.rms_norm(&one, 0.0));
        assert_close(layer(&x.affine(a, c)).array(), &layer(&x).to_f64(), 1e-10);
        assert_close(rms(&(&x * a)).array(), &rms(&x).to_f64(), CLOSE);
        assert_close(rms(&(&x * -a)).array(), &(-&rms(&x)).to_f64(), CLOSE);
    }
    // ANCHOR_END: norms_forget_scale_and_shift

    // ANCHOR: the_gradients_of_norms
    /// gx = s (h - mean(h) - xhat mean(h xhat)) with h = w g and s = 1 / sqrt(var + eps); for RMS normalisation the same without
    /// mean(h). Without eps they are orthogonal to what a norm forgets: to (1, .., 1) and to x, and for RMS to x.
    #[test]
    fn the_gradients_of_norms(
        x in prop::collection::vec(-3.0..3.0f64, 6),
        w in prop::collection::vec(-2.0..2.0f64, 6),
        g in prop::collection::vec(-2.0..2.0f64, 6),
    ) {
        let mean = |v: &dyn Fn(usize) -> f64| (0..6).map(v).sum::<f64>() / 6.0;
        let m = mean(&|i| x[i]);
        prop_assume!(mean(&|i| (x[i] - m).powi(2)) > 0.1);
        let gradient = |norm: &dyn Fn(&Tensor) -> Tensor| {
            let leaf = Tensor::leaf(Array::from_vec([6], x.clone()));
            let gradients = norm(&leaf).backward_with(Array::from_vec([6], g.clone()));
            gradients.get(&leaf).unwrap().clone()
        };
        let (weight, bias) = (Tensor::from_f64([6], &w, DType::F64), Tensor::from_f64([6], &[0.3; 6], DType::F64));
        for eps in [0.0, 0.5] {
            let layer = gradient(&|x| x.layer_norm(&weight, &bias, eps));
            let rms = gradient(&|x| x.rms_norm(&weight, eps));
            for (found, m, centred) in [(&layer, m, true), (&rms, 0.0, false)] {
                let s = 1.0 / (mean(&|i| (x[i] - m).powi(2)) + eps).sqrt();
                let (h, xhat) = (|i: usize| w[i] * g[i], |i: usize| (x[i] - m) * s);
                let shift = if centred { mean(&h) } else { 0.0 };
                let slope = mean(&|i| h(i) * xhat(i));
                let expected: Vec<f64> = (0..6).map(|i| s * (h(i) - shift - xhat(i) * slope)).collect();
                assert_close(found, &expected, 1e-11);
                if eps == 0.0 {
                    let found = found.to_f64();
                    prop_assert!(mean(&|i| found[i] * x[i]).abs() < 1e-11);
                    prop_assert!(!centred || mean(&|i| found[i]).abs() < 1e-11);
                }
            }
        }
    }
    // ANCHOR_END: the_gradients_of_norms

    // ANCHOR: softmax_forgets_a_constant
    /// Softmax of z + c is softmax of z; its entries are above 0 and sum to 1.
    #[test]
    fn softmax_forgets_a_constant(z in prop::collection::vec(-5.0..5.0f64, 4), c in -100.0..100.0f64) {
        let z = Tensor::from_f64([4], &z, DType::F64);
        let p = z.softmax(-1).to_f64();
        assert_close((&z + c).softmax(-1).array(), &p, CLOSE);
        prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-14 && p.iter().all(|&p| p > 0.0));
    }
    // ANCHOR_END: softmax_forgets_a_constant

    // ANCHOR: the_gradient_of_cross_entropy_is_p_minus_y
    /// d loss / d z = (p - y) / B, where y has a 1 at the class and B is the number of samples.
    #[test]
    fn the_gradient_of_cross_entropy_is_p_minus_y(
        z in prop::collection::vec(-5.0..5.0f64, 12),
        classes in prop::collection::vec(0..4_u32, 3),
    ) {
        let logits = Tensor::leaf(Array::from_vec([3, 4], z));
        let found = logits.cross_entropy(&classes).backward().get(&logits).unwrap().clone();
        let p = logits.softmax(-1).to_f64();
        let y = |i: usize| f64::from(u8::from(classes[i / 4] as usize == i % 4));
        let expected: Vec<f64> = p.iter().enumerate().map(|(i, p)| (p - y(i)) / 3.0).collect();
        assert_close(&found, &expected, CLOSE);
    }
    // ANCHOR_END: the_gradient_of_cross_entropy_is_p_minus_y
}

// ANCHOR: numbers_to_check_by_hand
/// The small examples of the book's chapter on layers.
#[test]
fn numbers_to_check_by_hand() {
    let leaf = |values: &[f64]| Tensor::leaf(Array::from_vec([1, values.len()], values.to_vec()));
    let y = leaf(&[3.0, 4.0]).linear(&leaf(&[2.0, -1.0]), Some(&leaf(&[0.5]).reshape([1])));
    assert_close(y.array(), &[2.5], 0.0);
    let x = leaf(&[1.0, 1.0, 3.0, 3.0]);
    let [one, zero] = [1.0, 0.0].map(|v| Tensor::from_f64([4], &[v; 4], DType::F64));
    let y = x.layer_norm(&one, &zero, 0.0);
    assert_close(y.array(), &[-1.0, -1.0, 1.0, 1.0], 1e-15);
    let gradients = y.backward_with(Array::from_vec([1, 4], vec![1.0, 0.0, 0.0, 0.0]));
    assert_close(gradients.get(&x).unwrap(), &[0.5, -0.5, 0.0, 0.0], 1e-15);
    assert_close(
        leaf(&[3.0, 4.0]).rms_norm(&leaf(&[1.0, 1.0]).reshape([2]), 0.0).array(),
        &[0.848_528, 1.131_371],
        1e-6,
    );

    let z = leaf(&[2.0, 1.0, 0.0]);
    assert_close(z.softmax(-1).array(), &[0.665, 0.245, 0.090], 5e-4);
    let loss = z.cross_entropy(&[0]);
    assert!((loss.item() - 0.408).abs() < 5e-4);
    assert_close(loss.backward().get(&z).unwrap(), &[-0.335, 0.245, 0.090], 5e-4);
}
// ANCHOR_END: numbers_to_check_by_hand

// ANCHOR: the_gradient_of_a_batch_is_the_mean_of_its_gradients
/// A loss that is a mean over samples has the mean of the samples' gradients.
#[test]
fn the_gradient_of_a_batch_is_the_mean_of_its_gradients() {
    let (init, classes) = (init(), [1, 0, 1, 1]);
    let layer = Linear::new(&init, 3, 2);
    let gradient = |rows: std::ops::Range<usize>| {
        let x = Tensor::constant(random(1, [4, 3])).slice(0, rows.clone());
        let gradients = layer.forward(&x).cross_entropy(&classes[rows]).backward();
        let all: Vec<f64> =
            init.parameters().iter().flat_map(|p| gradients.get(&p.tensor()).unwrap().to_f64()).collect();
        Array::from_vec([all.len()], all)
    };
    let alone: Vec<Vec<f64>> = (0..4).map(|i| gradient(i..i + 1).to_f64()).collect();
    let mean: Vec<f64> = (0..8).map(|k| alone.iter().map(|g| g[k]).sum::<f64>() / 4.0).collect();
    assert_close(&gradient(0..4), &mean, CLOSE);
}
// ANCHOR_END: the_gradient_of_a_batch_is_the_mean_of_its_gradients
