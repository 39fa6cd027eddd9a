//! Keeps the core's peers equal to the peer store's.
//!
//! The store is the truth. After whatever may have changed it (a request, a
//! reload, a join code that expires, a peer's first appearance) [`Admission::sync`]
//! reads it, compares who may connect with who is admitted, and tells the core
//! the difference and nothing else: a peer that did not change keeps its bond.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use marline_io::driver::Handle;
use marline_io::failure::Failure;
use marline_proto::{Command, Key, PeerConfig};

use crate::peers::{self, Moment, Peer, PeerStore};

/// The longest time between two looks at the calendar: a clock that is set, or a machine that
/// wakes up, is noticed after this at the latest.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Who is admitted at present.
#[derive(Debug)]
pub struct Admission {
    store: PeerStore,
    handle: Handle,
    admitted: BTreeMap<Key, PeerConfig>,
    /// Peers that this process has seen: they count as known even if the store cannot be written.
    seen: BTreeSet<Key>,
    known: usize,
    next_expiry: Option<Moment>,
}

impl Admission {
    /// Nobody is admitted before the first [`Self::sync`].
    pub fn new(store: PeerStore, handle: Handle) -> Self {
        Admission {
            store,
            handle,
            admitted: BTreeMap::new(),
            seen: BTreeSet::new(),
            known: 0,
            next_expiry: None,
        }
    }

    /// Makes the core admit whom the store admits at `now`.
    pub async fn sync(&mut self, now: Moment) -> Result<(), Failure> {
        let store = self.store.clone();
        let mut all = on_disk(move || store.read()).await?;
        for peer in all
            .iter_mut()
            .filter(|peer| self.seen.contains(&peer.public_key.0))
        {
            peer.first_seen.get_or_insert(now);
        }
        let wanted = peers::admitted(&all, now);
        for command in difference(&self.admitted, &wanted) {
            self.handle.command(command).await;
        }
        self.seen.retain(|key| wanted.contains_key(key));
        self.admitted = wanted;
        self.known = all.len();
        self.next_expiry = peers::next_expiry(&all, now);
        Ok(())
    }

    /// A peer proved that it has its key; its join code need not expire any more.
    pub async fn peer_seen(&mut self, public: Key, now: Moment) -> Result<(), Failure> {
        if !self.seen.insert(public) {
            return Ok(());
        }
        let store = self.store.clone();
        on_disk(move || {
            store.change(|all| {
                mark_seen(all, public, now);
                Ok(())
            })
        })
        .await?;
        self.sync(now).await
    }

    /// How long nothing changes by itself.
    pub fn until_next_expiry(&self, now: Moment) -> Duration {
        self.next_expiry
            .map_or(LONGEST_WAIT, |expiry| expiry.until(now))
            .min(LONGEST_WAIT)
    }

    /// The name of the peer with this key.
    pub fn name(&self, public: &Key) -> Option<&str> {
        self.admitted.get(public).map(|peer| peer.name.as_str())
    }

    /// The peer with this name, if it may connect.
    pub fn named(&self, name: &str) -> Option<&PeerConfig> {
        self.admitted.values().find(|peer| peer.name == name)
    }

    /// How many peers the store holds.
    pub fn known(&self) -> usize {
        self.known
    }

    /// How many of them may connect.
    pub fn admitted(&self) -> usize {
        self.admitted.len()
    }

    /// The store.
    pub fn store(&self) -> &PeerStore {
        &self.store
    }
}

/// Runs something that waits for the disk without holding up everything else.
pub async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn mark_seen(all: &mut [Peer], public: Key, now: Moment) {
    if let Some(peer) = all.iter_mut().find(|peer| peer.public_key.0 == public) {
        peer.first_seen.get_or_insert(now);
    }
}

/// What turns `old` into `new`. Who leaves goes first, because an address may change hands.
fn difference(old: &BTreeMap<Key, PeerConfig>, new: &BTreeMap<Key, PeerConfig>) -> Vec<Command> {
    let gone = old
        .iter()
        .filter(|(key, peer)| new.get(*key) != Some(*peer));
    let come = new
        .iter()
        .filter(|(key, peer)| old.get(*key) != Some(*peer));
    gone.map(|(key, _)| Command::RemovePeer(*key))
        .chain(come.map(|(_, peer)| Command::AddPeer(peer.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8, address: u8) -> PeerConfig {
        PeerConfig {
            public: [n; 32],
            name: format!("peer-{n}"),
            v4: Some([10, 77, 0, address].into()),
            v6: None,
        }
    }

    fn map(peers: &[PeerConfig]) -> BTreeMap<Key, PeerConfig> {
        peers
            .iter()
            .map(|peer| (peer.public, peer.clone()))
            .collect()
    }

    fn told(old: &[PeerConfig], new: &[PeerConfig]) -> Vec<String> {
        difference(&map(old), &map(new))
            .into_iter()
            .map(|command| match command {
                Command::AddPeer(peer) => format!("add {}", peer.name),
                Command::RemovePeer(key) => format!("remove peer-{}", key[0]),
                other => panic!("not about peers: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_peer_that_did_not_change_is_not_mentioned() {
        let peers = [peer(1, 2), peer(2, 3)];
        assert_eq!(told(&peers, &peers), [""; 0]);
        assert_eq!(
            told(&peers, &[peer(1, 2), peer(2, 3), peer(3, 4)]),
            ["add peer-3"]
        );
        assert_eq!(told(&peers, &[peer(2, 3)]), ["remove peer-1"]);
    }

    #[test]
    fn who_leaves_an_address_leaves_before_another_gets_it() {
        assert_eq!(
            told(&[peer(9, 2)], &[peer(1, 2)]),
            ["remove peer-9", "add peer-1"]
        );
        assert_eq!(
            told(&[peer(1, 2)], &[peer(1, 3)]),
            ["remove peer-1", "add peer-1"]
        );
    }

    #[test]
    fn the_first_sight_of_a_peer_is_kept_and_later_ones_do_not_move_it() {
        let at = Moment::from_unix_s;
        let mut all = Vec::new();
        let pools = peers::Pools {
            v4: Some("10.0.0.0/8".parse().unwrap()),
            v6: None,
        };
        peers::add(
            &mut all,
            "laptop",
            [1; 32],
            pools,
            at(100),
            Duration::from_secs(9),
        )
        .unwrap();
        mark_seen(&mut all, [1; 32], at(105));
        mark_seen(&mut all, [1; 32], at(200));
        mark_seen(&mut all, [2; 32], at(200));
        assert_eq!(all[0].first_seen, Some(at(105)));
    }
}
