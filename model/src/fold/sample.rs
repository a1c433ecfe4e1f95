//! Samples for whoever mends a log: as free text is folded, but the ordinary numbers of a log stay: times, ports, and
//! what stands under the name of a status, a size, a duration or the like.

use std::net::Ipv4Addr;

use super::{append_words, named::without_secrets};

/// What the name of an ordinary number has in it. A number under another name may be a secret.
const ORDINARY: [&str; 14] = [
    "status", "code", "port", "bytes", "size", "length", "duration", "latency", "count", "elapsed", "_ms", "_ns",
    "_us", "attempt",
];
/// And what it does not have in it.
const PRIVATE: [&str; 8] = ["pass", "secret", "token", "auth", "key", "otp", "verif", "zip"];
const MAX_DIGITS: usize = 12;
const MAX_PORT_DIGITS: usize = 5;
/// A number without a name, such as a status between blanks.
const MAX_BARE_DIGITS: usize = 3;

/// Appends free text as [`append_text`](super::append_text) does, and leaves ordinary numbers legible. Not bounded: bound the text.
pub fn append_sample(text: &str, out: &mut String) {
    let text = &*without_secrets(text);
    let bytes = text.as_bytes();
    let (mut folded, mut at, mut is_query) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'?' => is_query = true,
            b'"' | b'\'' => is_query = false,
            byte if byte.is_ascii_whitespace() => is_query = false,
            _ => {}
        }
        let begins = bytes[at].is_ascii_digit() && (at == 0 || is_border(bytes[at - 1])) && !is_query;
        let end = if begins { time_end(bytes, at).or_else(|| number_end(text, at)) } else { None };
        let Some(end) = end else {
            at += 1;
            continue;
        };
        // The border stands for itself: at the end of a text it would be taken for a part of the word before it.
        let border = at.saturating_sub(1).max(folded);
        append_words(&text[folded..border], out);
        out.push_str(&text[border..end]);
        (folded, at) = (end, end);
    }
    append_words(&text[folded..], out);
}

fn is_border(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"\"':=,[]{}()".contains(&byte)
}

fn is_end(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|&byte| is_border(byte))
}

/// The end of `2026-11-22T02:02:24.122Z`, or the like with a blank or an offset in it.
fn time_end(bytes: &[u8], at: usize) -> Option<usize> {
    // `02:02:24`, as syslog has it.
    let is_clock = |head: &[u8]| {
        head.iter().enumerate().all(|(at, byte)| if at % 3 == 2 { *byte == b':' } else { byte.is_ascii_digit() })
    };
    if bytes.get(at..at + 8).is_some_and(is_clock) && is_end(bytes, at + 8) && bytes.get(at + 8) != Some(&b':') {
        return Some(at + 8);
    }
    let head = bytes.get(at..at + 19)?;
    let is_shaped = head.iter().enumerate().all(|(place, byte)| match place {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b' '),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let rest = bytes[at + 19..].iter().take_while(|byte| byte.is_ascii_digit() || b".Z+:-".contains(byte)).count();
    // Up to nanoseconds and an offset: no room for a number that is none of the time's.
    (is_shaped && rest <= 16 && is_end(bytes, at + 19 + rest)).then_some(at + 19 + rest)
}

fn number_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = at + digits;
    if !is_end(bytes, end) {
        return None;
    }
    let before = &text[..at];
    let most = match before.trim_end_matches(['"', ' ']).strip_suffix([':', '=']) {
        Some(named) if is_ordinary(name_before(named)) => MAX_DIGITS,
        // `10.0.0.7:8080`, `[::1]:8080`
        Some(named) if name_before(named).parse::<Ipv4Addr>().is_ok() || named.ends_with(']') => MAX_PORT_DIGITS,
        Some(_) => 0,
        None => MAX_BARE_DIGITS,
    };
    (digits <= most).then_some(end)
}

/// The last word of a text.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches(['"', '\\', ' ']);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    text.rfind(|c| !is_part(c)).map_or(text, |at| text[at..].trim_start_matches(|c| !is_part(c)))
}

fn is_ordinary(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    has(&ORDINARY) && !has(&PRIVATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        append_sample(text, &mut out);
        out
    }

    #[test]
    fn times_ports_statuses_and_sizes_stay_legible() {
        for text in [
            r#"{"response_code":"500","bytes_sent":104857,"duration": 3}"#,
            r#"{"start_time":"2026-02-31T02:02:24.122Z","upstream_cluster":"inbound"}"#,
            "status=503 bytes=1048576",
            "Mar 27 13:06:56 gateway sshd: listening",
            r#""GET / HTTP" 200 - 0 612"#,
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown(r#"{"remote":"10.0.0.7:32830"}"#), r#"{"remote":"{id}:32830"}"#);
    }

    #[test]
    fn what_may_be_a_secret_is_folded_all_the_same() {
        for (text, secret) in [
            (r#"{"pin":4711}"#, "4711"),
            (r#"{"card":"4111 1111 1111 1111"}"#, "1111"),
            (r#"{"response_code":4111111111111111}"#, "4111"),
            (r#"{"passcode":123456}"#, "123456"),
            (r#"{"path":"/x?port=8080&n=200"}"#, "8080"),
            (r#"{"path":"/orders/8123"}"#, "8123"),
            ("otp_code=99887", "99887"),
        ] {
            assert!(!shown(text).contains(secret), "{}", shown(text));
        }
    }
}
