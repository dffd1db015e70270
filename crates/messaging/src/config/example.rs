//! The text of `.env.example`, made from the table; `tests/config.rs` keeps the file equal to it.

use std::fmt::Write;

use super::variables::{VARIABLES, Visibility};

/// Where comments wrap.
const COLUMNS: usize = 92;

/// The whole file: every variable with its meaning, set to its default or commented out.
pub fn example_file() -> String {
    let mut text = String::from(
        "# Every variable that Rented Messaging reads. Copy this file to `.env` and change what you need;\n\
         # the real environment wins over it. What is commented out has no default: its line shows an\n\
         # example. A value with `$`, `#` or blanks goes in single quotes.\n\
         # `rented-messaging check-config` prints what the service makes of it.\n",
    );
    let mut section = None;
    for variable in VARIABLES {
        if section != Some(variable.section) {
            section = Some(variable.section);
            let _ = write!(text, "\n# --- {} ---\n", variable.section.title());
        }
        text.push('\n');
        wrap(&mut text, variable.meaning);
        let _ = match variable.default {
            Some(default) => writeln!(text, "{}={default}", variable.name),
            // An example of a secret would be copied; one that is set but empty is refused.
            None if variable.visibility == Visibility::Secret => writeln!(text, "#{}=", variable.name),
            None => writeln!(text, "#{}={}", variable.name, variable.example),
        };
    }
    text
}

/// The sentences as comment lines.
fn wrap(text: &mut String, meaning: &str) {
    let mut line = String::from("#");
    for word in meaning.split(' ') {
        if line.len() > 1 && line.len() + 1 + word.len() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
