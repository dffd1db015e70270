//! How far an import came: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Conversations are read.
    Conversations,
    /// Messages are read.
    Messages,
    /// Messages that changed since the last run are read.
    Changes,
    /// Messages get their places.
    Placing,
    /// Both sides are compared.
    Comparing,
}

impl Phase {
    const fn title(self) -> &'static str {
        match self {
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::Changes => "changes",
            Self::Placing => "placing",
            Self::Comparing => "comparing",
        }
    }
}

/// Cells of the bar.
const WIDTH: usize = 30;
/// A terminal is redrawn this often at most, a file gets a line this often.
const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(5);

/// Writes to stderr how far it came.
#[derive(Debug)]
pub struct Bar {
    is_terminal: bool,
    phase: Option<(Phase, Instant)>,
    shown: Option<Instant>,
    is_open: bool,
}

impl Default for Bar {
    fn default() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), phase: None, shown: None, is_open: false }
    }
}

impl Bar {
    /// So much of so much is done.
    pub fn show(&mut self, phase: Phase, done: i64, total: i64) {
        let now = Instant::now();
        let began = match self.phase {
            Some((current, began)) if current == phase => began,
            _ => {
                self.end();
                self.phase = Some((phase, now));
                self.shown = None;
                now
            }
        };
        let pause = if self.is_terminal { REDRAW } else { LINE };
        let is_due = self.shown.is_none_or(|shown| now - shown >= pause);
        if !is_due && done < total {
            return;
        }
        self.shown = Some(now);
        let line = line(phase, done, total, now - began);
        // A terminal that is gone is no reason to stop.
        let _ = if self.is_terminal {
            self.is_open = true;
            write!(std::io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    /// Leaves the last bar standing.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn line(phase: Phase, done: i64, total: i64, took: Duration) -> String {
    let (done, total) = (done.max(0).unsigned_abs(), total.max(1).unsigned_abs());
    let percent = done.saturating_mul(100) / total;
    let cells = usize::try_from(percent.min(100)).unwrap_or(100) * WIDTH / 100;
    let seconds = took.as_secs_f64();
    let speed = if seconds > 0.2 { format!(", {:.0}/s", done as f64 / seconds) } else { String::new() };
    format!(
        "{:<14} [{}{}] {percent:>3} %  {done} of {total}{speed}",
        phase.title(),
        "#".repeat(cells),
        "-".repeat(WIDTH - cells)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_fast() {
        let half = line(Phase::Messages, 500, 1000, Duration::from_secs(2));
        assert_eq!(half, "messages       [###############---------------]  50 %  500 of 1000, 250/s");
        for (done, total) in [(0, 0), (-1, -1), (i64::MAX, 1), (10, 0)] {
            assert!(!line(Phase::Placing, done, total, Duration::ZERO).is_empty());
        }
    }
}
