//! A file for one input: the readers of settings and state take a path.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A private file that is there for as long as this lives.
pub struct InputFile(PathBuf);

impl InputFile {
    /// Writes the bytes to a file of its own.
    ///
    /// # Panics
    /// If the system's directory for such files takes none.
    pub fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("marline-fuzz-{}-{number}", std::process::id());
        let file = InputFile(std::env::temp_dir().join(name));
        write(&file.0, bytes).expect("the system's temporary directory takes a file");
        file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for InputFile {
    fn drop(&mut self) {
        // One that stays is the system's to clean up.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    // A client refuses settings with a key that others can read.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}
