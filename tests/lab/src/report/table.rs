//! Tables for the terminal and for Markdown, from the same rows.
//!
//! A scenario makes one table. A row is a metric (with congestion control and direction); a
//! column is what carried the traffic: Marline first, then whatever it is compared with. A cell
//! holds the median and, where there was more than one run, the range. Shares stand only where
//! they were measured, so a column that would be empty is not there at all.

use std::fmt::Write as _;

use super::figures::number;
use crate::results::{Measured, ScenarioResult};

/// What Marline's own column is called.
const OURS: &str = "marline";

/// Tables for a terminal, aligned with spaces.
pub fn terminal(results: &[ScenarioResult]) -> String {
    render(results, |result, rows| {
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = format!("{}\n", heading(result));
        for (k, row) in rows.iter().enumerate() {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                // Words to the left, figures to the right.
                let _ = match column {
                    0 => write!(line, " {cell}{pad}"),
                    _ => write!(line, "  {pad}{cell}"),
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
            if k == 0 {
                let rule: usize = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
                let _ = writeln!(out, "  {}", "─".repeat(rule));
            }
        }
        out
    })
}

/// Tables for a Markdown file.
pub fn markdown(results: &[ScenarioResult]) -> String {
    render(results, |result, rows| {
        let mut out = format!("### {}\n\n", heading(result));
        for (k, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
            if k == 0 {
                let _ = writeln!(out, "|---|{}", "---:|".repeat(row.len() - 1));
            }
        }
        out
    })
}

fn render(
    results: &[ScenarioResult],
    one: impl Fn(&ScenarioResult, &[Vec<String>]) -> String,
) -> String {
    let tables: Vec<String> = results
        .iter()
        .map(|result| one(result, &rows(result)))
        .collect();
    tables.join("\n")
}

fn heading(result: &ScenarioResult) -> String {
    let runs = result.results.iter().map(|measured| measured.runs);
    let count = match (runs.clone().min(), runs.max()) {
        (Some(fewest), Some(most)) if fewest == most => format!("{most} runs"),
        (Some(fewest), Some(most)) => format!("{fewest} to {most} runs"),
        _ => "no runs".to_owned(),
    };
    let count = if count == "1 runs" {
        "1 run".to_owned()
    } else {
        count
    };
    format!(
        "{} (commit {}, seed {}, {count})",
        result.scenario, result.commit, result.seed
    )
}

/// The head row and one row per metric, all of the same length.
fn rows(result: &ScenarioResult) -> Vec<Vec<String>> {
    let mut carriers: Vec<&str> = Vec::new();
    let mut keys: Vec<(&str, Option<&str>, Option<&str>)> = Vec::new();
    for measured in &result.results {
        let carrier = carrier(measured);
        if !carriers.contains(&carrier) {
            carriers.push(carrier);
        }
        if !keys.contains(&key(measured)) {
            keys.push(key(measured));
        }
    }
    // Ours first; the order of the others is the order in which they ran.
    carriers.sort_by_key(|carrier| *carrier != OURS);
    let ours = |measured: &&Measured| carrier(measured) == OURS;
    let with_share = result
        .results
        .iter()
        .filter(ours)
        .any(|m| m.share_of_native_sum.is_some());
    let with_ratio = result
        .results
        .iter()
        .filter(ours)
        .any(|m| m.ratio_to_best_single.is_some());

    let mut head = vec!["metric".to_owned()];
    head.extend(carriers.iter().map(|carrier| (*carrier).to_owned()));
    if with_share {
        head.push("of native sum".to_owned());
    }
    if with_ratio {
        head.push("× best single".to_owned());
    }
    let mut rows = vec![head];
    for wanted in keys {
        let find = |carrier_wanted: &str| {
            let mut all = result.results.iter();
            all.find(|m| key(m) == wanted && carrier(m) == carrier_wanted)
        };
        let mut row = vec![row_name(wanted)];
        row.extend(
            carriers
                .iter()
                .map(|carrier| find(carrier).map_or_else(dash, cell)),
        );
        let ours = find(OURS);
        if with_share {
            let share = ours.and_then(|m| m.share_of_native_sum);
            row.push(share.map_or_else(dash, |share| format!("{:.1} %", 100.0 * share)));
        }
        if with_ratio {
            let ratio = ours.and_then(|m| m.ratio_to_best_single);
            row.push(ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")));
        }
        rows.push(row);
    }
    rows
}

fn carrier(measured: &Measured) -> &str {
    measured.through.as_deref().unwrap_or(OURS)
}

fn key(measured: &Measured) -> (&str, Option<&str>, Option<&str>) {
    let direction = measured.direction.map(|direction| direction.word());
    (&measured.metric, measured.cc.as_deref(), direction)
}

fn row_name((metric, cc, direction): (&str, Option<&str>, Option<&str>)) -> String {
    let words = [Some(metric), cc, direction];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn cell(measured: &Measured) -> String {
    let median = number(measured.median);
    let range = format!("{}–{}", number(measured.min), number(measured.max));
    match (measured.runs, measured.p90) {
        (0, _) => dash(),
        (1, _) => median,
        (_, None) => format!("{median} ({range})"),
        (_, Some(p90)) => format!("{median} (p90 {}, {range})", number(p90)),
    }
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Direction;

    fn measured(through: Option<&str>, metric: &str, median: f64) -> Measured {
        Measured {
            metric: metric.to_owned(),
            through: through.map(str::to_owned),
            cc: Some("cubic".to_owned()),
            direction: Some(Direction::Down),
            unit: "Mbit/s".to_owned(),
            median,
            min: median - 1.0,
            max: median + 1.5,
            p90: None,
            runs: 5,
            share_of_native_sum: None,
            ratio_to_best_single: None,
        }
    }

    fn s1() -> ScenarioResult {
        let ours = Measured {
            share_of_native_sum: Some(0.9634),
            ratio_to_best_single: Some(1.353),
            ..measured(None, "goodput_mbit_s", 65.1)
        };
        let gap = Measured {
            cc: None,
            direction: None,
            runs: 1,
            ..measured(None, "gap_ms_max", 85.0)
        };
        ScenarioResult {
            scenario: "s1".to_owned(),
            commit: "0123abc".to_owned(),
            seed: 7,
            results: vec![
                measured(Some("native wan1"), "goodput_mbit_s", 48.0),
                ours,
                gap,
            ],
        }
    }

    #[test]
    fn a_terminal_table_puts_marline_first_and_lines_up() {
        let expected = "\
s1 (commit 0123abc, seed 7, 1 to 5 runs)
  metric                              marline   native wan1  of native sum  × best single
  ───────────────────────────────────────────────────────────────────────────────────────
  goodput_mbit_s cubic down  65.1 (64.1–66.6)  48 (47–49.5)         96.3 %           1.35
  gap_ms_max                               85             –              –              –
";
        assert_eq!(terminal(&[s1()]), expected);
    }

    #[test]
    fn a_markdown_table_has_as_many_cells_in_every_row() {
        let text = markdown(&[s1(), s1()]);
        let bars: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(bars, vec![6; 8]);
        assert_eq!(text.matches("### s1 (commit 0123abc").count(), 2);
    }

    #[test]
    fn columns_that_nobody_measured_are_left_out() {
        let mut result = s1();
        result.results.remove(1);
        let text = terminal(&[result]);
        assert!(!text.contains("of native sum"), "{text}");
    }

    #[test]
    fn a_scenario_without_figures_is_a_heading_and_no_panic() {
        let result = ScenarioResult {
            results: Vec::new(),
            ..s1()
        };
        assert!(terminal(std::slice::from_ref(&result)).starts_with("s1 (commit 0123abc"));
        assert!(markdown(&[result]).contains("no runs"));
    }
}
