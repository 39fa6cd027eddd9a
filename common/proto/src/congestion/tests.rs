//! What the controller makes of links with one bottleneck.

use std::collections::VecDeque;

use super::*;

/// A link with one bottleneck: the sender obeys the controller, the receiver
/// acknowledges every 5 ms.
struct Bench {
    c: RateController,
    now_us: u64,
    delay_us: u64,
    rate: f64,
    credit: f64,
    busy_until_us: f64,
    /// When, how long it took if it was not lost, and what was sent by then.
    arrivals: VecDeque<(u64, Option<u64>, u64)>,
    acks: VecDeque<(u64, RateSample)>,
    received: u64,
    inflight: u64,
    newest_us: u64,
    newest_sent: u64,
    rtt_min: Duration,
    unacked: u64,
    next_ack_us: u64,
    min_delay: u64,
    queue_ms_max: f64,
    /// Rate of a policer in front of the link, bytes per second, and what its bucket holds and may hold.
    policer: Option<(f64, f64, f64)>,
    datagrams: u64,
    dropped: u64,
    lost: u64,
}

impl Bench {
    fn new(rate: f64, delay_us: u64) -> Self {
        let mut c = RateController::new();
        c.begin(Time::ZERO, Duration::from_micros(2 * delay_us));
        Bench {
            c,
            now_us: 0,
            delay_us,
            rate,
            credit: 0.0,
            busy_until_us: 0.0,
            arrivals: VecDeque::new(),
            acks: VecDeque::new(),
            received: 0,
            inflight: 0,
            newest_us: 0,
            newest_sent: 0,
            rtt_min: Duration::MAX,
            unacked: 0,
            next_ack_us: 0,
            min_delay: u64::MAX,
            queue_ms_max: 0.0,
            policer: None,
            datagrams: 0,
            dropped: 0,
            lost: 0,
        }
    }

    /// Whether the next datagram never reaches the link.
    fn drops(&mut self) -> bool {
        self.datagrams += 1;
        if let Some((_, holds, _)) = &mut self.policer {
            if *holds < 1_500.0 {
                return true;
            }
            *holds -= 1_500.0;
        }
        false
    }

    /// Runs for a while and returns the share of the rate that arrived.
    fn run(&mut self, millis: u64) -> f64 {
        let before = self.received;
        let end = self.now_us + millis * 1_000;
        let rtt = Duration::from_micros(2 * self.delay_us + 5_000);
        // Believed for seconds, whatever became of the route.
        self.rtt_min = self.rtt_min.min(rtt);
        while self.now_us < end {
            self.now_us += 100;
            if let Some((rate, holds, most)) = &mut self.policer {
                *holds = (*holds + *rate / 1e4).min(*most);
            }
            self.credit = (self.credit + self.c.pace() / 1e4).min(3_000.0 + self.c.pace() / 1e3);
            while self.credit >= 1_500.0
                && self.inflight + 1_500 < self.c.inflight_max(self.rtt_min, rtt)
            {
                self.credit -= 1_500.0;
                self.inflight += 1_500;
                let sent = self.datagrams * 1_500 + 1_500;
                if self.drops() {
                    // Missed when it would have arrived.
                    let at = self.now_us.max(self.busy_until_us as u64) + self.delay_us;
                    self.arrivals.push_back((at, None, sent));
                    continue;
                }
                let start = self.busy_until_us.max(self.now_us as f64);
                self.busy_until_us = start + 1_500.0 / self.rate * 1e6;
                let delay = self.busy_until_us as u64 + self.delay_us - self.now_us;
                self.arrivals
                    .push_back((self.now_us + delay, Some(delay), sent));
            }
            while self.arrivals.front().is_some_and(|a| a.0 <= self.now_us) {
                let (at, delay, sent) = self.arrivals.pop_front().unwrap();
                let Some(delay) = delay else {
                    self.dropped += 1;
                    self.lost += 1;
                    continue;
                };
                self.newest_us = at - delay;
                self.newest_sent = sent;
                self.received += 1_500;
                self.unacked += 1_500;
                self.min_delay = self.min_delay.min(delay);
            }
            let queue = (self.busy_until_us - self.now_us as f64) / 1e3;
            self.queue_ms_max = self.queue_ms_max.max(queue);
            if self.now_us >= self.next_ack_us && self.unacked > 0 {
                self.next_ack_us = self.now_us + 5_000;
                let sample = RateSample {
                    arrival_us: self.now_us as u32,
                    bytes: self.received as u32,
                    min_delay: (self.min_delay / 8) as u32,
                    rtt_min: self.rtt_min,
                    rtt,
                    limited: false,
                    acked: (self.unacked / 1_500) as u32,
                    lost: std::mem::take(&mut self.lost) as u32,
                    sent_at: Time::from_nanos(self.newest_us * 1_000),
                    sent: self.newest_sent,
                };
                self.min_delay = u64::MAX;
                self.acks.push_back((self.now_us + self.delay_us, sample));
                self.unacked = 0;
            }
            while self.acks.front().is_some_and(|a| a.0 <= self.now_us) {
                let (_, sample) = self.acks.pop_front().unwrap();
                self.inflight -= u64::from(sample.acked + sample.lost) * 1_500;
                self.c
                    .on_ack(Time::from_nanos(self.now_us * 1_000), &sample);
            }
        }
        (self.received - before) as f64 / (self.rate * millis as f64 / 1e3)
    }
}

const MBIT: f64 = 1e6 / 8.0;

#[test]
fn it_finds_the_rate_of_any_link_and_keeps_its_queue_short() {
    for (mbit, delay_ms) in [
        (1.0, 20),
        (10.0, 75),
        (20.0, 30),
        (50.0, 7),
        (300.0, 5),
        (100.0, 150),
    ] {
        let mut b = Bench::new(mbit * MBIT, delay_ms * 1_000);
        b.run(4_000);
        b.queue_ms_max = 0.0;
        let share = b.run(10_000);
        assert!(share > 0.98, "{mbit} Mbit/s, {delay_ms} ms: {share:.3}");
        // The queue answers a round trip later than it is asked.
        let bound = 12.0 + 30.0 / mbit + f64::from(delay_ms as u32) / 5.0;
        assert!(
            b.queue_ms_max < bound,
            "{mbit} Mbit/s, {delay_ms} ms: {:.1}",
            b.queue_ms_max
        );
    }
}

#[test]
fn it_starts_within_a_dozen_round_trips() {
    let mut b = Bench::new(50.0 * MBIT, 15_000);
    b.run(400);
    assert!(b.run(300) > 0.9);
}

#[test]
fn it_follows_a_rate_that_rises_and_falls() {
    let mut b = Bench::new(10.0 * MBIT, 8_000);
    b.run(3_000);
    b.rate = 60.0 * MBIT;
    b.run(400);
    assert!(b.run(1_000) > 0.95, "after the rise");
    b.rate = 10.0 * MBIT;
    b.run(500);
    b.queue_ms_max = 0.0;
    assert!(b.run(1_000) > 0.95, "after the fall");
    assert!(b.queue_ms_max < 20.0, "{}", b.queue_ms_max);
}

#[test]
fn a_link_that_stood_still_and_came_back_with_a_longer_route_keeps_its_rate() {
    for (mbit, longer_ms, outage_ms) in [(40.0, 25, 80), (4.0, 25, 80), (10.0, 50, 20)] {
        let mut b = Bench::new(mbit * MBIT, 7_500);
        b.run(5_000);
        b.busy_until_us = b.now_us as f64 + f64::from(outage_ms) * 1e3;
        b.delay_us += longer_ms * 1_000;
        b.run(500);
        let share = b.run(1_000);
        assert!(share > 0.9, "{mbit} Mbit/s, +{longer_ms} ms: {share:.3}");
    }
}

#[test]
fn a_longer_route_is_not_taken_for_a_queue_for_long() {
    let mut b = Bench::new(20.0 * MBIT, 10_000);
    b.run(3_000);
    b.delay_us = 40_000;
    b.run(2_000);
    assert!(b.run(3_000) > 0.95);
}

#[test]
fn a_policer_is_found_whatever_its_bucket_holds() {
    for mbit in [2.0, 5.0, 20.0, 50.0] {
        for bucket in [2e4, 1e5, 1e6] {
            let mut b = Bench::new(4.0 * mbit * MBIT, 10_000);
            b.policer = Some((mbit * MBIT, bucket, bucket));
            b.run(5_000);
            let before = (b.datagrams, b.dropped);
            let share = 4.0 * b.run(25_000);
            let lost = (b.dropped - before.1) as f64 / (b.datagrams - before.0) as f64;
            // What goes into looking for more; a rate that is not found costs 25 to 35 %.
            assert!(lost < 0.1, "{mbit} Mbit/s, {bucket} bytes: {lost:.3} lost");
            assert!(share > 0.94, "{mbit} Mbit/s, {bucket} bytes: {share:.3}");
        }
    }
}

#[test]
fn what_little_a_path_carried_and_lost_before_it_was_needed_is_no_rate() {
    let mut c = RateController::new();
    let rtt = Duration::from_millis(40);
    c.begin(Time::ZERO, rtt);
    let before = c.capacity();
    let (mut bytes, mut at_ms) = (0, 0);
    let mut ack = |after_ms: u64, acked: u32, lost: u32| {
        at_ms += after_ms;
        bytes += 60 * acked;
        let sample = RateSample {
            arrival_us: at_ms as u32 * 1_000,
            bytes,
            min_delay: 2_500,
            rtt_min: rtt,
            rtt,
            limited: true,
            sent_at: Time::from_millis(at_ms - 20),
            sent: u64::from(bytes) * 2,
            acked,
            lost,
        };
        c.on_ack(Time::from_millis(at_ms + 20), &sample);
    };
    for _ in 0..8 {
        ack(1_000, 1, 0);
    }
    for _ in 0..10 {
        ack(15, 5, 4);
    }
    assert!(c.capacity() >= before);
    assert_eq!(c.phase(), Phase::Startup);
}

#[test]
fn an_estimate_that_is_too_high_leaves_no_longer_queue() {
    for (mbit, delay_ms) in [(50.0, 8), (20.0, 30), (300.0, 5)] {
        let mut b = Bench::new(mbit * MBIT, delay_ms * 1_000);
        b.run(4_000);
        b.c.capacity = 1.1 * mbit * MBIT;
        b.run(1_500);
        let mut queues_ms: Vec<f64> = Vec::new();
        for _ in 0..400 {
            b.run(5);
            if b.c.phase == Phase::Cruise {
                queues_ms.push(b.c.queue_ms());
            }
        }
        queues_ms.sort_unstable_by(f64::total_cmp);
        let above = queues_ms[queues_ms.len() / 2] - b.c.target_ms(b.rtt_min);
        // Corrections alone would leave a hundredth for three round trips, and a packet's time besides.
        let hundredth_ms = 0.01 * 3.0 * (2.0 * delay_ms as f64 + 5.0);
        assert!(
            above < hundredth_ms.max(1.0),
            "{mbit} Mbit/s, {delay_ms} ms: {above:.2} ms"
        );
    }
}

#[test]
fn half_of_what_a_path_carried_is_no_more_replaced_by_the_guess_with_which_it_began() {
    let mut rate = RateController::new();
    rate.begin(Time::ZERO, Duration::from_millis(20));
    rate.suppose(6e6, 6.2e6, 0.0);
    assert_eq!(rate.capacity(), 3e6);
    // Since then the link has become slower, and was found to be.
    rate.phase = Phase::Cruise;
    rate.capacity = 1.2e6;
    rate.restart(Time::from_millis(5_000));
    rate.suppose(6e6, 6.2e6, 0.0);
    assert_eq!((rate.capacity(), rate.pace()), (0.6e6, 0.6e6));
}

#[test]
fn what_a_link_carried_before_an_outage_says_nothing_of_it_afterwards() {
    let mut rate = RateController::new();
    rate.begin(Time::ZERO, Duration::from_millis(20));
    rate.carried.note(Time::from_millis(4_900), 5e6);
    rate.restart(Time::from_millis(5_000));
    assert_eq!(rate.carried.note(Time::from_millis(5_010), 1e6), 1e6);
}

#[test]
fn a_route_a_little_longer_costs_the_correction_once() {
    let mut b = Bench::new(50.0 * MBIT, 8_000);
    b.run(4_000);
    b.delay_us += 3_500;
    // The base delay is believed for at most ten seconds more.
    for second in 0..12 {
        let share = b.run(1_000);
        assert!(share > 0.75, "{share} after {second} s");
    }
}
