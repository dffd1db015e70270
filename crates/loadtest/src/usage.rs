//! What processes and the machine use, from /proc.

use std::{fs, time::Duration};

use rustix::param::{clock_ticks_per_second, page_size};
use serde::Serialize;

/// A process to be watched, with everything it started.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What people call it.
    pub name: String,
    /// Its id.
    pub pid: u32,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid} is not a process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since it began; its dead children's too.
    pub cpu: Duration,
    /// What of it is in memory, in bytes.
    pub resident: u64,
    /// Of that, what belongs to no file.
    pub anonymous: u64,
}

/// One process.
pub fn of_process(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, blanks and parentheses too.
    let fields: Vec<_> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let cpu = of_ticks(ticks(11) + ticks(12) + ticks(13) + ticks(14));
    let resident = ticks(21) * page_size() as u64;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0);
    Some(Usage { cpu, resident, anonymous: anonymous * 1024 })
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second().max(1) as f64)
}

/// A process and all its descendants. Memory is the first one's: what they share would be counted often.
pub fn of_tree(pid: u32) -> Option<Usage> {
    let mut total = of_process(pid)?;
    let mut waiting = children(pid);
    while let Some(child) = waiting.pop() {
        if let Some(usage) = of_process(child) {
            total.cpu += usage.cpu;
            total.anonymous += usage.anonymous;
        }
        waiting.extend(children(child));
    }
    Some(total)
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The whole machine's time, all cores together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine {
    /// Somebody's.
    pub busy: Duration,
    /// Nobody's.
    pub idle: Duration,
    /// Taken by other machines on the same hardware.
    pub stolen: Duration,
}

/// Reads it.
pub fn of_machine() -> Machine {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0);
    Machine {
        busy: of_ticks(field(0) + field(1) + field(2) + field(5) + field(6)),
        idle: of_ticks(field(3) + field(4)),
        stolen: of_ticks(field(7)),
    }
}

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All that is watched, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    service: Option<Usage>,
    others: Vec<(String, Option<Usage>)>,
    own: Usage,
    machine: Machine,
}

/// Shares of one core that were used between two moments; 1.0 is a whole core.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Shares {
    /// By the service.
    pub service: Option<f64>,
    /// By other watched processes.
    pub watched: Vec<(String, f64)>,
    /// By this process.
    pub load_generator: f64,
    /// By all processes of the machine.
    pub machine: f64,
    /// By other machines on the same hardware.
    pub stolen: f64,
}

impl Snapshot {
    /// Reads everything now.
    pub fn take(service: Option<u32>, watched: &[Watched]) -> Self {
        Self {
            service: service.and_then(of_tree),
            others: watched.iter().map(|process| (process.name.clone(), of_tree(process.pid))).collect(),
            own: of_process(std::process::id()).unwrap_or_default(),
            machine: of_machine(),
        }
    }

    /// The service's memory.
    pub fn service(&self) -> Option<Usage> {
        self.service
    }

    /// CPU time of this process.
    pub fn own_cpu(&self) -> Duration {
        self.own.cpu
    }

    /// CPU time of the service.
    pub fn service_cpu(&self) -> Option<Duration> {
        self.service.map(|usage| usage.cpu)
    }

    /// What was used since an earlier moment.
    pub fn since(&self, earlier: &Self, elapsed: Duration) -> Shares {
        let share = |now: Duration, before: Duration| {
            now.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64().max(1e-9)
        };
        let both = |now: Option<Usage>, before: Option<Usage>| Some(share(now?.cpu, before?.cpu));
        Shares {
            service: both(self.service, earlier.service),
            watched: self
                .others
                .iter()
                .zip(&earlier.others)
                .filter_map(|((name, now), (_, before))| Some((name.clone(), both(*now, *before)?)))
                .collect(),
            load_generator: share(self.own.cpu, earlier.own.cpu),
            machine: share(self.machine.busy, earlier.machine.busy),
            stolen: share(self.machine.stolen, earlier.machine.stolen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_work_shows_up() {
        let before = Snapshot::take(Some(std::process::id()), &[]);
        let began = std::time::Instant::now();
        let mut sum = 0_u64;
        while began.elapsed() < Duration::from_millis(200) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let shares = Snapshot::take(Some(std::process::id()), &[]).since(&before, began.elapsed());
        assert!(shares.load_generator > 0.05, "{shares:?}");
        assert!(shares.service.is_some_and(|share| share > 0.05), "{shares:?}");
        assert!(before.service().is_some_and(|usage| usage.resident > 100_000 && usage.anonymous > 0));
    }

    #[test]
    fn a_process_to_watch_has_a_name_and_an_id() {
        let watched: Watched = "postgres=12".parse().unwrap();
        assert_eq!((&*watched.name, watched.pid), ("postgres", 12));
        assert!("postgres".parse::<Watched>().is_err());
        assert!("postgres=x".parse::<Watched>().is_err());
    }
}
