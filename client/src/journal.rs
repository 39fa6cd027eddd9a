//! What was changed on this machine and how to take it back, on disk before it
//! is done.
//!
//! Each change is written to the journal, and the journal to the disk, before
//! the change is made. So whenever the client dies, even by SIGKILL in the
//! middle of a change, the journal names at least everything that was done.
//! Taking back is therefore made to be harmless when there is nothing to take
//! back: a rule that is not there is not missed, and a file or kernel setting is
//! put back only while it still holds what we wrote.
//!
//! The journal knows which boot of the machine it belongs to. Rules, routes and
//! kernel settings do not survive a reboot, and nothing of the kind is touched
//! for a journal of an earlier boot; files do, and are put back.

use std::fs;
use std::path::{Path, PathBuf};

use marline_io::failure::{Context, Failure};
use marline_io::netlink::Netlink;
use marline_io::state_file;
use serde::{Deserialize, Serialize};

use crate::dns;
use crate::routing::{Step, apply};

/// The journal's name within the state directory.
const FILE: &str = "undo.json";

/// One change and what is needed to take it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "snake_case")]
pub enum Entry {
    /// Rules, routes, kernel settings.
    Routing {
        /// The change.
        step: Step,
    },
    /// The resolver's settings.
    Dns {
        /// The change.
        change: dns::Change,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    boot: String,
    entries: Vec<Entry>,
}

/// The journal of one state directory.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    content: Content,
}

impl Journal {
    /// Opens the journal in `state_dir`, with what an earlier run left in it. Makes the
    /// directory when it is missing.
    pub fn open(state_dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(state_dir)
            .context(format!("cannot make the directory {}", state_dir.display()))?;
        let path = state_dir.join(FILE);
        let content = state_file::read(&path)?.unwrap_or_else(|| Content {
            boot: boot_id(),
            entries: Vec::new(),
        });
        Ok(Journal { path, content })
    }

    /// Whether there is anything to take back in `state_dir`.
    pub fn is_left_in(state_dir: &Path) -> bool {
        state_dir.join(FILE).exists()
    }

    /// Whether there is nothing to take back.
    pub fn is_empty(&self) -> bool {
        self.content.entries.is_empty()
    }

    /// Makes one change to rules, routes or kernel settings.
    pub async fn apply_step(&mut self, netlink: &Netlink, step: &Step) -> Result<(), Failure> {
        self.note(Entry::Routing { step: step.clone() })?;
        apply::make(netlink, step).await
    }

    /// Makes the change to the resolver's settings.
    pub fn apply_dns(&mut self, change: &dns::Change) -> Result<(), Failure> {
        self.note(Entry::Dns {
            change: change.clone(),
        })?;
        dns::make(change)
    }

    /// The changes to rules, routes and kernel settings that were made.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.content.entries.iter().filter_map(|entry| match entry {
            Entry::Routing { step } => Some(step),
            Entry::Dns { .. } => None,
        })
    }

    /// Takes everything back, last change first, and returns how many changes that were. Goes on
    /// after an error; what could not be taken back stays in the journal for the next attempt.
    pub async fn undo_all(&mut self, netlink: &Netlink) -> Result<usize, Failure> {
        let same_boot = self.content.boot == boot_id();
        let mut undone = 0;
        let mut first_failure = None;
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.content.entries).into_iter().rev() {
            let result = match &entry {
                Entry::Routing { step } if same_boot => apply::take_back(netlink, step).await,
                Entry::Routing { .. } => Ok(()),
                Entry::Dns { change } => dns::take_back(change, same_boot),
            };
            match result {
                Ok(()) => undone += 1,
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                    kept.push(entry);
                }
            }
        }
        kept.reverse();
        self.content.entries = kept;
        match first_failure {
            None => {
                state_file::remove(&self.path)?;
                self.content.boot = boot_id();
                Ok(undone)
            }
            Some(failure) => {
                state_file::write(&self.path, &self.content)?;
                Err(failure
                    .while_doing("not everything could be put back")
                    .with_advice("mend what is named here, then run `marline restore`"))
            }
        }
    }

    /// Writes one entry to the disk, once: a change that is made again (a rule that somebody
    /// removed) is taken back once as well.
    fn note(&mut self, entry: Entry) -> Result<(), Failure> {
        if self.content.entries.contains(&entry) {
            return Ok(());
        }
        self.content.entries.push(entry);
        state_file::write(&self.path, &self.content)
    }
}

/// Names the present boot of the machine; empty where the system has no such name.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
