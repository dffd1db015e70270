//! The texts of a mail: what is shown of unread messages, made of template files.
//!
//! The layout (`subject.txt`, `email.txt`, `email.html`, `page.html`) is one for all languages; a language is
//! one file of words. They are part of the binary; an operator's folder replaces and adds files. All of
//! them are tried out at the start, so a broken one never meets a person. Who gets what is not decided here.

use std::{collections::BTreeMap, fs, path::Path};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

use super::text::line;
use crate::config::ConfigError;

/// Larger than any sensible template.
const MAX_BYTES: u64 = 256 * 1024;
/// Characters of a subject; more is cut.
const SUBJECT_CHARS: usize = 180;

const LAYOUT: [(&str, &str); 4] = [
    ("subject.txt", include_str!("templates/subject.txt")),
    ("email.txt", include_str!("templates/email.txt")),
    ("email.html", include_str!("templates/email.html")),
    ("page.html", include_str!("templates/page.html")),
];
const LANGUAGES: [(&str, &str); 4] = [
    ("ar.jinja", include_str!("templates/ar.jinja")),
    ("de.jinja", include_str!("templates/de.jinja")),
    ("en.jinja", include_str!("templates/en.jinja")),
    ("fr.jinja", include_str!("templates/fr.jinja")),
];

/// What a mail tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Digest {
    /// People who wrote.
    pub(super) people: usize,
    /// The name of the one who wrote, of the newest conversation where there are several.
    pub(super) name: String,
    /// What that conversation is about, where it is the only one.
    pub(super) product: Option<String>,
    /// Unread messages of all the conversations.
    pub(super) unread: u64,
    /// The conversations that are shown, the newest first.
    pub(super) conversations: Vec<Shown>,
    /// How many more there are.
    pub(super) more_conversations: usize,
    /// Where these mails are switched off.
    pub(super) unsubscribe: String,
}

/// A conversation in a mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) product: Option<String>,
    /// The newest messages, oldest first.
    pub(super) messages: Vec<Excerpt>,
    /// Unread messages before those.
    pub(super) more: u64,
    /// Where the app shows it.
    pub(super) link: String,
}

/// A message in a mail, on one line and shortened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Excerpt {
    /// `text`, `image`, `file`, `system` or `offer`.
    pub(super) kind: String,
    pub(super) text: String,
    /// The name of the file.
    pub(super) file: Option<String>,
}

/// A mail, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

/// All templates, compiled and tried out.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    /// The languages, by their tags in lower case.
    languages: BTreeMap<String, String>,
    default_language: String,
}

#[derive(Serialize)]
struct Scope<'a, T> {
    words: &'a str,
    language: &'a str,
    subject: &'a str,
    #[serde(flatten)]
    rest: &'a T,
}

#[derive(Serialize)]
struct Page {
    is_done: bool,
}

impl Templates {
    /// The built-in files, and over them those of `folder` (`EMAIL_TEMPLATES`); `default_language`
    /// (`EMAIL_LANGUAGE`) is for whose own there is none.
    pub fn load(folder: Option<&Path>, default_language: &str) -> Result<Self, ConfigError> {
        let mut files: BTreeMap<String, String> = LAYOUT
            .iter()
            .chain(&LANGUAGES)
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        if let Some(folder) = folder {
            files.extend(read(folder).map_err(|rule| ConfigError::new("EMAIL_TEMPLATES", rule))?);
        }
        let languages: BTreeMap<String, String> = files
            .keys()
            .filter_map(|name| Some((name.strip_suffix(".jinja")?.to_ascii_lowercase(), name.clone())))
            .collect();
        if !languages.contains_key(default_language) {
            let known: Vec<&str> = languages.keys().map(String::as_str).collect();
            let rule = format!("must be one of {}, or a file of EMAIL_TEMPLATES.", known.join(", "));
            return Err(ConfigError::new("EMAIL_LANGUAGE", rule));
        }
        let templates =
            Self { environment: compile(files)?, languages, default_language: default_language.to_owned() };
        templates.try_out().map_err(|rule| ConfigError::new("EMAIL_TEMPLATES", rule))?;
        Ok(templates)
    }

    /// The language to write in: this one, or the one that it is a variety of, or the default.
    pub(super) fn language(&self, tag: Option<&str>) -> &str {
        let tag = tag.unwrap_or_default();
        let plain = tag.split('-').next().unwrap_or_default();
        let known = self.languages.get_key_value(tag).or_else(|| self.languages.get_key_value(plain));
        known.map_or(&self.default_language, |(language, _)| language)
    }

    /// Writes a mail.
    pub(super) fn write(&self, language: &str, digest: &Digest) -> Result<Written, minijinja::Error> {
        let subject = line(&self.render("subject.txt", language, "", digest)?, SUBJECT_CHARS);
        Ok(Written {
            text: self.render("email.txt", language, &subject, digest)?,
            html: self.render("email.html", language, &subject, digest)?,
            subject,
        })
    }

    /// The page on which mails are switched off: it asks, or says that it is done.
    pub(super) fn page(&self, language: &str, is_done: bool) -> Result<String, minijinja::Error> {
        self.render("page.html", language, "", &Page { is_done })
    }

    fn render<T: Serialize>(
        &self,
        name: &str,
        language: &str,
        subject: &str,
        rest: &T,
    ) -> Result<String, minijinja::Error> {
        let words = self.languages.get(language).map_or("", String::as_str);
        let template = self.environment.get_template(name)?;
        template.render(Serde(Scope { words, language, subject, rest }))
    }

    /// Writes in every language what may come: each plural form, with and without a product.
    fn try_out(&self) -> Result<(), String> {
        for (language, file) in &self.languages {
            for sample in samples() {
                let broken = |error: minijinja::Error| sentence(file, &error);
                let written = self.write(language, &sample).map_err(broken)?;
                let is_alone = sample.people == 1;
                let shown = [
                    ("subject.txt", &written.subject, "the name of who wrote", "SAMPLENAME", is_alone),
                    ("email.txt", &written.text, "the name of who wrote", "SAMPLENAME", true),
                    ("email.html", &written.html, "the name of who wrote", "SAMPLENAME", true),
                    ("email.txt", &written.text, "the messages", "SAMPLETEXT", true),
                    ("email.html", &written.html, "the messages", "SAMPLETEXT", true),
                    ("email.txt", &written.text, "conversation.link", "SAMPLELINK", true),
                    ("email.html", &written.html, "conversation.link", "SAMPLELINK", true),
                    ("email.txt", &written.text, "unsubscribe", "SAMPLESTOP", true),
                    ("email.html", &written.html, "unsubscribe", "SAMPLESTOP", true),
                ];
                for (layout, text, what, sample, is_needed) in shown {
                    if is_needed && !text.contains(sample) {
                        return Err(format!("makes a mail that lacks {what}: see {layout} and {file}."));
                    }
                }
                if written.subject.is_empty() {
                    return Err(format!("makes an empty subject: see subject.txt and {file}."));
                }
            }
            let question = self.page(language, false).map_err(|error| sentence(file, &error))?;
            if !question.to_ascii_lowercase().contains("method=\"post\"") {
                return Err("has a page.html without a form of method=\"post\".".to_owned());
            }
            self.page(language, true).map_err(|error| sentence(file, &error))?;
        }
        Ok(())
    }
}

fn compile(files: BTreeMap<String, String>) -> Result<Environment<'static>, ConfigError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| {
        // Words are escaped where they are put into a page, as everything is.
        if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
    });
    environment.add_filter("isolate", isolate);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| ConfigError::new("EMAIL_TEMPLATES", error))?);
    for (name, text) in files {
        let added = environment.add_template_owned(name.clone(), text);
        added.map_err(|error| ConfigError::new("EMAIL_TEMPLATES", sentence(&name, &error)))?;
    }
    Ok(environment)
}

/// A name of either direction within a sentence of the other: between the marks that keep it together
/// (U+2068, U+2069), which need no markup and so pass through the sentences of a language.
fn isolate(value: Value) -> Value {
    match value.as_str() {
        Some(text) => Value::from(format!("\u{2068}{text}\u{2069}")),
        None => value,
    }
}

/// "has a broken email.html, line 3: …", on one line.
fn sentence(file: &str, error: &minijinja::Error) -> String {
    let place = error.name().unwrap_or(file);
    let at = error.line().map_or_else(String::new, |number| format!(", line {number}"));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {}", line(detail, 200)));
    let language = if place == file { String::new() } else { format!(" (with {file})") };
    format!("has a broken {place}{at}{language}: {}{detail}.", error.kind())
}

/// The templates of an operator's folder.
fn read(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let unreadable = |error: std::io::Error| format!("names a folder that cannot be read: {}.", error.kind());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_layout = LAYOUT.iter().any(|(known, _)| *known == name);
        let language = name.strip_suffix(".jinja").filter(|tag| is_language(tag));
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
        if !is_layout && language.is_none() {
            if matches!(extension, Some("html" | "txt" | "jinja")) {
                return Err(format!("has {name}, which is neither a part of a mail nor a language."));
            }
            continue;
        }
        let broken = |error: std::io::Error| format!("has {name}, which cannot be read: {}.", error.kind());
        if fs::metadata(entry.path()).map_err(broken)?.len() > MAX_BYTES {
            return Err(format!("has {name}, which is larger than 256 KiB."));
        }
        let text = fs::read_to_string(entry.path()).map_err(broken)?;
        files.push((name, text));
    }
    Ok(files)
}

fn is_language(tag: &str) -> bool {
    (2..=35).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn samples() -> Vec<Digest> {
    let kinds = ["text", "image", "file", "system", "offer"];
    let shown = |product: Option<&str>, more| Shown {
        name: "SAMPLENAME".to_owned(),
        product: product.map(ToOwned::to_owned),
        messages: kinds
            .iter()
            .flat_map(|kind| {
                [None, Some("plan.pdf".to_owned())].map(|file| Excerpt {
                    kind: (*kind).to_owned(),
                    text: "SAMPLETEXT".to_owned(),
                    file,
                })
            })
            .collect(),
        more,
        link: "SAMPLELINK".to_owned(),
    };
    let alone = |product: Option<&str>| Digest {
        people: 1,
        name: "SAMPLENAME".to_owned(),
        product: product.map(ToOwned::to_owned),
        unread: 1,
        conversations: vec![shown(product, 0)],
        more_conversations: 0,
        unsubscribe: "SAMPLESTOP".to_owned(),
    };
    let several = |number: usize| Digest {
        people: number,
        unread: number as u64,
        conversations: vec![shown(None, number as u64), shown(Some("Camera"), 0)],
        more_conversations: number,
        ..alone(None)
    };
    let mut samples = vec![alone(None), alone(Some("Camera"))];
    samples.extend([1, 2, 3, 11, 100, 101].map(several));
    samples
}

#[cfg(test)]
#[path = "templates_tests.rs"]
mod tests;
