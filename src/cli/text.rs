//! `imagen text`

use super::bench::peak_mb;
use super::output::{check_new, save};
use super::{Common, Failure, Result, fail, note, print};
use clap::Args;
use imagen::array::Device;
use imagen::files;
use imagen::picture::{heatmap, shades};
use imagen::text::t5::{T5Encoder, TokenBatch};
use imagen::text::{Embedding, Tokens};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Show what the text encoder makes of sentences.
///
/// The tokens and their numbers; on request a picture of attention, a picture of how alike the sentences are, and the numbers
/// themselves.
#[derive(Args)]
pub struct TextArgs {
    /// Sentences to read
    #[arg(required = true)]
    prompts: Vec<String>,
    /// A bundled encoder, a .safetensors file or the folder of a run of `imagen train`, or a folder with config.json,
    /// model.safetensors (or its shards) and tokenizer.json or spiece.model
    #[arg(long, default_value = "t5-mini")]
    model: String,
    /// Tokens that are read of a sentence, its end included; the rest is left out, and said to be
    #[arg(long, value_name = "N", default_value_t = T5Encoder::USUAL_TOKENS as u32, value_parser = clap::value_parser!(u32).range(2..=2048))]
    max_tokens: u32,
    /// Keep ids, mask and the encoder's last hidden states in a .safetensors file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw how much each token of the first sentence takes of each, a panel for every layer: an .svg file
    #[arg(long, value_name = "FILE")]
    attention: Option<PathBuf>,
    /// Draw how alike the sentences are: an .svg file
    #[arg(long, value_name = "FILE")]
    similarity: Option<PathBuf>,
    /// Read the sentences this many times more, and say how long that took
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    time: Option<u16>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

/// More sentences than this have no place in a picture.
const MOST_DRAWN: usize = 64;

pub fn run(args: &TextArgs) -> Result {
    let device = args.common.prepare()?;
    for (path, ending) in [(&args.out, "safetensors"), (&args.attention, "svg"), (&args.similarity, "svg")] {
        if let Some(path) = path {
            check_target(path, ending, args.force)?;
        }
    }
    let start = Instant::now();
    let encoder = T5Encoder::find(&args.model, args.max_tokens as usize)?;
    encoder.move_to(device);
    let loading = start.elapsed().as_secs_f64();
    let tokens =
        args.prompts.iter().map(|prompt| encoder.tokens(prompt)).collect::<std::result::Result<Vec<_>, _>>()?;
    for (prompt, tokens) in args.prompts.iter().zip(&tokens).filter(|(_, tokens)| tokens.left_out > 0) {
        note(format!(
            "the sentence {:?} has {} tokens more than the {} that are read (--max-tokens); they are left out",
            shortened(prompt),
            tokens.left_out,
            args.max_tokens
        ));
    }
    check_pictures(args, &encoder, &tokens)?;
    let embeddings = if needs_states(args) { encoder.embed_all(&tokens)? } else { Vec::new() };
    if let Some(path) = &args.out {
        save(path, &tensors(&tokens, &embeddings, encoder.config().pad_token_id)?, args.force)?;
    }
    if let Some(path) = &args.similarity {
        save(path, similarity(&args.prompts, &embeddings)?.as_bytes(), args.force)?;
    }
    if let Some(path) = &args.attention {
        save(path, attention(&encoder, &tokens[0])?.as_bytes(), args.force)?;
    }
    let timing = args.time.map(|times| timing(&encoder, &tokens, times, loading)).transpose()?;
    let files: Vec<&PathBuf> = [&args.out, &args.attention, &args.similarity].into_iter().flatten().collect();
    if args.common.json {
        let text = |(prompt, t): (&String, &Tokens)| json!({ "text": prompt, "pieces": t.pieces, "ids": t.ids, "left_out": t.left_out });
        let texts: Vec<_> = args.prompts.iter().zip(&tokens).map(text).collect();
        let device = device.to_string();
        print(json!({ "model": args.model, "device": device, "texts": texts, "files": files, "timing": timing }));
    } else {
        show(&args.prompts, &tokens);
        if let Some(Timing { load_seconds, seconds, peak_mb, streamed }) = timing {
            let memory = peak_mb.map_or_else(String::new, |mb| format!(", at most {mb:.0} MB of memory"));
            let how = if streamed { "read from the disk layer by layer" } else { "in memory" };
            print(format!(
                "\nread in {seconds:.3} s (the fastest time), loaded in {load_seconds:.3} s{memory}; the model is {how}"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How long reading took, and what it took.
#[derive(Serialize)]
struct Timing {
    load_seconds: f64,
    /// The fastest of all times.
    seconds: f64,
    peak_mb: Option<f64>,
    streamed: bool,
}

fn timing(encoder: &T5Encoder, tokens: &[Tokens], times: u16, load_seconds: f64) -> Result<Timing> {
    let mut seconds = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        encoder.embed_all(tokens)?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(Timing { load_seconds, seconds, peak_mb: peak_mb(), streamed: encoder.is_streamed() })
}

fn needs_states(args: &TextArgs) -> bool {
    args.out.is_some() || args.similarity.is_some()
}

/// Before anything is computed: nothing of the user's is replaced silently.
fn check_target(path: &Path, ending: &str, force: bool) -> Result<()> {
    if path.extension().is_none_or(|found| found != ending) {
        return fail(format!("{} must end in .{ending}", path.display()));
    }
    check_new(path, force)?;
    Ok(files::check_file(path)?)
}

const STREAMED: &str = "--attention needs a model that fits into memory; this one is read from the disk layer by layer";

/// Before anything is computed: what is asked for can be drawn, and no file is asked for twice.
fn check_pictures(args: &TextArgs, encoder: &T5Encoder, tokens: &[Tokens]) -> Result<()> {
    if args.similarity.is_some() && tokens.len() > MOST_DRAWN {
        return fail(format!("--similarity draws at most {MOST_DRAWN} sentences, not {}", tokens.len()));
    }
    if args.attention.is_some() && tokens[0].ids.len() > MOST_DRAWN {
        return fail(format!("--attention draws at most {MOST_DRAWN} tokens, not {}", tokens[0].ids.len()));
    }
    if args.attention.is_some() && encoder.is_streamed() {
        return fail(STREAMED);
    }
    match (&args.attention, &args.similarity) {
        (Some(a), Some(b)) if files::are_same(a, b) => {
            fail(format!("--attention and --similarity both name {}; let them be two files", a.display()))
        }
        _ => Ok(()),
    }
}

/// Pieces above, their ids below.
fn show(prompts: &[String], tokens: &[Tokens]) {
    for (i, (prompt, tokens)) in prompts.iter().zip(tokens).enumerate() {
        if i > 0 {
            print("");
        }
        print(format!("{:?}: {} tokens", shortened(prompt), tokens.ids.len()));
        let ids: Vec<String> = tokens.ids.iter().map(u32::to_string).collect();
        let width = |i: usize| tokens.pieces[i].chars().count().max(ids[i].len());
        let mut first = 0;
        while first < ids.len() {
            let mut used = 0;
            let fits = |&i: &usize| {
                used += width(i) + 2;
                i == first || used <= 100
            };
            let row: Vec<usize> = (first..ids.len()).take_while(fits).collect();
            let line = |cell: &dyn Fn(usize) -> String| {
                let cells: Vec<String> = row.iter().map(|&i| format!("{:>1$}", cell(i), width(i))).collect();
                format!("  {}", cells.join("  ").trim_end())
            };
            print(line(&|i| tokens.pieces[i].clone()));
            print(line(&|i| ids[i].clone()));
            first += row.len();
        }
    }
}

/// A prompt as it fits into a message.
fn shortened(prompt: &str) -> String {
    const MOST: usize = 60;
    match prompt.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &prompt[..end]),
        None => prompt.to_string(),
    }
}

/// `input_ids` and `attention_mask` [B, n], I64, padded to the longest; `last_hidden_state` [B, n, d], F32, 0 where padding is.
fn tensors(tokens: &[Tokens], embeddings: &[Embedding], pad: u32) -> Result<Vec<u8>> {
    let ids: Vec<Vec<u32>> = tokens.iter().map(|t| t.ids.clone()).collect();
    let batch = TokenBatch::pad(&ids, pad);
    let d = embeddings[0].d;
    let longs = |values: &mut dyn Iterator<Item = i64>| values.flat_map(i64::to_le_bytes).collect::<Vec<u8>>();
    let ids = longs(&mut batch.ids.iter().map(|&id| i64::from(id)));
    let mask = longs(&mut batch.mask.iter().map(|&seen| i64::from(seen)));
    let mut states = Vec::with_capacity(4 * batch.ids.len() * d);
    for embedding in embeddings {
        states.extend(embedding.tokens.iter().flat_map(|v| v.to_le_bytes()));
        states.resize(states.len() + 4 * (batch.length - embedding.n) * d, 0);
    }
    let [b, n] = [batch.texts, batch.length];
    let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(|e| Failure(e.to_string()));
    let views = [
        ("input_ids", view(Dtype::I64, vec![b, n], &ids)?),
        ("attention_mask", view(Dtype::I64, vec![b, n], &mask)?),
        ("last_hidden_state", view(Dtype::F32, vec![b, n, d], &states)?),
    ];
    safetensors::serialize(views, None).map_err(|e| Failure(e.to_string()))
}

/// The cosine between the mean vectors of each two sentences, as a heat map.
fn similarity(prompts: &[String], embeddings: &[Embedding]) -> Result<String> {
    let means: Vec<Vec<f64>> = embeddings.iter().map(Embedding::mean).collect();
    let values: Vec<f64> = means.iter().flat_map(|a| means.iter().map(|b| cosine(a, b))).collect();
    let names: Vec<String> = prompts.iter().map(|p| shortened(p)).collect();
    let numbers: Vec<String> = (1..=prompts.len()).map(|i| i.to_string()).collect();
    let rows: Vec<String> = names.iter().zip(&numbers).map(|(name, number)| format!("{name}  {number}")).collect();
    Ok(heatmap("How alike the sentences are: cosine of their mean vectors", ("", ""), &rows, &numbers, &values))
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// How much each token (a row) takes of each (a column), mean over the heads: a panel for every layer.
fn attention(encoder: &T5Encoder, tokens: &Tokens) -> Result<String> {
    let batch = TokenBatch::pad(std::slice::from_ref(&tokens.ids), 0);
    let Some((_, weights)) = encoder.forward_with_weights(&batch) else {
        return fail(STREAMED);
    };
    let n = tokens.ids.len();
    let layers: Vec<(String, Vec<f64>)> = weights
        .iter()
        .enumerate()
        .map(|(i, w)| (format!("layer {}", i + 1), w.to(Device::Cpu).mean(&[1], false).reshape([n * n]).to_f64()))
        .collect();
    // A device that has failed reads as NaN.
    weights[0].array().kernels().check()?;
    Ok(shades("What each token (a row) takes of each (a column), mean over the heads", &tokens.pieces, &layers))
}
