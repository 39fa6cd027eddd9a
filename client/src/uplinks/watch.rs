//! Netlink facts in: the present state on demand, and a call that returns when
//! it may have changed.
//!
//! The kernel announces single changes, often dozens at once (one DHCP lease is
//! an address, three routes and a few flags). They are not replayed one by one:
//! after a change the whole state is read anew. That costs a millisecond, needs
//! no bookkeeping that could drift from the truth, and heals an overrun of the
//! announcement buffer by itself.

use std::time::Duration;

use marline_io::failure::{Class, Failure};
use marline_io::netlink::{Change, Netlink, Watch};
use tokio::time::{Instant, timeout_at};

use super::select::{Facts, MAIN_TABLE};

/// How long changes are gathered after the first, before the state is read: long
/// enough for the burst of one event, short beside the time in which a dead path
/// is noticed.
const GATHER: Duration = Duration::from_millis(5);

/// Sees the machine's interfaces, addresses and routes.
#[derive(Debug)]
pub struct Watcher {
    netlink: Netlink,
    watch: Watch,
}

impl Watcher {
    /// Starts to watch; nothing that happens from now on is missed.
    pub fn start(netlink: Netlink) -> Result<Self, Failure> {
        Ok(Watcher {
            netlink,
            watch: Netlink::watch()?,
        })
    }

    /// Returns when something changed that uplinks may depend on. Cancelling it loses nothing
    /// as long as [`facts`] is read afterwards.
    pub async fn changed(&mut self) -> Result<(), Failure> {
        while !matters(&self.next().await?) {}
        let end = Instant::now() + GATHER;
        while let Ok(change) = timeout_at(end, self.next()).await {
            change?;
        }
        Ok(())
    }

    /// The present state.
    pub async fn facts(&self) -> Result<Facts, Failure> {
        facts(&self.netlink).await
    }

    async fn next(&mut self) -> Result<Change, Failure> {
        self.watch.next().await.ok_or_else(|| {
            Failure::new(
                Class::Other,
                "the kernel closed the connection that announces changes",
            )
        })
    }
}

/// The present state of the network.
pub async fn facts(netlink: &Netlink) -> Result<Facts, Failure> {
    Ok(Facts {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        routes: netlink.routes().await?,
    })
}

/// Whether an announcement can change the set of uplinks. Other tables' routes cannot: they
/// come in thousands on a router, and every `up` of our own adds some.
fn matters(change: &Change) -> bool {
    match change {
        Change::RouteSet(route) | Change::RouteGone(route) => route.table == MAIN_TABLE,
        Change::LinkSet(_)
        | Change::LinkGone(_)
        | Change::AddressSet(_)
        | Change::AddressGone(_)
        | Change::Overrun => true,
    }
}
