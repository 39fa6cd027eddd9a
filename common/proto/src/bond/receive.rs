//! What a datagram means.
//!
//! Nothing is believed before it is opened. What opens is first noted with its
//! path (number, delay, bytes), then done.

use std::net::IpAddr;
use std::time::Duration;

use rand::Rng;

use super::{Bond, Context, EVIDENCE_EVERY, Side, news};
use crate::PacketBuf;
use crate::checksum;
use crate::classify::Class;
use crate::config::Mode;
use crate::event::{Event, PathReason};
use crate::frame::{self, Control, DataHeader, Frame, HEADER_LEN, Probe, SQUEEZED_AT};
use crate::packet;
use crate::path::{Address, Candidate, Greeting, Incoming, MessageContent};
use crate::release;
use crate::reorder::{Arrived, Verdict};
use crate::session::{Number, OpenError, Opened};
use crate::squeeze::Unrestored;
use crate::stamp;
use crate::time::Time;
use crate::transmit::Arrival;

/// Where a data frame's content lies in the buffer that it was opened into.
#[derive(Clone, Copy, Debug)]
struct DataFrame {
    header: DataHeader,
    squeezed: bool,
    end: usize,
}

impl DataFrame {
    fn of(frame: &Frame<'_>) -> Option<Self> {
        let (header, squeezed, end) = match frame {
            Frame::Data(header, inner) => (*header, false, HEADER_LEN + inner.len()),
            Frame::Squeezed(header, rest) => (*header, true, SQUEEZED_AT + rest.len()),
            _ => return None,
        };
        Some(DataFrame {
            header,
            squeezed,
            end,
        })
    }
}

impl Bond {
    /// A datagram for one of the bond's paths.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        tag: u8,
        arrival: Arrival,
        datagram: &[u8],
        ctx: &mut Context<'_>,
    ) {
        let Some(index) = self.path_index(tag) else {
            return self.drop_packet("datagram_no_path");
        };
        self.tick_session(now, index, ctx);
        let mut buf = ctx.pool.take();
        if buf.frame_room().len() < datagram.len().max(256) {
            // Larger than any datagram that we agreed to.
            self.drop_packet("datagram_too_big");
            return ctx.pool.put(buf);
        }
        let path = &mut self.paths[index];
        let opened = path
            .session
            .open(now, arrival.remote.ip(), datagram, buf.frame_room());
        match opened {
            Err(e) => {
                self.drop_packet(e.name());
                ctx.pool.put(buf);
            }
            Ok(Opened::Quiet) => ctx.pool.put(buf),
            Ok(Opened::Reply { len, established }) => {
                let reply = buf.frame_room()[..len].to_vec();
                ctx.pool.put(buf);
                // A response goes back to where the question came from.
                let to = (self.side == Side::Server).then(|| Address::from(arrival));
                self.paths[index].raw.push_back((reply, to));
                if established && self.side == Side::Client {
                    self.paths[index].handshake_done();
                    self.paths[index].end_rest(now);
                    self.greet(now, index);
                }
            }
            Ok(Opened::Keepalive { number }) => {
                ctx.pool.put(buf);
                let incoming = Incoming {
                    number,
                    len: datagram.len(),
                    stamp: None,
                    more: None,
                    eliciting: false,
                    realtime: false,
                };
                let newest = self.is_newest(index, number);
                let former = self.is_former(now, index, number);
                if !former && self.paths[index].received.on_received(now, incoming) && newest {
                    self.end_rest(now, index, arrival);
                    self.watch_address(now, index, arrival, ctx);
                }
            }
            Ok(Opened::Content { len, number }) => {
                self.handle_content(now, index, arrival, number, datagram.len(), buf, len, ctx);
            }
        }
        if self.reorder.is_blocked() && now.since(self.last_evidence) >= EVIDENCE_EVERY {
            self.release_held(now, ctx);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one datagram, described once, on the hot path"
    )]
    fn handle_content(
        &mut self,
        now: Time,
        index: usize,
        arrival: Arrival,
        number: Number,
        wire_len: usize,
        mut buf: PacketBuf,
        len: usize,
        ctx: &mut Context<'_>,
    ) {
        let content = &buf.frame_room()[..len];
        if !frame::is_frame(content) {
            self.drop_packet("packet_without_frame");
            return ctx.pool.put(buf);
        }
        let (sent, frame) = match frame::decode(content) {
            Ok(decoded) => decoded,
            Err(_) => {
                self.drop_packet("frame_malformed");
                return ctx.pool.put(buf);
            }
        };
        let more = match &frame {
            Frame::Data(header, _) | Frame::Squeezed(header, _) => Some(header.more),
            Frame::Half(half) => Some(half.header.more),
            Frame::Probe(Probe::Tick) => Some(false),
            Frame::Ack(_) | Frame::Control(_) | Frame::Probe(_) => None,
        };
        let realtime = match &frame {
            Frame::Data(header, _) | Frame::Squeezed(header, _) => header.class == Class::Realtime,
            _ => false,
        };
        let is_data = matches!(
            frame,
            Frame::Data(..) | Frame::Squeezed(..) | Frame::Half(_)
        );
        let greets_formerly = match &frame {
            Frame::Control(control) => self.note_life(now, index, arrival, number, control, ctx),
            _ => false,
        };
        if greets_formerly || self.is_former(now, index, number) {
            self.drop_packet("datagram_former_life");
            return ctx.pool.put(buf);
        }
        if is_data && !self.paths[index].greeting.is_done() {
            // Not noted, so not acknowledged: it is sent again, and by then we know each other.
            self.drop_packet("data_before_hello");
            return ctx.pool.put(buf);
        }
        let incoming = Incoming {
            number,
            len: wire_len,
            stamp: Some(sent),
            more,
            eliciting: frame.is_ack_eliciting(),
            realtime,
        };
        let newest = self.is_newest(index, number);
        if !self.paths[index].received.on_received(now, incoming) {
            self.drop_packet(OpenError::Replayed.name());
            return ctx.pool.put(buf);
        }
        self.paths[index].health.heard(now);
        if newest {
            self.end_rest(now, index, arrival);
            self.watch_address(now, index, arrival, ctx);
        }
        match frame {
            Frame::Data(..) | Frame::Squeezed(..) => {
                if let Some(data) = DataFrame::of(&frame) {
                    self.handle_data_frame(now, index, sent, data, buf, ctx);
                }
            }
            Frame::Half(half) => {
                let second = half.second;
                let half = (buf, len);
                if let Some(whole) = self.joiner.take(now, number, second, half, ctx.pool) {
                    self.handle_joined(now, index, whole, ctx);
                }
            }
            Frame::Ack(ack) => {
                self.handle_ack(now, &ack, ctx);
                ctx.pool.put(buf);
            }
            Frame::Control(control) => {
                self.handle_control(now, index, arrival, control, ctx);
                ctx.pool.put(buf);
            }
            Frame::Probe(probe) => {
                match probe {
                    Probe::Ping { id } => {
                        self.paths[index].say(MessageContent::Probe(Probe::Pong { id }));
                    }
                    Probe::Pong { id } => {
                        let alone = self.is_alone(index);
                        let path = &mut self.paths[index];
                        let tag = path.tag;
                        if let Some(change) = path.on_pong(now, id, sent, alone) {
                            self.changed(tag, change, ctx);
                        }
                    }
                    Probe::Tick | Probe::Size { .. } => {}
                }
                ctx.pool.put(buf);
            }
        }
    }

    /// A data frame that came whole or is whole again, in the buffer that it was opened into.
    fn handle_data_frame(
        &mut self,
        now: Time,
        index: usize,
        sent: u32,
        data: DataFrame,
        mut buf: PacketBuf,
        ctx: &mut Context<'_>,
    ) {
        let DataFrame {
            mut header,
            squeezed,
            end,
        } = data;
        if !squeezed {
            buf.set_content(&[], HEADER_LEN, end);
            return self.handle_data(now, index, header, sent, buf, ctx);
        }
        let rest = &buf.frame_room()[SQUEEZED_AT..end];
        match self.restorer.restore(&header, sent, rest) {
            Ok(restored) => {
                header.release = restored.release;
                buf.set_content(restored.header(), SQUEEZED_AT + restored.read, end);
                self.handle_data(now, index, header, sent, buf, ctx);
            }
            Err(why) => {
                self.drop_packet(why.name());
                self.report_forgotten(now, index, header.flow, why);
                ctx.pool.put(buf);
            }
        }
    }

    /// Two halves were put together to `len` bytes.
    fn handle_joined(
        &mut self,
        now: Time,
        index: usize,
        (mut buf, len): (PacketBuf, usize),
        ctx: &mut Context<'_>,
    ) {
        let decoded = frame::decode(&buf.frame_room()[..len]).ok();
        let data = decoded.and_then(|(sent, frame)| Some((sent, DataFrame::of(&frame)?)));
        match data {
            Some((sent, data)) => self.handle_data_frame(now, index, sent, data, buf, ctx),
            None => {
                self.drop_packet("frame_malformed");
                ctx.pool.put(buf);
            }
        }
    }

    /// Whether no later message of the path has come yet.
    fn is_newest(&self, index: usize, number: Number) -> bool {
        let latest = self.paths[index].received.latest();
        latest.is_none_or(|(s, n)| s != number.session || number.counter > n)
    }

    fn handle_data(
        &mut self,
        now: Time,
        index: usize,
        header: DataHeader,
        sent: u32,
        mut packet: PacketBuf,
        ctx: &mut Context<'_>,
    ) {
        let Some(info) = packet::inspect(packet.bytes()) else {
            self.drop_packet("inner_malformed");
            return ctx.pool.put(packet);
        };
        if header.begun {
            if checksum::position(packet.bytes()).is_none() {
                self.drop_packet("inner_malformed");
                return ctx.pool.put(packet);
            }
            packet.set_begun();
        }
        if self.side == Side::Server && !self.owns(info.key.source) {
            self.drop_packet("inner_source_not_allowed");
            return ctx.pool.put(packet);
        }
        if let Some(opening) = header.opens {
            self.restorer.open(&header, opening, packet.bytes());
        }
        self.last_packet = now;
        self.flows.note_answer(now, &info, &mut packet);
        let before = ctx.ready.len();
        let arrived = Arrived {
            slot: header.flow,
            seq: header.seq,
            stamp: sent,
            ordered: header.ordered,
            datagram: info.transport == packet::Transport::Udp,
            due: self.due(now, index, header.release, sent),
            packet,
        };
        let verdict = self.reorder.on_packet(now, arrived, ctx.ready, ctx.pool);
        self.counters.copies_received += u64::from(header.duplicate);
        if verdict != Verdict::Duplicate {
            self.counters.copies_first += u64::from(header.duplicate);
            self.account_ready(before, ctx);
        }
    }

    /// When a packet may be released: its sender's wish counts from the lowest delay of all paths.
    fn due(&self, now: Time, index: usize, release: u8, sent: u32) -> Time {
        if release == 0 || !self.paths[index].health.is_active() {
            return now;
        }
        let took = stamp::difference(stamp::stamp(now), sent) as u32;
        let bases = self.paths.iter().filter_map(|p| p.received.base_delay());
        let late = bases.map(|b| stamp::difference(took, b)).max().unwrap_or(0);
        let late = Duration::from_nanos(late.max(0) as u64 * stamp::UNIT_NS);
        release::due(now, release, late)
    }

    /// Asks the sender for another base.
    fn report_forgotten(&mut self, now: Time, index: usize, flow: u16, why: Unrestored) {
        if let Unrestored::Forgotten(generation) = why
            && self.restorer.may_report(now)
        {
            let forgotten = Control::Forgotten { flow, generation };
            self.paths[index].say(MessageContent::Control(forgotten));
        }
    }

    fn owns(&self, source: IpAddr) -> bool {
        self.peer.addresses().any(|a| a == source)
    }

    fn handle_ack(&mut self, now: Time, ack: &frame::Ack, ctx: &mut Context<'_>) {
        // An overtaken acknowledgement still acknowledges; only its view of
        // time and bytes is old, and the controller sees that by itself.
        let newer = self
            .peer_ack_seq
            .is_none_or(|s| (ack.seq.wrapping_sub(s) as i16) > 0);
        if newer {
            self.peer_ack_seq = Some(ack.seq);
        }
        for entry in &ack.paths {
            let Some(index) = self.path_index(entry.path) else {
                continue;
            };
            let alone = self.is_alone(index);
            let path = &mut self.paths[index];
            let tag = path.tag;
            let change = path.on_ack(now, entry, alone, &mut self.arrived, &mut self.lost);
            if let Some(change) = change {
                if path.session.is_established() {
                    path.handshake_done();
                }
                self.changed(tag, change, ctx);
            }
            if !self.arrived.is_empty() {
                self.outage.passed(now);
            }
            for key in self.arrived.drain(..) {
                if let Some(stored) = self.store.get_mut(key)
                    && let Some(opening) = stored.opens
                {
                    self.squeezer.confirm(stored.slot, opening.generation);
                }
                self.store.remove(key, ctx.pool);
            }
            self.requeue_lost(now, false, ctx);
        }
    }

    fn handle_control(
        &mut self,
        now: Time,
        index: usize,
        arrival: Arrival,
        control: Control,
        ctx: &mut Context<'_>,
    ) {
        match control {
            Control::Hello(hello) => self.handle_hello(now, index, arrival, hello, ctx),
            Control::HelloAck(hello) => self.handle_hello_ack(now, index, hello, ctx),
            Control::PathChallenge(token) => {
                let answer = MessageContent::Control(Control::PathResponse(token));
                self.paths[index].say(answer);
            }
            Control::PathResponse(token) => self.handle_path_response(index, token),
            Control::Silent { path, .. } => {
                let Some(silent) = self.path_index(path) else {
                    return;
                };
                if !self.is_alone(silent) && self.paths[silent].sent.has_inflight() {
                    self.doubt_path(now, silent, PathReason::PeerHeardSilence, ctx);
                }
            }
            Control::Skip(skips) => {
                let before = ctx.ready.len();
                for (slot, seq) in skips {
                    self.reorder.on_skip(now, slot, seq, ctx.ready);
                }
                self.account_ready(before, ctx);
            }
            Control::Forgotten { flow, generation } => self.squeezer.forgotten(flow, generation),
            Control::Close(_) => {
                let tag = self.paths[index].tag;
                if let Some(change) = self.paths[index].health.dead(now, PathReason::PeerClosed) {
                    self.paths[index].sent.give_up(&mut self.lost);
                    self.changed(tag, change, ctx);
                    self.requeue_lost(now, true, ctx);
                }
            }
        }
    }

    /// Server: a path's datagrams come from another address now. It is used once
    /// it proved that it receives (RFC 9000, section 8.2), or one copied
    /// datagram could turn the path away.
    fn watch_address(&mut self, now: Time, index: usize, arrival: Arrival, ctx: &mut Context<'_>) {
        if self.side == Side::Client {
            return;
        }
        let path = &mut self.paths[index];
        let address = Address::from(arrival);
        if path.address.remote == address.remote && path.address.socket == address.socket {
            path.address.local = address.local;
            return;
        }
        const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);
        let asked = path
            .candidate
            .is_some_and(|c| c.address.remote == address.remote && now.since(c.since) < ASK_AGAIN);
        if asked {
            return;
        }
        // Asked again with the same token: an answer may take longer than that.
        let token = path
            .candidate
            .filter(|c| c.address.remote == address.remote)
            .map_or_else(|| ctx.rng.next_u64().to_be_bytes(), |c| c.token);
        path.candidate = Some(Candidate {
            address,
            token,
            since: now,
        });
        let challenge = MessageContent::Control(Control::PathChallenge(token));
        path.say_to(challenge, Some(address));
    }

    fn handle_path_response(&mut self, index: usize, token: [u8; 8]) {
        let path = &mut self.paths[index];
        if let Some(candidate) = path.candidate.filter(|c| c.token == token) {
            path.address = candidate.address;
            path.candidate = None;
        }
    }

    /// The path works: its exchange of HELLO is done.
    pub(super) fn connected(&mut self, now: Time, index: usize, ctx: &mut Context<'_>) {
        let path = &mut self.paths[index];
        path.greeting = Greeting::Done;
        let tag = path.tag;
        if self.modes.bulk != Mode::Handover {
            path.begin_train();
        }
        if let Some(change) = path.connected(now, &mut self.lost) {
            self.changed(tag, change, ctx);
            self.requeue_lost(now, true, ctx);
        }
    }

    /// The other side forgot everything: so do we, of it.
    pub(super) fn peer_restarted(&mut self, now: Time, index: usize, ctx: &mut Context<'_>) {
        self.counters.peer_restarts += 1;
        let before = ctx.ready.len();
        self.reorder.restart(ctx.ready);
        self.account_ready(before, ctx);
        self.flows.restart_sequences();
        self.squeezer.restart();
        self.restorer.restart();
        self.joiner.restart(ctx.pool);
        self.stashed = None;
        self.retransmits.clear();
        self.copies.clear();
        self.recent.clear();
        self.store.clear(ctx.pool);
        self.peer_ack_seq = None;
        for i in 0..self.paths.len() {
            if i == index {
                continue;
            }
            self.begin_path_anew(now, i, self.paths[i].address);
            let path = &mut self.paths[i];
            let tag = path.tag;
            let change = path.health.disconnected(now, PathReason::SessionLost);
            if path.initiator {
                path.start_handshake(now);
            }
            if let Some(change) = change {
                self.changed(tag, change, ctx);
            }
        }
        news(
            ctx.events,
            Event::PeerRestarted {
                peer: self.peer.public,
            },
        );
    }
}
