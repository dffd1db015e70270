//! The rule: who is pushed of what, and when. Pure; what it needs to know is gathered by `engine`.

use std::time::Duration;

use crate::clock::Timestamp;

/// What decides on a push to one person about one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    /// The place of the newest message that the person has not read; `None` if there is none.
    pub(super) unread_seq: Option<i64>,
    /// They wrote it themselves.
    pub(super) is_own: bool,
    /// The conversation is on one of their screens, on any node.
    pub(super) is_on_screen: bool,
    /// They muted the conversation, and that is not over.
    pub(super) is_muted: bool,
    /// One of the two blocks the other one.
    pub(super) is_blocked: bool,
    /// They want pushes at all.
    pub(super) wants_push: bool,
    /// Now is one of their quiet hours.
    pub(super) is_quiet: bool,
    /// Everything up to here was pushed, or is not to be.
    pub(super) pushed_seq: i64,
    /// When the last push was settled.
    pub(super) pushed_at: Option<Timestamp>,
    /// Since when a push of this conversation is under way.
    pub(super) claimed_at: Option<Timestamp>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Push, up to this place.
    Push(i64),
    /// Look again after this time: the last push is not old enough, or one is under way.
    Wait(Duration),
    /// Nothing.
    Not(Reason),
}

/// Why nobody is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Everything is read.
    Read,
    /// It is the person's own message.
    Own,
    /// It was pushed.
    Pushed,
    /// It is on the screen.
    OnScreen,
    /// The conversation is muted, archived or not: an archived one comes back with the message, and
    /// whether it stays silent is what muting says.
    Muted,
    /// One blocks the other.
    Blocked,
    /// Pushes are switched off.
    SwitchedOff,
    /// It is a quiet hour. The message stays unread and counts in the badge of the next push.
    QuietHours,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Further messages within this time of a push become one update of it.
    pub(super) fold: Duration,
    /// A push that is under way for longer is nobody's any more.
    pub(super) lapse: Duration,
    /// When to look again, at the soonest, while one is under way.
    pub(super) look_again: Duration,
}

/// Decides.
pub(super) fn decide(subject: &Subject, times: &Times, now: Timestamp) -> Verdict {
    let Some(seq) = subject.unread_seq else { return Verdict::Not(Reason::Read) };
    let hindrances = [
        (subject.is_own, Reason::Own),
        (seq <= subject.pushed_seq, Reason::Pushed),
        (!subject.wants_push, Reason::SwitchedOff),
        (subject.is_blocked, Reason::Blocked),
        (subject.is_muted, Reason::Muted),
        (subject.is_on_screen, Reason::OnScreen),
        (subject.is_quiet, Reason::QuietHours),
    ];
    if let Some((_, reason)) = hindrances.into_iter().find(|(hinders, _)| *hinders) {
        return Verdict::Not(reason);
    }
    if let Some(age) = subject.claimed_at.map(|since| now.since(since)).filter(|age| *age < times.lapse) {
        // Most are settled at once; one whose push service is away is not asked about every second.
        return Verdict::Wait(age.max(times.look_again).min(times.lapse - age));
    }
    // A clock that stands behind must not make anybody wait for longer than that.
    let waited = subject.pushed_at.map_or(times.fold, |at| now.since(at));
    match times.fold.saturating_sub(waited) {
        Duration::ZERO => Verdict::Push(seq),
        rest => Verdict::Wait(rest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
    const TIMES: Times = Times {
        fold: Duration::from_secs(3),
        lapse: Duration::from_secs(90),
        look_again: Duration::from_secs(1),
    };
    const PLAIN: Subject = Subject {
        unread_seq: Some(7),
        is_own: false,
        is_on_screen: false,
        is_muted: false,
        is_blocked: false,
        wants_push: true,
        is_quiet: false,
        pushed_seq: 0,
        pushed_at: None,
        claimed_at: None,
    };

    fn before(seconds: u64) -> Option<Timestamp> {
        Some(NOW.minus(Duration::from_secs(seconds)))
    }

    #[test]
    fn each_case_has_its_verdict() {
        use Verdict::{Not, Push, Wait};
        let second = Duration::from_secs;
        for (name, subject, expected) in [
            ("a new message", PLAIN, Push(7)),
            ("all is read", Subject { unread_seq: None, ..PLAIN }, Not(Reason::Read)),
            ("their own", Subject { is_own: true, ..PLAIN }, Not(Reason::Own)),
            ("on the screen", Subject { is_on_screen: true, ..PLAIN }, Not(Reason::OnScreen)),
            ("muted", Subject { is_muted: true, ..PLAIN }, Not(Reason::Muted)),
            ("blocked", Subject { is_blocked: true, ..PLAIN }, Not(Reason::Blocked)),
            ("switched off", Subject { wants_push: false, ..PLAIN }, Not(Reason::SwitchedOff)),
            ("a quiet hour", Subject { is_quiet: true, ..PLAIN }, Not(Reason::QuietHours)),
            ("pushed before", Subject { pushed_seq: 7, pushed_at: before(9), ..PLAIN }, Not(Reason::Pushed)),
            ("pushed further", Subject { pushed_seq: 9, ..PLAIN }, Not(Reason::Pushed)),
            ("an old push", Subject { pushed_seq: 6, pushed_at: before(3), ..PLAIN }, Push(7)),
            ("a burst", Subject { pushed_seq: 6, pushed_at: before(1), ..PLAIN }, Wait(second(2))),
            ("skipped, never pushed", Subject { pushed_seq: 6, ..PLAIN }, Push(7)),
            (
                "a push from the future",
                Subject { pushed_at: Some(NOW.plus(second(60))), ..PLAIN },
                Wait(second(3)),
            ),
            ("just under way", Subject { claimed_at: before(0), ..PLAIN }, Wait(second(1))),
            ("under way for long", Subject { claimed_at: before(20), ..PLAIN }, Wait(second(20))),
            ("soon over", Subject { claimed_at: before(80), ..PLAIN }, Wait(second(10))),
            ("left by a dead node", Subject { claimed_at: before(90), ..PLAIN }, Push(7)),
        ] {
            assert_eq!(decide(&subject, &TIMES, NOW), expected, "{name}");
        }
    }

    prop_compose! {
        fn subjects()(
            unread_seq in proptest::option::of(1..9_i64),
            flags in any::<[bool; 6]>(),
            pushed_seq in 0..9_i64,
            pushed in proptest::option::of(0..10_u64),
            claimed in proptest::option::of(0..200_u64),
        ) -> Subject {
            let [is_own, is_on_screen, is_muted, is_blocked, wants_push, is_quiet] = flags;
            Subject {
                unread_seq, is_own, is_on_screen, is_muted, is_blocked, wants_push, is_quiet, pushed_seq,
                pushed_at: pushed.and_then(before), claimed_at: claimed.and_then(before),
            }
        }
    }

    proptest! {
        #[test]
        fn a_push_goes_only_where_nothing_is_against_it(subject in subjects()) {
            if let Verdict::Push(seq) = decide(&subject, &TIMES, NOW) {
                prop_assert_eq!(Some(seq), subject.unread_seq);
                prop_assert!(seq > subject.pushed_seq && subject.wants_push);
                prop_assert!(!subject.is_own && !subject.is_on_screen && !subject.is_muted);
                prop_assert!(!subject.is_blocked && !subject.is_quiet);
                prop_assert!(subject.pushed_at.is_none_or(|at| NOW.since(at) >= TIMES.fold));
                prop_assert!(subject.claimed_at.is_none_or(|at| NOW.since(at) >= TIMES.lapse));
            }
        }

        #[test]
        fn waiting_ends(subject in subjects()) {
            if let Verdict::Wait(rest) = decide(&subject, &TIMES, NOW) {
                prop_assert!(rest > Duration::ZERO && rest <= TIMES.lapse);
                let later = NOW.plus(TIMES.lapse + TIMES.fold);
                prop_assert_eq!(decide(&subject, &TIMES, later), Verdict::Push(subject.unread_seq.unwrap()));
            }
        }

        #[test]
        fn what_is_read_or_pushed_is_never_waited_for(subject in subjects(), seq in 0..9_i64) {
            let read = Subject { unread_seq: None, ..subject };
            prop_assert_eq!(decide(&read, &TIMES, NOW), Verdict::Not(Reason::Read));
            let pushed = Subject { unread_seq: Some(seq), pushed_seq: seq, ..subject };
            prop_assert!(matches!(decide(&pushed, &TIMES, NOW), Verdict::Not(_)));
        }
    }
}
