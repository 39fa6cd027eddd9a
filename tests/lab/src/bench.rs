//! What the data plane can do: as fast as two processors allow, and at which cost.
//!
//! The other commands of the lab ask how well a bond uses given links. This one takes the links
//! away as a limit: every path is a plain veth pair, and what stops the flow is the processor
//! that both daemons, both applications and the kernel share. So figures from two machines, or
//! from an hour with other load, cannot be compared; what counts are ratios. Therefore
//! `wireguard-go` runs over the same veth pairs in the same run, just after Marline, and each of
//! Marline's figures also stands as a multiple of its figure for one path.
//!
//! A veth pair takes trains of UDP datagrams whole, from socket to socket, which no network card
//! does. With `--gso off` (ethtool's `tx-udp-segmentation`) the kernel cuts them apart at the
//! device, as it does for a card without that ability.
//!
//! TCP flows tell Mbit/s and processor seconds per delivered GB of each daemon. UDP is sent as
//! fast as the sender can and tells the packets per second that arrive: the cost per packet
//! counts there, whatever its length.
//!
//! `--clients` and `--workers` ask what several cores do for one server: Mbit/s are then those of
//! all clients together, and the client's processor seconds those of the first daemon only.

mod flood;
mod guests;
mod table;
mod wireguard;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use marline_sim::link::LinkParams;
use serde::Serialize;

use crate::netns::Namespace;
use crate::refusal::Refusal;
use crate::results::Direction;
use crate::run::Interrupt;
use crate::scenario::{Cc, Kind, LinkPlan, Workload};
use crate::stats::process_cpu_s;
use crate::topology::{Lab, isp, wan};
use crate::tunnel;
use crate::workload::{Ends, Span, Traffic, Way};
use guests::Guest;
use wireguard::Wireguard;

/// Time for a flow to reach its speed, s.
const WARMUP_S: f64 = 1.0;

/// What is to be measured.
#[derive(Args)]
pub struct BenchArgs {
    /// Length of each measurement, s, without the second before it
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Numbers of paths
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    paths: Vec<usize>,
    /// Clients that use the server at once with TCP, each with this many flows; all but the first
    /// have one path
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// The server's numbers of workers; its own choice if absent
    #[arg(long, value_delimiter = ',')]
    workers: Vec<usize>,
    /// Numbers of TCP flows at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    flows: Vec<usize>,
    /// Lengths of UDP payloads, bytes
    #[arg(long, value_delimiter = ',', default_values_t = [64, 200, 1320])]
    udp: Vec<usize>,
    /// Leaves TCP out
    #[arg(long)]
    no_tcp: bool,
    /// Leaves UDP out
    #[arg(long)]
    no_udp: bool,
    /// Directions
    #[arg(long, value_delimiter = ',', default_values = ["down", "up"])]
    direction: Vec<Direction>,
    /// Whether the devices take trains of UDP datagrams whole
    #[arg(long, value_delimiter = ',', default_values = ["on"])]
    gso: Vec<Switch>,
    /// Only these tunnels
    #[arg(long, value_delimiter = ',', default_values = ["marline", "wireguard-go"])]
    through: Vec<Contender>,
    /// The program wireguard-go; figures of versions before 2023 say little, as they move one
    /// packet per system call
    #[arg(long, value_name = "PROGRAM", default_value = "wireguard-go")]
    wireguard_go: PathBuf,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Switch {
    On,
    Off,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Contender {
    /// Marline, over all paths.
    Marline,
    /// wireguard-go, over one path.
    WireguardGo,
    /// No tunnel: what the veth pair and the applications cost.
    Native,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Load {
    /// So many TCP flows.
    Tcp { flows: usize },
    /// UDP packets with so many bytes of payload.
    Udp { bytes: usize },
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    through: Contender,
    gso: Switch,
    paths: usize,
    /// Clients at once.
    clients: usize,
    /// The server's workers, where they were chosen.
    workers: Option<usize>,
    load: Load,
    direction: Direction,
    /// Delivered payload.
    mbit_s: f64,
    /// Delivered UDP packets per second.
    packets_s: Option<f64>,
    /// Processor seconds per delivered GB: the server's daemon, then the client's.
    cpu_s_per_gb: Vec<f64>,
    /// Share of the machine that was busy.
    cpu_busy: f64,
}

/// What stands in one lab.
#[derive(Clone, Copy, Debug)]
struct Setup {
    through: Contender,
    gso: Switch,
    paths: usize,
    clients: usize,
    workers: Option<usize>,
}

impl Setup {
    /// Everything that was asked for. Others than Marline know one path, one client and no workers.
    fn all(args: &BenchArgs) -> Vec<Setup> {
        let mut all = Vec::new();
        let mut workers: Vec<Option<usize>> = args.workers.iter().copied().map(Some).collect();
        if workers.is_empty() {
            workers.push(None);
        }
        for &gso in &args.gso {
            for &through in &args.through {
                let one = Setup {
                    through,
                    gso,
                    paths: 1,
                    clients: 1,
                    workers: None,
                };
                if through != Contender::Marline {
                    all.push(one);
                    continue;
                }
                for &paths in &args.paths {
                    all.extend(workers.iter().map(|&workers| Setup {
                        paths,
                        clients: args.clients,
                        workers,
                        ..one
                    }));
                }
            }
        }
        all
    }
}

/// Measures everything that was asked for and prints one line each.
pub fn run(args: &BenchArgs, binaries: &Path, interrupt: &Interrupt) -> Result<()> {
    if args.seconds.is_nan() || args.seconds <= 0.0 {
        return Err(Refusal::Usage("--seconds must be more than 0".into()).into());
    }
    if args.clients == 0 || args.clients > 200 {
        return Err(Refusal::Usage("--clients must be 1 to 200".into()).into());
    }
    let mut all = Vec::new();
    table::head();
    let ended = measure_all(args, binaries, interrupt, &mut |figures| {
        table::row(&figures);
        all.push(figures);
    });
    // What was measured before something went wrong is true all the same.
    table::ratios(&all);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ended
}

fn measure_all(
    args: &BenchArgs,
    binaries: &Path,
    interrupt: &Interrupt,
    report: &mut dyn FnMut(Figures),
) -> Result<()> {
    for setup in Setup::all(args) {
        let lab = lay(setup.paths, setup.gso)?;
        measure(args, setup, &lab, binaries, interrupt, report)
            .with_context(|| table::which(setup.through, setup.gso, setup.paths))?;
    }
    Ok(())
}

/// So many veth pairs between client and server.
fn lay(paths: usize, gso: Switch) -> Result<Lab> {
    let link = LinkPlan {
        down: LinkParams::default(),
        up: LinkParams::default(),
        direct: true,
    };
    let lab = Lab::build(&vec![link; paths], 1)?;
    if gso == Switch::Off {
        for index in 0..paths {
            switch_trains_off(lab.client(), &wan(index))?;
            switch_trains_off(lab.server(), &isp(index))?;
        }
    }
    Ok(lab)
}

fn switch_trains_off(namespace: &Namespace, device: &str) -> Result<()> {
    let status = namespace
        .command("ethtool")
        .args(["-K", device, "tx-udp-segmentation", "off"])
        .status()?;
    if !status.success() {
        let what = "--gso off needs ethtool (Debian package ethtool), and the kernel's consent";
        return Err(Refusal::Facility(what.into()).into());
    }
    Ok(())
}

fn measure(
    args: &BenchArgs,
    setup: Setup,
    lab: &Lab,
    binaries: &Path,
    interrupt: &Interrupt,
    report: &mut dyn FnMut(Figures),
) -> Result<()> {
    let mut tunnel = None;
    let mut wireguard = None;
    let mut guests = Vec::new();
    let (way, pids) = match setup.through {
        Contender::Marline => {
            if let Some(workers) = setup.workers {
                tunnel::init_with_workers(lab, binaries, workers)?;
            }
            let up = tunnel.insert(tunnel::marline(lab, binaries, interrupt)?);
            for number in 1..setup.clients {
                guests.push(Guest::connect(lab, number, binaries, interrupt)?);
            }
            (up.way.clone(), up.pids())
        }
        Contender::WireguardGo => {
            let up = wireguard.insert(Wireguard::start(lab, &args.wireguard_go, interrupt)?);
            (Way::default(), up.pids())
        }
        Contender::Native => (Way::default(), Vec::new()),
    };
    let tcp = args.flows.iter().map(|&flows| Load::Tcp { flows });
    let udp = args.udp.iter().map(|&bytes| Load::Udp { bytes });
    let loads = tcp
        .filter(|_| !args.no_tcp)
        // A flood has one receiver.
        .chain(udp.filter(|_| !args.no_udp && setup.clients == 1));
    let ends = Ends {
        client: lab.client(),
        host: lab.host(),
        way: &way,
    };
    let clock = Window {
        pids: &pids,
        seconds: args.seconds,
        interrupt,
    };
    // A tunnel is up when packets come through, and not when its processes run.
    flood::introduce(ends, &clock)?;
    for load in loads {
        for &direction in &args.direction {
            let measured = match load {
                Load::Tcp { flows } => {
                    let others = guests.iter().map(|guest| Ends {
                        client: &guest.namespace,
                        ..ends
                    });
                    let all: Vec<Ends<'_>> = std::iter::once(ends).chain(others).collect();
                    tcp_flows(&all, flows, direction, &clock)
                }
                Load::Udp { bytes } => flood::measure(ends, bytes, direction, &clock),
            };
            // The death of a process explains more than what it did to the traffic.
            if let Some(tunnel) = &mut tunnel {
                tunnel.check()?;
            }
            if let Some(wireguard) = &mut wireguard {
                wireguard.check()?;
            }
            guests.iter_mut().try_for_each(Guest::check)?;
            let measured =
                measured.with_context(|| format!("{}, {direction}", table::load(load)))?;
            let gigabytes = measured.bytes as f64 / 1e9;
            report(Figures {
                through: setup.through,
                gso: setup.gso,
                paths: setup.paths,
                clients: setup.clients,
                workers: setup.workers,
                load,
                direction,
                mbit_s: measured.bytes as f64 * 8e-6 / measured.seconds,
                packets_s: measured
                    .packets
                    .map(|packets| packets as f64 / measured.seconds),
                cpu_s_per_gb: measured.cpu_s.iter().map(|s| s / gigabytes).collect(),
                cpu_busy: measured.cpu_busy,
            });
        }
    }
    Ok(())
}

/// The stretch of time that is measured.
struct Window<'a> {
    pids: &'a [u32],
    seconds: f64,
    interrupt: &'a Interrupt,
}

/// What happened in a window.
struct Measured {
    bytes: u64,
    packets: Option<u64>,
    seconds: f64,
    cpu_s: Vec<f64>,
    cpu_busy: f64,
}

impl Window<'_> {
    /// How long the load must last, s.
    fn span_s(&self) -> f64 {
        WARMUP_S + self.seconds
    }

    /// Waits for the load to reach its speed, then measures; `delivered` tells bytes and packets.
    fn measure(&self, delivered: impl Fn() -> (u64, Option<u64>)) -> Result<Measured> {
        let start = Instant::now() + Duration::from_secs_f64(WARMUP_S);
        self.interrupt.sleep_until(start)?;
        let (machine, cpu, began) = (crate::stats::MachineTime::now(), self.cpu(), Instant::now());
        let before = delivered();
        // A little less than the load lasts, as its last moments are not its speed.
        let end = began + Duration::from_secs_f64(self.seconds * 0.97);
        self.interrupt.sleep_until(end)?;
        let after = delivered();
        let seconds = began.elapsed().as_secs_f64();
        if after.0 == before.0 {
            bail!("nothing arrived in {seconds:.1} s");
        }
        Ok(Measured {
            bytes: after.0 - before.0,
            packets: after.1.zip(before.1).map(|(after, before)| after - before),
            seconds,
            cpu_s: self
                .cpu()
                .iter()
                .zip(cpu)
                .map(|(after, before)| after - before)
                .collect(),
            cpu_busy: crate::stats::MachineTime::now().busy_share_since(machine),
        })
    }

    fn cpu(&self) -> Vec<f64> {
        self.pids
            .iter()
            .map(|&pid| process_cpu_s(pid).unwrap_or(0.0))
            .collect()
    }
}

fn tcp_flows(
    clients: &[Ends<'_>],
    flows: usize,
    direction: Direction,
    window: &Window<'_>,
) -> Result<Measured> {
    let workload = Workload {
        kind: Kind::Tcp,
        flows,
        start_s: 0.0,
        per_second: 0.0,
        ipv6: false,
        direction: None,
        link: None,
    };
    let span = Span {
        origin: Instant::now(),
        seconds: window.span_s(),
    };
    let start = |ends: &Ends<'_>| {
        let workloads = std::slice::from_ref(&workload);
        Traffic::start(workloads, *ends, Some(Cc::Cubic), direction, span, 1)
    };
    let mut traffics = clients.iter().map(start).collect::<Result<Vec<_>>>()?;
    let measured = window.measure(|| {
        let flows = traffics.iter().flat_map(|traffic| &traffic.flows);
        (flows.map(|flow| flow.deliveries.total()).sum(), None)
    });
    traffics.iter_mut().for_each(Traffic::finish);
    let mut broken = traffics
        .iter()
        .flat_map(|traffic| &traffic.flows)
        .filter_map(|flow| {
            let reason = flow.outcome.broken.lock().ok()?;
            reason.clone()
        });
    match (measured, broken.next()) {
        (Err(error), Some(reason)) => Err(error.context(reason)),
        (measured, _) => measured,
    }
}
