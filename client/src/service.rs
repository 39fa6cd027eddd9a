//! The word that systemd waits for (`Type=notify`): a datagram to the socket that
//! `NOTIFY_SOCKET` names. Without that variable nothing is said.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager, if there is one, that the client runs.
pub fn ready() {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&name, b"READY=1")
    {
        tracing::warn!("cannot tell the service manager that the client runs: {error}");
    }
}

fn send(name: &OsString, message: &[u8]) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message, &address)
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        send(&path.into_os_string(), b"READY=1").expect("sent");

        let name = format!("marline-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        send(&format!("@{name}").into(), b"READY=1").expect("sent");

        for socket in [by_path, by_name] {
            let mut text = [0; 16];
            let len = socket.recv(&mut text).expect("received");
            assert_eq!(&text[..len], b"READY=1");
        }
    }
}
