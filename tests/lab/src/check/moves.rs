//! What happens to a machine that moves about, under one TCP connection: an uplink gets another address, the NAT in front
//! gets one, and the client stands still for a while, as when a lid is closed.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::stream::Stream;
use super::two_clients::Site;
use super::{Promises, STALL_MAX_MS, ms, pause, two_uplinks};
use crate::run::Interrupt;
use crate::topology::Lab;
use crate::tunnel::{self, Home};

/// The uplink whose address changes: the faster one.
const MOVED: usize = 0;
/// What it must carry afterwards to be in use again, bytes: more than any probe.
const IN_USE: u64 = 500_000;
/// How soon it must be, s: a handshake and the trial of a path, on a busy machine.
const IN_USE_WITHIN_S: f64 = 5.0;
/// For how long the client stands still.
const ASLEEP: Duration = Duration::from_secs(4);
/// Bytes that show that a connection goes on: more than what waits in buffers when it is broken.
const GOES_ON: u64 = 4_000_000;

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::build(&two_uplinks(), 19)?;
    let tunnel = tunnel::marline(&lab, binaries, interrupt)?;
    let stream = Stream::start(&lab, lab.client())?;
    more(&stream, interrupt)?;

    stream.mark();
    let carried = || lab.emulator().counters(MOVED).down_bytes.load(Relaxed);
    let server = Home::new(&lab, lab.server(), "server", binaries)?;
    let knows = |address: &str| {
        tunnel::wait(interrupt, || {
            let status = server.call("marline-server", &["status", "--json"])?;
            Ok(status.contains(address))
        })
    };
    let moved = Instant::now();
    lab.change_addresses(MOVED, 77)?;
    // What still comes to the former address counts for nothing.
    let known = knows("10.201.1.77")?;
    let before = carried();
    let again = known && tunnel::wait(interrupt, || Ok(carried() >= before + IN_USE))?;
    let after_s = moved.elapsed().as_secs_f64();
    promises.note(
        "an uplink with another address is used again",
        again && after_s <= IN_USE_WITHIN_S,
        format!("after {after_s:.1} s"),
    );
    goes_on(
        promises,
        &stream,
        "an uplink got another address",
        Duration::ZERO,
        interrupt,
    )?;

    stream.mark();
    let client = *tunnel.pids().last().context("no client runs")?;
    let signal = |signal| -> Result<()> {
        let pid = Pid::from_raw(client as i32).context("no process has that number")?;
        Ok(kill_process(pid, signal)?)
    };
    signal(Signal::STOP)?;
    let slept = pause(interrupt, ASLEEP.as_secs_f64());
    signal(Signal::CONT)?;
    slept?;
    goes_on(
        promises,
        &stream,
        "the client stood still for 4 s",
        ASLEEP,
        interrupt,
    )?;
    drop(stream);

    let site = Site::build(&lab, 1)?;
    let home = Home::new(&lab, site.client(), "home", binaries)?;
    home.call("marline", &["join", &tunnel::invite(&server, "home", &[])?])?;
    let daemon = tunnel::connect(&home, interrupt)?;
    let stream = Stream::start(&lab, site.client())?;
    more(&stream, interrupt)?;
    stream.mark();
    let public = site.change_public_address()?;
    let known = knows(&public)?;
    promises.note(
        "the server follows the NAT to its other address",
        known,
        public,
    );
    goes_on(
        promises,
        &stream,
        "the NAT got another address",
        Duration::ZERO,
        interrupt,
    )?;
    daemon.stop();
    Ok(())
}

/// Waits until the connection has brought more or has ended; false when neither happens.
fn more(stream: &Stream, interrupt: &Interrupt) -> Result<bool> {
    let (before, _, _) = stream.look();
    tunnel::wait(interrupt, || {
        let (bytes, _, end) = stream.look();
        Ok(end.is_some() || bytes >= before + GOES_ON)
    })
}

/// Whether bytes flow again on the same connection, and how long they did not.
fn goes_on(
    promises: &mut Promises,
    stream: &Stream,
    what: &str,
    absent: Duration,
    interrupt: &Interrupt,
) -> Result<()> {
    let flows = more(stream, interrupt)?;
    let (_, gap, end) = stream.look();
    let stall = gap.saturating_sub(absent);
    promises.note(
        format!("a TCP connection goes on when {what}"),
        flows && end.is_none() && stall.as_millis() <= STALL_MAX_MS,
        match end {
            Some(end) => format!("it broke: {end}"),
            None => format!("longest gap {}", ms(gap)),
        },
    );
    Ok(())
}
