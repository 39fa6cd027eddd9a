//! The small internet in which everything is measured.
//!
//! ```text
//!   client namespace            emulator             server namespace          internet host
//!  ┌───────────────────┐                           ┌───────────────────┐     ┌───────────────┐
//!  │ wan1 10.201.1.2   │──TAP── rate, delay, ─TAP──│ isp1 10.201.1.1   │     │               │
//!  │      fd01:1::2    │        loss, queue        │      fd01:1::1    │veth │ inet          │
//!  │ wan2 10.201.2.2   │──TAP── …            ─TAP──│ isp2 10.201.2.1   │─────│ 203.0.113.2   │
//!  │      fd01:2::2    │                           │      fd01:2::1    │     │ 2001:db8:113::2
//!  │ …                 │                           │ lo   198.51.100.1 │     │               │
//!  │ marline           │                           │      2001:db8:51::1     │ workloads     │
//!  │ workloads         │                           │ marline-server    │     │               │
//!  └───────────────────┘                           └───────────────────┘     └───────────────┘
//! ```
//!
//! The client has one default route per uplink and family, with metrics 101, 102, … as a DHCP
//! client would put them. The server's namespace is both the providers' router and the machine
//! on which the Marline server runs; its public address sits on the loopback, so it is reached over
//! every link. The internet host is behind a plain veth without any emulation, and its only
//! way to the client is through that router.
//!
//! `wan1` and its like are macvlan devices upon the TAPs, which stay in a namespace of their own.
//! A wire marked `direct` is a veth pair instead: no emulator, no limit.
//!
//! All addresses are private or from documentation ranges, and none of them is ever present in
//! the machine's own namespace.

use std::fs;

use anyhow::{Context, Result};

use crate::emulator::{Emulator, WireParams};
use crate::netns::{Den, Namespace};
use crate::scenario::LinkPlan;
use crate::sys;

/// The internet host's address.
pub const HOST_V4: &str = "203.0.113.2";
/// The internet host's address.
pub const HOST_V6: &str = "2001:db8:113::2";
/// The Marline server's public address.
pub const SERVER_V4: &str = "198.51.100.1";
/// The Marline server's public address.
pub const SERVER_V6: &str = "2001:db8:51::1";

/// Packets that a device may hold before the emulator reads them. Far more than any workload has
/// in flight, so that drops happen in the model and nowhere else.
const DEVICE_QUEUE_PACKETS: usize = 20_000;
/// In what the client's addresses end.
const CLIENT_PART: u8 = 2;

/// A standing topology; everything vanishes on drop.
pub struct Lab {
    // Declared, and so dropped, before the namespaces in which their devices live.
    emulator: Emulator,
    client: Namespace,
    server: Namespace,
    host: Namespace,
    /// Holds the client's ends of the wires.
    wires: Namespace,
    den: Den,
    links: Vec<LinkPlan>,
}

impl Lab {
    /// Builds the topology with these links. `seed` drives all randomness on the wires.
    pub fn build(links: &[LinkPlan], seed: u64) -> Result<Lab> {
        let den = Den::new()?;
        let client = den.namespace("client")?;
        let server = den.namespace("server")?;
        let host = den.namespace("host")?;
        let wires = den.namespace("wires")?;
        // Nothing of its own may speak on the wires.
        wires.sysctl(&[("ipv6/conf/default/disable_ipv6", "1")])?;
        let emulator = Emulator::start(links.len())?;
        let lab = Lab {
            emulator,
            client,
            server,
            host,
            wires,
            den,
            links: links.to_vec(),
        };
        for namespace in [&lab.client, &lab.server, &lab.host] {
            namespace.sysctl(&[
                // A run must not start with what the last one learned about the way.
                ("ipv4/tcp_no_metrics_save", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                // No waiting for duplicate address detection.
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/router_solicitations", "0"),
            ])?;
        }
        lab.server
            .sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        lab.build_internet()?;
        for index in 0..links.len() {
            lab.lay(index, seed)?;
        }
        Ok(lab)
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The namespace of the Marline server, which is also the providers' router.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The internet host's namespace.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// A further namespace beside the standing ones, empty but for its loopback.
    pub fn namespace(&self, role: &str) -> Result<Namespace> {
        self.den.namespace(role)
    }

    /// The emulator of the wires.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Directory for files that live as long as the lab.
    pub fn directory(&self) -> &std::path::Path {
        self.den.path()
    }

    /// The links as they were planned.
    pub fn links(&self) -> &[LinkPlan] {
        &self.links
    }

    /// Resets every wire to its first parameters, empties it and reseeds it: every run starts
    /// from the same state. Devices and addresses that were taken away come back.
    pub fn reset(&self, seed: u64) -> Result<()> {
        for (index, link) in self.links.iter().enumerate() {
            if link.direct {
                continue;
            }
            let gone = self
                .client
                .ip(&format!("link show {}", wan(index)))
                .is_err();
            if gone {
                self.restore_link(index)?;
            }
            self.emulator.carrier(index, true);
            self.restore_addresses(index)?;
            self.emulator
                .renew(index, wire_params(link), wire_seed(seed, index));
        }
        self.emulator.reset_lateness();
        Ok(())
    }

    /// Deletes the client's device of link `index`, as pulling a modem out does.
    pub fn delete_link(&self, index: usize) -> Result<()> {
        if self.links[index].direct {
            return self.client.ip(&format!("link del {}", wan(index)));
        }
        self.emulator.remove(index);
        Ok(())
    }

    /// Puts the client's device of link `index` back, with addresses and routes.
    pub fn restore_link(&self, index: usize) -> Result<()> {
        if self.links[index].direct {
            self.lay_direct(index)?;
        } else {
            // Whoever deleted the device by hand has left the wire's end behind it.
            let name = wire_end(index);
            if self.wires.ip(&format!("link show {name}")).is_err() {
                self.emulator.replace(index, self.tap(&self.wires, &name)?);
            }
            self.lay_client_device(index)?;
        }
        self.configure_client_end(index, CLIENT_PART)
    }

    /// Takes the client's addresses of link `index` away; the kernel drops the routes with them.
    pub fn remove_addresses(&self, index: usize) -> Result<()> {
        self.client
            .ip(&format!("addr flush dev {} scope global", wan(index)))
    }

    /// Puts addresses and routes of link `index` back as a DHCP client would.
    pub fn restore_addresses(&self, index: usize) -> Result<()> {
        self.configure_client_end(index, CLIENT_PART)
    }

    /// Gives the client the addresses of link `index` that end in `part`, as a DHCP server does that has forgotten the lease.
    pub fn change_addresses(&self, index: usize, part: u8) -> Result<()> {
        self.remove_addresses(index)?;
        self.configure_client_end(index, part)
    }

    fn build_internet(&self) -> Result<()> {
        self.server.ip(&format!(
            "link add inet type veth peer name inet netns {host}\n\
             link set inet up txqueuelen {DEVICE_QUEUE_PACKETS}\n\
             addr add 203.0.113.1/24 dev inet\n\
             addr add 2001:db8:113::1/64 dev inet nodad\n\
             addr add {SERVER_V4}/32 dev lo\n\
             addr add {SERVER_V6}/128 dev lo nodad",
            host = self.host.name(),
        ))?;
        self.host.ip(&format!(
            "link set inet up txqueuelen {DEVICE_QUEUE_PACKETS}\n\
             addr add {HOST_V4}/24 dev inet\n\
             addr add {HOST_V6}/64 dev inet nodad\n\
             route add default via 203.0.113.1\n\
             route add default via 2001:db8:113::1"
        ))
    }

    fn lay(&self, index: usize, seed: u64) -> Result<()> {
        let link = &self.links[index];
        if link.direct {
            self.lay_direct(index)?;
        } else {
            let client = self.tap(&self.wires, &wire_end(index))?;
            self.lay_client_device(index)?;
            let server = self.tap(&self.server, &isp(index))?;
            self.emulator.lay(
                index,
                (client, server),
                wire_params(link),
                wire_seed(seed, index),
            );
        }
        let number = index + 1;
        self.server.ip(&format!(
            "link set {isp} up txqueuelen {DEVICE_QUEUE_PACKETS}\n\
             addr replace 10.201.{number}.1/24 dev {isp}\n\
             addr replace fd01:{number}::1/64 dev {isp} nodad",
            isp = isp(index),
        ))?;
        self.configure_client_end(index, CLIENT_PART)
    }

    fn lay_direct(&self, index: usize) -> Result<()> {
        self.client.ip(&format!(
            "link add {} type veth peer name {} netns {}",
            wan(index),
            isp(index),
            self.server.name()
        ))
    }

    /// The client's device is a macvlan that owns the wire's end, because a TAP in the client's
    /// own namespace would be taken for a tunnel, and rightly.
    fn lay_client_device(&self, index: usize) -> Result<()> {
        self.wires.ip(&format!(
            "link set {end} up txqueuelen {DEVICE_QUEUE_PACKETS}\n\
             link add link {end} name {wan} type macvlan mode passthru\n\
             link set {wan} netns {client}",
            end = wire_end(index),
            wan = wan(index),
            client = self.client.name(),
        ))
    }

    fn configure_client_end(&self, index: usize, part: u8) -> Result<()> {
        let number = index + 1;
        let metric = 100 + number;
        self.client.ip(&format!(
            "link set {wan} up txqueuelen {DEVICE_QUEUE_PACKETS}\n\
             addr replace 10.201.{number}.{part}/24 dev {wan}\n\
             addr replace fd01:{number}::{part}/64 dev {wan} nodad\n\
             route replace default via 10.201.{number}.1 dev {wan} metric {metric}\n\
             route replace default via fd01:{number}::1 dev {wan} metric {metric}",
            wan = wan(index),
        ))
    }

    fn tap(&self, namespace: &Namespace, name: &str) -> Result<fs::File> {
        namespace
            .run(|| sys::open_tap(name))?
            .with_context(|| format!("cannot make the TAP device {name}"))
    }
}

/// Name of the client's device on link `index`.
pub fn wan(index: usize) -> String {
    format!("wan{}", index + 1)
}

/// Name of the wire's end behind the client's device on link `index`.
fn wire_end(index: usize) -> String {
    format!("end{}", index + 1)
}

/// Name of the far end of link `index`.
pub fn isp(index: usize) -> String {
    format!("isp{}", index + 1)
}

fn wire_params(link: &LinkPlan) -> WireParams {
    WireParams {
        down: link.down.clone(),
        up: link.up.clone(),
    }
}

fn wire_seed(seed: u64, index: usize) -> u64 {
    seed.wrapping_mul(1_000).wrapping_add(index as u64)
}
