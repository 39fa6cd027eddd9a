//! What arrived on a path, and what is to be said about it.
//!
//! Besides the numbers this keeps the *watermark*: the latest send stamp that
//! arrived. A path is FIFO in practice, so everything that was sent on it
//! before the watermark has arrived or is lost; together the watermarks of all
//! paths tell a packet that is late from one that is lost
//! ([`crate::reorder`]). A path whose sender said that nothing more is on its
//! way has no say.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::{MAX_RANGES, PathAck};
use crate::limits;
use crate::session::Number;
use crate::stamp;
use crate::time::Time;

/// Runs remembered per session; more than an ack can carry, to recognise duplicates.
const RANGES: usize = 64;

/// One session's numbers.
#[derive(Debug)]
struct Epoch {
    session: u32,
    /// Inclusive runs, oldest first, none touching the next.
    runs: VecDeque<(u64, u64)>,
    largest_at: Time,
    largest_delay: u32,
    /// How often it may still be reported after it was replaced.
    reports_left: u8,
}

impl Epoch {
    fn largest(&self) -> u64 {
        self.runs.back().map_or(0, |r| r.1)
    }

    /// Adds a number; false when it was there before or is too old to tell.
    fn insert(&mut self, n: u64) -> bool {
        let Some(back) = self.runs.back_mut() else {
            self.runs.push_back((n, n));
            return true;
        };
        if n == back.1 + 1 {
            back.1 = n;
            return true;
        }
        if n > back.1 {
            self.runs.push_back((n, n));
            if self.runs.len() > RANGES {
                self.runs.pop_front();
            }
            return true;
        }
        if n + limits::RECEIVE_WINDOW < back.1 {
            return false;
        }
        for i in (0..self.runs.len()).rev() {
            let (low, high) = self.runs[i];
            if n >= low && n <= high {
                return false;
            }
            if n > high {
                let joins_next = self.runs[i + 1].0 == n + 1;
                match (n == high + 1, joins_next) {
                    (true, true) => {
                        self.runs[i].1 = self.runs[i + 1].1;
                        self.runs.remove(i + 1);
                    }
                    (true, false) => self.runs[i].1 = n,
                    (false, true) => self.runs[i + 1].0 = n,
                    (false, false) => self.runs.insert(i + 1, (n, n)),
                }
                if self.runs.len() > RANGES {
                    self.runs.pop_front();
                }
                return true;
            }
        }
        if self.runs.len() >= RANGES {
            return false;
        }
        if self.runs[0].0 == n + 1 {
            self.runs[0].0 = n;
        } else {
            self.runs.push_front((n, n));
        }
        true
    }
}

/// Lowest and highest delay of the last seconds, as differences of stamps.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: u32,
    high: u32,
}

impl Range {
    fn around(self, other: Range) -> Range {
        let less = |a, b| stamp::difference(a, b) < 0;
        Range {
            low: if less(other.low, self.low) {
                other.low
            } else {
                self.low
            },
            high: if less(self.high, other.high) {
                other.high
            } else {
                self.high
            },
        }
    }
}

/// The delays of the present bucket of time and of the one before it.
#[derive(Debug, Default)]
struct Delays {
    now: Option<Range>,
    before: Option<Range>,
    since: Time,
}

impl Delays {
    fn note(&mut self, now: Time, delay: u32) {
        const BUCKET: Duration = Duration::from_secs(5);
        if now.since(self.since) > BUCKET {
            self.since = now;
            self.before = self.now.take();
        }
        let only = Range {
            low: delay,
            high: delay,
        };
        self.now = Some(self.now.map_or(only, |r| r.around(only)));
    }

    fn range(&self) -> Option<Range> {
        match (self.now, self.before) {
            (Some(a), Some(b)) => Some(a.around(b)),
            (a, b) => a.or(b),
        }
    }
}

/// A datagram as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Its number.
    pub number: Number,
    /// Its length in bytes.
    pub len: usize,
    /// Its send stamp; a bare keepalive has none.
    pub stamp: Option<u32>,
    /// Whether the sender said that more follows within 5 ms; not every frame says.
    pub more: Option<bool>,
    /// Whether it must be acknowledged.
    pub eliciting: bool,
    /// Whether it carries a realtime packet.
    pub realtime: bool,
}

/// The record of one path.
#[derive(Debug, Default)]
pub struct ReceivedLog {
    epochs: VecDeque<Epoch>,
    bytes: u32,
    last_arrival: Option<Time>,
    min_delay: Option<u32>,
    delays: Delays,
    watermark: Option<u32>,
    more: bool,
    /// Its silence was reported, and nothing came since.
    silent: bool,
    pending: u32,
    pending_since: Option<Time>,
    new_hole: bool,
    realtime: bool,
    gap_max_now: Duration,
    gap_max_before: Duration,
    gap_window: Time,
    /// When packets began to come without a pause.
    busy_since: Time,
    /// Datagrams that arrived.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes_total: u64,
}

impl ReceivedLog {
    /// Records an arrival; false when it is a duplicate.
    pub fn on_received(&mut self, now: Time, arrival: Incoming) -> bool {
        let number = arrival.number;
        let known = self.epochs.iter().position(|e| e.session == number.session);
        let at = known.unwrap_or_else(|| {
            self.epochs.push_back(Epoch {
                session: number.session,
                runs: VecDeque::new(),
                largest_at: now,
                largest_delay: 0,
                reports_left: 16,
            });
            if self.epochs.len() > 2 {
                self.epochs.pop_front();
            }
            self.epochs.len() - 1
        });
        let epoch = &mut self.epochs[at];
        let before = epoch.largest();
        if !epoch.insert(number.counter) {
            return false;
        }
        self.new_hole |= number.counter > before + 1 && before > 0;
        if let Some(sent) = arrival.stamp {
            let delay = stamp::difference(stamp::stamp(now), sent) as u32 & 0x00ff_ffff;
            if number.counter >= before {
                epoch.largest_at = now;
                epoch.largest_delay = delay;
            }
            let lowest = self
                .min_delay
                .is_none_or(|m| stamp::difference(delay, m) < 0);
            if lowest {
                self.min_delay = Some(delay);
            }
            self.delays.note(now, delay);
            if self
                .watermark
                .is_none_or(|w| stamp::difference(sent, w) >= 0)
            {
                self.watermark = Some(sent);
                self.note_gap(now);
                self.more = arrival.more.unwrap_or(self.more);
            }
        }
        self.silent = false;
        self.last_arrival = Some(now);
        self.bytes = self.bytes.wrapping_add(arrival.len as u32);
        self.datagrams += 1;
        self.bytes_total += arrival.len as u64;
        if arrival.eliciting {
            self.pending += 1;
            self.pending_since.get_or_insert(now);
            self.realtime |= arrival.realtime;
        }
        true
    }

    fn note_gap(&mut self, now: Time) {
        const WINDOW: Duration = Duration::from_secs(1);
        if now.since(self.gap_window) > WINDOW {
            self.gap_window = now;
            self.gap_max_before = self.gap_max_now;
            self.gap_max_now = Duration::ZERO;
        }
        // Only gaps in which more was promised say how bursty the path is.
        match self.last_arrival.filter(|_| self.more) {
            Some(last) => self.gap_max_now = self.gap_max_now.max(now.since(last)),
            // The sender paused: what was seen of gaps may be of long ago.
            None if self
                .last_arrival
                .is_none_or(|last| now.since(last) > WINDOW) =>
            {
                self.busy_since = now;
            }
            None => {}
        }
    }

    /// The moment after which the path's silence is strange: more was promised
    /// and nothing came for clearly longer than in the last second or two.
    pub fn silence_at(&self) -> Option<Time> {
        const FLOOR: Duration = Duration::from_millis(20);
        /// The most, which is as long as a suspicion lasts.
        const CEILING: Duration = Duration::from_millis(400);
        /// For so long gaps are too few to tell how bursty the path is, and it is how much delays differ that tells.
        const NEW: Duration = Duration::from_secs(2);
        let usual = self.gap_max_now.max(self.gap_max_before);
        let last = self.last_arrival.filter(|_| self.more)?;
        let scatter = match self.delays.range() {
            Some(range) if last.since(self.busy_since) < NEW => {
                let units = stamp::difference(range.high, range.low).max(0);
                Duration::from_nanos(units as u64 * stamp::UNIT_NS)
            }
            _ => Duration::ZERO,
        };
        Some(last + (usual * 2).max(scatter).clamp(FLOOR, CEILING))
    }

    /// Whether it is silent in the middle of what was promised, reported or not.
    pub fn is_silent(&self, now: Time) -> bool {
        self.silent || self.silence_at().is_some_and(|at| at <= now)
    }

    /// The silence was reported; once is enough until something arrives.
    pub fn silence_reported(&mut self) {
        self.silent = true;
        self.more = false;
    }

    /// The session and highest counter of the latest arrivals.
    pub fn latest(&self) -> Option<(u32, u64)> {
        self.epochs.back().map(|e| (e.session, e.largest()))
    }

    /// Whether something sent at `sent` or before could still arrive here. A path
    /// that promised more is waited for until it falls silent; one that did not
    /// may have been given something since, which then takes as long as it usually does.
    pub fn may_still_bring(&self, now: Time, sent: u32) -> bool {
        const UNKNOWN_AFTER: Duration = Duration::from_secs(30);
        /// Above the longest delay of late, in units of stamps: 2 ms.
        const MARGIN: i32 = 250;
        if self
            .last_arrival
            .is_none_or(|t| now.since(t) > UNKNOWN_AFTER)
            || self
                .watermark
                .is_none_or(|w| stamp::difference(w, sent) >= 0)
        {
            return false;
        }
        let took = stamp::difference(stamp::stamp(now), sent) as u32;
        let usual = self.delays.range();
        self.more || usual.is_some_and(|r| stamp::difference(took, r.high) < MARGIN)
    }

    /// Lowest arrival stamp minus send stamp of the last seconds: comparable between paths.
    pub fn base_delay(&self) -> Option<u32> {
        self.delays.range().map(|r| r.low)
    }

    /// When something arrived last.
    pub fn last_arrival(&self) -> Option<Time> {
        self.last_arrival
    }

    /// Since when an acknowledgement is owed, and for how many datagrams.
    pub fn pending(&self) -> Option<(Time, u32)> {
        self.pending_since.map(|since| (since, self.pending))
    }

    /// Whether something is to be acknowledged whose sender wants to know soon whether it arrived.
    pub fn has_realtime(&self) -> bool {
        self.realtime
    }

    /// Whether a hole opened since the last acknowledgement.
    pub fn has_new_hole(&self) -> bool {
        self.new_hole
    }

    /// Writes what is to be said of this path; nothing when nothing is new.
    pub fn report(&mut self, now: Time, path: u8, out: &mut Vec<PathAck>) {
        if self.pending == 0 {
            return;
        }
        self.pending = 0;
        self.pending_since = None;
        self.new_hole = false;
        self.realtime = false;
        let newest = self.epochs.len().saturating_sub(1);
        let min_delay = self.min_delay.take();
        for (i, epoch) in self.epochs.iter_mut().enumerate() {
            if i < newest {
                if epoch.reports_left == 0 {
                    continue;
                }
                epoch.reports_left -= 1;
            }
            let Some(&(_, largest)) = epoch.runs.back() else {
                continue;
            };
            let mut ranges = Vec::with_capacity(epoch.runs.len().min(MAX_RANGES));
            let mut above: Option<u64> = None;
            for &(low, high) in epoch.runs.iter().rev().take(MAX_RANGES) {
                let gap = above.map_or(0, |a| a - high - 1);
                let (Ok(gap), run) = (u16::try_from(gap), (high - low + 1).min(0xffff) as u16)
                else {
                    break;
                };
                ranges.push((gap, run));
                if high - low >= 0xffff {
                    break;
                }
                above = Some(low);
            }
            let age = now.since(epoch.largest_at).as_nanos() as u64 / (2 * stamp::UNIT_NS);
            out.push(PathAck {
                path,
                epoch: epoch.session as u8,
                largest: largest as u32,
                largest_age: u16::try_from(age).unwrap_or(u16::MAX),
                largest_delay: epoch.largest_delay,
                min_delay: min_delay.unwrap_or(epoch.largest_delay),
                bytes: self.bytes,
                last_arrival_us: self
                    .last_arrival
                    .map_or(0, |t| (t.as_nanos() / 1_000) as u32),
                ranges,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(counter: u64) -> Incoming {
        Incoming {
            number: Number {
                session: 1,
                counter,
            },
            len: 100,
            stamp: Some(0),
            more: Some(true),
            eliciting: true,
            realtime: false,
        }
    }

    fn report_of(log: &mut ReceivedLog) -> PathAck {
        let mut out = Vec::new();
        log.report(Time::from_millis(9), 0, &mut out);
        out.pop().unwrap()
    }

    #[test]
    fn runs_and_gaps_are_reported_newest_first() {
        let mut log = ReceivedLog::default();
        for n in [0, 1, 2, 5, 6, 9] {
            assert!(log.on_received(Time::ZERO, arrival(n)));
        }
        let ack = report_of(&mut log);
        assert_eq!(ack.largest, 9);
        assert_eq!(ack.ranges, vec![(0, 1), (2, 2), (2, 3)]);
        assert_eq!(ack.bytes, 600);
    }

    #[test]
    fn any_order_of_arrival_gives_the_same_runs_and_duplicates_are_seen() {
        let orders: [[u64; 6]; 3] = [[5, 3, 4, 0, 1, 2], [2, 0, 1, 5, 4, 3], [0, 2, 4, 1, 3, 5]];
        for order in orders {
            let mut log = ReceivedLog::default();
            for n in order {
                assert!(log.on_received(Time::ZERO, arrival(n)), "{order:?}");
                assert!(!log.on_received(Time::ZERO, arrival(n)), "{order:?}");
            }
            assert_eq!(report_of(&mut log).ranges, vec![(0, 6)], "{order:?}");
        }
    }

    #[test]
    fn a_path_that_promised_nothing_more_has_a_say_as_long_as_it_usually_takes() {
        let mut log = ReceivedLog::default();
        let at = |ms| stamp::stamp(Time::from_millis(ms));
        let sent = |ms, more| Incoming {
            stamp: Some(at(ms)),
            more: Some(more),
            ..arrival(ms)
        };
        // It takes 30 ms.
        log.on_received(Time::from_millis(40), sent(10, true));
        assert!(log.may_still_bring(Time::from_millis(400), at(11)));
        assert!(!log.may_still_bring(Time::from_millis(40), at(10)));
        log.on_received(Time::from_millis(50), sent(20, false));
        assert!(log.may_still_bring(Time::from_millis(60), at(50)));
        assert!(log.may_still_bring(Time::from_millis(81), at(50)));
        assert!(!log.may_still_bring(Time::from_millis(83), at(50)));
    }
}
