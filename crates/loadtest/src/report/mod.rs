//! What a run found, for people and machines: table, JSON, page.
//!
//! Owns the figures' form, and the honesty: what the load generator or the machine did to them is said here.

mod html;
mod svg;
mod table;

use std::path::Path;

use serde::Serialize;

use crate::{
    check::Faults,
    cli::Common,
    record::{Counts, Latencies, Percentiles, Recorded, Row, percentiles},
    usage::{self, Shares},
};

/// One thing that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much, where it is a number.
    pub value: Option<f64>,
    /// For people.
    pub text: String,
}

impl Figure {
    /// A number with its unit.
    pub fn number(name: impl Into<String>, value: f64, unit: &str) -> Self {
        let text = format!("{} {unit}", grouped(value));
        Self { name: name.into(), value: Some(value), text: text.trim_end().to_owned() }
    }

    /// Words.
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, text: text.into() }
    }

    /// A share of cores in words.
    pub fn cores_or_unknown(share: Option<f64>) -> String {
        share.map_or_else(
            || "unknown without --pid".into(),
            |share| format!("{:.0} % of a core", share * 100.0),
        )
    }
}

/// A count as people read it.
pub fn whole(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number as people read it.
pub fn grouped(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{:.digits$}", value.abs());
    let (integer, rest) = text.split_once('.').unwrap_or((&text, ""));
    let sign = if value < 0.0 { "-" } else { "" };
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{rest}", integer.parse().map_or_else(|_| integer.to_owned(), whole))
}

/// A latency's shape.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Of what.
    pub name: String,
    /// In microseconds.
    pub percentiles: Percentiles,
    /// Upper ends in microseconds, each with how many were below it and above the one before.
    pub buckets: Vec<(u64, u64)>,
}

impl Latency {
    /// None of an empty histogram.
    pub fn of(name: &str, latencies: &Latencies) -> Option<Self> {
        let percentiles = percentiles(latencies)?;
        let buckets = latencies
            .iter_log(10, 1.2)
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .collect();
        Some(Self { name: name.to_owned(), percentiles, buckets })
    }
}

/// A run's findings.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was done.
    pub mode: String,
    /// When, in UTC.
    pub made_at: String,
    /// With what.
    pub settings: Vec<(String, String)>,
    /// What was found.
    pub figures: Vec<Figure>,
    /// Latencies.
    pub latencies: Vec<Latency>,
    /// All counts.
    pub total: Counts,
    /// Counts of the measured stretch.
    pub measured: Counts,
    /// Second by second.
    pub rows: Vec<Row>,
    /// What was wrong.
    pub faults: Faults,
    /// Whether nothing was.
    pub is_clean: bool,
    /// What to know before believing the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// Puts the findings together.
    pub fn new(
        mode: &str,
        common: &Common,
        figures: Vec<Figure>,
        recorded: Recorded,
        shares: &Shares,
    ) -> Self {
        let latencies = [
            Latency::of("to the other user", &recorded.delivery),
            Latency::of("to the confirmation", &recorded.confirmation),
            // A closed loop has no schedule to be behind.
            Latency::of("behind schedule", &recorded.lateness).filter(|latency| latency.percentiles.p50 > 1),
        ];
        let notes = cautions(&recorded, shares, common.threads);
        Self {
            mode: mode.to_owned(),
            made_at: now(),
            settings: vec![
                ("service".into(), common.url.clone()),
                ("transport".into(), common.transport.to_string()),
                ("cores".into(), usage::cores().to_string()),
                ("threads of the load generator".into(), common.threads.to_string()),
            ],
            figures,
            latencies: latencies.into_iter().flatten().collect(),
            total: recorded.total,
            measured: recorded.measured,
            rows: recorded.rows,
            is_clean: recorded.faults.is_clean(),
            faults: recorded.faults,
            notes,
        }
    }

    /// Figures alone, where no messages were sent.
    pub fn of_figures(mode: &str, settings: Vec<(String, String)>, figures: Vec<Figure>) -> Self {
        Self {
            mode: mode.to_owned(),
            made_at: now(),
            settings,
            figures,
            latencies: Vec::new(),
            total: Counts::default(),
            measured: Counts::default(),
            rows: Vec::new(),
            faults: Faults::default(),
            is_clean: true,
            notes: Vec::new(),
        }
    }

    /// Adds a setting.
    pub fn setting(&mut self, name: &str, value: impl ToString) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// Writes everything that was asked for.
    pub fn write(&self, json: Option<&Path>, page: Option<&Path>) -> Result<(), String> {
        use std::io::Write as _;
        let write = |path: &Path, text: String| {
            std::fs::write(path, text)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))
        };
        if let Some(path) = page {
            write(path, html::page(self))?;
        }
        let as_json =
            || serde_json::to_string_pretty(self).map_err(|error| format!("no JSON of this: {error}"));
        let table = match json {
            Some(path) if path == Path::new("-") => as_json()? + "\n",
            Some(path) => {
                write(path, as_json()? + "\n")?;
                table::table(self)
            }
            None => table::table(self),
        };
        std::io::stdout()
            .lock()
            .write_all(table.as_bytes())
            .map_err(|error| format!("the table cannot be written: {error}"))
    }
}

/// What made the figures worse, or doubtful, other than the service.
fn cautions(recorded: &Recorded, whole: &Shares, threads: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let percent = |share: f64| (share * 100.0).round();
    // The busiest stretch decides: waiting at either end would water the average down.
    let busy: Vec<&Shares> = recorded.rows.iter().map(|row| &row.cpu).collect();
    let typical = |share: fn(&Shares) -> f64, of_whole: f64| {
        let mut shares: Vec<f64> = busy.iter().map(|row| share(row)).collect();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() * 3 / 4).copied().unwrap_or(of_whole)
    };
    let own = typical(|shares| shares.load_generator, whole.load_generator);
    if own > 0.85 * threads as f64 {
        notes.push(format!(
            "The load generator was itself the bottleneck: it used {} % of a core with {threads} thread(s). \
             The service may be faster than this.",
            percent(own)
        ));
    }
    let late = recorded.late as f64 / recorded.lateness.len().max(1) as f64;
    if late > 0.01 {
        notes.push(format!(
            "{:.1} % of the messages went out more than 1 ms behind their schedule (p99 {:.1} ms): the machine or \
             the load generator was late, and the latencies include it.",
            late * 100.0,
            recorded.lateness.value_at_quantile(0.99) as f64 / 1000.0
        ));
    }
    let cores = usage::cores();
    let machine = typical(|shares| shares.machine, whole.machine);
    if machine > 0.93 * cores as f64 {
        let mut parts: Vec<String> = Vec::new();
        if let Some(share) = whole.service {
            parts.push(format!("service {} %", percent(share)));
        }
        parts.extend(whole.watched.iter().map(|(name, share)| format!("{name} {} %", percent(*share))));
        parts.push(format!("load generator {} %", percent(whole.load_generator)));
        parts.push(format!("all others {} %", percent(others(whole).unwrap_or(0.0))));
        notes.push(format!(
            "The machine's {cores} cores were used up ({}; of a core, whole run): this is what they reach together.",
            parts.join(", ")
        ));
    }
    if let Some(others) = others(whole).filter(|share| *share > 0.1) {
        notes.push(format!(
            "Processes that are not part of this run used {} % of a core meanwhile.",
            percent(others)
        ));
    }
    if whole.stolen > 0.02 {
        notes.push(format!(
            "Other machines on this hardware took {} % of a core away meanwhile.",
            percent(whole.stolen)
        ));
    }
    notes
}

/// What the rest of the machine did, where the service's share is known.
fn others(whole: &Shares) -> Option<f64> {
    let watched: f64 = whole.watched.iter().map(|(_, share)| share).sum();
    whole.service.map(|service| (whole.machine - service - watched - whole.load_generator).max(0.0))
}

/// Seconds since 1970.
pub fn seconds_now() -> i64 {
    now_utc().unix_timestamp()
}

#[expect(clippy::disallowed_methods, reason = "a report says when it was made; nothing is decided by it")]
fn now_utc() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc()
}

fn now() -> String {
    let now = now_utc().replace_nanosecond(0).unwrap_or_else(|_| now_utc());
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Recorder;

    #[test]
    fn numbers_are_grouped_for_people() {
        let texts = [0.0, 0.5, 12.34, 999.4, -1234.0, 12_345_678.9].map(grouped);
        assert_eq!(texts, ["0.00", "0.50", "12.3", "999", "-1,234", "12,345,679"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(whole), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_load_generator_that_was_the_bottleneck_says_so() {
        let recorded = Recorder::start().finish();
        let mut shares = Shares { load_generator: 0.3, ..Shares::default() };
        assert_eq!(cautions(&recorded, &shares, 1), Vec::<String>::new());
        shares.load_generator = 0.97;
        assert!(cautions(&recorded, &shares, 1)[0].contains("itself the bottleneck"));
        assert_eq!(cautions(&recorded, &shares, 2), Vec::<String>::new());
    }

    #[test]
    fn late_sends_and_strangers_are_told() {
        let recorder = Recorder::start();
        for number in 0..100 {
            recorder.sent(number, number + if number < 5 { 3_000_000 } else { 1000 });
        }
        let shares = Shares { service: Some(0.2), machine: 0.9, load_generator: 0.1, ..Shares::default() };
        let notes = cautions(&recorder.finish(), &shares, 1);
        assert!(notes[0].starts_with("5.0 % of the messages went out more than 1 ms behind"), "{notes:?}");
        assert!(notes[1].contains("used 60 % of a core"), "{notes:?}");
    }
}
