//! `cargo run --release --example ch12_t5`: chapter 12, the text encoder.
//!
//! What hashed words cannot know; the ways to cut a word into pieces, and the best; distances, and what the bundled T5 has
//! learned of them; a text with gaps; which sentences are alike to the model, where it looks, and what it writes into gaps; digits
//! drawn for phrases that no image was shown with; how well digits are drawn from the words of four encoders.

mod chapter;

use chapter::Chapter;
use imagen::autograd::{Tensor, no_grad};
use imagen::bundled;
use imagen::cascade::{Request, TextToImage};
use imagen::data::{Captions, DatasetName, Split};
use imagen::eval::Share;
use imagen::nn::Weights;
use imagen::picture::{Chart, Curve, Diagram, Layout, Picture, Tint, charts, grid, heatmap, shades};
use imagen::random::{Purpose, stream};
use imagen::text::t5::{Corruption, T5, T5Config, T5Encoder, TokenBatch, bucket};
use imagen::text::tokenizer::SentencePiece;
use imagen::text::{Embedding, HashedWords, TextEncoder, TextError};
use serde_json::Value;
use std::error::Error;
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn Error>> {
    let chapter = Chapter::open("ch12");
    lattice(&chapter)?;
    buckets(&chapter)?;
    let weights = bundled::T5_MINI.weights()?;
    let encoder = T5Encoder::from_weights(&weights, 64)?;
    let model = T5::from_weights(&weights)?;
    sizes(&encoder, &model);
    pieces(&encoder)?;
    learned_distances(&chapter, &encoder)?;
    gaps(&encoder, &weights)?;
    read(&[("hashed words", &HashedWords::new(128, 0, 32)?), ("t5-mini", &encoder)])?;
    alike(&chapter, &encoder)?;
    attention(&chapter, &encoder)?;
    filled(&chapter, &encoder, &model)?;
    drawn(&chapter)?;
    study(&chapter, encoder.config())
}

/// Pieces and the logarithms of their probabilities, made up for the chapter.
const PIECES: [(&str, f32); 9] = [
    ("f", -6.0),
    ("o", -5.0),
    ("r", -5.5),
    ("t", -4.5),
    ("y", -6.0),
    ("or", -5.0),
    ("ty", -5.0),
    ("for", -5.5),
    ("fort", -8.5),
];

/// A SentencePiece model of these pieces, in the bytes of its file.
fn model_file(pieces: &[(&str, f32)]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
    let piece = |text: &str, score: f32, kind: u8| {
        field(1, &[&field(1, text.as_bytes())[..], &[0x15], &score.to_le_bytes(), &[0x18, kind]].concat())
    };
    let unknown = piece("<unk>", 0.0, 2);
    // no space in front of a text
    let normalizer = field(3, &[0x18, 0]);
    [unknown, pieces.iter().flat_map(|&(text, score)| piece(text, score, 1)).collect(), normalizer].concat()
}

/// The ways to cut a word: places between its letters, a piece from place to place, and the best way in orange.
fn lattice(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let word = "forty";
    let n = word.len();
    // (start, end, piece, score), by their ends
    let mut arcs: Vec<(usize, usize, &str, f32)> = PIECES
        .iter()
        .flat_map(|&(piece, score)| word.match_indices(piece).map(move |(at, _)| (at, at + piece.len(), piece, score)))
        .collect();
    arcs.sort_by_key(|arc| arc.1);
    let (mut best, mut ways) = (vec![(f32::NEG_INFINITY, 0); n + 1], vec![0; n + 1]);
    (best[0], ways[0]) = ((0.0, 0), 1);
    for (i, &(start, end, _, score)) in arcs.iter().enumerate() {
        ways[end] += ways[start];
        if best[start].0 + score > best[end].0 {
            best[end] = (best[start].0 + score, i);
        }
    }
    let mut path = Vec::new();
    let mut end = n;
    while end > 0 {
        path.insert(0, best[end].1);
        end = arcs[best[end].1].0;
    }
    let cut: Vec<&str> = path.iter().map(|&i| arcs[i].2).collect();
    let crates: Vec<String> =
        SentencePiece::parse(&model_file(&PIECES))?.pieces(word).into_iter().map(|(_, piece)| piece).collect();
    println!("The word {word:?} can be cut in {} ways; the best is {cut:?}, and the crate finds {crates:?}.", ways[n]);
    for (place, (score, _)) in best.iter().enumerate().skip(1) {
        let sums: Vec<String> = arcs
            .iter()
            .filter(|arc| arc.1 == place)
            .map(|&(start, _, piece, score)| format!("{:.1} - {:.1} [{piece}]", best[start].0, -score))
            .collect();
        println!("  {place}  {:4}  {score:5.1}  largest of  {}", &word[..place], sums.join(",  "));
    }
    println!();

    let mut drawing = Diagram::new(860.0, 420.0);
    let (x, y) = (|place: f64| 60.0 + 148.0 * place, 170.0);
    let on_path = |place: usize| place == 0 || path.iter().any(|&i| arcs[i].1 == place);
    let tint = |best: bool| if best { Tint::Orange } else { Tint::Grey };
    let places: Vec<usize> = (0..=n)
        .map(|p| {
            let sum = format!("{:.1}", best[p].0);
            drawing.block(x(p as f64) - 22.0, y - 20.0, 44.0, 40.0, &[&p.to_string(), &sum], tint(on_path(p)))
        })
        .collect();
    for (i, &(start, end, piece, score)) in arcs.iter().enumerate() {
        // single letters between their places, two letters above, more below
        let level = match end - start {
            1 => 0.0,
            2 => -110.0,
            length => 95.0 * (length as f64 - 2.0),
        };
        let middle = x((start + end) as f64 / 2.0);
        let lines = [piece, &format!("{score:.1}")];
        let piece = drawing.block(middle - 24.0, y + level - 20.0, 48.0, 40.0, &lines, tint(path.contains(&i)));
        drawing.arrow(places[start], piece, "");
        drawing.arrow(piece, places[end], "");
    }
    chapter.svg("lattice.svg", &drawing.svg())
}

/// The bucket of every distance, for an encoder and for a decoder.
fn buckets(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let panel = |name: &str, bidirectional: bool| {
        let of = |range: std::ops::RangeInclusive<isize>| -> Vec<(f64, f64)> {
            range.map(|d| (d as f64, bucket(d, bidirectional, 32, 128) as f64)).collect()
        };
        let chart = Chart::new(name).x("place of the key - place of the query").y("bucket");
        chart.dots("bucket", of(-150..=150)).x_range(-150.0, 150.0).y_range(-1.0, 32.0)
    };
    println!("Buckets of an encoder, 32 in all, distances up to 128:");
    for k in 0..16 {
        let same: Vec<isize> = (0..128).filter(|&d| bucket(-d, true, 32, 128) == k).collect();
        if let (Some(first), Some(last), true) = (same.first(), same.last(), same.len() > 1) {
            println!("  {k:2} before, {:2} after: {first} to {last}", 16 + k);
        }
    }
    println!();
    chapter.svg("buckets.svg", &charts(&[panel("Encoder", true), panel("Decoder", false)], 2))
}

/// How large the bundled model is.
fn sizes(encoder: &T5Encoder, model: &T5) {
    let config = encoder.config();
    println!(
        "t5-mini: {} pieces, {} features, {} layers of {} heads; {} numbers in the encoder, {} in all.\n",
        encoder.tokenizer().len(),
        config.d_model,
        config.num_layers,
        config.num_heads,
        config.encoder_parameters(),
        model.parameters().count()
    );
}

/// How the bundled vocabulary cuts sentences.
fn pieces(encoder: &T5Encoder) -> Result<(), Box<dyn Error>> {
    println!("Pieces of the bundled vocabulary");
    for text in ["A handwritten  SEVEN.", "the number after six", "ＳＥＶＥＮ ﬁve", "seventyish xylophones", "漢字 7"]
    {
        println!("  {text:24} {}", encoder.tokens(text)?.pieces.join(" "));
    }
    println!();
    Ok(())
}

/// What the learned distances alone would make of attention: a panel for every head.
fn learned_distances(chapter: &Chapter, encoder: &T5Encoder) -> Result<(), Box<dyn Error>> {
    let n = 13;
    let bias = encoder.distances(n);
    let shares = bias.softmax(-1).to_f64();
    let labels: Vec<String> = (1..=n).map(|i| i.to_string()).collect();
    let panels: Vec<(String, Vec<f64>)> =
        shares.chunks(n * n).enumerate().map(|(i, head)| (format!("head {}", i + 1), head.to_vec())).collect();
    println!("What the seventh of {n} tokens would take of each if only distances counted, in percent");
    println!("  distance {}", (-6..=6).map(|d| format!("{d:4}")).collect::<String>());
    for (name, head) in &panels {
        let row = head[6 * n..7 * n].iter().map(|share| format!("{:4.0}", 100.0 * share)).collect::<String>();
        println!("  {name}   {row}");
    }
    println!();
    let title = "If only distances counted: what each token (a row) would take of each (a column)";
    chapter.svg("distances.svg", &shades(title, &labels, &panels))
}

/// One text with gaps, in its two halves; three draws.
fn gaps(encoder: &T5Encoder, weights: &Weights) -> Result<(), Box<dyn Error>> {
    let text = "the number after six is seven. it is written 7.";
    let run: serde_json::Value = serde_json::from_str(&weights.metadata["config"])?;
    let corruption: Corruption = serde_json::from_value(run["corruption"].clone())?;
    let tokens = encoder.tokens(text)?;
    let (&end, ids) = tokens.ids.split_last().ok_or("no tokens")?;
    let (sentinels, tokenizer) = (encoder.tokenizer().sentinels(), encoder.tokenizer());
    let (percent, span) = (100.0 * corruption.rate, corruption.mean_span);
    println!("{} tokens with gaps: {percent:.0} % of them lost, gaps of {span} on average", ids.len());
    for draw in 0..3 {
        let gapped = corruption.corrupt(ids, &sentinels, end, &mut stream(12, Purpose::Test, 0, draw));
        for (name, ids) in [("reads", &gapped.input), ("writes", &gapped.target)] {
            let pieces: Vec<String> = ids.iter().filter_map(|&id| tokenizer.piece(id)).collect();
            println!("  {name:6} {}", pieces.join(" "));
        }
    }
    println!();
    Ok(())
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The forms in which the chapter names digits: those of the captions, and the phrases that no image was shown with.
const FORMS: [(Split, usize); 11] = [
    (Split::Training, 14),
    (Split::Training, 15),
    (Split::Training, 0),
    (Split::Unpaired, 6),
    (Split::Unpaired, 0),
    (Split::Unpaired, 1),
    (Split::Unpaired, 2),
    (Split::Unpaired, 3),
    (Split::Unpaired, 4),
    (Split::Unpaired, 5),
    (Split::Unpaired, 7),
];

/// The digit in that form. Zero lacks some of them.
fn phrase(form: usize, digit: usize) -> String {
    let (split, template) = FORMS[form];
    Captions::of(DatasetName::Mnist).caption(split, digit, template)
}

/// For each form the mean vectors of the digits 1 to 9, less the mean of the nine: what is left tells the digits apart.
fn meanings(encoder: &dyn TextEncoder) -> Result<Vec<Vec<Vec<f64>>>, TextError> {
    let of_form = |form: usize| {
        let phrases: Vec<String> = (1..=9).map(|digit| phrase(form, digit)).collect();
        let phrases: Vec<&str> = phrases.iter().map(String::as_str).collect();
        let vectors: Vec<Vec<f64>> = encoder.encode_all(&phrases)?.iter().map(Embedding::mean).collect();
        let middle: Vec<f64> = (0..encoder.dim()).map(|i| vectors.iter().map(|v| v[i]).sum::<f64>() / 9.0).collect();
        Ok(vectors.iter().map(|v| v.iter().zip(&middle).map(|(v, m)| v - m).collect()).collect())
    };
    (0..FORMS.len()).map(of_form).collect()
}

/// For every form, how many of the nine digits are most like their own name, "one" to "nine"; and what seven is taken for.
fn read(encoders: &[(&str, &dyn TextEncoder)]) -> Result<(), Box<dyn Error>> {
    let names: String = encoders.iter().map(|(name, _)| format!("  {name:14}")).collect();
    println!("How many of nine digits are read right, and what seven is read as\n  {:30}{}", "", names.trim_end());
    let all = encoders.iter().map(|(_, encoder)| meanings(*encoder)).collect::<Result<Vec<_>, _>>()?;
    for form in 1..FORMS.len() {
        let column = |forms: &Vec<Vec<Vec<f64>>>| {
            let like = |digit: usize, name: usize| cosine(&forms[form][digit], &forms[0][name]);
            let nearest = |digit: usize| (0..9).max_by(|&a, &b| like(digit, a).total_cmp(&like(digit, b))).unwrap_or(0);
            let right = (0..9).filter(|&digit| nearest(digit) == digit).count();
            format!("  {right}  {:11}", phrase(0, nearest(6) + 1))
        };
        let columns: String = all.iter().map(column).collect();
        println!("  {:30}{}", phrase(form, 7), columns.trim_end());
    }
    println!();
    Ok(())
}

/// Which phrases are alike to the bundled model, once what their form says is taken off.
fn alike(chapter: &Chapter, encoder: &T5Encoder) -> Result<(), Box<dyn Error>> {
    let forms = meanings(encoder)?;
    let chosen: Vec<(usize, usize)> =
        [3, 7, 8].into_iter().flat_map(|d| [0, 1, 3, 4, 10].map(|form| (form, d))).collect();
    let vector = |(form, digit): (usize, usize)| &forms[form][digit - 1];
    let values: Vec<f64> = chosen
        .iter()
        .flat_map(|&a| chosen.iter().map(move |&b| (a, b)))
        .map(|(a, b)| cosine(vector(a), vector(b)))
        .collect();
    let numbers: Vec<String> = (1..=chosen.len()).map(|i| i.to_string()).collect();
    let rows: Vec<String> =
        chosen.iter().zip(&numbers).map(|(&(form, digit), i)| format!("{}  {i}", phrase(form, digit))).collect();
    let title = "Cosine of the mean vectors, less what all digits in this form have in common";
    chapter.svg("alike.svg", &heatmap(title, ("", ""), &rows, &numbers, &values))
}

/// Where each token of a sentence looks, layer by layer.
fn attention(chapter: &Chapter, encoder: &T5Encoder) -> Result<(), Box<dyn Error>> {
    let tokens = encoder.tokens("the number after six")?;
    let n = tokens.ids.len();
    let (_, weights) = encoder.forward_with_weights(&TokenBatch::pad(&[tokens.ids], 0)).ok_or("streamed")?;
    let layer = |(i, weights): (usize, &Tensor)| {
        (format!("layer {}", i + 1), weights.mean(&[1], false).reshape([n * n]).to_f64())
    };
    let layers: Vec<(String, Vec<f64>)> = weights.iter().enumerate().map(layer).collect();
    let title = "What each token (a row) takes of each (a column), mean over the heads";
    chapter.svg("attention.svg", &shades(title, &tokens.pieces, &layers))
}

/// Sentences with a piece left out, what the model writes for it, and which of the ten names of digits fits it best.
fn filled(chapter: &Chapter, encoder: &T5Encoder, model: &T5) -> Result<(), Box<dyn Error>> {
    let sentences = [
        ("the number after six is seven. it is written 7.", "seven"),
        ("VII means seven.", "seven"),
        ("half of fourteen is seven.", "seven"),
        ("there are seven days in a week.", "seven"),
        ("three plus four is seven.", "four"),
        ("a spider has eight legs.", "eight"),
        ("a drawing of the number after seven. it shows an eight.", "eight"),
        ("the number before eight is seven.", "seven"),
    ];
    let (tokenizer, sentinels) = (encoder.tokenizer(), encoder.tokenizer().sentinels());
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let ids = names.map(|name| tokenizer.id(&format!("▁{name}")).unwrap_or(0) as usize);
    println!("\nThe word in brackets is hidden; what the model writes, and which digit fits best as its first word");
    for (sentence, word) in &sentences[..chapter.size(sentences.len(), 2)] {
        let tokens = encoder.tokens(sentence)?;
        let at =
            tokens.pieces.iter().position(|piece| piece.trim_start_matches('▁') == *word).ok_or("no such piece")?;
        let mut gapped = tokens.ids.clone();
        gapped[at] = sentinels[0];
        let written = model.write(&gapped, 12);
        let inside: Vec<u32> = written.into_iter().filter(|id| !sentinels.contains(id) && *id != 1).collect();

        let (text, begun) = (TokenBatch::pad(&[gapped], 0), TokenBatch::pad(&[vec![0, sentinels[0]]], 0));
        let scores = no_grad(|| model.decode(&begun, &text, &model.encode(&text))).to_f64();
        let last = &scores[scores.len() - model.config().vocab_size..];
        let shares = ids.map(|id| last[id].exp());
        let best = (0..10).max_by(|&a, &b| shares[a].total_cmp(&shares[b])).unwrap_or(0);
        let share = shares[best] / shares.iter().sum::<f64>();
        let shown = sentence.replacen(&format!(" {word}"), &format!(" [{word}]"), 1);
        println!("  {shown:58} {:30} {} ({share:.2})", tokenizer.text(&inside), names[best]);
    }
    println!();
    Ok(())
}

/// Digits that the bundled model draws for phrases which no image was ever shown with.
fn drawn(chapter: &Chapter) -> Result<(), Box<dyn Error>> {
    let model = TextToImage::from_weights(&bundled::MNIST.weights()?)?;
    let prompts = [
        "VII",
        "the number of days in a week",
        "the number after six",
        "one more than six",
        "half of fourteen",
        "the number of legs on a spider",
    ];
    let prompts = chapter.size(&prompts[..], &prompts[..1]).iter().map(|prompt| prompt.to_string()).collect();
    let mut request = Request { count: chapter.size(10, 2), ..model.request(prompts) };
    request.sampling.steps = chapter.size(request.sampling.steps, 3);
    let images = model.sample(&request, &mut |_| ControlFlow::Continue(()))?;
    let layout = Layout { enlarge: 2, ..Layout::new(request.count) };
    chapter.png("unpaired.png", &grid(&Picture::from_array(images.array()), layout))
}

/// What `docs/runs/text-encoders/study.sh` found: how many images show the digit that they were asked for, by what the model
/// that drew them reads its captions with.
fn study(chapter: &Chapter, mini: &T5Config) -> Result<(), Box<dyn Error>> {
    let results = include_str!("../docs/runs/text-encoders/results.jsonl");
    let results: Vec<Value> = results.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // the sizes of study.sh: features, features a head, heads, layers, features inside
    let parameters = |[d_model, d_kv, num_heads, num_layers, d_ff]: [usize; 5]| {
        T5Config { d_model, d_kv, num_heads, num_layers, d_ff, ..mini.clone() }.encoder_parameters()
    };
    let encoders = [
        ("hashed-words", 0),
        ("t5-nano", parameters([32, 16, 2, 2, 64])),
        ("t5-micro", parameters([64, 16, 4, 4, 128])),
        ("t5-mini", mini.encoder_parameters()),
    ];
    let kinds = [
        ("training", "seen in training"),
        ("held_out", "never seen"),
        ("unpaired", "of words never paired with an image"),
    ];
    // all images of the models with this encoder, and how many of each model's were right
    let found = |encoder: &str, kind: &str| -> Option<(Share, Vec<Share>)> {
        let of_it = results.iter().filter(|r| r["model"].as_str().is_some_and(|m| m[..m.len() - 2] == *encoder));
        let shares = of_it.map(|r| {
            let total = &r["report"][kind]["total"];
            Some(Share::new(total["agreed"].as_u64()?, total["asked"].as_u64()?))
        });
        let shares = shares.collect::<Option<Vec<Share>>>()?;
        let sum = |of: fn(&Share) -> u64| shares.iter().map(of).sum();
        Some((Share::new(sum(|s| s.agreed), sum(|s| s.asked)), shares))
    };
    println!("Digits drawn right, in percent, with the 95 % interval; in brackets model by model");
    let mut chart = Chart::new("Digits drawn right, by the text encoder and the kind of caption")
        .x("numbers in the encoder; the points on the left: random vectors, which have none")
        .y("% of the images")
        .log_x()
        .x_range(8e3, 2e6)
        .y_range(0.0, 105.0);
    for (i, (kind, name)) in kinds.into_iter().enumerate() {
        println!("  captions {name}");
        let (mut points, mut intervals) = (Vec::new(), Vec::new());
        for (encoder, parameters) in encoders {
            let (all, each) = found(encoder, kind).ok_or_else(|| format!("no results of {encoder} on {kind}"))?;
            let each: Vec<String> = each.iter().map(|s| format!("{:.1}", 100.0 * s.rate.unwrap_or(0.0))).collect();
            println!("    {encoder:12} {parameters:8}   {all}   ({})", each.join(", "));
            // side by side, so that one interval does not hide another
            let x = [0.96, 1.0, 1.04][i] * if parameters == 0 { 12e3 } else { parameters as f64 };
            points.push((x, 100.0 * all.rate.unwrap_or(f64::NAN)));
            intervals.push(all.interval.map(|end| 100.0 * end));
            if parameters == 0 {
                points.push((f64::NAN, f64::NAN));
                intervals.push([f64::NAN; 2]);
            }
        }
        chart = chart.curve(Curve::new(name, points).with_intervals(intervals));
    }
    println!();
    chapter.svg("study.svg", &chart.svg())
}
