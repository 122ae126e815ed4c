//! What the examples of the book share: where a chapter's pictures go, and how much work is done for them.

use imagen::files;
use imagen::picture::{self, Picture, Text};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::exit;

/// One run of a chapter's example.
pub struct Chapter {
    folder: PathBuf,
    small: bool,
}

impl Chapter {
    /// Reads the command line. `name` is the chapter's: `ch07`.
    pub fn open(name: &str) -> Chapter {
        let mut chapter = Chapter { folder: Path::new("pictures").join(name), small: false };
        let mut arguments = std::env::args_os().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--small") => chapter.small = true,
                Some("--out") => match arguments.next() {
                    Some(folder) => chapter.folder = folder.into(),
                    None => usage(name, "--out wants a folder"),
                },
                Some("--help" | "-h") => usage(name, ""),
                _ => usage(name, &format!("{argument:?} is not known")),
            }
        }
        chapter
    }

    /// `full`, or `small` when only a quick try is wanted.
    pub fn size<T>(&self, full: T, small: T) -> T {
        if self.small { small } else { full }
    }

    /// Writes the SVG document `svg`.
    pub fn svg(&self, name: &str, svg: &str) -> Result<(), Box<dyn Error>> {
        self.file(name, svg.as_bytes())
    }

    /// Writes `picture` as PNG.
    #[allow(dead_code)] // not every chapter has one
    pub fn png(&self, name: &str, picture: &Picture) -> Result<(), Box<dyn Error>> {
        self.file(name, &picture::encode(picture, &Text::new())?)
    }

    /// Writes any file; one of the same name, of an earlier run, is replaced.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        files::create_folder(&self.folder)?;
        let path = self.folder.join(name);
        files::write(&path, bytes)?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

fn usage(name: &str, mistake: &str) -> ! {
    let flags = format!(
        "Flags: --out DIR   the folder for the pictures [default: pictures/{name}]\n       \
         --small     little work, to see that it runs; the pictures are not those of the book"
    );
    if mistake.is_empty() {
        println!("{flags}");
        exit(0);
    }
    eprintln!("error: {mistake}\n{flags}");
    exit(2);
}
