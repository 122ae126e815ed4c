//! Training: a run is a pure function of its config, whatever happens to the process that trains.

mod tiny;

use imagen::array::{Array, DType, Device};
use imagen::autograd::Tensor;
use imagen::data::Dataset;
use imagen::nn::{Fill, Init, Param, Parameters, Weights};
use imagen::train::{
    DiffusionTask, Metrics, Outcome, Progress, RunConfig, RunFolder, Task, TrainError, Trainer, TrainingData,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tiny::{Lab, Ran, snapshot, write_data};

/// The folders of checkpoints of a run, oldest first.
fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// What training computed, and nothing of how long it took: the finished model, the newest checkpoint, the metrics.
fn outcome(run: &Path) -> (Vec<Vec<u8>>, Vec<String>) {
    let newest = checkpoints(run).pop().unwrap();
    let parts = ["model", "ema", "optimizer"].map(|part| newest.join(format!("{part}.safetensors")));
    let weights = std::iter::once(run.join("model.safetensors")).chain(parts).map(|path| fs::read(path).unwrap());
    let metrics = Metrics::read(&run.join("metrics.jsonl")).unwrap();
    // {:?} shows every digit: equal texts are equal numbers.
    let numbers = metrics.iter().map(|r| format!("{} {:?} {:?} {:?} {:?}", r.step, r.loss, r.grad_norm, r.lr, r.score));
    (weights.collect(), numbers.collect())
}

/// Temporary files and folders in a run.
fn leftovers(run: &Path) -> Vec<PathBuf> {
    snapshot(run).into_keys().filter(|path| path.extension().is_some_and(|e| e == "tmp")).collect()
}

#[track_caller]
fn assert_same_outcome(a: &Path, b: &Path) {
    let ((weights, metrics), (other_weights, other_metrics)) = (outcome(a), outcome(b));
    assert_eq!(metrics, other_metrics);
    assert!(weights == other_weights, "{} and {} differ in their weights", a.display(), b.display());
}

/// One session of a run in the library, stopped after `stop_at` steps if that comes before the end.
fn session(lab: &Lab, folder: &str, overrides: &[&str], stop_at: u64) -> Result<Outcome, TrainError> {
    let data = format!("data.folder={}", lab.path("data").display());
    let overrides: Vec<String> = std::iter::once(&*data).chain(overrides.iter().copied()).map(String::from).collect();
    let config = RunConfig::read(&lab.path("tiny.toml"), &overrides).unwrap();
    let RunConfig::Diffusion(run) = config.clone() else { panic!("tiny.toml is a diffusion model") };
    let task = DiffusionTask::new(run.clone(), Dataset::load(run.data.name, &lab.path("data")).unwrap()).unwrap();
    let mut trainer = Trainer::new(&task, &config, RunFolder::new(lab.path(folder)), true)?;
    let stop = AtomicBool::new(trainer.step() >= stop_at);
    trainer.run(&stop, &mut |progress| {
        if let Progress::Step(step, ..) = progress {
            stop.store(step >= stop_at, Ordering::Relaxed);
        }
    })
}

#[test]
fn a_run_interrupted_at_any_step_ends_as_if_it_had_not_been() {
    let lab = Lab::new();
    // Intervals that do not divide each other: a stop falls between records, checkpoints and previews.
    let set = ["train.steps=29", "train.log_every=7", "train.checkpoint_every=5", "train.sample_every=6"];
    assert_eq!(session(&lab, "whole", &set, u64::MAX).unwrap(), Outcome::Finished);
    for (name, stops) in [("a", &[1, 2, 13, 18, 28][..]), ("b", &[6, 7, 12, 14, 24]), ("c", &[5, 10, 15, 27])] {
        for &stop in stops {
            assert_eq!(session(&lab, name, &set, stop).unwrap(), Outcome::Interrupted(stop));
        }
        assert_eq!(session(&lab, name, &set, u64::MAX).unwrap(), Outcome::Finished);
        assert_same_outcome(&lab.path("whole"), &lab.path(name));
        for step in [6, 12, 18, 24, 29] {
            let sample = |run: &str| fs::read(lab.path(run).join(format!("samples/step-{step:06}.png"))).unwrap();
            assert!(sample("whole") == sample(name), "the samples at step {step} differ");
        }
    }
    // A finished run that is resumed has nothing to do.
    assert_eq!(session(&lab, "a", &set, u64::MAX).unwrap(), Outcome::Finished);
    assert_same_outcome(&lab.path("whole"), &lab.path("a"));
}

fn start(lab: &Lab, args: &[&str]) -> Child {
    lab.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_run_killed_at_twenty_moments_ends_as_if_it_had_not_been() {
    let lab = Lab::new();
    let train = |out: &'static str| {
        let set = ["--set", "train.steps=120", "--set", "train.checkpoint_every=1", "--set", "train.sample_every=50"];
        [&["train", "tiny.toml", "--threads", "1", "--resume", "--out", out][..], &set].concat()
    };
    let start_time = Instant::now();
    lab.good(&train("whole"));
    let whole_time = start_time.elapsed().as_secs_f64();

    let mut random = 1u64;
    let (mut kills, mut rounds) = (0, 0);
    while kills < 20 {
        let mut child = start(&lab, &train("killed"));
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // From its very start to an eighth of the whole: most die in the middle of the run, some before its first step.
        let delay = whole_time / 8.0 * (random >> 40) as f64 / (1u64 << 24) as f64;
        std::thread::sleep(Duration::from_secs_f64(delay));
        if child.try_wait().unwrap().is_some() {
            // It has finished: check it, and start over.
            Ran::of("a resumed run", child.wait_with_output().unwrap());
            assert_same_outcome(&lab.path("whole"), &lab.path("killed"));
            fs::remove_dir_all(lab.path("killed")).unwrap();
            rounds += 1;
            assert!(rounds < 20, "runs finish before they are killed");
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    lab.good(&train("killed"));
    assert_same_outcome(&lab.path("whole"), &lab.path("killed"));
    assert_eq!(leftovers(&lab.path("killed")), Vec::<PathBuf>::new());
}

// ANCHOR: one_two_and_three_threads_train_alike
#[test]
fn one_two_and_three_threads_train_alike() {
    let lab = Lab::new();
    // Large enough for every kernel to share its work out.
    write_data(&lab.path("large"), 28, 40, 20, 2);
    let set = "data.folder=large unet.base_channels=16 train.batch=16 train.steps=4 train.log_every=1";
    let set: Vec<&str> = set.split(' ').flat_map(|entry| ["--set", entry]).collect();
    for threads in ["1", "2", "3"] {
        lab.good(&[&["train", "tiny.toml", "--threads", threads, "--out", threads][..], &set].concat());
        assert_same_outcome(&lab.path("1"), &lab.path(threads));
    }
}
// ANCHOR_END: one_two_and_three_threads_train_alike

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint_and_resuming_ends_alike() {
    let lab = Lab::new();
    let train = |out: &'static str, extra: &[&'static str]| {
        let set = ["--set", "train.steps=300", "--set", "train.log_every=1", "--set", "train.checkpoint_every=100"];
        [&["train", "tiny.toml", "--threads", "1", "--out", out][..], &set, extra].concat()
    };
    lab.good(&train("whole", &[]));
    let child = start(&lab, &train("stopped", &[]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(lab.path("stopped/metrics.jsonl")).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "no step was made in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ran = Ran::of("a stopped run", child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.err);
    assert!(ran.err.contains("the same command with --resume continues"), "{}", ran.err);
    assert!(!checkpoints(&lab.path("stopped")).is_empty());
    assert!(!lab.path("stopped/model.safetensors").exists());
    lab.good(&train("stopped", &["--resume"]));
    assert_same_outcome(&lab.path("whole"), &lab.path("stopped"));
}

/// A weight w, and a loss that is w times a number of each step.
struct Slope {
    parameters: Parameters,
    weight: Param,
    slopes: Vec<f32>,
}

impl Slope {
    fn new(slopes: &[f32]) -> Slope {
        let init = Init::new(0, DType::F32);
        let weight = init.param("w", [1], Fill::Ones);
        Slope { parameters: init.parameters(), weight, slopes: slopes.to_vec() }
    }
}

impl Task for Slope {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn loss(&self, step: u64) -> Result<Tensor, TrainError> {
        let slope = Tensor::constant(Array::from_vec([1], vec![self.slopes[step as usize]]));
        Ok((&self.weight.tensor() * &slope).sum(&[0], false))
    }

    fn examples(&self, step: u64) -> Vec<usize> {
        (0..20).map(|i| 100 * step as usize + i).collect()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

#[test]
fn what_is_not_finite_stops_the_run_and_the_last_checkpoint_stays() {
    let lab = Lab::new();
    let descent = ["optimizer={kind=\"sgd\", momentum=0.0}", "learning_rate.rate=1e10", "train.checkpoint_every=1"];
    let config = RunConfig::read(&lab.path("tiny.toml"), &descent.map(String::from)).unwrap();
    // The fourth step: a loss of NaN; a loss whose gradient is infinite; a step that takes w out of f32.
    for (name, slope, what) in [
        ("nan", f32::NAN, "the loss is NaN"),
        ("infinite", f32::INFINITY, "the loss is -inf"),
        ("overflow", 1e30, "the weight w is -inf"),
    ] {
        let (task, folder) = (Slope::new(&[1e-10, 1e-10, 1e-10, slope]), lab.path(name));
        let mut config = config.clone();
        if let RunConfig::Diffusion(run) = &mut config {
            run.train.clip = f64::INFINITY;
        }
        let mut trainer = Trainer::new(&task, &config, RunFolder::new(&folder), false).unwrap();
        let mut checkpoint = BTreeMap::new();
        let error = trainer.run(&AtomicBool::new(false), &mut |progress| {
            if matches!(progress, Progress::Step(3, ..)) {
                checkpoint = snapshot(&folder.join("checkpoints"));
            }
        });
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with(what), "{message}");
        assert!(message.contains("at step 3, on examples 300, 301, 302, 303, 304, 305, 306, 307, …;"), "{message}");
        let newest = folder.join("checkpoints/step-00000003");
        assert_eq!(checkpoints(&folder).pop().as_ref(), Some(&newest));
        // What was there when step 3 was reported, before it was written, is there still.
        let second = folder.join("checkpoints/step-00000002");
        assert_eq!(
            checkpoint.get(&second.join("model.safetensors")),
            fs::read(second.join("model.safetensors")).ok().as_ref()
        );
    }
}

#[test]
fn a_learning_rate_that_explodes_is_an_error_that_names_step_and_examples() {
    let lab = Lab::new();
    let ran = lab.run(&["train", "tiny.toml", "--out", "run", "--quiet", "--set", "learning_rate.rate=1e30"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.starts_with("error: the ") && ran.err.lines().count() == 1, "{}", ran.err);
    assert!(ran.err.contains(" at step 1, on examples "), "{}", ran.err);
    assert!(!lab.path("run/model.safetensors").exists());
    // So it is where the network says the variance, too: of a thousand steps of the chain one or two are the first, which has a
    // probability to compute.
    let learned = [
        "unet.learned_variance=true",
        "diffusion.variance=\"learned\"",
        "diffusion.time=\"discrete\"",
        "train.batch=1000",
        "learning_rate.rate=1e6",
        "seed=2",
    ];
    let args = ["train", "tiny.toml", "--out", "learned", "--quiet"].into_iter();
    let ran = lab.run(&args.chain(learned.iter().flat_map(|set| ["--set", set])).collect::<Vec<_>>());
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{}", ran.err);
    assert!(ran.err.starts_with("error: the ") && ran.err.contains(" at step "), "{}", ran.err);
}

#[test]
fn only_the_same_run_is_resumed() {
    let lab = Lab::new();
    let train = |extra: &[&'static str]| [&["train", "tiny.toml", "--out", "run", "--quiet"][..], extra].concat();
    lab.good(&train(&[]));
    lab.bad(1, "run is not empty; add --resume", &train(&[]));
    for (set, entry) in [
        ("unet.base_channels=16", "unet.base_channels is 16 in one and 8 in the other"),
        ("learning_rate.rate=0.002", "learning_rate.rate is 0.002 in one and 0.001 in the other"),
        ("train.batch=5", "train.batch"),
        ("optimizer.kind=\"adamw\"", "optimizer."),
        ("seed=2", "seed is 2"),
    ] {
        lab.bad(1, entry, &train(&["--resume", "--set", set]));
    }
    lab.bad(1, "a run of 6 steps already", &train(&["--resume", "--set", "train.steps=5"]));
    // Other images of the same size.
    write_data(&lab.path("other"), tiny::SIDE, 40, 20, 2);
    lab.bad(1, "data_digest", &train(&["--resume", "--set", "data.folder=other"]));
    // Another place, other intervals and more steps are the same run.
    fs::rename(lab.path("data"), lab.path("moved")).unwrap();
    lab.good(&train(&[
        "--resume",
        "--set",
        "data.folder=moved",
        "--set",
        "train.steps=7",
        "--set",
        "train.log_every=1",
    ]));

    fs::create_dir(lab.path("letters")).unwrap();
    fs::write(lab.path("letters/precious.txt"), "dear").unwrap();
    for (extra, message) in [(&[][..], "letters is not empty"), (&["--resume"], "letters holds no run")] {
        let args = ["train", "tiny.toml", "--out", "letters", "--set", "data.folder=moved"];
        lab.bad(1, message, &[&args[..], extra].concat());
    }
}

// A config does not say how large its images are: that is known, and the crop judged by it, once they are there.
#[test]
fn a_crop_may_be_any_part_of_the_images_that_the_network_takes() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist-cascade");
    for (stage, crop) in [("sr16", 12), ("sr32", 16), ("sr32", 32), ("sr32-efficient", 24)] {
        let set = format!("super_resolution.crop={crop}");
        RunConfig::read(&configs.join(format!("{stage}.toml")), &[set]).unwrap();
    }
    let config = RunConfig::read(&configs.join("sr32.toml"), &["super_resolution.crop=64".into()]).unwrap();
    let error = TrainingData::load(&config).unwrap().task(&config, Device::Cpu).err().unwrap().to_string();
    assert_eq!(error, "super_resolution.crop must be at most 32, for the images have 32x32 pixels; 64 is more");

    let lab = Lab::new();
    let crop = |out: &'static str, crop: &'static str| {
        let larger = ["--set", "super_resolution.factor=2", "--set", "unet.low_res=true", "--set", crop];
        [&["train", "tiny.toml", "--quiet", "--out", out][..], &larger].concat()
    };
    for (out, side) in [("part", "super_resolution.crop=6"), ("whole", "super_resolution.crop=8")] {
        lab.good(&crop(out, side));
        assert!(lab.path(out).join("model.safetensors").exists());
    }
    for (message, side) in [
        ("crop must be at most 8, for the images have 8x8 pixels; 10 is more", "super_resolution.crop=10"),
        ("crop must be at most 8", "super_resolution.crop=9223372036854775806"),
        ("crop must be above 0 and divisible by 2 and 2; 5 is not", "super_resolution.crop=5"),
        ("crop must be above 0", "super_resolution.crop=0"),
        ("factor must be at least 2", "super_resolution.factor=4611686018427387904"),
        ("factor must divide the sides of the images, 8x8; 3 does not", "super_resolution.factor=3"),
    ] {
        lab.bad(1, message, &crop("run", side));
    }
}

// A model is sampled with what its last session says, and is the same model.
#[test]
fn how_a_model_is_sampled_may_change_when_its_run_is_resumed() {
    let lab = Lab::new();
    let train = |out: &'static str, extra: &[&'static str]| {
        let larger = ["unet.low_res=true", "super_resolution.factor=2", "super_resolution.train_aug=0.5"];
        let set = larger.iter().chain(extra).flat_map(|set| ["--set", set]);
        lab.good(
            &["train", "tiny.toml", "--out", out, "--quiet", "--resume"].into_iter().chain(set).collect::<Vec<_>>(),
        );
    };
    let new = ["sampling.guidance=1.25", "sampling.method={steps=3}", "super_resolution.aug=0.75"];
    let said = |run: &str| {
        let model = Weights::read(&lab.path(run).join("model.safetensors")).unwrap();
        let [of_model, stage] =
            ["config", "stage"].map(|key| serde_json::from_str::<serde_json::Value>(&model.metadata[key]).unwrap());
        let of_run = serde_json::to_value(RunFolder::new(lab.path(run)).read_config().unwrap()).unwrap();
        assert_eq!(of_model, of_run);
        assert!(["sampling", "super_resolution"].iter().all(|key| stage[key] == of_run[key]), "{stage} {of_run}");
        let sampling = &of_run["sampling"];
        [&sampling["guidance"], &sampling["method"]["steps"], &of_run["super_resolution"]["aug"]]
            .map(|v| v.as_f64().unwrap())
    };
    train("whole", &[]);
    assert_eq!(said("whole"), [2.3, 2.0, 0.1]);
    // A run that goes on, and one that was finished.
    train("short", &["train.steps=4"]);
    train("short", &new);
    assert_eq!(said("short"), [1.25, 3.0, 0.75]);
    let weights = |run: &str| Weights::read(&lab.path(run).join("model.safetensors")).unwrap().tensors;
    let alike = |a: &str, b: &str| weights(a).iter().zip(&weights(b)).all(|(a, b)| a.0 == b.0 && a.1.bit_eq(b.1));
    assert!(alike("short", "whole"));
    let before = weights("whole");
    train("whole", &new);
    assert_eq!(said("whole"), [1.25, 3.0, 0.75]);
    assert!(before.iter().zip(&weights("whole")).all(|(a, b)| a.0 == b.0 && a.1.bit_eq(b.1)));
    // What training draws by is another thing.
    let args = ["train", "tiny.toml", "--out", "whole", "--quiet", "--resume", "--set", "unet.low_res=true"];
    let other = ["--set", "super_resolution.factor=2", "--set", "super_resolution.train_aug=0.25"];
    lab.bad(1, "super_resolution.train_aug is 0.25 in one and 0.5 in the other", &[&args[..], &other].concat());
}

#[test]
fn a_damaged_checkpoint_is_refused_and_leftovers_are_cleaned_away() {
    let lab = Lab::new();
    let train = ["train", "tiny.toml", "--out", "run", "--quiet", "--resume"];
    lab.good(&train);
    lab.good(&["train", "tiny.toml", "--out", "wide", "--quiet", "--set", "unet.base_channels=16"]);
    let (run, newest) = (lab.path("run"), lab.path("run/checkpoints/step-00000006"));
    let whole = outcome(&run);
    for (file, damage) in [
        ("model.safetensors", &(|bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1) as &dyn Fn(&mut Vec<u8>)),
        ("ema.safetensors", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("optimizer.safetensors", &|bytes| bytes.clear()),
        ("state.json", &|bytes| bytes.truncate(20)),
    ] {
        let good = fs::read(newest.join(file)).unwrap();
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(newest.join(file), bytes).unwrap();
        lab.bad(1, file, &train);
        fs::remove_file(newest.join(file)).unwrap();
        lab.bad(1, &format!("{file} is missing; remove this folder to resume from an older one"), &train);
        fs::write(newest.join(file), good).unwrap();
    }
    // A whole checkpoint, but of another architecture.
    let (own, wide) = (lab.path("own"), lab.path("wide/checkpoints/step-00000006"));
    fs::rename(&newest, &own).unwrap();
    fs::rename(&wide, &newest).unwrap();
    lab.bad(1, "another architecture: ", &train);
    fs::rename(&newest, &wide).unwrap();
    // As the message says: without the damaged one, the run goes on from the one before.
    for leftover in ["checkpoints/.step-00000009.tmp", "checkpoints/.step-00000006.tmp"] {
        fs::create_dir(run.join(leftover)).unwrap();
        fs::write(run.join(leftover).join("model.safetensors"), "half").unwrap();
    }
    for leftover in [".imagen-1-0.tmp", "samples/.imagen-1-1.tmp", "checkpoints/.imagen-1-2.tmp"] {
        fs::write(run.join(leftover), "half").unwrap();
    }
    lab.good(&train);
    assert!(whole == outcome(&run));
    assert_eq!(leftovers(&run), Vec::<PathBuf>::new());
}

#[test]
fn a_run_killed_before_it_began_is_no_obstacle() {
    let lab = Lab::new();
    lab.good(&["train", "tiny.toml", "--out", "whole", "--quiet"]);
    // Empty; with half a config; with a config and nothing else; with the embeddings of a text encoder and nothing else.
    for (name, resume) in [("a", false), ("b", false), ("c", true), ("d", false), ("e", true)] {
        fs::create_dir(lab.path(name)).unwrap();
        match name {
            "b" => fs::write(lab.path("b/.imagen-1-0.tmp"), "task = ").unwrap(),
            "d" | "e" => fs::write(lab.path(name).join("captions.embeddings"), "those of a T5").unwrap(),
            "c" => drop(fs::copy(lab.path("whole/config.toml"), lab.path("c/config.toml")).unwrap()),
            _ => {}
        }
        let resume: &[&str] = if resume { &["--resume"] } else { &[] };
        lab.good(&[&["train", "tiny.toml", "--out", name, "--quiet"][..], resume].concat());
        assert_same_outcome(&lab.path("whole"), &lab.path(name));
    }
}

// A trainer has the folder to itself: a second one would remove the files that the first is writing.
#[test]
fn only_one_process_at_a_time_trains_in_a_folder() {
    let lab = Lab::new();
    let data = format!("data.folder={}", lab.path("data").display());
    let config = RunConfig::read(&lab.path("tiny.toml"), std::slice::from_ref(&data)).unwrap();
    let task = TrainingData::load(&config).unwrap().task(&config, Device::Cpu).unwrap();
    let trainer = || Trainer::new(&*task, &config, RunFolder::new(lab.path("run")), true);
    let train = ["train", "tiny.toml", "--set", &data, "--quiet", "--out", "run", "--resume"];
    let mut first = trainer().unwrap();
    fs::write(lab.path("run/.imagen-1-0.tmp"), "half").unwrap();
    let busy = "another process trains in run; wait until it is done, or stop it";
    lab.bad(1, busy, &train);
    lab.bad(1, busy, &train[..7]);
    assert!(trainer().err().unwrap().to_string().contains("another process trains in "));
    // Looking at the run is free; so is another folder.
    lab.bad(1, "run is not the folder of a run with a finished model", &["info", "run"]);
    lab.good(&[&train[..6], &["other"]].concat());
    first.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    lab.good(&["info", "run"]);
    lab.bad(1, busy, &train);
    drop(first);
    lab.good(&train);
    assert_same_outcome(&lab.path("run"), &lab.path("other"));
    let names = |run: &str| -> Vec<_> {
        let within = |path: PathBuf| path.strip_prefix(lab.path(run)).unwrap().to_path_buf();
        snapshot(&lab.path(run)).into_keys().map(within).collect()
    };
    assert_eq!(names("run"), names("other"));
}

// A run that does not begin leaves no folder, not even one above it.
#[test]
fn a_run_that_cannot_begin_leaves_nothing() {
    let lab = Lab::new();
    lab.file("broken.embeddings", "no embeddings");
    let text = "text={encoder=\"t5\", model=\"t5-mini\", max_tokens=64}";
    let set = ["--set", text, "--set", "unet.text.dim=128", "--set", "embeddings=\"broken.embeddings\""];
    let args = [&["train", "tiny.toml", "--out", "a/b/run"][..], &set].concat();
    lab.bad(1, "broken.embeddings is not a whole cache of embeddings", &args);
}

#[test]
fn a_classifier_trains_and_its_score_is_in_the_metrics() {
    let lab = Lab::new();
    let ran = lab.good(&["train", "judge.toml", "--json", "--quiet"]);
    assert_eq!(ran.json()["last"]["step"], 6);
    let records = Metrics::read(&lab.path("runs/judge/metrics.jsonl")).unwrap();
    assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), [4, 6]);
    // A share of 20 test images.
    assert!(records.iter().all(|r| r.score.is_some_and(|s| (0.0..=1.0).contains(&s) && (20.0 * s).fract() < 1e-9)));
    lab.good(&["train", "judge.toml", "--out", "again", "--threads", "1"]);
    assert_same_outcome(&lab.path("runs/judge"), &lab.path("again"));
}

/// A file system of its own, which only some systems allow a test to make.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_stops_the_run_and_it_goes_on_once_there_is_space() {
    let lab = Lab::new();
    lab.good(&["train", "tiny.toml", "--out", "whole", "--quiet"]);
    fs::create_dir(lab.path("disk")).unwrap();
    // The run begins on an empty disk; then ever more pages are left free, so that it fails at ever later places.
    let script = r#"
        mount -t tmpfs -o size=8m none disk 2>/dev/null || exit 77
        "$0" train tiny.toml --out disk/run --quiet --set train.steps=3 >log || exit 1
        for pages in 0 1 2 4 8 16 32 64 128; do
            dd if=/dev/zero of=disk/ballast bs=4096 2>/dev/null
            truncate -s -$((pages * 4096)) disk/ballast
            "$0" train tiny.toml --out disk/run --quiet --resume >log; code=$?
            echo "$code" $(find disk/run -name '*.tmp')
            rm disk/ballast
        done
        "$0" train tiny.toml --out disk/run --quiet --resume >log || exit 1
        cp -r disk/run full"#;
    let unshare = ["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_imagen")];
    let output = Command::new("unshare").args(unshare).current_dir(lab.path("")).output();
    let Some(output) = output.ok().filter(|o| o.status.code() != Some(77) && !o.stderr.starts_with(b"unshare:")) else {
        eprintln!("skipped: this system does not let a test mount a file system");
        return;
    };
    let ran = Ran::of("a run on a full disk", output);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let (failed, done): (Vec<&str>, Vec<&str>) = ran.out.lines().partition(|line| *line == "1");
    assert!(failed.len() >= 3 && done.iter().all(|line| *line == "0"), "{}{}", ran.out, ran.err);
    assert_eq!(ran.err.lines().count(), failed.len());
    for line in ran.err.lines() {
        assert!(line.starts_with("error: cannot ") && line.contains("the disk is full;"), "{line}");
    }
    assert_same_outcome(&lab.path("whole"), &lab.path("full"));
}
