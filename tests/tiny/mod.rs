//! A laboratory of tiny things: random images in MNIST's files, configs of networks that train in a second, and the
//! program itself.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Height and width of the images.
pub const SIDE: usize = 8;

/// A folder with `data`, `tiny.toml` (a diffusion model), `judge.toml` (a classifier) and `words.toml` (a T5).
pub struct Lab {
    folder: TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        // In memory where the system has such a folder: every checkpoint waits for its disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let lab = Lab { folder: folder.unwrap() };
        write_data(&lab.path("data"), SIDE, 40, 20, 1);
        fs::write(lab.path("tiny.toml"), TINY).unwrap();
        fs::write(lab.path("judge.toml"), JUDGE).unwrap();
        fs::write(lab.path("words.toml"), WORDS).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file made of `text`, by its name.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// The program, to be run in the folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagen"));
        command.args(args).current_dir(self.folder.path());
        // The same numbers on every machine, unless a test asks for something else.
        if args.first().is_some_and(|arg| !arg.starts_with('-')) && !args.contains(&"--device") {
            command.args(["--device", "cpu"]);
        }
        command
    }

    /// Runs the program in the folder.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&args.join(" "), self.command(args).output().unwrap())
    }

    /// Runs the program, which must succeed.
    pub fn good(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{}: {}", ran.what, ran.err);
        ran
    }

    /// Runs the program, which must fail with `code` and one line (or, on wrong usage, an explanation) that begins with
    /// "error:" and holds `message`; no file or folder may have changed.
    #[track_caller]
    pub fn bad(&self, code: i32, message: &str, args: &[&str]) {
        let before = snapshot(self.folder.path());
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{}: {}", ran.what, ran.err);
        assert!(ran.err.starts_with("error: ") && ran.err.contains(message), "{}: {}", ran.what, ran.err);
        assert!(code == 2 || ran.err.lines().count() == 1, "{}: {}", ran.what, ran.err);
        assert_eq!(ran.out, "", "{}", ran.what);
        let after = snapshot(self.folder.path());
        assert!(before == after, "{}: files have changed: {:?}", ran.what, differences(&before, &after));
    }
}

/// What a run of the program gave.
pub struct Ran {
    pub what: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Panics if the program did.
    #[track_caller]
    pub fn of(what: &str, output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE"), "{what}: {err}");
        let code = output.status.code().unwrap_or_else(|| panic!("{what}: ended by a signal; {err}"));
        Ran { what: what.to_string(), code, out, err }
    }

    /// What was printed, as the one JSON document it must be.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{}: {e}: {}", self.what, self.out))
    }
}

/// Every file below `folder` with its bytes, and every folder.
pub fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        }
        all.insert(path.clone(), if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() });
    }
    all
}

fn differences<'a>(a: &'a BTreeMap<PathBuf, Vec<u8>>, b: &'a BTreeMap<PathBuf, Vec<u8>>) -> Vec<&'a PathBuf> {
    a.keys().chain(b.keys()).filter(|path| a.get(*path) != b.get(*path)).collect()
}

/// An IDX file of unsigned bytes.
pub fn idx(dims: &[usize], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|&size| (size as u32).to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// The four files of a data set of random images; labels go round.
pub fn write_data(folder: &Path, side: usize, train: usize, test: usize, seed: u64) {
    fs::create_dir_all(folder).unwrap();
    let mut state = seed;
    for (part, count) in [("train", train), ("t10k", test)] {
        // Knuth's generator (MMIX): the upper bits are random enough for pixels.
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let pixels: Vec<u8> = (0..count * side * side).map(|_| random()).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), idx(&[count, side, side], &pixels)).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), idx(&[count], &labels)).unwrap();
    }
}

/// A text-to-image model of some thousand numbers.
pub const TINY: &str = r#"task = "diffusion"
seed = 1

[data]
name = "mnist"
folder = "data"

[text]
encoder = "hashed-words"
dim = 8

[unet]
image_channels = 1
base_channels = 8
channel_multipliers = [1, 2]
blocks = 1
attention = [false, true]
heads = 2
groups = 4

[unet.text]
dim = 8

[diffusion]
schedule = "cosine"
target = "v"

[sampling]
guidance = 2.3
method = { steps = 2 }

[optimizer]
kind = "adam"

[learning_rate]
kind = "constant"
rate = 1e-3

[train]
steps = 6
batch = 4
ema = 0.9
clip = 1.0
log_every = 3
sample_every = 1000
checkpoint_every = 2
"#;

/// A classifier of some thousand numbers.
pub const JUDGE: &str = r#"task = "classifier"
seed = 1
shift = 1

[data]
name = "mnist"
folder = "data"

[classifier]
image_channels = 1
image_size = 8
channels = [8]
features = 6
classes = 10

[optimizer]
kind = "adamw"

[learning_rate]
kind = "constant"
rate = 1e-3

[train]
steps = 6
batch = 4
ema = 0.9
clip = 1.0
log_every = 100
sample_every = 4
checkpoint_every = 2
"#;

/// A T5 of some thousand numbers, on text alone.
pub const WORDS: &str = r#"task = "span-corruption"
seed = 1

[corpus]

[tokenizer]
texts = 200
sentinels = 8

[t5]
vocab_size = 400
d_model = 8
d_kv = 4
d_ff = 12
num_layers = 2
num_decoder_layers = 1
num_heads = 2
feed_forward_proj = "gated-gelu"
tie_word_embeddings = false

[optimizer]
kind = "adam"

[learning_rate]
kind = "constant"
rate = 1e-3

[train]
steps = 6
batch = 4
ema = 0.9
clip = 1.0
log_every = 3
sample_every = 4
checkpoint_every = 2
"#;
