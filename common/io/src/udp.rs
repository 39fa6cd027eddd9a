//! The UDP sockets that datagrams leave and arrive by, on quinn-udp.
//!
//! A client has one per uplink and IP version, bound to the uplink's interface so
//! that no route can lead it elsewhere, and marked so that policy routing can keep
//! it out of the tunnel. A server listens on one per address.
//!
//! Datagrams go out in trains of equal length that the kernel cuts apart (GSO) and
//! come in the same way (GRO). Where the kernel or the card refuses trains, they
//! go out one by one, and that is remembered. Fragmenting is forbidden on all.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::{Context, Poll};

use marline_proto::Transmit;
use quinn_udp::{RecvMeta, UdpSocketState};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

#[cfg(target_os = "linux")]
mod shared;

/// Bytes that may wait for us in a socket: at 1 Gbit/s the loop may be away for 60 ms. With the
/// usual 200 kB a short absence would look like loss on the path.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Bytes that may wait in the kernel for the wire. More than a train or two would be a queue that
/// nobody measures; what does not fit is kept by the driver and sent when there is room.
const SEND_BUFFER: usize = 1 << 20;

/// The longest UDP payload, in bytes, that one train may have in sum.
const TRAIN_BYTES: usize = 65_000;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The IP version of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// A UDP socket, ready to be given to the driver. It carries one IP version only.
#[derive(Debug)]
pub struct UplinkSocket {
    socket: UdpSocket,
    trains: bool,
}

impl UplinkSocket {
    /// A socket with a port of its own that sends and receives only through `device`; the kernel
    /// marks what it sends with `mark` (Linux).
    pub fn bound_to_device(device: &str, family: Family, mark: Option<u32>) -> io::Result<Self> {
        let address: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::open(SocketAddr::new(address, 0), Some(device), mark)
    }

    /// A socket that listens at `address`. `[::]` takes IPv6 only: listen at `0.0.0.0` too for both.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        Self::open(address, None, None)
    }

    /// As many sockets as there are `workers`, which all listen at `address`: a datagram goes to
    /// the one whose session index it carries, and a stranger's to the first.
    pub fn listen_together(address: SocketAddr, workers: usize) -> io::Result<Vec<Self>> {
        if workers == 1 {
            return Ok(vec![Self::listen(address)?]);
        }
        #[cfg(target_os = "linux")]
        return shared::listen(address, workers);
        #[cfg(not(target_os = "linux"))]
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "several workers on one port are not supported on this system yet",
        ))
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn open(address: SocketAddr, device: Option<&str>, mark: Option<u32>) -> io::Result<Self> {
        let socket = unbound(address)?;
        bind_to(&socket, device, mark)?;
        socket.bind(&address.into())?;
        Ok(UplinkSocket::of(socket))
    }

    fn of(socket: Socket) -> Self {
        UplinkSocket {
            socket: socket.into(),
            trains: true,
        }
    }

    /// Whether the kernel is given whole trains to cut apart, where it takes them. Otherwise each
    /// datagram is sent alone.
    #[must_use]
    pub fn with_trains(self, trains: bool) -> Self {
        UplinkSocket { trains, ..self }
    }

    /// Ties the socket to the calling thread's runtime.
    pub(crate) fn start(self) -> io::Result<ActiveSocket> {
        // This also makes it non-blocking and forbids fragmenting.
        let state = UdpSocketState::new((&self.socket).into())?;
        Ok(ActiveSocket {
            io: tokio::net::UdpSocket::from_std(self.socket)?,
            state,
            trains: self.trains,
        })
    }
}

/// A socket for `address` that has everything but the address.
fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    enlarge(&socket)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn bind_to(socket: &Socket, device: Option<&str>, mark: Option<u32>) -> io::Result<()> {
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    match mark {
        Some(mark) => socket.set_mark(mark),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn bind_to(_socket: &Socket, device: Option<&str>, mark: Option<u32>) -> io::Result<()> {
    if device.is_none() && mark.is_none() {
        return Ok(());
    }
    let why = "binding a socket to an interface is not supported on this system yet";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// Asks for the buffers we want: past the system's limit if we may, up to it if not.
fn enlarge(socket: &Socket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    let forced = linux::force_buffers(socket, RECEIVE_BUFFER, SEND_BUFFER);
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    if !forced {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code)] // two socket options that socket2 does not have

    use std::os::fd::AsRawFd;

    /// Sets the buffers without regard to `net.core.rmem_max` and `wmem_max`; false when the
    /// process may not (it takes CAP_NET_ADMIN).
    pub(super) fn force_buffers(socket: &socket2::Socket, receive: usize, send: usize) -> bool {
        let force = |option: libc::c_int, bytes: usize| {
            let bytes = bytes as libc::c_int;
            // SAFETY: the descriptor is open, and the option's value is a live int of that size.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const bytes).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            result == 0
        };
        force(libc::SO_RCVBUFFORCE, receive) && force(libc::SO_SNDBUFFORCE, send)
    }
}

/// What became of a train of datagrams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The kernel has taken all of it.
    All,
    /// The socket's buffer is full: the rest, from this byte on, can go when it is writable again.
    Blocked(usize),
    /// A queue below the socket is full, and nobody tells when it has room: the rest, from this
    /// byte on, can be tried again a little later.
    QueueFull(usize),
    /// The interface cannot carry datagrams of this length; they were dropped.
    TooLarge,
    /// The kernel refuses to send this way at all (no route, interface gone, forbidden).
    Refused(io::ErrorKind),
}

/// A UDP socket that a runtime waits for.
#[derive(Debug)]
pub(crate) struct ActiveSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Whether more than one datagram may go out in one call.
    trains: bool,
}

impl ActiveSocket {
    /// Whether there may be something to receive.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> bool {
        self.io.poll_recv_ready(cx).is_ready()
    }

    /// Whether there may be room to send.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> bool {
        matches!(self.io.poll_send_ready(cx), Poll::Ready(_))
    }

    /// Receives what the runtime has seen to be there; `WouldBlock` when there is nothing.
    pub(crate) fn try_recv(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> io::Result<usize> {
        self.io
            .try_io(Interest::READABLE, || self.recv_now(bufs, meta))
    }

    /// Receives what is there, whether or not the runtime has seen it yet.
    pub(crate) fn recv_now(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> io::Result<usize> {
        self.state.recv((&self.io).into(), bufs, meta)
    }

    /// Sends `datagrams`, a train as `transmit` describes it.
    pub(crate) fn send(&mut self, transmit: &Transmit, datagrams: &[u8]) -> Sent {
        let segment_len = transmit.segment_len.max(1);
        let mut sent = 0;
        while sent < datagrams.len() {
            let together = self.together().min(TRAIN_BYTES / segment_len).max(1);
            let end = (sent + together * segment_len).min(datagrams.len());
            let train = quinn_udp::Transmit {
                destination: transmit.remote,
                ecn: None,
                contents: &datagrams[sent..end],
                segment_size: (end - sent > segment_len).then_some(segment_len),
                src_ip: transmit.local,
            };
            let result = match self.state.try_send((&self.io).into(), &train) {
                // Once more through the runtime, which so learns that it has to wait for room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io.try_io(Interest::WRITABLE, || {
                        self.state.try_send((&self.io).into(), &train)
                    })
                }
                // The runtime is not asked first: it only knows that there is room once it has
                // looked, and a new socket's first datagram should not wait for that.
                result => result,
            };
            let single = train.segment_size.is_none();
            match result {
                Ok(()) => sent = end,
                Err(error) => match judge(&error) {
                    Verdict::Blocked => return Sent::Blocked(sent),
                    Verdict::QueueFull => return Sent::QueueFull(sent),
                    Verdict::TooLarge => return Sent::TooLarge,
                    // The train was refused, not the datagrams: the state has noted it and will
                    // have us send them one by one.
                    Verdict::Odd if !single && self.state.max_gso_segments() == 1 => {}
                    Verdict::Odd | Verdict::Refused => {
                        // A source address that is gone looks to quinn-udp like a card that
                        // refuses trains. It is not, or single datagrams would have passed.
                        if single && self.state.max_gso_segments() == 1 {
                            self.forget_refusals();
                        }
                        return Sent::Refused(error.kind());
                    }
                },
            }
        }
        Sent::All
    }

    /// Datagrams that the kernel takes in one call.
    fn together(&self) -> usize {
        if self.trains {
            self.state.max_gso_segments()
        } else {
            1
        }
    }

    /// Learns anew what the socket can do.
    fn forget_refusals(&mut self) {
        if let Ok(state) = UdpSocketState::new((&self.io).into()) {
            self.state = state;
        }
    }
}

/// What an error of sending says about what to do.
enum Verdict {
    Blocked,
    QueueFull,
    TooLarge,
    Refused,
    /// `EIO` and `EINVAL`: the card does not like trains, or an argument is wrong.
    #[cfg_attr(not(unix), allow(dead_code))] // only Unix tells these apart
    Odd,
}

#[cfg(unix)]
fn judge(error: &io::Error) -> Verdict {
    // Unix numbers these differently, so they are told apart by what std and quinn-udp make of
    // them wherever that is enough.
    const EIO: i32 = 5;
    const ENOMEM: i32 = 12;
    const EINVAL: i32 = 22;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ENOBUFS: i32 = 105;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const ENOBUFS: i32 = 55;
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::WouldBlock => Verdict::Blocked,
        _ if quinn_udp::is_msg_size_err(error) => Verdict::TooLarge,
        Some(ENOBUFS | ENOMEM) => Verdict::QueueFull,
        Some(EIO | EINVAL) => Verdict::Odd,
        _ => Verdict::Refused,
    }
}

#[cfg(not(unix))]
fn judge(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::WouldBlock => Verdict::Blocked,
        io::ErrorKind::OutOfMemory => Verdict::QueueFull,
        _ if quinn_udp::is_msg_size_err(error) => Verdict::TooLarge,
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marline_proto::SocketId;
    use std::future::poll_fn;

    fn local(family: Family) -> SocketAddr {
        match family {
            Family::V4 => "127.0.0.1:0".parse().expect("an address"),
            Family::V6 => "[::1]:0".parse().expect("an address"),
        }
    }

    fn transmit(remote: SocketAddr, len: usize, segment_len: usize) -> Transmit {
        Transmit {
            socket: SocketId(0),
            remote,
            local: None,
            len,
            segment_len,
        }
    }

    /// Receives until `count` datagrams are there.
    async fn receive(socket: &ActiveSocket, count: usize) -> Vec<(Vec<u8>, RecvMeta)> {
        let mut all = Vec::new();
        let mut buf = vec![0; 65_536];
        while all.len() < count {
            poll_fn(|cx| match socket.poll_readable(cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            let mut meta = [RecvMeta::default()];
            if socket
                .try_recv(&mut [IoSliceMut::new(&mut buf)], &mut meta)
                .is_ok()
            {
                let [meta] = meta;
                all.extend(
                    buf[..meta.len]
                        .chunks(meta.stride)
                        .map(|d| (d.to_vec(), meta)),
                );
            }
        }
        all
    }

    #[tokio::test]
    async fn a_train_arrives_as_its_datagrams_with_both_addresses_known() {
        let ways = [true, false].map(|trains| [(Family::V4, trains), (Family::V6, trains)]);
        for (family, trains) in ways.into_iter().flatten() {
            let receiver = UplinkSocket::listen(local(family)).expect("bound");
            let to = receiver.local_addr().expect("bound");
            let receiver = receiver.start().expect("started");
            let sender = UplinkSocket::listen(local(family)).expect("bound");
            let sender = sender.with_trains(trains);
            let from = sender.local_addr().expect("bound");
            let mut sender = sender.start().expect("started");
            // 70 segments are more than the kernel takes at once.
            let datagrams: Vec<u8> = (0..70u8).flat_map(|number| [number; 1200]).collect();
            let datagrams = &datagrams[..datagrams.len() - 100];
            let sent = sender.send(&transmit(to, datagrams.len(), 1200), datagrams);
            assert_eq!(sent, Sent::All);
            let got = receive(&receiver, 70).await;
            assert_eq!(got.len(), 70);
            for (number, (datagram, meta)) in got.iter().enumerate() {
                assert_eq!(datagram.len(), if number == 69 { 1100 } else { 1200 });
                assert_eq!(datagram[0], number as u8);
                assert_eq!(meta.addr, from);
                assert_eq!(meta.dst_ip, Some(to.ip()));
                assert_eq!(meta.ecn, None, "the outer ECN field stays unused");
                // Over the loopback a train stays together, and what is sent alone stays alone.
                assert!(trains || meta.len == meta.stride, "sent alone");
            }
            let together = got.iter().any(|(_, meta)| meta.len > meta.stride);
            assert_eq!(together, trains && sender.state.max_gso_segments() > 1);
        }
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_refused_and_trains_go_on() {
        let receiver = UplinkSocket::listen(local(Family::V4)).expect("bound");
        let to = receiver.local_addr().expect("bound");
        let receiver = receiver.start().expect("started");
        let any = "0.0.0.0:0".parse().expect("an address");
        let mut sender = UplinkSocket::listen(any)
            .expect("bound")
            .start()
            .expect("started");
        let trains = sender.state.max_gso_segments();
        let datagrams = vec![1; 4000];
        let foreign = Some("192.0.2.77".parse().expect("an address"));
        let strange = Transmit {
            local: foreign,
            ..transmit(to, 4000, 1000)
        };
        assert!(matches!(
            sender.send(&strange, &datagrams),
            Sent::Refused(_)
        ));
        assert_eq!(sender.state.max_gso_segments(), trains);
        assert_eq!(
            sender.send(&transmit(to, 4000, 1000), &datagrams),
            Sent::All
        );
        assert_eq!(receive(&receiver, 4).await.len(), 4);
    }

    #[tokio::test]
    async fn an_ipv6_socket_leaves_the_port_to_ipv4() {
        let six = UplinkSocket::listen("[::]:0".parse().expect("an address")).expect("bound");
        let port = six.local_addr().expect("bound").port();
        let four = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        UplinkSocket::listen(four).expect("the port is free in IPv4");
    }

    #[cfg(target_os = "linux")]
    mod on_linux {
        use super::*;
        use crate::netlink::Netlink;
        use crate::netns::{TestNetns, loopback_up, root};

        #[tokio::test]
        async fn errors_of_sending_tell_what_to_do() {
            if !root("send errors") {
                return;
            }
            let _namespace = TestNetns::enter();
            let remote: SocketAddr = "127.0.0.1:9".parse().expect("an address");
            let socket = UplinkSocket::bound_to_device("lo", Family::V4, Some(7));
            let mut active = socket.expect("root may").start().expect("started");
            assert!(
                matches!(
                    active.send(&transmit(remote, 100, 100), &[0; 100]),
                    Sent::Refused(_)
                ),
                "the interface is down"
            );
            let netlink = Netlink::connect().expect("netlink");
            let lo = loopback_up(&netlink).await;
            assert_eq!(
                active.send(&transmit(remote, 100, 100), &[0; 100]),
                Sent::All
            );
            netlink.set_link_mtu(lo, 1500).await.expect("set");
            let long = vec![0; 3000];
            assert_eq!(
                active.send(&transmit(remote, 3000, 3000), &long),
                Sent::TooLarge
            );
        }

        #[test]
        fn a_device_that_does_not_exist_is_an_error() {
            UplinkSocket::bound_to_device("nosuchdev0", Family::V4, None).expect_err("no device");
        }

        #[test]
        fn buffers_are_large_even_where_the_system_says_less() {
            if !root("forced buffers") {
                return;
            }
            let socket = UplinkSocket::listen(local(Family::V4)).expect("bound");
            let socket = socket2::SockRef::from(&socket.socket);
            // The kernel reports twice what was asked for.
            assert!(socket.recv_buffer_size().expect("asked") >= RECEIVE_BUFFER);
        }
    }
}
