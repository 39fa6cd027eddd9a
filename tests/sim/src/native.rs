//! The yardstick: the same traffic on one bare link, without any tunnel.
//!
//! "Share of the native sum" divides by what these runs carry.

use crate::event::{Event, LinkChange, TimedEvent, Way};
use crate::link::{Link, LinkParams, Nanos};
use crate::packet::Side;
use crate::workload::{FlowSpec, FlowStats, Traffic};

/// The largest packet on a bare link, bytes.
pub const MTU: usize = 1500;

/// Plays the traffic over one link, `up` and `down`, for so long. Of `events`
/// the changes of links happen to this one; the caller leaves out those of others.
pub fn run(
    specs: &[FlowSpec],
    up: &LinkParams,
    down: &LinkParams,
    events: &[TimedEvent],
    duration: Nanos,
    seed: u64,
) -> Vec<FlowStats> {
    let mut traffic = Traffic::new(specs, MTU);
    let mut up: Link<Vec<u8>> = Link::new(up.clone(), seed);
    let mut down: Link<Vec<u8>> = Link::new(down.clone(), seed ^ 0x5555);
    let mut changes: Vec<(Nanos, &LinkChange)> = events
        .iter()
        .filter_map(|timed| match &timed.event {
            Event::Link(change) => Some((timed.at(), change)),
            _ => None,
        })
        .collect();
    changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    loop {
        let deadlines = [
            changes.last().map(|(at, _)| *at),
            traffic.next_deadline(),
            up.next_deadline(),
            down.next_deadline(),
        ];
        let Some(now) = deadlines
            .into_iter()
            .flatten()
            .min()
            .filter(|now| *now < duration)
        else {
            return traffic.stats();
        };
        while let Some((_, change)) = changes.pop_if(|(at, _)| *at <= now) {
            for (way, link) in [(Way::Up, &mut up), (Way::Down, &mut down)] {
                if let Some(params) = change.applied(way, link.params()) {
                    link.set(now, params);
                }
            }
        }
        while let Some(packet) = up.poll_deliver(now) {
            traffic.handle_packet(now, Side::Server, &packet);
        }
        while let Some(packet) = down.poll_deliver(now) {
            traffic.handle_packet(now, Side::Client, &packet);
        }
        traffic.handle_timeout(now);
        while let Some((from, packet)) = traffic.poll_packet() {
            let link = if from == Side::Client {
                &mut up
            } else {
                &mut down
            };
            // What a full queue drops is gone; the link counts it.
            let _ = link.enqueue(now, packet.len(), packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Algorithm;
    use crate::workload::{Direction, Kind};

    const S: Nanos = 1_000_000_000;

    /// Goodput between two moments as a share of what TCP can carry on the link.
    fn share(algorithm: Algorithm, link: &LinkParams, from: Nanos, to: Nanos) -> f64 {
        let stats = run(
            &[FlowSpec::bulk(Direction::Down, algorithm)],
            link,
            link,
            &[],
            to,
            1,
        );
        let mbit = stats[0].bytes_between(from, to) as f64 * 8e3 / (to - from) as f64;
        mbit / (link.mean_rate_bit_s().unwrap() as f64 / 1e6 * 1448.0 / 1514.0)
    }

    #[test]
    fn one_flow_fills_a_clean_link_whatever_its_algorithm() {
        for algorithm in [Algorithm::Reno, Algorithm::Cubic, Algorithm::Bbr] {
            for (rate, delay) in [(50.0, 7.5), (20.0, 30.0), (10.0, 75.0)] {
                let share = share(algorithm, &LinkParams::new(rate, delay), 5 * S, 25 * S);
                assert!(
                    share >= 0.93,
                    "{algorithm:?} {rate} Mbit/s {delay} ms: {share:.3}"
                );
                assert!(
                    share <= 1.001,
                    "{algorithm:?} {rate} Mbit/s {delay} ms: {share:.3}"
                );
            }
        }
    }

    #[test]
    fn random_loss_stops_cubic_but_not_bbr() {
        let link = LinkParams {
            loss: 0.01,
            ..LinkParams::new(50.0, 20.0)
        };
        let cubic = share(Algorithm::Cubic, &link, 5 * S, 25 * S);
        let bbr = share(Algorithm::Bbr, &link, 5 * S, 25 * S);
        assert!(cubic < 0.35, "{cubic}");
        assert!(bbr > 0.85, "{bbr}");
    }

    #[test]
    fn bbr_leaves_the_queue_short_and_cubic_fills_it() {
        let ping = FlowSpec::new(Kind::Ping { interval_ms: 20.0 });
        let link = LinkParams {
            queue_ms: 500.0,
            ..LinkParams::new(20.0, 10.0)
        };
        let worst = |algorithm| {
            let specs = [FlowSpec::bulk(Direction::Down, algorithm), ping.clone()];
            let stats = run(&specs, &link, &link, &[], 10 * S, 1);
            stats[1]
                .samples_ms
                .iter()
                .skip(200)
                .fold(0.0, |worst: f64, ms| worst.max(*ms))
        };
        assert!(worst(Algorithm::Cubic) > 200.0);
        assert!(worst(Algorithm::Bbr) < 60.0);
    }

    #[test]
    fn a_silent_second_costs_a_timeout_and_the_flow_goes_on() {
        let link = LinkParams::new(20.0, 15.0);
        let blackhole = |at_s, on| TimedEvent {
            at_s,
            event: Event::Link(LinkChange {
                blackhole: Some(on),
                ..LinkChange::of("", Way::Up)
            }),
        };
        let specs = [FlowSpec::bulk(Direction::Up, Algorithm::Cubic)];
        let events = [blackhole(3.0, true), blackhole(4.0, false)];
        let stats = &run(&specs, &link, &link, &events, 8 * S, 1)[0];
        assert!(stats.timeouts >= 1);
        let gap = stats.longest_gap(S, 8 * S);
        assert!((S..2 * S).contains(&gap), "{gap}");
        assert!(stats.bytes_between(6 * S, 8 * S) > 4_000_000);
    }

    #[test]
    fn a_call_on_a_clean_link_loses_nothing_and_is_never_late() {
        let link = LinkParams::new(10.0, 20.0);
        let stats = run(
            &[FlowSpec::new(Kind::Voice {})],
            &link,
            &link,
            &[],
            5 * S,
            1,
        );
        assert!(stats[0].sent >= 498);
        assert!(stats[0].sent - stats[0].arrived <= 4);
        assert!(
            stats[0]
                .samples_ms
                .iter()
                .all(|ms| (20.0..21.0).contains(ms))
        );
    }

    #[test]
    fn pages_take_a_few_round_trips_each() {
        let link = LinkParams::new(50.0, 20.0);
        let pages = FlowSpec::new(Kind::Web {
            interval_ms: 500.0,
            size_bytes: 100_000,
        });
        let stats = run(&[pages], &link, &link, &[], 5 * S, 1);
        assert!(stats[0].samples_ms.len() >= 8);
        assert!(
            stats[0]
                .samples_ms
                .iter()
                .all(|ms| (150.0..350.0).contains(ms))
        );
    }
}
