//! Listings are pieces of the source that runs.

use crate::page::{Include, files, pages, read};
use std::collections::BTreeSet;

/// The lines between the anchor's two comments, as mdBook includes them: without the comments of other anchors.
fn listing(Include { file, anchor }: &Include) -> Result<Vec<String>, String> {
    let text = read(file);
    if anchor.is_empty() {
        return Ok(text.lines().map(String::from).collect());
    }
    let at = |mark: &str| -> Result<usize, String> {
        let wanted = format!("{mark}: {anchor}");
        let places: Vec<usize> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.trim().trim_start_matches(['/', '#', ' ']) == wanted)
            .map(|(i, _)| i)
            .collect();
        match places[..] {
            [place] => Ok(place),
            [] => Err(format!("{} has no line \"// {wanted}\"", file.display())),
            _ => Err(format!("{} has more than one line \"// {wanted}\"", file.display())),
        }
    };
    let (start, end) = (at("ANCHOR")?, at("ANCHOR_END")?);
    let inside = text.lines().skip(start + 1).take(end.saturating_sub(start + 1));
    Ok(inside.filter(|line| !line.contains("ANCHOR: ") && !line.contains("ANCHOR_END: ")).map(String::from).collect())
}

#[test]
fn every_listing_is_there_and_not_empty() {
    let mut mistakes = Vec::new();
    for (page, include) in
        pages().iter().flat_map(|page| page.includes().into_iter().map(move |include| (&page.name, include)))
    {
        match listing(&include) {
            Err(mistake) => mistakes.push(format!("{page}: {mistake}")),
            Ok(lines) if lines.iter().all(|line| line.trim().is_empty()) => {
                mistakes.push(format!("{page}: {}:{} is empty", include.file.display(), include.anchor));
            }
            Ok(_) => {}
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

// A listing longer than a page is not read.
#[test]
fn no_listing_is_longer_than_a_page() {
    for (page, include) in
        pages().iter().flat_map(|page| page.includes().into_iter().map(move |include| (&page.name, include)))
    {
        // the decisions are a page of prose
        if include.file.extension().is_some_and(|extension| extension == "md") {
            continue;
        }
        let lines = listing(&include).map_or(0, |lines| lines.len());
        assert!(lines <= 60, "{page}: {}:{} has {lines} lines", include.file.display(), include.anchor);
    }
}

// An anchor that no page includes is left over.
#[test]
fn every_anchor_is_used() {
    let used: BTreeSet<(String, String)> = pages()
        .iter()
        .flat_map(|page| page.includes())
        .map(|include| (include.file.to_string_lossy().into_owned(), include.anchor))
        .collect();
    let rust = ["src", "tests", "examples", "benches"].iter().flat_map(|folder| files(folder, "rs"));
    for file in rust.chain(files("wgsl", "wgsl")) {
        // these lines speak of anchors
        if file.starts_with("tests/book") {
            continue;
        }
        for line in read(&file).lines() {
            if let Some((_, anchor)) = line.split_once("ANCHOR: ") {
                let place = (file.to_string_lossy().into_owned(), anchor.trim().to_string());
                assert!(used.contains(&place), "{}: no page includes the anchor {}", place.0, place.1);
            }
        }
    }
}
