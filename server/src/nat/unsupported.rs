//! Elsewhere than on Linux nothing is planned and nothing is changed yet.

use std::path::Path;

use marline_io::failure::{Class, Failure};

use super::{Facts, Plan};

fn unsupported() -> Failure {
    Failure::new(
        Class::Facility,
        "forwarding is not supported on this system yet",
    )
    .with_advice("run the server on Linux")
}

/// Not supported yet.
pub async fn facts() -> Result<Facts, Failure> {
    Err(unsupported())
}

/// Not supported yet.
pub fn apply(_plan: &Plan, _journal_file: &Path) -> Result<(), Failure> {
    Err(unsupported())
}

/// Not supported yet.
pub fn undo(_journal_file: &Path) -> Result<Vec<String>, Failure> {
    Err(unsupported())
}
