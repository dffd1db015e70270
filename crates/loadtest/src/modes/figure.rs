//! `figure`: one number out of a run's JSON, for scripts.

use std::io::Write as _;

use serde_json::Value;

use crate::cli::OneFigure;

/// Prints it.
pub fn run(options: &OneFigure) -> Result<(), String> {
    let path = options.file.display();
    let text =
        std::fs::read_to_string(&options.file).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| format!("{path} is no JSON: {error}"))?;
    let number = find(&report, &options.name, options.percentile.as_deref())
        .ok_or_else(|| format!("{path} has no {}", options.name))?;
    writeln!(std::io::stdout().lock(), "{number}").map_err(|error| format!("it cannot be written: {error}"))
}

fn find(report: &Value, name: &str, percentile: Option<&str>) -> Option<f64> {
    let named = |list: &str| report.get(list)?.as_array()?.iter().find(|item| item["name"] == name);
    match percentile {
        None => named("figures")?["value"].as_f64(),
        Some(percentile) => {
            named("latencies")?["percentiles"][percentile].as_f64().map(|micros| micros / 1000.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::find;

    #[test]
    fn figures_and_percentiles_are_found_by_name() {
        let report = json!({
            "figures": [{"name": "rate", "value": 12.5}, {"name": "words", "value": null}],
            "latencies": [{"name": "to the other user", "percentiles": {"p99": 4200}}],
        });
        assert_eq!(find(&report, "rate", None), Some(12.5));
        assert_eq!(find(&report, "words", None), None);
        assert_eq!(find(&report, "to the other user", Some("p99")), Some(4.2));
        assert_eq!(find(&report, "to the other user", Some("p98")), None);
        assert_eq!(find(&report, "absent", None), None);
    }
}
