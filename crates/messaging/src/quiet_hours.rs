//! The hours of the day in which a person wants no push (contract section 7), in their own time zone.
//!
//! Who is told what, and when, is decided by whoever sends; here is only whether now is such an hour.
//! Time zones come with the program: the same everywhere, whatever the machine has installed.

use std::{fmt, sync::LazyLock};

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::clock::Timestamp;

static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Names longer than this are in no database.
const MAX_NAME: usize = 64;

/// A time of the day, `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    minutes: u16,
}

impl TimeOfDay {
    /// Reads `22:00`: two digits each, from 00:00 to 23:59.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let is_two_digits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_two_digits { digits.parse::<u16>().ok() } else { None }
        };
        let (hours, minutes) = text.split_once(':')?;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        (hours < 24 && minutes < 60).then_some(Self { minutes: hours * 60 + minutes })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From `start` to `end` of each day, past midnight where `end` is the smaller one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct QuietHours {
    start: TimeOfDay,
    end: TimeOfDay,
    time_zone: String,
}

/// What is wrong with quiet hours: the field, and a sentence.
pub type Refusal = (&'static str, &'static str);

impl QuietHours {
    /// Reads `{"start":"22:00","end":"07:00","time_zone":"Europe/Paris"}`, as it comes in and as it is kept.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Refusal>> {
        if !value.is_object() {
            return Err(vec![(
                "quiet_hours",
                "The quiet_hours field must be an object with start, end and time_zone, or null.",
            )]);
        }
        let mut refusals = Vec::new();
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let (start, end) = (TimeOfDay::parse(text("start")), TimeOfDay::parse(text("end")));
        if start.is_none() {
            refusals.push(("quiet_hours.start", "The quiet_hours.start field must be a time like 22:00."));
        }
        if end.is_none() {
            refusals.push(("quiet_hours.end", "The quiet_hours.end field must be a time like 07:00."));
        }
        if start.is_some() && start == end {
            refusals.push(("quiet_hours.end", "The quiet_hours.end field must differ from its start."));
        }
        let zone = time_zone(text("time_zone"));
        if zone.is_none() {
            refusals.push((
                "quiet_hours.time_zone",
                "The quiet_hours.time_zone field must be a time zone like Europe/Paris.",
            ));
        }
        match (start, end, zone) {
            (Some(start), Some(end), Some(zone)) if refusals.is_empty() => {
                // As the database spells it, so that clients can compare.
                let time_zone = zone.iana_name().unwrap_or(text("time_zone")).to_owned();
                Ok(Self { start, end, time_zone })
            }
            _ => Err(refusals),
        }
    }

    /// Reads what was kept.
    pub fn from_stored(json: &str) -> Option<Self> {
        Self::from_json(&serde_json::from_str(json).ok()?).ok()
    }

    /// Whether this is such an hour. A zone that is no longer known counts as UTC.
    pub fn cover(&self, now: Timestamp) -> bool {
        let zone = time_zone(&self.time_zone).unwrap_or(TimeZone::UTC);
        let Ok(instant) = jiff::Timestamp::from_millisecond(now.as_millis()) else { return false };
        let local = zone.to_datetime(instant);
        let (hour, minute) = (u16::try_from(local.hour()), u16::try_from(local.minute()));
        let (Ok(hour), Ok(minute)) = (hour, minute) else { return false };
        let now = TimeOfDay { minutes: hour * 60 + minute };
        if self.start < self.end {
            self.start <= now && now < self.end
        } else {
            self.start <= now || now < self.end
        }
    }
}

fn time_zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name.len() > MAX_NAME { None } else { TIME_ZONES.get(name).ok() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hours(start: &str, end: &str, time_zone: &str) -> QuietHours {
        QuietHours::from_json(&json!({"start": start, "end": end, "time_zone": time_zone})).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn nights_and_days_are_covered_from_start_to_end() {
        let night = hours("22:00", "07:00", "UTC");
        for (time, expected) in [
            ("21:59:59", false),
            ("22:00:00", true),
            ("03:00:00", true),
            ("06:59:59", true),
            ("07:00:00", false),
        ] {
            assert_eq!(night.cover(at(&format!("2026-01-01T{time}Z"))), expected, "{time}");
        }
        let noon = hours("12:00", "13:30", "UTC");
        assert!(noon.cover(at("2026-01-01T13:29:00Z")) && !noon.cover(at("2026-01-01T13:30:00Z")));
        assert!(!noon.cover(at("2026-01-01T00:00:00Z")));
    }

    #[test]
    fn hours_are_local_in_summer_and_in_winter() {
        let paris = hours("22:00", "07:00", "Europe/Paris");
        assert!(paris.cover(at("2026-01-15T21:30:00Z")), "22:30 there");
        assert!(!paris.cover(at("2026-01-15T20:30:00Z")), "21:30 there");
        assert!(paris.cover(at("2026-07-15T20:30:00Z")), "22:30 there");
        assert!(!paris.cover(at("2026-07-15T05:30:00Z")), "07:30 there");
        let kathmandu = hours("00:00", "00:15", "Asia/Kathmandu");
        assert!(kathmandu.cover(at("2026-01-15T18:20:00Z")), "00:05 there");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let paris = hours("22:00", "07:05", "europe/paris");
        let json = serde_json::to_value(&paris).unwrap();
        assert_eq!(json, json!({"start": "22:00", "end": "07:05", "time_zone": "Europe/Paris"}));
        assert_eq!(QuietHours::from_stored(&json.to_string()), Some(paris));
        assert_eq!(QuietHours::from_stored("broken"), None);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let refused = |value| {
            let refusals = QuietHours::from_json(&value).unwrap_err();
            refusals.into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(refused(json!(true)), ["quiet_hours"]);
        assert_eq!(refused(json!({})), ["quiet_hours.start", "quiet_hours.end", "quiet_hours.time_zone"]);
        for bad in ["24:00", "7:00", "07:60", "07:0", "0700", "+7:00", "07:00:00", "", "７:00"] {
            let value = json!({"start": bad, "end": "08:00", "time_zone": "UTC"});
            assert_eq!(refused(value), ["quiet_hours.start"], "{bad}");
        }
        for bad in ["Mars/Base", "", "../etc/passwd", "+02:00"] {
            let value = json!({"start": "07:00", "end": "08:00", "time_zone": bad});
            assert_eq!(refused(value), ["quiet_hours.time_zone"], "{bad}");
        }
        let never = json!({"start": "07:00", "end": "07:00", "time_zone": "UTC"});
        assert_eq!(refused(never), ["quiet_hours.end"]);
    }
}
