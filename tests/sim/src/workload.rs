//! The traffic of people: downloads, uploads, calls, pages, pings.
//!
//! [`Traffic`] plays both ends of every flow, as real packets, and knows nothing
//! of what carries them: the simulator puts a bond between the ends, a baseline
//! puts a bare link there. It keeps a ledger of every packet it made, so it
//! notices at once when one arrives that was never sent, arrives twice, or
//! arrives before one that was sent earlier. A packet may come with a congestion mark if its sender
//! asked for marks, and with no other change.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::link::Nanos;
use crate::packet::{
    Ends, Side, TCP_HEADER_LEN, TcpFields, Version, fingerprint, unlowered, unmarked,
};
use crate::tcp::{Ack, Algorithm, Receiver, Sender, WINDOW_BYTES};

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

/// Segments that one initial exchange of a page takes to be asked for.
const REQUEST_BYTES: usize = 300;
/// A SYN that was not answered is sent again after this long, then twice as long.
const SYN_RETRY: Nanos = S;
/// How long a packet is remembered: no network may keep it for longer (the maximum segment lifetime of RFC 9293), and
/// the slowest link and the fullest queue add seconds. A retransmission may wait that long while nobody listens.
const LEDGER_KEEPS: Nanos = (120 + 30) * S;

/// Which way the bulk of a flow goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the client.
    #[default]
    Down,
    /// From the client.
    Up,
}

impl Direction {
    /// The end that sends.
    pub fn sender(self) -> Side {
        match self {
            Direction::Down => Side::Server,
            Direction::Up => Side::Client,
        }
    }
}

/// What kind of traffic a flow is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Kind {
    /// One TCP connection.
    Tcp {
        /// Which way.
        #[serde(default)]
        direction: Direction,
        /// The sender's congestion control.
        #[serde(default)]
        cc: Algorithm,
        /// How much; left out: without end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
    /// A call: 50 packets a second of 160 bytes of speech, both ways.
    Voice {},
    /// Echo requests.
    Ping {
        /// Time between two, milliseconds.
        interval_ms: f64,
    },
    /// A page every now and then: a new TCP connection each.
    Web {
        /// Time between the starts of two, milliseconds.
        interval_ms: f64,
        /// Size of each, bytes.
        size_bytes: u64,
    },
    /// Datagrams larger than any packet, both ways, which leave in fragments.
    Fragments {
        /// Time between two, milliseconds.
        interval_ms: f64,
        /// Bytes of each.
        size_bytes: usize,
    },
    /// Datagrams at a fixed rate.
    Udp {
        /// Which way.
        #[serde(default)]
        direction: Direction,
        /// Rate of the IP packets, Mbit/s.
        rate_mbit: f64,
    },
}

/// A flow and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowSpec {
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
    /// IPv4 or IPv6.
    #[serde(default)]
    pub version: Version,
    /// When it begins, seconds.
    #[serde(default)]
    pub start_s: f64,
    /// When it ends, seconds; left out: with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_s: Option<f64>,
}

impl FlowSpec {
    /// A flow over IPv4 that lasts as long as the run.
    pub fn new(kind: Kind) -> Self {
        FlowSpec {
            kind,
            version: Version::V4,
            start_s: 0.0,
            stop_s: None,
        }
    }

    /// An endless TCP flow.
    pub fn bulk(direction: Direction, cc: Algorithm) -> Self {
        FlowSpec::new(Kind::Tcp {
            direction,
            cc,
            size_bytes: None,
        })
    }
}

/// What must never happen, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Packets delivered that nobody sent, or with other bytes, or longer ago than a network may keep them.
    pub invented: u64,
    /// Packets delivered more than once.
    pub twice: u64,
    /// TCP data delivered after data of the same flow that was sent later, both for the first time.
    pub out_of_order: u64,
}

/// What one flow got.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FlowStats {
    /// Bytes that reached the application, in order for TCP.
    pub delivered_bytes: u64,
    /// Packets sent, both ends.
    pub sent: u64,
    /// Packets that arrived, both ends.
    pub arrived: u64,
    /// Moments at which the application got something, nanoseconds, with the
    /// bytes; merged within a millisecond.
    #[serde(skip)]
    pub progress: Vec<(Nanos, u64)>,
    /// Round trips (ping), one-way delays (voice) or durations (pages), milliseconds.
    #[serde(skip)]
    pub samples_ms: Vec<f64>,
    /// Segments sent again by the inner sender.
    pub retransmitted: u64,
    /// Retransmission timeouts of the inner sender.
    pub timeouts: u64,
    /// Reductions of the inner sender's window.
    pub reductions: u64,
    /// Packets that arrived with a congestion mark, both ends.
    pub marked: u64,
}

impl FlowStats {
    fn progressed(&mut self, now: Nanos, bytes: u64) {
        self.delivered_bytes += bytes;
        match self.progress.last_mut() {
            Some((at, sum)) if *at / MS == now / MS => *sum += bytes,
            _ => self.progress.push((now, bytes)),
        }
    }

    /// Bytes that the application got between two moments.
    pub fn bytes_between(&self, from: Nanos, to: Nanos) -> u64 {
        let start = self.progress.partition_point(|(at, _)| *at < from);
        let within = self.progress[start..].iter().take_while(|(at, _)| *at < to);
        within.map(|(_, bytes)| bytes).sum()
    }

    /// The longest time without anything for the application between two
    /// moments, nanoseconds.
    pub fn longest_gap(&self, from: Nanos, to: Nanos) -> Nanos {
        let moments = self
            .progress
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| (from..to).contains(at));
        let mut last = from;
        let mut longest = 0;
        for at in moments.chain([to]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}

/// All flows of a run, both their ends.
#[derive(Debug)]
pub struct Traffic {
    mtu: usize,
    flows: Vec<Flow>,
    ledger: HashMap<u64, Entry>,
    /// What is in the ledger, oldest first, to forget it in time.
    remembered: VecDeque<(Nanos, u64)>,
    leaving: VecDeque<(Side, Vec<u8>)>,
    /// Order and copies of what was sent before this moment are not judged.
    amnesty_before: Nanos,
    faults: Faults,
}

/// What a packet that arrived was when it was sent, and what happened to it on its way.
struct Recognised {
    /// Its key in the ledger.
    key: u64,
    /// It was marked.
    marked: bool,
    /// The window that it grants now, bytes.
    window: u64,
}

#[derive(Debug)]
struct Entry {
    flow: usize,
    to: Side,
    sent: Nanos,
    /// Its place among the packets of its flow and direction.
    order: u64,
    /// The inner sender had sent this data before. It may overtake: everything behind it waits for it.
    again: bool,
    content: Content,
    arrived: bool,
}

#[derive(Clone, Debug)]
enum Content {
    Syn,
    SynAck,
    Request,
    Segment { seq: u64, bytes: u64 },
    Ack(Ack),
    Datagram { bytes: u64 },
    Echo { number: u32 },
    Reply { asked: Nanos },
}

#[derive(Debug)]
struct Flow {
    ends: Ends,
    start: Nanos,
    stop: Nanos,
    stats: FlowStats,
    number: u32,
    /// Packets sent so far from the client and from the host.
    order: [u64; 2],
    /// The latest data that arrived, by its order.
    last_arrived: [Option<u64>; 2],
    /// Segments sent so far from the client and from the host, without those sent again.
    segments: [u64; 2],
    role: Role,
}

#[derive(Debug)]
enum Role {
    Tcp(Box<Connection>),
    /// One packet every so often, at each of these ends.
    Clocked {
        kind: ClockedKind,
        interval: Nanos,
        next: Nanos,
    },
    /// Starts a connection every so often.
    Pages {
        interval: Nanos,
        next: Nanos,
        segments_bytes: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ClockedKind {
    Voice,
    Ping,
    Fragments { bytes: usize },
    Udp { from: Side, payload: usize },
}

#[derive(Debug)]
struct Connection {
    data_from: Side,
    mss: usize,
    /// The ECN field of what is sent for the first time.
    ecn: u8,
    sender: Sender,
    receiver: Receiver,
    client: Handshake,
    server_open: bool,
    syn_due: Option<Nanos>,
    syn_tries: u32,
    began: Nanos,
    /// The flow of pages it belongs to, and whether that has been told.
    page_of: Option<usize>,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Handshake {
    Waiting,
    Asked,
    Open,
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

fn seconds(s: f64) -> Nanos {
    (s * 1e9) as Nanos
}

impl Traffic {
    /// The ends of these flows, on a way that carries packets of up to `mtu` bytes.
    pub fn new(specs: &[FlowSpec], mtu: usize) -> Self {
        let mut traffic = Traffic {
            mtu,
            flows: Vec::new(),
            ledger: HashMap::new(),
            remembered: VecDeque::new(),
            leaving: VecDeque::new(),
            amnesty_before: 0,
            faults: Faults::default(),
        };
        for spec in specs {
            let start = seconds(spec.start_s);
            let stop = spec.stop_s.map_or(Nanos::MAX, seconds);
            let role = match spec.kind {
                Kind::Tcp {
                    direction,
                    cc,
                    size_bytes,
                } => traffic.connection(spec.version, direction, cc, size_bytes, start, None),
                Kind::Voice {} => Role::Clocked {
                    kind: ClockedKind::Voice,
                    interval: 20 * MS,
                    next: start,
                },
                Kind::Ping { interval_ms } => Role::Clocked {
                    kind: ClockedKind::Ping,
                    interval: seconds(interval_ms / 1e3).max(MS),
                    next: start,
                },
                Kind::Fragments {
                    interval_ms,
                    size_bytes,
                } => Role::Clocked {
                    kind: ClockedKind::Fragments { bytes: size_bytes },
                    interval: seconds(interval_ms / 1e3).max(MS),
                    next: start,
                },
                Kind::Web {
                    interval_ms,
                    size_bytes,
                } => Role::Pages {
                    interval: seconds(interval_ms / 1e3).max(10 * MS),
                    next: start,
                    segments_bytes: size_bytes,
                },
                Kind::Udp {
                    direction,
                    rate_mbit,
                } => Role::Clocked {
                    kind: ClockedKind::Udp {
                        from: direction.sender(),
                        payload: mtu - spec.version.header_len() - 8,
                    },
                    interval: ((mtu * 8) as f64 * 1e3 / rate_mbit.max(0.01)) as Nanos,
                    next: start,
                },
            };
            let host_port = match spec.kind {
                Kind::Voice {} => 5004,
                Kind::Udp { .. } => 4433,
                _ => 443,
            };
            traffic.add(spec.version, host_port, start, stop, role);
        }
        traffic
    }

    /// What every flow got so far; pages count at the flow that fetches them.
    pub fn stats(&self) -> Vec<FlowStats> {
        let with_sender = |flow: &Flow| {
            let mut stats = flow.stats.clone();
            if let Role::Tcp(connection) = &flow.role {
                let sender = connection.sender.stats();
                stats.retransmitted = sender.retransmitted;
                stats.timeouts = sender.timeouts;
                stats.reductions = sender.reductions;
            }
            stats
        };
        self.flows.iter().map(with_sender).collect()
    }

    /// What should never happen, and how often it did.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// When a ping was last answered: the beginning if none was. None when
    /// there are no pings to answer now.
    pub fn last_ping_answer(&self) -> Option<Nanos> {
        let is_ping = |flow: &&Flow| {
            matches!(
                flow.role,
                Role::Clocked {
                    kind: ClockedKind::Ping,
                    ..
                }
            ) && flow.next_deadline().is_some()
        };
        let answers = self
            .flows
            .iter()
            .filter(is_ping)
            .map(|flow| flow.stats.progress.last().map_or(flow.start, |(at, _)| *at));
        answers.max()
    }

    /// An end of the bond forgets everything now: what is on its way may come
    /// twice or late, and nobody could prevent it.
    pub fn amnesty(&mut self, now: Nanos) {
        self.amnesty_before = now;
    }

    /// The next packet to carry, and the end that it leaves.
    pub fn poll_packet(&mut self) -> Option<(Side, Vec<u8>)> {
        self.leaving.pop_front()
    }

    /// When [`Self::handle_timeout`] is worth calling next.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.flows.iter().filter_map(Flow::next_deadline).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Nanos) {
        for index in 0..self.flows.len() {
            if self.flows[index]
                .next_deadline()
                .is_some_and(|due| due <= now)
            {
                self.flow_timeout(now, index);
            }
        }
        while self
            .remembered
            .front()
            .is_some_and(|(sent, _)| now > sent + LEDGER_KEEPS)
        {
            if let Some((_, key)) = self.remembered.pop_front() {
                self.ledger.remove(&key);
            }
        }
    }

    /// A packet came out at `side`.
    pub fn handle_packet(&mut self, now: Nanos, side: Side, packet: &[u8]) {
        let Recognised {
            key,
            marked,
            window,
        } = self.recognise(packet);
        let Some(entry) = self.ledger.get_mut(&key).filter(|e| e.to == side) else {
            self.faults.invented += 1;
            return;
        };
        let (id, order, sent) = (entry.flow, entry.order, entry.sent);
        let again = entry.again;
        let content = entry.content.clone();
        let judged = sent >= self.amnesty_before;
        if std::mem::replace(&mut entry.arrived, true) {
            self.faults.twice += u64::from(judged);
            return;
        }
        let flow = &mut self.flows[id];
        flow.stats.arrived += 1;
        flow.stats.marked += u64::from(marked);
        if let Role::Tcp(connection) = &mut flow.role
            && marked
        {
            connection.receiver.on_mark();
        }
        if matches!(content, Content::Segment { .. }) && !again {
            let last = &mut flow.last_arrived[index(side)];
            self.faults.out_of_order += u64::from(judged && *last > Some(order));
            *last = (*last).max(Some(order));
        }
        if now < flow.stop {
            if let (Role::Tcp(connection), Content::Ack(_)) = (&mut self.flows[id].role, &content) {
                let segments = window / connection.mss as u64;
                connection.sender.set_window(segments);
            }
            self.deliver(now, id, side, sent, content);
        }
    }

    /// Finds a packet in the ledger, though it may have been changed on its way.
    fn recognise(&self, packet: &[u8]) -> Recognised {
        let as_it_was = Recognised {
            key: fingerprint(packet),
            marked: false,
            window: WINDOW_BYTES,
        };
        if self.ledger.contains_key(&as_it_was.key) {
            return as_it_was;
        }
        if let Some((before, window)) = unlowered(packet) {
            let key = fingerprint(&before);
            if self.ledger.contains_key(&key) {
                return Recognised {
                    key,
                    window,
                    ..as_it_was
                };
            }
        }
        // Only a packet of a sender that asked for it may come with a mark.
        let before = [1, 2].into_iter().filter_map(|ecn| unmarked(packet, ecn));
        let mut keys = before.map(|before| fingerprint(&before));
        let known = keys.find(|key| self.ledger.contains_key(key));
        Recognised {
            key: known.unwrap_or(as_it_was.key),
            marked: known.is_some(),
            ..as_it_was
        }
    }

    fn deliver(&mut self, now: Nanos, id: usize, side: Side, sent: Nanos, content: Content) {
        let stats = &mut self.flows[id].stats;
        match content {
            Content::Datagram { bytes } => {
                stats.progressed(now, bytes);
                stats.samples_ms.push((now - sent) as f64 / 1e6);
            }
            Content::Echo { number } => {
                let reply = self.flows[id].ends.ping(Side::Server, number);
                self.send(now, id, Side::Server, reply, Content::Reply { asked: sent });
            }
            Content::Reply { asked } => {
                stats.progressed(now, 64);
                stats.samples_ms.push((now - asked) as f64 / 1e6);
            }
            content => self.deliver_tcp(now, id, side, sent, content),
        }
    }

    fn deliver_tcp(&mut self, now: Nanos, id: usize, side: Side, sent: Nanos, content: Content) {
        let flow = &mut self.flows[id];
        let Role::Tcp(connection) = &mut flow.role else {
            return;
        };
        match content {
            Content::Syn => self.tcp_control(now, id, Side::Server, Content::SynAck),
            Content::SynAck => {
                connection.client = Handshake::Open;
                connection.syn_due = None;
                self.tcp_control(now, id, Side::Client, Content::Request);
            }
            Content::Request => connection.server_open = true,
            Content::Segment { seq, bytes } => {
                connection.server_open |= side == Side::Server;
                let before = connection.receiver.in_order();
                let ack = connection.receiver.on_segment(now, seq, sent);
                let news = connection.receiver.in_order() - before;
                if news > 0 {
                    flow.stats.progressed(now, news * bytes);
                }
                if let Some(ack) = ack {
                    self.send_ack(now, id, ack);
                }
            }
            Content::Ack(ack) => connection.sender.on_ack(now, &ack),
            Content::Datagram { .. } | Content::Echo { .. } | Content::Reply { .. } => {}
        }
        self.pump(now, id);
    }

    fn connection(
        &self,
        version: Version,
        direction: Direction,
        cc: Algorithm,
        size_bytes: Option<u64>,
        began: Nanos,
        page_of: Option<usize>,
    ) -> Role {
        let mss = self.mtu - version.header_len() - TCP_HEADER_LEN;
        let segments = size_bytes.map(|bytes| bytes.div_ceil(mss as u64));
        Role::Tcp(Box::new(Connection {
            data_from: direction.sender(),
            mss,
            ecn: cc.ecn(),
            sender: Sender::new(cc, mss, segments),
            receiver: Receiver::default(),
            client: Handshake::Waiting,
            server_open: false,
            syn_due: Some(began),
            syn_tries: 0,
            began,
            page_of,
            done: false,
        }))
    }

    fn add(&mut self, version: Version, host_port: u16, start: Nanos, stop: Nanos, role: Role) {
        let client_port = 40_000 + (self.flows.len() % 20_000) as u16;
        self.flows.push(Flow {
            ends: Ends {
                version,
                client_port,
                host_port,
            },
            start,
            stop,
            stats: FlowStats::default(),
            number: 0,
            order: [0, 0],
            last_arrived: [None, None],
            segments: [0, 0],
            role,
        });
    }

    fn send(&mut self, now: Nanos, id: usize, from: Side, packet: Vec<u8>, content: Content) {
        let flow = &mut self.flows[id];
        flow.stats.sent += 1;
        let order = flow.order[index(from)];
        flow.order[index(from)] += 1;
        let mut again = false;
        if let Content::Segment { seq, .. } = content {
            let segments = &mut flow.segments[index(from)];
            again = seq < *segments;
            *segments = (*segments).max(seq + 1);
        }
        let key = fingerprint(&packet);
        let to = from.other();
        let entry = Entry {
            flow: id,
            to,
            sent: now,
            order,
            again,
            content,
            arrived: false,
        };
        self.ledger.insert(key, entry);
        self.remembered.push_back((now, key));
        self.leaving.push_back((from, packet));
    }

    fn tcp_control(&mut self, now: Nanos, id: usize, from: Side, content: Content) {
        let flow = &mut self.flows[id];
        flow.number += 1;
        let syn = !matches!(content, Content::Request);
        let fields = TcpFields {
            seq: u32::from(!syn),
            ack: u32::from(!matches!(content, Content::Syn)),
            syn,
            has_ack: !matches!(content, Content::Syn),
            payload_len: if syn { 0 } else { REQUEST_BYTES },
            ..TcpFields::default()
        };
        let packet = flow.ends.tcp(from, flow.number, fields);
        self.send(now, id, from, packet, content);
    }

    fn send_ack(&mut self, now: Nanos, id: usize, ack: Ack) {
        let flow = &mut self.flows[id];
        let Role::Tcp(connection) = &flow.role else {
            return;
        };
        flow.number += 1;
        let fields = TcpFields {
            seq: 1 + REQUEST_BYTES as u32,
            ack: (1 + ack.cumulative * connection.mss as u64) as u32,
            has_ack: true,
            ..TcpFields::default()
        };
        let from = connection.data_from.other();
        let packet = flow.ends.tcp(from, flow.number, fields);
        self.send(now, id, from, packet, Content::Ack(ack));
    }

    /// Sends whatever the connection may send now.
    fn pump(&mut self, now: Nanos, id: usize) {
        loop {
            let flow = &mut self.flows[id];
            let Role::Tcp(connection) = &mut flow.role else {
                return;
            };
            let open = match connection.data_from {
                Side::Client => connection.client == Handshake::Open,
                Side::Server => connection.server_open,
            };
            if !open || now >= flow.stop {
                return;
            }
            let Some(seq) = connection.sender.poll_send(now) else {
                if connection.sender.is_done() && !connection.done {
                    connection.done = true;
                    if let Some(pages) = connection.page_of {
                        let took_ms = (now - connection.began) as f64 / 1e6;
                        let bytes = flow.stats.delivered_bytes;
                        let pages = &mut self.flows[pages].stats;
                        pages.samples_ms.push(took_ms);
                        pages.progressed(now, bytes);
                    }
                }
                return;
            };
            flow.number += 1;
            let again = seq < flow.segments[index(connection.data_from)];
            let fields = TcpFields {
                // What is sent again must not be marked: a mark could be lost with it (RFC 3168, section 6.1.5).
                ecn: if again { 0 } else { connection.ecn },
                seq: (1 + seq * connection.mss as u64) as u32,
                ack: 1 + REQUEST_BYTES as u32,
                has_ack: true,
                payload_len: connection.mss,
                ..TcpFields::default()
            };
            let (from, bytes) = (connection.data_from, connection.mss as u64);
            let packet = flow.ends.tcp(from, flow.number, fields);
            self.send(now, id, from, packet, Content::Segment { seq, bytes });
        }
    }

    fn flow_timeout(&mut self, now: Nanos, id: usize) {
        let flow = &mut self.flows[id];
        let ends = flow.ends;
        match &mut flow.role {
            Role::Tcp(connection) => {
                if connection.syn_due.is_some_and(|due| due <= now) {
                    connection.client = Handshake::Asked;
                    connection.syn_due = Some(now + (SYN_RETRY << connection.syn_tries.min(5)));
                    connection.syn_tries += 1;
                    self.tcp_control(now, id, Side::Client, Content::Syn);
                    return;
                }
                connection.sender.handle_timeout(now);
                if let Some(ack) = connection.receiver.handle_timeout(now) {
                    self.send_ack(now, id, ack);
                }
                self.pump(now, id);
            }
            Role::Clocked {
                kind,
                interval,
                next,
            } => {
                let kind = *kind;
                *next += *interval;
                flow.number += 1;
                let number = flow.number;
                match kind {
                    ClockedKind::Ping => {
                        let packet = ends.ping(Side::Client, number);
                        self.send(now, id, Side::Client, packet, Content::Echo { number });
                    }
                    ClockedKind::Voice => {
                        for from in [Side::Client, Side::Server] {
                            let packet = ends.udp(from, number, 172);
                            let content = Content::Datagram { bytes: 172 };
                            self.send(now, id, from, packet, content);
                        }
                    }
                    ClockedKind::Fragments { bytes } => {
                        for from in [Side::Client, Side::Server] {
                            for packet in ends.fragmented_udp(from, number, bytes, self.mtu) {
                                let bytes = packet.len() as u64;
                                self.send(now, id, from, packet, Content::Datagram { bytes });
                            }
                        }
                    }
                    ClockedKind::Udp { from, payload } => {
                        let packet = ends.udp(from, number, payload);
                        let content = Content::Datagram {
                            bytes: payload as u64,
                        };
                        self.send(now, id, from, packet, content);
                    }
                }
            }
            Role::Pages {
                interval,
                next,
                segments_bytes,
            } => {
                *next += *interval;
                let (size, stop) = (*segments_bytes, flow.stop);
                let role = self.connection(
                    ends.version,
                    Direction::Down,
                    Algorithm::Cubic,
                    Some(size),
                    now,
                    Some(id),
                );
                self.add(ends.version, 443, now, stop, role);
                self.flow_timeout(now, self.flows.len() - 1);
            }
        }
    }
}

impl Flow {
    fn next_deadline(&self) -> Option<Nanos> {
        let due = match &self.role {
            Role::Tcp(connection) if connection.done => connection.receiver.next_deadline(),
            Role::Tcp(connection) => [
                connection.syn_due,
                connection.receiver.next_deadline(),
                connection
                    .sender
                    .next_deadline()
                    .filter(|_| match connection.data_from {
                        Side::Client => connection.client == Handshake::Open,
                        Side::Server => connection.server_open,
                    }),
            ]
            .into_iter()
            .flatten()
            .min(),
            Role::Clocked { next, .. } | Role::Pages { next, .. } => Some(*next),
        };
        due.map(|due| due.max(self.start))
            .filter(|due| *due < self.stop)
    }
}
