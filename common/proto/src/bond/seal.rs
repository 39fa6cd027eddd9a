//! A chosen packet becomes a datagram, or two.
//!
//! Here it gets its number, if it has none, and the header that the other side knows most of already ([`crate::squeeze`]);
//! it is remembered until some copy is acknowledged ([`crate::store`]), cut when its path is too narrow
//! ([`crate::halves`]), and lengthened a little when that keeps it in its train ([`crate::path::Fit`]).

use std::time::Duration;

use super::copies::FirstSent;
use super::pick::Pick;
use super::{Bond, Context};
use crate::classify::{Class, Worth};
use crate::flow::Queued;
use crate::frame::{self, DataHeader};
use crate::halves;
use crate::path::{Kind, Outgoing, Path};
use crate::release;
use crate::session::{Number, OVERHEAD};
use crate::squeeze::{Form, Head};
use crate::stamp;
use crate::store::{PacketKey, Stored};
use crate::time::Time;

impl Bond {
    /// Seals a packet into `out` at `at`, in halves when its path asks for it. One that would be longer than `most`, or
    /// would have to be cut in the middle of a train, is put aside instead.
    pub(super) fn send(
        &mut self,
        now: Time,
        index: usize,
        pick: Pick,
        (out, at, most): (&mut Vec<u8>, usize, usize),
        ctx: &mut Context<'_>,
    ) -> Option<Sealed> {
        let (key, duplicate, worth) = match pick {
            Pick::New { slot, queued } => {
                let worth = queued.worth;
                let key = self.remember(now, slot, queued);
                self.note_recent(now, key, slot);
                (key, false, worth)
            }
            Pick::Repair(key) => (key, false, Worth::Nothing),
            Pick::Copy(key) => (key, true, Worth::Nothing),
        };
        // Nobody is to wait for a path on trial.
        let on_trial = self.order.trial == Some(index);
        let waits = self.queue.has(Class::Bulk) || !self.retransmits.is_empty();
        let stored = self.store.get_mut(key)?;
        if !self.peer_completes {
            stored.packet.complete();
        }
        let more = waits && (!on_trial || stored.steady);
        let again = stored.copies > 0;
        let flow = self.flows.get_mut(stored.slot);
        // The set may need less by now, or be gone.
        let set = self.latency.get();
        let latency = flow.map_or(Duration::ZERO, |flow| flow.latency(now, stored.steady, set));
        let release = release::units(latency, now.since(stored.first_sent));
        let mut header = DataHeader {
            more,
            duplicate,
            retransmitted: again && !duplicate,
            ordered: stored.ordered,
            class: stored.class,
            flow: stored.slot,
            seq: stored.seq as u32 & 0x00ff_ffff,
            release,
            opens: None,
            begun: stored.packet.is_begun(),
        };
        let stamp = stamp::stamp(now);
        let mut head = Head::default();
        // A packet that opened a base does so with each copy.
        let form = match stored.opens {
            Some(opening) => Form::Opens(opening),
            None => {
                let bytes = stored.packet.bytes();
                self.squeezer
                    .form(now, &header, stamp, bytes, !again, &mut head)
            }
        };
        let inner_len = stored.packet.len();
        let frame_len = |head: &Head| head.len + inner_len - head.skip;
        if form == Form::Squeezed {
            let len = frame_len(&head);
            frame::write_squeezed_header(&mut head.bytes, &header, len, stamp);
            self.counters.squeezed += 1;
        } else {
            if let Form::Opens(opening) = form {
                stored.opens = Some(opening);
                header.opens = Some(opening);
            }
            frame::write_data_header(head.whole(), &header, inner_len, stamp);
        }
        let frame_len = frame_len(&head);
        let datagram_max = self.paths[index].mtu.datagram_max();
        let cut = frame_len + OVERHEAD > datagram_max && self.peer_joins == Some(true);
        let len = frame_len + OVERHEAD;
        let path = &mut self.paths[index];
        let train = path.train();
        if len > most || cut && at > 0 {
            if !cut {
                path.fit.was_too_long(len, most);
            }
            let pick = if duplicate {
                Pick::Copy(key)
            } else {
                Pick::Repair(key)
            };
            self.stashed = Some((self.paths[index].tag, pick));
            return None;
        }
        // Two halves are a train of their own, and as long as they are.
        let padded = match at {
            _ if cut => len,
            0 => path.fit.first(len, datagram_max, train),
            _ => path.fit.next(len, most, train),
        };
        let pad = (padded - len).min(stored.packet.room_behind());
        stored.copies = stored.copies.saturating_add(1);
        stored.in_flight = stored.in_flight.saturating_add(1);
        if !duplicate {
            stored.queued = false;
        }
        let (slot, class, losses) = (stored.slot, stored.class, stored.losses);
        let needed = at + 2 * halves::datagram_len(padded);
        if out.len() < needed {
            out.resize(needed, 0);
        }
        let limited = path.is_idle();
        let sealed = stored
            .packet
            .with_head(&head.bytes[..head.len], head.skip, pad, |frame| {
                seal(path, frame, cut, &mut out[at..], ctx.scratch)
            });
        let Some(parts) = sealed else {
            // The session ended under us; the packet takes another path.
            self.lost.push(key);
            self.requeue_lost(now, true, ctx);
            return None;
        };
        let (mut len, mut segment_len) = (0, 0);
        for part in parts.into_iter().flatten() {
            let outgoing = Outgoing {
                len: part.len,
                eliciting: true,
                limited,
                packet: Some(key),
                kind: part.kind,
            };
            path.on_sealed(now, part.number, outgoing, Some(more));
            len += part.len;
            segment_len = segment_len.max(part.len);
        }
        if cut {
            path.mtu.search(now);
            self.counters.cut += 1;
        }
        let counters = &mut self.counters;
        if duplicate {
            counters.duplicated += 1;
            counters.duplicated_bytes += len as u64;
        } else if again {
            counters.retransmitted += 1;
            counters.retransmitted_bytes += len as u64;
            // What was lost twice goes out twice.
            if losses >= 2 {
                self.add_copy(now, key, index);
            }
        } else {
            counters.first_bytes += inner_len as u64;
            let sent = FirstSent {
                key,
                slot,
                class,
                worth,
                index,
                len,
            };
            self.consider_copy(now, sent);
        }
        Some(Sealed { len, segment_len })
    }

    fn remember(&mut self, now: Time, slot: u16, queued: Queued) -> PacketKey {
        let flow = self
            .flows
            .get_mut(slot)
            .expect("a queued packet's flow exists");
        self.store.insert(Stored {
            packet: queued.packet,
            slot,
            seq: flow.take_seq(),
            class: flow.class,
            ordered: queued.ordered,
            steady: flow.steady.is_some(),
            patient: queued.patient,
            since: queued.since,
            first_sent: now,
            copies: 0,
            losses: 0,
            in_flight: 0,
            queued: false,
            opens: None,
        })
    }
}

/// A packet as it lies in the train: one datagram, or two of which the first has `segment_len` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub len: usize,
    pub segment_len: usize,
}

/// A sealed datagram, and what it is to its packet.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Kind,
    len: usize,
    number: Number,
}

/// Seals a data frame as one datagram, or as two of which one lies behind the other.
fn seal(
    path: &mut Path,
    frame: &[u8],
    cut: bool,
    out: &mut [u8],
    scratch: &mut Vec<u8>,
) -> Option<[Option<Part>; 2]> {
    let mut part = |kind, frame: &[u8], out: &mut [u8]| {
        let (len, number) = path.session.seal(frame, out)?;
        Some(Part { kind, len, number })
    };
    if !cut {
        return Some([Some(part(Kind::Whole, frame, out)?), None]);
    }
    halves::cut(frame, false, scratch);
    let first = part(Kind::FirstHalf, scratch, out)?;
    halves::cut(frame, true, scratch);
    let second = part(Kind::SecondHalf, scratch, &mut out[first.len..])?;
    Some([Some(first), Some(second)])
}
