//! Log lines: readable in development, JSON in production. Never a token, a message, an e-mail address.
//!
//! `line` writes one, `noise` holds repeated ones back, `scrub` takes a last look. On whose behalf a line
//! is written comes from [`crate::context`]. Errors go to [`crate::reports`] too, where that is on.

mod line;
mod noise;
pub(crate) mod scrub;

use std::{
    io::{IsTerminal, Write},
    sync::OnceLock,
};

use tokio::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, layer::Context as LayerContext, layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub(crate) use line::Fields;
use line::Form;
use noise::{Kind, Noise, Verdict};

use crate::{
    clock::Clock,
    config::{Log, LogFormat},
    context::Context,
    metrics, reports,
};

static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts logging to stderr; stdout is for what a command was asked to print.
pub fn start(settings: &Log) {
    let has_colours = settings.format == LogFormat::Text && std::io::stderr().is_terminal();
    let form = Form { format: settings.format, has_colours };
    let lines = LINES.get_or_init(|| Lines { form, noise: Noise::default(), clock: Clock::System });
    let filter = EnvFilter::try_new(directives(&settings.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call (tests start several services) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(Writer(lines).with_filter(filter))
        .with(Watcher.with_filter(LevelFilter::WARN))
        .try_init();
}

/// Tells how many lines were held back of kinds whose time is over; to be called now and then.
pub fn tell_held_back() {
    if let Some(lines) = LINES.get() {
        for (kind, count) in lines.noise.settle(Instant::now()) {
            let message = format!("{} ({count} more times)", kind.message);
            let fields = Fields { message, values: vec![("held_back", count.into())] };
            lines.write(kind.level, kind.target, &fields);
        }
    }
}

/// A bare level is ours. Libraries stay at warnings unless they are named: below, some of them write what
/// passes through them (statements, headers, frames).
fn directives(level: &str) -> String {
    let mut directives = String::from("warn");
    for part in level.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part {
            part if part.contains('=') => directives.push_str(&format!(",{part}")),
            part if part.eq_ignore_ascii_case("off") || part.eq_ignore_ascii_case("error") => {
                directives = directives.replacen("warn", part, 1);
            }
            part => directives.push_str(&format!(",messaging={part},edge={part},rented_messaging={part}")),
        }
    }
    directives
}

struct Lines {
    form: Form,
    noise: Noise,
    clock: Clock,
}

impl Lines {
    fn write(&self, level: Level, target: &str, fields: &Fields) {
        let line = line::render(self.form, self.clock.now(), level, target, fields);
        // One write for a line, so that those of two threads do not mix. There is nobody to tell that
        // stderr is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Writes what the operator asked for.
struct Writer(&'static Lines);

impl<S: Subscriber> Layer<S> for Writer {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let mut fields = Fields::of(event);
        if level <= Level::WARN {
            let kind = Kind { level, target, message: fields.message.clone() };
            match self.0.noise.judge(&kind, Instant::now()) {
                Verdict::HoldBack => return,
                Verdict::Write { held_back: 0 } => {}
                Verdict::Write { held_back } => fields.values.push(("held_back", held_back.into())),
            }
        }
        Context::with(|context| line::put_context(&mut fields, context));
        self.0.write(level, target, &fields);
    }
}

/// Counts warnings and errors, and hands errors to `reports`, whatever is written.
struct Watcher;

impl<S: Subscriber> Layer<S> for Watcher {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let level = *event.metadata().level();
        metrics::get().logged(level);
        if level == Level::ERROR && reports::is_on() {
            reports::report(event.metadata().target(), &Fields::of(event), &Context::current());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_ours_and_libraries_speak_only_when_named() {
        assert_eq!(directives("info"), "warn,messaging=info,edge=info,rented_messaging=info");
        assert_eq!(
            directives("trace, sqlx=debug"),
            "warn,messaging=trace,edge=trace,rented_messaging=trace,sqlx=debug"
        );
        assert_eq!(directives("off"), "off");
        assert_eq!(directives("error,messaging=debug"), "error,messaging=debug");
    }
}
