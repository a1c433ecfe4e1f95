//! Values that are named as secrets: `password=…`, `"api_key": "…"`, `Authorization: Bearer …`. Their shape does not tell
//! them from words.

use std::borrow::Cow;

/// What the name of a secret has in it.
const NAMES: [&str; 11] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "authorization",
    "credential",
    "cookie",
    "apikey",
    "api_key",
    "api-key",
    "private_key",
];
/// Words that stand before a secret rather than being one.
const SCHEMES: [&str; 3] = ["bearer", "basic", "negotiate"];
const FOLDED: &str = "{text}";

/// The text without the values that are named as secrets.
pub(super) fn without_secrets(text: &str) -> Cow<'_, str> {
    let (mut kept, mut from, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find([':', '=']) {
        let sign = at + found;
        at = sign + 1;
        if !is_secret(name_before(&text[..sign])) {
            continue;
        }
        let (begin, end) = value_after(text, at);
        if begin < end {
            kept.push_str(&text[from..begin]);
            kept.push_str(FOLDED);
            (from, at) = (end, end);
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(&text[from..]);
    Cow::Owned(kept)
}

/// The name that a sign stands behind, without its quotes.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches(['"', '\'', '\\', ' ']);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    text.rfind(|c| !is_part(c)).map_or(text, |at| text[at..].trim_start_matches(|c| !is_part(c)))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|secret| name.contains(secret))
}

/// Where the value behind a sign begins and ends: up to its quote where it has one, else up to the end of the word.
fn value_after(text: &str, at: usize) -> (usize, usize) {
    let rest = text[at..].trim_start_matches([' ', '\t', '\\']);
    let begin = text.len() - rest.len();
    let (begin, end) = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let value = &rest[1..];
            let end = value.find([quote, '\\']).unwrap_or(value.len());
            (begin + 1, begin + 1 + end)
        }
        _ => (begin, begin + word(rest)),
    };
    let is_scheme = SCHEMES.iter().any(|scheme| text[begin..end].eq_ignore_ascii_case(scheme));
    if !is_scheme {
        return (begin, end);
    }
    let behind = text[end..].trim_start_matches(' ');
    (begin, text.len() - behind.len() + word(behind))
}

fn word(text: &str) -> usize {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"',;&{}[]()".contains(c);
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_named_as_a_secret_is_folded_whatever_it_looks_like() {
        for (text, told) in [
            ("msg=login password=hunter2SuperSecret user=jane", "msg=login password={text} user=jane"),
            (r#"{"password":"hunter2 and more","user":"jane"}"#, r#"{"password":"{text}","user":"jane"}"#),
            (r#"{\"api_key\": \"abc\",\"n\":1}"#, r#"{\"api_key\": \"{text}\",\"n\":1}"#),
            ("Authorization: Bearer abc, next", "Authorization: {text}, next"),
            ("db_passwd='x y' ok", "db_passwd='{text}' ok"),
            ("?access_token=abc&page=2", "?access_token={text}&page=2"),
        ] {
            assert_eq!(without_secrets(text), told);
        }
    }

    #[test]
    fn other_values_stay() {
        for text in
            ["status=503 took=12ms", r#"{"path":"/orders","method":"GET"}"#, "tokens were refreshed", "password="]
        {
            assert!(matches!(without_secrets(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_folded_without_a_panic(text in "[\"'=:\\\\ a-z{}password\u{e9}]{0,60}") {
            let _ = without_secrets(&text);
        }
    }
}
