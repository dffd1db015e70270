//! Reads variables by the table: a value that is set, else the table's default.
//!
//! Remembers what each variable came to, masked, for `check-config`. What the values mean to the
//! service is in `mod.rs`; what they may be is here and in `values`.

use std::{collections::HashMap, fmt, fs, ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    Setting,
    secret::{MASK, Secret, is_example, mask_url},
    variables::{self, VARIABLES, Variable, Visibility},
};

/// A value that the service cannot start with: one sentence that names the variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    sentence: String,
}

impl ConfigError {
    /// `rule` continues the variable's name: "must be a whole number."
    pub fn new(name: &str, rule: impl fmt::Display) -> Self {
        Self { sentence: format!("{name} {rule}") }
    }

    /// A whole sentence of its own.
    pub(super) fn sentence(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.sentence)
    }
}

impl std::error::Error for ConfigError {}

/// The variables of one start.
pub(super) struct Reader {
    values: HashMap<String, String>,
    settings: Vec<Setting>,
}

impl Reader {
    pub(super) fn new(values: HashMap<String, String>) -> Self {
        let settings =
            VARIABLES.iter().map(|variable| Setting { variable, value: None, is_default: true }).collect();
        Self { values, settings }
    }

    /// What every variable came to, in the table's order.
    pub(super) fn into_settings(self) -> Vec<Setting> {
        self.settings
    }

    /// The value that is set, else the table's default; one of blanks alone counts as not set.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let variable = in_table(name);
        let set = self.values.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let value = set.or(variable.default).map(ToOwned::to_owned);
        self.note(name, value.as_deref(), set.is_none());
        value
    }

    /// As [`Reader::text`], for a variable whose default depends on others.
    pub(super) fn text_or(&mut self, name: &'static str, default: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.note(name, Some(default), true);
            default.to_owned()
        })
    }

    /// A value read by `parse`, whose error says what the value must be.
    pub(super) fn parse<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.text(name).map(|value| parse(&value)).transpose().map_err(|rule| ConfigError::new(name, rule))
    }

    /// A whole number, absent only where the table has no default.
    pub(super) fn maybe_number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        self.parse(name, |value| match value.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!(
                "must be a whole number from {} to {}, not {}.",
                range.start(),
                range.end(),
                quoted(value)
            )),
        })
    }

    /// A whole number of a variable with a default.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let number = self.maybe_number(name, range)?.expect("the table has its default");
        Ok(T::try_from(number).unwrap_or_else(|_| unreachable!("{name}'s range is wider than its type")))
    }

    /// A limit, where 0 stands for none.
    pub(super) fn limit(&mut self, name: &'static str) -> Result<Option<u32>, ConfigError> {
        let limit: u32 = self.number(name, 0..=u64::from(u32::MAX))?;
        Ok((limit > 0).then_some(limit))
    }

    /// A switch of a variable with a default.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, ConfigError> {
        let flag = self.parse(name, |value| match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("must be true or false, not {}.", quoted(value))),
        })?;
        Ok(flag.expect("the table has its default"))
    }

    /// A duration written in milliseconds: at least one, at most an hour.
    pub(super) fn millis(&mut self, name: &'static str) -> Result<Duration, ConfigError> {
        self.number(name, 1..=3_600_000).map(Duration::from_millis)
    }

    /// A duration written in seconds.
    pub(super) fn seconds(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        self.number(name, range).map(Duration::from_secs)
    }

    /// A path of a variable with a default.
    pub(super) fn path(&mut self, name: &'static str) -> PathBuf {
        self.text(name).expect("the table has its default").into()
    }

    /// A secret: set but empty, or one that documentation shows, stops the start.
    pub(super) fn secret(&mut self, name: &'static str) -> Result<Option<Secret>, ConfigError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        if value.trim().is_empty() {
            return Err(ConfigError::new(name, "is empty: set a secret of your own or remove it."));
        }
        if is_example(value) {
            return Err(ConfigError::new(
                name,
                "is an example that everybody knows: set a secret of your own.",
            ));
        }
        let secret = Secret::new(value.as_str());
        self.note(name, Some(MASK), false);
        Ok(Some(secret))
    }

    /// The text of a file whose path the variable gives.
    pub(super) fn file(&mut self, name: &'static str) -> Result<Option<(PathBuf, Vec<u8>)>, ConfigError> {
        self.parse(name, |path| match fs::read(path) {
            Ok(bytes) => Ok((path.into(), bytes)),
            Err(error) => Err(format!("names a file that cannot be read: {}.", error.kind())),
        })
    }

    fn note(&mut self, name: &str, value: Option<&str>, is_default: bool) {
        let setting = self.settings.iter_mut().find(|setting| setting.variable.name == name);
        let setting = setting.expect("settings are made from the table");
        setting.is_default = is_default;
        setting.value = value.map(|value| match setting.variable.visibility {
            Visibility::Open => value.to_owned(),
            Visibility::Url => mask_url(value),
            Visibility::Secret => MASK.to_owned(),
        });
    }
}

fn in_table(name: &str) -> &'static Variable {
    variables::find(name).unwrap_or_else(|| unreachable!("{name} is read but not in the table"))
}

/// A value in an error: short, on one line.
pub(super) fn quoted(value: &str) -> String {
    let mut shown: String = value.chars().take(40).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
