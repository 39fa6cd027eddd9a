//! A path that brings nothing any more: who is told, and who is not to blame.

use super::Bond;
use crate::frame::Control;
use crate::path::MessageContent;
use crate::time::Time;

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
            self.say_silent(self.paths[i].tag, latest);
        }
    }

    /// Tells the other side, over other paths, that nothing arrives over one any more. It hears of it sooner than it
    /// can find out.
    pub(super) fn say_silent(&mut self, path: u8, latest: Option<(u32, u64)>) {
        let Some((_, largest)) = latest else { return };
        let say = Control::Silent {
            path,
            largest: largest as u32,
        };
        let others = self.others_to_tell(path);
        self.counters.silences += u64::from(!others.is_empty());
        for j in others {
            self.paths[j].say(MessageContent::Control(say.clone()));
        }
    }

    /// A path is down. Acknowledgements for the others may have been on their way over it, so theirs may be late
    /// without a fault of their own.
    pub(super) fn excuse_others(&mut self, now: Time) {
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
