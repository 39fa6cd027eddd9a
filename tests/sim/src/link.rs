//! One direction of an emulated wire, as a pure state machine.
//!
//! A packet passes, in this order: the MTU and the policer at the entrance; a drop-tail
//! queue; the transmitter, which sends one packet after the other at the link's
//! rate (or at the moments of a recorded trace, or at once while its token bucket
//! lasts); random loss, which therefore costs air time like the real thing; the
//! delay line with its jitter and its lumps.
//!
//! Whoever drives it says what time it is, in nanoseconds since any origin: the
//! simulator jumps, the lab reads the monotonic clock. All moments inside are
//! computed, not observed, so a driver that comes late makes packets late but
//! never changes the rate. Everything may be changed at any time by
//! [`Link::set`]: what is queued follows the new rate at once, what is already
//! on the delay line keeps the delay it was sent with, and a link that keeps
//! order goes on keeping it.
//!
//! Same parameters, same seed, same calls: same answers.

mod params;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::VecDeque;

pub use params::{Jitter, LinkParams, Step};
pub use trace::{OPPORTUNITY_BYTES, Trace};

use crate::rng::Rng;
use params::{bit_s, nanos};
use trace::Replay;

/// Nanoseconds since the driver's origin.
pub type Nanos = u64;

/// Why a packet was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// It would have had to wait longer than the queue allows.
    QueueFull,
    /// The policer had no token left.
    Policed,
    /// The link swallows everything now.
    Blackhole,
    /// It is larger than the link's MTU.
    TooLarge,
}

/// What a link has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LinkStats {
    /// Packets offered.
    pub offered: u64,
    /// Packets delivered.
    pub delivered: u64,
    /// Bytes delivered, without overhead.
    pub delivered_bytes: u64,
    /// Packets dropped at a full queue.
    pub dropped_queue: u64,
    /// Packets dropped by the policer.
    pub dropped_policer: u64,
    /// Packets swallowed by a blackhole.
    pub dropped_blackhole: u64,
    /// Packets swallowed as larger than the MTU.
    pub dropped_mtu: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Bytes that wait in the queue, with overhead.
    pub queue_bytes: u64,
    /// The most that ever waited, with overhead.
    pub queue_bytes_max: u64,
}

/// One direction of an emulated wire that carries packets of type `T`.
#[derive(Debug)]
pub struct Link<T> {
    params: LinkParams,
    rng: Rng,
    stats: LinkStats,

    // In force now: the parameters, as the current step of the schedule bends them.
    rate_bit_s: Option<u64>,
    delay: Nanos,
    loss: f64,
    step: usize,
    step_ends: Nanos,
    /// The last rate above zero: what `queue_ms` is measured with while the link stands still.
    rate_for_queue_bit_s: u64,

    policer_tokens: f64,
    policer_filled: Nanos,

    queue: VecDeque<Queued<T>>,
    /// The transmitter has worked on the head of the queue up to this moment. With a token bucket this lags behind
    /// the time by what is in the bucket.
    served_until: Nanos,
    replay: Option<Replay>,
    /// Whether the last packet was lost: the bad state of the Gilbert-Elliott model.
    losing: bool,

    /// On the delay line, sorted by delivery.
    line: VecDeque<Travelling<T>>,
    last_delivery: Nanos,
}

#[derive(Debug)]
struct Queued<T> {
    arrived: Nanos,
    len: u64,
    /// Bytes it takes on the wire.
    wire: u64,
    /// What is left to send, in bits times 10⁹: divided by bits per second this is nanoseconds.
    work: u128,
    packet: T,
}

#[derive(Debug)]
struct Travelling<T> {
    at: Nanos,
    len: u64,
    packet: T,
}

const WORK_PER_BYTE: u128 = 8 * 1_000_000_000;

impl<T> Link<T> {
    /// A link that begins at time 0.
    ///
    /// # Panics
    /// If the parameters do not pass [`LinkParams::check`].
    pub fn new(params: LinkParams, seed: u64) -> Self {
        let mut link = Link {
            params: LinkParams::default(),
            rng: Rng::new(seed),
            stats: LinkStats::default(),
            rate_bit_s: None,
            delay: 0,
            loss: 0.0,
            step: 0,
            step_ends: Nanos::MAX,
            rate_for_queue_bit_s: 1_000_000,
            policer_tokens: params.policer_burst_bytes as f64,
            policer_filled: 0,
            queue: VecDeque::new(),
            served_until: 0,
            replay: None,
            losing: false,
            line: VecDeque::new(),
            last_delivery: 0,
        };
        link.set(0, params);
        link
    }

    /// The parameters that were given last.
    pub fn params(&self) -> &LinkParams {
        &self.params
    }

    /// What the link has done up to the last call that told it the time.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Changes everything from `now` on.
    ///
    /// # Panics
    /// If the parameters do not pass [`LinkParams::check`].
    pub fn set(&mut self, now: Nanos, params: LinkParams) {
        if let Err(complaint) = params.check() {
            panic!("link parameters are checked where they are read: {complaint}");
        }
        self.advance(now);
        if params.trace != self.params.trace {
            self.replay = params
                .trace
                .as_ref()
                .and_then(|trace| Replay::new(trace, now));
        }
        self.params = params;
        self.step = 0;
        self.step_ends = match self.params.steps.first() {
            Some(step) => now.saturating_add(nanos(step.hold_ms)),
            None => Nanos::MAX,
        };
        self.apply_step(now);
        self.policer_tokens = self
            .policer_tokens
            .min(self.params.policer_burst_bytes as f64);
        if self.params.blackhole {
            self.stats.dropped_blackhole += (self.queue.len() + self.line.len()) as u64;
            self.queue.clear();
            self.line.clear();
            self.stats.queue_bytes = 0;
        }
    }

    /// Offers a packet of `len` bytes (from its IP header on).
    pub fn enqueue(&mut self, now: Nanos, len: usize, packet: T) -> Result<(), Drop> {
        self.advance(now);
        self.stats.offered += 1;
        let len = len as u64;
        let refused = if self.params.blackhole {
            self.stats.dropped_blackhole += 1;
            Some(Drop::Blackhole)
        } else if self.params.mtu.is_some_and(|mtu| len > mtu) {
            self.stats.dropped_mtu += 1;
            Some(Drop::TooLarge)
        } else if !self.policer_admits(now, len) {
            self.stats.dropped_policer += 1;
            Some(Drop::Policed)
        } else if !self.queue_admits(now, len) {
            self.stats.dropped_queue += 1;
            Some(Drop::QueueFull)
        } else {
            None
        };
        if let Some(reason) = refused {
            return Err(reason);
        }
        let wire = self.wire_len(len);
        self.queue.push_back(Queued {
            arrived: now,
            len,
            wire,
            work: u128::from(wire) * WORK_PER_BYTE,
            packet,
        });
        self.stats.queue_bytes += wire;
        self.stats.queue_bytes_max = self.stats.queue_bytes_max.max(self.stats.queue_bytes);
        // An unlimited link has sent it by now.
        self.serve(now);
        Ok(())
    }

    /// The next packet that has arrived at the other end by `now`.
    pub fn poll_deliver(&mut self, now: Nanos) -> Option<T> {
        self.advance(now);
        if self.line.front()?.at > now {
            return None;
        }
        let arrived = self.line.pop_front()?;
        self.stats.delivered += 1;
        self.stats.delivered_bytes += arrived.len;
        Some(arrived.packet)
    }

    /// When [`Self::poll_deliver`] is worth calling next. It may then still have nothing.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let first_on_line = self.line.front().map(|travelling| travelling.at);
        if first_on_line.is_some() && !self.params.jitter_reorders {
            return first_on_line;
        }
        let certain_delay = if self.params.jitter_ms == 0.0 {
            self.delay
        } else {
            0
        };
        let next_from_queue = match self.head_done() {
            Some(done) if done <= self.step_ends => Some(done.saturating_add(certain_delay)),
            // The next step changes the rate before the head is sent.
            _ => (!self.queue.is_empty() && self.step_ends != Nanos::MAX).then_some(self.step_ends),
        };
        [first_on_line, next_from_queue].into_iter().flatten().min()
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.line.is_empty()
    }

    fn advance(&mut self, now: Nanos) {
        while self.step_ends <= now {
            let at = self.step_ends;
            self.serve(at);
            self.step = (self.step + 1) % self.params.steps.len();
            self.step_ends = at.saturating_add(nanos(self.params.steps[self.step].hold_ms));
            self.apply_step(at);
        }
        self.serve(now);
    }

    /// Puts the parameters of the current step into force. The transmitter has
    /// worked up to `at`; the head's remaining bits follow the new rate.
    fn apply_step(&mut self, at: Nanos) {
        if let Some(left) = self.queue.front().map(|head| self.work_left(head, at))
            && let Some(head) = self.queue.front_mut()
        {
            head.work = left;
        }
        // What waits, waits for tokens: the bucket is empty.
        let bucket_since = if self.queue.is_empty() {
            at.saturating_sub(self.bucket())
        } else {
            at
        };
        self.served_until = self.served_until.max(bucket_since);
        let step = self.params.steps.get(self.step);
        let rate_mbit = step
            .and_then(|step| step.rate_mbit)
            .or(self.params.rate_mbit);
        let delay_ms = step
            .and_then(|step| step.delay_ms)
            .unwrap_or(self.params.delay_ms);
        self.rate_bit_s = rate_mbit.map(bit_s);
        self.delay = nanos(delay_ms);
        self.loss = step.and_then(|step| step.loss).unwrap_or(self.params.loss);
        let nominal = match &self.params.trace {
            Some(trace) => Some(trace.mean_rate_bit_s()),
            None => self.rate_bit_s,
        };
        if let Some(rate) = nominal.filter(|rate| *rate > 0) {
            self.rate_for_queue_bit_s = rate;
        }
    }

    /// Bytes that a packet takes on the wire. A recorded trace counted whole packets.
    fn wire_len(&self, len: u64) -> u64 {
        if self.replay.is_some() {
            len
        } else {
            len + self.params.overhead_bytes
        }
    }

    fn policer_admits(&mut self, now: Nanos, len: u64) -> bool {
        let Some(rate_mbit) = self.params.policer_mbit else {
            return true;
        };
        let elapsed = now.saturating_sub(self.policer_filled) as f64;
        let depth = self.params.policer_burst_bytes as f64;
        self.policer_filled = now;
        self.policer_tokens = (self.policer_tokens + elapsed * rate_mbit / 8000.0).min(depth);
        let wire = self.wire_len(len) as f64;
        if self.policer_tokens < wire {
            return false;
        }
        self.policer_tokens -= wire;
        true
    }

    fn queue_admits(&self, now: Nanos, len: u64) -> bool {
        if let Some(bound) = self.params.queue_bytes {
            return self.stats.queue_bytes + self.wire_len(len) <= bound;
        }
        let Some(head) = self.queue.front() else {
            return true;
        };
        let behind = u128::from(self.stats.queue_bytes - head.wire) * WORK_PER_BYTE;
        let waiting = self.work_left(head, now) + behind;
        waiting <= u128::from(nanos(self.params.queue_ms)) * u128::from(self.rate_for_queue_bit_s)
    }

    /// What is left to send of the head of the queue at `now`.
    fn work_left(&self, head: &Queued<T>, now: Nanos) -> u128 {
        match (self.rate_bit_s, &self.replay) {
            (Some(rate), None) => {
                let began = self.began(head);
                let done = u128::from(now.saturating_sub(began)) * u128::from(rate);
                head.work.saturating_sub(done)
            }
            _ => head.work,
        }
    }

    /// When the head of the queue will have been sent if nothing changes.
    fn head_done(&self) -> Option<Nanos> {
        let head = self.queue.front()?;
        if let Some(replay) = &self.replay {
            return Some(replay.next().max(self.served_until).max(head.arrived));
        }
        match self.rate_bit_s {
            None => Some(self.began(head)),
            Some(0) => None,
            Some(rate) => {
                let takes = head.work.div_ceil(u128::from(rate));
                Some(
                    self.began(head)
                        .saturating_add(Nanos::try_from(takes).unwrap_or(Nanos::MAX)),
                )
            }
        }
    }

    /// When the transmitter began with the head of the queue. What lies in the bucket was earned before it came.
    fn began(&self, head: &Queued<T>) -> Nanos {
        self.served_until
            .max(head.arrived.saturating_sub(self.bucket()))
    }

    /// The time in which the bucket fills.
    fn bucket(&self) -> Nanos {
        match self.rate_bit_s {
            Some(rate) if rate > 0 && self.replay.is_none() => {
                let bits = u128::from(self.params.burst_bytes) * WORK_PER_BYTE;
                Nanos::try_from(bits / u128::from(rate)).unwrap_or(Nanos::MAX)
            }
            _ => 0,
        }
    }

    /// Sends everything that the transmitter can have sent by `until`.
    fn serve(&mut self, until: Nanos) {
        if self.replay.is_some() {
            return self.serve_trace(until);
        }
        while let Some(done) = self.head_done()
            && done <= until
        {
            self.served_until = done;
            let arrived = self.queue.front().map_or(0, |head| head.arrived);
            self.head_sent(done.max(arrived));
        }
    }

    fn serve_trace(&mut self, until: Nanos) {
        while let Some(head) = self.queue.front()
            && let Some(replay) = &mut self.replay
        {
            replay.skip_to(head.arrived);
            let moment = replay.next();
            if moment > until {
                break;
            }
            replay.advance();
            self.served_until = self.served_until.max(moment);
            let mut room = u128::from(OPPORTUNITY_BYTES) * WORK_PER_BYTE;
            while let Some(head) = self.queue.front_mut()
                && head.arrived <= moment
                && room > 0
            {
                let sent = head.work.min(room);
                head.work -= sent;
                room -= sent;
                if head.work == 0 {
                    self.head_sent(moment);
                }
            }
        }
    }

    /// The head of the queue has left the transmitter at `sent`.
    fn head_sent(&mut self, sent: Nanos) {
        let Some(head) = self.queue.pop_front() else {
            return;
        };
        self.stats.queue_bytes -= head.wire;
        if self.is_lost() {
            self.stats.lost += 1;
            return;
        }
        let mut at = self
            .end_of_lump(sent)
            .saturating_add(self.scattered_delay());
        if !self.params.jitter_reorders {
            at = at.max(self.last_delivery);
        }
        self.last_delivery = self.last_delivery.max(at);
        // Nearly always at the end: only what overtakes moves forward.
        let place = self
            .line
            .iter()
            .rposition(|other| other.at <= at)
            .map_or(0, |i| i + 1);
        self.line.insert(
            place,
            Travelling {
                at,
                len: head.len,
                packet: head.packet,
            },
        );
    }

    /// When what was sent at `sent` travels on.
    fn end_of_lump(&self, sent: Nanos) -> Nanos {
        match nanos(self.params.lump_ms) {
            0 => sent,
            lump => sent.div_ceil(lump).saturating_mul(lump),
        }
    }

    fn is_lost(&mut self) -> bool {
        let burst = self.params.loss_burst;
        if burst <= 1.0 || self.loss <= 0.0 || self.loss >= 1.0 {
            // A burst does not outlive the loss that it was part of.
            self.losing = false;
            return self.rng.happens(self.loss);
        }
        // Mean stay in the bad state: `burst` packets. Share of packets in it: `loss`.
        self.losing = if self.losing {
            !self.rng.happens(1.0 / burst)
        } else {
            self.rng.happens(self.loss / (burst * (1.0 - self.loss)))
        };
        self.losing
    }

    fn scattered_delay(&mut self) -> Nanos {
        let jitter_ns = self.params.jitter_ms * 1e6;
        if jitter_ns == 0.0 {
            return self.delay;
        }
        let scatter = match self.params.jitter {
            Jitter::Normal => self.rng.normal() * jitter_ns,
            Jitter::Uniform => self.rng.between_f64(-jitter_ns, jitter_ns),
        };
        (self.delay as f64 + scatter).max(0.0) as Nanos
    }
}
