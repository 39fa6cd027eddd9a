//! `marline-server init`: everything a new server needs, in one step.
//!
//! It writes two files: the settings, with every choice spelled out so that they
//! can be read and changed, and the secret key beside them. Whatever was not typed
//! is chosen: a random unique-local IPv6 pool, and as endpoints the addresses at
//! which this machine can likely be reached.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use marline_io::failure::{Class, Context, Failure};
use marline_io::join_code::ServerEndpoint;
use marline_io::key;
use serde::Serialize;

use crate::addresses;
use crate::peers::PublicKey;

/// What was typed.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Under which names clients reach the server; guessed when empty.
    pub endpoints: Vec<ServerEndpoint>,
    /// The UDP port.
    pub port: u16,
    /// Inner IPv4 addresses.
    pub pool_v4: Ipv4Net,
    /// Inner IPv6 addresses; random when not given.
    pub pool_v6: Option<Ipv6Net>,
    /// The TUN interface's name.
    pub interface: String,
    /// Whether clients go out under the server's own addresses.
    pub nat: bool,
    /// The peer store.
    pub peers: PathBuf,
    /// Whether settings that exist may be overwritten.
    pub force: bool,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// The settings' file.
    pub config: PathBuf,
    /// The secret key's file.
    pub key_file: PathBuf,
    /// Whether the key existed before and was kept.
    pub key_kept: bool,
    /// The server's public key.
    pub public_key: PublicKey,
    /// What will stand in join codes.
    pub endpoints: Vec<ServerEndpoint>,
    /// Whether the endpoints were guessed.
    pub endpoints_guessed: bool,
    /// Inner IPv4 addresses.
    pub pool_v4: Ipv4Net,
    /// Inner IPv6 addresses.
    pub pool_v6: Ipv6Net,
}

/// Writes the settings to `config` and the key beside it. `local` are this machine's addresses.
pub fn init(config: &Path, wishes: &Wishes, local: &[IpAddr]) -> Result<Made, Failure> {
    if !wishes.force && config.exists() {
        return Err(Failure::new(
            Class::Conflict,
            format!("{} exists already", config.display()),
        )
        .with_advice("to write it anew, say --force (the key and the peers are kept)"));
    }
    let guessed = wishes.endpoints.is_empty();
    let endpoints = match guessed {
        true => guess_endpoints(local, wishes.port),
        false => wishes.endpoints.clone(),
    };
    let pool_v6 = match wishes.pool_v6 {
        Some(pool) => pool,
        None => {
            let seed = key::fresh_seed()?;
            addresses::unique_local(*seed.first_chunk().expect("seven bytes of thirty-two"))
        }
    };

    let directory = config
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(directory).context(format_args!("cannot make {}", directory.display()))?;
    let key_file = directory.join("server.key");
    let (secret, key_kept) = match fs::read_to_string(&key_file) {
        Ok(text) => (key::decode(&text).context(key_file.display())?, true),
        Err(error) if error.kind() == ErrorKind::NotFound => (key::generate()?, false),
        Err(error) => {
            return Err(Failure::io(
                format_args!("cannot read {}", key_file.display()),
                &error,
            ));
        }
    };
    if !key_kept {
        write_private(&key_file, &format!("{}\n", key::encode(&secret)))?;
    }
    write_private(config, &settings_text(wishes, &endpoints, pool_v6))?;
    Ok(Made {
        config: config.to_owned(),
        key_file,
        key_kept,
        public_key: PublicKey(key::public_of(&secret)),
        endpoints,
        endpoints_guessed: guessed,
        pool_v4: wishes.pool_v4,
        pool_v6,
    })
}

/// Writes a file that only its owner may read, in one step.
pub fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    written.context(format_args!("cannot write {}", path.display()))
}

fn settings_text(wishes: &Wishes, endpoints: &[ServerEndpoint], pool_v6: Ipv6Net) -> String {
    let quoted: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    let Wishes {
        port,
        pool_v4,
        interface,
        nat,
        peers,
        ..
    } = wishes;
    let peers = toml::Value::String(peers.display().to_string());
    format!(
        "# A Marline server. \"marline-server plan\" shows what it would change on this machine.\n\
         \n\
         # The secret key; relative paths start at this file's directory.\n\
         private_key_file = \"server.key\"\n\
         \n\
         # Where clients reach this server: what goes into join codes.\n\
         endpoints = [{}]\n\
         \n\
         # Where it listens.\n\
         listen = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n\
         \n\
         # Addresses inside the tunnel; the first of each is the server's own.\n\
         pool_v4 = \"{pool_v4}\"\n\
         pool_v6 = \"{pool_v6}\"\n\
         \n\
         # The tunnel's interface, and whether clients go out under the server's own addresses.\n\
         interface = \"{interface}\"\n\
         nat = {nat}\n\
         \n\
         # Who may connect; \"marline-server peer add NAME\" adds to it.\n\
         peers = {peers}\n",
        quoted.join(", "),
    )
}

/// The addresses at which others likely reach this machine: public ones of both IP versions, or,
/// where there is none, the private ones, which serve at least the local network.
fn guess_endpoints(local: &[IpAddr], port: u16) -> Vec<ServerEndpoint> {
    let usable = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast())
        }
        // Unique-local and link-local addresses reach nobody outside.
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    };
    let usable: Vec<IpAddr> = local.iter().filter(usable).copied().collect();
    let public: Vec<IpAddr> = usable.iter().filter(|a| is_public(a)).copied().collect();
    let mut chosen = if public.is_empty() { usable } else { public };
    chosen.dedup();
    // One of each IP version is enough to find the server by.
    let v4 = chosen.iter().find(|a| a.is_ipv4());
    let v6 = chosen.iter().find(|a| a.is_ipv6());
    v4.into_iter()
        .chain(v6)
        .map(|address| ServerEndpoint::Address(SocketAddr::new(*address, port)))
        .collect()
}

fn is_public(address: &IpAddr) -> bool {
    /// Addresses that providers share out behind their own NAT (RFC 6598).
    fn is_shared(v4: Ipv4Addr) -> bool {
        v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64
    }
    match address {
        IpAddr::V4(v4) => !v4.is_private() && !is_shared(*v4),
        IpAddr::V6(v6) => *v6 != Ipv6Addr::UNSPECIFIED,
    }
}

/// This machine's addresses that are fit to be reached at.
pub async fn local_addresses() -> Vec<IpAddr> {
    use marline_io::netlink::{Netlink, Scope};
    let listing = async { Netlink::connect()?.addresses().await };
    match listing.await {
        Ok(addresses) => addresses
            .into_iter()
            .filter(|a| a.scope == Scope::Global && !a.tentative && !a.deprecated)
            .map(|a| a.address)
            .collect(),
        // Then the endpoints have to be typed, and init says so.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn wishes() -> Wishes {
        Wishes {
            endpoints: vec!["vpn.example.net:51900".parse().unwrap()],
            port: 51900,
            pool_v4: "10.77.0.0/16".parse().unwrap(),
            pool_v6: None,
            interface: "marline0".to_owned(),
            nat: true,
            peers: "/var/lib/marline/peers.toml".into(),
            force: false,
        }
    }

    fn guess(local: &[&str]) -> Vec<String> {
        let local: Vec<IpAddr> = local.iter().map(|a| a.parse().unwrap()).collect();
        guess_endpoints(&local, 443)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_init_writes_can_be_loaded_and_says_what_was_asked() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("etc/server.toml");
        let made = init(&config, &wishes(), &[]).unwrap();
        let settings = Settings::load(&config).unwrap();
        assert_eq!(
            key::public_of(&settings.secret().unwrap()),
            made.public_key.0
        );
        assert_eq!(settings.endpoints, wishes().endpoints);
        assert_eq!(settings.pool_v4, Some(wishes().pool_v4));
        assert_eq!(settings.pool_v6, Some(made.pool_v6));
        assert!(made.pool_v6.to_string().starts_with("fd"));
        assert!(!made.endpoints_guessed && !made.key_kept);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_what_init_writes() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let made = init(&directory.path().join("server.toml"), &wishes(), &[]).unwrap();
        for file in [made.config, made.key_file] {
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn settings_that_exist_are_not_overwritten_unless_forced_and_then_the_key_stays() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("server.toml");
        let first = init(&config, &wishes(), &[]).unwrap();
        let failure = init(&config, &wishes(), &[]).unwrap_err();
        assert_eq!(failure.class(), Class::Conflict);
        assert!(failure.to_string().contains("--force"), "{failure}");
        let again = init(
            &config,
            &Wishes {
                force: true,
                ..wishes()
            },
            &[],
        )
        .unwrap();
        assert!(again.key_kept);
        assert_eq!(again.public_key, first.public_key);
    }

    #[test]
    fn public_addresses_are_preferred_and_private_ones_better_than_none() {
        let vps = [
            "127.0.0.1",
            "10.0.0.5",
            "198.51.100.7",
            "fe80::1",
            "fd00::1",
            "2001:db8::7",
        ];
        assert_eq!(guess(&vps), ["198.51.100.7:443", "[2001:db8::7]:443"]);
        assert_eq!(
            guess(&["127.0.0.1", "192.168.1.5", "fd00::1"]),
            ["192.168.1.5:443"]
        );
        assert_eq!(guess(&["100.64.3.4", "203.0.113.4"]), ["203.0.113.4:443"]);
        assert_eq!(guess(&["127.0.0.1", "::1"]), [""; 0]);
    }
}
