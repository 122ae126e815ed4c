//! The examples run, and draw the pictures of the book.

use crate::page::{files, name, pages, root};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// The examples as built by this profile, made up to date.
fn built() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--quiet", "--examples"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the examples do not build");
    let me = std::env::current_exe().unwrap();
    // target/debug/deps/book-… stands beside target/debug/examples
    me.parent().and_then(|deps| deps.parent()).unwrap().join("examples")
}

// Every chapter has an example `chNN_name`; at its reduced size it runs, and writes the files that the chapter shows.
#[test]
fn every_chapter_has_an_example_that_draws_its_pictures() {
    let built = built();
    let names: Vec<String> = files("examples", "rs").iter().map(|file| name(file)).collect();
    for page in pages() {
        let Some(chapter) = page.chapter() else { continue };
        let start = format!("ch{chapter:02}_");
        let Some(example) = names.iter().find(|name| name.starts_with(&start)) else {
            panic!("chapter {chapter} has no example examples/{start}….rs");
        };
        let example = example.trim_end_matches(".rs");
        let command = format!("cargo run --release --example {example}");
        assert!(page.code("sh").contains(&command.as_str()), "{}: does not say {command:?}", page.name);

        let folder = tempfile::tempdir().unwrap();
        let run = Command::new(built.join(example))
            .current_dir(root())
            .arg("--small")
            .arg("--out")
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(run.status.success(), "{example} --small: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr));
        let written: BTreeSet<String> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| name(&entry.unwrap().path())).collect();
        for image in page.drawn() {
            let image = PathBuf::from(image);
            // A picture of the GPU is drawn where there is one.
            let without = String::from_utf8_lossy(&run.stdout).contains("no GPU");
            if without && name(&image).contains("-gpu.") {
                continue;
            }
            assert!(written.contains(&name(&image)), "{example} does not write {}", image.display());
        }
    }
}
