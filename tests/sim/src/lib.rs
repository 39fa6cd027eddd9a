//! Marline's simulator: whole bonds in virtual time.
//!
//! A seed or a file makes a plan ([`generate`], [`event`]); [`world`] plays it
//! with a client, a server, and per uplink a NAT box ([`nat`]) and two links;
//! [`workload`] is the traffic, both ends of it, over the TCP of [`tcp`];
//! [`check`] knows what must always hold, [`report`] what came of it, and
//! [`native`] what the same traffic gets without any tunnel; [`sweep`] puts the
//! two beside each other over many random links, [`kinds`] over one link of each
//! kind, and [`phases`] plays one plan with its timeline at many moments. [`cellular`] makes traces for links to replay.
//!
//! [`link`] stands alone (without the feature `world`), so that the lab can drive
//! the same model in real time.

#[cfg(feature = "world")]
pub mod cellular;
#[cfg(feature = "world")]
pub mod check;
#[cfg(feature = "world")]
pub mod event;
#[cfg(feature = "world")]
pub mod generate;
#[cfg(feature = "world")]
pub mod kinds;
pub mod link;
#[cfg(feature = "world")]
pub mod nat;
#[cfg(feature = "world")]
pub mod native;
#[cfg(feature = "world")]
pub mod packet;
#[cfg(feature = "world")]
pub mod phases;
#[cfg(feature = "world")]
pub mod report;
pub mod rng;
#[cfg(feature = "world")]
pub mod sweep;
#[cfg(feature = "world")]
pub mod tcp;
#[cfg(feature = "world")]
pub mod workload;
#[cfg(feature = "world")]
pub mod world;
