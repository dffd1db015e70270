//! When a failed delivery is tried again: the steps that Standard Webhooks recommends.

use std::time::Duration;

use rand::Rng;

/// Five seconds to a day, three days in all. Multiples of the first are kept where that is configured.
const STEPS: [u32; 9] = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
const FIRST_STEP: u32 = STEPS[0];
/// A target that is down is knocked at once a minute, in multiples of the first step.
const LONGEST_PAUSE: u32 = 12;
/// Up to a fifth later, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    base: Duration,
    max_attempts: u32,
}

impl Schedule {
    pub(super) const fn new(base: Duration, max_attempts: u32) -> Self {
        Self { base, max_attempts }
    }

    /// How long after this attempt (from 1) the next one follows; `None` after the last.
    pub(super) fn after(&self, attempt: i32) -> Option<Duration> {
        let attempt = u32::try_from(attempt).unwrap_or(1).max(1);
        if attempt >= self.max_attempts {
            return None;
        }
        let step = STEPS.get(usize::try_from(attempt).ok()?.checked_sub(1)?)?;
        Some(jittered(self.base.saturating_mul(*step) / FIRST_STEP))
    }

    /// How long a target is left alone after so many rounds in which nothing arrived.
    pub(super) fn pause(&self, failed_rounds: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed_rounds.saturating_sub(1)).unwrap_or(u32::MAX);
        jittered(self.base.saturating_mul(factor.clamp(1, LONGEST_PAUSE)))
    }
}

fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 + rand::rng().random_range(0.0..JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_and_end() {
        let schedule = Schedule::new(Duration::from_secs(5), 10);
        for (attempt, seconds) in [(1, 5), (2, 300), (3, 1800), (9, 86_400)] {
            let wait = schedule.after(attempt).expect("another attempt");
            let step = Duration::from_secs(seconds);
            assert!(wait >= step && wait <= step.mul_f64(1.0 + JITTER), "{attempt}: {wait:?}");
        }
        assert_eq!(schedule.after(10), None);
        assert_eq!(Schedule::new(Duration::from_secs(5), 3).after(3), None);
        assert_eq!(Schedule::new(Duration::from_secs(5), 1).after(1), None);
    }

    #[test]
    fn another_base_scales_all_steps() {
        let wait = Schedule::new(Duration::from_millis(50), 10).after(2).expect("another attempt");
        assert!(wait >= Duration::from_secs(3) && wait < Duration::from_secs(4), "{wait:?}");
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let schedule = Schedule::new(Duration::from_secs(5), 10);
        for (rounds, seconds) in [(1, 5), (2, 10), (4, 40), (5, 60), (400, 60)] {
            let pause = schedule.pause(rounds).as_secs_f64();
            assert!(pause >= f64::from(seconds) && pause <= f64::from(seconds) * 1.2, "{rounds}: {pause}");
        }
    }
}
