//! The TUN device on Linux.
// The two ioctls that make a TUN device what it is.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::offload::{Frame, RUN_MAX};
use super::{Offload, TunOptions};
use crate::failure::{Class, Failure};
use crate::netlink::Netlink;

/// An open TUN device, or one queue of it. It disappears when the last is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    index: u32,
    udp_offload: bool,
}

impl Tun {
    /// Creates the device, up and without addresses. Must be called within a tokio runtime.
    pub async fn open(options: &TunOptions) -> Result<Self, Failure> {
        let mut queues = Self::open_queues(options, 1).await?;
        Ok(queues.pop().expect("one was asked for"))
    }

    /// Creates the device with so many queues, at least one. The kernel puts packets of a flow into
    /// the queue from which its last packet of the other direction came, and otherwise into any.
    pub async fn open_queues(options: &TunOptions, queues: usize) -> Result<Vec<Self>, Failure> {
        let (file, name) = create(&options.name, queues > 1)?;
        let mut files = vec![file];
        for _ in 1..queues {
            files.push(another_queue(&name)?);
        }
        // All queues have the offloads of their device.
        let udp_offload = set_offloads(files[0].as_raw_fd(), options.offload).map_err(|error| {
            Failure::io(format!("cannot set up offloading on {name}"), &error)
                .in_class(Class::Facility)
        })?;
        let netlink = Netlink::connect()?;
        let link = netlink.link(&name).await?.ok_or_else(|| {
            Failure::new(
                Class::Conflict,
                format!("the interface {name} vanished again"),
            )
        })?;
        let index = link.index;
        netlink.set_link_mtu(index, u32::from(options.mtu)).await?;
        netlink
            .set_link_txqueuelen(index, options.txqueuelen)
            .await?;
        netlink.set_link_up(index, true).await?;
        let queue = |file| Tun {
            file,
            name: name.clone(),
            index,
            udp_offload,
        };
        Ok(files.into_iter().map(queue).collect())
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the kernel takes joined UDP packets, and hands them over.
    pub fn udp_offload(&self) -> bool {
        self.udp_offload
    }

    /// Ties the device to the calling thread's runtime.
    pub(crate) fn start(self) -> io::Result<ActiveTun> {
        // SAFETY: the file owns its descriptor, which stays the same until it is dropped.
        let file = unsafe { AsyncFd::register_with_interest(self.file, Interest::READABLE) }?;
        Ok(ActiveTun { file })
    }
}

/// A TUN device that a runtime waits for.
#[derive(Debug)]
pub(crate) struct ActiveTun {
    file: AsyncFd<File>,
}

impl ActiveTun {
    /// Whether there may be something to read.
    pub(crate) fn poll_readable(&self, cx: &mut std::task::Context<'_>) -> bool {
        // An error here means that the runtime ends, and reading will tell.
        self.file.poll_read_ready(cx).is_ready()
    }

    /// Reads one frame that the runtime has seen to be there; `WouldBlock` when there is none.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.file
            .try_io(Interest::READABLE, |file| read_frame(file, buf))
    }

    /// Reads one frame, whether or not the runtime has seen it yet. Only this notices that the
    /// device was deleted: the kernel reports that as an error, not as something to read.
    pub(crate) fn read_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        read_frame(self.file.get_ref(), buf)
    }

    /// Writes one frame.
    pub(crate) fn write(&self, frame: &Frame<'_>) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); RUN_MAX + 1];
        slices[0] = IoSlice::new(&frame.header);
        let mut skip = 0;
        for (slice, packet) in slices[1..].iter_mut().zip(frame.packets.iter()) {
            *slice = IoSlice::new(&packet.bytes()[skip..]);
            skip = frame.skip;
        }
        self.file
            .get_ref()
            .write_vectored(&slices[..=frame.packets.len()])
            .map(|_| ())
    }
}

fn read_frame(mut file: &File, buf: &mut [u8]) -> io::Result<usize> {
    match file.read(buf) {
        // Not usable for the moment; the kernel wakes us when it is again.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        read => read,
    }
}

/// What our queues look like: packets of IP behind a virtio header.
const FLAGS: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Opens a TUN device called `name` (or the first free name of its pattern), as the first of several queues if there
/// are to be some.
fn create(name: &str, several: bool) -> Result<(File, String), Failure> {
    /// `IFF_TUN_EXCL` of linux/if_tun.h: without it we would become one more queue of a device that somebody else has.
    const ONLY_NEW: libc::c_int = 0x8000;
    if name.is_empty() || name.len() > 15 || name.contains(|c: char| c == '/' || c.is_whitespace())
    {
        return Err(
            Failure::usage(format!("\"{name}\" cannot be the name of an interface"))
                .with_advice("use 1 to 15 characters without blanks and slashes"),
        );
    }
    let flags = match several {
        true => FLAGS | libc::IFF_MULTI_QUEUE | ONLY_NEW,
        false => FLAGS,
    };
    open_queue(name, flags)
}

/// One more queue of a device that was created with several.
fn another_queue(name: &str) -> Result<File, Failure> {
    open_queue(name, FLAGS | libc::IFF_MULTI_QUEUE).map(|(file, _)| file)
}

fn open_queue(name: &str, flags: libc::c_int) -> Result<(File, String), Failure> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|error| why_not(name, &error))?;
    let name = attach(&file, name, flags).map_err(|error| why_not(name, &error))?;
    Ok((file, name))
}

/// Makes `file` a queue of the device called `name`, which is made if it is not there; answers its name.
fn attach(file: &File, name: &str, flags: libc::c_int) -> io::Result<String> {
    /// `TUNSETIFF` of linux/if_tun.h.
    const SET_INTERFACE: libc::Ioctl = 0x4004_54cau32 as libc::Ioctl;
    // SAFETY: all zeros is a value of this plain structure of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: names have at most one less.
    for (to, from) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request reads and writes one such structure, which lives until it returns.
    if unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let name: Vec<u8> = name.map(|byte| *byte as u8).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

fn why_not(name: &str, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Failure::new(
            Class::Privilege,
            format!("not permitted to create the interface {name}"),
        )
        .with_advice("run it as root or give it CAP_NET_ADMIN"),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Failure::new(
            Class::Facility,
            "there is no usable /dev/net/tun on this system",
        )
        .with_advice("load the kernel module \"tun\", or let the container have the device"),
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => Failure::new(
            Class::Conflict,
            format!("an interface called {name} is there already and in use"),
        )
        .with_advice("stop what uses it or choose another name"),
        _ => Failure::io(format!("cannot create the interface {name}"), error),
    }
}

/// Switches on as much offloading as the kernel has, up to `most`; answers whether joined UDP is among it.
fn set_offloads(tun: RawFd, most: Offload) -> io::Result<bool> {
    /// `TUN_F_*` of linux/if_tun.h.
    const CHECKSUM: libc::c_ulong = 0x01;
    const TCP: libc::c_ulong = CHECKSUM | 0x02 | 0x04 | 0x08; // IPv4, IPv6, with ECN
    const UDP: libc::c_ulong = 0x20 | 0x40; // IPv4, IPv6; since Linux 6.2
    if most == Offload::All && offload(tun, TCP | UDP).is_ok() {
        return Ok(true);
    }
    if most != Offload::Off && offload(tun, TCP).is_ok() {
        return Ok(false);
    }
    // Without any, the kernel hands over finished packets, which is slow but right.
    offload(tun, 0).map(|()| false)
}

/// Asks for exactly these offloads.
fn offload(tun: RawFd, offloads: libc::c_ulong) -> io::Result<()> {
    /// `TUNSETOFFLOAD` of linux/if_tun.h.
    const SET_OFFLOAD: libc::Ioctl = 0x4004_54d0u32 as libc::Ioctl;
    // SAFETY: the request takes its argument by value and touches no memory of ours.
    match unsafe { libc::ioctl(tun, SET_OFFLOAD, offloads) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{TestNetns, root};
    use crate::tun::offload::tests::{Collected, begun};
    use crate::tun::offload::{FRAME_MAX, HEADER_LEN, Joiner, split};
    use marline_proto::PacketBuf;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn options() -> TunOptions {
        TunOptions {
            name: "mrl%d".to_owned(),
            mtu: 1400,
            txqueuelen: 1000,
            offload: Offload::All,
        }
    }

    /// Two TUN devices joined by a user-space wire, each the other's way to 10.77.x.1: what a
    /// socket sends out of one comes in through the other with addresses swapped.
    #[tokio::test]
    async fn real_sockets_talk_through_splitting_and_joining() {
        if !root("a TUN device") {
            return;
        }
        for offload in [Offload::All, Offload::Tcp, Offload::Off] {
            talk_to_oneself(offload).await;
        }
    }

    async fn talk_to_oneself(offload: Offload) {
        let namespace = TestNetns::enter();
        let options = TunOptions {
            offload,
            ..options()
        };
        let tun = Tun::open(&options).await.expect("root may");
        assert_eq!((tun.name(), tun.index() > 0), ("mrl0", true));
        let netlink = Netlink::connect().expect("netlink");
        let link = netlink
            .link("mrl0")
            .await
            .expect("listed")
            .expect("it is there");
        assert_eq!((link.up, link.mtu), (true, 1400));
        for address in ["10.77.0.1", "fd00:77::1"] {
            let address: std::net::IpAddr = address.parse().expect("an address");
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            netlink
                .add_address(tun.index(), address, prefix)
                .await
                .expect("added");
        }
        let udp_offload = tun.udp_offload();
        assert!(
            offload == Offload::All || !udp_offload,
            "no more than asked"
        );
        let tun = tun.start().expect("the runtime takes it");

        // Sockets of this namespace; the wire turns x.2 into x.1 and back, so that the namespace
        // talks to itself through the device.
        let listeners = [
            TcpListener::bind("10.77.0.1:7000"),
            TcpListener::bind("[fd00:77::1]:7000"),
        ]
        .map(|listener| listener.expect("bound"));
        let datagrams = UdpSocket::bind("10.77.0.1:7001").expect("bound");
        let sender = UdpSocket::bind("10.77.0.1:7002").expect("bound");
        let payload: Vec<u8> = (0..3_000_000u32)
            .map(|number| ((number * 7) >> 3) as u8)
            .collect();

        let threads: Vec<_> = listeners
            .into_iter()
            .zip(["10.77.0.2:7000", "[fd00:77::2]:7000"])
            .map(|(listener, address)| {
                let sent = payload.clone();
                let writer = std::thread::spawn({
                    let namespace = namespace.handle();
                    move || {
                        namespace.join();
                        let mut stream = TcpStream::connect(address).expect("connected");
                        stream.write_all(&sent).expect("sent");
                    }
                });
                let reader = std::thread::spawn(move || {
                    let (mut stream, _) = listener.accept().expect("accepted");
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).expect("received");
                    got
                });
                (writer, reader)
            })
            .collect();
        for number in 0..40u8 {
            sender
                .send_to(&[number; 1000], "10.77.0.2:7001")
                .expect("sent");
        }

        let (mut supers, mut joined) = (0, 0);
        let mut frame = vec![0; FRAME_MAX];
        let mut joiner = Joiner::new(udp_offload);
        while threads.iter().any(|(_, reader)| !reader.is_finished()) {
            let ready = std::future::poll_fn(|cx| match tun.poll_readable(cx) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            });
            // The timeout only lets the loop see that the readers are done.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), ready).await;
            while let Ok(len) = tun.try_read(&mut frame) {
                let mut packets = Collected(Vec::new());
                split(&frame[..len], &mut packets).expect("sound");
                let Collected(packets) = packets;
                supers += usize::from(packets.len() > 1);
                for mut packet in packets {
                    assert!(packet.len() <= 1400, "no packet exceeds the MTU");
                    swap_ends(packet.bytes_mut());
                    joiner.push(packet, |frame| {
                        joined += usize::from(frame.packets.len() > 1);
                        tun.write(&frame).expect("written");
                    });
                }
                joiner.flush(|frame| {
                    joined += usize::from(frame.packets.len() > 1);
                    tun.write(&frame).expect("written");
                });
            }
        }
        for (writer, reader) in threads {
            writer.join().expect("no panic");
            assert!(
                reader.join().expect("no panic") == payload,
                "every byte arrived"
            );
        }
        // Here only what came together goes together.
        let helped = offload != Offload::Off;
        assert_eq!(
            (supers > 0, joined > 0),
            (helped, helped),
            "{offload:?}: {supers} super-packets came, {joined} went"
        );
        let mut buf = [0; 2000];
        for number in 0..40u8 {
            let (len, from) = datagrams.recv_from(&mut buf).expect("received");
            assert_eq!(
                (len, buf[0], from.to_string().as_str()),
                (1000, number, "10.77.0.2:7002")
            );
        }
    }

    /// What we write with begun checksums, alone or joined, the kernel completes where it goes on through a device that
    /// cannot: here another TUN without offloads.
    #[tokio::test]
    async fn a_begun_checksum_is_completed_on_the_way_out_of_the_machine() {
        if !root("a TUN device") {
            return;
        }
        let _namespace = TestNetns::enter();
        let netlink = Netlink::connect().expect("netlink");
        let mut tuns = Vec::new();
        for (number, offload) in [("77", Offload::All), ("78", Offload::Off)] {
            let options = TunOptions {
                offload,
                ..options()
            };
            let tun = Tun::open(&options).await.expect("root may");
            for (address, prefix) in [
                (format!("10.{number}.0.1"), 24),
                (format!("fd00:{number}::1"), 64),
            ] {
                let address = address.parse().expect("an address");
                netlink
                    .add_address(tun.index(), address, prefix)
                    .await
                    .expect("added");
            }
            tuns.push(tun.start().expect("the runtime takes it"));
        }
        for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{forwarding}"), "1").expect("root may");
        }
        let mut joiner = Joiner::new(true);
        let mut sent = Vec::new();
        for v6 in [false, true] {
            let addresses: [std::net::IpAddr; 2] = if v6 {
                ["fd00:77::9", "fd00:78::9"]
            } else {
                ["10.77.0.9", "10.78.0.9"]
            }
            .map(|address| address.parse().expect("an address"));
            for packet in forwarded(addresses) {
                joiner.push(packet.clone(), |frame| {
                    tuns[0].write(&frame).expect("written");
                });
                sent.push(packet);
            }
        }
        joiner.flush(|frame| tuns[0].write(&frame).expect("written"));

        let mut frame = vec![0; FRAME_MAX];
        for packet in &mut sent {
            packet.complete();
            let len = loop {
                std::future::poll_fn(|cx| match tuns[1].poll_readable(cx) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                })
                .await;
                // Others talk too: the kernel greets its IPv6 neighbours.
                match tuns[1].try_read(&mut frame) {
                    Ok(len)
                        if matches!(frame[HEADER_LEN + 6], 6 | 17) || frame[HEADER_LEN] == 0x45 =>
                    {
                        break len;
                    }
                    _ => {}
                }
            };
            assert_eq!(frame[..2], [0, 0], "nothing is left to be done");
            let transport = if packet.bytes()[0] >> 4 == 4 { 20 } else { 40 };
            assert_eq!(
                frame[HEADER_LEN + transport..len],
                packet.bytes()[transport..],
                "only the hop counts"
            );
        }
    }

    /// A TCP run, a lone segment and a datagram from one address to another, all with begun checksums.
    fn forwarded([from, to]: [std::net::IpAddr; 2]) -> Vec<PacketBuf> {
        let builder = || match (from, to) {
            (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
                etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            }
            (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
                etherparse::PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            }
            _ => panic!("addresses of one version"),
        };
        let tcp = |port: u16, seq: u32, payload: &[u8]| {
            let mut bytes = Vec::new();
            builder()
                .tcp(port, 80, seq, 500)
                .ack(7)
                .write(&mut bytes, payload)
                .expect("written");
            bytes
        };
        let payload: Vec<u8> = (0..1200).map(|number| (number % 251) as u8).collect();
        let mut all: Vec<_> = (0..4).map(|n| tcp(9, n * 1200, &payload)).collect();
        all.push(tcp(10, 1, &payload[..333]));
        let mut datagram = Vec::new();
        builder()
            .udp(11, 53)
            .write(&mut datagram, &payload[..77])
            .expect("written");
        all.push(datagram);
        all.iter().map(|packet| begun(packet)).collect()
    }

    /// Exchanges the two ends: x.1 to x.2 becomes x.2 to x.1. Sums do not change by that.
    fn swap_ends(packet: &mut [u8]) {
        if packet[0] >> 4 == 4 {
            let (from, to) = packet[12..20].split_at_mut(4);
            from.swap_with_slice(to);
        } else {
            let (from, to) = packet[8..40].split_at_mut(16);
            from.swap_with_slice(to);
        }
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_refused_with_a_sentence() {
        for name in ["", "much-too-long-for-linux", "a b", "a/b"] {
            let failure = Tun::open(&TunOptions {
                name: name.to_owned(),
                ..options()
            })
            .await
            .expect_err("not a name");
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_a_conflict() {
        if !root("a TUN device") {
            return;
        }
        let _namespace = TestNetns::enter();
        let first = Tun::open(&options()).await.expect("root may");
        let again = TunOptions {
            name: first.name().to_owned(),
            ..options()
        };
        let failure = Tun::open(&again).await.expect_err("it is taken");
        assert_eq!(failure.exit_code(), 6, "{failure}");
    }
}
