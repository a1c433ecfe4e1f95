//! Syslog: RFC 5424, RFC 3164, and what rsyslog forwards, with an RFC 3339 time in the latter's place.

use qualm_model::time::Timestamp;

use crate::parse::{Origin, time::rfc3339};

/// A message behind its header.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// What follows the tag, or else the host.
    pub(super) content: &'a str,
    time: Option<Timestamp>,
    host: &'a str,
}

impl<'a> Message<'a> {
    /// The origin, with what is known of it already.
    pub(super) fn origin(&self, known: &Origin<'a>) -> Origin<'a> {
        let node = if known.node.is_empty() { self.host } else { known.node };
        Origin { node, time: self.time.or(known.time), ..*known }
    }
}

/// A text with such a header.
pub(super) fn message(text: &str) -> Option<Message<'_>> {
    let text = text.trim_ascii_end();
    let Some(rest) = text.strip_prefix('<') else { return bsd(text, false) };
    let (priority, rest) = rest.split_once('>')?;
    if !(1..=3).contains(&priority.len()) || !priority.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    match rest.strip_prefix("1 ") {
        Some(rest) => ietf(rest),
        None => bsd(rest, true),
    }
}

/// RFC 5424, from the time on.
fn ietf(rest: &str) -> Option<Message<'_>> {
    let mut parts = rest.splitn(6, ' ');
    let (time, host) = (parts.next()?, parts.next()?);
    let (_app, _process, _id, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let time = if time == "-" { None } else { Some(rfc3339(time).ok()?) };
    let content = match rest.strip_prefix('-') {
        Some(content) => content,
        None => after_structured_data(rest)?,
    };
    let content = content.strip_prefix(' ').unwrap_or(content);
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    let host = if host == "-" { "" } else { host };
    Some(Message { content, time, host })
}

/// Steps over `[id name="value" …]…`; `"`, `\` and `]` are escaped in values.
fn after_structured_data(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = element.bytes().position(|byte| {
            let ends = byte == b']' && !is_quoted;
            is_quoted ^= byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        })?;
        rest = &element[end + 1..];
    }
    (rest.len() < text.len()).then_some(rest)
}

/// RFC 3164: `Nov 22 02:02:24 host tag[pid]: …`; in many a sender's hands without a tag.
fn bsd(text: &str, has_priority: bool) -> Option<Message<'_>> {
    let (time, rest) = match text.get(..16).filter(|time| is_bsd_time(time.as_bytes())) {
        // It names no year.
        Some(_) => (None, &text[16..]),
        None if has_priority => {
            let (time, rest) = text.split_once(' ')?;
            (Some(rfc3339(time).ok()?), rest)
        }
        None => return None,
    };
    let (host, content) = rest.split_once(' ')?;
    let content = content.split_once(' ').filter(|(tag, _)| is_tag(tag)).map_or(content, |(_, message)| message);
    Some(Message { content, time, host })
}

/// `envoy:` or `envoy[812]:`. The first key of a JSON record ends in a colon as well.
fn is_tag(word: &str) -> bool {
    let Some(tag) = word.strip_suffix(':') else { return false };
    let (program, process) = tag.strip_suffix(']').and_then(|tag| tag.split_once('[')).unwrap_or((tag, ""));
    let is_program = !program.is_empty() && program.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-./".contains(&c));
    is_program && process.bytes().all(|c| c.is_ascii_digit())
}

/// `Nov 22 02:02:24 `, days below ten after a blank.
fn is_bsd_time(time: &[u8]) -> bool {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let is_shaped = time.iter().zip(b"Mmm d0 00:00:00 ").all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'd' => byte.is_ascii_digit() || *byte == b' ',
        b'M' | b'm' => byte.is_ascii_alphabetic(),
        other => byte == other,
    });
    is_shaped && MONTHS.iter().any(|month| time.starts_with(*month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_is_stepped_over() {
        for (text, expected) in [
            ("<34>1 2026-11-22T02:02:24.003Z edge-1 envoy - - - \u{feff}a b", "a b"),
            (r#"<165>1 - - envoy 812 ID47 [x@1 a="\"]"][y@2 b="]"] a b"#, "a b"),
            ("<34>Nov 22 02:02:24 edge-1 envoy[812]: a b", "a b"),
            ("<34>2026-11-22T02:02:24Z edge-1 a b", "a b"),
            ("Nov  2 02:02:24 edge-1 envoy: a b", "a b"),
            (r#"Nov  2 02:02:24 edge-1 {"a": "b"}"#, r#"{"a": "b"}"#),
        ] {
            let found = message(text).unwrap_or_else(|| panic!("a header: {text}"));
            assert_eq!(found.content, expected, "{text}");
            assert!(matches!(found.host, "edge-1" | ""), "{text}");
        }
    }

    #[test]
    fn other_lines_have_no_header() {
        for text in ["", "<", "<34>", "<abc>1 x", "<1234>Nov 22 02:02:24 h x", "November rain", "Nov 22", "<34>1 x"] {
            assert!(message(text).is_none(), "{text}");
        }
    }
}
