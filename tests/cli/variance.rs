//! Models that learn their variance, and models in discrete and in continuous time: trained, resumed, sampled, measured.

use super::tiny::Lab;
use super::{lab, tiny::TINY};
use imagen::nn::Weights;
use imagen::picture;
use std::fs;

/// What is set for a learned variance.
const LEARNED: [&str; 6] =
    ["--set", "unet.learned_variance=true", "--set", "diffusion.variance=learned", "--set", "diffusion.time=discrete"];

fn learned(lab: &Lab, more: &[&str]) -> String {
    lab.good(&[&["train", "tiny.toml", "--quiet"][..], &LEARNED, more].concat()).err
}

#[test]
fn a_learned_variance_is_trained_resumed_sampled_and_measured() {
    let lab = lab();
    learned(&lab, &["--out", "whole"]);
    learned(&lab, &["--out", "parts", "--set", "train.steps=2"]);
    learned(&lab, &["--out", "parts", "--resume"]);
    let [whole, parts] = ["whole", "parts"].map(|run| fs::read(lab.path(run).join("model.safetensors")).unwrap());
    assert!(whole == parts);

    let draw = |name: &str, args: &[&str]| {
        let out = format!("{name}.png");
        lab.good(&[&["sample", "seven", "--count", "2", "--model", "whole", "--out", &out][..], args].concat());
        picture::read(&lab.path(&out)).unwrap()
    };
    let own = draw("own", &["--sampler", "ancestral-learned", "--steps", "4"]);
    let request: serde_json::Value = serde_json::from_str(&own.1["request"]).unwrap();
    assert_eq!(request["sampling"]["sampler"]["kind"], "ancestral_learned");
    assert!(own.0 != draw("fixed", &["--sampler", "ancestral", "--steps", "4"]).0);
    for other in ["ddim", "dpm-solver"] {
        draw(other, &["--sampler", other, "--threshold", "dynamic"]);
    }
    lab.good(&["sample", "--from", "own.png", "--model", "whole", "--out", "again.png"]);
    assert_eq!(fs::read(lab.path("own.png")).unwrap(), fs::read(lab.path("again.png")).unwrap());

    let eval = ["eval", "whole", "--data", "data", "--json", "--bits-per-dim", "2", "--variance"];
    let bits = |variance: &str| {
        let json = lab.good(&[&eval[..], &[variance]].concat()).json();
        assert_eq!(json["variance"], variance);
        json["bits_per_dim"].as_f64().unwrap()
    };
    let [small, large, between] = ["small", "large", "learned"].map(bits);
    // After six steps v is still about a half everywhere.
    assert!(between.is_finite() && between != small && between != large, "{small} {between} {large}");
}

#[test]
fn every_target_and_every_stage_can_learn_its_variance() {
    let lab = lab();
    for target in ["eps", "x0", "v"] {
        let set = format!("diffusion.target={target}");
        learned(&lab, &["--out", target, "--set", &set, "--set", "diffusion.vlb_weight=0.01"]);
        let out = format!("{target}.png");
        let sampler = ["--sampler", "ancestral-learned", "--threshold", "dynamic"];
        lab.good(&[&["sample", "seven", "--count", "1", "--model", target, "--out", &out][..], &sampler].concat());
    }
    // A stage that makes images larger, which samples with it by default.
    let larger = ["--set", "super_resolution.factor=2", "--set", "unet.low_res=true"];
    let sampling = ["--set", "sampling.method.sampler={ kind = \"ancestral_learned\" }"];
    learned(&lab, &[&["--out", "larger"][..], &larger, &sampling].concat());
    // The check-up finds a network that learns an image by heart, and no layer without a gradient.
    lab.good(&[&["doctor", "tiny.toml", "--quiet"][..], &LEARNED].concat());
    // Led by a classifier of noised images.
    lab.good(&["train", "judge.toml", "--out", "noisy", "--set", "classifier.noise=\"cosine\"", "--quiet"]);
    let led = ["--classifier", "noisy", "--class", "three", "--sampler", "ancestral-learned", "--out", "led.png"];
    lab.good(&[&["sample", "seven", "--count", "1", "--model", "v"][..], &led].concat());
}

#[test]
fn time_is_chosen_in_the_config() {
    let lab = lab();
    for time in ["interpolated", "discrete", "continuous"] {
        let set = format!("diffusion.time={time}");
        for schedule in ["linear", "cosine"] {
            let (run, kind) = (format!("{time}-{schedule}"), format!("diffusion.schedule={schedule}"));
            lab.good(&["train", "tiny.toml", "--quiet", "--out", &run, "--set", &set, "--set", &kind]);
            for sampler in ["ancestral", "ddim", "dpm-solver"] {
                let out = format!("{run}-{sampler}.png");
                let args = ["sample", "seven", "--count", "1", "--model", &run, "--out", &out, "--sampler", sampler];
                lab.good(&[&args[..], &["--steps", "3"]].concat());
            }
        }
        let run = format!("{time}-cosine");
        let json = lab.good(&["eval", &run, "--data", "data", "--bits-per-dim", "2", "--json"]).json();
        assert!(json["bits_per_dim"].as_f64().unwrap().is_finite());
    }
    // What is not said is interpolated, to the bit.
    let weights = |run: &str| Weights::read(&lab.path(run).join("model.safetensors")).unwrap().to_bytes(false);
    let numbers = |run: &str| {
        let weights = Weights::read(&lab.path(run).join("model.safetensors")).unwrap();
        Weights { metadata: Default::default(), ..weights }.to_bytes(false)
    };
    lab.good(&["train", "tiny.toml", "--quiet", "--out", "unsaid"]);
    assert!(numbers("unsaid") == numbers("interpolated-cosine"));
    assert!(numbers("unsaid") != numbers("discrete-cosine") && numbers("unsaid") != numbers("continuous-cosine"));
    // What is off may be said, too, and changes nothing.
    let off = ["--set", "unet.learned_variance=false", "--set", "unet.low_res=false"];
    lab.good(&[&["train", "tiny.toml", "--quiet", "--out", "off"][..], &off].concat());
    assert!(weights("off") == weights("unsaid"));
    lab.bad(
        1,
        "1001 steps are more than the 1000 of the model's chain",
        &["sample", "seven", "--model", "discrete-cosine", "--steps", "1001", "--out", "no.png"],
    );
    lab.good(&["train", "judge.toml", "--out", "noisy", "--set", "classifier.noise=\"cosine\"", "--quiet"]);
    let led = ["--classifier", "noisy", "--class", "three", "--count", "1", "--out", "led.png"];
    lab.good(&[&["sample", "seven", "--model", "discrete-cosine"][..], &led].concat());
    let message = "cannot lead a model with diffusion.time = \"continuous\"";
    lab.bad(1, message, &[&["sample", "seven", "--model", "continuous-cosine", "--force"][..], &led].concat());
}

#[test]
fn what_cannot_be_meant_is_said_in_a_line() {
    let lab = lab();
    let train = |message: &str, set: &[&str]| {
        let set: Vec<&str> = set.iter().flat_map(|&set| ["--set", set]).collect();
        lab.bad(1, message, &[&["train", "tiny.toml", "--out", "no"][..], &set].concat());
    };
    let (network, variance, time) =
        ("unet.learned_variance=true", "diffusion.variance=learned", "diffusion.time=discrete");
    train("add diffusion.variance = \"learned\"", &[network]);
    train("add unet.learned_variance = true", &[variance, time]);
    train("add diffusion.time = \"discrete\"", &[network, variance]);
    train("add diffusion.time = \"discrete\"", &[network, variance, "diffusion.time=continuous"]);
    train("diffusion.vlb_weight has no meaning beside a fixed variance", &["diffusion.vlb_weight=0.001"]);
    train("diffusion.vlb_weight must be at least 0, not -1", &[network, variance, time, "diffusion.vlb_weight=-1"]);
    train("has not learned its variance", &["sampling.method.sampler={ kind = \"ancestral_learned\" }"]);
    train("1001 steps are more than the 1000", &[time, "sampling.method.steps=1001"]);
    train("unknown variant `discreet`", &["diffusion.time=discreet"]);
    let sample =
        ["sample", "seven", "--model", "tiny.safetensors", "--out", "no.png", "--sampler", "ancestral-learned"];
    lab.bad(1, "this model has not learned its variance", &sample);
    let eval = ["eval", "tiny.safetensors", "--data", "data", "--bits-per-dim", "2", "--variance", "learned"];
    lab.bad(1, "this model has not learned its variance: take --variance small or large", &eval);
    // A key that is no key, as a file has it: the line is named.
    let text = TINY.replace("target = \"v\"", "target = \"v\"\nvariances = \"learned\"");
    lab.file("wrong.toml", text);
    lab.bad(1, "variances", &["train", "wrong.toml", "--out", "no"]);
}
