//! `traceparent` and `tracestate` (W3C Trace Context): where a trace comes from and goes on to.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What the specification asks to pass on at least.
const MAX_STATE: usize = 512;

/// The place in a trace that work hangs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    /// Whether whoever began the trace keeps it.
    pub(super) is_sampled: bool,
    pub(super) state: Option<Arc<str>>,
}

impl Parent {
    /// What the headers say; anything malformed counts as nothing, as the specification asks.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(&TRACEPARENT).iter();
        let (first, None) = (all.next()?, all.next()) else { return None };
        let mut parent = Self::parse(first.to_str().ok()?)?;
        let state = headers.get(&TRACESTATE).and_then(|state| state.to_str().ok());
        parent.state = state.filter(|state| (1..=MAX_STATE).contains(&state.len())).map(Into::into);
        Some(parent)
    }

    /// `00-{trace}-{span}-{flags}`; of later versions, what they have in common with it.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (part.len() == digits && is_hex).then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let span_id = u64::try_from(span_id).ok()?;
        let is_sound = version != 0xff && trace_id != 0 && span_id != 0;
        if !is_sound || (version == 0 && parts.next().is_some()) {
            return None;
        }
        Some(Self { trace_id, span_id, is_sampled: flags & 1 == 1, state: None })
    }

    /// The trace's id, as it is written everywhere.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Writes the headers that make the receiver a part of this trace.
    pub fn put(&self, headers: &mut HeaderMap) {
        let flags = u8::from(self.is_sampled);
        let text = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
        if let Some(Ok(state)) = self.state.as_deref().map(HeaderValue::from_str) {
            headers.insert(TRACESTATE, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written_back() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=value"));
        let parent = Parent::of(&headers).expect("a parent");
        assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(parent.is_sampled);
        let mut written = HeaderMap::new();
        parent.put(&mut written);
        assert_eq!(written, headers);
    }

    #[test]
    fn what_is_malformed_counts_as_nothing() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
        assert!(Parent::parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some());
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&twice), None);
    }
}
