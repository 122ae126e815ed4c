//! The pages as mdBook builds them.

use crate::page::{name, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The built book, in a folder that goes when it is dropped; `None` without mdBook.
fn build() -> Option<(tempfile::TempDir, Vec<PathBuf>)> {
    let tools = ["mdbook", "mdbook-katex"].map(|tool| Command::new(tool).arg("--version").output());
    if tools.iter().any(Result::is_err) {
        let must = std::env::var_os("IMAGEN_REQUIRE_BOOK").is_some_and(|value| value == "1");
        assert!(!must, "IMAGEN_REQUIRE_BOOK=1, but mdbook or mdbook-katex is not installed");
        println!("skipped: mdbook or mdbook-katex is not installed; book/src/introduction.md says how");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let run =
        Command::new("mdbook").arg("build").arg(root().join("book")).arg("-d").arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned() + &String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "mdbook build book: {said}");
    for line in said.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")) {
        // a newer mdBook of the same series than the preprocessor was made for
        assert!(line.contains("built against mdbook"), "mdbook build book says: {line}");
    }
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|e| e == "html"));
    pages.sort();
    Some((folder, pages))
}

/// `html` without what stands between `<element` and `</element>`.
fn without(html: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let mut parts = html.split(&open);
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        // <pre is not <preview
        let whole = part.starts_with(['>', ' ', '\n']);
        match part.split_once(&close) {
            Some((_, rest)) if whole => out += rest,
            _ => out += &format!("{open}{part}"),
        }
    }
    out
}

/// The values of the attribute, wherever it stands in a tag.
fn attribute<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}=\"");
    html.match_indices(&start).filter_map(|(at, _)| html[at + start.len()..].split('"').next()).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn built_pages_are_whole() {
    let Some((folder, pages)) = build() else { return };
    for page in crate::page::pages() {
        let built = page.name.replace(".md", ".html");
        assert!(pages.iter().any(|path| name(path) == built), "{built} was not built: the table of contents hides it");
    }
    let html: BTreeMap<String, String> = pages.iter().map(|path| (name(path), read(path))).collect();
    let ids: BTreeMap<&str, BTreeSet<&str>> =
        html.iter().map(|(page, html)| (page.as_str(), attribute(html, "id").into_iter().collect())).collect();
    // the table of contents is a frame of its own, which every page carries
    for (page, html) in html.iter().filter(|(page, _)| *page != "toc.html") {
        // mathematics that was not understood stays as it was written
        let main = html
            .split_once("<main>")
            .map_or(html.as_str(), |(_, rest)| rest.split("</main>").next().unwrap_or_default());
        let prose = ["pre", "code", "annotation", "script"]
            .iter()
            .fold(main.to_string(), |html, element| without(&html, element));
        if let Some(at) = prose.find('$') {
            let near: String = prose[at..].chars().take(80).collect();
            panic!("{page}: a dollar sign is left: {near}");
        }
        assert!(!html.contains("katex-error"), "{page}: KaTeX could not draw an equation");
        assert!(!main.contains("{{#"), "{page}: an include is left");

        for target in attribute(html, "src") {
            assert!(!target.contains("://") && !target.starts_with("//"), "{page}: {target} is elsewhere");
            assert!(folder.path().join(target).is_file(), "{page}: {target} is not there");
        }
        for link in html.split("<link ").skip(1).filter_map(|rest| rest.split('>').next()) {
            assert!(!link.contains("://"), "{page}: <link {link}> is elsewhere");
        }
        for target in attribute(main, "href").into_iter().filter(|target| !target.contains("://")) {
            let (file, id) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page } else { file };
            let Some(there) = ids.get(file) else {
                panic!("{page}: {target} leads to no page");
            };
            assert!(id.is_empty() || there.contains(id), "{page}: {target} leads to no place on {file}");
        }
    }
}

#[test]
fn elements_are_cut_out_whole() {
    assert_eq!(without("a<pre class=\"x\">$</pre>b<preview>$</preview>", "pre"), "ab<preview>$</preview>");
    assert_eq!(attribute("<a class=\"b\" href=\"c\"><i id=\"d\">", "href"), ["c"]);
}
