//! The pools of inner addresses.
//!
//! A pool is one network per address family. The server's end of the tunnel
//! always has the pool's first host address; every peer gets the lowest one that
//! is free. Nothing is kept here: which addresses are taken follows from the
//! peer store alone, so the two cannot disagree, and a peer keeps its address for
//! as long as it exists, whatever is restarted in between.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The longest IPv4 prefix a pool may have: the server and one peer.
pub const LONGEST_V4_PREFIX: u8 = 30;

/// The longest IPv6 prefix a pool may have: the server and a handful of peers.
pub const LONGEST_V6_PREFIX: u8 = 124;

/// The server's own address in an IPv4 pool: the first after the network's.
pub fn server_v4(pool: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(pool.network().to_bits() + 1)
}

/// The server's own address in an IPv6 pool: the first after the network's.
pub fn server_v6(pool: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from_bits(pool.network().to_bits() + 1)
}

/// The lowest address of `pool` that a peer may have and none of `taken` is;
/// `None` when the pool is exhausted.
pub fn next_v4(pool: Ipv4Net, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = server_v4(pool).to_bits() + 1;
    let last = pool.broadcast().to_bits() - 1;
    (first..=last)
        .map(Ipv4Addr::from_bits)
        .find(|address| !taken.contains(address))
}

/// The lowest address of `pool` that a peer may have and none of `taken` is;
/// `None` when the pool is exhausted.
pub fn next_v6(pool: Ipv6Net, taken: &BTreeSet<Ipv6Addr>) -> Option<Ipv6Addr> {
    let first = server_v6(pool).to_bits() + 1;
    let last = pool.broadcast().to_bits();
    (first..=last)
        .map(Ipv6Addr::from_bits)
        .find(|address| !taken.contains(address))
}

/// A `/64` for the inside that nobody else is likely to have: a unique local
/// prefix (RFC 4193) whose global and subnet parts are the given random bytes.
pub fn unique_local(random: [u8; 7]) -> Ipv6Net {
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_server_has_the_first_address_and_peers_the_next() {
        let pool = v4("10.77.0.0/16");
        assert_eq!(server_v4(pool), Ipv4Addr::new(10, 77, 0, 1));
        let mut taken = BTreeSet::new();
        for expected in [[10, 77, 0, 2], [10, 77, 0, 3], [10, 77, 0, 4]] {
            let address = next_v4(pool, &taken).unwrap();
            assert_eq!(address.octets(), expected);
            taken.insert(address);
        }
        taken.remove(&Ipv4Addr::new(10, 77, 0, 3));
        assert_eq!(
            next_v4(pool, &taken),
            Some(Ipv4Addr::new(10, 77, 0, 3)),
            "a gap is filled"
        );
    }

    #[test]
    fn a_small_pool_is_exhausted_and_never_hands_out_network_or_broadcast() {
        let pool = v4("192.0.2.8/29");
        let mut taken = BTreeSet::new();
        while let Some(address) = next_v4(pool, &taken) {
            taken.insert(address);
        }
        let octets: Vec<u8> = taken.iter().map(|a| a.octets()[3]).collect();
        assert_eq!(octets, [10, 11, 12, 13, 14]);
    }

    #[test]
    fn ipv6_pools_hand_out_their_lowest_addresses() {
        let pool: Ipv6Net = "fd00:1:2:3::/64".parse().unwrap();
        assert_eq!(
            server_v6(pool),
            "fd00:1:2:3::1".parse::<Ipv6Addr>().unwrap()
        );
        let first = next_v6(pool, &BTreeSet::new()).unwrap();
        assert_eq!(first, "fd00:1:2:3::2".parse::<Ipv6Addr>().unwrap());

        let tiny: Ipv6Net = "fd00::/124".parse().unwrap();
        let all: BTreeSet<_> = (2..16)
            .map(|n| Ipv6Addr::from_bits((0xfd << 120) + n))
            .collect();
        assert_eq!(next_v6(tiny, &all), None);
    }

    #[test]
    fn a_random_prefix_is_unique_local() {
        let net = unique_local([1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(net.to_string(), "fd01:203:405:607::/64");
    }
}
