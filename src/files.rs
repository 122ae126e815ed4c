//! Writing files so that nothing of the user's is ever lost: the new file is complete on disk before the old one goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file or folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {}", path.display(), explain(source))]
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
fn explain(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "check who owns it, or choose another place",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another disk; nothing was overwritten"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose a folder that can be written to",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "something else is in the way there",
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// The whole of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|e| FileError::new("read", path, e))
}

/// The whole of a text file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|e| FileError::new("read", path, e))
}

/// A folder and all above it.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|e| FileError::new("create folder", path, e))
}

/// Writes `bytes` to a temporary file beside `path`, syncs it and renames it over `path`. Whatever fails, the file that
/// was there stays whole and no temporary file is left.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| {
        FileError::new("write", path, io::Error::new(io::ErrorKind::InvalidInput, "this names no file"))
    })?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(temporary_name);
    let result = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // Best effort: the error that matters is the one that is returned.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(|e| FileError::new("write", path, e))
}

/// An error unless files can be made in `folder`; leaves nothing there.
pub fn check_writable(folder: &Path) -> Result<(), FileError> {
    let probe = folder.join(format!(".imagen-{}-probe.tmp", std::process::id()));
    let made = File::create(&probe).map_err(|e| FileError::new("write to", folder, e));
    // Best effort: a probe that cannot be removed could not have been made.
    let _ = fs::remove_file(&probe);
    made.map(drop)
}

/// Makes a rename or a new file within `folder` survive a power cut, where the system can do that.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| FileError::new("sync", folder, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        fs::write(occupied.join("precious"), "old").unwrap();
        // A rename onto a folder that is not empty fails for every user, root included.
        assert!(write(&occupied, b"new").is_err());
        assert_eq!(fs::read_to_string(occupied.join("precious")).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_replaces_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"a longer first version").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read(&path).unwrap(), b"second");
    }
}
