//! Copies on suspicion.
//!
//! A thin flow's packet is not copied at once. It is remembered, and when its acknowledgement is not there when it
//! should be ([`crate::path::AnswerTime`]), it goes out once more over the next best path, as a hedge: no proof
//! that it is lost is waited for. So a call costs a copy only for what was probably lost, and a path's death costs
//! it one round trip and a little, earlier than the path itself is suspected.
//!
//! With the first packet that is missed on a silent path, everything goes out again that followed it, and what is sent
//! from then on is copied at once, until something is acknowledged or the path is suspected. So there is one gap, not
//! several. Where packets that were sent later did arrive the path works, and only this one is copied.

use std::collections::VecDeque;
use std::time::Duration;

use super::Bond;
use super::copies::FirstSent;
use crate::limits;
use crate::schedule::PathView;
use crate::store::PacketKey;
use crate::time::Time;

/// A copy that arrives so much later than the packet would have comes too late for a call, whose buffers take up about as
/// much, milliseconds.
const LATE_MS: f64 = 60.0;
/// Packets whose acknowledgements are awaited; more than this and they are not copied. 50 calls, for 100 ms.
const AWAITED_MAX: usize = 256;

/// A packet whose acknowledgement is awaited.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    due: Time,
    sent: Time,
    key: PacketKey,
    /// Tag of the path it went over.
    path: u8,
    len: usize,
    hurried: bool,
}

/// How long to wait for an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// So long.
    pub wait: Duration,
    /// Many acknowledgements take longer, but a later copy would be too late.
    pub hurried: bool,
}

/// What was sent of thin flows and is not acknowledged, in the order of when that is due.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    awaited: VecDeque<Awaited>,
}

impl Unanswered {
    pub fn clear(&mut self) {
        self.awaited.clear();
    }

    pub fn rest(&mut self) {
        self.awaited.shrink_to(limits::IDLE_ENTRIES);
    }

    pub fn next_due(&self) -> Option<Time> {
        self.awaited.front().map(|awaited| awaited.due)
    }
}

impl Bond {
    /// For how long an acknowledgement of a packet on this path may be awaited before it is copied over the other; none if
    /// the copy would come too late for a call even where acknowledgements are no later than usual.
    pub(super) fn patience(&self, index: usize, other: &PathView) -> Option<Patience> {
        let answers = self.paths[index].answers;
        let own = self.order.usable.iter().find(|v| v.index == index)?;
        let most_ms = (LATE_MS - (other.delay_ms - own.delay_ms)).max(0.0);
        let most = Duration::from_secs_f64(most_ms / 1e3);
        let at_most = answers.at_most()?;
        (answers.usual()? < most).then(|| Patience {
            wait: at_most.min(most),
            hurried: most < at_most,
        })
    }

    /// Remembers a packet that was just sent, to be copied when no acknowledgement comes in time.
    pub(super) fn await_answer(&mut self, now: Time, patience: Patience, sent: &FirstSent) {
        let path = self.paths[sent.index].tag;
        let awaited = &mut self.copies.unanswered.awaited;
        if awaited.len() >= AWAITED_MAX {
            return;
        }
        // What went before over a farther path is due first.
        let after = awaited.back().map_or(now, |last| last.due);
        awaited.push_back(Awaited {
            due: (now + patience.wait).max(after),
            sent: now,
            key: sent.key,
            path,
            len: sent.len,
            hurried: patience.hurried,
        });
    }

    /// Copies what was not acknowledged in time.
    pub(super) fn copy_unanswered(&mut self, now: Time) {
        while let Some(&first) = self.copies.unanswered.awaited.front() {
            let waits = self.is_awaited(first.key);
            if waits && first.due > now {
                return;
            }
            self.copies.unanswered.awaited.pop_front();
            if !waits {
                continue;
            }
            self.copy_awaited(now, first);
            let Some(index) = self.path_index(first.path) else {
                continue;
            };
            self.paths[index].note_unanswered(first.sent);
            if self.paths[index].is_unanswered() {
                self.copy_all_awaited(now, first.path);
            }
        }
    }

    /// Copies everything that followed over a path that fell silent.
    fn copy_all_awaited(&mut self, now: Time, path: u8) {
        for _ in 0..self.copies.unanswered.awaited.len() {
            let Some(next) = self.copies.unanswered.awaited.pop_front() else {
                return;
            };
            if next.path != path {
                self.copies.unanswered.awaited.push_back(next);
            } else if self.is_awaited(next.key) {
                self.copy_awaited(now, next);
            }
        }
    }

    /// Whether a packet is under way for the first time and not known to have arrived or to be lost.
    fn is_awaited(&mut self, key: PacketKey) -> bool {
        let stored = self.store.get_mut(key);
        stored.is_some_and(|stored| stored.copies == 1 && !stored.queued)
    }

    fn copy_awaited(&mut self, now: Time, awaited: Awaited) {
        self.copies.hedged += 1;
        let terms = (0.0, awaited.hurried);
        self.copy_cheaply(now, awaited.path, awaited.key, awaited.len, terms);
    }
}
