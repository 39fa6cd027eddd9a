//! What is sent twice.
//!
//! A copy over a second path saves a packet from the loss, the delay and the
//! death of the first, and is there before any repair could be: a call over a
//! path that falls silent misses nothing, and waits no longer than the second
//! path is slower. It costs bytes, so it depends on the mode of the class:
//!
//! * `redundant`: everything. A bulk packet leaves only when two paths can take
//!   it, so the copies get through; the speed is that of the slower one.
//! * `interactive`: everything that is not bulk.
//! * `handover`: nothing; one path at a time.
//! * `aggregate`: DNS and SYN at once; what else somebody waits for
//!   ([`Worth::InTime`]: thin flows, the first packets of any) when it is not
//!   acknowledged in time ([`super::unanswered`]), or at once where that would be
//!   too late, while its path is doubtful, or where all of it is next to nothing
//!   beside the rest; the rest of what is not bulk while its path is doubtful. The
//!   last packet of a burst is awaited, too: no later one would reveal its loss.
//!   All this within a byte budget, and only over paths that may be used at any
//!   time.
//!
//! In every mode, what was lost twice is repaired over two paths at once.
//!
//! With a single path there is no second one to send a copy over. Where that path
//! loses packets and lies so far away that a repair comes too late for a call, what
//! is always worth a copy is sent once more over the same path, a moment later, so
//! that a burst of losses takes not both: an echo.
//!
//! The budget of `aggregate` is a twentieth of the bytes sent. Where only a copy at
//! once can help, as the path is doubtful or a later copy would be too late, a fixed
//! allowance takes its place while no bulk waits, enough for one call: the links have
//! room to spare then. Half of what was saved is kept for what somebody waits for, and
//! half of that for what was missed.

use std::collections::VecDeque;
use std::time::Duration;

use super::Bond;
use super::pick::Pick;
use super::unanswered::Unanswered;
use crate::classify::{Class, THIN_RATE, Worth};
use crate::config::{Mode, Role};
use crate::flow::Flow;
use crate::limits;
use crate::schedule::PathView;
use crate::stats::CopyReason;
use crate::store::PacketKey;
use crate::time::Time;

/// Copies as a share of all other data, in bytes.
const SHARE: f64 = 0.05;
/// Copies at once where nothing else helps while no bulk waits, bytes per second: one thin flow.
const ALLOWANCE: f64 = THIN_RATE;
/// The same at most as a share of the second path's capacity.
const ALLOWANCE_SHARE: f64 = 0.3;
/// What may be saved, bytes: a second of a call, or the beginning of a page.
const SAVED_MAX: f64 = 16_000.0;
/// Kept of it for what is awaited: whatever else asks leaves as much.
const KEPT_FOR_AWAITED: f64 = SAVED_MAX / 2.0;
/// Kept of it for what was missed.
const KEPT_FOR_MISSED: f64 = SAVED_MAX / 4.0;
/// What counts of earlier bytes after each reckoning, when the thin flows are compared with all: about a second.
const REMEMBERED: f64 = 0.9;
/// How often the budget is reckoned up.
const RECKON_EVERY: Duration = Duration::from_millis(100);
/// A path whose pacer is further behind has no room for a copy.
const LAG_MAX: Duration = Duration::from_millis(5);
/// A packet without a successor for this long was the last of its burst.
const TAIL_AFTER: Duration = Duration::from_millis(3);
/// How long after a packet its echo follows: longer than most bursts of losses, shorter than a call's buffer.
const ECHO_AFTER: Duration = Duration::from_millis(20);
/// Echoes whose time has not come: of thin flows alone, for [`ECHO_AFTER`], within the budget.
const ECHOES_MAX: usize = 256;
/// Copies that may wait for their turn. They leave before any other data.
const WAITING_MAX: usize = 256;
/// Bursts whose end is awaited; the oldest is forgotten.
const TAILS_MAX: usize = 32;

/// The bytes that copies may still take in `aggregate`.
#[derive(Debug)]
struct Budget {
    saved: f64,
    reckoned: Time,
    sent: u64,
    /// The greatest allowance since it was reckoned up, bytes per second.
    allowance: f64,
    /// Bytes of about the last second: all, and of what is awaited.
    lately: [f64; 2],
}

impl Budget {
    /// A packet was sent for the first time.
    fn note(&mut self, now: Time, bytes: usize, awaited: bool) {
        self.reckon(now, 0.0);
        self.sent += bytes as u64;
        self.lately[0] += bytes as f64;
        self.lately[1] += if awaited { bytes as f64 } else { 0.0 };
    }

    /// Whether everything that is awaited could be copied within the share.
    fn bears_all_awaited(&self) -> bool {
        self.lately[1] <= SHARE * self.lately[0]
    }

    fn reckon(&mut self, now: Time, allowance: f64) {
        self.allowance = self.allowance.max(allowance);
        let span = now.since(self.reckoned);
        if span >= RECKON_EVERY {
            let share = SHARE * self.sent as f64;
            let earned = share.max(self.allowance * span.as_secs_f64());
            self.saved = (self.saved + earned).min(SAVED_MAX);
            self.sent = 0;
            self.allowance = 0.0;
            self.reckoned = now;
            let rounds = (span.as_secs_f64() / RECKON_EVERY.as_secs_f64()).min(1e3);
            let left = REMEMBERED.powi(rounds as i32);
            self.lately = self.lately.map(|bytes| bytes * left);
        }
    }

    fn take(&mut self, bytes: usize, keep: f64) -> bool {
        let enough = self.saved >= bytes as f64 + keep;
        if enough {
            self.saved -= bytes as f64;
        }
        enough
    }
}

/// The last packet sent of a flow that may have more.
#[derive(Clone, Copy, Debug)]
struct Tail {
    due: Time,
    slot: u16,
    key: PacketKey,
    /// Tag of the path it went over.
    path: u8,
    len: usize,
}

/// A packet that is to follow itself over the path with this tag.
#[derive(Clone, Copy, Debug)]
struct Echo {
    due: Time,
    key: PacketKey,
    path: u8,
}

/// A data packet that was just sent for the first time.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstSent {
    pub key: PacketKey,
    pub slot: u16,
    pub class: Class,
    pub worth: Worth,
    /// Its path's place in the list.
    pub index: usize,
    /// Length of the datagram, bytes.
    pub len: usize,
}

/// Copies to be sent, and what they may cost.
#[derive(Debug)]
pub(super) struct Copies {
    waiting: VecDeque<(PacketKey, u8)>,
    tails: VecDeque<Tail>,
    echoes: VecDeque<Echo>,
    pub(super) unanswered: Unanswered,
    budget: Budget,
    /// Copies that the budget did not allow.
    pub refused: u64,
    /// Packets that were missed, and to be copied for that.
    pub hedged: u64,
}

impl Default for Copies {
    fn default() -> Self {
        Copies {
            waiting: VecDeque::new(),
            tails: VecDeque::new(),
            echoes: VecDeque::new(),
            unanswered: Unanswered::default(),
            budget: Budget {
                saved: SAVED_MAX,
                reckoned: Time::ZERO,
                sent: 0,
                allowance: 0.0,
                lately: [0.0; 2],
            },
            refused: 0,
            hedged: 0,
        }
    }
}

impl Copies {
    /// Forgets everything that was to be sent.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.tails.clear();
        self.echoes.clear();
        self.unanswered.clear();
    }

    /// The bond is idle: gives back memory.
    pub fn rest(&mut self) {
        self.waiting.shrink_to(limits::IDLE_ENTRIES);
        self.tails.shrink_to(limits::IDLE_ENTRIES);
        self.echoes.shrink_to(limits::IDLE_ENTRIES);
        self.unanswered.rest();
    }

    /// When the next burst is over, or the next echo or acknowledgement due.
    pub fn next_due(&self) -> Option<Time> {
        let tail = self.tails.front().map(|tail| tail.due);
        let echo = self.echoes.front().map(|echo| echo.due);
        let answer = self.unanswered.next_due();
        tail.into_iter().chain(echo).chain(answer).min()
    }
}

/// Whether a mode sends a class twice; none: as far as it is cheap.
fn twice(mode: Mode, class: Class) -> Option<bool> {
    match mode {
        Mode::Handover => Some(false),
        Mode::Aggregate => None,
        Mode::Interactive => Some(class != Class::Bulk),
        Mode::Redundant => Some(true),
    }
}

impl Bond {
    /// Decides whether a packet that was just sent is sent a second time.
    pub(super) fn consider_copy(&mut self, now: Time, sent: FirstSent) {
        let mode = self.modes.of(sent.class);
        let awaited = sent.worth >= Worth::InTime;
        self.copies.budget.note(now, sent.len, awaited);
        match twice(mode, sent.class) {
            Some(true) => self.add_copy(now, sent.key, sent.index),
            Some(false) => {}
            None => self.consider_cheap_copy(now, sent),
        }
    }

    fn consider_cheap_copy(&mut self, now: Time, sent: FirstSent) {
        let path = &self.paths[sent.index];
        let tag = path.tag;
        let doubtful = path.is_doubtful(now);
        let missed = path.is_unanswered();
        // What must stay in the budget, and whether the allowance may fill it.
        let (keep, allowed) = match sent.worth {
            Worth::Nothing => return,
            Worth::Always | Worth::InTime if missed => (0.0, doubtful),
            Worth::Always | Worth::InTime if doubtful => (KEPT_FOR_MISSED, true),
            Worth::Always => (KEPT_FOR_MISSED, false),
            Worth::InTime => return self.copy_when_missed(now, tag, &sent),
            Worth::InDoubt if doubtful => (KEPT_FOR_AWAITED, true),
            Worth::InDoubt => return self.await_tail(now, tag, sent),
        };
        self.copy_cheaply(now, tag, sent.key, sent.len, (keep, allowed));
    }

    /// Copies what is awaited on a path without doubts: at once if that costs next to nothing or anything later would be too
    /// late, otherwise when its acknowledgement does not come in time.
    fn copy_when_missed(&mut self, now: Time, tag: u8, sent: &FirstSent) {
        let Some(other) = self.other_for_copies(now, tag) else {
            return;
        };
        let patience = self.patience(sent.index, other);
        let at_once = patience.is_none() || self.copies.budget.bears_all_awaited();
        let terms = (KEPT_FOR_MISSED, patience.is_none());
        let copied = at_once && self.copy_cheaply(now, tag, sent.key, sent.len, terms);
        if let Some(patience) = patience.filter(|_| !copied) {
            self.await_answer(now, patience, sent);
        }
    }

    fn await_tail(&mut self, now: Time, path: u8, sent: FirstSent) {
        let tails = &mut self.copies.tails;
        tails.retain(|tail| tail.slot != sent.slot);
        if tails.len() >= TAILS_MAX {
            tails.pop_front();
        }
        tails.push_back(Tail {
            due: now + TAIL_AFTER,
            slot: sent.slot,
            key: sent.key,
            path,
            len: sent.len,
        });
    }

    /// Copies the last packets of bursts that are over.
    pub(super) fn copy_tails(&mut self, now: Time) {
        while let Some(tail) = self.copies.tails.front().copied() {
            if tail.due > now {
                return;
            }
            self.copies.tails.pop_front();
            if self.store.get_mut(tail.key).is_some() {
                let terms = (KEPT_FOR_AWAITED, false);
                self.copy_cheaply(now, tail.path, tail.key, tail.len, terms);
            }
        }
    }

    /// The best path but one that may carry copies and has room for one.
    fn other_for_copies(&self, now: Time, not_on: u8) -> Option<&PathView> {
        self.order.usable.iter().find(|view| {
            let path = &self.paths[view.index];
            path.tag != not_on
                && view.role == Role::Always
                && !view.full
                && path.health.is_active()
                && path.ready_in(now) <= LAG_MAX
        })
    }

    /// Copies a packet that went over the path with this tag, if the roles of the others and the budget allow it; says
    /// whether they did. The terms: what must stay in the budget, bytes, and whether the allowance may fill it. Where no
    /// other path may carry it now, an echo is considered.
    pub(super) fn copy_cheaply(
        &mut self,
        now: Time,
        not_on: u8,
        key: PacketKey,
        len: usize,
        terms: (f64, bool),
    ) -> bool {
        let Some(other) = self.other_for_copies(now, not_on) else {
            self.consider_echo(now, not_on, key, len, terms);
            return false;
        };
        let (tag, capacity) = (self.paths[other.index].tag, other.capacity);
        let taken = self.take_from_budget(now, capacity, len, terms);
        if taken {
            self.push_copy(key, tag);
        }
        taken
    }

    fn take_from_budget(
        &mut self,
        now: Time,
        capacity: f64,
        len: usize,
        (keep, allowed): (f64, bool),
    ) -> bool {
        let allowance = if self.queue.has(Class::Bulk) || !allowed {
            0.0
        } else {
            ALLOWANCE.min(ALLOWANCE_SHARE * capacity)
        };
        let budget = &mut self.copies.budget;
        budget.reckon(now, allowance);
        let enough = budget.take(len, keep);
        self.copies.refused += u64::from(!enough);
        enough
    }

    /// Lets a packet follow itself over its own path, if there is no other and a repair would come too late.
    fn consider_echo(
        &mut self,
        now: Time,
        tag: u8,
        key: PacketKey,
        len: usize,
        terms: (f64, bool),
    ) {
        let always = |view: &&PathView| view.role == Role::Always;
        let mut paths = self.order.usable.iter().filter(always);
        let (Some(only), None) = (paths.next().copied(), paths.next()) else {
            return;
        };
        let path = &self.paths[only.index];
        // It takes from the same link, and what a thin one loses is lost for want of room.
        let roomy = SHARE * only.capacity >= ALLOWANCE;
        let useful = roomy && path.tag == tag && path.repairs_late();
        let useful = useful && terms.0 < KEPT_FOR_AWAITED;
        if useful
            && self.copies.echoes.len() < ECHOES_MAX
            && self.take_from_budget(now, only.capacity, len, terms)
        {
            let due = now + ECHO_AFTER;
            let echo = Echo {
                due,
                key,
                path: tag,
            };
            self.copies.echoes.push_back(echo);
        }
    }

    /// Lets the echoes go whose time has come; what has arrived meanwhile needs none.
    pub(super) fn send_echoes(&mut self, now: Time) {
        while let Some(&echo) = self.copies.echoes.front().filter(|echo| echo.due <= now) {
            self.copies.echoes.pop_front();
            self.push_copy(echo.key, echo.path);
        }
    }

    /// Sends a packet again over the best other path, whatever it costs.
    pub(super) fn add_copy(&mut self, now: Time, key: PacketKey, not_on: usize) {
        let ready = self.other_ready(now, not_on);
        let other = ready.or_else(|| self.best_paths().find(|&i| i != not_on));
        if let Some(tag) = other.map(|i| self.paths[i].tag) {
            self.push_copy(key, tag);
        }
    }

    fn push_copy(&mut self, key: PacketKey, tag: u8) {
        if self.copies.waiting.len() < WAITING_MAX {
            self.copies.waiting.push_back((key, tag));
        }
    }

    /// The best path but one that could take a copy now.
    fn other_ready(&self, now: Time, not_on: usize) -> Option<usize> {
        self.best_paths()
            .filter(|&i| i != not_on)
            .find(|&i| self.paths[i].ready_in(now).is_zero() && !self.paths[i].is_full())
    }

    /// Whether a bulk packet may leave over this path now: when it is to go out
    /// twice, a second path must be able to take it.
    pub(super) fn bulk_may_leave(&self, now: Time, index: usize) -> bool {
        self.modes.bulk != Mode::Redundant
            || self.best_paths().all(|i| i == index)
            || self.other_ready(now, index).is_some()
    }

    /// Why the packets of a flow like this are sent twice, for people. What a single packet is worth may differ.
    pub(super) fn copy_reason(&self, now: Time, flow: &Flow) -> Option<CopyReason> {
        match twice(self.modes.of(flow.class), flow.class) {
            Some(true) => return (self.order.usable.len() > 1).then_some(CopyReason::Mode),
            Some(false) => return None,
            None if flow.class == Class::Bulk || flow.is_acks() => return None,
            None => {}
        }
        // A path may be gone since they were ordered.
        let best = self.paths.get(self.order.best()?.index)?;
        let always = |view: &&PathView| view.role == Role::Always;
        let several = self.order.usable.iter().filter(always).nth(1).is_some();
        let thin = flow.rate_at(now) <= THIN_RATE;
        if best.is_doubtful(now) {
            let copied = several || thin && best.repairs_late();
            return copied.then_some(CopyReason::Doubt);
        }
        let other = self.other_for_copies(now, best.tag).filter(|_| thin)?;
        let patience = self.patience(self.order.best()?.index, other);
        if patience.is_some() && !self.copies.budget.bears_all_awaited() {
            return Some(CopyReason::Unanswered);
        }
        Some(CopyReason::Thin)
    }

    /// The next copy to be sent, over any path or over one.
    pub(super) fn pick_copy(&mut self, only: Option<usize>) -> Option<(u8, Pick)> {
        while let Some(&(key, tag)) = self.copies.waiting.front() {
            let index = self.path_index(tag);
            let useless = self.store.get_mut(key).is_none()
                || index.is_none_or(|i| !self.paths[i].health.is_active());
            if useless {
                self.copies.waiting.pop_front();
                continue;
            }
            if only.is_some() && only != index {
                return None;
            }
            self.copies.waiting.pop_front();
            return Some((tag, Pick::Copy(key)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of copies allowed in ten seconds, of packets of 250 bytes asked for
    /// every millisecond, beside so much other data and with such an allowance.
    fn allowed(sent_per_ms: u64, allowance: f64) -> f64 {
        let mut budget = Copies::default().budget;
        let mut copied = 0;
        for ms in 0..10_000 {
            budget.sent += sent_per_ms;
            budget.reckon(Time::from_millis(ms), allowance);
            copied += if budget.take(250, 0.0) { 250 } else { 0 };
        }
        f64::from(copied)
    }

    #[test]
    fn copies_beside_bulk_take_a_twentieth_of_its_bytes() {
        let bulk = 2_000;
        let share = (allowed(bulk, 0.0) - SAVED_MAX) / (bulk as f64 * 10_000.0);
        assert!((0.045..=0.05).contains(&share), "{share}");
    }

    #[test]
    fn allowance_and_share_do_not_add_up() {
        let rate = (allowed(500, ALLOWANCE) - SAVED_MAX) / 10.0;
        assert!((24_000.0..=25_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn what_is_kept_is_kept_for_the_worthiest() {
        let mut budget = Copies::default().budget;
        while budget.take(250, KEPT_FOR_AWAITED) {}
        assert!(budget.saved >= KEPT_FOR_AWAITED);
        assert!(budget.take(250, 0.0));
    }
}
