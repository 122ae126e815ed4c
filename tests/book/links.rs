//! Links within the book lead somewhere; nothing is fetched from elsewhere.

use crate::page::{files, links, pages, read, root};

#[test]
fn links_within_the_book_are_alive() {
    let pages = pages();
    for page in &pages {
        for (text, target) in links(&page.prose().join("\n")) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, id) = target.split_once('#').unwrap_or((&target, ""));
            let there =
                pages.iter().find(|other| other.name == if file.is_empty() { page.name.as_str() } else { file });
            let Some(there) = there else {
                panic!("{}: [{text}]({target}) leads to no page", page.name);
            };
            assert!(
                id.is_empty() || there.ids().iter().any(|other| other == id),
                "{}: [{text}]({target}): {} has no heading or anchor {id}",
                page.name,
                there.name
            );
        }
    }
}

#[test]
fn pictures_and_scripts_are_files_of_the_book() {
    for page in pages() {
        let scripts = page.text.split("<script src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for target in page.images().into_iter().chain(scripts.map(String::from)) {
            assert!(root().join("book/src").join(&target).is_file(), "{}: book/src/{target} is not there", page.name);
        }
    }
}

#[test]
fn nothing_is_fetched_when_the_book_is_read() {
    let own = ["css", "js", "hbs", "toml"].iter().flat_map(|extension| files("book", extension));
    for file in own.filter(|file| !file.starts_with("book/book")) {
        let text = read(&file);
        for remote in [
            "url(http",
            "url(\"http",
            "url('http",
            "@import",
            "src=\"http",
            "href=\"http",
            "fetch(",
            "XMLHttpRequest",
            "import(",
        ] {
            assert!(!text.contains(remote), "{}: {remote}", file.display());
        }
    }
    for page in pages() {
        for target in page.images() {
            assert!(!target.contains("://"), "{}: the picture {target} is elsewhere", page.name);
        }
        for remote in ["<script src=\"http", "<link ", "<iframe", "<video", "<audio"] {
            assert!(!page.text.contains(remote), "{}: {remote}", page.name);
        }
    }
}
