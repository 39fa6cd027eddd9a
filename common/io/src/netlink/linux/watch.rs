//! What changes, as the kernel tells it.
//!
//! The watch has a socket of its own and reads it only when it is asked for the next change: what piles up waits in the
//! kernel, in a buffer of known size, and when that is full the kernel says so, which becomes [`Change::Overrun`].

use std::collections::VecDeque;
use std::io;

use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};

use super::messages::{read_address, read_link, read_routes};
use crate::netlink::Change;

/// A stream of changes to interfaces, addresses and routes.
pub struct Watch {
    socket: TokioSocket,
    ready: VecDeque<Change>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({} ready)", self.ready.len())
    }
}

impl Watch {
    /// Bytes of changes that may wait in the kernel: several thousand routes at once.
    const BUFFER: u32 = 4 << 20;

    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
        socket.socket_mut().set_rx_buf_sz(Self::BUFFER)?;
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ];
        let groups = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Watch {
            socket,
            ready: VecDeque::new(),
        })
    }

    /// The next change; `None` when the connection to the kernel broke. May be dropped while it
    /// waits without losing anything.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            match self.socket.recv_from_full().await {
                Ok((bytes, from)) if from.port_number() == 0 => self.read(&bytes),
                Ok(_) => {} // not from the kernel
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Some(Change::Overrun);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!("watching the kernel's interfaces and routes failed: {error}");
                    return None;
                }
            }
        }
    }

    /// Takes apart what one read gave; a message that is not understood is passed over.
    fn read(&mut self, mut bytes: &[u8]) {
        while bytes.len() >= 16 {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                Ok(message) => {
                    if let NetlinkPayload::InnerMessage(inner) = message.payload {
                        self.ready.extend(read_changes(inner));
                    }
                }
                Err(error) => tracing::debug!("a netlink message is not understood: {error}"),
            }
            let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            let next = length.next_multiple_of(4).max(16);
            bytes = bytes.get(next..).unwrap_or_default();
        }
    }
}

fn read_changes(message: RouteNetlinkMessage) -> Vec<Change> {
    match message {
        RouteNetlinkMessage::NewLink(link) => vec![Change::LinkSet(read_link(&link))],
        RouteNetlinkMessage::DelLink(link) => vec![Change::LinkGone(read_link(&link))],
        RouteNetlinkMessage::NewAddress(address) => read_address(&address)
            .map(Change::AddressSet)
            .into_iter()
            .collect(),
        RouteNetlinkMessage::DelAddress(address) => read_address(&address)
            .map(Change::AddressGone)
            .into_iter()
            .collect(),
        RouteNetlinkMessage::NewRoute(route) => read_routes(&route)
            .into_iter()
            .map(Change::RouteSet)
            .collect(),
        RouteNetlinkMessage::DelRoute(route) => read_routes(&route)
            .into_iter()
            .map(Change::RouteGone)
            .collect(),
        _ => Vec::new(),
    }
}
