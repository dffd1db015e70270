//! Every language as a person reads it, and what an operator hears of a broken file.

use super::*;

fn excerpt(kind: &str, text: &str) -> Excerpt {
    Excerpt { kind: kind.to_owned(), text: text.to_owned(), file: None }
}

fn digest() -> Digest {
    Digest {
        people: 1,
        name: "Jane".to_owned(),
        product: Some("Camera".to_owned()),
        unread: 5,
        conversations: vec![Shown {
            name: "Jane".to_owned(),
            product: Some("Camera".to_owned()),
            messages: vec![
                excerpt("text", "Is it free on Friday?"),
                Excerpt { file: Some("plan.pdf".to_owned()), ..excerpt("file", "") },
                excerpt("image", "like this"),
            ],
            more: 2,
            link: "https://app.example.test/conversations/7".to_owned(),
        }],
        more_conversations: 0,
        unsubscribe: "https://chat.example.test/unsubscribe/2?exp=1&sig=abc".to_owned(),
    }
}

fn built_in() -> Templates {
    Templates::load(None, "en").expect("the built-in files work")
}

#[test]
fn every_language_reads_as_it_should() {
    let templates = built_in();
    assert_eq!(templates.languages.keys().collect::<Vec<_>>(), ["ar", "de", "en", "fr"]);
    for language in templates.languages.keys() {
        let written = templates.write(language, &digest()).expect("it is written");
        let pages = [false, true].map(|is_done| templates.page(language, is_done).expect("a page"));
        let [question, done] = pages;
        let all = format!(
            "Subject: {}\n\n{}\n=== HTML\n{}\n=== question\n{question}\n=== done\n{done}",
            written.subject, written.text, written.html
        );
        insta::assert_snapshot!(format!("mail_{language}"), all);
    }
}

#[test]
fn numbers_have_their_plurals() {
    let templates = built_in();
    let several = |people: usize, language: &str| {
        let digest = Digest { people, unread: people as u64, product: None, ..digest() };
        let written = templates.write(language, &digest).expect("it is written");
        (written.subject, written.text.lines().next().unwrap_or_default().to_owned())
    };
    for (language, people, subject, intro) in [
        ("en", 1, "Jane wrote to you", "You have an unread message."),
        ("en", 3, "3 people wrote to you", "You have 3 unread messages."),
        ("fr", 1, "Jane vous a écrit", "Vous avez un message non lu."),
        ("fr", 2, "2 personnes vous ont écrit", "Vous avez 2 messages non lus."),
        ("de", 1, "Jane hat Ihnen geschrieben", "Sie haben eine ungelesene Nachricht."),
        ("de", 2, "2 Personen haben Ihnen geschrieben", "Sie haben 2 ungelesene Nachrichten."),
        ("ar", 1, "رسالة من Jane", "لديك رسالة واحدة غير مقروءة."),
        ("ar", 2, "كتب إليك شخصان", "لديك رسالتان غير مقروءتين."),
        ("ar", 5, "كتب إليك 5 أشخاص", "لديك 5 رسائل غير مقروءة."),
        ("ar", 15, "كتب إليك 15 شخصًا", "لديك 15 رسالة غير مقروءة."),
        ("ar", 100, "كتب إليك 100 شخص", "لديك 100 رسالة غير مقروءة."),
        ("ar", 103, "كتب إليك 103 أشخاص", "لديك 103 رسائل غير مقروءة."),
    ] {
        assert_eq!(several(people, language), (subject.to_owned(), intro.to_owned()), "{language} {people}");
    }
}

#[test]
fn a_language_is_the_one_asked_for_or_a_kin_of_it_or_the_default() {
    let templates = Templates::load(None, "fr").expect("the built-in files work");
    for (tag, language) in
        [(Some("ar"), "ar"), (Some("de-at"), "de"), (Some("pt-br"), "fr"), (None, "fr"), (Some(""), "fr")]
    {
        assert_eq!(templates.language(tag), language, "{tag:?}");
    }
}

#[test]
fn a_name_of_the_other_direction_does_not_turn_a_sentence() {
    let templates = built_in();
    for language in ["en", "ar"] {
        let html = templates.write(language, &digest()).expect("it is written").html;
        assert!(html.contains("\u{2068}Jane\u{2069}") && html.contains("\u{2068}Camera\u{2069}"), "{html}");
    }
    let mut without = digest();
    without.conversations[0].product = None;
    let html = templates.write("en", &without).expect("it is written").html;
    assert!(html.contains("\u{2068}Jane\u{2069}</p>"), "{html}");
}

#[test]
fn others_words_never_become_markup() {
    let hostile = "<script>alert(1)</script> \"'>&amp; {{ 7*7 }}";
    let mut digest = digest();
    digest.name = hostile.to_owned();
    digest.product = Some(hostile.to_owned());
    digest.conversations[0].name = hostile.to_owned();
    digest.conversations[0].product = Some(hostile.to_owned());
    digest.conversations[0].messages = vec![
        excerpt("text", hostile),
        Excerpt { file: Some(hostile.to_owned()), ..excerpt("file", hostile) },
    ];
    let templates = built_in();
    for language in templates.languages.keys() {
        let written = templates.write(language, &digest).expect("it is written");
        assert!(!written.html.contains("<script") && !written.html.contains("49"), "{}", written.html);
        assert!(written.html.contains("&lt;script&gt;alert(1)&lt;"), "{}", written.html);
        assert!(written.html.contains("&amp;amp; {{ 7*7 }}"), "{}", written.html);
        assert!(written.text.contains(hostile), "{}", written.text);
    }
}

/// What an operator hears of these files.
fn sentence(files: &[(&str, &str)], language: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    Templates::load(Some(folder.path()), language).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_broken_file_is_one_sentence_that_names_it() {
    let english = include_str!("templates/en.jinja");
    let lacks_open = english.replace("macro open()", "macro opne()");
    let layout = include_str!("templates/email.html");
    let lacks_link = layout.replace("{{ conversation.link }}", "https://app.example.test");
    let lacks_stop = layout.replace("{{ unsubscribe }}", "#");
    let lacks_text = layout.replace("{{ message.text }}", "");
    let lacks_name = layout.replace("conversation.name", "''");
    for (name, text, says) in [
        ("email.html", "{% if %}", "email.html, line 1"),
        ("email.html", "{{ unknown.word }}", "email.html, line 1"),
        ("email.html", &lacks_link, "conversation.link"),
        ("email.html", &lacks_stop, "unsubscribe"),
        ("email.html", &lacks_text, "the messages"),
        ("email.html", &lacks_name, "the name"),
        ("email.txt", "", "email.txt"),
        ("subject.txt", "News", "subject.txt"),
        ("page.html", "<form>", "page.html"),
        ("fr.jinja", "{% macro %}", "fr.jinja, line 1"),
        ("it.jinja", &lacks_open, "it.jinja"),
        ("emial.html", layout, "emial.html"),
        ("e.jinja", english, "e.jinja"),
    ] {
        let heard = sentence(&[(name, text)], "en").expect_err(name);
        assert!(heard.starts_with("EMAIL_TEMPLATES ") && heard.contains(says), "{name}: {heard}");
        assert!(heard.ends_with('.') && !heard.contains('\n'), "{heard}");
    }
    assert!(sentence(&[("README.md", "Ours.")], "en").is_ok());
}

#[test]
fn a_folder_replaces_files_and_adds_languages() {
    let italian = include_str!("templates/en.jinja").replace("Reply in the app", "Rispondi nell’app");
    assert_eq!(sentence(&[("it.jinja", &italian)], "it"), Ok(()));
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("it.jinja"), italian).expect("written");
    fs::write(folder.path().join("subject.txt"), "Rented: {{ name }}").expect("written");
    let templates = Templates::load(Some(folder.path()), "en").expect("they work");
    let written = templates.write(templates.language(Some("it-ch")), &digest()).expect("it is written");
    assert!(written.text.contains("Rispondi nell’app") && written.html.contains("Rispondi nell’app"));
    assert_eq!(written.subject, "Rented: Jane");
}

#[test]
fn a_language_without_a_file_or_a_folder_that_is_not_there_is_refused() {
    let heard = sentence(&[], "it").expect_err("a refusal");
    assert_eq!(heard, "EMAIL_LANGUAGE must be one of ar, de, en, fr, or a file of EMAIL_TEMPLATES.");
    let heard = Templates::load(Some(Path::new("/nowhere")), "en").expect_err("a refusal").to_string();
    assert!(heard.starts_with("EMAIL_TEMPLATES names a folder"), "{heard}");
}
