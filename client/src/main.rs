//! `marline`: the client. Parses what was typed, does it, and prints the answer
//! or the failure; the work is in the modules.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`settings`] | what may be typed; typed, file and defaults as one value |
//! | [`daemon`] | the running client: start, loop, stop |
//! | [`uplinks`] | which interfaces are used, and how that changes |
//! | [`routing`], [`dns`] | what is changed on the machine, as a plan |
//! | [`journal`] | how it is put back, whatever happens |
//! | [`engine`] | the driver in its thread |
//! | [`control`], [`board`], [`show`] | questions to a running client, and how answers look |
//! | [`background`], [`diagnose`], [`service`] | starting in the background; why not; systemd |
// Elsewhere the pure parts are compiled to keep them portable, and nothing calls them yet.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

#[cfg(target_os = "linux")]
mod background;
#[cfg(target_os = "linux")]
mod board;
mod cli;
mod commands;
mod control;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod diagnose;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod journal;
#[cfg(all(test, target_os = "linux"))]
mod namespace_tests;
mod routing;
#[cfg(target_os = "linux")]
mod service;
mod settings;
mod show;
mod uplinks;

use std::process::ExitCode;

use clap::Parser;
use cli::Cli;
use marline_io::answer;

fn main() -> ExitCode {
    let json = answer::is_json_typed();
    let done = match Cli::try_parse() {
        Ok(cli) => commands::run(cli),
        // Help and version are asked for as text; what was typed wrongly is a failure like others.
        Err(error) if json && error.use_stderr() => Err(answer::not_understood(&error.to_string())),
        Err(error) => error.exit(),
    };
    answer::end("marline", json, done)
}
