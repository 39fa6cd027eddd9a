//! What several sections of the page share: layers of a plot, the frame and legend of a picture, the colour and name of
//! each uplink.

use std::fmt::Write as _;

use crate::report::chart::{Plot, Readout, escape};
use crate::report::figures::{self, link_rates, number};
use crate::results::{Direction, Series};

/// Width of a bin of the throughput curves, in ms.
pub(super) const BIN_MS: f64 = 100.0;
/// Width of a picture over the whole page.
pub(super) const WIDE: f64 = 1040.0;

pub(super) fn throughput(plot: &mut Plot, series: &Series, bin_ms: f64, from_ms: f64) {
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
pub(super) fn delivered(plot: Plot, series: &Series, range: (f64, f64), step_ms: f64) -> Plot {
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

pub(super) fn pauses(plot: &mut Plot, series: &Series) {
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
pub(super) fn call_scale(plot: Plot, series: &Series, range: (f64, f64)) -> Plot {
    let latencies = series
        .call
        .iter()
        .filter(|packet| packet.sent_ms >= range.0 && packet.sent_ms <= range.1)
        .filter_map(|packet| packet.latency_ms)
        .collect();
    let [top] = figures::percentiles(latencies, [0.999]).unwrap_or([1.0]);
    plot.y_up_to(top * 1.2)
}

pub(super) fn call_layers(plot: &mut Plot, series: &Series) {
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

pub(super) fn figure(out: &mut String, title: &str, note: &str, plot: Plot) {
    let _ = writeln!(
        out,
        "<figure><figcaption><b>{}</b> {}</figcaption>{}</figure>",
        escape(title),
        escape(note),
        plot.finish()
    );
}

pub(super) fn legend(out: &mut String, series: &Series) {
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

pub(super) fn color(link: usize) -> String {
    // Six colours can be told apart; a seventh uplink shares the first one's.
    format!("c{}", link % 6)
}

pub(super) fn link_name(series: &Series, link: usize) -> String {
    series.links.get(link).map_or_else(
        || format!("uplink {}", link + 1),
        |label| label.name.clone(),
    )
}

/// Highest sum over all links in any bin, Mbit/s.
pub(super) fn peak(series: &Series, bin_ms: f64) -> f64 {
    let per_link: Vec<Vec<f64>> = (0..series.links.len())
        .map(|link| link_rates(series, link, bin_ms))
        .collect();
    let bins = per_link.first().map_or(0, Vec::len);
    (0..bins)
        .map(|bin| per_link.iter().map(|rates| rates[bin]).sum())
        .fold(0.0, f64::max)
}

pub(super) fn count_word(count: usize) -> String {
    match count {
        1 => "One".to_owned(),
        2 => "Two".to_owned(),
        3 => "Three".to_owned(),
        4 => "Four".to_owned(),
        5 => "Five".to_owned(),
        more => more.to_string(),
    }
}
