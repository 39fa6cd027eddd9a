//! Which path a packet takes. Pure: decisions are values, made from views.
//!
//! A packet is tied to a path only when that path can take it *now* (late
//! binding), so the question is never "how do I split the flow" but "this path
//! is free: who may use it". Choosing the earliest arrival per packet does not
//! add links up behind a short queue, because a slow path is then never worth
//! it. So each flow has a *path set*: small flows use the path of lowest delay
//! and nothing else; a flow that asks for more than half of that path gets all
//! paths whose delay can be hidden by the receiver's ordering.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Mode, Role};
use crate::limits;
use crate::reach::NEAR_MS;

/// A path far behind the others that adds less than this share is not worth its delay.
const SHARE_MIN: f64 = 0.05;
/// Below this spread a path is worth any share.
const SPREAD_FREE_MS: f64 = 15.0;
/// A new best path must be this much better, or it is not worth the reordering.
const SWITCH_GAIN_MS: f64 = 3.0;

/// What the scheduler sees of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathView {
    /// Its place in the bond's list.
    pub index: usize,
    /// What the operator allows.
    pub role: Role,
    /// It carries packets.
    pub active: bool,
    /// One-way delay of an empty path, relative to the same zero.
    pub base_ms: f64,
    /// One-way delay with its present queue, relative to an arbitrary zero that all views share.
    pub delay_ms: f64,
    /// By how much its delay usually scatters above that, milliseconds.
    pub jitter_ms: f64,
    /// After how long a packet that it loses is known to be lost, milliseconds; nothing when it loses none.
    pub loss_known_ms: f64,
    /// Lowest round trip of late, milliseconds.
    pub rtt_ms: f64,
    /// Estimated capacity, bytes per second.
    pub capacity: f64,
    /// What it may be at most; none while it rests on nothing that was seen.
    pub at_most: Option<f64>,
    /// Whether the capacity has yet to be found.
    pub on_trial: bool,
    /// It came back from the dead just now.
    pub on_probation: bool,
    /// Whether it could have carried more over the last round trips.
    pub has_room: bool,
    /// How long until the pacer lets it send.
    pub ready_in: Duration,
    /// Its flight is full: only an acknowledgement makes room.
    pub full: bool,
}

impl PathView {
    /// The delay that nearly none of its packets exceeds.
    pub fn late_ms(&self) -> f64 {
        self.delay_ms + self.jitter_ms
    }

    /// The same as far as a receiver should wait for it.
    pub fn awaited_ms(&self) -> f64 {
        const MOST_MS: f64 = 40.0;
        self.delay_ms + self.jitter_ms.min(MOST_MS)
    }

    /// Whether its losses are known so late that a repair over `best` arrives after the receiver gave up waiting. Not if
    /// those of `best` take more than half as long to be known.
    fn repairs_late(&self, best: &PathView) -> bool {
        const HOLD_MAX_MS: f64 = limits::HOLD_MAX.as_millis() as f64;
        let repaired_ms = self.loss_known_ms + best.rtt_ms / 2.0;
        repaired_ms > HOLD_MAX_MS && self.loss_known_ms > 2.0 * best.loss_known_ms
    }

    /// When a packet sent over it would arrive, relative to the shared zero.
    fn arrival_ms(&self) -> f64 {
        self.delay_ms + self.ready_in.as_secs_f64() * 1e3
    }
}

/// The order in which paths are to be used now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// Paths that may carry anything, the best first.
    pub usable: Vec<PathView>,
    /// How many of these may carry bulk flows that ask for more than the best.
    pub wide: usize,
    /// The path whose capacity is to be found with copies.
    pub trial: Option<usize>,
}

impl Order {
    /// The path for small flows.
    pub fn best(&self) -> Option<&PathView> {
        self.usable.first()
    }
}

/// Orders the paths by role and delay. `previous` is the former best, which is
/// kept unless another is clearly better.
pub fn order(views: &[PathView], mode: Mode, previous: Option<usize>, order: &mut Order) {
    order.usable.clear();
    order.wide = 0;
    order.trial = None;
    let active = |v: &&PathView| v.active && v.role != Role::Never;
    let strongest = views.iter().filter(active).map(|v| v.role).min();
    let Some(strongest) = strongest else { return };
    let backup_only = strongest == Role::Backup;
    let pool = views
        .iter()
        .filter(active)
        .filter(|v| backup_only || v.role != Role::Backup);
    order.usable.extend(pool.copied());
    order.usable.sort_by(|a, b| {
        a.role
            .cmp(&b.role)
            .then(a.on_probation.cmp(&b.on_probation))
            .then(a.late_ms().total_cmp(&b.late_ms()))
            .then(a.index.cmp(&b.index))
    });
    keep_previous(order, previous);
    if mode == Mode::Handover {
        order.usable.truncate(1);
    }
    widen(order);
}

fn keep_previous(order: &mut Order, previous: Option<usize>) {
    let Some(at) = order.usable.iter().position(|v| Some(v.index) == previous) else {
        return;
    };
    let (first, old) = (order.usable[0], order.usable[at]);
    if old.role == first.role
        && old.on_probation == first.on_probation
        && old.late_ms() - first.late_ms() < SWITCH_GAIN_MS
    {
        order.usable[..=at].rotate_right(1);
    }
}

/// Moves paths that are of no use to bulk behind the others, counts the rest, and
/// picks one to be tried.
fn widen(order: &mut Order) {
    let Some(first) = order.usable.first().copied() else {
        return;
    };
    let mut sum = 0.0;
    for i in 0..order.usable.len() {
        let v = order.usable[i];
        let rank = if i == 0 {
            Rank::Best
        } else {
            judge(&v, &first, sum)
        };
        match rank {
            Rank::Best | Rank::Wide => {
                sum += v.capacity;
                order.usable[order.wide..=i].rotate_right(1);
                order.wide += 1;
            }
            Rank::Trial | Rank::Probation => {
                order.trial.get_or_insert(v.index);
            }
            _ => {}
        }
    }
}

/// What becomes of a path after the first, beside others that carry `sum` together.
fn judge(v: &PathView, first: &PathView, sum: f64) -> Rank {
    const SPREAD_MAX_MS: f64 = limits::SPREAD_MAX.as_millis() as f64;
    let spread = v.base_ms - first.base_ms;
    if v.delay_ms - first.delay_ms > SPREAD_MAX_MS {
        Rank::TooFar
    } else if v.repairs_late(first) && v.capacity < sum {
        // One that carries more than all of these is what the user would have without us, with its losses.
        Rank::RepairsLate
    } else if v.on_trial && v.on_probation {
        Rank::Probation
    } else if v.on_trial && spread > NEAR_MS {
        Rank::Trial
    } else if spread <= SPREAD_FREE_MS || v.on_trial || v.capacity >= SHARE_MIN * sum {
        Rank::Wide
    } else {
        Rank::TooThin
    }
}

/// What a path is to bulk, and if it carries none, why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// The best: it carries whatever is small, and bulk.
    Best,
    /// It carries bulk flows that ask for more than the best.
    Wide,
    /// It lies too far behind the best: a receiver that waited for it would cause timeouts.
    TooFar,
    /// What it loses would be repaired too late, and the nearer ones carry more.
    RepairsLate,
    /// Far, and its rate has yet to be found: it gets copies only.
    Trial,
    /// It came back just now, and its rate has yet to be found: it gets copies only.
    Probation,
    /// It would add next to nothing, and lies farther away.
    TooThin,
    /// One path at a time is used, and another is.
    Handover,
    /// A backup, and others work.
    Backup,
    /// It is not to be used.
    Never,
    /// It does not work now.
    #[default]
    Down,
}

impl Rank {
    /// Whether it carries bulk flows that ask for more than the best path.
    pub fn carries_bulk(self) -> bool {
        matches!(self, Rank::Best | Rank::Wide)
    }
}

/// The rank of a path in an order that was made with it.
pub fn rank(order: &Order, view: &PathView) -> Rank {
    if view.role == Role::Never {
        return Rank::Never;
    }
    if !view.active {
        return Rank::Down;
    }
    let Some(first) = order.best() else {
        return Rank::Down;
    };
    match order.usable.iter().position(|v| v.index == view.index) {
        Some(0) => Rank::Best,
        Some(at) if at < order.wide => Rank::Wide,
        Some(at) => {
            // Whoever was too thin beside some of the wide ones is so beside all, unless bulk is for the best alone.
            let sum = order.usable[..order.wide].iter().map(|v| v.capacity).sum();
            match judge(&order.usable[at], first, sum) {
                // It was good enough.
                Rank::Wide => Rank::Handover,
                rank => rank,
            }
        }
        None if view.role == Role::Backup && first.role != Role::Backup => Rank::Backup,
        None => Rank::Handover,
    }
}

/// Where a packet is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Over this path, now.
    Send(usize),
    /// Nowhere yet: its path will be free in a moment.
    Wait,
}

/// For a repair: the path on which it arrives first. Waits for that path's
/// pacer if need be.
pub fn repair(order: &Order) -> Choice {
    let earliest = order
        .usable
        .iter()
        .filter(|v| !v.full && order.trial != Some(v.index))
        .min_by(|a, b| a.arrival_ms().total_cmp(&b.arrival_ms()));
    match earliest {
        Some(v) if v.ready_in.is_zero() => Choice::Send(v.index),
        _ => Choice::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(index: usize, delay_ms: f64, mbit: f64) -> PathView {
        PathView {
            index,
            role: Role::Always,
            active: true,
            base_ms: delay_ms,
            delay_ms,
            jitter_ms: 0.0,
            loss_known_ms: 0.0,
            rtt_ms: 2.0 * delay_ms,
            capacity: mbit * 125_000.0,
            at_most: Some(mbit * 125_000.0),
            on_trial: false,
            on_probation: false,
            has_room: false,
            ready_in: Duration::ZERO,
            full: false,
        }
    }

    fn ordered(views: &[PathView], mode: Mode, previous: Option<usize>) -> (Vec<usize>, usize) {
        let mut o = Order::default();
        order(views, mode, previous, &mut o);
        (o.usable.iter().map(|v| v.index).collect(), o.wide)
    }

    #[test]
    fn the_path_of_lowest_delay_comes_first() {
        let views = [view(0, 30.0, 20.0), view(1, 8.0, 50.0)];
        assert_eq!(ordered(&views, Mode::Aggregate, None), (vec![1, 0], 2));
    }

    #[test]
    fn the_former_best_is_kept_until_another_is_clearly_better() {
        let mut views = [view(0, 10.0, 20.0), view(1, 8.0, 50.0)];
        assert_eq!(ordered(&views, Mode::Aggregate, Some(0)).0, [0, 1]);
        views[0].delay_ms = 12.0;
        assert_eq!(ordered(&views, Mode::Aggregate, Some(0)).0, [1, 0]);
    }

    #[test]
    fn a_backup_is_used_only_when_nothing_else_works() {
        let mut views = [view(0, 30.0, 20.0), view(1, 8.0, 50.0)];
        views[1].role = Role::Backup;
        assert_eq!(ordered(&views, Mode::Aggregate, None).0, [0]);
        views[0].active = false;
        assert_eq!(ordered(&views, Mode::Aggregate, None).0, [1]);
    }

    #[test]
    fn a_secondary_comes_after_every_other_whatever_its_delay() {
        let mut views = [view(0, 30.0, 20.0), view(1, 8.0, 50.0)];
        views[1].role = Role::Secondary;
        assert_eq!(ordered(&views, Mode::Aggregate, None).0, [0, 1]);
    }

    #[test]
    fn handover_uses_one_path_at_a_time() {
        let views = [view(0, 30.0, 20.0), view(1, 8.0, 50.0)];
        assert_eq!(ordered(&views, Mode::Handover, Some(0)).0, [1]);
    }

    #[test]
    fn a_path_too_far_behind_or_too_thin_carries_no_bulk() {
        let views = [
            view(0, 8.0, 50.0),
            view(1, 200.0, 50.0),
            view(2, 60.0, 1.0),
            view(3, 70.0, 20.0),
            view(4, 75.0, 4.0),
        ];
        assert_eq!(
            ordered(&views, Mode::Aggregate, None),
            (vec![0, 3, 4, 2, 1], 3)
        );
    }

    #[test]
    fn a_far_path_is_tried_with_copies_before_it_carries_anything() {
        let mut views = [view(0, 8.0, 50.0), view(1, 60.0, 1.0), view(2, 20.0, 1.0)];
        views[1].on_trial = true;
        views[2].on_trial = true;
        let mut o = Order::default();
        order(&views, Mode::Aggregate, None, &mut o);
        assert_eq!(o.trial, Some(1));
        assert_eq!(o.wide, 2, "the near one learns by doing");
    }

    #[test]
    fn whoever_carries_no_bulk_has_a_reason() {
        let mut views: Vec<PathView> = (0..10).map(|i| view(i, 8.0, 50.0)).collect();
        views[1].base_ms = 30.0;
        views[2].delay_ms = 200.0;
        (views[3].loss_known_ms, views[3].delay_ms) = (300.0, 9.0);
        (views[4].on_trial, views[4].base_ms) = (true, 60.0);
        (views[5].on_trial, views[5].on_probation) = (true, true);
        (views[6].capacity, views[6].base_ms) = (1.0, 60.0);
        views[7].role = Role::Backup;
        views[8].role = Role::Never;
        views[9].active = false;
        let mut o = Order::default();
        let ranks = |o: &Order| views.iter().map(|v| rank(o, v)).collect::<Vec<Rank>>();
        order(&views, Mode::Aggregate, None, &mut o);
        let expected = [
            Rank::Best,
            Rank::Wide,
            Rank::TooFar,
            Rank::RepairsLate,
            Rank::Trial,
            Rank::Probation,
            Rank::TooThin,
            Rank::Backup,
            Rank::Never,
            Rank::Down,
        ];
        assert_eq!(ranks(&o), expected);
        assert_eq!(o.wide, 2);
        order(&views, Mode::Handover, None, &mut o);
        assert_eq!(ranks(&o)[..2], [Rank::Best, Rank::Handover]);
    }

    #[test]
    fn late_repairs_are_borne_from_a_path_that_carries_more_than_all_nearer_ones() {
        let mut views = [view(0, 8.0, 13.0), view(1, 12.0, 2.0), view(2, 30.0, 60.0)];
        views[2].loss_known_ms = 300.0;
        assert_eq!(ordered(&views, Mode::Aggregate, None).1, 3);
        views[2].capacity = 14.0 * 125_000.0;
        assert_eq!(ordered(&views, Mode::Aggregate, None).1, 2);
    }

    #[test]
    fn a_path_that_came_back_is_tried_before_anything_depends_on_it() {
        let mut views = [view(0, 8.0, 50.0), view(1, 30.0, 20.0)];
        views[0].on_trial = true;
        views[0].on_probation = true;
        let mut o = Order::default();
        order(&views, Mode::Aggregate, Some(1), &mut o);
        assert_eq!(o.best().map(|v| v.index), Some(1));
        assert_eq!((o.trial, o.wide), (Some(0), 1));
        views[1].active = false;
        order(&views, Mode::Aggregate, Some(1), &mut o);
        assert_eq!((o.trial, o.wide), (None, 1), "there is no other");
    }

    #[test]
    fn a_repair_takes_the_path_on_which_it_arrives_first() {
        let mut o = Order::default();
        let mut views = [view(0, 8.0, 50.0), view(1, 30.0, 20.0)];
        order(&views, Mode::Aggregate, None, &mut o);
        assert_eq!(repair(&o), Choice::Send(0));
        views[0].ready_in = Duration::from_millis(1);
        order(&views, Mode::Aggregate, None, &mut o);
        assert_eq!(
            repair(&o),
            Choice::Wait,
            "a moment's wait beats a slow path"
        );
        views[0].full = true;
        order(&views, Mode::Aggregate, None, &mut o);
        assert_eq!(repair(&o), Choice::Send(1), "a full path is no choice");
    }
}
