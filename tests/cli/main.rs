//! The program from outside: what it draws and prints, and what it says about input that is wrong.

mod cascade;
mod mistakes;
mod parts;
#[path = "../tiny/mod.rs"]
mod tiny;
mod uses;
mod variance;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tiny::Lab;

/// The finished runs `tiny` and `judge`, trained once for all tests.
fn runs() -> &'static Path {
    static RUNS: OnceLock<PathBuf> = OnceLock::new();
    RUNS.get_or_init(|| {
        // Cargo's own folder: a folder in a static is never removed.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-runs");
        let _ = fs::remove_dir_all(&folder);
        let lab = Lab::new();
        for name in ["tiny", "judge"] {
            let (config, out) = (format!("{name}.toml"), folder.join(name));
            lab.good(&["train", &config, "--out", out.to_str().unwrap(), "--quiet"]);
        }
        folder
    })
}

/// A laboratory with `tiny.safetensors` and `judge.safetensors`, both trained.
fn lab() -> Lab {
    let lab = Lab::new();
    for name in ["tiny", "judge"] {
        let model = runs().join(name).join("model.safetensors");
        fs::copy(model, lab.path(&format!("{name}.safetensors"))).unwrap();
    }
    lab
}
