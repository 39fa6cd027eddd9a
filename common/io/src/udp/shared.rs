//! Several sockets on one port, each with the datagrams of its own sessions.
//!
//! The kernel lets sockets share a port (`SO_REUSEPORT`) and asks a small program
//! which of them gets a datagram. Ours reads what stands in plain in every WireGuard
//! message that answers us: the top bits of the receiver's index, which are the
//! worker's number. So all paths of a bond meet in one socket, whatever address they
//! come from, and a path whose NAT gave it a new port does not change its worker. An
//! initiation, which names no index of ours, goes to the first socket: then a flood
//! of them reaches one worker and no other. A number that nobody has leaves the choice
//! to the kernel, and the core drops it.
//!
//! The first socket is bound alone, so that a port which somebody has, another server
//! of ours among them, is refused as ever. Only then it lets the others in.
#![allow(unsafe_code)] // one socket option that socket2 does not have

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use marline_proto::limits;
use socket2::Socket;

use super::{UplinkSocket, unbound};

/// Sockets at `address`, one per worker, in the workers' order.
pub(super) fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<UplinkSocket>> {
    let first = unbound(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    // The port, where the kernel was to choose it.
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        let socket = unbound(address.as_socket().expect("it is of an IP version"))?;
        socket.set_reuse_port(true)?;
        // The kernel numbers the sockets of a port in the order in which they came.
        socket.bind(&address)?;
        sockets.push(socket);
    }
    steer(&sockets[0])?;
    let sockets = sockets.into_iter().map(UplinkSocket::of);
    Ok(sockets.collect())
}

/// Instructions of the kernel's classic packet filter (linux/bpf_common.h).
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const SHIFT_RIGHT: u16 = 0x74;
const RETURN_CONSTANT: u16 = 0x06;
const RETURN_VALUE: u16 = 0x16;

/// What [`steer`] attaches: the number of the worker from a datagram's plain header.
///
/// The index stands behind the type in cookies (3), data (4) and the KEEP of a path at rest (5), and behind the sender's in a
/// response (2), lowest byte first: what is read is its last byte. A datagram that ends before it
/// goes to the first worker, as the kernel ends a program that reads too far with 0.
fn program() -> [libc::sock_filter; 11] {
    let step = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let jump_if = |k, jt, jf| libc::sock_filter {
        code: JUMP_IF_EQUAL,
        jt,
        jf,
        k,
    };
    [
        step(LOAD_BYTE, 0),
        jump_if(2, 5, 0),
        jump_if(3, 2, 0),
        jump_if(4, 1, 0),
        jump_if(5, 0, 5),
        step(LOAD_BYTE, 7),
        step(JUMP, 1),
        step(LOAD_BYTE, 11),
        step(SHIFT_RIGHT, 8 - limits::WORKER_BITS),
        step(RETURN_VALUE, 0),
        step(RETURN_CONSTANT, 0),
    ]
}

/// Has the kernel ask our program about each datagram for the port of this socket.
fn steer(socket: &Socket) -> io::Result<()> {
    let mut program = program();
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the descriptor is open; the option's value is a live structure of that size, which
    // points to as many instructions as it says. The kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::UdpSocket;

    const WORKERS: usize = 3;

    /// A message of this type with this index of ours, as long as such a one is.
    fn message(kind: u8, index: u32) -> Vec<u8> {
        let (len, at) = match kind {
            1 => (148, 4),
            2 => (92, 8),
            3 => (64, 4),
            5 => (16, 4),
            _ => (80, 4),
        };
        let mut message = vec![0xff; len];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message[at..at + 4].copy_from_slice(&index.to_le_bytes());
        message
    }

    fn together(address: &str) -> Vec<UdpSocket> {
        let address = address.parse().expect("an address");
        let sockets = UplinkSocket::listen_together(address, WORKERS).expect("bound");
        sockets.into_iter().map(|socket| socket.socket).collect()
    }

    /// Which of the sockets has it. On the loopback it is there when sending returns.
    fn who_got(sockets: &[UdpSocket], message: &[u8]) -> Vec<usize> {
        let mut buf = [0; 2000];
        let got = |socket: &UdpSocket, buf: &mut [u8]| {
            socket.set_nonblocking(true).expect("set");
            matches!(socket.recv(buf), Ok(len) if buf[..len] == *message)
        };
        (0..sockets.len())
            .filter(|&number| got(&sockets[number], &mut buf))
            .collect()
    }

    #[test]
    fn a_message_reaches_the_worker_whose_index_it_carries_whoever_sends_it() {
        for (listen, from) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
            let sockets = together(listen);
            let to = sockets[0].local_addr().expect("bound");
            for _ in 0..20 {
                let sender = UdpSocket::bind(from).expect("bound");
                for kind in 2..=5 {
                    for worker in 0..WORKERS {
                        let message = message(kind, (worker as u32) << 28 | 0x0123_4567);
                        sender.send_to(&message, to).expect("sent");
                        assert_eq!(who_got(&sockets, &message), [worker], "type {kind}");
                    }
                }
                for stranger in [
                    message(1, 2 << 28),
                    vec![4; 3],
                    vec![9; 40],
                    vec![4, 0, 0, 0],
                ] {
                    sender.send_to(&stranger, to).expect("sent");
                    assert_eq!(who_got(&sockets, &stranger), [0], "{stranger:?}");
                }
                let nobodys = message(4, 15 << 28);
                sender.send_to(&nobodys, to).expect("sent");
                assert_eq!(who_got(&sockets, &nobodys).len(), 1, "somebody drops it");
            }
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_refused_even_if_he_shares_it() {
        let sockets = together("127.0.0.1:0");
        let taken = sockets[0].local_addr().expect("bound");
        for workers in [1, WORKERS] {
            let error = UplinkSocket::listen_together(taken, workers).expect_err("it is taken");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
    }
}
