//! Buffers that packets travel in, from the TUN to the wire and back.
//!
//! A packet is copied once when it is read and once when it is sealed or opened,
//! and never in between: the buffer leaves room in front for our frame header,
//! so a frame is made by writing into that room, and taken apart by moving the
//! start. What is opened lies a little further back still, since a header that
//! travelled squeezed ([`crate::squeeze`]) is longer when it is whole again.

use crate::checksum;

/// Bytes kept free in front of a packet: our frame header ([`crate::frame::HEADER_LEN`]).
pub const HEADROOM: usize = 20;

/// Bytes in front of an opened frame: by this much at most a squeezed header grows.
pub const LEAD: usize = 64;

/// Bytes a pooled buffer can hold behind its headroom. A 1,500-byte datagram's
/// content fits, and so does the largest packet a jumbo-free link carries.
pub const CAPACITY: usize = 2048 - HEADROOM;

/// The longest head that [`PacketBuf::with_head`] puts in place of another.
const KEPT: usize = 96;

/// Where a packet begins that was not squeezed.
const FRONT: usize = LEAD + HEADROOM;

/// One packet with room in front of it.
#[derive(Clone)]
pub struct PacketBuf {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// The checksum is only begun ([`crate::checksum`]).
    begun: bool,
}

impl Default for PacketBuf {
    fn default() -> Self {
        PacketBuf::new()
    }
}

impl PacketBuf {
    /// An empty buffer with [`HEADROOM`] in front and [`CAPACITY`] behind.
    pub fn new() -> Self {
        PacketBuf {
            data: vec![0; FRONT + CAPACITY],
            start: FRONT,
            end: FRONT,
            begun: false,
        }
    }

    /// A buffer that holds a copy of `packet`; for tests and rare paths.
    pub fn copy_of(packet: &[u8]) -> Self {
        let mut buf = PacketBuf::new();
        buf.fill_from(packet);
        buf
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The packet, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// The packet's length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no packet in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the packet's TCP or UDP checksum is only begun ([`crate::checksum`]).
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// Declares that the checksum is only begun; that of a new packet is whole.
    pub fn set_begun(&mut self) {
        self.begun = true;
    }

    /// Finishes the checksum if it is only begun.
    pub fn complete(&mut self) {
        if std::mem::take(&mut self.begun) {
            checksum::complete(self.bytes_mut());
        }
    }

    /// The room that a reader may write a packet into; call [`Self::set_len`] afterwards.
    pub fn room(&mut self) -> &mut [u8] {
        self.start = FRONT;
        self.end = FRONT;
        &mut self.data[FRONT..]
    }

    /// Declares that the first `len` bytes of [`Self::room`] are the packet.
    ///
    /// # Panics
    /// If `len` is larger than the room.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            FRONT + len <= self.data.len(),
            "a packet never exceeds its buffer"
        );
        self.start = FRONT;
        self.end = FRONT + len;
        self.begun = false;
    }

    /// Bytes of room behind the packet.
    pub fn room_behind(&self) -> usize {
        self.data.len() - self.end
    }

    /// Seals nothing itself, but lends a frame to be sealed: `head` stands in for the first `skip` bytes of the
    /// packet, `pad` zeros follow it, and the packet is as it was when `seal` returns.
    ///
    /// # Panics
    /// If `head` is longer than what it stands in for and the room in front, `skip` than the packet, or `pad` than
    /// [`Self::room_behind`].
    pub fn with_head<T>(
        &mut self,
        head: &[u8],
        skip: usize,
        pad: usize,
        seal: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let payload = self.start + skip;
        let padded = self.end + pad;
        let at = payload - head.len();
        assert!(payload <= self.end, "no more is skipped than there is");
        let mut kept = [0; KEPT];
        let kept = &mut kept[..head.len()];
        kept.copy_from_slice(&self.data[at..payload]);
        self.data[at..payload].copy_from_slice(head);
        // Nobody reads what lay there.
        self.data[self.end..padded].fill(0);
        let sealed = seal(&self.data[at..padded]);
        self.data[at..payload].copy_from_slice(kept);
        sealed
    }

    /// The room that a frame is opened into; call [`Self::set_content`] afterwards.
    pub fn frame_room(&mut self) -> &mut [u8] {
        &mut self.data[LEAD..]
    }

    /// Declares the packet: `head`, and then what lies from `from` to `to` in [`Self::frame_room`].
    ///
    /// # Panics
    /// If `head` is by more than [`LEAD`] longer than `from`, or `to` is outside.
    pub fn set_content(&mut self, head: &[u8], from: usize, to: usize) {
        let payload = LEAD + from;
        assert!(
            from <= to && LEAD + to <= self.data.len(),
            "content lies in the room that it was opened into"
        );
        self.start = payload - head.len();
        self.end = LEAD + to;
        self.begun = false;
        self.data[self.start..payload].copy_from_slice(head);
    }

    /// Replaces the packet by a copy of `packet`, growing when it must.
    pub fn fill_from(&mut self, packet: &[u8]) {
        if self.data.len() < FRONT + packet.len() {
            self.data.resize(FRONT + packet.len(), 0);
        }
        self.data[FRONT..FRONT + packet.len()].copy_from_slice(packet);
        self.set_len(packet.len());
    }
}

impl std::fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PacketBuf({} bytes)", self.len())
    }
}

/// A stack of buffers to borrow from, so that the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<PacketBuf>,
}

impl Pool {
    /// Buffers kept for reuse; what comes back beyond this is freed (16 MiB).
    const KEEP: usize = 8192;

    /// An empty buffer.
    pub fn take(&mut self) -> PacketBuf {
        self.free.pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn put(&mut self, mut buf: PacketBuf) {
        if self.free.len() < Self::KEEP && buf.data.len() == FRONT + CAPACITY {
            buf.set_len(0);
            self.free.push(buf);
        }
    }
}
