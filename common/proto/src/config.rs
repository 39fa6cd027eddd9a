//! Settings of the core, as types that cannot be wrong. No file format lives here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::de::{self, IntoDeserializer};
use serde::{Deserialize, Serialize};

use crate::classify::Class;

/// A Curve25519 key, secret or public, as 32 raw bytes.
pub type Key = [u8; 32];

/// How paths are used for a class of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The sum of the links for bulk, the lowest latency for the rest.
    #[default]
    Aggregate,
    /// A second uplink only when the first is bad or gone.
    Handover,
    /// The lowest latency; what is not bulk is sent twice.
    Interactive,
    /// Everything on two paths.
    Redundant,
}

impl Mode {
    /// All of them, in the order of their two bits on the wire.
    pub const ALL: [Mode; 4] = [
        Mode::Aggregate,
        Mode::Handover,
        Mode::Interactive,
        Mode::Redundant,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Aggregate => "aggregate",
            Mode::Handover => "handover",
            Mode::Interactive => "interactive",
            Mode::Redundant => "redundant",
        }
    }
}

/// How a bond uses its paths: a mode for each class of flows.
///
/// Read from one word, which then holds for every class, or from a table that
/// names some classes; what it leaves out is `aggregate`. Always written as a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Modes {
    /// For calls, games, ping, DNS.
    pub realtime: Mode,
    /// For short or thin flows.
    pub interactive: Mode,
    /// For everything else.
    pub bulk: Mode,
}

impl Modes {
    /// The same mode for every class.
    pub fn all(mode: Mode) -> Self {
        Modes {
            realtime: mode,
            interactive: mode,
            bulk: mode,
        }
    }

    /// The mode of one class.
    pub fn of(&self, class: Class) -> Mode {
        match class {
            Class::Realtime => self.realtime,
            Class::Interactive => self.interactive,
            Class::Bulk => self.bulk,
        }
    }

    /// With another mode for one class, or for all.
    #[must_use]
    pub fn with(mut self, class: Option<Class>, mode: Mode) -> Self {
        match class {
            None => self = Modes::all(mode),
            Some(Class::Realtime) => self.realtime = mode,
            Some(Class::Interactive) => self.interactive = mode,
            Some(Class::Bulk) => self.bulk = mode,
        }
        self
    }

    /// The mode that holds for every class, if one does.
    pub fn single(&self) -> Option<Mode> {
        (*self == Modes::all(self.bulk)).then_some(self.bulk)
    }
}

impl From<Mode> for Modes {
    fn from(mode: Mode) -> Self {
        Modes::all(mode)
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(mode) => f.write_str(mode.name()),
            None => write!(
                f,
                "realtime {}, interactive {}, bulk {}",
                self.realtime.name(),
                self.interactive.name(),
                self.bulk.name()
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Modes {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Either form; a derived "untagged" enum would not say what is wrong.
        struct Form;

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Table {
            realtime: Mode,
            interactive: Mode,
            bulk: Mode,
        }

        impl<'de> de::Visitor<'de> for Form {
            type Value = Modes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode, or a table of modes by class")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Modes, E> {
                Mode::deserialize(word.into_deserializer()).map(Modes::all)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Modes, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Modes {
                    realtime: table.realtime,
                    interactive: table.interactive,
                    bulk: table.bulk,
                })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// What the operator allows an uplink to be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Used whenever it helps.
    #[default]
    Always,
    /// Used for what the `always` uplinks cannot carry.
    Secondary,
    /// Used only while no other works.
    Backup,
    /// Not used.
    Never,
}

/// What both ends of a bond need to know of themselves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The client's secret key.
    pub secret: Key,
    /// The server's public key.
    pub server: Key,
    /// The modes to start in.
    pub modes: Modes,
    /// Largest inner packet, in bytes, that is ever put on the wire.
    pub mtu: u16,
}

/// What a server needs to know of itself.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The server's secret key.
    pub secret: Key,
    /// Largest inner packet, in bytes, that is ever put on the wire.
    pub mtu: u16,
}

/// What a server knows of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The client's public key.
    pub public: Key,
    /// The name an operator gave it.
    pub name: String,
    /// Its inner IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its inner IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl PeerConfig {
    /// Its inner addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde::de::value::{Error, MapDeserializer};

    fn word(word: &str) -> Result<Modes, Error> {
        Modes::deserialize(word.into_deserializer())
    }

    fn table(entries: &[(&str, &str)]) -> Result<Modes, Error> {
        Modes::deserialize(MapDeserializer::new(entries.iter().copied()))
    }

    #[test]
    fn modes_are_one_word_or_a_table_by_class() {
        assert_eq!(word("redundant"), Ok(Modes::all(Mode::Redundant)));
        let calls_twice = Modes::default().with(Some(Class::Realtime), Mode::Redundant);
        assert_eq!(table(&[("realtime", "redundant")]), Ok(calls_twice));
        assert_eq!(
            calls_twice.to_string(),
            "realtime redundant, interactive aggregate, bulk aggregate"
        );
        for mode in Mode::ALL {
            assert_eq!(word(mode.name()), Ok(Modes::all(mode)));
            assert_eq!(Modes::all(mode).to_string(), mode.name());
        }
    }

    #[test]
    fn a_wrong_mode_or_class_is_named_with_the_right_ones() {
        for (result, wanted) in [
            (word("fast"), "aggregate"),
            (table(&[("bulk", "fast")]), "handover"),
            (table(&[("calls", "redundant")]), "realtime"),
        ] {
            let complaint = result.unwrap_err().to_string();
            assert!(complaint.contains(wanted), "{complaint}");
        }
    }
}
