//! Where pictures go, and what is seen of them on the way.

use super::{Common, Failure, Result, fail, print};
use clap::Args;
use imagen::cascade::Request;
use imagen::files;
use imagen::picture::{Picture, Text, terminal};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The picture of a command that writes one.
#[derive(Args)]
pub struct NewPicture {
    /// The PNG file to write
    #[arg(long, value_name = "PNG")]
    pub out: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

impl NewPicture {
    /// An error unless it can be written. Asked before anything is drawn.
    pub fn check(&self) -> Result<()> {
        if !is_png(&self.out) {
            let out = self.out.display();
            return fail(format!("cannot write {out}: pictures are PNG files; let --out end in .png"));
        }
        check_new(&self.out, self.force)?;
        Ok(files::check_file(&self.out)?)
    }
}

/// Where images go: whole into one file, or one by one into a folder.
pub enum Target {
    File(PathBuf),
    Folder(PathBuf),
}

/// Endings that mean a picture, not a folder.
const OTHER_FORMATS: [&str; 7] = ["jpg", "jpeg", "gif", "webp", "bmp", "tif", "svg"];

impl Target {
    /// What `out` means for the images of a request; a new PNG named after the prompt, if it is not given. `one_picture` is what
    /// is to be drawn, if a folder cannot hold it. Checked before anything is drawn.
    pub fn of(out: Option<&Path>, force: bool, one_picture: Option<&str>, request: &Request) -> Result<Target> {
        let ends = |path: &Path, ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
        let target = match out {
            None => Target::File(unused_name(request)?),
            Some(path) if is_png(path) => {
                check_new(path, force)?;
                Target::File(path.to_path_buf())
            }
            Some(path) if OTHER_FORMATS.iter().any(|ending| ends(path, ending)) => {
                let path = path.display();
                return fail(format!(
                    "cannot write {path}: pictures are PNG files; let --out end in .png, or name a folder"
                ));
            }
            Some(folder) => {
                if let Some(what) = one_picture {
                    return fail(format!("{what} one picture: let --out end in .png"));
                }
                files::create_folder(folder)?;
                file_names(folder, request).iter().try_for_each(|path| check_new(path, force))?;
                Target::Folder(folder.to_path_buf())
            }
        };
        // Found out now rather than after minutes of drawing.
        match &target {
            Target::File(path) => files::check_file(path)?,
            Target::Folder(folder) => files::check_writable(folder)?,
        }
        Ok(target)
    }
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
}

/// An error if there is such a file and it is not to be replaced.
pub fn check_new(path: &Path, force: bool) -> Result<()> {
    match path.exists() && !force {
        true => fail(format!("{} exists; choose another name, or add --force to replace it", path.display())),
        false => Ok(()),
    }
}

/// The folder for the results of a measurement, and its files in it: made, and tried, before anything is computed.
pub fn results(folder: &Path, names: &[&str], force: bool) -> Result<()> {
    files::create_folder(folder)?;
    names.iter().try_for_each(|name| check_new(&folder.join(name), force))?;
    Ok(files::check_writable(folder)?)
}

/// A PNG in the current folder named after the first prompt; a number is added if there is one of that name.
fn unused_name(request: &Request) -> Result<PathBuf> {
    let stem = slug(&request.prompts[0]);
    let numbered = (2..10_000).map(|i| format!("{stem}-{i}.png"));
    let name = std::iter::once(format!("{stem}.png")).chain(numbered).find(|n| !Path::new(n).exists());
    name.map(PathBuf::from)
        .ok_or_else(|| Failure(format!("there are thousands of images named {stem}; name one with --out")))
}

/// A prompt as part of a file name.
fn slug(prompt: &str) -> String {
    let words: Vec<String> =
        prompt.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    let mut slug = words.join("-");
    let end = slug.char_indices().map(|(i, _)| i).take_while(|&i| i <= 60).last().unwrap_or(0);
    if slug.len() > 60 {
        slug.truncate(end);
    }
    if slug.is_empty() { "image".to_string() } else { slug }
}

/// One file an image: row, prompt, number.
pub fn file_names(folder: &Path, request: &Request) -> Vec<PathBuf> {
    let name =
        |row: usize, prompt: &str, i: usize| format!("{:03}-{}-seed{}-{i:03}.png", row + 1, slug(prompt), request.seed);
    let row = |(row, prompt): (usize, &String)| -> Vec<PathBuf> {
        (0..request.count).map(|i| folder.join(name(row, prompt, i))).collect()
    };
    request.prompts.iter().enumerate().flat_map(row).collect()
}

/// What every picture remembers of how it was drawn.
pub fn texts<const N: usize>(request: &Request, others: [(&str, String); N]) -> Text {
    let mut text = Text::from(others.map(|(key, value)| (key.to_string(), value)));
    text.insert("prompt".to_string(), request.prompts.join("; "));
    text.insert("seed".to_string(), request.seed.to_string());
    text.insert("Software".to_string(), format!("imagen {}", env!("CARGO_PKG_VERSION")));
    text
}

/// A small picture in the terminal, if there is one.
pub fn preview(picture: &Picture, common: &Common) {
    if terminal::supported() && !common.json && !common.quiet {
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(80).min(100);
        print(terminal::preview(picture, columns, terminal::Colours::of_terminal()));
    }
}

/// A bar over so many images or steps, if there is somebody to see it.
pub fn progress_bar(quiet: bool, length: usize, unit: &str) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{eta}} left"));
    ProgressBar::new(length as u64).with_style(style.expect("the template is right"))
}
