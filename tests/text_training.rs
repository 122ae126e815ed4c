//! Training a text encoder, and training on one.

mod tiny;

use imagen::array::Device;
use imagen::cascade::{ModelError, TextToImage};
use imagen::data::{Corpus, CorpusConfig};
use imagen::text::t5::T5Encoder;
use imagen::text::{TextEncoder, TextEncoderConfig, TextError};
use imagen::train::{MemoryPlan, Outcome, Progress, RunConfig, RunFolder, TrainError, Trainer, TrainingData};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tiny::{Lab, snapshot};

/// One session of a run in the library, stopped after `stop_at` steps if that comes before the end.
fn session(lab: &Lab, config: &str, folder: &str, set: &[&str], stop_at: u64) -> Result<Outcome, TrainError> {
    let config = RunConfig::read(&lab.path(config), &set.iter().map(|s| s.to_string()).collect::<Vec<_>>()).unwrap();
    let task = TrainingData::load(&config)?.task(&config, Device::Cpu)?;
    let mut trainer = Trainer::new(&*task, &config, RunFolder::new(lab.path(folder)), true)?;
    let stop = AtomicBool::new(trainer.step() >= stop_at);
    trainer.run(&stop, &mut |progress| {
        if let Progress::Step(step, ..) = progress {
            stop.store(step >= stop_at, Ordering::Relaxed);
        }
    })
}

/// What a run says before its first step.
fn notes(lab: &Lab, config: &str, folder: &str, set: &[&str]) -> String {
    let config = RunConfig::read(&lab.path(config), &set.iter().map(|s| s.to_string()).collect::<Vec<_>>()).unwrap();
    let task = TrainingData::load(&config).unwrap().task(&config, Device::Cpu).unwrap();
    let mut trainer = Trainer::new(&*task, &config, RunFolder::new(lab.path(folder)), false).unwrap();
    let mut notes = String::new();
    let outcome = trainer.run(&AtomicBool::new(true), &mut |progress| {
        if let Progress::Note(note) = progress {
            notes += note;
        }
    });
    assert_eq!(outcome.unwrap(), Outcome::Interrupted(1));
    notes
}

/// The files of a run but for those that tell of time.
fn lasting(run: &Path) -> Vec<(String, Vec<u8>)> {
    let all = snapshot(run).into_iter().filter(|(path, _)| path.is_file());
    let named = all.map(|(path, bytes)| (path.strip_prefix(run).unwrap().display().to_string(), bytes));
    let timed = |name: &str| ["metrics.jsonl", "state.json", "loss.svg"].iter().any(|end| name.ends_with(end));
    named.filter(|(name, _)| !timed(name)).collect()
}

/// Also across the windows of steps that texts are sorted in.
#[test]
fn a_text_run_interrupted_at_any_step_ends_as_if_it_had_not_been() {
    let lab = Lab::new();
    let set = ["train.steps=40", "train.checkpoint_every=7"];
    assert_eq!(session(&lab, "words.toml", "whole", &set, u64::MAX).unwrap(), Outcome::Finished);
    for stop in [1, 15, 16, 17, 33] {
        assert_eq!(session(&lab, "words.toml", "cut", &set, stop).unwrap(), Outcome::Interrupted(stop));
    }
    assert_eq!(session(&lab, "words.toml", "cut", &set, u64::MAX).unwrap(), Outcome::Finished);
    assert_eq!(lasting(&lab.path("whole")), lasting(&lab.path("cut")));
}

/// The model of a run is a whole encoder: config and tokenizer are with the weights.
#[test]
fn a_finished_text_run_is_a_text_encoder() {
    let lab = Lab::new();
    session(&lab, "words.toml", "words", &[], u64::MAX).unwrap();
    let run = lab.path("words");
    let encoder = T5Encoder::find(run.to_str().unwrap(), 64).unwrap();
    let file = T5Encoder::find(run.join("model.safetensors").to_str().unwrap(), 64).unwrap();
    let embedding = encoder.encode("the number after six").unwrap();
    assert_eq!((embedding.d, embedding.words.last().unwrap().as_str()), (8, "</s>"));
    assert_eq!(embedding, file.encode("the number after six").unwrap());
    assert_eq!(encoder.digest(), file.digest());
}

/// Texts from a folder are read beside those of the grammar; a run goes on only with the same ones.
#[test]
fn a_folder_of_plain_text_is_read_and_remembered() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("texts/more")).unwrap();
    lab.file("texts/a.txt", "a glorp is a kind of blarg\n\none\n");
    lab.file("texts/more/b.md", "what is a blarg? nobody knows\nno text: \u{1F600}");
    lab.file("texts/picture.png", [0x89, 0x50, 0xff, 0xfe]);
    let folder = format!("corpus.folder={:?}", lab.path("texts"));
    let set = [&folder, "corpus.folder_share=0.9", "tokenizer.texts=400"];
    assert_eq!(session(&lab, "words.toml", "run", &set, 3).unwrap(), Outcome::Interrupted(3));
    lab.file("texts/more/c.txt", "a line that was not there");
    let error = session(&lab, "words.toml", "run", &set, 4).unwrap_err().to_string();
    assert!(error.contains("data_digest"), "{error}");
    fs::remove_file(lab.path("texts/more/c.txt")).unwrap();
    assert_eq!(session(&lab, "words.toml", "run", &set, u64::MAX).unwrap(), Outcome::Finished);
    let encoder = T5Encoder::find(lab.path("run").to_str().unwrap(), 64).unwrap();
    assert!(encoder.tokens("glorp blarg").unwrap().pieces.contains(&"▁blarg".to_string()));
}

#[test]
fn a_folder_without_text_is_an_error() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("empty")).unwrap();
    let none = format!("corpus.folder={:?}", lab.path("empty"));
    let error = session(&lab, "words.toml", "run", &[&none], 1).unwrap_err().to_string();
    assert!(error.contains("has no text of two words or more"), "{error}");
    let error = session(&lab, "words.toml", "run", &["corpus.folder=\"nowhere\""], 1).unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("check the path"), "{error}");
    // Text, but none that can be used: that is another mistake than an empty folder.
    lab.file("empty/japanese.txt", "吾輩は猫である。\n名前はまだ無い。\n");
    let error = session(&lab, "words.toml", "run", &[&none], 1).unwrap_err().to_string();
    assert!(
        error.contains("has no text of two words or more") && error.contains("2 lines of a single word or"),
        "{error}"
    );
}

#[test]
fn what_a_run_does_not_read_is_counted_and_told() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("texts")).unwrap();
    let [common, rare] = ["the ", "qxzjvkwpqxzj "].map(|word| word.repeat(48));
    // Of a line of 49 words, the last one is left over; every letter of rare words is a token of its own.
    lab.file("texts/a.txt", format!("two words\nalone\n\n{common}left\n{rare}\n名前はまだ無い。\n"));
    lab.file("texts/picture.png", [0x89, 0x50, 0xff, 0xfe]);
    // So little of it is read that it is no part of the vocabulary.
    let folder = format!("corpus.folder={:?}", lab.path("texts"));
    let notes = notes(&lab, "words.toml", "run", &[&folder, "corpus.folder_share=0.001"]);
    for told in ["1 files of corpus.folder are not text", "3 pieces", "1 of the 3 texts of corpus.folder", "128 tokens"]
    {
        assert!(notes.contains(told), "{told}: {notes}");
    }
}

/// One line of twenty is kept for evaluation, and which one its letters decide: where there are few, that may be all of them.
#[test]
fn a_folder_whose_every_line_would_be_kept_for_evaluation_is_learnt_from() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("texts")).unwrap();
    lab.file("texts/a.txt", "the line 20\n");
    let config = CorpusConfig { folder: Some(lab.path("texts")), folder_share: 1.0 };
    let corpus = Corpus::new(&config, 1).unwrap();
    assert_eq!((corpus.text(0), corpus.held_out(0)), ("the line 20".to_string(), "the line 20".to_string()));
}

#[test]
fn a_large_file_that_is_no_text_is_not_read_whole() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("texts")).unwrap();
    lab.file("texts/a.txt", "two words");
    // As many bytes as no machine has memory for, though the disk holds only the first few.
    let weights = lab.file("texts/weights.bin", [b'w', 0xff]);
    fs::OpenOptions::new().write(true).open(weights).unwrap().set_len(1 << 40).unwrap();
    let config = CorpusConfig { folder: Some(lab.path("texts")), folder_share: 1.0 };
    let corpus = Corpus::new(&config, 1).unwrap();
    assert_eq!((corpus.passed_over(), corpus.text(0)), (1, "two words".to_string()));
}

/// A step with the longest text may come late, or never; the memory for it is planned.
#[test]
fn a_plan_is_that_of_the_longest_text_wherever_it_is() {
    let lab = Lab::new();
    let planned = |name: &str, text: String| {
        fs::create_dir_all(lab.path(name)).unwrap();
        lab.file(&format!("{name}/a.txt"), text);
        let folder = format!("corpus.folder={:?}", lab.path(name));
        let set = ["corpus.folder_share=1.0", "tokenizer.texts=50", "train.batch=2"].map(String::from);
        let config = RunConfig::read(&lab.path("words.toml"), &[&set[..], &[folder]].concat()).unwrap();
        MemoryPlan::of(&config, &TrainingData::load(&config).unwrap()).unwrap().activation_bytes
    };
    let (short, long) = ("two words\n".repeat(5000), format!("{}\n", "qxzjvkwpqxzj ".repeat(48)));
    let (mixed, all_long) = (planned("mixed", short.clone() + &long), planned("long", long.repeat(5000)));
    let short = planned("short", short);
    assert!(mixed > 2 * short, "{short} {mixed}");
    assert!(mixed >= all_long, "{mixed} {all_long}");
}

/// `tiny.toml` with a T5 in place of hashed words.
fn on_t5(model: &Path) -> [String; 2] {
    [format!("text={{ encoder = \"t5\", model = {:?} }}", model.display().to_string()), "unet.text.dim=8".to_string()]
}

/// Captions are read once and kept in the run's folder; a run with them goes on to the bit, and not with another encoder; the
/// model knows which encoder it was trained with.
#[test]
fn a_model_is_bound_to_the_encoder_it_was_trained_with() {
    let lab = Lab::new();
    session(&lab, "words.toml", "words", &[], u64::MAX).unwrap();
    session(&lab, "words.toml", "others", &["seed=2"], u64::MAX).unwrap();
    let data = format!("data.folder={:?}", lab.path("data"));
    let t5 = on_t5(&lab.path("words"));
    let set = [t5[0].as_str(), &t5[1], &data];
    assert_eq!(session(&lab, "tiny.toml", "whole", &set, u64::MAX).unwrap(), Outcome::Finished);
    assert_eq!(session(&lab, "tiny.toml", "cut", &set, 3).unwrap(), Outcome::Interrupted(3));
    let embeddings = lab.path("cut/captions.embeddings");
    let kept = fs::read(&embeddings).unwrap();
    assert_eq!(session(&lab, "tiny.toml", "cut", &set, u64::MAX).unwrap(), Outcome::Finished);
    assert_eq!(fs::read(&embeddings).unwrap(), kept);
    assert_eq!(lasting(&lab.path("whole")), lasting(&lab.path("cut")));

    // The same name, but another encoder behind it.
    let model = TextToImage::load(&lab.path("whole/model.safetensors")).unwrap();
    let Some(TextEncoderConfig::T5 { digest: Some(digest), .. }) = model.config().text.clone() else {
        panic!("the model must know its encoder")
    };
    assert_eq!(digest, model.encoder().unwrap().digest());
    assert_eq!(session(&lab, "tiny.toml", "later", &set, 3).unwrap(), Outcome::Interrupted(3));
    fs::copy(lab.path("others/model.safetensors"), lab.path("words/model.safetensors")).unwrap();
    let error = session(&lab, "tiny.toml", "later", &set, 4).unwrap_err().to_string();
    assert!(error.contains("data_digest"), "{error}");
    let error = TextToImage::load(&lab.path("whole/model.safetensors")).err().unwrap();
    assert!(matches!(&error, ModelError::Text(TextError::Other { .. })), "{error}");
    assert!(error.to_string().contains("was trained with another text encoder"), "{error}");
}

/// The same encoder may lie elsewhere when a run goes on; and captions that are cut are told.
#[test]
fn a_run_goes_on_when_its_encoder_was_moved() {
    let lab = Lab::new();
    session(&lab, "words.toml", "words", &[], u64::MAX).unwrap();
    let data = format!("data.folder={:?}", lab.path("data"));
    let t5 = on_t5(&lab.path("words"));
    assert_eq!(session(&lab, "tiny.toml", "run", &[&t5[0], &t5[1], &data], 3).unwrap(), Outcome::Interrupted(3));
    fs::rename(lab.path("words"), lab.path("moved")).unwrap();
    let t5 = on_t5(&lab.path("moved"));
    assert_eq!(session(&lab, "tiny.toml", "run", &[&t5[0], &t5[1], &data], u64::MAX).unwrap(), Outcome::Finished);

    let short = t5[0].replace(" }", ", max_tokens = 3 }");
    let ran = lab.good(&["train", "tiny.toml", "--out", "short", "--set", &short, "--set", &t5[1]]);
    assert!(ran.err.contains("are longer than text.max_tokens; what is beyond is left out"), "{}", ran.err);
}

/// Two runs share a file of embeddings.
#[test]
fn embeddings_can_be_kept_where_the_user_says() {
    let lab = Lab::new();
    session(&lab, "words.toml", "words", &[], u64::MAX).unwrap();
    let data = format!("data.folder={:?}", lab.path("data"));
    let kept = format!("embeddings={:?}", lab.path("kept"));
    let t5 = on_t5(&lab.path("words"));
    let set = [t5[0].as_str(), &t5[1], &data, &kept];
    session(&lab, "tiny.toml", "one", &set, 1).unwrap();
    session(&lab, "tiny.toml", "two", &[&set[..], &["seed=5"]].concat(), 1).unwrap();
    assert!(lab.path("kept").is_file() && !lab.path("one/captions.embeddings").exists());
    lab.file("kept", "something else");
    let error = session(&lab, "tiny.toml", "three", &set, 1).unwrap_err().to_string();
    assert!(error.contains("is not a whole cache of embeddings"), "{error}");
    assert_eq!(fs::read(lab.path("kept")).unwrap(), b"something else");
}
