//! What a sweep says: distributions, and the seeds that did worst.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Cell, LinkCell};

/// How many of the worst are listed.
const WORST: usize = 10;

/// Where the values of one figure lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// The smallest.
    pub min: f64,
    /// A twentieth is below.
    pub p5: f64,
    /// A quarter is below.
    pub p25: f64,
    /// Half is below.
    pub p50: f64,
    /// Three quarters are below.
    pub p75: f64,
    /// All but a twentieth are below.
    pub p95: f64,
}

impl Quantiles {
    /// Of values in any order; None without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Quantiles> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| sorted[(last as f64 * share).round() as usize];
        Some(Quantiles {
            min: at(0.0),
            p5: at(0.05),
            p25: at(0.25),
            p50: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
        })
    }
}

/// Cells that have something in common.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// What.
    pub name: String,
    /// How many.
    pub cells: usize,
    /// Of [`Cell::share_of_native_sum`].
    pub share_of_native_sum: Quantiles,
    /// Of [`Cell::share_of_capacity`].
    pub share_of_capacity: Quantiles,
    /// Of [`Cell::share_of_tunnel_sum`].
    pub share_of_tunnel_sum: Quantiles,
    /// Of [`Cell::ratio_to_best_single`].
    pub ratio_to_best_single: Quantiles,
    /// How many cells carried less than 98 % of their best link alone.
    pub below_best_single: usize,
    /// How many are below their [`Cell::mark`].
    pub below_mark: usize,
}

/// Everything about a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The commit that the simulator was run from.
    pub commit: String,
    /// Seeds, the last not included.
    pub seeds: (u64, u64),
    /// Virtual length of each run, seconds.
    pub duration_s: f64,
    /// Distributions.
    pub groups: Vec<Group>,
    /// Every cell.
    pub cells: Vec<Cell>,
}

/// Sorts the cells into groups.
pub fn summarise(commit: &str, seeds: (u64, u64), duration_s: f64, cells: Vec<Cell>) -> Summary {
    let mut controls: Vec<_> = cells.iter().map(|cell| cell.cc).collect();
    controls.sort_by_key(|cc| format!("{cc:?}"));
    controls.dedup();
    let several = |cell: &Cell| cell.links.len() > 1;
    let near = |cell: &Cell| cell.spread_ms() <= 100.0;
    type Belongs<'a> = Box<dyn Fn(&Cell) -> bool + 'a>;
    let mut groups = Vec::new();
    for cc in controls {
        let kinds: [(&str, Belongs<'_>); 5] = [
            ("one link", Box::new(|cell| !several(cell))),
            ("2 to 5 links", Box::new(several)),
            (
                "spread ≤ 100 ms, loss ≤ 0.5 %",
                Box::new(|cell| several(cell) && near(cell) && cell.loss() <= 0.005),
            ),
            (
                "spread ≤ 100 ms, more loss",
                Box::new(|cell| several(cell) && near(cell) && cell.loss() > 0.005),
            ),
            (
                "spread > 100 ms",
                Box::new(|cell| several(cell) && !near(cell)),
            ),
        ];
        for (name, belongs) in kinds {
            let chosen: Vec<&Cell> = cells
                .iter()
                .filter(|cell| cell.cc == cc && belongs(cell))
                .collect();
            let name = format!("{cc:?}, {name}").to_lowercase();
            groups.extend(group(name, &chosen));
        }
    }
    Summary {
        commit: commit.to_owned(),
        seeds,
        duration_s,
        groups,
        cells,
    }
}

fn group(name: String, cells: &[&Cell]) -> Option<Group> {
    let of = |figure: fn(&Cell) -> f64| Quantiles::of(cells.iter().map(|cell| figure(cell)));
    Some(Group {
        name,
        cells: cells.len(),
        share_of_native_sum: of(|cell| cell.share_of_native_sum)?,
        share_of_capacity: of(|cell| cell.share_of_capacity)?,
        share_of_tunnel_sum: of(|cell| cell.share_of_tunnel_sum)?,
        ratio_to_best_single: of(|cell| cell.ratio_to_best_single)?,
        below_best_single: cells
            .iter()
            .filter(|cell| cell.ratio_to_best_single < 0.98)
            .count(),
        below_mark: cells
            .iter()
            .filter(|cell| cell.mark() > Some(cell.share_of_tunnel_sum))
            .count(),
    })
}

impl Summary {
    /// In lines for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let (first, end) = self.seeds;
        let _ = writeln!(
            out,
            "seeds {first} to {}, {} s each, commit {}",
            end - 1,
            self.duration_s,
            self.commit
        );
        for group in &self.groups {
            let _ = writeln!(
                out,
                "{}: {} cells, {} below their best link alone, {} below their mark",
                group.name, group.cells, group.below_best_single, group.below_mark
            );
            for (what, quantiles, scale) in [
                ("% of native sum", group.share_of_native_sum, 100.0),
                ("% of capacity", group.share_of_capacity, 100.0),
                ("% of tunnel sum", group.share_of_tunnel_sum, 100.0),
                ("× best single", group.ratio_to_best_single, 1.0),
            ] {
                let digits = if scale > 1.0 { 1 } else { 2 };
                let Quantiles {
                    min,
                    p5,
                    p25,
                    p50,
                    p75,
                    p95,
                } = quantiles;
                let _ = write!(out, "  {what:<16} min");
                for (name, value) in [
                    ("", min),
                    (" p5", p5),
                    (" p25", p25),
                    (" p50", p50),
                    (" p75", p75),
                    (" p95", p95),
                ] {
                    let _ = write!(out, "{name} {:>6.digits$}", value * scale);
                }
                let _ = writeln!(out);
            }
        }
        self.list_worst(&mut out, "least of what the links could carry", |cell| {
            cell.share_of_capacity
        });
        self.list_worst(&mut out, "least of the sum through the tunnel", |cell| {
            cell.share_of_tunnel_sum
        });
        self.list_worst(&mut out, "least against the best link alone", |cell| {
            cell.ratio_to_best_single
        });
        out
    }

    fn list_worst(&self, out: &mut String, title: &str, figure: fn(&Cell) -> f64) {
        let several = self.cells.iter().filter(|cell| cell.links.len() > 1);
        let mut worst: Vec<&Cell> = several.collect();
        worst.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
        let _ = writeln!(out, "{title}:");
        for cell in worst.into_iter().take(WORST) {
            out.push_str(&cell_text(cell));
        }
    }
}

fn cell_text(cell: &Cell) -> String {
    let mut out = format!(
        "  seed {} {}: {:.2} Mbit/s, {:.1} % of native sum, {:.1} % of capacity, {:.1} % of tunnel sum, {:.2} × best; gap {:.0} ms, \
         reductions {}, timeouts {}, queue dropped {}, sent again {}, skipped {}\n",
        cell.seed,
        format!("{:?}", cell.cc).to_lowercase(),
        cell.goodput_mbit_s,
        cell.share_of_native_sum * 100.0,
        cell.share_of_capacity * 100.0,
        cell.share_of_tunnel_sum * 100.0,
        cell.ratio_to_best_single,
        cell.gap_ms_max,
        cell.reductions,
        cell.timeouts,
        cell.queue_dropped,
        cell.retransmitted,
        cell.skipped
    );
    for link in &cell.links {
        out.push_str(&link_text(link));
    }
    out
}

fn link_text(link: &LinkCell) -> String {
    format!(
        "      {:>6.2} Mbit/s {:>5.1} ms ±{:.1} loss {:.2} %: used {:.0} %, alone {:.2} natively, {:.2} through the tunnel\n",
        link.rate_mbit,
        link.rtt_ms,
        link.jitter_ms,
        link.loss * 100.0,
        link.used * 100.0,
        link.native_mbit_s,
        link.tunnel_mbit_s
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Algorithm;

    fn cell(seed: u64, goodput_mbit_s: f64, rtt_ms: f64) -> Cell {
        let link = |rtt_ms| LinkCell {
            rate_mbit: 10.0,
            rtt_ms,
            jitter_ms: 0.0,
            loss: 0.0,
            native_mbit_s: 10.0,
            tunnel_mbit_s: 9.0,
            used: 1.0,
        };
        Cell {
            seed,
            cc: Algorithm::Cubic,
            links: vec![link(20.0), link(rtt_ms)],
            goodput_mbit_s,
            share_of_native_sum: goodput_mbit_s / 20.0,
            share_of_capacity: goodput_mbit_s / 20.0,
            share_of_tunnel_sum: goodput_mbit_s / 18.0,
            ratio_to_best_single: goodput_mbit_s / 9.0,
            gap_ms_max: 0.0,
            reductions: 0,
            timeouts: 0,
            queue_dropped: 0,
            retransmitted: 0,
            skipped: 0,
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let quantiles = Quantiles::of((0..=100).rev().map(f64::from)).unwrap();
        let expected = Quantiles {
            min: 0.0,
            p5: 5.0,
            p25: 25.0,
            p50: 50.0,
            p75: 75.0,
            p95: 95.0,
        };
        assert_eq!(quantiles, expected);
        assert_eq!(Quantiles::of([]), None);
    }

    #[test]
    fn cells_are_grouped_by_spread_and_the_worst_stands_first() {
        let cells = vec![cell(1, 18.0, 60.0), cell(2, 8.0, 220.0)];
        let summary = summarise("abc", (1, 3), 15.0, cells);
        let names: Vec<_> = summary
            .groups
            .iter()
            .map(|group| (group.name.as_str(), group.cells))
            .collect();
        assert_eq!(
            names,
            [
                ("cubic, 2 to 5 links", 2),
                ("cubic, spread ≤ 100 ms, loss ≤ 0.5 %", 1),
                ("cubic, spread > 100 ms", 1)
            ]
        );
        assert_eq!(summary.groups[0].below_best_single, 1);
        assert_eq!(summary.groups[0].below_mark, 1);
        let text = summary.text();
        assert!(
            text.find("seed 2").unwrap() < text.find("seed 1").unwrap(),
            "{text}"
        );
    }
}
