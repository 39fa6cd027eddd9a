//! The demonstration as one HTML file that needs nothing else: no network, no second file.
//!
//! It is read from the top: one sentence and four bars say what the bond carried, four tiles say
//! what a silent death cost ([`summary`]); then come the curves, those of a [`death`] apart, then
//! the table, then how it was measured.
//! Every figure in a sentence comes from the run, whatever it turned out to be: nothing here
//! assumes that the bond did well.
//!
//! Colours: one per uplink, the same in every picture, told apart by colour-blind eyes and on
//! light and dark ground; red belongs to what was lost and to the moment of a failure alone.

mod death;
mod parts;
mod summary;

use std::fmt::Write as _;

use self::parts::{BIN_MS, count_word, legend, peak, throughput};
use super::chart::{Plot, escape};
use super::figures::{self, Figures, mbit, number};
use crate::results::{DemoResult, Phase, PhaseKind};

/// The whole file.
pub fn page(demo: &DemoResult) -> String {
    let mut body = String::new();
    summary::summary(&mut body, demo);
    alone_and_together(&mut body, demo);
    for phase in &demo.phases {
        if let Some(death) = figures::death(phase) {
            death::silent_death(&mut body, &phase.series, death);
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
