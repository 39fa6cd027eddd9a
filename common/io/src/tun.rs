//! The TUN device: where inner packets come from and go to.
//!
//! On Linux it is opened with a virtio header, so that one read may give a
//! super-packet of up to 64 KiB and one write may carry a run of packets; see
//! [`offload`]. Older kernels have less of that, and a setting asks for less
//! ([`Offload`]): what is right must not depend on it. The device carries no
//! addresses at first: they are set through [`crate::netlink`].

pub mod offload;

use std::ops::RangeInclusive;

use serde::Deserialize;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::ActiveTun;
#[cfg(target_os = "linux")]
pub use linux::Tun;

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::ActiveTun;
#[cfg(not(target_os = "linux"))]
pub use other::Tun;

/// What the TUN device's MTU may be, bytes, at both ends: an IPv6 link must carry the least (RFC 8200, section 5), and
/// what is longer than the most fits no ordinary uplink.
pub const MTU: RangeInclusive<u16> = 1_280..=1_500;

/// What the kernel may leave to us, and we to it, so that one call moves many packets.
///
/// The kernel's own limits come on top: less than what is asked for is used where it has no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// As much as it has: super-packets of TCP and UDP.
    #[default]
    All,
    /// Super-packets of TCP only, as kernels before Linux 6.2 have them.
    Tcp,
    /// Finished packets, one by one; datagrams too.
    Off,
}

impl Offload {
    /// Whether a socket may leave it to the kernel to cut trains of datagrams apart.
    pub fn trains(self) -> bool {
        self != Offload::Off
    }
}

/// How the TUN device shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunOptions {
    /// The interface's name, at most 15 bytes. A `%d` in it becomes the first free number.
    pub name: String,
    /// Its MTU, in bytes; within [`MTU`].
    pub mtu: u16,
    /// Packets that the kernel keeps for us while we are busy. Too few drop bursts before the
    /// flow queues can see them.
    pub txqueuelen: u32,
    /// What the kernel hands over unfinished, at most.
    pub offload: Offload,
}
