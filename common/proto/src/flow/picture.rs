//! Flows as figures, as far as they know themselves: what a bond makes of them is its own business.

use etherparse::IpNumber;

use super::{Flow, FlowTable, RATE_WINDOW};
use crate::limits;
use crate::packet::FlowKey;
use crate::time::Time;

impl Flow {
    /// What names it.
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Bytes since it began.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is a TCP flow that has sent no data, so acknowledgements alone.
    pub fn is_acks(&self) -> bool {
        self.key.protocol == IpNumber::TCP.0 && self.tcp_end.is_none()
    }

    /// Its rate of late, bytes per second. [`Self::rate`] is as of its last packet.
    pub fn rate_at(&self, now: Time) -> f64 {
        let span = now.since(self.window_start);
        if span < RATE_WINDOW {
            self.rate()
        } else {
            self.window_bytes as f64 / span.as_secs_f64()
        }
    }
}

impl FlowTable {
    /// The flows that sent the most of late, the busiest first, with their slots: `most` of them, and none whose slot
    /// may pass to another by now.
    pub fn busiest(&self, now: Time, most: usize) -> Vec<(u16, &Flow)> {
        let lively =
            |flow: &Flow| !flow.queue.is_empty() || now.since(flow.last_seen) <= limits::FLOW_IDLE;
        let mut flows: Vec<(f64, u16)> = (0..)
            .zip(&self.slots)
            .filter(|(_, flow)| lively(flow))
            .map(|(slot, flow)| (flow.rate_at(now), slot))
            .collect();
        let busier = |a: &(f64, u16), b: &(f64, u16)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if flows.len() > most {
            flows.select_nth_unstable_by(most, busier);
            flows.truncate(most);
        }
        flows.sort_unstable_by(busier);
        let named = |(_, slot): (f64, u16)| (slot, &self.slots[usize::from(slot)]);
        flows.into_iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flow::tests::packet;

    fn admit(flows: &mut FlowTable, now: Time, port: u16, len: usize) {
        flows
            .admit(now, &packet(port, len), 1e6)
            .expect("there is room");
    }

    #[test]
    fn the_busiest_flows_come_first_and_no_more_than_asked_for() {
        let mut flows = FlowTable::default();
        for ms in 0..1_000 {
            for port in [3, 1, 4, 2] {
                let now = Time::from_millis(ms);
                admit(&mut flows, now, port, 100 * usize::from(port));
            }
        }
        let now = Time::from_millis(1_000);
        let ports = |now, most| {
            let busiest = flows.busiest(now, most).into_iter();
            busiest.map(|(_, f)| f.key().ports.0).collect::<Vec<u16>>()
        };
        assert_eq!(ports(now, 10), [4, 3, 2, 1]);
        assert_eq!(ports(now, 2), [4, 3]);
        let gone = now + limits::FLOW_IDLE;
        assert!(ports(gone, 10).is_empty(), "their slots are free");
    }

    #[test]
    fn a_flow_that_pauses_slows_down_in_the_picture() {
        let mut flows = FlowTable::default();
        for ms in 0..1_000 {
            admit(&mut flows, Time::from_millis(ms), 1, 1_000);
        }
        let rate = |after| {
            let now = Time::from_millis(1_000) + Duration::from_secs(after);
            flows.busiest(now, 1)[0].1.rate_at(now)
        };
        assert!((0.9e6..1.1e6).contains(&rate(0)), "{}", rate(0));
        assert!(rate(5) < 0.15e6, "{}", rate(5));
    }
}
