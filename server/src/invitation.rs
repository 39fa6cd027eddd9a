//! Adding a peer: a key pair, inner addresses, and the join code that carries them.
//!
//! The client's secret key is made here, goes into the code and is forgotten; the
//! store keeps the public half only. So a code that is lost cannot be printed
//! again, only replaced (`peer renew`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use marline_io::failure::Failure;
use marline_io::join_code::{JoinCode, ServerEndpoint};
use marline_io::key;
use serde::{Deserialize, Serialize};

use crate::peers::{self, Moment, Peer, PeerStore, Pools};
use crate::settings::Settings;

/// A peer's join code, with what a person may want to know beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// The peer's name.
    pub name: String,
    /// Its inner IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its inner IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Until when the code may be used for the first time.
    pub expires: Moment,
    /// Where the code sends the client.
    pub endpoints: Vec<ServerEndpoint>,
    /// The join code.
    pub code: String,
}

/// Whom the invitation is for.
#[derive(Clone, Copy, Debug)]
pub enum For<'a> {
    /// A new peer of this name.
    New(&'a str),
    /// The peer that has this name already.
    Known(&'a str),
}

/// Adds or renews a peer in the store and makes its join code.
pub fn invite(
    settings: &Settings,
    whom: For<'_>,
    code_life: Duration,
    now: Moment,
) -> Result<Invitation, Failure> {
    if settings.endpoints.is_empty() {
        return Err(Failure::usage(
            "the configuration names no \"endpoints\", so a join code could not say where the server is",
        )
        .with_advice("add for example endpoints = [\"vpn.example.net:51900\"]"));
    }
    if code_life.is_zero() {
        return Err(Failure::usage(
            "a join code must be valid for at least one second",
        ));
    }
    let server = key::public_of(&settings.secret()?);
    let secret = key::generate()?;
    let public = key::public_of(&secret);
    let pools = Pools {
        v4: settings.pool_v4,
        v6: settings.pool_v6,
    };
    PeerStore::at(&settings.peers).change(|all| {
        let peer = match whom {
            For::New(name) => peers::add(all, name, public, pools, now, code_life)?,
            For::Known(name) => peers::renew(all, name, public, now, code_life)?,
        };
        // A code that cannot be made must not leave a peer behind that nobody can be.
        invitation(settings, &peer, secret, server, now.after(code_life))
    })
}

fn invitation(
    settings: &Settings,
    peer: &Peer,
    secret: marline_proto::Key,
    server: marline_proto::Key,
    expires: Moment,
) -> Result<Invitation, Failure> {
    let code = JoinCode {
        expires_unix_s: expires.unix_s(),
        secret,
        server,
        endpoints: settings.endpoints.clone(),
        v4: peer.v4,
        v6: peer.v6,
        mtu: Some(settings.mtu),
    };
    Ok(Invitation {
        name: peer.name.clone(),
        v4: peer.v4,
        v6: peer.v6,
        expires,
        endpoints: settings.endpoints.clone(),
        code: code.encode()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(directory: &Path, endpoints: &str) -> Settings {
        let file = directory.join("server.toml");
        let secret = key::encode(&[7; 32]);
        let text = format!(
            "private_key = \"{secret}\"\npool_v4 = \"10.77.0.0/16\"\npeers = \"peers.toml\"\n\
             endpoints = [{endpoints}]\n"
        );
        std::fs::write(&file, text).unwrap();
        Settings::load(&file).unwrap()
    }

    #[test]
    fn a_join_code_holds_what_the_store_holds_and_the_secret_key_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path(), "\"vpn.example.net:51900\"");
        let now = Moment::now();
        let life = Duration::from_secs(60);
        let invitation = invite(&settings, For::New("laptop"), life, now).unwrap();

        let code = JoinCode::decode(&invitation.code, now.unix_s()).unwrap();
        let peers = PeerStore::at(&settings.peers).read().unwrap();
        assert_eq!(peers[0].public_key.0, key::public_of(&code.secret));
        assert_eq!(code.server, key::public_of(&[7; 32]));
        assert_eq!((code.v4, code.v6), (peers[0].v4, None));
        assert_eq!(code.expires_unix_s, now.unix_s() + 60);
        assert_eq!(code.mtu, Some(1400));

        let renewed = invite(&settings, For::Known("laptop"), life, now).unwrap();
        assert_eq!(renewed.v4, invitation.v4, "the address stays");
        let again = JoinCode::decode(&renewed.code, now.unix_s()).unwrap();
        assert_ne!(again.secret, code.secret, "the old code is void");
    }

    #[test]
    fn without_endpoints_no_peer_is_added() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path(), "");
        let failure = invite(
            &settings,
            For::New("laptop"),
            Duration::from_secs(60),
            Moment::now(),
        )
        .unwrap_err();
        assert!(failure.to_string().contains("\"endpoints\""), "{failure}");
        assert_eq!(PeerStore::at(&settings.peers).read().unwrap(), []);
    }
}
