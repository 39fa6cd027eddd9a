//! Buffers that packets travel in, from the TUN to the wire and back.
//!
//! A packet is copied once when it is read and once when it is sealed or opened,
//! and never in between: the buffer leaves room in front for our frame header,
//! so a frame is made by writing into that room, and taken apart by moving the
//! start forward.

/// Bytes kept free in front of a packet: our frame header ([`crate::frame::HEADER_LEN`]).
pub const HEADROOM: usize = 20;

/// Bytes a pooled buffer can hold behind its headroom. A 1,500-byte datagram's
/// content fits, and so does the largest packet a jumbo-free link carries.
pub const CAPACITY: usize = 2048 - HEADROOM;

/// One packet with room in front of it.
#[derive(Clone)]
pub struct PacketBuf {
    data: Vec<u8>,
    start: usize,
    end: usize,
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
            data: vec![0; HEADROOM + CAPACITY],
            start: HEADROOM,
            end: HEADROOM,
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

    /// The room that a reader may write a packet into; call [`Self::set_len`] afterwards.
    pub fn room(&mut self) -> &mut [u8] {
        self.start = HEADROOM;
        self.end = HEADROOM;
        &mut self.data[HEADROOM..]
    }

    /// Declares that the first `len` bytes of [`Self::room`] are the packet.
    ///
    /// # Panics
    /// If `len` is larger than the room.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            HEADROOM + len <= self.data.len(),
            "a packet never exceeds its buffer"
        );
        self.start = HEADROOM;
        self.end = HEADROOM + len;
    }

    /// The 20 bytes in front of the packet, for a frame header.
    pub fn header_room(&mut self) -> &mut [u8; HEADROOM] {
        debug_assert_eq!(
            self.start, HEADROOM,
            "the packet starts behind its headroom"
        );
        (&mut self.data[..HEADROOM])
            .try_into()
            .expect("every buffer has its headroom")
    }

    /// Header and packet as one run of bytes.
    pub fn framed(&self) -> &[u8] {
        &self.data[..self.end]
    }

    /// The whole buffer, for a frame that is opened into it; call
    /// [`Self::set_len`] with the length of the packet behind the header.
    pub fn frame_room(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Replaces the packet by a copy of `packet`, growing when it must.
    pub fn fill_from(&mut self, packet: &[u8]) {
        if self.data.len() < HEADROOM + packet.len() {
            self.data.resize(HEADROOM + packet.len(), 0);
        }
        self.data[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
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
        if self.free.len() < Self::KEEP && buf.data.len() == HEADROOM + CAPACITY {
            buf.set_len(0);
            self.free.push(buf);
        }
    }
}
