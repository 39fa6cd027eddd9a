//! What the core has decided, and why, as text: both command lines print the same tables.
//!
//! The words are those of `--json`, with blanks; what each means stands beside its type
//! ([`marline_proto::RateReason`], [`marline_proto::Rank`], [`marline_proto::FlowReason`]).

use std::fmt::Write;
use std::net::SocketAddr;

use marline_proto::{BondSnapshot, FlowSnapshot, PathSnapshot, PathState};

/// The decisions of one end about what it sends: paths, flows, counters.
pub fn decisions(bond: &BondSnapshot) -> String {
    let mut text = if bond.paths.is_empty() {
        String::new()
    } else {
        paths(bond)
    };
    if !bond.busiest.is_empty() {
        let _ = writeln!(
            text,
            "\nbusiest flows of {}, as they are sent from here:",
            bond.flows
        );
        text.push_str(&flows(bond));
    }
    let counted = bond.counters.iter().filter(|(_, count)| **count > 0);
    let counted: Vec<String> = counted
        .map(|(name, count)| format!("{} {count}", name.replace('_', " ")))
        .collect();
    if !counted.is_empty() {
        let _ = writeln!(text, "\ncounted: {}", counted.join(", "));
    }
    text
}

fn paths(bond: &BondSnapshot) -> String {
    let rows = bond.paths.iter().map(|path| {
        let known = path.state != PathState::Connecting;
        let or_dash = |text: String| if known { text } else { "-".to_owned() };
        let bulk = if path.carries_bulk { "yes" } else { "no" };
        let set = if path.in_set {
            format!("{:.0} ms", bond.set_latency_ms)
        } else {
            "-".to_owned()
        };
        vec![
            name(path),
            or_dash(rate(path.pace_bit_s)),
            or_dash(rate(path.capacity_bit_s)),
            word(&path.rate_reason),
            bulk.to_owned(),
            word(&path.rank),
            set,
            or_dash(format!("{:.1} ms", path.jitter_ms)),
            (path.behind_ms).map_or("-".to_owned(), |ms| format!("{ms:.1} ms")),
            path.mtu.to_string(),
            path.black_holes.to_string(),
        ]
    });
    let head = [
        "path", "pace", "capacity", "because", "bulk", "because", "set", "jitter", "behind", "mtu",
        "holes",
    ];
    columns(&head, rows.collect())
}

fn flows(bond: &BondSnapshot) -> String {
    let rows = bond.busiest.iter().map(|flow| {
        let paths: Vec<String> = flow.paths.iter().map(|&id| name_of(bond, id)).collect();
        let copied = flow.copied.as_ref().map_or("-".to_owned(), word);
        vec![
            ends(flow),
            word(&flow.class),
            rate(flow.rate_bit_s),
            bytes(flow.bytes),
            bytes(flow.queue_bytes),
            paths.join("+"),
            word(&flow.way),
            word(&flow.reason),
            format!("{:.0} ms", flow.latency_ms),
            copied,
        ]
    });
    let head = [
        "flow", "class", "rate", "sent", "waiting", "paths", "way", "because", "release", "copied",
    ];
    columns(&head, rows.collect())
}

fn name(path: &PathSnapshot) -> String {
    if path.name.is_empty() {
        format!("path {}", path.id)
    } else {
        path.name.clone()
    }
}

fn name_of(bond: &BondSnapshot, id: u8) -> String {
    let path = bond.paths.iter().find(|path| path.id == id);
    path.map_or_else(|| format!("path {id}"), name)
}

/// Both ends of a flow, with ports where its protocol has some.
fn ends(flow: &FlowSnapshot) -> String {
    let protocol = match flow.protocol {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("protocol {other}"),
    };
    let ports = matches!(flow.protocol, 6 | 17) && flow.source.port() != 0;
    let end = |at: SocketAddr| {
        if ports {
            at.to_string()
        } else {
            at.ip().to_string()
        }
    };
    format!(
        "{protocol} {} > {}",
        end(flow.source),
        end(flow.destination)
    )
}

/// The word that JSON has for a value of an enum without fields, with blanks.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    }
}

/// Columns as wide as their longest cell, two spaces between.
pub fn columns(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let width = |at: usize| {
        let cells = std::iter::once(&head)
            .chain(&rows)
            .map(|row| row[at].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Bytes with a unit, three digits or so.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// Bits per second with a unit.
pub fn rate(bit_s: u64) -> String {
    scaled(bit_s as f64, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut at = 0;
    while value >= 1000.0 && at + 1 < units.len() {
        value /= 1000.0;
        at += 1;
    }
    let digits = usize::from(at > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[at])
}

#[cfg(test)]
mod tests {
    use marline_proto::{
        Class, CopyReason, Direction, FlowReason, FlowWay, Rank, RateReason, Role, SocketId,
    };

    use super::*;

    fn path(id: u8, name: &str, rank: Rank) -> PathSnapshot {
        PathSnapshot {
            id,
            name: name.to_owned(),
            socket: SocketId(0),
            remote: "198.51.100.1:51900".parse().expect("an address"),
            role: Role::Always,
            state: PathState::Active,
            reason: None,
            rtt_ms: 41.27,
            rtt_min_ms: 40.0,
            queue_ms: 1.5,
            jitter_ms: 2.25,
            behind_ms: Some(16.04),
            capacity_bit_s: 20_400_000,
            pace_bit_s: 21_000_000,
            rate_reason: RateReason::Losses,
            carries_bulk: rank.carries_bulk(),
            rank,
            in_set: rank == Rank::TooFar,
            control: "cruise".to_owned(),
            loss: 0.0123,
            inflight_bytes: 0,
            sent: 10,
            sent_bytes: 15_360,
            received: 9,
            received_bytes: 9,
            lost: 0,
            lost_spurious: 0,
            mtu: 1500,
            black_holes: 2,
        }
    }

    fn flow(protocol: u8, way: FlowWay, reason: FlowReason) -> FlowSnapshot {
        FlowSnapshot {
            slot: 3,
            direction: Direction::Up,
            protocol,
            source: "10.77.0.2:40000".parse().expect("an address"),
            destination: "[2001:db8::1]:443".parse().expect("an address"),
            class: Class::Bulk,
            bytes: 1536,
            rate_bit_s: 20_000_000,
            queue_bytes: 3_000,
            paths: vec![1, 9],
            way,
            reason,
            latency_ms: 70.4,
            copied: None,
        }
    }

    #[test]
    fn every_path_says_at_which_rate_it_sends_and_whether_it_carries_bulk_and_why() {
        let bond = BondSnapshot {
            paths: vec![path(1, "wlan0", Rank::Best), path(2, "", Rank::TooFar)],
            set_latency_ms: 70.4,
            ..BondSnapshot::default()
        };
        let shown = decisions(&bond);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        for part in [
            "wlan0",
            "21.0 Mbit/s",
            "20.4 Mbit/s",
            "losses",
            "yes",
            "best",
            "2.2 ms",
            "16.0 ms",
        ] {
            assert!(lines[1].contains(part), "{part} in {}", lines[1]);
        }
        for part in ["path 2", "no    too far", "70 ms"] {
            assert!(lines[2].contains(part), "{part} in {}", lines[2]);
        }
    }

    #[test]
    fn every_flow_says_which_paths_it_uses_how_and_why() {
        let call = FlowSnapshot {
            class: Class::Realtime,
            copied: Some(CopyReason::Thin),
            ..flow(17, FlowWay::Best, FlowReason::Class)
        };
        let bond = BondSnapshot {
            paths: vec![path(1, "wlan0", Rank::Best)],
            flows: 40,
            busiest: vec![
                flow(6, FlowWay::Steady, FlowReason::FarSet),
                call,
                flow(1, FlowWay::Best, FlowReason::Class),
            ],
            counters: [("trials".to_owned(), 1), ("led".to_owned(), 0)].into(),
            ..BondSnapshot::default()
        };
        let shown = decisions(&bond);
        assert!(shown.contains("busiest flows of 40"), "{shown}");
        let line = |start: &str| {
            let line = shown.lines().find(|line| line.starts_with(start));
            line.unwrap_or_else(|| panic!("{start} in {shown}"))
        };
        let tcp = line("tcp 10.77.0.2:40000 > [2001:db8::1]:443");
        for part in [
            "bulk",
            "20.0 Mbit/s",
            "1.5 kB",
            "wlan0+path 9",
            "steady",
            "far set",
            "70 ms",
        ] {
            assert!(tcp.contains(part), "{part} in {tcp}");
        }
        assert!(line("udp").ends_with("thin"), "{shown}");
        line("icmp 10.77.0.2 > 2001:db8::1 ");
        assert_eq!(line("counted"), "counted: trials 1", "no zeroes");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = vec![vec!["a".to_owned(), "long cell".to_owned()]];
        assert_eq!(columns(&["head", "x"], rows), "head  x\na     long cell\n");
    }

    #[test]
    fn figures_have_fitting_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(
            bytes(5_000_000_000_000_000),
            "5000 TB",
            "there is no larger one"
        );
        assert_eq!(rate(0), "0 bit/s");
        assert_eq!(rate(123_000_000), "123 Mbit/s");
    }
}
