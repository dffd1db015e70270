//! The process as the kernel sees it, under the names that Prometheus's own clients use.
//!
//! Read from `/proc/self`; where there is no `/proc`, and for a line that cannot be read, the metric is
//! left out rather than guessed at.

use std::{fs, sync::atomic::AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Ticks a second of the times in `/proc`, `USER_HZ`: fixed at 100 towards programs, whatever the kernel
/// ticks at itself.
const TICKS: f64 = 100.0;

pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&stat) {
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(seconds);
        registry.register("process_cpu_seconds", "Processor time spent, user and system", cpu);
    }
    let started = fs::read_to_string("/proc/stat").ok().and_then(|machine| start_seconds(&stat, &machine));
    let gauges = [
        ("process_start_time_seconds", "When the process started, in seconds since the Unix epoch", started),
        ("process_resident_memory_bytes", "Resident memory", kilobytes(&status, "VmRSS:")),
        ("process_virtual_memory_bytes", "Virtual memory", kilobytes(&status, "VmSize:")),
        ("process_threads", "Threads", number(&status, "Threads:")),
        ("process_open_fds", "Open file descriptors", open_fds()),
        (
            "process_max_fds",
            "How many file descriptors may be open",
            fs::read_to_string("/proc/self/limits").ok().and_then(|limits| max_fds(&limits)),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        }
    }
    registry
}

/// The fields after the program's name, which is in brackets and may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

/// `utime` and `stime`, fields 14 and 15 of proc(5), of which the first two are cut off.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut times = fields(stat).skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS)
}

/// `starttime`, field 22, counts from the machine's start.
fn start_seconds(stat: &str, machine: &str) -> Option<f64> {
    let ticks: f64 = fields(stat).nth(19)?.parse().ok()?;
    Some(number(machine, "btime")? + ticks / TICKS)
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    Some(number(status, name)? * 1024.0)
}

/// The first number of the line that begins with this word.
fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<f64> {
    // One of them is the folder being read.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

/// The soft limit; one that is `unlimited` is left out.
fn max_fds(limits: &str) -> Option<f64> {
    number(limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 250 150 0 0 20 0 3 0 4200 1000 50 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(start_seconds(stat, "cpu 1 2 3\nbtime 1000\nprocesses 5\n"), Some(1042.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(cpu_seconds("7 (x) S 1"), None);
    }

    #[test]
    fn sizes_are_read_in_bytes() {
        let status = "Name:\tx\nVmSize:\t  20 kB\nVmRSS:\t      12 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(12_288.0));
        assert_eq!(number(status, "Threads:"), Some(3.0));
        assert_eq!(number(status, "Nothing:"), None);
        assert_eq!(
            max_fds("Max open files            1024                 4096                 files\n"),
            Some(1024.0)
        );
        assert_eq!(
            max_fds("Max open files            unlimited            unlimited            files\n"),
            None
        );
    }
}
