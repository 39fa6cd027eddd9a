//! A run while it happens: a few lines that redraw themselves, or plain lines where they cannot.
//!
//! On a terminal the view is a block of lines that is drawn over itself at most ten times a
//! second: a bar of elapsed time, then a curve of the last seconds per uplink and for all
//! together, then what the application feels (delivered bytes, the call, the ping). Events are
//! printed above the block, where they stay. When a run ends its block gives way to one line.
//!
//! Redrawing needs three escape sequences (up, erase line, colour) that every terminal of the
//! last decades knows, so no library stands between. Where output is not a terminal, or `TERM`
//! says `dumb`, a line a second and a line per event are written instead; `NO_COLOR` is obeyed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write};

use super::figures::{Figures, mbit, number};
use crate::results::{Direction, LinkLabel, Mark, Observer, Sample, Series};

/// Time between two drawings, in ms of the run's clock.
const DRAW_EVERY_MS: f64 = 100.0;
/// Time that one character of a curve stands for, in ms.
const CURVE_STEP_MS: f64 = 200.0;
/// Time between two plain lines, in ms.
const LINE_EVERY_MS: f64 = 1000.0;
/// A call counts as silent when nothing of it arrived for so long, in ms.
const CALL_SILENT_MS: f64 = 100.0;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Foreground colours of the first six uplinks, as in the page.
const LINK_COLORS: [&str; 6] = ["34", "33", "32", "35", "36", "93"];

/// How the view may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line a second.
    Plain,
    /// A block that redraws itself.
    Redrawn {
        /// Whether colours may be used.
        color: bool,
        /// Columns of the terminal; asked anew at each run when absent.
        width: Option<usize>,
    },
}

/// The live view; an [`Observer`] of runs.
#[derive(Debug)]
pub struct Live<W: Write> {
    out: W,
    style: Style,
    run: Option<Run>,
    drawn_lines: usize,
}

/// What is remembered of the run that is going on.
#[derive(Debug)]
struct Run {
    title: String,
    links: Vec<LinkLabel>,
    has_flows: bool,
    direction: Direction,
    seconds: f64,
    last: Sample,
    /// The sample at the last curve step or plain line; rates are taken from it.
    base: Sample,
    curves: Vec<VecDeque<f64>>,
    rates: Vec<f64>,
    ping_ms: Option<f64>,
    call_latency_ms: Option<f64>,
    /// When a call packet last arrived, and the longest wait for one.
    call_heard_ms: f64,
    call_silence_ms: f64,
    /// When bulk bytes last arrived, and the longest wait for some.
    moved_ms: f64,
    pause_ms: f64,
    drawn_ms: f64,
}

impl Live<std::io::Stdout> {
    /// A view on standard output, in the style that suits it.
    pub fn stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let style = if std::io::stdout().is_terminal() && !dumb {
            Style::Redrawn {
                color: std::env::var_os("NO_COLOR").is_none(),
                width: None,
            }
        } else {
            Style::Plain
        };
        Live::new(std::io::stdout(), style)
    }
}

impl<W: Write> Live<W> {
    /// A view that writes to `out`.
    pub fn new(out: W, style: Style) -> Self {
        Live {
            out,
            style,
            run: None,
            drawn_lines: 0,
        }
    }

    /// Writes a line that stays: a heading, a remark, a result.
    pub fn line(&mut self, text: &str) {
        self.erase_block();
        // A view that cannot be written to (a closed pipe) must not end the run it shows.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    fn erase_block(&mut self) {
        if self.drawn_lines > 0 {
            let _ = write!(self.out, "\x1b[{}A\r\x1b[J", self.drawn_lines);
            self.drawn_lines = 0;
        }
    }

    fn draw(&mut self) {
        let Style::Redrawn { color, width } = self.style else {
            return;
        };
        let Some(run) = &mut self.run else { return };
        run.drawn_ms = run.last.t_ms;
        let width = width.unwrap_or_else(terminal_width).clamp(50, 120);
        let lines = run.block(width, color);
        let mut text = String::new();
        if self.drawn_lines > 0 {
            let _ = write!(text, "\x1b[{}A\r", self.drawn_lines);
        }
        for line in &lines {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        self.drawn_lines = lines.len();
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

impl<W: Write> Observer for Live<W> {
    fn begin(&mut self, series: &Series, seconds: f64) {
        self.erase_block();
        self.run = Some(Run::new(series, seconds));
        match self.style {
            Style::Plain => self.line(&format!("{} ({} s)", series.title, number(seconds))),
            Style::Redrawn { .. } => self.draw(),
        }
    }

    fn sample(&mut self, sample: &Sample) {
        let Some(run) = &mut self.run else { return };
        let step_ms = match self.style {
            Style::Plain => LINE_EVERY_MS,
            Style::Redrawn { .. } => CURVE_STEP_MS,
        };
        let stepped = run.take(sample, step_ms);
        let due = sample.t_ms - run.drawn_ms >= DRAW_EVERY_MS;
        match self.style {
            Style::Plain if stepped => {
                let text = run.plain_line();
                self.line(&text);
            }
            Style::Redrawn { .. } if due => self.draw(),
            _ => {}
        }
    }

    fn event(&mut self, mark: &Mark) {
        let at = format!("{:>5.1} s", mark.t_ms / 1000.0);
        match self.style {
            Style::Redrawn { color: true, .. } => {
                self.line(&format!("  \x1b[31m{at}  {}\x1b[0m", mark.text));
            }
            _ => self.line(&format!("  {at}  *** {}", mark.text)),
        }
        self.draw();
    }

    fn end(&mut self, series: &Series) {
        self.run = None;
        let text = summary(series);
        self.line(&text);
    }
}

impl Run {
    fn new(series: &Series, seconds: f64) -> Run {
        let count = series.links.len();
        Run {
            title: series.title.clone(),
            links: series.links.clone(),
            has_flows: !series.flows.is_empty(),
            direction: Direction::Down,
            seconds,
            last: Sample::default(),
            base: Sample::default(),
            curves: vec![VecDeque::new(); count + 1],
            rates: vec![0.0; count],
            ping_ms: None,
            call_latency_ms: None,
            call_heard_ms: 0.0,
            call_silence_ms: 0.0,
            moved_ms: 0.0,
            pause_ms: 0.0,
            drawn_ms: 0.0,
        }
    }

    /// Takes a sample in; says whether a step of `step_ms` was completed.
    fn take(&mut self, sample: &Sample, step_ms: f64) -> bool {
        if sample.call_received > self.last.call_received {
            self.call_heard_ms = sample.t_ms;
            self.call_latency_ms = sample.call_latency_ms.or(self.call_latency_ms);
        } else if sample.call_sent > 0 {
            self.call_silence_ms = self.call_silence_ms.max(sample.t_ms - self.call_heard_ms);
        }
        let delivered = |sample: &Sample| sample.flow_bytes.iter().sum::<u64>();
        if delivered(sample) > delivered(&self.last) {
            self.moved_ms = sample.t_ms;
        } else if self.moved_ms > 0.0 {
            self.pause_ms = self.pause_ms.max(sample.t_ms - self.moved_ms);
        }
        self.ping_ms = sample.ping_ms.or(self.ping_ms);
        self.last = sample.clone();
        let span_ms = sample.t_ms - self.base.t_ms;
        if span_ms < step_ms {
            return false;
        }
        let total = |bytes: &[u64]| bytes.iter().sum::<u64>();
        if total(&sample.link_up_bytes) > total(&sample.link_down_bytes) {
            self.direction = Direction::Up;
        } else {
            self.direction = Direction::Down;
        }
        for link in 0..self.links.len() {
            let bytes = |sample: &Sample| {
                let counters = match self.direction {
                    Direction::Down => &sample.link_down_bytes,
                    Direction::Up => &sample.link_up_bytes,
                };
                counters.get(link).copied().unwrap_or(0)
            };
            let moved = bytes(sample).saturating_sub(bytes(&self.base));
            self.rates[link] = moved as f64 * 8.0 / span_ms / 1000.0;
        }
        for (curve, rate) in self
            .curves
            .iter_mut()
            .zip(self.rates.iter().copied().chain([self.rates.iter().sum()]))
        {
            // No terminal is wider than this many steps.
            if curve.len() == 128 {
                curve.pop_front();
            }
            curve.push_back(rate);
        }
        self.base = sample.clone();
        true
    }

    fn silent_call_ms(&self) -> Option<f64> {
        let silence = self.last.t_ms - self.call_heard_ms;
        (self.last.call_sent > 0 && silence >= CALL_SILENT_MS).then_some(silence)
    }

    fn plain_line(&self) -> String {
        let mut line = format!("  {:>5.1} s", self.last.t_ms / 1000.0);
        for (label, rate) in self.links.iter().zip(&self.rates) {
            let _ = write!(line, "  {} {:>5}", label.name, mbit(*rate));
        }
        let _ = write!(line, "  all {:>5} Mbit/s", mbit(self.rates.iter().sum()));
        if let Some(ping) = self.ping_ms {
            let _ = write!(line, "  ping {} ms", number(ping));
        }
        if self.last.call_sent > 0 {
            let _ = write!(line, "  {}", self.call_text());
        }
        line
    }

    fn call_text(&self) -> String {
        let mut text = "call ".to_owned();
        match (self.silent_call_ms(), self.call_latency_ms) {
            (Some(silence), _) => {
                let _ = write!(text, "silent for {} ms", number(silence));
            }
            (None, Some(latency)) => {
                let _ = write!(text, "{} ms", number(latency));
            }
            (None, None) => text.push('–'),
        }
        let _ = write!(
            text,
            ", {} of {} heard",
            self.last.call_received, self.last.call_sent
        );
        text
    }

    /// The lines of the redrawn block, none wider than `width` columns.
    fn block(&self, width: usize, color: bool) -> Vec<String> {
        let paint = |code: &str, text: &str| match color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let elapsed = self.last.t_ms / 1000.0;
        let clock = format!("{elapsed:.1} of {} s", number(self.seconds));
        let room = width.saturating_sub(clock.chars().count() + 2);
        let title: String = self.title.chars().take(room).collect();
        let gap = " ".repeat(width.saturating_sub(title.chars().count() + clock.chars().count()));
        let share = if self.seconds > 0.0 {
            (elapsed / self.seconds).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let done = (share * width as f64) as usize;
        let mut lines = vec![
            format!("{}{gap}{}", paint("1", &title), paint("2", &clock)),
            format!(
                "{}{}",
                "━".repeat(done),
                paint("2", &"─".repeat(width - done))
            ),
        ];
        let name_width = self
            .links
            .iter()
            .map(|label| label.name.chars().count())
            .max()
            .unwrap_or(0)
            .max(8);
        let curve_width = width.saturating_sub(name_width + 2 + 15);
        // One scale for all curves, so that their heights can be compared.
        let top = self.curves.iter().flatten().copied().fold(1.0, f64::max);
        let names = self
            .links
            .iter()
            .map(|label| label.name.as_str())
            .chain(["together"]);
        for (k, name) in names.enumerate() {
            let rate = self
                .rates
                .get(k)
                .copied()
                .unwrap_or_else(|| self.rates.iter().sum::<f64>());
            let code = match k < self.links.len() {
                true => LINK_COLORS[k % LINK_COLORS.len()],
                false => "1",
            };
            let curve = sparkline(&self.curves[k], top, curve_width);
            lines.push(format!(
                "{name:<name_width$}  {}  {:>6} Mbit/s",
                paint(code, &curve),
                mbit(rate)
            ));
        }
        let mut feels = Vec::new();
        if self.has_flows {
            let bytes: u64 = self.last.flow_bytes.iter().sum();
            let mut text = format!("{} MB", number(bytes as f64 / 1e6));
            if self.pause_ms >= 50.0 {
                let _ = write!(text, ", longest pause {} ms", number(self.pause_ms));
            }
            feels.push(text);
        }
        if self.last.call_sent > 0 {
            feels.push(self.call_text());
        }
        if let Some(ping) = self.ping_ms {
            feels.push(format!("ping {} ms", number(ping)));
        }
        let feels: String = feels.join("   ").chars().take(width).collect();
        lines.push(if self.silent_call_ms().is_some() {
            paint("31", &feels)
        } else {
            feels
        });
        lines
    }
}

/// The newest values that fit, the newest at the right end.
fn sparkline(values: &VecDeque<f64>, top: f64, width: usize) -> String {
    let shown = values.len().min(width);
    let mut out = " ".repeat(width - shown);
    for value in values.iter().skip(values.len() - shown) {
        // Neighbour discovery and the like is less than a hundredth, and no traffic to speak of.
        let share = if *value < top * 0.01 {
            0.0
        } else {
            value / top
        };
        let level = (share * BLOCKS.len() as f64).ceil();
        match level {
            level if level < 1.0 => out.push(' '),
            level => out.push(BLOCKS[(level as usize).min(BLOCKS.len()) - 1]),
        }
    }
    out
}

/// One line for a run that is over.
fn summary(series: &Series) -> String {
    let figures = Figures::of(series);
    let mut parts = Vec::new();
    if let Some(goodput) = figures.goodput_mbit_s {
        parts.push(format!("{} Mbit/s", mbit(goodput)));
    }
    if let Some(gap) = figures.gap_ms_max.filter(|gap| *gap > 0.0) {
        parts.push(format!("longest pause {} ms", number(gap)));
    }
    if let Some((lost, sent)) = figures.call_lost {
        parts.push(format!("call lost {lost} of {sent}"));
    }
    if let Some(gap) = figures.call_gap_ms_max.filter(|gap| *gap > 0.0) {
        parts.push(format!("longest silence {} ms", number(gap)));
    }
    if let Some([median, _, p99]) = figures.ping_ms {
        parts.push(format!(
            "ping {} ms, 99 % under {}",
            number(median),
            number(p99)
        ));
    }
    format!("✓ {:<34} {}", series.title, parts.join(" · "))
}

fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_data;

    fn show(style: Style) -> String {
        let mut live = Live::new(Vec::new(), style);
        let demo = sample_data::demo();
        let series = &demo.phases[3].series;
        live.begin(
            &Series {
                samples: Vec::new(),
                ..series.clone()
            },
            14.0,
        );
        let mut events = series.events.iter().peekable();
        for sample in &series.samples {
            while let Some(mark) = events.next_if(|mark| mark.t_ms <= sample.t_ms) {
                live.event(mark);
            }
            live.sample(sample);
        }
        live.end(series);
        String::from_utf8(live.out).expect("the view writes UTF-8")
    }

    #[test]
    fn without_a_terminal_there_is_a_line_a_second_and_no_escape_sequence() {
        let text = show(Style::Plain);
        assert!(!text.contains('\x1b'));
        assert_eq!(
            text.lines().filter(|line| line.contains("  all ")).count(),
            14,
            "{text}"
        );
        assert!(text.contains("5.0 s  *** wan1 falls silent"));
        let seventh = text
            .lines()
            .find(|line| line.starts_with("    7.0 s"))
            .expect("a line at 7 s");
        assert!(seventh.contains("wan1   0.0"), "{seventh}");
        assert!(
            seventh.contains("call 14 ms, 700 of 700 heard"),
            "{seventh}"
        );
        let last = text.lines().last().expect("a summary");
        assert!(
            last.contains("longest pause 86 ms · call lost 2 of 1400"),
            "{last}"
        );
    }

    #[test]
    fn on_a_terminal_the_block_is_drawn_over_itself_and_gone_in_the_end() {
        let style = Style::Redrawn {
            color: false,
            width: Some(80),
        };
        let screen = replay(&show(style));
        assert_eq!(screen.len(), 3, "{screen:#?}");
        assert!(screen[0].contains("wan1 falls silent"));
        assert!(screen[1].contains("wan1 is back"));
        assert!(screen[2].starts_with("✓ Both uplinks, wan1 dies"));
    }

    #[test]
    fn no_line_of_the_block_is_wider_than_the_terminal() {
        let demo = sample_data::demo();
        let series = &demo.phases[3].series;
        for width in [50, 80, 120] {
            let mut run = Run::new(series, 14.0);
            for sample in &series.samples {
                run.take(sample, CURVE_STEP_MS);
            }
            for line in run.block(width, false) {
                assert!(
                    line.chars().count() <= width,
                    "{} > {width}: {line}",
                    line.chars().count()
                );
            }
        }
    }

    #[test]
    fn a_call_that_goes_quiet_is_said_to_be_silent() {
        let mut run = Run::new(&Series::default(), 5.0);
        run.take(
            &Sample {
                t_ms: 20.0,
                call_sent: 1,
                call_received: 1,
                ..Sample::default()
            },
            200.0,
        );
        run.take(
            &Sample {
                t_ms: 320.0,
                call_sent: 16,
                call_received: 1,
                ..Sample::default()
            },
            200.0,
        );
        assert_eq!(run.call_text(), "call silent for 300 ms, 1 of 16 heard");
    }

    /// What a terminal shows after these bytes, for the sequences that the view uses.
    fn replay(text: &str) -> Vec<String> {
        let mut screen: Vec<String> = vec![String::new()];
        let mut row = 0;
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                '\n' => {
                    row += 1;
                    if row == screen.len() {
                        screen.push(String::new());
                    }
                    // What is written next replaces the line: the view erases to its end.
                    screen[row].clear();
                }
                '\r' => screen[row].clear(),
                '\x1b' => {
                    let end = rest
                        .find(|c: char| c.is_ascii_alphabetic())
                        .expect("a sequence ends");
                    match rest.as_bytes()[end] {
                        b'A' => row -= rest[1..end].parse::<usize>().expect("a count"),
                        b'J' => screen.truncate(row + 1),
                        b'K' => {}
                        other => panic!("an escape sequence the test does not know: {other}"),
                    }
                    rest = &rest[end + 1..];
                }
                other => screen[row].push(other),
            }
        }
        screen.retain(|line| !line.is_empty());
        screen
    }
}
