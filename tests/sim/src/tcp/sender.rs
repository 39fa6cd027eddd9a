//! The sending half of a connection: what may leave when, what counts as lost.

use std::collections::VecDeque;

use super::Ack;
use super::congestion::{Algorithm, Congestion, Progress, RateSample};
use super::marks::Marks;
use crate::link::Nanos;

const MS: Nanos = 1_000_000;
const RTO_MIN: Nanos = 200 * MS;
const RTO_MAX: Nanos = 120_000 * MS;
const RTO_INITIAL: Nanos = 1_000 * MS;
/// Segments that must arrive above a hole before it counts as a loss.
const DUPLICATE_THRESHOLD: u64 = 3;

/// Segment numbers as they leave, and the clock that moves them.
#[derive(Clone, Debug)]
pub struct Sender {
    congestion: Congestion,
    marks: Marks,
    /// Segments the application has for us; None: no end.
    total: Option<u64>,
    window: u64,

    una: u64,
    flight: VecDeque<Segment>,
    pipe: u64,
    sacked: u64,
    /// Above every segment that has arrived.
    arrived_up_to: u64,
    /// Above every segment that may have to be sent again.
    highest: u64,
    /// Nothing below this needs to be sent again.
    retransmit_hint: u64,

    srtt: Nanos,
    rttvar: Nanos,
    rtt_min: Nanos,
    rto_due: Option<Nanos>,
    backoff: u32,
    probe_due: Option<Nanos>,
    probe_sent: bool,

    rack_sent: Nanos,
    rack_rtt: Nanos,
    rack_due: Option<Nanos>,
    reordering_seen: bool,
    /// How often needless retransmissions widened the tolerance.
    tolerance_steps: u64,
    tolerance_widened_at: u64,

    recovery: Option<Recovery>,
    cwnd_limited: bool,

    delivered: u64,
    delivered_at: Nanos,
    first_sent: Nanos,
    app_limited_until: u64,
    pace_next: Nanos,
    /// Segments that leave together with the last one.
    burst_left: u64,

    stats: SenderStats,
}

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SenderStats {
    /// Segments sent again.
    pub retransmitted: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Times that the window was reduced for a loss or a mark.
    pub reductions: u64,
    /// Reductions taken back because nothing had been lost.
    pub undone: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    sent: Nanos,
    transmissions: u32,
    state: State,
    /// For the rate sample.
    delivered_before: u64,
    delivered_at: Nanos,
    first_sent: Nanos,
    app_limited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    OnTheWay,
    Lost,
    Arrived,
}

#[derive(Clone, Debug)]
struct Recovery {
    /// Ends when everything below is acknowledged.
    until: u64,
    by_timeout: bool,
    first_retransmit: Option<Nanos>,
    retransmits_pending: i64,
    cwnd_before: f64,
    ssthresh_before: f64,
    pipe_before: f64,
    delivered: f64,
    sent: f64,
}

impl Sender {
    /// A sender of `total` segments (None: without end) of `mss` bytes each.
    pub fn new(algorithm: Algorithm, mss: usize, total: Option<u64>) -> Self {
        Sender {
            congestion: Congestion::new(algorithm),
            marks: Marks::new(algorithm),
            total,
            window: super::WINDOW_BYTES / mss as u64,
            una: 0,
            flight: VecDeque::new(),
            pipe: 0,
            sacked: 0,
            arrived_up_to: 0,
            highest: 0,
            retransmit_hint: 0,
            srtt: 0,
            rttvar: 0,
            rtt_min: Nanos::MAX,
            rto_due: None,
            backoff: 0,
            probe_due: None,
            probe_sent: false,
            rack_sent: 0,
            rack_rtt: 0,
            rack_due: None,
            reordering_seen: false,
            tolerance_steps: 1,
            tolerance_widened_at: 0,
            recovery: None,
            cwnd_limited: false,
            delivered: 0,
            delivered_at: 0,
            first_sent: 0,
            app_limited_until: 0,
            pace_next: 0,
            burst_left: 0,
            stats: SenderStats::default(),
        }
    }

    /// What it did so far.
    pub fn stats(&self) -> SenderStats {
        self.stats
    }

    /// Whether everything the application had has been acknowledged.
    pub fn is_done(&self) -> bool {
        self.total.is_some_and(|total| self.una >= total)
    }

    /// The next segment to put on the wire, if one may go now.
    pub fn poll_send(&mut self, now: Nanos) -> Option<u64> {
        if self.pipe as f64 >= self.congestion.cwnd.floor() {
            self.cwnd_limited = true;
            return None;
        }
        if self.congestion.pacing_rate().is_some() && now < self.pace_next && self.burst_left == 0 {
            return None;
        }
        if let Some(seq) = self.next_lost() {
            self.transmit(now, seq);
            return Some(seq);
        }
        let next = self.next();
        if self.total.is_some_and(|total| next >= total) {
            self.cwnd_limited = false;
            self.app_limited_until = self.delivered + self.pipe;
            return None;
        }
        if next >= self.una + self.window {
            // It is the receiver that holds it back, so what arrives still tells the path's rate.
            self.cwnd_limited = false;
            return None;
        }
        self.transmit(now, next);
        Some(next)
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_send`] is worth calling.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let may_send = (self.pipe as f64) < self.congestion.cwnd.floor()
            && (self.retransmit_hint < self.highest
                || (self.total.is_none_or(|total| self.next() < total)
                    && self.next() < self.una + self.window));
        let pace = (may_send && self.congestion.pacing_rate().is_some()).then_some(self.pace_next);
        [self.rto_due, self.probe_due, self.rack_due, pace]
            .into_iter()
            .flatten()
            .min()
    }

    /// Looks at the timers. What may be sent afterwards comes from [`Self::poll_send`].
    pub fn handle_timeout(&mut self, now: Nanos) {
        if self.rack_due.is_some_and(|due| due <= now) {
            self.rack_due = None;
            self.detect_losses(now);
        }
        if self.probe_due.is_some_and(|due| due <= now) {
            self.probe_due = None;
            self.send_probe(now);
        }
        if self.rto_due.is_some_and(|due| due <= now) {
            self.on_rto(now);
        }
    }

    /// The receiver grants so many segments behind what it has acknowledged.
    pub fn set_window(&mut self, segments: u64) {
        self.window = segments.max(1);
    }

    /// An acknowledgement arrived.
    pub fn on_ack(&mut self, now: Nanos, ack: &Ack) {
        let una_before = self.una;
        let mut news = News::default();
        while self.una < ack.cumulative
            && let Some(segment) = self.flight.pop_front()
        {
            self.arrived(now, self.una, &segment, &mut news);
            if segment.state == State::Arrived {
                self.sacked -= 1;
            }
            self.una += 1;
        }
        for (start, end) in &ack.selective {
            for seq in (*start).max(self.una)..(*end).min(self.next()) {
                let index = (seq - self.una) as usize;
                if self.flight[index].state != State::Arrived {
                    let segment = self.flight[index].clone();
                    self.arrived(now, seq, &segment, &mut news);
                    self.flight[index].state = State::Arrived;
                    self.sacked += 1;
                }
            }
        }
        if let Some(rtt) = news.rtt {
            self.update_rtt(rtt);
        }
        if self.una > una_before {
            self.backoff = 0;
            self.probe_sent = false;
            self.rearm_rto(now);
        }
        if ack.duplicate.is_some() && self.una >= self.tolerance_widened_at {
            self.tolerance_widened_at = self.next();
            self.tolerance_steps += 1;
            self.reordering_seen = true;
        }
        self.maybe_undo(ack, self.una > una_before);
        if self.sacked > 0 || self.recovery.is_some() {
            self.detect_losses(now);
        }
        self.grow(now, &news);
        let (una, next) = (self.una, self.next());
        let marked = self.marks.on_ack(ack.marked, news.delivered, una, next);
        // A recovery has just made the window smaller.
        if let Some(how) = marked.filter(|_| self.recovery.is_none()) {
            self.stats.reductions += 1;
            self.congestion.yield_to_mark(how);
        }
        if self
            .recovery
            .as_ref()
            .is_some_and(|recovery| self.una >= recovery.until)
        {
            self.leave_recovery();
        }
        self.arm_probe(now);
    }

    fn next(&self) -> u64 {
        self.una + self.flight.len() as u64
    }

    fn transmit(&mut self, now: Nanos, seq: u64) {
        if self.pipe == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        let index = (seq - self.una) as usize;
        let transmissions = self
            .flight
            .get(index)
            .map_or(0, |segment| segment.transmissions);
        let segment = Segment {
            sent: now,
            transmissions: transmissions + 1,
            state: State::OnTheWay,
            delivered_before: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            app_limited: self.app_limited_until > self.delivered,
        };
        if transmissions == 0 {
            self.flight.push_back(segment);
        } else {
            self.flight[index] = segment;
            self.stats.retransmitted += 1;
            if let Some(recovery) = &mut self.recovery {
                recovery.first_retransmit.get_or_insert(now);
                recovery.retransmits_pending += 1;
            }
        }
        self.pipe += 1;
        if let Some(recovery) = &mut self.recovery {
            recovery.sent += 1.0;
        }
        if let Some(rate) = self.congestion.pacing_rate() {
            if self.burst_left == 0 {
                self.burst_left = self.congestion.segments_at_once();
            }
            self.burst_left -= 1;
            self.pace_next = self.pace_next.max(now) + (1e9 / rate.max(1.0)) as Nanos;
        }
        if self.rto_due.is_none() {
            self.rearm_rto(now);
        }
        self.arm_probe(now);
    }

    /// A segment is known to have arrived, for the first time.
    fn arrived(&mut self, now: Nanos, seq: u64, segment: &Segment, news: &mut News) {
        if segment.state == State::Arrived {
            return;
        }
        if segment.state == State::OnTheWay {
            self.pipe -= 1;
        }
        news.delivered += 1;
        self.delivered += 1;
        let rtt = now - segment.sent;
        let first_time = segment.transmissions == 1;
        if first_time {
            news.rtt = Some(news.rtt.map_or(rtt, |other| other.min(rtt)));
            if seq < self.arrived_up_to {
                self.reordering_seen = true;
            }
        }
        self.arrived_up_to = self.arrived_up_to.max(seq + 1);
        self.highest = self.highest.max(seq + 1);
        if (first_time || rtt >= self.rtt_min) && segment.sent >= self.rack_sent {
            self.rack_sent = segment.sent;
            self.rack_rtt = rtt;
        }
        if news
            .newest
            .as_ref()
            .is_none_or(|newest| segment.delivered_before >= newest.delivered_before)
        {
            news.newest = Some(segment.clone());
        }
    }

    fn update_rtt(&mut self, rtt: Nanos) {
        self.rtt_min = self.rtt_min.min(rtt);
        if self.srtt == 0 {
            self.srtt = rtt;
            self.rttvar = rtt / 2;
        } else {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
    }

    fn rearm_rto(&mut self, now: Nanos) {
        let rto = if self.srtt == 0 {
            RTO_INITIAL
        } else {
            self.srtt + (4 * self.rttvar).max(RTO_MIN)
        };
        let backed_off = rto.saturating_mul(1 << self.backoff.min(20)).min(RTO_MAX);
        self.rto_due = (!self.flight.is_empty()).then_some(now + backed_off);
    }

    fn arm_probe(&mut self, now: Nanos) {
        let wanted = self.srtt > 0
            && self.pipe > 0
            && self.recovery.is_none()
            && self.sacked == 0
            && !self.probe_sent;
        self.probe_due = wanted.then(|| {
            let slack = if self.pipe == 1 { RTO_MIN } else { 2 * MS };
            let due = now + 2 * self.srtt + slack;
            self.rto_due.map_or(due, |rto| due.min(rto))
        });
    }

    /// Tail loss probe: something new, or the last segment once more.
    fn send_probe(&mut self, now: Nanos) {
        self.probe_sent = true;
        let next = self.next();
        let has_new = self.total.is_none_or(|total| next < total) && next < self.una + self.window;
        if has_new {
            // One segment beyond the window.
            self.congestion.cwnd = self.congestion.cwnd.max(self.pipe as f64 + 1.0);
        } else if let Some(last) = self.flight.back_mut()
            && last.state == State::OnTheWay
        {
            last.state = State::Lost;
            self.pipe -= 1;
            self.highest = self.highest.max(next);
            self.retransmit_hint = self.retransmit_hint.min(next - 1);
            self.congestion.cwnd = self.congestion.cwnd.max(self.pipe as f64 + 1.0);
        }
        self.rearm_rto(now);
    }

    fn on_rto(&mut self, now: Nanos) {
        if self.flight.is_empty() {
            self.rto_due = None;
            return;
        }
        self.stats.timeouts += 1;
        self.backoff += 1;
        if !self
            .recovery
            .as_ref()
            .is_some_and(|recovery| recovery.by_timeout)
        {
            self.enter_recovery(true);
            self.congestion.on_timeout();
        } else {
            self.congestion.cwnd = self.congestion.cwnd.min(4.0);
        }
        for segment in &mut self.flight {
            if segment.state == State::OnTheWay {
                segment.state = State::Lost;
            }
        }
        self.pipe = 0;
        self.highest = self.next();
        self.retransmit_hint = self.una;
        self.rack_due = None;
        self.probe_due = None;
        self.pace_next = now;
        self.rearm_rto(now);
    }

    /// RACK: what was sent well before something that has arrived is lost.
    fn detect_losses(&mut self, now: Nanos) {
        let eager = self.recovery.is_some() || self.sacked >= DUPLICATE_THRESHOLD;
        let tolerance = if !self.reordering_seen && eager {
            0
        } else {
            (self.rtt_min / 4 * self.tolerance_steps)
                .min(self.srtt)
                .max(MS)
        };
        let mut wait = None;
        let mut lost = 0;
        let mut first_lost = u64::MAX;
        let until = (self.highest.saturating_sub(self.una) as usize).min(self.flight.len());
        for (index, segment) in self.flight.iter_mut().enumerate().take(until) {
            if segment.state != State::OnTheWay || segment.sent > self.rack_sent {
                continue;
            }
            let seq = self.una + index as u64;
            if segment.sent == self.rack_sent && segment.transmissions > 1 {
                continue;
            }
            let due = segment.sent + self.rack_rtt + tolerance;
            if due <= now {
                segment.state = State::Lost;
                lost += 1;
                first_lost = first_lost.min(seq);
            } else {
                wait = Some(wait.map_or(due, |other: Nanos| other.min(due)));
            }
        }
        self.rack_due = wait;
        if lost > 0 {
            self.pipe -= lost;
            self.retransmit_hint = self.retransmit_hint.min(first_lost);
            if self.recovery.is_none() {
                self.enter_recovery(false);
                self.congestion.reduce();
            }
        }
    }

    fn next_lost(&mut self) -> Option<u64> {
        self.retransmit_hint = self.retransmit_hint.max(self.una);
        while self.retransmit_hint < self.highest.min(self.next()) {
            let segment = &self.flight[(self.retransmit_hint - self.una) as usize];
            if segment.state == State::Lost {
                return Some(self.retransmit_hint);
            }
            self.retransmit_hint += 1;
        }
        None
    }

    fn enter_recovery(&mut self, by_timeout: bool) {
        self.stats.reductions += 1;
        let (cwnd_before, ssthresh_before) = match &self.recovery {
            Some(running) => (running.cwnd_before, running.ssthresh_before),
            None => (self.congestion.cwnd, self.congestion.ssthresh),
        };
        self.recovery = Some(Recovery {
            until: self.next(),
            by_timeout,
            first_retransmit: None,
            retransmits_pending: 0,
            cwnd_before,
            ssthresh_before,
            pipe_before: self.pipe.max(1) as f64,
            delivered: 0.0,
            sent: 0.0,
        });
    }

    fn leave_recovery(&mut self) {
        if let Some(recovery) = self.recovery.take()
            && !recovery.by_timeout
            && self.congestion.yields_to_loss()
        {
            self.congestion.cwnd = self.congestion.ssthresh.max(2.0);
        }
    }

    /// Takes the reduction back if every retransmission turned out to be needless.
    fn maybe_undo(&mut self, ack: &Ack, advanced: bool) {
        let Some(recovery) = &mut self.recovery else {
            return;
        };
        if ack.duplicate.is_some() {
            recovery.retransmits_pending -= 1;
        }
        let original_arrived = advanced
            && recovery
                .first_retransmit
                .is_some_and(|first| ack.echo < first);
        let all_needless = recovery.first_retransmit.is_some()
            && ack.duplicate.is_some()
            && recovery.retransmits_pending <= 0;
        if original_arrived || all_needless {
            self.stats.undone += 1;
            self.congestion.cwnd = self.congestion.cwnd.max(recovery.cwnd_before);
            self.congestion.ssthresh = recovery.ssthresh_before;
            let by_timeout = recovery.by_timeout;
            self.recovery = None;
            for segment in &mut self.flight {
                if by_timeout && segment.state == State::Lost {
                    segment.state = State::OnTheWay;
                    self.pipe += 1;
                }
            }
        }
    }

    fn grow(&mut self, now: Nanos, news: &News) {
        let rate = news.newest.as_ref().and_then(|newest| {
            let interval = (now - newest.delivered_at).max(newest.sent - newest.first_sent);
            self.first_sent = newest.sent;
            self.delivered_at = now;
            (interval > 0).then(|| RateSample {
                rate: (self.delivered - newest.delivered_before) as f64 * 1e9 / interval as f64,
                prior_delivered: newest.delivered_before,
                delivered: self.delivered,
                app_limited: newest.app_limited,
            })
        });
        let reducing = self
            .recovery
            .as_ref()
            .is_some_and(|recovery| !recovery.by_timeout);
        self.congestion.on_ack(&Progress {
            now,
            delivered: news.delivered,
            delivered_in_all: self.delivered,
            rtt: news.rtt,
            rtt_min: self.rtt_min,
            pipe: self.pipe,
            cwnd_limited: self.cwnd_limited,
            in_recovery: reducing,
            una: self.una,
            next: self.next(),
            rate,
        });
        if self.congestion.holds_back() {
            self.app_limited_until = self.delivered + self.pipe + 1;
        }
        if reducing
            && self.congestion.yields_to_loss()
            && let Some(recovery) = &mut self.recovery
        {
            // Proportional rate reduction (RFC 6937).
            recovery.delivered += news.delivered as f64;
            let (pipe, ssthresh) = (self.pipe as f64, self.congestion.ssthresh);
            let room = if pipe > ssthresh {
                (recovery.delivered * ssthresh / recovery.pipe_before).ceil() - recovery.sent
            } else {
                let limit = (recovery.delivered - recovery.sent).max(news.delivered as f64) + 1.0;
                limit.min(ssthresh - pipe)
            };
            let first = if recovery.sent == 0.0 { 1.0 } else { 0.0 };
            self.congestion.cwnd = pipe + room.max(first);
        }
    }
}

/// What one acknowledgement said.
#[derive(Default)]
struct News {
    delivered: u64,
    rtt: Option<Nanos>,
    newest: Option<Segment>,
}
