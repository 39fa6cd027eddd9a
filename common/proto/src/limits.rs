//! Every bound of the core, with its reason.

use std::time::Duration;

/// Flows a bond remembers. The slot number travels in 16 bits; 16,384 flows at
/// once is far above what one client has, and bounds the table at a few MiB.
pub const FLOWS: usize = 16_384;
/// A flow slot is given to another flow only after this long without a packet,
/// so that copies of the old one have left the paths.
pub const FLOW_IDLE: Duration = Duration::from_secs(10);
/// Entries for which a list keeps room while its bond is idle: keepalives and handshakes need no more.
pub const IDLE_ENTRIES: usize = 4;

/// Flows that a picture shows at most: a screen full; all others together rarely carry as much.
pub const FLOWS_SHOWN: usize = 32;

/// Flow slots whose headers are squeezed; more flows than this at once are rare, and each costs the receiver 500 bytes.
pub const SQUEEZED_FLOWS: usize = 4_096;

/// Bytes that may wait for a path, over all flows of a bond: 150 ms at 400 Mbit/s.
pub const QUEUE_BYTES: usize = 8 << 20;
/// Bytes of one flow that may wait: half, so that one flow cannot push out all others.
pub const FLOW_QUEUE_BYTES: usize = 4 << 20;
/// A realtime packet that waited longer is of no use to anyone: with a usual way of up to 50 ms it would be 200 ms
/// old, and a call's buffer holds less.
pub const REALTIME_EXPIRY: Duration = Duration::from_millis(150);
/// After this wait a sender has long sent it again itself, unless nothing could pass.
pub const BULK_EXPIRY: Duration = Duration::from_millis(1_000);

/// Packets held back until they are in order, per flow: 150 ms at 650 Mbit/s.
pub const HELD_PACKETS_PER_FLOW: usize = 8_192;
/// Packets held back over all flows of a bond.
pub const HELD_PACKETS: usize = 16_384;
/// Longest time a packet is held. Linux retransmits no earlier than 200 ms after the smoothed round trip (RFC 6298 with
/// its minimum), and the wait begins when a later packet is there: below that a hold never causes a timeout. Where the
/// round trip is long and packets are lost every millisecond of it counts, or repairs come too late.
pub const HOLD_MAX: Duration = Duration::from_millis(190);
/// How far apart the paths of one set may lie; a path whose delay is further behind the best is not used beside it. Packets
/// are held no longer than [`HOLD_MAX`], and what is left of that is for repairs and jitter.
pub const SPREAD_MAX: Duration = Duration::from_millis(150);

/// No network may keep a packet for longer (the maximum segment lifetime of RFC 9293): a sequence number could come
/// round again.
pub const PACKET_LIFE: Duration = Duration::from_secs(120);

/// Datagrams in flight that a path remembers: 200 ms at 2 Gbit/s.
pub const INFLIGHT_DATAGRAMS: usize = 32_768;
/// Received counters a path can report on; boringtun's replay window.
pub const RECEIVE_WINDOW: u64 = 1_024;

/// Halves of packets that wait for their other half, over all paths: as many as a path's replay window can separate,
/// so one path alone never loses one for want of room.
pub const HALVES: usize = RECEIVE_WINDOW as usize;

/// Packets waiting to be sent again.
pub const RETRANSMITS: usize = 16_384;
/// Copies of a packet that are sent at most, the first included.
pub const COPIES_MAX: u8 = 6;
/// A packet older than this is not sent again. Time in which nothing could pass counts for none whose sender is patient.
pub const RETRANSMIT_AGE_MAX: Duration = Duration::from_millis(2_000);

/// Paths of one bond. The tag has 8 bits; an ack has room for 16 sessions.
pub const PATHS: usize = 8;
/// Control frames that may wait on one path: the answers to a whole train of pings among them.
pub const CONTROL_FRAMES: usize = 96;
/// News that wait for the driver.
pub const EVENTS: usize = 1_024;

/// Half-open paths (handshake answered, nothing authenticated yet) of one peer.
pub const HALF_OPEN_PER_PEER: usize = 4;
/// How long a half-open path lives.
pub const HALF_OPEN_AGE: Duration = Duration::from_secs(5);

/// Workers of one server, at most: their numbers take four bits of a session index. The 20 that are left name a million
/// sessions each.
pub const WORKERS: usize = 1 << WORKER_BITS;
/// Bits of a session index that say whose it is.
pub const WORKER_BITS: u32 = 4;
/// Packets and datagrams that may wait for other workers: in the core as many, and as many between two loops. It is what
/// the TUN's own queue holds, out of which most of them come.
pub const HANDOVERS: usize = 1_024;

const _: () = assert!(FLOW_QUEUE_BYTES < QUEUE_BYTES);
const _: () = assert!(HELD_PACKETS_PER_FLOW < HELD_PACKETS);
const _: () = assert!(FLOWS <= 1 << 16);
const _: () = assert!(SQUEEZED_FLOWS <= FLOWS);
const _: () = assert!(HOLD_MAX.as_millis() < 200);
const _: () = assert!(SPREAD_MAX.as_millis() < HOLD_MAX.as_millis());
const _: () = assert!(PATHS * 2 <= crate::frame::MAX_ACK_PATHS);
