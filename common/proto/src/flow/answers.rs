//! What passes on its way to senders whose queue is here.
//!
//! A TCP sender is slowed down by what it is told of its receiver's window ([`crate::window`]), and what tells it comes from
//! the other side of the bond: acknowledgements, and before them the SYN that says how windows count. One of the two SYN of a
//! connection passes this way, the other in the direction of the flow itself, in either order; what one said is kept until
//! the other comes. Acknowledgements are looked up only while a window is to be lowered: most of the time that is none.

use std::collections::HashMap;
use std::time::Duration;

use super::{Flow, FlowTable};
use crate::buffer::PacketBuf;
use crate::packet::{FlowKey, PacketInfo};
use crate::time::Time;
use crate::window::{Lent, Syn};

/// How long after the last packet of a flow that is slowed down acknowledgements are looked at.
const LOWERS_FOR: Duration = Duration::from_secs(1);
/// Connections of which one SYN is known at most.
const ANNOUNCED_MAX: usize = 1_024;

/// What is known of the way back.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// What SYN from the other side said to flows of ours that did not begin yet.
    announced: HashMap<FlowKey, Syn>,
    /// When a window was last to be lowered.
    lowered: Option<Time>,
    windows_lowered: u64,
}

impl Answers {
    /// A flow's own SYN. One that answers may come a second time.
    pub fn begin(&mut self, flow: &mut Flow, syn: Syn) {
        let receiver = self.announced.remove(&flow.key).filter(|_| syn.answer);
        if !syn.answer || receiver.is_some() {
            flow.window = Lent::begin(syn, receiver);
            flow.tcp_end = None;
        }
    }

    /// The bond is idle: gives back memory.
    pub fn rest(&mut self) {
        self.announced = HashMap::new();
    }
}

impl FlowTable {
    /// A packet on its way to a sender whose queue is here: a SYN says how windows count, and what acknowledges may be told
    /// a lower one ([`crate::window`]).
    pub fn note_answer(&mut self, now: Time, info: &PacketInfo, packet: &mut PacketBuf) {
        let slows = self
            .answers
            .lowered
            .is_some_and(|at| now.since(at) < LOWERS_FOR);
        if info.syn.is_none() && !slows {
            return;
        }
        let key = info.key.reversed();
        let slot = self.by_key.get(&key).copied();
        if let Some(syn) = info.syn {
            match slot.map(|slot| &mut self.slots[usize::from(slot)].window) {
                Some(window) if syn.answer => window.note_answer(syn),
                // A copy of one that was answered.
                Some(window) if window.is_of(syn) => {}
                _ => {
                    if self.answers.announced.len() >= ANNOUNCED_MAX {
                        // Whoever comes next is slowed down by losses.
                        self.answers.announced.clear();
                    }
                    self.answers.announced.insert(key, syn);
                }
            }
        } else if let Some(slot) = slot {
            let flow = &mut self.slots[usize::from(slot)];
            let first = flow.queue.iter().find(|queued| queued.stream_end.is_some());
            let waits = first.map_or(Duration::ZERO, |first| now.since(first.since));
            let left = first.and_then(|first| first.stream_end);
            if let Some(left) = left.or(flow.tcp_end) {
                let lowered = flow.window.tell(now, packet, left, waits);
                self.answers.windows_lowered += u64::from(lowered);
            }
        }
    }

    /// The window of one of the flows is lowered.
    pub fn note_lowered(&mut self, now: Time) {
        self.answers.lowered = Some(now);
    }

    /// Acknowledgements whose window was lowered.
    pub fn windows_lowered(&self) -> u64 {
        self.answers.windows_lowered
    }
}
