//! `marline-lab`: real binaries between network namespaces, and what applications see.
//!
//! The lab builds a small internet out of namespaces ([`topology`]), joins its parts with
//! emulated wires ([`emulator`]), brings up Marline or something to compare it with ([`tunnel`]),
//! runs real traffic over it ([`workload`]) while a timeline changes the wires ([`run`]), and
//! makes figures of what arrived ([`session`]). Scenarios are files ([`scenario`]); results are
//! plain data ([`results`]), shown by [`report`]. What Marline promises beside speed is proved
//! with programs that everybody has ([`check`]), and what it costs on the wire is taken from its
//! own counters ([`wire`]); what its data plane can do without any limit on the links, [`mod@bench`]
//! tells.
//!
//! ```text
//! scenario ─► session ─► tunnel ─► run ─┬─► workload      sockets in client and host
//!                                       ├─► emulator      link models in real time
//!                                       └─► results ─► report
//! ```
//!
//! Nothing of it touches the machine's own network, and everything is gone when it ends.

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod deliveries;
#[cfg(target_os = "linux")]
mod demo;
#[cfg(target_os = "linux")]
mod emulator;
#[cfg(target_os = "linux")]
mod netns;
#[cfg(target_os = "linux")]
mod refusal;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod results;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod say;
#[cfg(target_os = "linux")]
mod scenario;
#[cfg(target_os = "linux")]
mod self_test;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod stats;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod topology;
#[cfg(target_os = "linux")]
mod tunnel;
#[cfg(target_os = "linux")]
mod wire;
#[cfg(target_os = "linux")]
mod workload;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match cli::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("marline-lab: {error:#}");
            let code = error
                .downcast_ref::<refusal::Refusal>()
                .map_or(1, |it| it.exit_code());
            std::process::ExitCode::from(code)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("marline-lab: the lab needs network namespaces, which only Linux has");
    std::process::ExitCode::from(4)
}
