//! Commands that the book and the README list. Those of `imagen` itself are parsed by the command line's own test.

use crate::page::{Page, files, name, pages, read, root};

fn readers_pages() -> Vec<Page> {
    let mut pages = pages();
    pages.push(Page { name: "README.md".into(), text: read("README.md") });
    pages
}

/// Whether `--test target` is a test file or folder.
fn is_test(target: &str) -> bool {
    root().join(format!("tests/{target}.rs")).is_file() || root().join(format!("tests/{target}/main.rs")).is_file()
}

/// The source of a test target.
fn source(target: &str) -> String {
    let file = root().join(format!("tests/{target}.rs"));
    if file.is_file() {
        return read(file);
    }
    files(&format!("tests/{target}"), "rs").iter().map(read).collect()
}

#[test]
fn every_command_of_cargo_names_what_exists() {
    for page in readers_pages() {
        for line in page.code("sh") {
            let command = line.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = command.split_whitespace().collect();
            let after =
                |flag: &str| words.iter().position(|word| *word == flag).and_then(|i| words.get(i + 1)).copied();
            let place = format!("{}: {line}", page.name);
            match words[..] {
                [] => assert!(line.trim().is_empty() || line.trim().starts_with('#'), "{place}"),
                ["cargo", "run", ..] => {
                    if let Some(example) = after("--example") {
                        assert!(root().join(format!("examples/{example}.rs")).is_file(), "{place}: no such example");
                    }
                }
                ["cargo", "test", ..] => {
                    let target = after("--test");
                    assert!(target.is_none_or(is_test), "{place}: no such test file");
                    let skip = |i: usize| words[i].starts_with('-') || words[i - 1] == "--test";
                    let own = words.iter().position(|word| *word == "--").unwrap_or(words.len());
                    let filters: Vec<&str> = (2..own).filter(|&i| !skip(i)).map(|i| words[i]).collect();
                    if let (Some(target), [filter]) = (target, &filters[..]) {
                        let text = source(target);
                        let module = files("tests", "rs").iter().any(|file| name(file) == format!("{filter}.rs"));
                        let test =
                            text.split("fn ").any(|rest| rest.split('(').next().is_some_and(|f| f.contains(filter)));
                        assert!(module || test, "{place}: no test of that name");
                    }
                }
                ["cargo", "install" | "bench" | "doc" | "build", ..]
                | ["mdbook", "serve" | "build", "book", ..]
                | ["imagen", ..]
                | ["git" | "cd", ..] => {}
                _ => panic!("{place}: a command that nothing checks"),
            }
        }
    }
}
