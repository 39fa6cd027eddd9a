//! The receiving half of a connection: order, and what is told to the sender.

use std::collections::{BTreeMap, VecDeque};

use super::Ack;
use crate::link::Nanos;

/// How long an acknowledgement of a single segment is held back.
const DELAY: Nanos = 40_000_000;
/// Segments at the start of a flow that are acknowledged one by one.
const QUICK_SEGMENTS: u64 = 16;

/// The receiving half: puts segments in order and says what it has.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    next: u64,
    /// What lies above `next`: start to end of each range.
    ranges: BTreeMap<u64, u64>,
    /// Segments that came lately, the latest first; they pick the ranges to report.
    recent: VecDeque<u64>,
    unacknowledged: u64,
    echo: Nanos,
    ack_due: Option<Nanos>,
    marked: u64,
}

impl Receiver {
    /// Segments that the application has got, in order.
    pub fn in_order(&self) -> u64 {
        self.next
    }

    /// A segment arrived that was sent at `sent`. An acknowledgement, if one is due at once.
    pub fn on_segment(&mut self, now: Nanos, seq: u64, sent: Nanos) -> Option<Ack> {
        if self.unacknowledged == 0 {
            self.echo = sent;
        }
        if seq < self.next || self.covers(seq) {
            self.echo = sent;
            return Some(self.ack(Some(seq)));
        }
        let had_hole = !self.ranges.is_empty();
        if seq == self.next {
            self.next += 1;
            if let Some(end) = self.ranges.remove(&self.next) {
                self.next = end;
            }
        } else {
            self.insert(seq);
        }
        self.recent.push_front(seq);
        self.recent.truncate(32);
        self.unacknowledged += 1;
        if had_hole
            || !self.ranges.is_empty()
            || self.unacknowledged >= 2
            || self.next <= QUICK_SEGMENTS
        {
            return Some(self.ack(None));
        }
        self.ack_due = Some(now + DELAY);
        None
    }

    /// The next segment came with a congestion mark.
    pub fn on_mark(&mut self) {
        self.marked += 1;
    }

    /// When a held acknowledgement is due.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.ack_due
    }

    /// A held acknowledgement, if it is due by `now`.
    pub fn handle_timeout(&mut self, now: Nanos) -> Option<Ack> {
        self.ack_due.filter(|due| *due <= now)?;
        Some(self.ack(None))
    }

    fn covers(&self, seq: u64) -> bool {
        self.ranges
            .range(..=seq)
            .next_back()
            .is_some_and(|(_, end)| seq < *end)
    }

    fn insert(&mut self, seq: u64) {
        let end = self.ranges.remove(&(seq + 1)).unwrap_or(seq + 1);
        match self.ranges.range_mut(..seq).next_back() {
            Some((_, before)) if *before == seq => *before = end,
            _ => {
                self.ranges.insert(seq, end);
            }
        }
    }

    fn ack(&mut self, duplicate: Option<u64>) -> Ack {
        let mut selective: Vec<(u64, u64)> = Vec::with_capacity(3);
        for seq in &self.recent {
            if selective.len() == 3 {
                break;
            }
            if let Some((start, end)) = self.ranges.range(..=*seq).next_back()
                && seq < end
                && !selective.contains(&(*start, *end))
            {
                selective.push((*start, *end));
            }
        }
        self.unacknowledged = 0;
        self.ack_due = None;
        Ack {
            cumulative: self.next,
            selective,
            duplicate,
            echo: self.echo,
            marked: self.marked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_reported_with_the_latest_range_first_and_filled_later() {
        let mut receiver = Receiver::default();
        for seq in 0..20 {
            receiver.on_segment(seq, seq, 0);
        }
        receiver.on_segment(30, 22, 0);
        let ack = receiver.on_segment(31, 25, 0).unwrap();
        assert_eq!(
            (ack.cumulative, ack.selective),
            (20, vec![(25, 26), (22, 23)])
        );
        for seq in [20, 23, 24] {
            receiver.on_segment(32, seq, 0);
        }
        let ack = receiver.on_segment(33, 21, 0).unwrap();
        assert_eq!((ack.cumulative, ack.selective), (26, vec![]));
        assert_eq!(receiver.on_segment(34, 3, 0).unwrap().duplicate, Some(3));
    }

    #[test]
    fn every_second_segment_is_acknowledged_at_once_and_a_single_one_after_40_ms() {
        let mut receiver = Receiver::default();
        for seq in 0..QUICK_SEGMENTS {
            assert!(receiver.on_segment(0, seq, 0).is_some());
        }
        assert_eq!(receiver.on_segment(0, QUICK_SEGMENTS, 0), None);
        assert!(receiver.on_segment(0, QUICK_SEGMENTS + 1, 0).is_some());
        assert_eq!(receiver.on_segment(0, QUICK_SEGMENTS + 2, 0), None);
        assert_eq!(receiver.next_deadline(), Some(DELAY));
        assert_eq!(receiver.handle_timeout(DELAY - 1), None);
        assert_eq!(
            receiver.handle_timeout(DELAY).unwrap().cumulative,
            QUICK_SEGMENTS + 3
        );
    }
}
