//! A file for one input: the readers of settings and state take a path.

use std::io::Write;

use tempfile::NamedTempFile;

/// A file of these bytes that nobody else can read, there for as long as this lives.
///
/// # Panics
/// If the system's directory for such files takes none.
pub fn holding(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("the system's temporary directory takes a file");
    file.write_all(bytes).expect("the file takes the input");
    file
}
