//! A mail as the mail system gets it: headers, the two forms of the text, and the envelope.
//!
//! Names and titles are others' words: here they only ever are values, on one line, encoded by lettre.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    error::Error as ComposeError,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};

use super::templates::Written;
use crate::clock::Timestamp;

/// What a mail is made of.
pub(super) struct Parts<'a> {
    pub(super) from: &'a Mailbox,
    pub(super) to: &'a Address,
    /// The claim's random name: the same claim, sent again, is recognised by its Message-ID.
    pub(super) claim: &'a str,
    pub(super) written: &'a Written,
    /// Where these mails are switched off: ASCII without blanks.
    pub(super) unsubscribe: &'a str,
    pub(super) now: Timestamp,
}

/// The mail in the format of RFC 5322, in ASCII.
pub(super) fn compose(parts: &Parts<'_>) -> Result<Vec<u8>, ComposeError> {
    let Parts { from, to, claim, written, unsubscribe, now } = parts;
    let since_epoch = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
    let plain = |name, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
    let link = format!("<{unsubscribe}>");
    // As it is: an address must not be folded or encoded in the middle.
    let list_unsubscribe = HeaderValue::dangerous_new_pre_encoded(
        HeaderName::new_from_ascii_str("List-Unsubscribe"),
        link.clone(),
        link,
    );
    let message = Message::builder()
        .date(SystemTime::UNIX_EPOCH + since_epoch)
        .message_id(Some(format!("<{claim}@{}>", from.email.domain())))
        .from((*from).clone())
        .to(Mailbox::new(None, (*to).clone()))
        // Typed as an encoded word, it would be decoded into something that nobody checked.
        .subject(written.subject.replace("=?", "= ?"))
        .raw_header(list_unsubscribe)
        .raw_header(plain("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
        .raw_header(plain("Auto-Submitted", "auto-generated"))
        .raw_header(plain("Precedence", "bulk"))
        .multipart(MultiPart::alternative_plain_html(written.text.clone(), written.html.clone()))?;
    Ok(message.formatted())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(subject: &str, text: &str) -> String {
        let written = Written { subject: subject.into(), text: text.into(), html: format!("<p>{text}</p>") };
        let mail = compose(&Parts {
            from: &"Rented <no-reply@example.test>".parse().unwrap(),
            to: &"anna@example.test".parse().unwrap(),
            claim: "0123456789abcdef",
            written: &written,
            unsubscribe: "https://chat.example.test/unsubscribe/7?exp=1&sig=abc",
            now: Timestamp::from_millis(1_764_930_600_000),
        });
        String::from_utf8(mail.unwrap()).unwrap()
    }

    /// The headers, unfolded.
    fn headers(mail: &str) -> Vec<(String, String)> {
        let head = mail.split_once("\r\n\r\n").unwrap().0.replace("\r\n ", " ").replace("\r\n\t", " ");
        head.split("\r\n")
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn it_says_when_from_whom_and_how_to_stop_it() {
        let mail = composed("Jane about Camera", "Hello");
        let headers = headers(&mail);
        for (name, value) in [
            ("Date", "Fri, 05 Dec 2025 10:30:00 +0000"),
            ("Message-ID", "<0123456789abcdef@example.test>"),
            ("From", "Rented <no-reply@example.test>"),
            ("To", "anna@example.test"),
            ("Subject", "Jane about Camera"),
            ("List-Unsubscribe", "<https://chat.example.test/unsubscribe/7?exp=1&sig=abc>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
            ("Auto-Submitted", "auto-generated"),
            ("Precedence", "bulk"),
        ] {
            let found: Vec<_> = headers.iter().filter(|(known, _)| known == name).collect();
            assert_eq!(found.len(), 1, "{name} in {headers:?}");
            assert_eq!(found[0].1, value);
        }
    }

    #[test]
    fn what_looks_encoded_is_not_decoded() {
        let mail = composed("=?utf-8?q?Jane=0D=0ABcc:_eve@example.test?=", "Hello");
        assert!(!headers(&mail).iter().any(|(_, value)| value.contains("=?utf-8?q?")), "{mail}");
    }

    #[test]
    fn a_subject_of_others_words_stays_a_subject() {
        for subject in [
            "Jane\r\nBcc: eve@example.test",
            "Jane\nX-Other: 1\n\nBody",
            "ليلى بشأن كاميرا",
            &"👩‍🔧 ".repeat(60),
            &"a".repeat(2000),
        ] {
            let mail = composed(subject, "Hello\r\n.\r\nMAIL FROM:<eve@example.test>");
            let headers = headers(&mail);
            let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
            assert!(!names.contains(&"Bcc") && !names.contains(&"X-Other"), "{names:?}");
            assert_eq!(names.iter().filter(|name| **name == "Subject").count(), 1);
            assert!(mail.is_ascii(), "{mail}");
        }
    }
}
