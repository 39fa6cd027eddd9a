//! What the page says before one scrolls: a sentence, a bar per uplink and one for the bond, tiles that say what a silent
//! death cost, and a picture of what was connected to what.

use std::fmt::Write as _;

use super::parts::{WIDE, color, count_word, link_name};
use crate::report::chart::escape;
use crate::report::figures::{self, Figures, Headline, mbit, number};
use crate::results::{DemoResult, Direction, PhaseKind, Series};

/// Two strands that become one rope.
const ROPE: &str = r#"<svg class="logo" viewBox="0 0 44 24" aria-hidden="true"><path class="line c0" d="M2 5C14 5 14 14 24 14S34 10 42 12"/><path class="line c1" d="M2 19C14 19 14 10 24 10S34 14 42 12"/></svg>"#;

pub(super) fn summary(out: &mut String, demo: &DemoResult) {
    let _ = writeln!(
        out,
        "<header><p class=\"brand\">{ROPE}<b>Marline</b> <span>the bond at work</span></p>"
    );
    if let Some(headline) = Headline::of(demo) {
        let parts: Vec<String> = demo
            .phases
            .iter()
            .filter(|phase| matches!(phase.kind, PhaseKind::SingleLink { .. }))
            .filter_map(|phase| phase.series.goodput_mbit_s)
            .map(mbit)
            .collect();
        let _ = writeln!(
            out,
            "<h1>{} uplinks, one pipe: one download gets <em>{} Mbit/s</em> where the uplinks \
             alone carry {}.</h1>",
            count_word(parts.len()),
            mbit(headline.bond_mbit_s),
            escape(&and_list(&parts)),
        );
    } else {
        out.push_str("<h1>The bond at work</h1>\n");
    }
    let _ = writeln!(
        out,
        "</header>\n<section class=\"top\">\n<div class=\"bars\">"
    );
    bars(out, demo);
    out.push_str("</div>\n<div class=\"tiles\">\n");
    tiles(out, demo);
    out.push_str("</div>\n</section>\n");
    if let Some(series) = demo
        .phases
        .iter()
        .rev()
        .map(|phase| &phase.series)
        .find(|s| s.links.len() > 1)
    {
        topology(out, series);
    }
}

/// A bar per uplink and one for the bond, whose colours show what came over which uplink.
fn bars(out: &mut String, demo: &DemoResult) {
    let sum = demo.native_sum_mbit_s();
    let most = demo
        .phases
        .iter()
        .filter_map(|phase| phase.series.goodput_mbit_s)
        .fold(sum, f64::max);
    let per_cent = |value: f64| {
        if most > 0.0 {
            100.0 * value / most
        } else {
            0.0
        }
    };
    for phase in &demo.phases {
        let Some(goodput) = phase.series.goodput_mbit_s else {
            continue;
        };
        let (name, note, parts) = match phase.kind {
            PhaseKind::SingleLink { link } => {
                let label = phase.series.links.get(link);
                (
                    format!("{} alone", label.map_or("one uplink", |label| &label.name)),
                    label.map_or(String::new(), |label| label.text.clone()),
                    vec![(link, 1.0)],
                )
            }
            PhaseKind::Bond => {
                let note = match sum > 0.0 {
                    true => format!("{:.0} % of the sum", 100.0 * goodput / sum),
                    false => String::new(),
                };
                ("the bond".to_owned(), note, link_shares(&phase.series))
            }
            PhaseKind::SilentDeath { .. } => continue,
        };
        let fills: String = parts
            .iter()
            .map(|(link, share)| {
                let width = per_cent(goodput) * share;
                format!(
                    "<i class=\"{}\" style=\"width:{width:.2}%\"></i>",
                    color(*link)
                )
            })
            .collect();
        let mark = match phase.kind == PhaseKind::Bond && sum > 0.0 {
            true => format!(
                "<u style=\"left:{:.2}%\" title=\"sum of the uplinks alone: {} Mbit/s\"></u>",
                per_cent(sum).min(99.7),
                mbit(sum)
            ),
            false => String::new(),
        };
        let class = if phase.kind == PhaseKind::Bond {
            "bar bond"
        } else {
            "bar"
        };
        let _ = writeln!(
            out,
            "<div class=\"{class}\"><span class=\"who\"><b>{}</b><small>{}</small></span>\
             <span class=\"track\">{fills}{mark}</span><span class=\"much\">{}<small> Mbit/s</small></span></div>",
            escape(&name),
            escape(&note),
            mbit(goodput),
        );
    }
}

fn tiles(out: &mut String, demo: &DemoResult) {
    let mut tile = |value: String, unit: &str, text: String| {
        let _ = writeln!(
            out,
            "<div class=\"tile\"><b>{}<small>{}</small></b><span>{}</span></div>",
            escape(&value),
            escape(unit),
            escape(&text)
        );
    };
    if let Some(headline) = Headline::of(demo) {
        tile(
            format!("{:.2}", headline.bond_mbit_s / headline.best_mbit_s),
            " ×",
            "the best uplink alone".to_owned(),
        );
    }
    let Some((phase, death)) = demo
        .phases
        .iter()
        .find_map(|phase| figures::death(phase).map(|death| (phase, death)))
    else {
        return;
    };
    let figures = Figures::of(&phase.series);
    let name = link_name(&phase.series, death.link);
    if let Some(gap) = figures.gap_ms_max {
        let (value, unit) = if gap > 0.0 {
            (number(gap), " ms")
        } else {
            ("under 20".into(), " ms")
        };
        tile(
            value,
            unit,
            format!("longest pause of the download while {name} fell silent"),
        );
    }
    if let Some((lost, sent)) = figures.call_lost {
        tile(
            lost.to_string(),
            "",
            format!("of {sent} packets of the call lost meanwhile"),
        );
    }
    match (death.end_ms, death.return_s) {
        (_, Some(seconds)) => {
            tile(
                number(seconds),
                " s",
                format!("until {name}, when it was back, was used again"),
            );
        }
        (Some(_), None) => tile(
            "not".to_owned(),
            "",
            format!("used again: {name}, though it came back"),
        ),
        (None, None) => {}
    }
}

/// The picture of what is connected to what.
fn topology(out: &mut String, series: &Series) {
    let links = &series.links;
    let height = 44.0 + 40.0 * links.len() as f64;
    let middle = height / 2.0;
    let mut wires = String::new();
    for (k, link) in links.iter().enumerate() {
        let y = middle + (k as f64 - (links.len() - 1) as f64 / 2.0) * 44.0;
        let _ = write!(
            wires,
            r#"<path class="wire {c}" d="M182 {middle:.0}C250 {middle:.0} 230 {y:.0} 300 {y:.0}H560C630 {y:.0} 610 {middle:.0} 678 {middle:.0}"/><text class="wire-text" x="430" y="{ty:.0}" text-anchor="middle"><tspan class="strong">{name}</tspan>  {text}</text>"#,
            c = color(k),
            ty = y - 9.0,
            name = escape(&link.name),
            text = escape(&link.text),
        );
    }
    let host = |x: f64, title: &str, note: &str| {
        format!(
            r#"<rect class="host" x="{x:.0}" y="{top:.0}" width="160" height="56" rx="10"/><text class="host-text strong" x="{cx:.0}" y="{a:.0}" text-anchor="middle">{title}</text><text class="host-text" x="{cx:.0}" y="{b:.0}" text-anchor="middle">{note}</text>"#,
            top = middle - 28.0,
            cx = x + 80.0,
            a = middle - 3.0,
            b = middle + 15.0,
        )
    };
    let _ = writeln!(
        out,
        r#"<section class="plain"><svg class="map" viewBox="0 0 {WIDE} {height:.0}" role="img" aria-label="A client with {n} uplinks to one server, and the internet behind it">{wires}<path class="rope" d="M838 {middle:.0}H880"/>{client}{server}{net}</svg></section>"#,
        n = links.len(),
        client = host(22.0, "laptop", "marline up"),
        server = host(678.0, "server", "marline-server"),
        net = host(880.0, "internet", "sees one address"),
    );
}

/// What share of the bytes came over which link.
fn link_shares(series: &Series) -> Vec<(usize, f64)> {
    let Some(last) = series.samples.last() else {
        return Vec::new();
    };
    let bytes = match figures::direction(series) {
        Direction::Down => &last.link_down_bytes,
        Direction::Up => &last.link_up_bytes,
    };
    let total = bytes.iter().sum::<u64>().max(1) as f64;
    bytes
        .iter()
        .enumerate()
        .map(|(link, bytes)| (link, *bytes as f64 / total))
        .collect()
}

fn and_list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
