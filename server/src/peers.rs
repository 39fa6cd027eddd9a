//! The peer store: who may connect, and under which inner addresses.
//!
//! It is a TOML file that people may read and edit; the file is the truth, and
//! the daemon and the command line are both only visitors. Two rules keep it
//! whole:
//!
//! * **A reader never sees half a file.** A change is written beside it, forced to
//!   the disk and moved into place. A crash at any moment leaves the old store or
//!   the new one, and at worst a left-over `.new` file that the next change
//!   overwrites.
//! * **A writer never loses another's change.** Every change locks a file of its
//!   own (`.lock`, which is never moved, unlike the store), reads the store,
//!   changes it and writes it, in that order.
//!
//! A join code holds the client's secret key, so it is dangerous for as long as
//! it lies in a chat unused. That is why a peer that was never seen stops being
//! admitted when its code expires, until `peer renew` gives it a new key and a
//! new code. Once a peer has been seen the expiry has done its work and no longer
//! counts: the client has the key now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::{Ipv4Net, Ipv6Net};
use marline_io::failure::{Class, Context, Failure};
use marline_io::{config_file, key};
use marline_proto::{Key, PeerConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::addresses;

/// Longest name of a peer, in bytes: fits a table's column and a DNS label.
pub const NAME_LEN_MAX: usize = 63;

/// A moment of the calendar, in whole seconds since 1970; RFC 3339 in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    unix_s: u64,
}

impl Moment {
    /// The last second that RFC 3339 can write, the end of the year 9999.
    const LAST: u64 = 253_402_300_799;

    /// The present, by the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Moment::from_unix_s(since.as_secs())
    }

    /// The moment `unix_s` seconds after the start of 1970, at most the end of the year 9999.
    pub fn from_unix_s(unix_s: u64) -> Self {
        Moment {
            unix_s: unix_s.min(Self::LAST),
        }
    }

    /// Seconds since 1970.
    pub fn unix_s(self) -> u64 {
        self.unix_s
    }

    /// The moment `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Moment::from_unix_s(self.unix_s.saturating_add(duration.as_secs()))
    }

    /// How long until this moment, seen from `now`; zero when it has passed.
    pub fn until(self, now: Moment) -> Duration {
        Duration::from_secs(self.unix_s.saturating_sub(now.unix_s))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_secs(self.unix_s);
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339_weak(&text).map_err(|_| {
            de::Error::custom(format_args!(
                "\"{text}\" is not a moment in UTC (for example \"2027-01-31T12:00:00Z\")"
            ))
        })?;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Moment::from_unix_s(since.as_secs()))
    }
}

/// A client's public key; base64 in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub Key);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        key::decode(&text).map(PublicKey).map_err(de::Error::custom)
    }
}

/// What the server knows of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The name the operator gave it.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its inner IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// Its inner IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
    /// When it was added.
    pub created: Moment,
    /// Until when its join code may be used for the first time; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_expires: Option<Moment>,
    /// When it first connected with its present key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Moment>,
}

/// How a peer stands with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has connected before.
    Known,
    /// Its join code waits for its first use.
    Invited,
    /// Its join code expired before it was used: it is not admitted.
    Expired,
}

impl Peer {
    /// How it stands at `now`.
    pub fn standing(&self, now: Moment) -> Standing {
        match (self.first_seen, self.code_expires) {
            (Some(_), _) => Standing::Known,
            (None, Some(expires)) if expires <= now => Standing::Expired,
            (None, _) => Standing::Invited,
        }
    }

    fn config(&self) -> PeerConfig {
        PeerConfig {
            public: self.public_key.0,
            name: self.name.clone(),
            v4: self.v4,
            v6: self.v6,
        }
    }
}

/// The pools that new peers get their addresses from.
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// Inner IPv4 addresses.
    pub v4: Option<Ipv4Net>,
    /// Inner IPv6 addresses.
    pub v6: Option<Ipv6Net>,
}

/// The peers that may connect at `now`, by their keys.
pub fn admitted(peers: &[Peer], now: Moment) -> BTreeMap<Key, PeerConfig> {
    peers
        .iter()
        .filter(|peer| peer.standing(now) != Standing::Expired)
        .map(|peer| (peer.public_key.0, peer.config()))
        .collect()
}

/// When the next join code expires unused.
pub fn next_expiry(peers: &[Peer], now: Moment) -> Option<Moment> {
    peers
        .iter()
        .filter(|peer| peer.standing(now) == Standing::Invited)
        .filter_map(|peer| peer.code_expires)
        .min()
}

/// Adds a peer with free addresses of both pools; its code may wait for `code_life`.
pub fn add(
    peers: &mut Vec<Peer>,
    name: &str,
    public: Key,
    pools: Pools,
    now: Moment,
    code_life: Duration,
) -> Result<Peer, Failure> {
    check_name(name).map_err(Failure::usage)?;
    if peers.iter().any(|peer| peer.name == name) {
        return Err(Failure::new(Class::Conflict, format!("a peer \"{name}\" exists already"))
            .with_advice(format!(
                "choose another name, or give it a new join code with \"marline-server peer renew {name}\""
            )));
    }
    let taken_v4: BTreeSet<_> = peers.iter().filter_map(|peer| peer.v4).collect();
    let taken_v6: BTreeSet<_> = peers.iter().filter_map(|peer| peer.v6).collect();
    let exhausted = |field: &str, pool: &dyn fmt::Display| {
        Failure::new(
            Class::Conflict,
            format!("the address pool {pool} is exhausted"),
        )
        .with_advice(format!(
            "remove peers or widen \"{field}\" in the configuration"
        ))
    };
    let v4 = pools
        .v4
        .map(|pool| addresses::next_v4(pool, &taken_v4).ok_or_else(|| exhausted("pool_v4", &pool)))
        .transpose()?;
    let v6 = pools
        .v6
        .map(|pool| addresses::next_v6(pool, &taken_v6).ok_or_else(|| exhausted("pool_v6", &pool)))
        .transpose()?;
    let peer = Peer {
        name: name.to_owned(),
        public_key: PublicKey(public),
        v4,
        v6,
        created: now,
        code_expires: Some(now.after(code_life)),
        first_seen: None,
    };
    peers.push(peer.clone());
    Ok(peer)
}

/// Gives a peer a new key and a new waiting time; its addresses stay.
pub fn renew(
    peers: &mut [Peer],
    name: &str,
    public: Key,
    now: Moment,
    code_life: Duration,
) -> Result<Peer, Failure> {
    let peer = peers
        .iter_mut()
        .find(|peer| peer.name == name)
        .ok_or_else(|| unknown(name))?;
    peer.public_key = PublicKey(public);
    peer.code_expires = Some(now.after(code_life));
    peer.first_seen = None;
    Ok(peer.clone())
}

/// Removes a peer; its addresses are free again.
pub fn remove(peers: &mut Vec<Peer>, name: &str) -> Result<Peer, Failure> {
    let at = peers
        .iter()
        .position(|peer| peer.name == name)
        .ok_or_else(|| unknown(name))?;
    Ok(peers.remove(at))
}

/// There is no peer of this name.
pub fn unknown(name: &str) -> Failure {
    Failure::usage(format!("there is no peer \"{name}\""))
        .with_advice("\"marline-server peer list\" shows which there are")
}

/// Whether `name` may be a peer's name; if not, why.
pub fn check_name(name: &str) -> Result<(), String> {
    let sound = name.len() <= NAME_LEN_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if sound {
        Ok(())
    } else {
        Err(format!(
            "\"{name}\" cannot be a peer's name: use 1 to {NAME_LEN_MAX} letters, digits, '-', '_' \
             and '.', a letter or digit first"
        ))
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    check_name(&name).map_err(de::Error::custom)?;
    Ok(name)
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default, rename = "peer")]
    peers: Vec<Peer>,
}

/// The peer store's file.
#[derive(Clone, Debug)]
pub struct PeerStore {
    path: PathBuf,
}

impl PeerStore {
    /// The store at `path`, which need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        PeerStore { path: path.into() }
    }

    /// All peers, in the order of the file. A store that does not exist is empty.
    pub fn read(&self) -> Result<Vec<Peer>, Failure> {
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                let content: Content = config_file::parse(&text, &self.path)?;
                check_unique(&content.peers, &self.path)?;
                Ok(content.peers)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Failure::io(
                format_args!("cannot read {}", self.path.display()),
                &error,
            )),
        }
    }

    /// Changes the store. Nothing is written when `change` fails or leaves it as it was.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Peer>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let name = self.path.display();
        if let Some(directory) = self.path.parent().filter(|d| !d.as_os_str().is_empty()) {
            fs::create_dir_all(directory)
                .context(format_args!("cannot make {}", directory.display()))?;
        }
        let lock = private()
            .create(true)
            .truncate(false)
            .open(self.beside(".lock"))
            .context(format_args!("cannot open the lock of {name}"))?;
        lock.lock().context(format_args!("cannot lock {name}"))?;
        let before = self.read()?;
        let mut after = before.clone();
        let result = change(&mut after)?;
        if after != before {
            check_unique(&after, &self.path)?;
            self.write(after)
                .context(format_args!("cannot write {name}"))?;
        }
        Ok(result)
    }

    fn write(&self, peers: Vec<Peer>) -> std::io::Result<()> {
        let body = toml::to_string(&Content { peers }).map_err(std::io::Error::other)?;
        let text = format!(
            "# The peers of a Marline server. Written by marline-server; after a change by hand,\n\
             # \"marline-server reload\" tells the running daemon.\n\n{body}"
        );
        let new = self.beside(".new");
        let mut file = private().create(true).truncate(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let directory = self.path.parent().filter(|d| !d.as_os_str().is_empty());
        // The move is on the disk only when its directory is.
        #[cfg(unix)]
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        #[cfg(not(unix))]
        let _ = directory;
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }
}

/// To write a file that only its owner may read.
fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Two peers with one name, key or address would make one of them unreachable.
fn check_unique(peers: &[Peer], path: &Path) -> Result<(), Failure> {
    let mut seen = BTreeMap::new();
    for peer in peers {
        let facts = [
            Some(format!("the name \"{}\"", peer.name)),
            Some(format!("the key {}", peer.public_key)),
            peer.v4.map(|address| format!("the address {address}")),
            peer.v6.map(|address| format!("the address {address}")),
        ];
        for fact in facts.into_iter().flatten() {
            if let Some(other) = seen.insert(fact.clone(), &peer.name) {
                return Err(Failure::usage(format!(
                    "{}: {fact} is given to two peers, \"{other}\" and \"{}\"",
                    path.display(),
                    peer.name
                ))
                .with_advice("correct the file or remove one of them"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment {
        unix_s: 1_800_000_000,
    };
    const HOUR: Duration = Duration::from_secs(3600);

    fn pools() -> Pools {
        Pools {
            v4: Some("10.77.0.0/16".parse().unwrap()),
            v6: Some("fd00:77::/64".parse().unwrap()),
        }
    }

    fn key(n: u8) -> Key {
        [n; 32]
    }

    fn store() -> (tempfile::TempDir, PeerStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = PeerStore::at(directory.path().join("state/peers.toml"));
        (directory, store)
    }

    fn add_to(store: &PeerStore, name: &str, n: u8) -> Result<Peer, Failure> {
        store.change(|peers| add(peers, name, key(n), pools(), NOW, HOUR))
    }

    #[test]
    fn what_is_added_is_read_again_and_keeps_its_addresses() {
        let (_directory, store) = store();
        assert_eq!(store.read().unwrap(), []);
        let laptop = add_to(&store, "laptop", 1).unwrap();
        let phone = add_to(&store, "phone", 2).unwrap();
        assert_eq!(laptop.v4, Some("10.77.0.2".parse().unwrap()));
        assert_eq!(phone.v4, Some("10.77.0.3".parse().unwrap()));
        assert_eq!(phone.v6, Some("fd00:77::3".parse().unwrap()));
        assert_eq!(store.read().unwrap(), [laptop.clone(), phone]);

        store.change(|peers| remove(peers, "phone")).unwrap();
        assert_eq!(store.read().unwrap(), [laptop]);
    }

    #[test]
    fn concurrent_writers_lose_nothing_and_never_share_an_address() {
        let (_directory, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..8u8 {
                        let n = thread * 8 + n;
                        add_to(store, &format!("peer-{n}"), n).unwrap();
                    }
                });
            }
        });
        let peers = store.read().unwrap();
        assert_eq!(peers.len(), 32);
        let addresses: BTreeSet<_> = peers.iter().map(|peer| peer.v4).collect();
        assert_eq!(addresses.len(), 32);
    }

    #[test]
    fn a_crash_before_the_move_leaves_the_old_store_and_does_not_hinder_the_next_change() {
        let (_directory, store) = store();
        let laptop = add_to(&store, "laptop", 1).unwrap();
        fs::write(store.beside(".new"), "[[peer]]\nname = \"half of a li").unwrap();
        assert_eq!(store.read().unwrap(), [laptop]);
        add_to(&store, "phone", 2).unwrap();
        assert_eq!(store.read().unwrap().len(), 2);
        assert!(!store.beside(".new").exists());
    }

    #[test]
    fn a_change_that_fails_writes_nothing() {
        let (_directory, store) = store();
        add_to(&store, "laptop", 1).unwrap();
        let before = fs::read_to_string(&store.path).unwrap();
        let failure = store
            .change(|peers| {
                peers.clear();
                Err::<(), _>(Failure::usage("no"))
            })
            .unwrap_err();
        assert_eq!(failure.sentence(), "no");
        assert_eq!(fs::read_to_string(&store.path).unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_store() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, store) = store();
        add_to(&store, "laptop", 1).unwrap();
        assert_eq!(
            fs::metadata(&store.path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_full_pool_says_so_and_names_the_setting() {
        let mut peers = Vec::new();
        let pools = Pools {
            v4: Some("10.0.0.0/30".parse().unwrap()),
            v6: None,
        };
        add(&mut peers, "only", key(1), pools, NOW, HOUR).unwrap();
        let failure = add(&mut peers, "second", key(2), pools, NOW, HOUR).unwrap_err();
        assert_eq!(failure.class(), Class::Conflict);
        assert!(
            failure.to_string().contains("10.0.0.0/30 is exhausted"),
            "{failure}"
        );
        assert!(failure.to_string().contains("pool_v4"), "{failure}");
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn a_peer_whose_code_expired_unused_is_not_admitted_until_renewed() {
        let mut peers = Vec::new();
        add(&mut peers, "laptop", key(1), pools(), NOW, HOUR).unwrap();
        assert!(admitted(&peers, NOW).contains_key(&key(1)));
        assert_eq!(next_expiry(&peers, NOW), Some(NOW.after(HOUR)));

        let late = NOW.after(HOUR);
        assert_eq!(peers[0].standing(late), Standing::Expired);
        assert!(admitted(&peers, late).is_empty());
        assert_eq!(next_expiry(&peers, late), None);

        let old = peers[0].clone();
        let renewed = renew(&mut peers, "laptop", key(2), late, HOUR).unwrap();
        assert_eq!((renewed.v4, renewed.v6), (old.v4, old.v6));
        assert_eq!(admitted(&peers, late).keys().collect::<Vec<_>>(), [&key(2)]);
    }

    #[test]
    fn a_peer_that_was_seen_stays_admitted_for_ever() {
        let mut peers = Vec::new();
        add(&mut peers, "laptop", key(1), pools(), NOW, HOUR).unwrap();
        peers[0].first_seen = Some(NOW);
        assert!(admitted(&peers, NOW.after(HOUR * 24 * 365)).contains_key(&key(1)));
        assert_eq!(next_expiry(&peers, NOW), None);
    }

    #[test]
    fn names_are_unique_and_plain() {
        let mut peers = Vec::new();
        add(&mut peers, "laptop", key(1), pools(), NOW, HOUR).unwrap();
        let failure = add(&mut peers, "laptop", key(2), pools(), NOW, HOUR).unwrap_err();
        assert!(
            failure.to_string().contains("peer renew laptop"),
            "{failure}"
        );
        for wrong in ["", "-x", "a b", "a\nb", "ü", &"x".repeat(64)] {
            let failure = add(&mut peers, wrong, key(3), pools(), NOW, HOUR).unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{wrong}");
        }
        assert!(
            remove(&mut peers, "nobody")
                .unwrap_err()
                .to_string()
                .contains("peer list")
        );
    }

    #[test]
    fn a_file_edited_wrongly_by_hand_is_refused_with_its_place() {
        let (_directory, store) = store();
        add_to(&store, "laptop", 1).unwrap();
        let good = fs::read_to_string(&store.path).unwrap();

        fs::write(&store.path, good.replace("name =", "nmae =")).unwrap();
        let text = store.read().unwrap_err().to_string();
        assert!(
            text.contains("peers.toml:") && text.contains("nmae"),
            "{text}"
        );

        fs::write(&store.path, good.replace("2027-", "the year 2027-")).unwrap();
        let text = store.read().unwrap_err().to_string();
        assert!(text.contains("is not a moment in UTC"), "{text}");

        let twice = format!("{good}\n{}", &good[good.find("[[peer]]").unwrap()..]);
        fs::write(&store.path, twice).unwrap();
        let text = store.read().unwrap_err().to_string();
        assert!(
            text.contains("the name \"laptop\" is given to two peers"),
            "{text}"
        );
    }
}
