//! Where pictures go, and what is seen of them on the way.

use super::request::single;
use super::{Common, Failure, Result, fail, note, print};
use clap::Args;
use imagen::cascade::Request;
use imagen::files;
use imagen::picture::{self, Picture, Text, terminal};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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

    /// Writes it. The files that were written.
    pub fn save(&self, picture: &Picture, text: &Text) -> Result<Vec<PathBuf>> {
        save(&self.out, &picture::encode(picture, text)?, self.force)?;
        Ok(vec![self.out.clone()])
    }
}

/// Where images go: whole into one file, or one by one into a folder. Files that exist are replaced if the flag says so.
pub enum Target {
    /// A new file in the current folder whose name begins so.
    Unused(String),
    File(PathBuf, bool),
    /// The file of each image.
    Folder(Vec<PathBuf>, bool),
}

/// Endings that mean a picture, not a folder.
const OTHER_FORMATS: [&str; 7] = ["jpg", "jpeg", "gif", "webp", "bmp", "tif", "svg"];

impl Target {
    /// What `out` means for the images of a request; a new PNG named after the prompt, if it is not given. `one_picture` is what
    /// is to be drawn, if a folder cannot hold it. Checked before anything is drawn.
    pub fn of(out: Option<&Path>, force: bool, one_picture: Option<&str>, request: &Request) -> Result<Target> {
        let ends = |path: &Path, ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
        // What cannot be written is found out now rather than after minutes of drawing.
        match out {
            None => {
                let stem = slug(&request.prompts[0]);
                files::check_file(&unused_name(&stem)?)?;
                Ok(Target::Unused(stem))
            }
            Some(path) if is_png(path) => {
                check_new(path, force)?;
                files::check_file(path)?;
                Ok(Target::File(path.to_path_buf(), force))
            }
            Some(path) if OTHER_FORMATS.iter().any(|ending| ends(path, ending)) => {
                let path = path.display();
                fail(format!("cannot write {path}: pictures are PNG files; let --out end in .png, or name a folder"))
            }
            Some(folder) => {
                if let Some(what) = one_picture {
                    return fail(format!("{what} one picture: let --out end in .png"));
                }
                files::create_folder(folder)?;
                let paths = file_names(folder, request);
                paths.iter().try_for_each(|path| check_new(path, force))?;
                files::check_writable(folder)?;
                Ok(Target::Folder(paths, force))
            }
        }
    }

    /// Writes all images as one `sheet`, or every image by itself, whichever it is. The files that were written.
    pub fn write(
        self,
        common: &Common,
        sheet: impl FnOnce() -> Result<(Picture, Text)>,
        single: impl Fn(usize) -> Result<(Picture, Text)>,
    ) -> Result<Vec<PathBuf>> {
        let encode = |(picture, text): &(Picture, Text)| picture::encode(picture, text);
        if let Target::Folder(paths, force) = self {
            for (i, path) in paths.iter().enumerate() {
                save(path, &encode(&single(i)?)?, force)?;
            }
            return Ok(paths);
        }
        let sheet = sheet()?;
        let bytes = encode(&sheet)?;
        let path = match self {
            Target::File(path, force) => save(&path, &bytes, force).map(|()| path)?,
            Target::Unused(stem) => save_unused(&stem, &bytes)?,
            Target::Folder(..) => unreachable!("returned above"),
        };
        preview(&sheet.0, common);
        Ok(vec![path])
    }
}

/// Prints what was written: a line a file, or as JSON with `more`, an object.
pub fn report(common: &Common, files: &[PathBuf], mut more: Value) {
    if common.json {
        more["files"] = json!(files);
        print(more);
    } else {
        files.iter().for_each(|path| print(path.display()));
    }
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
}

/// Whether there is anything of that name: a link to nothing is one too.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// An error if there is such a file and it is not to be replaced.
pub fn check_new(path: &Path, force: bool) -> Result<()> {
    match exists(path) && !force {
        true => fail(format!("{} exists; choose another name, or add --force to replace it", path.display())),
        false => Ok(()),
    }
}

/// Writes a file. Without `force`, one that somebody else has made since [`check_new`] is not replaced.
pub fn save(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    if force {
        return Ok(files::write(path, bytes)?);
    }
    match files::publish_new(path, bytes) {
        Err(e) if e.source.kind() == ErrorKind::AlreadyExists => check_new(path, false),
        written => Ok(written?),
    }
}

/// Writes a PNG under the first name with this stem that is free at that moment, and says which.
fn save_unused(stem: &str, bytes: &[u8]) -> Result<PathBuf> {
    loop {
        let path = unused_name(stem)?;
        match files::publish_new(&path, bytes) {
            // Another program was faster.
            Err(e) if e.source.kind() == ErrorKind::AlreadyExists => {}
            written => return Ok(written.map(|()| path)?),
        }
    }
}

/// The files that a measurement leaves in a folder.
pub struct Results<const N: usize> {
    folder: PathBuf,
    names: [&'static str; N],
    force: bool,
}

impl<const N: usize> Results<N> {
    /// The folder is made, and every file tried, before anything is computed.
    pub fn new(folder: PathBuf, names: [&'static str; N], force: bool) -> Result<Results<N>> {
        files::create_folder(&folder)?;
        for name in names {
            check_new(&folder.join(name), force)?;
            files::check_file(&folder.join(name))?;
        }
        Ok(Results { folder, names, force })
    }

    /// Writes the files, in the order of their names.
    pub fn save(&mut self, contents: &[String; N]) -> Result<()> {
        for (name, content) in self.names.iter().zip(contents) {
            save(&self.folder.join(name), content.as_bytes(), self.force)?;
        }
        // What is there now is ours: the next time may replace it.
        self.force = true;
        Ok(())
    }

    /// [`Results::save`], and a word on it. A failure does not end the program: what took hours to find is still to be printed.
    pub fn finish(&mut self, contents: &[String; N]) -> ExitCode {
        match self.save(contents) {
            Ok(()) => {
                note(format!("saved in {}", self.folder.display()));
                ExitCode::SUCCESS
            }
            Err(Failure(message)) => {
                note(format!("error: {message}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// The name of a PNG in the current folder; a number is added if there is something of that name.
fn unused_name(stem: &str) -> Result<PathBuf> {
    let numbered = (2..10_000).map(|i| format!("{stem}-{i}.png"));
    let name = std::iter::once(format!("{stem}.png")).chain(numbered).find(|n| !exists(Path::new(n)));
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

/// One file an image: row, prompt, and what its noise is keyed by, the seed and its number.
fn file_names(folder: &Path, request: &Request) -> Vec<PathBuf> {
    let single = |i: usize| {
        let Request { prompts, seed, first, .. } = single(request, i);
        folder.join(format!("{:03}-{}-seed{seed}-{first:03}.png", i / request.count + 1, slug(&prompts[0])))
    };
    (0..request.prompts.len() * request.count).map(single).collect()
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
fn preview(picture: &Picture, common: &Common) {
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
