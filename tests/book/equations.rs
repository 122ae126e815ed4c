//! Equations: each is a definition or has a test; the labels of the code are those of the book.

use crate::page::{files, pages, read};
use std::collections::{BTreeMap, BTreeSet};

/// Whether `word` is a label such as B2.
fn is_label(word: &str) -> bool {
    matches!(word.as_bytes(), [b'A'..=b'H', b'1'..=b'9'])
}

/// The labels that comments of the source name in parentheses: (B2), (A1, A3).
fn labels_of_the_code() -> BTreeSet<String> {
    let comments = files("src", "rs").into_iter().flat_map(|file| {
        let text = read(&file);
        text.lines().filter(|line| line.trim_start().starts_with("//")).map(String::from).collect::<Vec<_>>()
    });
    comments
        .flat_map(|line| {
            let groups = line.split('(').skip(1).filter_map(|rest| rest.split([')', ';']).next());
            groups
                .flat_map(|group| group.split([',', ' ']))
                .filter(|word| is_label(word))
                .map(String::from)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Label to the pages whose equations carry it.
fn labels_of_the_book() -> BTreeMap<String, Vec<String>> {
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for page in pages() {
        for equation in page.equations() {
            labels.entry(equation.tag).or_default().push(page.name.clone());
        }
    }
    labels
}

#[test]
fn every_label_of_the_code_is_an_equation_of_the_book() {
    let book = labels_of_the_book();
    let missing: Vec<String> = labels_of_the_code().into_iter().filter(|label| !book.contains_key(label)).collect();
    assert!(missing.is_empty(), "no page has an equation with the tags {missing:?}");
}

#[test]
fn every_label_of_the_book_is_in_the_code() {
    let code = labels_of_the_code();
    let unknown: Vec<String> =
        labels_of_the_book().into_keys().filter(|tag| is_label(tag) && !code.contains(tag)).collect();
    assert!(unknown.is_empty(), "no comment of src names {unknown:?}");
}

#[test]
fn every_number_is_given_once() {
    for (tag, pages) in labels_of_the_book() {
        assert_eq!(pages.len(), 1, "equation ({tag}) is on {pages:?}");
    }
}

#[test]
fn every_numbered_equation_is_a_definition_or_has_a_test() {
    for page in pages() {
        for equation in page.equations() {
            assert!(
                equation.is_definition() || !equation.tests().is_empty(),
                "{}: equation ({}) is followed by {:?}, not by \"≔ definition\" or \"✓ checked by [test](#test)\"",
                page.name,
                equation.tag,
                equation.ground
            );
        }
    }
}

// A check names a test that exists, and leads to its listing.
#[test]
fn every_check_is_a_test_that_the_book_shows() {
    let sources: Vec<String> = ["src", "tests"].iter().flat_map(|folder| files(folder, "rs")).map(read).collect();
    let pages = pages();
    for page in &pages {
        for (name, target) in page.equations().iter().flat_map(|equation| equation.tests()) {
            let defined = sources.iter().any(|text| text.contains(&format!("fn {name}(")));
            assert!(defined, "{}: there is no test {name}", page.name);
            let (file, id) = target.split_once('#').unwrap_or((&target, ""));
            assert_eq!(id, name, "{}: the link to {name} goes to {target}", page.name);
            let shown = pages.iter().find(|other| other.name == if file.is_empty() { &page.name } else { file });
            let listed = shown.is_some_and(|shown| shown.includes().iter().any(|include| include.anchor == name));
            assert!(listed, "{}: {target} does not show the test {name}", page.name);
        }
    }
}

#[test]
fn labels_are_found_in_comments() {
    assert!(is_label("B2") && !is_label("I1") && !is_label("B12") && !is_label("b2"));
    let labels = labels_of_the_code();
    assert!(["A1", "B2", "C4", "D2", "E2", "H1"].iter().all(|label| labels.contains(*label)), "{labels:?}");
}
