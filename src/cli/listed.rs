//! The commands that the README and the book list are understood.

use super::Cli;
use clap::Parser;
use std::fs;
use std::path::Path;

/// The words of a command line, as a shell splits it: quotes keep spaces, ` #` begins a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => (quote, word) = (Some(c), word.or_else(|| Some(String::new()))),
            (c, Some(open)) if c == open => quote = None,
            ('#', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The arguments of `imagen` in one line of a shell block, if that is what it runs.
fn arguments(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    match words.first().map(String::as_str) {
        Some("imagen") => Some(words[1..].to_vec()),
        Some("cargo") if words[1] == "run" && !words.iter().any(|word| word == "--example") => {
            words.iter().position(|word| word == "--").map(|i| words[i + 1..].to_vec())
        }
        _ => None,
    }
}

#[test]
fn every_command_that_is_listed_parses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("book/src")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = 0;
    for page in pages.filter(|path| path.extension().is_some_and(|e| e == "md")).chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with("```") {
                inside = !inside && line == "```sh";
            } else if let Some(arguments) = arguments(line).filter(|_| inside) {
                found += 1;
                if let Err(error) = Cli::try_parse_from([vec!["imagen".to_string()], arguments].concat()) {
                    let asked = [clap::error::ErrorKind::DisplayHelp, clap::error::ErrorKind::DisplayVersion];
                    assert!(asked.contains(&error.kind()), "{}: {line}\n{error}", page.display());
                }
            }
        }
    }
    assert!(found >= 8, "only {found} commands were found");
}

#[test]
fn words_are_those_of_a_shell() {
    assert_eq!(
        words(r#"imagen sample "a b" 'c "d' --out=x "" # rest"#),
        ["imagen", "sample", "a b", "c \"d", "--out=x", ""]
    );
    assert_eq!(arguments("cargo run --release -- info"), Some(vec!["info".to_string()]));
    assert_eq!(arguments("cargo run --release --example ch07_forward -- --small"), None);
}
