//! Where there is no netlink: every call says so.

use std::net::IpAddr;

use super::{Address, Change, Link, Route, Rule};
use crate::failure::{Class, Failure};

fn unsupported<T>() -> Result<T, Failure> {
    let sentence = "managing interfaces and routes is not supported on this system yet";
    Err(Failure::new(Class::Facility, sentence))
}

/// A connection to the system's interfaces and routes, which cannot be made here.
#[derive(Clone, Debug)]
pub struct Netlink;

/// A stream of changes, which cannot be made here.
#[derive(Debug)]
pub struct Watch {
    never: std::convert::Infallible,
}

impl Watch {
    /// Cannot be called: there is no watch.
    pub async fn next(&mut self) -> Option<Change> {
        match self.never {}
    }
}

#[allow(clippy::unused_async)] // the same signatures as where it works
impl Netlink {
    /// Says that it is not supported here.
    pub fn connect() -> Result<Self, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub fn watch() -> Result<Watch, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn links(&self) -> Result<Vec<Link>, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn link(&self, _name: &str) -> Result<Option<Link>, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn addresses(&self) -> Result<Vec<Address>, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn routes(&self) -> Result<Vec<Route>, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn rules(&self) -> Result<Vec<Rule>, Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn add_address(&self, _: u32, _: IpAddr, _: u8) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn del_address(&self, _: u32, _: IpAddr, _: u8) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn add_route(&self, _: &Route) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn del_route(&self, _: &Route) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn add_rule(&self, _: &Rule) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn del_rule(&self, _: &Rule) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn set_link_up(&self, _: u32, _: bool) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn set_link_mtu(&self, _: u32, _: u32) -> Result<(), Failure> {
        unsupported()
    }

    /// Says that it is not supported here.
    pub async fn set_link_txqueuelen(&self, _: u32, _: u32) -> Result<(), Failure> {
        unsupported()
    }
}
