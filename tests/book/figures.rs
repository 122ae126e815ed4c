//! Pictures and interactive figures.

use crate::page::{files, pages, root};
use std::collections::BTreeSet;
use std::fs;

// A chapter's pictures are those in its folder: none is missing, none is left over.
#[test]
fn every_picture_is_shown() {
    let shown: BTreeSet<String> = pages().iter().flat_map(|page| [page.images(), page.drawn()].concat()).collect();
    for file in ["svg", "png", "js"].iter().flat_map(|extension| files("book/src/images", extension)) {
        let target = file.strip_prefix("book/src").unwrap().to_string_lossy().into_owned();
        assert!(shown.contains(&target), "no page shows {target}");
    }
}

// A picture says in words what is to be seen, for those who cannot see it.
#[test]
fn every_picture_has_a_description() {
    for page in pages() {
        let prose = page.prose().join("\n");
        let markdown = prose.split("![").skip(1).filter_map(|rest| rest.split_once("](")).map(|(words, _)| words);
        let html = prose.split("<img ").skip(1).filter_map(|rest| rest.split('>').next());
        let html =
            html.map(|tag| tag.split_once("alt=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default());
        for words in markdown.chain(html) {
            assert!(words.split_whitespace().count() >= 3, "{}: a picture is described as {words:?}", page.name);
        }
    }
}

#[test]
fn pictures_and_figures_are_small() {
    let size = |file: &std::path::Path| fs::metadata(root().join(file)).unwrap().len();
    for file in ["svg", "png"].iter().flat_map(|extension| files("book/src", extension)) {
        assert!(size(&file) <= 200_000, "{} has {} bytes", file.display(), size(&file));
    }
    let figures: u64 =
        files("book/src/figures", "js").iter().chain(&files("book/src/figures", "png")).map(|file| size(file)).sum();
    assert!(figures <= 1_000_000, "the interactive figures have {figures} bytes together");
}
