//! One line: what an event says, on whose behalf, as JSON or for people.

use std::fmt::Write;

use serde_json::Value;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use super::scrub::scrub;
use crate::{clock::Timestamp, config::LogFormat, context::Context};

/// What an event says.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// The sentence.
    pub(crate) message: String,
    /// What goes with it, in the order written.
    pub(crate) values: Vec<(&'static str, Value)>,
}

impl Fields {
    pub(crate) fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => self.values.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, scrub(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, scrub(&format!("{value:?}")).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// Adds what the task works on, unless the event says it itself.
pub(super) fn put_context(fields: &mut Fields, context: &Context) {
    let trace_id = context.trace.as_ref().map(|trace| trace.trace_id().into());
    let known = [
        ("request_id", context.request_id.as_deref().map(Value::from)),
        ("connection_id", context.connection_id.map(Value::from)),
        ("trace_id", trace_id),
    ];
    for (name, value) in known {
        if let Some(value) = value
            && fields.values.iter().all(|(other, _)| *other != name)
        {
            fields.values.push((name, value));
        }
    }
}

/// The line, with its end.
pub(super) fn render(format: Form, now: Timestamp, level: Level, target: &str, fields: &Fields) -> String {
    match format.format {
        LogFormat::Json => json(now, level, target, fields),
        LogFormat::Text => text(now, level, target, fields, format.has_colours),
    }
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) format: LogFormat,
    /// For a terminal.
    pub(super) has_colours: bool,
}

/// Time, level and message stand first, as people look for them.
fn json(now: Timestamp, level: Level, target: &str, fields: &Fields) -> String {
    let mut line = format!(
        r#"{{"timestamp":"{now}","level":"{level}","message":{}"#,
        Value::from(fields.message.as_str())
    );
    for (name, value) in &fields.values {
        let _ = write!(line, ",{}:{value}", Value::from(*name));
    }
    let _ = writeln!(line, r#","target":{}}}"#, Value::from(target));
    line
}

fn text(now: Timestamp, level: Level, target: &str, fields: &Fields, has_colours: bool) -> String {
    let (dim, bold, end) = if has_colours { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let colour = match level {
        _ if !has_colours => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    };
    let mut line =
        format!("{dim}{now}{end} {colour}{level:>5}{end} {dim}{target}:{end} {bold}{}{end}", fields.message);
    for (name, value) in &fields.values {
        let _ = match value {
            // A line stays a line, and a value with blanks a value.
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.is_empty() => {
                write!(line, " {dim}{name}={end}{text}")
            }
            value => write!(line, " {dim}{name}={end}{value}"),
        };
    }
    // A terminal's control characters have no business in a line either.
    let mut line = line.replace(|c: char| c.is_control() && !(has_colours && c == '\x1b'), " ");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat) -> String {
        let mut fields = Fields {
            message: "something\nhappened".into(),
            values: vec![("error", "two words".into()), ("attempts", 3.into()), ("cause", "away".into())],
        };
        let context =
            Context { request_id: Some("r-1".into()), connection_id: Some(7), ..Context::default() };
        put_context(&mut fields, &context);
        let form = Form { format, has_colours: false };
        render(form, Timestamp::EPOCH, Level::WARN, "messaging::chat", &fields)
    }

    #[test]
    fn a_line_for_programs_is_an_object_with_everything_at_the_top() {
        let line = line(LogFormat::Json);
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            line,
            serde_json::json!({
                "timestamp": "1970-01-01T00:00:00.000Z", "level": "WARN", "message": "something\nhappened",
                "error": "two words", "attempts": 3, "cause": "away", "request_id": "r-1", "connection_id": 7,
                "target": "messaging::chat",
            })
        );
    }

    #[test]
    fn a_line_for_people_is_one_line() {
        assert_eq!(
            line(LogFormat::Text),
            "1970-01-01T00:00:00.000Z  WARN messaging::chat: something happened error=\"two words\" \
             attempts=3 cause=away request_id=r-1 connection_id=7\n"
        );
    }

    #[test]
    fn what_the_event_says_itself_is_not_repeated() {
        let mut fields = Fields { message: String::new(), values: vec![("request_id", "own".into())] };
        put_context(&mut fields, &Context { request_id: Some("other".into()), ..Context::default() });
        assert_eq!(fields.values, [("request_id", Value::from("own"))]);
    }
}
