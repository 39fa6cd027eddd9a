//! One line per measurement, and what the lines come to.

use crate::say::sayln;

use super::{Contender, Figures, Load, Switch};

const TARGET_RATIO: &str = "x wireguard-go";

pub fn head() {
    sayln!(
        "| {:12} | gso | paths | clients | workers | {:11} | {:4} | {:>8} | {:>8} | {:>6} | {:>6} | {:>6} | busy |",
        "through",
        "load",
        "way",
        "Mbit/s",
        "packet/s",
        "server",
        "client",
        "s/GB"
    );
    sayln!("|---|---|---:|---:|---:|---|---|---:|---:|---:|---:|---:|---:|");
}

pub fn row(figures: &Figures) {
    let seconds = |index: usize| {
        let one = figures.cpu_s_per_gb.get(index);
        one.map_or(String::from("–"), |s| format!("{s:.2}"))
    };
    let sum: f64 = figures.cpu_s_per_gb.iter().sum();
    let packets = figures.packets_s;
    sayln!(
        "| {:12} | {:3} | {:5} | {:7} | {:>7} | {:11} | {:4} | {:8.0} | {:>8} | {:>6} | {:>6} | {sum:6.2} | {:4.2} |",
        name(figures.through),
        format!("{:?}", figures.gso).to_lowercase(),
        figures.paths,
        figures.clients,
        figures
            .workers
            .map_or(String::from("–"), |count| count.to_string()),
        load(figures.load),
        figures.direction.to_string(),
        figures.mbit_s,
        packets.map_or(String::from("–"), |packets| format!("{packets:.0}")),
        seconds(0),
        seconds(1),
        figures.cpu_busy,
    );
}

/// How Marline stands to wireguard-go, and several of its paths to one.
pub fn ratios(all: &[Figures]) {
    for one in all.iter().filter(|f| f.through == Contender::Marline) {
        let alike =
            |f: &&Figures| (f.gso, f.load, f.direction) == (one.gso, one.load, one.direction);
        let other = all
            .iter()
            .filter(alike)
            .find(|f| f.through == Contender::WireguardGo);
        let first = all
            .iter()
            .filter(alike)
            .find(|f| f.through == Contender::Marline && f.paths == 1);
        let mut line = Vec::new();
        if let Some(other) = other {
            line.push(format!("{:.2} {TARGET_RATIO}", one.mbit_s / other.mbit_s));
        }
        if let Some(first) = first.filter(|_| one.paths > 1) {
            line.push(format!(
                "{:.0} % of one path",
                100.0 * one.mbit_s / first.mbit_s
            ));
        }
        if !line.is_empty() {
            sayln!(
                "{} path(s), gso {:?}, {}, {}: {}",
                one.paths,
                one.gso,
                load(one.load),
                one.direction,
                line.join(", ")
            );
        }
    }
}

/// Names what a table's row is about, for a sentence.
pub fn which(contender: Contender, gso: Switch, paths: usize) -> String {
    let gso = format!("{gso:?}").to_lowercase();
    format!("{} over {paths} path(s), gso {gso}", name(contender))
}

fn name(contender: Contender) -> &'static str {
    match contender {
        Contender::Marline => "marline",
        Contender::WireguardGo => "wireguard-go",
        Contender::Native => "native",
    }
}

/// Names a load.
pub fn load(load: Load) -> String {
    match load {
        Load::Tcp { flows } => format!("{flows} x TCP"),
        Load::Udp { bytes } => format!("UDP {bytes} B"),
    }
}
