//! What our messages say: which run, conversation and number they are of, and when they were due.
//!
//! A message carries all that its receiver needs to check and time it, so that the two ends share nothing.

use std::fmt::Write as _;

/// Read from, or written into, a message's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Tells runs apart.
    pub run: u32,
    /// Which of the run's conversations.
    pub thread: u32,
    /// Which of the sender's messages there.
    pub number: u64,
    /// When it was due, in nanoseconds since the run began.
    pub scheduled_ns: u64,
}

/// Words that real messages could have; every length of it is as good as any other.
const FILLER: &str = include_str!("filler.txt");

impl Marker {
    /// Writes words of about this many bytes.
    pub fn write(&self, out: &mut String, size: usize) {
        let start = out.len();
        let Self { run, thread, number, scheduled_ns } = self;
        write!(out, "{run:08x} {thread} {number} {scheduled_ns} ")
            .expect("writing into a String cannot fail");
        let length = out.len() - start;
        out.push_str(filler(size, length));
    }

    /// Reads them; None if they are not ours. The flag says whether they are unchanged.
    pub fn read(content: &str, size: usize) -> Option<(Self, bool)> {
        let mut parts = content.splitn(5, ' ');
        let mut next = || parts.next();
        let run = next().filter(|run| run.len() == 8).and_then(|run| u32::from_str_radix(run, 16).ok())?;
        let thread = next()?.parse().ok()?;
        let number = next()?.parse().ok()?;
        let scheduled_ns = next()?.parse().ok()?;
        let rest = next()?;
        let is_same = rest == filler(size, content.len() - rest.len());
        Some((Self { run, thread, number, scheduled_ns }, is_same))
    }

    /// The id that makes sending it twice harmless.
    pub fn write_client_id(&self, out: &mut String) {
        let Self { run, thread, number, .. } = self;
        write!(out, "{run:08x}-{thread}-{number}").expect("writing into a String cannot fail");
    }

    /// The conversation and number of such an id.
    pub fn read_client_id(id: &str, of_run: u32) -> Option<(u32, u64)> {
        let mut parts = id.splitn(3, '-');
        let run = u32::from_str_radix(parts.next()?, 16).ok()?;
        let thread = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        (run == of_run).then_some((thread, number))
    }
}

/// Words are trimmed by the service: at least one letter follows the marker, and a letter is the last.
fn filler(size: usize, before: usize) -> &'static str {
    let mut end = size.saturating_sub(before).clamp(1, FILLER.trim_end().len());
    while FILLER.as_bytes()[end - 1].is_ascii_whitespace() {
        end -= 1;
    }
    &FILLER[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker { run: 0x7f, thread: 3, number: 12, scheduled_ns: 4_500_000 };

    #[test]
    fn words_of_any_length_are_read_back_and_survive_trimming() {
        for size in 0..400 {
            let mut content = String::new();
            MARKER.write(&mut content, size);
            assert_eq!(content.trim(), content);
            assert!(content.len() <= size.max(30), "{size}");
            assert_eq!(Marker::read(&content, size), Some((MARKER, true)));
        }
    }

    #[test]
    fn changed_words_are_noticed_and_foreign_ones_are_not_ours() {
        let mut content = String::new();
        MARKER.write(&mut content, 80);
        assert_eq!(Marker::read(&content[..79], 80), Some((MARKER, false)));
        assert_eq!(Marker::read("Is the camera free on Friday?", 80), None);
        assert_eq!(Marker::read("", 80), None);
    }

    #[test]
    fn client_ids_name_the_message() {
        let mut id = String::new();
        MARKER.write_client_id(&mut id);
        assert_eq!(Marker::read_client_id(&id, 0x7f), Some((3, 12)));
        assert_eq!(Marker::read_client_id(&id, 0x80), None);
        assert_eq!(Marker::read_client_id("3f2c", 0x7f), None);
    }
}
