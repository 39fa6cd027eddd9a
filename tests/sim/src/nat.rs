//! The box between an IPv4 uplink and the internet.
//!
//! It lends a client's socket a port of its public address, lets in only what
//! comes from where something was sent, forgets a mapping that nobody uses, and
//! may forget all of them at any time ([`Nat::rebind`]), which is what a reboot
//! of the box or a carrier's whim look like from outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::link::Nanos;

/// One box with one public address.
#[derive(Clone, Debug)]
pub struct Nat {
    public: IpAddr,
    timeout: Nanos,
    next_port: u16,
    /// By the client's socket: public port and last use.
    mappings: BTreeMap<SocketAddr, Mapping>,
}

#[derive(Clone, Debug)]
struct Mapping {
    port: u16,
    remote: SocketAddr,
    used: Nanos,
}

impl Nat {
    /// A box that owns `public` and forgets mappings that rest for `timeout`.
    pub fn new(public: IpAddr, timeout: Nanos) -> Self {
        Nat {
            public,
            timeout,
            next_port: 20_000,
            mappings: BTreeMap::new(),
        }
    }

    /// A datagram leaves `local` for `remote`: the address it seems to come from.
    pub fn outbound(&mut self, now: Nanos, local: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let timeout = self.timeout;
        self.mappings
            .retain(|_, mapping| now.saturating_sub(mapping.used) <= timeout);
        let next_port = &mut self.next_port;
        let mapping = self.mappings.entry(local).or_insert_with(|| {
            let port = *next_port;
            *next_port = next_port.checked_add(1).unwrap_or(20_000);
            Mapping {
                port,
                remote,
                used: now,
            }
        });
        mapping.used = now;
        mapping.remote = remote;
        SocketAddr::new(self.public, mapping.port)
    }

    /// A datagram from `remote` arrived for `public`: whose it is. None: dropped.
    pub fn inbound(
        &mut self,
        now: Nanos,
        remote: SocketAddr,
        public: SocketAddr,
    ) -> Option<SocketAddr> {
        let timeout = self.timeout;
        let (local, mapping) = self.mappings.iter_mut().find(|(_, mapping)| {
            mapping.port == public.port()
                && mapping.remote == remote
                && now.saturating_sub(mapping.used) <= timeout
        })?;
        mapping.used = now;
        (public.ip() == self.public).then_some(*local)
    }

    /// Forgets everything.
    pub fn rebind(&mut self) {
        self.mappings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    fn addresses() -> (Nat, SocketAddr, SocketAddr) {
        let nat = Nat::new("100.64.0.1".parse().unwrap(), 60 * S);
        (
            nat,
            "10.1.0.2:5000".parse().unwrap(),
            "192.0.2.1:51820".parse().unwrap(),
        )
    }

    #[test]
    fn answers_come_back_and_strangers_do_not() {
        let (mut nat, local, remote) = addresses();
        let public = nat.outbound(0, local, remote);
        assert_eq!(public.ip().to_string(), "100.64.0.1");
        assert_eq!(nat.inbound(S, remote, public), Some(local));
        let stranger = "192.0.2.9:51820".parse().unwrap();
        assert_eq!(nat.inbound(S, stranger, public), None);
    }

    #[test]
    fn use_keeps_a_mapping_and_rest_loses_it() {
        let (mut nat, local, remote) = addresses();
        let public = nat.outbound(0, local, remote);
        assert_eq!(nat.outbound(50 * S, local, remote), public);
        assert_eq!(nat.inbound(100 * S, remote, public), Some(local));
        assert_eq!(nat.inbound(161 * S, remote, public), None);
        assert_ne!(nat.outbound(162 * S, local, remote), public);
    }

    #[test]
    fn after_a_rebinding_the_old_port_is_dead() {
        let (mut nat, local, remote) = addresses();
        let old = nat.outbound(0, local, remote);
        nat.rebind();
        assert_eq!(nat.inbound(1, remote, old), None);
        let new = nat.outbound(2, local, remote);
        assert_ne!(new, old);
        assert_eq!(nat.inbound(3, remote, new), Some(local));
    }
}
