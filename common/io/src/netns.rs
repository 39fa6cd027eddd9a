//! For tests: a network namespace of the calling thread's own.
#![allow(unsafe_code)] // unshare and setns have no safe form in the crates at hand

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::netlink::Netlink;

/// The calling thread's stay in a fresh network namespace, which ends with the value.
pub(crate) struct TestNetns {
    before: File,
    // Namespaces belong to threads: the value must end on the thread it began on.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl TestNetns {
    pub(crate) fn enter() -> Self {
        let before = File::open("/proc/thread-self/ns/net").expect("procfs is mounted");
        // SAFETY: it only moves the calling thread to a new, empty network namespace.
        assert_eq!(
            unsafe { libc::unshare(libc::CLONE_NEWNET) },
            0,
            "root may do this"
        );
        TestNetns {
            before,
            _not_send: std::marker::PhantomData,
        }
    }
}

impl TestNetns {
    /// What another thread of the test can follow into the namespace with.
    pub(crate) fn handle(&self) -> NetnsHandle {
        let file = File::open("/proc/thread-self/ns/net").expect("procfs is mounted");
        NetnsHandle(std::sync::Arc::new(file))
    }
}

/// Brings up what a fresh namespace has, the loopback interface, and says its index.
pub(crate) async fn loopback_up(netlink: &Netlink) -> u32 {
    let lo = netlink.link("lo").await.expect("listed").expect("there");
    netlink.set_link_up(lo.index, true).await.expect("set up");
    lo.index
}

/// A namespace that other threads may join.
#[derive(Clone)]
pub(crate) struct NetnsHandle(std::sync::Arc<File>);

impl NetnsHandle {
    /// Moves the calling thread into the namespace for good.
    pub(crate) fn join(&self) {
        // SAFETY: the descriptor is an open network namespace.
        assert_eq!(
            unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) },
            0
        );
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        // SAFETY: the descriptor is an open network namespace.
        unsafe { libc::setns(self.before.as_raw_fd(), libc::CLONE_NEWNET) };
    }
}

/// Whether the test runs as root; if not, says that `what` is not tested.
pub(crate) fn root(what: &str) -> bool {
    // SAFETY: it has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped, as only root may make network namespaces: {what}");
    }
    root
}
