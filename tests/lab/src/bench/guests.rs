//! Further clients of the server that is measured, each with a wire of its own.

use anyhow::{Result, bail};

use crate::netns::Namespace;
use crate::run::Interrupt;
use crate::topology::Lab;
use crate::tunnel::{self, Daemon, Home};

/// A client beside the first, with one path; leaves when it is dropped.
pub struct Guest {
    /// Where its applications run.
    pub namespace: Namespace,
    daemon: Option<Daemon>,
}

impl Guest {
    /// The guest with this number, connected to the server that runs in `lab`.
    pub fn connect(
        lab: &Lab,
        number: usize,
        binaries: &std::path::Path,
        interrupt: &Interrupt,
    ) -> Result<Guest> {
        let role = &format!("guest{number}");
        let namespace = lab.namespace(role)?;
        lab.server().ip(&format!(
            "link add {role} type veth peer name wan1 netns {}\n\
             addr add 10.203.{number}.1/24 dev {role}\n\
             link set {role} up",
            namespace.name()
        ))?;
        namespace.ip(&format!(
            "link set wan1 up\n\
             addr add 10.203.{number}.2/24 dev wan1\n\
             route add default via 10.203.{number}.1"
        ))?;
        let server = Home::new(lab, lab.server(), "server", binaries)?;
        let home = Home::new(lab, &namespace, role, binaries)?;
        home.call("marline", &["join", &tunnel::invite(&server, role, &[])?])?;
        let mut daemon = home.daemon("marline", &["up", "--foreground"])?;
        let up = tunnel::wait(interrupt, || {
            daemon.check()?;
            tunnel::goes_through_tunnel(&namespace)
        })?;
        if !up {
            bail!("{role} does not connect: {}", daemon.last_words());
        }
        Ok(Guest {
            namespace,
            daemon: Some(daemon),
        })
    }

    /// Fails when its daemon has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.daemon.iter_mut().try_for_each(Daemon::check)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}
