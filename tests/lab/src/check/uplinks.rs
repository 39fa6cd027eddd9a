//! An uplink goes and comes back while curl, ssh, ping and WireGuard are at work.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyhow::Result;

use super::programs::{Servers, WireGuard};
use super::{Promises, STALL_MAX_MS, ms, pause, two_uplinks};
use crate::results::Direction;
use crate::run::Interrupt;
use crate::topology::{HOST_V4, HOST_V6, Lab, wan};
use crate::tunnel;

/// The uplink that goes: the faster one.
const LOST: usize = 0;
/// When it goes and when it is back, s from the start of curl.
const GOES_S: f64 = 1.5;
const BACK_S: f64 = 4.5;
/// What the uplink must carry from its return to the end of curl, Mbit/s: a fifth of its rate.
const USED_AGAIN_MBIT_S: f64 = 10.0;

/// How an uplink can be lost.
#[derive(Clone, Copy)]
enum Loss {
    Deleted,
    Addressless,
    Silent,
}

pub(super) fn check(promises: &mut Promises, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::build(&two_uplinks(), 9)?;
    let _tunnel = tunnel::marline(&lab, binaries, interrupt)?;
    // Longer than the loss even at the full rate.
    let servers = Servers::start(&lab, 48_000_000)?;
    let _wireguard = WireGuard::start(&lab, &servers)?;
    for (loss, what) in [
        (Loss::Deleted, "deleted"),
        (Loss::Addressless, "without address"),
        (Loss::Silent, "silent"),
    ] {
        let session = servers.session(lab.client(), HOST_V6)?;
        let ping = servers.ping(lab.client(), HOST_V4)?;
        let inner = servers.ping(lab.client(), WireGuard::HOST)?;
        let mut steps = [(GOES_S, true), (BACK_S, false)].into_iter().peekable();
        let mut get = servers.download(lab.client(), HOST_V4)?;
        let carried = || lab.emulator().counters(LOST).down_bytes.load(Relaxed);
        let mut back = (Instant::now(), carried());
        let fetched = get.watch(interrupt, |now_s| {
            if let Some((_, goes)) = steps.next_if(|(at_s, _)| now_s >= *at_s) {
                change(&lab, loss, goes)?;
                back = (Instant::now(), carried());
            }
            Ok(())
        })?;
        let used_mbit_s =
            (carried() - back.1) as f64 * 8e-6 / back.0.elapsed().as_secs_f64().max(1e-3);
        let early = steps.peek().is_some();
        for (_, goes) in steps {
            change(&lab, loss, goes)?;
        }
        pause(interrupt, 0.5)?;
        let [session, ping, inner] = [session.finish()?, ping.finish()?, inner.finish()?];
        fetched.note(promises, &format!("uplink {what}: curl"), &servers);
        session.note(promises, &format!("uplink {what}: the ssh session echoes"));
        ping.note(promises, &format!("uplink {what}: ping"));
        inner.note(promises, &format!("uplink {what}: ping inside WireGuard"));
        promises.note(
            format!("uplink {what}: once back it is used again"),
            used_mbit_s >= USED_AGAIN_MBIT_S,
            format!("{used_mbit_s:.1} of 50 Mbit/s until curl was done"),
        );
        let stalls = [fetched.stall, session.stall, ping.stall, inner.stall];
        let worst = stalls.into_iter().max().unwrap_or_default();
        promises.note(
            format!("uplink {what}: nothing stands still for {STALL_MAX_MS} ms"),
            worst.as_millis() <= STALL_MAX_MS && !early,
            if early {
                "the download was over before the uplink was back".to_owned()
            } else {
                format!("longest stall {}", ms(worst))
            },
        );
    }
    Ok(())
}

fn change(lab: &Lab, loss: Loss, goes: bool) -> Result<()> {
    match (loss, goes) {
        (Loss::Deleted, true) => lab.client().ip(&format!("link del {}", wan(LOST))),
        (Loss::Deleted, false) => lab.restore_link(LOST),
        (Loss::Addressless, true) => lab.remove_addresses(LOST),
        (Loss::Addressless, false) => lab.restore_addresses(LOST),
        (Loss::Silent, silent) => {
            for direction in [Direction::Down, Direction::Up] {
                lab.emulator().blackhole(LOST, direction, silent);
            }
            Ok(())
        }
    }
}
