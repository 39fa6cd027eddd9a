//! One silent death: every picture of it on one clock, and the moment itself close up.

use std::fmt::Write as _;

use super::parts::{
    BIN_MS, WIDE, call_layers, call_scale, delivered, figure, legend, link_name, pauses, peak,
    throughput,
};
use crate::report::chart::{Plot, escape};
use crate::report::figures::{self, Death, Figures, number};
use crate::results::Series;

/// Width of a bin under the lens, in ms.
const FINE_BIN_MS: f64 = 20.0;
/// What the lens shows before and after the moment, in ms.
const LENS_MS: (f64, f64) = (300.0, 900.0);
/// Width of a picture that stands beside another.
const NARROW: f64 = 510.0;
const CALL_TITLE: &str = "One-way latency of the call's packets";

pub(super) fn silent_death(out: &mut String, series: &Series, death: Death) {
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
