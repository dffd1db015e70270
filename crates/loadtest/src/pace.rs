//! The open loop's clock: when messages are due, whoever is slow.
//!
//! A thread of its own, since the runtime's timers are a millisecond coarse and wait for whoever computes.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::record::Recorder;

/// How messages are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Each at random, as many people do who do not know of each other.
    Poisson,
    /// One every so often.
    Even,
}

impl std::fmt::Display for Arrivals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Poisson => "poisson",
            Self::Even => "even",
        })
    }
}

/// Random numbers that a seed repeats (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end.max(1) as u64).expect("less than a usize")
    }

    /// A number from 0 to 1, never 0.
    pub fn unit(&mut self) -> f64 {
        ((self.number() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// When messages are due.
#[derive(Debug)]
pub struct Schedule {
    /// Messages a second.
    pub rate: f64,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// When the first may be due, in the recorder's time.
    pub from_ns: u64,
    /// None is due from here on.
    pub until_ns: u64,
}

/// Calls `due` with each moment, then with the random numbers to choose a sender by; ends by itself, or early
/// when `stop` says so or `due` answers false.
pub fn run(
    recorder: &Recorder,
    schedule: &Schedule,
    random: &mut Random,
    stop: &AtomicBool,
    mut due: impl FnMut(u64, &mut Random) -> bool,
) {
    // The kernel may otherwise let a sleeper lie 50 µs longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let step_ns = 1e9 / schedule.rate.max(1e-6);
    let mut at_ns = schedule.from_ns as f64;
    loop {
        at_ns += match schedule.arrivals {
            Arrivals::Even => step_ns,
            Arrivals::Poisson => -random.unit().ln() * step_ns,
        };
        let scheduled_ns = at_ns as u64;
        if scheduled_ns >= schedule.until_ns {
            return;
        }
        loop {
            if stop.load(Relaxed) {
                return;
            }
            let now_ns = recorder.now_ns();
            if now_ns >= scheduled_ns {
                break;
            }
            thread::sleep(Duration::from_nanos((scheduled_ns - now_ns).min(50_000_000)));
        }
        if !due(scheduled_ns, random) {
            return;
        }
    }
}

/// Raised from elsewhere to end a schedule early.
pub type Stop = Arc<AtomicBool>;

#[cfg(test)]
mod tests {
    use super::*;

    fn count(arrivals: Arrivals) -> Vec<u64> {
        let recorder = Recorder::start();
        let schedule = Schedule { rate: 20_000.0, arrivals, from_ns: 0, until_ns: 100_000_000 };
        let mut moments = Vec::new();
        run(&recorder, &schedule, &mut Random(7), &AtomicBool::new(false), |at_ns, _| {
            moments.push(at_ns);
            true
        });
        moments
    }

    #[test]
    fn even_arrivals_are_as_many_as_the_rate_says() {
        let moments = count(Arrivals::Even);
        assert_eq!(moments.len(), 1999);
        assert!(moments.windows(2).all(|pair| pair[1] - pair[0] == 50_000));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_on_average_and_no_rhythm() {
        let moments = count(Arrivals::Poisson);
        assert!((1800..2200).contains(&moments.len()), "{}", moments.len());
        let close = moments.windows(2).filter(|pair| pair[1] - pair[0] < 50_000).count();
        let share = close as f64 / moments.len() as f64;
        assert!((0.58..0.68).contains(&share), "63 % of the steps are shorter than the mean: {share}");
    }

    #[test]
    fn a_schedule_ends_when_told() {
        let schedule = Schedule { rate: 1.0, arrivals: Arrivals::Even, from_ns: 0, until_ns: u64::MAX };
        run(&Recorder::start(), &schedule, &mut Random(1), &AtomicBool::new(true), |_, _| true);
    }
}
