//! Every part of Imagen can be taken out, by its config, and what is left trains and draws.

use super::tiny::Lab;
use imagen::nn::Weights;
use imagen::picture;
use std::fs;

/// A config with every part in it: text by cross-attention and pooled, guidance, dynamic thresholding, scale and shift, attention,
/// scaled skips, the blocks of the Efficient U-Net, weighting, a discrete chain with a learned variance, clipping, averaged weights.
/// Half of all captions are left out: of a tenth, so few images as these would have none.
fn everything(lab: &Lab) {
    let config = fs::read_to_string(lab.path("tiny.toml")).unwrap();
    let parts = "scale_shift = true\ntext_pooling = \"attention\"\nblocks = [1, 2]\nresampling_order = \"before\"\nresampling = \"residual\"\nskip_scale = \"skip\"\n\
        skip_per = \"level\"\nattention_per = \"level\"\nembedding_per = \"level\"\nmiddle = false\nlearned_variance = true";
    let config = config
        .replace("blocks = 1", parts)
        .replace("target = \"v\"", "target = \"v\"\nvariance = \"learned\"\ntime = \"discrete\"\nweighting = { kind = \"min_snr\", gamma = 5.0 }\ndrop_text = 0.5")
        .replace("{ steps = 2 }", "{ steps = 2, sampler = { kind = \"ancestral_learned\" }, threshold = { kind = \"dynamic\", percentile = 99.5 } }");
    fs::write(lab.path("all.toml"), config).unwrap();
}

// F3, F4, E2, E3, B3, C5  The whole, and the whole without each part: it trains, the loss is a number, and it draws.
#[test]
fn without_any_one_part_it_still_trains_and_draws() {
    let lab = Lab::new();
    everything(&lab);
    let run = |name: &str, config: &str, settings: &[&str]| {
        let short = ["train.steps=2", "train.checkpoint_every=2"];
        let settings = settings.iter().chain(&short).flat_map(|setting| ["--set", setting]);
        let args = ["train", config, "--out", name, "--quiet"].into_iter().chain(settings);
        lab.good(&args.collect::<Vec<_>>());
        let picture = format!("{name}.png");
        lab.good(&["sample", "seven", "two", "--count", "1", "--model", name, "--out", &picture]);
        let weights = Weights::read(&lab.path(name).join("model.safetensors")).unwrap();
        let numbers: Vec<(String, Vec<f64>)> =
            weights.tensors.into_iter().map(|(n, array)| (n, array.to_f64())).collect();
        (picture::read(&lab.path(&picture)).unwrap().0, numbers)
    };
    let whole = run("whole", "all.toml", &[]);
    let fixed = [
        "unet.learned_variance=false",
        "diffusion.variance=\"fixed\"",
        "sampling.method.sampler={kind=\"ddim\",eta=0.0}",
    ];
    let without: [(&str, &[&str]); 20] = [
        ("guidance", &["sampling.guidance=1.0"]),
        ("thresholding", &["sampling.method.threshold={kind=\"none\"}"]),
        ("null-text", &["diffusion.drop_text=0.0"]),
        ("attention", &["unet.attention=[false,false]"]),
        ("scale-shift", &["unet.scale_shift=false"]),
        ("groups", &["unet.norm=\"layer\""]),
        ("mean-of-the-norm", &["unet.norm=\"rms\""]),
        ("pooling-by-attention", &["unet.text_pooling=\"mean\""]),
        ("blocks-by-level", &["unet.blocks=1"]),
        ("order", &["unet.resampling_order=\"after\""]),
        ("residual-resampling", &["unet.resampling=\"conv\""]),
        ("skip-scale", &["unet.skip_scale=\"none\""]),
        ("skip-per-level", &["unet.skip_per=\"block\""]),
        ("attention-per-level", &["unet.attention_per=\"block\""]),
        ("embedding-per-level", &["unet.embedding_per=\"block\""]),
        ("no-middle", &["unet.middle=true"]),
        ("weighting", &["diffusion.weighting={kind=\"simple\"}"]),
        ("learned-variance", &fixed),
        ("clipping", &["train.clip=1e9"]),
        ("average", &["train.ema=0.0"]),
    ];
    for (name, settings) in without {
        let drawn = run(name, "all.toml", settings);
        // The pixels, not the files, whose texts name the model. What is learned differs as well, unless only drawing does.
        assert!(drawn.0 != whole.0, "{name} is drawn as if the part were in it");
        let learned = settings.iter().any(|setting| !setting.starts_with("sampling."));
        assert!(
            (drawn.1 != whole.1) == learned,
            "{name} is trained as if the part were in it, or without need otherwise"
        );
    }
    // Without text there are two tables less, and nothing to be guided by.
    let config = fs::read_to_string(lab.path("all.toml")).unwrap();
    let text = "[text]\nencoder = \"hashed-words\"\ndim = 8\n";
    let bare = config
        .replace(text, "")
        .replace("[unet.text]\ndim = 8\n", "")
        .replace("text_pooling = \"attention\"\n", "")
        .replace("drop_text = 0.5\n", "");
    assert_eq!(config.len() - bare.len(), text.len() + 20 + 27 + 16);
    fs::write(lab.path("bare.toml"), bare).unwrap();
    run("bare", "bare.toml", &[]);
    // A stage that makes images larger, without the noise on what it is shown, and on squares of the images.
    let larger = ["unet.low_res=true", "super_resolution.factor=2"];
    for more in ["super_resolution.train_aug=0.0", "super_resolution.crop=4", "super_resolution.aug=0.0"] {
        let out = more.replace(['.', '='], "-");
        let settings = larger.iter().chain([&more, &"train.steps=2"]).flat_map(|setting| ["--set", setting]);
        lab.good(&["train", "all.toml", "--out", &out, "--quiet"].into_iter().chain(settings).collect::<Vec<_>>());
        lab.good(&["upscale", "whole.png", "--model", &out, "--prompt", "seven", "--out", &format!("{out}.png")]);
    }
}
