//! What people see in the terminal: the same facts as the JSON, in columns.

use std::fmt::Write;

use marline_proto::{BondSnapshot, PathReason, PathState};

use crate::control::{Status, now_unix_s};
use crate::uplinks::UplinkReport;

/// The last news that `status` shows.
const NEWS_SHOWN: usize = 8;

/// A running client.
pub fn status(status: &Status) -> String {
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
            json_word(&uplink.role),
            used.to_owned(),
            source,
            remote,
            why,
        ]
    });
    table(
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
            json_word(&path.role),
            json_word(&path.state),
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
    table(&head, rows.collect())
}

/// Columns as wide as their longest cell, two spaces between.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
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

/// The word that JSON has for a value of an enum without fields.
fn json_word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Bytes with a unit, three digits or so.
fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bits per second with a unit.
fn rate(bit_s: u64) -> String {
    scaled(
        bit_s as f64,
        1000.0,
        &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"],
    )
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut at = 0;
    while value >= step && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    let digits = usize::from(at > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[at])
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
    use marline_proto::{PathSnapshot, Role, Snapshot, SocketId};

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
            capacity_bit_s: 20_400_000,
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
        let shown = status(&Status {
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
        });
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
        assert!(lines[2].contains("15.0 KiB  3.0 GiB"), "{}", lines[2]);
        assert!(shown.contains("not used: eth1 has no carrier"), "{shown}");
        assert!(shown.contains("ago  the bond is up"), "{shown}");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = vec![vec!["a".to_owned(), "long cell".to_owned()]];
        assert_eq!(table(&["head", "x"], rows), "head  x\na     long cell\n");
    }

    #[test]
    fn figures_have_fitting_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(rate(0), "0 bit/s");
        assert_eq!(rate(123_000_000), "123 Mbit/s");
        assert_eq!(duration(7_260), "2 h 1 min");
    }
}
