//! What was typed, what the file says and the defaults become one [`Settings`].
//!
//! The file is TOML and is checked in two steps. Each value is a type that
//! cannot hold nonsense (a key, an endpoint, an MTU within bounds), so the TOML
//! reader itself complains with file, line and field. What only shows when
//! fields are seen together (two private keys, two IPv4 addresses) is checked
//! afterwards, and the line is looked up again by the field's name.
//!
//! A file that holds or names the private key must not be readable by others:
//! whoever reads the key is this client.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use marline_io::config_file;
use marline_io::failure::{Class, Context, Failure};
use marline_io::join_code::{JoinCode, ServerEndpoint};
use marline_io::key;
use marline_io::tun::{MTU, Offload};
use marline_proto::{Key, Mode, Modes, Role};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Where the configuration is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/marline/client.toml";

/// Name of the TUN interface.
const DEFAULT_INTERFACE: &str = "marline0";

/// Largest inner packet, bytes, unless the server or the operator says otherwise.
///
/// 1400 and 100 bytes of headers (IPv6 40, UDP 8, WireGuard 32, frame 20) make
/// 1500; over IPv4 the datagram has 1480 bytes, so a hidden PPPoE hop (1492) on
/// a DSL line passes it too. 1420 would gain 0.1 % on IPv4 and break there.
const DEFAULT_MTU: u16 = 1400;

/// The mark of our own datagrams and the number of our routing table: "ma" in
/// ASCII, so that it is found in `ip rule` and collides with no tool's default.
const DEFAULT_MARK: u32 = 0x6d61;

/// A table number that is not main, local, default or unspecified.
const RESERVED_TABLES: [u32; 4] = [0, 253, 254, 255];

/// Which destinations go through the bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Routes {
    /// All that the machine does not reach directly.
    #[default]
    Default,
    /// These networks.
    #[serde(untagged)]
    Networks(Vec<IpNet>),
}

/// Everything that the client was told, resolved.
#[derive(Clone)]
pub struct Settings {
    /// The client's secret key.
    pub secret: Key,
    /// The server's public key.
    pub server: Key,
    /// Where the server listens, best first.
    pub endpoints: Vec<ServerEndpoint>,
    /// The inner addresses, at most one per IP version, with their prefix.
    pub addresses: Vec<IpNet>,
    /// The largest inner packet, bytes.
    pub mtu: u16,
    /// How the paths are used, by class of flows.
    pub modes: Modes,
    /// What goes through the bond.
    pub routes: Routes,
    /// Resolvers while the bond is up; empty leaves them alone.
    pub dns: Vec<IpAddr>,
    /// What the operator allows each named uplink.
    pub roles: BTreeMap<String, Role>,
    /// Interfaces that are never uplinks; `*` at the end stands for anything.
    pub ignore: Vec<String>,
    /// Name of the TUN interface.
    pub interface: String,
    /// Mark of our own datagrams.
    pub mark: u32,
    /// Our routing table.
    pub table: u32,
    /// What may pass between the kernel and us unfinished.
    pub offload: Offload,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("secret", &"hidden")
            .field("server", &key::encode(&self.server))
            .field("endpoints", &self.endpoints)
            .field("addresses", &self.addresses)
            .field("mtu", &self.mtu)
            .field("modes", &self.modes)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

/// What was typed and beats the file.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// `--mode`.
    pub mode: Option<Mode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    private_key: Option<KeyText>,
    private_key_file: Option<PathBuf>,
    addresses: Vec<IpNet>,
    mtu: Option<Mtu>,
    #[serde(default)]
    mode: Modes,
    #[serde(default)]
    routes: Routes,
    #[serde(default)]
    dns: Vec<IpAddr>,
    #[serde(default)]
    ignore: Vec<String>,
    interface: Option<InterfaceName>,
    fwmark: Option<Mark>,
    table: Option<Table>,
    #[serde(default)]
    offload: Offload,
    server: ServerSection,
    #[serde(default)]
    uplink: Vec<UplinkSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerSection {
    public_key: KeyText,
    endpoints: Vec<ServerEndpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UplinkSection {
    name: InterfaceName,
    #[serde(default)]
    role: Role,
}

/// A type that is read from text or a number and checked at once.
macro_rules! checked {
    ($name:ident, $raw:ty => $inner:ty, $check:expr) => {
        struct $name($inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let check: fn($raw) -> Result<$inner, String> = $check;
                check(<$raw>::deserialize(deserializer)?)
                    .map($name)
                    .map_err(de::Error::custom)
            }
        }
    };
}

checked!(KeyText, String => Key, |text| key::decode(&text).map_err(|failure| failure.to_string()));
checked!(Mtu, u16 => u16, |mtu| {
    if MTU.contains(&mtu) {
        Ok(mtu)
    } else {
        Err(format!("an MTU of {mtu} is not possible: use {} to {}", MTU.start(), MTU.end()))
    }
});
checked!(InterfaceName, String => String, |name| {
    let bad = |c: char| c.is_whitespace() || c == '/' || c == ':' || c.is_control();
    if name.is_empty() || name.len() > 15 || name.contains(bad) || name == "." || name == ".." {
        Err(format!(
            "\"{name}\" cannot be an interface's name: use 1 to 15 characters without spaces, \
             \"/\" and \":\""
        ))
    } else {
        Ok(name)
    }
});
checked!(Mark, u32 => u32, |mark| match mark {
    0 => Err("a mark of 0 marks nothing: use 1 to 4294967295".to_owned()),
    mark => Ok(mark),
});
checked!(Table, u32 => u32, |table| {
    if RESERVED_TABLES.contains(&table) {
        Err(format!("routing table {table} belongs to the system: use another number"))
    } else {
        Ok(table)
    }
});

impl<'de> Deserialize<'de> for Routes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoutesVisitor;
        impl<'de> Visitor<'de> for RoutesVisitor {
            type Value = Routes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"default\" or a list of networks such as [\"10.0.0.0/8\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Routes, E> {
                match text {
                    "default" => Ok(Routes::Default),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Routes, A::Error> {
                let mut networks = Vec::new();
                while let Some(network) = seq.next_element::<IpNet>()? {
                    if network.addr() != network.network() {
                        return Err(de::Error::custom(format!(
                            "{network} is an address within a network: write {}",
                            network.trunc()
                        )));
                    }
                    networks.push(network);
                }
                Ok(Routes::Networks(networks))
            }
        }
        deserializer.deserialize_any(RoutesVisitor)
    }
}

/// Reads the file at `path` and resolves it with what was typed.
pub fn load(path: &Path, typed: &Typed) -> Result<Settings, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        let failure = Failure::io(format!("cannot read {}", path.display()), &error);
        match error.kind() {
            std::io::ErrorKind::NotFound => failure
                .in_class(Class::Usage)
                .with_advice("run `marline join CODE` first, or name a file with --config"),
            std::io::ErrorKind::InvalidData => failure.in_class(Class::Usage),
            _ => failure,
        }
    })?;
    resolve(&text, path, typed)
}

/// Resolves the text of a file; `path` is for complaints, for relative names and for the
/// check of its permissions.
fn resolve(text: &str, path: &Path, typed: &Typed) -> Result<Settings, Failure> {
    let file: File = config_file::parse(text, path)?;
    let complain = |field: &str, sentence: String| {
        let place = config_file::place_of(text, path, field);
        Failure::usage(format!("{place}: {field}: {sentence}"))
    };
    let secret = match (file.private_key, file.private_key_file) {
        (Some(KeyText(secret)), None) => {
            refuse_if_readable_by_others(path)?;
            secret
        }
        (None, Some(name)) => {
            let key = path.parent().unwrap_or(Path::new("/")).join(name);
            if !key.try_exists().unwrap_or(true) {
                return Err(
                    config_file::no_key_file(text, path, "private_key_file", &key).with_advice(
                        "put a private key there that `marline keygen` printed, or run \
                         `marline join --force CODE`, which writes a new configuration with its key",
                    ),
                );
            }
            read_key(&key)?
        }
        (Some(_), Some(_)) => {
            return Err(complain(
                "private_key_file",
                "there is a private_key as well; keep one of the two".to_owned(),
            ));
        }
        (None, None) => {
            return Err(complain(
                "private_key",
                "it is missing, and so is private_key_file; give one of the two".to_owned(),
            ));
        }
    };
    if file.server.endpoints.is_empty() {
        return Err(complain(
            "endpoints",
            "the list is empty; give at least one".to_owned(),
        ));
    }
    if file.addresses.is_empty() {
        return Err(complain(
            "addresses",
            "the list is empty; give at least one".to_owned(),
        ));
    }
    for (version, is_it) in [("IPv4", true), ("IPv6", false)] {
        if file
            .addresses
            .iter()
            .filter(|net| net.addr().is_ipv4() == is_it)
            .count()
            > 1
        {
            return Err(complain(
                "addresses",
                format!("more than one {version} address"),
            ));
        }
    }
    let mut roles = BTreeMap::new();
    for UplinkSection {
        name: InterfaceName(name),
        role,
    } in file.uplink
    {
        if roles.insert(name.clone(), role).is_some() {
            return Err(complain("uplink", format!("\"{name}\" is described twice")));
        }
    }
    let interface = file
        .interface
        .map_or(DEFAULT_INTERFACE.to_owned(), |InterfaceName(n)| n);
    if roles.contains_key(&interface) {
        return Err(complain(
            "uplink",
            format!("\"{interface}\" is Marline's own interface"),
        ));
    }
    Ok(Settings {
        secret,
        server: file.server.public_key.0,
        endpoints: file.server.endpoints,
        addresses: file.addresses,
        mtu: file.mtu.map_or(DEFAULT_MTU, |Mtu(mtu)| mtu),
        modes: typed.mode.map_or(file.mode, Modes::all),
        routes: file.routes,
        dns: file.dns,
        roles,
        ignore: file.ignore,
        interface,
        mark: file.fwmark.map_or(DEFAULT_MARK, |Mark(mark)| mark),
        table: file.table.map_or(DEFAULT_MARK, |Table(table)| table),
        offload: file.offload,
    })
}

fn read_key(path: &Path) -> Result<Key, Failure> {
    refuse_if_readable_by_others(path)?;
    let text =
        fs::read_to_string(path).context(format!("cannot read the key in {}", path.display()))?;
    key::decode(&text).context(path.display())
}

#[cfg(unix)]
fn refuse_if_readable_by_others(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)
        .context(format!("cannot look at {}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} holds a private key, and others can read it (mode {:04o})",
        path.display(),
        mode & 0o7777
    ))
    .with_advice(format!("run `chmod 600 {}`", path.display())))
}

#[cfg(not(unix))]
fn refuse_if_readable_by_others(_path: &Path) -> Result<(), Failure> {
    Ok(())
}

/// The configuration file that a join code stands for.
pub fn file_from_join_code(code: &JoinCode) -> String {
    let quoted = |items: Vec<String>| {
        items
            .iter()
            .map(|item| format!("\"{item}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let addresses = code
        .v4
        .map(|v4| format!("{v4}/32"))
        .into_iter()
        .chain(code.v6.map(|v6| format!("{v6}/128")))
        .collect();
    let endpoints = code
        .endpoints
        .iter()
        .map(ServerEndpoint::to_string)
        .collect();
    let mtu = code
        .mtu
        .map(|mtu| format!("mtu = {mtu}\n"))
        .unwrap_or_default();
    format!(
        "# Written by `marline join`. The private key is this machine's identity: keep it secret.\n\
         private_key = \"{secret}\"\n\
         addresses = [{addresses}]\n\
         {mtu}\
         routes = \"default\"\n\
         \n\
         [server]\n\
         public_key = \"{server}\"\n\
         endpoints = [{endpoints}]\n",
        secret = key::encode(&code.secret),
        addresses = quoted(addresses),
        server = key::encode(&code.server),
        endpoints = quoted(endpoints),
    )
}

#[cfg(test)]
mod tests;
