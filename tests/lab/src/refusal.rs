//! Why the lab will not, or can not, go on: one sentence each, with an exit code by class.

/// An error whose class decides the exit code. Everything else ends with code 1.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Wrong usage or a wrong scenario file.
    #[error("{0}")]
    Usage(String),
    /// A privilege is missing.
    #[error("{0}")]
    Privilege(String),
    /// The system lacks something that the lab needs.
    #[error("{0}")]
    Facility(String),
    /// The user asked to stop.
    #[error("stopped on request; everything the lab had set up is gone again")]
    Interrupted,
}

impl Refusal {
    /// The exit code of this class.
    pub fn exit_code(&self) -> u8 {
        match self {
            Refusal::Usage(_) => 2,
            Refusal::Privilege(_) => 3,
            Refusal::Facility(_) => 4,
            Refusal::Interrupted => 130,
        }
    }
}
