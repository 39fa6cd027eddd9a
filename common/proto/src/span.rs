//! Which paths a long flow uses from its first packet on, and how late its packets
//! are released for that. Pure: a value, made from views.
//!
//! Spreading a running flow over a path that lies far behind makes its round trip
//! grow in a step, and a sender that begins on a quick, thin path sizes its window
//! for it ([`crate::release`]). So the set is chosen before the first packet: the
//! paths within [`limits::SPREAD_MAX`] of each other that carry the most together. It
//! need not begin with the quickest: one fat path far away may carry more than all
//! the near ones, and be too far to be hidden behind any of them.
//!
//! The latency of the set is what a flow pays from its first packet on, also one
//! that turns out short. What it is worth is a comparison with what the user would
//! have without us. **While the quick paths together carry as much as the best single
//! path**, only a flow that is known to become long pays it. Where they do not, that
//! single path is what a long flow would be sent over, and its latency what would be
//! paid anyway: there every flow that may become long begins on the set.
//!
//! A sender in its slow start ends that as soon as its round trip has grown by an eighth (HyStart), and then grows for many
//! seconds. What the set needs does grow in a flow's first round trips: queues stand on its paths, and the first loss
//! adds the time of a repair. So a flow begins with **headroom** above what the set needs now, and keeps to that until
//! its slow start is over, whatever the set needs meanwhile: what comes later than that is late, and nothing else is.

use crate::config::Role;
use crate::limits;
use crate::reach::NEAR_MS;
use crate::schedule::PathView;

/// The farthest paths are left out when the others carry this share of the most that is possible.
const ENOUGH: f64 = 0.95;
/// Above the spread: jitter of timers and of the standing queues.
const MARGIN_MS: f64 = 3.0;
/// The share of its round trip by which it may grow without a sender in its slow start noticing (RFC 9406, section 4.2).
const UNNOTICED: f64 = 1.0 / 8.0;

/// A set of paths and what it is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    members: u64,
    /// What they carry together, bytes per second.
    pub carries: f64,
    /// What the quick paths carry together at most: those that a flow reaches without noticing that its round trip
    /// is longer than on the quickest.
    pub quick: f64,
    /// What the best path carries alone.
    pub single: f64,
    /// When a packet of the set is released after the lowest delay of all paths, milliseconds.
    pub latency_ms: f64,
    /// How much later those of a flow are that begins now, milliseconds.
    pub headroom_ms: f64,
}

impl Span {
    /// Chooses among the paths of an order, the quickest first. `repair_ms` is how long a repair takes, where losses
    /// are to be expected.
    pub fn of(usable: &[PathView], wide: usize, repair_ms: f64) -> Self {
        let Some(first) = usable.first() else {
            return Span::default();
        };
        let known = |v: &&PathView| v.at_most.is_some() && !v.on_probation;
        let hold_max = limits::HOLD_MAX.as_secs_f64() * 1e3;
        let spread_max = limits::SPREAD_MAX.as_secs_f64() * 1e3;
        let lowest = usable.iter().map(|v| v.base_ms).fold(f64::MAX, f64::min);
        let within = |start: f64, end: f64| {
            let paths = usable.iter().filter(known);
            paths.filter(move |v| v.base_ms >= start && v.awaited_ms() <= end)
        };
        let capacity = |start, end| within(start, end).map(|v| v.capacity).sum::<f64>();
        let starts = || usable.iter().filter(known).map(|v| v.base_ms);
        let ends = || usable.iter().filter(known).map(PathView::awaited_ms);
        let pairs = || starts().flat_map(|s| ends().map(move |e| (s, e)));
        let alone = |(s, e): &(f64, f64)| within(*s, *e).count() == 1;
        let feasible = || pairs().filter(|p| p.1 - p.0 + MARGIN_MS <= spread_max || alone(p));
        let most = feasible().map(|(s, e)| capacity(s, e)).fold(0.0, f64::max);
        // The least latency that is enough; of these the earliest start.
        let best = feasible()
            .filter(|(s, e)| most > 0.0 && capacity(*s, *e) >= ENOUGH * most)
            .min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.total_cmp(&b.0)));
        let mut span = Span::default();
        match best {
            Some((start, end)) => {
                let members = || within(start, end);
                span.members = members().fold(0, |m, v| m | 1 << v.index);
                span.carries = capacity(start, end);
                if members().count() > 1 {
                    let low = members().map(|v| v.base_ms).fold(f64::MAX, f64::min);
                    let bare = end - lowest + MARGIN_MS;
                    let most = low - lowest + hold_max;
                    // A repair is headroom as well.
                    let room = repair_ms.max(UNNOTICED * (first.rtt_ms + bare));
                    span.latency_ms = (bare + repair_ms).min(most);
                    span.headroom_ms = (bare + room).min(most) - span.latency_ms;
                }
            }
            // Nothing is known: as any other flow.
            None => span.members = usable[..wide].iter().fold(0, |m, v| m | 1 << v.index),
        }
        let own = |v: &&PathView| v.role == first.role && v.role != Role::Backup;
        let near = NEAR_MS.min(UNNOTICED * first.rtt_ms);
        let quick = usable.iter().filter(own);
        span.quick = quick
            .filter(|v| v.base_ms - first.base_ms <= near)
            .map(|v| v.at_most.unwrap_or(f64::INFINITY))
            .sum();
        let single = usable.iter().filter(own).filter(known);
        span.single = single.map(|v| v.capacity).fold(0.0, f64::max);
        span
    }

    /// Whether a path belongs to it.
    pub fn has(&self, index: usize) -> bool {
        self.members & 1 << index != 0
    }

    /// Whether every flow that may become long should begin on it.
    pub fn pays(&self) -> bool {
        self.quick < ENOUGH * self.single
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn view(index: usize, base_ms: f64, mbit: f64) -> PathView {
        PathView {
            index,
            role: Role::Always,
            active: true,
            base_ms,
            delay_ms: base_ms,
            jitter_ms: 0.0,
            loss_known_ms: 0.0,
            rtt_ms: 2.0 * base_ms,
            capacity: mbit * 125_000.0,
            at_most: Some(mbit * 125_000.0),
            on_trial: false,
            on_probation: false,
            has_room: false,
            ready_in: Duration::ZERO,
            full: false,
        }
    }

    fn span(views: &[PathView]) -> (Vec<usize>, f64, bool) {
        let span = Span::of(views, views.len(), 0.0);
        let members = (0..views.len()).filter(|&i| span.has(i)).collect();
        (members, span.latency_ms, span.pays())
    }

    #[test]
    fn where_the_quick_paths_carry_most_only_a_flow_known_to_be_long_pays_for_the_rest() {
        let views = [view(0, 10.0, 50.0), view(1, 60.0, 50.0)];
        assert_eq!(span(&views), (vec![0, 1], 53.0, false));
    }

    #[test]
    fn beside_a_thin_quick_path_a_fat_far_one_pays_for_every_flow_that_may_be_long() {
        let views = [view(0, 10.0, 8.0), view(1, 60.0, 50.0)];
        assert_eq!(span(&views), (vec![0, 1], 53.0, true));
    }

    #[test]
    fn a_flow_begins_with_room_for_a_queue_or_a_repair_but_within_what_a_receiver_holds() {
        let headroom = |far_ms, repair_ms| {
            let views = [view(0, 10.0, 8.0), view(1, far_ms, 50.0)];
            Span::of(&views, views.len(), repair_ms).headroom_ms
        };
        // An eighth of 20 + 53 ms.
        assert_eq!(headroom(60.0, 0.0), 9.125);
        assert_eq!(headroom(60.0, 5.0), 4.125);
        assert_eq!(headroom(60.0, 20.0), 0.0);
        assert_eq!(headroom(155.0, 20.0), 1.0);
        assert_eq!(headroom(155.0, 60.0), 0.0);
    }

    #[test]
    fn a_path_that_makes_the_round_trip_noticeably_longer_is_not_quick() {
        // By 15 and by 10 of 100 ms.
        for (near_ms, pays) in [(65.0, true), (60.0, false)] {
            let views = [view(0, 50.0, 2.0), view(1, near_ms, 70.0)];
            assert_eq!(span(&views).2, pays, "{near_ms} ms");
        }
    }

    #[test]
    fn paths_that_are_too_far_apart_are_not_one_set() {
        let views = [view(0, 5.0, 8.0), view(1, 10.0, 4.0), view(2, 170.0, 50.0)];
        assert_eq!(span(&views), (vec![2], 0.0, true), "the fat one alone");
        let views = [view(0, 5.0, 80.0), view(1, 10.0, 4.0), view(2, 170.0, 50.0)];
        assert_eq!(span(&views).0, [0], "a twentieth is not worth waiting for");
    }

    #[test]
    fn a_far_path_that_adds_little_is_left_out() {
        let views = [view(0, 10.0, 50.0), view(1, 30.0, 20.0), view(2, 90.0, 2.0)];
        assert_eq!(span(&views), (vec![0, 1], 23.0, false));
    }

    #[test]
    fn a_secondary_may_help_but_nothing_begins_for_its_sake() {
        let mut views = [view(0, 10.0, 8.0), view(1, 60.0, 50.0)];
        views[1].role = Role::Secondary;
        assert_eq!(span(&views), (vec![0, 1], 53.0, false));
    }

    #[test]
    fn while_nothing_is_known_there_is_no_latency_to_pay() {
        let mut views = [view(0, 10.0, 8.0), view(1, 60.0, 50.0)];
        views.iter_mut().for_each(|v| v.at_most = None);
        assert_eq!(span(&views), (vec![0, 1], 0.0, false));
    }
}
