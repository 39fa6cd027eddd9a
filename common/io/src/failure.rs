//! What is told to a person when something cannot be done.
//!
//! A [`Failure`] is one sentence that says what is wrong and where, an optional
//! piece of advice that says what to do about it, and a [`Class`] that becomes
//! the process's exit code, so that a script can tell a typing error from a
//! server that is away without reading prose. It can be serialised: a daemon
//! sends it through the control socket and the command line prints it as if it
//! had happened there.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What kind of thing went wrong; each has its own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Anything that fits nowhere else: exit code 1.
    Other,
    /// Wrong usage or configuration: exit code 2.
    Usage,
    /// A privilege is missing: exit code 3.
    Privilege,
    /// The system lacks something we need (`/dev/net/tun`, `nft`): exit code 4.
    Facility,
    /// The network or the other side (unreachable, wrong key): exit code 5.
    Network,
    /// Something else is in the way (already running, port in use): exit code 6.
    Conflict,
    /// The daemon that was asked for does not run: exit code 7.
    NotRunning,
}

impl Class {
    /// The exit code of a process that ends for this reason.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Other => 1,
            Class::Usage => 2,
            Class::Privilege => 3,
            Class::Facility => 4,
            Class::Network => 5,
            Class::Conflict => 6,
            Class::NotRunning => 7,
        }
    }

    /// The class that an error of the operating system most likely belongs to.
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Class::Privilege,
            io::ErrorKind::AddrInUse | io::ErrorKind::ResourceBusy => Class::Conflict,
            io::ErrorKind::Unsupported => Class::Facility,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut => Class::Network,
            _ => Class::Other,
        }
    }
}

/// A sentence about what is wrong, what to do about it, and its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    class: Class,
    sentence: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Failure {
    /// A failure of `class`; `sentence` says what is wrong and where, without a full stop.
    pub fn new(class: Class, sentence: impl Into<String>) -> Self {
        Failure {
            class,
            sentence: sentence.into(),
            advice: None,
        }
    }

    /// Wrong usage or configuration.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Failure::new(Class::Usage, sentence)
    }

    /// An error of the operating system that happened while doing `what` ("cannot open /dev/x").
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Failure::new(Class::of(error), format!("{what}: {}", plain(error)))
    }

    /// The same failure with a second sentence that says what to do, without a full stop.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The same failure, put into another class.
    #[must_use]
    pub fn in_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The same failure, its sentence preceded by `what`.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.sentence = format!("{what}: {}", self.sentence);
        self
    }

    /// What kind of thing went wrong.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What is wrong, without the advice.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The exit code of a process that ends for this reason.
    pub fn exit_code(&self) -> u8 {
        self.class.exit_code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(Class::of(&error), plain(&error))
    }
}

/// Adds to an error what was being done when it happened.
pub trait Context<T> {
    /// Turns the error into a [`Failure`] whose sentence starts with `what` ("cannot write X").
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::io(what, &error))
    }
}

impl<T> Context<T> for Result<T, Failure> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|failure| failure.while_doing(what))
    }
}

/// The error in words, without the "(os error 13)" that only a programmer wants.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        // "Permission denied" in the middle of a sentence starts with a small letter; "TUN" does not.
        Some(first) if !chars.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_one_line_with_its_advice() {
        let failure = Failure::usage("line 3: \"port\" is too large").with_advice("use 1 to 65535");
        assert_eq!(
            failure.to_string(),
            "line 3: \"port\" is too large; use 1 to 65535"
        );
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn an_error_of_the_system_gets_its_class_and_loses_its_number() {
        let denied = io::Error::from_raw_os_error(13);
        let failure = Failure::io("cannot open /dev/net/tun", &denied);
        assert_eq!(
            failure.to_string(),
            "cannot open /dev/net/tun: permission denied"
        );
        assert_eq!(failure.class(), Class::Privilege);
    }

    #[test]
    fn context_is_added_in_front() {
        let failed: io::Result<()> = Err(io::Error::from(io::ErrorKind::AddrInUse));
        let failure = failed
            .context("cannot listen on port 51820")
            .context("the server cannot start");
        let failure = failure.expect_err("it was an error");
        assert!(
            failure
                .to_string()
                .starts_with("the server cannot start: cannot listen on port 51820: ")
        );
        assert_eq!(failure.class(), Class::Conflict);
    }

    #[test]
    fn a_failure_survives_the_way_through_json() {
        let failure =
            Failure::new(Class::Network, "the server does not answer").with_advice("wait");
        let text = serde_json::to_string(&failure).expect("a failure is plain data");
        assert_eq!(
            serde_json::from_str::<Failure>(&text).expect("our own text"),
            failure
        );
    }
}
