//! The machine's resolvers while the bond is up, if the configuration names any.
//!
//! Two ways, by what manages `/etc/resolv.conf`: where it is a link into
//! systemd-resolved's directory, `resolvectl` gives the TUN interface its own
//! resolvers and the default domain, and the interface's end takes them back.
//! Otherwise the file itself is replaced, and put back byte for byte, a symbolic
//! link as a link.
//!
//! A plain file is written in place, so that owner, mode and a bind mount stay
//! as they were; that is not atomic, so a file that holds only the beginning of
//! our text still counts as ours when it is put back. A file that anybody else
//! wrote in the meantime is left alone.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use marline_io::failure::{Class, Context, Failure};
use serde::{Deserialize, Serialize};

/// Where programs look for resolvers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The directory that systemd-resolved's `resolv.conf` links point into.
const RESOLVED_DIR: &str = "systemd/resolve/";

/// What was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Original {
    /// No file.
    Missing,
    /// A symbolic link to this path.
    Link(PathBuf),
    /// A file with these bytes.
    File(Vec<u8>),
}

/// A change to the resolver's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A file is replaced.
    File {
        /// The file.
        path: PathBuf,
        /// What it is before.
        original: Original,
        /// What it becomes.
        text: String,
    },
    /// systemd-resolved is told.
    Resolved {
        /// The TUN interface.
        interface: String,
        /// The resolvers.
        servers: Vec<IpAddr>,
    },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |servers: &[IpAddr]| {
            servers
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        match self {
            Change::File { path, text, .. } => {
                let servers: Vec<IpAddr> = text
                    .lines()
                    .filter_map(|line| line.strip_prefix("nameserver ")?.parse().ok())
                    .collect();
                write!(f, "{}: nameserver {}", path.display(), join(&servers))
            }
            Change::Resolved { interface, servers } => {
                write!(f, "resolvectl dns {interface} {}", join(servers))
            }
        }
    }
}

/// What must change so that programs ask `servers`; nothing when the list is empty.
pub fn plan(servers: &[IpAddr], interface: &str, path: &Path) -> Result<Option<Change>, Failure> {
    if servers.is_empty() {
        return Ok(None);
    }
    let original = read_original(path).context(format!("cannot read {}", path.display()))?;
    if let Original::Link(target) = &original
        && target.to_string_lossy().contains(RESOLVED_DIR)
        && has_resolvectl()
    {
        let interface = interface.to_owned();
        return Ok(Some(Change::Resolved {
            interface,
            servers: servers.to_vec(),
        }));
    }
    let mut text =
        "# Written by Marline; the file that was here comes back when it stops.\n".to_owned();
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    Ok(Some(Change::File {
        path: path.to_owned(),
        original,
        text,
    }))
}

/// Makes the change.
pub fn make(change: &Change) -> Result<(), Failure> {
    match change {
        Change::File {
            path,
            original,
            text,
        } => match original {
            Original::File(_) => fs::write(path, text),
            Original::Link(_) | Original::Missing => replace(path, |new| fs::write(new, text)),
        }
        .context(format!("cannot write {}", path.display())),
        Change::Resolved { interface, servers } => {
            let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
            let mut dns = vec!["dns", interface];
            dns.extend(servers.iter().map(String::as_str));
            resolvectl(&dns)?;
            resolvectl(&["domain", interface, "~."])?;
            resolvectl(&["default-route", interface, "yes"])
        }
    }
}

/// Takes the change back, unless somebody else changed the same thing since. What a service
/// holds in memory is only asked for when it is still the `same_boot`.
pub fn take_back(change: &Change, same_boot: bool) -> Result<(), Failure> {
    match change {
        Change::File {
            path,
            original,
            text,
        } => {
            let now = read_original(path).context(format!("cannot read {}", path.display()))?;
            if !is_ours(&now, original, text) {
                return Ok(());
            }
            match original {
                Original::Missing => match fs::remove_file(path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                    result => result,
                },
                Original::Link(target) => replace(path, |new| symlink(target, new)),
                Original::File(bytes) => fs::write(path, bytes),
            }
            .context(format!("cannot put {} back", path.display()))
        }
        // The settings belong to the interface, and it may be gone with them already.
        Change::Resolved { interface, .. } => {
            let there = Path::new("/sys/class/net").join(interface).exists();
            if same_boot && there {
                resolvectl(&["revert", interface])
            } else {
                Ok(())
            }
        }
    }
}

/// Whether the file is as we left it: our text, or as much of our text or of the original as
/// was written when we were killed.
fn is_ours(now: &Original, original: &Original, text: &str) -> bool {
    let Original::File(now) = now else {
        return false;
    };
    let half_put_back = match original {
        Original::File(bytes) => bytes.starts_with(now),
        Original::Missing | Original::Link(_) => false,
    };
    text.as_bytes().starts_with(now) || half_put_back
}

fn read_original(path: &Path) -> io::Result<Original> {
    match fs::read_link(path) {
        Ok(target) => return Ok(Original::Link(target)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Original::Missing),
        // It exists and is no link.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {}
        Err(error) => return Err(error),
    }
    fs::read(path).map(Original::File)
}

/// Makes something new beside `path` and moves it over `path` in one step.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".marline-new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(&new)?;
    fs::rename(&new, path)
}

fn has_resolvectl() -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|dir| dir.join("resolvectl").is_file())
    })
}

fn resolvectl(arguments: &[&str]) -> Result<(), Failure> {
    let shown = arguments.join(" ");
    let output = Command::new("resolvectl")
        .args(arguments)
        .output()
        .context("cannot start resolvectl")?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(
        Class::Facility,
        format!("`resolvectl {shown}` failed: {}", words.trim()),
    )
    .with_advice("take `dns` out of the configuration, or repair systemd-resolved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1))];

    fn planned(path: &Path) -> Change {
        plan(&SERVERS, "marline0", path)
            .expect("readable")
            .expect("something to change")
    }

    fn text_of(change: &Change) -> String {
        match change {
            Change::File { text, .. } => text.clone(),
            Change::Resolved { .. } => panic!("a plain file was planned for"),
        }
    }

    #[test]
    fn nothing_is_planned_without_resolvers() {
        assert_eq!(plan(&[], "marline0", Path::new("/nowhere")), Ok(None));
    }

    #[test]
    fn a_plain_file_comes_back_byte_for_byte() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        let bytes = b"nameserver 192.0.2.1\n\xff no newline at the end";
        fs::write(&path, bytes).expect("written");
        let change = planned(&path);
        make(&change).expect("made");
        assert!(
            fs::read_to_string(&path)
                .expect("text")
                .contains("nameserver 10.77.0.1\n")
        );
        take_back(&change, true).expect("taken back");
        assert_eq!(fs::read(&path).expect("there"), bytes);
    }

    #[test]
    fn a_link_comes_back_as_a_link_and_its_target_is_never_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, target) = (dir.path().join("resolv.conf"), dir.path().join("target"));
        fs::write(&target, "nameserver 192.0.2.1\n").expect("written");
        symlink("target", &path).expect("linked");
        let change = planned(&path);
        make(&change).expect("made");
        assert!(fs::read_link(&path).is_err(), "it is a file meanwhile");
        assert_eq!(
            fs::read_to_string(&target).expect("there"),
            "nameserver 192.0.2.1\n"
        );
        take_back(&change, true).expect("taken back");
        assert_eq!(fs::read_link(&path).expect("a link"), Path::new("target"));
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2);
    }

    #[test]
    fn a_missing_file_is_missing_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        let change = planned(&path);
        make(&change).expect("made");
        assert!(path.exists());
        take_back(&change, true).expect("taken back");
        assert!(!path.exists());
        take_back(&change, true).expect("once more is harmless");
    }

    #[test]
    fn a_file_that_somebody_else_wrote_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").expect("written");
        let change = planned(&path);
        make(&change).expect("made");
        fs::write(&path, "nameserver 203.0.113.5\n").expect("written");
        take_back(&change, true).expect("nothing to do");
        assert_eq!(
            fs::read_to_string(&path).expect("there"),
            "nameserver 203.0.113.5\n"
        );
    }

    #[test]
    fn a_file_that_was_half_written_at_the_moment_of_death_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").expect("written");
        let change = planned(&path);
        for half in [&text_of(&change)[..30], "", "nameser"] {
            fs::write(&path, half).expect("written");
            take_back(&change, true).expect("taken back");
            assert_eq!(
                fs::read_to_string(&path).expect("there"),
                "nameserver 192.0.2.1\n"
            );
        }
    }

    #[test]
    fn the_change_survives_the_journal() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        fs::write(&path, b"\x00\xff").expect("written");
        let change = planned(&path);
        let text = serde_json::to_string(&change).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Change>(&text).expect("our own text"),
            change
        );
    }
}
