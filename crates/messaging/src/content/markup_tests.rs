//! Tables and properties of the markup rule; html5ever's tokenizer is the independent judge.

use std::{cell::RefCell, time::Instant};

use html5ever::tokenizer::{
    BufferQueue, TagToken, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use proptest::prelude::*;

use super::*;

fn reduced(text: &str) -> String {
    reduce(text.to_owned())
}

/// The names of all tags that a browser's tokenizer sees in the text.
fn tags_seen_by_a_browser(text: &str) -> Vec<String> {
    struct Names(RefCell<Vec<String>>);
    impl TokenSink for Names {
        type Handle = ();
        fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
            if let TagToken(tag) = token {
                self.0.borrow_mut().push(tag.name.to_string());
            }
            TokenSinkResult::Continue
        }
    }
    let tokenizer = Tokenizer::new(Names(RefCell::default()), TokenizerOpts::default());
    let input = BufferQueue::default();
    input.push_back(text.into());
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    tokenizer.sink.0.take()
}

fn is_known(name: &str) -> bool {
    ELEMENTS.contains(&name)
}

/// Whether a filter that knows nothing of quotes, comments or context would still see a known tag.
fn has_known_tag_anywhere(text: &str) -> bool {
    text.match_indices('<').any(|(start, _)| {
        let rest = &text[start + 1..];
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let Some(end) = rest.find(|c: char| c.is_ascii() && ends_name(c as u8)) else { return false };
        is_known(&rest[..end].to_ascii_lowercase()) && rest[end..].contains('>')
    })
}

#[test]
fn the_table_is_sorted_lower_case_and_within_the_longest_name() {
    assert!(ELEMENTS.is_sorted());
    assert!(ELEMENTS.iter().all(|name| name.len() <= LONGEST_NAME));
    assert!(ELEMENTS.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
}

#[test]
fn everything_but_known_elements_comes_back_as_typed() {
    for text in [
        "a < b && c > d",
        "a<b && c",
        "I <3 it",
        "I </3 it",
        "x<y",
        "x<y>z",
        "1<2>1",
        "<foo>",
        "<foo bar=\"baz\">text</foo>",
        "Jane <jane@example.test>",
        "<a@example.test>",
        "<https://example.test/?a=b>",
        "Vec<String>",
        "HashMap<u64, Vec<u8>>",
        "<my-element>",
        "<b-c>",
        "<bb>",
        "<h7>",
        "< b>",
        "<\u{a0}b>",
        "<b\u{a0}>",
        "<ｂ>",
        "<ſcript>",
        "<>",
        "</>",
        "<",
        "<<<>>>",
        "->  <-  <->  <=>  <!=>",
        "<!-- a note -->",
        "<!DOCTYPE html>",
        "<?php echo 1 ?>",
        "&lt;b&gt;",
        "if x <a and nothing closes it",
        "ends in <b",
        "ends in </script",
        "<selectedcontents>",
    ] {
        assert_eq!(reduced(text), text);
    }
}

#[test]
fn known_elements_are_reduced_to_their_text() {
    for (text, expected) in [
        ("<b>bold</b>", "bold"),
        ("a<b>c", "ac"),
        ("<B>bold</b >", "bold"),
        ("<p>one</p><p>two</p>", "onetwo"),
        ("line<br>break<br/>twice<br />", "linebreaktwice"),
        ("<a href=\"https://example.test/\">link</a>", "link"),
        ("<a title='a > b'>c</a>", "c"),
        ("<a title = \"a > b\" >c</a>", "c"),
        ("<a title=a>b>c</a>", "b>c"),
        ("<img src=x onerror=alert(1)>", ""),
        ("<img/src=x/onerror=alert(1)>", ""),
        ("<IMG\nSRC=x\tonerror=alert(1)\n>", ""),
        ("<svg onload=alert(1)><circle/></svg>", "<circle/>"),
        ("<math><mi>x</mi></math>", "<mi>x</mi>"),
        ("<marquee>wow</marquee><font color=red>red</font><center>mid</center>", "wowredmid"),
        ("<foo><b>x</b></foo>", "<foo>x</foo>"),
        ("<foo title=\"<b>\">", "<foo title=\"\">"),
        ("<!--<b>x</b>-->", "<!--x-->"),
        ("<iframe src=javascript:alert(1)></iframe>x", "x"),
        ("<textarea><script>alert(1)</script></textarea>", ""),
        ("<plaintext>x", "x"),
        ("5 <b>< 6</b>", "5 < 6"),
        ("<b =>x", "x"),
        ("<b = >x", "x"),
        ("<b \"'>x", "x"),
        ("<b x=>y", "y"),
    ] {
        assert_eq!(reduced(text), expected, "{text}");
    }
}

#[test]
fn of_scripts_and_styles_nothing_stays() {
    for (text, expected) in [
        ("a<script>alert('<b>')</script>b", "ab"),
        ("a<SCRIPT type=x>1 < 2 </ script> </scripts> </sCrIpT\n x>b", "ab"),
        ("a<style>p > b { color: red }</style>b", "ab"),
        ("a<script>never closed", "a"),
        ("a<script>x</script", "a"),
        ("a<script/>x", "a"),
        ("a</script>b", "ab"),
        ("<script>1</style>2</script>3", "3"),
        ("<style><script>1</style>2</script>3", "23"),
    ] {
        assert_eq!(reduced(text), expected, "{text}");
    }
}

#[test]
fn what_a_removal_joins_is_looked_at_again() {
    for (text, expected) in [
        ("<scr<script>ipt>alert(1)</script>", "<scr"),
        ("<scr<script></script>ipt>alert(1)</script>x", "x"),
        ("<scr<b>ipt>alert(1)</scr</b>ipt>x", ""),
        ("<<b>b>x", "x"),
        ("<<b>/b>x", "x"),
        ("<<<<b>b>b>b>x", "x"),
        ("<i<i<i<i>mg src=x>mg>mg>", ""),
        ("<b<b>>", ""),
        ("<b<b> title=\"x\">y", "y"),
        ("</scr<b>ipt>", ""),
        ("x<<i>3", "x<3"),
    ] {
        let once = reduced(text);
        assert_eq!(reduced(&once), once, "{text}");
        assert!(!has_known_tag_anywhere(&once), "{text} became {once}");
        assert_eq!(once, expected, "{text}");
    }
}

#[test]
fn a_tag_that_nothing_closes_goes_where_it_has_attributes() {
    for (text, expected) in [
        ("a<img src=x onerror=alert(1)", "a"),
        ("a<img src=x onerror=alert(1) and then text", "a and then text"),
        ("a<img/src=\"x y\"/onerror='alert(1)' text", "a text"),
        ("a<img src=\"x y", "a y"),
        ("a <b and c=d", "a <b and c=d"),
        ("a <b c =d", "a <b c =d"),
        ("see <a bit more https://example.test/?id=5", "see <a bit more https://example.test/?id=5"),
        ("<a hr<b x=\"y\"=z", "<a hr"),
        ("<a <img src=x <svg onload=y z=1", "<a  "),
    ] {
        let once = reduced(text);
        assert_eq!(once, expected, "{text}");
        assert_eq!(reduced(&once), once, "{text}");
    }
}

#[test]
fn a_quote_that_hides_the_end_of_the_text_hides_no_tag() {
    let once = reduced("<a title=\"x>click</a> said she");
    assert_eq!(once, "click said she");
    assert!(!has_known_tag_anywhere(&reduced("<a x y=\">\" <a x y=\">\" <a x y=\">\"")));
}

#[test]
fn hostile_input_takes_linear_time() {
    let patterns = [
        "<",
        "<a ",
        "<a x",
        "</",
        "<b",
        "<b>",
        "<<b>",
        "<a x=\"",
        "<a x='\">",
        "<a x y=\">\" ",
        "<script>",
        "<script",
        "</script",
        "<style><",
        "<a b=c ",
        "<a b=\"c",
        "<scr<b>",
        "<a <b",
        "<foo <b",
        "<a/",
        "<a =",
        "<sc<sc<b>ript>ript>",
        "<!--",
        "\"",
        "<a x=\"<a x='",
        "<a x ",
        "<a \"> '> ",
    ];
    for pattern in patterns {
        for suffix in ["", ">", "\">", "</script>"] {
            let text = pattern.repeat(100_000 / pattern.len()) + suffix;
            let start = Instant::now();
            let once = reduced(&text);
            // A quadratic scan would take minutes in this build; a linear one takes milliseconds.
            assert!(start.elapsed().as_secs() < 5, "{pattern}");
            assert!(!has_known_tag_anywhere_fast(&once), "{pattern}");
        }
    }
}

/// The same question as [`has_known_tag_anywhere`], cheap enough for the hostile inputs above.
fn has_known_tag_anywhere_fast(text: &str) -> bool {
    text.rfind('>').is_some_and(|close| {
        let head = &text[..=close];
        head.match_indices('<').any(|(start, _)| {
            let rest = &head[start + 1..];
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            let end = rest.bytes().take(LONGEST_NAME + 1).position(ends_name);
            end.is_some_and(|end| is_known(&rest[..end].to_ascii_lowercase()))
        })
    })
}

#[test]
fn nested_input_is_reduced_in_full_whatever_its_depth() {
    let text = "<b".repeat(20_000) + &">".repeat(20_000);
    assert_eq!(reduced(&text), "");
}

/// Text dense in what matters to the scanner.
fn markup_soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<".to_owned()),
        Just(">".to_owned()),
        Just("/".to_owned()),
        Just("=".to_owned()),
        Just(" ".to_owned()),
        Just("\n".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("!--".to_owned()),
        Just("-->".to_owned()),
        Just("<scr".to_owned()),
        Just("ipt>".to_owned()),
        Just("</scr".to_owned()),
        Just("<script>".to_owned()),
        Just("</script>".to_owned()),
        Just("</STYLE >".to_owned()),
        Just("<style".to_owned()),
        Just("b".to_owned()),
        Just("<b".to_owned()),
        Just("<i>".to_owned()),
        Just("<im".to_owned()),
        Just("g src=x".to_owned()),
        Just(" a=b".to_owned()),
        Just(" a=\"".to_owned()),
        Just("<foo>".to_owned()),
        Just("é".to_owned()),
        "\\PC{0,3}",
        proptest::sample::select(ELEMENTS).prop_map(|name| format!("<{name}>")),
        proptest::sample::select(ELEMENTS).prop_map(|name| format!("</{} x>", name.to_uppercase())),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_known_element_survives(text in markup_soup()) {
        let once = reduced(&text);
        prop_assert!(!has_known_tag_anywhere(&once), "{once}");
        let seen = tags_seen_by_a_browser(&once);
        prop_assert!(!seen.iter().any(|name| is_known(name)), "{seen:?} in {once}");
    }

    #[test]
    fn reducing_twice_changes_nothing_and_nothing_grows(text in markup_soup()) {
        let once = reduced(&text);
        prop_assert!(once.len() <= text.len());
        prop_assert_eq!(reduced(&once), once);
    }

    #[test]
    fn what_is_left_was_there_in_this_order(text in markup_soup()) {
        let once = reduced(&text);
        let mut source = text.chars();
        prop_assert!(once.chars().all(|wanted| source.any(|found| found == wanted)));
    }

    #[test]
    fn text_without_known_tags_comes_back_as_typed(
        text in "([<>/=\"'! a-z0-9é\\n]|<[0-9 =!]|<[a-z]{1,4}@[a-z]+>|<x[a-z]{1,6}>|[A-Z][a-z]+<[A-Z][a-z]+X>){0,30}"
    ) {
        let has_known_name = text.match_indices('<').any(|(start, _)| {
            let rest = &text[start + 1..];
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            let end = rest.find(|c: char| c.is_ascii() && ends_name(c as u8));
            end.is_some_and(|end| is_known(&rest[..end].to_ascii_lowercase()))
        });
        // Not `prop_assume`: it gives up after a number of rejections that grows with the cases.
        if !has_known_name {
            prop_assert_eq!(reduced(&text), text);
        }
    }

    #[test]
    fn the_text_between_tags_stays(words in proptest::collection::vec("[a-z ]{1,8}", 1..8), name in proptest::sample::select(ELEMENTS)) {
        let name = if matches!(name, "script" | "style") { "b" } else { name };
        let text: String = words.iter().map(|word| format!("<{name} class=\"x\">{word}</{name}>")).collect();
        prop_assert_eq!(reduced(&text), words.concat());
    }
}
