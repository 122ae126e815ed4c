//! A page of the book as its source, and what can be found in it.

use std::fs;
use std::path::{Path, PathBuf};

/// One Markdown file of `book/src`.
pub struct Page {
    /// Its file name.
    pub name: String,
    /// Its source.
    pub text: String,
}

/// `{{#include file:anchor}}`.
pub struct Include {
    /// The file, from the repository's root.
    pub file: PathBuf,
    /// The name between the colon and the braces; empty for a whole file.
    pub anchor: String,
}

/// A numbered equation and the paragraph under it.
pub struct Equation {
    /// What stands in `\tag{}`.
    pub tag: String,
    /// The paragraph that says how it is known.
    pub ground: String,
}

impl Equation {
    pub fn is_definition(&self) -> bool {
        self.ground.starts_with("≔ definition")
    }

    /// (name, target) of every test that checks it.
    pub fn tests(&self) -> Vec<(String, String)> {
        if self.ground.starts_with("✓ checked by ") { links(&self.ground) } else { Vec::new() }
    }
}

/// The file at `path`, from the repository's root.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages but the table of contents, in order.
pub fn pages() -> Vec<Page> {
    let mut names: Vec<String> = files("book/src", "md").iter().map(|path| name(path)).collect();
    names.retain(|name| name != "SUMMARY.md");
    names.into_iter().map(|name| Page { text: read(Path::new("book/src").join(&name)), name }).collect()
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files with this extension in a folder and those in it, sorted; from the repository's root.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries.map(Result::unwrap) {
            let path = folder.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == extension) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// (text, target) of the Markdown links in `text`, pictures not among them.
pub fn links(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        let (Some(open), Some(close)) = (text[..at].rfind('['), text[at..].find(')')) else { continue };
        if !text[..open].ends_with('!') {
            found.push((text[open + 1..at].to_string(), text[at + 2..at + close].to_string()));
        }
    }
    found
}

impl Page {
    /// Its number, if it is a chapter.
    pub fn chapter(&self) -> Option<usize> {
        self.name.split_once('-').and_then(|(number, _)| number.parse().ok())
    }

    /// The source outside of code blocks, line by line.
    pub fn prose(&self) -> Vec<&str> {
        let mut code = false;
        let outside = |line: &&str| {
            let fence = line.starts_with("```");
            code ^= fence;
            !code && !fence
        };
        self.text.lines().filter(outside).collect()
    }

    /// The lines of the code blocks in `language`.
    pub fn code(&self, language: &str) -> Vec<&str> {
        let mut inside = None;
        let mut found = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("```"), inside) {
                (Some(_), Some(_)) => inside = None,
                (Some(name), None) => inside = Some(name),
                (None, Some(name)) if name == language => found.push(line),
                (None, _) => {}
            }
        }
        found
    }

    pub fn includes(&self) -> Vec<Include> {
        let inside = self.text.split("{{#").skip(1).map(|rest| rest.split("}}").next().unwrap_or_default());
        inside
            .map(|inside| {
                let target =
                    inside.strip_prefix("include ").unwrap_or_else(|| panic!("{}: {{{{#{inside}}}}}", self.name));
                let (file, anchor) = target.split_once(':').unwrap_or((target, ""));
                let file = file
                    .strip_prefix("../../")
                    .unwrap_or_else(|| panic!("{}: {file} is not of this repository", self.name));
                Include { file: file.into(), anchor: anchor.into() }
            })
            .collect()
    }

    /// Every equation with a number.
    pub fn equations(&self) -> Vec<Equation> {
        let lines = self.prose();
        let mut found = Vec::new();
        let mut blocks = lines.iter().enumerate().filter(|(_, line)| line.trim() == "$$").map(|(i, _)| i);
        while let (Some(start), Some(end)) = (blocks.next(), blocks.next()) {
            let body = lines[start..end].join("\n");
            for tag in body.split("\\tag{").skip(1).filter_map(|rest| rest.split('}').next()) {
                let after = lines[end + 1..].iter().skip_while(|line| line.trim().is_empty());
                let paragraph: Vec<&str> = after.take_while(|line| !line.trim().is_empty()).copied().collect();
                found.push(Equation { tag: tag.into(), ground: paragraph.join(" ") });
            }
        }
        found
    }

    /// The exercises, from their number to the end of their solution.
    pub fn exercises(&self) -> Vec<&str> {
        let Some(chapter) = self.chapter() else { return Vec::new() };
        let (_, rest) = self.text.split_once("\n## Exercises").unwrap_or_default();
        let part = rest.split("\n## ").next().unwrap_or_default();
        let starts: Vec<usize> = part.match_indices(&format!("\n**{chapter}.")).map(|(at, _)| at + 1).collect();
        let ends = starts.iter().skip(1).copied().chain([part.len()]);
        starts.iter().zip(ends).map(|(&start, end)| &part[start..end]).collect()
    }

    /// The targets of the pictures.
    pub fn images(&self) -> Vec<String> {
        let prose = self.prose().join("\n");
        let markdown = prose.split("![").skip(1).filter_map(|rest| rest.split_once("](")?.1.split(')').next());
        let html = prose.split("<img ").skip(1).filter_map(|rest| rest.split_once("src=\"")?.1.split('"').next());
        markdown.chain(html).map(String::from).collect()
    }

    /// The scripts and pictures in the folder of this chapter's example.
    pub fn drawn(&self) -> Vec<String> {
        let scripts = self.text.split("<script src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let all = self.images().into_iter().chain(scripts.map(String::from));
        all.filter(|target| target.starts_with("images/ch")).collect()
    }

    /// How many words there are outside of code blocks and display equations.
    pub fn words(&self) -> usize {
        let mut equation = false;
        let text = |line: &&&str| {
            let fence = line.trim() == "$$";
            equation ^= fence;
            !equation && !fence
        };
        self.prose().iter().filter(text).map(|line| line.split_whitespace().count()).sum()
    }

    /// The names that a link can jump to: headings, as mdBook makes them, and explicit ones.
    pub fn ids(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose
            .iter()
            .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
        let explicit =
            prose.iter().flat_map(|line| line.split("id=\"").skip(1)).filter_map(|rest| rest.split('"').next());
        headings.map(heading_id).chain(explicit.map(String::from)).collect()
    }
}

/// A heading's id in mdBook: letters, digits, `_` and `-` in lower case, spaces as `-`, the rest left out.
fn heading_id(heading: &str) -> String {
    let letter = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    };
    heading.trim().chars().filter_map(letter).collect()
}
