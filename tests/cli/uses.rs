//! What the program does when all is well.

use super::{lab, runs};
use imagen::picture::{self, Picture};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tiny::{Lab, Ran, SIDE};

/// Columns and rows of a picture file that is a grid of images.
fn cells(path: &Path) -> [usize; 2] {
    // `Layout::new`: images are enlarged 4 times, with 4 pixels between and around them.
    let (gap, cell) = (4, 4 * SIDE + 4);
    let (Picture { width, height, .. }, _) = picture::read(path).unwrap();
    assert_eq!([width % cell, height % cell], [gap, gap]);
    [width / cell, height / cell]
}

fn sample(lab: &Lab, args: &[&str]) -> Ran {
    lab.good(&[&["sample", "--model", "tiny.safetensors"][..], args].concat())
}

#[test]
fn one_prompt_gives_a_square_several_a_row_each() {
    let lab = lab();
    let ran = sample(&lab, &["a handwritten seven"]);
    assert_eq!(ran.out, "a-handwritten-seven.png\n");
    assert_eq!(cells(&lab.path("a-handwritten-seven.png")), [4, 4]);
    // The same name again is another file.
    let ran = sample(&lab, &["a handwritten seven", "--count", "5"]);
    assert_eq!(ran.out, "a-handwritten-seven-2.png\n");
    assert_eq!(cells(&lab.path("a-handwritten-seven-2.png")), [3, 2]);
    sample(&lab, &["seven", "the digit 3", "eight", "--out", "rows.png"]);
    assert_eq!(cells(&lab.path("rows.png")), [8, 3]);
    sample(&lab, &["seven", "eight", "--steps", "3", "--strip", "--out", "strip.png"]);
    let strip = picture::read(&lab.path("strip.png")).unwrap().0;
    // Three frames of two rows, for each of two prompts.
    assert!(strip.width > 3 * 3 * SIDE && strip.height > 4 * 3 * SIDE, "{}x{}", strip.width, strip.height);
    // --force replaces.
    let before = fs::read(lab.path("rows.png")).unwrap();
    sample(&lab, &["seven", "--out", "rows.png", "--force"]);
    assert_ne!(fs::read(lab.path("rows.png")).unwrap(), before);
}

#[test]
fn a_folder_gets_one_file_an_image_and_each_can_be_drawn_alone() {
    let lab = lab();
    sample(&lab, &["seven", "The digit 3!", "--count", "3", "--seed", "5", "--out", "new/images"]);
    let mut names: Vec<_> =
        fs::read_dir(lab.path("new/images")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 6);
    assert_eq!([&*names[0], &*names[5]], ["001-seven-seed5-000.png", "002-the-digit-3-seed5-002.png"]);
    let path = format!("new/images/{}", names[5]);
    assert_eq!(picture::read(&lab.path(&path)).unwrap().1["prompt"], "The digit 3!");
    sample(&lab, &["--from", &path, "--out", "alone"]);
    // Named after the noise that it grew from: the second image of the seed, though it is the first of this folder.
    let alone = picture::read(&lab.path("alone/001-the-digit-3-seed5-002.png")).unwrap().0;
    assert_eq!(picture::read(&lab.path(&path)).unwrap().0, alone);
}

#[test]
fn programs_that_draw_the_same_words_at_once_lose_no_image() {
    let lab = lab();
    let children: Vec<_> = (0..6)
        .map(|seed| {
            let seed = seed.to_string();
            let args = ["sample", "seven", "--model", "tiny.safetensors", "--count", "1", "--seed", &seed];
            lab.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut names = Vec::new();
    for (seed, child) in children.into_iter().enumerate() {
        let ran = Ran::of("sample", child.wait_with_output().unwrap());
        let name = ran.out.trim_end().to_string();
        assert_eq!(picture::read(&lab.path(&name)).unwrap().1["seed"], seed.to_string(), "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["seven-2.png", "seven-3.png", "seven-4.png", "seven-5.png", "seven-6.png", "seven.png"]);
}

#[test]
fn the_same_command_draws_the_same_bytes_on_any_number_of_threads() {
    let lab = lab();
    for (out, threads) in [("1.png", "1"), ("2.png", "2"), ("3.png", "3")] {
        // More than one batch, and a seed that needs all 64 bits.
        let seed = u64::MAX.to_string();
        let args = ["seven", "eight", "--count", "9", "--seed", &seed, "--threads", threads, "--out", out];
        sample(&lab, &args);
        assert_eq!(fs::read(lab.path("1.png")).unwrap(), fs::read(lab.path(out)).unwrap());
    }
    sample(&lab, &["seven", "eight", "--count", "9", "--seed", "0", "--out", "other.png"]);
    assert_ne!(picture::read(&lab.path("1.png")).unwrap().0, picture::read(&lab.path("other.png")).unwrap().0);
}

#[test]
fn a_classifier_of_noised_images_leads_a_model() {
    let lab = lab();
    let noisy = ["--set", "classifier.noise=\"cosine\"", "--set", "train.sample_every=6"];
    let ran = lab.good(&[&["train", "judge.toml", "--out", "noisy"][..], &noisy].concat());
    assert!(ran.err.contains("test accuracy at t = 0.5"), "{}", ran.err);
    let led = ["seven", "--count", "2", "--classifier", "noisy", "--class", "three"];
    sample(&lab, &[&led[..], &["--classifier-scale", "9", "--out", "a.png"]].concat());
    sample(&lab, &[&led[..], &["--classifier-scale", "0", "--out", "b.png"]].concat());
    sample(&lab, &["seven", "--count", "2", "--out", "c.png"]);
    let [a, b, c] = ["a", "b", "c"].map(|name| picture::read(&lab.path(&format!("{name}.png"))).unwrap().0);
    assert!(a != b && b == c);
    // The picture remembers where it was led, and the classifier is named again.
    let named = "name it: --classifier MODEL --class 3 --classifier-scale 9";
    lab.bad(1, named, &["sample", "--from", "a.png", "--model", "tiny.safetensors"]);
    let again = ["--from", "a.png", "--classifier", "noisy", "--class", "3", "--classifier-scale", "9"];
    sample(&lab, &[&again[..], &["--out", "again.png"]].concat());
    assert_eq!(fs::read(lab.path("a.png")).unwrap(), fs::read(lab.path("again.png")).unwrap());
    let wrong = |message: &str, args: &[&str]| {
        lab.bad(1, message, &[&["sample", "seven", "--model", "tiny.safetensors", "--classifier"][..], args].concat());
    };
    wrong(
        "noisy/model.safetensors has no class \"ten\"; it has the 10 from 0 on: zero, one",
        &["noisy", "--class", "ten"],
    );
    wrong("was trained on images without noise", &["judge.safetensors", "--class", "three"]);
    wrong("these weights are not of a classifier", &["tiny.safetensors", "--class", "three"]);
}

#[test]
fn a_picture_says_how_to_draw_it_again() {
    let lab = lab();
    // A weight whose decimal digits a careless parser would not bring back exactly.
    let settings = ["--count", "2", "--guidance", "1.0300000000000002", "--steps", "3", "--seed", "9"];
    sample(&lab, &[&["seven", "手書きの八", "--out", "a.png"][..], &settings].concat());
    let text = picture::read(&lab.path("a.png")).unwrap().1;
    assert_eq!((&*text["prompt"], &*text["seed"], &*text["model"]), ("seven; 手書きの八", "9", "tiny.safetensors"));
    assert!(text["Software"].starts_with("imagen ") && text["model sha256"].len() == 64);
    let request: serde_json::Value = serde_json::from_str(&text["request"]).unwrap();
    assert_eq!(request["prompts"], serde_json::json!(["seven", "手書きの八"]));
    assert_eq!((&request["count"], &request["sampling"]["steps"]), (&2.into(), &3.into()));
    let ran = sample(&lab, &["--from", "a.png", "--out", "b.png"]);
    assert_eq!(ran.err, "");
    assert_eq!(fs::read(lab.path("a.png")).unwrap(), fs::read(lab.path("b.png")).unwrap());
    // So do the threshold and what not to draw.
    let other = ["--negative", "a nine", "--threshold", "dynamic"];
    sample(&lab, &[&["--from", "a.png", "--out", "negative.png"][..], &other].concat());
    assert_ne!(picture::read(&lab.path("a.png")).unwrap().0, picture::read(&lab.path("negative.png")).unwrap().0);
    sample(&lab, &["--from", "negative.png", "--out", "again.png"]);
    assert_eq!(fs::read(lab.path("negative.png")).unwrap(), fs::read(lab.path("again.png")).unwrap());
    let ran = sample(&lab, &["seven", "--negative", "nine", "--guidance", "1", "--out", "vain.png"]);
    assert!(ran.err.contains("the negative prompt has no effect: the guidance is 1"), "{}", ran.err);
    // What is given besides changes that alone.
    sample(&lab, &["--from", "a.png", "--count", "3", "--out", "c.png"]);
    assert_eq!(cells(&lab.path("c.png")), [3, 2]);
    // Another model is no error, but worth a word.
    lab.good(&["train", "tiny.toml", "--out", "run", "--quiet", "--set", "seed=2", "--set", "train.steps=1"]);
    let ran = lab.good(&["sample", "--from", "a.png", "--model", "run", "--out", "d.png"]);
    assert!(ran.err.starts_with("note: that image was drawn by another model"), "{}", ran.err);
}

#[test]
fn the_sampler_can_be_chosen() {
    let lab = lab();
    let draw = |name: &str| {
        let out = format!("{name}.png");
        sample(&lab, &["seven", "--count", "1", "--steps", "3", "--sampler", name, "--out", &out]);
        let (picture, text) = picture::read(&lab.path(&out)).unwrap();
        let request: serde_json::Value = serde_json::from_str(&text["request"]).unwrap();
        (picture, request["sampling"]["sampler"]["kind"].as_str().unwrap().to_string())
    };
    let [ancestral, ddim, solver] = ["ancestral", "ddim", "dpm-solver"].map(draw);
    assert_eq!([&*ancestral.1, &*ddim.1, &*solver.1], ["ancestral", "ddim", "dpm_solver"]);
    assert!(ancestral.0 != ddim.0 && ddim.0 != solver.0 && solver.0 != ancestral.0);
}

#[test]
fn a_run_that_goes_on_can_be_sampled_from_its_newest_checkpoint() {
    let lab = lab();
    lab.good(&["train", "tiny.toml", "--out", "run", "--quiet"]);
    fs::remove_file(lab.path("run/model.safetensors")).unwrap();
    let ran = lab.good(&["sample", "seven", "--model", "run", "--count", "1", "--json"]).json();
    assert_eq!(ran["model"], "run/checkpoints/step-00000006/ema.safetensors");
}

#[test]
fn a_finished_run_that_is_trained_further_is_sampled_from_where_it_is_now() {
    let lab = lab();
    let train = |steps: &str| lab.good(&["train", "tiny.toml", "--out", "run", "--quiet", "--resume", "--set", steps]);
    let model = || lab.good(&["sample", "seven", "--model", "run", "--count", "1", "--json"]).json()["model"].clone();
    train("train.steps=2");
    assert_eq!(model(), "run/model.safetensors");
    let finished = fs::read(lab.path("run/model.safetensors")).unwrap();
    train("train.steps=4");
    // As if the run were not finished yet.
    fs::write(lab.path("run/model.safetensors"), finished).unwrap();
    assert_eq!(model(), "run/checkpoints/step-00000004/ema.safetensors");
}

#[test]
fn json_is_one_document_on_stdout() {
    let lab = lab();
    let json = sample(&lab, &["seven", "--count", "1", "--json", "--out", "a.png"]).json();
    assert_eq!(json["files"], serde_json::json!(["a.png"]));
    assert_eq!(json["request"]["guidance"], 2.3);
    let info = lab.good(&["info", "tiny.safetensors", "--json"]).json();
    assert_eq!(info["sha256"], json["sha256"]);
    assert_eq!(info["metadata"]["stage"]["unet"]["base_channels"], 8);
    let bench = lab.good(&["bench", "mnist28", "--steps", "1", "--batch", "1", "--threads", "1", "--json"]).json();
    for key in ["train_ms_median", "train_ms_min", "forward_ms_median", "forward_ms_min"] {
        assert!(bench[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!((&bench["workload"], &bench["parameters"]), (&"mnist28".into(), &1_623_169.into()));
    assert_eq!((&bench["batch"], &bench["threads"], &bench["device"]), (&1.into(), &1.into(), &"cpu".into()));
    assert!(bench["framework"].as_str().unwrap().starts_with("imagen ") && bench.get("peak_mb").is_some());
}

#[test]
fn info_describes_a_model() {
    let lab = lab();
    let out = lab.good(&["info", "tiny.safetensors"]).out;
    assert!(out.contains("base_channels: 8") && out.contains("model: tiny.safetensors"), "{out}");
    let run = runs().join("judge");
    assert!(lab.good(&["info", run.to_str().unwrap()]).out.contains("image_size: 8"));
}

#[test]
fn info_lists_the_bundled_models() {
    let lab = Lab::new();
    let json = lab.good(&["info", "--json", "--threads", "2"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    for name in ["mnist", "mnist-classifier", "t5-mini"] {
        let model = &json["bundled models"][name];
        assert!(model["parameters"].as_u64().unwrap() > 1000 && model["sha256"].as_str().unwrap().len() == 64);
        assert!(lab.good(&["info"]).out.contains(&format!("  {name}\n")));
    }
    assert!(json["devices"]["cpu"].as_str().unwrap().starts_with("2 threads"));
}

#[test]
fn an_evaluation_is_printed_and_kept() {
    let lab = lab();
    lab.good(&["train", "tiny.toml", "--out", "run", "--quiet"]);
    let eval = ["eval", "run", "--classifier", "judge.safetensors", "--data", "data", "--samples", "20"];
    let out = lab.good(&[&eval[..], &["--guidance", "1.5"]].concat()).out;
    for part in
        ["captions seen in training", "captions never seen", "phrases that no image", "real test images", "seven "]
    {
        assert!(out.contains(part), "{out}");
    }
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(lab.path("run/eval.json")).unwrap()).unwrap();
    assert_eq!((&kept["samples"], &kept["guidance"]), (&20.into(), &1.5.into()));
    assert_eq!(kept["training"]["total"]["asked"], 20);
    assert!(kept["frechet"].as_f64().unwrap() > 0.0 && kept["frechet_real"].as_f64().unwrap() > 0.0);
    for split in ["training", "held-out", "unpaired"] {
        let svg = fs::read_to_string(lab.path(&format!("run/confusion-{split}.svg"))).unwrap();
        assert!(svg.starts_with("<svg ") && svg.contains("asked for"));
    }
    // Elsewhere if told so, the same on any number of threads; and for a file, nowhere.
    let again = [&eval[..], &["--guidance", "1.5", "--threads", "1", "--json", "--out", "else"]].concat();
    assert_eq!(lab.good(&again).json(), kept);
    assert_eq!(fs::read(lab.path("else/eval.json")).unwrap(), fs::read(lab.path("run/eval.json")).unwrap());
    lab.bad(1, "eval.json exists; choose another name, or add --force to replace it", &again);
    lab.good(&[&again[..], &["--force"]].concat());
    lab.good(&[&["eval", "tiny.safetensors"], &eval[2..]].concat());
    assert!(!lab.path("eval.json").exists());
}

#[test]
fn a_model_is_judged_beside_the_images_that_it_was_trained_on() {
    let lab = lab();
    for name in ["tiny", "judge"] {
        let (config, out) = (format!("{name}.toml"), format!("clothes-{name}"));
        lab.good(&["train", &config, "--out", &out, "--quiet", "--set", "data.name=fashion-mnist"]);
    }
    for command in ["eval", "sweep"] {
        // The folder too is the one that the model's config names.
        let judged =
            |model: &str, judge: &str| [command, model, "--classifier", judge, "--samples", "10"].map(String::from);
        let wrong = judged("clothes-tiny", "judge.safetensors");
        let message = "judge.safetensors was trained on mnist, and cannot judge a model of fashion-mnist";
        lab.bad(1, message, &wrong.each_ref().map(|arg| &**arg));
        let wrong = judged("tiny.safetensors", "clothes-judge");
        lab.bad(1, "cannot judge a model of mnist", &wrong.each_ref().map(|arg| &**arg));
        let right = judged("clothes-tiny", "clothes-judge");
        let out = lab.good(&right.each_ref().map(|arg| &**arg)).out;
        assert!(command == "sweep" || out.contains("ankle boot") && !out.contains("seven"), "{out}");
    }
}

// What a full disk does, a limit on the size of files does too: nothing can be written into the files that can be made.
#[cfg(unix)]
#[test]
fn what_was_measured_is_printed_even_if_it_cannot_be_saved() {
    let lab = lab();
    let judged = "--classifier judge.safetensors --data data --samples 10 --device cpu --out w";
    for (command, found) in [
        (format!("eval {judged} tiny.safetensors"), "real test images"),
        (format!("sweep {judged} tiny.safetensors"), "real test images"),
        ("eval tiny.safetensors --data data --bits-per-dim 2 --device cpu --out w".into(), "bits per dimension"),
    ] {
        let script = format!("trap '' XFSZ; ulimit -f 0; exec \"$0\" {command}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_imagen")]).current_dir(lab.path(""));
        let ran = Ran::of(&command, shell.output().unwrap());
        assert!(ran.code == 1 && ran.out.contains(found), "{command}: {}{}", ran.out, ran.err);
        assert!(ran.err.starts_with("error: cannot write w/"), "{command}: {}", ran.err);
        assert_eq!(fs::read_dir(lab.path("w")).unwrap().count(), 0);
    }
}

#[test]
fn a_sweep_that_is_stopped_keeps_what_it_has_found() {
    let lab = lab();
    let guidance = (0..500).map(|w| w.to_string()).collect::<Vec<_>>().join(",");
    let sweep = ["sweep", "tiny.safetensors", "--classifier", "judge.safetensors", "--data", "data", "--samples", "10"];
    let mut child = lab.command(&[&sweep[..], &["--guidance", &guidance, "--out", "w"]].concat()).spawn().unwrap();
    let found = lab.path("w/sweep.svg");
    while !found.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(lab.path("w/sweep.json")).unwrap()).unwrap();
    let points = kept["points"].as_array().unwrap().len();
    assert!((1..500).contains(&points) && kept["real"]["asked"] == 10, "{points} points");
}

#[test]
fn a_reader_that_goes_away_is_no_panic_and_nothing_is_lost() {
    let lab = lab();
    lab.good(&["train", "tiny.toml", "--out", "run", "--quiet"]);
    let eval = ["eval", "run", "--classifier", "judge.safetensors", "--data", "data", "--samples", "10"];
    for args in [
        &["--help"][..],
        &["sample", "--help"],
        &["--version"],
        &["info", "tiny.safetensors"],
        &["info", "tiny.safetensors", "--json"],
        &["sample", "seven", "--model", "tiny.safetensors", "--out", "a.png"],
        &["train", "judge.toml"],
        &eval,
    ] {
        let mut child = lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::of(&args.join(" "), child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}: {}", ran.what, ran.err);
    }
    for file in ["a.png", "runs/judge/model.safetensors", "run/eval.json", "run/confusion-held-out.svg"] {
        assert!(lab.path(file).is_file(), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn without_stdout_and_stderr_it_still_works() {
    let lab = lab();
    let script = r#""$0" sample seven --model tiny.safetensors --out a.png >&- 2>&-"#;
    let status =
        Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_imagen")]).current_dir(lab.path("")).status();
    assert!(status.unwrap().success());
    assert!(lab.path("a.png").is_file());
}

/// Tokens and ids of T5, as text and as JSON; states, masks and pictures as files.
#[test]
fn text_shows_what_the_encoder_reads() {
    let lab = Lab::new();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/t5-v1_1-tiny");
    let prompts = ["a handwritten seven", "A photo of a   horse.", ""];
    let plain = lab.good(&[&["text"], &prompts[..], &["--model", fixture]].concat()).out;
    assert!(plain.contains("\"a handwritten seven\": 5 tokens\n") && plain.contains("▁seven  </s>"), "{plain}");
    assert!(plain.contains("\"\": 1 tokens\n"), "{plain}");

    let files = ["--out", "t.safetensors", "--attention", "a.svg", "--similarity", "s.svg", "--time", "2"];
    let json = lab.good(&[&["text", "--json"], &prompts[..], &["--model", fixture], &files].concat()).json();
    assert_eq!(json["texts"][0]["ids"], serde_json::json!([5, 131, 117, 190, 1]));
    assert_eq!(json["texts"][1]["ids"], serde_json::json!([84, 66, 8, 5, 3, 399, 40, 58, 10, 1]));
    assert!(json["timing"]["seconds"].as_f64().unwrap() > 0.0 && json["timing"]["streamed"] == false);
    for (svg, part) in [("a.svg", "layer 2"), ("s.svg", "a handwritten seven")] {
        let text = fs::read_to_string(lab.path(svg)).unwrap();
        assert!(text.starts_with("<svg ") && text.contains(part), "{svg}");
    }

    let bytes = fs::read(lab.path("t.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let golden = fs::read(format!("{fixture}/expected.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    for (name, dtype, shape) in [
        ("input_ids", safetensors::Dtype::I64, &[3, 10][..]),
        ("attention_mask", safetensors::Dtype::I64, &[3, 10]),
        ("last_hidden_state", safetensors::Dtype::F32, &[3, 10, 32]),
    ] {
        let view = file.tensor(name).unwrap();
        assert_eq!((view.dtype(), view.shape()), (dtype, shape), "{name}");
    }
    let mask: Vec<i64> =
        file.tensor("attention_mask").unwrap().data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
    assert_eq!(mask[..10], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    let floats = |view: safetensors::tensor::TensorView<'_>| -> Vec<f32> {
        view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let (states, expected) =
        (floats(file.tensor("last_hidden_state").unwrap()), floats(golden.tensor("last_hidden_state").unwrap()));
    // The golden numbers are padded to 157 tokens.
    for (row, n) in [(0, 5), (1, 10)] {
        let (a, b) = (&states[row * 320..][..n * 32], &expected[row * 157 * 32..][..n * 32]);
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert!(states[5 * 32..10 * 32].iter().all(|&v| v == 0.0));
}

/// What is not read of a long text is said, and nothing is lost silently.
#[test]
fn a_text_beyond_the_limit_is_cut_and_said_to_be() {
    let lab = Lab::new();
    let ran = lab.good(&["text", "one two three four five six", "--max-tokens", "4", "--json"]);
    assert_eq!(ran.json()["texts"][0]["ids"].as_array().unwrap().len(), 4);
    assert_eq!(ran.json()["texts"][0]["left_out"], 3);
    assert!(ran.err.contains("3 tokens more than the 4 that are read"), "{}", ran.err);
}

/// A T5 trained here reads, and is described.
#[test]
fn a_text_encoder_is_trained_and_reads() {
    let lab = Lab::new();
    let ran = lab.good(&["train", "words.toml"]);
    assert!(ran.err.contains("loss on other texts") && ran.err.contains("texts/s"), "{}", ran.err);
    let json = lab.good(&["text", "seven", "--model", "runs/words", "--json"]).json();
    assert_eq!(json["texts"][0]["pieces"].as_array().unwrap().last().unwrap(), "</s>");
    assert!(lab.good(&["info", "runs/words"]).out.contains("d_model: 8"));
    assert!(lab.good(&["info", "words.toml"]).out.contains("4 examples a step"));
}

#[test]
fn the_bound_in_bits_per_dimension_is_kept_with_its_terms() {
    let lab = lab();
    let eval = ["eval", "tiny.safetensors", "--data", "data", "--bits-per-dim", "3", "--json"];
    let ran = lab.good(&[&eval[..], &["--out", "bits"]].concat());
    let json = ran.json();
    let terms: Vec<f64> = json["terms"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!((terms.len(), json["images"].as_u64()), (1000, Some(3)));
    let whole = terms.iter().sum::<f64>() + json["prior"].as_f64().unwrap();
    assert!((json["bits_per_dim"].as_f64().unwrap() - whole).abs() < 1e-9 && terms.iter().all(|&t| t >= 0.0));
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(lab.path("bits/bound.json")).unwrap()).unwrap();
    assert_eq!(kept["terms"], json["terms"]);
    assert!(fs::read_to_string(lab.path("bits/bound.svg")).unwrap().starts_with("<svg"));
    let large = lab.good(&[&eval[..], &["--variance", "large"]].concat()).json();
    assert_ne!(large["bits_per_dim"], json["bits_per_dim"]);
    lab.bad(
        1,
        "there are 20 test images, not 21",
        &["eval", "tiny.safetensors", "--data", "data", "--bits-per-dim", "21"],
    );
}

/// A check-up of the tiny run: what is well, what is not, and what cannot be seen without a model.
#[test]
fn a_check_up_says_what_is_wrong_and_what_to_do() {
    let lab = lab();
    let findings = |code: i32, args: &[&str]| {
        let ran = lab.run(&[&["doctor", "tiny.toml", "--quiet", "--json"][..], args].concat());
        assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
        let all = ran.json();
        let of = |name: &str| all.as_array().unwrap().iter().find(|f| f["name"] == name).unwrap()["passed"].clone();
        [
            "noise at t = 1",
            "age of the average",
            "one image by heart",
            "gradients of all layers",
            "the text matters",
            "drift of the channels",
        ]
        .map(|name| of(name).as_bool())
    };
    let (good, bad) = (Some(true), Some(false));
    // Six steps make no average old: 0.18 x 0.25 x .. of it are first weights.
    assert_eq!(findings(0, &["--set", "train.steps=6"])[..4], [good; 4]);
    assert_eq!(findings(1, &["--set", "train.ema=0.9999", "--set", "train.steps=1"])[1], bad);
    assert_eq!(findings(1, &["--steps", "1"])[2], bad);
    // Six steps on random images: nothing is known of captions yet.
    assert_eq!(findings(1, &["--model", "tiny.safetensors"])[4..], [bad, None]);
    let table = lab.run(&["doctor", "tiny.toml", "--steps", "1"]);
    assert!(table.out.contains("one image by heart") && table.out.contains("BAD"), "{}", table.out);
    assert!(
        table.out.contains("the text matters") && table.out.contains("name a trained model with --model"),
        "{}",
        table.out
    );
    lab.bad(1, "only diffusion models are checked up", &["doctor", "judge.toml"]);
}
