//! Repeated lines: of one kind only so many are written in a while, the others are counted.
//!
//! A dependency that is away makes the same warning thousands of times; one of them and a number say as
//! much. Lines below warnings are not judged: who asks for them wants them all.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Level;

/// How long lines of a kind count together.
const WINDOW: Duration = Duration::from_secs(5);
/// Warnings of a kind that are written in it.
const WARNINGS: u32 = 1;
/// Errors of a kind that are written in it: each may be what somebody asks about by its request's id.
const ERRORS: u32 = 20;
/// Kinds that are remembered; messages are part of the code, so there are some dozens.
const MAX_KINDS: usize = 512;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written; so many before it were not.
    Write { held_back: u32 },
    /// It is counted.
    HoldBack,
}

/// Which lines are of one kind: level, module and message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: String,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    written: u32,
    held_back: u32,
}

/// What was written lately.
#[derive(Debug, Default)]
pub(super) struct Noise(Mutex<HashMap<Kind, Seen>>);

impl Noise {
    pub(super) fn judge(&self, kind: &Kind, now: Instant) -> Verdict {
        let most = match kind.level {
            Level::ERROR => ERRORS,
            Level::WARN => WARNINGS,
            _ => return Verdict::Write { held_back: 0 },
        };
        let mut kinds = self.0.lock();
        if let Some(seen) = kinds.get_mut(kind) {
            if now.duration_since(seen.since) >= WINDOW {
                let held_back = std::mem::take(&mut seen.held_back);
                (seen.since, seen.written) = (now, 1);
                return Verdict::Write { held_back };
            }
            if seen.written >= most {
                seen.held_back = seen.held_back.saturating_add(1);
                return Verdict::HoldBack;
            }
            seen.written += 1;
            return Verdict::Write { held_back: 0 };
        }
        if kinds.len() >= MAX_KINDS {
            kinds.retain(|_, seen| seen.held_back > 0 || now.duration_since(seen.since) < WINDOW);
        }
        if kinds.len() < MAX_KINDS {
            kinds.insert(kind.clone(), Seen { since: now, written: 1, held_back: 0 });
        }
        Verdict::Write { held_back: 0 }
    }

    /// The kinds whose time is over and how many of each were held back and not told yet.
    pub(super) fn settle(&self, now: Instant) -> Vec<(Kind, u32)> {
        let mut told = Vec::new();
        self.0.lock().retain(|kind, seen| {
            let is_over = now.duration_since(seen.since) >= WINDOW;
            if is_over && seen.held_back > 0 {
                told.push((kind.clone(), seen.held_back));
            }
            !is_over
        });
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(level: Level, message: &str) -> Kind {
        Kind { level, target: "messaging", message: message.to_owned() }
    }

    #[test]
    fn a_repeated_warning_is_written_once_in_a_while_with_a_count() {
        let (noise, start) = (Noise::default(), Instant::now());
        let away = kind(Level::WARN, "away");
        assert_eq!(noise.judge(&away, start), Verdict::Write { held_back: 0 });
        for _ in 0..7 {
            assert_eq!(noise.judge(&away, start + WINDOW / 2), Verdict::HoldBack);
        }
        let other = kind(Level::WARN, "another");
        assert_eq!(noise.judge(&other, start), Verdict::Write { held_back: 0 });
        assert_eq!(noise.judge(&away, start + WINDOW), Verdict::Write { held_back: 7 });
    }

    #[test]
    fn what_was_held_back_at_the_end_is_told_though_nothing_follows() {
        let (noise, start) = (Noise::default(), Instant::now());
        let away = kind(Level::WARN, "away");
        for _ in 0..3 {
            noise.judge(&away, start);
        }
        assert_eq!(noise.settle(start + WINDOW / 2), []);
        assert_eq!(noise.settle(start + WINDOW), [(away, 2)]);
        assert_eq!(noise.settle(start + WINDOW), []);
    }

    #[test]
    fn errors_are_many_and_lines_below_warnings_are_all_written() {
        let (noise, start) = (Noise::default(), Instant::now());
        for (level, expected) in [(Level::ERROR, 20), (Level::INFO, 100), (Level::DEBUG, 100)] {
            let lines = (0..100).map(|_| noise.judge(&kind(level, "the same"), start));
            assert_eq!(lines.filter(|verdict| *verdict != Verdict::HoldBack).count(), expected, "{level}");
        }
    }

    #[test]
    fn no_more_kinds_are_remembered_than_there_is_room_for() {
        let (noise, start) = (Noise::default(), Instant::now());
        for number in 0..2 * MAX_KINDS {
            noise.judge(&kind(Level::WARN, &number.to_string()), start);
        }
        assert_eq!(noise.0.lock().len(), MAX_KINDS);
    }
}
