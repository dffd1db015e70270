//! The page: everything in one file, without a script, readable on paper and in the dark.

use std::fmt::Write as _;

use super::{
    Report,
    svg::{Line, Plot, Scale, escaped, histogram, plot},
    whole,
};
use crate::record::{Percentiles, Row};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let title = format!("Load test: {}", report.mode);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n<header><h1>{0}</h1><p>{1}</p></header>\n",
        escaped(&title),
        escaped(&report.made_at)
    );
    verdict(&mut out, report);
    definitions(&mut out, "Figures", report.figures.iter().map(|figure| (&*figure.name, &*figure.text)));
    latencies(&mut out, report);
    over_time(&mut out, report);
    let settings = report.settings.iter().map(|(name, value)| (&**name, &**value));
    definitions(&mut out, "Settings", settings);
    out.push_str("</main></body></html>\n");
    out
}

fn verdict(out: &mut String, report: &Report) {
    if report.is_clean {
        out.push_str(
            "<p class=\"verdict good\"><b>Checked.</b> Nothing was lost, repeated, out of order, misdirected, altered \
             or refused.</p>\n",
        );
    } else {
        out.push_str("<div class=\"verdict bad\"><b>Something was wrong.</b><ul>");
        for (name, count) in report.faults.rows().into_iter().filter(|(_, count)| *count > 0) {
            let _ = write!(out, "<li>{}: {}</li>", escaped(&name), whole(count));
        }
        out.push_str("</ul><ul class=\"examples\">");
        for example in &report.faults.examples {
            let _ = write!(out, "<li>{}</li>", escaped(example));
        }
        out.push_str("</ul></div>\n");
    }
    for note in &report.notes {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escaped(note));
    }
}

fn definitions<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    let _ = write!(out, "<section><h2>{title}</h2><table class=\"figures\">");
    for (name, value) in rows {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
    }
    out.push_str("</table></section>\n");
}

fn latencies(out: &mut String, report: &Report) {
    if report.latencies.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Latency</h2><div class=\"scroll\"><table class=\"numbers\"><thead><tr><th>milliseconds</th>\
         <th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>count</th></tr></thead><tbody>",
    );
    for latency in &report.latencies {
        let Percentiles { count, p50, p90, p99, p999, max } = latency.percentiles;
        let _ = write!(out, "<tr><th>{}</th>", escaped(&latency.name));
        for micros in [p50, p90, p99, p999, max] {
            let _ = write!(out, "<td>{:.3}</td>", micros as f64 / 1000.0);
        }
        let _ = write!(out, "<td>{}</td></tr>", whole(count));
    }
    out.push_str("</tbody></table></div>\n");
    for latency in report.latencies.iter().filter(|latency| latency.name != "behind schedule") {
        let Percentiles { p50, p99, p999, .. } = latency.percentiles;
        let title = format!("How long messages took {}", latency.name);
        let marks = [("p50", p50), ("p99", p99), ("p99.9", p999)];
        let _ = writeln!(
            out,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escaped(&title),
            histogram(&title, &latency.buckets, &marks)
        );
    }
    out.push_str("</section>\n");
}

fn over_time(out: &mut String, report: &Report) {
    let rows = &report.rows;
    let line = |name: &str, class, value: &dyn Fn(&Row) -> f64| Line {
        name: name.to_owned(),
        class,
        points: rows.iter().map(|row| (row.at_s, value(row))).collect(),
    };
    let ms = |percentiles: Option<Percentiles>, which: fn(&Percentiles) -> u64| {
        percentiles.map_or(f64::NAN, |percentiles| which(&percentiles) as f64 / 1000.0)
    };
    let a_second = |row: &Row, count: u64| count as f64 / row.length_s.max(1e-9);
    let mut plots = Vec::new();
    for (title, of) in [
        ("Latency to the other user, each second", (|row| row.delivery) as fn(&Row) -> Option<Percentiles>),
        ("Latency to the confirmation, each second", |row| row.confirmation),
    ] {
        plots.push(Plot {
            title: title.into(),
            unit: "ms",
            scale: Scale::Log,
            lines: vec![
                line("p50", "a", &|row| ms(of(row), |p| p.p50)),
                line("p90", "b", &|row| ms(of(row), |p| p.p90)),
                line("p99", "c", &|row| ms(of(row), |p| p.p99)),
                line("slowest", "d", &|row| ms(of(row), |p| p.max)),
            ],
        });
    }
    plots.push(Plot {
        title: "Throughput".into(),
        unit: "a second",
        scale: Scale::Linear,
        lines: vec![
            line("sent", "a", &|row| a_second(row, row.counts.sent)),
            line("confirmed", "b", &|row| a_second(row, row.counts.confirmed)),
            line("delivered to the other user", "c", &|row| a_second(row, row.counts.delivered)),
        ],
    });
    plots.push(Plot {
        title: "Live connections".into(),
        unit: "connections",
        scale: Scale::Linear,
        lines: vec![line("live", "a", &|row| row.connections as f64)],
    });
    let mut cpu = vec![
        line("service", "a", &|row| row.cpu.service.map_or(f64::NAN, |share| share * 100.0)),
        line("load generator", "b", &|row| row.cpu.load_generator * 100.0),
    ];
    let names: Vec<String> = rows
        .first()
        .map(|row| row.cpu.watched.iter().map(|(name, _)| name.clone()).collect())
        .unwrap_or_default();
    for (index, name) in names.iter().enumerate().take(2) {
        let share = |row: &Row| row.cpu.watched.get(index).map_or(f64::NAN, |(_, share)| share * 100.0);
        cpu.push(line(name, ["c", "d"][index], &share));
    }
    cpu.push(line("the whole machine", "e", &|row| row.cpu.machine * 100.0));
    plots.push(Plot { title: "CPU".into(), unit: "% of a core", scale: Scale::Linear, lines: cpu });
    plots.push(Plot {
        title: "The service's memory".into(),
        unit: "MB",
        scale: Scale::Linear,
        lines: vec![line("resident", "a", &|row| row.resident.map_or(f64::NAN, |bytes| bytes as f64 / 1e6))],
    });
    let drawn: Vec<(String, String)> = plots
        .iter()
        .map(|each| (each.title.clone(), plot(each)))
        .filter(|(_, svg)| !svg.is_empty())
        .collect();
    if drawn.is_empty() {
        return;
    }
    out.push_str("<section><h2>Over time</h2>\n");
    for (title, svg) in drawn {
        let _ = writeln!(out, "<figure><figcaption>{}</figcaption>{svg}</figure>", escaped(&title));
    }
    out.push_str("</section>\n");
}
