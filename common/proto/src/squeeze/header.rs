//! One header, written as what differs from another one of its flow, and whole again.
//!
//! Nothing here has a state: the same base, place and bytes give the same header,
//! in whatever order and however often they come.

use crate::checksum::begun as begun_checksum;
use crate::frame::{FrameError, HEADER_LEN, SQUEEZED_AT};
use crate::stamp;
use crate::wire::Reader;

/// The longest squeezed header of a frame: every field in full and 40 bytes of TCP options.
pub const HEAD_MAX: usize = 96;
/// The longest inner header that is restored: IPv6, TCP, 40 bytes of options.
pub const RESTORED_MAX: usize = 100;
/// The shortest squeezed header of a TCP segment: generation, mask, checksum.
pub const HEAD_LEAST: usize = SQUEEZED_AT + 5;

const IP4: usize = 20;
const IP6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
/// The timestamp option as everybody sends it: two no-operations, kind 8, length 10.
const STAMPS: [u8; 4] = [1, 1, 8, 10];
const STAMPS_LEN: usize = 12;
const SYN: u8 = 0x02;

const WIDTH_BITS: u16 = 0b11;
const ID: u16 = 0;
const SEQ: u16 = 2;
const ACK: u16 = 4;
const STAMP_VALUE: u16 = 6;
const STAMP_ECHO: u16 = 8;
const FLAGS: u16 = 1 << 10;
const WINDOW: u16 = 1 << 11;
const TOS: u16 = 1 << 12;
const TTL: u16 = 1 << 13;
const OPTIONS: u16 = 1 << 14;
const RELEASE: u16 = 1 << 15;
const TCP_ONLY: u16 = 0b11_1111_1100 | FLAGS | WINDOW | OPTIONS;

/// Units of a stamp per tick of a TCP clock that runs in milliseconds.
const UNITS_PER_TICK: i32 = (1_000_000 / stamp::UNIT_NS) as i32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Tcp,
    Udp,
    /// Only the IP header is squeezed.
    Ip,
}

/// Where a packet stands: what its frame says anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number within the flow slot, low 24 bits.
    pub number: u32,
    /// Send stamp.
    pub stamp: u32,
}

/// What a squeezed header says besides the packet's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Generation of the base.
    pub generation: u8,
    /// The frame's field `release`.
    pub release: u8,
    /// The checksum is only begun, and does not travel: it is known from the header.
    pub begun: bool,
}

/// How wide the five offsets were lately, as they are written: 0, 1, 2, 3 for 0, 1, 2, 4 bytes.
pub type Widths = [u8; 5];

/// The bytes of a squeezed frame in front of the payload. The first [`SQUEEZED_AT`] are left to the frame.
#[derive(Clone, Debug)]
pub struct Head {
    /// The bytes; [`Self::len`] of them count.
    pub bytes: [u8; HEAD_MAX],
    /// How many.
    pub len: usize,
    /// Bytes of the inner packet that they stand for.
    pub skip: usize,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            bytes: [0; HEAD_MAX],
            len: 0,
            skip: 0,
        }
    }
}

impl Head {
    /// The head of a packet that travels whole, to be written.
    pub fn whole(&mut self) -> &mut [u8; HEADER_LEN] {
        self.len = HEADER_LEN;
        self.skip = 0;
        let (head, _) = self.bytes.split_at_mut(HEADER_LEN);
        head.try_into().expect("a head has room for a header")
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// An inner header that is whole again.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The bytes; [`Self::len`] of them count.
    pub bytes: [u8; RESTORED_MAX],
    /// How many.
    pub len: usize,
    /// Bytes of the frame's rest that were read; the payload follows.
    pub read: usize,
    /// The frame's field `release`.
    pub release: u8,
}

impl Restored {
    /// The header.
    pub fn header(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn set_long(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The checksum of an IPv4 header of 20 bytes, whatever its own field says.
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = (0..IP4)
        .step_by(2)
        .filter(|&at| at != 10)
        .map(|at| u32::from(word(header, at)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

fn tos(bytes: &[u8], ip: usize) -> u8 {
    if ip == IP4 {
        bytes[1]
    } else {
        bytes[0] << 4 | bytes[1] >> 4
    }
}

fn set_tos(bytes: &mut [u8], ip: usize, tos: u8) {
    if ip == IP4 {
        bytes[1] = tos;
    } else {
        bytes[0] = 0x60 | tos >> 4;
        bytes[1] = tos << 4 | bytes[1] & 0x0f;
    }
}

/// Where the time to live stands.
fn ttl_at(ip: usize) -> usize {
    if ip == IP4 { 8 } else { 7 }
}

/// A packet whose header can be squeezed, taken apart.
#[derive(Debug)]
struct Parsed<'a> {
    packet: &'a [u8],
    ip: usize,
    profile: Profile,
    /// Bytes of all headers and TCP options.
    header: usize,
    options: &'a [u8],
    stamps: Option<(u32, u32)>,
}

impl<'a> Parsed<'a> {
    /// `None` when something about the packet is so unusual that its header could not be restored.
    fn of(packet: &'a [u8]) -> Option<Self> {
        let (ip, protocol) = match packet.first()? >> 4 {
            4 => {
                let usual = packet.len() >= IP4
                    && packet[0] == 0x45
                    && usize::from(word(packet, 2)) == packet.len()
                    && word(packet, 6) & 0x3fff == 0
                    && word(packet, 10) == checksum(packet);
                usual.then(|| (IP4, packet[9]))?
            }
            6 => {
                let usual =
                    packet.len() >= IP6 && usize::from(word(packet, 4)) == packet.len() - IP6;
                usual.then(|| (IP6, packet[6]))?
            }
            _ => return None,
        };
        let rest = &packet[ip..];
        let mut parsed = Parsed {
            packet,
            ip,
            profile: Profile::Ip,
            header: ip,
            options: &[],
            stamps: None,
        };
        match protocol {
            6 => {
                let len = usize::from(*rest.get(12)? >> 4) * 4;
                let whole = len >= TCP && rest.len() >= len;
                // An urgent pointer is of the last century.
                if !whole || word(rest, 18) != 0 {
                    return None;
                }
                parsed.profile = Profile::Tcp;
                parsed.header = ip + len;
                parsed.options = &rest[TCP..len];
                if parsed.options.len() == STAMPS_LEN && parsed.options[..4] == STAMPS {
                    parsed.stamps = Some((long(parsed.options, 4), long(parsed.options, 8)));
                }
            }
            17 => {
                if rest.len() < UDP || usize::from(word(rest, 4)) != rest.len() {
                    return None;
                }
                parsed.profile = Profile::Udp;
                parsed.header = ip + UDP;
            }
            _ => {}
        }
        Some(parsed)
    }

    /// Whether its options are none, or only timestamps.
    fn is_plain(&self) -> bool {
        self.options.is_empty() || self.stamps.is_some()
    }
}

/// A header that others of its flow refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The IP header and the transport's, without TCP options.
    head: [u8; IP6 + TCP],
    ip: usize,
    profile: Profile,
    stamps: Option<(u32, u32)>,
    /// Payload bytes, by which a run of equal segments advances.
    stride: u32,
    place: Place,
}

impl Base {
    /// Makes a packet's header the base. `None` when others could not refer to it.
    pub fn of(packet: &[u8], place: Place) -> Option<Self> {
        let parsed = Parsed::of(packet)?;
        let ip = parsed.ip;
        if parsed.profile == Profile::Tcp && packet[ip + 13] & SYN != 0 {
            return None;
        }
        let mut head = [0; IP6 + TCP];
        let len = Self::head_len(ip, parsed.profile);
        head[..len].copy_from_slice(&packet[..len]);
        Some(Base {
            head,
            ip,
            profile: parsed.profile,
            stamps: parsed.stamps,
            stride: (packet.len() - parsed.header) as u32,
            place,
        })
    }

    /// Whether a packet makes a better base than one with options of its own.
    pub fn suits(packet: &[u8]) -> bool {
        Parsed::of(packet).is_some_and(|p| p.is_plain())
    }

    fn head_len(ip: usize, profile: Profile) -> usize {
        ip + match profile {
            Profile::Tcp => TCP,
            Profile::Udp => UDP,
            Profile::Ip => 0,
        }
    }

    /// What never changes within a flow is equal.
    fn is_of(&self, p: &Parsed<'_>) -> bool {
        let (a, b) = (&self.head, p.packet);
        if self.profile != p.profile || self.ip != p.ip {
            return false;
        }
        let ip = if self.ip == IP4 {
            a[6..8] == b[6..8] && a[9] == b[9] && a[12..20] == b[12..20]
        } else {
            a[1] & 0x0f == b[1] & 0x0f && a[2..4] == b[2..4] && a[6] == b[6] && a[8..40] == b[8..40]
        };
        let at = self.ip;
        ip && match self.profile {
            // The low half of the byte with the header's length is reserved.
            Profile::Tcp => {
                a[at..at + 4] == b[at..at + 4] && a[at + 12] & 0x0f == b[at + 12] & 0x0f
            }
            Profile::Udp => a[at..at + 4] == b[at..at + 4],
            Profile::Ip => true,
        }
    }

    /// How many packets of the flow lie between.
    fn steps(&self, place: Place) -> i32 {
        stamp::difference(place.number, self.place.number)
    }

    fn ticks(&self, place: Place) -> i32 {
        stamp::difference(place.stamp, self.place.stamp) / UNITS_PER_TICK
    }

    /// A host that numbers its packets goes on by one; one that does not writes zero.
    fn expected_id(&self, place: Place) -> u16 {
        let id = word(&self.head, 4);
        if id == 0 {
            0
        } else {
            id.wrapping_add(self.steps(place) as u16)
        }
    }

    fn expected_seq(&self, place: Place) -> u32 {
        let run = (self.steps(place) as u32).wrapping_mul(self.stride);
        long(&self.head, self.ip + 4).wrapping_add(run)
    }

    fn expected_stamp(&self, base: u32, place: Place) -> u32 {
        base.wrapping_add(self.ticks(place) as u32)
    }

    /// Writes a packet's header as what differs from this one, behind the generation. Offsets are at least as wide as
    /// `widths`, which grow with them, so that a run of packets is a run of equal datagrams. False when the packet
    /// cannot refer to this header.
    pub fn squeeze(
        &self,
        packet: &[u8],
        place: Place,
        marks: Marks,
        widths: &mut Widths,
        head: &mut Head,
    ) -> bool {
        let Some(p) = Parsed::of(packet).filter(|p| self.is_of(p)) else {
            return false;
        };
        let (ip, base) = (self.ip, &self.head);
        let mut mask = 0;
        let mut offset = |bit: u16, value: i32| {
            let width = &mut widths[usize::from(bit / 2)];
            *width = width_of(value).max(*width);
            mask |= u16::from(*width) << bit;
            (value, *width)
        };
        let mut offsets = [(0, 0); 5];
        if ip == IP4 {
            let id = word(packet, 4).wrapping_sub(self.expected_id(place)) as i16;
            offsets[0] = offset(ID, i32::from(id));
        }
        let is_tcp = self.profile == Profile::Tcp;
        let raw = is_tcp && !(p.is_plain() && p.stamps.is_some() == self.stamps.is_some());
        if is_tcp {
            let seq = long(packet, ip + 4).wrapping_sub(self.expected_seq(place));
            let ack = long(packet, ip + 8).wrapping_sub(long(base, ip + 8));
            offsets[1] = offset(SEQ, seq as i32);
            offsets[2] = offset(ACK, ack as i32);
            if let (false, Some((value, echo)), Some((v, e))) = (raw, p.stamps, self.stamps) {
                let value = value.wrapping_sub(self.expected_stamp(v, place));
                let echo = echo.wrapping_sub(self.expected_stamp(e, place));
                offsets[3] = offset(STAMP_VALUE, value as i32);
                offsets[4] = offset(STAMP_ECHO, echo as i32);
            }
        }
        let differs = |at: usize, len: usize| packet[at..at + len] != base[at..at + len];
        let on = |yes: bool, bit: u16| if yes { bit } else { 0 };
        mask |= on(is_tcp && differs(ip + 13, 1), FLAGS)
            | on(is_tcp && differs(ip + 14, 2), WINDOW)
            | on(tos(packet, ip) != tos(base, ip), TOS)
            | on(differs(ttl_at(ip), 1), TTL)
            | on(raw, OPTIONS)
            | on(marks.release != 0, RELEASE);

        head.len = SQUEEZED_AT;
        head.skip = p.header;
        head.put(&[marks.generation]);
        head.put(&mask.to_be_bytes());
        match self.profile {
            Profile::Tcp if !marks.begun => head.put(&packet[ip + 16..ip + 18]),
            Profile::Udp if !marks.begun => head.put(&packet[ip + 6..ip + 8]),
            Profile::Tcp | Profile::Udp | Profile::Ip => {}
        }
        for (value, width) in offsets {
            head.put(&value.to_be_bytes()[4 - bytes_of(width)..]);
        }
        if mask & FLAGS != 0 {
            head.put(&packet[ip + 13..ip + 14]);
        }
        if mask & WINDOW != 0 {
            head.put(&packet[ip + 14..ip + 16]);
        }
        if mask & TOS != 0 {
            head.put(&[tos(packet, ip)]);
        }
        if mask & TTL != 0 {
            head.put(&packet[ttl_at(ip)..=ttl_at(ip)]);
        }
        if mask & OPTIONS != 0 {
            head.put(&[p.options.len() as u8]);
            head.put(p.options);
        }
        if mask & RELEASE != 0 {
            head.put(&[marks.release]);
        }
        true
    }

    /// Makes a header whole again. `rest` is what follows the generation in the frame; `begun` tells that the checksum
    /// is not in it.
    ///
    /// # Errors
    /// When the bytes are not a header that refers to this one.
    pub fn restore(&self, place: Place, begun: bool, rest: &[u8]) -> Result<Restored, FrameError> {
        let mut r = Reader::new(rest);
        let mask = r.u16()?;
        let (ip, is_tcp) = (self.ip, self.profile == Profile::Tcp);
        let is_ip = self.profile == Profile::Ip;
        if !is_tcp && mask & TCP_ONLY != 0 || ip == IP6 && mask & WIDTH_BITS != 0 || is_ip && begun
        {
            return Err(FrameError::Invalid);
        }
        let mut bytes = [0; RESTORED_MAX];
        let mut len = Self::head_len(ip, self.profile);
        bytes[..len].copy_from_slice(&self.head[..len]);
        let check = if is_ip || begun { 0 } else { r.u16()? };
        let mut offset = |bit: u16| match mask >> bit & WIDTH_BITS {
            0 => Ok(0),
            1 => r.u8().map(|v| v as i8 as u32),
            2 => r.u16().map(|v| v as i16 as u32),
            _ => r.u32(),
        };
        let id = offset(ID)? as u16;
        let (seq, ack) = (offset(SEQ)?, offset(ACK)?);
        let (value, echo) = (offset(STAMP_VALUE)?, offset(STAMP_ECHO)?);
        if is_tcp {
            set_long(
                &mut bytes,
                ip + 4,
                self.expected_seq(place).wrapping_add(seq),
            );
            set_long(
                &mut bytes,
                ip + 8,
                long(&self.head, ip + 8).wrapping_add(ack),
            );
        }
        if mask & FLAGS != 0 {
            bytes[ip + 13] = r.u8()?;
        }
        if mask & WINDOW != 0 {
            set_word(&mut bytes, ip + 14, r.u16()?);
        }
        if mask & TOS != 0 {
            set_tos(&mut bytes, ip, r.u8()?);
        }
        if mask & TTL != 0 {
            bytes[ttl_at(ip)] = r.u8()?;
        }
        if mask & OPTIONS != 0 {
            let n = usize::from(r.u8()?);
            if n > 40 || !n.is_multiple_of(4) {
                return Err(FrameError::Invalid);
            }
            bytes[len..len + n].copy_from_slice(r.take(n)?);
            len += n;
        } else if let Some((v, e)) = self.stamps {
            bytes[len..len + 4].copy_from_slice(&STAMPS);
            set_long(
                &mut bytes,
                len + 4,
                self.expected_stamp(v, place).wrapping_add(value),
            );
            set_long(
                &mut bytes,
                len + 8,
                self.expected_stamp(e, place).wrapping_add(echo),
            );
            len += STAMPS_LEN;
        }
        let release = if mask & RELEASE != 0 { r.u8()? } else { 0 };
        let read = rest.len() - r.rest().len();
        let whole = u16::try_from(len + r.rest().len()).map_err(|_| FrameError::Invalid)?;
        let check = if begun {
            let (v4, protocol) = if ip == IP4 {
                (true, bytes[9])
            } else {
                (false, bytes[6])
            };
            begun_checksum(&bytes, v4, protocol, whole - ip as u16)
        } else {
            check
        };
        match self.profile {
            Profile::Tcp => {
                set_word(&mut bytes, ip + 16, check);
                bytes[ip + 12] = bytes[ip + 12] & 0x0f | (((len - ip) / 4) << 4) as u8;
            }
            Profile::Udp => {
                set_word(&mut bytes, ip + 4, whole - ip as u16);
                set_word(&mut bytes, ip + 6, check);
            }
            Profile::Ip => {}
        }
        if ip == IP4 {
            set_word(&mut bytes, 2, whole);
            set_word(&mut bytes, 4, self.expected_id(place).wrapping_add(id));
            let sum = checksum(&bytes);
            set_word(&mut bytes, 10, sum);
        } else {
            set_word(&mut bytes, 4, whole - IP6 as u16);
        }
        Ok(Restored {
            bytes,
            len,
            read,
            release,
        })
    }
}

fn width_of(value: i32) -> u8 {
    if value == 0 {
        0
    } else if i8::try_from(value).is_ok() {
        1
    } else if i16::try_from(value).is_ok() {
        2
    } else {
        3
    }
}

fn bytes_of(width: u8) -> usize {
    [0, 1, 2, 4][usize::from(width)]
}
