//! Writing files so that nothing of the user's is ever lost: the new file is complete on disk before the old one goes.

use memmap2::Mmap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file or folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {}", path.display(), explain(action, path, source))]
pub struct FileError {
    /// What was attempted: "read", "write", "create folder".
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// The error `source` of `action` on `path`.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> FileError {
        FileError { action, path: path.into(), source }
    }
}

/// The system's message, with what to do about it.
fn explain(action: &str, path: &Path, error: &io::Error) -> String {
    let advice = match (error.kind(), action) {
        (ErrorKind::NotFound, "write") => {
            return format!("there is no folder {}; create it, or choose another", folder_of(path).display());
        }
        (ErrorKind::NotFound, _) => "check the path",
        (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem, "read") => "check who may read it",
        (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem, _) => {
            "it or its folder is read-only; allow writing there, or choose another place"
        }
        (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => {
            "the disk is full; free some space or choose another disk; nothing was overwritten"
        }
        (ErrorKind::NotADirectory | ErrorKind::AlreadyExists, _) => {
            "something else is in the way there; choose another place"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// The whole of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|e| FileError::new("read", path, e))
}

/// The whole of a file that should not be large. One of more than `most` bytes is an error, and no more is read of it.
pub fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let failed = |e| FileError::new("read", path, e);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let message = format!("it has more than {most} bytes, which no file of its kind should have");
        return Err(failed(io::Error::new(ErrorKind::InvalidData, message)));
    }
    Ok(bytes)
}

/// The whole of a text file of at most 64 MiB: a config, an index.
pub fn read_small_text(path: &Path) -> Result<String, FileError> {
    let bytes = read_at_most(path, 64 << 20)?;
    String::from_utf8(bytes).map_err(|e| FileError::new("read", path, io::Error::new(ErrorKind::InvalidData, e)))
}

/// The whole of a text file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|e| FileError::new("read", path, e))
}

/// A file's bytes, mapped: they are read from the disk where they are looked at.
///
/// Sound as long as no other program writes to the file meanwhile. A file that is replaced by another, as [`write()`] does it, is not
/// written to. If it is cut short, looking at what is gone ends the process (SIGBUS), as in every program that maps files.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> Result<Mmap, FileError> {
    let failed = |e| FileError::new("read", path, e);
    let file = File::open(path).map_err(failed)?;
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// All ordinary files in a folder and the folders within it, in the order of their paths. Links to folders are not followed.
pub fn all_within(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let (mut files, mut unread) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = unread.pop() {
        let failed = |e| FileError::new("read", &folder, e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_type().map_err(failed)? {
                kind if kind.is_dir() => unread.push(entry.path()),
                kind if kind.is_file() || entry.path().is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A folder and all above it.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|e| FileError::new("create folder", path, e))
}

/// Writes `bytes` to the file `path`, atomically: into a temporary file of the same folder, synced, then renamed.
/// Whatever fails, the file that was there stays whole and no temporary file is left. A link stays a link: the file it
/// points to is replaced. A file that is marked read-only, a link to nothing, and what is no ordinary file, is an error.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, |file| file.write_all(bytes))
}

/// Writes `bytes` to a new file `path`, atomically as [`write()`] does. If there is anything of that name when the file is
/// complete, even if it was not there at the start, that stays, and the error is of the kind `AlreadyExists`.
pub fn publish_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut new = NewFile::begin(path)?;
    new.fill(|file| file.write_all(bytes))?;
    new.publish()
}

/// What [`publish_new()`] does, for what is made bit by bit. Dropped before it is published, it leaves nothing behind.
pub struct NewFile {
    path: PathBuf,
    file: File,
    temporary: Temporary,
}

impl NewFile {
    /// The beginning of a file that will be named `path`. An error if its folder takes no new files.
    pub fn begin(path: &Path) -> Result<NewFile, FileError> {
        let (file, temporary) = temporary(folder_of(path)).map_err(|e| FileError::new("write", path, e))?;
        Ok(NewFile { path: path.to_path_buf(), file, temporary })
    }

    /// Lets `write` write some of it.
    pub fn fill(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
        write(&mut self.file).map_err(|e| FileError::new("write", &self.path, e))
    }

    /// Gives the file its name. An error of the kind `AlreadyExists` if anything has that name by now.
    pub fn publish(self) -> Result<(), FileError> {
        let NewFile { path, file, temporary } = self;
        let failed = |e| FileError::new("write", &path, e);
        file.sync_all().map_err(failed)?;
        drop(file);
        // Unlike a rename, a second name for the file replaces nothing.
        match fs::hard_link(&temporary.0, &path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(failed(e)),
            Err(_) => claim_and_rename(&temporary.0, &path).map_err(failed)?,
            Ok(()) => {}
        }
        drop(temporary);
        // As in `replace`.
        let _ = sync_folder(folder_of(&path));
        Ok(())
    }
}

/// For disks without hard links (FAT, some network ones): an empty file takes the name, and only then is replaced.
fn claim_and_rename(complete: &Path, path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?;
    fs::rename(complete, path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// [`write()`] with what `fill` writes.
fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
    let failed = |e| FileError::new("write", path, e);
    let target = target(path)?;
    let folder = folder_of(&target);
    let (mut file, temporary) = temporary(folder).map_err(failed)?;
    fill(&mut file).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    fs::rename(&temporary.0, &target).map_err(failed)?;
    // The file is complete by now; a folder that cannot be synced (some systems refuse) does not change that.
    let _ = sync_folder(folder);
    Ok(())
}

/// The file to replace: `path`, or what it points to, for renaming over a link would replace the link.
fn target(path: &Path) -> Result<PathBuf, FileError> {
    let failed = |e| FileError::new("write", path, e);
    let refuse = |kind, why| Err(failed(io::Error::new(kind, why)));
    if path.file_name().is_none() {
        return refuse(ErrorKind::InvalidInput, "this names no file; give it a name");
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            refuse(ErrorKind::InvalidInput, "it exists and is not an ordinary file; choose another name")
        }
        // Renaming would go through where opening the file would not.
        Ok(found) if found.permissions().readonly() => refuse(ErrorKind::PermissionDenied, "permission denied"),
        Ok(_) => fs::canonicalize(path).map_err(failed),
        // Renaming would replace the link, and what it is for would stay away.
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            refuse(ErrorKind::InvalidInput, "it is a link to nothing; remove it, or choose another name")
        }
        Err(_) => Ok(path.to_path_buf()),
    }
}

/// The folder of a file; the current one for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether two paths name the same file, there or yet to be written: however they are spelled, and through links.
pub fn are_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((whole(a), whole(b)), (Some(a), Some(b)) if a == b)
}

/// A path from the root, without links. `None` if its folder is not there.
fn whole(path: &Path) -> Option<PathBuf> {
    let new = || Some(fs::canonicalize(folder_of(path)).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(new)
}

/// What the names of temporary files begin with: short whatever the name of the target.
const TEMPORARY: &str = ".imagen-";

/// A new file in `folder` under a name that no other writer uses.
fn temporary(folder: &Path) -> io::Result<(File, Temporary)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{TEMPORARY}{}-{count}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            // Left by a process that was killed; in a container every process may have the same number.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            result => return result.map(|file| (file, Temporary(path))),
        }
    }
}

/// Removes its file when dropped. After a rename there is nothing of that name left to remove.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether `name` is that of a temporary file: left by a writer that was killed, unless one is at work.
pub fn is_leftover(name: &str) -> bool {
    name.starts_with(TEMPORARY) && name.ends_with(".tmp")
}

/// Removes the files and folders within `folder` whose name `matches`; nothing if there is no such folder.
pub fn remove_matching(folder: &Path, matches: impl Fn(&str) -> bool) -> Result<(), FileError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| FileError::new("read", folder, e))?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&matches)) {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| FileError::new("remove", path, e))?;
    }
    Ok(())
}

/// An error unless [`write()`] could write the file `path` now; nothing is changed.
pub fn check_file(path: &Path) -> Result<(), FileError> {
    temporary(folder_of(&target(path)?)).map_err(|e| FileError::new("write", path, e)).map(drop)
}

/// An error unless files can be made in `folder`; leaves nothing there.
pub fn check_writable(folder: &Path) -> Result<(), FileError> {
    temporary(folder).map_err(|e| FileError::new("write to", folder, e)).map(drop)
}

/// Makes a rename or a new file within `folder` survive a power cut, where the system can do that.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| FileError::new("sync", folder, e))?;
    Ok(())
}

/// What is wrong with a TOML file, as the parser says it, on one line, with the nearest known key if one is unknown.
pub fn toml_mistake(error: &toml::de::Error) -> String {
    let message = error.message();
    let whole = error.to_string();
    let place = whole.lines().next().and_then(|l| l.strip_prefix("TOML parse error at ")).map(|p| format!("{p}: "));
    let mut quoted = message.split('`').skip(1).step_by(2);
    let suggestion = match (message.starts_with("unknown"), quoted.next()) {
        (true, Some(unknown)) => quoted
            .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
            .min()
            .filter(|(distance, known)| *distance <= known.len().max(3) / 2 + 1)
            .map(|(_, known)| format!("; did you mean `{known}`?")),
        _ => None,
    };
    format!("{}{}{}", place.unwrap_or_default(), message.replace('\n', " "), suggestion.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"a longer first version").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_fills_up_half_way_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(&path, "old").unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half of the new")?;
            // What writing to a full disk gives.
            OpenOptions::new().write(true).open("/dev/full")?.write_all(b"the rest")
        })
        .unwrap_err();
        assert!(error.source.kind() == ErrorKind::StorageFull && error.path == path, "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn writing_through_a_link_keeps_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.svg"), folder.path().join("link.svg"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link.svg");
        std::os::unix::fs::symlink("nothing", &link).unwrap();
        for error in [write(&link, b"new").unwrap_err(), check_file(&link).unwrap_err()] {
            assert!(
                error.to_string().ends_with("it is a link to nothing; remove it, or choose another name"),
                "{error}"
            );
        }
        assert_eq!(publish_new(&link, b"new").unwrap_err().source.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("nothing"));
        assert_eq!(names(folder.path()), ["link.svg"]);
    }

    #[test]
    fn of_many_writers_of_a_new_file_one_succeeds_and_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let write = &|i: u8| publish_new(&path, &[i; 9]).map(|()| i);
        let written: Vec<_> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8).map(|i| scope.spawn(move || write(i))).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let (done, refused): (Vec<_>, Vec<_>) = written.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (1, 7));
        assert!(refused.iter().all(|r| r.as_ref().unwrap_err().source.kind() == ErrorKind::AlreadyExists));
        assert_eq!(read(&path).unwrap(), [*done[0].as_ref().unwrap(); 9]);
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn without_hard_links_a_new_file_replaces_nothing_either() {
        let folder = tempfile::tempdir().unwrap();
        let [complete, path] = ["complete", "a.png"].map(|name| folder.path().join(name));
        fs::write(&complete, "new").unwrap();
        fs::write(&path, "old").unwrap();
        assert_eq!(claim_and_rename(&complete, &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), b"old");
        fs::remove_file(&path).unwrap();
        claim_and_rename(&complete, &path).unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        // A name that was taken for nothing is given back.
        claim_and_rename(&complete, &path.with_extension("svg")).unwrap_err();
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn a_file_is_the_same_however_its_path_is_spelled() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("in")).unwrap();
        // None of the files is there yet.
        for (a, b, same) in [
            ("a", "a", true),
            ("a", "./a", true),
            ("a", "in/../a", true),
            ("in/a", "in//a", true),
            ("a", "in/a", false),
            ("a", "b", false),
            ("gone/a", "gone/a", true),
            ("gone/a", "gone/b", false),
        ] {
            assert_eq!(are_same(&path(a), &path(b)), same, "{a} {b}");
        }
        assert!(are_same(Path::new("new-file"), Path::new("./new-file")));
        fs::write(path("a"), "").unwrap();
        assert!(are_same(&path("a"), &path("in/../a")) && !are_same(&path("a"), &path("b")));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
            assert!(are_same(&path("link"), &path("a")));
        }
    }

    #[test]
    fn a_read_only_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(&path, "old").unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        for error in [write(&path, b"new").unwrap_err(), check_file(&path).unwrap_err()] {
            assert!(error.to_string().ends_with("read-only; allow writing there, or choose another place"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_and_folders_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "old").unwrap();
        for path in [Path::new("/dev/full"), folder.path()] {
            for error in [write(path, b"new").unwrap_err(), check_file(path).unwrap_err()] {
                assert!(error.to_string().ends_with("is not an ordinary file; choose another name"), "{error}");
            }
        }
        assert_eq!(names(folder.path()), ["precious"]);
    }

    #[test]
    fn a_new_file_that_is_made_bit_by_bit_replaces_nothing_that_has_come_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let begun = || {
            let mut new = NewFile::begin(&path).unwrap();
            new.fill(|file| file.write_all(b"half ")).unwrap();
            new.fill(|file| file.write_all(b"whole")).unwrap();
            new
        };
        let [first, second] = [begun(), begun()];
        assert!(!path.exists());
        first.publish().unwrap();
        assert_eq!(second.publish().unwrap_err().source.kind(), ErrorKind::AlreadyExists);
        drop(begun());
        assert_eq!(read(&path).unwrap(), b"half whole");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (file, none) = (folder.path().join("file"), folder.path().join("none"));
        fs::write(&file, "old").unwrap();
        let error = write(&none.join("a"), b"new").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(&format!("there is no folder {}; create it, or choose another", none.display()))
        );
        for error in [write(&file.join("a"), b"new").unwrap_err(), create_folder(&file).unwrap_err()] {
            assert!(error.to_string().ends_with("something else is in the way there; choose another place"), "{error}");
        }
        let error = write(&folder.path().join("a".repeat(300)), b"new").unwrap_err();
        assert!(error.to_string().contains("name too long"), "{error}");
        assert!(write(Path::new("/"), b"new").unwrap_err().to_string().contains("names no file"));
        assert_eq!(read(&file).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn errors_of_the_system_become_advice() {
        for (action, kind, advice) in [
            ("write", ErrorKind::PermissionDenied, "read-only; allow writing there"),
            ("write", ErrorKind::ReadOnlyFilesystem, "read-only; allow writing there"),
            ("write", ErrorKind::QuotaExceeded, "free some space"),
            ("write", ErrorKind::NotFound, "there is no folder out; create it"),
            ("read", ErrorKind::NotFound, "check the path"),
            ("read", ErrorKind::PermissionDenied, "check who may read it"),
        ] {
            let message = FileError::new(action, "out/a.png", kind.into()).to_string();
            let start = format!("cannot {action} out/a.png: ");
            assert!(message.starts_with(&start) && message.contains(advice), "{message}");
        }
    }

    #[test]
    fn a_leftover_of_a_killed_process_of_the_same_number_does_not_stop_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let next: Vec<PathBuf> =
            (0..1000).map(|i| folder.path().join(format!("{TEMPORARY}{}-{i}.tmp", std::process::id()))).collect();
        next.iter().for_each(|path| fs::write(path, "half").unwrap());
        write(&folder.path().join("file"), b"whole").unwrap();
        assert_eq!(names(folder.path()).iter().filter(|name| !is_leftover(name)).collect::<Vec<_>>(), ["file"]);
        assert_eq!(names(folder.path()).len(), 1001);
    }
}
