//! The book holds what it promises: its listings are the source, its equations have tests, its commands and links work,
//! its examples run. With mdBook installed the built pages are looked at too; IMAGEN_REQUIRE_BOOK=1 makes that a must.

mod built;
mod commands;
mod equations;
mod examples;
mod figures;
mod links;
mod listings;
mod page;

use page::{Page, pages};

// Every page is in the table of contents, and every page named there exists.
#[test]
fn the_table_of_contents_is_whole() {
    let summary = page::read("book/src/SUMMARY.md");
    for page in pages() {
        assert!(summary.contains(&format!("({})", page.name)), "book/src/SUMMARY.md does not name {}", page.name);
    }
    let linked = summary.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(path, _)| path);
    for path in linked.filter(|path| !path.is_empty()) {
        assert!(pages().iter().any(|page| page.name == path), "book/src/SUMMARY.md names {path}, which is not there");
    }
}

// The eighteen chapters and four appendices, those that are not written yet marked as coming.
#[test]
fn the_table_of_contents_says_what_is_coming() {
    let summary = page::read("book/src/SUMMARY.md");
    let chapters: Vec<&str> = summary.lines().filter(|line| line.starts_with("- [")).collect();
    assert_eq!(chapters.len(), 18, "the book has 18 chapters");
    for (i, line) in chapters.iter().enumerate() {
        let written = line.contains(&format!("({:02}-", i + 1));
        assert!(
            written || line.ends_with("(coming)]()"),
            "chapter {} is neither written nor marked as coming: {line}",
            i + 1
        );
    }
}

// A chapter asks a question, shows pictures, sets exercises, lists its tests and says where to read on.
#[test]
fn every_chapter_has_its_parts() {
    for page in pages().iter().filter(|page| page.chapter().is_some()) {
        assert!(page.text.contains("\n> **The question.**"), "{}: no question", page.name);
        let mut rest = page.text.as_str();
        for part in ["\n## What you can see", "\n## Exercises", "\n## The tests", "\n## Further reading"] {
            let Some(at) = rest.find(part) else {
                panic!("{}: {:?} is missing or out of order", page.name, part.trim());
            };
            rest = &rest[at..];
        }
    }
}

// Three to five exercises a chapter, numbered; each with a solution from the source that its tests check.
#[test]
fn every_exercise_has_a_tested_solution() {
    for page in pages() {
        let Some(chapter) = page.chapter() else { continue };
        let exercises = page.exercises();
        assert!((3..=5).contains(&exercises.len()), "{}: {} exercises", page.name, exercises.len());
        let file = format!("tests/exercises/ch{chapter:02}.rs");
        for (i, exercise) in exercises.iter().enumerate() {
            let number = format!("**{chapter}.{}**", i + 1);
            assert!(exercise.starts_with(&number), "{}: expected exercise {number}", page.name);
            let solution = exercise.split_once("<details class=\"solution\">").map_or("", |(_, solution)| solution);
            assert!(
                solution.contains(&format!("{{{{#include ../../{file}:")),
                "{}: {number} has no code from {file}",
                page.name
            );
        }
        let tests = page::read(&file).matches("#[test]").count();
        assert!(tests >= exercises.len(), "{file}: {tests} tests for {} exercises", exercises.len());
    }
}

// What the book holds, chapter by chapter: `cargo test --test book in_figures -- --nocapture`.
#[test]
fn the_book_in_figures() {
    println!(
        "| page | words | equations | facts | checked | listings | pictures | exercises |\n|---|---|---|---|---|---|---|---|"
    );
    for page in pages() {
        let equations = page.equations();
        let facts = equations.iter().filter(|equation| !equation.is_definition()).count();
        let checked = equations.iter().filter(|equation| !equation.tests().is_empty()).count();
        assert_eq!(facts, checked, "{}: facts without a test", page.name);
        let Page { name, .. } = &page;
        let (words, listings, pictures) = (page.words(), page.includes().len(), page.images().len());
        let (equations, exercises) = (equations.len(), page.exercises().len());
        println!("| {name} | {words} | {equations} | {facts} | {checked} | {listings} | {pictures} | {exercises} |");
    }
}
