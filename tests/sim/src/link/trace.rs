//! Recorded links: Mahimahi trace files.
//!
//! A trace is a list of moments in whole milliseconds, one per line, in order.
//! Each is an opportunity to deliver 1,500 bytes; a moment may stand several
//! times. The file is replayed in a loop whose length is its last moment.
//! Opportunities that find the queue empty are gone, and a packet that does not
//! fit into one is continued in the next.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Bytes of IP packets that one opportunity carries. A recorded trace counted
/// packets of this size, so a link that replays one adds no overhead per packet.
pub const OPPORTUNITY_BYTES: u64 = 1500;

/// A trace by the name of its file; its moments, once they were read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Trace {
    file: String,
    opportunities_ms: Arc<[u64]>,
}

impl From<String> for Trace {
    fn from(file: String) -> Self {
        Trace {
            file,
            opportunities_ms: Arc::from([]),
        }
    }
}

impl From<Trace> for String {
    fn from(trace: Trace) -> Self {
        trace.file
    }
}

impl Trace {
    /// A trace out of the text of a file; `file` names it in complaints.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let mut opportunities_ms = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let moment: u64 = line.parse().map_err(|_| {
                format!("{file}:{number}: \"{line}\" is not a whole number of milliseconds")
            })?;
            if opportunities_ms.last().is_some_and(|last| *last > moment) {
                return Err(format!(
                    "{file}:{number}: {moment} ms comes before the line above it; \
                     a trace lists its moments in order"
                ));
            }
            opportunities_ms.push(moment);
        }
        match opportunities_ms.last() {
            None => Err(format!(
                "{file}: the trace holds no moment at which a packet may pass"
            )),
            Some(0) => Err(format!(
                "{file}: the trace ends at 0 ms and so cannot be repeated"
            )),
            Some(_) => Ok(Trace {
                file: file.to_owned(),
                opportunities_ms: opportunities_ms.into(),
            }),
        }
    }

    /// Reads the file that a scenario named; a relative name is looked up beside
    /// the scenario, in `folder`.
    pub fn load(&mut self, folder: &Path) -> Result<(), String> {
        let path = folder.join(&self.file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: the trace cannot be read: {error}", path.display()))?;
        *self = Trace {
            file: self.file.clone(),
            ..Trace::parse(&path.to_string_lossy(), &text)?
        };
        Ok(())
    }

    /// Whether its moments are known, so that a link can replay it.
    pub fn is_loaded(&self) -> bool {
        !self.opportunities_ms.is_empty()
    }

    /// The mean rate in bits per second; 0 for a trace that was not loaded.
    pub fn mean_rate_bit_s(&self) -> u64 {
        let count = self.opportunities_ms.len() as u64;
        (count * OPPORTUNITY_BYTES * 8 * 1000)
            .checked_div(self.period_ms())
            .unwrap_or(0)
    }

    fn period_ms(&self) -> u64 {
        self.opportunities_ms.last().copied().unwrap_or(0)
    }
}

/// Where a replay stands.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    moments_ms: Arc<[u64]>,
    /// When the replay began, in nanoseconds.
    origin: u64,
    round: u64,
    index: usize,
}

impl Replay {
    /// A replay that begins at `origin`. None for a trace that was not loaded.
    pub(super) fn new(trace: &Trace, origin: u64) -> Option<Self> {
        let moments_ms = Arc::clone(&trace.opportunities_ms);
        trace.is_loaded().then_some(Replay {
            moments_ms,
            origin,
            round: 0,
            index: 0,
        })
    }

    fn period_ms(&self) -> u64 {
        self.moments_ms.last().copied().unwrap_or(1)
    }

    /// The next opportunity, in nanoseconds.
    pub(super) fn next(&self) -> u64 {
        let moment = self.round * self.period_ms() + self.moments_ms[self.index];
        self.origin.saturating_add(moment.saturating_mul(1_000_000))
    }

    /// The next opportunity has passed.
    pub(super) fn advance(&mut self) {
        self.index += 1;
        if self.index == self.moments_ms.len() {
            self.index = 0;
            self.round += 1;
        }
    }

    /// Lets every opportunity before `time` go by unused.
    pub(super) fn skip_to(&mut self, time: u64) {
        if self.next() >= time {
            return;
        }
        // Rounded up: an opportunity in the middle of this millisecond has not passed.
        let elapsed_ms = time.saturating_sub(self.origin).div_ceil(1_000_000);
        let round = elapsed_ms.saturating_sub(1) / self.period_ms();
        let within_ms = elapsed_ms - round * self.period_ms();
        let index = self
            .moments_ms
            .partition_point(|moment| *moment < within_ms);
        if (round, index) > (self.round, self.index) {
            (self.round, self.index) = (round, index);
        }
    }
}
