//! The page at `/docs`: its files, embedded in the binary. It reads the two documents and shows them.

/// What `/docs/{file}` has.
pub(super) const FILES: [&str; 2] = ["style.css", "page.js"];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type and text of each.
pub(super) fn files() -> [(&'static str, &'static str, String); 3] {
    [
        ("docs", HTML, include_str!("page/index.html").to_owned()),
        ("docs/style.css", CSS, include_str!("page/style.css").to_owned()),
        ("docs/page.js", SCRIPT, include_str!("page/page.js").to_owned()),
    ]
}
