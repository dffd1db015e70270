//! Reduces HTML elements in a message to their text and leaves everything else as it was typed.
//!
//! The rule is one sentence: *no known tag stays*. A known tag is `<` or `</`, the name of an element
//! of the HTML standard (any case), white space, `/` or `>`, and a `>` somewhere behind. What is
//! between is skipped as the standard's tokenizer would (quoted attribute values may hold a `>`).
//! Of `<script>` and `<style>` the content goes too, to the end of the text if nothing closes them.
//! Beyond the standard, a tag that is never closed goes as well where it has attributes
//! (`<img src=x onerror=…`): pasted into a page, the page's own `>` would close it.
//!
//! Kept as typed are unknown names (`<foo>`, `Vec<String>`, `<jane@example.test>`), comments, doctypes,
//! entities and every `<` that no name follows.
//!
//! Why not an HTML parser: html5ever would decode entities, drop unknown elements and comments, and
//! its output for `a < b` depends on what follows. Here text must survive byte for byte. The tests use
//! html5ever to check the result: its tokenizer finds no known element in it.
//!
//! One pass in place, linear in the input whatever it is. A removal can join what stood around it to a
//! new tag (`<scr<b>ipt>`), so the scanner steps back over the start of a tag before it goes on; that
//! makes the result free of known tags at once, and reducing it again changes nothing.

use memchr::memchr;

/// The elements of the HTML standard, current and obsolete, the roots of SVG and MathML, and `image`,
/// which parsers read as `img`. Sorted, for binary search.
#[rustfmt::skip]
const ELEMENTS: &[&str] = &[
    "a", "abbr", "acronym", "address", "applet", "area", "article", "aside", "audio", "b", "base",
    "basefont", "bdi", "bdo", "bgsound", "big", "blink", "blockquote", "body", "br", "button", "canvas",
    "caption", "center", "cite", "code", "col", "colgroup", "data", "datalist", "dd", "del", "details",
    "dfn", "dialog", "dir", "div", "dl", "dt", "em", "embed", "fieldset", "figcaption", "figure", "font",
    "footer", "form", "frame", "frameset", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header",
    "hgroup", "hr", "html", "i", "iframe", "image", "img", "input", "ins", "isindex", "kbd", "keygen",
    "label", "legend", "li", "link", "listing", "main", "map", "mark", "marquee", "math", "menu",
    "menuitem", "meta", "meter", "multicol", "nav", "nextid", "nobr", "noembed", "noframes", "noscript",
    "object", "ol", "optgroup", "option", "output", "p", "param", "picture", "plaintext", "pre",
    "progress", "q", "rb", "rp", "rt", "rtc", "ruby", "s", "samp", "script", "search", "section",
    "select", "selectedcontent", "slot", "small", "source", "spacer", "span", "strike", "strong",
    "style", "sub", "summary", "sup", "svg", "table", "tbody", "td", "template", "textarea", "tfoot",
    "th", "thead", "time", "title", "tr", "track", "tt", "u", "ul", "var", "video", "wbr", "xmp",
];

/// The longest name in [`ELEMENTS`]; longer ones need no look-up.
const LONGEST_NAME: usize = "selectedcontent".len();

/// Removes every known tag from the text, and the content of scripts and styles.
pub(super) fn reduce(text: String) -> String {
    if !text.contains('<') {
        return text;
    }
    let mut reducer = Reducer::new(text.into_bytes());
    reducer.run();
    String::from_utf8(reducer.bytes).expect("only whole runs that begin and end beside ASCII are removed")
}

struct Reducer {
    /// `..kept` is the result so far, `next..` is still to be read; between them is a gap.
    bytes: Vec<u8>,
    kept: usize,
    next: usize,
    /// Where the last `>` is. A tag that begins behind it is never closed.
    last_close: Option<usize>,
    /// Whether quotes still count. They stop counting once a tag would end at the text's end because
    /// of them though there is a `>`: then the first `>` ends it. Otherwise each of many such tags
    /// would be read to the end, and a filter less careful than a browser would still see a tag.
    quotes: bool,
}

/// A known tag found at the read position.
struct Tag {
    /// The index just behind the name.
    name_end: usize,
    /// The name, if it is a start tag whose content goes with it.
    hides: Option<&'static str>,
}

impl Reducer {
    fn new(bytes: Vec<u8>) -> Self {
        let last_close = memchr::memrchr(b'>', &bytes);
        Self { bytes, kept: 0, next: 0, last_close, quotes: true }
    }

    fn run(&mut self) {
        while let Some(offset) = memchr(b'<', self.rest(self.next)) {
            self.keep(offset);
            match self.tag().and_then(|tag| self.end_of(&tag)) {
                Some(end) => {
                    self.next = end;
                    self.step_back();
                }
                None => self.keep(1),
            }
        }
        self.keep(self.bytes.len() - self.next);
        self.bytes.truncate(self.kept);
    }

    fn rest(&self, from: usize) -> &[u8] {
        self.bytes.get(from..).unwrap_or_default()
    }

    fn at(&self, index: usize) -> Option<u8> {
        self.bytes.get(index).copied()
    }

    /// Moves the next `count` bytes to the result.
    fn keep(&mut self, count: usize) {
        self.bytes.copy_within(self.next..self.next + count, self.kept);
        self.kept += count;
        self.next += count;
    }

    /// Puts an unfinished `<name` at the end of the result back in front of what is to be read, since
    /// what follows it has changed. At most [`LONGEST_NAME`] and two bytes move for each removed tag.
    fn step_back(&mut self) {
        let window = self.kept.saturating_sub(LONGEST_NAME + 2);
        let Some(offset) = memchr::memrchr(b'<', &self.bytes[window..self.kept]) else { return };
        let start = window + offset;
        let name = &self.bytes[start + 1..self.kept];
        if name.strip_prefix(b"/").unwrap_or(name).iter().all(u8::is_ascii_alphanumeric) {
            let length = self.kept - start;
            self.next -= length;
            self.bytes.copy_within(start..self.kept, self.next);
            self.kept = start;
        }
    }

    /// The known tag whose `<` is at the read position, if there is one.
    fn tag(&self) -> Option<Tag> {
        let closing = self.at(self.next + 1) == Some(b'/');
        let name_start = self.next + 1 + usize::from(closing);
        let mut lower = [0_u8; LONGEST_NAME];
        let mut length = 0;
        loop {
            let byte = self.at(name_start + length)?;
            if ends_name(byte) {
                break;
            }
            *lower.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
        let name = std::str::from_utf8(&lower[..length]).ok()?;
        let known = ELEMENTS[ELEMENTS.binary_search(&name).ok()?];
        let hides = (!closing && matches!(known, "script" | "style")).then_some(known);
        Some(Tag { name_end: name_start + length, hides })
    }

    /// Where the text goes on behind the tag; `None` if it is to be kept.
    fn end_of(&mut self, tag: &Tag) -> Option<usize> {
        if !self.closes_behind(tag.name_end) {
            return self.end_of_assignments(tag.name_end);
        }
        let end = if self.quotes { self.end_of_attributes(tag.name_end) } else { None };
        let end = end.or_else(|| {
            self.quotes = false;
            memchr(b'>', self.rest(tag.name_end)).map(|offset| tag.name_end + offset + 1)
        })?;
        Some(tag.hides.map_or(end, |name| self.end_of_hidden(name, end)))
    }

    fn closes_behind(&self, index: usize) -> bool {
        self.last_close.is_some_and(|close| close >= index)
    }

    /// Reads attributes as the tokenizer of the HTML standard does (section 13.2.5.32 and following),
    /// up to and with the `>`; `None` if the text ends first.
    fn end_of_attributes(&self, name_end: usize) -> Option<usize> {
        let mut at = name_end;
        loop {
            while is_space(self.at(at)?) || self.at(at)? == b'/' {
                at += 1;
            }
            if self.at(at)? == b'>' {
                return Some(at + 1);
            }
            // The first character belongs to the attribute's name whatever it is, even `=`.
            at += 1;
            while !ends_name(self.at(at)?) && self.at(at)? != b'=' {
                at += 1;
            }
            let equals = self.skip_spaces(at);
            if self.at(equals)? != b'=' {
                continue;
            }
            at = self.skip_spaces(equals + 1);
            match self.at(at)? {
                quote @ (b'"' | b'\'') => at += memchr(quote, self.rest(at + 1))? + 2,
                _ => {
                    while !is_space(self.at(at)?) && self.at(at)? != b'>' {
                        at += 1;
                    }
                }
            }
        }
    }

    /// Reads the `name=value` pairs directly behind the name of a tag that nothing closes; `None` if
    /// there are none. It ends before white space or at the end, so that removing it joins nothing.
    fn end_of_assignments(&self, name_end: usize) -> Option<usize> {
        let mut end = None;
        let mut at = name_end;
        loop {
            while self.at(at).is_some_and(|byte| is_space(byte) || byte == b'/') {
                at += 1;
            }
            if !self.at(at).is_some_and(|byte| byte.is_ascii_alphabetic()) {
                return end;
            }
            while self
                .at(at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b':' | b'_'))
            {
                at += 1;
            }
            if self.at(at) != Some(b'=') {
                return end;
            }
            at += 1;
            if let Some(quote @ (b'"' | b'\'')) = self.at(at)
                && let Some(length) = memchr(quote, self.rest(at + 1))
            {
                at += length + 2;
            }
            while self.at(at).is_some_and(|byte| !is_space(byte)) {
                at += 1;
            }
            end = Some(at);
        }
    }

    /// Where the end tag of a script or style begins, or the end of the text if none is complete.
    fn end_of_hidden(&self, name: &str, content: usize) -> usize {
        let mut from = content;
        while let Some(offset) = memchr(b'<', self.rest(from)) {
            let start = from + offset;
            let name_start = start + 2;
            let name_end = name_start + name.len();
            let is_end_tag = self.at(start + 1) == Some(b'/')
                && self
                    .bytes
                    .get(name_start..name_end)
                    .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
                && self.at(name_end).is_some_and(ends_name);
            if is_end_tag && self.closes_behind(name_end) {
                return start;
            }
            from = start + 1;
        }
        self.bytes.len()
    }

    fn skip_spaces(&self, from: usize) -> usize {
        let spaces = self.rest(from).iter().take_while(|&&byte| is_space(byte)).count();
        from + spaces
    }
}

/// White space as HTML has it; a no-break space is part of a name.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

/// What ends the name of a tag or of an attribute.
const fn ends_name(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b'/' | b'>')
}

#[cfg(test)]
#[path = "markup_tests.rs"]
mod tests;
