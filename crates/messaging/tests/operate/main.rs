//! What an operator meets: the program as a process, with its log, its reports and its traces.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod banner;
mod health;
mod logs;
mod monitoring;
mod process;
mod reports;
mod stand_ins;
mod traces;
