//! The checker: what should have come, what did, and what became of the rest.
//!
//! Knows numbers only: of messages from one sender in one conversation (ours), of places in a conversation
//! (`seq`) and in a user's log (`event_seq`), both the service's. Who feeds it is in `user`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// Numbers that should come one after the other, each once.
#[derive(Debug, Default, Clone)]
pub struct Sequence {
    next: u64,
    missing: BTreeSet<u64>,
}

/// What a number says about its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one expected.
    Next,
    /// Numbers before it have not come yet.
    Early,
    /// It should have come before others that are here already.
    Late,
    /// It was here before.
    Repeated,
}

/// A gap wider than this is not remembered number by number.
const MAX_GAP: u64 = 1 << 20;

impl Sequence {
    /// Takes the next number.
    pub fn accept(&mut self, number: u64) -> Place {
        if number == self.next {
            self.next += 1;
            return Place::Next;
        }
        if number > self.next {
            let from = self.next.max(number.saturating_sub(MAX_GAP));
            self.missing.extend(from..number);
            self.next = number.saturating_add(1);
            return Place::Early;
        }
        if self.missing.remove(&number) { Place::Late } else { Place::Repeated }
    }

    /// Whether a number came.
    pub fn has(&self, number: u64) -> bool {
        number < self.next && !self.missing.contains(&number)
    }
}

/// Numbers of the service that must rise by one; where they begin is not known.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counter(Option<u64>);

impl Counter {
    /// Takes the next number.
    pub fn accept(&mut self, number: u64) -> Place {
        let place = match self.0 {
            None => Place::Next,
            Some(last) if number == last.saturating_add(1) => Place::Next,
            Some(last) if number > last => Place::Early,
            Some(last) if number == last => Place::Repeated,
            Some(_) => Place::Late,
        };
        self.0 = self.0.max(Some(number));
        place
    }

    /// The last number.
    pub fn last(self) -> Option<u64> {
        self.0
    }
}

/// Everything that was wrong, and how much was right.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Faults {
    /// Confirmed messages that a user of the conversation never got.
    pub lost: u64,
    /// Messages that a connection got twice.
    pub repeated: u64,
    /// Messages that came before earlier ones of the same sender.
    pub out_of_order: u64,
    /// Gaps, repeats and steps back of `seq` in a conversation.
    pub seq_broken: u64,
    /// Gaps, repeats and steps back of `event_seq` in a user's log.
    pub event_seq_broken: u64,
    /// Messages that reached somebody outside their conversation.
    pub wrong_recipient: u64,
    /// Confirmations that came twice or not in the order of sending.
    pub confirmed_wrong: u64,
    /// Messages neither confirmed nor refused.
    pub unanswered: u64,
    /// Messages whose words came back changed.
    pub altered: u64,
    /// Connections that ended although nobody asked for it, by reason.
    pub disconnected: BTreeMap<String, u64>,
    /// Refusals by code.
    pub refused: BTreeMap<String, u64>,
    /// REST answers that were not what the contract says, by what was wrong.
    pub bad_answers: BTreeMap<String, u64>,
    /// `sync_required` by reason.
    pub sync_required: BTreeMap<String, u64>,
    /// The first few faults in words.
    pub examples: Vec<String>,
}

const MAX_EXAMPLES: usize = 10;

impl Faults {
    /// Remembers one fault in words, if there is room.
    pub fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(text());
        }
    }

    /// Whether nothing at all was wrong.
    pub fn is_clean(&self) -> bool {
        self.rows().iter().all(|(_, count)| *count == 0)
    }

    /// Names and counts, for people.
    pub fn rows(&self) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> = vec![
            ("lost".into(), self.lost),
            ("repeated".into(), self.repeated),
            ("out of order".into(), self.out_of_order),
            ("seq broken".into(), self.seq_broken),
            ("event_seq broken".into(), self.event_seq_broken),
            ("wrong recipient".into(), self.wrong_recipient),
            ("confirmed twice or out of order".into(), self.confirmed_wrong),
            ("unanswered".into(), self.unanswered),
            ("altered".into(), self.altered),
        ];
        for (name, map) in [
            ("disconnected", &self.disconnected),
            ("refused", &self.refused),
            ("bad answer", &self.bad_answers),
            ("sync_required", &self.sync_required),
        ] {
            rows.extend(map.iter().map(|(reason, count)| (format!("{name}: {reason}"), *count)));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_tells_lost_late_and_repeated_apart() {
        let mut sequence = Sequence::default();
        let places: Vec<_> = [0, 1, 4, 2, 2, 4, 5].map(|number| sequence.accept(number)).into();
        use Place::{Early, Late, Next, Repeated};
        assert_eq!(places, [Next, Next, Early, Late, Repeated, Repeated, Next]);
        let here: Vec<_> = (0..8).filter(|number| sequence.has(*number)).collect();
        assert_eq!(here, [0, 1, 2, 4, 5], "3 is lost, 6 and 7 have not come");
    }

    #[test]
    fn a_counter_begins_anywhere_and_rises_by_one() {
        let mut counter = Counter::default();
        let places: Vec<_> = [7, 8, 8, 10, 9, 11].map(|number| counter.accept(number)).into();
        use Place::{Early, Late, Next, Repeated};
        assert_eq!(places, [Next, Next, Repeated, Early, Late, Next]);
        assert_eq!(counter.last(), Some(11));
    }

    #[test]
    fn any_fault_makes_a_run_unclean() {
        assert!(Faults::default().is_clean());
        assert!(!Faults { lost: 1, ..Faults::default() }.is_clean());
        let mut faults = Faults::default();
        *faults.refused.entry("RATE_LIMITED".into()).or_default() += 1;
        assert!(!faults.is_clean());
    }
}
