//! Bad input: a clear line, a code that is not zero, and nothing overwritten. [`Lab::bad`] checks all three.

use super::tiny::{JUDGE, Lab, SIDE, TINY, idx, write_data};
use super::{lab, runs};
use imagen::array::Array;
use imagen::nn::Weights;
use imagen::picture::{self, Picture, Text};
use std::fs;
use std::path::Path;

#[test]
fn wrong_usage() {
    let lab = Lab::new();
    for args in [
        &["smaple"][..],
        &["sample"],
        &["train"],
        &["sample", "seven", "--count", "0"],
        &["sample", "seven", "--count", "1000000000000"],
        &["sample", "seven", "--steps", "0"],
        &["sample", "seven", "--steps", "two"],
        &["sample", "seven", "--guidance", "strong"],
        &["sample", "seven", "--seed", "-1"],
        &["sample", "seven", "--from", "a.png"],
        &["sample", "seven", "--threads", "0"],
        &["sample", "seven", "--device", "abacus"],
        &["bench", "mnist29"],
        &["bench", "--steps", "0"],
        &["bench", "--batch", "0"],
        &["eval", "--samples", "0"],
        &["info", "--no-such-flag"],
    ] {
        lab.bad(2, "For more information, try '--help'", args);
    }
    lab.bad(2, "some similar subcommands exist: 'upscale', 'sample'", &["smaple"]);
    lab.bad(1, "use --device cpu", &["info", "--device", "gpu:1000"]);
    for device in ["gpu:", "gpu:x", "gpu:-1", "tpu"] {
        lab.bad(2, "it must be cpu, gpu, auto, or gpu: and a number", &["info", "--device", device]);
    }
}

#[test]
fn wrong_data() {
    let lab = Lab::new();
    let images = fs::read(lab.path("data/train-images-idx3-ubyte")).unwrap();
    let labels = fs::read(lab.path("data/train-labels-idx1-ubyte")).unwrap();
    let magic = [&[0, 0, 13, 3], &images[4..]].concat();
    let absurd = idx(&[0xffff_ffff, 28, 28], &[]);
    for (file, bytes, message) in [
        (
            "train-images-idx3-ubyte",
            Some(&images[..images.len() - 1]),
            "cut off: holds 2575 bytes, its header says 2576",
        ),
        ("train-images-idx3-ubyte", Some(&images[..7]), "cut off"),
        ("train-images-idx3-ubyte", Some(&magic), "not an IDX file of unsigned bytes with 3 axes"),
        ("train-images-idx3-ubyte", Some(&labels), "check that images and labels are not swapped"),
        ("train-images-idx3-ubyte", Some(b"<!DOCTYPE html>"), "not an IDX file"),
        ("train-images-idx3-ubyte", Some(&[]), "cut off: holds 0 bytes"),
        ("train-images-idx3-ubyte", Some(&absurd), "cannot be right"),
        ("train-images-idx3-ubyte.gz", Some(&[0x1f, 0x8b, 8, 0, 1]), "damaged gzip file"),
        ("t10k-labels-idx1-ubyte", Some(&idx(&[3], &[1, 2, 3])), "20 images but 3 labels in the t10k files"),
        ("train-labels-idx1-ubyte", Some(&idx(&[40], &[77; 40])), "label 77 of train image 0"),
        (
            "t10k-images-idx3-ubyte",
            Some(&idx(&[20, 4, 4], &[0; 320])),
            "train images are [8, 8] but t10k images are [4, 4]",
        ),
        ("train-labels-idx1-ubyte", None, "train-labels-idx1-ubyte.gz is missing"),
    ] {
        let path = lab.path("data").join(file);
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        lab.bad(1, message, &["train", "tiny.toml", "--out", "run"]);
        let _ = fs::remove_file(&path);
        write_data(&lab.path("data"), SIDE, 40, 20, 1);
    }
    lab.bad(
        1,
        "nowhere: train-images-idx3-ubyte.gz is missing",
        &["train", "tiny.toml", "--set", "data.folder=nowhere"],
    );
    // Whole, but not what the network takes.
    write_data(&lab.path("odd"), 7, 40, 20, 1);
    lab.bad(1, "images of 1x7x7 do not fit the network", &["train", "tiny.toml", "--set", "data.folder=odd"]);
    lab.bad(1, "the data set has 1x7x7 of 10", &["train", "judge.toml", "--set", "data.folder=odd"]);
    let gigantic = ["--set", "classifier.image_size=1024", "--set", "classifier.channels=[128]"];
    lab.bad(1, "the data set has 1x8x8 of 10", &[&["train", "judge.toml"][..], &gigantic].concat());
}

#[test]
fn wrong_configs() {
    let lab = Lab::new();
    let train = |message: &str, config: &str| {
        lab.file("wrong.toml", config);
        lab.bad(1, message, &["train", "wrong.toml", "--out", "run"]);
    };
    let with = |from: &str, to: &str| {
        assert!(TINY.contains(from), "{from}");
        TINY.replacen(from, to, 1)
    };
    lab.bad(1, "cannot read none.toml: No such file", &["train", "none.toml"]);
    lab.bad(1, "cannot read data: ", &["train", "data"]);
    train("wrong.toml: ", "this is no TOML");
    train("wrong.toml: the first key must be task", "");
    train("task \"painting\" is unknown", &with("\"diffusion\"", "\"painting\""));
    train("line 40, column 1: unknown field `stepss`", &with("\nsteps = 6", "\nstepss = 6"));
    train("did you mean `steps`?", &with("\nsteps = 6", "\nstepss = 6"));
    train("did you mean `base_channels`?", &with("base_channels", "base_chanels"));
    train("did you mean `learning_rate`?", &with("[learning_rate]", "[learningrate]"));
    train("unknown field `task`", &with("[train]", "[train]\ntask = 1"));
    train("did you mean `cosine`?", &with("\"cosine\"", "\"cosin\""));
    train("did you mean `fashion-mnist`?", &with("\"mnist\"", "\"fashion\""));
    train("missing field `batch`", &with("batch = 4", ""));
    train("expected usize", &with("batch = 4", "batch = \"four\""));
    train("expected usize", &with("batch = 4", "batch = -4"));
    train("expected usize", &with("batch = 4", "batch = 4.5"));
    train("train.batch must be between 1 and 65536, not 0", &with("batch = 4", "batch = 0"));
    train("train.batch must be between 1 and 65536, not 1000000000000", &with("batch = 4", "batch = 1000000000000"));
    train("train.steps must be between 1 and", &with("\nsteps = 6", "\nsteps = 0"));
    train("train.steps must be between 1 and", &with("\nsteps = 6", "\nsteps = 1000000000000"));
    train("train.checkpoint_every must be", &with("checkpoint_every = 2", "checkpoint_every = 0"));
    train("train.ema must be at least 0 and below 1, not 1", &with("ema = 0.9", "ema = 1.0"));
    train("train.clip must be above 0, not NaN", &with("clip = 1.0", "clip = nan"));
    train("unet.base_channels must be between 1 and", &with("base_channels = 8", "base_channels = 0"));
    train("unet.base_channels must be between 1 and", &with("base_channels = 8", "base_channels = 1000000000000"));
    train("make a network of some 18119393280 parameters", &with("base_channels = 8", "base_channels = 8192"));
    train("unet.attention must have one entry a level", &with("[false, true]", "[false]"));
    train("unet.groups must divide", &with("groups = 4", "groups = 3"));
    train("unet.text.dim is 8, but the text encoder gives 9", &with("dim = 8", "dim = 9"));
    train("there is a [text] encoder, but the network takes no text", &with("[unet.text]\ndim = 8", ""));
    train("rate is 0, but must be above 0", &with("rate = 1e-3", "rate = 0.0"));
    train("steps = 0 is not allowed", &with("steps = 2", "steps = 0"));
    train("sampling.guidance must be a number", &with("guidance = 2.3", "guidance = inf"));
    let classifier = |from: &str, to: &str| JUDGE.replacen(from, to, 1);
    train("shift must be smaller than the image", &classifier("shift = 1", "shift = 8"));
    train("classifier.channels must be divisible by 8", &classifier("[8]", "[9]"));
    train(
        "make a network of some 2415943680 parameters",
        &classifier("[8]", "[4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096]"),
    );
    train("classifier.features must be between 1 and", &classifier("features = 6", "features = 0"));
}

#[test]
fn wrong_overrides() {
    let lab = Lab::new();
    for (set, message) in [
        ("train.stepss=5", "--set train.stepss=5: unknown field `stepss`"),
        ("train.stepss=5", "did you mean `steps`?"),
        ("trian.steps=5", "did you mean `train`?"),
        ("train.steps=five", "invalid type: string \"five\", expected u64"),
        ("train.steps=0", "--set train.steps=0: train.steps must be between 1 and"),
        ("train.steps", "write it as key=value"),
        ("train.steps.more=5", "steps is a value, not a section"),
        ("=5", "unknown field ``"),
        (
            "diffusion.weighting={kind=\"simple\",gamma=5}",
            "`diffusion.weighting.gamma` has no meaning beside the keys around it; take it out",
        ),
        (
            "sampling.method.threshold={kind=\"none\",percentile=90}",
            "`sampling.method.threshold.percentile` has no meaning",
        ),
        ("task=\"painting\"", "task \"painting\" is unknown"),
    ] {
        lab.bad(1, message, &["train", "tiny.toml", "--out", "run", "--set", set]);
    }
    // A key may say what is meant without it.
    for (i, set) in
        ["unet.resampling_order=\"after\"", "unet.low_res=false", "diffusion.time=\"interpolated\""].iter().enumerate()
    {
        lab.good(&["train", "tiny.toml", "--out", &format!("default-{i}"), "--quiet", "--set", set]);
    }
    // Together they make sense, one alone does not.
    let levels = ["--set", "unet.channel_multipliers=[1]", "--set", "unet.attention=[true]"];
    lab.bad(1, "unet.attention must have", &[&["train", "tiny.toml", "--out", "run"][..], &levels[..2]].concat());
    lab.good(&[&["train", "tiny.toml", "--out", "run", "--set", "train.steps=1"][..], &levels].concat());
}

#[test]
fn wrong_models() {
    let lab = lab();
    let good = fs::read(lab.path("tiny.safetensors")).unwrap();
    lab.file("short.safetensors", &good[..good.len() - 1]);
    lab.file("shorter.safetensors", &good[..5]);
    lab.file("empty.safetensors", "");
    lab.file("random.safetensors", good.iter().map(|b| b.wrapping_mul(167).wrapping_add(13)).collect::<Vec<u8>>());
    lab.file("absurd.safetensors", [&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    for name in ["short", "shorter", "empty", "random", "absurd"] {
        let file = format!("{name}.safetensors");
        for command in ["sample", "eval", "info"] {
            let prompt: &[&str] = if command == "sample" { &["seven", "--model"] } else { &[] };
            lab.bad(1, &format!("{file} is not a whole safetensors file"), &[&[command], prompt, &[&file]].concat());
        }
    }
    lab.bad(1, "there is no model \"none\": give a bundled one (mnist, ", &["sample", "seven", "--model", "none"]);
    lab.bad(1, "data is not the folder of a run", &["sample", "seven", "--model", "data"]);
    lab.bad(1, "lack the metadata entry \"stage\"", &["sample", "seven", "--model", "judge.safetensors"]);
    let eval = ["eval", "tiny.safetensors", "--classifier", "tiny.safetensors", "--data", "data"];
    lab.bad(1, "tiny.safetensors: these weights are not of a classifier", &eval);

    let weights = Weights::parse(&good, Path::new("tiny")).unwrap();
    let altered = |name: &str, alter: &dyn Fn(&mut Weights)| {
        let mut weights = weights.clone();
        alter(&mut weights);
        lab.file(&format!("{name}.safetensors"), weights.to_bytes(true));
        format!("{name}.safetensors")
    };
    let stage = |w: &mut Weights, from: &str, to: &str| {
        let stage = w.metadata.get_mut("stage").unwrap();
        assert!(stage.contains(from), "{stage}");
        *stage = stage.replacen(from, to, 1);
    };
    for (file, message) in [
        (altered("wide", &|w| stage(w, "\"base_channels\":8", "\"base_channels\":16")), "another architecture: "),
        (altered("deep", &|w| stage(w, "\"blocks\":1", "\"blocks\":2")), "another architecture: "),
        (altered("lost", &|w| drop(w.tensors.pop_first())), "is missing"),
        (altered("key", &|w| stage(w, "\"blocks\":1", "\"block\":1")), "cannot be understood: unknown field `block`"),
        (altered("none", &|w| stage(w, "\"base_channels\":8", "\"base_channels\":0")), "unet.base_channels must be"),
        (altered("flat", &|w| stage(w, "[1,8,8]", "[1,8,0]")), "images of 1x8x0 do not fit"),
        (
            altered("huge", &|w| stage(w, "[1,8,8]", "[1,1048576,1048576]")),
            "takes 1 channels and sides of at most 4096",
        ),
        (altered("long", &|w| stage(w, "[1,8,8]", "[1,4611686018427387904,8]")), "sides of at most 4096"),
        (altered("odd", &|w| stage(w, "[1,8,8]", "[2,8,8]")), "images of 2x8x8 cannot be shown"),
    ] {
        lab.bad(1, message, &["sample", "seven", "--model", &file]);
    }

    // Numbers that are none, and such that become none.
    let fill = |w: &mut Weights, name: &str, value: f32| {
        let array = w.tensors.get_mut(name).unwrap();
        *array = Array::from_vec(array.shape().clone(), vec![value; array.numel()]);
    };
    let spoilt = altered("spoilt", &|w| fill(w, "conv_in.weight", f32::NAN));
    let message = "spoilt.safetensors: the weights hold NaN or infinity, first in conv_in.weight";
    lab.bad(1, message, &["sample", "seven", "--model", &spoilt]);
    let judge = Weights::read(&lab.path("judge.safetensors")).unwrap();
    for (value, message) in [
        (f32::NAN, "judge-bad.safetensors: the weights hold NaN or infinity, first in features.weight"),
        (3e38, "the classifier makes NaN or infinity of real training images"),
    ] {
        let mut judge = judge.clone();
        fill(&mut judge, "features.weight", value);
        lab.file("judge-bad.safetensors", judge.to_bytes(true));
        for command in ["eval", "sweep"] {
            let args = ["tiny.safetensors", "--classifier", "judge-bad.safetensors", "--data", "data"];
            lab.bad(1, message, &[&[command], &args[..]].concat());
        }
    }
}

#[test]
fn wrong_prompts_and_numbers() {
    let lab = lab();
    let sample = |message: &str, args: &[&str]| {
        lab.bad(1, message, &[&["sample", "--model", "tiny.safetensors"][..], args].concat());
    };
    let long = "seven ".repeat(33);
    for prompt in ["", "   ", "?! - …", "\n\t"] {
        sample("has no words", &[prompt]);
        sample("has no words", &["seven", prompt]);
    }
    sample("has 33 words, but the text encoder takes at most 32", &[&long]);
    for guidance in ["--guidance=nan", "--guidance=inf", "--guidance=-inf"] {
        sample("--guidance must be a number", &["seven", guidance]);
        let eval = ["eval", "tiny.safetensors", "--classifier", "judge.safetensors", "--data", "data", guidance];
        lab.bad(1, "--guidance must be a number", &eval);
    }
    sample("a filmstrip is one picture: let --out end in .png", &["seven", "--strip", "--out", "folder"]);
    lab.bad(2, "cannot be used with", &["sample", "seven", "--strip", "--count", "4"]);
    sample("cannot write seven.jpg: pictures are PNG files", &["seven", "--out", "seven.jpg"]);
}

#[test]
fn wrong_places() {
    let lab = lab();
    let sample = |message: &str, out: &str| {
        lab.bad(1, message, &["sample", "seven", "--model", "tiny.safetensors", "--out", out]);
    };
    lab.file("old.png", "precious");
    lab.file("letter", "precious");
    sample("old.png exists; choose another name, or add --force", "old.png");
    sample("there is no folder no/such; create it", "no/such/a.png");
    sample("something else is in the way", "letter/a.png");
    sample("something else is in the way", "letter");
    sample("something else is in the way", "letter/folder");
    fs::create_dir_all(lab.path("drawn")).unwrap();
    lab.file("drawn/001-seven-seed0-003.png", "precious");
    sample("drawn/001-seven-seed0-003.png exists", "drawn");
    // With --force, what is no file is still not replaced.
    fs::create_dir(lab.path("folder.png")).unwrap();
    let force = ["sample", "seven", "--model", "tiny.safetensors", "--force", "--out"];
    lab.bad(1, "is not an ordinary file; choose another name", &[&force[..], &["folder.png"]].concat());
    let train = |message: &str, out: &str| lab.bad(1, message, &["train", "tiny.toml", "--out", out]);
    train("cannot create folder letter", "letter");
    train("cannot create folder letter/run", "letter/run");
    if cfg!(target_os = "linux") {
        sample("cannot write /dev/full/x.png: ", "/dev/full/x.png");
        sample("cannot write /proc/x.png: ", "/proc/x.png");
        sample("cannot create folder /proc/images: ", "/proc/images");
        train("cannot create folder /proc/run: ", "/proc/run");
        #[cfg(unix)]
        std::os::unix::fs::symlink("/dev/full", lab.path("device.png")).unwrap();
        lab.bad(1, "is not an ordinary file; choose another name", &[&force[..], &["device.png"]].concat());
    }
    // A link to nothing is somebody's too.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("not-yet.png", lab.path("link.png")).unwrap();
        sample("link.png exists; choose another name, or add --force", "link.png");
        let over = [&force[..], &["link.png"]].concat();
        lab.bad(1, "cannot write link.png: it is a link to nothing; remove it, or choose another name", &over);
    }
    // Root may write into a read-only folder; everybody else is told.
    fs::create_dir(lab.path("locked")).unwrap();
    let mut permissions = fs::metadata(lab.path("locked")).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(lab.path("locked"), permissions).unwrap();
    if fs::write(lab.path("locked/probe"), "").is_err() {
        sample("read-only; allow writing there, or choose another place", "locked/a.png");
        sample("read-only; allow writing there, or choose another place", "locked");
        train("read-only; allow writing there, or choose another place", "locked/run");
    }
}

#[test]
fn wrong_pictures_to_repeat() {
    let lab = lab();
    let from = |message: &str, file: &str| {
        lab.bad(1, message, &["sample", "--from", file, "--model", "tiny.safetensors", "--out", "new.png"]);
    };
    from("cannot read none.png: No such file", "none.png");
    lab.file("text.png", "not a picture");
    from("not a whole PNG", "text.png");
    let picture = Picture::blank(2, 2, 1, 7);
    let save = |request: Option<&str>| {
        let text = request.map(|r| ("request".to_string(), r.to_string()));
        picture::write(&lab.path("a.png"), &picture, &Text::from_iter(text)).unwrap();
    };
    save(None);
    from("a.png was not drawn by `imagen sample`", "a.png");
    save(Some("{}"));
    from("a.png: its settings cannot be understood", "a.png");
    let settings = r#"{"prompts":["seven"],"count":1,"guidance":1.0,"sampling":{"steps":2},"seed":0,"first":0}"#;
    for (good, bad) in [
        (r#"["seven"]"#, "[]"),
        ("\"count\":1", "\"count\":0"),
        ("\"count\":1", "\"count\":1000000000000"),
        ("\"steps\":2", "\"steps\":0"),
        ("\"steps\":2", "\"steps\":1000000000000"),
        ("\"first\":0", "\"first\":18446744073709551615"),
    ] {
        assert!(settings.contains(good));
        save(Some(&settings.replacen(good, bad, 1)));
        from("the settings in that picture are not those of this program", "a.png");
    }
    save(Some(settings));
    lab.good(&["sample", "--from", "a.png", "--model", "tiny.safetensors", "--out", "new.png"]);
}

#[test]
fn wrong_evaluations() {
    let lab = lab();
    let eval = |message: &str, data: &str, judge: &str| {
        lab.bad(1, message, &["eval", "tiny.safetensors", "--classifier", judge, "--data", data, "--samples", "10"]);
    };
    write_data(&lab.path("large"), 28, 40, 20, 1);
    eval("judges images of [1, 8, 8] in 10 classes; the data has [1, 28, 28] in 10", "large", "judge.safetensors");
    write_data(&lab.path("single"), SIDE, 40, 1, 1);
    eval("at least two of each are needed", "single", "judge.safetensors");
    eval("nowhere: train-images-idx3-ubyte.gz is missing", "nowhere", "judge.safetensors");
    let large = ["train", "judge.toml", "--out", "large-judge", "--quiet", "--set", "data.folder=large"];
    lab.good(&[&large[..], &["--set", "classifier.image_size=28", "--set", "train.steps=1"]].concat());
    eval("draws images of [1, 8, 8], which large-judge/model.safetensors does not take", "large", "large-judge");
    lab.file("letter", "precious");
    // None of the results is replaced unasked, and one that cannot be is found before anything is drawn.
    fs::create_dir(lab.path("kept")).unwrap();
    let results = ["eval.json", "confusion-training.svg", "confusion-held-out.svg", "confusion-unpaired.svg"];
    let judged = ["--classifier", "judge.safetensors", "--data", "data", "--out", "kept"];
    let eval = [&["eval", "tiny.safetensors"][..], &judged].concat();
    let sweep = [&["sweep", "tiny.safetensors"][..], &judged].concat();
    let bound = ["eval", "tiny.safetensors", "--data", "data", "--bits-per-dim", "--out", "kept"];
    let files = results.iter().map(|name| (*name, &eval[..]));
    let others = [("sweep.json", &sweep[..]), ("sweep.svg", &sweep), ("bound.json", &bound), ("bound.svg", &bound)];
    for (name, command) in files.chain(others) {
        let file = lab.file(&format!("kept/{name}"), "precious");
        lab.bad(1, &format!("{name} exists; choose another name, or add --force to replace it"), command);
        let mut permissions = fs::metadata(&file).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&file, permissions).unwrap();
        lab.bad(1, "read-only; allow writing there", &[command, &["--force"]].concat());
        fs::remove_file(&file).unwrap();
    }
    let run = runs().join("tiny");
    let args =
        ["eval", run.to_str().unwrap(), "--classifier", "judge.safetensors", "--data", "data", "--out", "letter"];
    lab.bad(1, "cannot create folder letter", &args);
}

#[test]
fn mistakes_with_texts_are_explained() {
    let lab = Lab::new();
    lab.file("there.svg", "mine");
    lab.file("damaged.safetensors", [1, 2, 3]);
    fs::create_dir_all(lab.path("empty")).unwrap();
    for (message, args) in [
        ("there is no T5 \"none\": give a bundled one (t5-mini)", &["text", "seven", "--model", "none"][..]),
        ("there is no T5 \"empty\"", &["text", "seven", "--model", "empty"]),
        ("is not a whole safetensors file", &["text", "seven", "--model", "damaged.safetensors"]),
        ("these weights are not of a T5", &["text", "seven", "--model", "mnist"]),
        ("must end in .safetensors", &["text", "seven", "--out", "a.bin"]),
        ("must end in .svg", &["text", "seven", "--attention", "a.png"]),
        (
            "both name a.svg",
            &["text", "seven", "--attention", "a.svg", "--similarity", "a.svg", "--out", "a.safetensors"],
        ),
        ("both name a.svg", &["text", "seven", "--attention", "a.svg", "--similarity", "./a.svg"]),
        (
            "there.svg exists; choose another name, or add --force to replace it",
            &["text", "a", "--similarity", "there.svg"],
        ),
        ("there is no folder", &["text", "seven", "--out", "nowhere/a.safetensors"]),
    ] {
        lab.bad(1, message, args);
    }
    lab.bad(2, "required", &["text"]);
    lab.bad(2, "0 is not in 2..=2048", &["text", "seven", "--max-tokens", "0"]);
    lab.good(&["text", "a", "b", "--similarity", "there.svg", "--force"]);
}

#[test]
fn mistakes_in_the_config_of_a_text_run_are_explained() {
    let lab = Lab::new();
    for (message, set) in [
        ("corruption.rate must be above 0 and below 1", "corruption.rate=1.5"),
        ("corruption.mean_span must be at least 1", "corruption.mean_span=0.5"),
        ("t5.num_heads must be between 1 and", "t5.num_heads=0"),
        ("tokenizer.sentinels must be between 2", "tokenizer.sentinels=1"),
        ("does not hold the", "t5.vocab_size=50"),
        ("corpus.folder_share must be between 0 and 1", "corpus.folder_share=2.0"),
        ("train.recompute has no meaning for a T5", "train.recompute=true"),
        ("are 0 and 1 in the vocabulary that is trained here", "t5.eos_token_id=2"),
    ] {
        lab.bad(1, message, &["train", "words.toml", "--set", set]);
    }
    let gigantic = ["train", "words.toml", "--set", "t5.d_ff=1000000", "--set", "t5.num_layers=200"];
    lab.bad(1, "at most 2000000000 are taken to be meant", &gigantic);
    lab.bad(
        1,
        "there is no T5 \"gone\"",
        &["train", "tiny.toml", "--set", "text={ encoder = \"t5\", model = \"gone\" }"],
    );
    let short = "text={ encoder = \"t5\", model = \"t5-mini\", max_tokens = 1 }";
    lab.bad(1, "max_tokens = 1 is out of range; it must be from 2 to 2048", &["train", "tiny.toml", "--set", short]);
}
