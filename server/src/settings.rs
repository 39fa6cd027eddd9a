//! The server's settings: what may stand in the file, and what it means.
//!
//! The file is read into [`Settings`] in one step: every value that can be wrong
//! is checked while it is read, so that the complaint carries its line and
//! column. What only shows when two fields are seen together (no pool at all, two
//! private keys) is checked afterwards and names the fields. Nothing later in
//! the program has to ask again whether a setting makes sense.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use marline_io::failure::{Context, Failure};
use marline_io::join_code::{ENDPOINTS_MAX, ServerEndpoint};
use marline_io::tun::{MTU, Offload};
use marline_io::{config_file, key};
use marline_proto::{Key, limits};
use serde::{Deserialize, Deserializer, de};

use crate::addresses::{self, LONGEST_V4_PREFIX, LONGEST_V6_PREFIX};

/// Where the settings are when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/marline/server.toml";

/// The UDP port when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 51900;

/// The inner MTU when nobody says otherwise: a 1,500-byte link less IPv6 and UDP
/// (48), WireGuard's envelope (32) and our frame header (20).
pub const DEFAULT_MTU: u16 = 1400;

/// `[::]` and `0.0.0.0` on the default port.
fn default_listen() -> Vec<SocketAddr> {
    listen_on(DEFAULT_PORT)
}

/// Every address of the machine, both IP versions, on one port.
pub fn listen_on(port: u16) -> Vec<SocketAddr> {
    vec![
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ]
}

fn default_interface() -> String {
    "marline0".to_owned()
}

fn default_mtu() -> u16 {
    DEFAULT_MTU
}

fn default_nat() -> bool {
    true
}

/// Workers at most when nobody says how many: one carries more than a gigabit per second
/// (docs/benchmarks.md), and the other cores of a large machine are there for somebody else.
const DEFAULT_WORKERS_MAX: usize = 4;

fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(DEFAULT_WORKERS_MAX)
}

fn default_peers() -> PathBuf {
    PathBuf::from("/var/lib/marline/peers.toml")
}

/// The settings of a server, checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where they were read, for complaints.
    #[serde(skip)]
    file: PathBuf,
    /// The server's secret key in base64; either this or `private_key_file`.
    #[serde(default, deserialize_with = "secret_key")]
    private_key: Option<Key>,
    /// A file that holds the secret key in base64.
    private_key_file: Option<PathBuf>,
    /// Where datagrams are received.
    #[serde(default = "default_listen", deserialize_with = "listen")]
    pub listen: Vec<SocketAddr>,
    /// Under which names clients reach the server: what goes into join codes.
    #[serde(default, deserialize_with = "endpoints")]
    pub endpoints: Vec<ServerEndpoint>,
    /// Inner IPv4 addresses, the server's own among them.
    #[serde(default, deserialize_with = "pool_v4")]
    pub pool_v4: Option<Ipv4Net>,
    /// Inner IPv6 addresses, the server's own among them.
    #[serde(default, deserialize_with = "pool_v6")]
    pub pool_v6: Option<Ipv6Net>,
    /// The TUN interface's name.
    #[serde(default = "default_interface", deserialize_with = "interface")]
    pub interface: String,
    /// The largest inner packet, in bytes.
    #[serde(default = "default_mtu", deserialize_with = "mtu")]
    pub mtu: u16,
    /// Whether clients go out under the server's own addresses.
    #[serde(default = "default_nat")]
    pub nat: bool,
    /// How many loops move packets, each on a core of its own, with a part of the peers.
    #[serde(default = "default_workers", deserialize_with = "workers")]
    pub workers: usize,
    /// What may pass between the kernel and us unfinished.
    #[serde(default)]
    pub offload: Offload,
    /// The peer store.
    #[serde(default = "default_peers")]
    pub peers: PathBuf,
}

impl Settings {
    /// Reads and checks the file. Relative paths in it start at its own directory.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let settings: Settings = config_file::load(path).map_err(|failure| {
            if path.exists() {
                failure
            } else {
                failure.with_advice("\"marline-server init\" writes one")
            }
        })?;
        settings.resolved(path)
    }

    fn resolved(mut self, path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        match (&self.private_key, &self.private_key_file) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(format!(
                    "{name}: \"private_key\" and \"private_key_file\" are both given"
                ))
                .with_advice("keep one of them"));
            }
            (None, None) => {
                return Err(Failure::usage(format!("{name}: \"private_key_file\" is missing"))
                    .with_advice(
                        "name a file that \"marline-server keygen\" wrote, or run \"marline-server init\"",
                    ));
            }
            _ => {}
        }
        if self.pool_v4.is_none() && self.pool_v6.is_none() {
            return Err(Failure::usage(format!(
                "{name}: neither \"pool_v4\" nor \"pool_v6\" is given, so no client could have an address"
            ))
            .with_advice("add for example pool_v4 = \"10.77.0.0/16\""));
        }
        self.file = path.to_owned();
        let directory = path.parent().unwrap_or(Path::new(""));
        self.peers = directory.join(&self.peers);
        self.private_key_file = self.private_key_file.map(|file| directory.join(file));
        Ok(self)
    }

    /// The server's secret key, from the settings or the file they name.
    pub fn secret(&self) -> Result<Key, Failure> {
        match (&self.private_key, &self.private_key_file) {
            (Some(secret), _) => Ok(*secret),
            (None, Some(file)) => {
                let name = file.display();
                if !file.try_exists().unwrap_or(true) {
                    return Err(self.no_key_file(file));
                }
                let text = std::fs::read_to_string(file)
                    .context(format_args!("cannot read the private key {name}"))?;
                key::decode(&text).context(name)
            }
            (None, None) => unreachable!("loading refused settings without a key"),
        }
    }

    fn no_key_file(&self, key: &Path) -> Failure {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        config_file::no_key_file(&text, &self.file, "private_key_file", key).with_advice(format!(
            "\"marline-server keygen --out {}\" makes one",
            key.display()
        ))
    }

    /// The file of the secret key, if it is not in the settings themselves.
    #[cfg(unix)]
    pub fn secret_file(&self) -> Option<&Path> {
        self.private_key_file.as_deref()
    }

    /// The server's own inner addresses with the lengths of their prefixes in bits.
    pub fn own_addresses(&self) -> Vec<(IpAddr, u8)> {
        let v4 = self
            .pool_v4
            .map(|pool| (addresses::server_v4(pool).into(), pool.prefix_len()));
        let v6 = self
            .pool_v6
            .map(|pool| (addresses::server_v6(pool).into(), pool.prefix_len()));
        v4.into_iter().chain(v6).collect()
    }
}

fn secret_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Key>, D::Error> {
    let text = String::deserialize(deserializer)?;
    key::decode(&text).map(Some).map_err(de::Error::custom)
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.is_empty() {
        return Err(de::Error::custom(
            "\"listen\" is empty: name at least one address and port, for example \"0.0.0.0:51900\"",
        ));
    }
    let mut addresses = Vec::new();
    for text in texts {
        let address: SocketAddr = text.parse().map_err(|_| {
            de::Error::custom(format_args!(
                "\"{text}\" is not ADDRESS:PORT with a numeric address (for example \
                 \"0.0.0.0:51900\" or \"[::]:51900\")"
            ))
        })?;
        if addresses.contains(&address) {
            return Err(de::Error::custom(format_args!("\"{text}\" is given twice")));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ServerEndpoint>, D::Error> {
    let endpoints = Vec::<ServerEndpoint>::deserialize(deserializer)?;
    if endpoints.len() > ENDPOINTS_MAX {
        return Err(de::Error::custom(format_args!(
            "\"endpoints\" has {} entries: a join code carries at most {ENDPOINTS_MAX}",
            endpoints.len()
        )));
    }
    Ok(endpoints)
}

/// A pool as typed or read: a network, with no bits set behind its prefix.
pub fn parse_pool_v4(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not an IPv4 network (for example 10.77.0.0/16)"))?;
    if net.addr() != net.network() {
        return Err(format!(
            "\"{text}\" has bits behind its prefix: write {}",
            net.trunc()
        ));
    }
    if !(1..=LONGEST_V4_PREFIX).contains(&net.prefix_len()) {
        return Err(format!(
            "\"{text}\" cannot be a pool: use a prefix of /1 to /{LONGEST_V4_PREFIX}"
        ));
    }
    Ok(net)
}

/// A pool as typed or read: a network, with no bits set behind its prefix.
pub fn parse_pool_v6(text: &str) -> Result<Ipv6Net, String> {
    let net: Ipv6Net = text.parse().map_err(|_| {
        format!("\"{text}\" is not an IPv6 network (for example fd12:3456:789a::/64)")
    })?;
    if net.addr() != net.network() {
        return Err(format!(
            "\"{text}\" has bits behind its prefix: write {}",
            net.trunc()
        ));
    }
    if !(1..=LONGEST_V6_PREFIX).contains(&net.prefix_len()) {
        return Err(format!(
            "\"{text}\" cannot be a pool: use a prefix of /1 to /{LONGEST_V6_PREFIX}"
        ));
    }
    Ok(net)
}

fn pool_v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    parse_pool_v4(&String::deserialize(deserializer)?)
        .map(Some)
        .map_err(de::Error::custom)
}

fn pool_v6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv6Net>, D::Error> {
    parse_pool_v6(&String::deserialize(deserializer)?)
        .map(Some)
        .map_err(de::Error::custom)
}

/// An interface's name, fit for the kernel, for nftables and for a path under `/proc/sys`.
pub fn parse_interface(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let sound = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && text.len() <= 15
        && !["all", "default", "lo"].contains(&text);
    if sound {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "\"{text}\" cannot be an interface's name: use 1 to 15 letters, digits, '-' and '_', a letter first"
        ))
    }
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parse_interface(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let mtu = u32::deserialize(deserializer)?;
    u16::try_from(mtu)
        .ok()
        .filter(|mtu| MTU.contains(mtu))
        .ok_or_else(|| {
            de::Error::custom(format_args!(
                "\"mtu\" is {mtu}: use {} to {} bytes",
                MTU.start(),
                MTU.end()
            ))
        })
}

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let workers = i64::deserialize(deserializer)?;
    usize::try_from(workers)
        .ok()
        .filter(|workers| (1..=limits::WORKERS).contains(workers))
        .ok_or_else(|| {
            let most = limits::WORKERS;
            de::Error::custom(format_args!(
                "\"workers\" is {workers}: use 1 to {most}, or leave it out for one per core, at most four"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn parse(text: &str) -> Result<Settings, Failure> {
        let name = Path::new("/etc/marline/server.toml");
        config_file::parse::<Settings>(text, name)?.resolved(name)
    }

    fn complaint(text: &str) -> String {
        let failure = parse(text).expect_err("the settings are wrong");
        assert_eq!(failure.exit_code(), 2, "{failure}");
        failure.to_string()
    }

    #[test]
    fn a_key_and_a_pool_are_enough() {
        let settings =
            parse("private_key_file = \"server.key\"\npool_v4 = \"10.77.0.0/16\"\n").unwrap();
        assert_eq!(
            settings.secret_file(),
            Some(Path::new("/etc/marline/server.key"))
        );
        assert_eq!(settings.interface, "marline0");
        assert_eq!(settings.listen, listen_on(51900));
        assert_eq!(settings.peers, Path::new("/var/lib/marline/peers.toml"));
        assert!(settings.nat);
        assert!(
            (1..=4).contains(&settings.workers),
            "one per core, at most four"
        );
        let own: IpAddr = "10.77.0.1".parse().unwrap();
        assert_eq!(settings.own_addresses(), [(own, 16)]);
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line_and_what_is_allowed() {
        let text = complaint(&format!(
            "private_key = \"{KEY}\"\n\npool4 = \"10.0.0.0/8\"\n"
        ));
        assert!(text.contains("/etc/marline/server.toml:3:1"), "{text}");
        assert!(text.contains("pool4") && text.contains("pool_v4"), "{text}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line_and_what_would_do() {
        for (line, expected) in [
            ("pool_v4 = \"10.77.0.1/16\"", "write 10.77.0.0/16"),
            ("pool_v4 = \"10.77.0.0/31\"", "/1 to /30"),
            ("pool_v4 = \"10.77\"", "10.77.0.0/16"),
            ("pool_v6 = \"fd00::1/64\"", "write fd00::/64"),
            ("mtu = 500", "1280 to 1500"),
            ("mtu = 1501", "1280 to 1500"),
            ("mtu = \"big\"", "string"),
            ("interface = \"my tunnel\"", "1 to 15 letters"),
            ("interface = \"../../x\"", "1 to 15 letters"),
            ("listen = []", "\"listen\" is empty"),
            ("listen = [\"example.net:51900\"]", "numeric address"),
            ("listen = [\"[::]:1\", \"[::]:1\"]", "twice"),
            ("endpoints = [\"vpn.example.net\"]", "has no port"),
            ("private_key = \"short\"", "44 characters"),
            ("nat = 1", "true or false"),
            ("workers = 0", "1 to 16"),
            ("workers = 17", "one per core, at most four"),
            ("workers = -1", "1 to 16"),
            ("workers = \"all\"", "string"),
            ("offload = \"none\"", "`all`, `tcp`, `off`"),
        ] {
            let text = complaint(&format!("# settings\n{line}\n"));
            assert!(text.contains("server.toml:2:"), "{line}: {text}");
            assert!(text.contains(expected), "{line}: {text}");
        }
    }

    #[test]
    fn fields_that_exclude_or_need_each_other_are_named() {
        let both = complaint(&format!(
            "private_key = \"{KEY}\"\nprivate_key_file = \"x\"\npool_v4 = \"10.0.0.0/8\""
        ));
        assert!(both.contains("both given"), "{both}");
        assert!(complaint("pool_v4 = \"10.0.0.0/8\"").contains("\"private_key_file\" is missing"));
        assert!(complaint(&format!("private_key = \"{KEY}\"")).contains("neither \"pool_v4\""));
    }

    fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../deploy/examples")
            .join(name)
    }

    #[test]
    fn the_examples_that_are_shipped_can_be_loaded() {
        for name in ["server.toml", "server-full.toml"] {
            let settings = Settings::load(&example(name)).unwrap();
            assert!(!settings.endpoints.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_full_example_shows_every_field_with_its_default() {
        let text = std::fs::read_to_string(example("server-full.toml")).unwrap();
        let complaint = complaint("no_such_field = 1");
        let (_, allowed) = complaint
            .split_once("expected one of")
            .expect("the complaint lists what is allowed");
        let fields: Vec<&str> = allowed.split('`').skip(1).step_by(2).collect();
        assert_eq!(fields.len(), 12, "{complaint}");
        for field in fields {
            assert!(text.contains(&format!("{field} = ")), "{field} is missing");
        }
        let full = Settings::load(&example("server-full.toml")).unwrap();
        let lean = Settings::load(&example("server.toml")).unwrap();
        assert_eq!(
            (full.listen, full.interface, full.mtu, full.nat, full.peers),
            (lean.listen, lean.interface, lean.mtu, lean.nat, lean.peers)
        );
        assert_eq!(full.offload, lean.offload);
    }
}
