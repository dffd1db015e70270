//! The table at the end of a run.

use std::fmt::Write as _;

use super::{Report, whole};
use crate::record::Percentiles;

/// The whole text.
pub(super) fn table(report: &Report) -> String {
    let mut out = format!("\n{}  ({})\n", report.mode, report.made_at);
    rows(&mut out, report.settings.iter().map(|(name, value)| (&**name, value.clone())));
    out.push('\n');
    rows(&mut out, report.figures.iter().map(|figure| (&*figure.name, figure.text.clone())));
    if !report.latencies.is_empty() {
        let _ = writeln!(
            out,
            "\n  {:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}",
            "latency, ms", "p50", "p90", "p99", "p99.9", "max", "count"
        );
        for latency in &report.latencies {
            let Percentiles { count, p50, p90, p99, p999, max } = latency.percentiles;
            let ms = |micros: u64| format!("{:.3}", micros as f64 / 1000.0);
            let _ = writeln!(
                out,
                "  {:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}",
                latency.name,
                ms(p50),
                ms(p90),
                ms(p99),
                ms(p999),
                ms(max),
                whole(count)
            );
        }
    }
    out.push('\n');
    if report.is_clean {
        out.push_str("  checked: nothing lost, repeated, out of order, misdirected, altered or refused\n");
    } else {
        out.push_str("  WRONG:\n");
        for (name, count) in report.faults.rows().into_iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(out, "    {:>10}  {name}", whole(count));
        }
        for example in &report.faults.examples {
            let _ = writeln!(out, "    {example}");
        }
    }
    for note in &report.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}

fn rows<'a>(out: &mut String, rows: impl Iterator<Item = (&'a str, String)>) {
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:<52}{value}");
    }
}
