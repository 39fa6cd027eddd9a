//! Headers that travel squeezed: what the other side knows already is not said again.
//!
//! An inner TCP segment begins with 52 bytes or more of which next to nothing is
//! news: addresses and ports never change, numbers and clocks advance as
//! expected. Once the other side has one header of a flow in full (the *base*),
//! the next ones are written as what differs from it, in 5 to 10 bytes
//! ([`header`]), behind a frame header that is 8 bytes shorter as well.
//!
//! Packets travel over several paths, overtake each other and get lost, so no
//! packet may refer to the one before it. Instead:
//!
//! * A packet that is sent whole may *open* a base: its frame carries a
//!   generation, and both sides keep the header under its flow slot and that
//!   generation. It costs nothing; the bytes were there.
//! * A base is used only after that packet was **acknowledged**. So the receiver
//!   has it, whatever else was lost on whichever path.
//! * What refers to a base is read from the base, the frame's own number and
//!   stamp, and nothing else. Any order will do, also twice.
//! * A newer base is opened when the differences have grown (a long transfer, a
//!   changed window), and the old one is used until that is acknowledged too. The
//!   receiver keeps [`KEPT`], and the sender uses a place again only when nothing
//!   that refers to what is there can be under way.
//!
//! What cannot be written as a difference travels whole. When a receiver misses
//! a base nevertheless, it says so (FORGOTTEN), and the sender opens another.
//!
//! The transport's checksum travels as it is, so that it protects the
//! payload from end to end, and not at all where it is only begun
//! ([`crate::checksum`]): then it follows from the header. Nothing else that a sender wrote is left out either:
//! what comes out is, byte for byte, what went in.

mod header;

use std::time::Duration;

use header::HEAD_LEAST;
pub use header::{Base, Head, Marks, Place, Restored, Widths};

use crate::frame::{DataHeader, FrameError, HEADER_LEN, Opening};
use crate::limits;
use crate::time::Time;

/// Bases of one slot that a receiver keeps.
const KEPT: usize = 4;
/// A flow opens its first base with this packet; shorter ones are over before it is of use.
const OPEN_AT: u8 = 3;
/// Bytes that a newer base would have saved before one is opened.
const EXCESS_MAX: u32 = 512;
/// Shortest wait between two bases of a slot.
const OPEN_EVERY: Duration = Duration::from_millis(500);
/// A receiver's place for a base is used again when nothing that refers to it can be under way.
const UNDER_WAY_MAX: Duration = limits::RETRANSMIT_AGE_MAX;
/// A base that was not acknowledged for this long is not waited for.
const PENDING_MAX: Duration = Duration::from_millis(2_000);
/// How often a missing base is reported.
const REPORT_EVERY: Duration = Duration::from_millis(10);

/// How a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whole.
    Whole,
    /// Whole, and its header becomes a base.
    Opens(Opening),
    /// With the head that was written.
    Squeezed,
}

#[derive(Debug, Default)]
struct Slot {
    /// Counts bases, and goes on counting whatever happens.
    generation: u8,
    /// Packets sent while there was no base, up to [`OPEN_AT`].
    seen: u8,
    current: Option<(u8, Base)>,
    pending: Option<(u8, Base, Time)>,
    opened: Option<Time>,
    /// When a packet was last sent that refers to the base at each of the receiver's places.
    used: [Option<Time>; KEPT],
    widths: Widths,
    excess: u32,
    last_len: usize,
}

/// The sender's side.
#[derive(Debug, Default)]
pub struct Squeezer {
    enabled: bool,
    slots: Vec<Slot>,
}

impl Squeezer {
    /// Says whether the other side can read what is squeezed.
    pub fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// Decides how a packet is sent, and writes the head of one that is squeezed. Only a packet that was never sent may
    /// open a base: each copy of it has to.
    pub fn form(
        &mut self,
        now: Time,
        header: &DataHeader,
        stamp: u32,
        packet: &[u8],
        may_open: bool,
        head: &mut Head,
    ) -> Form {
        let index = usize::from(header.flow);
        if !self.enabled || index >= limits::SQUEEZED_FLOWS {
            return Form::Whole;
        }
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        let place = Place {
            number: header.seq,
            stamp,
        };
        let mut suits = true;
        if let Some((generation, base)) = &slot.current {
            let marks = Marks {
                generation: *generation,
                release: header.release,
                begun: header.begun,
            };
            if base.squeeze(packet, place, marks, &mut slot.widths, head) {
                if packet.len() - head.skip + head.len < HEADER_LEN {
                    return Form::Whole;
                }
                let same_len = std::mem::replace(&mut slot.last_len, packet.len()) == packet.len();
                slot.used[place_of(*generation)] = Some(now);
                let excess = head.len.saturating_sub(HEAD_LEAST) as u32;
                slot.excess = slot.excess.saturating_add(excess);
                // A run of equal segments makes the better base.
                suits = same_len && slot.excess >= EXCESS_MAX;
                let opens = suits && may_open && slot.next_generation(now).is_some();
                if !opens || !Base::suits(packet) {
                    return Form::Squeezed;
                }
            }
        } else if may_open {
            slot.seen = slot.seen.saturating_add(1);
            suits = slot.seen >= OPEN_AT;
        }
        if !suits || !may_open {
            return Form::Whole;
        }
        let free = slot.next_generation(now);
        let (Some(generation), Some(base)) = (free, Base::of(packet, place)) else {
            return Form::Whole;
        };
        slot.generation = generation;
        slot.pending = Some((slot.generation, base, now));
        slot.opened = Some(now);
        Form::Opens(Opening {
            generation: slot.generation,
            stamp,
        })
    }

    /// A packet that opened a base arrived.
    pub fn confirm(&mut self, slot: u16, generation: u8) {
        let Some(slot) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        if let Some((_, base, _)) = slot.pending.take_if(|(g, ..)| *g == generation) {
            slot.current = Some((generation, base));
            slot.widths = Widths::default();
            slot.excess = 0;
        }
    }

    /// The receiver lacks a base.
    pub fn forgotten(&mut self, slot: u16, generation: u8) {
        let Some(slot) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        slot.current.take_if(|(g, _)| *g == generation);
        slot.pending.take_if(|(g, ..)| *g == generation);
    }

    /// The receiver forgot everything.
    pub fn restart(&mut self) {
        for slot in &mut self.slots {
            slot.current = None;
            slot.pending = None;
        }
    }
}

impl Slot {
    /// The generation of a base that may be opened now: its place at the receiver holds nothing in use.
    fn next_generation(&self, now: Time) -> Option<u8> {
        let waits = self
            .pending
            .as_ref()
            .is_some_and(|(.., since)| now.since(*since) < PENDING_MAX);
        let soon = self.opened.is_some_and(|at| now.since(at) < OPEN_EVERY);
        if waits || soon {
            return None;
        }
        let current = self.current.as_ref().map(|(g, _)| place_of(*g));
        (1..=KEPT as u8)
            .map(|step| self.generation.wrapping_add(step))
            .find(|&g| {
                let idle = |at: Time| now.since(at) > UNDER_WAY_MAX;
                current != Some(place_of(g)) && self.used[place_of(g)].is_none_or(idle)
            })
    }
}

/// Where a receiver keeps the base of a generation.
fn place_of(generation: u8) -> usize {
    usize::from(generation) % KEPT
}

/// Why a squeezed packet was not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrestored {
    /// It refers to a base of this generation that is not there.
    Forgotten(u8),
    /// It cannot be read.
    Malformed,
}

impl From<FrameError> for Unrestored {
    fn from(_: FrameError) -> Self {
        Unrestored::Malformed
    }
}

impl Unrestored {
    /// The name of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Unrestored::Forgotten(_) => "squeezed_base_unknown",
            Unrestored::Malformed => "squeezed_malformed",
        }
    }
}

/// The bases of one slot that are remembered, each at the place of its generation.
type Known = [Option<(u8, Base)>; KEPT];

/// The receiver's side.
#[derive(Debug, Default)]
pub struct Restorer {
    slots: Vec<Option<Box<Known>>>,
    reported: Option<Time>,
}

impl Restorer {
    /// A packet came whole and opens a base.
    pub fn open(&mut self, header: &DataHeader, opening: Opening, packet: &[u8]) {
        let index = usize::from(header.flow);
        if index >= limits::SQUEEZED_FLOWS {
            return;
        }
        let place = Place {
            number: header.seq,
            stamp: opening.stamp,
        };
        let Some(base) = Base::of(packet, place) else {
            return;
        };
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let known = self.slots[index].get_or_insert_default();
        let generation = opening.generation;
        let kept = &mut known[place_of(generation)];
        // A late copy must not displace what is in use.
        if kept.is_none_or(|(g, _)| generation.wrapping_sub(g) as i8 >= 0) {
            *kept = Some((generation, base));
        }
    }

    /// Makes the header of a squeezed packet whole again.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn restore(
        &self,
        header: &DataHeader,
        stamp: u32,
        rest: &[u8],
    ) -> Result<Restored, Unrestored> {
        let (&generation, rest) = rest.split_first().ok_or(Unrestored::Malformed)?;
        let known = self.slots.get(usize::from(header.flow));
        let base = known
            .and_then(|k| k.as_ref()?[place_of(generation)].as_ref())
            .filter(|(g, _)| *g == generation)
            .map(|(_, base)| base)
            .ok_or(Unrestored::Forgotten(generation))?;
        let place = Place {
            number: header.seq,
            stamp,
        };
        let mut restored = base.restore(place, header.begun, rest)?;
        restored.read += 1;
        Ok(restored)
    }

    /// Whether a missing base may be reported now.
    pub fn may_report(&mut self, now: Time) -> bool {
        let may = self.reported.is_none_or(|at| now.since(at) >= REPORT_EVERY);
        if may {
            self.reported = Some(now);
        }
        may
    }

    /// The sender forgot everything.
    pub fn restart(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests;
