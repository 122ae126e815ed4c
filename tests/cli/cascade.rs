//! Models one after the other: `imagen sample --cascade` and `imagen upscale`.

use super::lab;
use super::tiny::{Lab, SIDE, TINY};
use imagen::data::{Dataset, DatasetName};
use imagen::picture::{self, Picture};
use serde_json::json;
use std::fs;

/// A base model of half the side of the images, and one that makes its images twice as large; the cascade of both.
fn cascade() -> Lab {
    let lab = lab();
    let half = format!("data.resolution={}", SIDE / 2);
    let train = |out: &str, settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let args = ["train", "tiny.toml", "--out", out, "--quiet"].into_iter().chain(settings);
        lab.good(&args.collect::<Vec<_>>());
    };
    train("base", &[&half]);
    train("larger", &["super_resolution.factor=2", "unet.low_res=true"]);
    let stages = "[[stage]]\nmodel = \"base\"\n\n[[stage]]\nmodel = \"larger\"\naug = 0.3\nguidance = 1.5\n";
    fs::write(lab.path("cascade.toml"), stages).unwrap();
    lab
}

/// A model that takes no text.
fn wordless(lab: &Lab) {
    let text = ["[text]\nencoder = \"hashed-words\"\ndim = 8\n", "[unet.text]\ndim = 8\n"];
    let config = text.iter().fold(TINY.to_string(), |config, text| config.replace(text, ""));
    fs::write(lab.path("wordless.toml"), config).unwrap();
    lab.good(&["train", "wordless.toml", "--out", "wordless", "--quiet"]);
}

#[test]
fn words_for_a_model_that_takes_none_are_said_to_be_in_vain() {
    let lab = Lab::new();
    wordless(&lab);
    let settings = "super_resolution.factor=2";
    lab.good(&["train", "wordless.toml", "--out", "up", "--quiet", "--set", settings, "--set", "unet.low_res=true"]);
    fs::write(lab.path("up.toml"), "[[stage]]\nmodel = \"up\"\n").unwrap();
    let commands = [
        &["sample", "seven", "--model", "wordless", "--count", "1", "--negative", "two", "--out", "a.png"][..],
        &["edit", "a.png", "two", "--model", "wordless", "--out", "b.png"],
        &["upscale", "a.png", "--model", "up", "--prompt", "seven", "--out", "c.png"],
    ];
    for command in commands {
        let ran = lab.good(command);
        assert_eq!(ran.err, "note: this model takes no text; the words have no effect\n", "{}", ran.what);
    }
    // Nobody gave words here.
    lab.good(&["upscale", "a.png", "--model", "up", "--out", "d.png"]);
    assert_eq!(lab.good(&["sample", "--cascade", "up.toml", "--from-real", "--out", "e.png"]).err, "");
}

fn picture(lab: &Lab, name: &str) -> Picture {
    picture::read(&lab.path(name)).unwrap().0
}

#[test]
fn a_cascade_draws_stage_by_stage_and_a_picture_of_it_can_be_drawn_again() {
    let lab = cascade();
    let cascade = ["sample", "--cascade", "cascade.toml"];
    let ran = lab.good(&[&cascade[..], &["seven", "two", "--count", "3", "--seed", "4", "--out", "a.png"]].concat());
    assert_eq!(ran.out, "a.png\n");
    let (sheet, text) = picture::read(&lab.path("a.png")).unwrap();
    let cell = 4 * SIDE + 4;
    assert_eq!((sheet.width, sheet.height), (3 * cell + 4, 2 * cell + 4));
    assert_eq!((&*text["prompt"], &*text["models"]), ("seven; two", "base; larger"));
    let requests: serde_json::Value = serde_json::from_str(&text["requests"]).unwrap();
    assert_eq!(
        (&requests[1]["aug"], &requests[1]["guidance"], &requests[0]["guidance"]),
        (&0.3.into(), &1.5.into(), &2.3.into())
    );
    assert_ne!(requests[0]["seed"], requests[1]["seed"]);
    lab.good(&[&cascade[..], &["--from", "a.png", "--out", "b.png"]].concat());
    assert_eq!(fs::read(lab.path("a.png")).unwrap(), fs::read(lab.path("b.png")).unwrap());
    // Every stage side by side: two columns, a row an image; the right column is what is drawn without.
    lab.good(&[&cascade[..], &["--from", "a.png", "--stages", "--out", "stages.png"]].concat());
    let stages = picture(&lab, "stages.png");
    assert_eq!((stages.width, stages.height), (2 * cell + 4, 6 * cell + 4));
    assert_eq!(stages.at(cell + 8, 8), sheet.at(8, 8));
    // Another seed, and a folder with a file an image.
    lab.good(&[&cascade[..], &["seven", "two", "--count", "3", "--seed", "5", "--out", "c.png"]].concat());
    assert_ne!(picture(&lab, "c.png"), sheet);
    let ran = lab.good(&[&cascade[..], &["seven", "--count", "2", "--out", "folder"]].concat());
    assert_eq!(ran.out.lines().count(), 2);
    // Named after the seed that was asked for, not after the one that another stage has; as the JSON has it.
    let json =
        lab.good(&[&cascade[..], &["two", "--count", "1", "--seed", "7", "--json", "--out", "folder"]].concat()).json();
    assert_eq!(
        (&json["files"], &json["models"]),
        (&json!(["folder/001-two-seed7-000.png"]), &json!(["base", "larger"]))
    );
    assert!(json["seconds"].as_f64().unwrap() > 0.0 && json["sha256"][1].as_str().unwrap().len() == 64);
    // Each file of it draws itself again.
    let second = ran.out.lines().nth(1).unwrap();
    lab.good(&[&cascade[..], &["--from", second, "--out", "again.png"]].concat());
    let (again, own) = (picture(&lab, "again.png"), picture(&lab, second));
    assert!((0..SIDE * SIDE).all(|i| again.at(4 + 4 * (i % SIDE), 4 + 4 * (i / SIDE)) == own.at(i % SIDE, i / SIDE)));
    lab.bad(1, "name it with --cascade", &["sample", "--from", "a.png", "--model", "tiny.safetensors"]);
    lab.bad(1, "let --out end in .png", &[&cascade[..], &["seven", "--stages", "--out", "elsewhere"]].concat());
    // The negative prompt counts in both stages.
    let ran = lab.good(&[&cascade[..], &["seven", "--negative", "two", "--out", "n.png"]].concat());
    assert_eq!(ran.err, "");
}

// The base is left out: real test images, shrunk, stand in its place, and the row of each ends with what it was shrunk from.
#[test]
fn a_cascade_starts_from_real_images() {
    let lab = cascade();
    let real = ["sample", "--cascade", "cascade.toml", "--from-real"];
    lab.good(&[&real[..], &["--count", "12", "--stages", "--out", "stages.png"]].concat());
    let (stages, text) = picture::read(&lab.path("stages.png")).unwrap();
    let cell = 4 * SIDE + 4;
    assert_eq!((stages.width, stages.height), (3 * cell + 4, 12 * cell + 4));
    let requests: serde_json::Value = serde_json::from_str(&text["requests"]).unwrap();
    assert_eq!(requests.as_array().unwrap().len(), 1, "one stage is left");
    assert_eq!((&requests[0]["aug"], &requests[0]["guidance"]), (&0.3.into(), &1.5.into()));
    // Captions of their classes, which take turns as the labels of the images do; with the classes the captions change.
    let captions: Vec<&str> = requests[0]["prompts"].as_array().unwrap().iter().filter_map(|p| p.as_str()).collect();
    assert_eq!((captions.len(), captions[7], captions[10]), (12, "a handwritten seven", "a handwritten 0"));
    let data = Dataset::load(DatasetName::Mnist, &lab.path("data")).unwrap().test;
    for (row, x, y) in [(0, 0, 0), (3, 2, 1), (11, 3, 3)] {
        let whole = |x: usize, y: usize| data.image(row)[y * SIDE + x];
        let shown = |column: usize, size: usize, x: usize, y: usize| {
            stages.at(4 + column * cell + x * size, 4 + row * cell + y * size)[0]
        };
        assert_eq!(shown(2, 4, 2 * x, 2 * y), whole(2 * x, 2 * y));
        let of_square = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| f64::from(whole(2 * x + i, 2 * y + j)));
        let mean = of_square.iter().sum::<f64>() / 4.0;
        assert!((f64::from(shown(0, 8, x, y)) - mean).abs() <= 0.5 + 1e-3, "row {row}");
    }
    // In the middle is what is drawn without --stages, in a square; each with noise of its own, the same whatever the count is.
    lab.good(&[&real[..], &["--count", "4", "--out", "square.png"]].concat());
    let square = picture(&lab, "square.png");
    assert_eq!((square.width, square.height), (2 * cell + 4, 2 * cell + 4));
    assert!((4..cell).all(|i| square.at(cell + i, cell + 9) == stages.at(cell + i, 3 * cell + 9)));
    let ran = lab.good(&[&real[..], &["--count", "2", "--out", "folder"]].concat());
    let (second, text) = picture::read(&lab.path(ran.out.lines().nth(1).unwrap())).unwrap();
    assert!((0..SIDE).all(|i| second.at(i, 5) == square.at(4 + cell + 4 * i, 4 + 4 * 5)));
    let requests: serde_json::Value = serde_json::from_str(&text["requests"]).unwrap();
    assert_eq!((&requests[0]["first"], &requests[0]["prompts"][0]), (&1.into(), &"a handwritten one".into()));
    let other = ["--count", "4", "--seed", "2", "--out", "other.png"];
    lab.good(&[&real[..], &other].concat());
    assert_ne!(picture(&lab, "other.png"), square);

    let again = ["sample", "--cascade", "cascade.toml", "--from", "square.png"];
    lab.bad(1, "square.png began with real images; draw such a one anew with --from-real", &again);
    lab.bad(2, "cannot be used with", &[&real[..], &["seven"]].concat());
    lab.bad(2, "--cascade", &["sample", "--from-real"]);
    fs::write(lab.path("base.toml"), "[[stage]]\nmodel = \"base\"\n").unwrap();
    lab.bad(1, "base.toml: it does not make images larger", &["sample", "--from-real", "--cascade", "base.toml"]);
}

#[test]
fn an_image_is_made_larger_with_and_without_words() {
    let lab = cascade();
    let half = SIDE / 2;
    let shades =
        Picture { pixels: (0..half * half).map(|i| (i * 16) as u8).collect(), ..Picture::blank(half, half, 1, 0) };
    picture::write(&lab.path("small.png"), &shades, &picture::Text::new()).unwrap();
    picture::write(&lab.path("big.png"), &shades.enlarged(7), &picture::Text::new()).unwrap();
    let larger = |image: &str, out: &str, more: &[&str]| {
        lab.good(&[&["upscale", image, "--out", out][..], more].concat());
        picture(&lab, out)
    };
    let by_model = larger("small.png", "a.png", &["--model", "larger", "--prompt", "seven", "--seed", "2"]);
    assert_eq!((by_model.width, by_model.height), (SIDE, SIDE));
    // A picture that is too large is made small first, and a cascade leaves its base out.
    assert_eq!(larger("big.png", "b.png", &["--model", "larger", "--prompt", "seven", "--seed", "2"]), by_model);
    let settings = ["--prompt", "seven", "--seed", "2", "--aug", "0.1", "--guidance", "2.3"];
    assert_eq!(larger("small.png", "c.png", &[&["--cascade", "cascade.toml"][..], &settings].concat()), by_model);
    let noisy = larger("small.png", "d.png", &[&["--cascade", "cascade.toml"][..], &settings[..4]].concat());
    assert_ne!(noisy, by_model, "the file says aug = 0.3");
    assert_ne!(larger("small.png", "e.png", &["--model", "larger", "--seed", "2"]), by_model, "no words");
    // As the images of a cascade are drawn, so is this one: by any sampler, away from words.
    let seed = ["--model", "larger", "--prompt", "seven", "--seed", "2"];
    for (i, other) in [["--sampler", "ancestral"], ["--steps", "3"], ["--negative", "two"]].iter().enumerate() {
        let out = format!("other{i}.png");
        assert_ne!(larger("small.png", &out, &[&seed[..], &other[..]].concat()), by_model, "{other:?}");
    }
    let wordless = ["upscale", "small.png", "--model", "larger", "--out", "x.png", "--negative", "two"];
    lab.bad(1, "--negative needs a --prompt", &wordless);
    let guided = ["upscale", "small.png", "--model", "larger", "--out", "x.png", "--guidance", "3"];
    lab.bad(1, "--guidance needs a --prompt", &guided);
    let vain = ["--prompt", "seven", "--negative", "two", "--guidance", "1", "--out", "vain.png"];
    let ran = lab.good(&[&["upscale", "small.png", "--model", "larger"][..], &vain].concat());
    assert!(ran.err.contains("the negative prompt has no effect: the guidance is 1"), "{}", ran.err);
    // The picture remembers what it was made from, which its settings alone do not draw again.
    assert_eq!(picture::read(&lab.path("vain.png")).unwrap().1["image"], "small.png");
    fs::write(lab.path("one.toml"), "[[stage]]\nmodel = \"larger\"\n").unwrap();
    let again = ["sample", "--cascade", "one.toml", "--from", "vain.png"];
    lab.bad(1, "vain.png was made from small.png; draw such a one anew with `imagen upscale`", &again);
    let infinite =
        ["upscale", "small.png", "--model", "larger", "--out", "x.png", "--prompt", "a", "--guidance", "inf"];
    lab.bad(1, "--guidance must be a number, not inf", &infinite);
    // In front what it was made from.
    let stages = larger("small.png", "f.png", &["--model", "larger", "--stages", "--count", "2"]);
    assert_eq!(stages.width, 2 * (4 * SIDE + 4) + 4);
    assert_eq!(stages.at(4 + 4 * SIDE - 1, 4), shades.at(half - 1, 0));
}

#[test]
fn a_check_up_of_a_model_that_makes_images_larger_looks_for_a_drift() {
    let lab = cascade();
    let settings = ["--set", "super_resolution.factor=2", "--set", "unet.low_res=true"];
    let ran =
        lab.run(&[&["doctor", "tiny.toml", "--model", "larger", "--steps", "2", "--json"][..], &settings].concat());
    let drift = ran.json().as_array().unwrap().iter().find(|f| f["name"] == "drift of the channels").unwrap().clone();
    assert!(drift["passed"].is_boolean() && drift["seen"].as_str().unwrap().contains(" for "), "{drift}");
}

#[test]
fn what_is_no_cascade_says_why() {
    let lab = cascade();
    let write = |text: &str| fs::write(lab.path("wrong.toml"), text).unwrap();
    let bad = |message: &str| lab.bad(1, message, &["sample", "seven", "--cascade", "wrong.toml"]);
    write("[[stage]]\nmodel = \"base\"\n[[stage]]\nmodel = \"base\"\n");
    bad("wrong.toml: cascade: stage 2 does not make images larger");
    write("[[stage]]\nmodel = \"nowhere\"\n");
    bad("wrong.toml: there is no model \"nowhere\"");
    write("[[stage]]\nmodell = \"base\"\n");
    bad("unknown field `modell`");
    write("[[stage]]\nmodel = \"base\"\naug = 0.1\n");
    bad("aug has no meaning for base");
    write("[[stage]]\nmodel = \"base\"\n[[stage]]\nmodel = \"larger\"\naug = 2.0\n");
    bad("aug must be between 0 and 1");
    write("stage = []\n");
    bad("wrong.toml: cascade: there is no stage");
    write("[[stage]]\nmodel = \"larger\"\n");
    bad("this model makes images larger, and was given none");
    let up = ["upscale", "tiny.toml", "--out", "x.png", "--model"];
    lab.bad(1, "tiny.safetensors: it does not make images larger", &[&up[..], &["tiny.safetensors"]].concat());
    lab.bad(1, "tiny.toml", &[&up[..], &["larger"]].concat());
    lab.bad(1, "pictures are PNG files", &["upscale", "a.png", "--out", "x.jpg", "--model", "larger"]);
    let settings = ["--set", "super_resolution.factor=2", "--set", "unet.low_res=true"];
    let train = ["train", "tiny.toml", "--out", "y"];
    lab.bad(
        1,
        "aug must be between 0 and 1",
        &[&train[..], &settings, &["--set", "super_resolution.aug=2.0"]].concat(),
    );
    lab.bad(
        1,
        "there is a [super_resolution], but the network is not shown smaller images",
        &["train", "tiny.toml", "--out", "y", "--set", "super_resolution.factor=2"],
    );
    lab.bad(1, "8x8 cannot be shrunk to 3x3", &["train", "tiny.toml", "--out", "y", "--set", "data.resolution=3"]);
}

#[test]
fn an_image_is_changed_as_a_whole_or_where_the_mask_is_white() {
    let lab = lab();
    lab.good(&["sample", "seven", "--model", "tiny.safetensors", "--count", "1", "--out", "drawn"]);
    let image = format!(
        "drawn/{}",
        fs::read_dir(lab.path("drawn")).unwrap().next().unwrap().unwrap().file_name().to_string_lossy()
    );
    let mask = Picture {
        pixels: (0..SIDE * SIDE).map(|i| if i % SIDE < SIDE / 2 { 255 } else { 0 }).collect(),
        ..Picture::blank(SIDE, SIDE, 1, 0)
    };
    picture::write(&lab.path("mask.png"), &mask, &picture::Text::new()).unwrap();
    let edit = |out: &str, more: &[&str]| {
        lab.good(&[&["edit", &image, "two", "--model", "tiny.safetensors", "--out", out][..], more].concat());
        picture(&lab, out)
    };
    let cell = 4 * SIDE + 4;
    let whole = edit("whole.png", &["--count", "2"]);
    assert_eq!((whole.width, whole.height), (3 * cell + 4, cell + 4));
    let part = edit("part.png", &["--count", "2", "--mask", "mask.png", "--rounds", "2"]);
    assert_eq!(part.width, 4 * cell + 4);
    // The right half of the results is that of the image; in the second cell the left half is orange.
    for y in 4..cell {
        for x in 4 + 4 * SIDE / 2..cell {
            assert_eq!(part.at(2 * cell + x, y), part.at(x, y));
        }
    }
    assert_eq!(part.at(cell + 8, 8), [213, 94, 0]);
    assert_ne!(edit("other.png", &["--count", "2", "--mask", "mask.png", "--rounds", "2", "--seed", "3"]), part);
    let bad = |message: &str, more: &[&str]| {
        lab.bad(
            1,
            message,
            &[&["edit", &image, "two", "--model", "tiny.safetensors", "--out", "x.png"][..], more].concat(),
        );
    };
    for (i, other) in [["--sampler", "ancestral"], ["--steps", "3"], ["--negative", "one"]].iter().enumerate() {
        let out = format!("other{i}.png");
        assert_ne!(edit(&out, &[&["--count", "2"], &other[..]].concat()), whole, "{other:?}");
    }
    let none = ["--count", "2", "--threshold", "none", "--json"];
    let ran =
        lab.good(&[&["edit", &image, "two", "--model", "tiny.safetensors", "--out", "none.png"], &none[..]].concat());
    assert_eq!(ran.json()["request"]["sampling"]["threshold"]["kind"], "none");
    // A part is drawn by ancestral steps, whatever the model's samples are; that is what the picture remembers.
    let ddim = ["--mask", "mask.png", "--sampler", "ddim"];
    bad("with --mask the --sampler must be an ancestral one", &ddim);
    let text = picture::read(&lab.path("part.png")).unwrap().1;
    assert_eq!((&*text["image"], &*text["edit"]), (&*image, r#"{"mask":"mask.png","rounds":2}"#));
    let request: serde_json::Value = serde_json::from_str(&text["request"]).unwrap();
    assert_eq!(request["sampling"]["sampler"]["kind"], "ancestral");
    let text = picture::read(&lab.path("whole.png")).unwrap().1;
    assert_eq!(text["edit"], r#"{"strength":0.6}"#);
    let again = ["sample", "--from", "whole.png", "--model", "tiny.safetensors"];
    lab.bad(1, "; draw such a one anew with `imagen edit`", &again);
    let strength = ["edit", &image, "two", "--model", "tiny.safetensors", "--out", "x.png", "--strength", "0"];
    lab.bad(2, "it must be a number above 0, at most 1", &strength);
    edit("faint.png", &["--strength", "0.0000001"]);
    let black = Picture::blank(SIDE, SIDE, 1, 0);
    picture::write(&lab.path("black.png"), &black, &picture::Text::new()).unwrap();
    bad("black.png has nothing white in it", &["--mask", "black.png"]);
    lab.bad(1, "x.gif", &["edit", &image, "two", "--model", "tiny.safetensors", "--out", "x.gif"]);
}

// F2, E2, E3  Every setting of a sweep is drawn and judged: the figures of one setting are those that the same setting has alone.
#[test]
fn a_sweep_measures_every_setting_of_one_stage_or_of_all() {
    let lab = cascade();
    lab.good(&["train", "judge.toml", "--out", "judge", "--quiet"]);
    let sweep = |more: &[&str]| {
        let base = ["sweep", "--classifier", "judge", "--data", "data", "--samples", "10", "--json"];
        lab.good(&[&base[..], more].concat()).json()
    };
    let both = ["--cascade", "cascade.toml"];
    let many = sweep(
        &[&both[..], &["--guidance", "1,-2", "--threshold", "none,dynamic", "--aug", "0,1", "--out", "w"]].concat(),
    );
    let points = many["points"].as_array().unwrap();
    assert_eq!(points.len(), 8);
    let alone = sweep(&[&both[..], &["--guidance", "-2", "--threshold", "dynamic", "--aug", "1"]].concat());
    assert_eq!(points[7], alone["points"][0]);
    assert_ne!(points[7]["frechet"], points[5]["frechet"], "aug is told to the upper stage");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(lab.path("w/sweep.json")).unwrap()).unwrap();
    assert_eq!(kept, many);
    assert!(fs::read_to_string(lab.path("w/sweep.svg")).unwrap().contains("dynamic, aug 1"));
    let again = ["sweep", "--cascade", "cascade.toml", "--classifier", "judge", "--data", "data", "--out", "w"];
    lab.bad(1, "sweep.json exists; choose another name, or add --force", &again);
    sweep(&[&both[..], &["--out", "w", "--force"]].concat());
    assert_ne!(fs::read(lab.path("w/sweep.json")).unwrap(), serde_json::to_vec_pretty(&many).unwrap());
    // A stage alone, and nothing varied: one point, which is the cascade as its file says.
    let plain = sweep(&both);
    assert_eq!(plain["points"].as_array().unwrap().len(), 1);
    let second = sweep(&[&both[..], &["--guidance", "1.5", "--stage", "2"]].concat());
    assert_eq!(second["points"][0]["frechet"], plain["points"][0]["frechet"], "1.5 is what the file says of stage 2");
    let first = sweep(&[&both[..], &["--guidance", "1.5", "--stage", "1"]].concat());
    assert_ne!(first["points"][0]["frechet"], plain["points"][0]["frechet"]);
    // From real images the base has no say, and a single model can be swept too.
    let real = sweep(&[&both[..], &["--from-real"]].concat());
    assert_ne!(real["points"][0]["frechet"], plain["points"][0]["frechet"]);
    assert_eq!(real["from_real"], true);
    // A stage keeps its number when the base is left out.
    let second = sweep(&[&both[..], &["--from-real", "--stage", "2", "--aug", "0.3"]].concat());
    assert_eq!((&second["stage"], &second["points"][0]["frechet"]), (&1.into(), &real["points"][0]["frechet"]));
    lab.good(&["train", "tiny.toml", "--out", "whole", "--quiet"]);
    assert_eq!(sweep(&["whole", "--guidance", "0,1,2"])["points"].as_array().unwrap().len(), 3);

    wordless(&lab);
    for (message, args) in [
        ("between 0 and 1, not 2", &["sweep", "--cascade", "cascade.toml", "--aug", "2"][..]),
        ("must be numbers, not NaN", &["sweep", "whole", "--guidance", "1,NaN"]),
        ("there is no stage 3", &["sweep", "--cascade", "cascade.toml", "--stage", "3"]),
        ("stage 1 is left out", &["sweep", "--cascade", "cascade.toml", "--from-real", "--stage", "1"]),
        ("--aug has no meaning here", &["sweep", "--cascade", "cascade.toml", "--stage", "1", "--aug", "0,1"]),
        ("--guidance has no meaning here", &["sweep", "wordless", "--guidance", "1,2"]),
        ("give a --cascade with --from-real", &["sweep", "larger"]),
        ("draws images of", &["sweep", "base", "--classifier", "judge", "--data", "data"]),
    ] {
        lab.bad(1, message, args);
    }
}
