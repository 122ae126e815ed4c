//! The commands that the README and the book list are understood, and so are the settings that they make.

use super::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
use imagen::train::{Blueprint, RunConfig};
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

/// An error if the command would read a config, and what it sets there is refused. `info` takes blueprints and models, too.
fn check_config(command: &Command) -> std::result::Result<(), String> {
    let (config, overrides) = match command {
        Command::Train(args) => (&*args.config, &args.overrides),
        Command::Doctor(args) => (&*args.config, &args.overrides),
        Command::Info(args) => match &args.model {
            Some(name) if name.ends_with(".toml") => (Path::new(name), &args.overrides),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    let planned = match command {
        Command::Info(_) => Blueprint::read(config, overrides).map_err(|e| e.to_string())?.is_some(),
        _ => false,
    };
    if planned { Ok(()) } else { RunConfig::read(config, overrides).map(drop).map_err(|e| e.to_string()) }
}

#[test]
fn every_command_that_is_listed_parses_and_its_settings_are_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("book/src")).unwrap().map(|entry| entry.unwrap().path());
    let (mut found, mut pages_with, mut wrong) = (0, 0, Vec::new());
    for page in pages.filter(|path| path.extension().is_some_and(|e| e == "md")).chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let (mut inside, before) = (false, found);
        for line in text.lines() {
            if line.starts_with("```") {
                inside = !inside && line == "```sh";
            } else if let Some(arguments) = arguments(line).filter(|_| inside) {
                found += 1;
                let asked = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
                let checked = match Cli::try_parse_from([vec!["imagen".to_string()], arguments].concat()) {
                    Ok(cli) => check_config(&cli.command),
                    Err(error) if asked.contains(&error.kind()) => Ok(()),
                    Err(error) => Err(error.to_string()),
                };
                wrong.extend(checked.err().map(|error| format!("{}: {line}\n{error}", page.display())));
            }
        }
        pages_with += usize::from(found > before);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A few less than there are: pages change, but a block that is no longer read is noticed.
    assert!(found >= 60 && pages_with >= 9, "only {found} commands on {pages_with} pages were found");
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
