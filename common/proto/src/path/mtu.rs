//! How large a datagram may be on a path (packetization layer path MTU discovery, RFC 8899).
//!
//! The MTU of an uplink's interface says nothing of the hops behind it: PPPoE takes 8 bytes, a mobile network 72, a
//! tunnel more. Fragmenting is forbidden, and the ICMP message of the narrow hop is often filtered and never
//! authentic, so a datagram that is too large simply vanishes. What passes is therefore found out by sending:
//!
//! * A path begins with [`BASE`], which every path carries that carries QUIC. Whatever is larger goes as two halves
//!   ([`crate::halves`]), so nothing waits for the search.
//! * A **probe** is a frame of nothing but padding. It is not in flight to anybody else: its loss is no congestion and
//!   no sign of death. When it is acknowledged, datagrams of its size pass. When it is not, and something that was sent
//!   later is, that was one try; after [`TRIES`] its size does not pass. While nothing at all is acknowledged, nothing
//!   is learnt.
//! * The first probe has the size of the largest datagram that will ever be sent; mostly that ends the search. Then the
//!   sizes of well-known links are bisected, and what is left between two of them, down to [`FINE`].
//! * **Black holes.** A route may change. When [`VANISHED`] datagrams between base and the present size were lost, none
//!   sent after them arrived, and a smaller one sent between them did, the path falls back to base at once, and the
//!   search begins again. (A path that is silent for a moment loses what is small as well.) A path that does not carry
//!   base either is asked for no more than half of the largest packet.
//! * **The system knows better.** When a socket refuses a datagram as too large, that is a fact, and no loss.
//!
//! The search costs nothing while nobody needs it: it is begun when a path comes up, and for a backup path when the
//! first packet does not fit. It is begun again after [`RAISE_AFTER`] at the earliest, and only when a packet did not
//! fit; so an idle bond never probes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::HEADER_LEN;
use crate::halves;
use crate::session::OVERHEAD;
use crate::time::Time;

/// Bytes of a datagram that every path is believed to carry (RFC 9000, section 14, asks the same of every path).
pub const BASE: usize = 1_200;
/// Probes of one size that may get lost (`MAX_PROBES` of RFC 8899).
const TRIES: u8 = 3;
/// A gap between what passes and what does not that is not worth three more probes: 1 % of a packet.
const FINE: usize = 16;
/// How long what did not pass is believed (`PMTU_RAISE_TIMER` of RFC 8899).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// Lost datagrams that make a black hole.
const VANISHED: usize = 3;
/// Small datagrams that are remembered, to find one between the large ones that were lost.
const SMALL: usize = 8;
/// Longest time that an acknowledgement is held back, and then some.
const ACK_DELAY: Duration = Duration::from_millis(40);
/// How long to wait for the acknowledgement of a probe while the round trip is unknown.
const PATIENCE: Duration = Duration::from_secs(1);

/// MTUs of links that are met in practice: Ethernet, PPPoE, 6in4, GRE and IPsec in their variants, mobile networks,
/// WireGuard, and the least that IPv6 asks for.
const KNOWN: [usize; 13] = [
    1280, 1358, 1380, 1400, 1420, 1428, 1440, 1452, 1460, 1472, 1480, 1492, 1500,
];

/// A probe to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Bytes of its frame.
    pub frame_len: usize,
    /// Whether something small is to follow, which tells the probe's loss from silence.
    pub follow: bool,
}

/// What is known of the sizes that a path carries. Sizes are bytes of datagrams (UDP payload).
#[derive(Debug)]
pub struct PathMtu {
    /// Bytes of IP and UDP header around a datagram.
    headers: usize,
    /// What the uplink's interface takes.
    interface: usize,
    /// The largest datagram that will ever be sent.
    need: usize,
    /// Whether the other side acknowledges probes and joins halves.
    enabled: bool,
    /// Datagrams of this size pass.
    passes: usize,
    /// Datagrams of this size do not.
    fails: usize,
    probe: Option<(usize, Time)>,
    tries: u8,
    unheard: u32,
    due: Option<Time>,
    raise_at: Time,
}

impl PathMtu {
    /// Nothing is known but the bytes of the IP and UDP headers.
    pub fn new(headers: usize) -> Self {
        PathMtu {
            headers,
            interface: usize::MAX,
            need: usize::MAX,
            enabled: false,
            passes: BASE,
            fails: usize::MAX,
            probe: None,
            tries: 0,
            unheard: 0,
            due: None,
            raise_at: Time::ZERO,
        }
    }

    /// Nothing is known any more but what this side's system said; the IP and UDP headers have so many bytes now.
    pub fn begun_anew(&self, headers: usize) -> Self {
        PathMtu {
            interface: self.interface,
            ..PathMtu::new(headers)
        }
    }

    /// The interface takes IP packets of so many bytes.
    pub fn limit(&mut self, interface_mtu: u16) {
        self.interface = usize::from(interface_mtu).saturating_sub(self.headers);
    }

    /// The largest datagram that may be sent.
    pub fn datagram_max(&self) -> usize {
        if self.enabled {
            self.passes.min(self.interface)
        } else {
            self.interface
        }
    }

    /// The largest datagram that may be expected to pass: while it is being looked for, the best is hoped for.
    pub fn expected_max(&self) -> usize {
        match self.due {
            Some(_) => self.ceiling(),
            None => self.datagram_max(),
        }
    }

    /// The largest inner packet that goes into one datagram of the interface, whatever lies behind it.
    pub fn interface_fit(&self) -> u16 {
        let fit = self.interface.saturating_sub(HEADER_LEN + OVERHEAD);
        u16::try_from(fit).unwrap_or(u16::MAX)
    }

    /// The largest IP packet that is known to pass, for people.
    pub fn packet_max(&self) -> u16 {
        let len = self.datagram_max().saturating_add(self.headers);
        u16::try_from(len).unwrap_or(u16::MAX)
    }

    /// Bytes of IP and UDP header around each datagram.
    pub fn headers(&self) -> usize {
        self.headers
    }

    /// Both sides have agreed: inner packets have at most so many bytes, and the other side acknowledges probes or does
    /// not.
    pub fn agree(&mut self, inner_mtu: u16, enabled: bool) {
        let need = usize::from(inner_mtu) + HEADER_LEN + OVERHEAD;
        if need > self.need {
            self.raise_at = Time::ZERO;
        }
        self.need = need;
        self.enabled = enabled;
    }

    fn ceiling(&self) -> usize {
        self.need.min(self.interface)
    }

    /// What is fallen back to when the present size does not pass any more.
    fn fallback(&self) -> usize {
        if self.passes > BASE {
            BASE
        } else {
            halves::datagram_len(self.need).min(self.passes)
        }
    }

    /// The sizes whose loss tells something: above the first, up to the second.
    pub fn watched(&self) -> (usize, usize) {
        (self.fallback(), self.passes)
    }

    /// The path came up: begins the first search.
    pub fn begin(&mut self, now: Time) {
        if self.raise_at == Time::ZERO {
            self.search(now);
        }
    }

    /// Begins a search, when there is anything to find and it was not looked for of late.
    pub fn search(&mut self, now: Time) {
        let found = self.passes >= self.ceiling();
        if !self.enabled || found || self.due.is_some() || now < self.raise_at {
            return;
        }
        self.fails = usize::MAX;
        self.tries = 0;
        self.unheard = 0;
        self.due = Some(now);
    }

    /// When [`Self::on_time`] is needed next.
    pub fn next_due(&self) -> Option<Time> {
        self.due
    }

    /// How long to wait for the acknowledgement of a probe.
    fn patience(&self, rtt: Option<(Duration, Duration)>) -> Duration {
        let usual = rtt.map_or(PATIENCE, |(smoothed, variance)| {
            smoothed + variance * 4 + ACK_DELAY
        });
        usual * 2u32.pow(self.unheard.min(5))
    }

    /// Time has passed; `rtt` is the smoothed round trip and its deviation if known, `heard` when the latest datagram
    /// was sent that is known to have arrived. What is to be sent now.
    pub fn on_time(
        &mut self,
        now: Time,
        rtt: Option<(Duration, Duration)>,
        heard: Time,
    ) -> Option<Ask> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        let first = self.fails == usize::MAX && self.probe.is_none();
        if let Some((len, at)) = self.probe.take() {
            if heard >= at {
                self.unheard = 0;
                self.tries += 1;
                if self.tries >= TRIES {
                    self.fails = len;
                    self.tries = 0;
                }
            } else {
                self.unheard += 1;
            }
        }
        let Some(len) = self.candidate() else {
            self.finish(now);
            return None;
        };
        self.probe = Some((len, now));
        self.due = Some(now + self.patience(rtt));
        Some(Ask {
            frame_len: len - OVERHEAD,
            follow: !first,
        })
    }

    /// The size to try next.
    fn candidate(&self) -> Option<usize> {
        let (low, ceiling) = (self.passes, self.ceiling());
        if self.fails > ceiling {
            return (ceiling > low).then_some(ceiling);
        }
        let high = self.fails;
        let known = KNOWN.map(|mtu| mtu - self.headers);
        let between = |len: &&usize| **len > low && **len < high;
        let count = known.iter().filter(between).count();
        if count > 0 {
            return known.iter().filter(between).nth(count / 2).copied();
        }
        (high.saturating_sub(low) > FINE).then(|| low + (high - low) / 2)
    }

    fn finish(&mut self, now: Time) {
        self.due = None;
        self.probe = None;
        self.raise_at = now + RAISE_AFTER;
    }

    /// A probe of this size has arrived.
    pub fn on_probe_arrived(&mut self, now: Time, len: usize) {
        if len <= self.passes {
            return;
        }
        self.passes = len;
        if self.fails <= len {
            self.fails = usize::MAX;
        }
        self.probe = None;
        self.tries = 0;
        self.unheard = 0;
        if self.candidate().is_some() {
            self.due = Some(now);
        } else {
            self.finish(now);
        }
    }

    /// The system refused to send a datagram of this size.
    pub fn on_refused(&mut self, now: Time, len: usize) {
        while self.passes >= len && self.passes > self.fallback() {
            self.fall(now);
        }
        self.probe = None;
        self.tries = 0;
        self.fails = self.fails.min(len);
        self.due = self.due.map(|_| now);
    }

    /// Datagrams of the present size do not pass any more.
    pub fn fall(&mut self, now: Time) {
        self.passes = self.fallback();
        self.due = None;
        self.probe = None;
        self.raise_at = now;
        self.search(now);
    }
}

/// Which sizes arrive and which do not: notices when only the large ones vanish.
#[derive(Debug, Default)]
pub struct Sizes {
    watched: (usize, usize),
    /// The latest large one that arrived.
    arrived: Option<u64>,
    /// Small ones that arrived of late.
    small: VecDeque<u64>,
    /// The first large ones that were lost since, and the last.
    vanished: VecDeque<u64>,
}

impl Sizes {
    /// Datagrams of more than the first and up to the second size count as large.
    pub fn watch(&mut self, sizes: (usize, usize)) {
        if self.watched != sizes {
            self.watched = sizes;
            self.vanished.clear();
        }
    }

    fn is_large(&self, len: usize) -> bool {
        len > self.watched.0 && len <= self.watched.1
    }

    /// A datagram has arrived, the path's number so and so.
    pub fn on_arrived(&mut self, number: u64, len: usize) {
        if self.is_large(len) {
            self.arrived = self.arrived.max(Some(number));
            self.vanished.retain(|v| *v > number);
        } else {
            if self.small.len() >= SMALL {
                self.small.pop_front();
            }
            self.small.push_back(number);
        }
    }

    /// A datagram is lost.
    pub fn on_lost(&mut self, number: u64, len: usize) {
        if self.is_large(len) && self.arrived.is_none_or(|a| number > a) {
            if self.vanished.len() >= VANISHED {
                self.vanished.pop_back();
            }
            self.vanished.push_back(number);
        }
    }

    /// Whether only large ones vanish.
    pub fn is_black_hole(&self) -> bool {
        let (Some(first), Some(last)) = (self.vanished.iter().min(), self.vanished.iter().max())
        else {
            return false;
        };
        self.vanished.len() >= VANISHED && self.small.iter().any(|s| first < s && s < last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: u16 = 1_400;
    const RTT: Option<(Duration, Duration)> = Some((Duration::from_millis(50), Duration::ZERO));

    fn path(headers: usize) -> PathMtu {
        let mut mtu = PathMtu::new(headers);
        mtu.limit(1_500);
        mtu.agree(INNER, true);
        mtu
    }

    /// Searches on a path that carries IP packets of so many bytes; how many probes it took.
    fn search(mtu: &mut PathMtu, carries: usize, mut now: Time) -> u32 {
        let mut probes = 0;
        while let Some(due) = mtu.next_due() {
            now = now.max(due);
            let Some(ask) = mtu.on_time(now, RTT, now) else {
                continue;
            };
            probes += 1;
            let len = ask.frame_len + OVERHEAD;
            if len + mtu.headers <= carries {
                mtu.on_probe_arrived(now + Duration::from_millis(50), len);
            }
        }
        probes
    }

    #[test]
    fn one_probe_is_enough_where_everything_passes() {
        for (headers, carries) in [(28, 1_500), (28, 1_492), (48, 1_500)] {
            let mut mtu = path(headers);
            mtu.search(Time::ZERO);
            assert_eq!(search(&mut mtu, carries, Time::ZERO), 1);
            assert_eq!(mtu.datagram_max(), 1_452);
        }
    }

    #[test]
    fn well_known_links_are_found_to_the_byte_and_others_nearly() {
        for headers in [28, 48] {
            for carries in 1_250..=1_500 {
                let mut mtu = path(headers);
                mtu.search(Time::ZERO);
                let probes = search(&mut mtu, carries, Time::ZERO);
                let found = mtu.datagram_max() + headers;
                let most = carries.min(1_452 + headers);
                assert!(found <= most, "{carries}: {found}");
                let known = KNOWN.contains(&carries);
                let slack = if known { 0 } else { FINE };
                assert!(found + slack >= most, "{carries}: {found}");
                assert!(probes <= 25, "{carries}: {probes} probes");
            }
        }
    }

    #[test]
    fn a_lost_probe_is_no_verdict_and_silence_is_none_at_all() {
        let mut mtu = path(28);
        let mut now = Time::from_millis(1_000);
        mtu.search(now);
        for _ in 0..20 {
            now = mtu.next_due().expect("it goes on");
            let ask = mtu.on_time(now, RTT, Time::ZERO);
            assert_eq!(ask.map(|a| a.frame_len + OVERHEAD), Some(1_452));
        }
        // Two tries fail for another reason.
        for _ in 0..2 {
            now = mtu.next_due().expect("it goes on");
            let ask = mtu.on_time(now, RTT, now);
            assert_eq!(ask.map(|a| a.frame_len + OVERHEAD), Some(1_452));
        }
        mtu.on_probe_arrived(now, 1_452);
        assert_eq!((mtu.datagram_max(), mtu.next_due()), (1_452, None));
    }

    #[test]
    fn what_failed_is_not_tried_again_for_ten_minutes_and_never_unasked() {
        let mut mtu = path(28);
        mtu.search(Time::ZERO);
        search(&mut mtu, 1_400, Time::ZERO);
        assert_eq!((mtu.packet_max(), mtu.next_due()), (1_400, None));
        mtu.search(Time::from_millis(590_000));
        assert_eq!(mtu.next_due(), None);
        let later = Time::from_millis(620_000);
        mtu.search(later);
        search(&mut mtu, 1_500, later);
        assert_eq!(mtu.datagram_max(), 1_452);
    }

    #[test]
    fn the_systems_refusal_ends_a_size_at_once() {
        let mut mtu = path(28);
        mtu.search(Time::ZERO);
        mtu.on_time(Time::ZERO, RTT, Time::ZERO);
        mtu.on_refused(Time::ZERO, 1_452);
        let ask = mtu.on_time(Time::ZERO, RTT, Time::ZERO);
        assert_eq!(ask.map(|a| a.frame_len + OVERHEAD), Some(1_400));
        assert_eq!(mtu.datagram_max(), BASE);
        // The interface was made narrower in mid-flow.
        mtu.on_probe_arrived(Time::ZERO, 1_452);
        mtu.on_refused(Time::ZERO, 1_440);
        assert_eq!(
            (mtu.datagram_max(), mtu.next_due()),
            (BASE, Some(Time::ZERO))
        );
        mtu.on_refused(Time::ZERO, 1_100);
        assert_eq!(mtu.datagram_max(), halves::datagram_len(1_452));
    }

    #[test]
    fn an_interface_below_base_is_believed() {
        let mut mtu = PathMtu::new(28);
        mtu.limit(1_000);
        mtu.agree(INNER, true);
        mtu.search(Time::ZERO);
        assert_eq!((mtu.datagram_max(), mtu.next_due()), (972, None));
    }

    fn sizes() -> Sizes {
        let mut sizes = Sizes::default();
        sizes.watch((BASE, 1_452));
        sizes
    }

    #[test]
    fn large_ones_that_vanish_while_small_ones_arrive_are_a_black_hole() {
        let mut sizes = sizes();
        sizes.on_arrived(1, 1_452);
        sizes.on_arrived(4, 100);
        for number in [2, 3, 5] {
            assert!(!sizes.is_black_hole());
            sizes.on_lost(number, 1_452);
        }
        assert!(sizes.is_black_hole());
        let mut mtu = path(28);
        mtu.passes = 1_452;
        mtu.fall(Time::ZERO);
        assert_eq!(mtu.datagram_max(), BASE);
        assert_eq!(mtu.next_due(), Some(Time::ZERO));
        // What is still under way above base says nothing about base.
        sizes.watch(mtu.watched());
        sizes.on_arrived(15, 100);
        for number in 10..20 {
            sizes.on_lost(number, 1_452);
        }
        assert!(!sizes.is_black_hole());
    }

    #[test]
    fn a_moment_of_silence_is_no_black_hole() {
        let mut sizes = sizes();
        sizes.on_arrived(1, 100);
        for number in 2..50 {
            sizes.on_lost(number, 1_452);
        }
        sizes.on_arrived(50, 100);
        assert!(!sizes.is_black_hole());
        // It does not end: what was small passed, and what is large is lost again.
        sizes.on_lost(51, 1_452);
        assert!(sizes.is_black_hole());
    }

    #[test]
    fn a_burst_of_losses_is_no_black_hole_when_a_later_large_one_arrives() {
        let mut sizes = sizes();
        sizes.on_arrived(25, 100);
        sizes.on_arrived(50, 1_452);
        for number in 2..50 {
            sizes.on_lost(number, 1_452);
        }
        assert!(!sizes.is_black_hole());
        sizes.on_arrived(55, 100);
        for number in 51..60 {
            sizes.on_lost(number, 1_452);
        }
        sizes.on_arrived(60, 1_452);
        assert!(!sizes.is_black_hole());
    }

    #[test]
    fn a_path_below_base_is_found_too() {
        let mut mtu = path(28);
        mtu.fall(Time::ZERO);
        assert_eq!(mtu.datagram_max(), halves::datagram_len(1_452));
        search(&mut mtu, 1_100, Time::ZERO);
        assert!((1_100 - FINE..=1_100).contains(&usize::from(mtu.packet_max())));
    }
}
