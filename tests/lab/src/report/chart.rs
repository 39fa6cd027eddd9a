//! Charts as inline SVG text, drawn without a browser's help.
//!
//! A chart is a [`Plot`]: a rectangle with two linear scales. Layers are added in the order in
//! which they are painted; [`Plot::finish`] puts axes round them. Colours are CSS classes, never
//! values, so the page decides what light and dark look like; `c0`, `c1`, … is the colour of the
//! first, second, … uplink everywhere on the page.
//!
//! A plot may carry [`Readout`]s: evenly spaced values that the page's script shows under the
//! pointer. Without a script the picture is complete, only not to be asked.

use std::fmt::Write as _;

use super::figures::number;

/// A rectangle with two linear scales, and what has been drawn into it.
#[derive(Debug)]
pub struct Plot {
    width: f64,
    height: f64,
    /// Room for the axis texts: left, right, top, bottom.
    margin: [f64; 4],
    x: (f64, f64),
    y: (f64, f64),
    layers: String,
    title: String,
    unit: String,
    x_ticks: bool,
    /// A moment that times below the axis count from, in ms; without one they count in seconds
    /// from the start.
    x_zero: Option<f64>,
    readouts: Vec<Readout>,
    readout_step: f64,
}

/// Values that the page shows for the moment under the pointer.
#[derive(Clone, Debug)]
pub struct Readout {
    /// What it is: `wan1`, `together`.
    pub name: String,
    /// Colour class of its swatch.
    pub class: String,
    /// One value per step from the left edge on; NaN where there is none.
    pub values: Vec<f64>,
}

impl Plot {
    /// An empty plot of `width` × `height` units. `title` is read aloud by screen readers; `unit`
    /// stands above the vertical axis.
    pub fn new(width: f64, height: f64, title: &str, unit: &str) -> Plot {
        Plot {
            width,
            height,
            margin: [46.0, 14.0, 22.0, 24.0],
            x: (0.0, 1.0),
            y: (0.0, 1.0),
            layers: String::new(),
            title: title.to_owned(),
            unit: unit.to_owned(),
            x_ticks: true,
            x_zero: None,
            readouts: Vec::new(),
            readout_step: 1.0,
        }
    }

    /// The horizontal scale, in ms.
    pub fn x(mut self, from_ms: f64, to_ms: f64) -> Plot {
        self.x = (
            from_ms,
            if to_ms > from_ms {
                to_ms
            } else {
                from_ms + 1.0
            },
        );
        self
    }

    /// The vertical scale from zero to at least `top`, rounded up to a whole tick.
    pub fn y_up_to(mut self, top: f64) -> Plot {
        let top = if top.is_finite() && top > 0.0 {
            top
        } else {
            1.0
        };
        let step = nice_step(top / self.y_tick_count());
        self.y = (0.0, (top / step).ceil() * step);
        self
    }

    fn y_tick_count(&self) -> f64 {
        if self.height > 220.0 { 5.0 } else { 3.0 }
    }

    fn px(&self, x: f64) -> f64 {
        let inner = self.width - self.margin[0] - self.margin[1];
        self.margin[0] + (x - self.x.0) / (self.x.1 - self.x.0) * inner
    }

    fn py(&self, y: f64) -> f64 {
        let inner = self.height - self.margin[2] - self.margin[3];
        self.height - self.margin[3] - (y - self.y.0) / (self.y.1 - self.y.0) * inner
    }

    fn clamped_px(&self, x: f64) -> f64 {
        self.px(x.clamp(self.x.0, self.x.1))
    }

    /// A shaded stretch of time over the whole height, with a text beside its top.
    pub fn band(&mut self, from_ms: f64, to_ms: f64, class: &str, text: &str) {
        let (left, right) = (self.clamped_px(from_ms), self.clamped_px(to_ms));
        let (top, bottom) = (self.margin[2], self.height - self.margin[3]);
        // A pause of a few ms must still be seen.
        let width = (right - left).max(1.5);
        let _ = write!(
            self.layers,
            r#"<rect class="{class}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}"/>"#,
            bottom - top
        );
        if !text.is_empty() {
            let _ = write!(
                self.layers,
                r#"<text class="note" x="{:.1}" y="{:.1}">{}</text>"#,
                left + width + 5.0,
                top + 13.0,
                escape(text)
            );
        }
    }

    /// A vertical line at a moment, with a text beside it above the plot.
    pub fn moment(&mut self, at_ms: f64, text: &str) {
        let x = self.clamped_px(at_ms);
        let (top, bottom) = (self.margin[2] - 4.0, self.height - self.margin[3]);
        let anchor = if x > self.width * 0.75 {
            "end"
        } else {
            "start"
        };
        let shift = if anchor == "end" { -4.0 } else { 4.0 };
        let _ = write!(
            self.layers,
            r#"<line class="event" x1="{x:.1}" x2="{x:.1}" y1="{top:.1}" y2="{bottom:.1}"/>"#
        );
        if !text.is_empty() {
            let _ = write!(
                self.layers,
                r#"<text class="event-text" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
                x + shift,
                top,
                escape(text)
            );
        }
    }

    /// Areas on top of each other; each value belongs to the middle of its bin of `bin_ms`.
    pub fn stacked(&mut self, bin_ms: f64, areas: &[(String, Vec<f64>)]) {
        let bins = areas
            .iter()
            .map(|(_, values)| values.len())
            .max()
            .unwrap_or(0);
        let mut floor = vec![0.0; bins];
        for (class, values) in areas {
            let roof: Vec<f64> = (0..bins)
                .map(|bin| floor[bin] + values.get(bin).copied().unwrap_or(0.0))
                .collect();
            let middle = |bin: usize| self.clamped_px(self.x.0 + (bin as f64 + 0.5) * bin_ms);
            let mut path = String::new();
            for (bin, value) in roof.iter().enumerate() {
                let pen = if bin == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{pen}{:.1} {:.1}", middle(bin), self.py(*value));
            }
            for (bin, value) in floor.iter().enumerate().rev() {
                let _ = write!(path, "L{:.1} {:.1}", middle(bin), self.py(*value));
            }
            let _ = write!(self.layers, r#"<path class="area {class}" d="{path}Z"/>"#);
            floor = roof;
        }
    }

    /// A line through points, in order of time. A NaN interrupts it.
    pub fn line(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        let mut pen = 'M';
        for (x, y) in points {
            if y.is_nan() {
                pen = 'M';
                continue;
            }
            let _ = write!(
                path,
                "{pen}{:.1} {:.1}",
                self.clamped_px(x),
                self.py(y.min(self.y.1))
            );
            pen = 'L';
        }
        if !path.is_empty() {
            let _ = write!(self.layers, r#"<path class="line {class}" d="{path}"/>"#);
        }
    }

    /// A dot per point. All dots of a class are one path, which keeps thousands of them small.
    pub fn dots(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            if x >= self.x.0 && x <= self.x.1 {
                // A line of no length with round ends is a dot.
                let _ = write!(path, "M{:.1} {:.1}h0", self.px(x), self.py(y.min(self.y.1)));
            }
        }
        if !path.is_empty() {
            let _ = write!(self.layers, r#"<path class="dots {class}" d="{path}"/>"#);
        }
    }

    /// Crosses at the top edge: what was sent at these moments and never arrived.
    pub fn lost(&mut self, moments: impl IntoIterator<Item = f64>) {
        let y = self.margin[2] + 6.0;
        let mut path = String::new();
        for at in moments
            .into_iter()
            .filter(|at| *at >= self.x.0 && *at <= self.x.1)
        {
            let x = self.px(at);
            let _ = write!(path, "M{:.1} {:.1}l5 5m0 -5l-5 5", x - 2.5, y - 2.5);
        }
        if !path.is_empty() {
            let _ = write!(self.layers, r#"<path class="lost" d="{path}"/>"#);
        }
    }

    /// Adds values for the pointer, one per `step_ms` from the left edge on.
    pub fn readouts(&mut self, step_ms: f64, readouts: Vec<Readout>) {
        self.readout_step = step_ms;
        self.readouts = readouts;
    }

    /// Leaves the times below the axis away; for plots that stand right above another. Call it
    /// before the first layer: it gives the freed room to the plot.
    pub fn without_times(mut self) -> Plot {
        self.x_ticks = false;
        self.margin[3] = 8.0;
        self
    }

    /// Counts the times below the axis in ms from this moment; for looks through a lens.
    pub fn counted_from(mut self, zero_ms: f64) -> Plot {
        self.x_zero = Some(zero_ms);
        self
    }

    /// The finished picture.
    pub fn finish(self) -> String {
        let (left, right) = (self.margin[0], self.width - self.margin[1]);
        let (top, bottom) = (self.margin[2], self.height - self.margin[3]);
        let mut axes = String::new();
        let step = nice_step((self.y.1 - self.y.0) / self.y_tick_count());
        for k in 0..=((self.y.1 - self.y.0) / step).round() as usize {
            let value = self.y.0 + k as f64 * step;
            let y = self.py(value);
            let class = if k == 0 { "axis" } else { "grid" };
            let _ = write!(
                axes,
                r#"<line class="{class}" x1="{left:.1}" x2="{right:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 6.0,
                y + 4.0,
                number(value)
            );
        }
        let span = self.x.1 - self.x.0;
        let step = nice_step(span / if self.width > 600.0 { 12.0 } else { 5.0 });
        let zero = self.x_zero.unwrap_or(0.0);
        let mut tick = ((self.x.0 - zero) / step).ceil() * step;
        while tick <= self.x.1 - zero + step * 1e-6 {
            let x = self.px(zero + tick);
            let _ = write!(
                axes,
                r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{bottom:.1}" y2="{:.1}"/>"#,
                bottom + 4.0
            );
            if self.x_ticks {
                let text = match (self.x_zero, tick) {
                    (Some(_), tick) if tick.abs() < step / 2.0 => "0 ms".to_owned(),
                    (Some(_), tick) => format!("{tick:+.0} ms"),
                    (None, tick) => format!("{} s", number(tick / 1000.0)),
                };
                let _ = write!(
                    axes,
                    r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                    bottom + 18.0
                );
            }
            tick += step;
        }
        let hover = if self.readouts.is_empty() {
            String::new()
        } else {
            let series: Vec<serde_json::Value> = self
                .readouts
                .iter()
                .map(|readout| {
                    let values: Vec<serde_json::Value> = readout
                        .values
                        .iter()
                        .map(|value| match value.is_finite() {
                            true => serde_json::Value::from((value * 100.0).round() / 100.0),
                            false => serde_json::Value::Null,
                        })
                        .collect();
                    serde_json::json!({
                        "name": readout.name, "class": readout.class, "values": values,
                    })
                })
                .collect();
            let data = serde_json::json!({
                "x": [self.x.0, self.x.1], "left": left, "right": right, "width": self.width,
                "top": top, "bottom": bottom, "step": self.readout_step, "unit": self.unit,
                "series": series,
            });
            format!(r#" data-hover="{}""#, escape(&data.to_string()))
        };
        format!(
            r#"<svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}"{hover}>{axes}<text class="unit" x="{ux:.1}" y="{uy:.1}" text-anchor="end">{unit}</text>{layers}</svg>"#,
            w = self.width,
            h = self.height,
            title = escape(&self.title),
            ux = left - 6.0,
            uy = top - 9.0,
            unit = escape(&self.unit),
            layers = self.layers,
        )
    }
}

/// The smallest of 1, 2, 2.5, 5 × 10ⁿ that is at least `least`.
fn nice_step(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .find(|f| f * power >= least * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Text that is safe between tags and inside quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_never_too_small() {
        for (least, step) in [
            (13.0, 20.0),
            (0.9, 1.0),
            (2.1, 2.5),
            (26.0, 50.0),
            (6.0, 10.0),
        ] {
            assert_eq!(nice_step(least), step, "for {least}");
        }
        assert_eq!(nice_step(f64::NAN), 1.0);
        assert_eq!(nice_step(0.0), 1.0);
    }

    #[test]
    fn the_top_of_the_scale_is_at_its_place_and_a_tick() {
        let plot = Plot::new(400.0, 300.0, "t", "Mbit/s")
            .x(0.0, 1000.0)
            .y_up_to(64.0);
        assert_eq!(plot.y, (0.0, 80.0));
        assert_eq!(plot.py(80.0), plot.margin[2]);
        assert_eq!(plot.py(0.0), 300.0 - plot.margin[3]);
        assert!(plot.finish().contains(">80</text>"));
    }

    #[test]
    fn a_value_above_the_scale_stays_inside_the_picture() {
        let mut plot = Plot::new(400.0, 300.0, "t", "ms")
            .x(0.0, 1000.0)
            .y_up_to(10.0);
        let top = format!("M{:.1} {:.1}h0", plot.px(500.0), plot.py(10.0));
        plot.dots("c0", [(500.0, 10_000.0)]);
        assert!(plot.finish().contains(&top));
    }

    #[test]
    fn a_name_cannot_break_out_of_the_page() {
        let mut plot = Plot::new(400.0, 300.0, "a<b", "ms")
            .x(0.0, 1.0)
            .y_up_to(1.0);
        plot.moment(0.5, r#""><script>"#);
        let svg = plot.finish();
        assert!(!svg.contains("<script>"), "{svg}");
        assert!(svg.contains("&quot;&gt;&lt;script&gt;"));
    }
}
