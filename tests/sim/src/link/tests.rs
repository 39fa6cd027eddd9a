//! What each part of the link promises, measured.

use super::*;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

/// Offers a packet of 1,500 bytes every `interval` up to `until`; what arrives, with its moment.
fn flood(link: &mut Link<u64>, from: Nanos, until: Nanos, interval: Nanos) -> Vec<(Nanos, u64)> {
    let mut arrived = Vec::new();
    let mut number = 0;
    let mut next_offer = from;
    loop {
        let now = match link.next_deadline() {
            Some(deadline) if deadline <= next_offer => deadline,
            _ if next_offer < until => next_offer,
            Some(deadline) => deadline,
            None => return arrived,
        };
        while let Some(packet) = link.poll_deliver(now) {
            arrived.push((now, packet));
        }
        if now == next_offer && next_offer < until {
            // A full queue is part of the test.
            let _ = link.enqueue(now, 1500, number);
            number += 1;
            next_offer += interval;
        }
    }
}

fn rate_mbit(arrived: &[(Nanos, u64)]) -> f64 {
    let (first, last) = (arrived[0].0, arrived[arrived.len() - 1].0);
    (arrived.len() - 1) as f64 * 1514.0 * 8.0 * 1e3 / (last - first) as f64
}

#[test]
fn the_rate_is_exact_to_a_thousandth() {
    for mbit in [0.3, 1.0, 20.0, 50.0, 933.0] {
        let mut link = Link::new(LinkParams::new(mbit, 15.0), 1);
        let arrived = flood(&mut link, 0, 2 * S, (1e6 / mbit) as Nanos * 10);
        let measured = rate_mbit(&arrived);
        assert!((measured / mbit - 1.0).abs() < 0.001, "{mbit}: {measured}");
    }
}

#[test]
fn an_idle_link_delays_by_sending_time_and_one_way_delay_exactly() {
    // 1,514 bytes at 12.112 Mbit/s take 1 ms.
    let mut link = Link::new(LinkParams::new(12.112, 15.0), 1);
    link.enqueue(7 * MS, 1500, 'a').unwrap();
    assert_eq!(link.next_deadline(), Some(23 * MS));
    assert_eq!(link.poll_deliver(23 * MS - 1), None);
    assert_eq!(link.poll_deliver(23 * MS), Some('a'));
    assert_eq!(link.next_deadline(), None);
}

#[test]
fn no_admitted_packet_waits_longer_than_the_queue_allows_and_the_queue_is_used() {
    let mut link: Link<Nanos> = Link::new(LinkParams::new(12.112, 0.0), 1);
    let mut longest = 0;
    for now in (0..2 * S).step_by(MS as usize / 3) {
        while let Some(offered) = link.poll_deliver(now) {
            longest = longest.max(now - offered);
        }
        let _ = link.enqueue(now, 1500, now);
    }
    assert!(link.stats().dropped_queue > 1000);
    // 100 ms in the queue, 1 ms to be sent, up to a third of one until it is fetched.
    assert!(
        (100 * MS..=101 * MS + MS / 3 + 1).contains(&longest),
        "{longest}"
    );
}

#[test]
fn a_queue_in_bytes_never_holds_more() {
    let params = LinkParams {
        queue_bytes: Some(10_000),
        ..LinkParams::new(1.0, 0.0)
    };
    let mut link = Link::new(params, 1);
    flood(&mut link, 0, S, MS);
    assert!(link.stats().queue_bytes_max <= 10_000);
    assert!(link.stats().queue_bytes_max > 10_000 - 1514);
}

#[test]
fn random_loss_is_within_statistical_bounds() {
    let mut link = Link::new(
        LinkParams {
            loss: 0.02,
            ..LinkParams::default()
        },
        3,
    );
    let arrived = flood(&mut link, 0, 100 * S, MS);
    // 100,000 packets: the standard deviation is 44.
    let lost = 100_000 - arrived.len();
    assert!((1_800..2_200).contains(&lost), "{lost}");
    assert_eq!(link.stats().lost as usize, lost);
}

#[test]
fn bursty_loss_has_the_asked_share_and_the_asked_burst_length() {
    let params = LinkParams {
        loss: 0.02,
        loss_burst: 5.0,
        ..LinkParams::default()
    };
    let arrived = flood(&mut Link::new(params, 4), 0, 200 * S, MS);
    let lost = 200_000 - arrived.len();
    let bursts = arrived
        .windows(2)
        .filter(|pair| pair[1].1 > pair[0].1 + 1)
        .count();
    assert!((3_500..4_500).contains(&lost), "{lost}");
    let mean = lost as f64 / bursts as f64;
    assert!((4.5..5.5).contains(&mean), "{mean}");
}

#[test]
fn a_burst_ends_when_loss_is_turned_off() {
    let lossy = LinkParams {
        loss: 0.5,
        loss_burst: 1000.0,
        ..LinkParams::default()
    };
    let mut link = Link::new(lossy, 4);
    let mut packet = 0;
    while link.stats().lost == 0 {
        link.enqueue(0, 1500, packet).unwrap();
        packet += 1;
    }
    link.set(
        0,
        LinkParams {
            loss_burst: 1000.0,
            ..LinkParams::default()
        },
    );
    let before = link.stats().lost;
    for packet in 0..100 {
        link.enqueue(MS, 1500, packet).unwrap();
    }
    assert_eq!(link.stats().lost, before);
}

#[test]
fn jitter_scatters_and_keeps_the_order_when_it_promised_to() {
    for distribution in [Jitter::Normal, Jitter::Uniform] {
        let params = LinkParams {
            jitter_ms: 5.0,
            jitter: distribution,
            ..LinkParams::new(100.0, 30.0)
        };
        let arrived = flood(&mut Link::new(params, 5), 0, S, MS);
        assert_eq!(arrived.len(), 1000);
        assert!(arrived.is_sorted_by_key(|(_, packet)| *packet));
        let delays = arrived.iter().map(|(at, packet)| at - packet * MS);
        assert!(delays.clone().max().unwrap() - delays.min().unwrap() > 4 * MS);
    }
}

#[test]
fn jitter_reorders_when_it_may_and_scatters_as_wide_as_told() {
    let params = LinkParams {
        jitter_ms: 5.0,
        jitter: Jitter::Uniform,
        jitter_reorders: true,
        ..LinkParams::new(100.0, 30.0)
    };
    let arrived = flood(&mut Link::new(params, 6), 0, 5 * S, MS);
    assert!(!arrived.is_sorted_by_key(|(_, packet)| *packet));
    let sending = 121_120;
    for (at, packet) in arrived {
        let delay = at - packet * MS - sending;
        assert!((25 * MS..=35 * MS).contains(&delay), "{delay}");
    }
}

#[test]
fn a_new_rate_holds_for_what_is_already_queued() {
    let mut link = Link::new(LinkParams::new(12.112, 0.0), 1);
    for packet in 0..10 {
        link.enqueue(0, 1500, packet).unwrap();
    }
    // Two and a half packets are sent by then; the rest goes ten times as fast.
    link.set(2 * MS + MS / 2, LinkParams::new(121.12, 0.0));
    let mut moments = Vec::new();
    while let Some(deadline) = link.next_deadline() {
        while link.poll_deliver(deadline).is_some() {
            moments.push(deadline);
        }
    }
    assert_eq!(moments[..3], [1_000_000, 2_000_000, 2_550_000]);
    assert_eq!(moments[9], 2_550_000 + 7 * 100_000);
}

#[test]
fn a_link_at_rate_zero_keeps_its_queue_and_goes_on_later() {
    let mut link = Link::new(LinkParams::new(12.112, 5.0), 1);
    link.enqueue(0, 1500, ()).unwrap();
    link.set(MS / 2, LinkParams::new(0.0, 5.0));
    assert_eq!(link.next_deadline(), None);
    assert_eq!(link.poll_deliver(10 * S), None);
    link.set(10 * S, LinkParams::new(12.112, 5.0));
    assert_eq!(link.next_deadline(), Some(10 * S + MS / 2 + 5 * MS));
    assert_eq!(link.poll_deliver(10 * S + MS / 2 + 5 * MS), Some(()));
}

#[test]
fn what_exceeds_the_mtu_is_swallowed_and_the_rest_passes() {
    let params = LinkParams {
        mtu: Some(1400),
        ..LinkParams::new(12.112, 15.0)
    };
    let mut link = Link::new(params, 1);
    assert_eq!(link.enqueue(0, 1401, 'a'), Err(Drop::TooLarge));
    link.enqueue(0, 1400, 'b').unwrap();
    assert_eq!(link.poll_deliver(S), Some('b'));
    assert_eq!(link.stats().dropped_mtu, 1);
}

#[test]
fn a_blackhole_swallows_what_is_queued_what_travels_and_what_comes() {
    let mut link = Link::new(LinkParams::new(12.112, 50.0), 1);
    for packet in 0..5 {
        link.enqueue(0, 1500, packet).unwrap();
    }
    let open = link.params().clone();
    link.set(
        2 * MS,
        LinkParams {
            blackhole: true,
            ..open.clone()
        },
    );
    assert_eq!(link.enqueue(3 * MS, 1500, 5), Err(Drop::Blackhole));
    assert!(link.is_empty());
    link.set(S, open);
    assert_eq!(link.poll_deliver(2 * S), None);
    assert_eq!(link.stats().dropped_blackhole, 6);
    link.enqueue(2 * S, 1500, 6).unwrap();
    assert_eq!(link.poll_deliver(3 * S), Some(6));
}

#[test]
fn a_shorter_delay_lets_nothing_overtake() {
    let mut link = Link::new(LinkParams::new(100.0, 80.0), 1);
    link.enqueue(0, 1500, 'a').unwrap();
    link.set(10 * MS, LinkParams::new(100.0, 5.0));
    link.enqueue(10 * MS, 1500, 'b').unwrap();
    assert_eq!(link.poll_deliver(50 * MS), None);
    assert_eq!(link.poll_deliver(81 * MS), Some('a'));
    assert_eq!(link.poll_deliver(81 * MS), Some('b'));
}

#[test]
fn a_schedule_is_repeated_and_each_step_holds_as_long_as_it_says() {
    let step = |rate_mbit| Step {
        hold_ms: 500.0,
        rate_mbit: Some(rate_mbit),
        delay_ms: None,
        loss: None,
    };
    let params = LinkParams {
        steps: vec![step(10.0), step(60.0)],
        ..LinkParams::new(1.0, 10.0)
    };
    assert_eq!(params.mean_rate_bit_s(), Some(35_000_000));
    let arrived = flood(&mut Link::new(params, 1), 0, 4 * S, 100_000);
    for second in [1, 2, 3] {
        for (half, expected) in [(0, 10.0), (1, 60.0)] {
            let from = second * S + half * 500 * MS + 10 * MS;
            let within: Vec<_> = arrived
                .iter()
                .copied()
                .filter(|(at, _)| (from..from + 490 * MS).contains(at))
                .collect();
            let measured = rate_mbit(&within);
            assert!((measured / expected - 1.0).abs() < 0.001, "{measured}");
        }
    }
}

#[test]
fn a_policer_lets_the_burst_through_and_then_its_rate() {
    let params = LinkParams {
        policer_mbit: Some(10.0),
        policer_burst_bytes: 15_140,
        ..LinkParams::default()
    };
    let mut link = Link::new(params, 1);
    for packet in 0..10 {
        link.enqueue(0, 1500, packet).unwrap();
    }
    assert_eq!(link.enqueue(0, 1500, 10), Err(Drop::Policed));
    let arrived = flood(&mut link, S, 11 * S, 100_000);
    // Two full buckets come first: 20 packets and what flows in meanwhile. The rest: 10 Mbit/s.
    assert!((rate_mbit(&arrived[30..]) / 10.0 - 1.0).abs() < 0.001);
}

#[test]
fn a_token_bucket_lets_its_burst_through_at_once_and_then_the_rate_and_fills_again_in_a_pause() {
    let params = LinkParams {
        burst_bytes: 10 * 1514,
        ..LinkParams::new(12.112, 5.0)
    };
    let mut link = Link::new(params, 1);
    // 1,514 bytes take 1 ms.
    let mut burst = |at: Nanos| {
        (0..15).for_each(|n| link.enqueue(at, 1500, n).unwrap());
        let mut arrived = Vec::new();
        while let Some(now) = link.next_deadline() {
            while link.poll_deliver(now).is_some() {
                arrived.push(now - at);
            }
        }
        arrived
    };
    let mut expected = vec![5 * MS; 10];
    expected.extend((6..=10).map(|ms| ms * MS));
    assert_eq!(burst(S), expected);
    // 4 ms after the last one left there are four more tokens.
    assert_eq!(burst(S + 9 * MS)[3..5], [5 * MS, 6 * MS]);
    assert_eq!(burst(2 * S), expected);
}

#[test]
fn lumps_arrive_together_in_order_and_at_the_rate() {
    let params = LinkParams {
        lump_ms: 8.0,
        ..LinkParams::new(12.112, 5.0)
    };
    let arrived = flood(&mut Link::new(params, 1), 0, S, MS);
    assert!(
        arrived
            .iter()
            .all(|(at, _)| (at - 5 * MS).is_multiple_of(8 * MS))
    );
    assert!(arrived.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1));
    assert!((990..=1000).contains(&arrived.len()));
}

#[test]
fn a_trace_delivers_at_its_moments_and_begins_anew_at_its_end() {
    let trace = Trace::parse("t", "2\n2\n5\n10\n").unwrap();
    assert_eq!(trace.mean_rate_bit_s(), 4_800_000);
    let params = LinkParams {
        trace: Some(trace),
        ..LinkParams::default()
    };
    let mut link = Link::new(params, 1);
    for packet in 0..9 {
        link.enqueue(0, 1500, packet).unwrap();
    }
    let mut moments_ms = Vec::new();
    while let Some(deadline) = link.next_deadline() {
        while link.poll_deliver(deadline).is_some() {
            moments_ms.push(deadline / MS);
        }
    }
    assert_eq!(moments_ms, [2, 2, 5, 10, 12, 12, 15, 20, 22]);
    // Far later: opportunities that nobody used are gone.
    link.enqueue(1_000 * S + 3 * MS, 1500, 9).unwrap();
    assert_eq!(link.next_deadline(), Some(1_000 * S + 5 * MS));
    link.enqueue(1_000 * S + 3 * MS + 1, 1500, 10).unwrap();
    assert_eq!(link.poll_deliver(1_000 * S + 9 * MS), Some(9));
    assert_eq!(link.next_deadline(), Some(1_000 * S + 10 * MS));
}

#[test]
fn a_trace_carries_1500_bytes_each_time_in_one_packet_or_in_many() {
    let trace = Trace::parse("t", "1\n2\n3\n4\n").unwrap();
    let params = LinkParams {
        trace: Some(trace),
        ..LinkParams::default()
    };
    let mut link = Link::new(params, 1);
    for (packet, len) in [(0, 500), (1, 500), (2, 600), (3, 1500)] {
        link.enqueue(0, len, packet).unwrap();
    }
    assert_eq!(
        (link.poll_deliver(MS), link.poll_deliver(MS)),
        (Some(0), Some(1))
    );
    assert_eq!(link.poll_deliver(MS), None);
    assert_eq!(link.poll_deliver(2 * MS), Some(2));
    assert_eq!(link.poll_deliver(2 * MS), None);
    assert_eq!(link.poll_deliver(3 * MS), Some(3));
}

#[test]
fn a_bad_trace_is_refused_with_its_line() {
    assert_eq!(
        Trace::parse("lte.down", "1\n\nx\n").unwrap_err(),
        "lte.down:3: \"x\" is not a whole number of milliseconds"
    );
    assert!(
        Trace::parse("lte.down", "5\n4\n")
            .unwrap_err()
            .starts_with("lte.down:2: 4 ms")
    );
    assert!(Trace::parse("lte.down", "").is_err());
    assert!(Trace::parse("lte.down", "0\n").is_err());
}

#[test]
fn parameters_are_read_from_toml_and_wrong_ones_refused() {
    let params: LinkParams =
        toml::from_str("rate_mbit = 50\ndelay_ms = 15\nloss = 0.01\nloss_burst = 3").unwrap();
    let expected = LinkParams {
        loss: 0.01,
        loss_burst: 3.0,
        ..LinkParams::new(50.0, 15.0)
    };
    assert_eq!(params, expected);
    assert_eq!(params.queue_ms, 100.0);
    assert!(toml::from_str::<LinkParams>("rate = 50").is_err());
    assert!(
        LinkParams {
            loss: 1.5,
            ..LinkParams::default()
        }
        .check()
        .is_err()
    );
    assert!(
        LinkParams {
            delay_ms: -1.0,
            ..LinkParams::default()
        }
        .check()
        .is_err()
    );
    assert!(
        LinkParams {
            rate_mbit: Some(f64::NAN),
            ..LinkParams::default()
        }
        .check()
        .is_err()
    );
    let traced: LinkParams = toml::from_str("trace = \"lte.down\"").unwrap();
    assert!(traced.check().unwrap_err().contains("not read"));
}

#[test]
fn the_same_seed_gives_the_same_deliveries() {
    let run = |seed| {
        flood(
            &mut Link::new(LinkParams::starlink(), seed),
            0,
            20 * S,
            150_000,
        )
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}
