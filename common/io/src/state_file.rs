//! What must outlive the process: undo journals above all.
//!
//! A file is written beside its final name, flushed to the disk, and renamed over
//! the old one, then the directory is flushed too. Whoever reads finds the old
//! content or the new one, in full, even after a `kill -9` or a power cut in
//! between. Only the owner may read it, as it may hold secrets.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Class, Context, Failure};

/// Writes `value` as JSON to `path`, in full or not at all. Missing directories are made.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let cannot = || format!("cannot write {}", path.display());
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::new(Class::Other, format!("{}: {error}", cannot())))?;
    text.push(b'\n');
    let directory = directory_of(path);
    fs::create_dir_all(directory).context(cannot())?;

    let aside = beside(path);
    let written = write_private(&aside, &text).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // The failure that is told is the one that came first.
        let _ = fs::remove_file(&aside);
    }
    written
        .and_then(|()| flush_directory(directory))
        .context(cannot())
}

/// Reads what [`write()`] wrote; `None` when there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::io(
                format!("cannot read {}", path.display()),
                &error,
            ));
        }
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        Failure::usage(format!(
            "{}:{}:{}: the file is damaged: {error}",
            path.display(),
            error.line(),
            error.column()
        ))
        .with_advice("it was changed by hand or by another version; move it away and start again")
    })
}

/// Removes the file; it is no error when there is none.
pub fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    removed
        .and_then(|()| flush_directory(directory_of(path)))
        .context(format!("cannot remove {}", path.display()))
}

/// The directory that holds `path`.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The name under which a file is written before it takes its place. One per process, so that
/// two processes never write into the same.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{}.new", std::process::id()));
    PathBuf::from(name)
}

fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Makes a rename or a removal last. Only Unix lets a directory be opened for that.
fn flush_directory(directory: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        fs::File::open(directory)?.sync_all()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_until_it_is_removed() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("deep/er/state.json");
        assert_eq!(read::<Vec<u32>>(&path).expect("no file is no error"), None);
        write(&path, &vec![1, 2, 3]).expect("written");
        write(&path, &vec![4]).expect("written over");
        assert_eq!(read::<Vec<u32>>(&path).expect("read"), Some(vec![4]));
        let names: Vec<_> = fs::read_dir(path.parent().expect("it has one"))
            .expect("list")
            .collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
        remove(&path).expect("removed");
        remove(&path).expect("removing twice is no error");
        assert_eq!(read::<Vec<u32>>(&path).expect("gone"), None);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("state.json");
        write(&path, &"secret").expect("written");
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("state.json");
        write(&path, &1).expect("written");
        // A directory in the way of the new file makes the write fail as any user.
        fs::create_dir(beside(&path)).expect("a directory in the way");
        let failure = write(&path, &2).expect_err("cannot be written");
        assert!(failure.to_string().contains("state.json"), "{failure}");
        assert_eq!(read::<u8>(&path).expect("read"), Some(1));
    }

    #[test]
    fn a_damaged_file_is_named_with_its_place() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("state.json");
        fs::write(&path, "[1, 2").expect("written");
        let failure = read::<Vec<u32>>(&path).expect_err("damaged");
        assert!(failure.to_string().contains("state.json:1:"), "{failure}");
        assert_eq!(failure.exit_code(), 2);
    }
}
