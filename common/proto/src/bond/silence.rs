//! A path that brings nothing any more: who is told, and who is not to blame.

use std::time::Duration;

use super::Bond;
use crate::frame::Control;
use crate::path::MessageContent;
use crate::time::Time;

/// Without news of anything that arrived for this long, nothing passes. It is as long as a path is suspected before it
/// counts as dead; a mobile link's handover takes less.
const OUTAGE_MIN: Duration = Duration::from_millis(400);

/// Time in which nothing passed, over no path. A sender that waits for acknowledgements repeats itself ever more
/// rarely meanwhile. What the bond holds of its flow (what was sent and not acknowledged, what waits) is what
/// ends that, as soon as it arrives, so it does not age in an outage.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outage {
    end: Time,
    passed: Time,
}

impl Outage {
    /// Something is known to have arrived.
    pub fn passed(&mut self, now: Time) {
        self.end = self.end(now);
        self.passed = now;
    }

    /// When the last outage ended; now, if it lasts.
    pub fn end(&self, now: Time) -> Time {
        if now.since(self.passed) > OUTAGE_MIN {
            now
        } else {
            self.end
        }
    }
}

impl Bond {
    /// Tells the sender, over other paths, that a path fell silent in mid-stream.
    pub(super) fn report_silence(&mut self, now: Time) {
        for i in 0..self.paths.len() {
            let received = &mut self.paths[i].received;
            if received.silence_at().is_none_or(|at| at > now) {
                continue;
            }
            received.silence_reported();
            let latest = received.latest();
            if !self.say_silent(self.paths[i].tag, latest) {
                // There is nobody else to tell. A backup is being had back ([`super::resting`]) unless it answers.
                self.paths[i].ping();
            }
        }
    }

    /// Tells the other side, over other paths, that nothing arrives over this one any more. By itself the other side would
    /// find out later. Says whether it was told: not if nothing ever arrived, or if there is no other path.
    pub(super) fn say_silent(&mut self, path: u8, latest: Option<(u32, u64)>) -> bool {
        let Some((_, largest)) = latest else {
            return false;
        };
        let say = Control::Silent {
            path,
            largest: largest as u32,
        };
        let others = self.others_to_tell(path);
        let told = !others.is_empty();
        self.counters.silences += u64::from(told);
        for j in others {
            self.paths[j].say(MessageContent::Control(say.clone()));
        }
        told
    }

    /// A path is down. Acknowledgements for the others may have been on their way over it, so theirs may be late
    /// without a fault of their own, and the queue is what it left behind.
    pub(super) fn note_death(&mut self, now: Time) {
        self.queue.note_death(now);
        for path in self.paths.iter_mut().filter(|p| p.health.is_active()) {
            path.health.excuse(now, &path.rtt);
        }
    }

    /// The two best other paths; in `handover` the one that stands by.
    fn others_to_tell(&self, silent: u8) -> Vec<usize> {
        let other = |j: &usize| self.paths[*j].tag != silent;
        let mut others: Vec<usize> = self.best_paths().filter(other).collect();
        if others.is_empty() {
            others.extend((0..self.paths.len()).filter(other).filter(|&j| {
                let path = &self.paths[j];
                path.health.is_active() && path.session.is_established()
            }));
        }
        others.truncate(2);
        others
    }
}
