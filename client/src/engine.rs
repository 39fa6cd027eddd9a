//! The core, the TUN and the driver's thread, started together.

use std::io;
use std::thread::JoinHandle;

use marline_io::clock::Clock;
use marline_io::driver::{Driver, Handle};
use marline_io::failure::{Context, Failure};
use marline_io::key;
use marline_io::tun::{Offload, Tun, TunOptions};
use marline_proto::{ClientConfig, Endpoint};

/// Packets that the kernel keeps for us while the loop is busy elsewhere. The core's own queues
/// do the shaping; this one only has to outlast a turn of the loop.
const TUN_QUEUE_PACKETS: u32 = 1000;

/// A running driver. The TUN interface exists as long as it runs.
#[derive(Debug)]
pub struct Engine {
    /// Talks to the driver.
    pub handle: Handle,
    /// The TUN interface's index.
    pub index: u32,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Engine {
    /// Opens the TUN and starts the driver.
    pub async fn start(
        config: ClientConfig,
        interface: &str,
        offload: Offload,
    ) -> Result<Engine, Failure> {
        let seed = key::fresh_seed()?;
        let name = interface.to_owned();
        let options = TunOptions {
            name,
            mtu: config.mtu,
            txqueuelen: TUN_QUEUE_PACKETS,
            offload,
        };
        let tun = Tun::open(&options).await?;
        let index = tun.index();
        let clock = Clock::start();
        let endpoint = Endpoint::client(config, seed);
        let (driver, handle) = Driver::new(endpoint, tun, clock);
        let thread = driver.spawn().context("cannot start the driver's thread")?;
        Ok(Engine {
            handle,
            index,
            thread: Some(thread),
        })
    }

    /// How the driver ended; waits for it, so call it when its stream of events is closed or it
    /// was told to stop.
    pub fn end(&mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the driver's thread panicked")),
            None => Ok(()),
        }
    }
}
