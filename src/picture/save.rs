//! Files that are either wholly there or as they were before.

use super::PictureError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `bytes` to the file `path`, atomically: into a temporary file of the same folder, synced, then renamed. On an
/// error the temporary file is removed, and an older file of that name is untouched.
pub fn save(path: &Path, bytes: &[u8]) -> Result<(), PictureError> {
    replace(path, |file| file.write_all(bytes))
}

/// [`save`] with what `fill` writes.
pub(super) fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), PictureError> {
    let explain = |source| explain(path, source);
    let target = target(path)?;
    let folder = folder_of(&target);
    let temporary = Temporary(folder.join(temporary_name()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary.0).map_err(explain)?;
    fill(&mut file).and_then(|()| file.sync_all()).map_err(explain)?;
    drop(file);
    fs::rename(&temporary.0, &target).map_err(explain)?;
    // The file is complete by now; a folder that cannot be synced (some systems refuse) does not change that.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The file to replace: `path`, or what it points to, for renaming over a link would replace the link.
fn target(path: &Path) -> Result<PathBuf, PictureError> {
    let path_buf = || path.to_path_buf();
    if path.file_name().is_none() {
        return Err(PictureError::NotAFile { path: path_buf() });
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(PictureError::NotAFile { path: path_buf() }),
        // Renaming would go through where opening the file would not.
        Ok(found) if found.permissions().readonly() => Err(PictureError::ReadOnly { path: path_buf() }),
        Ok(_) => fs::canonicalize(path).map_err(|source| explain(path, source)),
        Err(_) => Ok(path_buf()),
    }
}

/// The folder of a file; the current one for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name no other writer uses, short whatever the name of the target.
fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(".imagen-{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes its file when dropped. After a rename there is nothing of that name left to remove.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn explain(path: &Path, source: io::Error) -> PictureError {
    let (folder, path) = (folder_of(path).to_path_buf(), path.to_path_buf());
    match source.kind() {
        ErrorKind::NotFound => PictureError::NoFolder { path, folder },
        ErrorKind::NotADirectory => PictureError::NotAFolder { path, folder },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => PictureError::ReadOnly { path },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => PictureError::DiskFull { path },
        _ => PictureError::Io { action: "write", path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
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
        assert!(matches!(&error, PictureError::DiskFull { path: p } if *p == path), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn errors_of_the_system_become_advice() {
        for (kind, advice) in [
            (ErrorKind::PermissionDenied, "read-only; allow writing there"),
            (ErrorKind::ReadOnlyFilesystem, "read-only; allow writing there"),
            (ErrorKind::QuotaExceeded, "free some space"),
            (ErrorKind::NotFound, "there is no folder out; create it"),
        ] {
            let message = explain(Path::new("out/a.png"), kind.into()).to_string();
            assert!(message.starts_with("cannot write out/a.png: ") && message.contains(advice), "{message}");
        }
    }
}
