//! The queue in the path: the one-way delay above its base.
//!
//! The base is the lowest delay of five to ten seconds. It can be wrong in one
//! direction only, too low, when the route became longer. Two signs tell that
//! from a queue: a delay that leaps and then stays level (a queue grows and
//! shrinks, but never stands still; and it leaps by no more than what has to pass
//! first), and a delay that stays high though so much less was sent that a queue
//! would be gone. Either way the base is taken anew.
//!
//! On a link that jitters a single delay says nothing, and the lowest of ten
//! seconds is a rare one. Such a link is looked at through the lowest delay of a
//! window: many packets, of which some were not held up. What still remains when
//! so much less was sent that a queue would be gone is a floor from which the queue
//! is counted, until the delay falls below it. A busy link that jitters and keeps the
//! order has a high floor: each packet waits for the latest of those before it.
//!
//! How much of a delay may be a queue is an account: it grows by what the delay rises,
//! and shrinks by what was sent less than the link carries, unless things arrive
//! faster than they were sent, for then they come out of a queue.

use std::collections::VecDeque;
use std::time::Duration;

use super::delivery::Rates;
use super::{BASE_BUCKET, RateSample};
use crate::stamp;
use crate::time::Time;

/// A leap of the delay from one acknowledgement to the next, ms.
const LEAP_MS: f64 = 4.0;
/// Looks at a delay that leapt before it counts as level: a queue that is just being filled may stand still for one.
const LEVEL_LOOKS: u32 = 4;

/// Acknowledgements over which the noise is averaged.
const NOISE_LOOKS: f64 = 64.0;
/// With so many of them the noise counts as known: what jitters has gone up and down some times by then.
const KNOWN_LOOKS: u32 = 20;
/// Noise up to this, and a packet's time on the link, is what trains of packets make on any link.
const QUIET_MS: f64 = 1.1;
/// Over how long the lowest delay is taken on a link that jitters: some hundred packets.
const WINDOW: Duration = Duration::from_millis(300);
/// What one look may add.
const NOISE_MAX_MS: f64 = 30.0;

/// How much longer than its queue a link is spared before a delay that stays is believed to be the route's.
const SPARED_MARGIN_MS: f64 = 5.0;

/// A delay that is high, and what was done about it.
#[derive(Clone, Copy, Debug)]
struct High {
    capacity: f64,
    /// The fastest that anything arrived since, bytes per second.
    arrived: f64,
}

/// A leap of the delay that may turn out to be a longer route.
#[derive(Clone, Copy, Debug)]
struct Step {
    since: Time,
    level: f64,
    looks: u32,
}

/// Base delay, queue, noise, and the watch over all three.
#[derive(Debug)]
pub(super) struct Delay {
    reference: Option<u32>,
    base_now: Option<i32>,
    base_before: Option<i32>,
    base_since: Time,
    last_ms: f64,
    last_jump_ms: f64,
    recent: VecDeque<(Time, f64)>,
    excess_ms: f64,
    floor_ms: f64,
    queue_ms: f64,
    leap_ms: f64,
    leaps: u32,
    noise_ms: f64,
    looks: f64,
    /// Acknowledgements since the first.
    seen: u32,
    scattered: bool,
    /// How much of the queue may be one, after all that was sent less than the link carries.
    possible_ms: f64,
    queue_before_ms: f64,
    high: Option<High>,
    step: Option<Step>,
}

impl Delay {
    /// Nothing is known; the first base is believed from now on.
    pub fn new(now: Time) -> Self {
        Delay {
            reference: None,
            base_now: None,
            base_before: None,
            base_since: now,
            last_ms: 0.0,
            last_jump_ms: 0.0,
            recent: VecDeque::new(),
            excess_ms: 0.0,
            floor_ms: 0.0,
            queue_ms: 0.0,
            leap_ms: 0.0,
            leaps: 0,
            noise_ms: 0.0,
            looks: 4.0,
            seen: 0,
            scattered: false,
            possible_ms: 0.0,
            queue_before_ms: 0.0,
            high: None,
            step: None,
        }
    }

    /// Delay above the base, milliseconds.
    pub fn queue_ms(&self) -> f64 {
        self.queue_ms
    }

    /// How much the queue changes between acknowledgements for no reason, milliseconds.
    pub fn noise_ms(&self) -> f64 {
        self.noise_ms
    }

    /// The delay leapt of late and has yet to show whether it is a queue.
    pub fn is_doubtful(&self) -> bool {
        self.step.is_some()
    }

    /// The base as a difference of stamps.
    pub fn base(&self) -> Option<u32> {
        let base = self.base_offset()?;
        self.reference.map(|r| stamp::add(r, base))
    }

    fn base_offset(&self) -> Option<i32> {
        match (self.base_now, self.base_before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes in the lowest delay since the last acknowledgement. One packet takes `packet_ms` on the link at most.
    pub fn note(&mut self, now: Time, s: &RateSample, packet_ms: f64) {
        let reference = *self.reference.get_or_insert(s.min_delay);
        let delay = stamp::difference(s.min_delay, reference);
        if now.since(self.base_since) > BASE_BUCKET {
            self.base_since = now;
            self.base_before = self.base_now.take().or(self.base_before);
        }
        self.base_now = Some(self.base_now.map_or(delay, |b| b.min(delay)));
        let base = self.base_offset().unwrap_or(delay);
        let excess = stamp::millis(delay - base);
        self.note_noise(excess);
        let lowest = self.lowest_of_late(now, excess, packet_ms);
        self.leap_ms = lowest - self.excess_ms;
        self.excess_ms = lowest;
        if self.excess_ms < self.floor_ms {
            self.floor_ms += (self.excess_ms - self.floor_ms) / 8.0;
        }
        self.queue_ms = (self.excess_ms - self.floor_ms).max(0.0);
    }

    /// Noise goes up and down again; a queue that fills or drains keeps its direction.
    fn note_noise(&mut self, excess: f64) {
        let jump = excess - self.last_ms;
        let turns = jump * self.last_jump_ms < 0.0;
        let noise = if turns {
            2.0 * jump.abs().min(self.last_jump_ms.abs())
        } else {
            0.0
        };
        (self.last_ms, self.last_jump_ms) = (excess, jump);
        self.seen = self.seen.saturating_add(1);
        // The first looks count more, or a start would take noise for a queue.
        self.looks = (self.looks + 1.0).min(NOISE_LOOKS);
        self.noise_ms += (noise.min(NOISE_MAX_MS) - self.noise_ms) / self.looks;
    }

    /// Before any traffic: delays were seen this far apart.
    pub fn expect_scatter(&mut self, scatter_ms: f64) {
        /// Of a few dozen normally distributed delays the range is four deviations, and noise, as it is measured here,
        /// about one.
        const RANGE: f64 = 4.0;
        let noise = scatter_ms / RANGE;
        if noise > self.noise_ms {
            self.noise_ms = noise.min(NOISE_MAX_MS);
            self.looks = NOISE_LOOKS / 2.0;
        }
        self.scattered |= noise > QUIET_MS;
    }

    /// Whether enough acknowledgements came to tell whether the delay jitters. What pings showed before
    /// ([`Self::expect_scatter`]) does not count: all of them pass within some milliseconds, and say little about a link
    /// that holds packets for longer.
    pub fn knows_noise(&self) -> bool {
        self.seen >= KNOWN_LOOKS
    }

    /// Whether delays were far apart before there was any traffic.
    pub fn is_scattered(&self) -> bool {
        self.scattered
    }

    /// Whether a single look at the delay says little. One packet takes `packet_ms` on the link at most.
    pub fn is_noisy(&self, packet_ms: f64) -> bool {
        self.noise_ms > QUIET_MS + packet_ms
    }

    /// The lowest excess of the window, if the link asks for one.
    fn lowest_of_late(&mut self, now: Time, excess: f64, packet_ms: f64) -> f64 {
        let window = if self.is_noisy(packet_ms) {
            WINDOW
        } else {
            Duration::ZERO
        };
        // What a later one undercuts can never be the lowest again.
        while self.recent.back().is_some_and(|r| r.1 >= excess) {
            self.recent.pop_back();
        }
        self.recent.push_back((now, excess));
        while self.recent.front().is_some_and(|r| now.since(r.0) > window) {
            self.recent.pop_front();
        }
        self.recent.front().map_or(excess, |r| r.1)
    }

    /// Most of what is taken for a queue is the link's own delay, and becomes the floor. A queue of `left` ms remains, or of
    /// what may still be one where that is more.
    pub fn take_floor(&mut self, left: f64) {
        let left = left.max(self.possible_ms);
        self.floor_ms = self.floor_ms.max(self.excess_ms - left);
        self.queue_ms = (self.excess_ms - self.floor_ms).max(0.0);
    }

    /// A delay that leaps and then stays level is a longer route. `idle_ms`: for how long nothing arrived that would have
    /// kept the link busy, since the last look. A queue grows no more than by what has to pass first, which on a slow link
    /// takes its time.
    pub fn watch_step(&mut self, now: Time, rtt: Duration, idle_ms: f64) {
        let queue = self.excess_ms;
        if self.leap_ms.min(idle_ms) > LEAP_MS {
            self.leaps += 1;
            // A queue that fills quickly leaps again and again.
            self.step = (self.leaps == 1).then_some(Step {
                since: now,
                level: queue,
                looks: 0,
            });
        } else {
            self.leaps = 0;
        }
        let Some(step) = &mut self.step else {
            return;
        };
        if (queue - step.level).abs() > 0.1 * step.level + 1.0 {
            self.step = None;
            return;
        }
        step.looks += 1;
        if now.since(step.since) > rtt * 3 / 2 && step.looks >= LEVEL_LOOKS {
            self.rebase(now);
        }
    }

    /// A delay that stays above `high` ms though so much less was sent that a queue would be gone is the route's, or the
    /// link's scatter. `rates` are those of what arrived since the last look, `step_ms` before this one. Less than what?
    /// Than arrived when the delay was as high already: were it a queue, the link sent no faster. What is believed of the
    /// capacity would be a bad witness: too high, it makes a queue look like a route, and with the queue for a base it
    /// rises further. A delay that rises again may be a queue again, but only by as much as it rose: on a link that jitters
    /// it rises all the time.
    /// Returns the capacity that was believed when it began: what was taken for a shrinking link since then was our own
    /// restraint.
    pub fn watch_route(
        &mut self,
        now: Time,
        high: f64,
        packet_ms: f64,
        capacity: f64,
        rates: Option<(Rates, f64)>,
        step_ms: f64,
    ) -> Option<f64> {
        let queue = self.queue_ms;
        let rose = (queue - self.queue_before_ms).max(0.0);
        self.queue_before_ms = queue;
        self.possible_ms += rose;
        let noisy = self.is_noisy(packet_ms);
        if queue <= high {
            self.high = None;
            if !noisy {
                self.possible_ms = queue;
            }
        } else {
            let arrived = 0.0;
            self.high.get_or_insert(High { capacity, arrived });
        }
        if let Some((rates, slack)) = rates {
            let usual = match &mut self.high {
                Some(high) => {
                    high.arrived = high.arrived.max(rates.arrived);
                    high.arrived.min(capacity)
                }
                None => capacity,
            };
            // What arrives faster than it was sent comes out of a queue.
            if rates.arrived <= rates.sent * (1.0 + slack) {
                let spared = 1.0 - slack - rates.sent / usual;
                self.possible_ms -= spared.max(0.0) * step_ms;
            }
        }
        self.possible_ms = self.possible_ms.clamp(-SPARED_MARGIN_MS, queue);
        let before = self.high?.capacity;
        if self.possible_ms > -SPARED_MARGIN_MS {
            return None;
        }
        if noisy {
            self.take_floor(0.0);
            self.high = None;
        } else {
            self.rebase(now);
        }
        Some(before)
    }

    fn rebase(&mut self, now: Time) {
        self.base_now = None;
        self.base_before = None;
        self.base_since = now;
        self.recent.clear();
        self.floor_ms = 0.0;
        self.possible_ms = 0.0;
        self.queue_before_ms = 0.0;
        self.high = None;
        self.step = None;
    }
}
