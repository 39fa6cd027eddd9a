//! The demonstration as one HTML file that needs nothing else: no network, no second file.
//!
//! It is read from the top: one sentence and four bars say what the bond carried, four tiles say
//! what a silent death cost; then come the curves, then the table, then how it was measured.
//! Every figure in a sentence comes from the run, whatever it turned out to be: nothing here
//! assumes that the bond did well.
//!
//! Colours: one per uplink, the same in every picture, told apart by colour-blind eyes and on
//! light and dark ground; red belongs to what was lost and to the moment of a failure alone.

use std::fmt::Write as _;

use super::chart::{Plot, Readout, escape};
use super::figures::{self, Death, Figures, Headline, link_rates, mbit, number};
use crate::results::{DemoResult, Direction, Phase, PhaseKind, Series};

/// Width of a bin of the throughput curves, in ms.
const BIN_MS: f64 = 100.0;
/// Width of a bin under the lens, in ms.
const FINE_BIN_MS: f64 = 20.0;
/// What the lens shows before and after the moment, in ms.
const LENS_MS: (f64, f64) = (300.0, 900.0);
/// Width of a picture over the whole page, and of one that stands beside another.
const WIDE: f64 = 1040.0;
const NARROW: f64 = 510.0;
const CALL_TITLE: &str = "One-way latency of the call's packets";

/// The whole file.
pub fn page(demo: &DemoResult) -> String {
    let mut body = String::new();
    head(&mut body, demo);
    alone_and_together(&mut body, demo);
    for phase in &demo.phases {
        if let Some(death) = figures::death(phase) {
            silent_death(&mut body, &phase.series, death);
        }
    }
    table(&mut body, demo);
    method(&mut body, demo);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Marline: the bond at work</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         <main>\n{body}</main>\n<div id=\"tip\" hidden></div>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.css"),
        include_str!("page.js"),
    )
}

fn head(out: &mut String, demo: &DemoResult) {
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

fn alone_and_together(out: &mut String, demo: &DemoResult) {
    let phases: Vec<&Phase> = demo
        .phases
        .iter()
        .filter(|phase| !matches!(phase.kind, PhaseKind::SilentDeath { .. }))
        .filter(|phase| phase.series.samples.len() > 1)
        .collect();
    if phases.is_empty() {
        return;
    }
    // One scale for all, so that heights can be compared across pictures.
    let top = phases
        .iter()
        .map(|phase| peak(&phase.series, BIN_MS))
        .fold(0.0, f64::max);
    let _ = writeln!(
        out,
        "<section><h2>Each uplink alone, then the bond</h2>\n\
         <p>The same download {} times, on one scale: what came out of each uplink's wire, \
         stacked.</p>",
        count_word(phases.len()).to_lowercase()
    );
    legend(out, &phases[phases.len() - 1].series);
    let _ = writeln!(out, "<div class=\"row r{}\">", phases.len().min(4));
    for phase in phases {
        let series = &phase.series;
        let mut plot = Plot::new(350.0, 230.0, &series.title, "Mbit/s")
            .x(0.0, figures::length_ms(series))
            .y_up_to(top);
        throughput(&mut plot, series, BIN_MS, 0.0);
        let _ = writeln!(
            out,
            "<figure><figcaption><b>{}</b>{}</figcaption>{}</figure>",
            escape(&series.title),
            series
                .goodput_mbit_s
                .map_or(String::new(), |goodput| format!(
                    " {} Mbit/s",
                    mbit(goodput)
                )),
            plot.finish()
        );
    }
    out.push_str("</div></section>\n");
}

fn silent_death(out: &mut String, series: &Series, death: Death) {
    let name = link_name(series, death.link);
    let figures = Figures::of(series);
    let end_ms = figures::length_ms(series);
    let until_ms = death.end_ms.unwrap_or(end_ms);
    let _ = writeln!(
        out,
        "<section><h2>{n} falls silent in mid-download and mid-call</h2>\n\
         <p>At {start} s the wire of {n} starts to swallow every packet. The interface stays up \
         and nobody is told: only the missing acknowledgements give it away. {back}\
         All pictures share one clock.</p>",
        n = escape(&name),
        start = number(death.start_ms / 1000.0),
        back = death.end_ms.map_or(String::new(), |end| format!(
            "At {} s the wire works again. ",
            number(end / 1000.0)
        )),
    );
    legend(out, series);
    let band = |plot: &mut Plot| plot.band(death.start_ms, until_ms, "silent", "");
    let wide =
        |height: f64, title: &str, unit: &str| Plot::new(WIDE, height, title, unit).x(0.0, end_ms);
    let marks = |plot: &mut Plot, texts: bool| {
        for mark in &series.events {
            plot.moment(mark.t_ms, if texts { &mark.text } else { "" });
        }
    };
    out.push_str("<div class=\"stack\">\n");

    let mut plot = wide(280.0, "Throughput per uplink over time", "Mbit/s")
        .y_up_to(peak(series, BIN_MS))
        .without_times();
    band(&mut plot);
    throughput(&mut plot, series, BIN_MS, 0.0);
    marks(&mut plot, true);
    figure(out, "Throughput", "what came out of each wire", plot);

    if !series.flows.is_empty() {
        let plot = wide(170.0, "Bytes delivered to the application", "MB").without_times();
        let mut plot = delivered(plot, series, (0.0, end_ms), BIN_MS);
        band(&mut plot);
        pauses(&mut plot, series);
        marks(&mut plot, false);
        let note = match figures.gap_ms_max {
            Some(gap) if gap > 0.0 => format!("longest pause {} ms", number(gap)),
            _ => "no pause of 20 ms or more".to_owned(),
        };
        figure(out, "Delivered to the application", &note, plot);
    }
    if let Some((lost, sent)) = figures.call_lost {
        let mut plot = wide(190.0, CALL_TITLE, "ms");
        if !series.pings.is_empty() {
            plot = plot.without_times();
        }
        let mut plot = call_scale(plot, series, (0.0, end_ms));
        band(&mut plot);
        call_layers(&mut plot, series);
        marks(&mut plot, false);
        let [median, p99] = figures.call_latency_ms.unwrap_or([f64::NAN; 2]);
        let note = format!(
            "one way, 50 packets a second each way; half under {} ms, 99 % under {} ms; {lost} of \
             {sent} lost (×)",
            number(median),
            number(p99)
        );
        figure(out, "The call", &note, plot);
    }
    if !series.pings.is_empty() {
        let top = series
            .pings
            .iter()
            .filter_map(|ping| ping.rtt_ms)
            .fold(0.0, f64::max);
        let mut plot = wide(160.0, "Ping round trips", "ms").y_up_to(top * 1.15);
        band(&mut plot);
        plot.dots(
            "ping",
            series
                .pings
                .iter()
                .filter_map(|p| Some((p.sent_ms, p.rtt_ms?))),
        );
        plot.lost(
            series
                .pings
                .iter()
                .filter(|p| p.rtt_ms.is_none())
                .map(|p| p.sent_ms),
        );
        marks(&mut plot, false);
        let note = figures.ping_ms.map_or(String::new(), |[p50, p95, p99]| {
            format!(
                "under the same load; 50, 95 and 99 % under {}, {} and {} ms; {} of {} lost",
                number(p50),
                number(p95),
                number(p99),
                figures.ping_lost.0,
                figures.ping_lost.1
            )
        });
        figure(out, "Ping", &note, plot);
    }
    out.push_str("</div></section>\n");
    lens(out, series, death, &name);
}

/// The moment of the death, close up.
fn lens(out: &mut String, series: &Series, death: Death, name: &str) {
    let range = (
        (death.start_ms - LENS_MS.0).max(0.0),
        (death.start_ms + LENS_MS.1).min(figures::length_ms(series)),
    );
    if range.1 <= range.0 {
        return;
    }
    let _ = writeln!(
        out,
        "<section><h2>The moment, close up</h2>\n<p>Around the instant in which {} dies, counted \
         from it.</p>\n<div class=\"row r2\">",
        escape(name)
    );
    let narrow = |title: &str, unit: &str| {
        Plot::new(NARROW, 230.0, title, unit)
            .x(range.0, range.1)
            .counted_from(death.start_ms)
    };
    let moment = format!("{name} dies");
    if !series.flows.is_empty() {
        let plot = narrow("Bytes delivered to the application, close up", "MB");
        let mut plot = delivered(plot, series, range, FINE_BIN_MS);
        pauses(&mut plot, series);
        plot.moment(death.start_ms, &moment);
        figure(
            out,
            "Delivered to the application",
            "a flat line is a pause",
            plot,
        );
    }
    if series.call.is_empty() {
        let mut plot = narrow("Throughput, close up", "Mbit/s").y_up_to(peak(series, FINE_BIN_MS));
        throughput(&mut plot, series, FINE_BIN_MS, range.0);
        plot.moment(death.start_ms, &moment);
        figure(out, "Throughput", "what came out of each wire", plot);
    } else {
        let mut plot = call_scale(narrow(CALL_TITLE, "ms"), series, range);
        call_layers(&mut plot, series);
        plot.moment(death.start_ms, &moment);
        figure(
            out,
            "The call",
            "every packet at the moment it was sent; lost ones are ×",
            plot,
        );
    }
    out.push_str("</div></section>\n");
}

fn table(out: &mut String, demo: &DemoResult) {
    out.push_str(
        "<section><h2>Figures</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>Part</th>\
         <th>Goodput<br><small>Mbit/s</small></th><th>Longest pause<br><small>ms</small></th>\
         <th>Ping 50 / 95 / 99 %<br><small>ms</small></th><th>Call lost<br><small>packets</small></th>\
         <th>Call 50 / 99 %<br><small>ms, one way</small></th><th>Longest silence of the call<br><small>ms</small></th>\
         <th>Machine busy<br><small>share</small></th><th>Emulator late<br><small>ms, 99 %</small></th></tr></thead>\n<tbody>\n",
    );
    for phase in &demo.phases {
        let figures = Figures::of(&phase.series);
        let dash = || "–".to_owned();
        let below = |gap: f64| {
            if gap > 0.0 {
                number(gap)
            } else {
                "&lt; 20".to_owned()
            }
        };
        let cells = [
            figures.goodput_mbit_s.map_or_else(dash, mbit),
            figures.gap_ms_max.map_or_else(dash, below),
            figures
                .ping_ms
                .map_or_else(dash, |p| p.map(number).join(" / ")),
            figures
                .call_lost
                .map_or_else(dash, |(lost, sent)| format!("{lost} of {sent}")),
            figures
                .call_latency_ms
                .map_or_else(dash, |p| p.map(number).join(" / ")),
            figures.call_gap_ms_max.map_or_else(dash, below),
            format!("{:.2}", figures.cpu_busy),
            number(figures.lateness_ms_p99),
        ];
        let _ = write!(out, "<tr><th>{}</th>", escape(&phase.series.title));
        for cell in cells {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn method(out: &mut String, demo: &DemoResult) {
    let _ = writeln!(
        out,
        "<section class=\"method\"><h2>How this was measured</h2>\n<ul>\n\
         <li>Real programs in network namespaces of one machine: a client and a server of Marline, \
         an internet host behind the server, and an emulated wire per uplink with the rate, delay \
         and queue named above. The single uplinks were measured natively, without Marline.</li>\n\
         <li>Goodput counts bytes that reached the application. Throughput counts packets that \
         came out of the emulated wires. A pause is a stretch of at least 20 ms, on a clock of \
         1 ms, in which a running download delivered nothing.</li>\n\
         <li>An uplink counts as used again when, for a tenth of a second, it carries at least \
         half of what it carried before.</li>\n\
         <li>One run on a small machine: where it was busier than 0.8 or the emulator more than a \
         few ms late, distrust the figures and run it again.</li>\n</ul>\n\
         <p class=\"foot\">Commit <code>{}</code> · {} · {}</p></section>",
        escape(&demo.commit),
        escape(&demo.machine),
        escape(&demo.started),
    );
}

// Layers that several pictures share.

fn throughput(plot: &mut Plot, series: &Series, bin_ms: f64, from_ms: f64) {
    let skip = (from_ms / bin_ms).floor() as usize;
    let per_link: Vec<Vec<f64>> = (0..series.links.len())
        .map(|link| {
            link_rates(series, link, bin_ms)
                .into_iter()
                .skip(skip)
                .collect()
        })
        .collect();
    let areas: Vec<(String, Vec<f64>)> = per_link
        .iter()
        .enumerate()
        .map(|(link, rates)| (color(link), rates.clone()))
        .collect();
    plot.stacked(bin_ms, &areas);
    let bins = per_link.first().map_or(0, Vec::len);
    let together = (0..bins)
        .map(|bin| per_link.iter().map(|rates| rates[bin]).sum())
        .collect();
    let mut readouts: Vec<Readout> = per_link
        .into_iter()
        .enumerate()
        .map(|(link, values)| Readout {
            name: link_name(series, link),
            class: color(link),
            values,
        })
        .collect();
    if readouts.len() > 1 {
        readouts.push(Readout {
            name: "together".to_owned(),
            class: "sum".to_owned(),
            values: together,
        });
    }
    plot.readouts(bin_ms, readouts);
}

/// Scales `plot` for the delivered megabytes of all bulk flows together, and draws them.
fn delivered(plot: Plot, series: &Series, range: (f64, f64), step_ms: f64) -> Plot {
    let count = ((range.1 - range.0) / step_ms).floor() as usize + 1;
    let bytes = figures::readings(series, range.0, step_ms, count, |s| {
        s.flow_bytes.iter().sum()
    });
    let base = if range.0 > 0.0 {
        bytes.first().copied().unwrap_or(0.0)
    } else {
        0.0
    };
    let megabytes: Vec<f64> = bytes
        .into_iter()
        .map(|value| (value - base) / 1e6)
        .collect();
    let top = megabytes.last().copied().unwrap_or(1.0);
    let mut plot = plot.y_up_to(top * 1.02);
    let points = megabytes
        .iter()
        .enumerate()
        .map(|(k, mb)| (range.0 + k as f64 * step_ms, *mb));
    plot.line("data", points);
    let readout = Readout {
        name: "delivered".to_owned(),
        class: "data".to_owned(),
        values: megabytes,
    };
    plot.readouts(step_ms, vec![readout]);
    plot
}

fn pauses(plot: &mut Plot, series: &Series) {
    let longest = series
        .gaps
        .iter()
        .filter(|gap| gap.flow.is_some())
        .map(|gap| gap.length_ms);
    let longest = longest.fold(0.0, f64::max);
    for gap in series.gaps.iter().filter(|gap| gap.flow.is_some()) {
        let text = match gap.length_ms >= longest {
            true => format!("{} ms", number(gap.length_ms)),
            false => String::new(),
        };
        plot.band(gap.start_ms, gap.start_ms + gap.length_ms, "pause", &text);
    }
}

/// Scales `plot` for the call: all but the worst packet in a thousand fit.
fn call_scale(plot: Plot, series: &Series, range: (f64, f64)) -> Plot {
    let latencies = series
        .call
        .iter()
        .filter(|packet| packet.sent_ms >= range.0 && packet.sent_ms <= range.1)
        .filter_map(|packet| packet.latency_ms)
        .collect();
    let [top] = figures::percentiles(latencies, [0.999]).unwrap_or([1.0]);
    plot.y_up_to(top * 1.2)
}

fn call_layers(plot: &mut Plot, series: &Series) {
    for (direction, class) in [(Direction::Down, "call-down"), (Direction::Up, "call-up")] {
        let packets = series
            .call
            .iter()
            .filter(|packet| packet.direction == direction);
        plot.dots(
            class,
            packets.filter_map(|p| Some((p.sent_ms, p.latency_ms?))),
        );
    }
    plot.lost(
        series
            .call
            .iter()
            .filter(|p| p.latency_ms.is_none())
            .map(|p| p.sent_ms),
    );
}

fn figure(out: &mut String, title: &str, note: &str, plot: Plot) {
    let _ = writeln!(
        out,
        "<figure><figcaption><b>{}</b> {}</figcaption>{}</figure>",
        escape(title),
        escape(note),
        plot.finish()
    );
}

fn legend(out: &mut String, series: &Series) {
    out.push_str("<p class=\"legend\">");
    for (link, label) in series.links.iter().enumerate() {
        let _ = write!(
            out,
            "<span><i class=\"{}\"></i><b>{}</b> {}</span>",
            color(link),
            escape(&label.name),
            escape(&label.text)
        );
    }
    if !series.call.is_empty() {
        out.push_str(
            "<span><i class=\"dot call-down\"></i>call, towards the client</span>\
             <span><i class=\"dot call-up\"></i>call, from the client</span>",
        );
    }
    out.push_str("</p>\n");
}

fn color(link: usize) -> String {
    // Six colours can be told apart; a seventh uplink shares the first one's.
    format!("c{}", link % 6)
}

fn link_name(series: &Series, link: usize) -> String {
    series.links.get(link).map_or_else(
        || format!("uplink {}", link + 1),
        |label| label.name.clone(),
    )
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

/// Highest sum over all links in any bin, Mbit/s.
fn peak(series: &Series, bin_ms: f64) -> f64 {
    let per_link: Vec<Vec<f64>> = (0..series.links.len())
        .map(|link| link_rates(series, link, bin_ms))
        .collect();
    let bins = per_link.first().map_or(0, Vec::len);
    (0..bins)
        .map(|bin| per_link.iter().map(|rates| rates[bin]).sum())
        .fold(0.0, f64::max)
}

fn count_word(count: usize) -> String {
    match count {
        1 => "One".to_owned(),
        2 => "Two".to_owned(),
        3 => "Three".to_owned(),
        4 => "Four".to_owned(),
        5 => "Five".to_owned(),
        more => more.to_string(),
    }
}

fn and_list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Two strands that become one rope.
const ROPE: &str = r#"<svg class="logo" viewBox="0 0 44 24" aria-hidden="true"><path class="line c0" d="M2 5C14 5 14 14 24 14S34 10 42 12"/><path class="line c1" d="M2 19C14 19 14 10 24 10S34 14 42 12"/></svg>"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_data;

    #[test]
    fn the_first_sentence_says_what_the_run_found() {
        let page = page(&sample_data::demo());
        let goodput = mbit(
            sample_data::demo().phases[2]
                .series
                .goodput_mbit_s
                .expect("a download"),
        );
        assert!(page.contains(&format!("<em>{goodput} Mbit/s</em>")));
        assert!(page.contains("Two uplinks, one pipe"));
        assert!(page.contains("longest pause of the download while wan1 fell silent"));
        assert!(page.contains("wan1 is back"));
    }

    #[test]
    fn the_page_needs_no_other_file_and_no_network() {
        let page = page(&sample_data::demo());
        for reference in ["http://", "https://", "src=", "<link", "@import", "url("] {
            assert!(
                !page.contains(reference),
                "the page refers to something outside: {reference}"
            );
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for broken in ["NaN", "inf", "TODO"] {
            assert!(
                !page.contains(&format!(">{broken}")),
                "{broken} in the page"
            );
        }
    }

    #[test]
    fn names_from_the_run_cannot_become_markup() {
        let mut demo = sample_data::demo();
        demo.phases[3].series.links[0].name = "<wan>".to_owned();
        let page = page(&demo);
        assert!(!page.contains("<wan>"));
        assert!(page.contains("&lt;wan&gt; falls silent"));
        assert!(page.contains("Linux 6.18, &lt;sample&gt; processor"));
    }

    #[test]
    fn a_bond_that_did_badly_is_shown_as_it_was() {
        let mut demo = sample_data::demo();
        demo.phases[0].series.goodput_mbit_s = Some(40.0);
        demo.phases[2].series.goodput_mbit_s = Some(20.0);
        demo.phases[3].series.gaps[1].length_ms = 4321.0;
        let page = page(&demo);
        assert!(page.contains("<em>20.0 Mbit/s</em>"));
        assert!(page.contains("4321"));
        assert!(page.contains("0.50<small> ×</small>"));
    }

    #[test]
    fn an_empty_or_broken_off_run_still_makes_a_page() {
        let mut demo = sample_data::demo();
        demo.phases.truncate(1);
        demo.phases[0].series.samples.clear();
        demo.phases[0].series.goodput_mbit_s = None;
        assert!(page(&demo).contains("The bond at work"));
        demo.phases.clear();
        assert!(page(&demo).ends_with("</html>\n"));
    }
}
