//! The TUN device: where inner packets come from and go to.
//!
//! On Linux it is opened with a virtio header, so that one read may give a
//! super-packet of up to 64 KiB and one write may carry a run of packets; see
//! [`offload`]. The device carries no addresses at first: they are set through
//! [`crate::netlink`].

pub mod offload;

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

/// How the TUN device shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunOptions {
    /// The interface's name, at most 15 bytes. A `%d` in it becomes the first free number.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// Packets that the kernel keeps for us while we are busy. Too few drop bursts before the
    /// flow queues can see them.
    pub txqueuelen: u32,
}
