//! Plots as SVG text, without a library: lines over time, and bars of a histogram.
//!
//! Colours come from the page's style sheet by class, so that dark and light pages have their own.

use std::fmt::Write as _;

/// Points of one line, in the plot's units.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// In the legend.
    pub(super) name: String,
    /// Of the style sheet.
    pub(super) class: &'static str,
    /// Left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// How the vertical axis grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten.
    Log,
}

/// Lines over time.
#[derive(Debug)]
pub(super) struct Plot {
    /// Said to those who cannot see it.
    pub(super) title: String,
    /// Of the vertical axis.
    pub(super) unit: &'static str,
    /// Of the vertical axis.
    pub(super) scale: Scale,
    /// All lines.
    pub(super) lines: Vec<Line>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// A stretch of numbers on a stretch of the picture.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    scale: Scale,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let place = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-9).log10(),
        };
        let (from, to) = (place(self.from), place(self.to));
        let share = if to > from { (place(value) - from) / (to - from) } else { 0.0 };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(self.to - self.from, 5.0);
                let first = (self.from / step).ceil() as i64;
                let last = (self.to / step + 1e-9).floor() as i64;
                (first..=last).map(|index| index as f64 * step).collect()
            }
            Scale::Log => {
                let (first, last) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
                let within = |value: &f64| (self.from * 0.999..=self.to * 1.001).contains(value);
                let steps: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                (first..=last)
                    .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
                    .filter(within)
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that about `count` of them make `span`.
fn nice_step(span: f64, count: f64) -> f64 {
    let rough = (span / count).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = match rough / power {
        factor if factor <= 1.0 => 1.0,
        factor if factor <= 2.0 => 2.0,
        factor if factor <= 5.0 => 5.0,
        _ => 10.0,
    };
    factor * power
}

fn label(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if value.abs() >= 1000.0 {
        return super::grouped(value);
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text inside of markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\n",
        escaped(title)
    )
}

/// Draws it; nothing if there is nothing to draw.
pub(super) fn plot(plot: &Plot) -> String {
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let usable = |value: f64| value.is_finite() && (plot.scale == Scale::Linear || value > 0.0);
    let values = || points().map(|point| point.1).filter(|value| usable(*value));
    let last = points().map(|point| point.0).fold(0.0, f64::max);
    let highest = values().fold(0.0, f64::max);
    if last <= 0.0 || highest <= 0.0 {
        return String::new();
    }
    let first = points().map(|point| point.0).fold(last, f64::min).min(last - 1.0).max(0.0);
    let x = Axis { from: first, to: last, start: LEFT, end: WIDTH - RIGHT, scale: Scale::Linear };
    let (from, to) = match plot.scale {
        Scale::Linear => {
            let step = nice_step(highest, 5.0);
            (0.0, (highest / step).ceil() * step)
        }
        Scale::Log => {
            let lowest = values().fold(highest, f64::min);
            // At least a decade, so that noise does not look like a mountain.
            let (low, high) = (floor_125(lowest), ceil_125(highest));
            (if high / low < 10.0 { high / 10.0 } else { low }, high)
        }
    };
    let y = Axis { from, to, start: HEIGHT - BOTTOM, end: TOP, scale: plot.scale };
    let mut svg = open(&plot.title, HEIGHT);
    grid(&mut svg, &x, &y, plot.unit);
    for line in &plot.lines {
        let mut path = String::new();
        let mut is_down = false;
        for (at, value) in &line.points {
            // A second without messages is a gap, not a zero.
            if !usable(*value) {
                is_down = false;
                continue;
            }
            let command = if is_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", x.at(*at), y.at(*value));
            is_down = true;
        }
        let _ = writeln!(svg, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
    }
    svg.push_str("</svg>\n");
    svg.push_str("<p class=\"legend\">");
    for line in &plot.lines {
        let _ = write!(svg, "<span class=\"{}\"><i></i>{}</span>", line.class, escaped(&line.name));
    }
    svg.push_str("</p>\n");
    svg
}

fn floor_125(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factor = value / power;
    power
        * if factor >= 5.0 {
            5.0
        } else if factor >= 2.0 {
            2.0
        } else {
            1.0
        }
}

fn ceil_125(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factor = value / power;
    power
        * if factor <= 1.0 {
            1.0
        } else if factor <= 2.0 {
            2.0
        } else if factor <= 5.0 {
            5.0
        } else {
            10.0
        }
}

fn grid(svg: &mut String, x: &Axis, y: &Axis, unit: &str) {
    for value in y.ticks() {
        let at = y.at(value);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x.end,
            LEFT - 8.0,
            at + 4.0,
            label(value)
        );
    }
    for value in x.ticks() {
        let _ = writeln!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x.at(value),
            y.start + 18.0,
            label(value)
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"unit\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">seconds</text>\
         <text class=\"unit\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        x.end,
        y.start,
        y.start,
        x.end,
        y.start + 31.0,
        LEFT + 6.0,
        TOP + 4.0,
        escaped(unit)
    );
}

/// Bars of a latency's histogram over a logarithmic axis, with marks at percentiles; values in microseconds.
pub(super) fn histogram(title: &str, buckets: &[(u64, u64)], marks: &[(&str, u64)]) -> String {
    let most = buckets.iter().map(|bucket| bucket.1).max().unwrap_or(0);
    let filled: Vec<usize> =
        buckets.iter().enumerate().filter(|(_, bucket)| bucket.1 > 0).map(|(index, _)| index).collect();
    let (Some(&first), Some(&last)) = (filled.first(), filled.last()) else { return String::new() };
    let from = first.checked_sub(1).map_or(buckets[first].0 as f64 / 1.2, |before| buckets[before].0 as f64);
    let to = (buckets[last].0 as f64).max(from * 10.0);
    let x = Axis { from: from / 1000.0, to: to / 1000.0, start: LEFT, end: WIDTH - RIGHT, scale: Scale::Log };
    let y =
        Axis { from: 0.0, to: most as f64, start: HEIGHT - BOTTOM, end: TOP + 16.0, scale: Scale::Linear };
    let mut svg = open(title, HEIGHT);
    for value in x.ticks() {
        let at = x.at(value);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            y.end,
            y.start,
            y.start + 18.0,
            label(value)
        );
    }
    let mut before = from;
    for (end, count) in &buckets[first..=last] {
        let end = *end as f64;
        let (left, right) = (x.at(before / 1000.0), x.at(end / 1000.0));
        let top = y.at(*count as f64);
        if *count > 0 {
            let _ = writeln!(
                svg,
                "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>up to {} ms: \
                 {}</title></rect>",
                (right - left - 0.6).max(0.6),
                (y.start - top).max(0.8),
                label(end / 1000.0),
                super::whole(*count)
            );
        }
        before = end;
    }
    let mut right_of_last = f64::MIN;
    for (name, micros) in marks {
        let at = x.at(*micros as f64 / 1000.0);
        // Marks that would lie on each other take turns in height.
        let lift = if at - right_of_last < 40.0 { 0.0 } else { 12.0 };
        right_of_last = if lift > 0.0 { at } else { f64::MIN };
        let _ = writeln!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{name}</text>",
            TOP + lift + 4.0,
            y.start,
            TOP + lift,
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"unit\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">milliseconds</text>\n</svg>",
        x.end,
        y.start,
        y.start,
        x.end,
        y.start + 31.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_one_two_or_five() {
        for (span, step) in [(10.0, 2.0), (7.0, 2.0), (23.0, 5.0), (0.4, 0.1), (1_000_000.0, 200_000.0)] {
            assert!((nice_step(span, 5.0) - step).abs() < step * 1e-9, "{span}: {}", nice_step(span, 5.0));
        }
    }

    #[test]
    fn a_second_without_messages_is_a_gap_in_the_line() {
        let points = vec![(1.0, 4.0), (2.0, 5.0), (3.0, f64::NAN), (4.0, 4.0), (5.0, 6.0)];
        let line = Line { name: "p50".into(), class: "a", points };
        let svg = plot(&Plot { title: "Latency".into(), unit: "ms", scale: Scale::Log, lines: vec![line] });
        let path = svg.split("class=\"line a\"").nth(1).unwrap();
        assert_eq!(path.split("</svg>").next().unwrap().matches('M').count(), 2);
    }

    #[test]
    fn every_filled_bucket_has_a_bar_inside_the_picture() {
        let svg = histogram("h", &[(100, 0), (200, 5), (400, 0), (800, 1)], &[("p50", 150)]);
        assert_eq!(svg.matches("class=\"bar\"").count(), 2);
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn nothing_to_draw_draws_nothing() {
        let plot = Plot { title: "t".into(), unit: "ms", scale: Scale::Linear, lines: Vec::new() };
        assert_eq!(super::plot(&plot), "");
        assert_eq!(histogram("h", &[(10, 0)], &[]), "");
    }
}
