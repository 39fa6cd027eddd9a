//! The join code: everything a client needs to reach its server, as one line of
//! text that survives a chat, a terminal and a QR code.
//!
//! A server prints it for each peer, and `marline join` turns it into a
//! configuration. It reads `marline1…`: Bech32m (BIP 350) with the prefix
//! `marline`, so the alphabet holds no characters that look alike, letter case
//! does not matter (a QR code of the upper-case form uses the compact
//! alphanumeric mode), and the checksum catches every change of up to three
//! characters and all but one in 2^30 of any others. White space inside is ignored, because
//! terminals and mail programs break long lines.
//!
//! The bytes inside, all numbers big-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version of this layout and of the protocol behind it: 1 |
//! | 5 | expiry, seconds since 1970 |
//! | 32 | the client's secret key |
//! | 32 | the server's public key |
//! | 1 | number of server endpoints, 1 to 8 |
//! | each | `4` + 4 address bytes, `6` + 16 address bytes, or `0` + length byte + host name; then 2 bytes of port |
//! | 1 | which of the following are there: bit 0 IPv4, bit 1 IPv6, bit 2 MTU |
//! | 4 | the client's inner IPv4 address |
//! | 16 | the client's inner IPv6 address |
//! | 2 | the largest inner packet, bytes |
//!
//! The code carries a secret: whoever holds it is the peer. That is why it
//! expires, and why its `Debug` form hides the key.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use marline_proto::Key;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::tun::MTU;

/// What every code starts with, before the separator `1`.
const PREFIX: &str = "marline";

/// The only layout this build reads and writes.
pub const VERSION: u8 = 1;

/// Most endpoints in one code: a server with more addresses than this lists its best ones.
/// Eight IPv6 addresses still give a QR code that a phone reads from a screen.
pub const ENDPOINTS_MAX: usize = 8;

/// Longest host name, bytes; DNS allows no more.
const HOST_LEN_MAX: usize = 253;

const HAS_V4: u8 = 1;
const HAS_V6: u8 = 2;
const HAS_MTU: u8 = 4;

/// Where a server listens: an address, or a name that is looked up at start.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ServerEndpoint {
    /// An IP address and a UDP port.
    Address(SocketAddr),
    /// A host name and a UDP port.
    Name {
        /// The host name.
        host: String,
        /// The UDP port.
        port: u16,
    },
}

impl ServerEndpoint {
    /// The UDP port.
    pub fn port(&self) -> u16 {
        match self {
            ServerEndpoint::Address(address) => address.port(),
            ServerEndpoint::Name { port, .. } => *port,
        }
    }
}

impl fmt::Display for ServerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerEndpoint::Address(address) => write!(f, "{address}"),
            ServerEndpoint::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl From<ServerEndpoint> for String {
    fn from(endpoint: ServerEndpoint) -> String {
        endpoint.to_string()
    }
}

impl TryFrom<String> for ServerEndpoint {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for ServerEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "write \"198.51.100.1:51900\", \"[2001:db8::1]:51900\" or \
                               \"vpn.example.org:51900\"";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(format!("\"{text}\" has port 0; {ALLOWED}"))
            } else {
                Ok(ServerEndpoint::Address(address))
            };
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(format!("\"{text}\" has no port; {ALLOWED}"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("\"{text}\" has no port; {ALLOWED}"));
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => {
                return Err(format!(
                    "\"{port}\" is not a port from 1 to 65535; {ALLOWED}"
                ));
            }
        };
        if !is_host_name(host) {
            return Err(format!(
                "\"{host}\" is neither an address nor a host name; {ALLOWED}"
            ));
        }
        Ok(ServerEndpoint::Name {
            host: host.to_owned(),
            port,
        })
    }
}

/// Letters, digits, hyphens and underscores between single dots. A name of
/// digits and dots alone is a mistyped address and is refused.
fn is_host_name(host: &str) -> bool {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= HOST_LEN_MAX
        && host
            .strip_suffix('.')
            .unwrap_or(host)
            .split('.')
            .all(label_ok)
        && host.bytes().any(|b| b.is_ascii_alphabetic())
}

/// The content of a join code.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// When the code stops being accepted, seconds since 1970.
    pub expires_unix_s: u64,
    /// The client's secret key.
    pub secret: Key,
    /// The server's public key.
    pub server: Key,
    /// Where the server listens, best first; one to [`ENDPOINTS_MAX`].
    pub endpoints: Vec<ServerEndpoint>,
    /// The client's inner IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The client's inner IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The largest inner packet, bytes, if the server asks for one; within [`MTU`].
    pub mtu: Option<u16>,
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinCode")
            .field("expires_unix_s", &self.expires_unix_s)
            .field("secret", &"hidden")
            .field("server", &crate::key::encode(&self.server))
            .field("endpoints", &self.endpoints)
            .field("v4", &self.v4)
            .field("v6", &self.v6)
            .field("mtu", &self.mtu)
            .finish()
    }
}

/// Why a text is not a usable join code, or a content cannot become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinCodeError {
    /// It does not begin with `marline1`.
    NotAJoinCode,
    /// The checksum does not fit: characters are missing, added or changed.
    Damaged,
    /// The checksum fits, but the content makes no sense; says what.
    Malformed(&'static str),
    /// It was valid until then, seconds since 1970.
    Expired {
        /// When it expired, seconds since 1970.
        at_unix_s: u64,
    },
    /// It is meant for another version of the protocol.
    OtherVersion {
        /// The version it is for.
        found: u8,
    },
    /// A code cannot carry this content; says why.
    CannotEncode(&'static str),
}

impl fmt::Display for JoinCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinCodeError::NotAJoinCode => {
                write!(
                    f,
                    "this is not a join code: a join code begins with \"{PREFIX}1\""
                )
            }
            JoinCodeError::Damaged => write!(
                f,
                "the join code is damaged: its checksum does not fit, so characters are missing \
                 or changed"
            ),
            JoinCodeError::Malformed(what) => {
                write!(
                    f,
                    "the join code makes no sense although its checksum fits: {what}"
                )
            }
            JoinCodeError::Expired { at_unix_s } => {
                let at = UNIX_EPOCH.checked_add(Duration::from_secs(*at_unix_s));
                match at {
                    // The expiry has 40 bits, the year is at most 36812.
                    Some(at) if *at_unix_s < 253_402_300_800 => write!(
                        f,
                        "the join code expired at {}",
                        humantime::format_rfc3339_seconds(at)
                    ),
                    _ => write!(
                        f,
                        "the join code expired at second {at_unix_s} of Unix time"
                    ),
                }
            }
            JoinCodeError::OtherVersion { found } => write!(
                f,
                "the join code is for protocol version {found}, and this program speaks version \
                 {VERSION}"
            ),
            JoinCodeError::CannotEncode(why) => write!(f, "no join code can be made: {why}"),
        }
    }
}

impl std::error::Error for JoinCodeError {}

impl From<JoinCodeError> for Failure {
    fn from(error: JoinCodeError) -> Failure {
        let advice = match &error {
            JoinCodeError::NotAJoinCode | JoinCodeError::Damaged => {
                "copy the whole line that `marline-server peer add` printed"
            }
            JoinCodeError::Malformed(_) | JoinCodeError::Expired { .. } => {
                "ask the server's operator for a new one"
            }
            JoinCodeError::OtherVersion { .. } => {
                "install the same release on the client and the server, then use a new code"
            }
            JoinCodeError::CannotEncode(_) => "correct the server's configuration",
        };
        Failure::usage(error.to_string()).with_advice(advice)
    }
}

impl JoinCode {
    /// The code as lower-case text. Upper-cased it is the same code, and smaller as a QR code.
    pub fn encode(&self) -> Result<String, JoinCodeError> {
        if self.mtu.is_some_and(|mtu| !MTU.contains(&mtu)) {
            return Err(JoinCodeError::CannotEncode("no client takes such an MTU"));
        }
        if self.endpoints.is_empty() {
            return Err(JoinCodeError::CannotEncode(
                "the server has no endpoint to offer",
            ));
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return Err(JoinCodeError::CannotEncode("more than 8 server endpoints"));
        }
        if self.v4.is_none() && self.v6.is_none() {
            return Err(JoinCodeError::CannotEncode("the peer has no inner address"));
        }
        if self.expires_unix_s >> 40 != 0 {
            return Err(JoinCodeError::CannotEncode(
                "the expiry is too far in the future",
            ));
        }
        let mut bytes = Vec::with_capacity(128);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.expires_unix_s.to_be_bytes()[3..]);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.server);
        bytes.push(self.endpoints.len() as u8);
        for endpoint in &self.endpoints {
            match endpoint {
                ServerEndpoint::Address(SocketAddr::V4(address)) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&address.ip().octets());
                }
                ServerEndpoint::Address(SocketAddr::V6(address)) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&address.ip().octets());
                }
                ServerEndpoint::Name { host, .. } if is_host_name(host) => {
                    bytes.push(0);
                    bytes.push(host.len() as u8);
                    bytes.extend_from_slice(host.as_bytes());
                }
                ServerEndpoint::Name { .. } => {
                    return Err(JoinCodeError::CannotEncode(
                        "an endpoint's host name is invalid",
                    ));
                }
            }
            bytes.extend_from_slice(&endpoint.port().to_be_bytes());
        }
        let flag = |there: bool, flag: u8| if there { flag } else { 0 };
        bytes.push(
            flag(self.v4.is_some(), HAS_V4)
                | flag(self.v6.is_some(), HAS_V6)
                | flag(self.mtu.is_some(), HAS_MTU),
        );
        bytes.extend(self.v4.iter().flat_map(Ipv4Addr::octets));
        bytes.extend(self.v6.iter().flat_map(Ipv6Addr::octets));
        bytes.extend(self.mtu.iter().flat_map(|mtu| mtu.to_be_bytes()));
        bech32::encode::<Bech32m>(Hrp::parse_unchecked(PREFIX), &bytes)
            .map_err(|_| JoinCodeError::CannotEncode("the endpoints' host names are too long"))
    }

    /// Reads a code at the time `now_unix_s`, seconds since 1970.
    pub fn decode(text: &str, now_unix_s: u64) -> Result<JoinCode, JoinCodeError> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        // Bytes, because a text may have a character that straddles the end of the prefix.
        let starts_right =
            text.as_bytes()
                .split_at_checked(PREFIX.len())
                .is_some_and(|(start, rest)| {
                    start.eq_ignore_ascii_case(PREFIX.as_bytes()) && !rest.is_empty()
                });
        if !starts_right {
            return Err(JoinCodeError::NotAJoinCode);
        }
        let checked =
            CheckedHrpstring::new::<Bech32m>(&text).map_err(|_| JoinCodeError::Damaged)?;
        if !checked.hrp().as_str().eq_ignore_ascii_case(PREFIX) {
            return Err(JoinCodeError::NotAJoinCode);
        }
        let bytes: Vec<u8> = checked.byte_iter().collect();
        let mut reader = Reader(&bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(JoinCodeError::OtherVersion { found: version });
        }
        let code = Self::decode_body(&mut reader)?;
        if !reader.0.is_empty() {
            return Err(JoinCodeError::Malformed("it is longer than its content"));
        }
        if code.expires_unix_s <= now_unix_s {
            return Err(JoinCodeError::Expired {
                at_unix_s: code.expires_unix_s,
            });
        }
        Ok(code)
    }

    fn decode_body(reader: &mut Reader<'_>) -> Result<JoinCode, JoinCodeError> {
        let mut expires = [0; 8];
        expires[3..].copy_from_slice(&reader.array::<5>()?);
        let secret = reader.array::<32>()?;
        let server = reader.array::<32>()?;
        let count = usize::from(reader.byte()?);
        if count == 0 || count > ENDPOINTS_MAX {
            return Err(JoinCodeError::Malformed(
                "it names no server endpoint, or too many",
            ));
        }
        let endpoints = (0..count)
            .map(|_| reader.endpoint())
            .collect::<Result<_, _>>()?;
        let flags = reader.byte()?;
        if flags & !(HAS_V4 | HAS_V6 | HAS_MTU) != 0 {
            return Err(JoinCodeError::Malformed(
                "it has a field this program does not know",
            ));
        }
        if flags & (HAS_V4 | HAS_V6) == 0 {
            return Err(JoinCodeError::Malformed(
                "it gives the client no inner address",
            ));
        }
        let v4 = (flags & HAS_V4 != 0)
            .then(|| reader.array::<4>())
            .transpose()?;
        let v6 = (flags & HAS_V6 != 0)
            .then(|| reader.array::<16>())
            .transpose()?;
        let mtu = (flags & HAS_MTU != 0)
            .then(|| reader.array::<2>().map(u16::from_be_bytes))
            .transpose()?;
        if mtu.is_some_and(|mtu| !MTU.contains(&mtu)) {
            return Err(JoinCodeError::Malformed(
                "it asks for an MTU that no client takes",
            ));
        }
        Ok(JoinCode {
            expires_unix_s: u64::from_be_bytes(expires),
            secret,
            server,
            endpoints,
            v4: v4.map(Ipv4Addr::from),
            v6: v6.map(Ipv6Addr::from),
            mtu,
        })
    }
}

/// Takes bytes off the front; running out of them is an error, never a panic.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    const SHORT: JoinCodeError = JoinCodeError::Malformed("it ends too early");

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JoinCodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Self::SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, JoinCodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn endpoint(&mut self) -> Result<ServerEndpoint, JoinCodeError> {
        let endpoint = match self.byte()? {
            4 => {
                let ip = IpAddr::from(self.array::<4>()?);
                ServerEndpoint::Address(SocketAddr::new(ip, self.port()?))
            }
            6 => {
                let ip = IpAddr::from(self.array::<16>()?);
                ServerEndpoint::Address(SocketAddr::new(ip, self.port()?))
            }
            0 => {
                let len = usize::from(self.byte()?);
                let (host, rest) = self.0.split_at_checked(len).ok_or(Self::SHORT)?;
                self.0 = rest;
                let host = std::str::from_utf8(host)
                    .ok()
                    .filter(|host| is_host_name(host))
                    .ok_or(JoinCodeError::Malformed(
                        "a server endpoint is not a host name",
                    ))?
                    .to_owned();
                ServerEndpoint::Name {
                    host,
                    port: self.port()?,
                }
            }
            _ => {
                return Err(JoinCodeError::Malformed(
                    "a server endpoint is of unknown kind",
                ));
            }
        };
        if endpoint.port() == 0 {
            return Err(JoinCodeError::Malformed("a server endpoint has port 0"));
        }
        Ok(endpoint)
    }

    fn port(&mut self) -> Result<u16, JoinCodeError> {
        self.array().map(u16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn code() -> JoinCode {
        JoinCode {
            expires_unix_s: NOW + 3600,
            secret: std::array::from_fn(|i| i as u8 * 7),
            server: std::array::from_fn(|i| 255 - i as u8),
            endpoints: vec![
                "198.51.100.1:51900".parse().expect("v4"),
                "[2001:db8::1]:51900".parse().expect("v6"),
                "vpn.example.org:443".parse().expect("name"),
            ],
            v4: Some(Ipv4Addr::new(10, 77, 0, 2)),
            v6: Some("fd77::2".parse().expect("v6")),
            mtu: Some(1400),
        }
    }

    /// Wraps arbitrary bytes the way a code is wrapped, checksum and all.
    fn wrap(bytes: &[u8]) -> String {
        bech32::encode::<Bech32m>(Hrp::parse_unchecked(PREFIX), bytes).expect("short enough")
    }

    fn unwrap(text: &str) -> Vec<u8> {
        CheckedHrpstring::new::<Bech32m>(text)
            .expect("valid")
            .byte_iter()
            .collect()
    }

    #[test]
    fn a_code_comes_back_as_it_went() {
        let text = code().encode().expect("encodes");
        assert!(text.starts_with("marline1"), "{text}");
        assert_eq!(JoinCode::decode(&text, NOW), Ok(code()));
        let lean = JoinCode {
            v6: None,
            mtu: None,
            ..code()
        };
        assert_eq!(
            JoinCode::decode(&lean.encode().expect("encodes"), NOW),
            Ok(lean)
        );
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = unwrap(&code().encode().expect("encodes"));
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[1..6], (NOW + 3600).to_be_bytes()[3..]);
        assert_eq!(bytes[6..38], code().secret);
        assert_eq!(bytes[38..70], code().server);
        assert_eq!(bytes[70..78], [3, 4, 198, 51, 100, 1, 0xca, 0xbc]);
        assert_eq!(bytes[78], 6);
        assert_eq!(bytes[97..99], [0, 15]);
        assert_eq!(&bytes[99..114], b"vpn.example.org");
        assert_eq!(bytes[114..121], [1, 187, 7, 10, 77, 0, 2]);
        assert_eq!(bytes[137..], [0x05, 0x78]);
    }

    #[test]
    fn upper_case_and_broken_lines_are_accepted() {
        let text = code().encode().expect("encodes").to_ascii_uppercase();
        let broken: String = text
            .as_bytes()
            .chunks(40)
            .map(|c| String::from_utf8_lossy(c) + " \r\n\t")
            .collect();
        assert_eq!(JoinCode::decode(&broken, NOW), Ok(code()));
    }

    #[test]
    fn any_single_changed_character_is_noticed() {
        let text = code().encode().expect("encodes");
        for at in 0..text.len() {
            for replacement in (b'!'..=b'~').map(char::from) {
                if text.as_bytes()[at] == replacement as u8 {
                    continue;
                }
                let mut damaged = text.clone();
                damaged.replace_range(at..=at, &replacement.to_string());
                let error = JoinCode::decode(&damaged, NOW).expect_err("noticed");
                if at < PREFIX.len() {
                    let expected = [JoinCodeError::NotAJoinCode, JoinCodeError::Damaged];
                    assert!(expected.contains(&error), "{at} {replacement}: {error:?}");
                } else {
                    assert_eq!(error, JoinCodeError::Damaged, "{at} {replacement}");
                }
            }
        }
    }

    #[test]
    fn a_missing_doubled_or_swapped_character_is_noticed() {
        let text = code().encode().expect("encodes");
        for at in PREFIX.len() + 1..text.len() {
            let mut missing = text.clone();
            let gone = missing.remove(at);
            assert_eq!(
                JoinCode::decode(&missing, NOW),
                Err(JoinCodeError::Damaged),
                "{at}"
            );
            let mut doubled = text.clone();
            doubled.insert(at, gone);
            assert_eq!(
                JoinCode::decode(&doubled, NOW),
                Err(JoinCodeError::Damaged),
                "{at}"
            );
            let mut swapped = text.clone().into_bytes();
            swapped.swap(at - 1, at);
            let swapped = String::from_utf8(swapped).expect("ascii");
            if swapped != text {
                assert_eq!(
                    JoinCode::decode(&swapped, NOW),
                    Err(JoinCodeError::Damaged),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn an_mtu_that_no_client_takes_is_neither_written_nor_read() {
        let bytes = unwrap(&code().encode().expect("encodes"));
        for mtu in [0, 1279, 1501, 2000, u16::MAX] {
            let strange = JoinCode {
                mtu: Some(mtu),
                ..code()
            };
            let error = strange.encode().expect_err("refused");
            assert!(error.to_string().contains("MTU"), "{error}");
            let written = [&bytes[..bytes.len() - 2], &mtu.to_be_bytes()].concat();
            let error = JoinCode::decode(&wrap(&written), NOW).expect_err("refused");
            assert!(error.to_string().contains("MTU"), "{error}");
        }
    }

    #[test]
    fn an_expired_code_says_when_it_expired() {
        let text = code().encode().expect("encodes");
        assert!(JoinCode::decode(&text, NOW + 3599).is_ok());
        let error = JoinCode::decode(&text, NOW + 3600).expect_err("expired");
        assert_eq!(
            error,
            JoinCodeError::Expired {
                at_unix_s: NOW + 3600
            }
        );
        assert_eq!(
            error.to_string(),
            "the join code expired at 2027-01-15T09:00:00Z"
        );
    }

    #[test]
    fn a_code_for_another_version_says_which() {
        let mut bytes = unwrap(&code().encode().expect("encodes"));
        bytes[0] = 9;
        let error = JoinCode::decode(&wrap(&bytes), NOW).expect_err("refused");
        assert_eq!(error, JoinCodeError::OtherVersion { found: 9 });
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn other_text_is_not_a_join_code() {
        for text in [
            "",
            "1",
            "marline",
            "hello",
            "wireguard1qqqq",
            "märline1",
            "marliné1",
            "marlines1qqq",
        ] {
            let error = JoinCode::decode(text, NOW).expect_err("refused");
            assert!(
                [JoinCodeError::NotAJoinCode, JoinCodeError::Damaged].contains(&error),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn content_that_ends_anywhere_is_refused_without_a_panic() {
        let bytes = unwrap(&code().encode().expect("encodes"));
        for len in 0..bytes.len() {
            let error = JoinCode::decode(&wrap(&bytes[..len]), NOW).expect_err("refused");
            assert!(
                matches!(error, JoinCodeError::Malformed(_)),
                "{len}: {error:?}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(JoinCode::decode(&wrap(&longer), NOW).is_err());
    }

    #[test]
    fn a_code_without_endpoint_or_address_cannot_be_made() {
        assert!(
            JoinCode {
                endpoints: vec![],
                ..code()
            }
            .encode()
            .is_err()
        );
        assert!(
            JoinCode {
                v4: None,
                v6: None,
                ..code()
            }
            .encode()
            .is_err()
        );
        let nine = vec!["198.51.100.1:51900".parse().expect("v4"); 9];
        assert!(
            JoinCode {
                endpoints: nine,
                ..code()
            }
            .encode()
            .is_err()
        );
        assert!(
            JoinCode {
                expires_unix_s: 1 << 40,
                ..code()
            }
            .encode()
            .is_err()
        );
    }

    #[test]
    fn the_secret_is_not_printed() {
        let text = format!("{:?}", code());
        assert!(
            text.contains("hidden") && !text.contains("secret: ["),
            "{text}"
        );
    }

    #[test]
    fn wrong_endpoints_say_what_is_wrong() {
        for (text, part) in [
            ("198.51.100.1", "no port"),
            ("2001:db8::1", "no port"),
            ("vpn.example.org", "no port"),
            ("vpn.example.org:0", "not a port"),
            ("vpn.example.org:70000", "not a port"),
            ("198.51.100.1:0", "port 0"),
            ("198.51.100.300:51900", "neither"),
            ("-a.example:51900", "neither"),
            ("a..b:51900", "neither"),
            (":51900", "neither"),
        ] {
            let error = text.parse::<ServerEndpoint>().expect_err(text);
            assert!(
                error.contains(part) && error.contains("write"),
                "{text}: {error}"
            );
        }
    }
}
