//! What people see in the terminal: the same facts as the JSON, in columns.

use std::fmt::Write;

use marline_io::explain::{bytes, columns, decisions, rate, word};
use marline_proto::{BondSnapshot, PathReason, PathState};

use crate::control::{Status, now_unix_s};
use crate::uplinks::UplinkReport;

/// The last news that `status` shows.
const NEWS_SHOWN: usize = 8;

/// A running client; `explained`: with what is decided about paths and flows, and why.
pub fn status(status: &Status, explained: bool) -> String {
    let now = now_unix_s();
    let state = match (status.up, status.routed) {
        (true, true) => "up",
        (true, false) => "up, traffic not yet led into it",
        (false, true) => "down: no path works, traffic waits",
        (false, false) => "connecting",
    };
    let running = duration(now.saturating_sub(status.started_unix_s));
    let mut text = format!(
        "{}: {state} (mode {}, running {running})\n",
        status.interface, status.modes
    );
    for bond in &status.snapshot.bonds {
        text.push_str(&paths(bond));
        let _ = writeln!(
            text,
            "inside: sent {} received {}  queue {}  held {}  flows {}",
            bytes(bond.bytes_in),
            bytes(bond.bytes_out),
            bytes(bond.queue_bytes),
            bond.held_packets,
            bond.flows,
        );
        let drops: Vec<String> = bond
            .drops
            .iter()
            .chain(&status.snapshot.drops)
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if !drops.is_empty() {
            let _ = writeln!(text, "dropped: {}", drops.join(", "));
        }
        if explained {
            let _ = write!(text, "\n{}\n", decisions(bond));
        }
    }
    let unused: Vec<String> = status.uplinks.iter().filter_map(unused).collect();
    if !unused.is_empty() {
        let _ = writeln!(text, "not used: {}", unused.join("; "));
    }
    for news in status.news.iter().rev().take(NEWS_SHOWN).rev() {
        let ago = duration(now.saturating_sub(news.at_unix_s));
        let _ = writeln!(text, "{ago:>7} ago  {}", news.text);
    }
    text
}

/// Why a path changed, for people.
pub fn reason_in_words(reason: PathReason) -> &'static str {
    match reason {
        PathReason::Connected => "the server answered",
        PathReason::AckOverdue => "an acknowledgement is overdue",
        PathReason::PeerHeardSilence => "the server hears nothing from it",
        PathReason::SendFailed => "the system refuses to send",
        PathReason::CarrierLost => "out of service",
        PathReason::UplinkRemoved => "the uplink is gone",
        PathReason::Answered => "it answers again",
        PathReason::PeerClosed => "the server said goodbye",
        PathReason::SessionLost => "its session ended",
    }
}

/// The interfaces and what becomes of them.
pub fn uplinks(uplinks: &[UplinkReport]) -> String {
    let rows = uplinks.iter().map(|uplink| {
        let (source, remote) = match &uplink.way {
            Some(way) => (way.source.to_string(), way.remote.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let used = if uplink.used { "yes" } else { "no" };
        let why = uplink.why.clone().unwrap_or_default();
        vec![
            uplink.name.clone(),
            word(&uplink.role),
            used.to_owned(),
            source,
            remote,
            why,
        ]
    });
    columns(
        &["uplink", "role", "used", "source", "server", ""],
        rows.collect(),
    )
}

fn unused(uplink: &UplinkReport) -> Option<String> {
    uplink
        .why
        .as_ref()
        .map(|why| format!("{} {why}", uplink.name))
}

fn paths(bond: &BondSnapshot) -> String {
    let rows = bond.paths.iter().map(|path| {
        let measured = path.state != PathState::Connecting;
        let or_dash = |text: String| if measured { text } else { "-".to_owned() };
        let why = path.reason.map(reason_in_words).unwrap_or_default();
        vec![
            path.name.clone(),
            word(&path.role),
            word(&path.state),
            or_dash(format!("{:.1} ms", path.rtt_ms)),
            or_dash(format!("{:.1} ms", path.queue_ms)),
            or_dash(rate(path.capacity_bit_s)),
            or_dash(format!("{:.1} %", path.loss * 100.0)),
            bytes(path.sent_bytes),
            bytes(path.received_bytes),
            path.remote.to_string(),
            why.to_owned(),
        ]
    });
    let head = [
        "path", "role", "state", "rtt", "queue", "capacity", "loss", "sent", "received", "server",
        "",
    ];
    columns(&head, rows.collect())
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::News;
    use marline_proto::{PathSnapshot, Rank, RateReason, Role, Snapshot, SocketId};

    fn path() -> PathSnapshot {
        PathSnapshot {
            id: 1,
            name: "wwan0".to_owned(),
            socket: SocketId(0),
            remote: "198.51.100.1:51900".parse().expect("an address"),
            role: Role::Backup,
            state: PathState::Active,
            reason: Some(PathReason::Connected),
            rtt_ms: 41.27,
            rtt_min_ms: 40.0,
            queue_ms: 1.5,
            jitter_ms: 2.0,
            behind_ms: Some(16.0),
            capacity_bit_s: 20_400_000,
            pace_bit_s: 21_000_000,
            rate_reason: RateReason::Probing,
            carries_bulk: true,
            rank: Rank::Best,
            in_set: false,
            control: "cruise".to_owned(),
            loss: 0.0123,
            inflight_bytes: 0,
            sent: 10,
            sent_bytes: 15_360,
            received: 9,
            received_bytes: 3_221_225_472,
            lost: 0,
            lost_spurious: 0,
            mtu: 1500,
            black_holes: 0,
        }
    }

    #[test]
    fn a_status_shows_each_path_with_units_and_reasons() {
        let bond = BondSnapshot {
            up: true,
            paths: vec![path()],
            ..BondSnapshot::default()
        };
        let unused = UplinkReport {
            name: "eth1".to_owned(),
            role: Role::Always,
            used: false,
            way: None,
            why: Some("has no carrier".to_owned()),
        };
        let status_of = Status {
            up: true,
            routed: true,
            interface: "marline0".to_owned(),
            uplinks: vec![unused],
            news: vec![News {
                at_unix_s: now_unix_s(),
                text: "the bond is up".to_owned(),
            }],
            started_unix_s: now_unix_s() - 90,
            snapshot: Snapshot {
                bonds: vec![bond],
                ..Snapshot::default()
            },
            ..Status::default()
        };
        let shown = status(&status_of, false);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "marline0: up (mode aggregate, running 1 min)");
        for part in [
            "wwan0",
            "backup",
            "active",
            "41.3 ms",
            "1.5 ms",
            "20.4 Mbit/s",
            "1.2 %",
        ] {
            assert!(lines[2].contains(part), "{part} in {}", lines[2]);
        }
        assert!(lines[2].contains("15.4 kB  3.2 GB"), "{}", lines[2]);
        assert!(shown.contains("not used: eth1 has no carrier"), "{shown}");
        assert!(shown.contains("ago  the bond is up"), "{shown}");
        assert!(!shown.contains("because"), "{shown}");
        let explained = status(&status_of, true);
        let mut because = explained.lines().skip_while(|l| !l.contains("because"));
        assert!(because.next().is_some_and(|head| head.contains("bulk")));
        let why = because.next().expect("a path");
        assert!(why.contains("probing") && why.contains("best"), "{why}");
    }

    #[test]
    fn times_have_fitting_units() {
        assert_eq!(duration(90), "1 min");
        assert_eq!(duration(7_260), "2 h 1 min");
    }
}
