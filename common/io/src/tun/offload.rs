//! Cutting the kernel's super-packets apart, and joining packets into super-packets.
//!
//! A TUN device opened with a virtio header hands over what the kernel's TCP made:
//! up to 64 KiB with one set of headers, a segment size, and a checksum that is
//! only begun. [`split`] does what a network card would do: repeats the headers,
//! counts sequence numbers and IPv4 identifications up, keeps FIN and PSH for the
//! last piece and CWR for the first. The checksums stay begun, and the packets say
//! so ([`marline_proto::checksum`]); those of packets that do not come from this
//! kernel or through a card that looked are whole.
//!
//! In the other direction [`Joiner`] does what a card's receive side would do: it
//! puts runs of one flow's packets together behind one set of headers, so that one
//! write, one pass through the kernel's stack and one wake-up of the application
//! serve the whole run. The rules are those of the kernel's own joining: same
//! addresses, ports, traffic class, TTL, flags, acknowledgement, window and
//! options; sequence numbers without a gap; all of one size but the last; PSH ends
//! a run. The kernel takes a joined packet's checksum as good without looking, so
//! each packet's own, unless it is only begun, is verified before it joins: what
//! arrived damaged at the far TUN must not be whitewashed here. A packet that stays
//! alone is not touched; the kernel is told when its checksum is only begun.
//!
//! Nothing waits: the caller flushes when it has no more packets at the moment.

use marline_proto::checksum::{self, Position, fold, pseudo_sum, sum_of};
use marline_proto::{PacketBuf, buffer::CAPACITY};

/// Bytes of the virtio header in front of every packet on the TUN.
pub const HEADER_LEN: usize = 10;

/// Bytes that one read from the TUN may give: the header and the largest IP packet.
pub const FRAME_MAX: usize = HEADER_LEN + 65_535;

/// Packets that may be joined into one; older kernels split UDP into no more than this.
pub const RUN_MAX: usize = 64;

/// Flows that are joined side by side; a ninth sends the others off first.
const RUNS: usize = 8;

const FLAG_NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

const TCP: u8 = 6;
const UDP: u8 = 17;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// Why a frame from the TUN was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// It is shorter than its headers say, or the virtio header points outside of it.
    Malformed,
    /// A single packet is longer than our buffers: the TUN's MTU was raised from outside.
    TooLong,
}

/// The virtio header (`struct virtio_net_hdr`), in the machine's byte order as the TUN wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    segment_len: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl VirtioHeader {
    fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        VirtioHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            header_len: number(2),
            segment_len: number(4),
            checksum_start: number(6),
            checksum_offset: number(8),
        }
    }

    fn write(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_len.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

/// Where split packets go to.
pub trait Sink {
    /// An empty buffer.
    fn take(&mut self) -> PacketBuf;
    /// The next packet, in a buffer that was taken.
    fn give(&mut self, packet: PacketBuf);
}

/// Takes apart one frame from the TUN (virtio header and packet) and gives `sink` the packets in
/// order, with checksums that are whole or usual and begun. Of a frame that is refused it gets nothing.
pub fn split(frame: &[u8], sink: &mut impl Sink) -> Result<(), SplitError> {
    let (header, packet) = frame
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(SplitError::Malformed)?;
    let header = VirtioHeader::read(header);
    if packet.is_empty() {
        return Err(SplitError::Malformed);
    }
    if header.gso_type & !GSO_ECN == GSO_NONE {
        if packet.len() > CAPACITY {
            return Err(SplitError::TooLong);
        }
        let begun = match header.flags & FLAG_NEEDS_CHECKSUM {
            0 => None,
            _ => Some(checksum_position(packet, &header).ok_or(SplitError::Malformed)?),
        };
        let mut buf = sink.take();
        buf.room()[..packet.len()].copy_from_slice(packet);
        buf.set_len(packet.len());
        match begun {
            Some((start, at)) if is_usually_begun(packet, start, at) => buf.set_begun(),
            Some((start, at)) => checksum::complete_at(buf.bytes_mut(), start, at),
            None => {}
        }
        sink.give(buf);
        return Ok(());
    }
    let super_packet = SuperPacket::read(&header, packet)?;
    if super_packet.headers_len + super_packet.segment_len > CAPACITY {
        return Err(SplitError::TooLong);
    }
    for number in 0..super_packet.segments() {
        let mut buf = sink.take();
        let len = super_packet.write_segment(number, buf.room());
        buf.set_len(len);
        if checksum::position(buf.bytes()).is_some() {
            buf.set_begun();
        } else {
            let at = super_packet.transport + super_packet.checksum_offset();
            checksum::complete_at(buf.bytes_mut(), super_packet.transport, at);
        }
        sink.give(buf);
    }
    Ok(())
}

/// Where the checksum that is only begun starts to count, and where it stands.
fn checksum_position(packet: &[u8], header: &VirtioHeader) -> Option<(usize, usize)> {
    let start = usize::from(header.checksum_start);
    let at = start + usize::from(header.checksum_offset);
    (at + 2 <= packet.len()).then_some((start, at))
}

/// Whether a checksum that is begun at this place is what [`checksum::begun`] says.
fn is_usually_begun(packet: &[u8], start: usize, at: usize) -> bool {
    checksum::position(packet)
        == Some(Position {
            start,
            offset: at - start,
        })
        && {
            let v4 = start == 20;
            let protocol = packet[if v4 { 9 } else { 6 }];
            let sum = checksum::begun(packet, v4, protocol, (packet.len() - start) as u16);
            be16(packet, at) == sum
        }
}

/// A super-packet with its parts found and checked.
struct SuperPacket<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    /// Where the TCP or UDP header begins.
    transport: usize,
    headers_len: usize,
    segment_len: usize,
    v4: bool,
    protocol: u8,
}

impl<'a> SuperPacket<'a> {
    fn read(header: &VirtioHeader, packet: &'a [u8]) -> Result<Self, SplitError> {
        let v4 = packet[0] >> 4 == 4;
        let transport = usize::from(header.checksum_start);
        let ip_len = if v4 { 20 } else { 40 };
        let protocol = match header.gso_type & !GSO_ECN {
            GSO_TCPV4 if v4 => TCP,
            GSO_TCPV6 if !v4 => TCP,
            GSO_UDP => UDP,
            _ => return Err(SplitError::Malformed),
        };
        // Without a begun checksum there is no hint where the transport header begins; the kernel
        // never leaves it out of a super-packet.
        if header.flags & FLAG_NEEDS_CHECKSUM == 0
            || transport < ip_len
            || header.segment_len == 0
            || (v4 && transport != usize::from(packet[0] & 0x0f) * 4)
            || (!v4 && packet[0] >> 4 != 6)
        {
            return Err(SplitError::Malformed);
        }
        let headers_len = transport
            + match protocol {
                UDP => 8,
                _ => {
                    usize::from(*packet.get(transport + 12).ok_or(SplitError::Malformed)? >> 4) * 4
                }
            };
        if headers_len > packet.len()
            || headers_len < transport + if protocol == UDP { 8 } else { 20 }
        {
            return Err(SplitError::Malformed);
        }
        let (headers, payload) = packet.split_at(headers_len);
        Ok(SuperPacket {
            headers,
            payload,
            transport,
            headers_len,
            segment_len: usize::from(header.segment_len),
            v4,
            protocol,
        })
    }

    /// Where the checksum stands in the transport header.
    fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    fn segments(&self) -> usize {
        self.payload.len().div_ceil(self.segment_len).max(1)
    }

    /// Writes the segment with this number, counted from zero, with a begun checksum, and returns its length.
    fn write_segment(&self, number: usize, out: &mut [u8]) -> usize {
        let from = number * self.segment_len;
        let to = (from + self.segment_len).min(self.payload.len());
        let (first, last) = (number == 0, to == self.payload.len());
        let payload = &self.payload[from..to];
        let len = self.headers_len + payload.len();
        out[..self.headers_len].copy_from_slice(self.headers);
        out[self.headers_len..len].copy_from_slice(payload);
        let packet = &mut out[..len];

        set_ip_length(packet, self.v4);
        if self.v4 {
            let id = be16(self.headers, 4).wrapping_add(number as u16);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            set_ipv4_checksum(packet, self.transport);
        }
        let transport_len = (len - self.transport) as u16;
        let sum = checksum::begun(packet, self.v4, self.protocol, transport_len);
        let header = &mut packet[self.transport..];
        if self.protocol == TCP {
            let seq = be32(header, 4).wrapping_add(from as u32);
            header[4..8].copy_from_slice(&seq.to_be_bytes());
            if !first {
                header[13] &= !CWR;
            }
            if !last {
                header[13] &= !(FIN | PSH);
            }
        } else {
            header[4..6].copy_from_slice(&transport_len.to_be_bytes());
        }
        let at = self.checksum_offset();
        header[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        len
    }
}

/// One frame for the TUN: what is to be written is `header`, the first packet, and of every
/// further packet what comes after its first `skip` bytes.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The virtio header.
    pub header: [u8; HEADER_LEN],
    /// The packets, at least one. They are the receiver's to take out.
    pub packets: &'a mut Vec<PacketBuf>,
    /// The bytes of headers that the further packets have in common with the first.
    pub skip: usize,
}

/// Joins runs of packets, several flows side by side.
#[derive(Debug)]
pub struct Joiner {
    /// All [`RUNS`] of them; the first `used` hold packets. The rest keep their memory for reuse.
    runs: Vec<Run>,
    used: usize,
    udp: bool,
}

/// What a packet that may join others looks like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    v4: bool,
    protocol: u8,
    /// Where the TCP or UDP header begins.
    transport: usize,
    /// Where the payload begins.
    payload: usize,
}

#[derive(Debug, Default)]
struct Run {
    packets: Vec<PacketBuf>,
    /// `None`: the first packet stays alone.
    shape: Option<Shape>,
    /// Bytes of payload in each packet but the last.
    segment_len: usize,
    /// Bytes of the joined IP packet.
    len: usize,
    /// Nothing may follow any more.
    closed: bool,
}

impl Joiner {
    /// A joiner; `udp` tells whether the TUN takes joined UDP packets.
    pub fn new(udp: bool) -> Self {
        Joiner {
            runs: (0..RUNS).map(|_| Run::default()).collect(),
            used: 0,
            udp,
        }
    }

    /// Takes the next packet. Frames that cannot grow any more, or must not be overtaken by this
    /// packet, go to `write`.
    pub fn push(&mut self, packet: PacketBuf, mut write: impl FnMut(Frame<'_>)) {
        let shape = self.shape_of(packet.bytes(), packet.is_begun());
        let same_flow = self.runs[..self.used].iter().position(|run| {
            run.packets
                .first()
                .is_some_and(|first| same_flow(first.bytes(), packet.bytes()))
        });
        match same_flow {
            Some(at) => {
                let run = &mut self.runs[at];
                if shape.is_some_and(|shape| run.accepts(shape, &packet)) {
                    run.append(packet);
                    return;
                }
                // Within a flow nothing overtakes.
                run.finish(&mut write);
                run.start(packet, shape);
            }
            None => {
                if self.used == RUNS {
                    self.flush(&mut write);
                }
                self.runs[self.used].start(packet, shape);
                self.used += 1;
            }
        }
    }

    /// Sends off everything: there are no more packets at the moment.
    pub fn flush(&mut self, mut write: impl FnMut(Frame<'_>)) {
        for run in &mut self.runs[..self.used] {
            run.finish(&mut write);
        }
        self.used = 0;
    }

    /// The packet's shape, if it is of a kind that can be joined at all.
    fn shape_of(&self, packet: &[u8], begun: bool) -> Option<Shape> {
        let shape = match packet.first()? >> 4 {
            // No options, no fragments, as long as it says.
            4 if packet.len() >= 28
                && packet[0] == 0x45
                && be16(packet, 6) & 0x3fff == 0
                && usize::from(be16(packet, 2)) == packet.len() =>
            {
                Shape {
                    v4: true,
                    protocol: packet[9],
                    transport: 20,
                    payload: 28,
                }
            }
            // No extension headers.
            6 if packet.len() >= 48 && usize::from(be16(packet, 4)) + 40 == packet.len() => Shape {
                v4: false,
                protocol: packet[6],
                transport: 40,
                payload: 48,
            },
            _ => return None,
        };
        let header = &packet[shape.transport..];
        let payload = match shape.protocol {
            TCP if header.len() >= 20 => {
                let plain = header[13] & (ACK | SYN | RST | FIN | URG | CWR) == ACK;
                let len = usize::from(header[12] >> 4) * 4;
                if !plain || len < 20 {
                    return None;
                }
                shape.transport + len
            }
            UDP if self.udp
                && usize::from(be16(header, 4)) == header.len()
                && (begun || be16(header, 6) != 0) =>
            {
                shape.payload
            }
            _ => return None,
        };
        (payload < packet.len()).then_some(Shape { payload, ..shape })
    }
}

impl Run {
    fn start(&mut self, packet: PacketBuf, shape: Option<Shape>) {
        self.len = packet.len();
        self.closed = false;
        if let Some(shape) = shape {
            self.segment_len = packet.len() - shape.payload;
            self.closed = shape.protocol == TCP && ends_run(packet.bytes(), shape);
        }
        self.shape = shape;
        self.packets.push(packet);
    }

    /// Whether `packet`, of the same flow and of `shape`, continues this run.
    fn accepts(&self, shape: Shape, packet: &PacketBuf) -> bool {
        let Some(ours) = self.shape else { return false };
        let Some(first) = self.packets.first() else {
            return false;
        };
        let begun = first.is_begun();
        let alike = begun == packet.is_begun();
        let (first, packet) = (first.bytes(), packet.bytes());
        let payload_len = packet.len() - shape.payload;
        let count = self.packets.len();
        if self.closed
            || !alike
            || count == RUN_MAX
            || ours.payload != shape.payload
            || payload_len > self.segment_len
            || self.len + payload_len > 65_535
        {
            return false;
        }
        let ip_alike = if shape.v4 {
            let unnumbered = first[6] & 0x40 != 0; // "don't fragment": the number means nothing
            let next_id = be16(first, 4).wrapping_add(count as u16);
            first[1] == packet[1] // traffic class
                && first[6..9] == packet[6..9] // flags, TTL
                && (unnumbered || be16(packet, 4) == next_id)
        } else {
            first[..4] == packet[..4] && first[7] == packet[7] // class and label, hop limit
        };
        let (a, b) = (
            &first[shape.transport..shape.payload],
            &packet[shape.transport..shape.payload],
        );
        let transport_alike = shape.protocol == UDP || {
            let gone_before = (count * self.segment_len) as u32;
            be32(b, 4) == be32(a, 4).wrapping_add(gone_before)
                && a[8..13] == b[8..13] // acknowledgement, header length
                && a[13] | PSH == b[13] | PSH
                && a[14..16] == b[14..16] // window
                && a[18..] == b[18..] // urgent pointer, options
        };
        ip_alike
            && transport_alike
            && (count > 1 || checksums_are_right(first, ours, begun))
            && checksums_are_right(packet, shape, begun)
    }

    fn append(&mut self, packet: PacketBuf) {
        let shape = self.shape.expect("only a run with a shape accepts packets");
        let payload_len = packet.len() - shape.payload;
        self.len += payload_len;
        self.closed = payload_len < self.segment_len
            || (shape.protocol == TCP && ends_run(packet.bytes(), shape));
        self.packets.push(packet);
    }

    /// Hands over the packets as one frame.
    fn finish(&mut self, write: &mut impl FnMut(Frame<'_>)) {
        let mut header = VirtioHeader::default();
        let mut skip = 0;
        if let (Some(shape), [first, .., last]) = (self.shape, &mut self.packets[..]) {
            skip = shape.payload;
            let pushed = shape.protocol == TCP && last.bytes()[shape.transport + 13] & PSH != 0;
            header = join_headers(first.bytes_mut(), shape, self.len, pushed);
            header.segment_len = self.segment_len as u16;
        } else if let Some(packet) = self.packets.first().filter(|packet| packet.is_begun())
            && let Some(Position { start, offset }) = checksum::position(packet.bytes())
        {
            header.flags = FLAG_NEEDS_CHECKSUM;
            header.checksum_start = start as u16;
            header.checksum_offset = offset as u16;
        }
        write(Frame {
            header: header.write(),
            packets: &mut self.packets,
            skip,
        });
        self.packets.clear();
        self.shape = None;
    }
}

/// Turns the first packet's headers into those of the joined packet of `len` bytes.
fn join_headers(first: &mut [u8], shape: Shape, len: usize, pushed: bool) -> VirtioHeader {
    let transport_len = (len - shape.transport) as u16;
    let (gso_type, checksum_at) = match (shape.protocol, shape.v4) {
        (UDP, _) => (GSO_UDP, 6),
        (_, true) => (GSO_TCPV4, 16),
        (_, false) => (GSO_TCPV6, 16),
    };
    if shape.v4 {
        first[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        set_ipv4_checksum(first, shape.transport);
    } else {
        first[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
    let pseudo = checksum::begun(first, shape.v4, shape.protocol, transport_len);
    let header = &mut first[shape.transport..];
    if shape.protocol == UDP {
        header[4..6].copy_from_slice(&transport_len.to_be_bytes());
    } else if pushed {
        header[13] |= PSH;
    }
    header[checksum_at..checksum_at + 2].copy_from_slice(&pseudo.to_be_bytes());
    VirtioHeader {
        flags: FLAG_NEEDS_CHECKSUM,
        gso_type,
        header_len: shape.payload as u16,
        segment_len: 0,
        checksum_start: shape.transport as u16,
        checksum_offset: checksum_at as u16,
    }
}

/// Whether two packets belong to one flow, as far as the order of writing is concerned.
///
/// Packets without ports (fragments, other protocols) are one flow per pair of addresses and
/// protocol.
fn same_flow(a: &[u8], b: &[u8]) -> bool {
    match (
        a.first().map(|byte| byte >> 4),
        b.first().map(|byte| byte >> 4),
    ) {
        (Some(4), Some(4)) if a.len() >= 20 && b.len() >= 20 => {
            a[9] == b[9]
                && a[12..20] == b[12..20]
                && same_ports(a, b, 20, a[0] == 0x45 && b[0] == 0x45)
        }
        (Some(6), Some(6)) if a.len() >= 40 && b.len() >= 40 => {
            a[6] == b[6] && a[8..40] == b[8..40] && same_ports(a, b, 40, true)
        }
        // What is no IP packet keeps its place among its like.
        (Some(4 | 6), _) | (_, Some(4 | 6)) => false,
        _ => true,
    }
}

fn same_ports(a: &[u8], b: &[u8], at: usize, plain: bool) -> bool {
    let protocol = if at == 20 { a[9] } else { a[6] };
    let fragment = at == 20 && (be16(a, 6) | be16(b, 6)) & 0x3fff != 0;
    if !plain || fragment || !matches!(protocol, TCP | UDP) {
        return true;
    }
    match (a.get(at..at + 4), b.get(at..at + 4)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

fn ends_run(packet: &[u8], shape: Shape) -> bool {
    packet[shape.transport + 13] & PSH != 0
}

/// Whether the packet's own checksums, IP's and the transport's unless it is only begun, are right.
fn checksums_are_right(packet: &[u8], shape: Shape, begun: bool) -> bool {
    if shape.v4 && fold(sum_of(&packet[..shape.transport])) != 0xffff {
        return false;
    }
    if begun {
        return true;
    }
    let transport = &packet[shape.transport..];
    let pseudo = pseudo_sum(packet, shape.v4, shape.protocol, transport.len() as u16);
    fold(pseudo + sum_of(transport)) == 0xffff
}

fn set_ip_length(packet: &mut [u8], v4: bool) {
    let len = packet.len();
    if v4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
}

fn set_ipv4_checksum(packet: &mut [u8], header_len: usize) {
    packet[10..12].fill(0);
    let sum = !fold(sum_of(&packet[..header_len]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(crate) mod tests;
