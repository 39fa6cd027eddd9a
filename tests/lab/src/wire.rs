//! What the tunnel's datagrams were spent on, from the counters of both daemons.
//!
//! A bond sends more than it is given: headers, acknowledgements, packets that were lost once
//! more, second copies. The daemons count all of it (`status --json`), so the difference of two
//! looks, added up over both ends, says where the wire's bytes went. Bytes on the wire are IP
//! packets: what the daemons count as UDP payload, and the headers of IP and UDP for each.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::Figure;

const IPV4_UDP_BYTES: u64 = 28;
const IPV6_UDP_BYTES: u64 = 48;

/// What one end or both have sent since they started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    datagrams: u64,
    payload_bytes: u64,
    header_bytes: u64,
    first_bytes: u64,
    acks: u64,
    ack_bytes: u64,
    copies: [Copies; 2],
}

/// Packets that went out once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Copies {
    datagrams: u64,
    bytes: u64,
}

/// Index of what was repaired in [`Sent::copies`].
const REPAIRS: usize = 0;
/// Index of what was sent twice from the start.
const DUPLICATES: usize = 1;

impl Sent {
    /// Reads what `status --json` of a daemon printed.
    pub fn read(status: &str) -> Result<Sent> {
        let status: Value = serde_json::from_str(status).context("status --json is not JSON")?;
        let mut sent = Sent::default();
        sent.add_all(&status);
        Ok(sent)
    }

    /// Bonds are objects with `paths` and `counters`, wherever a daemon puts them.
    fn add_all(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.add_all(value)),
            Value::Object(fields) => {
                if let (Some(Value::Array(paths)), Some(counters)) =
                    (fields.get("paths"), fields.get("counters"))
                {
                    self.add_bond(paths, counters);
                } else {
                    fields.values().for_each(|value| self.add_all(value));
                }
            }
            _ => {}
        }
    }

    fn add_bond(&mut self, paths: &[Value], counters: &Value) {
        let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).unwrap_or(0);
        for path in paths {
            let remote = path.get("remote").and_then(Value::as_str);
            let header = match remote {
                Some(remote) if remote.starts_with('[') => IPV6_UDP_BYTES,
                _ => IPV4_UDP_BYTES,
            };
            let datagrams = number(path, "sent");
            self.datagrams += datagrams;
            self.payload_bytes += number(path, "sent_bytes");
            self.header_bytes += datagrams * header;
        }
        self.first_bytes += number(counters, "first_bytes");
        self.acks += number(counters, "acks_sent");
        self.ack_bytes += number(counters, "ack_bytes");
        for (index, name) in [(REPAIRS, "retransmitted"), (DUPLICATES, "duplicated")] {
            self.copies[index].datagrams += number(counters, name);
            self.copies[index].bytes += number(counters, &format!("{name}_bytes"));
        }
    }

    /// With what the other end sent.
    pub fn and(self, other: Sent) -> Sent {
        self.combined(other, |own, other| own + other)
    }

    /// Without what had been sent earlier. A path that is gone took its counters with it.
    pub fn since(self, earlier: Sent) -> Sent {
        self.combined(earlier, u64::saturating_sub)
    }

    fn combined(self, other: Sent, with: impl Fn(u64, u64) -> u64) -> Sent {
        let copies = |index: usize| Copies {
            datagrams: with(self.copies[index].datagrams, other.copies[index].datagrams),
            bytes: with(self.copies[index].bytes, other.copies[index].bytes),
        };
        Sent {
            datagrams: with(self.datagrams, other.datagrams),
            payload_bytes: with(self.payload_bytes, other.payload_bytes),
            header_bytes: with(self.header_bytes, other.header_bytes),
            first_bytes: with(self.first_bytes, other.first_bytes),
            acks: with(self.acks, other.acks),
            ack_bytes: with(self.ack_bytes, other.ack_bytes),
            copies: [copies(REPAIRS), copies(DUPLICATES)],
        }
    }

    /// In megabytes, and as shares of it; nothing when nothing was sent.
    pub fn figures(&self) -> Vec<Figure> {
        if self.datagrams == 0 {
            return Vec::new();
        }
        let total = (self.payload_bytes + self.header_bytes) as f64;
        // Which path a copy took is not counted: it has the headers that a datagram has on average.
        let header = self.header_bytes as f64 / self.datagrams as f64;
        let acks = self.ack_bytes as f64 + self.acks as f64 * header;
        let copies = |index: usize| {
            let Copies { datagrams, bytes } = self.copies[index];
            bytes as f64 + datagrams as f64 * header
        };
        let rest = total - self.first_bytes as f64 - acks - copies(REPAIRS) - copies(DUPLICATES);
        let percent = |bytes: f64| 100.0 * bytes.max(0.0) / total;
        [
            ("wire_mb", "MB", total / 1e6),
            ("wire_headers_percent", "%", percent(rest)),
            ("wire_acks_percent", "%", percent(acks)),
            ("wire_retransmits_percent", "%", percent(copies(REPAIRS))),
            ("wire_duplicates_percent", "%", percent(copies(DUPLICATES))),
        ]
        .into_iter()
        .map(|(metric, unit, value)| Figure::new(metric, unit, value))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{ "state": "up", "snapshot": { "bonds": [ {
        "paths": [
            { "remote": "198.51.100.1:51900", "sent": 9, "sent_bytes": 11000 },
            { "remote": "[2001:db8::1]:51900", "sent": 1, "sent_bytes": 1400 }
        ],
        "counters": {
            "first_bytes": 9000, "acks_sent": 1, "ack_bytes": 72,
            "retransmitted": 2, "retransmitted_bytes": 944, "duplicated": 0, "duplicated_bytes": 0
        } } ] } }"#;

    #[test]
    fn every_byte_on_the_wire_is_accounted_for() {
        let sent = Sent::read(STATUS).expect("valid");
        let figures = sent.figures();
        let figure = |metric: &str| {
            let found = figures.iter().find(|figure| figure.metric == metric);
            found.expect(metric).value
        };
        // 11,000 and 1,400 bytes of payload, nine headers of IPv4 and one of IPv6.
        let wire = 12_400.0 + 9.0 * 28.0 + 48.0;
        assert!((figure("wire_mb") * 1e6 - wire).abs() < 1e-6);
        // A datagram has 30 of them on average.
        assert!((figure("wire_retransmits_percent") - 100.0 * 1004.0 / wire).abs() < 1e-9);
        assert!((figure("wire_acks_percent") - 100.0 * 102.0 / wire).abs() < 1e-9);
        assert!((figure("wire_headers_percent") - 100.0 * (wire - 10_106.0) / wire).abs() < 1e-9);
        assert_eq!(figure("wire_duplicates_percent"), 0.0);
    }

    #[test]
    fn two_looks_differ_by_what_was_sent_between_and_both_ends_add_up() {
        let sent = Sent::read(STATUS).expect("valid");
        assert_eq!(sent.and(sent).since(sent), sent);
        assert!(sent.since(sent).figures().is_empty());
    }
}
